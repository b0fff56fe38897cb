"""What commands are called by whoever is at the keyboard: `python train_mop.py` in a clone, `rlmop train` elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

SCRIPTS = {"train": "train_mop.py", "evaluate": "batch_eval.py", "plot": "plotting_utils.py"}
"""Scripts at the root by what follows `rlmop`."""

LANGUAGE_MODELS = ("model_type", "num_recurrences")
"""Flags by which a command of `more/` is meant, whose scripts have names like those at the root."""


def program() -> str:
    """Return what the process was called by: a script, `python -m package.module`, or `rlmop command`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not sys.argv[0].endswith(".py"):
        return os.path.basename(sys.argv[0])
    return f"python -m {spec.name.removesuffix('.__main__')}"


def name_command(command: str) -> str:
    """Return how another command is called from here, for messages that say what to do next.

    As this one was, if that was `rlmop`; else the script, in the current folder or beside this one; else `rlmop`.

    Args:
        command: What follows `rlmop`, such as "evaluate".
    """
    for name in ("rlmop", "python -m rlmop"):
        if sys.argv[0].startswith(f"{name} "):
            return f"{name} {command}"
    if command in SCRIPTS:
        for folder in (Path(), Path(sys.argv[0]).parent):
            if (script := folder / SCRIPTS[command]).is_file():
                return f"python {script}"
    return f"rlmop {command}"


def name_module(module: str) -> str:
    """Return how a module that is also a script is called from here: by its place in a clone, else by its name.

    Args:
        module: With the names of its packages, such as "more.evaluate".
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return f"python -m {module}"
    path = root / f"{module.replace('.', '/')}.py"
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"python {shlex.quote(str(near))}"
