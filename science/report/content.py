"""What the report of a study says, in order, without how it looks."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from science.report.tables import Table, short_name, summarise
from science.report.text import Block, format_interval, format_number, format_p, parse_blocks


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    Attributes:
        number: Of it.
        path: Of the PNG, relative to the study's folder.
        caption: What it shows.
        data: The PNG, base64.
    """

    number: int
    path: str
    caption: str
    data: str


@dataclass(frozen=True)
class Section:
    """An analysis on the page.

    Attributes:
        key: Of its links.
        title: Of it.
        blocks: The definition.
        summary: How many runs, levels and episodes a mean is of.
        dropped: Runs left out, with the reason and how many, in words.
        notes: What could not be computed and why.
        pictures: Its figures.
        tables: Its means over runs.
        rest: How many of them are on the page, and what is in the file alone, in sentences.
        path: Of the file that has all of them and every run's; "" if there are none.
        films: Links with what they show.
        missing: Why there is no result; "" if there is.
        old: Whether it is of an earlier state of its inputs.
    """

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    summary: str = ""
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    rest: tuple[str, ...] = ()
    path: str = ""
    films: tuple[tuple[str, str], ...] = ()
    missing: str = ""
    old: bool = False


@dataclass(frozen=True)
class Report:
    """All of a report.

    Attributes:
        title: Of the study.
        problems: What failed or could not be used, in words; with any the report is marked incomplete.
        abstract: What was done and found, in sentences.
        design: Facts of the design, name and text.
        runs: Success and LPC of the runs.
        calibration: The card's sentences.
        calibration_table: Its numbers.
        calibration_picture: Its figure.
        claims: Declared claims with verdicts.
        sections: Analyses.
        origin: Commit, versions and command, name and text.
        training: Settings of the runs, name and text.
    """

    title: str
    problems: tuple[str, ...]
    abstract: tuple[str, ...]
    design: tuple[tuple[str, str], ...]
    runs: tuple[Table, ...]
    calibration: tuple[str, ...]
    calibration_table: Table | None
    calibration_picture: Picture | None
    claims: tuple[ClaimEntry, ...]
    sections: tuple[Section, ...]
    origin: tuple[tuple[str, str], ...]
    training: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ClaimEntry:
    """A claim on the page.

    Attributes:
        number: Of it.
        claim: analysis.quantity.
        says: In words.
        wanted: Direction and margin, in words.
        verdict: The word.
        why: Why it is undecided, and the like.
        found: Value with interval against the reference.
        n: Of runs, and dropped ones.
        p: Adjusted.
        p_equivalence: Adjusted.
        parts: Rows (part, found, n, p) where there are several.
    """

    number: int
    claim: str
    says: str
    wanted: str
    verdict: str
    why: str
    found: str
    n: str
    p: str
    p_equivalence: str
    parts: tuple[tuple[str, str, str, str], ...] = field(default=())


class Pictures:
    """Numbers figures in the order in which they are taken."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def take(self, path: Path, caption: str) -> Picture:
        """Return a figure with the next number."""
        self._count += 1
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        return Picture(self._count, path.relative_to(self._folder).as_posix(), caption, data)


_WANTED = {
    "greater": "to be above its reference",
    "less": "to be below its reference",
    "differs": "to differ from its reference",
}


def read_claims(claims: pd.DataFrame) -> tuple[ClaimEntry, ...]:
    """Return the entries of claims.csv as the page has them."""
    found = []
    for number, rows in claims.groupby("number", sort=True):
        whole = rows[rows["part"] == "all"].iloc[0]
        parts = rows[rows["part"] != "all"]
        margin = "" if pd.isna(whole["margin"]) else f"within {format_number(float(whole['margin']))} of it"
        wanted = _WANTED.get(str(whole["direction"]))
        if wanted is None:
            wanted = f"to be equivalent to its reference: {margin}"
        elif margin:
            wanted += f", and to be no effect {margin}"
        several = len(parts) > 1
        found.append(
            ClaimEntry(
                int(number),
                str(whole["claim"]),
                _text(whole["says"]),
                wanted,
                str(whole["verdict"]),
                short_name(_text(whole["why"])),
                "" if several or not len(parts) else _found(parts.iloc[0]),
                _n(whole),
                format_p(float(whole["p_adjusted"])),
                format_p(float(whole["p_equivalence_adjusted"])),
                tuple(_part(row) for _, row in parts.iterrows()) if several else (),
            )
        )
    return tuple(found)


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _part(row: pd.Series) -> tuple[str, str, str, str]:
    return short_name(str(row["part"])), _found(row), _n(row), format_p(float(row["p"]))


def _found(row: pd.Series) -> str:
    text = format_interval(float(row["value"]), float(row["low"]), float(row["high"]))
    return f"{text} against {format_number(float(row['reference']))}"


def _n(row: pd.Series) -> str:
    dropped, runs = (0 if pd.isna(row[name]) else int(row[name]) for name in ("n_dropped", "n_runs"))
    return f"{runs}" + (f" (\N{MINUS SIGN}{dropped})" if dropped else "")


def build_section(
    key: str,
    title: str,
    result: Mapping[str, Any],
    table: pd.DataFrame,
    labels: Mapping[str, str],
    pictures: Sequence[Picture],
    *,
    price: float | None = None,
    films: Sequence[tuple[str, str]] = (),
    old: bool = False,
) -> Section:
    """Return an analysis as the page has it.

    Args:
        key: Its name.
        title: In the report.
        result: Definition, notes and dropped, as the analysis has left them.
        table: Its tidy rows.
        labels: Of quantities.
        pictures: Its figures.
        price: At which numbers are told where there are many, see `science.report.tables`.
        films: Links with what they show.
        old: Whether it is of an earlier state of its inputs.
    """
    over = table[table["unit"] != "run"]
    counts = {name: over[name] for name in ("n_runs", "n_levels", "n_episodes")}
    words = {"n_runs": "runs", "n_levels": "level families", "n_episodes": "episodes"}
    said = [
        f"{_span(values[values > 0])} {words[name]}"
        for name, values in counts.items()
        if (values > (1 if name == "n_levels" else 0)).any()  # that a mean is of one level its row says
    ]
    summary = summarise(over, labels, price)
    return Section(
        key,
        title,
        tuple(parse_blocks(str(result["definition"]))),
        ", ".join(said),
        tuple(short_name(text) for text in result["dropped"]),
        tuple(short_name(text) for text in result["notes"]),
        tuple(pictures),
        summary.tables,
        summary.rest,
        f"tables/{key}.csv" if len(table) else "",
        tuple(films),
        "",
        old,
    )


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
