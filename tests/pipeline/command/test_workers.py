"""Work items, here and in processes: what is reported, what fails and dies, and how all of it stops."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.command.errors import ConfigError
from pipeline.command.workers import Event, Link, WorkItem, do_items

ROOT = Path(__file__).parents[3]


def double(link: Link, number: int) -> int:
    link.report(number)
    print("what is printed is dropped")
    return 2 * number


def misbehave(link: Link, how: str) -> object:
    if how == "refuse":
        raise ConfigError("lr: expected a number,\nfound none")
    if how == "slip":
        raise KeyError("x")
    if how == "die":
        link.report("about to die")
        os._exit(7)
    if how == "lambda":
        return lambda: None
    return how


def wait(link: Link, folder: str, name: str) -> str:
    """Wait for the wish to stop, with files that say how far it has come."""
    path = Path(folder) / name
    path.with_suffix(".begun").touch()
    try:
        link.report("begun")
        while not link.stopping():
            time.sleep(0.02)
    except KeyboardInterrupt:
        path.with_suffix(".ended").touch()
        raise
    path.with_suffix(".saved").touch()
    return "saved"


def endings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".begun")


def collect(items, jobs: int, **more) -> list[Event]:
    events: list[Event] = []
    do_items(items, jobs=jobs, report=events.append, **more)
    return events


@pytest.mark.parametrize("jobs", [1, 2])
def test_items_are_begun_in_order_and_each_tells_what_becomes_of_it(jobs, capfd):
    items = [WorkItem(f"number {n}", double, (n,)) for n in range(6)]
    events = collect(items, jobs)
    assert [event.item for event in events if event.kind == "started"] == items or jobs > 1
    for n, item in enumerate(items):
        mine = [(event.kind, event.content) for event in events if event.item == item]
        assert mine == [("started", None), ("progress", n), ("done", 2 * n)]
    if jobs > 1:
        assert capfd.readouterr().out == ""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_item_is_named_and_the_others_go_on(jobs, capfd):
    events = collect([WorkItem(how, misbehave, (how,)) for how in ("refuse", "slip", "well")], jobs)
    ends = {event.item.name: (event.kind, event.content) for event in events if event.kind in ("done", "failed")}
    assert ends == {
        "refuse": ("failed", "lr: expected a number, found none"),
        "slip": ("failed", "KeyError: 'x'"),
        "well": ("done", "well"),
    }
    err = capfd.readouterr().err
    assert "in misbehave" in err and "KeyError" in err  # our own mistake shows where it happened
    assert "ConfigError" not in err


def blocked(link: Link) -> set[signal.Signals]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_processes_are_deaf_to_what_a_terminal_sends_to_all():
    """A closed terminal ended them before they were told to save."""
    events = collect([WorkItem("a", blocked), WorkItem("b", blocked)], 2)
    found = [event.content for event in events if event.kind == "done"]
    assert len(found) == 2
    for signals in found:
        assert {signal.SIGINT, signal.SIGHUP} <= signals and signal.SIGTERM not in signals


def test_a_dead_process_is_told_of_its_item_and_replaced():
    events = collect([WorkItem(how, misbehave, (how,)) for how in ("die", "well", "fine", "die", "good")], 2)
    ends = [(event.item.name, event.kind, event.content) for event in events if event.kind in ("done", "died")]
    died = ("die", "died", "its process died (exit code 7)")
    assert sorted(ends) == sorted([died, died, *((name, "done", name) for name in ("well", "fine", "good"))])


def test_a_result_that_cannot_be_sent_is_a_failure():
    (_, event) = collect([WorkItem("lambda", misbehave, ("lambda",))], 2)
    assert event.kind == "failed" and "pickle" in event.content


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match="the third: expected a module's function and what can be pickled"):
        collect([WorkItem("the third", double, (lambda: 3,))], 2)


def test_a_thousand_items_are_taken_one_by_one():
    taken = finished = 0

    def items():
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield WorkItem(str(n), double, (n,))

    def report(event: Event) -> None:
        nonlocal finished
        finished += event.kind == "done" and event.content == 2 * int(event.item.name)
        assert taken <= finished + 2

    do_items(items(), jobs=2, report=report)
    assert finished == 1000


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_wish_to_stop_reaches_those_begun_and_begins_no_other(jobs, tmp_path):
    items = [WorkItem(name, wait, (str(tmp_path), name)) for name in "abc"]
    begun: list[str] = []
    ends: list[Event] = []

    def report(event: Event) -> None:
        if event.kind == "progress":
            begun.append(event.item.name)
        elif event.kind != "started":
            ends.append(event)

    do_items(items, jobs=jobs, report=report, stopping=lambda: len(begun) == jobs)
    assert endings(tmp_path) == ["a.saved", "b.saved"][:jobs]
    assert [event.content for event in ends] == ["saved"] * jobs


def heed(link: Link, folder: str) -> None:
    Path(folder, "begun").touch()
    try:
        while True:
            link.heed()
            time.sleep(0.02)
    except Exception:  # which a stop is not
        Path(folder, "taken for a failure").touch()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_item_that_heeds_ends_where_it_is(jobs, tmp_path):
    events = collect([WorkItem("x", heed, (str(tmp_path),))], jobs, stopping=lambda: (tmp_path / "begun").exists())
    assert [event.kind for event in events] == ["started", "stopped"]
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_an_exception_ends_all_at_once_but_not_within_a_file(tmp_path):
    begun = []

    def report(event: Event) -> None:
        begun.extend([event.item.name] * (event.kind == "progress"))
        if len(begun) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_items([WorkItem(name, wait, (str(tmp_path), name)) for name in "ab"], jobs=2, report=report)
    assert endings(tmp_path) == ["a.ended", "b.ended"]


HOST = """
import sys
from pipeline.command.workers import WorkItem, do_items
from tests.pipeline.command.test_workers import wait
if __name__ == "__main__":
    do_items([WorkItem(name, wait, (sys.argv[1], name)) for name in "ab"], jobs=2, report=lambda event: None)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_notice_when_who_started_them_is_gone(number, tmp_path):
    script = tmp_path / "host.py"
    script.write_text(HOST)
    folder = tmp_path / "files"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    host = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(folder.iterdir())) == 2)
    finally:
        host.send_signal(number)
        host.wait(timeout=60)
    ending = "saved" if number == signal.SIGKILL else "ended"
    wait_until(lambda: endings(folder) == [f"a.{ending}", f"b.{ending}"])


def wait_until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
