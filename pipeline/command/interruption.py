"""Ctrl-C and SIGTERM as a wish to stop where stopping loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends what Ctrl-C ends, and in the same way."""


def stop_at_once(number: int, _frame: FrameType | None = None) -> NoReturn:
    """Handle a signal by an exception, so that files half written are removed and other processes ended.

    Raises:
        KeyboardInterrupt: Always; of SIGTERM `Terminated`.
    """
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@dataclass
class Interruption:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the current update; a second one stops at once.

    Attributes:
        heard_elsewhere: Says whether a stop is wished, in place of signals: for work whose starter hears them.
        signal_number: Of the first signal.
    """

    heard_elsewhere: Callable[[], bool] | None = None
    signal_number: int | None = None
    _previous: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> Interruption:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM) if self.heard_elsewhere is None else ():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Put back the handlers that were there."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stopping(self) -> bool:
        """Return whether a stop is wished."""
        return self.signal_number is not None if self.heard_elsewhere is None else self.heard_elsewhere()

    @property
    def exit_code(self) -> int:
        """What a command that has stopped returns."""
        return 128 + (self.signal_number or signal.SIGTERM)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            stop_at_once(number)
        self.signal_number = number


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes started within the block ignore Ctrl-C: a terminal sends it to all, and who started them acts."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
