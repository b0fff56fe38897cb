"""Which figures each analysis has.

    for drawn in draw_analysis("knockouts", table, labels, sizes): save_figure(drawn.figure, folder / drawn.name)

Some analyses have figures of their own; all else of a table that is told of single runs becomes a strip of points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from science.figures import credit, many, needed, needed_levels
from science.figures.curves import draw_curves, draw_usage
from science.figures.forest import CROWDED, MANY_TASKS, draw_forest
from science.figures.fronts import draw_fronts
from science.figures.levels import draw_levels
from science.figures.maps import draw_audit, draw_map
from science.figures.names import SOURCES, Drawn, alpha_of, number_of, what_of
from science.figures.probes import draw_probes
from science.figures.strips import Panel, draw_strips
from science.figures.transfer import draw_transfer
from science.levels import ALL_TASKS

MOST_PANELS = 9
"""Of one figure; more begin another."""

MOST_TASKS = 4
"""Of one figure; of more a row or a small panel is a level, or there are several figures, and strips lie on their
side."""

MOST_WIDE = 6
"""Panels of a figure of many tasks; those of `forest.MANY_TASKS` and more have one row of panels."""

NAIVE = ("lpc_entropy_naive", "lpc_entropy_smoothed", "lpc_entropy")
"""The same question asked in three ways, the published one first."""

PROBED = ("accuracy", "selectivity", "memory_gain", "memory_gain_full")
"""Maps of sources and targets."""

HIDDEN = frozenset(
    {
        *("sham_changed", "usage", "collapsed"),
        *(f"{kind}_{name}" for kind in ("front", "dial", "baseline") for name in ("lpc", "success")),
        *("level_lpc", "k_task", "k_route", "k_lesion"),
        *(f"difficulty_{kind}" for kind in ("plan_length", "subgoals", "steps_to_learn")),
    }
)
"""In tables alone, or in a figure of their own."""


def draw_analysis(
    analysis: str, table: pd.DataFrame, labels: Mapping[str, str], sizes: Sequence[Sequence[int]]
) -> Iterator[Drawn]:
    """Yield the figures of an analysis.

    Args:
        analysis: Its name.
        table: Its tidy rows.
        labels: Of axes, by quantity; others stand under their own names.
        sizes: Hidden sizes of the experts, per layer.
    """

    def label(quantity: str) -> str:
        return labels.get(quantity, quantity.replace("_", " "))

    if analysis == "transfer":  # all that it tells is in figures of its own
        yield from draw_transfer(table)
        return
    tasks = [task for task in dict.fromkeys(table["task"]) if task not in ("", ALL_TASKS)]
    if len(tasks) <= MOST_TASKS:
        taken = set()
        for drawn, quantities in _draw_own(analysis, table, label, sizes):
            yield drawn
            taken |= quantities
    elif analysis in _OF_MANY:
        taken = set()
        for drawn, quantities in _OF_MANY[analysis](table, label, sizes):
            yield drawn
            taken |= quantities
    else:
        taken = set()
        for number, start in enumerate(range(0, len(tasks), MOST_TASKS)):
            some = table[table["task"].isin(tasks[start : start + MOST_TASKS])]
            for drawn, quantities in _draw_own(analysis, some, label, sizes):
                yield Drawn(f"{drawn.name}_levels_{number + 1}", drawn.figure, drawn.caption)
                taken |= quantities
    yield from draw_levels(analysis, table, label)
    panels = list(list_panels(table[~table["quantity"].isin(taken | HIDDEN)], label))
    wide = [panel for panel in panels if panel.rows["task"].nunique() > MOST_TASKS]
    if wide:
        size = MOST_WIDE if len(tasks) < MANY_TASKS else CROWDED
        for number, start in enumerate(range(0, len(wide), size)):
            yield draw_forest(f"{analysis}_by_level_{number + 1}", wide[start : start + size])
        panels = [panel for panel in panels if panel not in wide]
    for number, start in enumerate(range(0, len(panels), MOST_PANELS)):
        name = analysis if len(panels) <= MOST_PANELS else f"{analysis}_{number + 1}"
        yield draw_strips(name, panels[start : start + MOST_PANELS])


def _draw_own(
    analysis: str, table: pd.DataFrame, label: Callable[[str], str], sizes: Sequence[Sequence[int]]
) -> Iterator[tuple[Drawn, set[str]]]:
    """Yield the figures that an analysis has to itself, each with the quantities that it tells of."""
    nothing: set[str] = set()
    own = nothing
    if analysis == "knockouts":
        for drawn in _draw_knockouts(table, label, sizes):
            yield drawn, nothing
    if analysis == "price":
        if (front := draw_fronts("price_fronts", table)) is not None:
            yield front, nothing
        usage = table[table["quantity"] == "usage"]
        if len(usage):
            yield draw_usage("price_usage", usage, sizes), nothing
    if analysis == "needed":
        for drawn in needed.draw_needed(table):
            yield drawn, needed.DRAWN
        own = needed.DRAWN
    if analysis == "shapley":
        for drawn in credit.draw_credit(table, label, sizes):
            yield drawn, credit.DRAWN
        own = credit.DRAWN
    if analysis == "probes":
        for quantity in PROBED:
            rows = table[table["quantity"] == quantity]
            if quantity != "memory_gain" and (rows["setting"] != "").any():
                yield draw_probes(f"probes_{quantity}", rows, label(quantity)), set(PROBED)
        own = set(PROBED)
    if analysis == "complexity" and set(NAIVE) <= set(table["quantity"]):
        yield _draw_naive(table, label), set(NAIVE)
    curves = [
        q for q in dict.fromkeys(table["quantity"]) if is_curve(table[table["quantity"] == q]) and q not in HIDDEN | own
    ]
    if curves:
        parts = [(table[table["quantity"] == q], label(q)) for q in curves]
        yield draw_curves(f"{analysis}_curves", parts, 1.0 if analysis == "sufficiency" else None), set(curves)


_Own = Iterator[tuple[Drawn, set[str]]]


def _knockouts_of_many(table: pd.DataFrame, label: Callable[[str], str], sizes: Sequence[Sequence[int]]) -> _Own:
    for drawn in many.draw_knockout_maps(table, list(_list_effects(table, label)), sizes):
        yield drawn, set()


def _price_of_many(table: pd.DataFrame, label: Callable[[str], str], sizes: Sequence[Sequence[int]]) -> _Own:
    if (front := draw_fronts("price_fronts", table)) is not None:
        yield front, set()
    usage = many.average(table[(table["quantity"] == "usage") & (table["setting"].map(alpha_of).notna())])
    if len(usage):
        text = "usage (mean weight) of each expert in own play"
        yield many.draw_experts("price_usage", usage, text, sizes, signed=False), set()


def _needed_of_many(table: pd.DataFrame, label: Callable[[str], str], sizes: Sequence[Sequence[int]]) -> _Own:
    for drawn in needed_levels.draw_needed(table):
        yield drawn, set(needed.DRAWN)


def _shapley_of_many(table: pd.DataFrame, label: Callable[[str], str], sizes: Sequence[Sequence[int]]) -> _Own:
    for drawn in credit.draw_many(table, label, sizes):
        yield drawn, set(credit.DRAWN)


_OF_MANY: Mapping[str, Callable[..., _Own]] = {
    "knockouts": _knockouts_of_many,
    "price": _price_of_many,
    "needed": _needed_of_many,
    "shapley": _shapley_of_many,
}
"""Of analyses that have figures for many levels; of others a few levels are in one figure."""


def is_curve(rows: pd.DataFrame) -> bool:
    """Return whether a quantity is told of a task under numbered conditions, three or more, and of no single expert."""
    numbered = rows[["task", "condition"]].drop_duplicates()
    numbered = numbered[[number_of(text) == number_of(text) for text in numbered["condition"]]]
    most = numbered.groupby("task").size().max() if len(numbered) else 0
    return bool(most >= 3) and not (rows["expert"] >= 0).any()


def list_panels(table: pd.DataFrame, label: object) -> Iterator[Panel]:
    """Yield a strip for each quantity that is told of whole runs, apart for replay and own play, and for groups."""
    table = table[(table["expert"] < 0) & (table["layer"] < 0)]
    for quantity, rows in table.groupby("quantity", sort=False):
        title = label(str(quantity))
        estimators = [e for e in dict.fromkeys(rows["estimator"]) if e != "worst"]
        if "middle" in estimators:  # a bracket: its middle stands for it, its ends are in the table
            estimators, title = ["middle"], f"{title}, middle of the bracket"
        for estimator in estimators:
            here = rows[rows["estimator"] == estimator]
            name = f"{title}, {SOURCES[estimator]}" if estimator in SOURCES else title
            by = "group" if here["group"].nunique() > 1 else "setting"
            yield Panel(name, here, by)


def _draw_knockouts(table: pd.DataFrame, label: object, sizes: Sequence[Sequence[int]]) -> Iterator[Drawn]:
    """Yield the audit, and maps of what taking an expert out does; the weights of the others are made to sum to 1."""
    silent = _silenced(table)
    effects = silent[(silent["quantity"] == "effect_on_ce") & (silent["estimator"] == "R")]
    audit = draw_audit("knockouts_audit", table[table["quantity"] == "usage"], effects, label("effect_on_ce"), sizes)
    if audit is not None:
        yield audit
    for name, rows, text in _list_effects(table, label):
        yield draw_map(name, rows, text, sizes)


def _silenced(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of whole episodes without an expert, the weights of the others made to sum to 1."""
    whole = table[(table["group"] == "") & (table["expert"] >= 0)]
    return whole[[what_of(text) == "zero renormalised" for text in whole["condition"]]]


