"""Difficulty and complexity: do policies route harder levels through more complex paths, and harder moments?

LPC_g of a level family g is a run's mean learned pathway complexity there, steps -> episode -> mean, on the bot's
trajectories. Difficulties are declared before anything is seen of the policies:

- plan length: steps of the bot's trajectory, mean over episodes.
- subgoals: stretches of one of the bot's subgoals, mean over episodes.
- steps to learn, where `difficulty_baselines` asks for it: log env-steps until dense GRUs, each trained on that level
  alone, act with success 0.9 over as many env-steps as the longest episodes of all environments take; median of their
  seeds. Levels that are never learned are censored and rank last. The first such stretch is not counted, so that levels
  of long episodes are ranked by no fewer env-steps; a note names those that were there by then.

Across levels, per run and price (prices are never pooled: pooled, a price that lowers LPC on easy levels alone makes a
correlation of its own):

- lpc_plan_length, lpc_subgoals, lpc_steps_to_learn: Spearman correlation of LPC_g and difficulty. p is the larger of
  that over runs and of that of levels permuted, in all runs alike. A test over runs alone takes what levels happen to
  do to all runs for a law of difficulty. The interval adds the variance over runs and that of a jackknife over levels.
  Below 16 levels a note says that they are few; below 5 there is no value.
- lpc_plan_length_played: the same of own play, of successful episodes alone, for an episode that fails goes on until
  it is cut, mostly in one state, and dilutes LPC. Levels with fewer than 5 successes do not count.

Within levels: lpc_remaining, the correlation over the steps of a level of LPC with the plan that remains, both less
their mean over the episode; mean over levels; runs and levels are both samples. On the bot's own trajectory what
remains falls by one a step, so this says whether LPC falls in an episode's course. lpc_remaining_above_untrained: minus
that of the same seed's policy before training, whose states drift too.

Twin: lesion_slope. The largest expert of each layer is taken out, all at once, the other weights made to sum to 1;
least squares slope of the change in cross-entropy on plan length, in nats per standard deviation of plan length between
levels, among levels with intact success of 0.9 or more: who does not solve a level has little to lose there.
lesion_slope_above_small: minus that of the smallest experts that are no skip. p as above.

Known answers: LPC = a + b difficulty gives 1; with b = 0, and effects of levels that all runs share, p <= 0.05 in 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from science.effects import Effects
from science.levels import (
    FEWEST,
    Layout,
    add_over_both,
    add_over_levels,
    episode_means,
    lay_out,
    list_tasks,
    name_run,
    settings,
    warn_of_few,
)
from science.profiles import find_unusable
from science.result import NAN, Draft, Result
from science.traces import Traces

QUANTITIES = {
    "lpc_plan_length": "rank correlation of LPC and plan length, over levels",
    "lpc_subgoals": "rank correlation of LPC and number of subgoals, over levels",
    "lpc_steps_to_learn": "rank correlation of LPC and steps a dense network needs to learn, over levels",
    "lpc_plan_length_played": "rank correlation of LPC in own successes and plan length, over levels",
    "lpc_remaining": "correlation of LPC and remaining plan within episodes",
    "lpc_remaining_above_untrained": "correlation of LPC and remaining plan, trained minus untrained",
    "lesion_slope": "rise of harm with plan length, without the largest experts (nats per sd)",
    "lesion_slope_above_small": "rise of harm with plan length, largest minus smallest experts (nats per sd)",
}
"""What each quantity is, for an axis."""

LEAST_SUCCESSES = 5
"""Successful episodes of a level that a run needs there."""

SOLVED = 0.9
"""Intact success from which on a level's lesions count."""


