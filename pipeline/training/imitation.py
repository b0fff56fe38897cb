"""On-policy imitation with truncated back-propagation: the trainers that training scripts and sweeps call.

The student acts, the expert labels every state the student gets into (the setting of DAgger,
https://arxiv.org/abs/1011.0686), and after `unroll_len` steps the weights take one step of Adam on the loss of those
states. The state of the policy runs on across unrolls; gradients stop at their borders.

What is recurrent is computed once, step by step, to act, and kept; the pass with gradients computes the rest again for
all steps at once (`pipeline/engine/recurrence.py`).

Runs that differ in seed, trial and price of complexity alone are trained together, in batches of a few that are one
tensor program each: in a larger one the weights of all replicas, used at every step, would no longer stay in the
processor's cache. Batches share the threads among themselves. A run's result depends on none of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from babyai.compiled.core import is_on_disk
from babyai.facts import NUM_ACTIONS
from babyai.levels import resolve_task_id
from babyai.missions import MissionEncoder
from babyai.observations import OBSERVATION_DIM
from babyai.vector_env import VectorEnv
from pipeline.checkpoints import CheckpointError, save_checkpoint
from pipeline.command.devices import resolve_device
from pipeline.command.errors import UserError
from pipeline.config import ConfigError, TrainConfig
from pipeline.evaluation.play import Evaluation, evaluate_task_many
from pipeline.training.batch import ReplicaBatch
from pipeline.training.setup import build_encoder, check_alike, deal, find_moment

REPLICAS_PER_BATCH = 4


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says why and what to do.

    Attributes:
        replicas: Which of the runs trained together cannot; the others have taken their step.
    """

    def __init__(self, message: str, replicas: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.replicas = list(replicas)


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


class ReplicaTrainer:
    """R training runs of one architecture and task, trained together.

    Args:
        configs: Settings, equal but for `seed`, `trial` and `lpc_alpha`; `task_id` may be a short name.
        announce: Called with each line worth telling (which sentence encoder is used).
        resume: Content of a checkpoint of each run to go on from, all of the same update; or None.

    Attributes:
        configs: Settings as resolved (full task id, the encoder really used).
        device: Where the policies run.
        encoder: Sentence encoder of all runs.
        update: Weight updates done.
        seconds: Seconds that updates have taken since each run began.

    Raises:
        ConfigError: If settings differ in other fields.
        CheckpointError: If a checkpoint cannot be continued, or they are of different updates.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        *,
        announce: Callable[[str], object] = print,
        resume: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        check_alike(configs)
        self._announce = announce
        first = configs[0]
        if first.input_dim != OBSERVATION_DIM:
            raise ConfigError(
                f"input_dim: expected {OBSERVATION_DIM}, the width of the observation, found {first.input_dim}"
            )
        self.device = resolve_device(first.device)
        self.encoder = build_encoder(configs, self.device, announce, resume)
        self.configs = [resolve_config(config, self.encoder) for config in configs]
        self.update, self.seconds = find_moment(resume, len(configs))
        self._updates_summed, self._seconds_summed = 0, 0.0
        on_cpu, threads = self.device.type == "cpu", first.torch_threads
        batches = -(-len(configs) // REPLICAS_PER_BATCH)
        if on_cpu:
            batches = max(batches, min(threads, len(configs)))
        self._pool = ThreadPoolExecutor(threads) if on_cpu and batches > 1 and threads > 1 else None
        # The compiled engine divides its work by itself, and does so better than torch divides these small operations.
        alone = on_cpu and not first.compile_policy
        torch.set_num_threads(1 if alone or self._pool is not None else threads)
        self._engine_threads = threads if self._pool is None else 1
        self._batches = []
        for chosen in deal(len(configs), batches):
            contents = None if resume is None else [resume[i] for i in chosen]
            self._batches.append(self._build([self.configs[i] for i in chosen], contents))

    def _build(self, configs: list[TrainConfig], resume: list[dict[str, Any]] | None) -> ReplicaBatch:
        try:
            threads = self._engine_threads
            return ReplicaBatch(configs, self.encoder, self.device, resume, threads=threads, announce=self._announce)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if resume is None:
                raise
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(f"cannot be continued ({type(error).__name__}: {reason})") from None

    # ------------------------------------------------------------------------------------------------------ training

    def run_update(self) -> None:
        """Act for one unroll and take one optimiser step in every run.

        Raises:
            TrainingError: If the loss of a run is no longer finite: its weights are as before, the other runs have
                taken their step. `drop` takes such runs out; without it, the next update tries them again.
        """
        started = time.perf_counter()
        prob = self.expert_action_prob()
        if self._pool is None:
            found = [batch.run_update(prob) for batch in self._batches]
        else:
            found = list(self._pool.map(lambda batch: batch.run_update(prob), self._batches))
        failed = {i: why for i, why in enumerate(why for batch in found for why in batch) if why is not None}
        if len(failed) < len(self.configs):
            self.update += 1
            elapsed = time.perf_counter() - started
            self.seconds = [seconds + elapsed for seconds in self.seconds]
            self._seconds_summed += elapsed
            self._updates_summed += 1
        if failed:
            raise TrainingError(self._explain(failed), list(failed))

    def _explain(self, failed: dict[int, str]) -> str:
        update = self.update + (len(failed) == len(self.configs))
        runs = "; ".join(
            why if len(self.configs) == 1 else f"trial {self.configs[i].trial}, seed {self.configs[i].seed}: {why}"
            for i, why in failed.items()
        )
        return (
            f"update {update}: {runs}. The weights are as before this update. Lower lr, set grad_clip (e.g. 1.0), or "
            "raise lpc_eps if lpc_denominator is paper"
        )

    def expert_action_prob(self) -> float:
        """Return the probability that the coming update's steps execute the expert's action."""
        config = self.configs[0]
        if config.expert_action_decay == 0:
            return config.expert_action_prob
        return config.expert_action_prob * max(0.0, 1.0 - self.update / config.expert_action_decay)

    def take_metrics(self) -> list[dict[str, float | int | None]]:
        """Return all metrics of each run, losses averaged since the last call; see `pipeline.tracking.METRICS`."""
        updates, self._updates_summed = self._updates_summed, 0
        seconds, self._seconds_summed = self._seconds_summed, 0.0
        rows = []
        for i, (batch, replica) in enumerate(self._places()):
            metrics: dict[str, float | int | None] = {}
            if updates:
                metrics.update(batch.take_means(replica, updates))
                steps = updates * self.configs[0].num_envs * self.configs[0].unroll_len
                metrics["time/env_steps_per_second"] = steps / seconds
            env = batch.envs[replica]
            metrics |= {
                **batch.windows[replica].summary(),
                "rollout/episodes_total": batch.episodes[replica],
                "rollout/unsolvable_levels": env.counters["levels_unsolvable"],
                "rollout/unlabelled_steps": env.counters["steps_unlabelled"],
                "rollout/expert_action_prob": self.expert_action_prob(),
                "time/seconds": self.seconds[i],
            }
            rows.append(metrics)
        return rows

    @property
    def env_steps(self) -> int:
        """Steps taken in all environments of one run since it began."""
        return self.update * self.configs[0].num_envs * self.configs[0].unroll_len

    @property
    def policies(self) -> list[nn.Module]:
        """Each run's policy, its weights up to date."""
        return [batch.policies[replica] for batch, replica in self._places()]

    @property
    def projections(self) -> list[nn.Linear]:
        """Each run's mission projection."""
        return [batch.projections[replica] for batch, replica in self._places()]

    @property
    def envs(self) -> list[VectorEnv]:
        """Each run's environment."""
        return [batch.envs[replica] for batch, replica in self._places()]

    def evaluate(self, num_episodes: int) -> list[Evaluation]:
        """Play the first `num_episodes` of the fixed evaluation levels; training is not touched by it."""
        config = self.configs[0]  # runs differ in nothing that counts here
        return evaluate_task_many(
            [(policy, self.encoder, p) for policy, p in zip(self.policies, self.projections, strict=True)],
            config.task_id,
            num_episodes,
            num_envs=64,  # changes the speed alone
            max_steps=config.max_steps,
            record=False,
            label=False,
            lpc_exponent=config.lpc_exponent,
        )

    # --------------------------------------------------------------------------------------------------- checkpoints

    def save(self, replica: int, path: Path) -> None:
        """Write a run's checkpoint of this moment, the one that it would have written by itself."""
        save_checkpoint(path, self._content(replica))

    def drop(self, replicas: Sequence[int]) -> None:
        """Take runs out; the others, renumbered in their order, go on as if those had never been there."""
        gone = set(replicas)
        if not gone < set(range(len(self.configs))):
            raise ValueError(f"expected some of {len(self.configs)} runs, found {sorted(gone)}")
        first, batches = 0, []
        for batch in self._batches:
            count = len(batch.configs)
            kept = [i for i in range(count) if first + i not in gone]
            if len(kept) == count:
                batches.append(batch)
            elif kept:
                contents = [self._content(first + i) for i in kept]
                batches.append(self._build([batch.configs[i] for i in kept], contents))
                batches[-1].sums.copy_(batch.sums[kept])
            first += count
        self._batches = batches
        kept = [i for i in range(len(self.configs)) if i not in gone]
        self.configs = [self.configs[i] for i in kept]
        self.seconds = [self.seconds[i] for i in kept]

    def _content(self, replica: int) -> dict[str, Any]:
        batch, index = self._places()[replica]
        content = batch.content(index)
        return {
            **content,
            "config": {**self.configs[replica].to_dict(), "num_actions": NUM_ACTIONS, "update": self.update},
            "update": self.update,
            "lang_encoder": self.encoder.describe(),
            "resume": {**content["resume"], "seconds": self.seconds[replica]},
        }

    def _places(self) -> list[tuple[ReplicaBatch, int]]:
        """Return each run's batch and its number there."""
        return [(batch, i) for batch in self._batches for i in range(len(batch.configs))]


class ImitationTrainer:
    """One training run: a `ReplicaTrainer` of one.

    Args:
        config: Settings; `task_id` may be a short name.
        announce: Called with each line worth telling (which sentence encoder is used).
        resume: Content of a checkpoint of this run to go on from, or None.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        announce: Callable[[str], object] = print,
        resume: dict[str, Any] | None = None,
    ) -> None:
        self._runs = ReplicaTrainer([config], announce=announce, resume=None if resume is None else [resume])
        self.device, self.encoder = self._runs.device, self._runs.encoder

    def run_update(self) -> None:
        """Act for one unroll and take one optimiser step.

        Raises:
            TrainingError: If the loss is no longer finite.
        """
        self._runs.run_update()

    def expert_action_prob(self) -> float:
        """Return the probability that the coming update's steps execute the expert's action."""
        return self._runs.expert_action_prob()

    def take_metrics(self) -> dict[str, float | int | None]:
        """Return all metrics, losses averaged over the updates since the last call; see `pipeline.tracking.METRICS`."""
        return self._runs.take_metrics()[0]

    def evaluate(self, num_episodes: int) -> Evaluation:
        """Play the first `num_episodes` of the fixed evaluation levels; training is not touched by it."""
        return self._runs.evaluate(num_episodes)[0]

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment."""
        self._runs.save(0, path)

    @property
    def config(self) -> TrainConfig:
        """Settings as resolved (full task id, the encoder really used)."""
        return self._runs.configs[0]

    @property
    def update(self) -> int:
        """Weight updates done."""
        return self._runs.update

    @property
    def env_steps(self) -> int:
        """Steps taken in all environments since the run began."""
        return self._runs.env_steps

    @property
    def seconds(self) -> float:
        """Seconds that updates have taken since the run began."""
        return self._runs.seconds[0]

    @property
    def policy(self) -> nn.Module:
        """The policy, its weights up to date."""
        return self._runs.policies[0]

    @property
    def projection(self) -> nn.Linear:
        """The mission projection."""
        return self._runs.projections[0]

    @property
    def env(self) -> VectorEnv:
        """The environment."""
        return self._runs.envs[0]


def announce_compilation(announce: Callable[[str], object]) -> None:
    """Say so if the first update has to wait for compilers."""
    if not is_on_disk():
        announce("compiling the world and the policy: about a minute, once for this copy of the code")


def resolve_config(config: TrainConfig, encoder: MissionEncoder) -> TrainConfig:
    """Return the configuration with the full task id and the sentence encoder that is really used."""
    return TrainConfig(**{**config.to_dict(), "task_id": resolve_task_id(config.task_id), "lang_encoder": encoder.name})
