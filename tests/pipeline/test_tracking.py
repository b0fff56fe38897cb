"""Metrics reach their file, in valid JSON and once each; the optional trackers are optional."""

import builtins
import contextlib
import errno
import json
import resource
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import pipeline.tracking
from pipeline.command.files import Lines
from pipeline.tracking import METRICS, Tracker, TrackingError, check_wandb, is_metric, read_metrics


def read(run_dir: Path) -> list[dict]:
    def no_constant(name: str):
        raise AssertionError(f"{name} is not JSON")

    text = (run_dir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def plain(run_dir: Path, **options) -> Tracker:
    return Tracker(run_dir, config={}, **{"tensorboard": False, **options})


@pytest.fixture
def hide(monkeypatch):
    """Return a function that makes a package look as if it were not installed."""

    def hide_package(package: str) -> None:
        original = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name == package or name.startswith(package + "."):
                raise ImportError(f"No module named {name!r}")
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        for name in list(sys.modules):
            if name == package or name.startswith(package + "."):
                monkeypatch.delitem(sys.modules, name)

    return hide_package


def test_one_line_per_call_flushed(tmp_path):
    tracker = plain(tmp_path / "run")
    tracker.log(1, {"train/task_loss": 1.5, "env_steps": 512})
    assert read(tmp_path / "run") == [{"update": 1, "env_steps": 512, "train/task_loss": 1.5}]
    tracker.log(2, {"train/lpc/layer_0": 3, "rollout/path_ratio": None})
    assert read(tmp_path / "run")[1] == {
        "update": 2,
        "env_steps": None,
        "train/lpc/layer_0": 3,
        "rollout/path_ratio": None,
    }
    tracker.close()
    tracker.close()


def test_values_json_cannot_hold(tmp_path):
    import torch

    with plain(tmp_path) as tracker:
        values = [
            float("nan"),
            float("inf"),
            np.float32(0.5),
            torch.tensor(2.0),
            np.int64(7),
            np.float64("-inf"),
        ]
        keys = [key for key in METRICS if "{" not in key][-len(values) :]
        tracker.log(np.int64(1), dict(zip(keys, values, strict=True)))
    line = read(tmp_path)[0]
    assert [line[key] for key in keys] == [None, None, 0.5, 2.0, 7, None]


@pytest.mark.parametrize(
    "key",
    [
        "train/loss",
        "train/lpc/layer_{i}",
        "train/lpc/layer_01",
        "train/lpc/layer_",
        "train/accuracy/layer_0",
        "update",
    ],
)
def test_unknown_keys_are_named(tmp_path, key):
    with plain(tmp_path) as tracker, pytest.raises(KeyError, match=key.replace("{", r"\{")):
        tracker.log(1, {"train/task_loss": 1.0, key: 1.0})
    assert read(tmp_path) == []


def test_layer_keys():
    assert is_metric("train/lpc/layer_0")
    assert is_metric("train/router_entropy/layer_12")


def test_new_run_replaces(tmp_path):
    for value in (1.0, 2.0):
        with plain(tmp_path) as tracker:
            tracker.log(1, {"train/task_loss": value})
    assert [line["train/task_loss"] for line in read(tmp_path)] == [2.0]


def test_resume_has_no_duplicates(tmp_path):
    with plain(tmp_path) as tracker:
        for update in range(1, 6):
            tracker.log(update, {"train/task_loss": float(update)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 6, "train/ta')  # killed while writing
    with plain(tmp_path, resume_update=3) as tracker:
        for update in (4, 5):
            tracker.log(update, {"train/task_loss": -1.0})
    assert [line["update"] for line in read(tmp_path)] == [1, 2, 3, 4, 5]
    assert [line["train/task_loss"] for line in read(tmp_path)] == [1.0, 2.0, 3.0, -1.0, -1.0]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_resume_with_a_last_line_cut_before_its_newline(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\n{"update": 2}')
    with plain(tmp_path, resume_update=2) as tracker:
        tracker.log(3, {})
    assert [line["update"] for line in read(tmp_path)] == [1, 2, 3]


def test_resume_without_a_file(tmp_path):
    with plain(tmp_path, resume_update=7) as tracker:
        tracker.log(8, {})
    assert [line["update"] for line in read(tmp_path)] == [8]


@pytest.mark.parametrize("line", ["not json", "[]", '{"step": 2}', '{"update": null}'])
def test_resume_of_a_damaged_file_is_refused(line, tmp_path):
    text = f'{{"update": 1}}\n{line}\n{{"update": 3}}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(TrackingError, match="line 2"):
        plain(tmp_path, resume_update=3)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_who_reads_metrics_leaves_out_half_a_line_and_names_damage_before(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    with plain(tmp_path) as tracker:
        tracker.log(1, {"env_steps": 16, "train/lpc": 2.0})
    whole = path.read_text()
    path.write_text(whole + '{"update": 2, "train/l')
    assert read_metrics(path) == [{"update": 1, "env_steps": 16, "train/lpc": 2.0}]
    path.write_text('{"update": 0, "train/l\n' + whole)
    with pytest.raises(TrackingError, match="line 1; repair or remove the file"):
        read_metrics(path)


# --- disks that are full ----------------------------------------------------------


@pytest.fixture
def full_at():
    """Return a function after which no file of this process may grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_does_not_fit_is_left_out_whole_and_told_of_once(tmp_path, full_at):
    """Half a line followed by another made the file unreadable."""
    lines = []
    tracker = plain(tmp_path, announce=lines.append)
    tracker.log(1, {"train/task_loss": 1.0})
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    full_at(len(kept) + 10)
    for update in (2, 3):
        tracker.log(update, {"train/task_loss": 1.0})
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    full_at(None)
    tracker.log(4, {"train/task_loss": 1.0})  # there is room again
    tracker.close()
    assert [line["update"] for line in read(tmp_path)] == [1, 4]
    why = f"metrics not written: {tmp_path}/metrics.jsonl: File too large"
    assert tracker.missing == why
    assert lines == [f"{why}; the run goes on, and each further line is tried"]


def test_what_cannot_be_taken_back_is_overwritten_by_the_next_line(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    lines = Lines(path)
    with path.open("ab") as other:
        other.write(b"tw")  # left by a write that failed
    lines.append("three")
    lines.close()
    assert path.read_bytes() == b"one\nthree\n"


def test_metrics_are_whole_where_nothing_fails(tmp_path):
    with plain(tmp_path) as tracker:
        tracker.log(1, {})
    assert tracker.missing is None


def test_a_disk_that_says_so_late_is_heard(tmp_path, monkeypatch):
    """NFS tells of a full disk when a file is closed."""
    whole = Lines.close

    def close(self):
        whole(self)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    tracker = plain(tmp_path, announce=lambda line: None)
    monkeypatch.setattr(Lines, "close", close)
    tracker.close()
    assert tracker.missing == f"metrics not written: {tmp_path}/metrics.jsonl: Disk quota exceeded"


# --- TensorBoard ------------------------------------------------------------------


def scalars(run_dir: Path, key: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir)).Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


@pytest.mark.parametrize(("resume_update", "expected"), [(2, [1, 1, 2, 2]), (None, [2, 2])])
def test_tensorboard_shows_each_update_once(tmp_path, resume_update, expected):
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    with Tracker(tmp_path, config={}) as tracker:
        for update in (1, 2, 3, 4):
            tracker.log(update, {"train/task_loss": 1.0, "rollout/path_ratio": None, "env_steps": update})
    with Tracker(tmp_path, config={}, resume_update=resume_update) as tracker:
        for update in (3, 4):
            tracker.log(update, {"train/task_loss": 2.0})
    steps, values = zip(*scalars(tmp_path, "train/task_loss"), strict=True)
    assert list(values) == expected
    assert steps == ((1, 2, 3, 4) if resume_update else (3, 4))
    assert len(read(tmp_path)) == len(expected)


def test_without_tensorboard(tmp_path, hide):
    hide("torch.utils.tensorboard")
    lines = []
    with Tracker(tmp_path, config={}, announce=lines.append) as tracker:
        tracker.log(1, {"train/task_loss": 1.0})
    assert len(lines) == 1
    assert "pip install tensorboard" in lines[0]
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize("when", ["a line", "the end"])
def test_tensorboard_that_cannot_write_is_left_out_from_there(when, tmp_path, full_at, capfd):
    """Its thread's traceback came besides."""
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    lines = []
    tracker = Tracker(tmp_path, config={}, announce=lines.append)
    tracker.log(1, {"train/task_loss": 1.0})
    tracker._writer.flush()
    (events,) = tmp_path.glob("events*")
    full_at(events.stat().st_size)
    tracker.log(2, {"train/task_loss": 2.0})
    if when == "a line":
        with contextlib.suppress(OSError):
            tracker._writer.flush()  # as it does by itself every two minutes
        tracker.log(3, {"train/task_loss": 3.0})
    tracker.close()
    assert len(lines) == 1
    assert lines[0].startswith(f"TensorBoard: {tmp_path}: ") and "metrics.jsonl has all" in lines[0]
    assert [line["update"] for line in read(tmp_path)] == ([1, 2, 3] if when == "a line" else [1, 2])
    assert tracker.missing is None
    assert capfd.readouterr() == ("", "")


def test_tensorboard_that_cannot_begin_is_left_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    lines = []
    monkeypatch.setattr(pipeline.tracking, "_open_tensorboard", refuse)
    with Tracker(tmp_path, config={}, announce=lines.append) as tracker:
        tracker.log(1, {})
    assert lines[0].startswith(f"TensorBoard: {tmp_path}: No space left on device")
    assert len(read(tmp_path)) == 1


def test_importing_tracking_imports_no_tracker():
    program = (
        "import sys, pipeline.tracking; trackers = {'torch', 'tensorboard', 'wandb'}; "
        "print(sorted(trackers & set(sys.modules)))"
    )
    root = Path(pipeline.tracking.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- Weights & Biases ---------------------------------------------------------------


@pytest.fixture
def fake_wandb(monkeypatch) -> list[tuple]:
    """Replace wandb by a recorder of calls."""
    calls: list[tuple] = []

    class Run:
        def define_metric(self, *args, **kwargs):
            calls.append(("define_metric", args, kwargs))

        def log(self, *args, **kwargs):
            calls.append(("log", args, kwargs))

        def finish(self, *args, **kwargs):
            calls.append(("finish", args, kwargs))

    def init(**kwargs):
        calls.append(("init", (), kwargs))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_calls(tmp_path, fake_wandb):
    with plain(tmp_path, wandb_project="project") as tracker:
        tracker.log(1, {"env_steps": 32, "train/task_loss": 1.0, "train/accuracy": None})
    (_, _, started), (_, star, step), (_, logged, log_options), (_, _, finished) = fake_wandb
    assert [name for name, _, _ in fake_wandb] == ["init", "define_metric", "log", "finish"]
    assert (started["project"], started["dir"], started["resume"]) == ("project", str(tmp_path), "allow")
    assert (star, step) == (("*",), {"step_metric": "update"})
    assert (logged, log_options) == (({"update": 1, "env_steps": 32, "train/task_loss": 1.0},), {})
    assert finished == {"exit_code": 0}


def test_wandb_is_told_name_tags_and_mode(tmp_path, fake_wandb):
    chosen = {"project": "project", "name": "first", "tags": ["one"], "mode": "offline"}
    plain(tmp_path, wandb_project=chosen).close()
    started = fake_wandb[0][2]
    assert {name: started[name] for name in chosen} == chosen and started["dir"] == str(tmp_path)


def test_wandb_resumes_under_its_id(tmp_path, fake_wandb):
    for resume_update in (None, 3, None):
        plain(tmp_path, wandb_project="project", resume_update=resume_update).close()
    first, resumed, fresh = (kwargs["id"] for name, _, kwargs in fake_wandb if name == "init")
    assert first == resumed
    assert fresh != first


def test_wandb_learns_of_a_crash(tmp_path, fake_wandb):
    with pytest.raises(ZeroDivisionError), plain(tmp_path, wandb_project="project"):
        _ = 1 / 0
    assert fake_wandb[-1] == ("finish", (), {"exit_code": 1})


def test_wandb_missing(tmp_path, hide):
    hide("wandb")
    with pytest.raises(TrackingError, match=r"pip install wandb.*wandb_project: null"):
        plain(tmp_path / "run", wandb_project="project")
    assert not (tmp_path / "run").exists()
    plain(tmp_path / "run").close()


def test_wandb_offline_for_real(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is optional: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for resume_update in (None, 1):
        with plain(tmp_path, wandb_project="project", resume_update=resume_update) as tracker:
            tracker.log(1 if resume_update is None else 2, {"train/task_loss": 1.0})
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) >= 1
    assert [line["update"] for line in read(tmp_path)] == [1, 2]


class UsageError(Exception):
    """wandb.errors.UsageError, which it raises where it has no key and nobody to ask for one."""


class CommError(Exception):
    """wandb.errors.CommError."""


NO_KEY = UsageError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")
NO_NETWORK = CommError("Run initialization has timed out after 90.0 sec.\nPlease try increasing the timeout")


def raising(error: Exception):
    def function(*_, **__):
        raise error

    return function


@pytest.mark.parametrize("error", [NO_KEY, NO_NETWORK, TimeoutError("timed out")])
@pytest.mark.parametrize("resume_update", [None, 1])
def test_wandb_that_cannot_begin_is_refused_in_one_line_and_nothing_is_touched(
    error, resume_update, tmp_path, fake_wandb, monkeypatch
):
    """The metrics of an earlier run were gone, and a traceback came."""
    with plain(tmp_path, wandb_project="project") as tracker:
        tracker.log(1, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(sys.modules["wandb"], "init", raising(error))
    with pytest.raises(TrackingError) as caught:
        plain(tmp_path, wandb_project="project", resume_update=resume_update)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "\n" not in str(caught.value)
    for word in ("wandb login", "WANDB_API_KEY", "WANDB_MODE=offline", "wandb_project: null", type(error).__name__):
        assert word in str(caught.value)


def test_wandb_is_asked_for_its_key_before_long_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(login=lambda: False))  # offline
    check_wandb()
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(login=raising(NO_KEY)))
    with pytest.raises(TrackingError, match=r"UsageError: api_key not configured .*wandb login"):
        check_wandb()


def test_wandb_that_is_missing_is_named_before_long_work(hide):
    hide("wandb")
    with pytest.raises(TrackingError, match="pip install wandb"):
        check_wandb()


@pytest.mark.parametrize("method", ["log", "finish"])
def test_wandb_that_fails_on_the_way_ends_no_run(method, tmp_path, fake_wandb, monkeypatch):
    lines = []
    tracker = plain(tmp_path, wandb_project="project", announce=lines.append)
    monkeypatch.setattr(tracker._run, method, raising(NO_NETWORK))
    for update in (1, 2):
        tracker.log(update, {})
    tracker.close()
    assert len(lines) == 1 and lines[0].startswith("Weights & Biases: CommError: Run initialization has timed out")
    assert len(read(tmp_path)) == 2 and tracker.missing is None


TABLE = {"tokens": "targets", "Loss/train": "nats", "Layer_{i}/Load": "shares", "Layer_{i}/Entropy": "nats"}


def test_another_table_and_counter(tmp_path):
    with plain(tmp_path, table=TABLE, counter="tokens") as tracker:
        tracker.log(1, {"tokens": 5, "Loss/train": 2.0, "Layer_10/Entropy": 0.5})
        tracker.log(2, {"Loss/train": 1.0})
        with pytest.raises(KeyError, match="train/task_loss"):
            tracker.log(3, {"train/task_loss": 1.0})
        with pytest.raises(KeyError, match="Layer_0/Other"):
            tracker.log(3, {}, {"Layer_0/Other": [1.0]})
    assert read(tmp_path) == [
        {"update": 1, "tokens": 5, "Loss/train": 2.0, "Layer_10/Entropy": 0.5},
        {"update": 2, "tokens": None, "Loss/train": 1.0},
    ]
    assert not is_metric("Layer_x/Load", TABLE)
    assert not is_metric("Layer_0/Load")


def test_histograms_reach_the_file_and_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with plain(tmp_path, table=TABLE, counter="tokens", tensorboard=True) as tracker:
        tracker.log(7, {"tokens": 5}, {"Layer_0/Load": np.array([0.5, 0.0, 0.5])})
    assert read(tmp_path) == [{"update": 7, "tokens": 5, "Layer_0/Load": [0.5, 0.0, 0.5]}]
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Histograms("Layer_0/Load")
    assert event.step == 7
    found = dict(zip(event.histogram_value.bucket_limit, event.histogram_value.bucket, strict=True))
    assert [found[edge] for edge in (-0.5, 0.5, 1.5, 2.5)] == [0.0, 0.5, 0.0, 0.5]


def test_histograms_reach_wandb(tmp_path, monkeypatch):
    logged = []
    run = types.SimpleNamespace(log=logged.append, finish=lambda exit_code: None, define_metric=lambda *_, **__: None)
    fake = types.SimpleNamespace(init=lambda **_: run, Histogram=lambda np_histogram: np_histogram)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with plain(tmp_path, table=TABLE, counter="tokens", wandb_project="p") as tracker:
        tracker.log(1, {"tokens": 5}, {"Layer_0/Load": [0.25, 0.75]})
    assert logged == [{"update": 1, "tokens": 5, "Layer_0/Load": ([0.25, 0.75], [-0.5, 0.5, 1.5])}]


def test_samples_have_numbers_as_layers_have():
    table = {"sample_{i}/time": "", "sample/{i}": ""}
    assert is_metric("sample_0/time", table) and is_metric("sample_12/time", table)
    assert not any(is_metric(key, table) for key in ("sample_01/time", "sample_{i}/time", "sample_1/nodes", "sample/1"))
