"""The calibration card: this very design, run on routers that were planted and on noise of the same shape.

    card = compute(Design(runs=10, episodes=40), datasets=200)          # or a study's own traces
    card.to_csv()                                                        # calibration.csv

For each claim that the analyses can make, on data sets that keep runs, level seeds, lengths of episodes and subgoals:

- false_positive_rate: share of the data sets without anything to be found in which p <= 0.05, with Wilson's interval.
  What else goes on in them is left in: trends in the course of an episode, effects of levels on all runs alike,
  pathways that each run has to itself, effects of runs. Below 0.05 where p is the largest of several nulls.
- recovery: the same share of data sets in which an effect was planted; `condition` says which.
- estimate: mean of the quantity in these, `null_mean` the planted value where it is known. Consistency has that with
  endless episodes only: how far below it lies is what so few episodes lose.
- detectable: effect, in standard deviations between runs, that a t test over so many runs finds in 80 % of studies (by
  statsmodels); with estimator "unit of the quantity", times the spread between runs in the data sets without effect.
- smallest_p: that the test over so many runs can give at all: above 0.05 the design cannot decide the claim.

A data set depends on the seed, its claim and its number alone, not on how many there are or in which order.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.records.intervals import wilson_interval
from science import complexity, distinctness, knockouts, pathways, price, sufficiency
from science.planted_effects import plant_knockouts, plant_thresholds
from science.profiles import list_experts
from science.result import NAN, Draft, Result, Row
from science.statistics.inference import detectable_effect, smallest_p
from science.synthetic import Design, draw_template, plant_noisy_policy, plant_prices, plant_signal
from science.traces import Traces

ALPHA = 0.05
PRICES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)

QUANTITIES = {
    "false_positive_rate": "share of data sets without effect with p <= 0.05",
    "recovery": "share of data sets with a planted effect with p <= 0.05",
    "estimate": "mean estimate of the planted effect",
    "detectable": "effect found in 80 % of studies",
    "smallest_p": "smallest possible p",
}
"""What each quantity is, for an axis."""


@dataclass(frozen=True)
class Case:
    """A claim, and how to make data in which it holds or does not.

    Attributes:
        claim: analysis.quantity.
        test: Of a template, a generator, whether to plant an effect, and the number of draws: the row that the claim
            rests on, and each run's values.
        planted: The effect in words.
        truth: Its value, NaN where it has no simple one.
        many_prices: Whether it takes all prices; otherwise one.
    """

    claim: str
    test: Callable[[Traces, np.random.Generator, bool, int], tuple[Row, np.ndarray]]
    planted: str
    truth: float = NAN
    many_prices: bool = False


def _values(result: Result, row: Row) -> tuple[Row, np.ndarray]:
    where = {key: getattr(row, key) for key in ("layer", "expert", "group", "condition")}
    return row, np.array([each.value for each in result.find(row.quantity, unit="run", **where)])


def _consistency(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    traces = plant_signal(template, rng, shared=0.03 if planted else 0.0, own=0.03, drift=0.03, level=0.03)
    found = pathways.compute(traces, draws=draws, seed=_seed(rng))
    return _values(found, found.row("consistency"))


def _path_information(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    traces = plant_signal(template, rng, own=0.06 if planted else 0.0, drift=0.05, level=0.05)
    found = distinctness.compute(traces, draws=draws, seed=_seed(rng))
    return _values(found, found.row("path_information"))


def _effect(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    layers, *_ = list_experts(template)
    harm = np.full((len(template.runs), len(layers)), 0.02 if planted else 0.0)
    effects = plant_knockouts(template, rng, harm, run_sd=0.01, level_sd=0.03, noise=0.1)
    found = knockouts.compute(effects)
    return _values(found, found.row("effect_on_ce", layer=0, expert=0, unit="runs+levels"))


def _audit(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    traces = plant_signal(template, rng, own=0.05, level=0.05)
    means = [traces.weights[traces.run == run].mean(axis=0)[traces.experts] for run in range(len(traces.runs))]
    usage = np.stack(means)
    spread = usage.std(axis=1, keepdims=True)
    harm = rng.normal(size=usage.shape) + (0.7 if planted else 0.0) * (usage - usage.mean()) / spread
    found = knockouts.compute(plant_knockouts(traces, rng, 0.1 * harm, level_sd=0.1, noise=0.1), traces)
    return _values(found, found.row("audit"))


def _sufficiency(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    taus = [0.05, 0.1, 0.2]
    own = [0.9, 0.8, 0.7]
    found = sufficiency.compute(plant_thresholds(template, rng, own, [0.85, 0.7, 0.5] if planted else own, taus))
    return _values(found, found.row("sufficiency_above_random"))


def _price_trend(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    half = np.full(template.weights.shape[1:], 1e-3 if planted else np.inf)
    traces = plant_prices(template, rng, half, noise=0.08)
    found = price.compute(traces, draws=draws, seed=_seed(rng))
    expert = int(np.flatnonzero(template.experts[0])[-1])
    return _values(found, found.row("price_trend", layer=0, expert=expert))


def _lpc_entropy(template: Traces, rng: np.random.Generator, planted: bool, draws: int) -> tuple[Row, np.ndarray]:
    traces = plant_noisy_policy(plant_signal(template, rng, drift=0.05, level=0.05), rng)
    if planted:  # LPC follows how sure the policy is in a cell
        codes = traces.group("cell").codes
        sure = np.concatenate([rng.normal(size=len(traces.group("cell").names)), [0.0]])[codes]
        logits = traces.logits * np.exp(-0.4 * sure)[:, None]
        lpc = traces.lpc + 0.3 * traces.lpc.std() * sure
        traces = replace(traces, logits=logits.astype(np.float32), lpc=lpc.astype(np.float32))
    found = complexity.compute(traces, draws=draws, seed=_seed(rng), min_steps=10)
    return _values(found, found.row("lpc_entropy"))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


CASES = (
    Case("pathways.consistency", _consistency, "half of the profiles' variance shared", 0.5),
    Case("distinctness.path_information", _path_information, "weights depend on the group by 0.06 (sd)"),
    Case("knockouts.effect_on_ce", _effect, "0.02 nats, sd of runs 0.01", 0.02),
    Case("knockouts.audit", _audit, "effects follow usage by 0.7 sd"),
    Case("sufficiency.sufficiency_above_random", _sufficiency, "success .9 .8 .7 against .85 .7 .5", 0.0875),
    Case("price.price_trend", _price_trend, "usage halves at 0.001", many_prices=True),
    Case("complexity.lpc_entropy", _lpc_entropy, "LPC and entropy share an effect of place"),
)


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
        claims: analysis.quantity; None: all of `CASES`.
        datasets: Without effect, for each claim.
        planted: With one; None: as many.
        draws: Of each null; 39 is the least for which p <= 0.05 can be exact at 2 of 40.
        seed: Of everything drawn.

    Raises:
        ValueError: If a claim is not known.
    """
    draft = Draft("calibration", __doc__ or "")
    known = {case.claim: case for case in CASES}
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
    case: Case, design: Design | Traces, planted: bool, number: int, draws: int = 39, seed: int = 0
) -> tuple[Row, np.ndarray]:
    """Return the claim's row, and each run's values, of one data set; the same for the same arguments anywhere.

    Raises:
        LookupError: If the design does not have what the claim needs; the message says what.
    """
    rng = np.random.default_rng([seed, zlib.crc32(case.claim.encode()), int(planted), number])
    if isinstance(design, Traces):
        template = _first_task(design) if case.many_prices else next(iter(design.cells()))
        prices = len({run.lpc_alpha for run in template.runs})
        if case.many_prices and prices < 3:
            raise LookupError(f"needs three prices, found {prices}")
    else:
        template = draw_template(design, rng, alphas=PRICES if case.many_prices else PRICES[:1])
    return case.test(template, rng, planted, draws)


