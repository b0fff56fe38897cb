"""Evaluating one checkpoint: loading it with its sentence encoder, playing, and what is kept of it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from babyai.facts import NUM_ACTIONS
from babyai.missions import MissionEncoder, restore_mission_encoder
from babyai.observations import OBSERVATION_DIM
from pipeline.checkpoints import CheckpointError, LoadedPolicy, load_policy
from pipeline.config import TrainConfig
from pipeline.evaluation.play import Agent, Evaluation, PlaySettings, Progress, evaluate_task_many
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.policies import fix_level
from pipeline.records.cache import write_cache


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint ready to be evaluated.

    Attributes:
        path: The file it came from.
        policy: In evaluation mode.
        encoder: The sentence encoder it was trained with.
        projection: Its mission projection.
        config: Settings of the run that made it.
        update: Weight updates done.
        digest: SHA-256 of the weights, hexadecimal.
        unknown_fields: Fields of `config` that a foreign checkpoint did not tell.
    """

    path: Path
    policy: nn.Module
    encoder: MissionEncoder
    projection: nn.Linear
    config: TrainConfig
    update: int
    digest: str
    unknown_fields: frozenset[str] = frozenset()

    def agent(self, task_id: str) -> Agent:
        """Return what plays a level: the policy, fixed to it if it is told of the level (`fix_level`).

        Args:
            task_id: The level, full id.

        Raises:
            ConfigError: If it is told of levels and was not trained on this one.
        """
        return fix_level(self.policy, self.config, task_id), self.encoder, self.projection


def load_checkpoint(
    path: str | Path, *, device: torch.device | str = "cpu", lang_encoder: str | None = None
) -> Checkpoint:
    """Return the policy of a checkpoint with the sentence encoder it was trained with.

        checkpoint = load_checkpoint(path)
        task = checkpoint.config.task_id                     # of a mixture one of its levels
        result = evaluate(*checkpoint.agent(task), task, level_seeds=range(100))

    Args:
        path: A `.pt` file.
        device: Where policy and encoder are placed.
        lang_encoder: Folder or id to load the encoder from instead of the recorded one; it must hold the same weights.

    Raises:
        CheckpointError: If the file cannot be used, or its policy cannot act on BabyAI's observations.
        MissionEncoderError: If the encoder cannot be had, or is not the one the policy was trained with.
    """
    loaded = load_policy(path, device)
    encoder = restore_mission_encoder(
        loaded.lang_encoder, device=device, override=lang_encoder, announce=lambda line: None
    )
    _check_usable(path, loaded, encoder)
    return Checkpoint(
        Path(path),
        loaded.policy,
        encoder,
        loaded.projection,
        loaded.config,
        loaded.update,
        loaded.digest,
        loaded.unknown_fields,
    )


def _check_usable(path: str | Path, loaded: LoadedPolicy, encoder: MissionEncoder) -> None:
    """Raise CheckpointError if a policy cannot act on what evaluation shows it."""
    widths = {
        "input_dim": (OBSERVATION_DIM, loaded.config.input_dim),
        "num_actions": (NUM_ACTIONS, loaded.num_actions),
        "width of the mission projection's input": (encoder.width, loaded.projection.in_features),
    }
    for name, (expected, found) in widths.items():
        if found != expected:
            raise CheckpointError(f"{path}: {name}: expected {expected}, found {found}; it was trained on other input")
    weights = {**loaded.policy.state_dict(), **loaded.projection.state_dict(prefix="lang_proj.")}
    broken = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise CheckpointError(
            f"{path}: expected finite weights, found NaN or infinity in {', '.join(broken[:3])}; the run that wrote it "
            "diverged. Take an earlier checkpoint, or train with a lower lr"
        )


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    task_id: str,
    settings: EvaluationSettings,
    *,
    record: bool,
    progress: Progress | None = None,
) -> Evaluation:
    """Play the evaluation levels of a task with a checkpoint; see `pipeline.evaluation.play.evaluate_many`."""
    return evaluate_checkpoints([checkpoint], task_id, settings, record=record, progress=progress)[0]


