"""What is to be done every few minutes, whatever else sets the pace."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Says whether so many minutes have passed.

    Args:
        minutes: 0: they never have.
        clock: Returns seconds; None: those of this machine, which no change of its time disturbs.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] | None = None) -> None:
        self._seconds, self._clock = 60.0 * minutes, clock or time.monotonic
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self._since = self._clock()

    def is_over(self) -> bool:
        """Return whether the minutes have passed since the beginning, or since the last `restart`."""
        return self._seconds > 0 and self._clock() - self._since >= self._seconds
