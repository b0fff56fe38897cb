"""Figures that the command line asks for: read, drawn and written, one cache or setting after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from pipeline.command.errors import ConfigError, check_known
from pipeline.command.folders import check_folder
from pipeline.command.names import name_command
from pipeline.places import CACHE_NAME, Place, find_caches, locate_cache, plot_path, runs_plot_path
from pipeline.records.cache import read_cache
from pipeline.records.results import read_results
from plotting.browsing import choose_places, label_place
from plotting.data import RoutingData, as_routing_data
from plotting.groupings import find_grouping
from plotting.options import ACROSS, PlotSettings
from plotting.origin import describe_origin
from plotting.prices import find_price_series
from plotting.replicates import find_settings
from plotting.source import write_source
from plotting.style import figure_size, save_figure
from plotting.task_maps import plot_task_heatmaps
from plotting.views import (
    CACHE_VIEWS,
    PRICE_VIEWS,
    RESULT_VIEWS,
    ViewOptions,
    describe_lack,
    draw_price_view,
    draw_results_view,
    draw_view,
    list_views,
)


@dataclass(frozen=True)
class Task:
    """What is asked for.

    Attributes:
        settings: From the command line.
        command: As it can be repeated; it is written into the figures.
        listing: Say which views there are, draw none.
        show_counts: Write the number of steps into the cells of heatmaps.
        data: Write the numbers of each figure beside it.
    """

    settings: PlotSettings
    command: str
    listing: bool
    show_counts: bool
    data: bool

    @cached_property
    def options(self) -> ViewOptions:
        """What the views are told."""
        names = ("episode", "event", "before", "after", "group_by", "min_visits", "scale", "font", "log_dir")
        told = {name: getattr(self.settings, name) for name in names}
        told |= {"state": self.settings.facts, "width": self.settings.inches()}
        return ViewOptions(**told, show_counts=self.show_counts, progress=True)

    def save(self, figures: Mapping[str, Figure], folder: Path, inputs: Iterable[str | PathLike[str]]) -> None:
        """Write figures by their names, made from some files, and say where."""
        origin = describe_origin(self.command, inputs)
        for name, figure in figures.items():
            written = save_figure(figure, folder / f"{name}.png", self.settings.kinds, origin)
            if self.data and (table := write_source(figure, folder / f"{name}.png")) is not None:
                written.append(table)
            elif self.data:
                tqdm.write(f"skipped: {name}: shows no numbers that could be a table", file=sys.stderr)
            for path in written:
                tqdm.write(str(path))


def check_asked(settings: PlotSettings, *, prices: bool, listing: bool) -> None:
    """Refuse views and groupings that there are not, and a folder that figures cannot be written to.

    Raises:
        ConfigError: If that is so.
    """
    known = RESULT_VIEWS if settings.results is not None else PRICE_VIEWS if prices else CACHE_VIEWS
    across = [ACROSS] if settings.all_caches is not None and not prices else []
    if "price_maps" in settings.views and not prices:
        raise ConfigError("view: price_maps is of several prices: add --all_caches FOLDER --over_prices")
    if settings.view or not prices:
        check_known("view", settings.views, (*known, *across, "all"))
    try:
        find_grouping(settings.group_by)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not listing:
        check_folder("output_dir", Path(settings.output_dir))


def draw_results(task: Task) -> int:
    """Draw views of results; return the exit code."""
    settings = task.settings
    results = read_results(settings.results)
    if task.listing:
        print(f"{settings.results}: {len(results)} checkpoints; views {', '.join(RESULT_VIEWS)}")
        return 0
    for view in RESULT_VIEWS if "all" in settings.views else settings.views:
        figures = draw_results_view(results, view, task.options)
        task.save(figures, Path(settings.output_dir), [settings.results])
    return 0


def _find_caches(folder: str) -> list[Place]:
    places = find_caches(folder)
    if not places:
        for stray in Path(folder).rglob(f"{CACHE_NAME}*"):
            raise ConfigError(
                f"{folder}: expected caches as <task>/trial_<N>/..., found {stray}; name the folder above a task's, or "
                "draw one by --cache"
            )
        raise ConfigError(f"{folder}: holds no caches; `{name_command('evaluate')}` writes them")
    return places


def _take(folder: str, find: Callable[[list[Place]], tuple[list[Any], list[str]]], what: str, remedy: str) -> list[Any]:
    """Return what is found among the caches of a folder, and tell what was passed over.

    Raises:
        ConfigError: If nothing is.
    """
    found, notes = find(_find_caches(folder))
    for note in notes:
        print(f"skipped: {note}", file=sys.stderr)
    if not found:
        raise ConfigError(f"{folder}: expected {what}, found none; {remedy}")
    return found


def draw_settings(task: Task) -> int:
    """Draw the runs of each setting together, into a folder named by their trials and seeds."""
    settings = task.settings
    found = _take(settings.all_caches, find_settings, "runs that differ in trial or seed only", "train more seeds")
    output = Path(settings.output_dir)
    jobs = [
        _Job(
            setting.label,
            runs_plot_path(output, setting.task_id, setting.folder, "").parent,
            setting.load,
            setting.places,
        )
        for setting in found
    ]
    return _draw_all(jobs, task)


def draw_prices(task: Task) -> int:
    """Draw the settings that differ in the price only together, into a folder named by their trials."""
    settings = task.settings
    what, remedy = "settings that differ in the price of complexity only", "train with --lpc_alphas 0,1e-5,1e-4"
    found = _take(settings.all_caches, find_price_series, what, remedy)
    views = PRICE_VIEWS if "all" in settings.views or not settings.view else settings.views
    failed = 0
    for series in found:
        if task.listing:
            print(f"{series.label} ({', '.join(series.settings)}): {', '.join(PRICE_VIEWS)}")
            continue
        for view in views:
            folder = runs_plot_path(settings.output_dir, series.task_id, series.folder, view).parent
            try:
                task.save(draw_price_view(series, view, task.options), folder, series.places)
            except ValueError as error:
                tqdm.write(f"failed: {series.label}: {view}: {error}", file=sys.stderr)
                failed = 1
    return failed


def draw_caches(task: Task) -> int:
    """Draw views of each cache, beside their like; return the exit code."""
    settings = task.settings
    if settings.cache is not None:
        places: list[Place | Path] = [locate_cache(settings.cache) or Path(settings.cache)]
    else:
        places = list(_find_caches(settings.all_caches))
    failed = 0
    if ACROSS in settings.views and not task.listing:
        failed = _draw_across(task, places)
        places = [] if settings.views == [ACROSS] else places

    def load(place: Place | Path) -> RoutingData:
        cache = read_cache(place)
        if not task.listing and not cache.routing:
            raise ConfigError(f"{place}: holds no steps; evaluate without --skip_routing")
        return as_routing_data(cache)

    jobs = [
        _Job(str(place), _output_folder(settings.output_dir, place), partial(load, place), (place,)) for place in places
    ]
    return _draw_all(jobs, task) or failed


@dataclass(frozen=True)
class _Job:
    """Data to draw: its name, the folder of its figures, what reads it, and from which files."""

    name: str
    folder: Path
    load: Callable[[], RoutingData]
    inputs: Sequence[str | PathLike[str]]


def _draw_all(jobs: Sequence[_Job], task: Task) -> int:
    """Draw or list the views of each; of many those that cannot be drawn are named and the others go on."""
    settings = task.settings
    alone = settings.cache is not None
    failed = 0
    for job in tqdm(jobs, desc="caches", unit="cache", disable=alone or None, dynamic_ncols=True):
        try:
            data = job.load()
            supported = list_views(data)
            if task.listing:
                tqdm.write(f"{job.name}: {', '.join(supported) or 'no view, it holds no steps'}")
                continue
            views = supported if "all" in settings.views else [view for view in settings.views if view != ACROSS]
            drawn = [view for view in views if view in supported or alone]
            for view in (view for view in views if view not in drawn):
                lack = describe_lack(data, view)
                tqdm.write(f"skipped: {job.name}: does not support {view}: {lack}", file=sys.stderr)
            if len(drawn) == 1:
                task.save(draw_view(data, drawn[0], task.options), job.folder, job.inputs)
            elif _draw_views(data, drawn, job, task):
                failed = 1
        except ValueError as error:
            if alone:
                raise
            tqdm.write(f"failed: {job.name}: {str(error).removeprefix(f'{job.name}: ')}", file=sys.stderr)
            failed = 1
    return failed


def _draw_views(data: RoutingData, views: Iterable[str], job: _Job, task: Task) -> int:
    """Draw several views; return 1 if some cannot be drawn, such as in too narrow a figure, and name them."""
    failed = 0
    for view in views:
        try:
            task.save(draw_view(data, view, task.options), job.folder, job.inputs)
        except ValueError as error:
            tqdm.write(f"failed: {job.name}: {view}: {error}", file=sys.stderr)
            failed = 1
    return failed


def _draw_across(task: Task, places: Iterable[Place]) -> int:
    """Draw one checkpoint of each task; return 1 if some could not be read, or the figure is too narrow; say so."""
    settings, chosen = task.settings, choose_places(places)
    routed, failed = {}, 0
    for place in chosen:
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
    options = task.options
    marks = {"min_visits": options.min_visits, "show_counts": options.show_counts, "scale": options.scale}
    try:
        with figure_size(options.width, options.font):
            figures = {"routing_heatmap_across_tasks": plot_task_heatmaps(routed, **marks)}
    except ValueError as error:
        tqdm.write(f"failed: {ACROSS}: {error}", file=sys.stderr)
        return 1
    task.save(figures, Path(settings.output_dir), chosen)
    return failed


def _output_folder(output_dir: str, place: Place | Path) -> Path:
    """Return where figures go: beside their like if the cache is where caches are, else into a folder of their own.

    That is called as the file is, or, of a `routing_data.json`, as the folder in which it lies.
    """
    if isinstance(place, Place):
        return plot_path(output_dir, place, "").parent
    path = place.resolve()
    return Path(output_dir) / (
        path.parent.name if path.name.removesuffix(".gz") == CACHE_NAME else path.name.partition(".")[0]
    )
