"""Transfer: how soon a trained policy learns a level that is new to it, with a part of it free.

Of each seed, policies learn each new level in several ways, "arms", all with the same levels in the same order, the
same settings and the same budget of updates: from scratch; from the trained policy with only its routers free, only its
experts, only its head (all else stays, bit for bit), or all of it (fine-tuning); and from weights that were never
trained with the same part free. T is the number of env-steps after which, acting as it learns, it solves 0.9 of its
episodes (`success` of the settings): of all that end within a stretch as long as the longest episodes of all
environments, and of `train.window` at least. Episodes that succeed end sooner than those that are cut, so that shorter
stretches, and the first one, hold successes whoever acts (`science.learning`).

- steps_to_learn: T of each arm and run; over runs the median, if more than half learned the level.
- learned: share of runs that did within the budget, with Wilson's interval.
- gain_router, gain_experts, gain_head, gain_all: log2(T of scratch / T of that arm), paired by seed: by how many
  doublings of steps the trained policy is sooner with that part free.
- gain_router_above_untrained, gain_experts_above_untrained, gain_head_above_untrained: twins, against the same part
  free in the policy's own weights before training. Scratch may lose to a part, or win, because of how much there is to
  train; what the trained rest is worth is told by this.
- router_against_experts: log2(T of experts / T of router). Above 0, what the new level needs is reached sooner by
  routing through the experts that there are than by changing these. router_against_experts_above_untrained: minus that
  of the untrained policy, in which one of the two may be sooner by its size alone.

Of every new level over runs, and over all of them ("all tasks"): runs and levels are both samples where there are three
levels or more; with fewer it is about these levels.

Censoring. A run that has not learned the level within the budget B has T > B. In its place B is put, in both arms of a
pair: what is compared are logarithms of time restricted to B (as by restricted mean survival times; Royston and Parmar
2013, BMC Med. Res. Methodol. 13:152). Where one arm is censored the value is a bound, nearer to 0 than the truth; it
stands as the lower (scratch never) or upper end (the arm never) in the run's row. So it does where one arm was there as
soon as it could be told, and the other was not. Where neither learned the level there is no order and no value: the
mean is that of pairs in which somebody did. A second line ("worst") includes the others at 0, and understates how far
arms are apart; where many are censored, the truth is told by learned. As values are bounds, no claim of equivalence
should rest on levels that are not learned. Nothing is assumed of the distribution of T: all arms have one B, and if
nothing is to be seen, the two of a pair can be exchanged, which changes the sign of the value, restricted and left out
as it is. So the sign-flip test over runs of a level is exact; that over three levels or more is the quasi-F test. Below
eight runs a level has a t test, whose p is no smaller than signs could give where runs have the same value. What is
assumed is that pairs (seeds, and over levels the levels) are independent. T cannot be told below the first such
stretch, and is put there; a note says where arms were there from the start.

Known answers: planted times whose ratio is 2 give a gain of 1 where no budget cuts them, arms that are alike p <= 0.05
in 5 %; of policies whose head alone was drawn anew the head has their level back, and the routers never have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.records.intervals import wilson_interval
from science.arms import ALL_PARTS, PARTS, SCRATCH, untrained
from science.levels import ALL_TASKS, add_over_both, name_run
from science.result import NAN, Draft, Result, Row
from science.statistics.inference import compare_over_both
from science.traces import Run

_SAYS = {"router": "routers alone", "experts": "experts alone", "head": "the head alone", ALL_PARTS: "all of it"}

QUANTITIES = {
    **{f"gain_{part}": f"env-steps saved, training {_SAYS[part]}, against scratch (doublings)" for part in PARTS},
    **{
        f"gain_{part}_above_untrained": f"env-steps saved, training {_SAYS[part]}, against untrained (doublings)"
        for part in PARTS
        if part != ALL_PARTS
    },
    "router_against_experts": "env-steps saved by routers against experts (doublings)",
    "router_against_experts_above_untrained": "env-steps saved by routers against experts, minus untrained (doublings)",
    "steps_to_learn": "env-steps to learn a new level",
    "learned": "share of runs that learn a new level",
}
"""What each quantity is, for an axis."""

COMPARISONS: dict[str, tuple[tuple[str, str], ...]] = {
    **{f"gain_{part}": ((part, SCRATCH),) for part in PARTS},
    **{f"gain_{part}_above_untrained": ((part, untrained(part)),) for part in PARTS if part != ALL_PARTS},
    "router_against_experts": (("router", "experts"),),
    "router_against_experts_above_untrained": (("router", "experts"), (untrained("router"), untrained("experts"))),
}
"""Of each quantity that is tested the arms that are compared, the sooner one of a value above 0 first; minus a second
pair, where there is one."""


@dataclass(frozen=True)
class Learned:
    """How long one run took to learn a new level in one way.

    Attributes:
        run: The policy that goes on; its task is the new level.
        arm: How it learned, see `science.arms`.
        steps: Env-steps until success; infinity: not within the budget.
        at_once: Whether success was there at the first moment at which it could be told.
    """

    run: Run
    arm: str
    steps: float
    at_once: bool = False


@dataclass(frozen=True, eq=False)
class Times:
    """Env-steps of all arms, runs and levels.

    Attributes:
        runs: N runs, the task of none of them.
        levels: G.
        of_arm: (N, G) of each arm; infinity never, NaN not trained.
        at_once: (N, G) of each arm: whether success was there as soon as it could be told.
        budget: Env-steps after which a run is censored.
    """

    runs: tuple[Run, ...]
    levels: tuple[str, ...]
    of_arm: dict[str, np.ndarray]
    at_once: dict[str, np.ndarray]
    budget: float

    def steps(self, arm: str) -> np.ndarray:
        """Return (N, G) of an arm, NaN where there is none."""
        return self.of_arm.get(arm, np.full((len(self.runs), len(self.levels)), NAN))


def compute(learned: Sequence[Learned], *, budget: float, success: float = 0.9) -> Result:
    """Return how soon policies learn new levels; see the module.

    Args:
        learned: Of each run, level and arm; of one price.
        budget: Env-steps after which a run is censored, of all alike.
        success: That counts as learned, for words.

    Raises:
        ValueError: If a run learned a level twice in the same way, or after the budget.
    """
    draft = Draft("transfer", __doc__ or "")
    times = gather_times(learned, budget)
    words = f"no success of {success:g} within {budget:,.0f} env-steps"
    _describe(draft, times, words)
    _note_at_once(draft, learned)
    for quantity in COMPARISONS:
        add_comparison(draft, times, quantity, words)
    return draft.finish()


def gather_times(learned: Sequence[Learned], budget: float) -> Times:
    """Return times as arrays.

    Raises:
        ValueError: If a run learned a level twice in the same way, or after the budget.
    """
    levels = list(dict.fromkeys(entry.run.task for entry in learned))
    first: dict[int, Run] = {}
    for entry in learned:
        first.setdefault(entry.run.seed, replace(entry.run, task=ALL_TASKS))
    seeds, found, early = sorted(first), {}, {}
    for entry in learned:
        if not (0 < entry.steps <= budget or np.isinf(entry.steps)):
            raise ValueError(f"steps: expected more than 0, at most {budget:,.0f}, or infinity, found {entry.steps}")
        table = found.setdefault(entry.arm, np.full((len(seeds), len(levels)), NAN))
        place = seeds.index(entry.run.seed), levels.index(entry.run.task)
        if not np.isnan(table[place]):
            raise ValueError(f"{entry.run.name}: expected once with arm {entry.arm}, found it twice")
        table[place] = entry.steps
        early.setdefault(entry.arm, np.zeros((len(seeds), len(levels)), bool))[place] = entry.at_once
    return Times(tuple(first[seed] for seed in seeds), tuple(levels), found, early, budget)


def compare(times: Times, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return by how many doublings the first arm of a pair is sooner than the second; minus that of a second pair.

    Returns:
        Values (N, G), NaN where an arm was not trained or none of them learned the level; where all were trained; and
        how each value is bounded: 1 it is at least so much, -1 at most, 0 neither is known.
    """
    steps = np.array([[times.steps(arm) for arm in pair] for pair in pairs])  # (pairs, 2, N, G)
    trained = ~np.isnan(steps).any(axis=(0, 1))
    each = np.diff(np.log2(np.minimum(steps, times.budget)), axis=1)[:, 0]
    values = each[0] - (each[1] if len(pairs) > 1 else 0.0)
    known = trained & np.isfinite(steps).any(axis=(0, 1))
    sooner, later = (times.at_once.get(arm, False) for arm in pairs[0])
    bound = (np.isinf(steps[0, 1]) | sooner).astype(int) - (np.isinf(steps[0, 0]) | later)
    return np.where(known, values, NAN), trained, bound if len(pairs) == 1 else np.zeros_like(bound)


