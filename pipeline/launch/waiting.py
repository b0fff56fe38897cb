"""The wait of a driver for machines, where none is left that could do its items: it is told, and has an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.command.errors import ConfigError

TELL_SECONDS = 300.0
"""Between lines."""


class Patience:
    """Says that no machine is there, at once and then now and then, and gives up after some time.

    Args:
        minutes: After which.
        say: Called with each line.
        clock: Of seconds.
    """

    def __init__(
        self, minutes: float, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._minutes, self._say, self._clock = minutes, say, clock
        self._since: float | None = None
        self._told = 0.0

    def note(self, missing: str | None) -> None:
        """Take notice of how it stands.

        Args:
            missing: What is not there, and how to start it; None: all is well.

        Raises:
            ConfigError: If that has lasted too long.
        """
        now = self._clock()
        if missing is None:
            if self._since is not None:
                self._say(f"after {_spell(now - self._since)} there is a machine again; the work goes on")
            self._since = None
            return
        if self._since is None:
            self._since = now
            self._told = now - TELL_SECONDS
        waited = now - self._since
        if waited >= 60 * self._minutes:
            raise ConfigError(
                f"{missing}; given up after {_spell(waited)} (--launcher_options wait_minutes). What has come back is "
                "kept, and the same call goes on from there, that of training with --resume"
            )
        if now >= self._told + TELL_SECONDS:
            self._told = now
            self._say(
                f"{missing}. Waiting for {_spell(waited)}, until {self._minutes:g} min are over (wait_minutes); Ctrl-C "
                "keeps what has come back, and the same call goes on from there, that of training with --resume"
            )


def _spell(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
