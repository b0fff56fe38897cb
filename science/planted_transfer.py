"""Times to learn new levels with a known answer, and the claims of `science.transfer` that the calibration card tries.

learned = plant_learning(rng, runs=10, levels=6, ahead={"router": 1.0})       # routers need half as long as scratch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from science.arms import ALL_PARTS, PARTS, SCRATCH, untrained
from science.levels import ALL_TASKS
from science.result import Draft, Row
from science.traces import Run
from science.transfer import Learned, add_comparison, gather_times

BUDGET = 2.0**17.5
"""Env-steps; one in fifteen of the runs that begin from scratch needs more."""

PLANTED = 2.0
"""Doublings by which an arm is sooner, where it is."""

ARMS = (SCRATCH, *PARTS, *(untrained(part) for part in PARTS if part != ALL_PARTS))


def plant_learning(
    rng: np.random.Generator,
    *,
    runs: int,
    levels: int,
    ahead: Mapping[str, float],
    own: float = 0.5,
    noise: float = 0.7,
    budget: float = BUDGET,
) -> list[Learned]:
    """Return times of all arms, log-normal, of runs and levels that differ, censored at the budget.

    Args:
        rng: Draws everything.
        runs: N.
        levels: G.
        ahead: Doublings by which an arm is sooner on average; 0 of those that are not named.
        own: Of what each level does to each arm in all runs alike, in doublings (standard deviation).
        noise: Of each run, level and arm.
        budget: Env-steps.
    """
    found = []
    hard, skill = 0.5 * rng.normal(size=levels), 0.5 * rng.normal(size=runs)
    for arm in ARMS:
        of_level = own * rng.normal(size=levels) - ahead.get(arm, 0.0)
        logs = 16 + hard + of_level + skill[:, None] + noise * rng.normal(size=(runs, levels))
        for (seed, level), log in np.ndenumerate(logs):
            steps = 2.0**log
            run = Run(f"Planted{level}", "alpha=0", 0, seed)
            found.append(Learned(run, arm, float(steps) if steps <= budget else np.inf))
    return found


_CLAIMS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    **{f"gain_{part}": ({}, {part: PLANTED}) for part in PARTS},
    **{f"gain_{part}_above_untrained": ({}, {part: PLANTED}) for part in PARTS if part != ALL_PARTS},
    "router_against_experts": ({"router": 1.0, "experts": 1.0}, {"router": PLANTED}),
    "router_against_experts_above_untrained": (
        {"experts": 1.0, untrained("experts"): 1.0},
        {"router": PLANTED, "experts": 1.0, untrained("experts"): 1.0},
    ),
}
"""Of each claim how far arms are ahead where there is nothing to be found, and where there is."""


def _try(quantity: str, setup: Any) -> tuple[Row, np.ndarray]:
    """As many levels as the study transfers to, one if it says none; of three or more each has a way of its own."""
    levels = max(setup.held_out, 1)
    ahead = _CLAIMS[quantity][int(setup.planted)]
    own = 0.5 if levels >= 3 else 0.0
    learned = plant_learning(setup.rng, runs=len(setup.template.runs), levels=levels, ahead=ahead, own=own)
    draft = Draft("transfer", "")
    add_comparison(draft, gather_times(learned, BUDGET), quantity)
    found = draft.finish()
    each = found.find(quantity, unit="run", task=ALL_TASKS)
    return found.row(quantity, task=ALL_TASKS), np.array([row.value for row in each])


def _case(quantity: str) -> Callable[[Any], tuple[Row, np.ndarray]]:
    return lambda setup: _try(quantity, setup)


TRANSFER = {quantity: _case(quantity) for quantity in _CLAIMS}
"""Claims of `science.transfer`; in data in which they hold the value is `PLANTED`, but for what a budget cuts."""
