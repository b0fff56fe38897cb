"""Bars: what they say of the time left, by a clock that the test moves."""

import io

import pytest
from tqdm import tqdm

from pipeline.command.bars import Bar


def shown_by(kind: type[tqdm], seconds: list[float], **settings) -> list[dict]:
    """Return what a bar knows after updates that take so many seconds."""
    clock = [0.0]
    bar = kind(total=100, file=io.StringIO(), mininterval=0, miniters=1, ncols=100, **settings)
    bar._time = lambda: clock[0]
    bar.start_t = bar.last_print_t = 0.0
    shown = []
    for each in seconds:
        clock[0] += each
        bar.update(1)
        shown.append(dict(bar.format_dict))
    bar.close()
    return shown


def seconds_left(shown: dict) -> float | None:
    rate = shown["rate"] or (shown["n"] - shown["initial"]) / max(shown["elapsed"], 1e-9)
    return (shown["total"] - shown["n"]) / rate if rate else None


def test_a_slow_first_update_does_not_spoil_the_time_left():
    seconds = [30.0, *[0.1] * 20]
    assert seconds_left(shown_by(tqdm, seconds)[1]) > 100  # what tqdm itself would say: 98 updates of 0.1 s
    mine = [seconds_left(shown) for shown in shown_by(Bar, seconds)]
    assert mine[0] is None
    for done, left in enumerate(mine[1:], start=2):
        assert left == pytest.approx((100 - done) * 0.1, rel=0.01)


def test_a_resumed_bar_and_one_of_many_steps_count_alike():
    shown = shown_by(Bar, [5.0, 0.1, 0.1], initial=40)
    assert [one["n"] for one in shown] == [41, 42, 43]
    assert seconds_left(shown[-1]) == pytest.approx(5.7, rel=0.01)


def test_the_line_itself_says_that_the_time_is_not_known_yet():
    file = io.StringIO()
    bar = Bar(total=4, file=file, mininterval=0, ncols=80)
    bar.update(1)
    assert "1/4" in file.getvalue()
    assert "<?" in file.getvalue().split("\r")[-1]
    bar.close()


def test_a_disabled_bar_stays_silent():
    file = io.StringIO()
    with Bar(total=4, file=file, disable=True) as bar:
        bar.update(1)
        bar.update(1)
    assert file.getvalue() == ""
