"""Which code has computed something: the project's commit, and versions of what it uses."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def find_commit(digits: int = 40) -> str | None:
    """Return the commit of the project, ending in `-dirty` if files differ from it; None outside a clone.

    Args:
        digits: Of the commit, at least 4; more where fewer would not tell it from others.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps below somebody else's repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", f"--abbrev={digits}", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def find_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Return the version of each package, by its name as pip has it; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