def _first_task(traces: Traces) -> Traces:
    task = traces.runs[0].task
    return traces.select([index for index, run in enumerate(traces.runs) if run.task == task])


def summarise(
    draft: Draft, case: Case, without: Sequence[tuple[Row, np.ndarray]], having: Sequence[tuple[Row, np.ndarray]]
) -> None:
    """Add the rows of a claim, from data sets without and with an effect."""
    rows = [row for row, _ in without]
    n_runs = max((row.n_runs for row in rows), default=0)
    shared = {"group": case.claim, "unit": "data sets", "n_runs": n_runs}
    for name, found, words in (
        ("false_positive_rate", rows, "nothing planted"),
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
            draft.note(f"{case.claim}: {len(found) - decided} of {len(found)} data sets gave no p, with {n_runs} runs")
    values = np.array([row.value for row, _ in having])
    if len(values):
        error = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else NAN
        draft.add(
            "estimate",
            values.mean(),
            low=values.mean() - error,
            high=values.mean() + error,
            null_mean=case.truth,
            condition=case.planted,
            **shared,
        )
    each = [found[np.isfinite(found)] for _, found in without]
    spread = float(np.mean([found.std(ddof=1) for found in each if len(found) > 1] or [NAN]))
    effect = detectable_effect(n_runs)
    draft.add("detectable", effect, estimator="standard deviations between runs", **shared)
    draft.add("detectable", effect * spread, estimator="unit of the quantity", **shared)
    draft.add(
        "smallest_p",
        max([row.p_floor for row in rows if np.isfinite(row.p_floor)], default=smallest_p(n_runs)),
        **shared,
    )
