"""Needed against used complexity: which complexity does a step need, and does the router spend it there?

On the bot's trajectories every path, one expert of each layer, is forced for one step from the state that the intact
policy has reached. A path's cost is the LPC of all weight on it, sum over layers of size^2. The complexity needed at a
step is the cost of the cheapest path along which the most probable action is the bot's; used is the LPC of the intact
policy there. Steps at which the intact policy does as the bot, and some path does, count; means go steps -> episode ->
mean. Nothing is assumed about which steps are hard.

- needed, used: their means. waste: mean of used minus needed where it is positive; shortfall: of needed minus used
  where that is. Both are in units of LPC.
- no_path_right: of the steps at which the intact policy is right, the share at which no single path is. One-hot weights
  are off the training distribution: where this is large, nothing here means much. likeliest_right: the share at which
  the path of the largest weights alone is.
- needed_used: rank correlation of needed and used over the steps of a run, less their means in each episode, so that no
  level counts as hard or dear.
- needed_by_subgoal, used_by_subgoal; needed_by_plan, used_by_plan, against the steps that the bot has left; needed_at,
  used_at, by the position of the agent, means over all steps and runs there.
- needed_used_across, where policies of a setting have learned five tasks or more: rank correlation over these tasks of
  the means, per seed.

Null: the bot's actions of whole episodes exchanged, stretched to fit, in all runs alike. needed and no_path_right are
compared with what they are for such actions: with 27 paths and few actions some path takes any of them by luck. The
same exchange of used is the null of needed_used: both change in the course of an episode whatever a step needs. p is
the larger of that of the mean over runs under the null and of values minus their null over runs. Across tasks, used is
permuted over tasks, in all seeds alike, in all orders where there are few; the interval adds the variance of a
jackknife over tasks.

Twin: does it matter which path of that cost is taken, or its cost alone? For each run and subgoal the path is taken
that was needed most often in the other half of the levels, among those that share their cost with others, and forced
here; beside it each other path of the same cost, whose mean is that of a path drawn at random. path_matters: share of
steps at which it does as the bot minus that of the others; path_matters_for_ce: cross-entropy of the others minus its
own, nats. As it is chosen on other levels, the mean of both is 0 where paths of one cost are all alike.

Known answer: where actions depend on one bit, and one expert alone carries it, each step at which the bit counts needs
what that expert costs, and no other path of this cost will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from science.forced import Forced
from science.levels import FEWEST, permute_levels, widen
from science.result import NAN, Draft, Result
from science.statistics.nulls import EpisodeBlocks, p_value
from science.traces import Run

QUANTITIES = {
    "needed": "complexity needed (LPC)",
    "used": "complexity used (LPC)",
    "waste": "LPC used beyond what is needed",
    "shortfall": "LPC needed beyond what is used",
    "no_path_right": "share of right steps at which no single path is right",
    "likeliest_right": "share of right steps at which the likeliest path is right",
    "needed_used": "rank correlation of needed and used within episodes",
    "needed_by_subgoal": "complexity needed, by subgoal (LPC)",
    "used_by_subgoal": "complexity used, by subgoal (LPC)",
    "needed_by_plan": "complexity needed (LPC)",
    "used_by_plan": "complexity used (LPC)",
    "needed_at": "complexity needed (LPC)",
    "used_at": "complexity used (LPC)",
    "needed_used_across": "rank correlation of needed and used over tasks",
    "path_matters": "agreement, the path needed elsewhere minus others of its cost",
    "path_matters_for_ce": "cross-entropy, others minus the path needed elsewhere (nats)",
}
"""What each quantity is, for an axis."""

MAX_EXCHANGES = 199
"""Of the bot's actions; of what is used as many as asked for."""

PLAN_BINS = (1, 2, 3, 5, 8, 13, 21, 34, 55)
"""Steps left from which on a step counts to a bin."""

