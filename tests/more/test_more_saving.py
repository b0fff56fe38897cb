"""What is saved of a language model when disks are full, by time, from a thread."""

import dataclasses
import errno
import json
import resource
import sys
import threading
import types

import pytest
import torch

import more.runs
import more.training
from more.checkpoints import read_checkpoint, save_checkpoint
from more.commands import train
from more.compare import CompareSettings, Run, run_item
from more.runs import run_training
from more.training import Trainer, UnsavedError
from pipeline.command.errors import UserError
from pipeline.command.files import Lines
from pipeline.command.stopwatch import Stopwatch
from pipeline.command.workers import Link
from pipeline.tracking import TrackingError
from tests.more_settings import CACHE, SIZES, small_config, small_flags

FULL = OSError(errno.ENOSPC, "No space left on device")
RUN = "base_rec1"


def folder_of(tmp_path):
    return tmp_path / "checkpoint_dir" / RUN


def saved(tmp_path) -> list[str]:
    return sorted(path.name for path in folder_of(tmp_path).iterdir())


@pytest.fixture
def full(monkeypatch):
    """Return a function that lets no checkpoint of these names be written."""

    def fill(*names: str) -> None:
        def save(path, content):
            if path.name in names:
                raise FULL
            save_checkpoint(path, content)

        monkeypatch.setattr(more.training, "save_checkpoint", save)

    return fill


@pytest.fixture
def full_logs(monkeypatch):
    """Let no metrics be written from update 4 on."""
    append = Lines.append

    def fill(self, line):
        if json.loads(line)["update"] >= 4:
            raise FULL
        append(self, line)

    monkeypatch.setattr(Lines, "append", fill)


def test_a_checkpoint_on_the_way_that_cannot_be_written_is_told_of_and_the_next_is_tried(tmp_path, full, capsys):
    full("checkpoint_2.pth", "checkpoint_3.pth")
    assert run_training(small_config(tmp_path, checkpoint_interval=1)) == 0
    assert saved(tmp_path) == ["checkpoint_5.pth", "final_model.pth"]
    why = "No space left on device; training goes on, and the next one is tried"
    told = [line for line in capsys.readouterr().out.splitlines() if "not written" in line]
    assert told == [f"checkpoint not written: {folder_of(tmp_path)}/checkpoint_2.pth: {why}"]


@pytest.mark.parametrize("interval", [0, 2])
def test_a_final_checkpoint_that_cannot_be_written_fails_the_run(interval, tmp_path, full, monkeypatch, capsys):
    full("final_model.pth")
    monkeypatch.chdir(tmp_path)
    flags = small_flags(cache_dir=CACHE, tensorboard="false", checkpoint_interval=interval, checkpoint_dir="c")
    assert train(flags) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    rest = f"goes on from c/{RUN}/checkpoint_4.pth" if interval else "starts the run again: there is no earlier one"
    path = f"c/{RUN}/final_model.pth"
    assert (
        last == f"failed: checkpoint not written: {path}: No space left on device; once there is room, --resume {rest}"
    )
    full()
    assert train([*flags, "--resume"]) == 0


def test_a_checkpoint_at_a_stop_that_cannot_be_written_is_named(tmp_path, full):
    full("checkpoint_3.pth")
    asked = iter([False, False, False, True])
    with pytest.raises(UnsavedError, match=r"checkpoint_3\.pth: No space left on device"):
        run_training(small_config(tmp_path), quiet=True, stopping=lambda: next(asked))


