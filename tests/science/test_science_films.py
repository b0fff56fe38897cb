"""Which knock-outs, runs and levels a study films; that the films are made is a test of the whole study."""

import numpy as np

from science.effects import Condition
from science.films import choose
from science.planted_effects import build_effects
from science.traces import Run

RUNS = [Run("T", "alpha=0", 1, seed) for seed in (0, 1)]
SEEDS = np.array([40, 50, 60])
CONDITIONS = [
    Condition("sham", "sham"),
    Condition("zero", "knockout", 0, 1, 8, "zero"),
    Condition("harmless", "knockout", 0, 0, 0, "zero"),
    Condition("worst", "knockout", 0, 2, 16, "zero"),
    Condition("not renormalised", "knockout", 0, 2, 16, "zero", renormalise=False),
    Condition("random direction", "random_direction", 0, 2, 16),
]


def build(lost=()):
    """Return effects of two runs on three levels; each (run, condition, level) in `lost` is solved intact only."""
    change = np.zeros((2, len(CONDITIONS), 3))
    change[:, 1] = [[0.1, 0.2, 0.3], [0.9, 0.1, 0.2]]
    change[:, 3] = [[1.0, 2.0, 3.0], [1.0, 5.0, 1.0]]
    change[:, 4:] = 99.0
    success, intact = np.ones(change.shape), np.ones((2, 3))
    for place in lost:
        success[place] = 0.0
    return build_effects(RUNS, SEEDS, CONDITIONS, change, success=success, success_intact=intact)


def test_the_worst_knockouts_come_first_each_on_the_level_it_raises_most():
    assert choose(build(), 2) == [(3, 1, 50), (1, 1, 40)]
    assert choose(build(), 1) == [(3, 1, 50)] and choose(build(), 0) == []
    assert [condition for condition, _, _ in choose(build(), 9)] == [3, 1, 2]


def test_a_level_that_is_lost_comes_before_one_that_costs_more():
    assert choose(build(lost=[(0, 3, 0), (0, 3, 1)]), 1) == [(3, 0, 50)]
    assert choose(build(lost=[(0, 2, 0)]), 1) == [(3, 1, 50)]  # of another knock-out
