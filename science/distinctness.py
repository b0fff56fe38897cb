"""Distinctness: does the path that a step takes tell to which group it belongs?

A path is one expert of each layer, P_t(path) = product over layers of w[t, l, e_l]; I(path; x) = H(mean P) - sum over x
of P(x) H(mean P of x), bits, without an argmax and without bins. All steps weigh the same. Quantities, per run:

- path_information: I(path; x), plug-in. A router that copies `carrying` has H(carrying).
- path_information_low: the lower end of its bracket, from paths of other episodes (`science.statistics.information`);
  the truth lies between the two.
- effective_paths: 2^H(mean P), of so many as there are. No power law is fitted: the 27 paths of a common policy cannot
  support one.
- path_agreement: adjusted mutual information (Vinh, Epps, Bailey 2010, JMLR 11:2837) of the most probable path and x:
  0 for unrelated ones whatever their number.

Null of path_information: the groups of whole episodes exchanged within runs, levels, and bins of 4 lengths, stretched
to fit; the same exchange in all runs where they replay the same episodes. It keeps that both paths and groups change in
the course of an episode, which alone gives information. p is the larger of that of the mean over runs under this null
(unit: episodes) and of information minus its null over runs. The null's mean is shown, never subtracted from the value.

Twin, double dissociation: where experts are distinct, taking one out harms the groups that use it. M[e, x] is the mean
difference in cross-entropy, each run's with row and column means removed, so that neither vulnerable groups nor
important experts count; dissociation = mean over experts of M[e, own(e)] minus M of the other groups, where own(e) is
the group in which the run uses e more than elsewhere, by the most.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from science.effects import Effects
from science.exchange import draw_swaps
from science.profiles import find_profiles, find_unusable
from science.result import NAN, Draft, Result
from science.statistics.information import bracket_information, entropy
from science.statistics.nulls import p_value
from science.traces import Traces, sum_over

QUANTITIES = {
    "path_information": "I(path; group) (bits)",
    "path_information_low": "I(path; group), held out (bits)",
    "effective_paths": "effective paths",
    "path_agreement": "adjusted mutual information of likeliest path and group",
    "dissociation": "effect on own minus other groups (nats)",
}
"""What each quantity is, for an axis."""

MAX_PATHS = 4096


def compute(
    traces: Traces, *, by: str = "level_subgoal", effects: Effects | None = None, draws: int = 199, seed: int = 0
) -> Result:
    """Return the distinctness of paths in each task and setting; see the module.

    Args:
        traces: Runs of at least one cell.
        by: Group of steps.
        effects: Of knock-outs of single experts, by group.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("distinctness", __doc__ or "")
    for cell in traces.cells():
        _compute_cell(draft, cell, by, draws, np.random.default_rng(seed))
        if effects is not None:
            add_dissociation(draft, cell, effects, by)
    return draft.finish()


def build_paths(weights: np.ndarray, experts: np.ndarray) -> np.ndarray:
    """Return the probabilities (S, paths) of paths from weights (S, L, E), of which `experts` (L, E) says what is one.

    Raises:
        ValueError: If there are more than `MAX_PATHS`.
    """
    number = int(np.prod(experts.sum(axis=1)))
    if number > MAX_PATHS:
        raise ValueError(f"paths: expected at most {MAX_PATHS}, found {number}")
    found = np.ones((len(weights), 1))
    for layer, real in enumerate(experts):
        found = (found[:, :, None] * weights[:, layer][:, None, real]).reshape(len(weights), -1)
    return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300)


def find_information(paths: np.ndarray, codes: np.ndarray, num_groups: int) -> float:
    """Return I(path; x), plug-in, bits, over the steps whose code is not negative; NaN without any."""
    totals = sum_over(codes, paths, num_groups)
    steps = totals.sum(axis=1)
    if steps.sum() <= 0:
        return NAN
    inside = float(steps @ entropy(totals / np.maximum(steps, 1e-300)[:, None])) / steps.sum()
    return max(0.0, float(entropy(totals.sum(axis=0) / steps.sum())) - inside)


