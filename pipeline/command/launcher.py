"""Where work items are done, as flags of a command: this machine, a Ray or Slurm cluster, Modal.

    --launcher ray --launcher_options num_cpus=2,retries=3

`pipeline/launch/` does them; docs/clusters.md shows how.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.command.errors import ConfigError, suggest


class Option(NamedTuple):
    """What a launcher may be told.

    Attributes:
        kind: int, float, bool or str.
        default: Where it is not told.
        help: In a few words.
        least: Of a number.
    """

    kind: type
    default: Any
    help: str
    least: float = 0


_RECORD = {"folder": Option(str, None, "keeps a record of the items there, for python -m pipeline.launch status")}
_COMMON = {
    "folder": Option(str, None, "of the record of the items; default: a new one below launches/"),
    "retries": Option(int, 3, "tries of an item after its first one was lost with its node"),
}
OPTIONS: dict[str, dict[str, Option]] = {
    "local": _RECORD,
    "ray": {
        **_COMMON,
        "address": Option(str, None, "of a cluster; default: RAY_ADDRESS, else a cluster of this machine alone"),
        "num_cpus": Option(float, 1.0, "cores of an item"),
        "num_gpus": Option(float, 0.0, "GPUs of an item, e.g. 0.25"),
        "wait_minutes": Option(float, 30.0, "for which no node may be there before the command ends"),
        "sync_seconds": Option(float, 2.0, "after which files that an item has written come back", 0.05),
    },
    "slurm": {
        **_COMMON,
        "executor": Option(str, "slurm", "slurm; or local or debug, without Slurm, to try it"),
        "partition": Option(str, None, "as sbatch's"),
        "account": Option(str, None, "as sbatch's"),
        "qos": Option(str, None, "as sbatch's"),
        "constraint": Option(str, None, "as sbatch's"),
        "timeout_min": Option(int, 240, "minutes of a job; when they are over it is requeued and goes on", 1),
        "max_timeouts": Option(int, 100, "how often that may be"),
        "cpus_per_task": Option(int, 1, "cores of an item", 1),
        "mem_gb": Option(float, 4.0, "memory of an item"),
        "gpus_per_node": Option(int, 0, "GPUs of an item"),
        "signal_seconds": Option(int, 120, "before the end of its time at which a job is told to save", 1),
    },
    "modal": {
        **_COMMON,
        "executor": Option(str, "modal", "modal; or local, without an account, to try it"),
        "app": Option(str, "rl-mop", "name of the app that `modal deploy modal_app.py` has made"),
        "containers": Option(int, 20, "containers at once", 1),
        "sync_seconds": Option(float, 5.0, "after which files that an item has written come back", 0.05),
    },
}
"""What each launcher may be told."""


def _list_options() -> str:
    """Return the options of each launcher with their defaults, in a few words."""

    def spell(name: str, option: Option) -> str:
        default = f"{option.default:g}" if isinstance(option.default, float) else option.default
        return name if option.default is None else f"{name}={default}"

    return "; ".join(
        f"{launcher}: {', '.join(spell(*pair) for pair in options.items())}" for launcher, options in OPTIONS.items()
    )


FLAGS = {
    "launcher": "Where the work is done: local, this machine (the default); or ray, slurm or modal, see "
    "docs/clusters.md, which need requirements/cluster.txt.",
    "launcher_options": "What the launcher is told, as in num_cpus=2,retries=3. An option that it does not know is "
    "refused, with what those mean that it knows. They are, with their defaults, for " + _list_options() + ".",
}
"""The flags of every command whose work is a list of items, with their help."""


@dataclass(frozen=True)
class Launcher:
    """Where items are done.

    Attributes:
        name: One of `OPTIONS`.
        told: Options that differ from the defaults.
    """

    name: str = "local"
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, in processes of this command."""
        return self.name == "local"

    def __getitem__(self, option: str) -> Any:
        """Return the value of an option."""
        return self.told.get(option, OPTIONS[self.name][option].default)

    def part(self, name: str) -> Launcher:
        """Return this launcher for a part of a call, which has its own record in the folder that is told, if one is."""
        return (
            self if self["folder"] is None else replace(self, told={**self.told, "folder": f"{self['folder']}/{name}"})
        )


HERE = Launcher()
"""This machine."""


def parse_launcher(launcher: str | None, launcher_options: str | None) -> Launcher:
    """Return the launcher that the flags of `FLAGS` ask for.

    Raises:
        ConfigError: If there is no such launcher, or it does not know an option or a value.
    """
    name = launcher or "local"
    if name not in OPTIONS:
        raise ConfigError(f"--launcher: expected {', '.join(OPTIONS)}, found {name!r}{suggest(name, OPTIONS)}")
    told = {}
    for part in filter(str.strip, re.split(r",(?=\s*\w*\s*=)|\s+(?=\w+=)", launcher_options or "")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or key not in OPTIONS[name]:
            known = "; ".join(f"{known}: {option.help}" for known, option in OPTIONS[name].items())
            raise ConfigError(
                f"--launcher_options: expected key=value with a key of the launcher {name} ({known}), found "
                f"{part.strip()!r}{suggest(key, OPTIONS[name])}"
            )
        if key in told:
            raise ConfigError(f"--launcher_options: {key} is given twice")
        told[key] = _read(key, OPTIONS[name][key], value)
    return Launcher(name, told)


def _read(key: str, option: Option, text: str) -> Any:
    """Return an option's value.

    Raises:
        ConfigError: If the text is none.
    """
    if option.kind is str:
        if text:
            return text
    elif option.kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            number = option.kind(text)
        except ValueError:
            number = math.nan
        if option.least <= number < math.inf:
            return number
    kinds = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    least = f" of at least {option.least:g}" if option.kind in (int, float) else ""
    raise ConfigError(f"--launcher_options: {key}: expected {kinds[option.kind]}{least}, found {text!r}")
