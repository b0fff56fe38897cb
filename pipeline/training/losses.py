"""The loss of an unroll: imitation, and the price of complexity (equations 1 and 2 of https://arxiv.org/abs/2506.02813).

Of one run, or of R replicas at once: with a leading axis R in its arguments every term has one too, and a replica's
terms do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mixture_of_experts import compute_layer_lpc


@dataclass(frozen=True)
class LossTerms:
    """The terms of a loss by name, each a scalar tensor, or (R,) for replicas.

    Attributes:
        task: Mean cross-entropy against the expert's action over labelled steps; 0 if there are none.
        lpc: Learned Pathway Complexity, averaged over steps; summed over layers.
        lpc_per_layer: (layers,), or (R, layers), its parts.
        penalty: What is added to the task loss.
        total: task + penalty, what is minimised.
        accuracy: Share of labelled steps at which the most probable action is the expert's.
        labelled: Share of steps with a label.
        entropy_per_layer: Of routing, averaged over steps; like `lpc_per_layer`.
        by_level: The same by level, where a policy is trained on several; else None.
    """

    task: Tensor
    lpc: Tensor
    lpc_per_layer: Tensor
    penalty: Tensor
    total: Tensor
    accuracy: Tensor
    labelled: Tensor
    entropy_per_layer: Tensor
    by_level: LevelTerms | None = None


@dataclass(frozen=True)
class LevelTerms:
    """The terms of a loss by level, each (levels,), or (R, levels) for replicas.

    Attributes:
        task: Mean cross-entropy over the labelled steps of a level; 0 if there are none.
        lpc: LPC, averaged over its steps.
        accuracy: Share of its labelled steps at which the most probable action is the expert's.
        count: Its labelled steps.
    """

    task: Tensor
    lpc: Tensor
    accuracy: Tensor
    count: Tensor


@dataclass(frozen=True)
class StepLevels:
    """Which level each step of an unroll is of.

    Attributes:
        member: bool (levels, T * N), whether a step is of a level; the order of steps is that of the losses.
        shares: (levels,) of the steps; they add up to 1.
    """

    member: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Price:
    """What complexity costs.

    Attributes:
        alpha: Price of a unit of LPC; one, or (R,).
        normalize: Equation 2 instead of 1, see `compute_penalty`.
        denominator: detached or paper.
        eps: Added to the denominator.
        exponent: An expert costs size^exponent.
    """

    alpha: float | Tensor = 0.0
    normalize: bool = False
    denominator: str = "detached"
    eps: float = 1e-2
    exponent: float = 2.0


def compute_penalty(task: Tensor, lpc: Tensor, price: Price) -> Tensor:
    """Return the price of complexity, a scalar or (R,).

    Equation 1: alpha * LPC. Equation 2 (`normalize`): alpha * LPC / (task + eps). With `denominator="paper"` the
    gradient also runs through that denominator, as published. The total's derivative with respect to the task loss is
    then 1 - alpha * LPC / (task + eps)^2: negative once task < sqrt(alpha * LPC) - eps, so that the optimiser is paid
    to make the task loss larger. "detached" treats the denominator as a constant and has no such regime.

    Args:
        task: Task loss, scalar or (R,).
        lpc: LPC, likewise.
        price: Of complexity.
    """
    if not price.normalize:
        return price.alpha * lpc
    return price.alpha * lpc / ((task.detach() if price.denominator == "detached" else task) + price.eps)


def compute_penalty_by_level(terms: LevelTerms, shares: Tensor, price: Price) -> Tensor:
    """Return the price of complexity by equation 2 with a denominator for each level, a scalar or (R,).

    sum over levels g of share_g * alpha * LPC_g / (L_g + eps): a level pays by how well it itself is done, not by how
    well the others are. One without labels in an unroll pays nothing. For a single level this is equation 2. (Cook et
    al. add up the tasks' terms; with shares, the price of a step does not grow with the number of levels.)

    Args:
        terms: By level.
        shares: (levels,) of the steps.
        price: With `normalize`.
    """
    alpha = price.alpha.unsqueeze(-1) if isinstance(price.alpha, Tensor) else price.alpha
    paid = compute_penalty(terms.task, terms.lpc, replace(price, alpha=alpha))
    return (torch.where(terms.count > 0, paid, 0.0) * shares).sum(dim=-1)


def compute_losses(
    logits: Tensor,
    expert_action: Tensor,
    expert_valid: Tensor,
    routing: Sequence[Tensor],
    expert_sizes: Sequence[Sequence[int]],
    price: Price,
    levels: StepLevels | None = None,
) -> LossTerms:
    """Return the loss of an unroll of T steps of N environments.

    A step without a label has no part in the task loss. An unroll without any label has no penalty either: equation 2
    would charge it alpha * LPC / eps, a hundred times the usual price, for nothing learned.

    Args:
        logits: (T, N, actions), or (R, T, N, actions) for replicas.
        expert_action: (T, N) or (R, T, N) int64 labels; any value where invalid.
        expert_valid: The same shape, bool.
        routing: Router probabilities per layer, each (T, N, experts) or (R, T, N, experts); empty for the baseline.
        expert_sizes: Expert sizes per layer.
        price: Of complexity.
        levels: Of the steps, where there are several.
    """
    labels, valid = expert_action.flatten(-2), expert_valid.flatten(-2)  # (..., T * N)
    count = valid.sum(dim=-1)
    some = count.clamp(min=1)
    # where, not a product, and before the loss as well as after: a masked step's logits may be inf, of which the loss
    # is NaN, and 0 x NaN is NaN in the backward pass too.
    flat_logits = logits.flatten(-3, -2)
    labelled_logits = torch.where(valid.unsqueeze(-1), flat_logits, 0.0)
    labels = torch.where(valid, labels, 0)
    per_step = F.cross_entropy(labelled_logits.flatten(0, -2), labels.flatten(), reduction="none").view_as(labels)
    per_step = torch.where(valid, per_step, 0.0)
    task = per_step.sum(dim=-1) / some
    right = (flat_logits.argmax(dim=-1) == labels) & valid
    correct = right.sum(dim=-1) / some
    lpc_by_step = [
        compute_layer_lpc(w, sizes, price.exponent).flatten(-2) for w, sizes in zip(routing, expert_sizes, strict=True)
    ]
    per_layer = [layer.mean(dim=-1) for layer in lpc_by_step]
    lpc_per_layer = torch.stack(per_layer, dim=-1) if per_layer else task.new_zeros(*task.shape, 0)
    lpc = lpc_per_layer.sum(dim=-1)
    entropies = [torch.special.entr(w.detach()).sum(dim=-1).mean(dim=(-2, -1)) for w in routing]
    by_level = None
    if levels is not None:
        lpc_of_step = sum(lpc_by_step) if lpc_by_step else torch.zeros_like(per_step)
        by_level = _divide_by_level(per_step, lpc_of_step, right, valid, levels)
    if price.normalize and by_level is not None:
        penalty = compute_penalty_by_level(by_level, levels.shares, price)
    else:
        penalty = compute_penalty(task, lpc, price)
    penalty = torch.where(count > 0, penalty, 0.0)
    return LossTerms(
        task=task,
        lpc=lpc,
        lpc_per_layer=lpc_per_layer,
        penalty=penalty,
        total=task + penalty,
        accuracy=correct,
        labelled=valid.float().mean(dim=-1),
        entropy_per_layer=torch.stack(entropies, dim=-1) if entropies else lpc_per_layer,
        by_level=by_level,
    )


def _divide_by_level(
    task_of_step: Tensor, lpc_of_step: Tensor, right: Tensor, valid: Tensor, levels: StepLevels
) -> LevelTerms:
    """Return terms by level from those of each step, (..., T * N), by sums that no other replica has a part in."""

    def total(values: Tensor) -> Tensor:
        return torch.where(levels.member, values.unsqueeze(-2), 0).sum(dim=-1)

    count = total(valid)
    some = count.clamp(min=1)
    return LevelTerms(
        task=total(task_of_step) / some,
        lpc=total(lpc_of_step) / levels.member.sum(dim=-1),
        accuracy=total(right) / some,
        count=count,
    )
