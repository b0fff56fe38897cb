"""Checkpoints: what is saved comes back, what is foreign is migrated, what is broken or hostile is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import CheckpointError, load_policy, read_checkpoint, read_header, save_checkpoint
from pipeline.config import TrainConfig
from pipeline.policies import build_policy, build_projection
from tests.checkpoints import ENCODER, SMALL, fill_disk, logits_of, make_content, make_foreign, save_foreign

# ----------------------------------------------------------------------------------------------------- save and load


@pytest.mark.parametrize("policy", ["moe", "mop", "gru"])
@pytest.mark.parametrize("expert_norm", ["none", "layer"])
def test_loaded_policy_acts_as_the_saved_one(tmp_path, policy, expert_norm):
    config = TrainConfig(policy=policy, expert_norm=expert_norm, seed=3, **SMALL)
    saved, projection = build_policy(config), build_projection(config, 12)
    with torch.no_grad():
        for parameter in (*saved.parameters(), *projection.parameters()):
            parameter += torch.randn_like(parameter)  # no longer what the seed gives
    content = make_content(config, policy_state_dict=saved.state_dict(), lang_proj_state_dict=projection.state_dict())
    save_checkpoint(tmp_path / "run" / "checkpoint_12.pt", content)
    loaded = load_policy(tmp_path / "run" / "checkpoint_12.pt")
    assert type(loaded.policy) is type(saved)
    assert torch.equal(logits_of(loaded.policy), logits_of(saved))
    sentence = torch.randn(2, 12)
    assert torch.equal(loaded.projection(sentence), projection(sentence))
    assert (loaded.config, loaded.update, loaded.num_actions) == (config, 12, 7)
    assert loaded.lang_encoder == ENCODER
    assert not loaded.policy.training
    assert not any(parameter.requires_grad for parameter in loaded.projection.parameters())


def test_read_gives_back_what_was_saved(tmp_path):
    content = make_content(TrainConfig(**SMALL), resume={"generator": torch.arange(3), "window": [1, None, "x"]})
    save_checkpoint(tmp_path / "a.pt", content)
    read = read_checkpoint(tmp_path / "a.pt")
    assert read["config"] == content["config"]
    assert read["resume"]["window"] == [1, None, "x"]
    assert torch.equal(read["resume"]["generator"], torch.arange(3))
    assert torch.load(tmp_path / "a.pt", weights_only=True).keys() == {"schema_version", "digests", *content}


# ----------------------------------------------------------------------------------------------- what must be refused


class Bomb:
    """Pickles as a call that creates a file: what a hostile checkpoint does."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_bomb_works_when_it_is_let_loose(tmp_path):
    """Else the next test would prove nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))
    assert (tmp_path / "boom").exists()


@pytest.mark.parametrize("as_torch", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, as_torch):
    path, crater = tmp_path / "hostile.pt", tmp_path / "boom"
    content = {**make_content(TrainConfig(**SMALL)), "extra": Bomb(crater)}
    if as_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"policy_state_dict": Bomb(crater)}))
    with pytest.raises(CheckpointError, match=r"hostile\.pt.*can run code"):
        read_checkpoint(path)
    assert not crater.exists()


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


def write_truncated(path: Path) -> None:
    save_checkpoint(path, make_content(TrainConfig(**SMALL)))
    path.write_bytes(path.read_bytes()[:-2000])


def write_text(path: Path) -> None:
    path.write_text("not a checkpoint\n")


def write_tensor(path: Path) -> None:
    torch.save(torch.zeros(2), path)


def write_bare_weights(path: Path) -> None:
    torch.save(build_policy(TrainConfig(**SMALL)).state_dict(), path)


def write_newer(path: Path) -> None:
    torch.save({**make_content(TrainConfig(**SMALL)), "schema_version": 2}, path)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_empty, "empty, damaged"),
        (write_truncated, "empty, damaged"),
        (write_text, "empty, damaged"),
        (Path.mkdir, "cannot be read"),
        (lambda path: None, "cannot be read"),
        (write_tensor, "expected a dict with `policy_state_dict`, found Tensor"),
        (write_bare_weights, "expected a dict with `policy_state_dict`, found a dict with"),
        (write_newer, "expected schema_version 1, found 2"),
    ],
    ids=["empty", "truncated", "text", "folder", "missing", "tensor", "bare weights", "newer"],
)
def test_unusable_file_is_refused_by_name(tmp_path, write, expected):
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointError, match=rf"model\.pt: .*{expected}"):
        load_policy(path)


def without(key: str):
    return lambda content: content.pop(key)


def set_config(**changes):
    return lambda content: content["config"].update(changes)


@pytest.mark.parametrize(
    "damage",
    [
        *(without(key) for key in ("config", "update", "lang_proj_state_dict", "lang_encoder")),
        lambda content: content["policy_state_dict"].pop("head.bias"),
        lambda content: content["policy_state_dict"].update({"head.bias": torch.zeros(3)}),
        lambda content: content["lang_proj_state_dict"].pop("bias"),
        lambda content: content.update(config=[1]),
        lambda content: content.update(update="x"),
        set_config(expert_hidden_sizes=[[0, 4], [2, 0, 4]]),
        set_config(policy="mop"),
        set_config(lang_dim=4),
        set_config(num_actions="x"),
        set_config(lr=-1.0),
        set_config(device=5),
        set_config(from_the_future=1),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(tmp_path, damage):
    content = make_content(TrainConfig(**SMALL))
    damage(content)
    save_checkpoint(tmp_path / "model.pt", content)
    with pytest.raises(CheckpointError, match=r"model\.pt: its parts do not fit together"):
        load_policy(tmp_path / "model.pt")


# ----------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("foreign", [False, True])
def test_header_says_what_the_whole_checkpoint_says(tmp_path, foreign):
    path = tmp_path / "model.pt"
    if foreign:
        save_foreign(path, make_foreign())
    else:
        save_checkpoint(path, make_content(TrainConfig(seed=3, **SMALL)))
    header, content, loaded = read_header(path), read_checkpoint(path), load_policy(path)
    assert (header.update, header.lang_encoder) == (loaded.update, loaded.lang_encoder)
    assert header.config == content["config"] == {**loaded.config.to_dict(), "num_actions": 7, "update": loaded.update}
    assert header.unknown_fields == loaded.unknown_fields


@pytest.mark.parametrize("key", ["config", "update", "lang_encoder"])
def test_header_that_says_too_little_is_refused_by_name(tmp_path, key):
    content = make_content(TrainConfig(**SMALL))
    del content[key]
    save_checkpoint(tmp_path / "model.pt", content)
    with pytest.raises(CheckpointError, match=rf"model\.pt: its parts do not fit together.*{key}"):
        read_header(tmp_path / "model.pt")


def test_checkpoint_in_the_format_of_old_torch_is_read(tmp_path):
    """It is no zip file and cannot be mapped."""
    torch.save(make_foreign(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_policy(tmp_path / "old.pt").update == read_header(tmp_path / "old.pt").update == 1000


def test_what_is_read_stays_when_the_file_is_replaced_or_deleted(tmp_path):
    """A mapped file that a new one takes the place of is still there for whoever has it open."""
    path = tmp_path / "model.pt"
    content = make_content(TrainConfig(**SMALL))
    expected = {name: weight.clone() for name, weight in content["policy_state_dict"].items()}
    save_checkpoint(path, content)
    read = read_checkpoint(path)
    save_checkpoint(path, make_content(TrainConfig(**{**SMALL, "seed": 1})))
    path.unlink()
    assert all(torch.equal(read["policy_state_dict"][name], weight) for name, weight in expected.items())


def test_changing_what_was_read_changes_no_file(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, make_content(TrainConfig(**SMALL)))
    before = path.read_bytes()
    read_checkpoint(path)["policy_state_dict"]["head.bias"].fill_(5.0)
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------------- weights and files


def test_digest_is_of_the_weights_not_of_the_file(tmp_path):
    content = make_foreign()
    first = load_policy(save_foreign(tmp_path / "a.pt", content)).digest
    moved = load_policy(save_foreign(tmp_path / "elsewhere.pt", {**content, "note": "copied"})).digest
    content["policy_state_dict"]["head.bias"][0] += 1e-3
    retrained = load_policy(save_foreign(tmp_path / "a.pt", content)).digest
    assert first == moved
    assert first != retrained


@pytest.mark.parametrize("foreign", [True, False])
def test_loading_builds_no_path_from_a_checkpoint(tmp_path, foreign):
    """Whoever writes files for a checkpoint must check its task id first; loading writes nothing at all."""
    hostile = "../../outside"
    path = tmp_path / "a" / "b" / "model.pt"
    path.parent.mkdir(parents=True)
    if foreign:
        save_foreign(path, make_foreign(config={"task_id": hostile, "checkpoint_dir": hostile}))
    else:
        save_checkpoint(path, make_content(TrainConfig(task_id=hostile, checkpoint_dir=hostile, **SMALL)))
    before = sorted(tmp_path.rglob("*"))
    assert load_policy(path).config.task_id == hostile
    assert sorted(tmp_path.rglob("*")) == before


def test_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, make_content(TrainConfig(**SMALL)))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, {"policy_state_dict": {}, "resume": lambda: None})
    assert load_policy(path).update == 12
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_of_the_disk_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_1.pt"
    path.write_bytes(b"kept")
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_checkpoint(path, {"update": 1})
    assert caught.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint_1.pt"]
    assert path.read_bytes() == b"kept"
