"""How the policy's step is compiled: as the world is, but with faster arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from babyai.compiled.jit import SOURCES, compile_to_disk, digest_sources

SOURCE_STAMP = digest_sources([*Path(__file__).parent.glob("*.py"), *SOURCES])
"""Changes with the compiled modules and those of the world, which is part of an unroll: what is on disk is then
compiled anew."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, see `compile_to_disk`; multiply-adds are fused, arithmetic is not rearranged otherwise."""
    return compile_to_disk(function, SOURCE_STAMP, fastmath={"contract", "nsz"})


def compiled_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile likewise a function that sums a vector: terms may be added in the order that is fastest, always one."""
    return compile_to_disk(function, SOURCE_STAMP, fastmath={"contract", "nsz", "reassoc"})
