"""The record of a call: its items and what became of each, in files that `python -m pipeline.launch status` reads.

    <folder>/launch.json             the command, where, by which launcher, the names of the items
    <folder>/events.jsonl            a line for each change of an item's state, written by the driver
    <folder>/tasks/<call>/<n>.jsonl  the same, where each item has a writer of its own (Slurm)

Whoever writes a file of lines holds the lock beside it meanwhile, so that an item whose writer is gone is told from one
at work. What jobs of an earlier call still write has a folder of its own, so that it is not taken for this one's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.command.errors import ConfigError, UserError
from pipeline.command.files import Lines, cut_half_line, write_json
from pipeline.command.folders import HeldError, hold_lock, is_lock_held
from pipeline.command.launcher import Launcher
from pipeline.command.names import program
from pipeline.command.provenance import find_commit

CALL_FILE, EVENTS_FILE, TASKS = "launch.json", "events.jsonl", "tasks"
ROOT = Path("launches")

STATES = ("done", "running", "failed", "missing")
"""What an item may be: failed for a reason of its own or lost too often; missing: not begun, or broken off."""


LOCK_SECONDS = 2.0
"""For which a lock is waited for: who asks for states holds it for a moment, and a job after its last event."""

_POLL_SECONDS = 0.05


def lock_of(lines: Path) -> Path:
    """Return the lock that the writer of a file of lines holds."""
    return lines.with_name(f".{lines.name}.lock")


class Journal:
    """Writes states of items as lines, and holds the lock of its file.

    Args:
        path: The file; lines of earlier writers stay.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()
        self._machine = socket.gethostname()

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            ConfigError: If another process writes it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._stack.enter_context(hold_lock(lock_of(self._path), LOCK_SECONDS))
        except HeldError as error:
            raise ConfigError(
                f"{self._path.parent}: another call keeps its record there; name another folder=; {error}".rstrip("; ")
            ) from None
        cut_half_line(self._path)
        self._lines = Lines(self._path)
        self._stack.callback(lambda: self._lines.close())
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._stack.close()

    def clear(self) -> None:
        """Drop all lines."""
        self._lines.close()
        self._path.unlink()
        self._lines = Lines(self._path)

    def note(self, number: int, state: str, *, why: str | None = None, attempt: int = 1, node: str = "") -> None:
        """Add a line; a disk that takes none ends nothing.

        Args:
            number: Of the item.
            state: started; or one of done, stopped, failed, died, lost, which is followed by another try.
            why: In one line.
            attempt: Number of the try.
            node: Where.
        """
        line = {"at": _now(), "item": number, "state": state, "try": attempt, "node": node or self._machine}
        with suppress(OSError):
            self._lines.append(json.dumps(line if why is None else {**line, "why": str(why)}))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def open_record(launcher: Launcher, names: Sequence[str], again: Sequence[str]) -> Iterator[tuple[Path, Journal]]:
    """Write what a call is to do into a folder; yield that and its journal. What an earlier call left there gives way.

    Args:
        launcher: Names the folder, or it is a new one below `ROOT`.
        names: Of the items.
        again: Words that the command needs besides to go on; --overwrite it must not have then.

    Raises:
        ConfigError: If another call is at work there, or a job of an earlier one.
    """
    folder = Path(launcher["folder"]) if launcher["folder"] else _new_folder()
    with Journal(folder / EVENTS_FILE) as journal:
        if _are_held([lock_of(path) for path in folder.glob(f"{TASKS}/**/*.jsonl")]):
            raise ConfigError(
                f"{folder}: jobs of an earlier call are at work there; wait for them, end them (scancel), or name "
                "another folder="
            )
        journal.clear()
        shutil.rmtree(folder / TASKS, ignore_errors=True)
        _write_call(folder, launcher, names, again)
        yield folder, journal


def _are_held(locks: Sequence[Path]) -> bool:
    """Return whether a process holds one of the locks for longer than one that has told its end still may."""
    deadline = time.monotonic() + LOCK_SECONDS
    for lock in locks:
        while is_lock_held(lock):
            if time.monotonic() > deadline:
                return True
            time.sleep(_POLL_SECONDS)
    return False


def _write_call(folder: Path, launcher: Launcher, names: Sequence[str], again: Sequence[str]) -> None:
    words = [word for word in sys.orig_argv[1:] if word != "--overwrite"]
    content = {
        **{"launcher": launcher.name, "options": dict(launcher.told), "begun_at": _now(), "folder": os.getcwd()},
        **{"python": sys.executable, "command": [*words, *(word for word in again if word not in words)]},
        **{"commit": find_commit(10), "machine": socket.gethostname(), "items": list(names)},
        "call": uuid.uuid4().hex[:12],
    }
    write_json(folder / CALL_FILE, content)


def tasks_folder(folder: Path) -> Path:
    """Return where items of a call that have writers of their own keep their files.

    Raises:
        UserError: If there is no record.
    """
    return folder / TASKS / str(read_call(folder).get("call", ""))


def _new_folder() -> Path:
    begun = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = Path(program().split()[-1]).stem
    for number in range(1, 1000):
        folder = ROOT / f"{begun}-{name}{f'-{number}' * (number > 1)}"
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise ConfigError(f"{ROOT}: expected room for a new folder, found {folder} and all before it there")


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class ItemState:
    """What has become of an item.

    Attributes:
        name: Of the item.
        state: One of `STATES`.
        why: Of failed; of missing whether it was begun.
        node: Where it was last.
        attempt: Number of its last try; 0: none.
        at: Of its last line, ISO; "" without one.
    """

    name: str
    state: str
    why: str = ""
    node: str = ""
    attempt: int = 0
    at: str = ""


def read_call(folder: Path) -> dict[str, Any]:
    """Return what `open_record` has written.

    Raises:
        UserError: If there is no record.
    """
    path = folder / CALL_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {**content, "items": list(content["items"]), "command": list(content["command"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the record of a call, found none that can be read ({error})") from None


def read_states(folder: Path) -> list[ItemState]:
    """Return what has become of each item of a call, in their order.

    Raises:
        UserError: If there is no record.
    """
    names = read_call(folder)["items"]
    last: dict[int, dict[str, Any]] = {}
    for path in [folder / EVENTS_FILE, *sorted(tasks_folder(folder).glob("*.jsonl"))]:
        mine = {line["item"]: {**line, "path": path} for line in _read_lines(path)}  # clocks differ; order does not
        for number, line in mine.items():
            if number not in last or line["at"] >= last[number]["at"]:
                last[number] = line
    at_work = {path: is_lock_held(lock_of(path)) for path in {line["path"] for line in last.values()}}
    return [_state_of(name, last.get(number), at_work) for number, name in enumerate(names)]


def _state_of(name: str, line: dict[str, Any] | None, at_work: dict[Path, bool]) -> ItemState:
    if line is None:
        return ItemState(name, "missing", "not begun")
    found, why = line["state"], line.get("why", "")
    where = {"node": line["node"], "attempt": line["try"], "at": line["at"]}
    if found == "done":
        return ItemState(name, "done", **where)
    if found in ("failed", "died"):
        return ItemState(name, "failed", why, **where)
    if found == "stopped" or not at_work[line["path"]]:
        return ItemState(name, "missing", "stopped" if found == "stopped" else "whoever was at it is gone", **where)
    return ItemState(name, "running", why, **where)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; a kill in the middle of a write leaves half a one."""
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found
