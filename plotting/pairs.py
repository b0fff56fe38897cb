"""A policy intact and changed, by group of steps: success, LPC, agreement and cross-entropy, and the change of each.

    pairs = compare_groups(intact, changed, "starting_room")
    what_if_table(pairs)

Success and LPC are of the policy's own play; agreement, cross-entropy and KL are along the bot's trajectories of the
same levels, so that both are asked in the same states. The unit is the level: means are over levels, of each level's
mean over its steps in the group; a change is over the levels that have such steps on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from babyai.facts import SUCCESS
from pipeline.records.intervals import Estimates, mean_interval
from pipeline.records.played import Played
from plotting.aggregate import group_routing_data
from plotting.data import PlotError, RoutingData

_NOTHING = "\N{EN DASH}"
FORMS = {"LPC": "{:,.0f}", "agreement": "{:.1%}", "cross-entropy": "{:.3f}", "KL": "{:.3f}"}
"""Of the means over levels, in the order in which they are told."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A group of steps, intact and changed.

    Attributes:
        label: Of the group; "" for all steps.
        sides: Steps of each on its own way; None where there are none.
        levels: Levels with such steps on either.
        success: Levels solved, intact and changed, then how many were lost and gained; None if the group is one of
            steps, of which a level has several.
        means: By name of `FORMS`, of the intact and the changed policy, means over levels; NaN where nothing is known.
        changes: By name, the mean over levels of changed - intact, with its t interval.
    """

    label: str
    sides: tuple[RoutingData | None, RoutingData | None]
    levels: int
    success: tuple[int, int, int, int] | None
    means: dict[str, tuple[float, float]]
    changes: dict[str, Estimates]


def compare_groups(intact: Played, changed: Played, group_by: str = "overall") -> list[Pair]:
    """Return each group of steps, intact and changed, in the order of display.

    Args:
        intact: The policy on its levels.
        changed: The same one on the same levels, under an intervention.
        group_by: See `plotting.aggregate.group_routing_data`.

    Raises:
        ValueError: If levels differ, there is no such grouping, the steps lack what tells their groups, or none is in
            one.
    """
    if not np.array_equal(intact.episodes.level_seed, changed.episodes.level_seed):
        raise PlotError("levels: expected the same ones of both, found others")
    own = [RoutingData(one.routing, one.episodes) for one in (intact, changed)]
    shown = RoutingData(intact.shown_routing, intact.shown_episodes)
    groups = [group_routing_data(data, group_by) for data in own]
    along = group_routing_data(shown.filter(np.arange(len(shown))), group_by)
    labels = groups[0].labels | groups[1].labels
    if not labels:
        raise PlotError(f"no step of these levels is in a group: {groups[0].reason}")
    outcomes = np.stack([np.asarray(one.episodes.outcome) == SUCCESS for one in (intact, changed)])
    members = {key: np.stack([_members(g.groups.get(key), len(outcomes[0])) for g in groups]) for key in labels}
    whole = all((sum(member[side] for member in members.values()) <= 1).all() for side in (0, 1))
    whole = whole and groups[0].group_by != "outcome" and all((m[0] == m[1]).all() for m in members.values())
    marks = np.full(len(shown), -1)
    for number, key in enumerate(labels):
        if key in along.groups and groups[0].group_by != "outcome":  # the bot's outcomes are none of the policy's
            marks[_rows(shown, along.groups[key])] = number
    pairs = []
    for number, (key, label) in enumerate(labels.items()):
        sides = tuple(g.groups.get(key) for g in groups)
        means, changes = {}, {}
        values = {"LPC": [_by_level(side, len(outcomes[0])) for side in sides]}
        rows = marks == number
        for name, column in (("agreement", "agrees"), ("cross-entropy", "ce"), ("KL", "kl")):
            values[name] = [
                _mean_by(shown.routing.episode[rows], getattr(one, column)[rows], len(shown.episodes))
                for one in (intact, changed)
            ]
        for name, (before, after) in values.items():
            means[name] = float(mean_interval(before).mean), float(mean_interval(after).mean)
            changes[name] = mean_interval(after - before)
        member = members[key].any(axis=0)
        success = None
        if whole:
            before, after = outcomes[:, member]
            lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
            success = int(before.sum()), int(after.sum()), lost, gained
        name = "" if groups[0].group_by == "overall" else label
        pairs.append(Pair(name, sides, int(member.sum()), success, means, changes))
    return pairs


def _members(data: RoutingData | None, episodes: int) -> np.ndarray:
    """Return which episodes have steps, bool (N,)."""
    found = np.zeros(episodes, bool)
    if data is not None:
        found[data.episodes_present] = True
    return found


def _rows(whole: RoutingData, part: RoutingData) -> np.ndarray:
    """Return where the steps of a part stand in the whole, by episode and time, int (S_part,)."""
    width = 1 + int(whole.routing.t_step.max(initial=0))
    keys = [data.routing.episode.astype(np.int64) * width + data.routing.t_step for data in (whole, part)]
    return np.searchsorted(keys[0], keys[1])


def _by_level(data: RoutingData | None, episodes: int) -> np.ndarray:
    """Return the mean LPC of each episode, float64 (N,), NaN without steps."""
    if data is None:
        return np.full(episodes, np.nan)
    return _mean_by(data.routing.episode, data.lpc, episodes)


def _mean_by(episode: np.ndarray, values: np.ndarray, episodes: int) -> np.ndarray:
    counts = np.bincount(episode, minlength=episodes)
    sums = np.bincount(episode, weights=values.astype(np.float64), minlength=episodes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


# --------------------------------------------------------------------------------------------------------------- table


def what_if_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return a row for each group: what each number was and has become, the change with its interval over levels."""
    rows = []
    for pair in pairs:
        row = {"group": pair.label} if pair.label else {}
        row["levels"] = f"{pair.levels:,}"
        row["success"] = _NOTHING
        if pair.success is not None and pair.levels:
            before, after, lost, gained = pair.success
            shares = f"{before / pair.levels:.1%} → {after / pair.levels:.1%}"
            row["success"] = f"{shares} ({lost} lost, {gained} gained)"
        for name, form in FORMS.items():
            row[_COLUMNS[name]] = _tell(pair, name, form)
        rows.append(row)
    return pd.DataFrame(rows)


TABLE_NOTE = (
    "Success and LPC: the policy's own play; the rest: shown the bot's trajectories of the same levels. Means over "
    "levels; after the semicolon the change with its 95 % interval over levels. Success is told of groups of levels, "
    "not of groups of steps."
)
"""What stands below the table."""

_COLUMNS = {
    "LPC": "LPC, own play",
    "agreement": "agreement with the bot",
    "cross-entropy": "cross-entropy to the bot, nats",
    "KL": "KL(intact || changed), nats",
}


def _tell(pair: Pair, name: str, form: str) -> str:
    before, after = pair.means[name]
    if not np.isfinite(after) and not np.isfinite(before):
        return _NOTHING
    change = pair.changes[name]
    ends = [float(change.low), float(change.high)]
    sign = form.replace("{:", "{:+")
    interval = f"{sign} ({sign} to {sign})".format(float(change.mean), *ends) if np.isfinite(ends).all() else ""
    if name == "KL":
        ends[0] = max(ends[0], 0.0)  # a divergence is not negative
        return f"{form.format(after)}" + (f" ({form} to {form})".format(*ends) if interval else "")
    words = " → ".join(form.format(value) if np.isfinite(value) else _NOTHING for value in (before, after))
    return f"{words}; {interval}" if interval else words
