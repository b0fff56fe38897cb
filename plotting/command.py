"""The command line of `plotting_utils.py`: any view of any cache as files, without a display.

python plotting_utils.py --cache evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json --view overall
python plotting_utils.py --all_caches evaluation_cache --view starting_room,paths --formats png,pdf
python plotting_utils.py --results evaluation_results.csv --view success_lpc,learning,alpha,tasks
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipeline.cache import FILE_NAME, Cache, CacheError, CacheLocation, cache_path, find_caches, read_cache
from pipeline.cli import parse_command
from pipeline.config import ConfigError
from pipeline.results import ResultsError, read_results
from plotting.browsing import choose_places, label_place, plot_path, plot_task_heatmaps
from plotting.cells import MIN_VISITS
from plotting.style import save_figure
from plotting.views import CACHE_VIEWS, RESULT_VIEWS, ViewOptions, draw_results_view, draw_view, list_views

ACROSS = "across_tasks"
"""The view of several caches together: small multiples of heatmaps, one checkpoint of each task."""

SWITCHES = {
    "list": "Draw nothing; say which views there are.",
    "show_counts": "Write the number of steps into the cells of heatmaps.",
}
_FORMATS = ("png", "pdf", "svg")
_NAMES = re.compile(rf".*?([^/]+)/trial_(\d+)(?:/seed_(\d+))?(?:/update_(\d+))?/{re.escape(FILE_NAME)}")


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
        episode: Of the view episode; by default one in which much happens.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some caches could not be drawn, 2 refused."""
    try:
        settings, switches = parse_command(
            "Draw routing and results without a display.", PlotSettings, argv, switches=SWITCHES
        )
        if settings.results is not None:
            return _run_results(settings, listing=switches["list"])
        return _run_caches(settings, listing=switches["list"], show_counts=switches["show_counts"])
    except (ConfigError, CacheError, ResultsError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _run_results(settings: PlotSettings, *, listing: bool) -> int:
    rows = read_results(settings.results)
    if listing:
        print(f"{settings.results}: {len(rows)} checkpoints; views {', '.join(RESULT_VIEWS)}")
        return 0
    for view in RESULT_VIEWS if "all" in settings.views else settings.views:
        for name, figure in draw_results_view(rows, view).items():
            _save(figure, Path(settings.output_dir) / f"{name}.png", settings)
    return 0


def _run_caches(settings: PlotSettings, *, listing: bool, show_counts: bool) -> int:
    if settings.cache is not None:
        places: list[CacheLocation | Path] = [locate_cache(settings.cache)]
    else:
        places = list(find_caches(settings.all_caches))
        if not places:
            raise ConfigError(f"{settings.all_caches}: holds no caches; `python batch_eval.py` writes them")
    options = ViewOptions(
        episode=settings.episode,
        event=settings.event,
        before=settings.before,
        after=settings.after,
        min_visits=settings.min_visits,
        show_counts=show_counts,
    )
    alone = settings.cache is not None
    if ACROSS in settings.views and not listing:
        _draw_across(settings, places)
    failed = 0
    for place in _progress(places if listing or settings.views != [ACROSS] else [], alone):
        try:
            cache = read_cache(place)
            if listing:
                tqdm.write(f"{place}: {', '.join(list_views(cache)) or 'no view, it holds no steps'}")
                continue
            _draw_cache(cache, place, settings, options, alone)
        except (CacheError, ValueError) as error:
            if alone:
                raise
            tqdm.write(f"failed: {place}: {error}", file=sys.stderr)
            failed = 1
    return failed


def _draw_cache(
    cache: Cache, place: CacheLocation | Path, settings: PlotSettings, options: ViewOptions, alone: bool
) -> None:
    """Draw all views of a cache; of many caches those that lack one are named and the others go on."""
    supported = list_views(cache) if cache.routing is not None else []
    if not supported:
        raise ConfigError(f"{place}: holds no steps; evaluate without --skip_routing")
    for view in supported if "all" in settings.views else settings.views:
        if view == ACROSS:
            continue
        if view not in supported and not alone:
            tqdm.write(f"skipped: {place}: does not support {view}", file=sys.stderr)
            continue
        for name, figure in draw_view(cache, view, options).items():
            _save(figure, _output_path(settings.output_dir, place, name), settings)


def _draw_across(settings: PlotSettings, places: Iterable[CacheLocation]) -> None:
    caches = {label_place(place): read_cache(place) for place in choose_places(places)}
    routed = {label: cache for label, cache in caches.items() if cache.routing is not None and cache.routing.weights}
    for label in caches.keys() - routed.keys():
        tqdm.write(f"skipped: {label}: no routing was recorded", file=sys.stderr)
    if not routed:
        raise ConfigError(f"{settings.all_caches}: no cache holds routing")
    _save(plot_task_heatmaps(routed), Path(settings.output_dir) / "routing_heatmap_across_tasks.png", settings)


def locate_cache(path: str | Path) -> CacheLocation | Path:
    """Return a cache with the task, trial, seed and update that its path names; just the path if it names none."""
    match = _NAMES.fullmatch(Path(path).resolve().as_posix())
    if not match:
        return Path(path)
    numbers = [None if text is None else int(text) for text in match.groups()[1:]]
    try:
        cache_path("", match[1], *numbers)
    except CacheError:
        return Path(path)
    return CacheLocation(Path(path), match[1], *numbers)


def _output_path(output_dir: str, place: CacheLocation | Path, name: str) -> Path:
    """Return where a figure goes: beside its like if the cache is where caches are, else right into the folder."""
    if isinstance(place, CacheLocation):
        return plot_path(output_dir, place, name)
    return Path(output_dir) / f"{name}.png"


def _save(figure, path: Path, settings: PlotSettings) -> None:
    for written in save_figure(figure, path, settings.kinds):
        tqdm.write(str(written))


def _progress(places: Sequence[CacheLocation | Path], alone: bool) -> Iterator[CacheLocation | Path]:
    yield from tqdm(places, desc="caches", unit="cache", disable=alone or None, dynamic_ncols=True)


def _split(value: str | list[str]) -> list[str]:
    """Return names given as a list, or as one text with commas between them, each once."""
    texts = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


if __name__ == "__main__":
    sys.exit(main())
