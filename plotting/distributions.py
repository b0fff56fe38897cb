"""How routing is distributed over steps: weights, entropy, paths through all layers, actions.

    plot_weight_distributions(cache), plot_entropy_distribution(cache)
    plot_path_frequencies(compute_path_frequencies(cache))
    plot_action_frequencies(cache)

What is counted are time steps; every interval is over episodes, whose steps depend on each other. Of several runs every
share is the mean over runs of the run's share, and its interval is over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation, Transform

from babyai.facts import ACTION_NAMES
from pipeline.records.intervals import MIN_FOR_INTERVAL, Estimates, share_interval
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.panels import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    as_routed_data,
    describe_n,
    expert_handles,
    finish,
    interval_note,
    layer_colors,
    layer_experts,
    unit_word,
    use_axes,
    write_near,
)
from plotting.source import add_source, estimates_table
from plotting.style import current_size, figure_style, layer_style, layer_title

_THRESHOLDS = 100

# -------------------------------------------------------------------------------------------------- weights, entropy


@figure_style()
def plot_weight_distributions(data: Any, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw for each layer and expert in which share of the steps its weight is at least x.

    A router that always decides makes flat curves, one that always mixes a steep step. The value at 0.5 is the share of
    steps in which the expert outweighs all others together.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        axes: One per layer; new ones by default.
    """
    data, own = as_routed_data(data), axes is None
    layers = len(data.layer_names)
    axes = list(use_axes(axes, 1, layers, size=(max(COLUMN_WIDTH, 0.8 + 2.2 * layers), 2.7), sharey=True)[0])
    x = np.linspace(0, 1, _THRESHOLDS + 1)
    for layer, (ax, name) in enumerate(zip(axes, data.layer_names, strict=True)):
        weights = data.weights(name)
        for expert, color in enumerate(layer_colors(data, layer)):
            shares = _survival(weights[:, expert], data)
            label = layer_experts(data, layer)[expert]
            add_source(ax.figure, estimates_table(f"share of steps, {name}", label, {"weight_at_least": x}, shares))
            ax.plot(x, shares.mean, color=color)
            ax.fill_between(x, shares.low, shares.high, color=color, alpha=0.25, linewidth=0)
        ax.set_title(layer_title(name), loc="left")
        ax.set_xlabel("Routing weight, x")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
    axes[0].set_ylabel("Share of steps with weight ≥ x")
    finish(axes, [describe_n(data), interval_note(data, "band")], own=own, handles=expert_handles(data), data=data)
    return axes


def _survival(values: np.ndarray, data: RoutingData) -> Estimates:
    """Return in which share of steps values are at least 0, 0.01, ..., 1; what is not finite does not count."""
    known = np.isfinite(values)
    bins = np.clip(np.floor(np.where(known, values, 0) * _THRESHOLDS + 1e-4), 0, _THRESHOLDS).astype(np.int64)
    bins[~known] = -1
    counts = _count_by_episode(bins, _THRESHOLDS + 1, data)
    at_least = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return share_interval(at_least, at_least[:, 0], data.run)


@figure_style()
def plot_entropy_distribution(data: Any, ax: Axes | None = None) -> Axes:
    """Draw the histogram of each layer's routing entropy over steps; the legend has means with intervals.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        ax: To draw on; new ones by default.
    """
    data, own = as_routed_data(data), ax is None
    ax = use_axes(ax, size=(COLUMN_WIDTH * 1.2, 3.0))[0, 0]
    most = float(np.log(max(data.num_experts)))
    edges = np.linspace(0, most or 1.0, 41)
    everything = np.zeros(len(data), np.int64)
    for layer, name in enumerate(data.layer_names):
        entropy = compute_entropy(data.weights(name))
        color, line, marker = layer_style(layer)
        mean = data.group_means(entropy, everything, 1)
        counts = _mean_histogram(np.minimum(entropy, edges[-1]), edges, data.run_of_step)
        low, high = max(0.0, float(mean.low[0])), min(most, float(mean.high[0]))  # what an entropy can be
        interval = f" ({low:.2f} to {high:.2f})" if mean.n[0] >= MIN_FOR_INTERVAL else " (no interval)"
        label = f"{layer_title(name)}: {mean.mean[0]:.2f}{interval}"
        ax.stairs(counts, edges, color=color, linestyle=line, linewidth=1.3, label=label)
        ends = {"entropy_from": edges[:-1], "entropy_to": edges[1:]}
        add_source(ax.figure, {"panel": "share of steps per bin", "series": name, **ends, "value": counts})
        add_source(ax.figure, estimates_table("mean entropy", name, {}, mean))
        ax.plot(mean.mean, [0], marker, color=color, markersize=6, clip_on=False, zorder=5)
    ax.axvline(most, color="0.5", linewidth=0.8, linestyle=":")
    write_near(ax, "uniform", (most, 1), (-2, -2), xycoords=("data", "axes fraction"), ha="right", va="top")
    ax.set_xlim(0, (most or 1.0) * 1.01)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("Entropy of the routing weights (nats)")
    ax.set_ylabel("Share of steps per bin")
    notes = [describe_n(data), f"markers, legend: mean over {unit_word(data)}s and its t interval"]
    finish(ax, notes, own=own, data=data)
    return ax


