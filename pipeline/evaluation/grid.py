"""Policies under interventions on their own way: every policy plays every level under every condition, in one batch.

    played = evaluate_grid(agents, interventions, "UnlockPickup", seeds, PlaySettings(num_envs=256, record=False))
    played[0][3].metrics["success_rate"]                   # of the first policy under the fourth intervention
    table = tabulate(played, runs)                         # of `effects` beside this module: with the intact policy

All slots of all policies are one vector environment. A slot takes the next (condition, level) of its policy's list when
an episode ends, so that no condition waits for another, and each row of the batch has the intervention of the episode
it is at. What is found does not depend on which others are there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from babyai.facts import EVENT_NAMES, NUM_ACTIONS
from babyai.observations import encode_observations
from babyai.steps import VectorStep
from babyai.vector_env import VectorEnv
from pipeline.engine.missions import MissionVectors
from pipeline.evaluation.noise import GumbelNoise
from pipeline.evaluation.play import Agent, Evaluation, PlaySettings, Progress, decide
from pipeline.evaluation.tally import Decision, Tally, build_routing_table, build_row
from pipeline.interventions.apply import IntervenedBatch
from pipeline.interventions.donors import Donors, check_disjoint
from pipeline.interventions.numbers import compute_cross_entropy
from pipeline.interventions.situation import NEVER, Situation, count_since
from pipeline.interventions.spec import Intervention
from pipeline.records.metrics import compute_metrics

ROWS = PlaySettings(num_envs=256, record=False)
"""Many environments of each policy side by side, of which episodes are kept, steps not."""


@dataclass(frozen=True)
class Intervened(Evaluation):
    """What one policy did under one intervention.

    Attributes:
        intervention: The condition.
        ce: float32 (episodes,), mean cross-entropy to the bot over an episode's labelled steps, nats; NaN without any.
        sizes: The policy's expert sizes.
    """

    intervention: Intervention
    ce: np.ndarray
    sizes: list[list[int]]


def evaluate_grid(
    agents: Sequence[Agent],
    interventions: Sequence[Intervention],
    task_id: str,
    level_seeds: Sequence[int],
    settings: PlaySettings = ROWS,
    *,
    donors: Donors | None = None,
    progress: Progress | None = None,
) -> list[list[Intervened]]:
    """Let each agent play each level of a list under each intervention, to its end.

    The result is by agent, then by intervention. Under the sham it is that of `pipeline.evaluation.play.evaluate_many`.

    Args:
        agents: Policies of one architecture on one device, each with encoder and projection of its own.
        interventions: The conditions.
        task_id: BabyAI task.
        level_seeds: Distinct seeds of the levels.
        settings: How they are played; `num_envs` environments of each agent side by side, over all conditions. The
            expert is asked at every step, whatever `label` says: interventions may depend on its subgoal.
        donors: Steps that some interventions need, of the same agents and of other levels.
        progress: Called with the number of episodes that have just ended.

    Raises:
        ConfigError: If an intervention does not fit the policies, or needs donors that are not there.
        ValueError: If seeds repeat, architectures differ, or levels are both donors and played.
        ExpertError: If the expert solves next to none of the levels.
    """
    seeds = [int(seed) for seed in level_seeds]
    if len(set(seeds)) != len(seeds):
        raise ValueError("level_seeds: expected distinct seeds; a level played twice would count twice")
    if not interventions:
        raise ValueError("interventions: expected at least one, found none; Intervention() is the sham")
    check_disjoint(donors, seeds)
    player = _Grid(agents, interventions, task_id, seeds, settings, donors)
    while player.step():
        if progress is not None and player.ended:
            progress(player.ended)
    return player.finish()


class _Queue:
    """Levels still to be played: for each agent every level under every condition; slots take them in order."""

    def __init__(self, agents: int, conditions: int, seeds: Sequence[int], slots: int) -> None:
        self._conditions, self._seeds, self._slots = conditions, seeds, slots
        self._taken = [0] * agents
        self.condition = np.zeros(agents * slots, np.int64)  # of the level that each slot is at
        self.level_seed = np.zeros(agents * slots, np.int64)

    def next_seed(self, slot: int) -> int | None:
        """Return the next level's seed, None when all are taken."""
        agent = slot // self._slots
        level, condition = divmod(self._taken[agent], self._conditions)
        if level == len(self._seeds):
            return None
        self._taken[agent] += 1
        self.condition[slot], self.level_seed[slot] = condition, self._seeds[level]
        return self._seeds[level]


