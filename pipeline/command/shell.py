"""The one main of all commands: what a command returns, and what becomes of errors and signals.

    @as_command()
    def main(argv: Sequence[str] | None = None) -> int | None:
        ...

    if __name__ == "__main__":
        sys.exit(main())

Exit codes:

    0      done
    1      some of several things failed and the others are done; or a mistake of the program's, with its traceback
    2      refused, or given up: something that the person at the keyboard can mend, told in one line
    130    stopped by Ctrl-C
    141    whoever read what is printed has gone, as in `... | head -1`; the shell says the same of its own commands
    143    stopped by SIGTERM

A command that can save before it stops hears of both signals first (`pipeline.command.interruption`) and returns the
code itself.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.interruption import Terminated, stop_at_once

P = ParamSpec("P")

EXIT_CODES = "exit codes: 0 done, 1 some of it failed, 2 refused, 130 stopped by Ctrl-C, 143 by SIGTERM"


def as_command(*, stopped: str = "stopped") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Return a decorator that makes a command's main of its body; the main returns the exit code.

    Args:
        stopped: What is said at Ctrl-C and SIGTERM.
    """

    def decorate(body: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(body)
        def main(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                with _sigterm_heard():
                    try:
                        return body(*args, **kwargs) or 0
                    finally:
                        sys.stdout.flush()  # here, where a reader that has gone is noticed, not when Python ends
            except BrokenPipeError:
                _print_nowhere()
                return 141  # 128 + SIGPIPE, which Windows has not
            except MISTAKES as error:
                print(f"error: {explain(error)}", file=sys.stderr)
                return 2
            except KeyboardInterrupt as error:
                print(stopped, file=sys.stderr)
                return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)

        return main

    return decorate


@contextmanager
def _sigterm_heard() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, unless it is ignored or something else handles it."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _print_nowhere() -> None:
    """Send what would still be printed to where nobody need read it: Python flushes at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with suppress(OSError, ValueError):  # a stream without a file
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())