def add_comparison(draft: Draft, times: Times, quantity: str, words: str = "never learned") -> None:
    """Add a quantity of `COMPARISONS`, of each level over runs, and of all levels; nothing if an arm is missing.

    Args:
        draft: Gets the rows.
        times: Of all arms.
        quantity: Its name.
        words: What is said of runs that have not learned a level.
    """
    pairs = COMPARISONS[quantity]
    twin = next((name for name in (f"{quantity}_above_untrained",) if name in COMPARISONS), "")
    if any(arm not in times.of_arm for pair in pairs for arm in pair):
        return
    values, trained, bound = compare(times, pairs)

    def reason(ok: bool, why: str) -> str:
        return "" if ok else why

    for g, level in enumerate(times.levels):
        own = values[:, g]
        row = draft.over_runs(
            quantity,
            own,
            [replace(run, task=level) for run in times.runs],
            reasons=[
                reason(np.isfinite(value), f"neither: {words}" if there else "an arm was not trained")
                for value, there in zip(own, trained[:, g], strict=True)
            ],
            worst=0.0 if trained[:, g].all() else NAN,
            each=[
                (value if side > 0 else NAN, value if side < 0 else NAN)
                for value, side in zip(own, bound[:, g], strict=True)
            ],
            family=quantity,
            twin=twin,
        )
        _bound_by_signs(draft, row, own)
    row = add_over_both(draft, quantity, values, times.runs, least=1, twin=twin)
    _include_undecided(draft, row, values, trained, words)
    means = [own[np.isfinite(own)].mean() for own in values if np.isfinite(own).any()]
    _bound_by_signs(draft, row, np.array(means))


