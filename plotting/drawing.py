"""Figures that the command line asks for: read, drawn and written, one cache or setting after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from pipeline.command.folders import check_folder
from pipeline.config import ConfigError
from pipeline.places import Place, find_caches, locate_cache, plot_path, runs_plot_path
from pipeline.records.cache import read_cache
from pipeline.records.results import read_results
from plotting.browsing import choose_places, label_place, plot_task_heatmaps
from plotting.data import RoutingData, as_routing_data
from plotting.options import ACROSS, PlotSettings, check_names
from plotting.replicates import find_settings
from plotting.style import save_figure
from plotting.views import (
    CACHE_VIEWS,
    RESULT_VIEWS,
    ViewOptions,
    describe_lack,
    draw_results_view,
    draw_view,
    list_views,
)


def check_asked(settings: PlotSettings, *, listing: bool) -> None:
    """Refuse views that there are not, and a folder that figures cannot be written to.

    Raises:
        ConfigError: If that is so.
    """
    known = RESULT_VIEWS if settings.results is not None else CACHE_VIEWS
    check_names("view", settings.views, (*known, *([ACROSS] if settings.all_caches is not None else []), "all"))
    if not listing:
        check_folder("output_dir", Path(settings.output_dir))


def draw_results(settings: PlotSettings, *, listing: bool) -> int:
    """Draw views of results; return the exit code."""
    results = read_results(settings.results)
    if listing:
        print(f"{settings.results}: {len(results)} checkpoints; views {', '.join(RESULT_VIEWS)}")
        return 0
    for view in RESULT_VIEWS if "all" in settings.views else settings.views:
        _save(draw_results_view(results, view), Path(settings.output_dir), settings)
    return 0


def _find_caches(folder: str) -> list[Place]:
    places = find_caches(folder)
    if not places:
        raise ConfigError(f"{folder}: holds no caches; `python batch_eval.py` writes them")
    return places


def draw_settings(settings: PlotSettings, *, listing: bool, show_counts: bool) -> int:
    """Draw the runs of each setting together, into a folder named by their trials and seeds."""
    found, notes = find_settings(_find_caches(settings.all_caches))
    for note in notes:
        print(f"skipped: {note}", file=sys.stderr)
    if not found:
        raise ConfigError(
            f"{settings.all_caches}: expected runs that differ in trial or seed only, found none; train more seeds"
        )
    output = Path(settings.output_dir)
    jobs = [
        _Job(setting.label, runs_plot_path(output, setting.task_id, setting.folder, "").parent, setting.load)
        for setting in found
    ]
    return _draw_all(jobs, settings, listing, show_counts)


def draw_caches(settings: PlotSettings, *, listing: bool, show_counts: bool) -> int:
    """Draw views of each cache, beside their like; return the exit code."""
    if settings.cache is not None:
        places: list[Place | Path] = [locate_cache(settings.cache) or Path(settings.cache)]
    else:
        places = list(_find_caches(settings.all_caches))
    failed = 0
    if ACROSS in settings.views and not listing:
        failed = _draw_across(settings, places)
        places = [] if settings.views == [ACROSS] else places

    def load(place: Place | Path) -> RoutingData:
        cache = read_cache(place)
        if not listing and not cache.routing:
            raise ConfigError(f"{place}: holds no steps; evaluate without --skip_routing")
        return as_routing_data(cache)

    jobs = [_Job(str(place), _output_folder(settings.output_dir, place), partial(load, place)) for place in places]
    return _draw_all(jobs, settings, listing, show_counts) or failed


@dataclass(frozen=True)
class _Job:
    """Data to draw: its name, the folder of its figures, and what reads it."""

    name: str
    folder: Path
    load: Callable[[], RoutingData]


def _draw_all(jobs: Sequence[_Job], settings: PlotSettings, listing: bool, show_counts: bool) -> int:
    """Draw or list the views of each; of many those that cannot be drawn are named and the others go on."""
    names = ("episode", "event", "before", "after", "min_visits")
    options = ViewOptions(**{name: getattr(settings, name) for name in names}, show_counts=show_counts)
    alone = settings.cache is not None
    failed = 0
    for job in tqdm(jobs, desc="caches", unit="cache", disable=alone or None, dynamic_ncols=True):
        try:
            data = job.load()
            supported = list_views(data)
            if listing:
                tqdm.write(f"{job.name}: {', '.join(supported) or 'no view, it holds no steps'}")
                continue
            for view in supported if "all" in settings.views else settings.views:
                if view in supported or (alone and view != ACROSS):
                    _save(draw_view(data, view, options), job.folder, settings)
                elif view != ACROSS:
                    lack = describe_lack(data, view)
                    tqdm.write(f"skipped: {job.name}: does not support {view}: {lack}", file=sys.stderr)
        except ValueError as error:
            if alone:
                raise
            tqdm.write(f"failed: {job.name}: {str(error).removeprefix(f'{job.name}: ')}", file=sys.stderr)
            failed = 1
    return failed


def _draw_across(settings: PlotSettings, places: Iterable[Place]) -> int:
    """Draw one checkpoint of each task; return 1 if some could not be read, and name them."""
    routed, failed = {}, 0
    for place in choose_places(places):
        try:
            cache = read_cache(place)
        except ValueError as error:
            tqdm.write(f"failed: {error}", file=sys.stderr)
            failed = 1
            continue
        if cache.routing is None or not cache.routing.weights:
            tqdm.write(f"skipped: {label_place(place)}: no routing was recorded", file=sys.stderr)
        else:
            routed[label_place(place)] = cache
    if not routed:
        raise ConfigError(f"{settings.all_caches}: no cache holds routing")
    _save({"routing_heatmap_across_tasks": plot_task_heatmaps(routed)}, Path(settings.output_dir), settings)
    return failed


def _output_folder(output_dir: str, place: Place | Path) -> Path:
    """Return where figures go: beside their like if the cache is where caches are, else right into the folder."""
    return plot_path(output_dir, place, "").parent if isinstance(place, Place) else Path(output_dir)


def _save(figures: Mapping[str, Figure], folder: Path, settings: PlotSettings) -> None:
    for name, figure in figures.items():
        for written in save_figure(figure, folder / f"{name}.png", settings.kinds):
            tqdm.write(str(written))
