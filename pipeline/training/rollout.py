"""Acting while learning: unrolls of on-policy steps of R replicas side by side.

Each replica has its own vector environment, missions and random numbers. All noise of an unroll is drawn before it from
the replica's CPU generator, so that a step draws nothing, every device sees the same numbers, and a replica's numbers
do not depend on the others. Where the policy computes on the CPU and levels are compiled, an unroll is one call
(`unroll.py`); else it goes step by step, which costs one transfer from the device a step, that of the actions. Results
are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from babyai.observations import OBSERVATION_DIM
from babyai.vector_env import EpisodeEnd, VectorEnv, VectorStep
from mixture_of_experts import ExpertDropout
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.compiled.kernels import write_observations
from pipeline.engine.missions import MissionVectors
from pipeline.engine.torch_engine import TorchEngine
from pipeline.engine.weights import ReplicaWeights
from pipeline.training.unroll import CompiledUnroll

MISSION_LIMIT = 8192
"""How many sentences of a replica are kept by number: most levels have fewer, the others endlessly many."""


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


class Rollout:
    """Unrolls of T steps of R replicas with N environments each, in arrays that are filled again at each unroll.

    Attributes:
        engine: Acts, keeps the policies' state, computes gradients.
        expert_action: Labels of the last unroll, int64, R times all steps of all environments; the order of `replay`.
        expert_valid: Which are labels, bool, likewise.
        ended: Episodes that ended within the last unroll, per replica.
        current: What each environment shows now; not kept where an unroll is one call.
    """

    def __init__(
        self,
        policy: nn.Module,
        weights: ReplicaWeights,
        envs: Sequence[VectorEnv],
        missions: Sequence[MissionVectors],
        generators: Sequence[torch.Generator],
        unroll_len: int,
        groups: int,
        build_engine: Callable[[nn.Module, ReplicaWeights, Tensor, Tensor], CompiledEngine | TorchEngine],
        told: Tensor | None = None,
        solo: np.ndarray | None = None,
    ) -> None:
        """Allocate; then call `start` or `load`.

        Args:
            policy: Gives the architecture.
            weights: Weights of the R replicas.
            envs: Their environments, with labels.
            missions: Their mission vectors.
            generators: Their CPU generators.
            unroll_len: T.
            groups: Into how many groups the engine wants a replica's environments divided.
            build_engine: Returns what computes.
            told: (N, width), what the policy is told of each environment's level beside the observation; None: nothing.
            solo: bool (N,), environments in which the expert never acts and steps are no labels; None: there are none.
        """
        self._envs, self._missions, self._generators = envs, missions, generators
        self._experts = [len(sizes) for sizes in getattr(policy, "layer_expert_sizes", [])]
        self._actions, self._device = policy.head.out_features, weights.flat.device
        self._trained = missions[0].trainable
        replicas, num_envs = len(envs), envs[0].num_envs
        self._split = (replicas, groups, num_envs // groups)
        self._solo = None if solo is None else np.tile(solo.reshape(groups, 1, -1), (replicas, 1, 1))  # (G, 1, n)
        shape = (replicas * groups, unroll_len, num_envs // groups)  # (G, T, n) in the engine's arrays
        lang_dim = missions[0].projection.out_features
        missions_at = OBSERVATION_DIM + (0 if told is None else told.shape[1])
        self._inputs = weights.flat.new_zeros(*shape, missions_at + lang_dim)
        if told is not None:  # it never changes
            of_groups = told.to(self._inputs).view(groups, 1, shape[2], -1).repeat(replicas, unroll_len, 1, 1)
            self._inputs[..., OBSERVATION_DIM:missions_at] = of_groups
        self._mission = weights.flat.new_zeros(shape[0], shape[2], lang_dim)
        # Filled on the host through numpy; on the CPU the policy reads them where they are.
        self._on_host = self._device.type == "cpu"
        kinds = {"mission_id": torch.int64, "episode_start": torch.bool, "expert_action": torch.int64}
        kinds["expert_valid"] = torch.bool
        self._host = {
            name: torch.zeros(shape, dtype=kind, pin_memory=not self._on_host) for name, kind in kinds.items()
        }
        self._arrays = {name: array.numpy() for name, array in self._host.items()}
        self._on_device = {name: array.to(self._device) for name, array in self._host.items()}
        steps = (replicas, groups * unroll_len, num_envs // groups)
        self.expert_action, self.expert_valid = (
            self._on_device[name].view(steps) for name in ("expert_action", "expert_valid")
        )
        self._obs = self._inputs if self._on_host else torch.zeros(*shape, OBSERVATION_DIM, pin_memory=True)
        obs = self._obs.numpy()
        self._obs_arrays = [[list(group) for group in obs[r * groups : (r + 1) * groups]] for r in range(replicas)]
        self._mission_views = [self._inputs[:, t, :, missions_at:] for t in range(unroll_len)]
        self.engine = build_engine(policy, weights, self._inputs, self._on_device["episode_start"])
        self._unroll: CompiledUnroll | None = None
        compiled = all(env.core == "compiled" for env in envs)
        if type(self.engine) is CompiledEngine and compiled:
            self._unroll = CompiledUnroll(self.engine, envs, missions, self._arrays, missions_at)
        self.current: list[VectorStep] = []
        self.ended: list[list[EpisodeEnd]] = []

    def start(self) -> None:
        """Begin with new levels and a zero state."""
        if self._unroll is not None:
            self._unroll.start()
        else:
            self.load([env.reset() for env in self._envs], self.engine.init_hidden())

    def load(self, current: Sequence[VectorStep], hidden: Sequence[Tensor]) -> None:
        """Go on from what the environments show and the state before it, (R, N, H) per layer."""
        self.current = list(current)
        self.engine.hidden = hidden

    @torch.no_grad()
    def collect(self, acting: Acting) -> None:
        """Let the policies act for an unroll."""
        self._forget_missions()
        gumbel, chance, dropped = self._draw(acting)
        self.ended = [[] for _ in self._envs]
        self.engine.begin(dropped)
        if self._unroll is not None:
            self.ended = self._unroll.play(gumbel, chance, acting.expert_prob)
        else:
            self._step(gumbel, chance, acting.expert_prob)
        if self._solo is not None:
            self._arrays["expert_valid"][...] &= ~self._solo
        if not self._on_host:
            for name, array in self._host.items():
                self._on_device[name].copy_(array)

    def _forget_missions(self) -> None:
        """Forget missions that are over where there are many; the last unroll's numbers are needed no more."""
        for replica, (env, missions) in enumerate(zip(self._envs, self._missions, strict=True)):
            if len(env.missions) > max(MISSION_LIMIT, 4 * env.num_envs):
                step = env.forget_missions()
                missions.forget()
                if self._unroll is None:
                    self.current[replica] = step

    def _step(self, gumbel: Tensor | None, chance: np.ndarray | None, expert_prob: float) -> None:
        """Play an unroll step by step; see `Chooses` for the arguments."""
        for t in range(self._inputs.shape[1]):
            self._show(t)
            logits = self.engine.act(t)
            if gumbel is not None:
                logits = logits + gumbel[:, t]
            actions = logits.argmax(dim=-1).cpu().numpy()  # (G, n)
            if chance is not None:
                forced = self._arrays["expert_valid"][:, t] & (chance[:, t] < expert_prob)
                actions = np.where(forced, self._arrays["expert_action"][:, t], actions)
            for replica, (env, chosen) in enumerate(zip(self._envs, actions.reshape(len(self._envs), -1), strict=True)):
                step = env.step(chosen)
                self.current[replica] = step
                if step.ended:
                    self.ended[replica].extend(step.ended)

    def _show(self, t: int) -> None:
        """Write what the environments show as step t."""
        _, groups, size = self._split
        for replica, step in enumerate(self.current):
            of_replica = slice(replica * groups, (replica + 1) * groups)
            for group, out in enumerate(self._obs_arrays[replica]):
                rows = slice(group * size, (group + 1) * size)
                write_observations(step.view[rows], step.direction[rows], step.carrying[rows], out[t])
            for name, array in self._arrays.items():
                array[of_replica, t] = getattr(step, name).reshape(groups, size)
            # A slot's mission changes where an episode starts only; the projection may have changed since last time.
            if t == 0 or step.episode_start.any():
                missions = self._missions[replica]
                missions.add(self._envs[replica].missions)
                ids = torch.from_numpy(step.mission_id).to(self._device)
                self._mission[of_replica] = missions(ids).unflatten(0, (groups, size))
        self._mission_views[t].copy_(self._mission)
        if not self._on_host:
            self._inputs[:, t, :, :OBSERVATION_DIM].copy_(self._obs[:, t], non_blocking=True)
            starts = self._host["episode_start"][:, t]
            self._on_device["episode_start"][:, t].copy_(starts, non_blocking=True)

    def _draw(self, acting: Acting) -> tuple[Tensor | None, np.ndarray | None, list[ExpertDropout] | None]:
        """Return all noise of an unroll: Gumbel noise, draws for the expert's actions, expert dropout."""
        steps, (_, groups, size) = self._inputs.shape[1], self._split

        def draw(width: int) -> Tensor:
            rows = [torch.rand(steps, groups, size, width, generator=generator) for generator in self._generators]
            return torch.stack(rows).transpose(1, 2).flatten(0, 1)  # (G, T, n, width)

        dropped = gumbel = chance = None
        if acting.dropout is not None and self._experts:
            dropped = [ExpertDropout(draw(experts).to(self._device), *acting.dropout) for experts in self._experts]
        if acting.sample:
            # argmax(logits + g) is a sample of softmax(logits) (the Gumbel-max trick)
            gumbel = draw(self._actions).log_().neg_().log_().neg_().to(self._device)
        if acting.expert_prob > 0:
            chance = draw(1).squeeze(-1).numpy()
            if self._solo is not None:
                chance = np.where(self._solo, np.float32(1), chance)  # never below a probability
        return gumbel, chance, dropped

    def replay(self) -> tuple[Tensor, list[Tensor]]:
        """Return logits and routing per layer of the last unroll, for a loss to be computed from.

        Their axes are R, all steps in two axes as in `expert_action`, and actions or experts.
        """
        logits, routing = self.engine.replay(self.sentences())
        steps = self.expert_action.shape
        return logits.view(*steps, -1), [weights.reshape(*steps, -1) for weights in routing]

    def sentences(self) -> list[Tensor]:
        """Return sentence vectors of all steps, per replica, where the mission projection is trained; else none."""
        if not self._trained:
            return []
        ids = self._on_device["mission_id"].view(len(self._envs), -1, self._split[2])
        return [missions.rows(known) for missions, known in zip(self._missions, ids, strict=True)]
