"""Steps of other levels from which means, stand-ins and missions are taken (`pipeline.replay.run` finds them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from babyai.facts import SUBGOAL_NAMES
from pipeline.interventions.draws import draw_uniform, mix_keys

NUM_GROUPS = len(SUBGOAL_NAMES) + 1
"""The bot's subgoals, and behind them those steps at which it has none."""


@dataclass(frozen=True)
class Subspace:
    """A part of the states of P policies: of all cells of all layers side by side, U units.

    Attributes:
        mean: (P, U), mean state.
        basis: (P, U, K), orthonormal columns; a column of zeros is none.
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def from_arrays(cls, mean: np.ndarray, basis: np.ndarray, device: torch.device) -> Subspace:
        """Return the subspace of arrays, on a device."""
        return cls(torch.from_numpy(mean).to(device), torch.from_numpy(basis).to(device))

    def remove(self, state: Tensor) -> Tensor:
        """Return states (P, M, U) whose part in the subspace is that of the mean."""
        inside = torch.bmm(state - self.mean[:, None], self.basis)
        return state - torch.bmm(inside, self.basis.mT)


@dataclass(frozen=True)
class Donors:
    """What P policies computed at S steps of the bot's trajectories.

    Attributes:
        episode: int (S,), which steps belong together.
        subgoal: int (S,), code of the bot's subgoal, -1 for none.
        level_seeds: Of the levels, none of which may be scored.
        outputs: Per layer (P, S, E, D), each expert's output.
        weights: Per layer (P, S, E), the routing weights.
        missions: Distinct sentences of the levels.
        mission_vectors: (P, K, lang_dim) of these sentences.
        lent: Per layer (P, groups + 1, E), as `mean_weights`, of another policy for each; None if nothing was lent.
        subspaces: By name, those of the states that can be projected out.
    """

    episode: np.ndarray
    subgoal: np.ndarray
    level_seeds: tuple[int, ...]
    outputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    missions: tuple[str, ...]
    mission_vectors: Tensor
    lent: tuple[Tensor, ...] | None = None
    subspaces: Mapping[str, Subspace] = field(default_factory=dict)

    def lend(self, lenders: Sequence[int]) -> Donors:
        """Return donors by which each policy can be given the mean weights of another one, by its number.

        Raises:
            ValueError: If a policy would be given its own, or the numbers are not as many as policies.
        """
        if len(lenders) != len(self.mission_vectors) or any(own == other for own, other in enumerate(lenders)):
            raise ValueError(
                f"lenders: expected another policy for each of {len(self.mission_vectors)}, found {lenders}"
            )
        return replace(self, lent=tuple(part[list(lenders)] for part in self.mean_weights))

    def exchange(self, seed: int) -> np.ndarray:
        """Return for each group the one in whose place it is put, drawn among those with steps; none keeps its own.

        Raises:
            ValueError: If fewer than two groups have steps.
        """
        present = np.unique(self.groups)
        if len(present) < 2:
            raise ValueError(f"expected steps of two subgoals or more, found those of {len(present)}")
        order = present[np.argsort(draw_uniform(mix_keys(seed), len(present)))]
        found = np.arange(NUM_GROUPS)
        found[order] = np.roll(order, 1)  # one cycle through all
        return found

    @property
    def groups(self) -> np.ndarray:
        """Int (S,), the group of each step."""
        return np.where(self.subgoal < 0, NUM_GROUPS - 1, self.subgoal)

    def select(self, rows: Sequence[int]) -> Donors:
        """Return those of some policies."""
        rows = list(rows)
        parts = {name: tuple(part[rows] for part in getattr(self, name)) for name in ("outputs", "weights")}
        lent = None if self.lent is None else tuple(part[rows] for part in self.lent)
        subspaces = {name: Subspace(s.mean[rows], s.basis[rows]) for name, s in self.subspaces.items()}
        return replace(self, **parts, mission_vectors=self.mission_vectors[rows], lent=lent, subspaces=subspaces)

    @cached_property
    def mean_outputs(self) -> tuple[Tensor, ...]:
        """Per layer (P, groups + 1, E, D): mean by group, of all in place of a group without steps, and of all."""
        return tuple(self._average(part) for part in self.outputs)

    @cached_property
    def mean_weights(self) -> tuple[Tensor, ...]:
        """Per layer (P, groups + 1, E), likewise; each sums to 1."""
        return tuple(self._average(part) for part in self.weights)

    def _average(self, values: Tensor) -> Tensor:
        """Average (P, S, ...) within episodes, then over episodes, for each group and over all."""
        means = [self._average_rows(values, np.flatnonzero(self.groups == group)) for group in range(NUM_GROUPS)]
        overall = self._average_rows(values, np.arange(len(self.groups)))
        return torch.stack([overall if mean is None else mean for mean in (*means, overall)], dim=1)

    def _average_rows(self, values: Tensor, rows: np.ndarray) -> Tensor | None:
        if len(rows) == 0:
            return None
        _, place, counts = np.unique(self.episode[rows], return_inverse=True, return_counts=True)
        share = torch.from_numpy(1 / (counts[place] * len(counts))).to(values)
        return torch.einsum("s,ps...->p...", share, values[:, torch.from_numpy(rows).to(values.device)])

    @cached_property
    def by_group(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the steps sorted by group; where each group begins, and how many it has (all for an empty one)."""
        groups = self.groups
        order = np.argsort(groups, kind="stable")
        counts = np.bincount(groups, minlength=NUM_GROUPS)
        begins = np.cumsum(counts) - counts
        empty = counts == 0
        return order, np.where(empty, 0, begins), np.where(empty, len(groups), counts)


def check_disjoint(donors: Donors | None, level_seeds: Sequence[int] | np.ndarray) -> None:
    """Raise ValueError if levels are both donors and scored."""
    shared = set() if donors is None else {*donors.level_seeds} & {int(seed) for seed in level_seeds}
    if shared:
        raise ValueError(f"donors: expected other levels than those scored, found {len(shared)} in both: {min(shared)}")
