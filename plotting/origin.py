"""Where a figure comes from, written into its file: the command, what it read, and the version that drew it.

    origin = describe_origin("python plotting_utils.py --cache c.json", ["c.json"])
    save_figure(figure, "routing_heatmap.png", ("png", "pdf"), origin)

Nothing of it is a time: the same command on the same files writes the same bytes. `exiftool routing_heatmap.png`, or
`PIL.Image.open(path).text`, shows it.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib as mpl

_PROJECT = "rl-mop"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Origin:
    """What a figure was made by and from.

    Attributes:
        command: As it can be repeated; "" for not known.
        inputs: Path and SHA-256 of each file that was read.
        version: Of this project.
    """

    command: str
    inputs: tuple[tuple[str, str], ...]
    version: str


def describe_origin(command: str = "", inputs: Iterable[str | PathLike[str]] = ()) -> Origin:
    """Return the origin of a figure.

    Args:
        command: That draws it.
        inputs: Files that it reads; one that cannot be read now has no digest.
    """
    return Origin(command, tuple((str(path), _digest(path)) for path in inputs), project_version())


def format_metadata(origin: Origin, kind: str, title: str) -> dict[str, Any]:
    """Return what matplotlib writes into a file.

    Args:
        origin: Of the figure.
        kind: png, pdf, svg or another format, which takes nothing.
        title: Of the file.
    """
    program = f"{_PROJECT} {origin.version}, Matplotlib {mpl.__version__}"
    inputs = "; ".join(f"{path} sha256:{digest}" if digest else path for path, digest in origin.inputs)
    names = {  # what each format calls these three, and the time, which is left out
        "png": ("Description", "Source", "Software", None),
        "pdf": ("Subject", "Keywords", "Creator", "CreationDate"),
        "svg": ("Description", "Source", "Creator", "Date"),
    }
    if kind not in names:
        return {}
    command, source, software, time = names[kind]
    told = {"Title": title, command: origin.command, source: inputs, software: program}
    told |= {time: None} if time else {}
    return {key: value for key, value in told.items() if value or value is None}


@lru_cache(maxsize=1)
def project_version() -> str:
    """Return the version of this project: as installed, or else as its pyproject.toml says."""
    try:
        return metadata.version(_PROJECT)
    except metadata.PackageNotFoundError:
        pass
    try:
        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])
    except (OSError, ValueError, KeyError):
        return "of unknown version"


def _digest(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file, "" if it cannot be read."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return ""
    return found.hexdigest()
