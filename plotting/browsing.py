"""What the notebooks show besides figures: tables as DataFrames, labels of caches, an example of each group.

cache = load_cache(find_caches("evaluation_cache")[0].path)    # read once, until the file changes
metrics_table(cache.metrics, len(cache.episodes))
for example in find_examples(cache, "starting_room"): ...      # a level of each group
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.command.names import name_command
from pipeline.places import Place, stored_cache
from pipeline.records.cache import Cache, CacheError, read_cache
from pipeline.records.results import ResultsError, as_results, read_results
from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds, group_routing_data
from plotting.cells import (
    legend_entries,
    lpc_mappable,
    render_lpc_heatmap,
    render_routing_heatmap,
)
from plotting.collapse import collapse_banner, largest_lpc
from plotting.data import as_routing_data
from plotting.levels import keep_ticks
from plotting.options import SCALES
from plotting.panels import replaced_note
from plotting.runs import by_played_level, collect_runs, last_checkpoints, short_task
from plotting.scales import Marks, choose_lpc_scale, span_of
from plotting.sheet import MARGIN, Sheet, lines_height
from plotting.source import add_source, maps_table
from plotting.style import current_size, expert_color, figure_style, layer_title, text_width

_CACHES_KEPT = 8  # 100,000 steps take about 25 MB
_MAP_WIDTH, _GAP, _TICKS, _BAR_ROOM = 1.7, 0.13, 0.24, 0.6  # inches: maps, between them, tick labels, a bar
_NAME = 0.64  # inches: for the name of a row, its experts and the titles of maps
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
        f"experts {_sizes(sizes)}" if sizes else "",
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


# -------------------------------------------------------------------------------------------------------------- tables


def metrics_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the metrics of an evaluation, a row for each: its name, its value as text, over what it was taken."""

    def value(name: str, form: str) -> str:
        found = metrics.get(name)
        return "not known" if found is None else f"{found:{form}}"

    episodes, labelled = metrics.get("num_episodes"), metrics.get("labelled_steps")
    counts = [
        f"{metrics[name]:,} {word}"
        for name, word in (("successes", "succeeded"), ("failures", "failed"), ("timeouts", "ran out of time"))
        if metrics.get(name)
    ]
    low, high = metrics.get("success_low"), metrics.get("success_high")
    interval = "" if low is None or high is None else f"95 % interval {low:.1%} to {high:.1%}; "
    total = "" if episodes is None else f"of {episodes:,} levels "
    lpc = [
        f"{metrics[f'mean_lpc_{name}']:,.0f} in {word}"
        for name, word in (("success", "successes"), ("failure", "failures"), ("timeout", "timeouts"))
        if metrics.get(f"mean_lpc_{name}") is not None
    ]
    lines = [
        ("Success", value("success_rate", ".1%"), f"{interval}{total}{', '.join(counts)}"),
        (
            "Path ratio",
            value("path_ratio", ".3f"),
            f"steps / the expert's steps, mean over {value('path_ratio_n', ',')} successes; median "
            + value("path_ratio_median", ".3f"),
        ),
        (
            "LPC",
            value("mean_lpc", ",.1f"),
            f"mean over {value('total_steps', ',')} steps; {', '.join(lpc)}".rstrip("; "),
        ),
        (
            "Agreement",
            value("agreement", ".1%"),
            f"of {'the' if labelled is None else f'{labelled:,}'} steps for which the expert had an answer",
        ),
    ]
    return pd.DataFrame(lines, columns=["metric", "value", "over"])


_SHOWN = {
    **{
        "task_id": "task",
        "trained_on": "trained on",
        "trial": "trial",
        "seed": "seed",
        "update": "update",
        "policy": "policy",
    },
    **{"success_rate": "success %", "success_low": "low", "success_high": "high", "mean_lpc": "LPC"},
    **{"path_ratio": "path ratio", "agreement": "agreement %", "lpc_alpha": "LPC weight"},
    **{"expert_hidden_sizes": "experts", "num_episodes": "levels", "evaluated_at": "evaluated"},
    "checkpoint_path": "checkpoint",
}


