"""Traces with a known answer: routers and policies that were planted, on levels that were drawn or on those of a study.

    template = draw_template(Design(runs=10, episodes=40), np.random.default_rng(0))     # or a study's own traces
    traces = plant_signal(template, rng, shared=0.06, own=0.03)      # consistency 0.06^2 / (0.06^2 + 0.03^2) = 0.8

A planted router keeps everything of the template but weights, LPC, and where asked for logits: runs, level seeds,
lengths of episodes, subgoals. So an analysis can be tried on the very design of a study, with nothing
to be found in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from science.traces import Group, Run, Traces

SUBGOALS = ("GoNextTo", "Open", "Pickup", "Drop")
NUM_ACTIONS = 7


@dataclass(frozen=True)
class Design:
    """The shape of a study's cell.

    Attributes:
        runs: Seeds.
        episodes: Levels that each run plays, the same for all.
        shortest: Steps of the shortest episode.
        longest: Of the longest.
        sizes: Hidden size of each expert, per layer.
        side: Cells along each side of the room.
    """

    runs: int = 10
    episodes: int = 40
    shortest: int = 8
    longest: int = 24
    sizes: tuple[tuple[int, ...], ...] = ((0, 16, 32), (0, 16, 32), (0, 16, 32))
    side: int = 6


@dataclass(frozen=True)
class Setup:
    """What a data set is made of.

    Attributes:
        template: Runs, level seeds, lengths and groups of one task and setting, or of a task at all prices.
        rng: Draws everything.
        planted: Whether the claim holds.
        draws: Of each null.
        levels: Families that the runs have learned.
        held_out: Families that they have not.
    """

    template: Traces
    rng: np.random.Generator
    planted: bool
    draws: int
    levels: int = 16
    held_out: int = 0

    def draw_seed(self) -> int:
        """Return a seed for an analysis."""
        return int(self.rng.integers(2**31))


def draw_template(design: Design, rng: np.random.Generator, *, alphas: Sequence[float] = (0.0,)) -> Traces:
    """Return traces of runs that see the same levels, with routers and a policy that do nothing.

    In the course of an episode subgoals follow each other, and the agent drifts through the room: what depends on time
    only goes together with both.

    Args:
        design: Its shape.
        rng: Draws everything.
        alphas: Prices; each has its own setting and `design.runs` runs of the seeds 0, 1, ...
    """
    lengths = rng.integers(design.shortest, design.longest + 1, design.episodes)
    episode = np.repeat(np.arange(design.episodes), lengths)
    time = np.concatenate([np.arange(n) for n in lengths])
    progress = (time + 0.5) / lengths[episode]
    pace = np.sort(rng.dirichlet(np.full(len(SUBGOALS), 8.0), design.episodes).cumsum(axis=1), axis=1)
    subgoal = np.minimum((progress[:, None] > pace[episode]).sum(axis=1), len(SUBGOALS) - 1)
    carrying = (progress > rng.uniform(0.3, 0.7, design.episodes)[episode]).astype(np.int32)
    start = rng.uniform(0, 0.5, (design.episodes, 2))
    place = start[episode] + 0.5 * progress[:, None] + rng.normal(0, 0.12, (len(episode), 2))
    cell = np.clip(place * design.side, 0, design.side - 1).astype(np.int64) @ [1, design.side]
    runs = [
        Run("Planted", f"alpha {alpha:g}", trial, seed, lpc_alpha=float(alpha))
        for trial, alpha in enumerate(alphas)
        for seed in range(design.runs)
    ]
    many, n, steps = len(runs), design.episodes, len(episode)
    width = max(map(len, design.sizes))
    weights = np.zeros((many * steps, len(design.sizes), width), np.float32)
    for layer, sizes in enumerate(design.sizes):
        weights[:, layer, : len(sizes)] = 1 / len(sizes)

    def tile(values: np.ndarray) -> np.ndarray:
        return np.tile(values.astype(np.int32), many)

    cells = tuple(f"({c % design.side}, {c // design.side})" for c in range(design.side**2))
    return Traces(
        source="R",
        runs=tuple(runs),
        sizes=design.sizes,
        levels=("Planted",),
        episode_run=np.repeat(np.arange(many, dtype=np.int32), n),
        episode_level=np.zeros(many * n, np.int32),
        level_seed=np.tile(np.arange(n, dtype=np.int64), many),
        success=np.ones(many * n, np.float32),
        episode=(tile(episode) + np.repeat(np.arange(many, dtype=np.int32) * n, steps)).astype(np.int32),
        time=tile(time),
        weights=weights,
        logits=np.zeros((many * steps, NUM_ACTIONS), np.float32),
        action=np.zeros(many * steps, np.int8),
        bot_action=np.tile(rng.integers(0, 3, steps).astype(np.int8), many),
        lpc=price_weights(weights, design.sizes),
        groups={
            "level_subgoal": Group(tile(subgoal), tuple(f"Planted: {name}" for name in SUBGOALS)),
            "subgoal": Group(tile(subgoal), SUBGOALS),
            "carrying": Group(tile(carrying), ("not carrying", "carrying")),
            "cell": Group(tile(cell), cells),
            "state": Group(tile(cell * 2 + carrying), tuple(f"{c} {w}" for c in cells for w in ("empty", "carrying"))),
        },
        unlabelled=np.zeros(many, np.int64),
    )


def price_weights(weights: np.ndarray, sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the LPC (S,) of weights (S, L, E): sum of weight x size^2."""
    cost = np.zeros(weights.shape[1:])
    for layer, row in enumerate(sizes):
        cost[layer, : len(row)] = np.square(row, dtype=np.float64)
    return np.einsum("sle,le->s", weights, cost).astype(np.float32)


