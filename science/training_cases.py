"""What `science.cases` tries of training and of states: each makes a data set and returns what is found in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from science import probes
from science.handover import add_handover
from science.planted_training import plant_bit, plant_erasures, plant_handover, rise
from science.result import Draft, Result, Row
from science.rises import add_lead, find_rises

Found = tuple[Row, np.ndarray]
"""As of `science.cases`, whose `Setup` each takes."""

UPDATES = (1, 3, 7, 18, 46, 119, 309, 800)


def try_lead(setup: Any) -> Found:
    """Routes come halfway, and success at 0.9, at an update that differs between runs; the former an octave before."""
    rng, runs, levels = setup.rng, setup.template.runs, len(np.unique(setup.template.level_seed))
    skill = 60 * 2 ** rng.normal(0, 0.5, len(runs))
    routes = skill * 2 ** (rng.normal(0, 0.5, len(runs)) - (1.0 if setup.planted else 0.0))
    information = 0.3 * rise(UPDATES, routes) + 0.005 * rng.normal(size=(len(runs), len(UPDATES)))
    chance = 0.99 * rise(UPDATES, skill / np.exp(np.log(10) / 3))  # 0.9 where skill is
    success = rng.binomial(levels, chance) / levels
    draft = Draft("dynamics", "")
    times = [
        find_rises(np.array(UPDATES), information, information[:, -1] / 2),
        find_rises(np.array(UPDATES), success, np.full(len(runs), 0.9)),
    ]
    reasons = [""] * len(runs)
    add_lead(draft, (times[0], reasons), (times[1], reasons), runs, levels)
    return _pick(draft.finish(), "rise_lead")


def try_handover(setup: Any) -> Found:
    """Levels hand over by chance, in all runs alike; and the harder, the more."""
    first = setup.template.episode_run == 0
    lengths = np.bincount(setup.template.episode, minlength=len(setup.template.episode_run))[first].astype(np.float64)
    runs, slope = setup.template.runs, 1.0 if setup.planted else 0.0
    table = plant_handover(lengths, setup.rng, runs=len(runs), updates=len(UPDATES), slope=slope)
    draft = Draft("dynamics", "")
    add_handover(draft, "handover", table, lengths, runs, setup.rng, setup.draws)
    if not draft.rows:
        raise LookupError(draft.notes[0].partition(": ")[2])
    return _pick(draft.finish(), "handover")


def try_selectivity(setup: Any) -> Found:
    """States know the time and the level; and a bit."""
    return _probe(setup, "selectivity")


def try_memory_gain(setup: Any) -> Found:
    """States know the time and the level as well as the observation does; and a bit."""
    return _probe(setup, "memory_gain")


def _probe(setup: Any, quantity: str) -> Found:
    states = plant_bit(setup.template, setup.rng, size=0.5 if setup.planted else 0.0)
    return _pick(probes.compute([states], seed=setup.draw_seed()), quantity)


def try_erasure(setup: Any) -> Found:
    """What is erased does as much harm as what is erased at random; and 0.05 nats more."""
    effects = plant_erasures(setup.template, setup.rng, harm=0.05 if setup.planted else 0.0)
    draft = Draft("probes", "")
    probes.add_erasures(draft, effects)
    return _pick(draft.finish(), "erasure_gain_routers")


def _pick(result: Result, quantity: str) -> Found:
    return result.row(quantity), np.array([row.value for row in result.find(quantity, unit="run")])
