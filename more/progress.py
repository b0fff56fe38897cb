"""What updates add up to between two lines of metrics.

figures = collect_figures(loss, asked, balance, z, terms, share)     # of a part of a batch; sums are those of all
sums = UpdateSums(device)
sums.add(figures, norm, steps=4, count=1024)                         # of an update
metrics, routers = sums.take()
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mixture_of_experts import RouterTerms
from more.monitoring import RouterFigures, RouterSums, tabulate_terms

METRICS: dict[str, str] = {
    "tokens": "targets learned from so far",
    "Loss/train": "cross-entropy per token since the last line, nats; no auxiliary loss in it",
    "Loss/balance": "balance loss, mean over layers; 1 when the load is even",
    "Loss/z": "z-loss of the routers, mean over layers",
    "Loss/valid": "cross-entropy per token on the validation split, nats",
    "Perplexity": "exp(Loss/train)",
    "Perplexity_valid": "exp(Loss/valid)",
    "Learning_Rate": "of the last update",
    "Grad_Norm": "Euclidean norm of the gradient before clipping, mean since the last line",
    "Recurrences": "steps of the recurrent experts, mean since the last line",
    "Tokens_per_Second": "targets learned per second since the last line",
    "Layer_{i}/Expert_Load_Distribution": "share of the tokens that went to each expert; bins are experts",
    "Layer_{i}/Router_Entropy": "mean entropy of a routing decision, nats",
    "Layer_{i}/Load_Balance_CV": "standard deviation of the load over its mean; 0 when even",
    "Layer_{i}/Dead_Experts": "experts with less than a tenth of an even load",
}
"""Every metric that may be logged, and what it means; `{i}` stands for a layer's index, counted from 0."""

_LOSSES = 4  # figures that stand before the table of routers: cross-entropy x targets, targets, balance, z


def collect_figures(
    loss: Tensor, asked: int, balance: Tensor, z: Tensor, terms: Sequence[RouterTerms], share: float
) -> Tensor:
    """Return the figures of a part of a batch as a row of float64, which adds up over the parts to that of the batch.

    Args:
        loss: Cross-entropy per target of the part.
        asked: Its targets.
        balance: Its balance loss x `share`.
        z: Its z-loss x `share`.
        terms: Its router terms, layer by layer.
        share: Its tokens over those of the batch.
    """
    losses = torch.stack([loss.detach() * asked, loss.new_tensor(asked), balance.detach(), z.detach()]).double()
    return torch.cat([losses, (tabulate_terms(terms) * share).flatten()])


def build_figures(num_layers: int, num_experts: int, device: torch.device) -> Tensor:
    """Return the figures of a part without a token."""
    return torch.zeros(_LOSSES + num_layers * (2 * num_experts + 3), dtype=torch.float64, device=device)


class UpdateSums:
    """Sums of updates, kept on the device until they are asked for, and the time that they took.

    Args:
        device: Where the figures come from.
    """

    def __init__(self, device: torch.device) -> None:
        self._routers = RouterSums()
        self._sums = torch.zeros(_LOSSES + 1, dtype=torch.float64, device=device)
        self._updates = self._recurrences = 0
        self._since, self._before = time.perf_counter(), 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what was added up since the last call of `take`, in plain types and tensors."""
        return {
            "sums": self._sums,
            "routers": self._routers.state_dict(),
            "updates": self._updates,
            "recurrences": self._recurrences,
            "seconds": self._measure(time.perf_counter()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; no time passes in between."""
        self._sums = state["sums"].to(self._sums.device)
        self._routers.load_state_dict(state["routers"], self._sums.device)
        self._updates, self._recurrences = state["updates"], state["recurrences"]
        self._since, self._before = time.perf_counter(), state["seconds"]

    def _measure(self, now: float) -> float:
        """Return the seconds that the updates took which were added up."""
        return now - self._since + self._before

    def add(self, figures: Tensor, norm: Tensor, steps: int, count: int, layers: int) -> None:
        """Count an update.

        Args:
            figures: Of its batch, see `collect_figures`.
            norm: Of its gradient.
            steps: r.
            count: Its targets.
            layers: Of the model.
        """
        self._sums += torch.cat([figures[:_LOSSES], norm.double()[None]])
        self._routers.add_table(figures[_LOSSES:].view(layers, -1), weight=count)
        self._recurrences += steps
        self._updates += 1

    @property
    def loss(self) -> float:
        """Cross-entropy per target since the last call of `take`."""
        total, targets, *_ = self._sums.tolist()
        return total / max(1.0, targets)

    def leave_out(self, seconds: float | None) -> None:
        """Do not count so many seconds, or all since it was made or restored, as time of updates."""
        self._since = time.perf_counter() if seconds is None else self._since + seconds

    def take(self) -> tuple[dict[str, float], list[RouterFigures]]:
        """Return metrics and each layer's router figures since the last call, and begin anew."""
        total, targets, balance, z, norm = self._sums.tolist()
        now, updates = time.perf_counter(), self._updates
        loss = total / targets
        metrics = {
            "Loss/train": loss,
            "Perplexity": math.exp(min(loss, 50.0)),
            "Loss/balance": balance / updates,
            "Loss/z": z / updates,
            "Grad_Norm": norm / updates,
            "Recurrences": self._recurrences / updates,
            "Tokens_per_Second": targets / self._measure(now),
        }
        figures = self._routers.take()
        for index, layer in enumerate(figures):
            metrics[f"Layer_{index}/Router_Entropy"] = layer.entropy
            metrics[f"Layer_{index}/Load_Balance_CV"] = layer.load_cv
            metrics[f"Layer_{index}/Dead_Experts"] = layer.dead_experts
        self._sums.zero_()
        self._updates = self._recurrences = 0
        self._since, self._before = now, 0.0
        return metrics, figures
