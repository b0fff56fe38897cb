"""How decided the policy is, cell by cell: action entropy, divergence from a reference, information of the state.

    found = compute_behaviour(cache, "key_phase", state=("direction", "carrying", "door_unlocked"))
    plot_behaviour(found)

All quantities are of the policy softmax(logits) at each step, in bits, with the brackets of
`science.statistics.information`: H(A | cell) from below by the entropy of the cell's mean policy, from above by its
cross-entropy with other episodes. Where logits were not recorded, the actions taken are counted instead.

- *action entropy*: H(A | cell).
- *KL, global*: of the cell's mean policy from that of all steps in the figure.
- *KL, local*: from that of all steps of the same group, such as the same key phase.
- *information of the state*: I(Z; A | cell), what heading, carrying and the door tell of the action within one cell.

An entropy smoothed by adding a half to each count would be a function of how often a cell is visited; here a cell of
one action has entropy 0 however often it is seen, and visits are drawn beside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from babyai.facts import NUM_ACTIONS
from plotting.aggregate import GridInfo, Position, compute_grid_bounds, group_routing_data
from plotting.cells import render_value_heatmap, render_visits_heatmap
from plotting.collapse import collapse_banner
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.groupings import GROUPINGS, find_grouping
from plotting.layouts import describe_levels
from plotting.options import STATE_FACTS, STATE_WORDS
from plotting.panels import replaced_note
from plotting.scales import firm_values
from plotting.sheet import MARGIN, Sheet, build_message, fit_maps, full_width, lines_height
from plotting.source import add_source
from plotting.style import figure_style
from science.statistics.information import (
    MIN_STEPS,
    Bracket,
    bracket_information,
    divergence,
    information_of_counts,
    number_states,
    policies_from_logits,
    state_entropies,
)

MAPS = {
    "entropy": "Action entropy",
    "kl_global": "KL from all steps",
    "kl_local": "KL from group",
    "information": "I(state; A)",
}
"""What is drawn of each cell, bits."""


@dataclass(frozen=True, eq=False)
class GroupBehaviour:
    """The policy's behaviour in the steps of one group, by cell; the dicts have the same keys, [x, y] pairs.

    Attributes:
        label: Name of the group.
        data: Its steps.
        visits: {position: steps}, of all runs together.
        most_visits: {position: steps of the run that has the most there}: each run's estimates are of its own steps.
        entropy: {position: H(A | cell) as a bracket (low, high)}; high is NaN where all steps are of one episode.
        kl_global: {position: divergence from the mean policy of all steps in the figure}.
        kl_local: {position: divergence from the mean policy of the group}.
        information: {position: I(Z; A | cell), the middle of its bracket}; NaN where no state has enough steps.
        cell_information: Bracket of I(cell; A).
        state_information: Bracket of I(cell and state; A).
    """

    label: str
    data: RoutingData
    visits: dict[Position, int]
    most_visits: dict[Position, int]
    entropy: dict[Position, tuple[float, float]]
    kl_global: dict[Position, float]
    kl_local: dict[Position, float]
    information: dict[Position, float]
    cell_information: Bracket
    state_information: Bracket


@dataclass(frozen=True, eq=False)
class Behaviour:
    """The policy's behaviour by group.

    Attributes:
        groups: In the order of display.
        title: Of the grouping.
        facts: Of the state within a cell, names in `STATE_FACTS`.
        from_actions: True if the policy was not recorded, so that actions taken stand for it.
        dropped: What a figure has to say of steps in no group.
        data: All steps.
    """

    groups: list[GroupBehaviour]
    title: str
    facts: tuple[str, ...]
    from_actions: bool
    dropped: str
    data: RoutingData


def known_facts(data: RoutingData) -> tuple[str, ...]:
    """Return the facts of a state that were recorded."""
    return tuple(name for name in STATE_FACTS if data.knows(name))


def knows_policy(data: RoutingData) -> bool:
    """Return whether logits or actions were recorded."""
    return data.knows("action_logits") or data.knows("action")


def step_policies(data: RoutingData) -> tuple[np.ndarray, bool]:
    """Return the policy at each step (S, A), and whether actions taken stand for it.

    Raises:
        PlotError: If neither logits nor actions were recorded.
    """
    if data.knows("action_logits") and np.isfinite(data.routing.action_logits).all():
        return policies_from_logits(data.routing.action_logits), False
    if not data.knows("action"):
        raise PlotError("expected recorded logits or actions, found none: behaviour cannot be told")
    action = data.routing.action
    if not ((action >= 0) & (action < NUM_ACTIONS)).all():
        raise PlotError("expected the action of each step, found steps without: behaviour cannot be told")
    return np.eye(NUM_ACTIONS)[action], True


def compute_behaviour(data: Any, group_by: str = "overall", state: Sequence[str] | None = None) -> Behaviour:
    """Return the behaviour of the policy in each cell, by group.

    Args:
        data: Cache, tables, step records or `RoutingData`; routers are not needed.
        group_by: See `plotting.groupings`.
        state: Facts that make a state besides the cell, of `STATE_FACTS`; all that were recorded by default.

    Raises:
        ValueError: If there is no such grouping or fact, or nothing of the policy was recorded.
    """
    data, name = as_routing_data(data), find_grouping(group_by)
    facts = known_facts(data) if state is None else tuple(state)
    for fact in facts:
        if fact not in STATE_FACTS:
            raise PlotError(f"state: expected some of {', '.join(STATE_FACTS)}, found {fact!r}")
        if not data.knows(fact):
            raise PlotError(f"state: {fact} was not recorded; known are {', '.join(known_facts(data)) or 'none'}")
    if data.layouts_only:
        raise PlotError("behaviour: this cache tells layouts apart, not episodes, which its brackets need")
    found = group_routing_data(data, name)
    runs = data.split_runs()
    overall = [step_policies(run)[0].mean(axis=0) for run in runs]
    groups = []
    for key in found:
        parts = found[key].split_runs()
        pairs = [(part, reference) for part, reference in zip(parts, overall, strict=True) if len(part)]
        each = [_of_run(found.labels[key], part, reference, facts) for part, reference in pairs]
        groups.append(_mean_over_runs(each, found[key]))
    return Behaviour(groups, GROUPINGS[name].title, facts, step_policies(data)[1], found.describe_dropped(), data)


def _of_run(label: str, data: RoutingData, overall: np.ndarray, facts: Sequence[str]) -> GroupBehaviour:
    """Return the behaviour in the steps of one group of one run."""
    routing = data.routing
    policies, from_actions = step_policies(data)
    cells = number_states(routing.position)
    states = number_states(cells, *(getattr(routing, fact) for fact in facts))
    each = state_entropies(policies, cells, routing.episode)
    first = np.unique(cells, return_index=True)[1]
    positions = [(int(x), int(y)) for x, y in routing.position[first]]
    local = policies.mean(axis=0)

    def bracket(which: np.ndarray) -> Bracket:
        if from_actions:  # few actions a state: Grassberger's estimate is the better one
            return information_of_counts(policies.argmax(axis=1), which, policies.shape[1])
        return bracket_information(policies, which, routing.episode)

    information = {}
    visits = dict(zip(positions, each.steps.tolist(), strict=True))
    for cell, position in enumerate(positions):
        rows = cells == cell
        information[position] = bracket_information(policies[rows], states[rows], routing.episode[rows]).middle
    return GroupBehaviour(
        label=label,
        data=data,
        visits=visits,
        most_visits=visits,
        entropy=dict(zip(positions, zip(each.low.tolist(), each.high.tolist(), strict=True), strict=True)),
        kl_global=dict(zip(positions, divergence(each.policy, overall).tolist(), strict=True)),
        kl_local=dict(zip(positions, divergence(each.policy, local).tolist(), strict=True)),
        information=information,
        cell_information=bracket(cells),
        state_information=bracket(states),
    )


def _mean_over_runs(runs: list[GroupBehaviour], data: RoutingData) -> GroupBehaviour:
    """Return the mean of each quantity over the runs that have it; visits are those of all runs together.

    Args:
        runs: The group in each run that has steps in it.
        data: Its steps in all.
    """
    if len(runs) == 1:
        return dataclasses.replace(runs[0], data=data)
    positions = sorted({place for run in runs for place in run.visits}, key=lambda place: (place[1], place[0]))

    def mean(name: str) -> dict[Position, Any]:
        found = {}
        for place in positions:
            values = np.array([getattr(run, name)[place] for run in runs if place in run.visits], np.float64)
            known = np.isfinite(values)
            total = np.where(known, values, 0.0).sum(axis=0)
            value = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
            found[place] = tuple(value.tolist()) if value.ndim else float(value)
        return found

    return GroupBehaviour(
        label=runs[0].label,
        data=data,
        visits={place: sum(run.visits.get(place, 0) for run in runs) for place in positions},
        most_visits={place: max(run.visits.get(place, 0) for run in runs) for place in positions},
        **{name: mean(name) for name in ("entropy", "kl_global", "kl_local", "information")},
        cell_information=_mean_bracket([run.cell_information for run in runs]),
        state_information=_mean_bracket([run.state_information for run in runs]),
    )


def _mean_bracket(brackets: list[Bracket]) -> Bracket:
    known = [bracket for bracket in brackets if np.isfinite(bracket.middle)]
    if not known:
        return brackets[0]
    ends = np.mean([(bracket.low, bracket.high, bracket.covered) for bracket in known], axis=0)
    return Bracket(*ends.tolist(), num_states=min(bracket.num_states for bracket in known))


# ------------------------------------------------------------------------------------------------------------- figure


def plot_behaviour(found: Behaviour, *, min_steps: int = MIN_STEPS, max_groups: int = 8) -> Figure:
    """Return maps of the behaviour, one row per group: entropy, divergences, information of the state, visits.

    Cells with fewer than `min_steps` steps (of several runs: in each of them, as each estimate is of one run's steps)
    are hatched and do not set a scale, unless all are such; a scale begins at 0 and is common to all groups.

    Args:
        found: From `compute_behaviour`.
        min_steps: Steps from which on a cell's bracket holds.
        max_groups: Of more groups those with the most steps are shown.
    """
    data = found.data
    what = "" if len(found.groups) < 2 else f" by {found.title}"
    title = f"{data.title + ': b' if data.title else 'B'}ehaviour{what}"
    with figure_style():
        if not found.groups:
            return build_message(title, "No step is in a group.")
        kept = sorted(found.groups, key=lambda group: -len(group.data))[:max_groups]
        groups = [group for group in found.groups if group in kept]
        hidden = sum(len(group.data) for group in found.groups) - sum(len(group.data) for group in groups)
        words = ", ".join(STATE_WORDS[fact] for fact in found.facts) or "nothing else"
        source = "actions taken (the policy was not recorded)" if found.from_actions else "the policy at each step"
        notes = [
            f"bits, of {source}; state: cell with {words}; hatched: fewer than {min_steps} steps"
            f"{'' if data.run is None else ' in each run'}; ?: not known",
            found.dropped,
            f"{hidden:,} steps of smaller groups not shown" if hidden else "",
            "" if data.run is None else "mean over runs",
        ]
        lines = (title, data.describe_size(), "; ".join(filter(None, notes)), replaced_note(data))
        return _draw(data, groups, lines, min_steps)


def _values(group: GroupBehaviour, name: str) -> dict[Position, float]:
    if name == "entropy":
        return {place: float(np.nanmean(ends)) for place, ends in group.entropy.items()}
    return getattr(group, name)


def _draw(data: RoutingData, groups: list[GroupBehaviour], lines: tuple[str, ...], min_steps: int) -> Figure:
    gap, ticks, heading, names, bar = 0.13, 0.22, 0.26, 1.75, 0.09  # inches
    grid_info: GridInfo = compute_grid_bounds(data)
    maps = [name for name in MAPS if name != "kl_local" or len(groups) > 1]
    columns = len(maps) + 1
    rest = 2 * MARGIN + names + ticks + columns * gap + 0.17
    width, height = fit_maps(grid_info, 2.2, columns, rest)
    first = MARGIN + names
    lefts = [first + ticks + column * (width + gap) for column in range(len(maps) + 1)]
    full = full_width(lefts[-1] + width + 0.3 + MARGIN)
    banner = collapse_banner(data) if data.has_routing else ""
    top = lines_height(full, banner, *lines[1:]) + heading
    step = max(height, 1.0) + gap
    end = top + (len(groups) - 1) * step + max(height, 0.6) + ticks
    sheet = Sheet(full, end + bar + 0.5 + MARGIN, *lines, banner=banner)
    for left, name in zip(lefts, [*maps, "visits"], strict=True):
        values = [_values(group, name) if name != "visits" else {} for group in groups]
        firm = firm_values(list(zip(values, [group.most_visits for group in groups], strict=True)), min_steps)
        mappable = ScalarMappable(Normalize(0.0, max([0.05, *firm])), "cividis")
        most = {(row, p): n for row, group in enumerate(groups) for p, n in group.visits.items()}
        for number, (group, row) in enumerate(zip(groups, values, strict=True)):
            local = grid_info | describe_levels(group.data)
            text = MAPS.get(name, "Visits") if number == 0 else ""
            ax = sheet.axes(left, top + number * step, width, height, text)
            if name == "visits":
                mappable = render_visits_heatmap(ax, group.visits, local, limits=(1, max(most.values())))
            else:
                marks = {"visits": group.most_visits, "min_visits": min_steps}
                render_value_heatmap(ax, row, local, mappable, **marks)
            if left != lefts[0]:
                ax.set_yticks([])
            if number < len(groups) - 1:
                ax.set_xticks([])
        sheet.bar(mappable, left, end, width, bar, "steps" if name == "visits" else "bits")
    for number, group in enumerate(groups):
        row_top = top + number * step
        sheet.text(MARGIN, row_top, group.label, fontweight="bold")
        sheet.text(MARGIN, row_top + 0.2, "\n".join(describe_group(group)), color="0.3", fontsize="small")
    for group in groups:
        for (x, y), steps in group.visits.items():
            low, high = group.entropy[x, y]
            values = {name: getattr(group, name)[x, y] for name in ("kl_global", "kl_local", "information")}
            cell = {"group": [group.label], "x": x, "y": y, "steps": steps, "most_steps": group.most_visits[x, y]}
            add_source(sheet.figure, cell | {"entropy_low": low, "entropy_high": high} | values)
        for name in ("cell_information", "state_information"):
            bracket = getattr(group, name)
            row = {"group": [group.label], "metric": name, "low": bracket.low, "high": bracket.high}
            add_source(sheet.figure, row | {"covered": bracket.covered})
    return sheet.figure


def describe_group(group: GroupBehaviour) -> list[str]:
    """Return size and brackets of a group in words."""
    lines = group.data.describe_size().split(", ")
    for name, bracket in (("cell", group.cell_information), ("state", group.state_information)):
        if np.isfinite(bracket.middle):
            lines.append(f"I({name}; A) {max(bracket.low, 0):.2f} to {bracket.high:.2f}")
            if bracket.covered < 0.995:
                lines.append(f"   of {bracket.covered:.0%} of the steps")
    return lines
