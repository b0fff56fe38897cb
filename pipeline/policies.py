"""Policies as a configuration describes them: built here, untrained, their weights drawn from the run's seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from babyai.facts import NUM_ACTIONS
from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from pipeline.command.devices import derive_seed, drawn_from
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config


def build_policy(config: TrainConfig, num_actions: int = NUM_ACTIONS) -> nn.Module:
    """Return the untrained policy that a configuration describes, on the CPU, its weights drawn from `config.seed`."""
    with seeded_init(config.seed, stream=0):
        if config.policy == "gru":
            return GRUPolicy(
                config.policy_input_dim,
                config.hidden_size,
                num_actions,
                config.lang_dim,
                config.obs_encoding,
                config.mission_fusion,
            )
        if config.policy == "mop":
            sizes = create_babyai_mop_config(
                input_dim=config.policy_input_dim + config.lang_dim,
                num_actions=num_actions,
                intermediate_dim=config.intermediate_dim,
                router_dim=config.router_hidden_size,
                layers=config.expert_hidden_sizes,
                expert_norm=config.expert_norm,
                obs_encoding=config.obs_encoding,
                mission_fusion=config.mission_fusion,
                lang_dim=config.lang_dim,
            )
            return StatefulMoPPolicy(sizes)
        return MixtureOfExpertsPolicy(
            config.policy_input_dim,
            config.intermediate_dim,
            config.expert_hidden_sizes,
            config.router_hidden_size,
            num_actions,
            config.lang_dim,
            config.obs_encoding,
            config.mission_fusion,
        )


def fix_level(policy: nn.Module, config: TrainConfig, task_id: str) -> nn.Module:
    """Return the policy for one level, of the usual input: what it is told of the level has become part of a bias.

    The same function of observation and mission as with the level's one-hot vector beside them. A policy that is told
    nothing (`task_input: none`) is returned as it is.

    Args:
        policy: As `build_policy` builds it; it is not changed.
        config: Its settings.
        task_id: The level, full id.

    Raises:
        ConfigError: If the policy was not trained on that level, so that it has no number to be told.
    """
    if config.task_input == "none":
        return policy
    if task_id not in config.levels:
        raise ConfigError(
            f"{task_id}: expected a level that this policy was trained on ({', '.join(config.levels)}), since by "
            "task_input onehot it is told a level's place among them"
        )
    weights = dict(policy.state_dict())
    unprojected = config.policy == "gru" and config.obs_encoding == "raw"
    first, bias = ("gru.weight_ih_l0", "gru.bias_ih_l0") if unprojected else (
        "input_projection.weight", "input_projection.bias")  # fmt: skip
    begin, end = policy.encoder.width(config.input_dim), policy.encoder.width(config.policy_input_dim)
    wide = weights[first]
    weights[first] = torch.cat([wide[:, :begin], wide[:, end:]], dim=1)
    weights[bias] = weights[bias] + wide[:, begin + config.levels.index(task_id)]
    narrow = build_policy(dataclasses.replace(config, task_input="none"), policy.head.out_features)
    narrow.load_state_dict(weights)
    return narrow.to(wide.device).train(policy.training)


def build_projection(config: TrainConfig, encoder_width: int) -> nn.Linear:
    """Return the mission projection Linear(encoder_width -> lang_dim), drawn from `config.seed`."""
    with seeded_init(config.seed, stream=1):
        return nn.Linear(encoder_width, config.lang_dim)


@contextmanager
def seeded_init(seed: int, stream: int) -> Iterator[None]:
    """Within the block weights are drawn from (seed, stream); see `drawn_from`."""
    with drawn_from(derive_seed(seed, stream)):
        yield
