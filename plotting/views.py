"""Every view of routing by its name: what a cache supports, its figures, their file names.

    for name, figure in draw_view(read_cache(path), "starting_room", ViewOptions()).items(): ...

`plotting.command` and the notebooks draw through this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.command.names import name_command
from pipeline.records.results import Rows, as_results
from plotting.across import plot_success_against_lpc, plot_task_bars
from plotting.actions import plot_actions_by, plot_cell_actions
from plotting.aggregate import get_available_analyses
from plotting.association import compute_associations, plot_associations
from plotting.behaviour import compute_behaviour, knows_policy, plot_behaviour
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.distributions import (
    compute_path_frequencies,
    plot_action_frequencies,
    plot_entropy_distribution,
    plot_path_frequencies,
    plot_weight_distributions,
)
from plotting.elapsed import compute_elapsed, plot_elapsed
from plotting.groupings import GROUPINGS, encode_groups, find_grouping
from plotting.heatmaps import plot_grouped_routing, plot_overall_routing
from plotting.logs import read_logs
from plotting.options import MIN_VISITS, SCALES
from plotting.prices import PriceSeries, plot_price_maps
from plotting.relations import known_aspects, known_places, plot_distance_profiles, plot_specialisation
from plotting.runs import by_played_level, short_task
from plotting.scales import Marks
from plotting.style import figure_size
from plotting.sweeps import plot_alpha_sweep, plot_learning_over_updates
from plotting.temporal import compute_event_aligned, find_events, plot_episode, plot_event_aligned
from plotting.without_time import plot_without_time

OTHER_VIEWS = (
    "episode",
    "events",
    "elapsed",
    "without_time",
    "weights",
    "entropy",
    "paths",
    "actions",
    "behaviour",
    "cell_actions",
    "actions_by_carrying",
    "association",
    "distances",
    "specialisation",
)
CACHE_VIEWS = (*GROUPINGS, *OTHER_VIEWS)
"""Views of one cache: the groupings of heatmaps, and the others."""

GROUPED_VIEWS = ("behaviour", "cell_actions", "association")
"""Those of one cache that follow `ViewOptions.group_by`."""

PRICE_VIEWS = ("price_maps", "association")
"""Views of settings that differ in the price of complexity only."""

RESULT_VIEWS = ("success_lpc", "learning", "alpha", "tasks")
"""Views of `evaluation_results.csv`."""


@dataclass(frozen=True)
class ViewOptions:
    """What views can be told.

    Attributes:
        episode: To follow in time; None: a typical one, see `pipeline.records.metrics.choose_episode`.
        event: To align episodes on; None: every event that happens, a figure each.
        before: Steps shown before the event.
        after: Steps shown after it.
        group_by: Grouping of the views behaviour, cell_actions, association and price_maps.
        state: What makes a state besides the cell, in the view behaviour; None: all that was recorded.
        min_visits: Cells of heatmaps with fewer steps are hatched.
        show_counts: Write the number of steps into the cells of heatmaps.
        pictures: Of a level of each group of a heatmap, by the group's key; without one it is drawn as a schematic.
        missions: The pictures' instructions.
        scale: Of LPC: "absolute", from 0 to the largest possible, or "relative", see `plotting.scales`.
        width: Of figures in inches, see `plotting.style.parse_width`; None for what suits each.
        font: Size of their text in points; None for `plotting.style.BASE_FONT`.
        log_dir: Folder of training logs; None for where they usually are, see `plotting.logs`.
        progress: Show a bar where a view takes longer, association.
    """

    episode: int | None = None
    event: str | None = None
    before: int = 10
    after: int = 10
    group_by: str = "overall"
    state: Sequence[str] | None = None
    min_visits: int = MIN_VISITS
    show_counts: bool = False
    pictures: Mapping[Hashable, np.ndarray] = field(default_factory=dict)
    missions: Mapping[Hashable, str] = field(default_factory=dict)
    scale: str = SCALES[0]
    width: float | None = None
    font: float | None = None
    log_dir: str | None = None
    progress: bool = False


def list_views(data: Any) -> list[str]:
    """Return the views that data supports, in the order of `CACHE_VIEWS`."""
    data = as_routing_data(data)
    if not len(data):
        return []
    found = {"overall", "actions"} if data.knows("action") else {"overall"}
    found |= {"behaviour"} if knows_policy(data) and not data.layouts_only else set()
    found |= {"cell_actions"} if knows_policy(data) else set()
    found |= {"actions_by_carrying"} if data.knows("action") and len(encode_groups(data, "carrying")[1]) > 1 else set()
    if data.has_routing:
        found |= {*get_available_analyses(data), "weights", "entropy", "paths"}
        found |= {"episode"} if not data.layouts_only and data.run is None else set()
        found |= set() if data.layouts_only else {"elapsed", "without_time"}
        found |= set() if data.layouts_only else {"association"}
        found |= {"events"} if not data.layouts_only and find_events(data) else set()
        found |= {"distances"} if known_places(data) else set()
        found |= {"specialisation"} if known_aspects(data) else set()
    return [view for view in CACHE_VIEWS if view in found]


def describe_lack(data: Any, view: str) -> str:
    """Return what data lacks for one of `CACHE_VIEWS` that it does not support."""
    data = as_routing_data(data)
    if not len(data):
        return "no steps were recorded"
    if view in ("actions", "behaviour", "cell_actions") and not knows_policy(data):
        return "no actions were recorded"
    if view == "actions_by_carrying":
        return "no actions were recorded, or all steps are alike in what is carried"
    if not data.has_routing:
        return "a policy without routers has no routing"
    if view in GROUPINGS:
        return "all steps are in one group" if encode_groups(data, view)[1] else GROUPINGS[view].missing
    if view in ("episode", "events", "elapsed", "without_time", "behaviour", "association") and data.layouts_only:
        return "it is not known where episodes begin and end"
    lacks = {
        "episode": "an episode is of one run, these are several",
        "events": "no event was recorded",
        "distances": "no distances were recorded",
        "actions": "no actions were recorded",
        "specialisation": "neither actions, subgoals nor outcomes were recorded",
    }
    return lacks[view]


def draw_view(data: Any, view: str, options: ViewOptions) -> dict[str, Figure]:
    """Return the figures of a view by the name of their file, without its ending.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        view: One of `CACHE_VIEWS`.
        options: Settings of all views.

    Raises:
        ValueError: If there is no such view, or the data does not support it; the message says what it does.
    """
    with figure_size(options.width, options.font):
        return _draw_view(data, view, options)


def _draw_view(data: Any, view: str, options: ViewOptions) -> dict[str, Figure]:
    data = as_routing_data(data)
    if view not in CACHE_VIEWS:
        raise PlotError(f"view: expected one of {', '.join(CACHE_VIEWS)}, found {view!r}")
    supported = list_views(data)
    if view not in supported:
        known = ", ".join(supported) or "none"
        lack = describe_lack(data, view)
        raise PlotError(f"view: expected one that this cache supports ({known}), found {view!r}: {lack}")
    if view in GROUPINGS:
        return _draw_heatmaps(data, view, options)
    if view == "events":
        return _draw_events(data, options)
    name, draw = _DRAW[view]
    figure = draw(data, options)
    return {name.format(episode=_episode(data, options), by=_suffix(options)): figure}


def _draw_heatmaps(data: RoutingData, view: str, options: ViewOptions) -> dict[str, Figure]:
    marks = {"min_visits": options.min_visits, "show_counts": options.show_counts, "scale": options.scale}
    pictures, missions = options.pictures, options.missions
    if view == "overall":
        return {"routing_heatmap": plot_overall_routing(data, pictures.get(view), missions.get(view), **marks)}
    return {f"routing_heatmap_by_{view}": plot_grouped_routing(data, view, pictures, missions, **marks)}


def _draw_events(data: RoutingData, options: ViewOptions) -> dict[str, Figure]:
    events = [options.event] if options.event is not None else list(find_events(data))
    aligned = {event: compute_event_aligned(data, event, options.before, options.after) for event in events}
    drawn = {event: plot_event_aligned(part, scale=options.scale)[0].figure for event, part in aligned.items()}
    return {f"routing_events_{event}": figure for event, figure in drawn.items()}


def _draw_without_time(data: RoutingData, options: ViewOptions) -> Figure:
    rooms = "starting_room" if len(encode_groups(data, "starting_room")[1]) > 1 else "overall"
    return plot_without_time(data, rooms, Marks(options.min_visits, scale=options.scale))


def _episode(data: RoutingData, options: ViewOptions) -> int:
    return data.typical_episode if options.episode is None else options.episode


_DRAW: dict[str, tuple[str, Callable[[RoutingData, ViewOptions], Figure]]] = {
    "episode": (
        "routing_episode_{episode}",
        lambda data, options: plot_episode(data, _episode(data, options), scale=options.scale)[0].figure,
    ),
    "elapsed": (
        "routing_elapsed",
        lambda data, options: plot_elapsed(compute_elapsed(data), scale=options.scale)[0].figure,
    ),
    "without_time": ("routing_without_time", _draw_without_time),
    "weights": ("routing_weights", lambda data, _: plot_weight_distributions(data)[0].figure),
    "entropy": ("routing_entropy", lambda data, _: plot_entropy_distribution(data).figure),
    "paths": ("routing_paths", lambda data, _: plot_path_frequencies(compute_path_frequencies(data)).figure),
    "actions": ("routing_actions", lambda data, _: plot_action_frequencies(data).figure),
    "behaviour": (
        "behaviour{by}",
        lambda data, options: plot_behaviour(compute_behaviour(data, options.group_by, options.state)),
    ),
    "cell_actions": ("cell_actions{by}", lambda data, options: plot_cell_actions(data, options.group_by)),
    "actions_by_carrying": ("actions_by_carrying", lambda data, _: plot_actions_by(data, "carrying").figure),
    "association": ("association{by}", lambda data, options: draw_associations({"": data}, options)),
    "distances": (
        "routing_distances",
        lambda data, options: plot_distance_profiles(data, scale=options.scale)[0, 0].figure,
    ),
    "specialisation": ("routing_specialisation", lambda data, _: plot_specialisation(data)[0, 0].figure),
}
"""File names and functions of the views that are one figure."""


def _suffix(options: ViewOptions) -> str:
    name = find_grouping(options.group_by)
    return "" if name == "overall" else f"_by_{name}"


def draw_associations(
    settings: Mapping[str, Any], options: ViewOptions, title: str = "", colors: Mapping[str, str] | None = None
) -> Figure:
    """Return the figure of LPC's associations in settings by their label, each of its colour."""
    table = compute_associations(settings, options.group_by, progress=options.progress)
    data = {label: as_routing_data(value) for label, value in settings.items()}
    return plot_associations(table, title=title, data=data, colors=colors)[0].figure


