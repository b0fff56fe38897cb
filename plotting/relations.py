"""Routing against what the agent is near to and what it does.

    plot_distance_profiles(cache)                       # LPC and weights against the way to door, key, target
    plot_specialisation(cache, ("action", "subgoal", "outcome"))

Each value is a mean over episodes of the episode's mean, with Student's t interval over episodes: steps of an episode
are no independent observations, and no value repeats per step what is constant per cell or episode. Of several runs it
is the mean over runs of that mean, with an interval over runs. What is shown is
association. Distance, time, subgoal and action go together; which expert matters is told by switching it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from babyai.facts import PLACES
from pipeline.records.intervals import MIN_FOR_INTERVAL, Estimates
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.distributions import action_names
from plotting.groupings import drop_unused, encode_groups
from plotting.options import SCALES
from plotting.panels import (
    PAGE_WIDTH,
    as_routed_data,
    describe_n,
    draw_curves,
    expert_handles,
    finish,
    fold_label,
    layer_experts,
    mean_note,
    unit_word,
    use_axes,
)
from plotting.source import add_source, estimates_table
from plotting.style import count_of, current_size, expert_cmap, expert_hues, figure_style, layer_title, text_width

_MOST_BINS = 16

# ---------------------------------------------------------------------------------------------------------- distances


@dataclass(frozen=True, eq=False)
class DistanceProfile:
    """Means by walking distance; entry k is for distances edges[k] to edges[k + 1] - 1.

    Attributes:
        place: "door", "key" or "target".
        edges: int (B + 1,), in moves.
        lpc: Over episodes, or runs, (B,).
        weights: Per layer, over the same, (B, experts).
        unknown: Steps without such a distance: there is no such object, or no more.
        data: What it was computed from.
    """

    place: str
    edges: np.ndarray
    lpc: Estimates
    weights: tuple[Estimates, ...]
    unknown: int
    data: RoutingData


def known_places(data: Any) -> list[str]:
    """Return those of door, key and target to which distances were recorded."""
    data = as_routing_data(data)
    if "walking" in data.routing.unknown:
        return []
    return [place for k, place in enumerate(PLACES) if np.isfinite(data.routing.walking[:, k]).any()]


def compute_distance_profile(data: Any, place: str, most_bins: int = _MOST_BINS) -> DistanceProfile:
    """Return mean LPC and weights by walking distance to the nearest door, key or target.

    Bins are equally wide, one move each if that makes no more than `most_bins`.

    Args:
        data: Cache, tables, step records or `RoutingData`, with routers.
        place: "door", "key" or "target".
        most_bins: At most so many bins.

    Raises:
        ValueError: If there are no such distances.
    """
    data = as_routed_data(data)
    if place not in known_places(data):
        known = ", ".join(known_places(data)) or "none"
        raise PlotError(f"place: expected one to which distances were recorded ({known}), found {place!r}")
    distance = data.routing.walking[:, PLACES.index(place)]
    known = np.isfinite(distance)
    moves = np.where(known, distance, 0).astype(np.int64)
    longest = int(moves.max())
    width = -(-(longest + 1) // most_bins)
    edges = np.arange(0, longest + width + 1, width)
    group = np.where(known, moves // width, -1)
    lpc = data.group_means(data.lpc, group, len(edges) - 1)
    weights = tuple(data.group_means(column, group, len(edges) - 1) for column in data.routing.weights)
    return DistanceProfile(place, edges, lpc, weights, int((~known).sum()), data)


@figure_style()
def plot_distance_profiles(
    data: Any, places: Sequence[str] | None = None, axes: np.ndarray | None = None, *, scale: str = SCALES[0]
) -> np.ndarray:
    """Draw LPC, the weights of each layer and n against the walking distance to door, key and target.

    Args:
        data: Cache, tables, step records or `RoutingData`, with routers.
        places: Some of "door", "key", "target"; all that are known by default.
        axes: (2 + layers, places), for LPC, the layers, n; new ones by default.
        scale: Of LPC, see `choose_axis`.

    Raises:
        ValueError: If no distances are known.
    """
    data, own = as_routing_data(data), axes is None
    places = list(known_places(data) if places is None else places)
    if not places:
        raise PlotError("expected recorded distances to door, key or target, found none")
    profiles = [compute_distance_profile(data, place) for place in places]
    layers = len(data.layer_names)
    heights = [1.2] + [1.0] * layers + [0.5]
    size = (min(PAGE_WIDTH, 1.4 + 2.2 * len(places)), 1.4 + 0.95 * sum(heights))
    shared = {"sharex": "col", "sharey": "row", "height_ratios": heights}
    axes = use_axes(axes, layers + 2, len(places), size=size, **shared)
    curves = [((p.edges[:-1] + p.edges[1:] - 1) / 2, p.lpc, p.weights) for p in profiles]
    draw_curves(axes, curves, data, [f"moves_to_{p.place}" for p in profiles], scale)
    for profile, column in zip(profiles, axes.T, strict=True):
        width = int(profile.edges[1] - profile.edges[0])
        bins = f", bins of {width}" if width > 1 else ""
        label = f"Moves to the {profile.place}{bins}"
        column[-1].set_xlabel(fold_label(column[-1], label, len(places)) if own else label)
        column[0].set_title(profile.place.capitalize(), loc="left")
    missing = [f"{count_of(p.unknown, 'step')} without a {p.place}" for p in profiles if p.unknown]
    notes = [describe_n(data), mean_note(data), ", ".join(missing)]
    finish(list(axes.flat), notes, own=own, handles=expert_handles(data), data=data)
    return axes


# ----------------------------------------------------------------------------------------------------- specialisation


@dataclass(frozen=True, eq=False)
class Specialisation:
    """Mean routing weights by what is done; entry k is for names[k].

    Attributes:
        by: "action", "expert_action", "subgoal" or "outcome".
        names: Those that occur.
        weights: Per layer, over episodes or runs, (names, experts); `n` counts these, `rows` steps.
        unknown: Steps of which it is not known.
        data: What it was computed from.
    """

    by: str
    names: list[str]
    weights: tuple[Estimates, ...]
    unknown: int
    data: RoutingData


ASPECTS = ("action", "expert_action", "subgoal", "outcome")
"""What `compute_specialisation` can take the weights by."""

_ASPECT_TITLES = {
    "action": "Agent's action",
    "expert_action": "Expert's action",
    "subgoal": "Expert's subgoal",
    "outcome": "Outcome",
}


def compute_specialisation(data: Any, by: str = "action") -> Specialisation:
    """Return the mean routing weights for each action, subgoal or outcome that occurs.

    Args:
        data: Cache, tables, step records or `RoutingData`, with routers.
        by: One of `ASPECTS`.

    Raises:
        ValueError: If it is none of them.
    """
    data = as_routed_data(data)
    group, names = drop_unused(*_codes(data, by))
    weights = tuple(data.group_means(w, group, len(names)) for w in data.routing.weights)
    return Specialisation(by, names, weights, int((group < 0).sum()), data)


def known_aspects(data: Any, among: Sequence[str] = ASPECTS) -> list[str]:
    """Return those of some `ASPECTS` that were recorded."""
    data = as_routing_data(data)
    return [by for by in among if (_codes(data, by)[0] >= 0).any()]


def _codes(data: RoutingData, by: str) -> tuple[np.ndarray, list[str]]:
    """Return a number per step, -1 for not known, and what numbers stand for."""
    if by not in ASPECTS:
        raise PlotError(f"by: expected one of {', '.join(ASPECTS)}, found {by!r}")
    if by == "outcome":
        return encode_groups(data, by)
    codes = getattr(data.routing, by).astype(np.int64)
    return codes, list(data.routing.subgoal_names) if by == "subgoal" else action_names(data)


@figure_style()
def plot_specialisation(
    data: Any, by: Sequence[str] = ("action", "subgoal", "outcome"), axes: np.ndarray | None = None
) -> np.ndarray:
    """Draw, for each aspect and layer, a matrix of mean weights: rows are actions (...), columns experts.

    The colour is the expert's, its intensity the weight; the number is the mean with its half interval.

    Args:
        data: Cache, tables, step records or `RoutingData`, with routers.
        by: Of `ASPECTS`; those that were not recorded are named in the note.
        axes: (recorded aspects, layers); new ones by default.

    Raises:
        ValueError: If none was recorded.
    """
    data, own = as_routed_data(data), axes is None
    known = known_aspects(data, by)
    if not known:
        raise PlotError(f"expected one of {', '.join(by)} to be recorded, found none")
    tables = [compute_specialisation(data, aspect) for aspect in known]
    layers = len(data.layer_names)
    heights = [len(table.names) + 0.8 for table in tables]
    size = (max(4.0, 1.5 + 0.62 * sum(data.num_experts)), 1.1 + 0.36 * sum(heights))
    axes = use_axes(axes, len(tables), layers, size=size, height_ratios=heights, width_ratios=data.num_experts)
    for table, across in zip(tables, axes, strict=True):
        for layer, (ax, estimates) in enumerate(zip(across, table.weights, strict=True)):
            sizes = data.expert_sizes[layer] if data.expert_sizes else None
            hues = expert_hues(sizes, data.num_experts[layer])
            _draw_matrix(ax, estimates, layer_experts(data, layer), hues, sum(data.num_experts))
            for label, part in zip(layer_experts(data, layer), estimates.columns(), strict=True):
                axis = {table.by: table.names}
                add_source(ax.figure, estimates_table(f"weight {data.layer_names[layer]}", label, axis, part))
            ax.set_title(layer_title(data.layer_names[layer]), loc="left")
            rows = zip(table.names, estimates.rows, estimates.n, strict=True)
            labels = [f"{name}\n{steps:,} steps, n = {n}" for name, steps, n in rows]
            ax.set_yticks(range(len(labels)), labels if layer == 0 else [], fontsize="x-small")
        across[0].set_ylabel(_ASPECT_TITLES[table.by])
    unit = unit_word(data)
    notes = [
        f"{describe_n(data)}; cells: mean over n {unit}s of the {unit}'s mean weight ± half its t interval "
        f"(none below n = {MIN_FOR_INTERVAL})",
        *(
            f"{count_of(table.unknown, 'step')} without {table.by.replace('_', ' ')}"
            for table in tables
            if table.unknown
        ),
        *(f"{aspect.replace('_', ' ')} not recorded" for aspect in by if aspect not in known),
    ]
    finish(list(axes.flat), notes, own=own, data=data)
    return axes


def _draw_matrix(ax: Axes, estimates: Estimates, experts: Sequence[str], hues: Sequence[int], columns: int) -> None:
    groups, width = estimates.mean.shape
    colors = np.stack([expert_cmap(hue)(estimates.mean[:, expert])[:, :3] for expert, hue in enumerate(hues)], axis=1)
    faint = 1.0 - np.clip(estimates.mean, 0, 1)[:, :, None]
    ax.imshow(colors + (1.0 - colors) * faint**2, aspect="auto", interpolation="nearest")
    size = 0.694 * mpl.rcParams["font.size"]  # x-small, or what fits into a cell of a narrow figure
    cell = (ax.figure.get_figwidth() - 1.3 * current_size().scale) / columns
    size *= min(1.0, 0.95 * cell / text_width("±<.005", size)) if current_size().width is not None else 1.0
    for (row, expert), mean in np.ndenumerate(estimates.mean):
        half = (estimates.high - estimates.low)[row, expert] / 2
        spread = "n < 3" if not np.isfinite(half) else f"±{half:.2f}" if half >= 0.005 else "±<.005"
        style = {"fontsize": size, "linespacing": 0.95, "color": "white" if mean > 0.6 else "black"}
        ax.text(expert, row, f"{mean:.2f}\n{spread}", ha="center", va="center", **style)
    ax.set_xticks(range(width), [label.replace(" (", "\n(") for label in experts], fontsize="x-small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_ylim(groups - 0.5, -0.5)
