"""Which code has computed something: the project's commit, and versions of what it uses."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def find_commit(digits: int = 40) -> str | None:
    """Return the commit of the project, ending in `-dirty` if files differ from it; None outside a clone.

    `docs/` may differ: nothing there is run, and commands that publish a table write it there.

    Args:
        digits: Of the commit, at least 4; more where fewer would not tell it from others.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps below somebody else's repository
        return None
    try:
        named = _run_git(root, "describe", "--always", f"--abbrev={digits}", "--exclude=*")
        differs = _run_git(root, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs")
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit = named.stdout.strip()
    return f"{commit}-dirty" if commit and differs.returncode else commit or None


def _run_git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20, check=False)


def find_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Return the version of each package, by its name as pip has it; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