def _compute_cell(draft: Draft, cell: Traces, by: str, draws: int, rng: np.random.Generator) -> None:
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    group = cell.group(by)
    reasons = find_unusable(cell)
    for run, reason in reasons.items():
        draft.drop(cell.runs[run], reason)
    width, where = len(group.names), f"{cell.runs[0].task}, {cell.runs[0].setting}, by {by}"
    number = int(np.prod(cell.experts.sum(axis=1)))
    if number > MAX_PATHS:
        draft.note(f"{where}: {number} paths, of which {MAX_PATHS} at most can be told apart: no value")
        return
    used = [run for run in range(len(cell.runs)) if run not in reasons and (group.codes[cell.run == run] >= 0).any()]
    reasons |= {run: "no steps in any group" for run in range(len(cell.runs)) if run not in {*used, *reasons}}
    found = {name: np.full(len(cell.runs), NAN) for name in ("plug_in", "low", "effective", "agreement", "null")}
    under = np.full((draws, len(cell.runs)), NAN)
    swaps = draw_swaps(cell, used, draws, rng)
    for run in used:
        steps = np.flatnonzero(cell.run == run)
        codes, paths = group.codes[steps], build_paths(cell.weights[steps].astype(np.float64), cell.experts)
        known = codes >= 0
        if len(np.unique(codes[known])) < 2:
            reasons[run] = "steps of one group only"
            continue
        found["plug_in"][run] = find_information(paths, codes, width)
        low = bracket_information(paths[known], codes[known], cell.episode[steps][known]).low
        found["low"][run] = np.maximum(low, 0.0)
        found["effective"][run] = 2 ** entropy(paths.mean(axis=0))
        found["agreement"][run] = adjusted_mutual_info_score(codes[known], paths[known].argmax(axis=1))
        if draws:
            under[:, run] = [find_information(paths, codes[swap], width) for swap in swaps[run]]
            found["null"][run] = under[:, run].mean()
    known = np.isfinite(found["plug_in"])
    if not known.any():
        draft.note(f"{where}: no run has steps of two groups: no value")
    mean_null = under[:, known].mean(axis=1) if draws and known.any() else np.zeros(0)
    why = [reasons.get(run, "") for run in range(len(cell.runs))]
    shared: dict[str, Any] = {
        "group": by,
        "n_levels": len(cell.levels),
        "n_episodes": int(np.isin(cell.episode_run, np.flatnonzero(known)).sum()),
        "reasons": why,
    }
    draft.over_runs(
        "path_information",
        found["plug_in"],
        cell.runs,
        null=found["null"] if draws else 0.0,
        p_null=p_value(float(found["plug_in"][known].mean()) if known.any() else NAN, mean_null),
        p_null_floor=1 / (1 + draws),
        p_each=[p_value(value, null) for value, null in zip(found["plug_in"], under.T, strict=True)],
        null_unit="episodes",
        twin="dissociation",
        worst=0.0,
        **shared,
    )
    for quantity, name in (("path_information_low", "low"), ("path_agreement", "agreement")):
        draft.over_runs(quantity, found[name], cell.runs, tested=False, **shared)
    draft.over_runs("effective_paths", found["effective"], cell.runs, tested=False, condition=f"of {number}", **shared)


def add_dissociation(draft: Draft, cell: Traces, effects: Effects, by: str) -> None:
    """Add the twin: each run's own map against its own lesions."""
    place = {run: index for index, run in enumerate(effects.runs)}
    conditions = _single_experts(effects)
    profiles = find_profiles(draft, cell, by, quantity="dissociation")
    names = cell.group(by).names
    groups = [effects.groups.index(name) if name in effects.groups else _short(name, effects.groups) for name in names]
    if not conditions or not len(profiles.runs) or sum(groups[x] >= 0 for x in profiles.groups) < 2:
        draft.note(
            f"{cell.runs[0].task}, {cell.runs[0].setting}: dissociation needs knock-outs by two groups: no value"
        )
        return
    effect = effects.matrix("ce", list(conditions.values()), by_group=True)
    values, reasons = np.full(len(cell.runs), NAN), [profiles.reasons.get(i, "") for i in range(len(cell.runs))]
    columns = [list(zip(profiles.layers, profiles.experts, strict=True)).index(key) for key in conditions]
    here = [x for x, original in enumerate(profiles.groups) if groups[original] >= 0]
    for row, run in enumerate(profiles.runs):
        own = place.get(cell.runs[run])
        harm = None if own is None else effect[own][:, [groups[profiles.groups[x]] for x in here]]
        if harm is None or not np.isfinite(harm).all():
            reasons[run] = "no knock-outs" if harm is None else "knock-outs of some groups are missing"
            continue
        usage = profiles.centered[row][here][:, columns].T
        values[run] = dissociation(usage, harm)
    draft.over_runs(
        "dissociation",
        values,
        cell.runs,
        reasons=reasons,
        group=by,
        estimator="cross-entropy, nats",
        n_levels=len(cell.levels),
        n_episodes=len(np.unique(effects.level_seed)),
    )


def dissociation(usage: np.ndarray, harm: np.ndarray) -> float:
    """Return how much more an expert's removal harms the group that uses it most; usage and harm (experts, groups)."""
    rest = harm - harm.mean(axis=1, keepdims=True) - harm.mean(axis=0, keepdims=True) + harm.mean()
    usage = usage - usage.mean(axis=1, keepdims=True)
    own = np.take_along_axis(rest, usage.argmax(axis=1)[:, None], axis=1)[:, 0]
    others = (rest.sum(axis=1) - own) / (rest.shape[1] - 1)
    return float((own - others).mean())


def _single_experts(effects: Effects) -> dict[tuple[int, int], int]:
    """Return the condition that takes out each single expert, the first where there are several."""
    found: dict[tuple[int, int], int] = {}
    for index in effects.of_kind("knockout"):
        condition = effects.conditions[index]
        if condition.layer >= 0 and condition.expert >= 0:
            found.setdefault((condition.layer, condition.expert), index)
    return found


def _short(name: str, groups: tuple[str, ...]) -> int:
    """Return the group that a name such as "UnlockPickup: Open" ends with, -1 if none."""
    last = name.rpartition(": ")[2]
    return groups.index(last) if last in groups else -1
