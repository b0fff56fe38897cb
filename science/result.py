"""What an analysis hands back: tidy rows, the definition, and what was left out and why.

    draft = Draft("pathways", __doc__)
    draft.over_runs("consistency", values, cell, p_null=0.01)     # a row for each run, and one for their mean
    result = draft.finish()
    result.row("consistency").p, result.to_frame()

Every row is a number with all that is needed to read it: what it is of, its unit, how many, what was dropped.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from science.statistics.inference import CrossedTest, MeanTest, adjust, compare_over_both, compare_with_zero
from science.traces import Run

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One number. What does not apply is empty, -1 or NaN.

    Attributes:
        analysis: That made it.
        quantity: What it is.
        unit: What it is of: run (a single one), or what it generalises over: runs, groups, levels, episodes;
            several are joined by +, and p is the largest of theirs.
        estimator: How it was found, where there are several ways; "worst" includes what was dropped at its worst value.
        task: Level family.
        setting: Cell of the study.
        trial: Of a single run.
        seed: Of a single run.
        update: Of the checkpoint.
        layer: From 0.
        expert: From 0.
        group: Of steps.
        condition: Intervention, price, threshold.
        value: The number.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n_runs: Runs in it.
        n_levels: Level families in it.
        n_episodes: Episodes in it.
        n_dropped: Runs left out.
        drop_reason: Why.
        null_mean: Of the quantity if there were nothing to see; what it is compared with, 0 if NaN.
        p: Two-sided.
        p_floor: Smallest p that could have been found.
        p_adjusted: Over the family.
        family: Tests that p_adjusted is over.
        twin: Quantity that asks the same by an intervention.
    """

    analysis: str
    quantity: str
    unit: str = "run"
    estimator: str = ""
    task: str = ""
    setting: str = ""
    trial: int = -1
    seed: int = -1
    update: int = -1
    layer: int = -1
    expert: int = -1
    group: str = ""
    condition: str = ""
    value: float = NAN
    low: float = NAN
    high: float = NAN
    n_runs: int = 0
    n_levels: int = 0
    n_episodes: int = 0
    n_dropped: int = 0
    drop_reason: str = ""
    null_mean: float = NAN
    p: float = NAN
    p_floor: float = NAN
    p_adjusted: float = NAN
    family: str = ""
    twin: str = ""


COLUMNS = tuple(f.name for f in fields(Row))


@dataclass(frozen=True)
class Dropped:
    """A run left out of an analysis.

    Attributes:
        run: Which.
        reason: Why.
        quantity: Of which quantity; empty: of all.
    """

    run: Run
    reason: str
    quantity: str = ""


@dataclass(frozen=True)
class Result:
    """What one analysis found.

    Attributes:
        analysis: Its name.
        definition: What it computes, with formulas and sources.
        rows: Numbers.
        notes: What a reader has to know: what could not be computed and why.
        dropped: Runs left out.
    """

    analysis: str
    definition: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    def find(self, quantity: str, **wanted: Any) -> list[Row]:
        """Return the rows of a quantity whose columns are as given."""
        return [
            row
            for row in self.rows
            if row.quantity == quantity and all(getattr(row, key) == value for key, value in wanted.items())
        ]

    def row(self, quantity: str, **wanted: Any) -> Row:
        """Return the one row of a quantity over runs, or with the columns given.

        Raises:
            LookupError: If there is none or more than one.
        """
        found = self.find(quantity, **wanted)
        if "unit" not in wanted and len(found) > 1:
            found = [row for row in found if row.unit != "run"]
        if "estimator" not in wanted and len(found) > 1:
            found = [row for row in found if row.estimator != "worst"]
        if len(found) != 1:
            known = ", ".join(sorted({row.quantity for row in self.rows})) or "none"
            raise LookupError(
                f"{self.analysis}.{quantity} {wanted or ''}: expected one row, found {len(found)}; has {known}"
            )
        return found[0]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame with the columns of `Row`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows], columns=list(COLUMNS))

    def to_csv(self) -> str:
        """Return the rows as CSV, six significant digits, the same bytes for the same numbers."""
        return self.to_frame().to_csv(index=False, float_format="%.6g", lineterminator="\n")


