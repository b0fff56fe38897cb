"""Consistency: do runs that differ in their seed route the same groups of steps through the same experts?

v_r[x, l, e] is the mean weight that run r gives expert e of layer l in group x (steps -> episode -> mean), and
u_r = v_r - mean over x of v_r, which takes out what an expert is used everywhere. Quantities:

- consistency, C: mean over pairs of runs of corr(u_r, u_r'), over all (x, l, e). Copies give 1; a shared signal of
  variance s and an own one of variance n in each run give s / (s + n).
- consistency_raw: the same of v. Near 1 for any routers with equal preferences overall, whatever they do by group.
- consistency_disattenuated: what C would be with endless episodes. For halves 1 and 2 of the episodes, drawn 8 times,
  mean of corr(u_r of 1, u_r' of 2) over sqrt(corr(u_r of 1, u_r of 2) corr(u_r' of 1, u_r' of 2))
  (Spearman 1904, Am. J. Psychol. 15:72). Across halves, because runs that replay the same episodes share their noise.
- consistency_above_untrained, where traces of untrained policies are given: C minus theirs. Levels force some of C by
  themselves: states of one group look alike to any network.

Interval: jackknife over runs, for pairs share runs (Arvesen 1969, Ann. Math. Stat. 40:2076). Nulls, of whose p the
largest counts:

- groups: x permuted within each run, so that no run has to do with another.
- runs, from 8 on: the sign of u_r flipped for whole runs, which keeps that some groups vary more than others.
- levels: groups of whole episodes exchanged, in all runs alike (`science.exchange`), and inner products of u_r and u_r'
  compared, which shrink where a group's steps are mixed with others. It keeps what runs owe to the same levels and to
  the time since the start; the chance of the first null is added. consistency_forced: its mean over what is found, so
  much of it levels force.

Without the last, consistency_on_these_levels says that runs agree where they saw the same: by cell, where each is
visited in a few levels only, that is found in all of the data sets in which levels act on all runs alike and pathways
are each run's own. Where experts of a layer are equal in size they are interchangeable: each pair is aligned by
Hungarian matching, under the nulls too.

A run all of whose layers have collapsed (no expert's weight in any group is 0.02 from its mean) has no pathways: it is
left out, counted, and included as a correlation of 0 in the row "worst".

Twin, transplant: weights clamped to the run's own v_r[x], to another run's, to the own with x shuffled. Consistent
pathways mean that another run's do as well as the own and far better than shuffled ones: transplant_gain =
cross-entropy with shuffled minus with another's (> 0), transplant_loss = with another's minus with the own (about 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.records.intervals import mean_interval
from science.agreement import MAX_EXCHANGES, disattenuate, exchange_levels, find_null
from science.effects import Effects
from science.profiles import correlate, find_profiles, mean_over_pairs
from science.result import NAN, Draft, Result, larger
from science.statistics.nulls import p_value
from science.traces import Traces

QUANTITIES = {
    "consistency": "correlation of centred profiles between runs",
    "consistency_on_these_levels": "correlation of centred profiles, levels not generalised over",
    "consistency_forced": "share of common profiles that levels force",
    "consistency_raw": "correlation of profiles, not centred",
    "consistency_disattenuated": "correlation with endless episodes",
    "consistency_above_untrained": "consistency, trained minus untrained",
    "transplant_gain": "cross-entropy, shuffled minus another run's pathways (nats)",
    "transplant_loss": "cross-entropy, another run's minus own pathways (nats)",
}
"""What each quantity is, for an axis."""


def compute(
    traces: Traces,
    *,
    by: str = "level_subgoal",
    effects: Effects | None = None,
    untrained: Traces | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Result:
    """Return the consistency of each task and setting; see the module.

    Args:
        traces: Runs of at least one cell.
        by: Group of steps.
        effects: Of transplants.
        untrained: Policies of the same shape before training, on the same levels.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("pathways", __doc__ or "")
    for cell in traces.cells():
        _Cell(draft, cell, by, np.random.default_rng(seed)).compute(untrained, draws)
    for table in [] if effects is None else effects.cells():
        compare_transplants(draft, table)
    return draft.finish()