def test_a_real_limit_to_files_leaves_no_traceback_and_no_half_file(tmp_path, monkeypatch, capsys):
    """Torch's writer told of an "unexpected pos" in a traceback."""
    monkeypatch.chdir(tmp_path)
    flags = small_flags(cache_dir=CACHE, tensorboard="false")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code = train(flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert code == 1 and "Traceback" not in err
    assert f"failed: checkpoint not written: checkpoints/{RUN}/final_model.pth: File too large" in err
    assert not list((tmp_path / "checkpoints").rglob("*final*"))


def test_a_full_disk_of_the_logs_ends_no_run(tmp_path, full_logs, capsys):
    assert run_training(small_config(tmp_path)) == 1
    out, err = capsys.readouterr()
    why = f"metrics not written: {tmp_path}/log_dir/{RUN}/metrics.jsonl: No space left on device"
    assert out.count(why) == 1
    assert f"incomplete: {why}\n" in err
    assert saved(tmp_path) == ["final_model.pth"]
    lines = (tmp_path / "log_dir" / RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == [2]


@pytest.mark.parametrize("interval", [2, 3])
def test_a_comparison_takes_a_run_that_lacks_some_metrics_and_names_one_without_any(
    interval, tmp_path, full_logs, monkeypatch
):
    original = more.compare.run_config
    changes = {**SIZES, "match": "none", "log_interval": 2 if interval == 2 else 100}
    monkeypatch.setattr(more.compare, "run_config", lambda *run: dataclasses.replace(original(*run), **changes))
    settings = CompareSettings(
        preset="debug", updates=5, match="none", folder=str(tmp_path), cache_dir=CACHE, num_questions=1, max_documents=1
    )
    link = Link(lambda content: None, lambda: False)
    if interval == 2:
        run_item(link, settings, Run("base", 1, 0))
        assert (tmp_path / RUN / "seed_0" / "result.json").is_file()
    else:
        with pytest.raises(UserError, match=r"metrics\.jsonl: expected the run's metrics, found none; delete"):
            run_item(link, settings, Run("base", 1, 0))


def test_a_table_that_cannot_be_written_on_the_way_ends_no_other_run(tmp_path, monkeypatch):
    ended = []

    def refuse(settings, output):
        if 0 < len(ended) < 3:
            raise FULL

    monkeypatch.setattr(more.compare, "run_item", lambda link, settings, run: ended.append(run.seed))
    monkeypatch.setattr(more.compare, "write_tables", refuse)
    (tmp_path / "table.md").write_text("the table")
    settings = CompareSettings(preset="debug", variants="base", seeds="0-2", folder=str(tmp_path), cache_dir=CACHE)
    assert more.compare.compare(settings, tmp_path / "table.json") == 0
    assert ended == [0, 1, 2]


def by_time(monkeypatch) -> None:
    """Let as many minutes pass as are wanted, at each update."""
    monkeypatch.setattr(
        more.runs, "Stopwatch", lambda minutes: Stopwatch(minutes, iter(range(0, 10**9, 3600)).__next__)
    )


def test_checkpoints_by_time_take_each_other_s_place_and_go_in_the_end(tmp_path, monkeypatch):
    by_time(monkeypatch)
    found = []
    run_update = Trainer.run_update

    def noting(trainer):
        if folder_of(tmp_path).exists():
            found.append([name for name in saved(tmp_path) if name.startswith("checkpoint")])
        run_update(trainer)

    monkeypatch.setattr(Trainer, "run_update", noting)
    assert run_training(small_config(tmp_path), quiet=True) == 0
    assert found == [[], *([f"checkpoint_{n}.pth"] for n in range(1, 6))]
    assert saved(tmp_path) == ["final_model.pth"]


def test_what_is_learned_does_not_depend_on_them_nor_does_whose_run_it_is(tmp_path, monkeypatch):
    plain = small_config(tmp_path / "plain", checkpoint_minutes=0.0)
    assert run_training(plain, quiet=True) == 0
    by_time(monkeypatch)
    assert run_training(small_config(tmp_path / "timed"), quiet=True) == 0
    first, second = (read_checkpoint(folder_of(tmp_path / name) / "final_model.pth") for name in ("plain", "timed"))
    for name, weight in first["model_state_dict"].items():
        assert torch.equal(weight, second["model_state_dict"][name]), name
    assert "checkpoint_minutes" not in plain.identity()


def test_the_final_checkpoint_takes_the_place_of_one_by_time_that_a_kill_has_left(tmp_path, monkeypatch):
    by_time(monkeypatch)
    run_update = Trainer.run_update

    def kill(trainer):
        if trainer.update == 3:
            raise KeyError("as if it were killed")
        run_update(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_update", kill)
        with pytest.raises(KeyError):
            run_training(small_config(tmp_path), quiet=True)
    assert saved(tmp_path) == ["checkpoint_3.pth"]
    assert run_training(small_config(tmp_path, checkpoint_minutes=0.0), quiet=True, resume=True) == 0
    assert saved(tmp_path) == ["final_model.pth"]


def test_of_those_to_resume_from_the_newest_alone_is_kept_after_a_stop_and_at_the_end(tmp_path):
    config = small_config(tmp_path, checkpoint_interval=2)
    asked = iter([False] * 3 + [True])
    assert run_training(config, quiet=True, stopping=lambda: next(asked)) == 143
    assert saved(tmp_path) == ["checkpoint_3.pth"]
    read = read_checkpoint(folder_of(tmp_path) / "checkpoint_3.pth")
    save_checkpoint(folder_of(tmp_path) / "checkpoint_1.pth", {**read, "update": 1})  # as an earlier version left it
    later = dataclasses.replace(config, checkpoint_interval=0)
    assert run_training(later, quiet=True, resume=True) == 0
    assert saved(tmp_path) == ["checkpoint_3.pth", "final_model.pth"]


def test_no_checkpoint_goes_where_the_one_of_a_stop_cannot_be_written(tmp_path, full):
    full("checkpoint_3.pth")
    asked = iter([False] * 3 + [True])
    with pytest.raises(UnsavedError, match=r"goes on from .*checkpoint_2\.pth"):
        run_training(small_config(tmp_path, checkpoint_interval=2), quiet=True, stopping=lambda: next(asked))
    assert saved(tmp_path) == ["checkpoint_2.pth"]


def test_training_can_be_called_from_a_thread(tmp_path):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_training(small_config(tmp_path), quiet=True)))
    thread.start()
    thread.join()
    assert codes == [0]


def test_no_key_of_wandb_is_told_before_anything_is_touched(tmp_path, monkeypatch):
    config = small_config(tmp_path, wandb_project="p")

    def login():
        raise RuntimeError("api_key not configured (no-tty)")

    assert run_training(small_config(tmp_path), quiet=True) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(login=login))
    with pytest.raises(TrackingError, match=r"api_key not configured .*WANDB_MODE=offline"):
        run_training(config, overwrite=True, quiet=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused(value, tmp_path):
    with pytest.raises(UserError, match="checkpoint_minutes"):
        small_config(tmp_path, checkpoint_minutes=value)