MIN_EPISODES = 5
"""Of a subgoal, a bin of the plan or a position, below which nothing is told of it."""


def compute(cells: Sequence[Forced], *, held_out: Sequence[str] = (), draws: int = 999, seed: int = 0) -> Result:
    """Return needed and used complexity of each task and setting; see the module.

    Args:
        cells: Forced paths, each of one task and setting.
        held_out: Tasks that no policy was trained on, which do not count over tasks.
        draws: Of the nulls.
        seed: Of everything drawn.
    """
    draft = Draft("needed", __doc__ or "")
    means: dict[str, dict[str, np.ndarray]] = {}
    for forced in cells:
        steps = measure_steps(forced)
        rng = np.random.default_rng(seed)
        blocks = EpisodeBlocks(forced.episode)
        table = _add_means(draft, forced, steps, blocks, rng, draws)
        if forced.runs[0].task not in held_out:
            means.setdefault(forced.runs[0].setting, {})[forced.runs[0].task] = table
        reasons = [reason_of(forced, steps, run) for run in range(len(forced.runs))]
        add_correlation(draft, forced.runs, steps, blocks, rng, draws, reasons)
        _add_groups(draft, forced, steps)
        add_twin(draft, forced, steps)
    for setting, tasks in means.items():
        _add_across(draft, setting, tasks, cells, np.random.default_rng(seed), draws)
    return draft.finish()


