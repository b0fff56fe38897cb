"""Slurm through submitit's local and debug executors: requeued jobs, stops, jobs that die."""

import signal
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.command.errors import ConfigError
from pipeline.command.files import Lines
from pipeline.command.folders import hold_lock
from pipeline.command.launcher import parse_launcher
from pipeline.command.workers import WorkItem
from pipeline.launch.items import launch
from pipeline.launch.journal import lock_of, open_record, read_call, read_states
from pipeline.launch.slurm import _Running
from pipeline.launch.slurm_job import EventReader, EventWriter, SlurmItem, Stopping, events_path
from tests.launch_items import count_item, misbehave

ROOT = Path(__file__).parents[3]


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="needs requirements/cluster.txt")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")  # of the jobs: the driver tells them where the project is
    monkeypatch.setattr("pipeline.launch.slurm.POLL_SECONDS", 0.2)
    monkeypatch.setattr("pipeline.launch.slurm.LATE_SECONDS", 3.0)
    return tmp_path


def do(items, executor: str = "local", **more):
    events = []
    report = more.pop("report", lambda event: None)

    def note(event):
        events.append((event.item.name, event.kind, event.content))
        report(event)

    told = f"executor={executor},folder=record,timeout_min=5,{more.pop('told', 'retries=1')}"
    launch(items, launcher=parse_launcher("slurm", told), jobs=2, report=note, **more)
    return events


class Jobs:
    """A queue that takes so many jobs at once, and does each when it is asked whether it is done."""

    def __init__(self, most: int) -> None:
        self.most, self.jobs, self.left = most, [], most

    @contextmanager
    def batch(self):
        before = len(self.jobs)
        yield
        if sum(not job.over for job in self.jobs) > self.most:
            del self.jobs[before:]
            raise RuntimeError("QOSMaxSubmitJobPerUserLimit")

    def submit(self, item):
        self.jobs.append(Job(item, len(self.jobs)))
        return self.jobs[-1]


class Job:
    def __init__(self, item, number: int) -> None:
        self.item, self.job_id, self.state, self.over, self.cancelled = item, f"{number}_0", "FAILED", False, False
        self.paths = SimpleNamespace(stderr="stderr")

    def done(self) -> bool:
        if not self.over:
            self.over = True
            self.item()
        return True

    def cancel(self, check: bool) -> None:
        self.cancelled = True


def ends(events) -> dict:
    return {name: (kind, content) for name, kind, content in events if kind not in ("started", "progress")}


def test_events_are_read_whole_whenever_they_are_written(folder):
    path = folder / "tasks" / "0.events"
    reader = EventReader(path)
    assert list(reader.read()) == []
    with EventWriter(path) as events:
        events.add("started", None, now=True)
        assert list(reader.read()) == [("started", None)]
        events.add("done", lambda: None)
    ((kind, why),) = reader.read()
    assert kind == "failed" and "pickle" in why
    with path.open("ab") as file:
        file.write(b"\x09\0\0\0\0\0\0\0half")
    assert list(reader.read()) == []
    with EventWriter(path) as events:
        assert events.count_tries() == 1
        events.add("done", 3)
    assert list(reader.read()) == [("done", 3)]


def test_events_outlive_a_disk_that_is_full_for_a_while(folder, monkeypatch):
    path = folder / "0.events"
    with EventWriter(path) as events:
        events.add("started", None, now=True)
        with monkeypatch.context() as full:

            def write(*_):
                raise OSError(28, "No space left on device")

            full.setattr(Lines, "write", write)
            events.add("progress", 1, now=True)
        events.add("done", 3)
    assert list(EventReader(path).read()) == [("started", None), ("progress", 1), ("done", 3)]


