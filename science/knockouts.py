"""Knock-outs: what happens without an expert, and does the map of usage say it beforehand?

Effects are changed minus intact, paired by run and level seed. They generalise over both: interval and p have runs and
level seeds as random factors (`science.statistics.inference.compare_over_both`), for runs that play the same levels
share what is particular to these. (An exact test over 8 runs has no p below 0.008, which no correction over 9 experts
survives.)

- effect_on_success, effect_on_agreement, effect_on_ce (cross-entropy to the bot's actions, nats: it has no floor and
  needs no failure to be seen), divergence (KL of the changed from the intact policy, nats): of each condition;
  effect_on_ce by group too. p adjusted by Benjamini and Hochberg over all conditions, and groups, of a measure.
- equivalence: of each knock-out, that its effect on cross-entropy is within a margin, by two one-sided tests. Nothing
  else makes an expert dispensable.
- audit: Spearman correlation over experts of usage (mean weight) with the effect of their knock-out on cross-entropy,
  per run, p over runs. audit_given_size: size partialled out, for large experts may be both used and needed.
  audit_best: share of runs whose most used expert is the one whose loss harms most, minus 1 / experts; exact binomial
  test, Wilson's interval.
- audit_beyond_norm: usage against the effect beyond the control. A knock-out changes the signal by |w E(x)|, which
  grows with usage whatever the expert says; the control takes away as much in a random direction.
- renormalised: effect with the remaining weights made to sum to 1 minus that without; the layer has no residual, so
  that without it the signal shrinks.
- dose: Spearman correlation over level seeds of the expert's usage there with the effect there, mean over experts, so
  per run: usage may say when an expert matters though not which.

Control: sham, the machinery of an intervention with nothing changed. Its effects have to be 0 to the last bit; where
sham_changed, the share of rows that are not, is above 0, nothing here is to be believed, and a note says so. Known
answer: where one expert carries the one bit that actions depend on, its knock-out has all the effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from science.effects import Condition, Effects, Measure
from science.profiles import find_unusable, list_experts, to_unit
from science.result import NAN, Draft, Result, larger
from science.statistics.association import partial_spearman
from science.statistics.inference import compare_hits, compare_over_both, compare_with_margin
from science.traces import Traces, group_means, sum_over

QUANTITIES = {
    "sham_changed": "share of rows that sham changes (must be 0)",
    "effect_on_success": "effect on success",
    "effect_on_agreement": "effect on agreement with the bot",
    "effect_on_ce": "effect on cross-entropy (nats)",
    "divergence": "KL from the intact policy (nats)",
    "equivalence": "effect on cross-entropy (nats), equivalent to none",
    "renormalised": "effect with minus without renormalising (nats)",
    "audit": "rank correlation of usage and effect, over experts",
    "audit_given_size": "the same, size partialled out",
    "audit_best": "most used is most needed, share above chance",
    "audit_beyond_norm": "rank correlation of usage and effect beyond the control",
    "dose": "rank correlation of usage and effect, over levels",
}
"""What each quantity is, for an axis."""

MARGIN = 0.02
"""Cross-entropy, nats, below which an effect is none."""

MIN_LEVELS = 8
"""Level seeds below which effects on them are not correlated."""


def compute(effects: Effects, traces: Traces | None = None, *, margin: float = MARGIN) -> Result:
    """Return the effects of each task and setting; see the module.

    Args:
        effects: Of sham, knockout, random_direction and others.
        traces: Of the same runs, for usage.
        margin: Of equivalence, nats.
    """
    draft = Draft("knockouts", __doc__ or "")
    usage = {} if traces is None else find_usage(draft, traces)
    for cell in effects.cells():
        where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
        _check_sham(draft, cell, where)
        _effects(draft, cell, margin)
        add_audit(draft, cell, usage, traces)
        if traces is not None:
            _dose(draft, cell, traces)
    return draft.finish()


def _check_sham(draft: Draft, cell: Effects, where: str) -> None:
    shams = cell.of_kind("sham")
    if not shams:
        draft.note(f"{where}: no sham: whether the machinery changes anything by itself is not known")
    for condition in shams:
        rows = cell.condition == condition
        changed = np.zeros(int(rows.sum()), bool)
        for measure in ("success", "agreement", "ce", "kl"):
            changed |= np.nan_to_num(cell.difference(measure)[rows]) != 0
        draft.add(
            "sham_changed",
            float(changed.mean()) if len(changed) else NAN,
            unit="episodes",
            estimator=cell.source,
            task=cell.runs[0].task,
            setting=cell.runs[0].setting,
            condition=cell.conditions[condition].name,
            n_runs=len(np.unique(cell.run[rows])),
            n_episodes=len(changed),
        )
        if changed.any():
            draft.note(
                f"{where}: sham differs from intact in {changed.sum()} of {len(changed)} rows, expected none: the "
                "interventions do more than they say, no effect here is to be believed"
            )


def _columns(condition: Condition) -> dict[str, Any]:
    return {"layer": condition.layer, "expert": condition.expert, "condition": condition.name}


def _effects(draft: Draft, cell: Effects, margin: float) -> None:
    families = f"{cell.runs[0].task}, {cell.runs[0].setting}, {cell.source}"
    for index, condition in enumerate(cell.conditions):
        if condition.kind == "sham" or not (rows := cell.condition == index).any():
            continue
        shared = {**_columns(condition), "estimator": cell.source}
        for measure in ("success", "agreement", "ce", "kl"):
            if measure == "kl":
                _effect(draft, cell, measure, index, -1, "divergence", tested=False, **shared)
            else:
                _effect(
                    draft, cell, measure, index, -1, f"effect_on_{measure}", family=f"{measure}, {families}", **shared
                )
        for group in np.unique(cell.group[rows & (cell.group >= 0)]).tolist():
            shared["group"] = cell.groups[group]
            _effect(draft, cell, "ce", index, group, "effect_on_ce", family=f"ce by group, {families}", **shared)
        if condition.kind == "knockout":
            _equivalence(draft, cell, index, margin, families)
    for index in cell.of_kind("knockout", renormalise=True):
        one = cell.conditions[index]
        twin = cell.of_kind("knockout", renormalise=False, layer=one.layer, expert=one.expert, what=one.what)
        if twin and one.layer >= 0:
            table = cell.by_level("ce", index) - cell.by_level("ce", twin[0])
            about = {**_columns(one), "estimator": cell.source, "family": f"renormalised, {families}"}
            draft.over_both("renormalised", table, cell.runs, **about)


def _effect(
    draft: Draft, cell: Effects, measure: Measure, index: int, steps: int, quantity: str, **columns: Any
) -> None:
    """Add a condition's effect on whole episodes (-1) or on a group's steps, if there is any row of it."""
    table = cell.by_level(measure, index, steps)
    if np.isfinite(table).any():
        draft.over_both(quantity, table, cell.runs, **columns)


def _equivalence(draft: Draft, cell: Effects, index: int, margin: float, families: str) -> None:
    values, both = cell.per_run("ce", index), compare_over_both(cell.by_level("ce", index))
    found = compare_with_margin(values, margin)
    draft.add(
        "equivalence",
        float(np.nanmean(values)) if np.isfinite(values).any() else NAN,
        unit="runs+levels",
        estimator=f"{cell.source}, within {margin:g} nats",
        task=cell.runs[0].task,
        setting=cell.runs[0].setting,
        low=found.low,
        high=found.high,
        p=larger(found.p, both.within(margin)),
        n_runs=found.n,
        n_episodes=both.n_levels,
        n_dropped=len(values) - found.n,
        family=f"equivalence, {families}",
        **_columns(cell.conditions[index]),
    )


# ------------------------------------------------------------------------------------------------------------- audit


def find_usage(draft: Draft, traces: Traces) -> dict[Any, np.ndarray]:
    """Return the mean weight of each expert (K,) by run: steps -> episode -> mean."""
    reasons = find_unusable(traces)
    for run, reason in reasons.items():
        draft.drop(traces.runs[run], reason)
    means, _ = group_means(traces, np.zeros(len(traces.episode), np.int32), 1)
    return {run: means[i, 0][traces.experts] for i, run in enumerate(traces.runs) if i not in reasons}


def find_knockouts(cell: Effects) -> dict[tuple[int, int], int]:
    """Return the condition that takes out each single expert, renormalised ones first."""
    found: dict[tuple[int, int], int] = {}
    for index in [*cell.of_kind("knockout", renormalise=True), *cell.of_kind("knockout", renormalise=False)]:
        condition = cell.conditions[index]
        if condition.layer >= 0 and condition.expert >= 0 and (cell.condition == index).any():
            found.setdefault((condition.layer, condition.expert), index)
    return found


def add_audit(draft: Draft, cell: Effects, usage: dict[Any, np.ndarray], traces: Traces | None) -> None:
    """Add the audit of a task and setting, of each run's usage (`find_usage`)."""
    from scipy.stats import spearmanr  # takes 0.4 s

    knockouts = find_knockouts(cell)
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
    if traces is None or len(knockouts) < 3:
        draft.note(f"{where}: the audit needs traces and three knock-outs of single experts, found {len(knockouts)}")
        return
    layers, experts, sizes = list_experts(traces)
    keys = list(zip(layers.tolist(), experts.tolist(), strict=True))
    columns = [keys.index(key) for key in knockouts if key in keys]
    harm = cell.matrix("ce", [index for key, index in knockouts.items() if key in keys])
    controlled = _find_controlled(cell, [key for key in knockouts if key in keys])
    beyond = None if controlled is None else cell.matrix("ce", controlled[0]) - cell.matrix("ce", controlled[1])
    found = {name: np.full(len(cell.runs), NAN) for name in ("audit", "given_size", "best", "beyond")}
    reasons = [""] * len(cell.runs)
    for place, run in enumerate(cell.runs):
        if run not in usage or not np.isfinite(harm[place]).all():
            reasons[place] = "no traces" if run not in usage else "knock-outs missing"
            continue
        used = usage[run][columns]
        if np.ptp(used) < 1e-9 or np.ptp(harm[place]) < 1e-12:
            reasons[place] = "no expert differs from another"
            continue
        found["audit"][place] = spearmanr(used, harm[place]).statistic
        if len(np.unique(sizes[columns])) > 1:
            found["given_size"][place] = partial_spearman(used, harm[place], sizes[columns].astype(np.float64))
        found["best"][place] = float(used.argmax() == harm[place].argmax())
        if beyond is not None and np.isfinite(beyond[place]).all() and np.ptp(beyond[place]) > 1e-12:
            found["beyond"][place] = spearmanr(used, beyond[place]).statistic
    shared = {
        "reasons": reasons,
        "n_episodes": len(np.unique(cell.level_seed)),
        "estimator": cell.source,
        "limits": (-1, 1),
    }
    draft.over_runs("audit", found["audit"], cell.runs, worst=0.0, **shared)
    draft.over_runs("audit_given_size", found["given_size"], cell.runs, **shared)
    chance = 1 / len(columns)
    hits = compare_hits(found["best"], chance)
    draft.over_runs("audit_best", found["best"] - chance, cell.runs, test=hits, **shared)
    if beyond is None:
        draft.note(f"{where}: no random_direction for every knock-out: audit_beyond_norm has no value")
    else:
        draft.over_runs("audit_beyond_norm", found["beyond"], cell.runs, **shared)


