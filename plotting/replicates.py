"""Caches of runs that are replicates: those of one setting, which differ in trial or seed only.

    for setting in find_settings(find_caches("evaluation_cache"))[0]:
        draw_view(setting.load(), "events", ViewOptions())      # the run is the unit of every mean and interval

What a run was trained with is read from the caches themselves. Of the whole configuration all fields count but trial
and seed, and those that do not change what is learned (`NOT_IDENTITY` of `pipeline.config`, `window`). The number of
updates and the encoder's name do count, and so does how the run was evaluated: step limit, list of levels, whether
actions were drawn. A cache without a configuration, as other code writes it, is compared by what else its header tells,
and never joined with one that has a configuration. The last checkpoint of each run counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.places import FINAL_NAME, Place, run_folder
from pipeline.records.cache import CacheError, read_header
from pipeline.records.tables import EpisodeTable, RoutingTable
from plotting.browsing import load_cache
from plotting.data import RoutingData, as_routing_data
from plotting.runs import OF_EVALUATION, SETTING_COLUMNS, collect_runs, group_settings, last_checkpoints, short_task
from plotting.style import count_of


def join_runs(runs: Sequence[RoutingData]) -> RoutingData:
    """Return the data of several runs of one setting as one, in which each run is a unit; a single run as it is.

    Args:
        runs: At least one, with the same layers and experts.

    Raises:
        ValueError: If there is none, or they do not fit together; the message says in what.
    """
    if not runs:
        raise ValueError("runs: expected at least one, found none")
    if len(runs) == 1:
        return runs[0]
    lengths = [len(run.episodes) for run in runs]
    return RoutingData(
        RoutingTable.concatenate([run.routing for run in runs], num_episodes=lengths),
        EpisodeTable.concatenate([run.episodes for run in runs]),
        title=runs[0].title if len({run.title for run in runs}) == 1 else "",
        layouts_only=any(run.layouts_only for run in runs),
        kept_held=np.concatenate([run.held for run in runs]),
        run=np.repeat(np.arange(len(runs)), lengths),
        replaced=max((run.replaced for run in runs if run.replaced is not None), default=None),  # of the same levels
    )


@dataclass(frozen=True)
class Setting:
    """Runs of one setting.

    Attributes:
        task_id: Their task.
        label: Such as "GoToObj, alpha = 1e-05 · 3 runs (trial 1, seeds 0, 1, 2)".
        folder: Name of a folder for its figures, told by trials and seeds: "trial_1_seeds_0_1_2".
        places: The cache of each run's last checkpoint.
    """

    task_id: str
    label: str
    folder: str
    places: tuple[Place, ...]

    def load(self) -> RoutingData:
        """Return the steps of all runs, see `join_runs`.

        Raises:
            ValueError: A cache cannot be used or holds no steps, or the caches do not fit together.
        """
        return join_runs([as_routing_data(load_cache(place.path)) for place in self.places])


def find_settings(places: Iterable[Place], least: int = 2) -> tuple[list[Setting], list[str]]:
    """Return the settings that several runs with recorded steps have, by task, and notes on what does not count.

    Args:
        places: From `find_caches`.
        least: Runs that a setting must have.
    """
    rows, by_path, notes = [], {}, []
    for place in sorted(places, key=lambda place: not place.doubled):  # of a run and its copy the last counts
        try:
            header = read_header(place)
        except CacheError as error:
            notes.append(str(error))
            continue
        if "schema_version" not in header:
            notes.append(f"{place}: of an older form, which does not tell how the run was trained; it joins no others")
        elif header.get("num_steps") and header.get("expert_hidden_sizes"):
            rows.append(_row(place, header))
            by_path[str(place)] = place
    runs, more = collect_runs(rows)
    settings = []
    for (_, task_id, label), members in group_settings(last_checkpoints(runs)).groupby(["setting", "task_id", "label"]):
        if len(members) < least:
            continue
        found = tuple(by_path[path] for path in members["place"])
        words = ", ".join(filter(None, [short_task(task_id), label]))
        label = f"{words} · {count_of(len(found))} ({_describe(found)})"
        settings.append(Setting(task_id, label, _describe(found, words=False), found))
    return settings, [*notes, *more]


def _row(place: Place, header: dict[str, Any]) -> dict[str, Any]:
    """Return what `collect_runs` needs, as a row of the results would tell it, with the whole configuration."""
    config = header["config"] if isinstance(header.get("config"), dict) else {}
    told = config | {name: header.get(name) for name in ("expert_hidden_sizes", *OF_EVALUATION)}
    row = {name: _plain(told.get(name)) for name in SETTING_COLUMNS}
    update = header.get("update")
    depth = (
        2
        + (place.eval_task_id is not None)
        + (place.seed is not None)
        + (place.update is not None or place.unknown_update)
        + place.doubled
    )
    folder = run_folder(
        place.path.parents[depth], place
    )  # one for all caches of a run, whatever older folder they are in
    name = "checkpoint.pt" if place.unknown_update or place.update is not None else FINAL_NAME
    return row | {
        "task_id": place.played,
        "trained_on": None if place.eval_task_id is None else place.task_id,
        "trial": place.trial,
        "seed": place.seed,
        "update": update if isinstance(update, int) else place.update,
        "checkpoint_path": (folder / name).as_posix(),
        "checkpoint_digest": _plain(header.get("checkpoint_digest")),
        "place": str(place),
        "config": config,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | list) else str(value)


def _describe(places: Sequence[Place], *, words: bool = True) -> str:
    """Return "trial 1, seeds 0, 1", or the same as a name: "trial_1_seeds_0_1"."""
    parts = []
    for trial, members in groupby(places, lambda place: place.trial):
        seeds = [str(place.seed) for place in members if place.seed is not None]
        name = ["trial", str(trial), *(["seed" + "s" * (len(seeds) > 1)] if seeds else [])]
        parts.append(f"{' '.join(name[:2])}{', ' + name[2] + ' ' if seeds else ''}{', '.join(seeds)}" if words else
                     "_".join([*name, *seeds]))  # fmt: skip
    others = {place.task_id for place in places if place.eval_task_id is not None}
    if not words and others:  # a level's own runs have a folder of such a name too
        parts = [*sorted(others), *parts]
    return ("; " if words else "_").join(parts)