def test_more_jobs_than_slurm_takes_are_handed_in_one_after_the_other(folder, monkeypatch, capfd):
    queue = Jobs(most=3)
    monkeypatch.setattr("pipeline.launch.slurm._open_executor", lambda *_: queue)
    monkeypatch.setattr("pipeline.launch.slurm.ARRAY_SIZE", 2)
    monkeypatch.setattr("pipeline.launch.items.need_package", print)
    events = do([WorkItem(str(n), misbehave, ("well",)) for n in range(7)], executor="slurm")
    assert ends(events) == {str(n): ("done", "well") for n in range(7)} and len(queue.jobs) == 7
    assert "QOSMaxSubmitJobPerUserLimit" in capfd.readouterr().err


def test_a_second_try_that_is_over_before_the_driver_looks_is_heard(folder, monkeypatch):
    def begin(item) -> None:
        with EventWriter(events_path(item._tasks, 0)) as events:
            events.add("started", None, now=True)

    class Eager(Jobs):
        def submit(self, item):
            job = super().submit(item)
            if len(self.jobs) == 1:
                job.item = lambda: begin(item)
            else:
                job.done()
            return job

    queue = Eager(most=3)
    monkeypatch.setattr("pipeline.launch.slurm._open_executor", lambda *_: queue)
    monkeypatch.setattr("pipeline.launch.items.need_package", print)
    monkeypatch.setattr("pipeline.launch.slurm.LATE_SECONDS", 0.1)
    events = do([WorkItem("x", misbehave, ("well",))], executor="slurm")
    assert [kind for _, kind, _ in events] == ["started", "started", "done"] and len(queue.jobs) == 2


def test_a_job_that_is_out_of_the_queue_for_a_moment_has_not_ended(folder, monkeypatch):
    clock, over = [100.0], [True]
    monkeypatch.setattr("pipeline.launch.slurm.time", SimpleNamespace(monotonic=lambda: clock[0]))
    job = SimpleNamespace(done=lambda: over[0], job_id="1_0", state="UNKNOWN", paths=SimpleNamespace(stderr="stderr"))
    at = _Running(job, EventReader(folder / "0.events"))
    for seconds, is_over in ((0.0, True), (2.0, False), (2.0, True), (2.0, True)):
        clock[0] += seconds
        over[0] = is_over
        assert list(at.news(False)) == []
    clock[0] += 2.0
    assert [kind for kind, _ in at.news(False)] == ["died"]


def test_the_next_call_waits_for_a_job_that_is_about_to_end(folder):
    launcher = parse_launcher("slurm", "folder=record")
    with open_record(launcher, ["x"], ()):
        pass
    lock = hold_lock(lock_of(Path("record/tasks/0.jsonl")), 0)
    with ExitStack() as held:
        Path("record/tasks").mkdir()
        Path("record/tasks/0.jsonl").touch()
        held.enter_context(lock)
        release = threading.Timer(0.3, held.close)
        release.start()
        with open_record(launcher, ["y"], ()):
            assert read_call(Path("record"))["items"] == ["y"]
        release.join()


def test_the_next_call_is_refused_while_jobs_are_at_work(folder, monkeypatch):
    monkeypatch.setattr("pipeline.launch.journal.LOCK_SECONDS", 0.1)
    Path("record/tasks").mkdir(parents=True)
    Path("record/tasks/0.jsonl").touch()
    with hold_lock(lock_of(Path("record/tasks/0.jsonl")), 0):
        with pytest.raises(ConfigError, match="jobs of an earlier call are at work"):
            with open_record(parse_launcher("slurm", "folder=record"), ["y"], ()):
                pass


def test_jobs_that_are_refused_while_none_is_there_are_an_error(folder, monkeypatch):
    monkeypatch.setattr("pipeline.launch.slurm._open_executor", lambda *_: Jobs(most=0))
    monkeypatch.setattr("pipeline.launch.items.need_package", print)
    with pytest.raises(ConfigError, match="the jobs were refused: QOSMax"):
        do([WorkItem("x", misbehave, ("well",))], executor="slurm")


