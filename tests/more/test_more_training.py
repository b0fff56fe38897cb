"""Training of language models: what is minimised and reported, resuming bit for bit, folders."""

import dataclasses
import json
import math
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock

from more.checkpoints import (
    read_checkpoint,
    save_checkpoint,
)
from more.commands import train as main
from more.config import ModelConfig
from more.model import routing_losses
from more.progress import METRICS
from more.runs import run_training
from more.settings import TrainingConfig
from more.training import Trainer, TrainingError, compute_lr
from pipeline.command.cli import parse_command
from pipeline.command.devices import resolve_device
from pipeline.config import ConfigError
from pipeline.guard import RunFolderError
from pipeline.tracking import is_metric
from tests.more_settings import small_config, small_trainer


def lines_of(config: TrainingConfig) -> list[dict]:
    path = f"{config.log_dir}/{config.run_name()}/metrics.jsonl"
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def without_time(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "Tokens_per_Second"} for line in lines]


# ------------------------------------------------------------------------------------------------------------- settings


def test_flag_over_preset_over_default():
    assert TrainingConfig().resolve().d_model == 512
    assert TrainingConfig().resolve().data == "auto"
    debug = TrainingConfig(preset="debug").resolve()
    assert (debug.d_model, debug.data, debug.seq_length, debug.epochs) == (64, "embedded", 128, 1.0)
    assert TrainingConfig(preset="debug", d_model=32, lr=1.0, seq_length=64).resolve().d_model == 32
    assert TrainingConfig(preset="debug", updates=5).resolve().epochs is None
    assert debug.resolve() == debug
    documented = TrainingConfig(model_type="more_a", num_recurrences=4).resolve()
    assert (documented.epochs, documented.batch_size, documented.lr, documented.seed) == (1.0, 4, 1e-4, 42)
    assert (documented.seq_length, documented.log_interval, documented.run_name()) == (256, 50, "more_a_rec4")
    assert documented.model_config(50257) == ModelConfig(model_type="more_a", num_recurrences=4, match="active")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"updates": 0}, "updates: expected at least 1, found 0"),
        ({"lr": -1.0}, "lr: expected a positive number, found -1.0"),
        ({"warmup": 2.0}, "warmup: expected a share"),
        ({"epochs": 1.0, "updates": 3}, "exclude each other"),
        ({"eval_interval": -1}, "eval_interval: expected at least 0"),
    ],
)
def test_settings_out_of_range(changes, said):
    with pytest.raises(ConfigError, match=said):
        TrainingConfig(**changes)


def test_sizes_that_do_not_fit_are_a_config_error():
    with pytest.raises(ConfigError, match="d_model"):
        TrainingConfig(d_model=10).resolve().model_config(300)


def test_a_field_may_be_a_switch():
    for flags, value in (["--sample-recurrences", "--lr", "1"], True), (["--sample_recurrences", "false"], False):
        assert parse_command("", TrainingConfig, flags)[0].sample_recurrences is value


def test_the_rate_rises_and_falls():
    rates = [compute_lr(k, 100, 1.0, 0.1) for k in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.55)  # half way down a cosine from 1 to 0.1
    assert compute_lr(100, 100, 1.0, 0.1) == pytest.approx(0.1)
    assert compute_lr(0, 1, 1.0, 0.0) == 1.0


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda"):
        resolve_device("nonsense")


# --------------------------------------------------------------------------------------------------------------- update


def test_the_reported_loss_is_the_cross_entropy_alone(tmp_path):
    trainer = small_trainer(tmp_path, balance_weight=5.0, z_weight=2.0, dropout=0.0)
    inputs, targets = (torch.from_numpy(part.copy()) for part in trainer.plan.batch(0))
    with torch.no_grad():
        output = trainer.model(inputs)
        expected = F.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
        auxiliary = routing_losses(output)
    trainer.run_update()
    metrics, figures = trainer.take_metrics()
    assert metrics["Loss/train"] == pytest.approx(float(expected), rel=1e-5)
    assert metrics["Perplexity"] == pytest.approx(math.exp(float(expected)), rel=1e-5)
    assert metrics["Loss/balance"] == pytest.approx(float(auxiliary.balance), rel=1e-5)
    assert metrics["Loss/z"] == pytest.approx(float(auxiliary.z), rel=1e-5)
    assert metrics["tokens"] == targets.numel()
    assert len(figures) == 2
    assert all(is_metric(name, METRICS) for name in metrics)


def test_auxiliary_losses_are_minimised(tmp_path):
    """With all weight on the z-loss it falls, and the cross-entropy is still reported."""
    trainer = small_trainer(tmp_path, z_weight=100.0, lr=1e-2, updates=20)
    seen = []
    for _ in range(20):
        trainer.run_update()
        seen.append(trainer.take_metrics()[0])
    assert seen[-1]["Loss/z"] < seen[0]["Loss/z"]
    assert seen[-1]["Loss/train"] < 7  # log of 300 tokens is 5.7


