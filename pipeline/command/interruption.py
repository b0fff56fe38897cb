"""Ctrl-C, SIGTERM and SIGHUP as a wish to stop where stopping loses nothing; and words that nobody can read any more.

Python lets only the main thread of the main interpreter handle signals. Elsewhere (training called from a thread, as
notebooks and schedulers do) work goes on without: signals are then what that thread's program makes of them.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
ENDING = tuple(number for number in (signal.SIGTERM, HANG_UP) if number is not None)
"""Signals by which others end a program: a scheduler, and a terminal or SSH session that goes."""

REPEAT_SECONDS = 0.2
"""Within which a signal that comes again is the same wish: `timeout` sends it to its child and to its child's group."""

READER_GONE = 141
"""Exit code of a command whose reader has gone: 128 + SIGPIPE, which Windows has not."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end what Ctrl-C ends, and in the same way.

    Args:
        number: Which of them.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def stop_at_once(number: int | None, _frame: FrameType | None = None) -> NoReturn:
    """Handle a signal by an exception, so that files half written are removed and other processes ended.

    Raises:
        KeyboardInterrupt: Always; of SIGTERM and SIGHUP `Terminated`.
    """
    raise Terminated(number) if number in ENDING else KeyboardInterrupt


@contextmanager
def signals_handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any]) -> Iterator[bool]:
    """Handle signals within the block, where this thread may; yield whether it may."""
    previous: dict[int, Any] = {}
    try:
        try:
            for number in numbers:
                previous[number] = signal.signal(number, handler)
            heard = True
        except ValueError:  # not the main thread of the main interpreter
            heard = False
        yield heard
    finally:
        for number, other in previous.items():
            signal.signal(number, signal.SIG_DFL if other is None else other)  # None: set by a library in C


@dataclass
class Interruption:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a wish to stop after the current update; a second one stops at once.

    A signal that comes again within `REPEAT_SECONDS` is no second one, for some senders send each twice. SIGHUP never
    stops at once: who closes a terminal sends it from the kernel and from the shell. Where it is ignored from the start
    (nohup) it stays ignored. Within the block a line that cannot be printed is dropped, for work must not end because
    its terminal has gone or the disk of its log is full; a reader of a pipe that has gone is a wish to stop.

    Attributes:
        heard_elsewhere: Says whether a stop is wished, in place of signals: for work whose starter hears them.
        signal_number: Of the first signal.
        reader_gone: Whether whoever read what is printed has gone.
    """

    heard_elsewhere: Callable[[], bool] | None = None
    signal_number: int | None = None
    reader_gone: bool = False
    _urged_at: float | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Interruption:
        """Install the handlers."""
        if self.heard_elsewhere is None:
            ignored = HANG_UP is not None and signal.getsignal(HANG_UP) is signal.SIG_IGN
            numbers = [n for n in (signal.SIGINT, *ENDING) if not (n == HANG_UP and ignored)]
            if self._stack.enter_context(signals_handled(numbers, self._note)):
                self._stack.enter_context(_words_dropped(self._note_lost_words))
        return self

    def __exit__(self, *_: object) -> None:
        """Put back the handlers that were there."""
        self._stack.close()

    def stopping(self) -> bool:
        """Return whether a stop is wished."""
        if self.heard_elsewhere is not None:
            return self.heard_elsewhere()
        return self.signal_number is not None or self.reader_gone

    @property
    def exit_code(self) -> int:
        """What a command that has stopped returns."""
        return READER_GONE if self.reader_gone else 128 + (self.signal_number or signal.SIGTERM)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if number != HANG_UP:
            if self._urged_at is None:
                self._urged_at = now
            elif now - self._urged_at >= REPEAT_SECONDS:
                stop_at_once(number)
        self.signal_number = self.signal_number or number

    def _note_lost_words(self, error: OSError) -> None:
        self.reader_gone |= isinstance(error, BrokenPipeError)


class _Dropping:
    """A stream that drops what it cannot write."""

    def __init__(self, stream: Any, note: Callable[[OSError], object]) -> None:
        self._stream, self._note = stream, note

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._note(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _words_dropped(note: Callable[[OSError], object]) -> Iterator[None]:
    """Within the block, drop what cannot be printed, and tell `note` why."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Dropping(stream, note) if stream is not None else None for stream in kept)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = kept


@contextmanager
def deaf_to_the_terminal() -> Iterator[None]:
    """Let processes started within the block never hear Ctrl-C or SIGHUP: who started them hears, and tells them.

    A terminal sends both to all its processes. Processes inherit which signals are blocked; what comes meanwhile is
    heard after the block. multiprocessing's own process must live as long, and starting it unblocks Ctrl-C.
    """
    from multiprocessing import resource_tracker  # only here: most commands start no process

    numbers = {number for number in (signal.SIGINT, HANG_UP) if number is not None}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        with suppress(OSError):  # what starts a process next tells it
            resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