def test_all_jobs_that_were_handed_in_end_with_a_driver_that_fails(folder, monkeypatch):
    queue = Jobs(most=10)
    monkeypatch.setattr("pipeline.launch.slurm._open_executor", lambda *_: queue)
    monkeypatch.setattr("pipeline.launch.slurm.ARRAY_SIZE", 2)
    monkeypatch.setattr("pipeline.launch.items.need_package", print)
    items = [*(WorkItem(str(n), misbehave, ("well",)) for n in range(2)), WorkItem("bad", misbehave, (lambda: 3,))]
    with pytest.raises(TypeError, match="bad: expected a module's function"):
        do(items, executor="slurm")
    assert [job.cancelled for job in queue.jobs] == [True, True]


def test_a_job_of_a_call_that_has_given_way_does_nothing(folder):
    item = SlurmItem(folder, folder / "tasks" / "gone", 0, count_item("a", 2))
    item()
    assert list(folder.iterdir()) == []


def test_a_stop_is_heard_by_signal_or_file(folder):
    told = []
    stop = Stopping(folder / "stop", told)
    assert not stop()
    told.append(signal.SIGTERM)
    assert stop()
    (folder / "stop").touch()
    assert Stopping(folder / "stop", [])()


def test_items_tell_what_becomes_of_them(submitit):
    items = [count_item("a", 3), *(WorkItem(how, misbehave, (how,)) for how in ("refuse", "die"))]
    events = do(items, told="retries=0")
    mine = [(kind, content) for name, kind, content in events if name == "a"]
    assert mine == [("started", None), *(("progress", n) for n in (1, 2, 3)), ("done", 0)]
    found = ends(events)
    assert found["refuse"] == ("failed", "lr: expected a number, found none")
    assert found["die"][0] == "died" and "ended without a word" in found["die"][1]
    states = {state.name: state.state for state in read_states(Path("record"))}
    assert states == {"a": "done", "refuse": "failed", "die": "failed"}


def test_a_preempted_item_saves_is_requeued_and_goes_on(submitit):
    events = do([count_item("a", 6, preempted_at=3)])
    kinds = [kind for _, kind, _ in events if kind != "progress"]
    assert kinds == ["started", "started", "done"]
    assert ends(events)["a"] == ("done", 3)  # the second try began after the third number
    assert [int(line) for line in Path("out/a/log.jsonl").read_text().split()] == [1, 2, 3, 4, 5, 6]
    assert [(state.state, state.attempt) for state in read_states(Path("record"))] == [("done", 2)]


def test_an_item_whose_job_dies_goes_on_in_another_one(submitit, capfd):
    events = do([count_item("a", 5, dies_at=3)])
    assert [kind for _, kind, _ in events if kind != "progress"] == ["started", "started", "done"]
    assert ends(events)["a"] == ("done", 3)
    told = [content for _, kind, content in events if kind == "progress"]
    assert told == sorted(set(told)) and told[-2:] == [4, 5]  # nothing twice; what had waited for company is lost
    assert [(state.state, state.attempt) for state in read_states(Path("record"))] == [("done", 2)]
    assert "a: its job" in capfd.readouterr().err


def test_a_wish_to_stop_reaches_jobs(submitit):
    begun = []
    events = do(
        [count_item(name, 10_000, pause=0.02) for name in "abc"],
        report=lambda event: begun.append(event.item.name),
        stopping=lambda: len(set(begun)) == 2,
    )
    assert ends(events) == {"a": ("stopped", None), "b": ("stopped", None)}
    assert [state.state for state in read_states(Path("record"))] == ["missing"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its log files open
def test_the_debug_executor_does_items_in_this_process(submitit):
    before = signal.getsignal(signal.SIGUSR1)
    events = do([count_item("a", 2), WorkItem("refuse", misbehave, ("refuse",))], executor="debug")
    assert ends(events) == {"a": ("done", 0), "refuse": ("failed", "lr: expected a number, found none")}
    assert signal.getsignal(signal.SIGUSR1) == before


def test_where_there_is_no_slurm_that_is_told(submitit, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="expected Slurm here"):
        do([WorkItem("x", misbehave, ("well",))], executor="slurm")