@pytest.mark.parametrize("model_type", ["base", "more_a", "more_b", "more_c", "more_d"])
def test_every_variant_learns(tmp_path, model_type):
    trainer = small_trainer(tmp_path, model_type=model_type, num_recurrences=2, lr=1e-2, updates=25, eval_batches=5)
    before = trainer.validate()["Loss/valid"]
    for _ in range(25):
        trainer.run_update()
    assert trainer.validate()["Loss/valid"] < before - 1
    assert trainer.validate() == trainer.validate()


@pytest.mark.parametrize("model_type", ["base", "more_a", "more_b", "more_c", "more_d"])
def test_only_matrices_decay(tmp_path, model_type):
    """Gains and biases of experts are tables with a row for each expert, and no matrices."""
    trainer = small_trainer(tmp_path, model_type=model_type, num_recurrences=2)
    decayed, others = trainer.optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    assert not [name for p in decayed["params"] if (name := names[id(p)]).endswith(("bias", "gain")) or p.dim() < 2]
    spared = {names[id(p)].rpartition(".")[2] for p in others["params"] if p.dim() > 1}
    tables = {"more_a": {"attention_gain", "gain"}, "more_b": {"bias"}, "more_c": {"bias", "gate_bias"}}
    assert spared == {**tables, "more_d": {"bias"}, "base": set()}[model_type]
    count = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert count == len(list(trainer.model.parameters()))


def test_a_run_begun_when_gains_of_experts_decayed_goes_on_as_it_began(tmp_path):
    config = small_config(tmp_path, model_type="more_a", num_recurrences=2)
    first = Trainer(config, announce=lambda _: None)
    first.optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in first.model.parameters() if p.dim() > 1]},
            {"params": [p for p in first.model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
    )
    for _ in range(3):
        first.run_update()
    first.save(tmp_path / "first.pth", resumable=True)
    second = Trainer(config, announce=lambda _: None, resume=read_checkpoint(tmp_path / "first.pth"))
    for trainer in (first, second):
        trainer.run_update()
    weights = second.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in first.model.state_dict().items())


def test_sampled_recurrences_are_even_repeatable_and_used(tmp_path, monkeypatch):
    trainer = small_trainer(tmp_path, model_type="more_b", num_recurrences=3, sample_recurrences=True)
    drawn = []
    for trainer.update in range(400):
        drawn.append(trainer.draw_recurrences())
    assert set(drawn) == {1, 2, 3, 4, 5}
    assert sum(drawn) / 400 == pytest.approx(3, abs=0.25)
    again = small_trainer(tmp_path, model_type="more_b", num_recurrences=3, sample_recurrences=True)
    assert [again.draw_recurrences()] == drawn[:1]
    again.run_update()
    assert again.take_metrics()[0]["Recurrences"] == drawn[0]
    fixed = small_trainer(tmp_path, model_type="more_b", num_recurrences=3)
    assert {fixed.draw_recurrences()} == {3}


def test_a_gradient_that_is_not_finite_stops_training_with_advice(tmp_path):
    trainer = small_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.embedding.weight[:] = float("nan")
    with pytest.raises(TrainingError, match=r"update 0: the gradient is not finite.*lower --lr"):
        trainer.run_update()


def test_bfloat16_trains_and_keeps_float32_weights(tmp_path):
    trainer = small_trainer(tmp_path, precision="bfloat16", model_type="more_c", num_recurrences=2)
    trainer.run_update()
    assert math.isfinite(trainer.take_metrics()[0]["Loss/train"])
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_torch_s_generator_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer = small_trainer(tmp_path, dropout=0.1)
    trainer.run_update()
    trainer.validate()
    assert torch.equal(torch.get_rng_state(), before)


# ----------------------------------------------------------------------------------------------------------------- runs


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    changes = {"model_type": "more_d", "num_recurrences": 2, "sample_recurrences": True, "dropout": 0.2, "updates": 8}
    whole = small_config(tmp_path / "whole", **changes)
    assert run_training(whole, quiet=True) == 0
    parts = small_config(tmp_path / "parts", **changes)
    folder = tmp_path / "parts" / "checkpoint_dir" / "more_d_rec2"
    asked = iter([False] * 3 + [True])  # between two lines of metrics
    assert run_training(parts, quiet=True, stopping=lambda: next(asked)) == 143
    assert run_training(parts, resume=True, quiet=True) == 0
    first = read_checkpoint(tmp_path / "whole" / "checkpoint_dir" / "more_d_rec2" / "final_model.pth")
    second = read_checkpoint(folder / "final_model.pth")
    assert first["tokens"] == second["tokens"]
    for name, weight in first["model_state_dict"].items():
        assert torch.equal(weight, second["model_state_dict"][name]), name
    assert without_time(lines_of(whole)) == without_time(lines_of(parts))