@dataclass(frozen=True, eq=False)
class Steps:
    """What R runs need and use at S steps of N episodes.

    Attributes:
        episode: int (S,).
        needed: float64 (R, S), NaN where no path does as the bot.
        used: float64 (R, S).
        right: bool (R, S), the intact policy does as the bot.
        cheapest: float64 (R, S, A), cost of the cheapest path that takes each action; inf: none does.
    """

    episode: np.ndarray
    needed: np.ndarray
    used: np.ndarray
    right: np.ndarray
    cheapest: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """Which steps count, bool (R, S)."""
        return self.right & np.isfinite(self.needed)

    def average(self, values: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Return means over the steps of each episode (R, N); NaN where there is none."""
        runs, episodes = len(values), int(self.episode[-1]) + 1 if len(self.episode) else 0
        code = np.arange(runs)[:, None] * episodes + self.episode
        count = np.bincount(code[where], minlength=runs * episodes)
        total = np.bincount(code[where], np.asarray(values, np.float64)[where], minlength=runs * episodes)
        return np.where(count > 0, total / np.maximum(count, 1), NAN).reshape(runs, episodes)


def measure_steps(forced: Forced) -> Steps:
    """Return what each step needs and uses."""
    actions = 1 + int(max(forced.action.max(initial=0), forced.bot_action.max(initial=0)))
    cheapest = np.full((*forced.soft_action.shape, actions), np.inf)
    for path in np.argsort(-forced.cost, kind="stable"):  # the cheapest one is written last
        np.put_along_axis(cheapest, forced.action[:, path, :, None].astype(np.intp), forced.cost[path], axis=2)
    bot = forced.bot_action.astype(np.intp)
    needed = _pick(cheapest, bot)
    return Steps(forced.episode, needed, forced.used.astype(np.float64), forced.soft_action == bot, cheapest)


def _pick(cheapest: np.ndarray, actions: np.ndarray) -> np.ndarray:
    found = np.take_along_axis(cheapest, actions[None, :, None], axis=2)[:, :, 0]
    return np.where(np.isfinite(found), found, NAN)


def reason_of(forced: Forced, steps: Steps, run: int) -> str:
    """Return why a run has no correlation, "" if it has one."""
    if not np.isfinite(forced.used[run]).all():
        return "LPC that is not finite"
    inside = steps.counted[run]
    if not inside.any():
        return "never does as the bot"
    if np.ptp(steps.needed[run][inside]) == 0:
        return "all steps need the same"
    return "LPC is the same at all steps" if np.ptp(steps.used[run][inside]) < 1e-9 else ""


def mean_of(table: np.ndarray) -> np.ndarray:
    """Return each run's mean over episodes (R,) of a table (R, N); NaN without any."""
    known = np.isfinite(table)
    return np.where(known.any(axis=1), np.nansum(table, axis=1) / np.maximum(known.sum(axis=1), 1), NAN)


# ------------------------------------------------------------------------------------------------------------- means


def _add_means(
    draft: Draft, forced: Forced, steps: Steps, blocks: EpisodeBlocks, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Add the means; return each run's needed and used complexity (2, R)."""
    counted, right, runs = steps.counted, steps.right, forced.runs
    shared: dict[str, Any] = {"n_episodes": len(forced.level_seed), "n_levels": 1}
    reasons = ["" if counted[run].any() else "never does as the bot along a path" for run in range(len(runs))]
    under: list[list[np.ndarray]] = [[], []]
    bot = forced.bot_action.astype(np.intp)
    for swap in blocks.draws(rng, min(draws, MAX_EXCHANGES)):
        luck = _pick(steps.cheapest, bot[swap])
        under[0].append(mean_of(steps.average(luck, counted & np.isfinite(luck))))
        under[1].append(mean_of(steps.average(np.isnan(luck), right)))
    tables = {
        "needed": steps.average(steps.needed, counted),
        "no_path_right": steps.average(np.isnan(steps.needed), right),
        "used": steps.average(steps.used, counted),
        "waste": steps.average(np.maximum(steps.used - steps.needed, 0), counted),
        "shortfall": steps.average(np.maximum(steps.needed - steps.used, 0), counted),
        "likeliest_right": steps.average(_likeliest_right(forced), right),
    }
    for quantity, null in zip(("needed", "no_path_right"), under, strict=True):
        values, null = mean_of(tables[quantity]), np.array(null).reshape(-1, len(runs))
        limits = (0.0, 1.0) if quantity == "no_path_right" else (0.0, np.inf)
        add_against_null(draft, quantity, values, null, runs, reasons=reasons, limits=limits, **shared)
    for quantity in ("used", "waste", "shortfall", "likeliest_right"):
        limits = (0.0, 1.0) if quantity == "likeliest_right" else (0.0, np.inf)
        draft.over_runs(
            quantity, mean_of(tables[quantity]), runs, reasons=reasons, tested=False, limits=limits, **shared
        )
    return np.array([mean_of(tables["needed"]), mean_of(tables["used"])])


def add_against_null(
    draft: Draft, quantity: str, values: np.ndarray, null: np.ndarray, runs: Sequence[Run], **columns: Any
) -> None:
    """Add values (R,) against what they are with episodes exchanged (draws, R)."""
    known = np.isfinite(values)
    told = null[:, known] if len(null) else np.full((1, known.sum()), NAN)
    under = np.full(len(values), NAN)
    under[known] = told.mean(axis=0)
    draft.over_runs(
        quantity,
        values,
        runs,
        null=under,
        p_null=p_value(float(values[known].mean()), told.mean(axis=1)) if known.any() else NAN,
        p_null_floor=1 / (1 + len(null)),
        null_unit="episodes",
        **columns,
    )


def _likeliest_right(forced: Forced) -> np.ndarray:
    found = np.take_along_axis(forced.action, forced.likeliest[:, None].astype(np.intp), axis=1)[:, 0]
    return found == forced.bot_action


def add_correlation(
    draft: Draft,
    runs: Sequence[Run],
    steps: Steps,
    blocks: EpisodeBlocks,
    rng: np.random.Generator,
    draws: int,
    reasons: Sequence[str] = (),
) -> None:
    """Add needed_used of a task and setting, with its null."""
    from scipy.stats import rankdata  # takes 0.4 s

    counted = steps.counted
    needed = np.zeros(steps.needed.shape)
    for run in range(len(runs)):
        needed[run][counted[run]] = rankdata(steps.needed[run][counted[run]])
    used = rankdata(np.nan_to_num(steps.used), axis=1)
    values = correlate_within(used, needed, steps)
    values[[bool(reason) for reason in reasons] or np.zeros(len(runs), bool)] = NAN
    null = [correlate_within(used[:, swap], needed, steps) for swap in blocks.draws(rng, draws)]
    add_against_null(
        draft,
        "needed_used",
        values,
        np.nan_to_num(np.array(null).reshape(-1, len(runs))),
        runs,
        reasons=reasons,
        twin="path_matters",
        n_episodes=int(steps.episode[-1]) + 1 if len(steps.episode) else 0,
        n_levels=1,
        limits=(-1, 1),
    )


def correlate_within(x: np.ndarray, y: np.ndarray, steps: Steps) -> np.ndarray:
    """Return the correlation of x and y (R, S) over the steps that count, less their means in each episode, (R,)."""
    where = steps.counted

    def center(values: np.ndarray) -> np.ndarray:
        means = np.nan_to_num(steps.average(values, where))
        return np.where(where, values - means[:, steps.episode], 0.0)

    x, y = center(x), center(y)
    scale = np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1))
    return np.where(scale > 1e-9, (x * y).sum(axis=1) / np.where(scale > 1e-9, scale, 1.0), NAN)


