"""Policy complexity: how much does behaviour depend on what was seen, and does the routers' complexity follow it?

The policy of step t is pi_t = softmax(logits), so that nothing is estimated from sampled actions. Per run, bits:

- action_information: I(history; A) = H(mean pi) - mean H(pi_t): what the policy makes of all it has seen (policy
  complexity: Parush, Tishby, Bergman 2011, Front. Comput. Neurosci. 5:22; Lai, Gershman 2021, Psychol. Learn. Motiv.
  74:195). Of the greedy policy it is H(A): greedy_information.
- state_information, for a state z (cell; cell with heading, carrying and door; observation): I(z; A) as a bracket,
  estimators plug-in (above) and held-out (below: q_z from other episodes, shrunk to the mean by one step; not below 0),
  of states with 20 steps or more; `condition` has the share of steps in them. Without logits Grassberger's estimate
  (2003, arXiv:physics/0307138) of states with 5 actions or more.
- memory_information: I(history; A) minus the middle of the bracket for observations, both of the steps in it: what of
  the behaviour the current observation does not say.
- memory_bound: mean KL(pi_t || q(. | observation, mission)), q a feed-forward probe that was trained on other levels
  (`science.feedforward`): an upper bound on what the current observation does not say, for what the probe does not
  learn counts as memory. It takes every step, where memory_information has to leave out observations that are rare.
- lpc_entropy, lpc_divergence: the question. Spearman correlation over cells of mean LPC with the entropy of the cell's
  mean policy, or with its divergence from the run's mean policy; time since the start and number of visits partialled
  out. Null: LPC of whole episodes exchanged within runs, levels, and bins of 4 lengths; p is the larger of that of the
  mean over runs under this null (unit: episodes) and of correlation minus null mean over runs.
- lpc_entropy_naive, lpc_divergence_naive: the plain correlation, `p` of a run as if its cells were independent, as is
  usual in print: to be read beside the others, never by itself. lpc_entropy_smoothed: with the entropy of counts of
  actions plus one half, which is a function of visits: a deterministic cell reads 1.85 bits at 5 visits.

Twins, from interventions: zero_states (all states set to 0 before every step) and swap_mission: cost_of_zero_states,
cost_of_swap_mission, the difference in cross-entropy to the bot. Behaviour that depends on memory, or on the mission,
suffers. Known answers: a uniform policy has 0; one that does 7 actions equally often, each surely, log2 7; where cells
are deterministic and visited unevenly, entropy does not go with LPC; a function of the observation has a memory_bound
near 0, and one that hangs on a hidden bit at least its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from science.effects import Effects
from science.exchange import draw_swaps
from science.feedforward import add_memory_bound
from science.observations import Observations
from science.profiles import find_unusable
from science.result import NAN, Draft, Result
from science.statistics.association import MIN_CELLS, partial_spearman_rows
from science.statistics.information import (
    MIN_COUNTS,
    MIN_STEPS,
    Bracket,
    bracket_information,
    divergence,
    entropy,
    information_of_counts,
    policies_from_logits,
)
from science.statistics.nulls import p_value
from science.traces import Traces, sum_over

QUANTITIES = {
    "action_information": "I(history; action) (bits)",
    "greedy_information": "entropy of greedy actions (bits)",
    "memory_information": "I(history; action) beyond the observation (bits)",
    "memory_bound": "KL from a probe of the observation, at most so much memory (bits)",
    "state_information": "I(state; action) (bits)",
    "lpc_entropy": "partial rank correlation of LPC and action entropy, over cells",
    "lpc_divergence": "partial rank correlation of LPC and divergence of the policy, over cells",
    "lpc_entropy_naive": "rank correlation of LPC and action entropy, over cells",
    "lpc_divergence_naive": "rank correlation of LPC and divergence of the policy, over cells",
    "lpc_entropy_smoothed": "rank correlation of LPC and entropy of smoothed counts, over cells",
    "cost_of_zero_states": "effect of forgetting on cross-entropy (nats)",
    "cost_of_swap_mission": "effect of another mission on cross-entropy (nats)",
}
"""What each quantity is, for an axis."""

STATES = ("cell", "state", "observation")
MEASURES = ("lpc_entropy", "lpc_divergence")
SMOOTHED = "lpc_entropy_smoothed"


def compute(
    traces: Traces,
    *,
    effects: Effects | None = None,
    observed: Mapping[str, Observations] | None = None,
    cells: str = "cell",
    min_steps: int = MIN_STEPS,
    draws: int = 199,
    seed: int = 0,
) -> Result:
    """Return the policy complexity of each task and setting; see the module.

    Args:
        traces: Runs of at least one cell of the study.
        effects: Of zero_states and swap_mission.
        observed: What each task's replayed steps show.
        cells: Group over which LPC is correlated with behaviour.
        min_steps: Steps that a cell, or a state, must have.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("complexity", __doc__ or "")
    for cell in traces.cells():
        reasons = find_unusable(cell)
        for run, reason in reasons.items():
            draft.drop(cell.runs[run], reason)
        _information(draft, cell, reasons, min_steps)
        add_memory_bound(draft, cell, reasons, observed or {})
        _associate(draft, cell, reasons, cells, min_steps, draws, np.random.default_rng(seed))
    for table in [] if effects is None else effects.cells():
        for kind in ("zero_states", "swap_mission"):
            for condition in table.of_kind(kind):
                words = {"condition": table.conditions[condition].name}
                draft.over_both(f"cost_of_{kind}", table.by_level("ce", condition), table.runs, **words)
    return draft.finish()