def set_weights(template: Traces, weights: np.ndarray) -> Traces:
    """Return the template with other weights (S, L, E), cut to at least 0.001 and made to sum to 1, and their LPC."""
    weights = np.where(template.experts, np.maximum(weights, 1e-3), 0.0)
    weights = (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32)
    return replace(template, weights=weights, lpc=price_weights(weights, template.sizes))


def keep_first_steps(template: Traces) -> Traces:
    """Return the first step of each episode alone: for what depends on a run's means, and not on steps."""
    kept = np.unique(template.episode, return_index=True)[1]
    of_step = ("episode", "time", "weights", "logits", "action", "bot_action", "lpc")
    groups = {name: Group(group.codes[kept], group.names) for name, group in template.groups.items()}
    return replace(template, groups=groups, **{name: getattr(template, name)[kept] for name in of_step})


# ---------------------------------------------------------------------------------------------------------- routers


def plant_signal(
    template: Traces,
    rng: np.random.Generator,
    *,
    by: str = "level_subgoal",
    shared: float = 0.0,
    own: float = 0.0,
    drift: float = 0.0,
    level: float = 0.0,
    noise: float = 0.05,
) -> Traces:
    """Return routers whose weights are equal but for what is planted, in units of weight (standard deviations).

    Args:
        template: What is kept.
        rng: Draws everything.
        by: Group of steps that `shared` and `own` depend on.
        shared: Of a profile over groups and experts that all runs have.
        own: Of one that each run has to itself.
        drift: Of a trend in the course of an episode, each run's own.
        level: Of an effect of each level seed, the same for all runs.
        noise: Of an effect of each episode in each run, and again of each step.
    """
    group = template.group(by)
    lengths = np.bincount(template.episode, minlength=len(template.episode_run))
    progress = (template.time + 0.5) / lengths[template.episode] - 0.5
    seeds = np.unique(template.level_seed, return_inverse=True)[1].reshape(-1)
    runs, shape = len(template.runs), template.weights.shape[1:]

    def draw(*count: int) -> np.ndarray:
        values = rng.normal(size=(*count, *shape)) * template.experts
        mean = values.sum(axis=-1, keepdims=True) / template.experts.sum(axis=-1, keepdims=True)
        return (values - mean) * template.experts

    def profile(*count: int) -> np.ndarray:
        values = draw(*count, len(group.names))
        return np.concatenate([values - values.mean(axis=-3, keepdims=True), np.zeros_like(values[..., :1, :, :])], -3)

    found = 1.0 / template.experts.sum(axis=1)[:, None] * template.experts + np.zeros((len(template.episode), 1, 1))
    found += shared * profile()[group.codes] + own * profile(runs)[template.run, group.codes]
    found += drift * 3.5 * draw(runs)[template.run] * progress[:, None, None]
    found += level * draw(seeds.max() + 1)[seeds][template.episode]
    found += noise * (draw(len(template.episode_run))[template.episode] + draw(len(template.episode)))
    return set_weights(template, found)


