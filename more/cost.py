"""What recurrence costs: multiply-adds of an expert and of a model at r steps, and the LPC-like price of a routing."""

from __future__ import annotations

import torch
from torch import Tensor

from more.config import ModelConfig, compute_widths, count_operations
from more.model import MoreOutput, count_passes


def count_expert_operations(config: ModelConfig, num_recurrences: float | None = None) -> float:
    """Return the multiply-adds with weight matrices of one expert for one token.

    Parameters that work at every step count r times, those that work once count once, and those from a state that is
    still zero not at all at the first step. Biases, gains, and the products of queries with keys are left out.

    Args:
        config: Of the model.
        num_recurrences: r; None is the config's. base has none; of looped all passes through one layer count.
    """
    r = config.num_recurrences if num_recurrences is None else num_recurrences
    return count_operations(config.model_type, config.d_model, compute_widths(config), r)


def count_token_operations(config: ModelConfig, num_recurrences: float | None = None) -> float:
    """Return the multiply-adds with weight matrices that a whole model takes for one token, embedding's head included.

    The products of queries with keys, which grow with the text before the token, are left out here too.

    Args:
        config: Of the model.
        num_recurrences: r; None is the config's. Of tokens that stop early their mean, in which operations are linear.
    """
    r = config.num_recurrences if num_recurrences is None else num_recurrences
    outside = count_passes(config, r) * (
        4 * config.d_model**2 + config.d_model * config.num_experts
    )  # attention, router
    layer = outside + config.top_k * count_expert_operations(config, r)
    return config.num_layers * layer + config.d_model * config.vocab_size


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
    price = count_expert_operations(config, num_recurrences) / output.passes
    layers = []
    for routed in output.routing:
        taken = routed.weights.sum(dim=-1)  # (batch, time)
        layers.append(price * (taken if output.mask is None else taken[output.mask]).mean())
    return torch.stack(layers).sum()
