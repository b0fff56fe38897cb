"""The models in their plain form, small, and what goes into them."""

import torch

from mixture_of_experts import MixtureOfExpertsPolicy
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config

OBS, LANG, WIDTH, ROUTER, ACTIONS = 6, 3, 8, 5, 4


def small_moe(sizes=((0, 3), (2, 0, 4)), seed: int = 0) -> MixtureOfExpertsPolicy:
    torch.manual_seed(seed)
    return MixtureOfExpertsPolicy(OBS, WIDTH, [list(layer) for layer in sizes], ROUTER, ACTIONS, LANG)


def small_mop(sizes=((0, 3), (2, 0, 4)), seed: int = 0, expert_norm: str = "none") -> StatefulMoPPolicy:
    torch.manual_seed(seed)
    layers = [list(layer) for layer in sizes]
    return StatefulMoPPolicy(
        create_babyai_mop_config(OBS + LANG, ACTIONS, WIDTH, ROUTER, layers, expert_norm=expert_norm)
    )


def inputs(*leading: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*leading, OBS, generator=generator), torch.randn(*leading, LANG, generator=generator)


def routing_of(weights: list[torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {f"layer_{index}": {"router_weights": w} for index, w in enumerate(weights)}
