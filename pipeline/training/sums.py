"""Losses of R runs summed over updates, as the metrics that are logged of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.records.metrics import spread
from pipeline.training.losses import LossTerms

SCALARS = (
    "train/task_loss",
    "train/lpc",
    "train/penalty",
    "train/total_loss",
    "train/accuracy",
    "train/labelled_fraction",
    "train/grad_norm",
)


class LossSums:
    """What is logged of losses, gradients and routers, summed since the last line of metrics.

    Args:
        replicas: R.
        layers: Of routers; 0 for the baseline.
        device: Where the losses are.
        levels: Names, in metrics, of the levels of a mixture; none for a single level.
    """

    def __init__(self, replicas: int, layers: int, device: torch.device, levels: Sequence[str] = ()) -> None:
        per_layer = ("train/lpc", "train/router_entropy")
        self._names = [*SCALARS, *(f"{name}/layer_{i}" for name in per_layer for i in range(layers))]
        self._sums = torch.zeros(replicas, len(self._names), device=device)
        self._levels = list(levels)
        self._level_sums = torch.zeros(replicas, len(self._levels), 4, device=device)  # task, accuracy, labels, LPC
        self._updates, self._timed, self._seconds = 0, 0, 0.0  # timed are those since a resume

    @torch.no_grad()
    def add(self, losses: LossTerms, norms: Tensor, seconds: float) -> None:
        """Add an update.

        Args:
            losses: Each term (R,).
            norms: (R,) of the gradients, before clipping.
            seconds: That it has taken.
        """
        terms = [losses.task, losses.lpc, losses.penalty, losses.total, losses.accuracy, losses.labelled, norms]
        self._sums += torch.cat([torch.stack(terms, 1), losses.lpc_per_layer, losses.entropy_per_layer], dim=1)
        if losses.by_level is not None:
            terms = losses.by_level
            self._level_sums += torch.stack(
                [terms.task * terms.count, terms.accuracy * terms.count, terms.count, terms.lpc], dim=-1
            )
        self._updates += 1
        self._timed += 1
        self._seconds += seconds

    def take(self, env_steps: int) -> list[dict[str, float | int | None]]:
        """Return the means of each run, and how fast it was; begin anew. Nothing of no update.

        Args:
            env_steps: Of an update of one run.
        """
        if not self._updates:
            return [{} for _ in self._sums]
        speed = {"time/env_steps_per_second": self._timed * env_steps / self._seconds} if self._timed else {}
        rows = [dict(zip(self._names, means, strict=True)) | speed for means in (self._sums / self._updates).tolist()]
        for row, sums in zip(rows, self._level_sums.tolist(), strict=True):
            row |= self._metrics_by_level(sums)
        self._sums.zero_()
        self._level_sums.zero_()
        self._updates, self._timed, self._seconds = 0, 0, 0.0
        return rows

    def _metrics_by_level(self, sums: Sequence[Sequence[float]]) -> dict[str, float | None]:
        """Return one run's metrics of its levels and their macro means; None where a level had no label."""
        if not self._levels:
            return {}
        by_level = {
            "train/task_loss": [task / labels if labels else None for task, _, labels, _ in sums],
            "train/accuracy": [right / labels if labels else None for _, right, labels, _ in sums],
            "train/lpc": [lpc / self._updates for *_, lpc in sums],
        }
        return {key: value for name, of in by_level.items() for key, value in spread(name, self._levels, of).items()}

    def state(self, replica: int) -> dict[str, Any]:
        """Return what a checkpoint keeps of a run, so that its next line is of all updates since the last one."""
        if not self._updates:
            return {}
        kept = {"updates": self._updates, "values": self._sums[replica].clone()}
        return {"sums": {**kept, "levels": self._level_sums[replica].clone()} if self._levels else kept}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what checkpoints keep, of each run; from nothing where they are older than this, or differ."""
        kept = [state.get("sums") for state in states]
        if not kept or not all(kept) or len({sums["updates"] for sums in kept}) > 1:
            return
        self._updates = kept[0]["updates"]
        self._sums.copy_(torch.stack([sums["values"] for sums in kept]))
        if self._levels:
            self._level_sums.copy_(torch.stack([sums["levels"] for sums in kept]))

    def select(self, replicas: Sequence[int]) -> LossSums:
        """Return the sums of some runs."""
        selected = LossSums(len(replicas), 0, self._sums.device, self._levels)
        selected._level_sums = self._level_sums[list(replicas)]
        selected._names, selected._sums = self._names, self._sums[list(replicas)]
        selected._updates, selected._timed, selected._seconds = self._updates, self._timed, self._seconds
        return selected
