"""Claims over levels with data in which they hold and do not: part of `science.cases`, see there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from science.difficulty import slopes
from science.kinship import add_mantel, add_reuse, find_cosine, find_relatives
from science.levels import ALL_TASKS, FEWEST, add_over_both, add_over_levels
from science.result import Draft, Row
from science.statistics.inference import compute_equivalence
from science.synthetic import Setup
from science.traces import Run

MARGIN = 0.1
"""Of the loss of success on held-out levels, where none is claimed."""


def list_runs(setup: Setup) -> list[Run]:
    """Return the runs of a design as runs on all levels.

    Raises:
        LookupError: If it has too few levels for a claim over levels.
    """
    if setup.levels < FEWEST:
        raise LookupError(f"needs {FEWEST} levels, found {setup.levels}")
    return [Run(ALL_TASKS, run.setting, run.trial, run.seed) for run in setup.template.runs]


def plant_difficulty(
    rng: np.random.Generator, runs: int, levels: int, *, slope: float, shared: float = 1.0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return LPC (N, G) = a + slope x difficulty + effects of levels + noise, and difficulty (G,), all in its sd.

    Args:
        rng: Draws everything.
        runs: N.
        levels: G.
        slope: b.
        shared: Of effects of levels that all runs have, which are no difficulty.
        noise: Of each run on each level.
    """
    difficulty = rng.lognormal(size=levels)
    ranks = difficulty.argsort().argsort() - (levels - 1) / 2
    own = rng.normal(size=(runs, 1)) + noise * rng.normal(size=(runs, levels))
    return 10 + slope * ranks / ranks.std() + shared * rng.normal(size=levels) + own, difficulty


def follow_difficulty(setup: Setup) -> tuple[Row, np.ndarray]:
    """LPC of levels that all runs route in a way of their own."""
    return _over_levels(setup, "lpc_plan_length")


