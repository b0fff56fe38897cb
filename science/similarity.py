"""Similarity of levels: are related levels routed alike, do they share lesions, do new ones reuse what there is?

Between the level families g and h that one policy plays, on the bot's trajectories:

- K_route = 1 - JSD(P(path | g), P(path | h)), bits. P(path) is the mean over steps of the product over layers of the
  weights (see distinctness): 1 for the same mixture of paths, 0 where no path is shared.
- K_lesion = correlation over (layer, expert) of how much cross-entropy rises in g and in h without that expert, the
  other weights made to sum to 1.
- K_task = cosine of the shares of steps that the bot spends in each of its subgoals. It knows nothing of the policy.

Quantities, per run and price: Mantel's correlation, Spearman's over pairs of levels of two such matrices (Mantel 1967,
Cancer Res. 27:209). Pairs share levels, so p is the larger of that over runs and of that of levels permuted, rows and
columns of a matrix together and in all runs alike; below 5 levels there is no value, and all orders are taken where
there are few. Intervals add the variance over runs and that of a jackknife over levels.

- route_like_task, lesion_like_task: of K_route and K_lesion with K_task. route_like_lesion: of the two with each other.
- route_like_task_above_untrained: minus that of the same seed's policy before training. Levels that look alike give any
  network like states, and so any router like weights.
- route_like_task_given_length: with the difference in log plan length partialled out, for levels of like length may be
  routed alike by that alone.

Held-out levels, which no policy was trained on, each beside its relatives, the trained levels of greatest K_task:

- held_out_success (own play), held_out_agreement (share of the bot's steps on which the policy would do the same),
  held_out_lpc: of each level and run. held_out_loss: success of the relatives minus that of the held-out level;
  held_out_lpc_gap: LPC of the held-out level minus that of its relatives. Runs and levels are both samples where there
  are three levels or more; with fewer these are about these levels.
- reuse: K_route of a held-out level with its relatives minus its mean with all other trained levels, mean over
  held-out levels. Null: trained levels permuted, so that others are the relatives; p is the larger of that and of that
  over runs. reuse_above_untrained: minus that of the same seed's policy before training.

Known answers: routers whose paths follow the mix of subgoals have route_like_task near 1 and reuse above 0; routers
that differ by level in a way of their own have p <= 0.05 in 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from science.difficulty import mean_success, measure_difficulties
from science.distinctness import MAX_PATHS, build_paths
from science.effects import Effects
from science.kinship import add_mantel, add_reuse, compare_levels, find_cosine, find_relatives, find_route, pair_seeds
from science.knockouts import find_knockouts
from science.levels import Layout, add_over_both, episode_means, lay_out, list_tasks, settings, warn_of_few
from science.profiles import find_unusable
from science.result import NAN, Draft, Result
from science.traces import Traces, sum_over

QUANTITIES = {
    "route_like_task": "Mantel correlation of routing and subgoals, over pairs of levels",
    "route_like_task_above_untrained": "Mantel correlation of routing and subgoals, trained minus untrained",
    "route_like_task_given_length": "Mantel correlation of routing and subgoals, plan length partialled out",
    "lesion_like_task": "Mantel correlation of lesions and subgoals, over pairs of levels",
    "route_like_lesion": "Mantel correlation of routing and lesions, over pairs of levels",
    "held_out_success": "success on a held-out level",
    "held_out_agreement": "agreement with the bot on a held-out level",
    "held_out_lpc": "LPC on a held-out level",
    "held_out_loss": "success, relatives minus held-out level",
    "held_out_lpc_gap": "LPC, held-out level minus relatives",
    "reuse": "routing like a held-out level's, relatives minus others (bits)",
    "reuse_above_untrained": "routing like a held-out level's, relatives minus others, trained minus untrained (bits)",
}
"""What each quantity is, for an axis."""


def compute(
    traces: Traces,
    *,
    played: Traces | None = None,
    effects: Effects | None = None,
    untrained: Traces | None = None,
    held_out: Sequence[str] = (),
    draws: int = 999,
    seed: int = 0,
) -> Result:
    """Return how levels resemble each other, and held-out ones known ones, at each price; see the module.

    Args:
        traces: Replayed runs of all levels, held-out ones too.
        played: Own play of the same runs.
        effects: Of knock-outs, replayed.
        untrained: Replayed policies before training, a run for each seed and level.
        held_out: Levels that no policy was trained on.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("similarity", __doc__ or "")
    tasks = list_tasks(traces)
    known = np.array([task not in held_out for task in tasks])
    warn_of_few(draft, int(known.sum()))
    number = int(np.prod(traces.experts.sum(axis=1)))
    if number > MAX_PATHS:
        draft.note(f"{number} paths, of which {MAX_PATHS} at most can be told apart: no value")
        return draft.finish()
    related = find_cosine(mix_subgoals(traces, tasks))
    _describe(draft, "k_task", "", tasks, related)
    plan = np.log(measure_difficulties(traces, tasks)["plan_length"])
    length = -np.abs(plan[:, None] - plan)
    own = dict(settings(played)) if played is not None else {}
    before = None
    if untrained is not None:
        there = lay_out(untrained.runs, tasks)
        before = there.runs, find_route(mean_paths(Draft("", ""), untrained, there))
    for name, cell in settings(traces):
        layout, rng = lay_out(cell.runs, tasks), np.random.default_rng(seed)
        route = find_route(mean_paths(draft, cell, layout))
        _describe(draft, "k_route", name, tasks, compare_levels(route))
        theirs = None if before is None else pair_seeds(layout.runs, *before)
        inside = np.ix_(range(len(layout.runs)), known, known)
        task, runs = related[np.ix_(known, known)], layout.runs
        add_mantel(draft, "route_like_task", route[inside], task, runs, rng, draws, twin="lesion_like_task")
        if theirs is not None:
            add_mantel(
                draft, "route_like_task_above_untrained", route[inside], task, runs, rng, draws, minus=theirs[inside]
            )
        span = length[np.ix_(known, known)]
        add_mantel(draft, "route_like_task_given_length", route[inside], task, runs, rng, draws, given=span)
        lesion = None if effects is None else find_lesion(effects, name, layout)
        if lesion is not None:
            _describe(draft, "k_lesion", name, tasks, compare_levels(lesion))
            add_mantel(draft, "lesion_like_task", lesion[inside], task, runs, rng, draws)
            add_mantel(draft, "route_like_lesion", route[inside], lesion[inside], runs, rng, draws)
        if known.all():
            continue
        relatives = find_relatives(related[np.ix_(~known, known)])
        new = np.ix_(range(len(runs)), ~known, known)
        add_reuse(draft, "reuse", route[new], relatives, runs, rng, draws)
        if theirs is not None:
            add_reuse(draft, "reuse_above_untrained", route[new] - theirs[new], relatives, runs, rng, draws)
        _tell_held_out(draft, cell, own.get(name), tasks, known, relatives)
    return draft.finish()