def results_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `evaluation_results.csv` with the columns that one compares runs by; numbers stay numbers.

    What runs were trained on is a column where it is another level than the one played, or a mixture, in some row.
    """
    rates = ["success_rate", "success_low", "success_high", "agreement"]
    results = by_played_level(results)
    shown = results[list(_SHOWN)].assign(
        task_id=results["task_id"].map(short_task),
        trained_on=results["trained_on"].fillna("").map(short_task),
        expert_hidden_sizes=[_sizes(sizes) if sizes else "" for sizes in results["expert_hidden_sizes"]],
        evaluated_at=results["evaluated_at"].fillna("").str[:16].str.replace("T", " "),
        **{name: 100 * results[name] for name in rates},
    )
    if (shown["trained_on"] == "").all():
        shown = shown.drop(columns="trained_on")
    shown = shown.round({"mean_lpc": 1, "path_ratio": 3, **dict.fromkeys(rates, 1)}).rename(columns=_SHOWN)
    # NA, not NaN, which a notebook would write as a number.
    return shown.astype(dict.fromkeys(shown.select_dtypes("float64"), "Float64"))


def _sizes(layers: list) -> str:
    """Return the expert sizes of layers, "0,16,32 x 3" for three equal ones."""
    texts = [",".join(map(str, layer)) if isinstance(layer, list) else str(layer) for layer in layers]
    return f"{texts[0]} x {len(texts)}" if len(texts) > 1 and len(set(texts)) == 1 else "; ".join(texts)


def task_names(results: pd.DataFrame) -> dict[str, str]:
    """Return the tasks of rows, short name to id."""
    return {short_task(task): task for task in sorted(results["task_id"].unique())}


def name_rows(results: pd.DataFrame) -> dict[str, str]:
    """Return {checkpoint: its task} for `name_selection`, the checkpoint with the level where that is not its own.

    Args:
        results: From `try_results`.
    """
    played = zip(results["checkpoint_path"], results["task_id"], results["trained_on"].isna(), strict=True)
    return {path if own else f"{path}/{task}": task for path, task, own in played}


def ticked_rows(results: pd.DataFrame, ticked: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of which those of `results_table` are ticked, all if none is.

    Args:
        results: From `try_results`.
        ticked: Rows of `results_table`.
    """
    if ticked.empty:
        return results
    chosen = set(zip(ticked["checkpoint"], ticked["task"], strict=True))
    keys = zip(results["checkpoint_path"], results["task_id"].map(short_task), strict=True)
    return results[[key in chosen for key in keys]]


def select_rows(results: pd.DataFrame, *, tasks: Sequence[str] = (), last_only: bool = False) -> pd.DataFrame:
    """Return the rows of some tasks (ids; none: all), or of these each run's last checkpoint."""
    chosen = results[results["task_id"].isin(tasks)] if tasks else results
    return chosen.loc[last_checkpoints(collect_runs(chosen)[0]).index.sort_values()] if last_only else chosen


# ------------------------------------------------------------------------------------------------------------- figures


