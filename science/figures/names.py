"""What figures say of settings, conditions and sources; a figure with its caption."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from plotting.style import CATEGORY_COLORS, WARNING_COLOR, alpha_color

NULL_COLOR = "0.45"
DROPPED_COLOR = WARNING_COLOR
SOURCES = {"R": "replay", "P": "own play"}
"""What estimators of two letters say."""

_NUMBERED = re.compile(r"^(?P<name>[A-Za-z_ ]+?)[ =]+(?P<value>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$")


@dataclass(frozen=True)
class Drawn:
    """A figure and what is said of it.

    Attributes:
        name: Of its file, without ending.
        figure: The figure.
        caption: What it shows, in sentences.
    """

    name: str
    figure: Figure
    caption: str


def number_of(condition: str) -> float:
    """Return the number in the name of a condition, such as that of "tau 0.1"; NaN for none."""
    match = _NUMBERED.match(str(condition))
    return float(match["value"]) if match else math.nan


def name_of(condition: str) -> str:
    """Return what the number in the name of a condition is called; "" where there is none."""
    match = _NUMBERED.match(str(condition))
    return match["name"] if match else ""


def what_of(condition: str) -> str:
    """Return the name of a knock-out without its place: "zero renormalised" of "zero l0e2 renormalised"."""
    return re.sub(r" l\d+e\d+", "", condition)


def alpha_of(setting: str) -> float | None:
    """Return the price in the name of a setting, such as that of "alpha=1e-05"; None for a baseline."""
    match = re.fullmatch(r"alpha[= ](.+)", setting)
    return float(match[1]) if match else None


def color_of(setting: str) -> str:
    """Return the colour of a setting: by its price."""
    alpha = alpha_of(setting)
    return CATEGORY_COLORS[0] if alpha is None else alpha_color(alpha)


def label_of(setting: str) -> str:
    """Return how an axis names a setting."""
    alpha = alpha_of(setting)
    return setting.replace("=", "\n") if alpha is None else f"{alpha:g}"


def in_order(settings: Iterable[str]) -> list[str]:
    """Return the names of settings by price, those without one last."""
    return sorted(dict.fromkeys(settings), key=lambda s: (alpha_of(s) is None, alpha_of(s) or 0.0, s))


def runs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single runs."""
    return rows[rows["unit"] == "run"]


def means_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over runs, but those that include what was dropped."""
    return rows[(rows["unit"] != "run") & (rows["estimator"] != "worst")]


def count_text(counts: Sequence[int]) -> str:
    """Return "10", or "8 to 10"."""
    if not counts:
        return "0"
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
