"""Dynamics: when in training do routes settle, when does the skill come, and is complexity handed over?

Runs are looked at at updates evenly spaced on a logarithmic scale, the last of them the end of training, on the bot's
trajectories of the same levels: what differs between two updates of a run is no difference of behaviour. At each
update u (`condition`), per run:

- saturation: s(u) = mean over steps and layers of 1 - JSD(w_t at u, w_t at the end), bits (Lin 1991, IEEE Trans. Inf.
  Theory 37:145); steps -> episode -> mean. 1 at the end. Its null is a floor: the same similarity between the ends of
  two seeds, mean over pairs, for nothing of u says more about a run's own end than another run does. The test compares
  s(u) with jackknife pseudo-values of the floor (from 3 runs), which stand in the rows of single runs.
- information: I(E; X) = H(mean w) - sum over x of P(x) H(mean w of x), bits, summed over layers, plug-in; x is the
  group of steps. Null: groups of whole episodes exchanged, the same levels in all runs; p is the larger of that of the
  mean over runs (unit: episodes) and of information minus its null over runs.
- success: of own play, most probable action first.
- lesion_settling: correlation over experts and groups of what knock-outs do at u (cross-entropy, nats) with what they
  do at the end; the twin of saturation: when is it settled who is needed? Floor and test as there.

Times, in updates: the first of those looked at from which on the condition holds at all; a run's interval reaches down
to the one before, 0 before the first. Means and t intervals are of log10. Nothing is read between two updates.

- saturation_rise: s is at least halfway between its floor and 1.
- information_rise: at least half of what it is in the end; of runs whose routers tell groups apart then (not
  collapsed).
- success_rise: at 0.9 or above; of runs that are in the end.
- rise_lead: log2(success_rise / information_rise), by how many doublings of updates routes come before the
  skill. Of few levels success dips below 0.9 by chance, and seems to come later.

Hand-over: do routers first use what is costly, and save it later, the more so the harder the level?

- handover_size: mean LPC at its peak minus that at the end. Levels are put into up to 8 bins of equal numbers by
  difficulty, the length of the bot's plan, and each bin into halves at random. The peak's update is located on one half
  and read on the other, both ways: on the same levels a maximum of noise would lie above all else. Fluctuations of
  training itself are peaks all the same, so that it is not tested.
- handover: per run, rank correlation over bins of that difference with difficulty; 0 if there is no peak anywhere. p is
  the larger of that over runs and of difficulties permuted over levels, in all runs alike.
- handover_of_need: the twin: the same of the harm done by taking out each layer's largest expert, in place of LPC.

Known answer: s = 1 at the end, planted times of rise, a planted slope, and no peak in noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from science.effects import Effects
from science.exchange import draw_swaps, share_episodes
from science.handover import add_handover
from science.profiles import find_unusable, mean_over_pairs
from science.result import NAN, Draft, Result
from science.rises import add_lead, add_rise, find_rises
from science.statistics.information import entropy
from science.statistics.nulls import p_value
from science.traces import Traces, collapsed_layers, group_means, sum_over

QUANTITIES = {
    "saturation": "similarity of routes to those at the end",
    "information": "I(expert; group) (bits)",
    "success": "success",
    "lesion_settling": "correlation of lesions with those at the end",
    "saturation_rise": "update at which routes are halfway",
    "information_rise": "update of half the information",
    "success_rise": "update of success 0.9",
    "rise_lead": "doublings by which routes come first",
    "handover_size": "LPC at its peak minus at the end",
    "handover": "rank correlation of hand-over and difficulty",
    "handover_of_need": "rank correlation of need handed over and difficulty",
}
"""What each quantity is, for an axis."""

SUCCESS = 0.9


@dataclass(frozen=True, eq=False)
class Grown:
    """Traces of one task and setting as (run, update).

    Attributes:
        traces: Of all.
        updates: int (U,), ascending.
        place: int (R, U), index of each run at each update in the traces.
        episodes: N, of each; all replay the same.
    """

    traces: Traces
    updates: np.ndarray
    place: np.ndarray

    @property
    def ends(self) -> list[Any]:
        """The runs at their last update."""
        return [self.traces.runs[index] for index in self.place[:, -1]]

    @property
    def episodes(self) -> int:
        """Episodes of each run."""
        return len(self.traces.episode_run) // len(self.traces.runs)


def compute(
    traces: Traces,
    *,
    by: str = "level_subgoal",
    played: Effects | None = None,
    effects: Effects | None = None,
    draws: int = 199,
    seed: int = 0,
) -> Result:
    """Return the dynamics of each task and setting; see the module.

    Args:
        traces: Replay of each run at each update.
        by: Group of steps.
        played: Own play of the runs at each update, under the sham.
        effects: Knock-outs of single experts on replay, likewise.
        draws: Of each null.
        seed: Of everything drawn.
    """
    draft = Draft("dynamics", __doc__ or "")
    for cell in traces.cells():
        grown = arrange(draft, cell)
        if grown is None:
            continue
        rng = np.random.default_rng(seed)
        rises = {
            "saturation_rise": _saturation(draft, grown),
            "information_rise": _information(draft, grown, by, rng, draws),
            "success_rise": _success(draft, grown, played),
        }
        for name, (found, reasons) in rises.items():
            add_rise(draft, name, found, grown.updates, grown.ends, reasons, grown.episodes)
        add_lead(draft, rises["information_rise"], rises["success_rise"], grown.ends, grown.episodes)
        _lesions(draft, grown, effects)
        _handovers(draft, grown, effects, rng, draws)
    return draft.finish()


def arrange(draft: Draft, cell: Traces) -> Grown | None:
    """Return the runs of a cell that there are at all updates; None, with a note, where there are none."""
    runs: dict[tuple[int, int], dict[int, int]] = {}
    unusable = find_unusable(cell)
    for index, run in enumerate(cell.runs):
        if index in unusable:
            draft.drop(run, unusable[index])
        else:
            runs.setdefault((run.trial, run.seed), {})[run.update] = index
    updates = sorted({run.update for run in cell.runs})
    whole = {key: found for key, found in runs.items() if len(found) == len(updates)}
    for key in runs.keys() - whole.keys():
        draft.drop(cell.runs[max(runs[key].values())], "not at every update")
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
    if len(updates) < 3 or not whole:
        draft.note(f"{where}: dynamics need three updates and a run, found {len(updates)} and {len(whole)}: no value")
        return None
    order = [found[update] for found in whole.values() for update in updates]
    traces = cell.select(order)
    if not share_episodes(traces, list(range(len(order)))):
        draft.note(f"{where}: expected the same replayed steps at all updates, found others: no value")
        return None
    return Grown(traces, np.array(updates), np.arange(len(order)).reshape(-1, len(updates)))


def _name_update(update: int) -> str:
    return f"update {update}"


# -------------------------------------------------------------------------------------------------------- saturation


def compare_routes(w: np.ndarray, v: np.ndarray, episode: np.ndarray) -> float:
    """Return 1 - JSD, bits, of weights (S, L, E) of two policies, over layers and steps -> episodes -> mean."""
    each = entropy((w + v) / 2) - (entropy(w) + entropy(v)) / 2
    alike = 1.0 - np.maximum(each, 0.0).mean(axis=1)
    count = np.bincount(episode)
    return float((np.bincount(episode, alike) / count).mean())


def _weights(grown: Grown) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (R, U, S, L, E) and each step's episode, int (S,)."""
    traces, steps = grown.traces, len(grown.traces.episode) // len(grown.traces.runs)
    weights = traces.weights.reshape(*grown.place.shape, steps, *traces.weights.shape[1:])
    return weights.astype(np.float64), traces.episode[:steps]