def _mean_histogram(values: np.ndarray, edges: np.ndarray, runs: np.ndarray | None) -> np.ndarray:
    """Return the share of values per bin, of several runs the mean over runs."""
    parts = [values] if runs is None else [values[runs == run] for run in np.unique(runs)]
    return np.mean([np.histogram(part, edges)[0] / max(1, len(part)) for part in parts], axis=0)


def compute_entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy of routing weights (S, E) in nats, (S,); 0 log 0 is 0."""
    weights = np.asarray(weights, np.float64)
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(axis=1)


# ------------------------------------------------------------------------------------------------------------- paths


@dataclass(frozen=True, eq=False)
class PathFrequencies:
    """How often the network took which path, the most frequent first.

    A path is the expert of the largest weight in each layer (the first of equals).

    Attributes:
        paths: int (P, layers).
        shares: Of the steps, (P,), intervals over episodes, or runs; `rows` is the number of steps.
        path_lpc: float64 (P,), what the path costs if its experts had weight 1; NaN if sizes are not known.
        mean_lpc: float64 (P,), mean recorded LPC of its steps, at which the other experts have their weights too.
        data: What it was computed from.
    """

    paths: np.ndarray
    shares: Estimates
    path_lpc: np.ndarray
    mean_lpc: np.ndarray
    data: RoutingData


def compute_path_frequencies(data: Any) -> PathFrequencies:
    """Return all paths that occur.

    Args:
        data: Cache, tables, step records or `RoutingData`, with routers.
    """
    data = as_routed_data(data)
    best = np.stack([data.weights(name).argmax(axis=1) for name in data.layer_names], axis=1)
    shape = tuple(data.num_experts)
    codes = np.ravel_multi_index(tuple(best.T), shape)
    found, code, rows = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.argsort(-rows, kind="stable")
    code = np.argsort(order)[code]
    counts = _count_by_episode(code, len(found), data)
    paths = np.stack(np.unravel_index(found[order], shape), axis=1)
    cost = np.full(len(found), np.nan)
    if data.expert_sizes:
        cost = sum(costs[column] for costs, column in zip(data.expert_costs, paths.T, strict=True))
    mean_lpc = np.bincount(code, data.lpc, len(found)) / rows[order]
    return PathFrequencies(paths, share_interval(counts, counts.sum(axis=1), data.run), cost, mean_lpc, data)


@figure_style()
def plot_path_frequencies(paths: PathFrequencies, ax: Axes | None = None, *, top: int = 12) -> Axes:
    """Draw the most frequent paths: a square per layer in its expert's colour, share, steps, LPC.

    Args:
        paths: From `compute_path_frequencies`.
        ax: To draw on; new ones by default.
        top: How many paths; the others are summed up in the note.
    """
    own, data = ax is None, paths.data
    shown = min(top, len(paths.paths))
    layers = len(data.layer_names)
    ax = use_axes(ax, size=(PAGE_WIDTH * 0.85, 1.5 + 0.24 * shown))[0, 0]
    shares, y = paths.shares, np.arange(shown)
    ax.barh(y, shares.mean[:shown], color="0.72", height=0.7, linewidth=0)
    if shares.n.size and shares.n[0] >= MIN_FOR_INTERVAL:
        ax.hlines(y, shares.low[:shown], shares.high[:shown], color="black", linewidth=1.2)
    ax.set_yticks([])
    ax.set_ylim(shown - 0.4, -1.4)
    ax.set_xlim(0, max(float(np.nanmax(shares.high[:shown], initial=0.0)), float(shares.mean[:1].sum()), 0.01) * 1.02)
    ax.set_xlabel("Share of steps")
    small = {"va": "center", "fontsize": "x-small"}
    for layer in range(layers):
        place = _beside(ax, -13.0 * (layers - layer))
        colors = [layer_colors(data, layer)[expert] for expert in paths.paths[:shown, layer]]
        area = 70 * current_size().scale ** 2
        ax.scatter(np.zeros(shown), y, marker="s", s=area, color=colors, transform=place, clip_on=False)
        ax.text(0, -1, str(layer), ha="center", transform=place, **small)
    ax.text(0, -1, "layer", ha="right", transform=_beside(ax, -13.0 * (layers + 0.5)), **small)
    columns = (
        ("share", [f"{share:.1%}" for share in shares.mean[:shown]]),
        ("steps", [f"{count:,}" for count in shares.rows[:shown]]),
        ("path LPC", [_whole(value) for value in paths.path_lpc[:shown]]),
        ("mean LPC", [_whole(value) for value in paths.mean_lpc[:shown]]),
    )
    for points, (head, texts) in zip((34, 72, 114, 156), columns, strict=True):
        for row, text in zip((-1, *y), (head, *texts), strict=True):
            ax.text(1, row, text, ha="right", transform=_beside(ax, points), **small)
    rest = len(paths.paths) - shown
    notes = [
        describe_n(data),
        interval_note(data, "line"),
        f"{rest} rarer paths not shown, together {1 - shares.mean[:shown].sum():.1%} of the steps" if rest else "",
        "path LPC: its experts alone; mean LPC: recorded at its steps, all weights counted",
    ]
    experts = {f"expert_{name}": paths.paths[:, layer] for layer, name in enumerate(data.layer_names)}
    add_source(ax.figure, estimates_table("share of steps", "", experts, shares) | {
        "path_lpc": paths.path_lpc, "mean_lpc": paths.mean_lpc})  # fmt: skip
    finish(ax, notes, own=own, handles=expert_handles(data), data=data)
    return ax


def _beside(ax: Axes, points: float) -> Transform:
    """Return where x is a fraction of the axes' width, moved by so many points, and y is data."""
    return ax.get_yaxis_transform() + ScaledTranslation(
        points * current_size().scale / 72, 0, ax.figure.dpi_scale_trans
    )


