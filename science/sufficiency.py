"""Self-sufficiency: does a path do its work without the experts that it hardly uses?

In closed loop, weights below tau are set to 0, never the largest, and the rest made to sum to 1, at thresholds tau of
0, .02, ... .3; tau = 0 is the intact policy. Quantities, per run:

- sufficiency, A: mean over tau of success(tau) / success(0). A router that gives all weight to one expert has 1.
- sufficiency_of_agreement: the same of the share of steps in which the policy does as the bot; on replay as well.
- success_ratio, agreement_ratio: at each tau.
- sufficiency_above_random, sufficiency_of_agreement_above_random: A minus that of the control, from which p: at each
  tau and step as many experts removed, but drawn from those that are not the largest. That small weights are not
  missed says something only if random ones are.

Success as a ratio needs some: runs that solve less than half of the levels intact are left out and counted, and
included at 0 in the row "worst".
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from science.effects import Effects
from science.result import NAN, Draft, Result

QUANTITIES = {
    "success_ratio": "success at the threshold / intact",
    "agreement_ratio": "agreement at the threshold / intact",
    "sufficiency": "self-sufficiency A, of success",
    "sufficiency_of_agreement": "self-sufficiency A, of agreement with the bot",
    "sufficiency_above_random": "A minus that of random removal, of success",
    "sufficiency_of_agreement_above_random": "A minus that of random removal, of agreement",
}
"""What each quantity is, for an axis."""

MIN_SUCCESS = 0.5
"""Share of the levels, or of the steps, that the intact policy must get right."""


def compute(effects: Effects) -> Result:
    """Return the self-sufficiency of each task and setting; see the module.

    Args:
        effects: Conditions of kind threshold and random_drop, with `tau`.
    """
    draft = Draft("sufficiency", __doc__ or "")
    for cell in effects.cells():
        where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
        if not cell.of_kind("threshold"):
            draft.note(f"{where}: expected conditions of kind threshold, found none: no value")
            continue
        shared = {"n_episodes": len(np.unique(cell.level_seed))}
        for measure, suffix in (("success", ""), ("agreement", "_of_agreement")):
            ratio, taus, reasons = _ratios(cell, "threshold", measure)
            if cell.source == "R" and measure == "success":
                draft.note(f"{where}: on replayed trajectories there is no success; agreement only")
                continue
            for place, tau in enumerate(taus):
                draft.over_runs(
                    f"{measure}_ratio",
                    ratio[:, place],
                    cell.runs,
                    reasons=reasons,
                    tested=False,
                    condition=f"tau {tau:g}",
                    **shared,
                )
            whole = _with_intact(ratio)
            draft.over_runs(
                f"sufficiency{suffix}",
                whole,
                cell.runs,
                reasons=reasons,
                tested=False,
                worst=0.0,
                condition=_words(taus),
                **shared,
            )
            control = [cell.conditions[index].tau for index in cell.of_kind("random_drop")]
            both = [tau for tau in taus if tau in control]
            if not both:
                draft.note(f"{where}: expected random_drop at the same thresholds as control, found none: no test")
                continue
            table = _above_random(cell, measure, both, reasons)
            columns = {"reasons": reasons, "condition": _words(both)}
            draft.over_both(f"sufficiency{suffix}_above_random", table, cell.runs, **columns)
    return draft.finish()


def _ratios(
    cell: Effects, kind: str, measure: Literal["success", "agreement"]
) -> tuple[np.ndarray, list[float], list[str]]:
    """Return changed over intact (R, T), the thresholds above 0, ascending, and why a run has none."""
    found = sorted((cell.conditions[i].tau, i) for i in cell.of_kind(kind) if cell.conditions[i].tau > 0)
    ratio = np.full((len(cell.runs), len(found)), NAN)
    reasons = [""] * len(cell.runs)
    for place, (_, condition) in enumerate(found):
        changed = cell.per_run(getattr(cell, measure).astype(np.float64), condition)
        intact = cell.per_run(getattr(cell, f"{measure}_intact").astype(np.float64), condition)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio[:, place] = np.where(intact >= MIN_SUCCESS, changed / intact, NAN)
        for run, value in enumerate(intact):
            if not value >= MIN_SUCCESS:
                share = "not played" if np.isnan(value) else f"intact {measure} {value:.2f} below {MIN_SUCCESS:g}"
                reasons[run] = reasons[run] or share
    return ratio, [tau for tau, _ in found], reasons


def _above_random(
    cell: Effects, measure: Literal["success", "agreement"], taus: list[float], reasons: list[str]
) -> np.ndarray:
    """Return by run and level seed (R, G) what A owes to each, less that of the control; of usable runs."""
    changed = getattr(cell, measure).astype(np.float64)
    table = np.zeros((len(cell.runs), len(cell.level_seeds)))
    for tau in taus:
        own, control = (cell.of_kind(kind, tau=tau)[0] for kind in ("threshold", "random_drop"))
        intact = cell.per_run(getattr(cell, f"{measure}_intact").astype(np.float64), own)
        usable = np.array([NAN if reason else value for value, reason in zip(intact, reasons, strict=True)])
        table += (cell.by_level(changed, own) - cell.by_level(changed, control)) / usable[:, None]
    return table / (1 + len(taus))


def _with_intact(ratio: np.ndarray) -> np.ndarray:
    """Return the mean over thresholds (R,), the intact policy's ratio of 1 being one of them."""
    return (1.0 + ratio.sum(axis=1)) / (1 + ratio.shape[1])


def _words(taus: list[float]) -> str:
    return "tau 0, " + ", ".join(f"{tau:g}" for tau in taus)
