"""Evaluation: play a fixed list of levels, each once and to its end, and keep what the router did.

Every level counts once, whatever its length. (Counting the first N episodes to end over parallel environments favours
short ones, which are the successful ones.) The policy runs in float64: the last bits of a float32 matrix product
depend on the number of rows, and the numbers reported here must not depend on how many environments play side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from babyai.expert import ExpertError
from babyai.facts import EVENT_NAMES, OBJECT_NAMES, SUBGOAL_NAMES
from babyai.level_seeds import EVALUATION_SEED, SeedList, evaluation_seeds
from babyai.missions import MissionEncoder
from babyai.observations import encode_observations
from babyai.vector_env import EpisodeEnd, VectorEnv, VectorStep
from mixture_of_experts import compute_layer_lpc
from pipeline.packed import pack
from pipeline.records import EpisodeTable, RoutingTable, compute_metrics
from pipeline.rollout import MissionVectors

MAX_UNSOLVABLE = 1000
"""Levels that may be skipped, and 20 for each one played, before a task is given up as unsolvable for the expert."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: See `pipeline.records.compute_metrics`.
        episodes: One row per played level, in the order of the seeds.
        routing: One row per step, in the order of episodes and time; None if it was not recorded.
    """

    metrics: dict[str, Any]
    episodes: EpisodeTable
    routing: RoutingTable | None


def evaluate_task(
    policy: nn.Module,
    encoder: MissionEncoder,
    projection: nn.Linear,
    task_id: str,
    num_episodes: int,
    *,
    eval_seed: int = EVALUATION_SEED,
    **options: Any,
) -> Evaluation:
    """Play the first `num_episodes` levels of the evaluation stream that the expert can solve; see `evaluate`.

    The stream depends on `eval_seed` alone, and its first levels are the same for every `num_episodes`. Levels that the
    expert cannot solve are counted (`bot_plan_failures`) and replaced by the stream's next ones.

    Raises:
        ExpertError: If the expert solves next to none of the task's levels.
    """
    parts: list[Evaluation] = []
    played = taken = 0
    while played < num_episodes:
        missing = num_episodes - played
        seeds = evaluation_seeds(eval_seed, taken + missing)[taken:]
        taken += missing
        parts.append(evaluate(policy, encoder, projection, task_id, seeds, **options))
        played += len(parts[-1].episodes)
        if taken - played >= MAX_UNSOLVABLE + 20 * played:
            raise ExpertError(f"{task_id}: the expert solves {played} of {taken} levels; choose another task")
    if len(parts) == 1:
        return parts[0]
    episodes = EpisodeTable.concatenate([part.episodes for part in parts])
    recorded = [part.routing for part in parts if part.routing is not None and len(part.episodes)]
    failures = sum(part.metrics["bot_plan_failures"] for part in parts)
    return Evaluation(
        metrics=compute_metrics(episodes, bot_plan_failures=failures),
        episodes=episodes,
        routing=RoutingTable.concatenate(recorded) if recorded else None,
    )


def evaluate(
    policy: nn.Module,
    encoder: MissionEncoder,
    projection: nn.Linear,
    task_id: str,
    level_seeds: Sequence[int],
    *,
    num_envs: int = 16,
    max_steps: int | None = None,
    record: bool = True,
    label: bool = True,
    lpc_exponent: float = 2.0,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Play each level of a list once, to its end, taking the policy's most probable action.

    Args:
        policy: Any policy that `pipeline.packed.pack` takes; it is not changed.
        encoder: Its sentence encoder.
        projection: Its mission projection.
        task_id: BabyAI task.
        level_seeds: Distinct seeds of the levels.
        num_envs: Environments stepped together; changes the speed, not the result.
        max_steps: Step limit; None for each level's own.
        record: Keep the routing table. Without it nothing per step is held in memory, and the metrics are the same.
        label: Ask the expert at every step: for the agreement with it, and needed for `record`.
        lpc_exponent: An expert costs size^exponent.
        progress: Called with the number of episodes that have just ended.

    Raises:
        ValueError: If seeds repeat.
    """
    seeds = [int(seed) for seed in level_seeds]
    if len(set(seeds)) != len(seeds):
        raise ValueError("level_seeds: expected distinct seeds; a level played twice would count twice")
    num_envs = max(1, min(num_envs, len(seeds)))
    env = VectorEnv(
        task_id, num_envs, SeedList(seeds), max_steps=max_steps, plan_every=1, label=label or record, record=record
    )
    player = _Player(copy.deepcopy(policy).double().eval(), encoder, copy.deepcopy(projection).double(), env)
    tally = _Tally(num_envs)
    rows: list[dict[str, Any]] = []
    current = env.reset()
    while current.active.any():
        logits, routing = player.act(current)
        action = logits.argmax(dim=-1).cpu().numpy()
        lpc = _lpc(routing, player.sizes, lpc_exponent)
        following = env.step(action)
        tally.count(current, action, lpc)
        if record:
            rows.append(_row(current, following, tally, action, logits, routing, lpc))
        tally.finish(following.ended)
        if progress is not None and following.ended:
            progress(len(following.ended))
        current = following
    place = {seed: position for position, seed in enumerate(seeds)}
    order = sorted(range(len(tally.ended)), key=lambda i: place[tally.ended[i].level_seed])
    routing = _routing_table(rows, tally, order, player.sizes) if rows else None
    episodes = tally.episode_table(order, routing)
    failures = env.counters["levels_unsolvable"]
    env.close()
    return Evaluation(compute_metrics(episodes, bot_plan_failures=failures), episodes, routing)