class _Grid:
    """The world, the policies, and what is kept of them."""

    def __init__(
        self,
        agents: Sequence[Agent],
        interventions: Sequence[Intervention],
        task_id: str,
        seeds: list[int],
        settings: PlaySettings,
        donors: Donors | None,
    ) -> None:
        self._interventions, self._seeds, self._settings, self._donors = list(interventions), seeds, settings, donors
        self._agents = len(agents)
        self._slots = max(1, min(settings.num_envs, len(seeds) * len(interventions)))
        total = self._agents * self._slots
        self._queue = _Queue(self._agents, len(interventions), seeds, self._slots)
        options = {"max_steps": settings.max_steps, "plan_every": 1, "label": True, "record": True}
        self._env = VectorEnv(task_id, total, self._queue, **options)
        policies = [copy.deepcopy(policy).double().eval() for policy, _, _ in agents]
        self._batch = IntervenedBatch(policies, interventions, donors)
        self._missions = [MissionVectors(encoder, copy.deepcopy(proj).double()) for _, encoder, proj in agents]
        self._hidden = self._batch.init_hidden(self._slots)
        self._playing = list(range(self._agents))
        self._tally = Tally(total)
        self._noise = GumbelNoise(total, NUM_ACTIONS) if settings.actions == "sample" else None
        self._since = np.full((total, len(EVENT_NAMES)), NEVER, np.int32)
        self._ce, self._ces = np.zeros(total), []
        self._labelled = np.zeros(total, np.int64)
        self._played: list[tuple[int, int]] = []  # agent and condition of the episodes that have ended
        self._rows: list[dict[str, Any]] = []
        self._contexts: dict[int, dict[str, Any] | None] = {}
        self._donated = {sentence: number for number, sentence in enumerate(donors.missions if donors else ())}
        self._now = self._env.reset()
        self.ended = 0

    def step(self) -> bool:
        """Take a step with all policies that have levels left; return whether there was one."""
        now, shape = self._now, (self._agents, self._slots)
        active = now.active.reshape(shape)
        going = [row for row, agent in enumerate(self._playing) if active[agent].any()]
        if not going:
            self._env.close()
            return False
        if len(going) < len(self._playing):
            self._batch = self._batch.select(going)
            self._hidden = [[cell[going] for cell in cells] for cells in self._hidden]
            self._playing = [self._playing[row] for row in going]
        self._since = count_since(self._since, now.facts.event.astype(np.int64), now.episode_start)
        condition = self._queue.condition.copy()  # taking the action may give a slot its next level
        decision = self._act(now, condition)
        following = self._env.step(decision.action)
        self._tally.count(now, decision)
        self._count(now, decision)
        if self._settings.record:
            self._rows.append(build_row(now, following, self._tally, decision))
        shared = [self._share_context(episode) for episode in following.ended]
        self._tally.finish(shared)
        for episode in shared:
            slot = episode.slot
            self._played.append((slot // self._slots, int(condition[slot])))
            self._ces.append(self._ce[slot] / self._labelled[slot] if self._labelled[slot] else np.nan)
            self._ce[slot] = self._labelled[slot] = 0
        self.ended = len(shared)
        self._now = following
        return True

    def _share_context(self, episode: Any) -> Any:
        """Return the end of an episode with the one description of its level, which all conditions share."""
        known = self._contexts.setdefault(episode.level_seed, episode.env_context)
        return replace(episode, env_context=known)

    def _count(self, now: VectorStep, decision: Decision) -> None:
        """Add up the cross-entropy to the bot, from the logits that are kept."""
        logits, bots = torch.from_numpy(decision.logits), torch.from_numpy(now.expert_action)
        self._ce += np.where(now.expert_valid, compute_cross_entropy(logits, bots).numpy(), 0.0)
        self._labelled += now.expert_valid

    def _act(self, now: VectorStep, condition: np.ndarray) -> Decision:
        """Return what all slots do; zeros where an agent has ended."""
        rows = self._playing

        def pick(column: np.ndarray) -> np.ndarray:
            return column.reshape(self._agents, self._slots, *column.shape[1:])[rows]

        for missions in self._missions:
            missions.add(self._env.missions)
        donated = np.array([self._donated.get(sentence, -1) for sentence in self._env.missions], np.int64)
        situation = Situation(
            pick(condition),
            pick(self._queue.level_seed),
            pick(self._tally.t_step.astype(np.int64)),
            pick(now.facts.subgoal.astype(np.int64)),
            pick(now.carrying),
            pick(now.facts.door_unlocked.astype(np.int64)),
            pick(self._since),
            pick(donated[now.mission_id]),
        )
        inputs, start = self._show(now, pick), torch.from_numpy(pick(now.episode_start)).to(self._batch.device)
        logits, weights, self._hidden = self._batch.act(inputs, self._hidden, start, situation)
        noise = None
        if self._noise is not None:
            noise = pick(self._noise.draw(self._queue.level_seed, self._tally.t_step))
        return self._spread(decide(logits, weights, self._batch.sizes, self._settings.lpc_exponent, noise))

    def _show(self, now: VectorStep, pick: Any) -> Tensor:
        """Return the policies' inputs (P, slots, obs + mission)."""
        device, shape = self._batch.device, (len(self._playing), self._slots, -1)
        shown = [pick(column).reshape(-1, *column.shape[1:]) for column in (now.view, now.direction, now.carrying)]
        obs = torch.from_numpy(encode_observations(*shown)).to(device).double().reshape(shape)
        numbers = torch.from_numpy(pick(now.mission_id)).to(device)
        mission = torch.stack([self._missions[agent](n) for agent, n in zip(self._playing, numbers, strict=True)])
        return torch.cat([obs, mission], dim=-1)

    def _spread(self, decisions: Sequence[Decision]) -> Decision:
        """Return the decisions of the playing agents as one of all slots."""

        def join(parts: Sequence[np.ndarray]) -> np.ndarray:
            found = np.zeros((self._agents, *parts[0].shape), parts[0].dtype)
            found[self._playing] = parts
            return found.reshape(-1, *parts[0].shape[1:])

        first = decisions[0]
        return Decision(
            join([one.action for one in decisions]),
            join([one.logits for one in decisions]),
            [join([one.weights[layer] for one in decisions]) for layer in range(len(first.weights))],
            None if first.lpc is None else join([one.lpc for one in decisions]),
            None if first.entropy is None else join([one.entropy for one in decisions]),
        )

    def finish(self) -> list[list[Intervened]]:
        """Return what was found, in the order of the seeds."""
        place = {seed: position for position, seed in enumerate(self._seeds)}
        tally, sizes = self._tally, self._batch.sizes
        keys = [(*pair, place[episode.level_seed]) for pair, episode in zip(self._played, tally.ended, strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        exponent = self._settings.lpc_exponent
        routing = build_routing_table(self._rows, tally, order, sizes, exponent) if self._rows else None
        self._rows.clear()
        failures = len(set(self._env.unsolvable_seeds))
        found: list[list[Intervened]] = []
        levels = len(self._seeds) - failures
        for agent in range(self._agents):
            found.append([])
            for number, intervention in enumerate(self._interventions):
                begin = (agent * len(self._interventions) + number) * levels
                mine = order[begin : begin + levels]
                steps = None
                if routing is not None:
                    rows = slice(*np.searchsorted(routing.episode, [begin, begin + levels]))
                    steps = replace(routing.select(rows), episode=routing.episode[rows] - np.int32(begin))
                episodes = tally.episode_table(mine, steps)
                metrics = compute_metrics(episodes, bot_plan_failures=failures)
                ce = np.array([self._ces[i] for i in mine], np.float32)
                found[-1].append(Intervened(metrics, episodes, steps, intervention, ce, sizes))
        return found
