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

Interval: jackknife over runs, for pairs share runs (Arvesen 1969, Ann. Math. Stat. 40:2076); its t test is shown as
estimator "jackknife". Null, from which p: x permuted within each run, and from 8 runs also the sign of u_r flipped for
whole runs, which keeps that some groups vary more than others: the larger p counts. Where experts of a layer are equal
in size they are interchangeable: each pair is aligned by Hungarian matching, under the null too.

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
from science.effects import EffectTable
from science.profiles import Profiles, correlate, find_profiles, mean_over_pairs, to_unit
from science.result import NAN, Draft, Result
from science.statistics.inference import MIN_FOR_SIGN_FLIP, compare_with_zero
from science.statistics.nulls import p_value
from science.traces import Traces, group_means

QUANTITIES = {
    "consistency": "correlation of centred profiles between runs",
    "consistency_jackknife": "the same, tested over runs",
    "consistency_raw": "correlation of profiles, not centred",
    "consistency_disattenuated": "correlation with endless episodes",
    "consistency_above_untrained": "consistency, trained minus untrained",
    "transplant_gain": "cross-entropy, shuffled minus another run's pathways (nats)",
    "transplant_loss": "cross-entropy, another run's minus own pathways (nats)",
}
"""What each quantity is, for an axis."""

SPLITS = 8
"""Random halves for the disattenuated correlation."""


