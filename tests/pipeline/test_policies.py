"""Policies from a configuration: the seed decides the weights, and nothing else is touched."""

import pytest
import torch

import train
from pipeline.baseline import GRUPolicy
from pipeline.command.devices import derive_seed
from pipeline.config import TrainConfig
from pipeline.policies import build_policy, build_projection, seeded_init
from tests.checkpoints import SMALL
from tests.torch_defaults import every_default


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


@every_default
def test_same_seed_same_weights_whatever_torch_s_defaults_are(defaults):
    config = TrainConfig(**SMALL)

    def build() -> list[torch.Tensor]:
        return [*build_policy(config).state_dict().values(), *build_projection(config, 8).state_dict().values()]

    expected = build()
    with defaults():
        found = build()
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


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


def test_baseline_is_found_in_its_script_too():
    """Outside code imports it from there."""
    assert train.GRUPolicy is GRUPolicy