def evaluate_checkpoints(
    checkpoints: Sequence[Checkpoint],
    task_id: str,
    settings: EvaluationSettings,
    *,
    record: bool,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Play the evaluation levels of a task with several checkpoints at once; return what each did.

    They must be alike in architecture, step limit and `lpc_exponent`; the first one's count.
    """
    torch.set_num_threads(settings.torch_threads)
    return evaluate_task_many(
        [checkpoint.agent(task_id) for checkpoint in checkpoints],
        task_id,
        settings.num_episodes,
        PlaySettings(
            num_envs=settings.num_envs,
            max_steps=step_limit(checkpoints[0], settings),
            record=record,
            lpc_exponent=checkpoints[0].config.lpc_exponent,
            actions=settings.eval_actions,
        ),
        eval_seed=settings.eval_seed,
        progress=progress,
    )


def step_limit(checkpoint: Checkpoint, settings: EvaluationSettings) -> int | None:
    """Return the limit of an episode: as asked for, else as trained, else None (each level's own)."""
    return checkpoint.config.max_steps if settings.max_steps is None else settings.max_steps


def name_of(path: Path) -> str:
    """Return a file's path as results have it: relative to the present folder if it is below it, else absolute."""
    whole = path.resolve()
    here = Path.cwd().resolve()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def build_header(
    checkpoint: Checkpoint,
    task_id: str,
    settings: EvaluationSettings,
    *,
    trial: int | None,
    seed: int | None,
    run_name: str | None = None,
) -> dict[str, Any]:
    """Return what identifies an evaluation: checkpoint, settings and the run's configuration, as plain types.

    Args:
        checkpoint: That was evaluated.
        task_id: The level that it played.
        settings: Of the evaluation.
        trial: Of the run.
        seed: Of the run.
        run_name: Its level, or the name of its mixture; None: the level that it played.
    """
    config = checkpoint.config.to_dict()
    return {
        "checkpoint_path": name_of(checkpoint.path),
        "checkpoint_digest": checkpoint.digest,
        "task_id": run_name or task_id,
        "eval_task_id": task_id,
        "trial": trial,
        "seed": seed,
        "update": checkpoint.update,
        "num_episodes": settings.num_episodes,
        "eval_seed": settings.eval_seed,
        "eval_actions": settings.eval_actions,
        "max_steps": step_limit(checkpoint, settings),
        "evaluated_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "expert_hidden_sizes": getattr(checkpoint.policy, "layer_expert_sizes", []),
        "config": {name: value for name, value in config.items() if name not in checkpoint.unknown_fields},
    }


def build_row(header: dict[str, Any], metrics: dict[str, Any], *, has_routing: bool) -> dict[str, Any]:
    """Return a row of `evaluation_results.csv`: metrics, settings, and the configuration of the run.

    Sizes that a policy does not have are empty: a baseline has no experts, and its LPC is empty, not zero.
    """
    config = header["config"]
    routed = ("expert_hidden_sizes", "intermediate_dim", "router_hidden_size")
    absent = dict.fromkeys(routed if config.get("policy") == "gru" else ("hidden_size",))
    identity = {name: value for name, value in header.items() if name not in ("config", "expert_hidden_sizes")}
    levels = config.get("task_id") if isinstance(config.get("task_id"), list) else None
    trained = {"trained_levels": levels, "trained_max_steps": config.get("max_steps")}
    return {**config, **absent, **metrics, **identity, **trained, "has_routing": has_routing}


def write_evaluation(
    path: Path,
    header: dict[str, Any],
    evaluation: Evaluation,
    *,
    inline_context: bool = False,
    compact: bool = False,
) -> None:
    """Write the cache of an evaluation."""
    write_cache(
        path,
        header=header,
        metrics=evaluation.metrics,
        episodes=evaluation.episodes,
        routing=evaluation.routing,
        inline_context=inline_context,
        compact=compact,
    )
