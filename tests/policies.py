"""Small policies of every kind, for tests of the forms in which they compute."""

from typing import NamedTuple

import torch
from torch import nn

from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config

KINDS = ("moe", "mop", "mop with LayerNorm")


class Widths(NamedTuple):
    obs: int
    lang: int
    width: int
    router: int
    actions: int


def build_small_policy(kind: str, sizes: list[list[int]], widths: Widths, seed: int = 0) -> nn.Module:
    """Return a policy, gru or one of `KINDS`, whose weights are all away from where they begin."""
    obs, lang, width, router, actions = widths
    torch.manual_seed(seed)
    if kind == "gru":
        policy: nn.Module = GRUPolicy(obs, 7, actions, lang)
    elif kind == "moe":
        policy = MixtureOfExpertsPolicy(obs, width, sizes, router, actions, lang)
    else:
        norm = "layer" if kind == "mop with LayerNorm" else "none"
        config = create_babyai_mop_config(obs + lang, actions, width, router, sizes, expert_norm=norm)
        policy = StatefulMoPPolicy(config)
    with torch.no_grad():  # LayerNorms start as the identity map of their input; make their weights matter
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return policy
