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
    129    stopped by SIGHUP: its terminal or SSH session has gone (not under nohup, which ignores it)
    130    stopped by Ctrl-C
    141    whoever read what is printed has gone, as in `... | head -1`; the shell says the same of its own commands
    143    stopped by SIGTERM

A command that can save before it stops hears of these signals first (`pipeline.command.interruption`) and returns the
code itself. Called from a thread, a command leaves signals to the main one. What its process has set as torch's
defaults does not reach its numbers. What the encoding of the output lacks is escaped.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any, ParamSpec

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.interruption import ENDING, READER_GONE, Terminated, signals_handled, stop_at_once

P = ParamSpec("P")

EXIT_CODES = "exit codes: 0 done, 1 some of it failed, 2 refused; stopped by 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP"


def as_command(*, stopped: str = "stopped") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Return a decorator that makes a command's main of its body; the main returns the exit code.

    Args:
        stopped: What is said at Ctrl-C, SIGTERM and SIGHUP.
    """

    def decorate(body: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(body)
        def main(*args: P.args, **kwargs: P.kwargs) -> int:
            code = None
            try:
                with _everything_written(), _end_heard(), _own_numbers():
                    try:
                        code = body(*args, **kwargs) or 0
                        return code
                    finally:
                        sys.stdout.flush()  # here, where a reader that has gone is noticed, not when Python ends
            except BrokenPipeError:
                _print_nowhere()
                return READER_GONE
            except MISTAKES as error:
                _tell(f"error: {explain(error)}")
                return 2 if code is None else code or 1  # all is done, and the words of it could not be written
            except KeyboardInterrupt as error:
                _tell(stopped)
                return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)

        return main

    return decorate


@contextmanager
def _everything_written() -> Iterator[None]:
    """Let what the output's encoding lacks be escaped; other rules that a person has set (PYTHONIOENCODING) stay."""
    with ExitStack() as changed:
        for stream in (sys.stdout, sys.stderr):
            errors = getattr(stream, "errors", None)
            lacking = errors == "strict" or (errors == "surrogateescape" and stream.encoding != "utf-8")
            if lacking and hasattr(stream, "reconfigure"):
                changed.callback(_set_errors, stream, errors)
                _set_errors(stream, "backslashreplace")
        yield


def _set_errors(stream: Any, errors: str) -> None:
    with suppress(OSError, ValueError):  # it flushes, and whoever reads may have gone, or the stream be closed
        stream.reconfigure(errors=errors)


def _end_heard() -> AbstractContextManager[bool]:
    """Let SIGTERM and SIGHUP raise `Terminated`, unless they are ignored or something else handles them."""
    return signals_handled([n for n in ENDING if signal.getsignal(n) is signal.SIG_DFL], stop_at_once)


def _own_numbers() -> AbstractContextManager[None]:
    """Let torch make float32 on the CPU, whatever a process that calls a command's main has set.

    Where torch is not loaded yet nobody has set anything, and the command may do without it.
    """
    if sys.modules.get("torch") is None:
        return nullcontext()
    from babyai.torch_defaults import own_defaults

    return own_defaults()


def _tell(line: str) -> None:
    """Print a last line to stderr; where that cannot be, the exit code says enough."""
    try:
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:
        _print_nowhere()


def _print_nowhere() -> None:
    """Send what would still be printed to where nobody need read it: Python flushes at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # a stream without a file
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())
