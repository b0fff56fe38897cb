"""Training and states with a known answer, see `science.synthetic`: routes that rise at a given update, planted bits.

grown = plant_rise(template, rng, updates=[1, 4, 16, 64], at=10.0)         # routes come halfway at update 10
states = plant_bit(template, rng, size=1.0)                                # states hold a bit that nothing shows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from science.effects import Condition, Effects
from science.planted_effects import build_effects
from science.probing import Target, choose_steps
from science.states import States
from science.synthetic import plant_signal, set_weights
from science.traces import Traces


def rise(updates: Sequence[int], at: np.ndarray | float, pace: float = 3.0) -> np.ndarray:
    """Return shares (R, U) that have risen by each update: one half at `at` (R,), logistic in the logarithm."""
    steps = np.log(np.asarray(updates, np.float64)) - np.log(np.asarray(at, np.float64).reshape(-1, 1))
    return 1 / (1 + np.exp(-pace * steps))


def plant_rise(
    template: Traces, rng: np.random.Generator, *, updates: Sequence[int], at: np.ndarray | float, own: float = 0.1
) -> Traces:
    """Return traces of each run at each update, whose routes grow into what they are in the end.

    Args:
        template: What is kept.
        rng: Draws.
        updates: U, ascending.
        at: Update at which they are halfway, one of all runs or of each (R,).
        own: Of the routes of each run by group, in weight (standard deviation).
    """
    last = plant_signal(template, rng, own=own, noise=0.0)
    even = template.experts / template.experts.sum(axis=1)[:, None]
    shares = np.broadcast_to(rise(updates, at), (len(template.runs), len(updates)))
    shares = shares / shares[:, -1:]
    parts = []
    for u, update in enumerate(updates):
        share = shares[:, u][template.run][:, None, None]
        runs = tuple(replace(run, update=update) for run in template.runs)
        parts.append(replace(set_weights(template, even + share * (last.weights - even)), runs=runs))
    return Traces.concatenate(parts)


def plant_play(template: Traces, rng: np.random.Generator, *, updates: Sequence[int], chance: np.ndarray) -> Effects:
    """Return own play of each run at each update, which succeeds with chance (R, U)."""
    seeds = np.unique(template.level_seed)
    runs = [replace(run, update=update) for update in updates for run in template.runs]
    done = (rng.random((len(runs), 1, len(seeds))) < chance.T.reshape(-1, 1, 1)).astype(np.float64)
    return build_effects(
        runs, seeds, [Condition("sham", "sham")], np.zeros(done.shape), success=done, success_intact=done[:, 0]
    )


def plant_handover(
    difficulty: np.ndarray, rng: np.random.Generator, *, runs: int, updates: int, slope: float, noise: float = 1.0
) -> np.ndarray:
    """Return LPC (R, U, N) that rises and falls again, by `slope` times the standardised difficulty and by chance.

    Levels differ in both, in all runs alike; runs fluctuate from update to update.

    Args:
        difficulty: (N,).
        rng: Draws.
        runs: R.
        updates: U.
        slope: In standard deviations of a level's own peak.
        noise: Of each run, update and level.
    """
    hard = (difficulty - difficulty.mean()) / max(float(difficulty.std()), 1e-9)
    bump = np.sin(np.linspace(0, np.pi, updates))
    peak = 2 + rng.normal(size=len(hard)) + slope * hard
    found = bump[:, None] * peak + rng.normal(size=len(hard)) + 0.3 * rng.normal(size=(runs, updates, 1))
    return 10 + found + noise * rng.normal(size=(runs, updates, len(hard)))


def plant_bit(template: Traces, rng: np.random.Generator, *, size: float, steps: int = 300) -> States:
    """Return states and an observation that know the time, and states that know a bit as well.

    The bit turns from 0 to 1 somewhere in the middle of each episode. Observation and states drift in the course of
    an episode; levels act on all runs alike.

    Args:
        template: Gives runs, level seeds and lengths.
        rng: Draws.
        size: Of the bit in the states, against noise of 1.
        steps: That probes see, at most.
    """
    first = template.run == 0
    episode, count = template.episode[first].astype(np.int64), int((template.episode_run == 0).sum())
    lengths = np.bincount(episode, minlength=count)
    progress = (template.time[first] + 0.5) / lengths[episode]
    bit = (progress > rng.uniform(0.2, 0.8, count)[episode]).astype(np.int8)
    chosen = choose_steps(episode, steps, 0)

    def draw(signal: float, level: np.ndarray) -> np.ndarray:
        drift, loading = rng.normal(size=(2, 16))
        drift, loading = (4 * vector / np.linalg.norm(vector) for vector in (drift, loading))
        values = np.outer(progress - 0.5, drift) + signal * np.outer(bit - 0.5, loading)
        return (values + level[episode] + rng.normal(size=(len(episode), 16)))[chosen].astype(np.float32)

    of_state, of_view = rng.normal(size=(2, count, 16))
    runs = tuple(template.runs)
    states = np.stack([draw(size, of_state) for _ in runs])
    seen = draw(0.0, of_view)
    return States(
        runs,
        np.asarray(template.level_seed[template.episode_run == 0]),
        episode.astype(np.int32),
        chosen,
        {"carrying": Target(bit, ("no", "yes"))},
        {"routers": states},
        {},
        seen,
        (seen > 0).astype(np.uint8),
    )


def plant_erasures(template: Traces, rng: np.random.Generator, *, harm: float, chance: float = 0.05) -> Effects:
    """Return what erasing a target from routers does, `harm` nats more than the random subspaces, which do `chance`."""
    seeds, names = np.unique(template.level_seed), ["carrying of routers"]
    names += [f"random {number} for {names[0]}" for number in (1, 2)]
    kinds = ["erasure", "random_erasure", "random_erasure"]
    conditions = [Condition("sham", "sham"), *(Condition(name, kind) for name, kind in zip(names, kinds, strict=True))]
    shape = (len(template.runs), len(conditions), len(seeds))
    ce = np.array([0.0, chance + harm, chance, chance])[None, :, None] + 0.03 * rng.normal(size=(*shape[:2], 1))
    ce = ce + 0.05 * rng.normal(size=(1, *shape[1:])) + 0.1 * rng.normal(size=shape)
    ce[:, 0] = 0.0
    return build_effects(template.runs, seeds, conditions, ce)
