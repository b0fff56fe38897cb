"""What an intervention did to one step: cross-entropy to the bot, divergence from the intact policy. Nats."""

from __future__ import annotations

from torch import Tensor


def compute_cross_entropy(logits: Tensor, action: Tensor) -> Tensor:
    """Return -log of the probability of an action, (...), for logits (..., actions) and action (...), int64."""
    logits = logits.double()
    chosen = logits.gather(-1, action.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return logits.logsumexp(dim=-1) - chosen


def compute_divergence(intact: Tensor, changed: Tensor) -> Tensor:
    """Return KL(softmax(intact) || softmax(changed)), (...), for logits (..., actions); 0 where they are equal."""
    first, second = intact.double().log_softmax(dim=-1), changed.double().log_softmax(dim=-1)
    return (first.exp() * (first - second)).sum(dim=-1).clamp(min=0.0)
