"""What a figure was drawn from, as a table: the numbers behind each curve, bar, point and cell.

    figure = plot_distance_profiles(cache)[0, 0].figure
    source_of(figure).to_csv("routing_distances.csv", index=False)
    write_source(figure, "plots/routing_distances.png")       # the same, beside the figure

Functions that draw add what they draw while they do it, so that the table is of exactly that. Intervals are at 95 %,
`n` counts what a mean is over and `rows` what these were averaged from, mostly time steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.command.files import replace_atomically
from pipeline.records.intervals import Estimates
from plotting.aggregate import PositionAverages

_FIRST = ("panel", "metric", "group", "series", "task", "setting", "lpc_alpha", "trial", "seed")

_TABLES: WeakKeyDictionary[Figure, list[pd.DataFrame]] = WeakKeyDictionary()


def add_source(figure: Figure, table: pd.DataFrame | Mapping[str, Any]) -> None:
    """Add rows to what a figure was drawn from; columns that others lack are empty there."""
    _TABLES.setdefault(figure, []).append(pd.DataFrame(table))


def source_of(figure: Figure) -> pd.DataFrame:
    """Return what a figure was drawn from; without rows for one that shows nothing."""
    tables = [table.astype(object) for table in _TABLES.get(figure, []) if len(table)]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    first = [name for name in _FIRST if name in table]
    return table[first + [name for name in table if name not in first]]


def write_source(figure: Figure, path: str | Path) -> Path | None:
    """Write what a figure was drawn from as CSV beside it, whole or not at all; return the file, None for no numbers.

    Args:
        figure: As drawn.
        path: Of the figure; the ending is replaced.
    """
    target = Path(path).with_suffix(".csv")
    table = source_of(figure)
    if table.empty:
        return None
    with replace_atomically(target) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return target


def estimates_table(panel: str, series: str, axis: Mapping[str, Any], estimates: Estimates) -> dict[str, Any]:
    """Return the rows of a curve: of each of its points the mean, the interval and n.

    Args:
        panel: What is measured, such as "LPC".
        series: Of what, such as an expert; may be empty.
        axis: {name: values (G,)} of what it is drawn against.
        estimates: Of shape (G,).
    """
    values = {"mean": estimates.mean, "low": estimates.low, "high": estimates.high}
    return {"panel": panel, "series": series, **axis, **values, "n": estimates.n, "rows": estimates.rows}


def maps_table(maps: Mapping[str, PositionAverages]) -> pd.DataFrame:
    """Return the cells of maps, a row for each: steps, mean LPC in total and per layer, mean weight of each expert.

    Args:
        maps: {group: averages}; "" for a figure without groups.
    """
    rows = []
    for group, averages in maps.items():
        for (x, y), steps in averages.visits.items():
            row: dict[str, Any] = {"group": group} if len(maps) > 1 or group else {}
            row |= {"x": x, "y": y, "steps": steps, "lpc": averages.lpc[x, y]}
            row |= {f"lpc_{name}": values[x, y] for name, values in averages.layer_lpc.items()}
            for name, weights in averages.routing[x, y].items():
                row |= {f"{name}_expert_{expert}": weight for expert, weight in enumerate(np.asarray(weights).tolist())}
            rows.append(row)
    return pd.DataFrame(rows)
