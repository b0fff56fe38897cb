"""The bar of a batch evaluation: it moves with every episode, and is full in the end."""

import io

import pytest

from pipeline.command.bars import Bar
from pipeline.evaluation import progress
from pipeline.evaluation.progress import EvaluationBar


@pytest.fixture
def lines(monkeypatch):
    """Return what the bars of a test have written."""
    file = io.StringIO()
    monkeypatch.setattr(progress, "Bar", lambda **options: Bar(**options, file=file, mininterval=0, ncols=120))
    return lambda: [line.strip() for line in file.getvalue().split("\r") if line.strip()]


def test_a_single_checkpoint_moves_the_bar_with_its_episodes(lines):
    with EvaluationBar(1, 100) as bar:
        for _ in range(3):
            bar.play(20)
        assert "60/100" in lines()[-1]
        assert "0 of 1 checkpoints" in lines()[-1]
        bar.end()  # it has failed at the 61st
    assert "100/100" in lines()[-1]
    assert "1 of 1 checkpoints" in lines()[-1]


def test_what_is_done_before_and_what_is_played_twice_fill_the_bar_once(lines):
    with EvaluationBar(3, 10) as bar:
        bar.end()  # done before
        assert "10/30" in lines()[-1]
        bar.play(15)  # two together, which then fail and are played one by one
        for _ in range(2):
            bar.play(10)
            bar.end()
    counts = [int(line.split("/30")[0].split()[-1]) for line in lines() if "/30" in line]
    assert counts == sorted(counts)
    assert counts[-1] == 30
