"""Items done without shared files, by processes in folders of their own: tries, retries, stops, what is refused."""

import json
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import pipeline.launch.code
import pipeline.launch.remote
import train_mop
from pipeline.command.errors import ConfigError
from pipeline.command.launcher import Launcher
from pipeline.command.workers import WorkItem
from pipeline.launch import items as launch_items
from pipeline.launch.driver import drive
from pipeline.launch.journal import Journal, read_states
from pipeline.launch.remote import open_parcel, serve, write_order
from pipeline.launch.waiting import TELL_SECONDS, Patience
from tests.launch_items import DesertedCarrier, ProcessCarrier, count_item, misbehave
from tests.training_runs import DEBUG


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def do(items, *, stopping=lambda: False, report=None, retries=1, jobs=None, carrier=None, **more):
    """Return the events of items as (name, kind, content), and the lines of the record."""
    events = []

    def note(event):
        events.append((event.item.name, event.kind, event.content))
        if report is not None:
            report(event)

    launcher = Launcher("ray", {"retries": retries, "sync_seconds": 0.1})
    with closing(carrier or ProcessCarrier()) as carrier, Journal(Path("record") / "events.jsonl") as journal:
        drive(carrier, items, launcher=launcher, jobs=jobs, report=note, stopping=stopping, journal=journal, **more)
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
    monkeypatch.setattr(pipeline.launch.remote, "compute_code", lambda beside: "0123456789abcdef")
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
    assert [kind for name, kind, _ in events if name == "a"] == ["started", "failed"]  # nothing is told of lost files


def test_an_input_that_cannot_be_read_fails_its_item_alone(monkeypatch):
    Path("in").mkdir()
    Path("in/x").write_text("unread")
    read = Path.read_bytes

    def read_bytes(path):
        if path == Path("in/x"):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    events, lines = do([WorkItem("x", misbehave, ("well",), inputs=(Path("in"),)), count_item("b", 2)])
    found = ends(events)
    assert found["b"] == ("done", 0)
    assert found["x"][0] == "failed" and found["x"][1].startswith("what it needs cannot be read: ")
    assert (0, "failed") in {(line["item"], line["state"]) for line in lines}


def test_a_parcel_that_is_lost_on_its_way_ends_the_try_and_not_the_item(folder):
    """What was in it came back with no later parcel, so that the item's end must not be told."""
    item, told = count_item("a", 10_000, pause=0.01), []

    def post(parcel: bytes) -> bool:
        told.append(open_parcel(parcel))
        if len(told) == 2:
            raise ConnectionError("gone")
        return False

    with pytest.raises(ConnectionError, match="gone"):
        serve(write_order(item, 0.05), post)
    assert [kind for parcel in told for kind, _ in parcel.events if kind != "progress"] == ["started"]


def test_absolute_paths_are_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match="expected a path below the current folder"):
        do([WorkItem("x", misbehave, ("well",), outputs=(tmp_path / "x",))])


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match="the third: expected a module's function"):
        do([WorkItem("the third", misbehave, (lambda: 3,))])


# ------------------------------------------------------------------------------------------------- nobody is there


def test_that_no_machine_is_there_is_told_and_the_work_goes_on_with_the_next_one(capfd):
    events, _ = do([count_item("a", 2)], carrier=DesertedCarrier(3), wait_minutes=10)
    assert ends(events) == {"a": ("done", 0)}
    told = [line for line in capfd.readouterr().err.splitlines() if "machine" in line]
    assert len(told) == 2 and told[0].startswith("expected a machine, found none. Waiting for 0 s, until 10 min are")
    assert "Ctrl-C keeps" in told[0] and "there is a machine again" in told[1]


def test_a_wait_for_machines_has_an_end(folder, monkeypatch, capfd):
    carrier = partial(drive, DesertedCarrier(10**9), wait_minutes=0.002)
    monkeypatch.setattr(launch_items, "_open", lambda *_: carrier)
    assert train_mop.main(["--config", DEBUG, "--launcher", "ray", "--launcher_options", "folder=record"]) == 2
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "expected a machine, found none; given up after" in error
    assert "wait_minutes" in error and "goes on from there" in error
    assert [state.state for state in read_states(folder / "record")] == ["missing"]


def test_a_wish_to_stop_is_heard_while_no_machine_is_there():
    asked = []
    events, _ = do(
        [count_item("a", 2)],
        carrier=DesertedCarrier(10**9),
        wait_minutes=10,
        stopping=lambda: len(asked) > 2 or asked.append(1),
    )
    assert events == []


def test_lines_of_a_wait_come_now_and_then_and_each_wait_has_its_own_time():
    now, said = 1000.0, []
    patience = Patience(15, said.append, lambda: now)
    patience.note(None)
    for seconds in (0, 1, TELL_SECONDS, 1, TELL_SECONDS - 1):
        now += seconds
        patience.note("none")
    assert [line.partition(", until")[0] for line in said] == [
        f"none. Waiting for {n}" for n in ("0 s", "5 min", "10 min")
    ]
    patience.note(None)
    now += 3600
    patience.note("none")
    now += 899
    patience.note("none")
    now += 1
    with pytest.raises(ConfigError, match="none; given up after 15 min"):
        patience.note("none")