def compute(
    traces: Traces,
    *,
    played: Traces | None = None,
    effects: Effects | None = None,
    untrained: Traces | None = None,
    steps_to_learn: Mapping[str, float] | None = None,
    soonest: Sequence[str] = (),
    held_out: Sequence[str] = (),
    draws: int = 999,
    seed: int = 0,
) -> Result:
    """Return how complexity goes with difficulty at each price; see the module.

    Args:
        traces: Replayed runs of all levels.
        played: Own play of the same runs.
        effects: Of lesions of the largest and the smallest experts, replayed.
        untrained: Replayed policies before training, a run for each seed and level.
        steps_to_learn: Env-steps that dense networks need, by level; infinity: not learned.
        soonest: Levels on which they were there as soon as it could be told.
        held_out: Levels that no policy was trained on, which do not count.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("difficulty", __doc__ or "")
    tasks = list_tasks(traces, held_out)
    difficulties = measure_difficulties(traces, tasks)
    if steps_to_learn:
        difficulties["steps_to_learn"] = np.array([steps_to_learn.get(task, NAN) for task in tasks])
    _describe(draft, tasks, difficulties)
    if early := ", ".join(task for task in tasks if task in soonest):
        draft.note(
            f"{early}: dense networks are there as soon as it can be told, and may need fewer env-steps than that"
        )
    warn_of_few(draft, len(tasks))
    own = dict(settings(played)) if played is not None else {}
    before = None if untrained is None else remaining_table(untrained, lay_out(untrained.runs, tasks))
    first = () if untrained is None else [run.seed for run in lay_out(untrained.runs, tasks).runs]
    for name, cell in settings(traces):
        layout, rng = lay_out(cell.runs, tasks), np.random.default_rng(seed)
        lpc = layout.spread(of_run := find_lpc(draft, cell))
        for run, value in zip(cell.runs, of_run, strict=True):
            if run.task in tasks:
                draft.add("level_lpc", value, n_runs=1, **name_run(run))
        for kind, values in difficulties.items():
            add_over_levels(
                draft, f"lpc_{kind}", lpc, values, layout.runs, rng, draws, twin="lesion_slope", condition=_WORDS[kind]
            )
        _within(draft, cell, layout, before, first)
        success = None
        if name in own:
            there = lay_out(own[name].runs, tasks)
            won = own[name].success > 0.5
            mine = there.spread(episode_means(own[name], own[name].lpc, used=won, least=LEAST_SUCCESSES))
            about = {"condition": f"{_WORDS['plan_length']}, successes"}
            plan = difficulties["plan_length"]
            add_over_levels(draft, "lpc_plan_length_played", mine, plan, there.runs, rng, draws, **about)
            success = there, there.spread(mean_success(own[name]))
        if effects is not None and success is not None:
            chosen = [i for i, run in enumerate(effects.runs) if run.setting == name]
            if chosen:
                _lesion(draft, effects.select(chosen), tasks, difficulties["plan_length"], success, rng, draws)
    return draft.finish()


_WORDS = {"plan_length": "plan length", "subgoals": "subgoals", "steps_to_learn": "steps to learn"}


def measure_difficulties(traces: Traces, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Return plan length and number of subgoals of each task (G,), from the bot's trajectories."""
    place = {task: next(i for i, run in enumerate(traces.runs) if run.task == task) for task in tasks}
    codes = traces.group("subgoal").codes
    starts = np.ones(len(codes), bool)
    starts[1:] = (np.diff(codes) != 0) | (np.diff(traces.episode) != 0)
    length = np.bincount(traces.episode, minlength=len(traces.episode_run)).astype(np.float64)
    subgoals = np.bincount(traces.episode, starts & (codes >= 0), minlength=len(length))
    found = {}
    for name, values in (("plan_length", length), ("subgoals", subgoals)):
        found[name] = np.array([values[(traces.episode_run == place[task]) & (length > 0)].mean() for task in tasks])
    return found


def _describe(draft: Draft, tasks: Sequence[str], difficulties: Mapping[str, np.ndarray]) -> None:
    """Add the declared difficulties themselves; a censored one has no value, and says so."""
    for name, values in difficulties.items():
        for task, value in zip(tasks, values, strict=True):
            known = bool(np.isfinite(value))
            words = "" if known else "never learned: ranks last" if np.isinf(value) else "no dense network was trained"
            draft.add(f"difficulty_{name}", value if known else NAN, unit="levels", task=task, condition=words)


def find_lpc(draft: Draft, cell: Traces) -> np.ndarray:
    """Return each run's mean LPC (R,), NaN of one that cannot be used, which is left out."""
    found = episode_means(cell, cell.lpc)
    for index, reason in find_unusable(cell).items():
        draft.drop(cell.runs[index], reason)
        found[index] = NAN
    return found


def mean_success(played: Traces) -> np.ndarray:
    """Return each run's success on own play, float64 (R,)."""
    known = np.isfinite(played.success)
    count = np.bincount(played.episode_run[known], minlength=len(played.runs))
    total = np.bincount(played.episode_run[known], played.success[known], minlength=len(played.runs))
    return np.where(count > 0, total / np.maximum(count, 1), NAN)


