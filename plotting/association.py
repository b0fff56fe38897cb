"""Does LPC go with behaviour and with distance? Rank correlations over cells, time and visits partialled out.

    table = compute_associations({"alpha = 1e-05": runs}, "key_phase")
    plot_associations(table)

Within a run and a group (such as a key phase), over the cells of the grid: the mean LPC of a cell's steps against the
cell's action entropy, its divergence from the policy of all steps, and the mean walking distance to door, key and
target. Ranks; the number of visits and the mean time since the start are regressed out of both, because means over few
steps are extreme and because both follow the time. That does not take all of the time out: it is not linear, and an
episode begins in a few cells. So each run has a *chance level*, the mean correlation once the LPC of whole episodes is
exchanged (`science.statistics.nulls`), which leaves what the time alone makes of it: on GoToObjMazeS4R2 0.4 to 0.9 for
the distance to the door. What is tested is how far correlations are from it.

The run is the unit of the mean and its test; runs of different prices are never pooled: the larger price makes
everything cheaper, and a pooled correlation would show that. p values are adjusted after Benjamini and Hochberg over
all that one figure shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from tqdm import tqdm

from babyai.facts import PLACES
from plotting.aggregate import group_routing_data
from plotting.behaviour import knows_policy, step_policies
from plotting.collapse import collapse_banners
from plotting.data import PlotError, RoutingData
from plotting.groupings import find_grouping
from plotting.panels import COLUMN_WIDTH, as_routed_data, finish, replaced_note, series_style, use_axes
from plotting.relations import known_places
from plotting.source import add_source
from plotting.style import figure_style
from plotting.temporal import step_numbers
from science.statistics.association import Association, associate
from science.statistics.inference import adjust, compare_with_zero
from science.statistics.information import MIN_STEPS, divergence, number_states, state_entropies

DRAWS = 199
"""Exchanges of episodes for each p value within a run: the least p is 1/200."""

_CHANCE_COLOR = "black"  # grey is alpha = 0

_RHO = "Spearman's \N{GREEK SMALL LETTER RHO}"

SEED = 0
"""Of the exchanges: the same data gives the same p values."""


def compute_associations(
    settings: Mapping[str, Any],
    group_by: str = "overall",
    *,
    draws: int = DRAWS,
    min_steps: int = MIN_STEPS,
    progress: bool = False,
) -> pd.DataFrame:
    """Return a row for each setting, group and quantity.

    Columns: setting, group, quantity; rhos, chances and run_ps, the correlation of each run, its chance level and its p
    value under the exchange of episodes, as lists; mean and chance, their means over runs; low and high, the t interval
    of their difference, around the mean; p, of no difference over runs (the run's own p where there is one run),
    p_floor, method, n_runs, n_dropped (runs with too few cells, or a constant LPC), cells (the fewest of a run),
    p_adjusted. Without draws chances, low, high and p are NaN.

    Args:
        settings: {label: data of one run, or of several of one setting}.
        group_by: See `plotting.groupings`.
        draws: Exchanges for each p value; 0 for none.
        min_steps: Cells with fewer steps do not count.
        progress: Show a bar: a run takes a second for each group and quantity.

    Raises:
        ValueError: If there are no routers, no such grouping, or a cache does not tell episodes apart.
    """
    name = find_grouping(group_by)
    tests: list[tuple[str, str, str, list[tuple[RoutingData, np.ndarray | None]]]] = []
    for label, value in settings.items():
        data = as_routed_data(value)
        if data.layouts_only:
            raise PlotError("association: this cache tells layouts apart, not episodes, which its null exchanges")
        groups = group_routing_data(data, name)
        overall = [_mean_policy(run) for run in data.split_runs()]
        for key in groups:
            runs = list(zip(groups[key].split_runs(), overall, strict=True))
            tests += [(label, groups.labels[key], quantity, runs) for quantity in _quantities(data)]
    rows = []
    for label, group, quantity, runs in tqdm(tests, desc="associations", disable=None if progress else True):
        found = [_associate(run, quantity, reference, draws, min_steps) for run, reference in runs]
        rows.append({"setting": label, "group": group, "quantity": quantity} | _over_runs(found, draws))
    if not rows:
        raise PlotError("association: expected steps in groups, found none")
    table = pd.DataFrame(rows)
    return table.assign(p_adjusted=adjust(table["p"].to_numpy(), "bh"))


def _over_runs(found: list[Association], draws: int) -> dict[str, Any]:
    """Return the columns of a row that come from the runs."""
    rhos, chances = np.array([each.rho for each in found]), np.array([each.null_mean for each in found])
    known = np.isfinite(rhos)
    mean, chance = (float(values[known].mean()) if known.any() else float("nan") for values in (rhos, chances))
    beyond = compare_with_zero(rhos - chances)
    row = {"rhos": rhos.tolist(), "chances": chances.tolist(), "run_ps": [each.p for each in found]}
    row |= {"mean": mean, "chance": chance, "low": chance + beyond.low, "high": chance + beyond.high}
    row |= {"p": beyond.p, "p_floor": beyond.p_floor, "method": beyond.method}
    if len(found) == 1:
        row |= {"p": found[0].p, "p_floor": 1 / (draws + 1), "method": "exchanged episodes"}
    counts = {"n_runs": int(known.sum()), "n_dropped": int((~known).sum())}
    return row | counts | {"cells": min(each.cells for each in found)}


def _quantities(data: RoutingData) -> list[str]:
    behaviour = ["action entropy", "KL from all steps"] if knows_policy(data) else []
    return behaviour + [f"distance to {place}" for place in known_places(data)]


def _mean_policy(run: RoutingData) -> np.ndarray | None:
    """Return the mean policy over all steps of a run, of all groups, (A,); None where it is not known."""
    return step_policies(run)[0].mean(axis=0) if len(run) and knows_policy(run) else None


def _associate(
    data: RoutingData, quantity: str, reference: np.ndarray | None, draws: int, min_steps: int
) -> Association:
    """Return the association in the steps of one group of one run; the reference is its policy in all groups."""
    if not len(data):
        return Association(rho=np.nan, p=np.nan, null_mean=np.nan, cells=0, covered=0.0)
    cells = number_states(data.routing.position)
    return associate(
        data.lpc.astype(np.float64),
        _values(data, quantity, reference),
        cells,
        data.routing.episode,
        {"time": step_numbers(data)},
        min_steps=min_steps,
        rng=np.random.default_rng(SEED),
        draws=draws,
    )


def _values(
    data: RoutingData, quantity: str, reference: np.ndarray | None
) -> np.ndarray | Callable[[np.ndarray], np.ndarray]:
    if quantity.startswith("distance to "):
        place = quantity.removeprefix("distance to ")
        return data.routing.walking[:, PLACES.index(place)]
    policies, _ = step_policies(data)

    def of_cells(cells: np.ndarray) -> np.ndarray:
        each = state_entropies(policies, cells, data.routing.episode)
        if quantity == "action entropy":
            return np.where(np.isnan(each.high), each.low, (each.low + each.high) / 2)
        return divergence(each.policy, reference)

    return of_cells


# ------------------------------------------------------------------------------------------------------------- figure


@figure_style()
def plot_associations(
    table: pd.DataFrame,
    axes: Any = None,
    *,
    title: str = "",
    data: Mapping[str, RoutingData] | None = None,
    colors: Mapping[str, str] | None = None,
) -> list[Axes]:
    """Draw each correlation: a point for each run beside its chance level, and their means; a row of axes per group.

    A star marks p < 0.05 after adjustment. Runs without a correlation are counted.

    Args:
        table: From `compute_associations`.
        axes: One per group; new ones by default.
        title: Of the figure.
        data: {setting: what it was computed from}; that routers have collapsed, or levels were replaced, is then said.
        colors: {setting: its colour}, such as those of prices; colours of series by default.
    """
    groups, settings = list(dict.fromkeys(table["group"])), list(dict.fromkeys(table["setting"]))
    quantities = list(dict.fromkeys(table["quantity"]))
    own = axes is None
    size = (max(COLUMN_WIDTH * 1.4, 0.9 + 1.1 * len(quantities)), 1.2 + 1.7 * len(groups))
    axes = list(use_axes(axes, len(groups), 1, size=size, sharex=True)[:, 0])
    styles = {setting: series_style(number) for number, setting in enumerate(settings)}
    styles = {setting: ((colors or {}).get(setting, color), marker) for setting, (color, marker) in styles.items()}
    breadth = 0.8 / len(settings)
    for ax, group in zip(axes, groups, strict=True):
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for number, setting in enumerate(settings):
            color, marker = styles[setting]
            rows = table[(table["group"] == group) & (table["setting"] == setting)]
            for row in rows.itertuples():
                x = quantities.index(row.quantity) + breadth * (number - (len(settings) - 1) / 2)
                rhos, chances = np.array(row.rhos), np.array(row.chances)
                at = x + (np.linspace(-0.2, 0.2, len(rhos)) * breadth if len(rhos) > 1 else np.zeros(1))
                half = 0.2 * breadth / len(rhos)
                ax.vlines(at, chances, rhos, color=color, linewidth=0.6, alpha=0.5)
                ax.hlines(chances, at - half, at + half, color=_CHANCE_COLOR, linewidth=1.0)
                ax.plot(at, rhos, marker, color=color, markersize=3, alpha=0.6, markeredgewidth=0)
                if np.isfinite(row.mean) and len(rhos) > 1:
                    for value, own_color in ((row.chance, _CHANCE_COLOR), (row.mean, color)):
                        ax.hlines(value, x - 0.35 * breadth, x + 0.35 * breadth, color=own_color, linewidth=2)
                if np.isfinite(row.low):
                    ax.vlines(x, max(row.low, -1), min(row.high, 1), color=color, linewidth=1.2)
                if row.p_adjusted < 0.05:
                    ax.annotate("*", (x, 1.0), ha="center", va="bottom", color=color, annotation_clip=False)
                if row.n_dropped:
                    ax.annotate(
                        f"-{row.n_dropped}", (x, -1.0), ha="center", va="bottom", fontsize="x-small", color=color
                    )
        ax.set_ylim(-1.02, 1.02)
        ax.set_xlim(-0.6, len(quantities) - 0.4)
        ax.set_ylabel(f"{group}\n{_RHO}" if len(groups) > 1 else _RHO)
    axes[-1].set_xticks(range(len(quantities)), [quantity.replace(" ", "\n", 1) for quantity in quantities])
    if own and title:
        axes[0].set_title(title, loc="left")
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=setting)
        for setting, (color, marker) in styles.items()
        if setting
    ]
    each_run = ("rhos", "chances", "run_ps")
    lists = {name: [" ".join(f"{value:.6g}" for value in row) for row in table[name]] for name in each_run}
    add_source(axes[0].figure, table.assign(**lists))
    data = data or {}
    notes = [*describe_associations(table), *dict.fromkeys(replaced_note(part) for part in data.values())]
    finish(axes, notes, own=own, handles=handles, banner=collapse_banners(data))
    return axes


def describe_associations(table: pd.DataFrame) -> list[str]:
    """Return what a reader has to know of the correlations, their units and tests."""
    runs, dropped = int(table["n_runs"].max()), int(table["n_dropped"].sum())
    method = " and ".join(dict.fromkeys(table["method"]))
    floor, tests = float(table["p_floor"].max()), int(table["p"].notna().sum())
    least = f", least p {floor:.2g}" if floor else ""
    chance = [p for row in table["run_ps"] for p in row if np.isfinite(p)]
    small = sum(p <= 0.05 for p in chance)
    return [
        "LPC against each quantity over cells of a run; visits and time since the start partialled out",
        f"points: runs (at most {runs}), bar: their mean" if runs > 1 else "a single run",
        "black: chance, once the LPC of whole episodes is exchanged" if table["chance"].notna().any() else "",
        "line: t interval over runs of the distance from chance" if table["low"].notna().any() else "",
        f"*: unlike chance, p < 0.05 ({method}; Benjamini-Hochberg over {tests} tests{least})" if tests else "",
        f"within runs, episodes exchanged: p <= 0.05 in {small} of {len(chance)}" if chance else "",
        f"-k: k runs without a correlation (constant LPC or too few cells), {dropped} in all" if dropped else "",
    ]