@figure_style()
def plot_task_heatmaps(caches: Mapping[str, Any], notes: Sequence[str] = (), *, scale: str = SCALES[0]) -> Figure:
    """Return small multiples: a row per cache, a routing map per layer, LPC from 0 to the row's largest possible.

    Args:
        caches: {label: cache or other routing data with routers}.
        notes: What is not shown and why, written below.
        scale: Of LPC, see `plotting.scales`.
    """
    how = Marks(scale=scale)
    if not caches:
        text = f"No cache to draw: choose one, or run `{name_command('evaluate')}`."
        figure = Figure(figsize=(7.2, 0.6 + 0.2 * len(notes)))
        figure.text(0.02, 0.5, "\n".join([text, *notes]), va="center")
        return figure
    data = {label: as_routing_data(cache) for label, cache in caches.items()}
    columns = max(len(part.layer_names) for part in data.values()) + 1
    grids = {label: compute_grid_bounds(part) for label, part in data.items()}
    legends = {label: legend_entries(part.expert_sizes, part.num_experts) for label, part in data.items()}
    collapsed = [label for label, part in data.items() if collapse_banner(part)]
    banner = f"Collapsed router: {'; '.join(collapsed)}" if collapsed else ""
    lines = ["LPC " + {"relative": "on a relative scale of each row"}.get(scale, "from 0 to the largest possible")]
    lines += [f"{label}: {note}" for label, part in data.items() if (note := replaced_note(part))]
    lines += ["not shown: " + "; ".join(notes)] if notes else []
    size, natural = current_size(), 2 * MARGIN + _TICKS + columns * (_MAP_WIDTH + _GAP) + _BAR_ROOM
    full = natural if size.width is None else size.width / size.scale
    width = (full - 2 * MARGIN - _TICKS - _BAR_ROOM) / columns - _GAP
    heights = [width * grid["grid_height"] / grid["grid_width"] for grid in grids.values()]
    full_height = lines_height(full, banner, *lines) + sum(_NAME + height + _TICKS for height in heights) + MARGIN
    sheet = Sheet(full, full_height, "Routing by task", *lines, banner=banner)
    top = sheet.top
    for (label, part), height in zip(data.items(), heights, strict=True):
        averages = aggregate_routing_by_position(part)
        add_source(sheet.figure, maps_table({label: averages}))
        name = f"{label} ({part.describe_size()})"
        shrink = min(1.0, (full - 2 * MARGIN) / text_width(name, 7.5, "bold"))
        sheet.text(MARGIN, top + 0.06, name, fontweight="bold", fontsize=7.5 * shrink * size.scale)
        below, lefts = top + _NAME, [MARGIN + _TICKS + column * (width + _GAP) for column in range(columns)]
        left = lefts[0]
        for name, hue in legends[label]:
            sheet.patch(left, top + 0.26, 0.11, 0.09, expert_color(hue))
            sheet.text(left + 0.16, top + 0.24, name, fontsize="small")
            left += 0.36 + text_width(name, 7.5)
        for left, layer in zip(lefts, part.layer_names, strict=False):
            ax = sheet.axes(left, below, width, height, layer_title(layer))
            render_routing_heatmap(ax, averages, grids[label], layer)
            keep_ticks(ax, left=left == lefts[0])
        ax = sheet.axes(lefts[-1], below, width, height, "LPC, total")
        ends = choose_lpc_scale(maps := [(averages.lpc, averages.visits)], largest_lpc(part.expert_sizes), how)
        render_lpc_heatmap(ax, averages, grids[label], vmin=ends[0], vmax=ends[1])
        keep_ticks(ax, left=False)
        sheet.bar(lpc_mappable(*ends), lefts[-1] + width + 0.08, below, 0.08, height, span=span_of(maps, how))
        top = below + height + _TICKS
    return sheet.figure


def attempt(call: Callable[[], Found], otherwise: Found) -> tuple[Found, str]:
    """Return what is found, such as figures, or else `otherwise` and why the data does not have what it takes."""
    try:
        return call(), ""
    except ValueError as error:
        return otherwise, str(error)


# ------------------------------------------------------------------------------------------------------------ examples


@dataclass(frozen=True)
class Example:
    """A moment of an episode that stands for a group.

    Attributes:
        key: Of the group.
        label: Its name.
        episode: Row of the episode table.
        level_seed: Of its level.
        mission: The instruction.
        actions: Taken before that moment, so that the level can be brought to it.
    """

    key: Hashable
    label: str
    episode: int
    level_seed: int
    mission: str
    actions: tuple[int, ...]


def find_examples(routing_data: Any, group_by: str, limit: int = 24) -> list[Example]:
    """Return for each group the first moment that belongs to it; groups whose level cannot be made again are left out.

    Args:
        routing_data: As for `as_routing_data`.
        group_by: As for `group_routing_data`.
        limit: At most so many groups.
    """
    data = as_routing_data(routing_data)
    groups = group_routing_data(data, group_by)
    examples = []
    for key, group in list(groups.items())[:limit]:
        episode, step = int(group.routing.episode[0]), int(group.routing.t_step[0])
        seed = int(group.episodes.level_seed[episode])
        actions = data.routing.action[data.routing.episode == episode][: max(step, 0)].tolist()
        if seed < 0 or step < 0 or len(actions) < step or min(actions, default=0) < 0:
            continue
        examples.append(
            Example(key, groups.labels[key], episode, seed, group.episodes.mission[episode], tuple(actions))
        )
    return examples
