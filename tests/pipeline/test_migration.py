"""Checkpoints of outside code of this model family: what they say is kept, what they do not say is no guess."""

import pickle

import pytest
import torch

from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from pipeline.checkpoints import CheckpointError, load_policy, read_checkpoint
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config
from tests.checkpoints import FOREIGN_SIZES, logits_of, make_foreign, save_foreign


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