# ------------------------------------------------------------------------------------------------------------ actions


@figure_style()
def plot_action_frequencies(data: Any, ax: Axes | None = None) -> Axes:
    """Draw how often the agent and the expert choose each action, over the steps for which the expert has an answer.

    Without any answers the agent's actions are drawn alone, over all steps.

    Args:
        data: Cache, tables, step records or `RoutingData`; routers are not needed.
        ax: To draw on; new ones by default.

    Raises:
        ValueError: If actions were not recorded.
    """
    data, own = as_routing_data(data), ax is None
    if not data.knows("action"):
        raise PlotError("expected recorded actions, found none")
    ax = use_axes(ax, size=(COLUMN_WIDTH * 1.3, 3.0))[0, 0]
    action, expert = data.routing.action, data.routing.expert_action
    labelled = (expert >= 0) & (action >= 0)
    used = labelled if labelled.any() else action >= 0
    names = action_names(data)
    columns = [("agent", action, "#332288")] + ([("expert", expert, "0.7")] if labelled.any() else [])
    for k, (who, taken, color) in enumerate(columns):
        counts = _count_by_episode(np.where(used, taken, -1), len(names), data)
        shares = share_interval(counts, counts.sum(axis=1), data.run)
        add_source(ax.figure, estimates_table("share of steps", who, {"action": names}, shares))
        x = np.arange(len(names)) + 0.4 * (k - (len(columns) - 1) / 2)
        ax.bar(x, shares.mean, width=0.38, color=color, label=who, linewidth=0)
        if shares.n[0] >= MIN_FOR_INTERVAL:
            ax.vlines(x, shares.low, shares.high, color="black", linewidth=1.0)
        for place, top, count in zip(x, np.fmax(shares.mean, shares.high), shares.rows, strict=True):
            write_near(ax, f"{count:,}", (place, top), (0, 2), ha="center", va="bottom", rotation=90, color="0.3")
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("Share of steps")
    ax.set_ylim(0, ax.get_ylim()[1] * 1.2)
    notes = [
        describe_n(data),
        f"{int((~used).sum()):,} of them without the expert's answer, not counted" if (~used).any() else "",
        f"they agree in {float((action == expert)[labelled].mean()):.1%}" if labelled.any() else "no expert recorded",
        interval_note(data, "line"),
        "numbers: steps",
    ]
    finish(ax, notes, own=own, data=data)
    return ax


def action_names(data: RoutingData) -> list[str]:
    """Return the names of the actions that can occur, by number where they have none."""
    routing = data.routing
    count = max(routing.action_logits.shape[1], int(routing.action.max(initial=0)) + 1)
    count = max(count, int(routing.expert_action.max(initial=0)) + 1)
    return [ACTION_NAMES[k] if k < len(ACTION_NAMES) else f"action {k}" for k in range(count)]


def _count_by_episode(codes: np.ndarray, width: int, data: RoutingData) -> np.ndarray:
    """Return how many steps of each episode have each code, (episodes, width); code -1 does not count."""
    used = codes >= 0
    n = len(data.episodes)
    flat = data.routing.episode[used].astype(np.int64) * width + codes[used]
    return np.bincount(flat, minlength=n * width).reshape(n, width)


def _whole(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "-"
