"""How policies let the mission meet what they see: beside it, or scaling it too."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mixture_of_experts import FUSIONS, MixtureOfExpertsPolicy, read_inputs
from pipeline.baseline import GRUPolicy
from pipeline.checkpoints import CheckpointError, load_policy, read_header, save_checkpoint
from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.engine.packed import pack_replicas
from pipeline.parts import part_of
from pipeline.policies import build_policy, fix_level
from stateful_mop import MoPConfig, create_babyai_mop_config
from tests.checkpoints import SMALL, logits_of, make_content
from tests.policies import draw_codes

FILM = {"mission_fusion": "film"}
SCALE = "mission_scale.weight"
POLICIES = [("moe", "raw"), ("mop", "onehot"), ("gru", "embedding")]


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def test_a_mission_scales_features_by_hand():
    """Two features of two numbers seen, and a mission of one number."""
    projection = linear([[1.0, 2.0, 10.0], [0.0, 3.0, 20.0]], [0.5, -1.0])  # its last column reads the mission
    seen, mission = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.1], [0.2]])
    beside = read_inputs(seen, mission, projection, None)
    torch.testing.assert_close(beside, torch.tensor([[3.5 + 1, 2 + 2], [2.5 + 2, -1.0 + 4]]))
    scaled = read_inputs(seen, mission, projection, linear([[5.0], [-10.0]]))
    torch.testing.assert_close(scaled, torch.tensor([[3.5 * 1.5 + 1, 2 * 0.0 + 2], [2.5 * 2 + 2, -1.0 * -1 + 4]]))


@pytest.mark.parametrize(("policy", "encoding"), POLICIES)
def test_the_same_seed_draws_the_same_weights_and_scales_of_nought_change_nothing(policy, encoding):
    config = TrainConfig(policy=policy, obs_encoding=encoding, seed=3)
    concat, film = build_policy(config), build_policy(replace(config, **FILM))
    ours, theirs = film.state_dict(), concat.state_dict()
    assert set(ours) - set(theirs) == {SCALE}
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with torch.no_grad():
        film.mission_scale.weight.zero_()
    torch.testing.assert_close(answers(film), answers(concat), rtol=1e-5, atol=1e-6)


def answers(policy: nn.Module, told: int = 0) -> torch.Tensor:
    """Return logits (R = 1, T, N, actions) of an episode of several steps."""
    generator = torch.Generator().manual_seed(1)
    obs, mission = draw_codes(1, 4, 3, generator=generator), torch.randn(1, 4, 3, 32, generator=generator)
    if told:
        obs = torch.cat([obs, torch.eye(2)[told - 1].expand(1, 4, 3, 2)], dim=-1)
    packed = pack_replicas([policy])
    with torch.no_grad():
        return packed.sequence(obs, mission, packed.init_hidden(3), torch.zeros(1, 4, 3, dtype=torch.bool)).logits


@pytest.mark.parametrize(("policy", "encoding"), POLICIES)
def test_what_a_policy_is_told_of_its_level_becomes_part_of_a_bias(policy, encoding):
    """It is scaled as what is seen."""
    config = TrainConfig(task_id=["GoToObj", "PickupLoc"], mixture="two", task_input="onehot", policy=policy,
                         obs_encoding=encoding, **FILM)  # fmt: skip
    wide = build_policy(config)
    for number, level in enumerate(config.levels, start=1):
        narrow = fix_level(wide, config, level)
        torch.testing.assert_close(answers(narrow), answers(wide, told=number), rtol=1e-5, atol=1e-6)


def test_scales_are_part_of_the_input():
    assert part_of(SCALE) == "input"


# ----------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_fusion_is_refused():
    for build in (
        lambda: MixtureOfExpertsPolicy(152, 8, [[0, 4]], 4, 7, mission_fusion="sum"),
        lambda: MoPConfig(184, 7, 8, 4, mission_fusion="sum"),
        lambda: GRUPolicy(152, 8, 7, obs_encoding="onehot", mission_fusion="sum"),
    ):
        with pytest.raises(ValueError, match="mission_fusion: expected concat or film, found 'sum'"):
            build()
    with pytest.raises(ConfigError, match=r"mission_fusion.*'sum'"):
        parse_command("", TrainConfig, ["--mission_fusion", "sum"])


def test_a_gru_that_reads_its_inputs_itself_has_no_features_to_scale():
    with pytest.raises(ConfigError, match=r"mission_fusion: expected concat with policy gru and obs_encoding raw"):
        TrainConfig(policy="gru", **FILM)
    with pytest.raises(ValueError, match="mission_fusion: expected concat with obs_encoding raw"):
        GRUPolicy(152, 8, 7, **FILM)


@pytest.mark.parametrize("width", [0, 184, -1])
def test_the_paper_s_block_has_to_know_how_wide_a_mission_is_that_scales(width):
    with pytest.raises(
        ValueError, match=f"lang_dim: expected the width of the mission vector.*1 to 183, found {width}"
    ):
        create_babyai_mop_config(184, 7, 8, 4, [[0, 4]], lang_dim=width, **FILM)


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(("policy", "encoding"), POLICIES)
def test_a_loaded_policy_reads_missions_as_the_saved_one(tmp_path, policy, encoding):
    config = TrainConfig(**{**SMALL, "input_dim": 152}, policy=policy, obs_encoding=encoding, **FILM)
    save_checkpoint(tmp_path / "a.pt", make_content(config))
    loaded = load_policy(tmp_path / "a.pt")
    assert loaded.config == config
    assert torch.equal(logits_of(loaded.policy, 152), logits_of(build_policy(config), 152))


@pytest.mark.parametrize("saved", FUSIONS)
def test_a_checkpoint_of_one_fusion_is_none_of_the_other(tmp_path, saved):
    content = make_content(TrainConfig(**SMALL, mission_fusion=saved))
    content["config"]["mission_fusion"] = next(other for other in FUSIONS if other != saved)
    save_checkpoint(tmp_path / "a.pt", content)
    with pytest.raises(CheckpointError, match=r"a\.pt: its parts do not fit together"):
        load_policy(tmp_path / "a.pt")


def test_a_checkpoint_that_says_nothing_of_fusions_has_the_mission_beside(tmp_path):
    config = TrainConfig(**SMALL)
    content = make_content(config)
    del content["config"]["mission_fusion"]
    save_checkpoint(tmp_path / "a.pt", content)
    assert read_header(tmp_path / "a.pt").config["mission_fusion"] == "concat"
    assert load_policy(tmp_path / "a.pt").config == config


def test_policies_of_different_fusions_are_not_packed_together():
    with pytest.raises(ValueError, match="one architecture"):
        pack_replicas([build_policy(TrainConfig(mission_fusion=fusion)) for fusion in FUSIONS])
