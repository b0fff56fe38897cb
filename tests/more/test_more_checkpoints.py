"""Checkpoints of language models: what they hold, which are refused, and which is the newest sound one."""

import pytest
import torch

from more.checkpoints import (
    CheckpointError,
    check_flags,
    list_numbered,
    load_model,
    read_checkpoint,
)
from more.runs import run_training
from pipeline.config import ConfigError
from tests.checkpoints import fill_disk, flip_in
from tests.more_settings import small_config, small_trainer


def test_a_checkpoint_is_all_that_is_needed(tmp_path):
    trainer = small_trainer(tmp_path, model_type="more_b", num_recurrences=2)
    trainer.run_update()
    path = tmp_path / "model.pth"
    trainer.save(path, resumable=False)
    assert "optimizer_state_dict" not in torch.load(path, weights_only=True)
    loaded = load_model(path)
    assert loaded.model.config == trainer.model_config
    assert not loaded.model.training
    assert loaded.tokenizer.digest == trainer.tokenizer.digest
    assert (loaded.update, loaded.tokens) == (1, trainer.tokens)
    tokens = torch.tensor([[1, 2, 3]])
    trainer.model.eval()
    assert torch.equal(loaded.model(tokens).logits, trainer.model(tokens).logits)
    check_flags(loaded, path, {"model_type": "more_b", "num_recurrences": None})
    with pytest.raises(ConfigError, match=r"num_recurrences: 4 was given, and .*model.pth was trained with 2"):
        check_flags(loaded, path, {"num_recurrences": 4})


def test_checkpoints_that_cannot_be_used(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path / "none.pth")
    path = tmp_path / "broken.pth"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty, damaged"):
        load_model(path)
    torch.save({"policy_state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="language model"):
        load_model(path)
    trainer = small_trainer(tmp_path)
    trainer.save(path, resumable=False)
    content = read_checkpoint(path)
    torch.save({**content, "schema_version": 99}, path)
    with pytest.raises(CheckpointError, match="schema_version 1, found 99"):
        load_model(path)
    torch.save({**content, "model_config": {**content["model_config"], "d_model": 32}}, path)
    with pytest.raises(CheckpointError, match="do not fit together"):
        load_model(path)


def test_a_damaged_newest_checkpoint_is_named_with_the_one_to_go_on_from(tmp_path, capsys):
    config = small_config(tmp_path)
    folder = tmp_path / "checkpoint_dir" / config.run_name()
    trainer = small_trainer(tmp_path)
    for update in (1, 2, 3):
        trainer.run_update()
        trainer.save(folder / f"checkpoint_{update}.pth", resumable=True)
    second, last = (folder / f"checkpoint_{update}.pth" for update in (2, 3))
    flip_in(last, read_checkpoint(last)["optimizer_state_dict"]["state"][0]["exp_avg"])
    with pytest.raises(CheckpointError) as caught:
        run_training(config, resume=True, quiet=True)
    assert str(caught.value) == (
        f"{last}: it is damaged: the state to resume from is not what was saved; restore it from a copy. The newest "
        f"sound checkpoint before it is {second}, of update 2. To go on from there, delete or rename checkpoint_3.pth, "
        "and pass --resume"
    )
    last.unlink()
    assert run_training(config, resume=True, quiet=True) == 0

    final = folder / "final_model.pth"
    flip_in(final, next(iter(read_checkpoint(final)["model_state_dict"].values())))
    with pytest.raises(CheckpointError, match=r"final_model\.pth: it is damaged: its weights") as caught:
        run_training(config, resume=True, quiet=True)
    assert ("checkpoint_2.pth, of update 2" in str(caught.value)) == second.exists()


def test_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    trainer = small_trainer(tmp_path)
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left on device"):
        trainer.save(tmp_path / "model.pth", resumable=False)


class Sealed:
    """No plain data."""


def test_objects_in_a_checkpoint_are_named_and_not_loaded(tmp_path):
    path = tmp_path / "model.pth"
    small_trainer(tmp_path).save(path, resumable=False)
    torch.save({**read_checkpoint(path), "extra": Sealed()}, path)
    with pytest.raises(CheckpointError, match=rf"model\.pth: holds {__name__}\.Sealed.*can run code"):
        load_model(path)


def test_numbered_checkpoints_are_ordered_as_numbers(tmp_path):
    for update in (250, 1000, 30):
        (tmp_path / f"checkpoint_{update}.pth").touch()
    (tmp_path / "checkpoint_x.pth").touch()
    assert [path.name for path in list_numbered(tmp_path)] == [f"checkpoint_{n}.pth" for n in (30, 250, 1000)]
