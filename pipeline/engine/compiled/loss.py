"""What the loss of an unroll is made of, and the cross-entropy's gradient, as one compiled call on what acting kept.

`pipeline.training.objective` makes the loss of it, that of `pipeline.training.losses.compute_losses`.
"""

from __future__ import annotations

import numpy as np

from pipeline.engine.compiled.jit import compiled
from pipeline.engine.compiled.kernels import ZERO, fill

TASK, RIGHT, COUNT, PER_LAYER = range(4)
"""Columns of the sums: cross-entropy, right actions, labels; then LPC and entropy of each layer's routing in turns."""


@compiled
def sum_losses(
    layers: np.ndarray,
    costs: np.ndarray,
    tape: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    valid: np.ndarray,
    levels: np.ndarray,
    sums: np.ndarray,
    grad_logits: np.ndarray,
    first_group: int,
    end_group: int,
) -> None:
    """Sum over the steps of each group and level, in float64, of some groups or all.

    A step without a label has no part in the first columns, whatever its logits are.

    Args:
        layers: (L,) `LAYER`.
        costs: Of each expert of each layer, float64.
        tape: (G, T, N, width) as `act_step` has filled it.
        logits: (G, T, N, A).
        labels: (G, T, N) int64, the expert's actions.
        valid: (G, T, N) bool, which are labels.
        levels: (groups of a replica, T, N) int64, the level of each step.
        sums: (G, levels, PER_LAYER + 2 L) filled.
        grad_logits: (G, T, N, A) filled with the gradient of each step's own cross-entropy.
        first_group: First of the groups.
        end_group: One past the last.
    """
    _, steps, envs, _ = logits.shape
    for group in range(first_group, end_group):
        for level in range(sums.shape[1]):
            fill(sums[group, level], 0.0)
        for t in range(steps):
            for i in range(envs):
                out = sums[group, levels[group % len(levels), t, i]]
                _sum_routing(layers, costs, tape[group, t, i], out)
                gradient = grad_logits[group, t, i]
                if valid[group, t, i]:
                    label = labels[group, t, i]
                    out[TASK] += _cross_entropy(logits[group, t, i], label, gradient)
                    out[RIGHT] += _largest(logits[group, t, i]) == label
                    out[COUNT] += 1
                else:
                    fill(gradient, ZERO)


@compiled
def _sum_routing(layers: np.ndarray, costs: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    for number in range(len(layers)):
        layer = layers[number]
        for e in range(layer.experts):
            prob = float(row[layer.probs + e])
            out[PER_LAYER + 2 * number] += prob * costs[layer.first_expert + e]
            if prob != 0:  # 0 log 0 is 0
                out[PER_LAYER + 2 * number + 1] -= prob * np.log(prob)


@compiled
def _cross_entropy(logits: np.ndarray, label: int, gradient: np.ndarray) -> float:
    """Return -log softmax(logits)[label], and write its gradient."""
    largest = logits[_largest(logits)]
    total = 0.0
    for a in range(len(logits)):
        gradient[a] = np.exp(logits[a] - largest)
        total += gradient[a]
    for a in range(len(logits)):
        gradient[a] = gradient[a] / total - (1.0 if a == label else 0.0)
    return np.log(total) - float(logits[label] - largest)


@compiled
def _largest(logits: np.ndarray) -> int:
    """Return the first of the largest numbers."""
    largest = 0
    for a in range(1, len(logits)):
        if logits[a] > logits[largest]:
            largest = a
    return largest
