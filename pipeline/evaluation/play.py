"""Evaluation: play a fixed list of levels, each once and to its end, and keep what the router did.

Every level counts once, whatever its length. (Counting the first N episodes to end over parallel environments favours
short ones, which are the successful ones.) The policy runs in float64: the last bits of a float32 matrix product
depend on the number of rows, and the numbers reported here must not depend on how many environments play side by side,
nor on which other policies do: `evaluate_many` plays several of one architecture in one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from babyai.errors import ExpertError
from babyai.facts import NUM_ACTIONS
from babyai.level_seeds import EVALUATION_SEED, SeedList, evaluation_seeds
from babyai.missions import MissionEncoder
from babyai.observations import encode_observations
from babyai.vector_env import VectorEnv, VectorStep
from mixture_of_experts import compute_layer_lpc
from pipeline.engine.missions import MissionVectors
from pipeline.engine.packed import pack_replicas
from pipeline.evaluation.noise import GumbelNoise
from pipeline.evaluation.tally import Decision, Tally, build_routing_table, build_row
from pipeline.records.metrics import compute_metrics
from pipeline.records.tables import EpisodeTable, RoutingTable

MAX_UNSOLVABLE = 1000
"""Levels that may be skipped, and 20 for each one played, before a task is given up as unsolvable for the expert."""

Agent = tuple[nn.Module, MissionEncoder, nn.Linear]
"""A policy that `pipeline.engine.packed.pack_replicas` takes, its sentence encoder, its mission projection. None of
them is changed."""

Progress = Callable[[int], object]


@dataclass(frozen=True)
class PlaySettings:
    """How levels are played and what is kept of it.

    Attributes:
        num_envs: Environments of each agent stepped together; changes the speed, not the result.
        max_steps: Step limit; None for each level's own.
        record: Keep the routing table. Without it nothing per step is held in memory, and the metrics are the same.
        label: Ask the expert at every step: for the agreement with it, and needed for `record`.
        lpc_exponent: An expert costs size^exponent.
        actions: The most probable action, `greedy`, or one drawn from the policy, `sample`: by the level and the step
            alone, so that neither `num_envs` nor other agents change what is drawn (`pipeline.evaluation.noise`).
    """

    num_envs: int = 16
    max_steps: int | None = None
    record: bool = True
    label: bool = True
    lpc_exponent: float = 2.0
    actions: Literal["greedy", "sample"] = "greedy"

    def __post_init__(self) -> None:
        """Raise ValueError where it is not said how actions are chosen."""
        if self.actions not in ("greedy", "sample"):
            raise ValueError(f"actions: expected greedy or sample, found {self.actions!r}")


_AS_USUAL = PlaySettings()


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: See `pipeline.records.metrics.compute_metrics`.
        episodes: One row per played level, in the order of the seeds.
        routing: One row per step, in the order of episodes and time; None if it was not recorded.
        by_level: The metrics of each level of a mixture, by its short name; None for a single level.
    """

    metrics: dict[str, Any]
    episodes: EpisodeTable
    routing: RoutingTable | None
    by_level: dict[str, dict[str, Any]] | None = field(default=None, kw_only=True)


def evaluate_task(
    policy: nn.Module,
    encoder: MissionEncoder,
    projection: nn.Linear,
    task_id: str,
    num_episodes: int,
    *,
    eval_seed: int = EVALUATION_SEED,
    progress: Progress | None = None,
    **settings: Any,
) -> Evaluation:
    """Play the first `num_episodes` levels of the evaluation stream that the expert can solve; see `evaluate_many`.

    The stream depends on `eval_seed` alone, and its first levels are the same for every `num_episodes`. Levels that the
    expert cannot solve are counted (`bot_plan_failures`) and replaced by the stream's next ones.

    `settings` are fields of `PlaySettings`.

    Raises:
        ExpertError: If the expert solves next to none of the task's levels.
    """
    agent, how = (policy, encoder, projection), PlaySettings(**settings)
    return evaluate_task_many([agent], task_id, num_episodes, how, eval_seed=eval_seed, progress=progress)[0]


