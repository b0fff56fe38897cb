"""What a run computes on, and where its chance comes from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from babyai.torch_defaults import own_defaults
from pipeline.command.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Return the device that a configuration names; "auto" is the GPU if torch sees one.

    Raises:
        ConfigError: If it is none, or a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: expected a GPU that torch can use for {name!r}, found none; use auto or cpu")
    return device


def derive_seed(*words: int) -> int:
    """Return the seed of one of a run's random streams, a 63-bit integer.

    Args:
        words: Of 0 or more: the run's seed, the number of the stream, and what else tells it from others. Streams of
            different words are independent (`numpy.random.SeedSequence`).
    """
    first, second = np.random.SeedSequence(words).generate_state(2, np.uint32).tolist()
    return (first << 31) ^ second


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Within the block weights are float32, on the CPU, and drawn from `seed`; after it, all is as it was before."""
    with own_defaults(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one CPU thread: the same bits whatever the cores, and no quarrel over them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
