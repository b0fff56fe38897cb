"""The loss of an unroll with its gradient: by autograd, or on the CPU by one compiled call and a few small sums.

What the loss is stands in `losses.py`; both ways agree (`tests/pipeline/training/test_objective.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.compiled.loss import COUNT, PER_LAYER, RIGHT, TASK
from pipeline.training.losses import LevelTerms, LossTerms, Price, StepLevels, compute_losses
from pipeline.training.rollout import Rollout


class Objective:
    """What the weights are trained for.

    Args:
        rollout: Whose last unroll the loss is of.
        expert_sizes: Expert sizes per layer; empty for the baseline.
        price: Of complexity; its alpha is (R,).
        levels: Of the steps, where there are several.
    """

    def __init__(
        self, rollout: Rollout, expert_sizes: Sequence[Sequence[int]], price: Price, levels: StepLevels | None
    ) -> None:
        self._rollout, self._sizes, self._price, self._levels = rollout, expert_sizes, price, levels
        if not isinstance(rollout.engine, CompiledEngine):
            return
        member = torch.ones(1, rollout.expert_action[0].numel(), dtype=torch.bool) if levels is None else levels.member
        self._level_of = member.int().argmax(dim=0).numpy()
        self._members = member.sum(dim=1).numpy().astype(np.float64)  # steps of each level
        sizes = [size for layer in expert_sizes for size in layer]
        self._costs = np.array([float(size) ** price.exponent if size else 0.0 for size in sizes])
        self._alpha = price.alpha.double().numpy()[:, None]

    def differentiate(self) -> LossTerms:
        """Fill the gradient of the weights from the last unroll; return the loss, each term (R,)."""
        rollout = self._rollout
        if isinstance(rollout.engine, CompiledEngine):
            return self._differentiate(rollout, rollout.engine)
        logits, routing = rollout.replay()
        labels = rollout.expert_action, rollout.expert_valid
        losses = compute_losses(logits, *labels, routing, self._sizes, self._price, self._levels)
        rollout.engine.differentiate(losses.total.sum())
        return losses

    @np.errstate(over="ignore", invalid="ignore")  # a loss that is not finite is for the loop to find
    def _differentiate(self, rollout: Rollout, engine: CompiledEngine) -> LossTerms:
        alpha, members, price = self._alpha, self._members, self._price
        labels = rollout.expert_action, rollout.expert_valid
        sums = engine.sum_losses(*labels, self._costs, self._level_of, len(members))
        total = members.sum()
        count = sums[..., COUNT]  # (R, levels), as all but what is said otherwise
        some = np.maximum(count, 1)
        task_by_level, lpc_by_level = sums[..., TASK] / some, sums[..., PER_LAYER::2].sum(axis=-1) / members
        all_labels = count.sum(axis=1, keepdims=True)  # (R, 1)
        some_of_all = np.maximum(all_labels, 1)
        task, lpc = (
            sums[..., TASK].sum(axis=1, keepdims=True) / some_of_all,
            (lpc_by_level * members / total).sum(axis=1),
        )
        # The penalty, and what it passes on to the task loss of a labelled step and to the LPC of a step
        paid_by = (count if price.normalize else all_labels) > 0
        denominator = task_by_level + price.eps if price.normalize else 1.0
        per_lpc = np.where(paid_by, alpha / denominator, 0.0)
        penalty = per_lpc * lpc_by_level * (members / total)
        to_task = np.broadcast_to(1 / some_of_all, count.shape)
        if price.normalize and price.denominator != "detached":
            to_task = to_task - penalty / denominator / some
        penalty = penalty.sum(axis=1)
        to_lpc = np.broadcast_to(per_lpc / total, count.shape)
        engine.differentiate_losses(to_task, to_lpc, self._costs, self._level_of, rollout.sentences())
        right, layers = sums[..., RIGHT], sums[..., PER_LAYER:].sum(axis=1)[:, : 2 * len(self._sizes)] / total
        return LossTerms(
            task=_as_tensor(task[:, 0]),
            lpc=_as_tensor(lpc),
            lpc_per_layer=_as_tensor(layers[:, ::2]),
            penalty=_as_tensor(penalty),
            total=_as_tensor(task[:, 0] + penalty),
            accuracy=_as_tensor(right.sum(axis=1) / some_of_all[:, 0]),
            labelled=_as_tensor(all_labels[:, 0] / total),
            entropy_per_layer=_as_tensor(layers[:, 1::2]),
            by_level=None
            if self._levels is None
            else LevelTerms(*map(_as_tensor, (task_by_level, lpc_by_level, right / some, count))),
        )


def _as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
