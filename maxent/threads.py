"""How many cores torch computes a model with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

SMALL = 2_000_000
"""Parameters up to which one core is used: their products are too short to be shared, and where other programs use the
second core too, waiting for it took 30 times as long as the work (docs/LOG.md)."""


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Within the block torch computes with so many threads; None leaves it as it is, without torch too."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
