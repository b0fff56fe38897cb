"""Acting in a vector environment while learning: mission vectors and unrolls of on-policy steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from babyai.missions import MissionEncoder
from babyai.observations import OBSERVATION_DIM, encode_observations
from babyai.vector_env import EpisodeEnd, VectorEnv, VectorStep
from mixture_of_experts import ExpertDropout
from pipeline.packed import PackedGRU, PackedPolicy, pack


class MissionVectors:
    """Turns mission ids of a vector environment into the policy's mission vectors.

    Each distinct sentence is encoded once; while the projection is frozen, also projected once.

    Args:
        encoder: Sentence encoder.
        projection: Linear(encoder width -> lang_dim).
        trainable: Whether gradients should reach the projection; then it is applied afresh at each call.
    """

    def __init__(self, encoder: MissionEncoder, projection: nn.Linear, *, trainable: bool = False) -> None:
        self.encoder = encoder
        self.projection = projection
        self.trainable = trainable
        width = encoder.width if trainable else projection.out_features
        # Grown by doubling, so that a task with endless missions does not copy the table at each new one.
        self._table = projection.weight.new_zeros(0, width).detach()
        self._known = 0

    def add(self, missions: Sequence[str]) -> None:
        """Take up the sentences that came since the last call; `missions` is the environment's growing list."""
        if len(missions) == self._known:
            return
        new = self.encoder.encode(missions[self._known :]).to(self._table)
        if not self.trainable:
            # One by one: in a batch, the last bit of a row depends on how many rows there are, and a resumed run meets
            # its sentences in another grouping than the run it continues.
            with torch.no_grad():
                new = torch.stack([self.projection(sentence) for sentence in new])
        if len(missions) > len(self._table):
            grown = self._table.new_zeros(max(64, 2 * len(missions)), self._table.shape[1])
            grown[: self._known] = self._table[: self._known]
            self._table = grown
        self._table[self._known : len(missions)] = new
        self._known = len(missions)

    def __call__(self, mission_id: Tensor) -> Tensor:
        """Return mission vectors (..., lang_dim) for ids (...)."""
        rows = self._table[mission_id]
        return self.projection(rows) if self.trainable else rows


@dataclass(frozen=True)
class Unroll:
    """T on-policy steps of N environments: what the loss needs.

    Attributes:
        obs: (T, N, 152).
        mission_id: (T, N) int64.
        episode_start: (T, N) bool.
        expert_action: (T, N) int64.
        expert_valid: (T, N) bool.
        hidden: State before the first step.
        noise: Expert dropout's noise per layer, each (T, N, experts), or None.
        ended: Episodes that ended within these steps.
    """

    obs: Tensor
    mission_id: Tensor
    episode_start: Tensor
    expert_action: Tensor
    expert_valid: Tensor
    hidden: list[Tensor]
    noise: list[Tensor] | None
    ended: list[EpisodeEnd]


@dataclass(frozen=True)
class Acting:
    """How the student acts while it learns.

    Attributes:
        sample: Sample from the policy instead of taking its most probable action.
        expert_prob: Probability that a labelled step executes the expert's action.
        dropout: (beta, gamma) of expert dropout, or None.
    """

    sample: bool = False
    expert_prob: float = 0.0
    dropout: tuple[float, float] | None = None


def collect_unroll(
    policy: nn.Module,
    env: VectorEnv,
    current: VectorStep,
    hidden: list[Tensor],
    missions: MissionVectors,
    unroll_len: int,
    acting: Acting,
    generator: torch.Generator,
) -> tuple[Unroll, VectorStep, list[Tensor]]:
    """Let the policy act for `unroll_len` steps; return what happened, the step that comes next, and the new state.

    Args:
        policy: Any policy that `pack` takes.
        env: Vector environment with labels.
        current: What the environment returned last.
        hidden: Packed state that belongs before `current`.
        missions: Mission vectors of `env`.
        unroll_len: T.
        acting: How actions are chosen.
        generator: CPU generator of all noise, so that every device sees the same.
    """
    device = hidden[0].device
    num_envs = len(current.direction)
    sizes = getattr(policy, "layer_expert_sizes", [])
    noise = None
    if acting.dropout is not None and sizes:
        noise = [torch.rand(unroll_len, num_envs, len(s), generator=generator).to(device) for s in sizes]
    obs = torch.empty(unroll_len, num_envs, OBSERVATION_DIM, device=device)
    taken: list[VectorStep] = []
    ended: list[EpisodeEnd] = []
    before = hidden
    with torch.no_grad():
        packed = pack(policy)
        for t in range(unroll_len):
            missions.add(env.missions)
            obs[t] = torch.from_numpy(encode_observations(current.view, current.direction, current.carrying))
            mission = missions(torch.from_numpy(current.mission_id).to(device))
            start = torch.from_numpy(current.episode_start).to(device)
            dropped = _dropout([n[t : t + 1] for n in noise], acting) if noise else None
            out = packed.sequence(obs[t : t + 1], mission.unsqueeze(0), hidden, start.unsqueeze(0), dropped)
            hidden = out.hidden
            actions = _choose(out.logits[0], current, acting, generator)
            taken.append(current)
            current = env.step(actions)
            ended.extend(current.ended)

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(step, name) for step in taken])).to(device)

    unroll = Unroll(
        obs=obs,
        mission_id=stacked("mission_id"),
        episode_start=stacked("episode_start"),
        expert_action=stacked("expert_action"),
        expert_valid=stacked("expert_valid"),
        hidden=before,
        noise=noise,
        ended=ended,
    )
    return unroll, current, hidden


def replay_unroll(
    packed: PackedPolicy | PackedGRU, unroll: Unroll, missions: MissionVectors, acting: Acting
) -> tuple[Tensor, list[Tensor]]:
    """Return logits (T, N, actions) and routing per layer of an unroll, with gradients, in one batched pass."""
    dropped = _dropout(unroll.noise, acting) if unroll.noise else None
    out = packed.sequence(unroll.obs, missions(unroll.mission_id), unroll.hidden, unroll.episode_start, dropped)
    return out.logits, out.routing


def _dropout(noise: list[Tensor], acting: Acting) -> list[ExpertDropout]:
    beta, gamma = acting.dropout
    return [ExpertDropout(n, beta, gamma) for n in noise]


def _choose(logits: Tensor, current: VectorStep, acting: Acting, generator: torch.Generator) -> np.ndarray:
    """Return the actions to execute, (N,) int64."""
    if acting.sample:
        probs = logits.softmax(dim=-1).cpu()
        actions = torch.multinomial(probs, 1, generator=generator).squeeze(-1).numpy()
    else:
        actions = logits.argmax(dim=-1).cpu().numpy()
    if acting.expert_prob > 0:
        draw = torch.rand(len(actions), generator=generator).numpy()
        actions = np.where((draw < acting.expert_prob) & current.expert_valid, current.expert_action, actions)
    return actions
