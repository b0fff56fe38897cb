"""What has become of the items of calls, told from their records alone; and the call for what is left.

python -m pipeline.launch status launches
python -m pipeline.launch status launches/20260131-101500-train_mop --retry_failed
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import UserError
from pipeline.command.shell import as_command
from pipeline.launch.journal import CALL_FILE, STATES, ItemState, read_call, read_states

SWITCHES = {
    "retry_failed": "Make the call again, in its folder, for what is failed or missing: its command, with --resume "
    "where that was training. What is done stays.",
}


@dataclass(frozen=True)
class StatusSettings:
    """What is told.

    Attributes:
        what: status, and a folder: of a call, or of several.
        limit: Items told of by name, of each state.
    """

    what: list[str] = field(default_factory=list, metadata={"positional": True})
    limit: int = 10

    def __post_init__(self) -> None:
        """Check ranges."""
        check_numbers(self, 1, "limit")


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 all is done or at work, 1 something is left, 2 refused."""
    description = "Tell what has become of the work items of a call: status FOLDER."
    settings, values = parse_command(description, StatusSettings, argv, switches=SWITCHES)
    if len(settings.what) != 2 or settings.what[0] != "status":
        found = " ".join(settings.what) or "nothing"
        raise UserError(f"expected status and a folder, as in `status launches`, found {found}")
    root = Path(settings.what[1])
    folders = [root] if (root / CALL_FILE).is_file() else sorted(path.parent for path in root.glob(f"*/{CALL_FILE}"))
    if not folders:
        raise UserError(f"{root}: expected the record of a call, or folders of them, found none")
    if values["retry_failed"]:
        if len(folders) > 1:
            raise UserError(f"{root}: expected one call to be made again, found {len(folders)}; name its folder")
        return retry(folders[0])
    return max(tell(folder, settings.limit if len(folders) == 1 else 0) for folder in folders)


def tell(folder: Path, limit: int) -> int:
    """Print what has become of a call's items; return 1 if some failed or are missing, else 0.

    Args:
        folder: Of its record.
        limit: Items of each state that are named.
    """
    call, states = read_call(folder), read_states(folder)
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES)
    print(f"{folder}: {len(states)} items by {call['launcher']}, begun {call['begun_at']}: {told}")
    for kind in ("failed", "missing", "running"):
        found = [state for state in states if state.state == kind]
        for state in found[:limit]:
            print(f"  {kind:<8} {describe(state)}")
        if limit and len(found) > limit:
            print(f"  {kind:<8} and {len(found) - limit} more; --limit tells of them")
    return int(bool(counts["failed"] or counts["missing"]))


def describe(state: ItemState) -> str:
    """Return an item in one line."""
    where = f" on {state.node} since {state.at}" if state.state == "running" else ""
    tries = f", try {state.attempt}" if state.attempt > 1 else ""
    return f"{state.name}{where}{tries}" + (f": {state.why}" if state.why else "")


def retry(folder: Path) -> int:
    """Make a call again if something of it failed or is missing; return its exit code.

    Raises:
        UserError: If some of it is at work.
    """
    call, states = read_call(folder), read_states(folder)
    running = sum(state.state == "running" for state in states)
    if running:
        raise UserError(f"{folder}: {running} items are at work; wait for the call to end, or stop it")
    left = sum(state.state != "done" for state in states)
    if not left:
        print(f"{folder}: all {len(states)} items are done")
        return 0
    command = [call["python"] if os.path.exists(call["python"]) else sys.executable, *call["command"]]
    print(f"{left} of {len(states)} items: {shlex.join(command)}", flush=True)
    return subprocess.run(command, cwd=call["folder"], check=False).returncode