def _saturation(draft: Draft, grown: Grown) -> tuple[np.ndarray, list[str]]:
    weights, episode = _weights(grown)
    runs, updates = grown.place.shape
    found = np.array(
        [[compare_routes(weights[r, u], weights[r, -1], episode) for u in range(updates)] for r in range(runs)]
    )
    between = np.eye(runs)
    for a in range(runs):
        for b in range(a):
            between[a, b] = between[b, a] = compare_routes(weights[a, -1], weights[b, -1], episode)
    floor, null = find_floor(between)
    _add_curve(draft, grown, "saturation", found, null=null, twin="lesion_settling", limits=(0, 1))
    if not np.isfinite(floor):
        return np.full(runs, NAN), ["no other run to compare with"] * runs
    return find_rises(grown.updates, found, np.full(runs, (1 + floor) / 2)), [""] * runs


def find_floor(between: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean over pairs of runs of a matrix (R, R), and each run's jackknife value (its own mean below 3)."""
    value, each, pseudo = mean_over_pairs(between)
    return value, pseudo if np.isfinite(pseudo).all() else each


def _add_curve(draft: Draft, grown: Grown, quantity: str, values: np.ndarray, **columns: Any) -> None:
    """Add values (R, U) as a row for each run and update, and means over runs; the end is not tested."""
    for u, update in enumerate(grown.updates):
        runs = [grown.traces.runs[index] for index in grown.place[:, u]]
        given = {key: value[u] if isinstance(value, list) else value for key, value in columns.items()}
        if u == len(grown.updates) - 1 and quantity in ("saturation", "lesion_settling"):
            known = given["null"][np.isfinite(given["null"])]
            given |= {"tested": False, "null": known.mean() if len(known) else NAN}  # it is 1 by definition
        draft.over_runs(
            quantity, values[:, u], runs, condition=_name_update(update), n_episodes=grown.episodes, **given
        )


# ------------------------------------------------------------------------------------------------- information, success


def find_information(weights: np.ndarray, codes: np.ndarray, width: int) -> np.ndarray:
    """Return I(E; X), bits, summed over layers, (...), for weights (S, ..., L, E) and groups int (S,)."""
    flat, count = weights.reshape(len(weights), -1), np.bincount(codes[codes >= 0], minlength=width)
    used = np.flatnonzero(count)
    member = (codes == used[:, None]).astype(np.float64)
    means = (member @ flat / count[used, None]).reshape(len(used), *weights.shape[1:])
    share = count[used] / count.sum()
    overall = np.tensordot(share, means, axes=1)
    return (entropy(overall) - np.tensordot(share, entropy(means), axes=1)).sum(axis=-1)


def _information(
    draft: Draft, grown: Grown, by: str, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, list[str]]:
    weights, episode = _weights(grown)
    weights = np.ascontiguousarray(np.moveaxis(weights, 2, 0))  # steps first, once for all draws
    group, steps = grown.traces.group(by), len(episode)
    codes, width = group.codes[:steps], len(group.names)
    runs, updates = grown.place.shape
    if len(np.unique(codes[codes >= 0])) < 2:
        draft.note(f"{grown.ends[0].task}, {grown.ends[0].setting}: information needs two groups of {by}: no value")
        return np.full(runs, NAN), ["steps of one group only"] * runs
    found = find_information(weights, codes, width)
    swaps = draw_swaps(grown.traces, [0], draws, rng)[0] if draws else []
    under = np.array([find_information(weights, codes[swap], width) for swap in swaps]).reshape(-1, runs, updates)
    shared: dict[str, Any] = {"group": by}
    if draws:
        shared |= {
            "null": list(under.mean(axis=0).T),
            "p_null": [p_value(float(found[:, u].mean()), under[:, :, u].mean(axis=1)) for u in range(updates)],
            "p_null_floor": 1 / (1 + draws),
            "null_unit": "episodes",
        }
    _add_curve(draft, grown, "information", found, twin="lesion_settling", limits=(0, np.inf), **shared)
    reasons = [""] * runs
    means, _ = group_means(grown.traces.select(grown.place[:, -1]), np.tile(codes, runs), width)
    known = [x for x in range(width) if np.isfinite(means[:, x]).all()]
    for run in np.flatnonzero(collapsed_layers(means[:, known]).all(axis=1)):
        reasons[run] = "collapsed"
    rises = find_rises(grown.updates, found, found[:, -1] / 2)
    return np.where([bool(reason) for reason in reasons], NAN, rises), reasons


def _success(draft: Draft, grown: Grown, played: Effects | None) -> tuple[np.ndarray, list[str]]:
    runs, updates = grown.place.shape
    found = np.full((runs, updates), NAN)
    if played is not None:
        place = {run: index for index, run in enumerate(played.runs)}
        sham = played.of_kind("sham")[0]
        values = played.per_run(np.asarray(played.success, np.float64), sham)
        for index in np.ndindex(runs, updates):
            own = place.get(grown.traces.runs[grown.place[index]])
            found[index] = NAN if own is None else values[own]
        _add_curve(draft, grown, "success", found, tested=False, limits=(0, 1))
    reasons = [
        "" if value >= SUCCESS else f"success {value:.2f} below {SUCCESS:g} in the end" for value in found[:, -1]
    ]
    reasons = ["not played" if np.isnan(found[r]).any() else reason for r, reason in enumerate(reasons)]
    rises = find_rises(grown.updates, found, np.full(runs, SUCCESS))
    return np.where([bool(reason) for reason in reasons], NAN, rises), reasons


# ------------------------------------------------------------------------------------------------------------ lesions


def _conditions(effects: Effects) -> list[int]:
    return [i for i in effects.of_kind("knockout") if effects.conditions[i].expert >= 0]


def _places(grown: Grown, effects: Effects) -> np.ndarray | None:
    """Return the effects' number of each run at each update, int (R, U); None if one is missing."""
    place: Mapping[Any, int] = {run: index for index, run in enumerate(effects.runs)}
    found = np.array([place.get(run, -1) for run in grown.traces.runs])
    return None if (found < 0).any() else found.reshape(grown.place.shape)


def _lesions(draft: Draft, grown: Grown, effects: Effects | None) -> None:
    if effects is None:
        return
    runs, updates = grown.place.shape
    places, conditions = _places(grown, effects), _conditions(effects)
    if places is None or not conditions:
        draft.note(f"{grown.ends[0].task}, {grown.ends[0].setting}: knock-outs of some update are missing: no lesions")
        return
    harm = effects.matrix("ce", conditions, by_group=True)[places]  # (R, U, C, X)
    harm = harm[..., np.isfinite(harm).all(axis=(0, 1, 2))].reshape(runs, updates, -1)
    flat = harm - harm.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(flat).sum(axis=-1, keepdims=True))
    unit = flat / np.where(length > 1e-12, length, NAN)
    found = np.einsum("ruk,rk->ru", unit, unit[:, -1]) if unit.shape[-1] else np.full((runs, updates), NAN)
    known = np.isfinite(found[:, -1])
    _, null = find_floor(unit[known, -1] @ unit[known, -1].T)
    floor = np.full(runs, NAN)
    floor[known] = null
    reasons = [["" if np.isfinite(v) else "knock-outs change nothing" for v in found[:, u]] for u in range(updates)]
    limits = (-1, 1)
    _add_curve(draft, grown, "lesion_settling", found, null=floor, reasons=reasons, limits=limits)


