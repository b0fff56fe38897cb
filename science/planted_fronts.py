"""Success and cost with a known answer: policies at several prices, dense networks, a dial, see `science.synthetic`.

    traces, baselines, effects = plant_front(template, rng, gain=0.1)

Success rises with cost and levels off, along one curve for all: who pays the same succeeds as often, but for what
policies trained at a price gain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from science.effects import Condition, Effects
from science.fronts import FrontPoint
from science.planted_effects import build_effects
from science.synthetic import keep_first_steps, plant_prices
from science.traces import Traces

MOST, RISE = 0.9, 4.0
"""Success of whoever pays all, and how steeply it rises: MOST (1 - exp(-RISE cost / greatest cost))."""

TURNS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Strengths of the dial, those of `science.conditions`."""

RUN_SD = 0.03
"""Standard deviation of runs' chances of success."""


def plant_outcomes(
    template: Traces, rng: np.random.Generator, chance: np.ndarray | float, *, run_sd: float = RUN_SD
) -> Traces:
    """Return own play whose runs succeed by chance (R,) or one for all, and an effect of each run."""
    each = chance + run_sd * rng.normal(size=len(template.runs))
    won = rng.random(len(template.episode_run)) < np.clip(each, 0, 1)[template.episode_run]
    return replace(template, source="P", success=won.astype(np.float32))


def find_success(cost: np.ndarray, greatest: float) -> np.ndarray:
    """Return the chance of success at each cost."""
    return MOST * (1 - np.exp(-RISE * np.asarray(cost) / greatest))


def plant_front(
    template: Traces, rng: np.random.Generator, *, gain: float = 0.0, equal: bool = False
) -> tuple[Traces, list[FrontPoint], Effects]:
    """Return own play of policies at all prices, dense networks of the same seeds, and the dial of the free policies.

    Args:
        template: A task at several prices.
        rng: Draws everything.
        gain: Added to the chance of success of the policies that were trained at a price, and of the free ones against
            the dense networks.
        equal: Dense networks and the dial have the costs of the policies, one for one; else dense networks those of
            the largest and the smallest path, the dial what its strengths give.
    """
    paid = [run.lpc_alpha for run in template.runs if run.lpc_alpha > 0]
    half = np.full(template.weights.shape[1:], np.sqrt(min(paid) * max(paid)))
    traces = plant_prices(keep_first_steps(template), rng, half, noise=0.02)
    first = np.searchsorted(traces.episode_run, np.arange(len(traces.runs)))
    weights, cost = traces.weights[first].astype(np.float64), traces.lpc[first].astype(np.float64)
    squares = [np.square(np.array(layer, np.float64)) for layer in traces.sizes]
    greatest = float(sum(layer.max() for layer in squares))
    traces = plant_outcomes(traces, rng, find_success(cost, greatest) + gain)
    episodes = int(np.bincount(traces.episode_run).max())
    lowest = min(run.lpc_alpha for run in traces.runs)
    free = [index for index, run in enumerate(traces.runs) if run.lpc_alpha == lowest]
    seeds = np.array([run.seed for run in traces.runs])

    def draw(costs: np.ndarray) -> np.ndarray:
        chance = find_success(costs, greatest) + RUN_SD * rng.normal(size=np.shape(costs))
        return np.clip(chance, 0, 1)

    points, turned = [], []
    for place in free:
        own = np.flatnonzero(seeds == seeds[place])
        if equal:
            dense, dial = cost[own], cost[own[own != place]]
        else:
            smallest = sum(layer[layer > 0].min(initial=layer.max()) for layer in squares)
            dense = np.array([greatest, float(smallest)])
            dial = np.array([turn_cost(weights[place], squares, turn) for turn in TURNS])
        won = rng.binomial(episodes, draw(dense)) / episodes
        points += [FrontPoint(int(seeds[place]), float(c), float(s)) for c, s in zip(dense, won, strict=True)]
        turned.append(dial)
    if min(map(len, turned)) < max(map(len, turned)):
        raise LookupError("needs each seed at each price")
    lpc = np.array(turned)  # (free runs, strengths)
    levels = np.unique(traces.level_seed)
    shape = (*lpc.shape, len(levels))
    won = (rng.random(shape) < draw(lpc)[:, :, None]).astype(np.float64)
    conditions = [Condition(f"dial {number}", "dial", tau=float(number)) for number in range(lpc.shape[1])]
    intact = np.ones((len(free), len(levels)))
    runs = [traces.runs[place] for place in free]
    effects = build_effects(runs, levels, conditions, np.zeros(shape), success=won, success_intact=intact)
    effects = replace(effects, lpc=np.broadcast_to(lpc[:, :, None], shape).reshape(-1))
    return traces, points, effects


def turn_cost(weights: np.ndarray, squares: list[np.ndarray], turn: float) -> float:
    """Return the LPC of weights (L, E) turned by exp(-turn cost / greatest cost of an expert)."""
    largest = max(layer.max() for layer in squares)
    total = 0.0
    for row, cost in zip(weights, squares, strict=True):
        changed = row[: len(cost)] * np.exp(-turn * cost / largest)
        total += float(changed @ cost / changed.sum())
    return total