def mix_subgoals(traces: Traces, tasks: Sequence[str]) -> np.ndarray:
    """Return the share of labelled steps that the bot spends in each subgoal, by task (G, X)."""
    group = traces.group("subgoal")
    place = [next(i for i, run in enumerate(traces.runs) if run.task == task) for task in tasks]
    count = np.zeros((len(tasks), len(group.names)))
    for row, run in enumerate(place):
        codes = group.codes[traces.run == run]
        count[row] = np.bincount(codes[codes >= 0], minlength=len(group.names))
    return count / np.maximum(count.sum(axis=1, keepdims=True), 1)


def mean_paths(draft: Draft, cell: Traces, layout: Layout) -> np.ndarray:
    """Return P(path) of each run and level, (N, G, paths); NaN of a run that cannot be used, which is left out."""
    number = int(np.prod(cell.experts.sum(axis=1)))
    total, steps = np.zeros((len(cell.runs), number)), np.bincount(cell.run, minlength=len(cell.runs))
    for run in range(len(cell.runs)):
        inside = cell.run == run
        paths = build_paths(cell.weights[inside].astype(np.float64), cell.experts)
        total[run] = sum_over(np.zeros(len(paths), np.int64), paths, 1)[0]
    found = total / np.where(steps > 0, steps, NAN)[:, None]
    for index, reason in find_unusable(cell).items():
        draft.drop(cell.runs[index], reason)
        found[index] = NAN
    return layout.spread(found)


