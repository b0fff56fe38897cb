"""Metrics reach their file, in valid JSON and once each; the optional trackers are optional."""

import builtins
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import pipeline.tracking
from pipeline.tracking import METRICS, Tracker, TrackingError, is_metric


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
        keys = list(METRICS)[-len(values) :]
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
