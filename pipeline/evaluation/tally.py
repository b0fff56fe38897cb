"""What an evaluation keeps of its steps: sums over running episodes, a row per step, and the tables made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from babyai.facts import EVENT_NAMES, OBJECT_NAMES, SUBGOAL_NAMES
from babyai.vector_env import EpisodeEnd, VectorStep
from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.records.tables import EpisodeTable, RoutingTable


class Decision(NamedTuple):
    """What a policy did at one vector step of N slots.

    Only the action was chosen in float64. The last bits of the other numbers depend on how many rows were computed
    together; rounding takes that away before sums show it.
    """

    action: np.ndarray  # (N,) int64
    logits: np.ndarray  # (N, actions) float32
    weights: list[np.ndarray]  # router probabilities, (N, experts) float32 per layer
    lpc: np.ndarray | None  # (N,) float32; None for a policy without routers
    entropy: np.ndarray | None  # (N,) float32, mean over the routers, nat; None likewise


class Tally:
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

    def count(self, step: VectorStep, decision: Decision) -> None:
        """Take in a step, before it is known whether it ended the episode."""
        if decision.lpc is not None:
            self.has_lpc = True
            self._lpc += decision.lpc
        self._labelled += step.expert_valid
        self._agreed += step.expert_valid & (step.expert_action == decision.action)

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
        observed = {
            "level_seed": [e.level_seed for e in ended],
            "mission": [e.mission for e in ended],
            "outcome": [int(e.outcome) for e in ended],
            "steps": [e.steps for e in ended],
            "expert_steps": [-1 if e.expert_steps is None else e.expert_steps for e in ended],
            "mean_lpc": [fact[0] for fact in facts],
            "labelled": [fact[1] for fact in facts],
            "agreed": [fact[2] for fact in facts],
            **{name: _first(routing, event, len(ended)) for name, event in _FIRST_EVENTS.items()},
        }
        columns = {name: EPISODE_COLUMNS[name].build(values) for name, values in observed.items()}
        return EpisodeTable(**columns, env_context=tuple(e.env_context or {} for e in ended))


_FIRST_EVENTS = {"t_pick": "picked", "t_unlocked": "unlocked", "t_drop": "dropped"}


def _first(routing: RoutingTable | None, event: str, episodes: int) -> np.ndarray:
    """Return the t_step of each episode's first event of a kind, -1 where there is none, int32 (episodes,)."""
    first = np.full(episodes, -1, np.int32)
    if routing is not None:
        rows = np.flatnonzero(routing.event == EVENT_NAMES.index(event))[::-1]  # backwards: the first is written last
        first[routing.episode[rows]] = routing.t_step[rows]
    return first


def build_row(step: VectorStep, following: VectorStep, tally: Tally, decision: Decision) -> dict[str, Any]:
    """Return the columns of one vector step, each (N, ...); events come from the step that the action led to.

    Beside `active` and `number`, which say where they belong, these are `STEP_COLUMNS` but `episode`.
    """
    facts, led_to = step.facts, following.facts
    nothing = np.full(len(decision.action), np.nan, np.float32)
    return {
        "active": step.active,
        "number": tally.running.copy(),
        "t_step": tally.t_step.copy(),
        "position": facts.position,
        "direction": step.direction,
        "carrying": step.carrying,
        "door_unlocked": facts.door_unlocked,
        "action": decision.action,
        "action_logits": decision.logits,
        "expert_action": np.where(step.expert_valid, step.expert_action, -1),
        "subgoal": facts.subgoal,
        "event": led_to.event,
        "event_object": led_to.event_object,
        "lpc": nothing if decision.lpc is None else decision.lpc,
        "entropy": nothing if decision.entropy is None else decision.entropy,
        "walking": facts.walking,
        "straight": facts.straight,
        "weights": decision.weights,
    }


def build_routing_table(
    rows: list[dict[str, Any]], tally: Tally, order: list[int], sizes: list[list[int]], lpc_exponent: float = 2.0
) -> RoutingTable:
    """Return all steps as one table, sorted by episode (in the given order) and time."""
    place = np.full(max(tally.numbers) + 1, -1)
    place[[tally.numbers[i] for i in order]] = np.arange(len(order))
    active = np.concatenate([row["active"] for row in rows])
    episode = place[np.concatenate([row["number"] for row in rows])[active]]
    t_step = np.concatenate([row["t_step"] for row in rows])[active]
    sort = np.flatnonzero(active)[np.lexsort((t_step, episode))]

    names = STEP_COLUMNS.keys() - {"episode"}
    values = {name: np.concatenate([row[name] for row in rows])[sort] for name in names}
    layers = range(len(sizes))
    return RoutingTable(
        episode=np.sort(episode).astype(np.int32),
        **{name: values[name].astype(STEP_COLUMNS[name].dtype) for name in names},
        weights=tuple(
            np.concatenate([row["weights"][layer] for row in rows])[sort].astype(np.float32) for layer in layers
        ),
        expert_hidden_sizes=[list(layer) for layer in sizes],
        subgoal_names=SUBGOAL_NAMES,
        event_names=EVENT_NAMES,
        object_names=OBJECT_NAMES,
        lpc_exponent=lpc_exponent,
    )