class _Player:
    """A policy with its memory, acting in a vector environment without learning."""

    def __init__(self, policy: nn.Module, encoder: MissionEncoder, projection: nn.Linear, env: VectorEnv) -> None:
        self.sizes: list[list[int]] = getattr(policy, "layer_expert_sizes", [])
        self._missions = MissionVectors(encoder, projection)
        self._env = env
        self._device = projection.weight.device
        with torch.no_grad():
            self._packed = pack(policy)
            self._hidden = self._packed.init_hidden(env.num_envs)

    def act(self, step: VectorStep) -> tuple[Tensor, list[Tensor]]:
        """Return logits (N, actions) and router probabilities per layer, each (N, experts)."""
        with torch.no_grad():
            self._missions.add(self._env.missions)
            obs = torch.from_numpy(encode_observations(step.view, step.direction, step.carrying)).double()
            mission = self._missions(torch.from_numpy(step.mission_id).to(self._device))
            start = torch.from_numpy(step.episode_start).to(self._device)
            out = self._packed.sequence(
                obs.to(self._device).unsqueeze(0), mission.unsqueeze(0), self._hidden, start.unsqueeze(0)
            )
            self._hidden = out.hidden
        return out.logits[0], [weights[0] for weights in out.routing]


def _lpc(routing: list[Tensor], sizes: list[list[int]], exponent: float) -> np.ndarray:
    """Return the LPC of each slot, float32 (N,) as the routing table has it; empty for a policy without routers.

    The last bits of the float64 numbers depend on how many slots there are; rounding takes that away before sums show
    it.
    """
    layers = [compute_layer_lpc(w, s, exponent) for w, s in zip(routing, sizes, strict=True)]
    return torch.stack(layers).sum(dim=0).float().cpu().numpy() if layers else np.zeros(0, np.float32)


class _Tally:
    """What is summed up over each slot's running episode, and the episodes that have ended."""

    def __init__(self, num_envs: int) -> None:
        self.t_step = np.zeros(num_envs, np.int32)
        self.running = np.arange(num_envs)  # number of the episode that each slot plays, in order of their starts
        self._next = num_envs
        self._lpc = np.zeros(num_envs)
        self._labelled = np.zeros(num_envs, np.int32)
        self._agreed = np.zeros(num_envs, np.int32)
        self.has_lpc = False
        self.ended: list[EpisodeEnd] = []
        self.numbers: list[int] = []  # their numbers, in the order in which they ended
        self._facts: list[tuple[float, int, int]] = []

    def count(self, step: VectorStep, action: np.ndarray, lpc: np.ndarray) -> None:
        """Take in a step, before it is known whether it ended the episode."""
        if len(lpc):
            self.has_lpc = True
            self._lpc += lpc
        self._labelled += step.expert_valid
        self._agreed += step.expert_valid & (step.expert_action == action)

    def finish(self, ended: Sequence[EpisodeEnd]) -> None:
        """Close the episodes that ended and start the slots' next ones."""
        self.t_step += 1
        for episode in ended:
            slot = episode.slot
            mean_lpc = self._lpc[slot] / episode.steps if self.has_lpc else np.nan
            self._facts.append((mean_lpc, int(self._labelled[slot]), int(self._agreed[slot])))
            self.ended.append(episode)
            self.numbers.append(int(self.running[slot]))
            self.running[slot] = self._next
            self._next += 1
            self.t_step[slot] = self._labelled[slot] = self._agreed[slot] = 0
            self._lpc[slot] = 0.0

    def episode_table(self, order: list[int], routing: RoutingTable | None) -> EpisodeTable:
        """Return the ended episodes as a table, rows in the given order."""
        ended = [self.ended[i] for i in order]
        facts = [self._facts[i] for i in order]
        return EpisodeTable(
            level_seed=np.array([e.level_seed for e in ended], np.int64),
            mission=tuple(e.mission for e in ended),
            outcome=np.array([int(e.outcome) for e in ended], np.int8),
            steps=np.array([e.steps for e in ended], np.int32),
            expert_steps=np.array([-1 if e.expert_steps is None else e.expert_steps for e in ended], np.int32),
            mean_lpc=np.array([fact[0] for fact in facts], np.float64),
            labelled=np.array([fact[1] for fact in facts], np.int32),
            agreed=np.array([fact[2] for fact in facts], np.int32),
            **{name: _first(routing, event, len(ended)) for name, event in _FIRST_EVENTS.items()},
            env_context=tuple(e.env_context or {} for e in ended),
        )


