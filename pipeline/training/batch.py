"""R training runs as one tensor program: what they carry from update to update, their metrics and checkpoints.

Runs that differ in `MAY_DIFFER` alone (seed, price, where they start, what they train) are trained together; a single
run is R = 1. A run's result depends on nothing else that is in the batch. What is done with a batch: `loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from babyai.facts import NUM_ACTIONS
from babyai.missions import MissionEncoder, build_mission_encoder, restore_mission_encoder
from babyai.observations import OBSERVATION_DIM
from pipeline.checkpoints import CheckpointError, LoadedPolicy, save_checkpoint
from pipeline.command.devices import derive_seed, resolve_device
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.missions import MissionVectors
from pipeline.engine.torch_engine import TorchEngine
from pipeline.engine.weights import ReplicaWeights
from pipeline.evaluation.mixture import evaluate_levels
from pipeline.evaluation.play import Evaluation, PlaySettings
from pipeline.policies import build_policy, build_projection
from pipeline.records.metrics import EpisodeWindow
from pipeline.training.levels import Levels, build_env, solo_slots
from pipeline.training.losses import LossTerms, Price
from pipeline.training.objective import Objective
from pipeline.training.options import resolve_levels
from pipeline.training.rollout import Acting, Rollout
from pipeline.training.start import describe_encoders, read_starts, take_start
from pipeline.training.sums import LossSums

MAY_DIFFER = ("seed", "trial", "lpc_alpha", "start_from", "train_only")
"""Fields in which runs that are trained together may differ."""


class ReplicaBatch:
    """Runs that are trained together.

    Args:
        configs: Settings, equal but for `MAY_DIFFER`; `task_id` may be a short name.
        resume: Content of a checkpoint of each run to go on from, all of the same update; or None.
        announce: Called with each line worth telling (which sentence encoder is used).
        engine: What acts and computes gradients; None takes the compiled one on the CPU, torch elsewhere and for
            `compile_policy`.

    Attributes:
        configs: Settings as resolved (full task ids, the encoder really used).
        config: Those of the first run, for what is alike.
        device: Where the policies run.
        encoder: Sentence encoder of all runs.
        policies: The policies; their parameters are views of common arrays and always up to date.
        projections: The mission projections.
        weights: All trained weights, with their gradients and optimiser.
        envs: The environments.
        levels: Which level is played in which environment.
        solo: In which environments the student acts alone where it does not everywhere, bool (N,).
        step_levels: Of which level each step of an unroll is; None for a single level.
        generators: The runs' generators of action noise and dropout.
        rollout: Acts, and computes what the loss needs again.
        objective: The loss with its gradient.
        price: Of complexity; its alpha is (R,).
        expert_sizes: Per layer; empty for the baseline.
        sums: Losses since the last line of metrics.
        windows: The runs' last episodes, of the student alone where there are such.
        level_windows: Those of each level of a mixture; none for a single level.
        episodes: Episodes ended, per run.
        update: Weight updates done.
        seconds: Seconds that updates have taken since each run began.
        timed: Whether the checkpoint that each run has gone on from was a timed one.
        started_from: Of each run, from which weights it once started; empty: its own.

    Raises:
        ConfigError: If settings differ in other fields, or one cannot be used.
        CheckpointError: If a checkpoint cannot be continued, or they are of different updates.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        *,
        resume: Sequence[dict[str, Any]] | None = None,
        announce: Callable[[str], object] = print,
        engine: type[CompiledEngine | TorchEngine] | None = None,
    ) -> None:
        check_alike(configs)
        first = configs[0]
        if first.input_dim != OBSERVATION_DIM:
            raise ConfigError(
                f"input_dim: expected {OBSERVATION_DIM}, the width of the observation, found {first.input_dim}"
            )
        self.device = resolve_device(first.device)
        self.update, self.seconds = _find_moment(resume, len(configs))
        starts = read_starts(configs) if resume is None else [None] * len(configs)
        begun = describe_encoders(starts, configs)
        self.encoder = _build_encoder(first.lang_encoder, self.device, announce, resume, begun)
        known = {"task_id": resolve_levels(first), "lang_encoder": self.encoder.name}
        self.configs = [TrainConfig(**{**config.to_dict(), **known}) for config in configs]
        self.config = self.configs[0]
        # The compiled engine divides its work by itself, and does so better than torch divides these small operations.
        compiled = self.device.type == "cpu" and not first.compile_policy
        torch.set_num_threads(1 if compiled else first.torch_threads)
        self._announce, self._engine = announce, engine or (CompiledEngine if compiled else TorchEngine)
        try:
            self._build(resume, starts)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if resume is None:
                raise
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(f"cannot be continued ({type(error).__name__}: {reason})") from None

    def _build(self, resume: Sequence[dict[str, Any]] | None, starts: Sequence[LoadedPolicy | None]) -> None:
        """Build policies, environments and what acts, at the beginning or as checkpoints left them."""
        config, device = self.config, self.device
        trained = config.train_lang_proj
        self.policies = [build_policy(config).to(device) for config in self.configs]
        self.projections = [build_projection(config, self.encoder.width).to(device) for config in self.configs]
        for projection in self.projections:
            projection.requires_grad_(trained)
        self.levels = Levels.of(config)
        self.solo = solo_slots(config)
        self.envs = [build_env(config) for config in self.configs]
        self.generators = [torch.Generator().manual_seed(derive_seed(config.seed, 2)) for config in self.configs]
        self.windows = [EpisodeWindow(config.window) for config in self.configs]
        self.level_windows = [[EpisodeWindow(config.window) for _ in self.levels.names] for config in self.configs]
        self.episodes = [0] * len(self.configs)
        self.timed = [False] * len(self.configs)
        self.expert_sizes: list[list[int]] = getattr(self.policies[0], "layer_expert_sizes", [])
        self.price = Price(
            alpha=torch.tensor([config.lpc_alpha for config in self.configs], device=device),
            normalize=config.normalize_lpc,
            denominator=config.lpc_denominator,
            eps=config.lpc_eps,
            exponent=config.lpc_exponent,
        )
        parts = [config.train_only for config in self.configs]
        self.weights = ReplicaWeights(self.policies, self.projections if trained else [], config.lr, parts)
        self.started_from: list[dict[str, Any]] = [{} for _ in self.configs]
        for replica, start in enumerate(starts):
            if start is not None:
                own = self.configs[replica], self.policies[replica], self.projections[replica]
                self.started_from[replica] = take_start(start, *own)
        for replica, content in enumerate(resume or ()):
            self.policies[replica].load_state_dict(content["policy_state_dict"])
            self.projections[replica].load_state_dict(content["lang_proj_state_dict"])
            self.weights.load_optimizer_state(replica, content["optimizer_state_dict"])
            self.started_from[replica] = content.get("started_from", {})
        missions = [
            MissionVectors(self.encoder, projection, trainable=trained) for projection in self.projections
        ]  # after the weights are final: a frozen projection is applied once
        engine = self._engine
        self.rollout = Rollout(
            self.policies[0],
            self.weights,
            self.envs,
            missions,
            self.generators,
            config.unroll_len,
            engine.count_groups(config.num_envs),
            partial(engine, threads=config.torch_threads) if issubclass(engine, CompiledEngine) else engine,
            self.levels.told(config),
            self.solo,
        )
        self.step_levels = self.levels.of_steps(config.unroll_len, engine.count_groups(config.num_envs), device)
        self.objective = Objective(self.rollout, self.expert_sizes, self.price, self.step_levels)
        if config.compile_policy and isinstance(self.rollout.engine, TorchEngine):
            self.rollout.engine.compile(self._announce)
        if resume is None:
            self.rollout.start()
        else:
            self._load([content["resume"] for content in resume])
        self.sums = LossSums(len(self.configs), len(self.expert_sizes), device, self.levels.names)
        self.sums.load([content["resume"] for content in resume or ()])

    def _load(self, states: Sequence[dict[str, Any]]) -> None:
        current = []
        for replica, state in enumerate(states):
            current.append(self.envs[replica].load_state_dict(state["env"]))
            self.generators[replica].set_state(state["generator"].cpu())
            self.windows[replica].load(state["window"])
            for window, saved in zip(self.level_windows[replica], state.get("level_windows", ()), strict=True):
                window.load(saved)
            self.episodes[replica] = state["episodes"]
            self.timed[replica] = state.get("timed", False)
        layers = zip(*(state["hidden"] for state in states), strict=True)
        self.rollout.load(current, [torch.stack([state.to(self.device) for state in layer]) for layer in layers])

    # ------------------------------------------------------------------------------------------------------ an update

    def acting(self) -> Acting:
        """Return how the student acts in the coming unroll."""
        config = self.config
        return Acting(
            sample=config.action_selection == "sample",
            expert_prob=self.expert_action_prob(),
            dropout=(config.expert_dropout_beta, config.expert_dropout_gamma) if config.expert_dropout else None,
        )

    def expert_action_prob(self) -> float:
        """Return the probability that the coming update's steps execute the expert's action."""
        config = self.config
        if config.expert_action_decay == 0:
            return config.expert_action_prob
        return config.expert_action_prob * max(0.0, 1.0 - self.update / config.expert_action_decay)

    def note_update(self, losses: LossTerms, norms: Tensor, seconds: float) -> None:
        """Count an update that some run at least has taken, and keep what is logged of it; see `LossSums.add`."""
        self.sums.add(losses, norms, seconds)
        for replica, ended in enumerate(self.rollout.ended):
            for episode in ended:
                windows = [self.windows[replica]]
                if self.levels.names:
                    windows.append(self.level_windows[replica][self.levels.index[episode.slot]])
                aided = self.solo is not None and not self.solo[episode.slot]
                for window in windows:
                    if aided:
                        window.skip()
                    else:
                        window.add(episode.outcome, episode.steps, episode.expert_steps)
            self.episodes[replica] += len(ended)
        self.update += 1
        self.seconds = [total + seconds for total in self.seconds]

    def without(self, replicas: Sequence[int]) -> ReplicaBatch:
        """Return the other runs, renumbered in their order; they go on as if those had never been there."""
        kept = [i for i in range(len(self.configs)) if i not in set(replicas)]
        others = ReplicaBatch(
            [self.configs[i] for i in kept],
            resume=[self.content(i) for i in kept],
            announce=lambda line: None,
            engine=self._engine,
        )
        others.sums = self.sums.select(kept)
        return others

    # ------------------------------------------------------------------------------------------------ what comes of it

    @property
    def env_steps(self) -> int:
        """Steps taken in all environments of one run since it began."""
        return self.update * self.config.num_envs * self.config.unroll_len

    def take_metrics(self) -> list[dict[str, float | int | None]]:
        """Return all metrics of each run, losses averaged since the last call; see `pipeline.tracking.METRICS`."""
        rows = self.sums.take(self.config.num_envs * self.config.unroll_len)
        for replica, (metrics, env) in enumerate(zip(rows, self.envs, strict=True)):
            metrics["env_steps"] = self.env_steps
            metrics |= {
                **self.windows[replica].summary(),
                "rollout/episodes_total": self.episodes[replica],
                "rollout/unsolvable_levels": env.counters["levels_unsolvable"],
                "rollout/unlabelled_steps": env.counters["steps_unlabelled"],
                "rollout/expert_action_prob": self.expert_action_prob(),
                "time/seconds": self.seconds[replica],
                **self.levels.summary(self.level_windows[replica], env),
            }
        return rows

    def evaluate(self, num_episodes: int, progress: Callable[[int], object] | None = None) -> list[Evaluation]:
        """Play the first `num_episodes` of the fixed evaluation levels of each task; training is not touched by it.

        Args:
            num_episodes: Levels.
            progress: Called with the number of episodes that have just ended.
        """
        return evaluate_levels(
            [(policy, self.encoder, p) for policy, p in zip(self.policies, self.projections, strict=True)],
            self.config,
            num_episodes,
            PlaySettings(
                num_envs=64,  # changes the speed alone
                max_steps=self.config.max_steps,
                record=False,
                label=False,
                lpc_exponent=self.config.lpc_exponent,
            ),
            progress=progress,
        )

    def save(self, replica: int, path: Path, *, timed: bool = False) -> None:
        """Write a run's checkpoint of this moment, the one that it would have written by itself.

        Args:
            replica: Number of the run.
            path: Where.
            timed: It is there until the next one is; whoever goes on from it reads that here.
        """
        save_checkpoint(path, self.content(replica, timed=timed))

    def content(self, replica: int, *, timed: bool = False) -> dict[str, Any]:
        """Return a run's checkpoint, as copies."""
        return {
            "policy_state_dict": _copies(self.policies[replica].state_dict()),
            "optimizer_state_dict": self.weights.optimizer_state(replica),
            "lang_proj_state_dict": _copies(self.projections[replica].state_dict()),
            "config": {**self.configs[replica].to_dict(), "num_actions": NUM_ACTIONS, "update": self.update},
            "update": self.update,
            "lang_encoder": self.encoder.describe(),
            **({"started_from": self.started_from[replica]} if self.started_from[replica] else {}),
            "resume": {
                "env": self.envs[replica].state_dict(),
                "hidden": [state[replica].clone() for state in self.rollout.engine.hidden],
                "generator": self.generators[replica].get_state(),
                "window": self.windows[replica].state(),
                "episodes": self.episodes[replica],
                **self.levels.state(self.level_windows[replica]),
                "seconds": self.seconds[replica],
                **self.sums.state(replica),
                **({"timed": True} if timed else {}),
            },
        }


