"""What routers do, in figures: of language models and policies alike, for both use the same `Router`.

    sums = RouterSums()
    sums.add([compute_router_terms(routed)])                  # a RouterOutput of either side
    (figures,) = sums.take()
    figures.entropy, figures.load_cv, figures.dead_experts

The figures come from `mixture_of_experts.compute_router_terms`; here they are completed and averaged over updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixture_of_experts import RouterTerms

DEAD_SHARE = 0.1
"""An expert is dead when it gets less than this share of an even load."""


@dataclass(frozen=True)
class RouterFigures:
    """How one layer's router distributed a number of decisions.

    Attributes:
        load: Share of the assignments of each expert; sums to 1.
        importance: Mean probability of each expert; sums to 1.
        entropy: Mean entropy of a decision, nats; from 0 (sure) to log(experts).
        load_cv: Standard deviation of the load over its mean; 0 even, sqrt(experts - 1) when one takes all.
        dead_experts: Experts with less than a tenth of an even load.
        balance: Balance loss, experts x sum(load x importance); 1 when even.
        z: z-loss, mean squared logsumexp of the logits.
    """

    load: tuple[float, ...]
    importance: tuple[float, ...]
    entropy: float
    load_cv: float
    dead_experts: int
    balance: float
    z: float


class RouterSums:
    """Sums the terms of updates on the device until they are asked for, so that adding costs no transfer."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._weight = 0.0

    def add(self, layers: Sequence[RouterTerms], weight: float = 1.0) -> None:
        """Count the terms of one update, one entry per layer.

        Args:
            layers: From `compute_router_terms`.
            weight: Decisions behind them, where updates differ in that.
        """
        self.add_table(tabulate_terms(layers), weight)

    def add_table(self, table: Tensor, weight: float = 1.0) -> None:
        """Count the terms of one update as `tabulate_terms` returns them, or a mean of several such tables."""
        self._sums = table * weight if self._sums is None else self._sums + table * weight
        self._weight += weight

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted since the last call of `take`, in plain types and tensors."""
        return {"sums": self._sums, "weight": self._weight}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state_dict` returned, on a device."""
        self._sums = None if state["sums"] is None else state["sums"].to(device)
        self._weight = state["weight"]

    def take(self) -> list[RouterFigures]:
        """Return the figures of each layer, averaged since the last call; nothing if nothing was added."""
        if self._sums is None:
            return []
        table = (self._sums / self._weight).cpu()
        self._sums, self._weight = None, 0.0
        return [_figures_from_row(row) for row in table]


@torch.no_grad()
def tabulate_terms(layers: Sequence[RouterTerms]) -> Tensor:
    """Return terms, one entry per layer, as a table (layers, 2 x experts + 3) in float64, detached.

    Means over tables, weighted by decisions, are the terms of all their decisions where each balance was taken on the
    load of all.
    """
    rows = [torch.cat([t.load, t.importance, torch.stack([t.entropy, t.balance, t.z])]) for t in layers]
    return torch.stack(rows).double()


def _figures_from_row(row: Tensor) -> RouterFigures:
    experts = (len(row) - 3) // 2
    load, importance = row[:experts], row[experts : 2 * experts]
    entropy, balance, z = row[2 * experts :].tolist()
    return RouterFigures(
        load=tuple(load.tolist()),
        importance=tuple(importance.tolist()),
        entropy=entropy,
        load_cv=float(load.std(correction=0) / load.mean()),
        dead_experts=int((load < DEAD_SHARE / experts).sum()),
        balance=balance,
        z=z,
    )
