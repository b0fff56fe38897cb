"""Lists of names in a study file: tasks, analyses, parts; checked."""

from __future__ import annotations

from typing import Any

from pipeline.command.errors import ConfigError


def read_names(name: str, value: Any) -> list[str]:
    """Return names from what YAML or a flag has: a list, `a,b`, or nothing for none.

    Raises:
        ConfigError: If they are no list of names, each once.
    """
    value = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
        raise ConfigError(f"{name}: expected a list of names, found {value!r}")
    for entry in value:
        if value.count(entry) > 1:
            raise ConfigError(f"{name}: expected distinct names, found {entry} twice")
    return value
