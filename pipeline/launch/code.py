"""Which code a machine has, told by a digest of its text, so that machines of one call compute alike."""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.command.provenance import find_commit
from pipeline.launch.pickling import name_module

PACKAGES = ("babyai", "pipeline", "film", "maxent", "more", "plotting", "science")
BESIDE = ("benchmarks",)
"""Packages of a clone that are not installed: compared where an item's function lies in them."""
MODULES = ("mixture_of_experts", "stateful_mop")
ROOT = Path(__file__).resolve().parents[2]
"""Folder of the project's packages."""


def list_beside(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return which of `BESIDE` an item's function lies in."""
    return tuple(name for name in BESIDE if name == name_module(function).partition(".")[0])


def list_code(beside: Sequence[str] = ()) -> list[Path]:
    """Return the project's Python files that are compared, in an order that is the same everywhere; see `compute_code`.

    Scripts of the root and `rlmop`, which only call them, are not among them.
    """
    paths = [path for name in MODULES if (path := ROOT / f"{name}.py").exists()]  # another version may lack one
    paths += [path for name in (*PACKAGES, *beside) for path in (ROOT / name).rglob("*.py")]
    return sorted(paths, key=lambda path: path.relative_to(ROOT).as_posix())


@functools.cache
def compute_code(beside: tuple[str, ...] = ()) -> str:
    """Return a digest of the project's Python files, 16 hexadecimal digits, the same in a clone and installed.

    Args:
        beside: Packages that are not installed, of `list_beside`.
    """
    found = hashlib.sha256()
    for path in list_code(beside):
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


@functools.cache
def describe_code(beside: tuple[str, ...] = ()) -> str:
    """Return how messages call the code of this machine; see `compute_code`."""
    commit = find_commit(10)
    return compute_code(beside) + (f" (commit {commit})" if commit else "")


def refuse_other_code(code: str, described: str, beside: Sequence[str] = ()) -> str | None:
    """Return what to say if this machine's code is another one than the driver's, None if it is the same.

    Args:
        code: The driver's `compute_code`.
        described: Its `describe_code`.
        beside: Packages that are not installed and were compared.
    """
    if lacking := [name for name in beside if not (ROOT / name).is_dir()]:
        return (
            f"{socket.gethostname()}: expected {', '.join(lacking)}/ beside the project's packages in {ROOT}, found "
            "none, for it is part of a clone and of no installation; start this machine's processes in a clone"
        )
    beside = tuple(beside)
    if code == compute_code(beside):
        return None
    return (
        f"{socket.gethostname()}: expected the driver's version of this project, {described}, found "
        f"{describe_code(beside)} in {ROOT}; bring both to one version (git pull, or pip install) and start again"
    )