# ---------------------------------------------------------------------------------------------------------- hand-over


def _handovers(draft: Draft, grown: Grown, effects: Effects | None, rng: np.random.Generator, draws: int) -> None:
    traces, count = grown.traces, grown.episodes
    lengths = np.bincount(traces.episode, minlength=len(traces.episode_run))
    lpc = sum_over(traces.episode, traces.lpc, len(lengths)) / lengths
    difficulty = lengths[:count].astype(np.float64)
    tables = {"handover": lpc.reshape(*grown.place.shape, count)}
    places = None if effects is None else _places(grown, effects)
    if places is not None:
        sizes: dict[int, int] = {}
        for index in (conditions := _conditions(effects)):
            layer = effects.conditions[index].layer
            sizes[layer] = max(sizes.get(layer, 0), effects.conditions[index].size)
        large = [i for i in conditions if effects.conditions[i].size == sizes[effects.conditions[i].layer] > 0]
        harm = effects.mean_by_level("ce", large)[places]
        wanted = np.searchsorted(effects.level_seeds, traces.level_seed[:count]).clip(max=len(effects.level_seeds) - 1)
        there = effects.level_seeds[wanted] == traces.level_seed[:count]
        table = np.full((*places.shape, count), NAN)
        table[..., there] = harm[..., wanted[there]]
        tables["handover_of_need"] = table
    for quantity, table in tables.items():
        add_handover(draft, quantity, table, difficulty, grown.ends, rng, draws)
