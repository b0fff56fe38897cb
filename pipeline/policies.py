"""Policies as a configuration describes them: built here, untrained, their weights drawn from the run's seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from babyai.facts import NUM_ACTIONS
from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from pipeline.command.devices import derive_seed, drawn_from
from pipeline.config import TrainConfig
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config


def build_policy(config: TrainConfig, num_actions: int = NUM_ACTIONS) -> nn.Module:
    """Return the untrained policy that a configuration describes, on the CPU, its weights drawn from `config.seed`."""
    with seeded_init(config.seed, stream=0):
        if config.policy == "gru":
            return GRUPolicy(config.input_dim, config.hidden_size, num_actions, config.lang_dim)
        if config.policy == "mop":
            sizes = create_babyai_mop_config(
                input_dim=config.input_dim + config.lang_dim,
                num_actions=num_actions,
                intermediate_dim=config.intermediate_dim,
                router_dim=config.router_hidden_size,
                layers=config.expert_hidden_sizes,
                expert_norm=config.expert_norm,
            )
            return StatefulMoPPolicy(sizes)
        return MixtureOfExpertsPolicy(
            config.input_dim,
            config.intermediate_dim,
            config.expert_hidden_sizes,
            config.router_hidden_size,
            num_actions,
            config.lang_dim,
        )


def build_projection(config: TrainConfig, encoder_width: int) -> nn.Linear:
    """Return the mission projection Linear(encoder_width -> lang_dim), drawn from `config.seed`."""
    with seeded_init(config.seed, stream=1):
        return nn.Linear(encoder_width, config.lang_dim)


@contextmanager
def seeded_init(seed: int, stream: int) -> Iterator[None]:
    """Within the block weights are drawn from (seed, stream); see `drawn_from`."""
    with drawn_from(derive_seed(seed, stream)):
        yield