_FIRST_EVENTS = {"t_pick": "picked", "t_unlocked": "unlocked", "t_drop": "dropped"}


def _first(routing: RoutingTable | None, event: str, episodes: int) -> np.ndarray:
    """Return the t_step of each episode's first event of a kind, -1 where there is none, int32 (episodes,)."""
    first = np.full(episodes, -1, np.int32)
    if routing is not None:
        rows = np.flatnonzero(routing.event == EVENT_NAMES.index(event))[::-1]  # backwards: the first is written last
        first[routing.episode[rows]] = routing.t_step[rows]
    return first


def _row(
    step: VectorStep,
    following: VectorStep,
    tally: _Tally,
    action: np.ndarray,
    logits: Tensor,
    routing: list[Tensor],
    lpc: np.ndarray,
) -> dict[str, Any]:
    """Return the columns of one vector step, each (N, ...); events come from the step that the action led to."""
    facts, led_to = step.facts, following.facts
    nothing = np.full(len(action), np.nan)
    entropy = [torch.special.entr(weights).sum(dim=-1) for weights in routing]
    return {
        "active": step.active,
        "number": tally.running.copy(),
        "t_step": tally.t_step.copy(),
        "position": facts.position,
        "direction": step.direction,
        "carrying": step.carrying,
        "door_unlocked": facts.door_unlocked,
        "action": action,
        "action_logits": logits.cpu().numpy(),
        "expert_action": np.where(step.expert_valid, step.expert_action, -1),
        "subgoal": facts.subgoal,
        "event": led_to.event,
        "event_object": led_to.event_object,
        "lpc": lpc if len(lpc) else nothing,
        "entropy": torch.stack(entropy).mean(dim=0).cpu().numpy() if entropy else nothing,
        "walking": facts.walking,
        "straight": facts.straight,
        "weights": [weights.cpu().numpy() for weights in routing],
    }


_DTYPES = {
    "t_step": np.int32,
    "position": np.int16,
    "direction": np.int8,
    "carrying": bool,
    "door_unlocked": np.int8,
    "action": np.int8,
    "action_logits": np.float32,
    "expert_action": np.int8,
    "subgoal": np.int8,
    "event": np.int8,
    "event_object": np.int16,
    "lpc": np.float32,
    "entropy": np.float32,
    "walking": np.float32,
    "straight": np.float32,
}


def _routing_table(rows: list[dict[str, Any]], tally: _Tally, order: list[int], sizes: list[list[int]]) -> RoutingTable:
    """Return all steps as one table, sorted by episode (in the given order) and time."""
    place = np.full(max(tally.numbers) + 1, -1)
    place[[tally.numbers[i] for i in order]] = np.arange(len(order))
    active = np.concatenate([row["active"] for row in rows])
    episode = place[np.concatenate([row["number"] for row in rows])[active]]
    t_step = np.concatenate([row["t_step"] for row in rows])[active]
    sort = np.flatnonzero(active)[np.lexsort((t_step, episode))]

    def column(name: str) -> np.ndarray:
        return np.concatenate([row[name] for row in rows])[sort].astype(_DTYPES[name])

    layers = range(len(sizes))
    return RoutingTable(
        episode=np.sort(episode).astype(np.int32),
        **{name: column(name) for name in _DTYPES},
        weights=tuple(
            np.concatenate([row["weights"][layer] for row in rows])[sort].astype(np.float32) for layer in layers
        ),
        expert_hidden_sizes=[list(layer) for layer in sizes],
        subgoal_names=SUBGOAL_NAMES,
        event_names=EVENT_NAMES,
        object_names=OBJECT_NAMES,
    )
