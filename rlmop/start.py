"""`rlmop init`: what one begins with, copied into a folder: settings, a small study, the notebooks, a batch script.

Of an installation these are data files, listed in its metadata; of a checkout they lie at its root.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.files import replace_atomically
from pipeline.command.folders import check_folder
from pipeline.command.shell import as_command

FILES = (
    "config.yaml",
    "configs/bosslevel.yaml",
    "configs/debug.yaml",
    "configs/goto.yaml",
    "configs/gotoobj.yaml",
    "configs/pickuploc.yaml",
    "configs/putnextlocal.yaml",
    "configs/unlockpickup.yaml",
    "configs/verbs.yaml",
    "examples/slurm.sh",
    "studies/debug.yaml",
    "routing_viz.py",
    "cross_task_viz.py",
)
"""What is copied, by its place in the checkout."""

_SHARE = "share/rl-mop/"


@dataclass(frozen=True)
class StartSettings:
    """Where to begin.

    Attributes:
        folder: To copy into; made if it is not there. By default the current one.
    """

    folder: str = field(default=".", metadata={"positional": True})


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    settings, _ = parse_command(
        "Copy config.yaml, ready-made settings, a study, the notebooks and a batch script. Files that are there stay.",
        StartSettings,
        argv,
    )
    folder = Path(settings.folder)
    check_folder("folder", folder)
    sources = {name: find_source(name) for name in FILES}  # all of them before any is written
    for name, source in sources.items():
        target = folder / name
        if target.exists():
            print(f"{target}: is there already, left alone")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(target) as temporary:
            temporary.write_bytes(source.read_bytes())
        print(target)


def find_source(name: str) -> Path:
    """Return where a file of `FILES` lies.

    Raises:
        ConfigError: If neither the installation nor a checkout has it.
    """
    checkout = Path(__file__).parents[1]  # also of one installed with `pip install -e`
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_file():
        return checkout / name
    try:
        installed = importlib.metadata.files("rl-mop") or ()
    except importlib.metadata.PackageNotFoundError:
        installed = ()
    for file in installed:
        if file.as_posix().endswith(f"{_SHARE}{name}"):
            return Path(str(file.locate()))
    raise ConfigError(f"{name}: the installation lacks it; install again, or take it from a clone of the repository")
