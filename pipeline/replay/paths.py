"""What policies would do at each step of the bot's trajectories along every single path: one expert of each layer.

    forced = force_paths(replay(agents, way, bank=True))
    forced.action[policy, path, step]

Each path is forced at one step, from the intact state before it: all weight is on its expert in each layer. As the
one-step intervention clamp to one_hot, all paths of it, but what paths have in common is computed once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.command.errors import ConfigError
from pipeline.interventions.apply import IntervenedBatch
from pipeline.interventions.numbers import compute_cross_entropy
from pipeline.interventions.spec import Intervention
from pipeline.replay.lanes import deal_steps
from pipeline.replay.player import Player
from pipeline.replay.run import Intact

MAX_PATHS = 243
"""Paths that are forced at most: five layers of three experts."""


@dataclass(frozen=True)
class ForcedPaths:
    """What P policies do along C paths at S steps.

    Attributes:
        paths: int8 (C, L), the expert of each layer.
        cost: float64 (C,), the sum over layers of size^exponent: the LPC of all weight on the path.
        action: int8 (P, C, S), the most probable action.
        ce: float32 (P, C, S), cross-entropy to the bot's action, nats.
    """

    paths: np.ndarray
    cost: np.ndarray
    action: np.ndarray
    ce: np.ndarray


def list_paths(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return all paths int8 (C, L), the last layer's expert changing fastest.

    Args:
        sizes: Hidden sizes of the experts, per layer.

    Raises:
        ConfigError: If there are none, or more than `MAX_PATHS`.
    """
    number = math.prod(map(len, sizes))
    if not sizes or number > MAX_PATHS:
        found = f"{number:,}, of {len(sizes)} layers" if sizes else "a policy without routers"
        raise ConfigError(
            f"paths: expected 1 to {MAX_PATHS}, of which each is forced at each step, found {found}; study policies of "
            "fewer layers or experts, or leave out the analyses that force paths (analyses: without needed)"
        )
    return np.array(list(itertools.product(*(range(len(layer)) for layer in sizes))), np.int8)


def cost_paths(paths: np.ndarray, sizes: Sequence[Sequence[int]], exponent: float = 2.0) -> np.ndarray:
    """Return what each path (C, L) costs, float64 (C,): size^exponent summed over layers, a skip nothing."""
    costs = [np.array([float(size) ** exponent if size else 0.0 for size in layer]) for layer in sizes]
    return np.sum([cost[experts] for cost, experts in zip(costs, paths.T, strict=True)], axis=0)


def force_paths(intact: Intact) -> ForcedPaths:
    """Return what each policy does along each path, forced for one step.

    Args:
        intact: From `replay`, with its bank.

    Raises:
        ConfigError: If there are too many paths.
        ValueError: If the bank is missing.
    """
    if intact.bank is None:
        raise ValueError("force_paths: expected states of each step; call replay(..., bank=True)")
    way, paths = intact.way, list_paths(intact.sizes)
    batch = IntervenedBatch(intact.policies, [Intervention()])
    player = Player(batch, way, intact.mission_vectors)
    shape = len(intact.policies), len(paths), len(way)
    action, ce = torch.zeros(shape, dtype=torch.int8), torch.zeros(shape)
    bots = torch.from_numpy(way.steps["expert_action"])
    for lane in deal_steps(way.t_step == 0, 1, intact.rows):
        hidden = [[cell[:, torch.from_numpy(lane.step)] for cell in cells] for cells in intact.bank]
        where, step = torch.from_numpy(lane.active), torch.from_numpy(lane.step[lane.active])
        for place, found in enumerate(player.branch(lane, hidden)):
            logits = found[:, where].float().cpu()
            action[:, place, step] = logits.argmax(dim=-1).to(torch.int8)
            ce[:, place, step] = compute_cross_entropy(logits, bots[step]).float()
    return ForcedPaths(paths, cost_paths(paths, intact.sizes, intact.lpc_exponent), action.numpy(), ce.numpy())
