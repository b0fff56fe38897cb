"""Packages that launchers need, imported when they are chosen."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.command.errors import ConfigError


def need_package(name: str) -> Any:
    """Return a package that a launcher needs.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--launcher: expected the package {name}, found none ({error}); pip install -r requirements/cluster.txt"
        ) from None
