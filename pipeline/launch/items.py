"""Work items done where a command's launcher says: `launch` in place of `pipeline.command.workers.do_items`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from pipeline.command.launcher import Launcher
from pipeline.command.workers import Event, WorkItem, do_items
from pipeline.launch.driver import drive
from pipeline.launch.journal import Journal, open_record
from pipeline.launch.packages import need_package

RESUME = ("--resume",)
"""Words that a command of training needs besides to go on."""


def launch(
    items: Iterable[WorkItem],
    *,
    launcher: Launcher,
    jobs: int | None,
    report: Callable[[Event], object],
    stopping: Callable[[], bool] = lambda: False,
    again: Sequence[str] = (),
) -> None:
    """Do items, wherever; see `do_items` for what is reported and when it returns.

    Args:
        items: What is to be done. Elsewhere an item may be begun more than once: it looks up itself how far it is.
        launcher: Where.
        jobs: Most at once; elsewhere None is as many as there is room for.
        report: Called here with every event.
        stopping: Whether a stop is wished.
        again: Words that the command needs besides when it is called again for what is missing.

    Raises:
        ConfigError: If the launcher cannot be had: its package, its address, a machine's code, a path.
        BaseException: What `report` and `stopping` raise, when all work has been ended.
    """
    if launcher.is_local and launcher["folder"] is None:
        do_items(items, jobs=jobs or 1, report=report, stopping=stopping)
        return
    items = list(items)
    if not items:
        return
    with ExitStack() as stack:
        do = _open(launcher, stack)  # before anything is written: it may not be there
        folder, journal = stack.enter_context(open_record(launcher, [item.name for item in items], again))
        do(items, launcher=launcher, jobs=jobs, report=report, stopping=stopping, journal=journal, folder=folder)


def _open(launcher: Launcher, stack: ExitStack) -> Callable[..., None]:
    """Return what does items by a launcher; what that has opened, the stack closes."""
    if launcher.name == "slurm":
        from pipeline.launch.slurm import do_items_by_slurm

        need_package("submitit")
        return do_items_by_slurm
    if launcher.name == "ray":
        from pipeline.launch.ray_carrier import RayCarrier

        carrier = stack.enter_context(closing(RayCarrier(launcher)))
        return partial(drive, carrier, wait_minutes=launcher["wait_minutes"])
    if launcher.name == "modal":
        from pipeline.launch.modal_carrier import ModalCarrier

        return partial(drive, stack.enter_context(closing(ModalCarrier(launcher))))
    return _do_recorded


def _do_recorded(
    items: Sequence[WorkItem],
    *,
    jobs: int | None,
    report: Callable[[Event], object],
    stopping: Callable[[], bool],
    journal: Journal,
    **_: Any,
) -> None:
    """Do items on this machine, and record what becomes of them."""
    numbers = {item.name: number for number, item in enumerate(items)}

    def note(event: Event) -> None:
        if event.kind != "progress":
            why = str(event.content) if event.kind in ("failed", "died") else None
            journal.note(numbers[event.item.name], event.kind, why=why)
        report(event)

    do_items(items, jobs=jobs or 1, report=note, stopping=stopping)