def _find_controlled(cell: Effects, places: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]] | None:
    """Return the knock-outs at places (layer, expert) that have a control, and their controls; None if one has none."""
    controls = {c.control_of: index for index, c in enumerate(cell.conditions) if c.kind == "random_direction"}
    lesions = []
    for layer, expert in places:
        here = cell.of_kind("knockout", layer=layer, expert=expert)
        lesions += [index for index in here if cell.conditions[index].name in controls][:1]
    if len(lesions) < len(places):
        return None
    return lesions, [controls[cell.conditions[index].name] for index in lesions]


def _dose(draft: Draft, cell: Effects, traces: Traces) -> None:
    """Add, per run, how usage at a level seed goes with the effect there, where traces have the same level seeds."""
    from scipy.stats import rankdata  # takes 0.4 s

    keys = find_knockouts(cell)
    if not keys:
        return
    layers, experts = np.transpose(list(keys))
    effect = np.stack([cell.by_level("ce", condition) for condition in keys.values()], axis=1)  # (R, K, G)
    lengths = np.maximum(np.bincount(traces.episode, minlength=len(traces.episode_run)), 1)
    means = sum_over(traces.episode, traces.weights, len(traces.episode_run)) / lengths[:, None, None]
    values, index = np.full(len(cell.runs), NAN), {run: i for i, run in enumerate(traces.runs)}
    for place, run in enumerate(cell.runs):
        own = np.flatnonzero(traces.episode_run == index.get(run, -1))
        _, here, there = np.intersect1d(traces.level_seed[own], cell.level_seeds, return_indices=True)
        known = np.isfinite(effect[place][:, there]).all(axis=0)
        if known.sum() < MIN_LEVELS:
            continue
        x = means[own[here[known]]][:, layers, experts].T
        y = effect[place][:, there[known]]
        varied = (np.ptp(x, axis=1) > 1e-9) & (np.ptp(y, axis=1) > 1e-12)
        if varied.any():
            x, y = (to_unit(rankdata(side[varied], axis=1)) for side in (x, y))
            values[place] = (x * y).sum(axis=1).mean()
    if np.isfinite(values).any():
        shared = {"estimator": cell.source, "n_episodes": len(cell.level_seeds), "limits": (-1, 1)}
        draft.over_runs("dose", values, cell.runs, **shared)