def follow_subgoals(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same, difficulty by number of subgoals."""
    return _over_levels(setup, "lpc_subgoals")


def follow_played(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same, of own successes."""
    return _over_levels(setup, "lpc_plan_length_played")


def follow_learning(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same, difficulty by how long a dense network learns; a quarter of the levels are censored."""
    return _over_levels(setup, "lpc_steps_to_learn", censored=True)


def lesion_above_small(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same of the difference of two lesions."""
    return _over_levels(setup, "lesion_slope_above_small", statistic=slopes)


def lesion_by_difficulty(setup: Setup) -> tuple[Row, np.ndarray]:
    """Harm of a lesion that differs between levels, in all runs alike."""
    return _over_levels(setup, "lesion_slope", statistic=slopes)


def _over_levels(setup: Setup, quantity: str, *, censored: bool = False, **how: object) -> tuple[Row, np.ndarray]:
    runs, draft = list_runs(setup), Draft("difficulty", "")
    slope = 1.5 if setup.planted else 0.0
    table, difficulty = plant_difficulty(setup.rng, len(runs), setup.levels, slope=slope)
    difficulty = np.where(censored & (difficulty > np.quantile(difficulty, 0.75)), np.inf, difficulty)
    row = add_over_levels(draft, quantity, table, difficulty, runs, setup.rng, max(setup.draws, 99), **how)
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


def follow_plan(setup: Setup) -> tuple[Row, np.ndarray]:
    """Correlations within levels, trained minus untrained, which runs and levels have in common."""
    runs, draft, rng = list_runs(setup), Draft("difficulty", ""), setup.rng
    table = 0.1 * (rng.normal(size=(len(runs), 1)) + rng.normal(size=setup.levels))
    table = table + 0.1 * rng.normal(size=(len(runs), setup.levels)) + (0.15 if setup.planted else 0.0)
    row = add_over_both(draft, "lpc_remaining_above_untrained", table, runs)
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


# --------------------------------------------------------------------------------------------------------- similarity


def plant_kinship(
    rng: np.random.Generator, runs: int, levels: int, *, gain: float, shared: float = 1.0, noise: float = 0.7
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return K_route (N, G, G), K_task (G, G) and K_route of untrained policies, of levels with mixes of 4 subgoals.

    A level has a place in the space of routing, the same in all runs; of a run's own; and, by `gain`, that of its mix.

    Args:
        rng: Draws everything.
        runs: N.
        levels: G.
        gain: Of the mix of subgoals, in standard deviations of the others.
        shared: Of places that all runs have in common, trained or not.
        noise: Of each run's own.
    """
    mixes = rng.dirichlet(np.full(4, 0.7), levels)
    centered = (mixes - mixes.mean(axis=0)) / mixes.std()
    common = shared * rng.normal(size=(levels, 4))
    before = common + noise * rng.normal(size=(runs, levels, 4))
    after = common + gain * centered + noise * rng.normal(size=(runs, levels, 4))
    route = [np.exp(-np.square(p[:, :, None] - p[:, None]).sum(axis=3) / 16) for p in (after, before)]
    return route[0], find_cosine(mixes), route[1]


def route_like_task(setup: Setup) -> tuple[Row, np.ndarray]:
    """Levels have places in routing that all runs share, with subgoals or apart from them."""
    return _kinship(setup, "route_like_task")


def route_above_untrained(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same beside policies before training, which have the shared places and nothing of subgoals."""
    return _kinship(setup, "route_like_task_above_untrained", untrained=True)


def lesion_like_task(setup: Setup) -> tuple[Row, np.ndarray]:
    """Harm of lesions has places as routing has."""
    return _kinship(setup, "lesion_like_task")


def given_length(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same with the difference in plan length partialled out, which is one more effect of levels."""
    return _kinship(setup, "route_like_task_given_length", partial=True)


def route_like_lesion(setup: Setup) -> tuple[Row, np.ndarray]:
    """Two matrices of each run, of levels' places in routing and in lesions, either shared by all runs."""
    runs, draft, rng = list_runs(setup), Draft("similarity", ""), setup.rng
    gain = 2.0 if setup.planted else 0.0
    route, task, _ = plant_kinship(rng, len(runs), setup.levels, gain=gain)
    lesion = plant_kinship(rng, len(runs), setup.levels, gain=0.0)[0]
    lesion = lesion + gain * task
    row = add_mantel(draft, "route_like_lesion", route, lesion, runs, rng, max(setup.draws, 99))
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


def held_out_gap(setup: Setup) -> tuple[Row, np.ndarray]:
    """Difference between held-out levels and relatives, in which runs and levels have ways of their own."""
    return _gap(setup, "held_out_lpc_gap")


def held_out_loss(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same of success."""
    return _gap(setup, "held_out_loss")


def no_held_out_loss(setup: Setup) -> tuple[Row, np.ndarray]:
    """No loss is claimed: p is that of equivalence, and what has to be rejected is a loss as large as the margin."""
    row, each = _gap(setup, "held_out_loss", 0.0 if setup.planted else MARGIN, spread=0.03)
    return replace(row, p=compute_equivalence(row.__dict__, MARGIN, 0.0)), each


def _gap(setup: Setup, quantity: str, mean: float | None = None, *, spread: float = 0.1) -> tuple[Row, np.ndarray]:
    runs, draft, rng = list_runs(setup), Draft("similarity", ""), setup.rng
    number = max(setup.held_out, 3)
    mean = (0.3 if setup.planted else 0.0) if mean is None else mean
    table = rng.normal(size=(len(runs), 1)) + rng.normal(size=number) + rng.normal(size=(len(runs), number))
    row = add_over_both(draft, quantity, mean + spread * table, runs, least=1)
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


def _kinship(setup: Setup, quantity: str, *, untrained: bool = False, partial: bool = False) -> tuple[Row, np.ndarray]:
    runs, draft = list_runs(setup), Draft("similarity", "")
    route, task, before = plant_kinship(setup.rng, len(runs), setup.levels, gain=2.0 if setup.planted else 0.0)
    more = {"minus": before} if untrained else {}
    if partial:
        length = setup.rng.normal(size=setup.levels)
        more["given"] = -np.abs(length[:, None] - length)
    row = add_mantel(draft, quantity, route, task, runs, setup.rng, max(setup.draws, 99), **more)
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


def reuse_of_relatives(setup: Setup) -> tuple[Row, np.ndarray]:
    """As many held-out levels as the study has, four if it has none, in places of their own or of their subgoals."""
    return _reuse(setup, "reuse", untrained=False)


def reuse_above_untrained(setup: Setup) -> tuple[Row, np.ndarray]:
    """The same beside policies before training."""
    return _reuse(setup, "reuse_above_untrained", untrained=True)


def _reuse(setup: Setup, quantity: str, *, untrained: bool) -> tuple[Row, np.ndarray]:
    runs, draft, number = list_runs(setup), Draft("similarity", ""), setup.held_out or 4
    gain = 2.0 if setup.planted else 0.0
    route, task, before = plant_kinship(setup.rng, len(runs), setup.levels + number, gain=gain)
    values = (route - before if untrained else route)[:, :number, number:]
    relatives = find_relatives(task[:number, number:])
    row = add_reuse(draft, quantity, values, relatives, runs, setup.rng, max(setup.draws, 99))
    return row, np.array([each.value for each in draft.rows if each.unit == "run"])


KINSHIP = {
    "route_like_task": route_like_task,
    "route_like_task_above_untrained": route_above_untrained,
    "route_like_task_given_length": given_length,
    "lesion_like_task": lesion_like_task,
    "route_like_lesion": route_like_lesion,
    "reuse": reuse_of_relatives,
    "reuse_above_untrained": reuse_above_untrained,
}
"""Claims of `science.similarity` about which levels are alike."""

HELD_OUT = {"held_out_loss": held_out_loss, "held_out_lpc_gap": held_out_gap}
"""Its claims about a difference between held-out levels and their relatives."""
