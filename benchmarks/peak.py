"""What training's arithmetic takes in torch's products of large matrices: the yardstick that depends on no machine.

It is no bound: where torch does not use the processor's widest vectors, our products take less.
"""

from __future__ import annotations

import time

import torch

from pipeline.config import TrainConfig
from pipeline.policies import build_policy


def count_operations(config: TrainConfig) -> int:
    """Return the operations (a multiplication and an addition are two) of an env-step's matrix products in training.

    Each weight of a product is used once to act, once for the gradient of its input and once for its own. The first
    map's input needs no gradient.
    """
    policy = build_policy(config)
    weights = {name: value.numel() for name, value in policy.named_parameters() if value.dim() == 2}
    first = [size for name, size in weights.items() if name.startswith(("input_projection", "gru.weight_ih"))]
    return 2 * (3 * sum(weights.values()) - sum(first))


def measure_peak(repeats: int = 5) -> float:
    """Return operations per second of products of two 1024 x 1024 matrices of float32 on one core, the best of some."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b = torch.randn(2, 1024, 1024)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for _ in range(3):
            a @ b
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(threads)
    return 3 * 2 * 1024**3 / best


def share_of_peak(rate: float, config: TrainConfig, peak: float, cores: int = 1) -> float:
    """Return the share of the peak of some cores that training at a rate, env-steps per second, makes use of."""
    return rate * count_operations(config) / (cores * peak)
