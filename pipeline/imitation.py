"""On-policy imitation with truncated back-propagation: the loop that both training scripts call.

The student acts, the expert labels every state the student gets into (the setting of DAgger,
https://arxiv.org/abs/1011.0686), and after `unroll_len` steps the weights take one step of Adam on the loss of those
states. The state of the policy runs on across unrolls; gradients stop at their borders.

Each unroll is computed twice: step by step without gradients to act, then in one batched pass with gradients. The
second pass has no input products step by step, and costs less than keeping the graph of the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from babyai.level_seeds import SeedStreams
from babyai.levels import resolve_task_id
from babyai.missions import MissionEncoder, build_mission_encoder, restore_mission_encoder
from babyai.vector_env import VectorEnv
from pipeline.checkpoints import (
    NUM_ACTIONS,
    CheckpointError,
    build_policy,
    build_projection,
    derive_seed,
    save_checkpoint,
)
from pipeline.config import ConfigError, TrainConfig
from pipeline.evaluation import Evaluation, evaluate_task
from pipeline.losses import LossTerms, compute_losses
from pipeline.packed import pack
from pipeline.records import EpisodeWindow
from pipeline.rollout import Acting, MissionVectors, collect_unroll, replay_unroll


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def resolve_device(name: str) -> torch.device:
    """Return the device that a configuration names.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: expected a GPU that torch can use for {name!r}, found none; use auto or cpu")
    return torch.device(name)


@dataclass
class _Sums:
    """Sums of what is logged, kept on the device until they are logged."""

    terms: Tensor | None = None
    entropy: Tensor | None = None
    updates: int = 0

    def add(self, terms: LossTerms, grad_norm: Tensor, entropy: Tensor) -> None:
        scalars = torch.stack(
            [terms.task, terms.lpc, terms.penalty, terms.total, terms.accuracy, terms.labelled, grad_norm]
        ).detach()
        row = torch.cat([scalars, terms.lpc_per_layer.detach()])
        self.terms = row if self.terms is None else self.terms + row
        self.entropy = entropy if self.entropy is None else self.entropy + entropy
        self.updates += 1


_SCALARS = (
    "train/task_loss",
    "train/lpc",
    "train/penalty",
    "train/total_loss",
    "train/accuracy",
    "train/labelled_fraction",
    "train/grad_norm",
)


EVALUATION_METRICS = {
    "eval/success_rate": "success_rate",
    "eval/success_low": "success_low",
    "eval/success_high": "success_high",
    "eval/episodes": "num_episodes",
    "eval/mean_lpc": "mean_lpc",
    "eval/path_ratio": "path_ratio",
    "eval/mean_steps": "mean_steps",
}
"""Logged metrics and the names under which an evaluation has them."""


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float | int | None]:
    """Return the `eval/...` metrics of an evaluation."""
    return {key: evaluation.metrics[name] for key, name in EVALUATION_METRICS.items()}