# ------------------------------------------------------------------------------------------------------------ groups


def _add_groups(draft: Draft, forced: Forced, steps: Steps) -> None:
    """Add means by subgoal, by what is left of the plan, and by position."""
    values = {"needed": steps.needed, "used": steps.used}
    lengths = np.bincount(forced.episode, minlength=len(forced.level_seed))
    left = lengths[forced.episode] - forced.time
    bins = np.digitize(left, PLAN_BINS) - 1
    groups = [("by_subgoal", "group", forced.subgoals[x], forced.subgoal == x) for x in range(len(forced.subgoals))]
    groups += [("by_plan", "condition", f"steps left {low}", bins == b) for b, low in enumerate(PLAN_BINS)]
    for ending, column, name, inside in groups:
        episodes = len(np.unique(forced.episode[inside]))
        if episodes < MIN_EPISODES:
            continue
        where = steps.counted & inside
        for quantity, each in values.items():
            table = steps.average(each, where)
            about: dict[str, Any] = {column: name, "n_episodes": episodes, "tested": False, "limits": (0.0, np.inf)}
            draft.over_runs(f"{quantity}_{ending}", mean_of(table), forced.runs, **about)
    cells, place = np.unique(forced.position, axis=0, return_inverse=True)
    place = place.reshape(-1)
    for number, (x, y) in enumerate(cells.tolist()):
        inside = place == number
        where = steps.counted & inside
        episodes = len(np.unique(forced.episode[inside & where.any(axis=0)]))
        if not episodes:
            continue
        about = {"task": forced.runs[0].task, "setting": forced.runs[0].setting, "condition": f"({x}, {y})"}
        about |= {"unit": "runs", "n_episodes": episodes, "n_runs": int(where.any(axis=1).sum())}
        for quantity, each in values.items():
            draft.add(f"{quantity}_at", each[where].mean(), **about)


