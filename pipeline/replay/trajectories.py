"""The bot's way through given levels, step by step: what every policy is shown on replay. Needs no torch.

way = follow_expert("UnlockPickup", level_seeds)
way.steps["expert_action"][way.begins[3] : way.begins[4]]       # what it does in the fourth level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babyai.facts import EVENT_NAMES
from babyai.level_seeds import SeedList
from babyai.steps import VectorStep
from babyai.vector_env import VectorEnv
from pipeline.command.errors import ConfigError
from pipeline.interventions.situation import NEVER, count_since


@dataclass(frozen=True)
class Trajectories:
    """S steps of N episodes, in the order of the level seeds, then of time.

    Attributes:
        task_id: Full id.
        level_seeds: int64 (N,).
        begins: int64 (N + 1,), where each episode begins among the steps, and S.
        outcomes: int8 (N,), of `babyai.facts`.
        expert_steps: int32 (N,), length of the bot's plan.
        contexts: N descriptions of the level at its start.
        missions: Distinct sentences.
        mission: int64 (N,), index into `missions`.
        episode: int32 (S,).
        t_step: int32 (S,).
        steps: Other columns of the steps, (S, ...): view, direction, carrying, expert_action, the arrays of
            `babyai.facts.StepFacts` (event and event_object are what the step's action brought about), and since, steps
            since the last event of each kind.
        unsolvable: Seeds of levels that the bot cannot solve, which are left out.
        unlabelled_episodes: Episodes cut at a step at which the bot had no answer.
    """

    task_id: str
    level_seeds: np.ndarray
    begins: np.ndarray
    outcomes: np.ndarray
    expert_steps: np.ndarray
    contexts: tuple[dict[str, Any], ...]
    missions: tuple[str, ...]
    mission: np.ndarray
    episode: np.ndarray
    t_step: np.ndarray
    steps: dict[str, np.ndarray]
    unsolvable: tuple[int, ...]
    unlabelled_episodes: int

    def __len__(self) -> int:
        """Return the number of steps, S."""
        return len(self.episode)


def follow_expert(
    task_id: str, level_seeds: Sequence[int], *, max_steps: int | None = None, num_envs: int = 64
) -> Trajectories:
    """Let the bot play each level once, to its end or to the first step at which it has no answer.

    Args:
        task_id: BabyAI task.
        level_seeds: Distinct seeds.
        max_steps: Step limit; None for each level's own.
        num_envs: Levels played together; changes the speed, not the result.

    Raises:
        ConfigError: If seeds repeat, or the bot solves none of the levels.
    """
    seeds = [int(seed) for seed in level_seeds]
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ConfigError(
            f"level_seeds: expected one or more distinct seeds, found {len(seeds)} with {len(set(seeds))} distinct"
        )
    num_envs = min(num_envs, len(seeds))
    env = VectorEnv(task_id, num_envs, SeedList(seeds), max_steps=max_steps, plan_every=1, record=True)
    rows, ended, numbers = [], [], []
    running, following = np.arange(num_envs), num_envs  # episodes, numbered in the order of their starts
    time, lost = np.zeros(num_envs, np.int32), np.zeros(num_envs, bool)
    since = np.full((num_envs, len(EVENT_NAMES)), NEVER, np.int32)
    mission: dict[int, int] = {}
    cut: set[int] = set()
    step = env.reset()
    while step.active.any():
        since = count_since(since, step.facts.event.astype(np.int64), step.episode_start)
        lost |= step.active & ~step.expert_valid
        cut |= set(running[lost].tolist())
        mission |= dict(zip(running[step.active].tolist(), step.mission_id[step.active].tolist(), strict=True))
        after = env.step(step.expert_action)
        rows.append(_keep(step, after, step.active & ~lost, running, time, since))
        time += 1
        for episode in after.ended:
            slot = episode.slot
            ended.append(episode)
            numbers.append(int(running[slot]))
            running[slot], following = following, following + 1
            time[slot], lost[slot] = 0, False
        step = after
    env.close()
    if not ended:
        raise ConfigError(f"{env.task_id}: expected levels that the bot solves, found none among {len(seeds)}")
    place = {seed: position for position, seed in enumerate(seeds)}
    order = sorted(range(len(ended)), key=lambda i: place[ended[i].level_seed])
    number = {numbers[i]: position for position, i in enumerate(order)}
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    episode = np.array([number[k] for k in columns.pop("number").tolist()], np.int32)
    sort = np.lexsort((columns["t_step"], episode))
    columns = {name: values[sort] for name, values in columns.items()}
    return Trajectories(
        env.task_id,
        np.array([ended[i].level_seed for i in order], np.int64),
        np.searchsorted(episode[sort], np.arange(len(order) + 1)),
        np.array([ended[i].outcome for i in order], np.int8),
        np.array([ended[i].expert_steps for i in order], np.int32),
        tuple(ended[i].env_context for i in order),
        tuple(env.missions),
        np.array([mission[numbers[i]] for i in order], np.int64),
        episode[sort],
        columns.pop("t_step"),
        columns,
        tuple(env.unsolvable_seeds),
        len(cut),
    )


def _keep(
    step: VectorStep,
    after: VectorStep,
    active: np.ndarray,
    running: np.ndarray,
    time: np.ndarray,
    since: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the columns of the active slots; events come from the step that the action led to."""
    facts, led_to = step.facts, after.facts
    found = {
        "number": running,
        "t_step": time,
        "view": step.view,
        "direction": step.direction,
        "carrying": step.carrying,
        "expert_action": step.expert_action,
        "since": since,
        "position": facts.position,
        "door_unlocked": facts.door_unlocked,
        "subgoal": facts.subgoal,
        "walking": facts.walking,
        "straight": facts.straight,
        "event": led_to.event,
        "event_object": led_to.event_object,
    }
    return {name: values[active] for name, values in found.items()}
