"""What ends a program from outside, as a wish to stop: terminals that go, threads, and words that cannot be printed."""

import asyncio
import errno
import io
import os
import signal
import sys
import threading
import time

import pytest

from pipeline.command.interruption import Interruption, Terminated, deaf_to_the_terminal
from pipeline.command.shell import as_command
from pipeline.command.stopwatch import Stopwatch


@pytest.fixture
def hang_up_heard():
    """Let SIGHUP do what it does by default, also where the suite runs under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def in_a_thread(function):
    """Return what a function returns in a thread, or raise what it raises there."""
    found = []

    def note():
        try:
            found.append(("returned", function()))
        except BaseException as error:
            found.append(("raised", error))

    thread = threading.Thread(target=note)
    thread.start()
    thread.join()
    ((kind, content),) = found
    if kind == "raised":
        raise content
    return content


def test_a_signal_that_is_sent_twice_is_one_wish_to_stop(monkeypatch):
    """`timeout` signals the process that it has started, then that process's group."""
    monkeypatch.setattr("pipeline.command.interruption.REPEAT_SECONDS", 60.0)
    with Interruption() as interruption:
        for _ in range(2):
            send(signal.SIGTERM)
        assert interruption.stopping() and interruption.exit_code == 143
        monkeypatch.setattr("pipeline.command.interruption.REPEAT_SECONDS", 0.0)
        with pytest.raises(Terminated):
            send(signal.SIGTERM)


def test_a_terminal_that_goes_is_a_wish_to_stop(hang_up_heard, monkeypatch):
    monkeypatch.setattr("pipeline.command.interruption.REPEAT_SECONDS", 0.0)
    with Interruption() as interruption:
        assert not interruption.stopping()
        send(signal.SIGHUP)
        assert interruption.stopping() and interruption.exit_code == 129
        send(signal.SIGHUP)  # the shell's, after the kernel's
        send(signal.SIGTERM)  # as systemd sends both
        assert interruption.exit_code == 129
        with pytest.raises(Terminated):
            send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_under_nohup_nothing_is_heard_of_it(nohup):
    with Interruption() as interruption:
        send(signal.SIGHUP)
        assert not interruption.stopping()

    @as_command()
    def main():
        send(signal.SIGHUP)

    assert main() == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_command_that_has_nothing_to_save_ends_by_it(hang_up_heard, capsys):
    @as_command(stopped="stopped; what is finished is kept")
    def main():
        send(signal.SIGHUP)
        time.sleep(10)

    assert main() == 129
    assert capsys.readouterr().err == "stopped; what is finished is kept\n"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_handler_that_is_there_is_put_back_and_left_to_hear(hang_up_heard):
    heard = []
    signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))

    @as_command()
    def main():
        send(signal.SIGHUP)

    assert (main(), heard) == (0, [signal.SIGHUP])


def test_in_a_thread_work_goes_on_without_signals():
    """`signal.signal` raised: only the main thread may set handlers."""

    def work():
        with Interruption() as interruption, deaf_to_the_terminal():
            return interruption.stopping(), signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert in_a_thread(work) == (False, before)
    assert in_a_thread(as_command()(lambda: 7)) == 7


def test_in_a_notebook_s_loop_signals_are_heard():
    async def cell():
        with Interruption() as interruption:
            send(signal.SIGTERM)
            return interruption.exit_code

    assert asyncio.run(cell()) == 143


def test_signals_sent_while_a_process_is_started_are_heard_afterwards(hang_up_heard):
    with Interruption() as interruption:
        with deaf_to_the_terminal():
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            # To this thread: one sent to the process may reach another thread, and be heard at once.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGHUP)
            assert not interruption.stopping()
        assert interruption.stopping()
    assert {signal.SIGINT, signal.SIGHUP} <= blocked
    assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


# ------------------------------------------------------------------------------------------------------------- words


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize(
    ("number", "gone"), [(errno.ENOSPC, False), (errno.EIO, False), (errno.EDQUOT, False), (errno.EPIPE, True)]
)
def test_words_that_cannot_be_printed_end_no_work(number, gone, monkeypatch):
    """The disk of a log is full, the terminal has gone: work goes on. A reader of a pipe has: it is saved and ends."""
    monkeypatch.setattr(sys, "stdout", Broken(number))
    with Interruption() as interruption:
        print("a line", flush=True)
        assert (interruption.stopping(), interruption.reader_gone) == (gone, gone)
    if gone:
        assert interruption.exit_code == 141
    with pytest.raises(OSError, match=os.strerror(number)):
        print("a line")


@pytest.mark.parametrize(("returned", "code"), [(None, 1), (1, 1), (129, 129)])
def test_words_lost_at_the_end_are_told_and_change_no_other_code(returned, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert as_command()(lambda: returned)() == code
    assert capsys.readouterr().err == f"error: {os.strerror(errno.ENOSPC)}\n"


def test_a_command_of_which_nothing_can_be_printed_still_has_its_code(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(errno.EIO))
    monkeypatch.setattr(sys, "stderr", Broken(errno.EIO))

    def fail():
        raise OSError("full")

    assert (as_command()(fail)(), as_command()(lambda: 129)()) == (2, 129)


# --------------------------------------------------------------------------------------------------------- stopwatch


def test_a_stopwatch_counts_from_its_last_start():
    now = [100.0]
    watch = Stopwatch(5.0, lambda: now[0])
    found = []
    for seconds in (0, 299, 1, 50):
        now[0] += seconds
        found.append(watch.is_over())
    watch.restart()
    assert [*found, watch.is_over()] == [False, False, True, True, False]
    now[0] += 1e9
    assert watch.is_over() and not Stopwatch(0.0, lambda: now[0]).is_over()