def find_policies(cell: Traces, run: int) -> np.ndarray | None:
    """Return the policy at each step of a run (S, A); None where logits are not known."""
    logits = cell.logits[cell.run == run]
    return policies_from_logits(logits) if logits.size and np.isfinite(logits).all() else None


def _information_of(policies: np.ndarray) -> float:
    """Return H(mean pi) - mean H(pi_t) of policies (S, A), bits."""
    return max(0.0, float(entropy(policies.mean(axis=0)) - entropy(policies).mean()))


def _information(draft: Draft, cell: Traces, reasons: dict[int, str], min_steps: int) -> None:
    names = [name for name in STATES if name in cell.groups]
    whole = {name: np.full(len(cell.runs), NAN) for name in ("action", "greedy", "memory")}
    brackets: dict[str, list[Bracket | None]] = {name: [None] * len(cell.runs) for name in names}
    counted = 0
    for run in (run for run in range(len(cell.runs)) if run not in reasons):
        steps = cell.run == run
        policies, actions = find_policies(cell, run), cell.action[steps]
        done = np.bincount(actions[actions >= 0], minlength=1)
        whole["greedy"][run] = entropy(done / max(1, done.sum()))
        if policies is not None:
            whole["action"][run] = _information_of(policies)
        counted += policies is None
        for name in names:
            codes = cell.groups[name].codes[steps]
            known = codes >= 0
            if policies is not None:
                found = bracket_information(
                    policies[known], codes[known], cell.episode[steps][known], min_steps=min_steps
                )
            else:
                known &= actions >= 0
                found = information_of_counts(actions[known], codes[known], int(actions.max(initial=0)) + 1)
            if np.isfinite(found.low):  # without a state of enough steps neither end is known
                low = max(0.0, found.low)  # as information cannot be less
                found = replace(found, low=low, high=max(low, found.high))
            brackets[name][run] = found
        if "observation" in names and policies is not None:
            codes = cell.groups["observation"].codes[steps]
            covered = policies[(codes >= 0) & (np.bincount(codes[codes >= 0], minlength=1)[codes] >= min_steps)]
            if len(covered):
                whole["memory"][run] = _information_of(covered) - brackets["observation"][run].middle
    shared: dict[str, Any] = {"tested": False, "n_episodes": len(cell.episode_run), "n_levels": len(cell.levels)}
    shared["reasons"] = [reasons.get(run, "logits not known") for run in range(len(cell.runs))]
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
    if counted:
        draft.note(f"{where}: {counted} runs without logits: Grassberger's estimate, of {MIN_COUNTS} actions or more")
    draft.over_runs("action_information", whole["action"], cell.runs, **shared)
    draft.over_runs("greedy_information", whole["greedy"], cell.runs, **shared)
    shared["reasons"] = [
        reasons.get(run, f"no state of {min_steps} steps" if np.isfinite(whole["action"][run]) else "logits not known")
        for run in range(len(cell.runs))
    ]
    if "observation" in names:
        draft.over_runs("memory_information", whole["memory"], cell.runs, **shared)
    shared["reasons"] = [reasons.get(run, f"no state of {min_steps} steps") for run in range(len(cell.runs))]
    for name in names:
        own = brackets[name]
        covered = [bracket.covered for bracket in own if bracket is not None]
        words = f"{np.mean(covered):.0%} of the steps" if covered else ""
        for estimator, end in (("plug-in", "high"), ("held-out", "low"), ("middle", "middle")):
            values = np.array([NAN if bracket is None else getattr(bracket, end) for bracket in own])
            draft.over_runs(
                "state_information",
                values,
                cell.runs,
                group=name,
                estimator="Grassberger" if counted == len(covered) and counted else estimator,
                condition=words,
                **shared,
            )
            if counted == len(covered) and counted:
                break


# ----------------------------------------------------------------------------------------------- LPC and behaviour