def find_lesion(effects: Effects, setting: str, layout: Layout) -> np.ndarray | None:
    """Return K_lesion (N, G, G) of a setting's runs; None without knock-outs."""
    chosen = [i for i, run in enumerate(effects.runs) if run.setting == setting]
    if not chosen:
        return None
    inside = effects.select(chosen)
    conditions = [condition for _, condition in sorted(find_knockouts(inside).items())]
    if len(conditions) < 3:
        return None
    there = lay_out(inside.runs, layout.tasks)
    harm = there.spread(inside.matrix("ce", conditions))
    harm = pair_seeds(layout.runs, there.runs, harm)
    centered = harm - harm.mean(axis=2, keepdims=True)
    scale = np.sqrt(np.square(centered).sum(axis=2))
    unit = centered / np.where(scale > 1e-9, scale, NAN)[:, :, None]
    return np.einsum("ngk,nhk->ngh", unit, unit)


def _describe(draft: Draft, quantity: str, setting: str, tasks: Sequence[str], matrix: np.ndarray) -> None:
    """Add the pairs of a matrix (G, G) of means over runs."""
    for i, one in enumerate(tasks):
        for j in range(i):
            draft.add(quantity, matrix[i, j], unit="runs", setting=setting, group=one, condition=tasks[j])


def _tell_held_out(
    draft: Draft, cell: Traces, played: Traces | None, tasks: Sequence[str], known: np.ndarray, relatives: np.ndarray
) -> None:
    """Add how held-out levels are played and routed, beside their relatives (H, G)."""
    agrees = np.where(cell.bot_action >= 0, (cell.action == cell.bot_action).astype(np.float64), NAN)
    labelled = np.isfinite(agrees)
    told = {
        "held_out_agreement": (cell, _mean_where(cell, agrees, labelled)),
        "held_out_lpc": (cell, episode_means(cell, cell.lpc)),
    }
    if played is not None:
        told["held_out_success"] = played, mean_success(played)
    tables = {}
    for quantity, (traces, values) in told.items():
        layout = lay_out(traces.runs, tasks)
        table = tables[quantity] = layout.spread(values)
        for column in np.flatnonzero(~known):
            runs = [_of_task(run, tasks[column]) for run in layout.runs]
            limits = (0, np.inf if quantity == "held_out_lpc" else 1)
            draft.over_runs(quantity, table[:, column], runs, tested=False, limits=limits, n_levels=1)
    runs = lay_out(cell.runs, tasks).runs
    lpc = tables["held_out_lpc"]
    gap = lpc[:, ~known] - average(lpc[:, known], relatives)
    about = {"condition": "beside the trained levels of most alike subgoals"}
    add_over_both(draft, "held_out_lpc_gap", gap, runs, least=1, **about)
    if played is not None:
        success = tables["held_out_success"]
        there = lay_out(played.runs, tasks).runs
        loss = average(success[:, known], relatives) - success[:, ~known]
        add_over_both(draft, "held_out_loss", loss, there, least=1, **about)


def average(values: np.ndarray, relatives: np.ndarray) -> np.ndarray:
    """Return the mean of values (N, G) over the relatives bool (H, G) of each held-out level, (N, H)."""
    return values @ (relatives / relatives.sum(axis=1, keepdims=True)).T


def _mean_where(cell: Traces, values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return means (R,) of values over the used steps, which weigh alike."""
    count = np.bincount(cell.run[used], minlength=len(cell.runs))
    total = np.bincount(cell.run[used], values[used], minlength=len(cell.runs))
    return np.where(count > 0, total / np.maximum(count, 1), NAN)


def _of_task(run: object, task: str) -> object:
    from dataclasses import replace

    return replace(run, task=task)
