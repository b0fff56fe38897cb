"""Forced paths and credit with a known answer, see `science.synthetic`.

forced = plant_forced(template, rng, coupling=0.5)              # what is used follows what is needed
forced = plant_bit(template, player=(1, 2))                     # one expert carries the bit that actions depend on
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from science.forced import Forced
from science.traces import Traces

ACTIONS = 7


def _frame(template: Traces) -> dict[str, object]:
    """Return what does not depend on policies: the episodes of the template's first run."""
    steps = np.flatnonzero(template.run == 0)
    group, cells = template.group("subgoal"), template.group("cell")
    first = template.episode[steps[0]]
    cell = np.maximum(cells.codes[steps], 0)
    paths = np.array(list(itertools.product(*(range(len(layer)) for layer in template.sizes))), np.int8)
    return {
        "runs": template.runs,
        "sizes": template.sizes,
        "subgoals": group.names,
        "paths": paths,
        "cost": price_paths(paths, template.sizes),
        "level_seed": template.level_seed[template.episode_run == 0],
        "episode": (template.episode[steps] - first).astype(np.int32),
        "time": template.time[steps],
        "subgoal": group.codes[steps].astype(np.int16),
        "position": np.column_stack([cell % 8, cell // 8]).astype(np.int16),
        "bot_action": template.bot_action[steps],
    }


def price_paths(paths: np.ndarray, sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the sum over layers of size^2 of each path (C, L), float64 (C,)."""
    return np.array([sum(float(sizes[layer][e]) ** 2 for layer, e in enumerate(path)) for path in paths.tolist()])


def plant_forced(
    template: Traces,
    rng: np.random.Generator,
    *,
    coupling: float = 0.0,
    matters: float = 0.0,
    drift: float = 0.3,
    level: float = 0.2,
    wrong: float = 0.1,
) -> Forced:
    """Return policies of which each step needs some cost, and paths from that cost on take the bot's action, mostly.

    What is needed and used both change in the course of an episode, alike in all runs, and from level to level.

    Args:
        template: Gives runs and the episodes of the first one.
        rng: Draws.
        coupling: How far what is used follows what is needed beyond that, from 0 to 1.
        matters: Share of steps at which a path that costs enough is wrong all the same, because it is not the one that
            the run has for the subgoal among those of its cost.
        drift: Of both in the course of an episode, as a share of the greatest cost.
        level: Standard deviation of an effect of each level on both.
        wrong: Share of steps at which a path is not what its cost says, and of those at which the policy is wrong.
    """
    frame = _frame(template)
    cost, episode = frame["cost"], frame["episode"]
    runs, steps, top = len(template.runs), len(episode), max(float(cost.max()), 1.0)
    lengths = np.bincount(episode)
    progress = (frame["time"] + 0.5) / lengths[episode] - 0.5
    both = drift * progress + level * rng.normal(size=len(lengths))[episode]
    need = 0.3 + both + 0.15 * rng.normal(size=steps) + 0.1 * rng.normal(size=(runs, steps))
    used = 0.5 + both + 0.1 * rng.normal(size=(runs, steps)) + coupling * (need - both - 0.3)
    right = cost[:, None] / top >= need[:, None]
    if matters:
        _, of_path = np.unique(cost, return_inverse=True)
        of_path = of_path.reshape(-1)
        own = rng.integers(0, 1_000_000, (runs, int(frame["subgoal"].max(initial=0)) + 1, of_path.max() + 1))
        number = np.array([(of_path[:place] == of_path[place]).sum() for place in range(len(of_path))])
        favoured = own[:, :, of_path] % np.bincount(of_path)[of_path] == number  # (R, X, C)
        spared = favoured[:, np.maximum(frame["subgoal"], 0)].swapaxes(1, 2)
        right = right & (spared | (rng.random(right.shape, np.float32) >= matters))
    right = right ^ (rng.random(right.shape, np.float32) < wrong)
    other = (frame["bot_action"] + rng.integers(1, ACTIONS, right.shape, np.int8)) % ACTIONS
    action = np.where(right, frame["bot_action"], other).astype(np.int8)
    soft = np.where(rng.random((runs, steps)) < wrong, (frame["bot_action"] + 1) % ACTIONS, frame["bot_action"])
    return Forced(
        **frame,
        action=action,
        ce=np.where(right, 0.2, 1.5).astype(np.float32),
        soft_action=soft.astype(np.int8),
        used=(top * np.clip(used, 0, 1)).astype(np.float32),
        likeliest=rng.integers(0, len(cost), (runs, steps)).astype(np.int16),
    )


def plant_bit(template: Traces, player: tuple[int, int], by: str = "carrying") -> Forced:
    """Return policies whose action is a bit, 0 or 1, that one expert alone carries; without it they do 0.

    All is used where the bit is 1, and half of it where it is 0.

    Args:
        template: Gives runs and the episodes of the first one.
        player: Layer and expert.
        by: Group whose number, 0 or 1, is the bit.
    """
    frame = _frame(template)
    bit = template.group(by).codes[template.run == 0].astype(np.int8)
    has = frame["paths"][:, player[0]] == player[1]
    runs, top = len(template.runs), float(frame["cost"].max())
    action = np.broadcast_to(np.where(has[:, None], bit, 0), (runs, len(has), len(bit))).astype(np.int8)
    return Forced(
        **{**frame, "bot_action": bit},
        action=action,
        ce=np.where(action == bit, 0.0, np.log(2)).astype(np.float32),
        soft_action=np.broadcast_to(bit, (runs, len(bit))),
        used=np.broadcast_to(np.where(bit == 1, top, top / 2), (runs, len(bit))).astype(np.float32),
        likeliest=np.full((runs, len(bit)), len(has) - 1, np.int16),
    )


def plant_credit(
    rng: np.random.Generator,
    runs: int,
    levels: int,
    groups: int,
    players: int,
    *,
    shared: float = 0.0,
    own: float = 0.1,
    level: float = 0.3,
    noise: float = 0.3,
) -> np.ndarray:
    """Return credit by level (R, G, X, N) in nats; hard groups and important experts add up, alike in all runs.

    Args:
        rng: Draws.
        runs: R.
        levels: G.
        groups: X.
        players: N.
        shared: Of a profile over groups and experts that all runs have.
        own: Of one that each run has to itself.
        level: Of an effect of each level, group and expert, the same for all runs.
        noise: Of each of them in each run.
    """
    vulnerable = rng.gamma(1.0, 0.5, (1, 1, groups, 1)) + rng.gamma(1.0, 0.5, (1, 1, 1, players))
    found = vulnerable + shared * rng.normal(size=(1, 1, groups, players))
    found = found + own * rng.normal(size=(runs, 1, groups, players))
    found = found + level * rng.normal(size=(1, levels, groups, players))
    return found + noise * rng.normal(size=(runs, levels, groups, players))