def draw_price_view(series: PriceSeries, view: str, options: ViewOptions) -> dict[str, Figure]:
    """Return the figures of a view over prices by the name of their file, without its ending.

    Args:
        series: Runs that differ in the price only.
        view: One of `PRICE_VIEWS`.
        options: Settings of all views.

    Raises:
        ValueError: If there is no such view, or a cache cannot be used.
    """
    if view not in PRICE_VIEWS:
        raise PlotError(f"view: expected one of {', '.join(PRICE_VIEWS)} over prices, found {view!r}")
    settings, title = series.load(), short_task(series.task_id)
    with figure_size(options.width, options.font):
        if view == "association":
            figure = draw_associations(settings, options, title, series.colors)
        else:
            marks = Marks(options.min_visits, scale=options.scale)
            figure = plot_price_maps(settings, options.group_by, marks, title=title)
    return {f"{view}{_suffix(options)}": figure}


def draw_results_view(rows: Rows, view: str, options: ViewOptions | None = None) -> dict[str, Figure]:
    """Return the figures of a view of results by the name of their file, without its ending.

    Args:
        rows: From `read_results`, at least one.
        view: One of `RESULT_VIEWS`; learning reads the training logs of the runs, see `plotting.logs`.
        options: Of which `width`, `font` and `log_dir` matter here.

    Raises:
        ValueError: If there is no such view, or there are no rows.
    """
    options = options or ViewOptions()
    with figure_size(options.width, options.font):
        return _draw_results_view(rows, view, options)


def _draw_results_view(rows: Rows, view: str, options: ViewOptions) -> dict[str, Figure]:
    if view not in RESULT_VIEWS:
        raise PlotError(f"view: expected one of {', '.join(RESULT_VIEWS)}, found {view!r}")
    results = by_played_level(as_results(rows))
    if results.empty:
        raise PlotError(f"expected evaluated checkpoints, found none; `{name_command('evaluate')}` evaluates them")
    if view == "success_lpc":
        return {view: plot_success_against_lpc(results).figure}
    if view == "tasks":
        return {view: plot_task_bars(results)[0].figure}
    if view == "learning":
        logs, notes = read_logs(results, options.log_dir)
        return {view: plot_learning_over_updates(results, logs=logs, log_notes=notes)[0, 0].figure}
    return {f"alpha_{name}": plot_alpha_sweep(results, name).figure for name in ("success_rate", "mean_lpc")}