def plant_constant(template: Traces, rng: np.random.Generator) -> Traces:
    """Return collapsed routers: all runs prefer the same experts, and nothing depends on anything."""
    base = rng.dirichlet(np.full(template.weights.shape[2], 2.0), template.weights.shape[1])
    return set_weights(template, base + 1e-4 * rng.normal(size=template.weights.shape))


def plant_one_hot(template: Traces, by: str = "level_subgoal") -> Traces:
    """Return routers that give all weight to one expert, its number that of the group modulo the layer's experts."""
    return _one_hot(template, template.group(by).codes)


def plant_copy(template: Traces, by: str = "carrying", layer: int = 0) -> Traces:
    """Return routers of which one layer copies a group, and the others do nothing."""
    copied = _one_hot(template, template.group(by).codes)
    others = np.arange(template.weights.shape[1]) != layer
    weights = np.where(others[:, None], template.experts / template.experts.sum(axis=1)[:, None], copied.weights)
    weights = weights.astype(np.float32)
    return replace(template, weights=weights, lpc=price_weights(weights, template.sizes))


def _one_hot(template: Traces, codes: np.ndarray) -> Traces:
    width = template.experts.sum(axis=1)
    chosen = codes[:, None] % width
    weights = (np.arange(template.weights.shape[2]) == chosen[:, :, None]).astype(np.float32)
    return replace(template, weights=weights, lpc=price_weights(weights, template.sizes))


def plant_prices(
    template: Traces, rng: np.random.Generator, half: np.ndarray, *, steepness: float = 2.0, noise: float = 0.01
) -> Traces:
    """Return routers whose use of each expert falls with the price: share / (1 + (alpha / half)^steepness).

    What an expert loses goes to the first one of its layer, whose `half` is not used.

    Args:
        template: Of several prices, see `draw_template`.
        rng: Draws run effects.
        half: (L, E), the price at which use is half of that at 0; inf: never.
        steepness: Of the sigmoid.
        noise: Standard deviation of an effect of each run.
    """
    alpha = np.array([run.lpc_alpha for run in template.runs])[:, None, None]
    share = 1.0 / template.experts.sum(axis=1)[:, None] * template.experts
    found = share / (1 + (alpha / half) ** steepness) + noise * rng.normal(size=(len(alpha), *half.shape))
    found = np.clip(found, 1e-4, None) * template.experts
    found[:, :, 0] = np.maximum(1 - found[:, :, 1:].sum(axis=2), 1e-4)
    return set_weights(template, found[template.run])


# --------------------------------------------------------------------------------------------------------- policies


def plant_policy(template: Traces, codes: np.ndarray | None, *, sharpness: float = 40.0) -> Traces:
    """Return policies that do action code % 7 in each state, surely; or without codes, anything with equal chance."""
    if codes is None:
        return replace(template, logits=np.zeros_like(template.logits))
    actions = np.asarray(codes) % template.logits.shape[1]
    logits = sharpness * np.eye(template.logits.shape[1], dtype=np.float32)[actions]
    return replace(template, logits=logits, action=actions.astype(np.int8))


def plant_noisy_policy(
    template: Traces, rng: np.random.Generator, *, spread: float = 1.5, drift: float = 1.0
) -> Traces:
    """Return policies that depend on the cell, on the time and on chance, apart from all that routers do."""
    cells = template.group("cell")
    actions = template.logits.shape[1]
    by_cell = rng.normal(0, spread, (len(template.runs), len(cells.names) + 1, actions))
    by_time = rng.normal(0, drift, (len(template.runs), actions))
    lengths = np.bincount(template.episode, minlength=len(template.episode_run))
    progress = (template.time + 0.5) / lengths[template.episode] - 0.5
    logits = by_cell[template.run, cells.codes] + 3 * by_time[template.run] * progress[:, None]
    logits += rng.normal(0, 1, (len(template.episode_run), actions))[template.episode] + rng.normal(0, 1, logits.shape)
    logits = logits.astype(np.float32)
    return replace(template, logits=logits, action=logits.argmax(axis=1).astype(np.int8))