def test_time_between_two_lines_counts_on_either_side_of_a_stop_and_not_between(tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 10))
    monkeypatch.setattr("more.progress.time", types.SimpleNamespace(perf_counter=clock.__next__))
    first = small_trainer(tmp_path)  # made at 0
    first.run_update()
    tokens = first.tokens
    first.save(tmp_path / "first.pth", resumable=True)  # at 10
    for _ in range(5):
        next(clock)
    second = Trainer(small_config(tmp_path), announce=lambda _: None, resume=read_checkpoint(tmp_path / "first.pth"))
    second.run_update()
    metrics, _ = second.take_metrics()  # 10 after it was restored
    assert metrics["Tokens_per_Second"] == second.tokens / 20 and second.tokens > tokens


def test_a_checkpoint_of_before_metrics_were_kept_is_gone_on_from(tmp_path):
    config = small_config(tmp_path, updates=4)
    asked = iter([False, True])
    assert run_training(config, quiet=True, stopping=lambda: next(asked)) == 143
    (path,) = (tmp_path / "checkpoint_dir" / "base_rec1").iterdir()
    content = read_checkpoint(path)
    digests = content["digests"]
    without = {key: value for key, value in content.items() if key not in ("metric_sums", "digests")}
    save_checkpoint(path, without)
    assert read_checkpoint(path)["digests"]["weights"] == digests["weights"]
    assert run_training(config, resume=True, quiet=True) == 0
    assert [line["update"] for line in lines_of(config)] == [2, 4]


def test_the_run_s_folder_is_protected(tmp_path, capsys):
    config = small_config(tmp_path, checkpoint_interval=2)
    assert run_training(config, quiet=True) == 0
    folder = tmp_path / "checkpoint_dir" / "base_rec1"
    # Of the checkpoints to resume from, the newest is kept.
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_4.pth", "final_model.pth"]
    assert run_training(config) == 0
    assert "complete (6 updates)" in capsys.readouterr().out
    with pytest.raises(RunFolderError, match=r"lr is 0\.001 there, 0\.5 here"):
        run_training(dataclasses.replace(config, lr=0.5), resume=True)
    (folder / "final_model.pth").unlink()
    with pytest.raises(RunFolderError, match="pass --resume to continue it"):
        run_training(config, quiet=True)
    with pytest.raises(ConfigError, match="exclude each other"):
        run_training(config, resume=True, overwrite=True)
    assert run_training(dataclasses.replace(config, lr=0.5), overwrite=True, quiet=True) == 0
    assert [line["update"] for line in lines_of(config)] == [2, 4, 6]
    assert read_checkpoint(folder / "final_model.pth")["training_config"]["lr"] == 0.5


def test_metrics_of_another_run_are_not_replaced(tmp_path):
    """A --log_dir that pointed at another run's logs wiped them."""
    first = small_config(tmp_path)
    run_training(first, quiet=True)
    path = tmp_path / "log_dir" / "base_rec1" / "metrics.jsonl"
    kept = path.read_text()
    moved = dataclasses.replace(first, checkpoint_dir=str(tmp_path / "elsewhere"))
    other = dataclasses.replace(moved, lr=0.5)
    for resume in (False, True):
        with pytest.raises(RunFolderError, match=r"holds the metrics of another run \(lr is 0\.001 there, 0\.5 here\)"):
            run_training(other, resume=resume, quiet=True)
    for resume in (False, True):  # the same settings, but the metrics' own checkpoints are elsewhere
        with pytest.raises(RunFolderError, match="has no checkpoint of theirs"):
            run_training(moved, resume=resume, quiet=True)
    assert path.read_text() == kept
    assert not (tmp_path / "elsewhere").exists()
    # Its own log: killed before its first checkpoint, a run starts afresh.
    (tmp_path / "checkpoint_dir" / "base_rec1" / "final_model.pth").unlink()
    with pytest.raises(RunFolderError, match="has no checkpoint yet; pass --resume"):
        run_training(moved, quiet=True)
    assert run_training(moved, resume=True, quiet=True) == 0
    (path.parent / "config.yaml").unlink()
    (tmp_path / "elsewhere" / "base_rec1" / "final_model.pth").unlink()
    with pytest.raises(RunFolderError, match="its settings are unknown"):
        run_training(moved, resume=True, quiet=True)
    assert run_training(other, overwrite=True, quiet=True) == 0