def _include_undecided(draft: Draft, row: Row, values: np.ndarray, trained: np.ndarray, words: str) -> None:
    """Add the mean over all levels with what has no order, for neither arm learned a level, included at 0."""
    undecided = trained & np.isnan(values)
    if undecided.any():
        both = compare_over_both(np.where(undecided, 0.0, values))
        why = f"{undecided.sum()} of {trained.sum()} runs and levels included at 0: neither: {words}"
        about = {"unit": row.unit, "task": row.task, "setting": row.setting, "n_runs": both.n_runs}
        ends = {"low": both.low, "high": both.high, "n_levels": both.n_levels, "drop_reason": why}
        draft.add(row.quantity, both.mean, estimator="worst", **about, **ends)


def _bound_by_signs(draft: Draft, row: Row, values: np.ndarray) -> None:
    """Let p of a row be no smaller than signs alone can give where values are tied.

    Steps are told by lines of a log: runs with the same value have no spread for a t test to go by.
    """
    known = values[np.isfinite(values)]
    if np.isfinite(row.p) and len(np.unique(known)) < len(known):
        floor = 2.0 / 2 ** len(known)
        place = next(index for index, other in enumerate(draft.rows) if other is row)
        draft.rows[place] = replace(row, p=max(row.p, floor), p_floor=max(row.p_floor, floor))


def _describe(draft: Draft, times: Times, words: str) -> None:
    """Add the times themselves, and how many learned the level at all."""
    for arm, table in times.of_arm.items():
        for level, own in zip(times.levels, table.T, strict=True):
            setting = times.runs[0].setting
            for run, steps in zip(times.runs, own, strict=True):
                why = "" if np.isfinite(steps) else "was not trained" if np.isnan(steps) else words
                about = {**name_run(run), "task": level, "condition": arm, "drop_reason": why}
                value = steps if np.isfinite(steps) else NAN
                draft.add("steps_to_learn", value, n_runs=int(not why), n_dropped=int(bool(why)), **about)
            known = own[~np.isnan(own)]
            hits = int(np.isfinite(known).sum())
            about = {"unit": "runs", "task": level, "setting": setting, "condition": arm, "n_runs": len(known)}
            middle = float(np.median(known)) if 2 * hits > len(known) else NAN
            lost = {"n_dropped": len(known) - hits, "drop_reason": words if hits < len(known) else ""}
            draft.add("steps_to_learn", middle, estimator="median", **{**about, "n_runs": hits}, **lost)
            low, high = wilson_interval(hits, len(known))
            draft.add("learned", hits / len(known) if len(known) else NAN, low=low, high=high, **about)


def _note_at_once(draft: Draft, learned: Sequence[Learned]) -> None:
    """Note of which arms and levels runs had the success as soon as it could be told."""
    cells: dict[tuple[str, str], list[bool]] = {}
    for entry in learned:
        cells.setdefault((entry.run.task, entry.arm), []).append(entry.at_once)
    for (level, arm), flags in cells.items():
        if any(flags):
            draft.note(
                f"{level}, {arm}: {sum(flags)} of {len(flags)} runs have that success as soon as it can be told: they "
                "may have needed fewer steps"
            )