@dataclass
class Draft:
    """A result being made."""

    analysis: str
    doc: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, quantity: str, value: float, **columns: Any) -> Row:
        """Add one row."""
        numbers = {k: float(v) if isinstance(v, np.floating) else v for k, v in columns.items()}
        row = Row(self.analysis, quantity, value=float(value), **numbers)
        self.rows.append(row)
        return row

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)

    def drop(self, run: Run, reason: str, quantity: str = "") -> None:
        """Say that a run is left out."""
        entry = Dropped(run, reason, quantity)
        if entry not in self.dropped:
            self.dropped.append(entry)

    def over_runs(
        self,
        quantity: str,
        values: np.ndarray,
        runs: Sequence[Run],
        *,
        reasons: Sequence[str] = (),
        worst: float = NAN,
        p_null: float = NAN,
        p_null_floor: float = 0.0,
        null_unit: str = "",
        both: CrossedTest | None = None,
        test: MeanTest | None = None,
        null: np.ndarray | float = NAN,
        p_each: Sequence[float] = (),
        each: Sequence[tuple[float, float]] = (),
        tested: bool = True,
        limits: tuple[float, float] = (-math.inf, math.inf),
        **columns: Any,
    ) -> Row:
        """Add a row for each run and one for the mean over runs with interval and test; return the latter.

        Args:
            quantity: Its name.
            values: (R,), NaN no value.
            runs: R.
            reasons: (R,), why a run has no value; empty none needed.
            worst: Value at which runs without one are included in a second row; NaN: none.
            p_null: p of a null over another unit, for all runs together: the larger p counts.
            p_null_floor: The smallest that it could be.
            null_unit: That unit.
            both: Test over runs and level seeds at once, whose interval and p, or that there are none, take the place
                of those over runs.
            test: Of the values, in the place of `compare_with_zero`.
            null: (R,) or one, what values are compared with; NaN is 0.
            p_each: (R,), of each run by itself, over its episodes.
            each: (R,), interval of each run by itself.
            tested: False where 0 is nothing to compare with: interval, but no p.
            limits: Least and greatest possible value, to which intervals are cut.
            columns: Of `Row`.
        """
        values = np.asarray(values, np.float64)
        under = np.broadcast_to(np.nan_to_num(np.asarray(null, np.float64)), values.shape)
        known = np.isfinite(values)
        reasons = list(reasons) or [""] * len(values)
        family = {key: columns.pop(key) for key in ("family", "twin") if key in columns}
        alone = list(p_each) or [NAN] * len(values)
        ends = list(each) or [(NAN, NAN)] * len(values)
        for run, value, reason, expected, p, (low, high) in zip(runs, values, reasons, under, alone, ends, strict=True):
            own = {"task": run.task, "setting": run.setting, "trial": run.trial, "seed": run.seed, "update": run.update}
            reason = reason or ("" if np.isfinite(value) else "no value")
            self.add(
                quantity,
                value,
                **{**columns, **own},
                n_runs=int(np.isfinite(value)),
                n_dropped=int(not np.isfinite(value)),
                drop_reason=reason if not np.isfinite(value) else "",
                null_mean=float(expected) if np.any(np.isfinite(null)) else NAN,
                p=p,
                low=low,
                high=high,
            )
            if not np.isfinite(value):
                self.drop(run, reason, quantity)
        unit = f"runs+{null_unit}" if null_unit else "runs" if both is None else "runs+levels"
        lost = sorted({r or "no value" for r, k in zip(reasons, known, strict=True) if not k})
        shared = {**_cell(runs), **columns, **family, "unit": unit, "drop_reason": "; ".join(lost)}
        test = compare_with_zero(values - under) if test is None else test
        row = self._mean(quantity, values, under, null, test, p_null, p_null_floor, bool(null_unit), shared)
        if both is not None:
            floor = 0.0 if math.isfinite(both.p) else NAN
            self.rows[-1] = row = replace(row, low=both.low, high=both.high, p=both.p, p_floor=floor)
        if not tested:
            self.rows[-1] = row = replace(row, p=NAN, p_floor=NAN)
        self.rows[-1] = row = _cut(row, limits)
        if np.isfinite(worst) and not known.all() and known.any():
            filled = np.where(known, values, worst)
            shared["drop_reason"] = f"{(~known).sum()} included at {worst:g}: " + "; ".join(lost)
            shared |= {"estimator": "worst", "family": ""}
            test = compare_with_zero(filled - under)
            self._mean(quantity, filled, under, null, test, NAN, 0.0, False, {**shared, "unit": "runs"})
            self.rows[-1] = _cut(replace(self.rows[-1], p=NAN, p_floor=NAN), limits)
        return row

    def over_both(self, quantity: str, table: np.ndarray, runs: Sequence[Run], **columns: Any) -> Row:
        """Add the means of runs over level seeds of a table (R, G), with the test over both; see `over_runs`."""
        known = np.isfinite(table)
        total = np.where(known, table, 0.0).sum(axis=1)
        values = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), NAN)
        both = compare_over_both(table)
        return self.over_runs(quantity, values, runs, both=both, n_episodes=both.n_levels, **columns)

    def _mean(
        self,
        quantity: str,
        values: np.ndarray,
        under: np.ndarray,
        null: Any,
        test: MeanTest,
        p_null: float,
        p_null_floor: float,
        needs_both: bool,
        columns: dict[str, Any],
    ) -> Row:
        known = np.isfinite(values)
        center = float(under[known].mean()) if known.any() else 0.0
        p = larger(test.p, p_null) if needs_both else test.p
        return self.add(
            quantity,
            test.mean + center,
            low=test.low + center,
            high=test.high + center,
            n_runs=test.n,
            n_dropped=test.dropped,
            p=p,
            p_floor=max(test.p_floor, p_null_floor) if math.isfinite(p) else NAN,
            null_mean=center if np.any(np.isfinite(null)) else NAN,
            **columns,
        )

    def finish(self) -> Result:
        """Return the result, p values adjusted over their families by Benjamini and Hochberg."""
        rows = list(self.rows)
        for family in sorted({row.family for row in rows if row.family}):
            place = [index for index, row in enumerate(rows) if row.family == family]
            for index, p in zip(place, adjust(np.array([rows[i].p for i in place]), "bh"), strict=True):
                rows[index] = replace(rows[index], p_adjusted=float(p))
        return Result(self.analysis, inspect.cleandoc(self.doc), tuple(rows), tuple(self.notes), tuple(self.dropped))


def _cut(row: Row, limits: tuple[float, float]) -> Row:
    """Return a row whose interval lies within limits; NaN stays."""
    low, high = (float(np.clip(end, *limits)) for end in (row.low, row.high))
    return replace(row, low=low, high=high)


def larger(*p_values: float) -> float:
    """Return the larger p of tests over several units; NaN if one has none: a claim over both needs both."""
    return float("nan") if any(not math.isfinite(p) for p in p_values) else max(p_values)


def _cell(runs: Sequence[Run]) -> dict[str, str]:
    """Return what task and setting all runs share."""
    shared = {}
    for name in ("task", "setting"):
        found = {getattr(run, name) for run in runs}
        shared[name] = found.pop() if len(found) == 1 else ""
    return shared