def test_resuming_over_metrics_of_another_run_is_refused(tmp_path):
    other = small_config(tmp_path / "other", lr=0.5)
    run_training(other, quiet=True)
    trainer = small_trainer(tmp_path)
    trainer.save(tmp_path / "checkpoint_dir" / "base_rec1" / "checkpoint_1.pth", resumable=True)
    with pytest.raises(RunFolderError, match=r"the metrics of another run \(lr is 0\.5 there, 0\.001 here\)"):
        run_training(small_config(tmp_path, log_dir=other.log_dir), resume=True, quiet=True)
    assert len(lines_of(other)) == 3


def flags_of(config: TrainingConfig) -> list[str]:
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return [
        part
        for name, value in values.items()
        for part in (f"--{name}", str(value).lower() if value is False else str(value))
    ]


def assert_refused(capsys, flags: list[str], said: str) -> None:
    capsys.readouterr()
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_damaged_metrics_are_one_line(tmp_path, capsys):
    config = small_config(tmp_path)
    trainer = small_trainer(tmp_path)
    trainer.save(tmp_path / "checkpoint_dir" / "base_rec1" / "checkpoint_1.pth", resumable=True)
    path = tmp_path / "log_dir" / "base_rec1" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('nonsense\n{"update": 1}\n')
    assert_refused(capsys, [*flags_of(config), "--resume"], "repair or remove the file")


@pytest.mark.parametrize("name", ["checkpoint_dir", "log_dir"])
def test_folders_that_cannot_be_written_to_are_one_line(tmp_path, capsys, monkeypatch, name):
    (tmp_path / "file").write_text("kept")
    config = small_config(tmp_path, **{name: str(tmp_path / "file")})
    assert_refused(capsys, flags_of(config), f"{name}: expected a folder, found the file {tmp_path / 'file'}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    locked = tmp_path / "locked"
    locked.mkdir()

    def refuse(place):
        if place == locked:
            raise OSError(30, "Read-only file system", str(place))

    monkeypatch.setattr("pipeline.command.folders.try_writing", refuse)
    config = small_config(tmp_path, **{name: str(locked / "deeper")})
    assert_refused(capsys, flags_of(config), f"{name}: expected a folder that may be written to, found {locked}")
    assert list(locked.iterdir()) == []


def test_an_error_of_the_file_system_is_one_line(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("more.runs.Tracker", fail)
    assert_refused(capsys, flags_of(small_config(tmp_path)), f"error: {tmp_path / 'x'}: No space left on device")


@pytest.mark.parametrize("name", ["checkpoint_dir", "log_dir"])
def test_two_processes_do_not_train_the_same_run(tmp_path, name):
    config = small_config(tmp_path)
    folder = Path(getattr(config, name)) / "base_rec1"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(RunFolderError, match="is being trained by another process"):
        run_training(config, overwrite=True, quiet=True)
    (folder / ".lock").touch()  # a process that was killed leaves it, and nobody holds it
    assert run_training(config, quiet=True) == 0
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        *("final_model.pth", "config.yaml", "metrics.jsonl")
    }


def test_a_run_that_is_refused_leaves_no_folders(tmp_path):
    with pytest.raises(ConfigError, match="d_model"):
        run_training(small_config(tmp_path, d_model=10), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_overwriting_deletes_what_wandb_left(tmp_path):
    wandb = tmp_path / "log_dir" / "base_rec1" / "wandb"
    wandb.mkdir(parents=True)
    (wandb / "run.wandb").touch()
    (wandb.parent / "notes.txt").touch()
    assert run_training(small_config(tmp_path), overwrite=True, quiet=True) == 0
    assert not wandb.exists()
    assert (wandb.parent / "notes.txt").exists()  # no file of a run


def test_resuming_with_other_data_is_refused(tmp_path):
    trainer = small_trainer(tmp_path)
    folder = tmp_path / "checkpoint_dir" / "base_rec1"
    trainer.data["digest"] = "of other files"
    trainer.save(folder / "checkpoint_1.pth", resumable=True)
    with pytest.raises(ConfigError, match="the data or the tokenizer is not what the run began with"):
        run_training(small_config(tmp_path), resume=True, quiet=True)


def test_validation_and_metrics_are_logged(tmp_path):
    config = small_config(tmp_path, eval_interval=3)
    run_training(config, quiet=True)
    lines = lines_of(config)
    assert [line["update"] for line in lines] == [2, 3, 4, 6]
    assert [line["update"] for line in lines if "Loss/valid" in line] == [3, 6]
    loads = lines[0]["Layer_1/Expert_Load_Distribution"]
    assert len(loads) == 3
    assert sum(loads) == pytest.approx(1)
    assert all(is_metric(name, METRICS) for line in lines for name in line if name != "update")
