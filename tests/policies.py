"""Small policies of every kind, for tests of the forms in which they compute."""

from typing import NamedTuple

import torch
from torch import nn

from mixture_of_experts import CODE_COUNTS, NUM_CODES, VIEW_CELLS, MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config

KINDS = ("moe", "mop", "mop with LayerNorm")


class Widths(NamedTuple):
    obs: int
    lang: int
    width: int
    router: int
    actions: int


def draw_codes(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Return observations of shape (*shape, 152), their codes within their vocabularies, the other numbers any."""
    obs = torch.randn(*shape, NUM_CODES + 5, generator=generator)
    for channel, count in enumerate(CODE_COUNTS):
        codes = torch.randint(count, (*shape, VIEW_CELLS), generator=generator)
        obs[..., channel * VIEW_CELLS : (channel + 1) * VIEW_CELLS] = codes
    return obs


def build_small_policy(
    kind: str,
    sizes: list[list[int]],
    widths: Widths,
    seed: int = 0,
    obs_encoding: str = "raw",
    mission_fusion: str = "concat",
) -> nn.Module:
    """Return a policy, gru or one of `KINDS`, whose weights are all away from where they begin."""
    obs, lang, width, router, actions = widths
    torch.manual_seed(seed)
    if kind == "gru":
        policy: nn.Module = GRUPolicy(obs, 7, actions, lang, obs_encoding, mission_fusion)
    elif kind == "moe":
        policy = MixtureOfExpertsPolicy(obs, width, sizes, router, actions, lang, obs_encoding, mission_fusion)
    else:
        norm = "layer" if kind == "mop with LayerNorm" else "none"
        config = create_babyai_mop_config(
            obs + lang,
            actions,
            width,
            router,
            sizes,
            expert_norm=norm,
            obs_encoding=obs_encoding,
            mission_fusion=mission_fusion,
            lang_dim=lang,
        )
        policy = StatefulMoPPolicy(config)
    with torch.no_grad():  # LayerNorms start as the identity map of their input; make their weights matter
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return policy