class _Cells:
    """What of a run's cells does not change when episodes are exchanged.

    Args:
        codes: int (S,), each step's cell, -1 none.
        policies: (S, A).
        time: (S,), steps since the start.
        min_steps: Cells with fewer steps do not count.
    """

    def __init__(self, codes: np.ndarray, policies: np.ndarray, time: np.ndarray, min_steps: int) -> None:
        self.codes, self.width = codes, int(codes.max(initial=-1)) + 1
        self.count = np.bincount(codes[codes >= 0], minlength=self.width)
        self.used = self.count >= min_steps
        self.others = np.column_stack([np.log(np.maximum(self.count, 1)), self.average(time)])[self.used]
        of_cell = self.average(policies)
        overall = policies.mean(axis=0)
        # Rounded, so that what is equal but for the last bits has no rank.
        self.behaviour = {
            "lpc_entropy": np.round(entropy(of_cell), 9)[self.used],
            "lpc_divergence": np.round(divergence(of_cell, overall), 9)[self.used],
        }

    def average(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the steps of each cell (Z, ...)."""
        count = np.maximum(self.count, 1).reshape(-1, *[1] * (values.ndim - 1))
        return sum_over(self.codes, values, self.width) / count

    def correlate(self, quantity: str, lpc: np.ndarray) -> np.ndarray:
        """Return the partial rank correlations (D,) of behaviour with the mean of each column of LPC (S, D)."""
        return partial_spearman_rows(self.average(lpc)[self.used].T, self.behaviour[quantity], self.others)


def _associate(
    draft: Draft, cell: Traces, reasons: dict[int, str], by: str, min_steps: int, draws: int, rng: np.random.Generator
) -> None:
    group, number = cell.group(by), len(cell.runs)
    reasons = dict(reasons)
    rho, under, naive = (
        {name: np.full(shape, NAN) for name in (*MEASURES, SMOOTHED)}
        for shape in (number, (draws, number), (number, 2))
    )
    usable = [run for run in range(number) if run not in reasons]
    swaps = draw_swaps(cell, usable, draws, rng)
    for run in usable:
        steps = cell.run == run
        codes, lpc, policies = group.codes[steps], cell.lpc[steps].astype(np.float64), find_policies(cell, run)
        if policies is None or not np.isfinite(lpc).all():
            reasons[run] = "logits not known" if policies is None else "LPC not known"
            continue
        cells = _Cells(codes, policies, cell.time[steps].astype(np.float64), min_steps)
        if cells.used.sum() < MIN_CELLS:
            reasons[run] = f"{cells.used.sum()} cells of {min_steps} steps, needs {MIN_CELLS}"
            continue
        mean = cells.average(lpc)
        columns = np.column_stack([lpc, *(lpc[swap] for swap in swaps.get(run, []))])
        for name in MEASURES:
            rho[name][run], *under[name][:, run] = cells.correlate(name, columns)
            naive[name][run] = _spearman(mean[cells.used], cells.behaviour[name])
            if np.isnan(rho[name][run]):
                reasons[run] = "LPC or behaviour is the same in all cells"
        seen = cells.count > 0
        taken = sum_over(codes, np.eye(policies.shape[1])[policies.argmax(axis=1)], cells.width)[seen] + 0.5
        naive[SMOOTHED][run] = _spearman(mean[seen], entropy(taken / taken.sum(axis=1, keepdims=True)))
    why = [reasons.get(run, "") for run in range(number)]
    shared: dict[str, Any] = {"group": by, "n_levels": len(cell.levels), "reasons": why}
    for name in MEASURES:
        known = np.isfinite(rho[name])
        shared["n_episodes"] = int(np.isin(cell.episode_run, np.flatnonzero(known)).sum())
        null = under[name][:, known].mean(axis=1) if known.any() and draws else np.zeros(0)
        draft.over_runs(
            name,
            rho[name],
            cell.runs,
            null=np.where(known, under[name].sum(axis=0) / draws, NAN) if draws else 0.0,
            p_null=p_value(float(rho[name][known].mean()) if known.any() else NAN, null),
            p_null_floor=1 / (1 + draws),
            p_each=[p_value(value, column) for value, column in zip(rho[name], under[name].T, strict=True)],
            null_unit="episodes",
            worst=0.0,
            estimator="time and visits partialled out",
            limits=(-1, 1),
            **shared,
        )
    for name, quantity in (*((name, f"{name}_naive") for name in MEASURES), (SMOOTHED, SMOOTHED)):
        values, p = naive[name].T
        draft.over_runs(quantity, values, cell.runs, p_each=p, estimator="naive", limits=(-1, 1), **shared)


def _spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the rank correlation and the p of independent cells; NaN where one is constant."""
    from scipy.stats import spearmanr  # takes 0.4 s

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return NAN, NAN
    found = spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)