def evaluate_task_many(
    agents: Sequence[Agent],
    task_id: str,
    num_episodes: int,
    settings: PlaySettings = _AS_USUAL,
    *,
    eval_seed: int = EVALUATION_SEED,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Return for each agent what `evaluate_task` returns; see `evaluate_many`."""
    rounds: list[list[Evaluation]] = []
    played = taken = 0
    while played < num_episodes:
        missing = num_episodes - played
        seeds = evaluation_seeds(eval_seed, taken + missing)[taken:]
        taken += missing
        rounds.append(evaluate_many(agents, task_id, seeds, settings, progress))
        played += len(rounds[-1][0].episodes)  # the same for all: the expert decides which levels are played
        if taken - played >= MAX_UNSOLVABLE + 20 * played:
            raise ExpertError(f"{task_id}: the expert solves {played} of {taken} levels; choose another task")
    return [_join(parts) for parts in zip(*rounds, strict=True)]


def _join(parts: Sequence[Evaluation]) -> Evaluation:
    """Return evaluations of one policy on several lists of levels as one."""
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
    progress: Progress | None = None,
    **settings: Any,
) -> Evaluation:
    """Play each level of a list once, to its end; see `evaluate_many`.

    `settings` are fields of `PlaySettings`.
    """
    how = PlaySettings(**settings)
    return evaluate_many([(policy, encoder, projection)], task_id, level_seeds, how, progress)[0]


def evaluate_many(
    agents: Sequence[Agent],
    task_id: str,
    level_seeds: Sequence[int],
    settings: PlaySettings = _AS_USUAL,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Let each agent play each level of a list once, to its end; return what each did, as if it had been alone.

    All take a step in one batched pass. Who has played all levels leaves the batch.

    Args:
        agents: Policies of one architecture on one device, each with encoder and projection of its own.
        task_id: BabyAI task.
        level_seeds: Distinct seeds of the levels.
        settings: How they are played.
        progress: Called with the number of episodes that have just ended.

    Raises:
        ValueError: If seeds repeat, or architectures differ.
    """
    seeds = [int(seed) for seed in level_seeds]
    if len(set(seeds)) != len(seeds):
        raise ValueError("level_seeds: expected distinct seeds; a level played twice would count twice")
    num_envs = max(1, min(settings.num_envs, len(seeds)))
    label = settings.label or settings.record
    options = {"max_steps": settings.max_steps, "plan_every": 1, "label": label, "record": settings.record}
    rollouts = [
        _Rollout(
            VectorEnv(task_id, num_envs, SeedList(seeds), **options),
            MissionVectors(encoder, copy.deepcopy(projection).double()),
            GumbelNoise(num_envs, NUM_ACTIONS) if settings.actions == "sample" else None,
        )
        for _, encoder, projection in agents
    ]
    policies = PolicyBatch([copy.deepcopy(policy).double().eval() for policy, _, _ in agents], num_envs)
    sizes: list[list[int]] = getattr(agents[0][0], "layer_expert_sizes", [])
    found: dict[int, Evaluation] = {}
    playing = list(range(len(rollouts)))
    while playing:
        going = [row for row, i in enumerate(playing) if rollouts[i].current.active.any()]
        if len(going) < len(playing):
            for i in {*playing} - {playing[row] for row in going}:
                found[i] = rollouts[i].finish(seeds, sizes, settings.lpc_exponent)
            playing = [playing[row] for row in going]
            policies.select(going)
            continue
        now = [rollouts[i] for i in playing]
        logits, routing = policies.act([rollout.current for rollout in now], [rollout.missions for rollout in now])
        noise = np.stack([rollout.draw() for rollout in now]) if settings.actions == "sample" else None
        decisions = decide(logits, routing, sizes, settings.lpc_exponent, noise)
        for rollout, decision in zip(now, decisions, strict=True):
            ended = rollout.step(decision, record=settings.record)
            if progress is not None and ended:
                progress(ended)
    return [found[i] for i in range(len(rollouts))]


class _Rollout:
    """One agent's levels: its environment, and what is recorded of its steps."""

    def __init__(self, env: VectorEnv, missions: MissionVectors, noise: GumbelNoise | None = None) -> None:
        self.missions = missions
        self._env, self._noise = env, noise
        self._tally = Tally(env.num_envs)
        self._rows: list[dict[str, Any]] = []
        self.current = env.reset()
        missions.add(env.missions)

    def draw(self) -> np.ndarray:
        """Return the noise of this step, float64 (N, actions), of an agent whose actions are drawn."""
        assert self._noise is not None
        return self._noise.draw(self._env.level_seeds, self._tally.t_step)

    def step(self, decision: Decision, *, record: bool) -> int:
        """Take the actions; return the number of episodes that ended."""
        following = self._env.step(decision.action)
        self._tally.count(self.current, decision)
        if record:
            self._rows.append(build_row(self.current, following, self._tally, decision))
        self._tally.finish(following.ended)
        self.current = following
        self.missions.add(self._env.missions)
        return len(following.ended)

    def finish(self, seeds: Sequence[int], sizes: list[list[int]], lpc_exponent: float) -> Evaluation:
        """Return what was found, in the order of the seeds, and let go of the rows."""
        place = {seed: position for position, seed in enumerate(seeds)}
        order = sorted(range(len(self._tally.ended)), key=lambda i: place[self._tally.ended[i].level_seed])
        routing = build_routing_table(self._rows, self._tally, order, sizes, lpc_exponent) if self._rows else None
        self._rows.clear()
        episodes = self._tally.episode_table(order, routing)
        failures = self._env.counters["levels_unsolvable"]
        self._env.close()
        return Evaluation(compute_metrics(episodes, bot_plan_failures=failures), episodes, routing)


class PolicyBatch:
    """Policies of one architecture with their hidden states, acting side by side without learning."""

    def __init__(self, policies: Sequence[nn.Module], num_envs: int) -> None:
        self._policies = list(policies)
        with torch.no_grad():
            self._packed = pack_replicas(self._policies)
            self._hidden = self._packed.init_hidden(num_envs)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these policies only."""
        self._policies = [self._policies[row] for row in rows]
        if self._policies:
            with torch.no_grad():
                self._packed = pack_replicas(self._policies)
            self._hidden = [hidden[list(rows)] for hidden in self._hidden]

    @torch.no_grad()
    def act(self, steps: Sequence[VectorStep], missions: Sequence[MissionVectors]) -> tuple[Tensor, list[Tensor]]:
        """Return logits (R, N, actions) and router probabilities per layer, each (R, N, experts)."""
        shown = [encode_observations(step.view, step.direction, step.carrying) for step in steps]
        device = self._hidden[0].device
        obs = torch.from_numpy(np.stack(shown)).to(device).double()
        mission = torch.stack(
            [table(torch.from_numpy(step.mission_id).to(device)) for step, table in zip(steps, missions, strict=True)]
        )
        start = torch.from_numpy(np.stack([step.episode_start for step in steps])).to(device)
        out = self._packed.sequence(obs[:, None], mission[:, None], self._hidden, start[:, None])
        self._hidden = out.hidden
        return out.logits[:, 0], [weights[:, 0] for weights in out.routing]


def decide(
    logits: Tensor,
    routing: Sequence[Tensor],
    sizes: list[list[int]],
    exponent: float,
    noise: np.ndarray | None = None,
) -> list[Decision]:
    """Return what each agent did, and what is kept of how it came to it.

    Args:
        logits: (R, N, actions).
        routing: Router probabilities per layer, each (R, N, experts).
        sizes: Of the experts, per layer.
        exponent: An expert costs its size to this power.
        noise: Gumbel noise (R, N, actions) where actions are drawn; None takes the most probable ones.
    """
    replicas = len(logits)
    tried = logits if noise is None else logits + torch.from_numpy(noise).to(logits)
    action = tried.argmax(dim=-1).cpu().numpy()
    lpc = entropy = [None] * replicas
    if routing:
        layers = [compute_layer_lpc(w, s, exponent) for w, s in zip(routing, sizes, strict=True)]
        lpc = torch.stack(layers).sum(dim=0).float().cpu().numpy()
        spread = [torch.special.entr(weights).sum(dim=-1) for weights in routing]
        entropy = torch.stack(spread).mean(dim=0).float().cpu().numpy()
    kept = logits.float().cpu().numpy()
    weights = [layer.float().cpu().numpy() for layer in routing]
    return [Decision(action[r], kept[r], [layer[r] for layer in weights], lpc[r], entropy[r]) for r in range(replicas)]
