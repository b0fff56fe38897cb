"""A batch that is read in parts (`--accumulate`) gives the update that it gives at once."""

import dataclasses
import functools

import pytest
import torch
import torch.nn.functional as F

from more.checkpoints import read_checkpoint, save_checkpoint
from more.model import routing_losses
from more.parallel import cut
from more.runs import run_training
from more.settings import TrainingConfig
from pipeline.config import ConfigError
from pipeline.guard import RunFolderError
from tests.more_settings import small_config, small_trainer

CHAINS = {"preset": "chains", "seq_length": None, "num_sequences": 200, "batch_size": 7}
NO_CLIPPING = 1e9


def gradients_of(trainer) -> dict[str, torch.Tensor]:
    """Return what an update leaves in the gradients, of which nothing was cut off."""
    trainer.run_update()
    return {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def assert_close(found, expected, tolerance=2e-6):
    """Sums over the rows are taken in another order, which moves float32 in its last digits."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=tolerance * float(gradient.abs().max() + 1)), name


@pytest.mark.parametrize("data", [{}, CHAINS], ids=["text", "chains"])
@pytest.mark.parametrize("model_type", ["base", "more_a", "looped"])
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, model_type, data):
    """The z-loss too: it is a mean over tokens."""
    special = {"model_type": model_type, "num_recurrences": 2, "balance_weight": 0.0, "z_weight": 0.1, **data}
    special["grad_clip"] = NO_CLIPPING
    whole, parts = (small_trainer(tmp_path, accumulate=count, **special) for count in (1, 3))
    assert_close(gradients_of(parts), gradients_of(whole))
    (one, figures), (several, others) = whole.take_metrics(), parts.take_metrics()
    assert several["tokens"] == one["tokens"]
    for name in ("Loss/train", "Loss/z", "Grad_Norm", "Layer_0/Router_Entropy", "Layer_1/Load_Balance_CV"):
        assert several[name] == pytest.approx(one[name], rel=1e-4), name
    for layer, other in zip(figures, others, strict=True):
        assert other.load == pytest.approx(layer.load, abs=1e-6)


def test_the_balance_loss_is_the_mean_of_the_parts(tmp_path):
    """It is no mean over tokens: its load would be known only after the last part."""
    special = {"balance_weight": 0.5, "z_weight": 0.1, "grad_clip": NO_CLIPPING, "batch_size": 6}
    trainer, by_hand = (small_trainer(tmp_path, accumulate=2, **special) for _ in range(2))
    inputs, targets = (torch.from_numpy(part.copy()) for part in by_hand.plan.batch(0))
    losses, balances = [], []
    for rows in cut(len(inputs), 2):
        output = by_hand.model(inputs[rows])
        terms = routing_losses(output)
        share = inputs[rows].numel() / inputs.numel()
        cross_entropy = F.cross_entropy(output.logits.flatten(0, 1), targets[rows].flatten())
        balances.append(share * terms.balance)
        losses.append(share * (cross_entropy + 0.1 * terms.z) + 0.5 * balances[-1])
    sum(losses).backward()
    expected = {name: p.grad for name, p in by_hand.model.named_parameters() if p.grad is not None}
    assert_close(gradients_of(trainer), expected)
    metrics, _ = trainer.take_metrics()
    assert metrics["Loss/balance"] == pytest.approx(float(sum(balances).detach()), rel=1e-5)
    whole = float(routing_losses(by_hand.model(inputs)).balance.detach())
    assert metrics["Loss/balance"] == pytest.approx(whole, rel=0.1)  # near, as both are estimates of one load


def test_after_some_updates_the_weights_are_the_same_within_rounding(tmp_path):
    """AdamW divides by the size of a gradient, which makes much of what is nearly zero: hence the tolerance."""
    special = {"model_type": "more_a", "num_recurrences": 2, "balance_weight": 0.0, "z_weight": 0.0, "batch_size": 6}
    whole, parts = (small_trainer(tmp_path, accumulate=count, **special) for count in (1, 6))
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    for _ in range(6):
        whole.run_update()
        parts.run_update()
    for name, value in whole.model.state_dict().items():
        moved = (value - start[name]).norm()
        assert (parts.model.state_dict()[name] - value).norm() <= 1e-2 * moved, name


def test_parts_without_a_row_are_passed_over(tmp_path):
    """A last batch of few rows is read in fewer parts."""
    trainer = small_trainer(tmp_path, accumulate=4, batch_size=4)
    batch = trainer.plan.batch
    trainer.plan.batch = lambda number: tuple(part[:2] for part in batch(number))
    trainer.run_update()
    metrics, _ = trainer.take_metrics()
    assert metrics["tokens"] == trainer.plan.batch(0)[1].size
    assert metrics["Loss/balance"] >= 0.9


def test_every_part_drops_its_own(tmp_path):
    one, two = (small_trainer(tmp_path, accumulate=2, dropout=0.5, batch_size=2) for _ in range(2))
    row = tuple(part[:1].repeat(2, axis=0) for part in one.plan.batch(0))  # the same row twice
    masks = []
    one.plan.batch = lambda number: row
    one.model.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    one.run_update()
    assert len(masks) == 2 and not torch.equal(*masks)
    two.plan.batch = one.plan.batch
    two.run_update()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name]), name


def test_rows_are_cut_evenly():
    assert [part.stop - part.start for part in cut(7, 3)] == [2, 2, 3]
    assert [part.stop - part.start for part in cut(1, 3)] == [0, 0, 1]
    assert cut(6, 1) == [slice(0, 6)]


def test_more_parts_than_rows_are_refused():
    with pytest.raises(ConfigError, match="accumulate: expected at most batch_size parts, 8, found 9"):
        TrainingConfig(preset="debug", accumulate=9).resolve()
    with pytest.raises(ConfigError, match="accumulate: expected at least 1"):
        TrainingConfig(accumulate=0)


def test_another_number_of_parts_is_another_run_and_older_runs_had_one(tmp_path):
    config = small_config(tmp_path, updates=2)
    assert run_training(config, quiet=True) == 0
    with pytest.raises(RunFolderError, match="accumulate is 1 there, 2 here"):
        run_training(dataclasses.replace(config, accumulate=2), resume=True, quiet=True)
    (path,) = tmp_path.rglob("final_model.pth")
    content = {k: v for k, v in read_checkpoint(path).items() if k not in ("schema_version", "digests")}
    del content["training_config"]["accumulate"]
    save_checkpoint(path, content)
    settings = next(tmp_path.rglob("config.yaml"))
    kept = [line for line in settings.read_text().splitlines(keepends=True) if not line.startswith("accumulate")]
    settings.write_text("".join(kept))
    longer = dataclasses.replace(config, updates=3)
    assert run_training(longer, resume=True, quiet=True) == 0
    assert read_checkpoint(path)["training_config"]["accumulate"] == 1


def test_the_memory_is_that_of_a_part(tmp_path):
    whole, parts = (small_trainer(tmp_path, accumulate=count).least_memory for count in (1, 4))
    assert whole - parts == 2 * 4 * 300 * 48 * 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_reads_parts_too(tmp_path, monkeypatch):
    """Traced, and run without a C++ compiler, which would take minutes."""
    compiling = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr("more.training.check_compiler", lambda device: None)
    plain = small_trainer(tmp_path, accumulate=2, num_layers=1)
    monkeypatch.setattr(torch, "compile", compiling)
    compiled = small_trainer(tmp_path, accumulate=2, num_layers=1, compile=True)
    assert_close(gradients_of(compiled), gradients_of(plain), tolerance=1e-5)
