"""What recurrence costs: multiply-adds of an expert at r steps, and the LPC-like price of a routing."""

from __future__ import annotations

import torch
from torch import Tensor

from more.config import ModelConfig, compute_widths, count_expert_parts
from more.model import MoreOutput


def count_expert_operations(config: ModelConfig, num_recurrences: int | None = None) -> int:
    """Return the multiply-adds with weight matrices of one expert for one token.

    Parameters that work at every step count r times, those that work once count once, and those from a state that is
    still zero not at all at the first step. Biases, gains, and the products of queries with keys are left out.

    Args:
        config: Of the model.
        num_recurrences: r; None is the config's. base has none.
    """
    r = config.num_recurrences if num_recurrences is None else num_recurrences
    parts = count_expert_parts(config.model_type, config.d_model, compute_widths(config))
    return parts.once + r * parts.each_step + (r - 1) * parts.later_steps


def compute_recurrence_cost(output: MoreOutput, config: ModelConfig, num_recurrences: int | None = None) -> Tensor:
    """Return the price of a routing, a differentiable scalar: LPC with r in it.

    Sum over layers, over experts of router weight x `count_expert_operations`, averaged over the real tokens. LPC takes
    size^2 for the price of an expert, to which the parameters of a GRU are proportional; here the price is what one
    token's way through the expert takes, so that it counts r and compares variants. The weights are those after top-k:
    with the softmax before it, experts of equal size would make the cost a constant of the architecture. As they are
    raw probabilities, a penalty on this cost would teach the router to be unsure, not frugal; use it to report.

    Args:
        output: Of a forward pass.
        config: Of the model.
        num_recurrences: r of that pass; None is the config's.
    """
    price = count_expert_operations(config, num_recurrences)
    layers = []
    for routed in output.routing:
        taken = routed.weights.sum(dim=-1)  # (batch, time)
        layers.append(price * (taken if output.mask is None else taken[output.mask]).mean())
    return torch.stack(layers).sum()
