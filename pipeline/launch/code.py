"""Which code a machine has, told by a digest of its text, so that machines of one call compute alike."""

from __future__ import annotations

import functools
import hashlib
import socket
from pathlib import Path

from pipeline.command.provenance import find_commit

PACKAGES = ("babyai", "pipeline", "film", "maxent", "more", "plotting", "science")
MODULES = ("mixture_of_experts", "stateful_mop")


@functools.cache
def compute_code() -> str:
    """Return a digest of the project's Python files, 16 hexadecimal digits, the same in a clone and installed."""
    root, found = _root(), hashlib.sha256()
    paths = [*(root / f"{name}.py" for name in MODULES)]
    paths += [path for name in PACKAGES for path in (root / name).rglob("*.py")]
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


@functools.cache
def describe_code() -> str:
    """Return how messages call the code of this machine."""
    commit = find_commit(10)
    return compute_code() + (f" (commit {commit})" if commit else "")


def refuse_other_code(code: str, described: str) -> str | None:
    """Return what to say if this machine's code is another one than the driver's, None if it is the same.

    Args:
        code: The driver's `compute_code`.
        described: Its `describe_code`.
    """
    if code == compute_code():
        return None
    return (
        f"{socket.gethostname()}: expected the driver's version of this project, {described}, found {describe_code()} "
        f"in {_root()}; bring both to one version (git pull, or pip install) and start again"
    )


def _root() -> Path:
    return Path(__file__).resolve().parents[2]