def _list_effects(table: pd.DataFrame, label: Callable[[str], str]) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Yield name, rows and words of the effects that have a map."""
    silent = _silenced(table)
    for quantity, source in (("effect_on_ce", "R"), ("effect_on_success", "P")):
        rows = silent[(silent["quantity"] == quantity) & (silent["estimator"] == source)]
        if len(rows):
            text = f"{label(quantity)} of taking an expert out, {SOURCES[source]}"
            yield f"knockouts_{quantity}", rows, text[:1].upper() + text[1:]


def _draw_naive(table: pd.DataFrame, label: object) -> Drawn:
    """Draw the correlation of LPC with behaviour as it is published, and with what must be taken out taken out."""
    names = {NAIVE[0]: "as published", NAIVE[1]: "smoothed counts", NAIVE[2]: "time and visits out"}
    rows = pd.concat([table[table["quantity"] == quantity] for quantity in NAIVE])
    rows = rows.assign(asked=[names[quantity] for quantity in rows["quantity"]])
    panels = [
        Panel(
            f"{task.removeprefix('BabyAI-').removesuffix('-v0')}: LPC and action entropy over cells",
            rows[rows["task"] == task],
            "asked",
        )
        for task in dict.fromkeys(rows["task"])
    ]
    drawn = draw_strips("complexity_naive", panels)
    caption = (
        "Does LPC go with behavioural entropy? Rank correlation over cells as it is published, with the entropy of "
        "smoothed counts, and with time since the start and number of visits partialled out, beside the mean under "
        "exchanged episodes. " + drawn.caption
    )
    return Drawn(drawn.name, drawn.figure, caption)