class ImitationTrainer:
    """One training run: policy, optimiser, environments and what they carry from update to update.

    Args:
        config: Settings; `task_id` may be a short name.
        announce: Called with each line worth telling (which sentence encoder is used).
        resume: Content of a checkpoint of this run to go on from, or None.

    Attributes:
        config: Settings as resolved (full task id, the encoder really used).
        update: Weight updates done.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        announce: Callable[[str], object] = print,
        resume: dict[str, Any] | None = None,
    ) -> None:
        torch.set_num_threads(config.torch_threads)
        self.device = resolve_device(config.device)
        if resume is None:
            self.encoder = build_mission_encoder(config.lang_encoder, device=self.device, announce=announce)
        else:
            self.encoder = restore_mission_encoder(
                resume["lang_encoder"], device=self.device, announce=announce, override=config.lang_encoder
            )
        self.config = resolve_config(config, self.encoder)
        self.policy = build_policy(self.config).to(self.device)
        self.projection = build_projection(self.config, self.encoder.width).to(self.device)
        self.projection.requires_grad_(self.config.train_lang_proj)
        trained = [*self.policy.parameters(), *(p for p in self.projection.parameters() if p.requires_grad)]
        self._parameters = trained
        # The fused step updates all weights in one call; on these small networks the loop over tensors costs more.
        self.optimizer = torch.optim.Adam(trained, lr=self.config.lr, fused=True)
        self.env = VectorEnv(
            self.config.task_id,
            self.config.num_envs,
            SeedStreams(self.config.seed, self.config.num_envs),
            max_steps=self.config.max_steps,
            plan_every=self.config.plan_every,
        )
        self.missions = MissionVectors(self.encoder, self.projection, trainable=self.config.train_lang_proj)
        self.generator = torch.Generator().manual_seed(derive_seed(self.config.seed, stream=2))
        self.window = EpisodeWindow(self.config.window)
        self.update = 0
        self.episodes = 0
        self.seconds = 0.0
        self._sums = _Sums()
        self._sums_seconds = 0.0
        if resume is None:
            self._current = self.env.reset()
            self._hidden = pack(self.policy).init_hidden(self.config.num_envs)
            self._hidden = [state.detach() for state in self._hidden]
        else:
            self._load(resume)

    # ------------------------------------------------------------------------------------------------------ training

    def run_update(self) -> None:
        """Act for one unroll and take one optimiser step.

        Raises:
            TrainingError: If the loss is no longer finite.
        """
        started = time.perf_counter()
        config = self.config
        acting = Acting(
            sample=config.action_selection == "sample",
            expert_prob=self.expert_action_prob(),
            dropout=(config.expert_dropout_beta, config.expert_dropout_gamma) if config.expert_dropout else None,
        )
        unroll, self._current, self._hidden = collect_unroll(
            self.policy,
            self.env,
            self._current,
            self._hidden,
            self.missions,
            config.unroll_len,
            acting,
            self.generator,
        )
        logits, routing = replay_unroll(pack(self.policy), unroll, self.missions, acting)
        terms = compute_losses(
            logits,
            unroll.expert_action,
            unroll.expert_valid,
            routing,
            getattr(self.policy, "layer_expert_sizes", []),
            alpha=config.lpc_alpha,
            normalize=config.normalize_lpc,
            denominator=config.lpc_denominator,
            eps=config.lpc_eps,
            exponent=config.lpc_exponent,
        )
        self.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        limit = math.inf if config.grad_clip is None else config.grad_clip
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit, foreach=True)
        if not math.isfinite(norm.item()):
            raise TrainingError(
                f"update {self.update + 1}: loss {terms.total.item():g}, gradient norm {norm.item():g}. The weights "
                "are as before this update. Lower lr, set grad_clip (e.g. 1.0), or raise lpc_eps if lpc_denominator "
                "is paper"
            )
        self.optimizer.step()
        self.update += 1
        for episode in unroll.ended:
            self.window.add(episode.outcome, episode.steps, episode.expert_steps)
        self.episodes += len(unroll.ended)
        self._sums.add(terms, norm.detach(), _entropy(routing, norm))
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        self._sums_seconds += elapsed

    def expert_action_prob(self) -> float:
        """Return the probability that the coming update's steps execute the expert's action."""
        config = self.config
        if config.expert_action_decay == 0:
            return config.expert_action_prob
        return config.expert_action_prob * max(0.0, 1.0 - self.update / config.expert_action_decay)

    def take_metrics(self) -> dict[str, float | int | None]:
        """Return all metrics, losses averaged over the updates since the last call; see `pipeline.tracking.METRICS`."""
        sums, self._sums = self._sums, _Sums()
        seconds, self._sums_seconds = self._sums_seconds, 0.0
        metrics: dict[str, float | int | None] = {}
        if sums.terms is not None:
            means = (sums.terms / sums.updates).tolist()
            metrics.update(zip(_SCALARS, means, strict=False))
            layers = means[len(_SCALARS) :]
            metrics.update({f"train/lpc/layer_{i}": value for i, value in enumerate(layers)})
            entropies = (sums.entropy / sums.updates).tolist()
            metrics.update({f"train/router_entropy/layer_{i}": value for i, value in enumerate(entropies)})
            steps = sums.updates * self.config.num_envs * self.config.unroll_len
            metrics["time/env_steps_per_second"] = steps / seconds
        return {
            **metrics,
            **self.window.summary(),
            "rollout/episodes_total": self.episodes,
            "rollout/unsolvable_levels": self.env.counters["levels_unsolvable"],
            "rollout/unlabelled_steps": self.env.counters["steps_unlabelled"],
            "rollout/expert_action_prob": self.expert_action_prob(),
            "time/seconds": self.seconds,
        }

    @property
    def env_steps(self) -> int:
        """Steps taken in all environments since the run began."""
        return self.update * self.config.num_envs * self.config.unroll_len

    def evaluate(self, num_episodes: int) -> Evaluation:
        """Play the first `num_episodes` of the fixed evaluation levels; training is not touched by it."""
        return evaluate_task(
            self.policy,
            self.encoder,
            self.projection,
            self.config.task_id,
            num_episodes,
            num_envs=max(self.config.num_envs, 16),
            max_steps=self.config.max_steps,
            record=False,
            label=False,
            lpc_exponent=self.config.lpc_exponent,
        )

    # ----------------------------------------------------------------------------------------------------- checkpoint

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment."""
        save_checkpoint(
            path,
            {
                "policy_state_dict": self.policy.state_dict(),
                "optimizer_state_dict": self.optimizer.state_dict(),
                "config": {**self.config.to_dict(), "num_actions": NUM_ACTIONS, "update": self.update},
                "update": self.update,
                "lang_proj_state_dict": self.projection.state_dict(),
                "lang_encoder": self.encoder.describe(),
                "resume": {
                    "env": self.env.state_dict(),
                    "hidden": self._hidden,
                    "generator": self.generator.get_state(),
                    "window": self.window.state(),
                    "episodes": self.episodes,
                    "seconds": self.seconds,
                },
            },
        )

    def _load(self, content: dict[str, Any]) -> None:
        state = content.get("resume")
        if state is None:
            raise CheckpointError("this checkpoint has no `resume` part: it can be evaluated, not continued")
        try:
            self.policy.load_state_dict(content["policy_state_dict"])
            self.projection.load_state_dict(content["lang_proj_state_dict"])
            self.optimizer.load_state_dict(content["optimizer_state_dict"])
            self._current = self.env.load_state_dict(state["env"])
            self._hidden = [hidden.to(self.device) for hidden in state["hidden"]]
            self.generator.set_state(state["generator"].cpu())
            self.window.load(state["window"])
            self.episodes, self.seconds = state["episodes"], state["seconds"]
            self.update = int(content["update"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(f"cannot be continued ({type(error).__name__}: {reason})") from None


def resolve_config(config: TrainConfig, encoder: MissionEncoder) -> TrainConfig:
    """Return the configuration with the full task id and the sentence encoder that is really used."""
    return TrainConfig(**{**config.to_dict(), "task_id": resolve_task_id(config.task_id), "lang_encoder": encoder.name})


def _entropy(routing: list[Tensor], like: Tensor) -> Tensor:
    """Return the mean entropy of each layer's routing decisions, nats, (layers,)."""
    with torch.no_grad():
        rows = [torch.special.entr(w).sum(dim=-1).mean() for w in routing]
        return torch.stack(rows) if rows else like.new_zeros(0)
