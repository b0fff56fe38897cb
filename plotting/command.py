"""The command line of `plotting_utils.py`: any view of any cache as files, without a display.

python plotting_utils.py --cache evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json --view overall
python plotting_utils.py --all_caches evaluation_cache --view starting_room,paths --formats png,pdf
python plotting_utils.py --all_caches evaluation_cache --over_runs --view events,entropy,distances
python plotting_utils.py --results evaluation_results.csv --view success_lpc,learning,alpha,tasks
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from pipeline.command.cli import parse_command
from pipeline.command.shell import as_command
from pipeline.config import ConfigError
from pipeline.places import Place, find_caches, locate_cache, plot_path, runs_plot_path
from pipeline.records.cache import read_cache
from pipeline.records.results import read_results
from plotting.browsing import choose_places, label_place, plot_task_heatmaps
from plotting.cells import MIN_VISITS
from plotting.data import RoutingData, as_routing_data
from plotting.replicates import find_settings
from plotting.style import save_figure
from plotting.views import CACHE_VIEWS, RESULT_VIEWS, ViewOptions, draw_results_view, draw_view, list_views

ACROSS = "across_tasks"
"""The view of several caches together: small multiples of heatmaps, one checkpoint of each task."""

SWITCHES = {
    "list": "Draw nothing; say which views there are.",
    "show_counts": "Write the number of steps into the cells of heatmaps.",
    "over_runs": "Draw the runs of --all_caches that differ in trial or seed only as one; the run is then the unit.",
}
_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class PlotSettings:
    """What is drawn, and where it goes.

    Attributes:
        cache: A routing_data.json to draw.
        all_caches: A folder of caches, all of which to draw.
        results: An evaluation_results.csv to draw.
        view: Which views, with commas between them, or all; --list shows them. By default overall, for results
            success_lpc.
        formats: Of the files: png (300 dpi), pdf, svg; with commas between them.
        output_dir: Folder of the figures.
        episode: Of the view episode; by default a success of median length.
        event: Of the view events; by default each that happens.
        before: Steps shown before an event.
        after: Steps shown after it.
        min_visits: Cells of heatmaps with fewer steps are hatched.
    """

    cache: str | None = None
    all_caches: str | None = None
    results: str | None = None
    view: str | list[str] = field(default_factory=list)
    formats: str | list[str] = "png"
    output_dir: str = "plots"
    episode: int | None = None
    event: str | None = None
    before: int = 10
    after: int = 10
    min_visits: int = MIN_VISITS

    def __post_init__(self) -> None:
        """Check what can be checked without files.

        Raises:
            ConfigError: On an impossible value.
        """
        given = [name for name in ("cache", "all_caches", "results") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise ConfigError(f"expected one of --cache FILE, --all_caches FOLDER, --results FILE, found {found}")
        known = RESULT_VIEWS if self.results is not None else CACHE_VIEWS
        known = (*known, ACROSS) if self.all_caches is not None else known
        for name, values, allowed in (("view", self.views, (*known, "all")), ("formats", self.kinds, _FORMATS)):
            for value in values:
                if value not in allowed:
                    raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}")
        if not self.kinds:
            raise ConfigError(f"formats: expected some of {', '.join(_FORMATS)}, found none")
        for name in ("episode", "before", "after", "min_visits"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name}: expected 0 or more, found {getattr(self, name)}")

    @property
    def views(self) -> list[str]:
        """The views by name."""
        default = "success_lpc" if self.results is not None else "overall"
        return _split(self.view) or [default]

    @property
    def kinds(self) -> list[str]:
        """The formats by name."""
        return [name.lower().lstrip(".") for name in _split(self.formats)]


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some caches could not be drawn, 2 refused."""
    settings, switches = parse_command(
        "Draw routing and results without a display.", PlotSettings, argv, switches=SWITCHES
    )
    if switches["over_runs"] and settings.all_caches is None:
        raise ConfigError("over_runs: expected --all_caches FOLDER, whose caches it groups into runs of one setting")
    if settings.results is not None:
        return _run_results(settings, listing=switches["list"])
    run = _run_settings if switches["over_runs"] else _run_caches
    return run(settings, listing=switches["list"], show_counts=switches["show_counts"])


def _run_results(settings: PlotSettings, *, listing: bool) -> int:
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


def _run_settings(settings: PlotSettings, *, listing: bool, show_counts: bool) -> int:
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


def _run_caches(settings: PlotSettings, *, listing: bool, show_counts: bool) -> int:
    if settings.cache is not None:
        places: list[Place | Path] = [locate_cache(settings.cache) or Path(settings.cache)]
    else:
        places = list(_find_caches(settings.all_caches))
    if ACROSS in settings.views and not listing:
        _draw_across(settings, places)
        places = [] if settings.views == [ACROSS] else places

    def load(place: Place | Path) -> RoutingData:
        cache = read_cache(place)
        if not listing and not cache.routing:
            raise ConfigError(f"{place}: holds no steps; evaluate without --skip_routing")
        return as_routing_data(cache)

    jobs = [_Job(str(place), _output_folder(settings.output_dir, place), partial(load, place)) for place in places]
    return _draw_all(jobs, settings, listing, show_counts)


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
                    tqdm.write(f"skipped: {job.name}: does not support {view}", file=sys.stderr)
        except ValueError as error:
            if alone:
                raise
            tqdm.write(f"failed: {job.name}: {error}", file=sys.stderr)
            failed = 1
    return failed


def _draw_across(settings: PlotSettings, places: Iterable[Place]) -> None:
    caches = {label_place(place): read_cache(place) for place in choose_places(places)}
    routed = {label: cache for label, cache in caches.items() if cache.routing is not None and cache.routing.weights}
    for label in caches.keys() - routed.keys():
        tqdm.write(f"skipped: {label}: no routing was recorded", file=sys.stderr)
    if not routed:
        raise ConfigError(f"{settings.all_caches}: no cache holds routing")
    _save({"routing_heatmap_across_tasks": plot_task_heatmaps(routed)}, Path(settings.output_dir), settings)


def _output_folder(output_dir: str, place: Place | Path) -> Path:
    """Return where figures go: beside their like if the cache is where caches are, else right into the folder."""
    return plot_path(output_dir, place, "").parent if isinstance(place, Place) else Path(output_dir)


def _save(figures: Mapping[str, Figure], folder: Path, settings: PlotSettings) -> None:
    for name, figure in figures.items():
        for written in save_figure(figure, folder / f"{name}.png", settings.kinds):
            tqdm.write(str(written))


def _split(value: str | list[str]) -> list[str]:
    """Return names given as a list, or as one text with commas between them, each once."""
    texts = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


if __name__ == "__main__":
    sys.exit(main())