def _copies(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights apart from the arrays they are views of, which a file would otherwise hold whole."""
    return {name: value.detach().clone() for name, value in weights.items()}


def check_alike(configs: Sequence[TrainConfig]) -> None:
    """Refuse to train runs together that differ in more than `MAY_DIFFER`.

    Raises:
        ConfigError: If they do, or if there are none.
    """
    if not configs:
        raise ConfigError("expected at least one run, found none")
    shared = {name: value for name, value in configs[0].to_dict().items() if name not in MAY_DIFFER}
    for config in configs[1:]:
        for name, value in shared.items():
            if getattr(config, name) != value:
                raise ConfigError(
                    f"{name}: runs trained together may differ in {', '.join(MAY_DIFFER)} only, found {value!r} and "
                    f"{getattr(config, name)!r}"
                )


def _build_encoder(
    name: str,
    device: torch.device,
    announce: Callable[[str], object],
    resume: Sequence[dict[str, Any]] | None,
    begun: dict[str, Any] | None,
) -> MissionEncoder:
    """Return the sentence encoder of all runs: that of their checkpoints, of those they start from, or the one named.

    Raises:
        CheckpointError: If the checkpoints were trained with several.
        MissionEncoderError: If it cannot be had.
    """
    if resume is None and begun is not None:
        return restore_mission_encoder(begun, device=device, announce=announce, override=name)
    if resume is None:
        return build_mission_encoder(name, device=device, announce=announce)
    described = [content["lang_encoder"] for content in resume]
    if any(found != described[0] for found in described):
        raise CheckpointError(
            "expected checkpoints of one sentence encoder, found several; resume the runs by themselves"
        )
    return restore_mission_encoder(described[0], device=device, announce=announce, override=name)


def _find_moment(resume: Sequence[dict[str, Any]] | None, replicas: int) -> tuple[int, list[float]]:
    """Return the update from which to go on, and the seconds that each run has taken.

    Raises:
        CheckpointError: If the checkpoints cannot be continued together.
    """
    if resume is None:
        return 0, [0.0] * replicas
    if len(resume) != replicas:
        raise CheckpointError(f"expected {replicas} checkpoints, one for each run; found {len(resume)}")
    if any(content.get("resume") is None for content in resume):
        raise CheckpointError("this checkpoint has no `resume` part: it can be evaluated, not continued")
    updates = sorted({int(content["update"]) for content in resume})
    if len(updates) > 1:
        raise CheckpointError(f"expected checkpoints of one update, found updates {updates}")
    return updates[0], [content["resume"].get("seconds", 0.0) for content in resume]
