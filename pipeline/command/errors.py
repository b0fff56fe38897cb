"""Mistakes that a person at the keyboard can mend: every command tells them in one line (`pipeline.command.shell`)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from babyai.errors import WorldError


class UserError(Exception):
    """Something that can be mended without changing the program; the message says what was expected and what to do."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; the message names key, expectation and what was found."""


class DataError(UserError, ValueError):
    """Data that cannot be had or read; the message names the file, what was expected and what to do."""


class FolderError(ConfigError):
    """A folder that cannot be written to, or that another process is writing to."""


MISTAKES = (UserError, WorldError, OSError)
"""What is told in one line; anything else is a mistake of the program's and shows where it happened."""


def check_known(setting: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known, with the list of those that are.

    Raises:
        ConfigError: If one is not.
    """
    for name in given:
        if name not in known:
            raise ConfigError(f"{setting}: expected one of {', '.join(known)}, found {name!r}{suggest(name, known)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return which known name a message's last word was perhaps meant to be, as its end; nothing if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def explain(error: BaseException, path: str | Path | None = None) -> str:
    """Return an error in one line: path and reason of the system's errors, the message of others.

    Args:
        error: What was raised.
        path: What was to be written, where a system's error may name none (a full disk) or a temporary file.
    """
    if not isinstance(error, OSError):
        return " ".join(str(error).splitlines()) or type(error).__name__
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    where = path if path is not None else error.filename
    return reason if where is None else f"{where}: {reason}"
