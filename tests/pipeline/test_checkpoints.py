"""Checkpoints: what is saved comes back, what is foreign is migrated, what is broken or hostile is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from pipeline.checkpoints import (
    CheckpointError,
    load_policy,
    read_checkpoint,
    read_header,
    save_checkpoint,
)
from pipeline.command.devices import derive_seed
from pipeline.command.files import replace_atomically
from pipeline.config import TrainConfig
from pipeline.engine.packed import pack_replicas
from pipeline.policies import build_policy, build_projection, seeded_init
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config

ENCODER = {"kind": "builtin", "name": "builtin", "fingerprint": "f" * 64, "width": 12}
SMALL = {
    "input_dim": 6,
    "lang_dim": 3,
    "intermediate_dim": 8,
    "router_hidden_size": 5,
    "hidden_size": 7,
    "expert_hidden_sizes": [[0, 3], [2, 0, 4]],
}


def make_content(config: TrainConfig, **changes) -> dict:
    """Return what a training run saves, with an untrained policy."""
    return {
        "policy_state_dict": build_policy(config).state_dict(),
        "optimizer_state_dict": {},
        "config": {**config.to_dict(), "num_actions": 7, "update": 12},
        "update": 12,
        "lang_proj_state_dict": build_projection(config, 12).state_dict(),
        "lang_encoder": ENCODER,
        "resume": None,
        **changes,
    }


def logits_of(policy: nn.Module, obs_dim: int = 6, lang_dim: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    obs, lang = (torch.randn(1, 4, 2, width, generator=generator) for width in (obs_dim, lang_dim))
    with torch.no_grad():
        packed = pack_replicas([policy])
        return packed.sequence(obs, lang, packed.init_hidden(2), torch.zeros(1, 4, 2, dtype=torch.bool)).logits


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
    assert torch.load(tmp_path / "a.pt", weights_only=True).keys() == {"schema_version", *content}


def test_same_seed_same_weights_whatever_was_drawn_before():
    config = TrainConfig(**SMALL)
    torch.manual_seed(1)
    first = build_policy(config).state_dict()
    torch.manual_seed(2)
    expected_draw = torch.rand(3)
    torch.manual_seed(2)
    second = build_policy(config).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.rand(3), expected_draw)  # the caller's generator was not touched
    other = build_policy(TrainConfig(**{**SMALL, "seed": 1})).state_dict()
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_caller_s_generator_is_restored_after_an_error():
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    with pytest.raises(RuntimeError, match="inside"), seeded_init(0, 0):
        torch.rand(5)
        raise RuntimeError("inside")
    assert torch.equal(torch.rand(3), expected)


def test_derived_seeds_differ_between_runs_and_streams():
    seeds = {derive_seed(seed, stream) for seed in range(50) for stream in range(4)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, 2) == derive_seed(7, 2)


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


# ------------------------------------------------------------------------------------------------ foreign checkpoints

FOREIGN_SIZES = [
    [[0, 16, 32]] * 3,
    [[16, 0, 32]],
    [[4, 0], [0, 0, 4, 0]],
    [[3]],
]


def make_foreign(sizes: list[list[int]] = FOREIGN_SIZES[0], **changes) -> dict:
    """Return a checkpoint as outside code of this family writes it, with numpy numbers in its config."""
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(np.int64(152), 24, sizes, 12, 7, 32)
    return {
        "policy_state_dict": policy.state_dict(),
        "config": {
            "task_id": "BabyAI-GoToObj-v0",
            "trial": np.int64(2),
            "num_envs": np.int64(8),
            "unroll_len": np.int32(16),
            "lr": np.float64(3e-4),
            "lpc_alpha": np.float32(0.5),
            "normalize_lpc": np.bool_(True),
            "expert_hidden_sizes": [[np.int64(99)]],  # the weights know better
            "hidden_dim_of_another_project": np.int64(5),
            "max_steps": None,
        },
        "update": np.int64(1000),
        "lang_proj_state_dict": nn.Linear(768, 32).state_dict(),
        **changes,
    }


def save_foreign(path: Path, content: dict) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("sizes", FOREIGN_SIZES, ids=str)
def test_foreign_checkpoint_loads_with_the_sizes_of_its_weights(tmp_path, sizes):
    content = make_foreign(sizes)
    loaded = load_policy(save_foreign(tmp_path / "old.pt", content))
    assert loaded.policy.layer_expert_sizes == sizes
    original = MixtureOfExpertsPolicy(152, 24, sizes, 12, 7, 32)
    original.load_state_dict(content["policy_state_dict"])
    assert torch.equal(logits_of(loaded.policy, 152, 32), logits_of(original, 152, 32))
    config = loaded.config
    assert (config.policy, config.intermediate_dim, config.router_hidden_size) == ("moe", 24, 12)
    assert (config.input_dim, config.lang_dim, loaded.num_actions, loaded.update) == (152, 32, 7, 1000)


def test_numpy_numbers_of_a_foreign_config_become_plain_ones(tmp_path):
    content = read_checkpoint(save_foreign(tmp_path / "old.pt", make_foreign()))
    config = content["config"]
    values = [config[name] for name in ("trial", "num_envs", "unroll_len", "lr", "lpc_alpha", "normalize_lpc")]
    assert values == [2, 8, 16, 3e-4, 0.5, True]
    assert [type(value) for value in values] == [int, int, int, float, float, bool]
    assert type(content["update"]) is int
    assert "hidden_dim_of_another_project" not in config


def test_numpy_numbers_would_not_load_without_being_allowed_by_name(tmp_path):
    """If torch came to allow them by itself, the list of names could go."""
    path = save_foreign(tmp_path / "old.pt", make_foreign())
    with pytest.raises(pickle.UnpicklingError, match="numpy"):
        torch.load(path, weights_only=True)


def test_reading_a_foreign_checkpoint_allows_nothing_afterwards(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch lists them in any order
    read_checkpoint(save_foreign(tmp_path / "old.pt", make_foreign()))
    assert set(torch.serialization.get_safe_globals()) == before


def test_foreign_checkpoint_names_distilbert_as_its_encoder(tmp_path):
    """It does not say; the built-in encoder in its place would turn every instruction into noise."""
    loaded = load_policy(save_foreign(tmp_path / "old.pt", make_foreign()))
    assert (loaded.lang_encoder["kind"], loaded.lang_encoder["name"]) == ("huggingface", "distilbert-base-uncased")


def test_other_policies_of_the_family_are_recognised_by_their_weights(tmp_path):
    torch.manual_seed(0)
    mop = StatefulMoPPolicy(create_babyai_mop_config(184, 7, 24, 12, "0,3;2,0", expert_norm="layer"))
    gru = GRUPolicy(152, 9, 7, 32)
    for policy in (mop, gru):
        content = make_foreign(policy_state_dict=policy.state_dict())
        loaded = load_policy(save_foreign(tmp_path / "old.pt", content))
        assert type(loaded.policy) is type(policy)
        assert torch.equal(logits_of(loaded.policy, 152, 32), logits_of(policy, 152, 32))


def test_foreign_checkpoint_needs_no_config(tmp_path):
    content = make_foreign()
    del content["config"], content["update"]
    loaded = load_policy(save_foreign(tmp_path / "old.pt", content))
    assert loaded.policy.layer_expert_sizes == [[0, 16, 32]] * 3


@pytest.mark.parametrize("projection", ["absent", None])
def test_foreign_checkpoint_without_projection_is_refused(tmp_path, projection):
    content = make_foreign(lang_proj_state_dict=projection)
    if projection == "absent":
        del content["lang_proj_state_dict"]
    path = save_foreign(tmp_path / "old.pt", content)
    with pytest.raises(CheckpointError, match=r"old\.pt: has no lang_proj_state_dict.*noise"):
        load_policy(path)


def test_foreign_checkpoint_is_not_refused_for_what_evaluation_does_not_need(tmp_path):
    path = save_foreign(tmp_path / "old.pt", make_foreign(config={"device": "mps", "log_interval": 0, "lr": 0.25}))
    loaded = load_policy(path)
    assert loaded.config.lr == 0.25
    assert "lr" not in loaded.unknown_fields
    assert {"seed", "num_updates", "lpc_alpha"} <= loaded.unknown_fields
    assert loaded.config.lang_encoder == loaded.lang_encoder["name"] == "distilbert-base-uncased"


def test_digest_is_of_the_weights_not_of_the_file(tmp_path):
    content = make_foreign()
    first = load_policy(save_foreign(tmp_path / "a.pt", content)).digest
    moved = load_policy(save_foreign(tmp_path / "elsewhere.pt", {**content, "note": "copied"})).digest
    content["policy_state_dict"]["head.bias"][0] += 1e-3
    retrained = load_policy(save_foreign(tmp_path / "a.pt", content)).digest
    assert first == moved
    assert first != retrained


def truncate_router(weights: dict) -> dict:
    return {name: value for name, value in weights.items() if "router" not in name}


@pytest.mark.parametrize(
    "changes",
    [
        {"policy_state_dict": {}},
        {"policy_state_dict": {"layer.weight": torch.zeros(2)}},
        {"policy_state_dict": {"moe_layers.x.weight": torch.zeros(2)}},
        {"policy_state_dict": {"moe_layers.": torch.zeros(2)}},
        {"policy_state_dict": {1: torch.zeros(2), "a": 2}},
        {"policy_state_dict": {"gru.weight_ih_l0": 1, "gru.weight_hh_l0": 2}},
        {"policy_state_dict": truncate_router(make_foreign()["policy_state_dict"])},
        {"lang_proj_state_dict": {}},
        {"lang_proj_state_dict": {"weight": 3}},
        {"config": [1, 2]},
        {"config": {"num_envs": "many"}},
        {"config": {"lr": -1.0}},
        {"update": None},
        {"update": "last"},
    ],
)
def test_foreign_checkpoint_that_makes_no_sense_is_refused_by_name(tmp_path, changes):
    path = save_foreign(tmp_path / "old.pt", make_foreign(**changes))
    with pytest.raises(CheckpointError, match=r"old\.pt"):
        load_policy(path)


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


# ------------------------------------------------------------------------------------------------------------- files


def test_replacing_a_file_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        with replace_atomically(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent  # another file system would not rename atomically
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), replace_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_is_whole_until_the_new_one_is(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_replaced_file_has_the_mode_that_open_gives(tmp_path):
    """Temporary files are private; a checkpoint for a colleague should not be."""
    (tmp_path / "plain").touch()
    with replace_atomically(tmp_path / "replaced") as temporary:
        temporary.touch()
    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, make_content(TrainConfig(**SMALL)))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, {"policy_state_dict": {}, "resume": lambda: None})
    assert load_policy(path).update == 12
    assert list(tmp_path.iterdir()) == [path]


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
