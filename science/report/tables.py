"""Means over runs as tables of a page: what fits, at the price that claims ask at, and what is in the file alone.

    summary = summarise(over, labels, price=1e-5)

Quantities of many levels stand side by side, a row for each level; others below each other, a row for each number. A
study of 21 levels at three prices has hundreds of numbers an analysis: figures show them all, the page spells out one
price, and the file has every one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from science.config import name_setting
from science.levels import ALL_TASKS
from science.report.text import format_interval, format_number, format_p

MOST_LISTED = 4
"""Levels of which each number has a row of its own; of more, a level has a row."""

MOST_ROWS = 120
"""Rows of one table at all prices; of more, one price is shown."""

MOST_CONDITIONS = 3
"""Conditions of a quantity; more are a curve, in a figure and in the file."""

MOST_PARTS = 4
"""Columns of one quantity in a table of levels; more are in the file alone."""

MOST_COLUMNS = 4
"""Columns of numbers in a table of levels; more begin another."""

_BESIDE = {
    "difficulty_plan_length": "plan length (steps)",
    "difficulty_subgoals": "subgoals in an episode",
    "difficulty_steps_to_learn": "log env-steps that a dense network takes to learn it",
}
"""What rows are called that analyses add to their quantities."""

_DETAILS = ("estimator", "group", "condition", "layer")
_WORST = "worst"


@dataclass(frozen=True)
class Table:
    """A table on the page.

    Attributes:
        head: Names of the columns.
        rows: Texts.
        numeric: Columns that are aligned to the right.
        headings: Row before which a line of its own stands -> that line.
        caption: What its numbers are.
        path: Of the file that has all of it, relative to the study's folder; "" if that is said elsewhere.
        stacked: Whether its rows stand below each other, cell by cell, on a narrow page.
        pinned: Whether the first column stays in sight where the table is wider than the page.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    headings: Mapping[int, str] = field(default_factory=dict)
    caption: str = ""
    path: str = ""
    stacked: bool = False
    pinned: bool = False


@dataclass(frozen=True)
class Summary:
    """The tables of an analysis.

    Attributes:
        tables: Of what is on the page.
        rest: How many numbers are on the page, and which are in the file alone, in sentences.
    """

    tables: tuple[Table, ...]
    rest: tuple[str, ...]


def short_name(text: str) -> str:
    """Return a task's name without what all tasks have, and a price as alpha alone."""
    return text.replace("BabyAI-", "").replace("-v0", "").replace("alpha=", "\N{GREEK SMALL LETTER ALPHA} = ")


def asked_price(claims: Sequence[object], analysis: str) -> float | None:
    """Return the price that most declared claims ask at, those of an analysis before others; None: none does.

    Args:
        claims: With `claim` (analysis.quantity) and `alpha`.
        analysis: Its name.
    """
    asked = [claim for claim in claims if claim.alpha is not None]
    own = [claim for claim in asked if claim.claim.partition(".")[0] == analysis]
    counts = Counter(claim.alpha for claim in own or asked)
    return counts.most_common(1)[0][0] if counts else None


def summarise(over: pd.DataFrame, labels: Mapping[str, str], price: float | None = None) -> Summary:
    """Return the means over runs as tables for the page.

    Args:
        over: Tidy rows over runs.
        labels: Of quantities.
        price: At which many rows are shown; None: the first setting.
    """
    over = over[over["value"].notna() | (over["n_dropped"] > 0) | over["quantity"].isin(_BESIDE)]
    listed = over[over["expert"] < 0]
    left = Counter[str]()
    left["single experts"] = len(over) - len(listed)
    of_level = ~listed["task"].isin(("", ALL_TASKS))
    number = listed[of_level].groupby("quantity")["task"].nunique()
    many = of_level & listed["quantity"].isin(number[number > MOST_LISTED].index)
    shown = _choose_setting(listed, price)
    few = _list_numbers(listed[~many], labels, shown, left)
    wide = _list_levels(listed[many], labels, shown, left)
    tables = (*few, *wide)
    here = len(over) - left.total()
    return Summary(tables, _tell_rest(here, len(over), left) if tables else ())


def _tell_rest(here: int, number: int, left: Counter[str]) -> tuple[str, ...]:
    """Return how many numbers are on the page, and what of the others is in the file alone."""
    left = +left
    if not left:
        return ()
    parts = [f"{what} ({count:,})" for what, count in left.most_common()]
    return (f"Above are {here:,} of {number:,} means over runs", f"In the file alone: {'; '.join(parts)}")


def _choose_setting(listed: pd.DataFrame, price: float | None) -> str | None:
    """Return the one setting that is shown where there is room for no more; None without any."""
    found = [setting for setting in dict.fromkeys(listed["setting"]) if setting]
    wanted = None if price is None else name_setting(price)
    return wanted if wanted in found else found[0] if found else None


def _at(rows: pd.DataFrame, setting: str | None) -> pd.Series:
    """Return which rows are of a setting, or of none."""
    return rows["setting"].isin(("", setting or ""))


def _label(labels: Mapping[str, str], quantity: str) -> str:
    return labels.get(quantity, _BESIDE.get(quantity, quantity.replace("_", " ")))


def _detail(column: str, value: object) -> str:
    return f"layer {value}" if column == "layer" else {"R": "replay", "P": "own play"}.get(str(value), str(value))


def _details(row: Mapping[str, object], varying: Sequence[str]) -> str:
    return ", ".join(_detail(c, row[c]) for c in varying if row[c] not in ("", -1))