def compute(
    traces: Traces,
    *,
    by: str = "level_subgoal",
    effects: EffectTable | None = None,
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
        _compare_transplants(draft, table)
    return draft.finish()


class _Cell:
    """The rows of one task and setting."""

    def __init__(self, draft: Draft, cell: Traces, by: str, rng: np.random.Generator) -> None:
        self.draft, self.cell, self.by, self.rng = draft, cell, by, rng
        self.profiles = find_profiles(draft, cell, by)
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
        null = {"p": p, "p_floor": floor, "null_mean": null_mean, "unit": "runs+groups", "twin": "transplant_gain"}
        self._add("consistency", found, runs, worst=True, **null)
        pseudo = mean_over_pairs(found)[2]
        test = compare_with_zero(pseudo)
        self._add(
            "consistency_jackknife", found, np.zeros(0, np.intp), estimator="jackknife", p=test.p, p_floor=test.p_floor
        )
        self._add("consistency_raw", correlate(self.profiles.values, blocks), runs)
        exact, reliable = disattenuate(self.cell, self.by, self.profiles, self.rng)
        if not reliable.all():
            lost = "; ".join(self.cell.runs[run].name for run in runs[~reliable])
            self.draft.note(
                f"{self.where}: profiles that two halves of the episodes do not share, not corrected: {lost}"
            )
        self._add("consistency_disattenuated", exact[np.ix_(reliable, reliable)], runs[reliable])
        if untrained is not None:
            self._subtract_untrained(untrained, pseudo)

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

    def _subtract_untrained(self, untrained: Traces, pseudo: np.ndarray) -> None:
        from scipy.stats import ttest_ind  # takes 0.4 s

        before = [cell for cell in untrained.cells() if cell.runs[0].task == self.cell.runs[0].task]
        profiles = find_profiles(Draft("", ""), before[0], self.by, keep_collapsed=True) if before else self.profiles
        if not before or len(profiles.runs) < 3 or len(pseudo) < 3:
            self.draft.note(f"{self.where}: above untrained: needs three runs with pathways of either kind: no value")
            return
        value, _, theirs = mean_over_pairs(correlate(profiles.centered, profiles.blocks))
        test = ttest_ind(pseudo, theirs, equal_var=False)
        ends = test.confidence_interval()
        self.draft.add(
            "consistency_above_untrained",
            pseudo.mean() - value,
            **{**self.shared, "unit": "runs", "estimator": "Welch, jackknife", "low": ends.low, "high": ends.high},
            n_runs=len(pseudo) + len(theirs),
            p=test.pvalue,
            p_floor=0.0,
        )


def find_null(
    u: np.ndarray, blocks: list[list[int]], found: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[float, float, float]:
    """Return p, the smallest p, and the mean of C under the null, see the module.

    Args:
        u: (R, X, K), centred over X.
        blocks: Of interchangeable experts.
        found: Correlations (R, R) of u.
        rng: Draws the permutations.
        draws: How many.
    """
    runs, groups = u.shape[:2]
    value = mean_over_pairs(found)[0]
    if not draws or not np.isfinite(value):
        return NAN, NAN, NAN
    flat = to_unit(u)
    under = np.empty(draws)
    order = rng.permuted(np.tile(np.arange(groups), (draws, runs, 1)), axis=2)
    if blocks:
        for draw in range(draws):
            under[draw] = mean_over_pairs(correlate(flat[np.arange(runs)[:, None], order[draw]], blocks))[0]
    else:  # the mean over pairs of unit vectors is (|sum|^2 - R) / R(R - 1)
        total = np.zeros((draws, *u.shape[1:]))
        for run in range(runs):
            total += flat[run][order[:, run]]
        under = (np.square(total).sum(axis=(1, 2)) - runs) / (runs * (runs - 1))
    p, floor = p_value(value, under), 1 / (1 + draws)
    if runs >= MIN_FOR_SIGN_FLIP:
        flipped = _flip_runs(found, correlate(u, blocks, -u) if blocks else -found, rng)
        p = max(p, float((np.abs(flipped) >= abs(value) - 1e-12).mean()))
        floor = max(floor, 1 / len(flipped))
    return p, floor, float(under.mean())


def _flip_runs(found: np.ndarray, against: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return C for signs of runs, all up to a common one (1,023 drawn ones from 11 runs on), the given ones first.

    Args:
        found: Correlations (R, R) of profiles.
        against: The same with the other's sign changed.
        rng: Draws.
    """
    n = len(found)
    if n <= 11:
        signs = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1.0, 1.0], (1023, n))])
    off = ~np.eye(n, dtype=bool)
    same, other = (np.where(off, (matrix + matrix.T) / 2, 0.0) for matrix in (found, against))
    mean, half = (same + other) / 2, (same - other) / 2
    return (mean.sum() + np.einsum("da,ab,db->d", signs, half, signs)) / (n * (n - 1))


def disattenuate(cell: Traces, by: str, profiles: Profiles, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlations (R', R') with endless episodes, and which runs' profiles are reliable at all, bool (R',).

    Args:
        cell: Traces.
        by: Group of steps.
        profiles: Found in them.
        rng: Draws the halves: the same levels for all runs.
    """
    codes, width = cell.group(by).codes, len(cell.group(by).names)
    levels = np.column_stack([cell.episode_level, cell.level_seed])
    level = np.unique(levels, axis=0, return_inverse=True)[1].reshape(-1)
    cross, own = [], []
    for _ in range(SPLITS):
        half = (rng.permutation(level.max() + 1) % 2)[level][cell.episode]
        sides = [group_means(cell, np.where(half == side, codes, -1), width)[0] for side in (0, 1)]
        first, second = (m[np.ix_(profiles.runs, profiles.groups)][:, :, cell.experts] for m in sides)
        if np.isfinite(first).all() and np.isfinite(second).all():
            first, second = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
            cross.append(correlate(first, profiles.blocks, second))
            own.append(np.einsum("rxk,rxk->r", to_unit(first), to_unit(second)))
    if not cross:
        return np.full((len(profiles.runs),) * 2, NAN), np.zeros(len(profiles.runs), bool)
    reliability, mean = np.mean(own, axis=0), np.mean(cross, axis=0)
    reliable = reliability > 0
    scale = np.sqrt(np.where(reliable, reliability, NAN))
    return (mean + mean.T) / 2 / np.outer(scale, scale), reliable


def _compare_transplants(draft: Draft, table: EffectTable) -> None:
    own, other, shuffled = (_mean_of_kind(table, f"transplant_{name}") for name in ("own", "other", "shuffled"))
    counts = {"n_episodes": len(np.unique(table.level_seed)), "estimator": "cross-entropy, nats"}
    for quantity, first, second, words in (
        ("transplant_gain", shuffled, other, "shuffled - other"),
        ("transplant_loss", other, own, "other - own"),
    ):
        if first is not None and second is not None:
            draft.over_runs(quantity, first - second, table.runs, condition=words, **counts)


def _mean_of_kind(table: EffectTable, kind: str) -> np.ndarray | None:
    """Return each run's mean difference of cross-entropy over the conditions of a kind; None if there are none."""
    values = np.array([table.per_run("ce", condition) for condition in table.of_kind(kind)])
    if not len(values):
        return None
    known = np.isfinite(values)
    return np.where(known.any(axis=0), np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), NAN)