# ------------------------------------------------------------------------------------------------------ within levels


def remaining_table(traces: Traces, layout: Layout) -> np.ndarray:
    """Return the correlation of LPC and remaining plan, both less their episode's mean, by run and level (N, G)."""
    number = len(traces.episode_run)
    length = np.bincount(traces.episode, minlength=number)
    left = length[traces.episode] - traces.time.astype(np.float64)

    def center(values: np.ndarray) -> np.ndarray:
        mean = np.bincount(traces.episode, values, minlength=number) / np.maximum(length, 1)
        return values - mean[traces.episode]

    x, y = center(left), center(traces.lpc.astype(np.float64))
    sums = [np.bincount(traces.run, values, minlength=len(traces.runs)) for values in (x * y, x * x, y * y)]
    size = np.bincount(traces.run, np.square(traces.lpc.astype(np.float64)), minlength=len(traces.runs))
    varied = (sums[1] > 0) & (sums[2] > 1e-10 * size)  # float32: what is left of a constant is no trend
    scale = np.sqrt(np.where(varied, sums[1] * sums[2], 1.0))
    return layout.spread(np.where(varied, sums[0] / scale, NAN))


def _within(draft: Draft, cell: Traces, layout: Layout, before: np.ndarray | None, seeds: Sequence[int]) -> None:
    table = remaining_table(cell, layout)
    add_over_both(draft, "lpc_remaining", table, layout.runs, least=1, limits=(-1, 1))
    if before is None:
        return
    theirs = np.full_like(table, NAN)
    for place, run in enumerate(layout.runs):
        if run.seed in seeds:
            theirs[place] = before[list(seeds).index(run.seed)]
    add_over_both(draft, "lpc_remaining_above_untrained", table - theirs, layout.runs, least=1)


# ------------------------------------------------------------------------------------------------------------ lesions


def slopes(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the least squares slope of values (G,) on each row of others (D, G) in its standard deviations."""
    known = np.isfinite(values)
    if known.sum() < FEWEST:
        return np.full(len(others), NAN)
    x = others[:, known] - others[:, known].mean(axis=1, keepdims=True)
    spread = np.square(x).sum(axis=1)
    unit = others.std(axis=1)
    return np.where(spread > 0, x @ values[known] / np.where(spread > 0, spread, 1.0) * unit, NAN)


def _lesion(
    draft: Draft,
    effects: Effects,
    tasks: Sequence[str],
    plan: np.ndarray,
    success: tuple[Layout, np.ndarray],
    rng: np.random.Generator,
    draws: int,
) -> None:
    layout = lay_out(effects.runs, tasks)
    solved = np.full((len(layout.runs), len(tasks)), NAN)
    for place, run in enumerate(layout.runs):
        solved[place] = next(
            (row for other, row in zip(success[0].runs, success[1], strict=True) if other.seed == run.seed), NAN
        )
    harm = {}
    for size in ("largest", "smallest"):
        for condition in effects.of_kind(f"lesion_{size}"):
            harm[size] = np.where(solved >= SOLVED, layout.spread(effects.per_run("ce", condition)), NAN)
    for quantity, table in (
        ("lesion_slope", harm.get("largest")),
        ("lesion_slope_above_small", harm["largest"] - harm["smallest"] if len(harm) == 2 else None),
    ):
        if table is not None:
            few = (np.isfinite(table).sum(axis=1) < FEWEST).all()
            if few:
                draft.note(
                    f"{layout.runs[0].setting}: {quantity}: no run solves {FEWEST} levels with success {SOLVED:g} or "
                    "more: no value"
                )
            about = {"statistic": slopes, "condition": f"levels with intact success {SOLVED:g} or more"}
            add_over_levels(draft, quantity, table, plan, layout.runs, rng, draws, **about)


def rank_learning(steps: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of log env-steps to success by level; infinity where half of the seeds or more never had it.

    Args:
        steps: Of each seed, by level; infinity: never.
    """
    found = {}
    for task, each in steps.items():
        values = np.sort(np.log(each))
        if len(values):
            low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
            found[task] = float(high) if np.isinf(high) else float((low + high) / 2)
    return found
