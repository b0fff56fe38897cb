"""What the notebooks choose from: caches and results as far as they can be read, their labels, names for selections.

cache = load_cache(find_caches("evaluation_cache")[0].path)    # read once, until the file changes
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline.command.errors import suggest
from pipeline.command.names import name_command
from pipeline.places import Place, stored_cache
from pipeline.records.cache import Cache, CacheError, read_cache
from pipeline.records.results import ResultsError, as_results, read_results
from plotting.runs import by_played_level, short_task
from plotting.tables import format_sizes

_CACHES_KEPT = 8  # 100,000 steps take about 25 MB
Found = TypeVar("Found")


def load_cache(path: str | Path) -> Cache:
    """Return a cache, from memory if its file has not changed since it was read.

    Raises:
        CacheError: If the file cannot be used.
    """
    path = stored_cache(path)
    try:
        stamp = path.stat()
    except OSError:
        return read_cache(path)  # says what is wrong
    return _load(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=_CACHES_KEPT)
def _load(path: Path, mtime_ns: int, size: int) -> Cache:
    return read_cache(path)


def try_cache(path: str | Path) -> tuple[Cache | None, str]:
    """Return a cache that holds steps, or None and why there is none, to be shown."""
    try:
        cache = load_cache(path)
    except CacheError as error:
        return None, str(error)
    if cache.routing is None or not len(cache.routing):
        return None, f"{path}: holds no steps. Evaluate without --skip_routing: {name_command('evaluate')} --force"
    return cache, ""


def refuse_unknown(given: Mapping[str, object], known: Sequence[str]) -> None:
    """Leave with one line and exit code 2 if a notebook was given a flag that it does not have, or half a flag.

    Args:
        given: Flags and their values as marimo reads them; "" is of the `--` before them.
        known: Names of those that the notebook has; all but all_views take a value.

    Raises:
        SystemExit: If one is not known, or its value is missing.
    """
    for name, value in given.items():
        if name and name not in known:
            flags = ", ".join(f"--{flag}" for flag in known)
            close = suggest(name, known).replace("mean ", "mean --")
            print(f"error: flags: expected {flags}, found --{name}{close}", file=sys.stderr)
            sys.exit(2)
        if name and name != "all_views" and value == "":
            print(f"error: flags: expected a value behind --{name}, found none", file=sys.stderr)
            sys.exit(2)


def try_caches(places: Iterable[Place]) -> tuple[dict[str, Cache], list[str]]:
    """Return caches with routers by their label, and why others are not among them."""
    caches, problems = {}, []
    for place in places:
        cache, problem = try_cache(place.path)
        if cache is None or not cache.routing.weights:
            problems.append(problem or f"{label_place(place)}: has no routers")
        else:
            caches[label_place(place)] = cache
    return caches, problems


def try_results(path: str | Path) -> tuple[pd.DataFrame, str]:
    """Return the rows of a results file, and why there are none, to be shown; a missing or empty file has no rows.

    Their task is the level that was played, see `by_played_level`.
    """
    try:
        return by_played_level(read_results(path) if Path(path).is_file() else as_results([])), ""
    except (ResultsError, OSError) as error:
        return by_played_level(as_results([])), str(error)


def attempt(call: Callable[[], Found], otherwise: Found) -> tuple[Found, str]:
    """Return what is found, such as figures, or else `otherwise` and why the data does not have what it takes."""
    try:
        return call(), ""
    except ValueError as error:
        return otherwise, str(error)


# -------------------------------------------------------------------------------------------------------------- places


def label_place(place: Place) -> str:
    """Return such as "GoToObj · trial 1 · seed 0 · update 400"; a final checkpoint is told as such.

    The level is the one that was played; of a run of a mixture, or of another level, that comes behind it.
    """
    seed = "" if place.seed is None else f" · seed {place.seed}"
    update = "final" if place.update is None else f"update {place.update}"
    update = "update unknown" if place.unknown_update else update
    copy = " · in a doubled folder" if place.doubled else ""
    trained = "" if place.eval_task_id is None else f" · trained on {short_task(place.task_id)}"
    return f"{short_task(place.played)}{trained} · trial {place.trial}{seed} · {update}{copy}"


def choose_places(places: Iterable[Place]) -> list[Place]:
    """Return one place per task: the final checkpoint of the first run, or if there is none its last one."""
    chosen: dict[str, Place] = {}
    for place in places:
        best = chosen.get(place.played)
        if best is None or (best.run == place.run and _progress(place) > _progress(best)):
            chosen[place.played] = place
    return list(chosen.values())


def _progress(place: Place) -> float:
    if place.unknown_update:
        return -1
    return np.inf if place.update is None else place.update


def describe_cache(cache: Cache) -> str:
    """Return in a line what was evaluated, how and when."""
    head = cache.header
    sizes = head.get("expert_hidden_sizes")
    config = head["config"] if isinstance(head.get("config"), dict) else {}
    parts = [
        f"`{head.get('checkpoint_path', cache.path)}`",
        f"update {head['update']:,}" if isinstance(head.get("update"), int) else "",
        f"experts {format_sizes(sizes)}" if sizes else "",
        f"LPC weight {config['lpc_alpha']:g}" if isinstance(config.get("lpc_alpha"), int | float) else "",
        f"evaluated {str(head['evaluated_at'])[:16].replace('T', ' ')}" if head.get("evaluated_at") else "",
    ]
    return ", ".join(part for part in parts if part)


def file_word(text: str) -> str:
    """Return a text as part of a file's name: "With key, locked" gives with_key_locked."""
    return re.sub(r"\W+", "_", text).strip("_").lower()


def name_selection(chosen: Mapping[str, str], everything: Mapping[str, str]) -> str:
    """Return what to add to the name of a figure of some of several things, so that two selections are two files.

    Args:
        chosen: {thing: its task} of what is drawn.
        everything: The same of what could be.

    Returns:
        "" for all; "_GoToObj_Unlock" for all of some tasks; else the same and a digest of what is drawn.
    """
    if set(chosen) == set(everything):
        return ""
    tasks = sorted(set(chosen.values()))
    words = "".join(f"_{short_task(task)}" for task in tasks[:3]) + (f"_and_{len(tasks) - 3}_more" * (len(tasks) > 3))
    if len(tasks) <= 3 and set(chosen) == {thing for thing, task in everything.items() if task in tasks}:
        return words
    return f"{words}_{hashlib.sha256(json.dumps(sorted(chosen)).encode()).hexdigest()[:8]}"