def _add_across(
    draft: Draft,
    setting: str,
    tasks: dict[str, np.ndarray],
    cells: Sequence[Forced],
    rng: np.random.Generator,
    draws: int,
) -> None:
    """Add needed_used_across, of seeds that all tasks have."""
    if len(tasks) < FEWEST:
        draft.note(f"needed_used_across takes {FEWEST} tasks or more at a setting, found {len(tasks)}: no value")
        return
    from scipy.stats import rankdata  # takes 0.4 s

    of_task = {f.runs[0].task: f.runs for f in cells if f.runs[0].setting == setting}
    seeds = sorted(set.intersection(*({run.seed for run in of_task[task]} for task in tasks)))
    place = {task: [[run.seed for run in of_task[task]].index(seed) for seed in seeds] for task in tasks}
    needed, used = (np.array([tasks[task][side][place[task]] for task in tasks]).T for side in (0, 1))  # (R, tasks)
    known = np.isfinite(needed).all(axis=1) & np.isfinite(used).all(axis=1)

    def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (x, y))
        scale = np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1))
        return np.where(known & (scale > 0), (x * y).sum(axis=1) / np.where(scale > 0, scale, 1.0), NAN)

    found = correlate(needed, used)
    known &= np.isfinite(found)
    orders = permute_levels(len(tasks), draws, rng) if known.any() else np.zeros((0, len(tasks)), np.int64)
    under = np.array([correlate(needed, used[:, order])[known].mean() for order in orders])
    every = np.arange(len(tasks))
    without = [correlate(needed[:, every != t], used[:, every != t])[known].mean() for t in every if known.any()]
    first = of_task[next(iter(tasks))]
    runs = [Run("", setting, run.trial, run.seed, run.update, run.lpc_alpha) for run in first if run.seed in seeds]
    runs = sorted(runs, key=lambda run: run.seed)
    draft.over_runs(
        "needed_used_across",
        found,
        runs,
        p_null=p_value(float(found[known].mean()) if known.any() else NAN, under),
        p_null_floor=1 / (1 + len(orders)),
        null_unit="levels",
        n_levels=len(tasks),
        limits=(-1, 1),
    )
    widen(draft, found, np.array(without))


# -------------------------------------------------------------------------------------------------------------- twin


def add_twin(draft: Draft, forced: Forced, steps: Steps) -> None:
    """Add what the path that was needed elsewhere does, against others of its cost."""
    classes, of_path, counts = np.unique(np.round(forced.cost, 6), return_inverse=True, return_counts=True)
    of_path = of_path.reshape(-1)
    shared = counts[of_path] > 1
    if not shared.any():
        draft.note(f"{forced.where}: no two paths cost the same: path_matters has no value")
        return
    runs, width, folds = len(forced.runs), len(forced.subgoals), 2
    fold = forced.episode % folds
    code = np.where(forced.subgoal >= 0, forced.subgoal.astype(np.intp) * folds + fold, -1)
    right = forced.action == forced.bot_action
    taken = right & (forced.cost[:, None] == steps.needed[:, None])  # (R, C, S), it was the cheapest that will do
    inside = np.zeros((len(code), width * folds), np.float32)
    inside[np.flatnonzero(code >= 0), code[code >= 0]] = 1
    tally = (taken.astype(np.float32) @ inside).reshape(runs, -1, width, folds)
    tally = np.where(shared[:, None, None], tally, -1)[..., ::-1]  # each fold gets what the other has counted
    chosen, known = tally.argmax(axis=1), tally.max(axis=1) > 0  # (R, X, folds)
    at = np.maximum(forced.subgoal, 0).astype(np.intp), fold
    path, where = chosen[:, at[0], at[1]], known[:, at[0], at[1]] & (code >= 0)
    member = (of_path[:, None] == np.arange(len(classes))).astype(np.float64)
    others = counts[of_path[path]] - 1
    for quantity, values, sign in (("path_matters", right, 1), ("path_matters_for_ce", forced.ce, -1)):
        of_class = np.einsum("rcs,ck->rks", np.asarray(values, np.float64), member, optimize=True)
        own = np.take_along_axis(values, path[:, None], axis=1)[:, 0].astype(np.float64)
        rest = np.take_along_axis(of_class, of_path[path][:, None], axis=1)[:, 0] - own
        gain = sign * (own - rest / np.maximum(others, 1))
        why = ["" if any_known else "no path was needed that shares its cost" for any_known in where.any(axis=1)]
        about: dict[str, Any] = {"twin": "needed_used", "n_levels": 1, "reasons": why}
        draft.over_both(quantity, steps.average(gain, where), forced.runs, **about)
