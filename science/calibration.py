"""The calibration card: this very design, run on routers that were planted and on noise of the same shape.

    card = compute(Design(runs=10, episodes=40), datasets=200)          # or a study's own traces
    card.to_csv()                                                        # calibration.csv

For each case of a claim (`science.cases`), on data sets that keep runs, level seeds, lengths of episodes and subgoals:

- false_positive_rate: share of the data sets without anything to be found in which p <= 0.05, with Wilson's interval.
  What else goes on in them is left in: trends in the course of an episode, effects of levels on all runs alike,
  pathways that each run has to itself, effects of runs. Below 0.05 where p is the largest of several nulls.
- recovery: the same share of data sets in which an effect was planted; `condition` says which.
- estimate: mean of the quantity in these, `null_mean` the planted value where it is known. Consistency has that with
  endless episodes only: how far below it lies is what so few episodes lose. estimate_without: of the others, where
  what is there by itself can be read.
- detectable: effect, in standard deviations between runs, that a t test over so many runs finds in 80 % of studies (by
  statsmodels); with estimator "unit of the quantity", the same number of standard errors, the standard error being the
  spread of the estimate over the data sets without effect: all that makes studies of this design differ is in it.
- smallest_p: that the test over so many runs can give at all: above 0.05 the design cannot decide the claim.

A data set depends on the seed, its claim and its number alone, not on how many there are or in which order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.records.intervals import wilson_interval
from science.cases import CASES, Case, Found, Setup
from science.result import NAN, Draft, Result
from science.statistics.inference import detectable_effect, smallest_p
from science.synthetic import Design, draw_template
from science.traces import Traces

ALPHA = 0.05
"""At which tests are tried."""

PRICES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)

QUANTITIES = {
    "false_positive_rate": "share of data sets without effect with p <= 0.05",
    "recovery": "share of data sets with a planted effect with p <= 0.05",
    "estimate": "mean estimate of the planted effect",
    "estimate_without": "mean estimate without effect",
    "detectable": "effect found in 80 % of studies",
    "smallest_p": "smallest possible p",
}
"""What each quantity is, for an axis."""


def compute(
    design: Design | Traces,
    *,
    claims: Iterable[str] | None = None,
    datasets: int = 200,
    planted: int | None = None,
    draws: int = 39,
    seed: int = 0,
) -> Result:
    """Return the calibration card of a design.

    Args:
        design: Its shape; or traces, whose own runs, level seeds, lengths and groups are kept. Of several cells the
            first is taken, all of its task for prices.
        claims: Names of cases; None: all of `CASES`.
        datasets: Without effect, for each claim.
        planted: With one; None: as many.
        draws: Of each null; 39 is the least for which p <= 0.05 can be exact at 2 of 40.
        seed: Of everything drawn.

    Raises:
        ValueError: If a claim is not known.
    """
    draft = Draft("calibration", __doc__ or "")
    known = {case.name: case for case in CASES}
    wanted = list(known) if claims is None else list(claims)
    if unknown := [claim for claim in wanted if claim not in known]:
        raise ValueError(f"claims: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    for claim in wanted:
        case = known[claim]
        try:
            without = [run_dataset(case, design, False, number, draws, seed) for number in range(datasets)]
            count = datasets if planted is None else planted
            having = [run_dataset(case, design, True, number, draws, seed) for number in range(count)]
        except LookupError as error:
            draft.note(f"{claim}: cannot be calibrated on this design: {error}")
            continue
        summarise(draft, case, without, having)
    return draft.finish()


def run_dataset(
    case: Case,
    design: Design | Traces,
    planted: bool,
    number: int,
    draws: int = 39,
    seed: int = 0,
    levels: tuple[int, int] = (16, 0),
) -> Found:
    """Return the claim's row, and each run's values, of one data set; the same for the same arguments anywhere.

    `levels` is how many level families the runs have learned, and how many were held out, for claims over levels.

    Raises:
        LookupError: If the design does not have what the claim needs; the message says what.
    """
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode()), int(planted), number])
    if isinstance(design, Traces):
        template = _first_task(design) if case.many_prices else next(iter(design.cells()))
        prices = len({run.lpc_alpha for run in template.runs})
        if case.many_prices and prices < 3:
            raise LookupError(f"needs three prices, found {prices}")
    else:
        template = draw_template(design, rng, alphas=PRICES if case.many_prices else PRICES[:1])
    return case.test(Setup(template, rng, planted, draws, *levels))


def _first_task(traces: Traces) -> Traces:
    task = traces.runs[0].task
    return traces.select([index for index, run in enumerate(traces.runs) if run.task == task])


def summarise(draft: Draft, case: Case, without: Sequence[Found], having: Sequence[Found]) -> None:
    """Add the rows of a case, from data sets without and with an effect."""
    rows = [row for row, _ in without]
    n_runs = max((row.n_runs for row in rows), default=0)
    shared = {"group": case.name, "unit": "data sets", "n_runs": n_runs}
    for name, found, words in (
        ("false_positive_rate", rows, case.nothing),
        ("recovery", [row for row, _ in having], case.planted),
    ):
        p = np.array([row.p for row in found])
        decided = int(np.isfinite(p).sum())
        hits = int((p <= ALPHA).sum())
        low, high = wilson_interval(hits, decided)
        draft.add(
            name,
            hits / decided if decided else NAN,
            low=low,
            high=high,
            condition=f"{words}; {decided} data sets",
            **shared,
        )
        if decided < len(found):
            draft.note(f"{case.name}: {len(found) - decided} of {len(found)} data sets gave no p, with {n_runs} runs")
    error = NAN
    for name, found, truth, words in (
        ("estimate_without", without, NAN, case.nothing),
        ("estimate", having, case.truth, case.planted),
    ):
        values = np.array([row.value for row, _ in found])
        values = values[np.isfinite(values)]
        if len(values):
            spread = values.std(ddof=1) if len(values) > 1 else NAN
            error = spread if name == "estimate_without" else error
            half = 1.96 * spread / np.sqrt(len(values))
            ends = {"low": values.mean() - half, "high": values.mean() + half}
            draft.add(name, values.mean(), **ends, null_mean=truth, condition=words, **shared)
    effect = detectable_effect(n_runs)
    two = 2 if any(row.estimator.startswith("Welch") for row in rows) else 1  # runs of two kinds, half of them each
    draft.add("detectable", two * effect, estimator="standard deviations between runs", **shared)
    draft.add("detectable", effect * np.sqrt(n_runs) * error, estimator="unit of the quantity", **shared)
    draft.add(
        "smallest_p",
        max([row.p_floor for row in rows if np.isfinite(row.p_floor)], default=smallest_p(n_runs)),
        **shared,
    )
