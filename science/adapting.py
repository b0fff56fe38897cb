"""Policies that learn new levels, each in the ways that `science.arms` names, and how long they take.

transfer/<level>/<arm>/seed=<seed>    a run; its note `learning` says how it learned, see `science.learning`

They are trained as the study's other runs are, once these are there: a stopped one goes on, what is complete is kept.
Where the policy that one starts from has other weights now, it begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.command.launcher import HERE, Launcher
from pipeline.places import list_checkpoints, run_folder
from science import learning
from science.inputs import traced
from science.plan import ADAPTED, Design, Run, identify
from science.runs import Failures, list_ready, train_together
from science.store import Item, Store

if TYPE_CHECKING:
    from science.transfer import Learned


def find_source(design: Design, run: Run) -> Run:
    """Return the trained policy of a run that learns a new level: that of its seed and price."""
    return next(source for source in design.routed if (source.seed, source.alpha) == (run.seed, run.alpha))


def adapt_item(design: Design, run: Run) -> Item:
    """Return the item of a run that learns a new level; those that start from their own weights need none."""
    settings = {**identify(run.config), "trial": None, "num_updates": run.config.num_updates}
    settings |= {"lines": run.config.log_interval, "learning": learning.VERSION}
    needs = () if run.config.start_from is None else (f"train/{find_source(design, run).training}",)
    return Item(f"{ADAPTED}/{run.name}", settings, needs)


def list_items(design: Design) -> list[Item]:
    """Return the items of all runs that learn new levels."""
    return [adapt_item(design, run) for run in design.adapted]


def adapt_missing(
    design: Design, store: Store, jobs: int | None, say: Callable[[str], object], launcher: Launcher = HERE
) -> Failures:
    """Train the runs that learn new levels and are not there, level by level, and stamp those that are.

    Args:
        design: Of the study.
        store: Of its stamps.
        jobs: Processes; elsewhere None is as many as there is room for.
        say: Takes a line.
        launcher: Where.

    Returns:
        Why runs could not be trained; of those whose policy to start from was not trained nothing is said.

    Raises:
        StoppedError: If it was interrupted.
    """
    failures: Failures = {}

    def item_of(run: Run) -> Item:
        return adapt_item(design, run)

    ready = list_ready(store, design.adapted, item_of)
    if ready:
        say(f"transfer: {len(ready)} of {len(design.adapted)} runs; see {design.work / 'training.log'}")
    for _, members in groupby(ready, key=lambda run: run.task):
        parts: dict[bool, list[Run]] = {True: [], False: []}
        for run in members:
            parts[_starts_elsewhere(run)].append(run)
        for overwrite, runs in parts.items():
            for together in _by_encoder(design, runs):
                about = {"jobs": jobs, "launcher": launcher, "overwrite": overwrite}
                train_together(design, store, together, item_of, failures, **about)
    return failures


def _by_encoder(design: Design, runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs by the sentence encoder of the policy of their seed, which is named where settings leave it open.

    Those that start from weights of their own have to learn with it too, whoever they are trained with.
    """
    from pipeline.checkpoints import CheckpointError, read_header

    found: dict[str, list[Run]] = {}
    for run in runs:
        name = run.config.lang_encoder
        if name == "auto":
            try:
                name = str(read_header(find_source(design, run).checkpoint).lang_encoder.get("name", name))
            except CheckpointError:  # not there; who needs it is not trained
                pass
        found.setdefault(name, []).append(replace(run, config=replace(run.config, lang_encoder=name)))
    return list(found.values())


def _starts_elsewhere(run: Run) -> bool:
    """Return whether what there is of a run started from other weights than it would now."""
    from pipeline.checkpoints import CheckpointError, read_start

    paths = list_checkpoints(run_folder(run.config.checkpoint_dir, run.config))
    if run.config.start is None or not paths:
        return False
    try:
        return read_start(paths[-1]) != read_start(run.config.start, itself=True)
    except CheckpointError:  # told of by whoever trains
        return False


def list_learned(design: Design, store: Store) -> Iterator[Learned]:
    """Yield how long each run took that has learned a new level, or has not within its updates."""
    from science.transfer import Learned

    for run in design.adapted:
        stamp = store.read(adapt_item(design, run).name)
        if stamp is None:
            continue
        source, lines = find_source(design, run), stamp.notes["learning"]
        about = {"whole": learning.find_whole(run.config), "window": run.config.window}
        steps, at_once = learning.find_learned(lines, design.config.transfer.success, **about)
        yield Learned(replace(traced(source), task=run.task), run.setting, steps, at_once)