# ---------------------------------------------------------------------------------------------------- number by number


def _list_numbers(
    listed: pd.DataFrame, labels: Mapping[str, str], shown: str | None, left: Counter[str]
) -> tuple[Table, ...]:
    """Return a table with a row for each number, below the name of its quantity; or none."""
    curves = listed.groupby("quantity")["condition"].nunique()
    curves = listed["quantity"].isin(curves[curves > MOST_CONDITIONS].index)
    for quantity, count in listed[curves].groupby("quantity", sort=False).size().items():
        left[f"quantity {quantity}"] += int(count)
    listed = listed[~curves]
    caption = "means over runs with 95 % intervals"
    if len(listed) > MOST_ROWS and listed["setting"].nunique() > 1:
        inside = _at(listed, shown)
        left["other prices or settings"] += int((~inside).sum())
        listed, caption = listed[inside], f"at {short_name(shown or '')} alone: {caption}"
    columns = ("task", "setting", "detail", "mean [95 % interval]", "null", "runs", "dropped", "p", "p adjusted")
    rows: list[tuple[str, ...]] = []
    headings = {}
    for quantity, members in listed.groupby("quantity", sort=False):
        if len(rows) + len(members) > 2 * MOST_ROWS and rows:
            left[f"quantity {quantity}"] += len(members)
            continue
        varying = [c for c in _DETAILS if members[c].nunique() > 1]
        headings[len(rows)] = _label(labels, str(quantity))
        for row in members.to_dict("records"):
            rows.append(
                (
                    *(short_name(str(row[c])) for c in ("task", "setting")),
                    _details(row, varying),
                    format_interval(row["value"], row["low"], row["high"]),
                    format_number(row["null_mean"]),
                    str(row["n_runs"]),
                    str(row["n_dropped"] or ""),
                    format_p(row["p"]),
                    format_p(row["p_adjusted"]),
                )
            )
    if not rows:
        return ()
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    if len({row[0] for row in rows}) == 1:
        kept = [i for i in kept if i != 0]
    return (
        Table(
            tuple(columns[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in rows),
            frozenset(place for place, i in enumerate(kept) if i >= 3),
            headings,
            caption,
        ),
    )


# ------------------------------------------------------------------------------------------------------ level by level


def _list_levels(
    rows: pd.DataFrame, labels: Mapping[str, str], shown: str | None, left: Counter[str]
) -> tuple[Table, ...]:
    """Return tables with a row for each level and a column for each quantity, at one price."""
    inside = _at(rows, shown)
    left["other prices or settings"] += int((~inside).sum())
    rows = rows[inside]
    worst = rows["estimator"] == _WORST
    left["means with the runs that were left out at their worst value"] += int(worst.sum())
    rows = rows[~worst]
    tasks = list(dict.fromkeys(rows["task"]))
    cells: dict[str, dict[str, str]] = {}
    counts = set()
    for quantity, members in rows.groupby("quantity", sort=False):
        once = not members.duplicated(["task"]).any()
        varying = [] if once else [c for c in _DETAILS if members[c].nunique() > 1]
        parts: dict[str, dict[str, str]] = {}
        for row in members.to_dict("records"):
            detail = _details(row, varying)
            name = _label(labels, str(quantity)) + (f", {detail}" if detail else "")
            parts.setdefault(name, {})[row["task"]] = _cell(row)
        if len(parts) > MOST_PARTS:
            left[f"quantity {quantity}"] += len(members)
            continue
        cells |= parts
        counts |= {int(n) for n in members["n_runs"][members["n_dropped"] == 0] if n}
    runs = f"{max(counts)} runs" if counts else "runs"
    names = list(cells)
    caption = f"means over {runs} with 95 % intervals" if counts else "each level"
    priced = rows["setting"] == (shown or "")
    if shown and priced.all():
        caption = f"at {short_name(shown)}: {caption}"
    elif shown and priced.any():
        caption += f"; what differs by price is at {short_name(shown)}"
    nothing = [name for name, of_level in cells.items() if set(of_level.values()) <= {"0", "0 [0, 0]"}]
    names = [name for name in names if name not in nothing]
    text = "".join(text for of_level in cells.values() for text in of_level.values())
    caption += "; against: the mean under the null" if " against " in text else ""
    caption += "; in brackets: runs without a value" if "(\N{MINUS SIGN}" in text else ""
    nothing_said = f"; 0 on every level: {', and '.join(nothing)}" if nothing else ""
    return tuple(
        Table(
            ("level", *some),
            tuple((short_name(task), *(cells[name].get(task, "") for name in some)) for task in tasks),
            frozenset(range(1, 1 + len(some))),
            caption=caption + nothing_said * (number == 0),
            pinned=True,
        )
        for number, some in enumerate(_split(names))
    )


def _split(names: Sequence[str]) -> list[list[str]]:
    """Return names in as few parts as there are, of sizes as even as can be."""
    parts = -(-len(names) // MOST_COLUMNS)
    size = -(-len(names) // parts) if parts else 1
    return [list(names[start : start + size]) for start in range(0, len(names), size)]


def _cell(row: Mapping[str, object]) -> str:
    text = format_interval(row["value"], row["low"], row["high"])
    if not text:
        return str(row["condition"]) if row["quantity"] in _BESIDE else f"none of {row['n_dropped']} runs"
    null = format_number(row["null_mean"])
    text += f" against {null}" if null else ""
    return text + (f" (\N{MINUS SIGN}{row['n_dropped']})" if row["n_dropped"] else "")
