"""Routing in time: along one episode, and around an event over all episodes in which it happens.

    plot_episode(cache, 7)[0].figure.savefig("episode.png")
    aligned = compute_event_aligned(cache, "unlocked", before=10, after=10)
    plot_event_aligned(aligned)

An event stands at the step whose action brought it about: what the router did at offset 0 it did before the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from babyai.facts import OUTCOME_NAMES
from pipeline.records.intervals import Estimates
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.options import SCALES
from plotting.panels import (
    PAGE_WIDTH,
    as_routed_data,
    describe_n,
    draw_curves,
    episode_word,
    expert_handles,
    finish,
    fold_label,
    layer_colors,
    layer_experts,
    mean_note,
    stack_weights,
    step_edges,
    use_axes,
    write_near,
)
from plotting.scales import axis_name, choose_axis
from plotting.source import add_source
from plotting.style import figure_style, layer_title

EVENT_TEXTS = {
    "picked": "picked up",
    "dropped": "dropped",
    "unlocked": "unlocked",
    "opened": "opened",
    "closed": "closed",
    "box_opened": "opened",
}
"""How an event is told, with its object after it."""


def find_events(data: Any) -> dict[str, int]:
    """Return in how many episodes each event happens, most frequent first; empty if events were not recorded."""
    data = as_routing_data(data)
    counts = {}
    for code, name in enumerate(data.routing.event_names[1:], start=1):
        counts[name] = len(np.unique(data.routing.episode[data.routing.event == code]))
    return dict(sorted(((name, n) for name, n in counts.items() if n), key=lambda pair: -pair[1]))


# -------------------------------------------------------------------------------------------------------- one episode


@figure_style()
def plot_episode(data: Any, episode: int, axes: Sequence[Axes] | None = None, *, scale: str = SCALES[0]) -> list[Axes]:
    """Draw the routing weights of each layer, LPC and routing entropy at each step of an episode, and its events.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        episode: Its row in the episode table.
        axes: One per layer, one for LPC, one for entropy; new ones by default.
        scale: Of LPC, see `choose_axis`.

    Raises:
        ValueError: If the episode has no steps here, or there are no routers.
    """
    data, own = as_routed_data(data), axes is None
    one = data.filter(np.flatnonzero(data.routing.episode == episode))
    if not len(one):
        present = data.episodes_present
        known = f"{present.min()} to {present.max()}" if len(present) else "none"
        raise PlotError(f"episode: expected one that has steps ({known}), found {episode}")
    if data.layouts_only:
        raise PlotError("episode: this cache tells layouts apart, not episodes, so that none can be followed in time")
    time = step_numbers(one)
    layers = len(one.layer_names)
    heights = [1.0] * layers + [0.9, 0.7]
    size = (PAGE_WIDTH, 0.9 + 0.85 * sum(heights))
    axes = list(use_axes(axes, layers + 2, size=size, sharex=True, height_ratios=heights)[:, 0])
    for layer, (ax, name) in enumerate(zip(axes[:layers], one.layer_names, strict=True)):
        stack_weights(ax, time, one.weights(name), layer_colors(one, layer))
        ax.set_ylabel(f"{layer_title(name)}\nweight")
        for expert, label in enumerate(layer_experts(one, layer)):
            values = one.weights(name)[:, expert]
            add_source(ax.figure, {"panel": f"weight {name}", "series": label, "step": time, "value": values})
    most = float(np.mean(np.log(one.num_experts)))
    limits = (choose_axis(one.lpc, one.largest_lpc, scale), (-0.04 * most, 1.04 * most or 1.0))
    curves = ((one.lpc, axis_name(scale)), (one.routing.entropy, "Entropy\n(nats)"))
    for ax, (values, label), ends in zip(axes[layers:], curves, limits, strict=True):
        ax.stairs(values, step_edges(time), baseline=None, color="black", linewidth=1.2)
        ax.set_ylabel(label)
        ax.set_ylim(*ends)
        add_source(ax.figure, {"panel": label.replace("\n", " "), "series": "", "step": time, "value": values})
    axes[-1].set_xlabel("Time step of the episode")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlim(time[0] - 0.5, time[-1] + 0.5)
    _mark_events(axes, time, one)
    axes[0].set_title(_describe_episode(one, episode), loc="left", pad=24 if one.routing.event.any() else 6)
    finish(axes, [], own=own, handles=expert_handles(one), data=data)
    return axes


def _mark_events(axes: Sequence[Axes], time: np.ndarray, data: RoutingData) -> None:
    routing = data.routing
    last = -np.inf
    level = 0
    span = max(1, time[-1] - time[0] + 1)
    for row in np.flatnonzero(routing.event):
        name = routing.event_names[routing.event[row]]
        thing = routing.object_names[routing.event_object[row]] if routing.event_object[row] >= 0 else ""
        for ax in axes:
            ax.axvline(time[row], color="black", linewidth=0.8, linestyle=":", zorder=5)
        level = (level + 1) % 2 if time[row] - last < 0.2 * span else 0  # neighbours' texts do not touch
        late = time[row] - time[0] > 0.85 * span
        text, offset = f"{EVENT_TEXTS.get(name, name)} {thing}".strip(), (2 if late else -2, 3 + 9 * level)
        style = {"xycoords": ("data", "axes fraction"), "ha": "right" if late else "left", "annotation_clip": False}
        write_near(axes[0], text, (time[row], 1.0), offset, **style)
        last = time[row]


def _describe_episode(data: RoutingData, episode: int) -> str:
    episodes = data.episodes
    mission, outcome = episodes.mission[episode], OUTCOME_NAMES.get(int(episodes.outcome[episode]))
    return ", ".join(filter(None, [f"Episode {episode}", mission and f"“{mission}”", outcome]))


def step_numbers(data: RoutingData) -> np.ndarray:
    """Return each step's `t_step`, int64 (S,); in episodes where one is not known, steps are counted from their first.

    Args:
        data: The steps, those of an episode in their order.
    """
    routing = data.routing
    counts = np.bincount(routing.episode, minlength=1)
    unknown = np.bincount(routing.episode, routing.t_step < 0, minlength=1) > 0
    order = np.argsort(routing.episode, kind="stable")
    counted = np.empty(len(data), np.int64)
    counted[order] = np.arange(len(data)) - (np.cumsum(counts) - counts)[routing.episode[order]]
    return np.where(unknown[routing.episode], counted, routing.t_step)


# ------------------------------------------------------------------------------------------------- around an event


@dataclass(frozen=True, eq=False)
class EventAligned:
    """Means around an event, over episodes; entry k is for offsets[k].

    Attributes:
        event: Its name.
        offsets: int (B + 1 + A,), steps since the one whose action brought the event about.
        lpc: Over episodes, or runs.
        weights: Per layer, over the same, of shape (offsets, experts).
        num_events: Episodes in which it happens; the first time counts.
        num_episodes: All episodes.
        data: What it was computed from.
    """

    event: str
    offsets: np.ndarray
    lpc: Estimates
    weights: tuple[Estimates, ...]
    num_events: int
    num_episodes: int
    data: RoutingData


def compute_event_aligned(data: Any, event: str, before: int = 10, after: int = 10) -> EventAligned:
    """Return mean LPC and routing weights at each offset from the first such event of each episode.

    The window ends where the episode does; an offset is a mean over the episodes that reach it, and `n` says how many.
    Nothing is padded. The episodes far from 0 are therefore others than those at 0: the longer ones. Of several runs it
    is the mean over those runs of whose episodes some reach the offset, and `n` counts runs.

    Offsets are time steps, also in a subset of the steps: an episode whose step at an offset is not in the subset does
    not count there. An event counts only if its own step is in the subset; the first is the first that is, and an
    episode whose every such step was left out counts as one without the event. Picking up, for one, is an action of a
    step at which nothing is carried, so that among the steps of carrying it happens nowhere. Where an episode's
    `t_step` is not known its steps are counted as they come, which needs them all.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        event: One of the data's `event_names`.
        before: Steps before the event, 0 or more.
        after: Steps after it.

    Raises:
        ValueError: If it is no event, or happens nowhere in this data, or there are no routers.
    """
    data = as_routed_data(data)
    if before < 0 or after < 0:
        raise PlotError(f"before, after: expected 0 or more, found {before}, {after}")
    known = find_events(data)
    if event not in known:
        raise PlotError(f"event: expected one that happens here ({', '.join(known) or 'none does'}), found {event!r}")
    if data.layouts_only:
        raise PlotError("event: this cache tells layouts apart, not episodes, so that they cannot be aligned in time")
    routing = data.routing
    rows = np.flatnonzero(routing.event == routing.event_names.index(event))
    time = step_numbers(data)
    never = np.iinfo(np.int64).max
    moment = np.full(len(data.episodes), never)
    np.minimum.at(moment, routing.episode[rows], time[rows])
    happens = moment[routing.episode] < never
    offset = np.where(happens, time - np.where(happens, moment[routing.episode], 0), 0)
    group = np.where(happens & (offset >= -before) & (offset <= after), offset + before, -1)
    width = before + 1 + after
    return EventAligned(
        event=event,
        offsets=np.arange(-before, after + 1),
        lpc=data.group_means(data.lpc, group, width),
        weights=tuple(data.group_means(weights, group, width) for weights in routing.weights),
        num_events=int((moment < never).sum()),
        num_episodes=data.num_episodes,
        data=data,
    )


@figure_style()
def plot_event_aligned(
    aligned: EventAligned, axes: Sequence[Axes] | None = None, *, scale: str = SCALES[0]
) -> list[Axes]:
    """Draw mean LPC, mean weights of each layer and n against the steps around an event.

    Args:
        aligned: From `compute_event_aligned`.
        axes: One for LPC, one per layer, one for n; new ones by default.
        scale: Of LPC, see `choose_axis`.
    """
    own, data, layers = axes is None, aligned.data, len(aligned.weights)
    heights = [1.3] + [1.0] * layers + [0.5]
    size = (PAGE_WIDTH * 0.6, 1.2 + 1.0 * sum(heights))
    axes = use_axes(axes, layers + 2, size=size, sharex=True, height_ratios=heights)
    x, episode = aligned.offsets, episode_word(data)
    draw_curves(axes, [(x, aligned.lpc, aligned.weights)], data, ["offset"], scale)
    axes = list(axes[:, 0])
    for ax in axes:
        ax.axvline(0, color="black", linewidth=0.8, linestyle=":", zorder=1)
    verb = EVENT_TEXTS.get(aligned.event, aligned.event)
    label = f"Steps since the action by which something was {verb}"
    axes[-1].set_xlabel(fold_label(axes[-1], label, 1) if own else label)
    axes[-1].set_xlim(x[0] - 0.6, x[-1] + 0.6)
    rest = aligned.num_episodes - aligned.num_events
    reach = "how many reach" if data.run is None else "how many runs have one that reaches"
    notes = [
        "" if data.run is None else describe_n(data),
        mean_note(data, ", first time in each"),
        f"{aligned.num_events} of {aligned.num_episodes} {episode}s have the event" if rest else "",
        f"windows end with the {episode}, n tells {reach} an offset",
    ]
    finish(axes, notes, own=own, handles=expert_handles(data), data=data)
    return axes
