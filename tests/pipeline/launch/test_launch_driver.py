"""Items done without shared files, by processes in folders of their own: tries, retries, stops, what is refused."""

import json
from contextlib import closing
from pathlib import Path

import pytest

import pipeline.launch.code
import pipeline.launch.remote
from pipeline.command.errors import ConfigError
from pipeline.command.launcher import Launcher
from pipeline.command.workers import WorkItem
from pipeline.launch.driver import drive
from pipeline.launch.journal import Journal
from tests.launch_items import ProcessCarrier, count_item, misbehave


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def do(items, *, stopping=lambda: False, report=None, retries=1, jobs=None):
    """Return the events of items as (name, kind, content), and the lines of the record."""
    events = []

    def note(event):
        events.append((event.item.name, event.kind, event.content))
        if report is not None:
            report(event)

    launcher = Launcher("ray", {"retries": retries, "sync_seconds": 0.1})
    with closing(ProcessCarrier()) as carrier, Journal(Path("record") / "events.jsonl") as journal:
        drive(carrier, items, launcher=launcher, jobs=jobs, report=note, stopping=stopping, journal=journal)
    return events, [json.loads(line) for line in Path("record/events.jsonl").read_text().splitlines()]


def ends(events) -> dict:
    return {name: (kind, content) for name, kind, content in events if kind not in ("started", "progress")}


def test_items_tell_what_becomes_of_them_and_their_files_come_back(capfd):
    items = [count_item("a", 3), count_item("b", 2), *(WorkItem(h, misbehave, (h,)) for h in ("refuse", "lambda"))]
    events, lines = do(items)
    assert [(kind, content) for name, kind, content in events if name == "a"] == [
        ("started", None),
        *(("progress", number) for number in (1, 2, 3)),
        ("done", 0),
    ]
    found = ends(events)
    assert found["b"] == ("done", 0)
    assert found["refuse"] == ("failed", "lr: expected a number, found none")
    assert found["lambda"][0] == "failed" and "pickle" in found["lambda"][1]
    assert {p.name: p.read_text() for p in Path("out/a").iterdir()} == {"3.number": "6", "log.jsonl": "1\n2\n3\n"}
    states = {(line["item"], line["state"]) for line in lines}
    assert {(0, "started"), (0, "done"), (2, "failed")} <= states
    assert next(line["why"] for line in lines if line["state"] == "failed" and line["item"] == 2) == found["refuse"][1]
    assert "dropped" not in capfd.readouterr().out


def test_a_lost_item_goes_on_from_what_came_back(capfd):
    events, lines = do([count_item("a", 5, dies_at=3)])
    assert ends(events) == {"a": ("done", 3)}  # the second try began after the third number
    assert {p.name: p.read_text() for p in Path("out/a").iterdir()} == {
        "5.number": "15",
        "log.jsonl": "1\n2\n3\n4\n5\n",
    }
    assert [(line["state"], line["try"]) for line in lines] == [
        ("started", 1),
        ("lost", 1),
        ("started", 2),
        ("done", 2),
    ]
    assert "a: exit code 9; it goes on elsewhere from what has come back" in capfd.readouterr().err


def test_an_item_that_is_always_lost_is_given_up():
    events, _ = do([WorkItem("x", misbehave, ("die",)), WorkItem("y", misbehave, ("well",))])
    assert ends(events) == {"x": ("died", "exit code 9 (2 tries)"), "y": ("done", "well")}


def test_a_wish_to_stop_reaches_items_and_those_not_begun_stay():
    begun = []
    items = [count_item(name, 10_000, pause=0.01) for name in "abcdef"]

    def report(event):
        if event.kind == "progress" and event.item.name not in begun:
            begun.append(event.item.name)

    events, lines = do(items, report=report, stopping=lambda: len(begun) >= 2)
    stopped = {name for name, (kind, _) in ends(events).items() if kind == "stopped"}
    assert set(begun[:2]) <= stopped and set(ends(events)) == stopped and "f" not in stopped
    for name in stopped:  # saved after the wish, and here
        (number,) = Path("out", name).glob("*.number")
        assert int(number.stem) == len(Path("out", name, "log.jsonl").read_text().split())
    assert {line["item"] for line in lines if line["state"] == "stopped"} == {"abcdef".index(n) for n in stopped}


def test_an_exception_in_the_caller_ends_all_work():
    def report(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do([count_item("a", 10_000, pause=0.01)], report=report)


def test_a_machine_with_other_code_is_refused_in_one_message(monkeypatch):
    monkeypatch.setattr(pipeline.launch.remote, "compute_code", lambda: "0123456789abcdef")
    with pytest.raises(ConfigError, match=r"expected the driver's version of this project, .*, found .*one version"):
        do([WorkItem(str(n), misbehave, ("well",)) for n in range(5)])


def test_files_that_cannot_be_kept_fail_their_item_alone():
    Path("out").mkdir()
    Path("out/a").write_text("in the way")
    item = count_item("a", 2)
    blocked = WorkItem(item.name, item.function, item.arguments, outputs=item.outputs)
    events, _ = do([blocked, count_item("b", 2)])
    assert ends(events)["b"] == ("done", 0)
    kind, why = ends(events)["a"]
    assert kind == "failed" and why.startswith("what it has written cannot be kept here: out/a")


def test_absolute_paths_are_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match="expected a path below the current folder"):
        do([WorkItem("x", misbehave, ("well",), outputs=(tmp_path / "x",))])


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match="the third: expected a module's function"):
        do([WorkItem("the third", misbehave, (lambda: 3,))])