class _Cell:
    """The rows of one task and setting."""

    def __init__(self, draft: Draft, cell: Traces, by: str, rng: np.random.Generator) -> None:
        self.draft, self.cell, self.by, self.rng = draft, cell, by, rng
        self.profiles = find_profiles(draft, cell, by, quantity="consistency")  # not of what transplants do
        first = cell.runs[0]
        self.shared: dict[str, Any] = {"task": first.task, "setting": first.setting, "group": by}
        self.shared["n_levels"] = len(cell.levels)
        self.where = f"{first.task}, {first.setting}"

    def compute(self, untrained: Traces | None, draws: int) -> None:
        if len(self.profiles.runs) < 2:
            if len(self.profiles.runs):
                self.draft.note(f"{self.where}: consistency needs two runs with pathways, found one: no value")
            self._add("consistency", np.full((0, 0), NAN), np.zeros(0, np.intp))
            return
        runs, blocks, u = self.profiles.runs, self.profiles.blocks, self.profiles.centered
        self.shared["n_episodes"] = int(np.isin(self.cell.episode_run, runs).sum())
        found = correlate(u, blocks)
        p, floor, null_mean = find_null(u, blocks, found, self.rng, draws)
        shared, under = exchange_levels(self.cell, self.by, self.profiles, self.rng, min(draws, MAX_EXCHANGES))
        least = max(floor, 1 / (1 + len(under)))
        both = {"p": larger(p, p_value(shared, under)), "p_floor": least, "unit": "runs+groups+levels"}
        self._add("consistency", found, runs, worst=True, null_mean=null_mean, twin="transplant_gain", **both)
        if draws:
            count = {"n_runs": len(runs), "unit": "levels"}
            self.draft.add(
                "consistency_forced", under.mean() / shared if shared > 0 else NAN, **{**self.shared, **count}
            )
        pseudo = mean_over_pairs(found)[2]
        self._add("consistency_on_these_levels", found, runs, p=p, p_floor=floor, unit="runs+groups")
        self._add("consistency_raw", correlate(self.profiles.values, blocks), runs)
        exact, reliable = disattenuate(self.cell, self.by, self.profiles, self.rng)
        if not reliable.all():
            lost = "; ".join(self.cell.runs[run].name for run in runs[~reliable])
            self.draft.note(
                f"{self.where}: profiles that two halves of the episodes do not share, not corrected: {lost}"
            )
        self._add("consistency_disattenuated", exact[np.ix_(reliable, reliable)], runs[reliable])
        if untrained is not None:
            subtract_untrained(self.draft, self.cell, self.by, pseudo, untrained, **self.shared)

    def _add(
        self,
        quantity: str,
        matrix: np.ndarray,
        runs: np.ndarray,
        *,
        unit: str = "runs",
        worst: bool = False,
        p: float = NAN,
        **columns: Any,
    ) -> None:
        value, each, pseudo = mean_over_pairs(matrix)
        reasons = self.profiles.reasons
        for index in range(len(self.cell.runs) if quantity == "consistency" else 0):
            run, place = self.cell.runs[index], np.flatnonzero(runs == index)
            known = {"n_runs": len(place), "n_dropped": 1 - len(place), "drop_reason": reasons.get(index, "")}
            own = {"trial": run.trial, "seed": run.seed, "update": run.update}
            self.draft.add(quantity, each[place[0]] if len(place) else NAN, **{**self.shared, **known, **own})
        interval = mean_interval(pseudo)
        n, lost = len(matrix), len(self.cell.runs) - len(matrix)
        words = sorted(set(reasons.values()))
        why = "; ".join(f"{list(reasons.values()).count(word)} {word}" for word in words)
        ends = {"low": float(interval.low), "high": float(interval.high)} if n > 2 else {}
        counts = {"n_runs": n, "n_dropped": lost, "drop_reason": why}
        self.draft.add(
            quantity, value, unit=unit, p=p if n > 2 else NAN, **{**self.shared, **ends, **counts, **columns}
        )
        if worst and lost:
            everyone = n + lost
            included = {"n_runs": everyone, "estimator": "worst", "drop_reason": f"{why}, included at 0"}
            mean = value * n * (n - 1) / (everyone * (everyone - 1))
            self.draft.add(quantity, mean, unit="runs", **{**self.shared, **included})


def subtract_untrained(
    draft: Draft, cell: Traces, by: str, pseudo: np.ndarray, untrained: Traces, **columns: Any
) -> None:
    """Add consistency_above_untrained, of the pseudo-values (R,) of a cell's consistency."""
    from scipy.stats import ttest_ind  # takes 0.4 s

    first = cell.runs[0]
    before = [other for other in untrained.cells() if other.runs[0].task == first.task]
    profiles = find_profiles(Draft("", ""), before[0], by, keep_collapsed=True) if before else None
    if profiles is None or len(profiles.runs) < 3 or len(pseudo) < 3:
        draft.note(
            f"{first.task}, {first.setting}: above untrained: needs three runs with pathways of either kind: no value"
        )
        return
    value, _, theirs = mean_over_pairs(correlate(profiles.centered, profiles.blocks))
    test = ttest_ind(pseudo, theirs, equal_var=False)
    ends = test.confidence_interval()
    draft.add(
        "consistency_above_untrained",
        pseudo.mean() - value,
        **{**columns, "unit": "runs", "estimator": "Welch, jackknife", "low": ends.low, "high": ends.high},
        n_runs=len(pseudo) + len(theirs),
        p=test.pvalue,
        p_floor=0.0,
    )


def compare_transplants(draft: Draft, effects: Effects) -> None:
    """Add transplant_gain and transplant_loss of a cell, where there are the transplants that they take."""
    kinds = {name: effects.of_kind(f"transplant_{name}") for name in ("own", "other", "shuffled")}
    tables = {name: effects.mean_by_level("ce", found) for name, found in kinds.items() if found}
    for quantity, first, second in (("transplant_gain", "shuffled", "other"), ("transplant_loss", "other", "own")):
        if first in tables and second in tables:
            words = {"condition": f"{first} - {second}", "estimator": "cross-entropy, nats"}
            draft.over_both(quantity, tables[first] - tables[second], effects.runs, **words)
