"""Routing against the time since the episode's start, and how well that time predicts LPC.

    elapsed = compute_elapsed(cache, "starting_room")
    plot_elapsed(elapsed)[0].figure.savefig("elapsed.png")
    print(tabulate_shares(elapsed))

A map of LPC over the grid cannot tell *where* from *when*: an episode begins in a few cells, and what a router does in
its first steps is what is seen there. Two things tell them apart. How well does the time alone predict LPC, how well
the cell and the starting room, and what does the place still tell once the time is known? And what is left of the map
once the time is taken out (`plotting.without_time`)?

Shares of variance are predictive: each step is predicted from the steps of *other* episodes at the same time (in the
same cell and room), so that many small groups gain nothing by their number; 0 is no better than the mean of all other
episodes, and less than 0 is worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.records.intervals import Estimates, mean_interval
from plotting.aggregate import group_routing_data
from plotting.data import PlotError, RoutingData
from plotting.groupings import GROUPINGS, encode_groups, find_grouping
from plotting.options import SCALES
from plotting.panels import (
    PAGE_WIDTH,
    as_routed_data,
    describe_n,
    draw_curves,
    expert_handles,
    finish,
    layer_experts,
    mean_note,
    series_style,
    use_axes,
)
from plotting.scales import choose_axis
from plotting.source import add_source, estimates_table
from plotting.style import figure_style
from plotting.temporal import step_numbers

SHOWN = 0.05
"""Share of the episodes that must reach a time for it to be drawn: later ones are means over a few long episodes."""

PREDICTORS = {
    "time": "the time since the start",
    "place": "cell and starting room",
    "place_given_time": "cell and starting room, once the time is known",
    "time_given_place": "the time, once cell and starting room are known",
}
"""What LPC is predicted from, in words."""


@dataclass(frozen=True, eq=False)
class Elapsed:
    """Means at each time since the start; entry k is for time[k].

    Attributes:
        time: int (T,), steps since the start of the episode, from 0.
        lpc: Of shape (T,).
        weights: Per layer, of shape (T, experts).
        groups: LPC of each group by its label, of shape (T,); empty if the data tells of fewer than two groups.
        title: Of the grouping, such as "starting room".
        shares: {name of `PREDICTORS`: (runs,), share of LPC's variance predicted in each run}.
        dominant: Per layer (runs, experts), share of each run's steps at which the expert has the largest weight.
        not_shown: Steps later than the last time drawn.
        data: What it was computed from.
    """

    time: np.ndarray
    lpc: Estimates
    weights: tuple[Estimates, ...]
    groups: dict[str, Estimates]
    title: str
    shares: dict[str, np.ndarray]
    dominant: tuple[np.ndarray, ...]
    not_shown: int
    data: RoutingData


def compute_elapsed(data: Any, group_by: str = "starting_room") -> Elapsed:
    """Return means of LPC and routing weights at each time since the start of the episode, and what predicts LPC.

    A mean is over the episodes that reach the time (of several runs: over runs, of their means over episodes). Times
    that fewer than `SHOWN` of all episodes reach are left out of the curves; the shares are of all steps.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        group_by: Grouping whose LPC is told apart, see `plotting.groupings`.

    Raises:
        ValueError: If there are no routers, no such grouping, or the cache does not tell episodes apart.
    """
    data, name = as_routed_data(data), find_grouping(group_by)
    if data.layouts_only:
        raise PlotError("elapsed: this cache tells layouts apart, not episodes, so that none can be followed in time")
    if not len(data):
        raise PlotError("elapsed: expected steps, found none")
    time = step_numbers(data).astype(np.intp)
    reached = np.bincount(np.unique(np.stack([data.routing.episode, time]), axis=1)[1])
    last = int(np.flatnonzero(reached >= SHOWN * data.num_episodes).max())
    shown = np.where(time <= last, time, -1)
    codes, keys = encode_groups(data, name)
    groups = {}
    if len(keys) > 1:
        labels = group_routing_data(data, name).labels
        joint = np.where((shown >= 0) & (codes >= 0), codes * (last + 1) + shown, -1)
        means = data.group_means(data.lpc, joint, len(keys) * (last + 1))
        groups = {labels[key]: _part(means, code, last + 1) for code, key in enumerate(keys)}
    shares = [predict_lpc(run) for run in data.split_runs()]
    return Elapsed(
        time=np.arange(last + 1),
        lpc=data.group_means(data.lpc, shown, last + 1),
        weights=tuple(data.group_means(weights, shown, last + 1) for weights in data.routing.weights),
        groups=groups,
        title=GROUPINGS[name].title,
        shares={name: np.array([share[name] for share in shares]) for name in PREDICTORS},
        dominant=tuple(
            np.stack([_dominance(run.routing.weights[layer]) for run in data.split_runs()])
            for layer in range(len(data.layer_names))
        ),
        not_shown=int((shown < 0).sum()),
        data=data,
    )


def _part(estimates: Estimates, group: int, width: int) -> Estimates:
    rows = slice(group * width, (group + 1) * width)
    return Estimates(*(getattr(estimates, field.name)[rows] for field in dataclasses.fields(Estimates)))


def _dominance(weights: np.ndarray) -> np.ndarray:
    return np.bincount(weights.argmax(axis=1), minlength=weights.shape[1]) / len(weights)


# -------------------------------------------------------------------------------------------------- what predicts LPC


def predict_lpc(data: RoutingData) -> dict[str, float]:
    """Return which share of LPC's variance over the steps of one run each of `PREDICTORS` predicts; NaN of a constant.

    Args:
        data: Of one run.
    """
    episode = data.routing.episode
    time = step_numbers(data).astype(np.intp)
    place = _places(data)
    lpc = data.lpc.astype(np.float64)
    least = lpc - predict_from_others(lpc, np.zeros(len(lpc), np.intp), episode)
    by_time, by_place = (lpc - predict_from_others(lpc, groups, episode) for groups in (time, place))
    return {
        "time": _share(least, by_time),
        "place": _share(least, by_place),
        "place_given_time": _share(by_time, by_time - predict_from_others(by_time, place, episode)),
        "time_given_place": _share(by_place, by_place - predict_from_others(by_place, time, episode)),
    }


def _share(before: np.ndarray, after: np.ndarray) -> float:
    whole = float(np.square(before).sum())
    return 1.0 - float(np.square(after).sum()) / whole if whole > 1e-12 * len(before) else float("nan")


def predict_from_others(values: np.ndarray, groups: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Return for each step the mean of its group over the steps of all other episodes, float64 (S,).

    Where no other episode has a step in the group, that of all steps of other episodes; 0 if there is no other episode.

    Args:
        values: (S,), finite.
        groups: int (S,).
        episodes: int (S,).
    """
    found = np.full(len(values), np.nan)
    for keys in (groups, np.zeros_like(groups)):
        table = pd.DataFrame({"group": keys, "episode": episodes, "value": values})
        whole = (
            table.groupby("group")["value"].transform("sum").to_numpy(),
            table.groupby("group")["value"].transform("count").to_numpy(),
        )
        own = table.groupby(["group", "episode"])["value"]
        total, count = whole[0] - own.transform("sum").to_numpy(), whole[1] - own.transform("count").to_numpy()
        found = np.where(np.isnan(found) & (count > 0), total / np.maximum(count, 1), found)
    return np.nan_to_num(found)


def _places(data: RoutingData) -> np.ndarray:
    """Return a number for each step's cell and the room in which its episode began, int (S,)."""
    position = data.routing.position.astype(np.intp)
    rooms = encode_groups(data, "starting_room")[0]
    return np.unique(np.column_stack([position, rooms]), axis=0, return_inverse=True)[1].reshape(-1)


def tabulate_shares(elapsed: Elapsed) -> pd.DataFrame:
    """Return what `plot_elapsed` says in words: one row for each quantity, with the value of each run.

    Columns: quantity (a predictor's name, or `dominant`), layer, expert (empty for the predictors), mean, low, high
    (t interval over runs, empty below three), run_0, run_1, ...
    """
    rows = [("share of LPC's variance: " + text, "", "", elapsed.shares[name]) for name, text in PREDICTORS.items()]
    for layer, shares in enumerate(elapsed.dominant):
        for expert, name in enumerate(layer_experts(elapsed.data, layer)):
            rows.append(("share of steps with the largest weight", f"layer_{layer}", name, shares[:, expert]))
    table = []
    for quantity, layer, expert, values in rows:
        mean = mean_interval(values)
        runs = {f"run_{run}": float(value) for run, value in enumerate(values)}
        ends = {"mean": float(mean.mean), "low": float(mean.low), "high": float(mean.high)}
        table.append({"quantity": quantity, "layer": layer, "expert": expert} | ends | runs)
    return pd.DataFrame(table)


# ------------------------------------------------------------------------------------------------------------- figures


@figure_style()
def plot_elapsed(elapsed: Elapsed, axes: Sequence[Axes] | None = None, *, scale: str = SCALES[0]) -> list[Axes]:
    """Draw mean LPC (in all, and by group), mean weights of each layer and n against the time since the start.

    Args:
        elapsed: From `compute_elapsed`.
        axes: One for LPC, one per layer, one for n; new ones by default.
        scale: Of LPC, see `choose_axis`.
    """
    own, data, layers = axes is None, elapsed.data, len(elapsed.weights)
    heights = [1.8] + [1.0] * layers + [0.5]
    size = (PAGE_WIDTH * 0.75, 1.5 + 1.0 * sum(heights))
    axes = use_axes(axes, layers + 2, size=size, sharex=True, height_ratios=heights)
    draw_curves(axes, [(elapsed.time, elapsed.lpc, elapsed.weights)], data, scale=scale)
    axes = list(axes[:, 0])
    drawn = [elapsed.lpc.mean, np.clip(elapsed.lpc.low, 0.0, None), elapsed.lpc.high]
    for number, (label, means) in enumerate(elapsed.groups.items()):
        color, marker = series_style(number)
        known = means.n > 0
        axes[0].plot(
            elapsed.time[known], means.mean[known], color=color, marker=marker, markersize=3, linewidth=1.0, label=label
        )
        add_source(axes[0].figure, estimates_table("LPC", label, {"time": elapsed.time}, means))
        drawn.append(means.mean)
    axes[0].set_ylim(*choose_axis(np.concatenate(drawn), data.largest_lpc, scale))
    handles = expert_handles(data)
    if elapsed.groups:
        curves = [line for line in axes[0].get_lines() if not line.get_label().startswith("_")]
        axes[0].legend(
            handles=curves, title=f"LPC by {elapsed.title} (black: all)", fontsize="x-small", title_fontsize="x-small"
        )
    axes[-1].set_xlabel("Steps since the start of the episode")
    axes[-1].set_xlim(elapsed.time[0] - 0.6, elapsed.time[-1] + 0.6)
    notes = [
        describe_n(data),
        mean_note(data),
        f"later than step {elapsed.time[-1]}, which under {SHOWN:.0%} of episodes pass, "
        f"are {elapsed.not_shown:,} steps not drawn"
        if elapsed.not_shown
        else "",
        describe_shares(elapsed),
    ]
    add_source(axes[0].figure, tabulate_shares(elapsed))
    finish(axes, notes, own=own, handles=handles, data=data)
    return axes


def describe_shares(elapsed: Elapsed) -> str:
    """Return in words what predicts LPC, and how well; over runs with the range, below that the mere share."""
    parts = []
    for name, text in PREDICTORS.items():
        values = elapsed.shares[name]
        known = values[np.isfinite(values)]
        if not len(known):
            return "LPC is constant: nothing predicts it"
        spread = f" ({100 * known.min():.0f} to {100 * known.max():.0f})" if len(known) > 1 else ""
        parts.append(f"{100 * known.mean():.0f} %{spread} from {text}")
    over = f", mean over {len(elapsed.shares['time'])} runs (least to greatest)" if elapsed.data.run is not None else ""
    return "of LPC's variance, other episodes predict " + ", ".join(parts) + over
