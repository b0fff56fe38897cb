"""A run that starts from another's weights: its policy and mission projection, none of its optimiser or levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.checkpoints import CheckpointError, LoadedPolicy, load_policy, read_start
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.places import run_folder
from pipeline.policies import build_policy, build_projection
from pipeline.training.options import resolve_levels

_SHAPES = (
    *("policy", "obs_encoding", "mission_fusion", "lang_dim", "intermediate_dim", "expert_hidden_sizes"),
    *("router_hidden_size", "expert_norm", "hidden_size", "input_dim", "task_input"),
)
"""Settings that decide of which shape weights are; a difference is told by their names first."""


def read_starts(configs: Sequence[TrainConfig]) -> list[LoadedPolicy | None]:
    """Return the policy that each run starts from, read once where several start from one; None: drawn from its seed.

    Raises:
        ConfigError: If a file is no checkpoint that can be read.
    """
    found: dict[Path, LoadedPolicy] = {}
    for path in (config.start for config in configs):
        if path is not None and path not in found:
            found[path] = _load(path)
    return [None if config.start is None else found[config.start] for config in configs]


def _load(path: Path) -> LoadedPolicy:
    try:
        return load_policy(path)
    except CheckpointError as error:
        raise ConfigError(f"start_from: {error}") from None


def describe_encoders(starts: Sequence[LoadedPolicy | None], configs: Sequence[TrainConfig]) -> dict[str, Any] | None:
    """Return the description of the sentence encoder that runs start with; None where all draw their weights.

    Raises:
        ConfigError: If there are several encoders.
    """
    return _find_encoder(
        {str(config.start): start.lang_encoder for start, config in zip(starts, configs, strict=True) if start}
    )


def _find_encoder(described: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Return the one encoder that checkpoints describe, by their paths."""
    first = next(iter(described.values()), None)
    for path, found in described.items():
        if found.get("fingerprint") != first.get("fingerprint"):
            raise ConfigError(
                f"start_from: expected checkpoints of one sentence encoder, found {first.get('name')} and, in {path}, "
                f"{found.get('name')}; train these runs by themselves"
            )
    return first


def take_start(start: LoadedPolicy, config: TrainConfig, policy: nn.Module, projection: nn.Linear) -> dict[str, Any]:
    """Give a run the weights that it starts from; return what its checkpoints say of that.

    Args:
        start: Of `read_starts`.
        config: Of the run.
        policy: Its own, whose weights are replaced.
        projection: Its mission projection, likewise.

    Raises:
        ConfigError: If the weights do not fit, or mean other levels.
    """
    if config.task_input == start.config.task_input == "onehot" and start.config.levels != config.levels:
        raise ConfigError(
            f"start_from: {config.start}: expected a policy that is told by task_input onehot which of the levels "
            f"{', '.join(config.levels)} it is on, found one of {', '.join(start.config.levels)}; name these in this "
            "order, or use task_input none in both"
        )
    theirs = start.policy.state_dict(), start.projection.state_dict()
    for own, weights in zip((policy, projection), theirs, strict=True):
        if misfit := _find_misfit(own.state_dict(), weights):
            other = [name for name in _SHAPES if getattr(start.config, name) != getattr(config, name)]
            told = "; ".join(
                f"{name} {getattr(config, name)!r}, there {getattr(start.config, name)!r}" for name in other
            )
            raise ConfigError(
                f"start_from: {config.start}: expected the weights of such a policy as this run's, found others: "
                f"{told or misfit}"
            )
        own.load_state_dict(weights)
    return {"path": str(config.start), "weights": start.digest, "update": start.update}


def _find_misfit(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """Return a weight that only one has or that differs in shape, in words; "" where all fit."""
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (own, theirs)]
    for name in sorted({*shapes[0], *shapes[1]}):
        here, there = (of.get(name, "none") for of in shapes)
        if here != there:
            return f"{name} of shape {here}, there {there}"
    return ""


def check_fit(configs: Iterable[TrainConfig]) -> None:
    """Refuse runs whose start cannot be read or does not fit, before anything of an earlier run is deleted for them.

    The starts are read one after the other: of many runs, all together may be more than the memory holds.

    Raises:
        ConfigError: If one does not, or if they are of several sentence encoders.
    """
    by_start: dict[Path, dict[str, TrainConfig]] = {}
    for config in configs:
        if config.start is not None:
            kind = repr([config.levels, *(getattr(config, name) for name in _SHAPES)])
            by_start.setdefault(config.start, {}).setdefault(kind, config)
    described = {}
    for path, kinds in by_start.items():
        start = _load(path)
        described[str(path)] = start.lang_encoder
        for config in kinds.values():
            resolved = replace(config, task_id=resolve_levels(config))
            take_start(start, resolved, build_policy(config), build_projection(config, start.projection.in_features))
    _find_encoder(described)


def spell_start(config: TrainConfig, stored: Mapping[str, Any], path: Path) -> str | None:
    """Return `start_from` of a run as one of its checkpoints has it, if that began with the weights that lie there now.

    A folder that has moved, or is named from its root, is another text; what a run starts from is known by its digest.

    Args:
        config: Of the run, or of one of another seed.
        stored: Settings of the checkpoint.
        path: The checkpoint.
    """
    spelled, start = stored.get("start_from"), replace(config, seed=stored.get("seed", config.seed)).start
    if start is None or spelled in (None, config.start_from):
        return config.start_from
    try:
        same = read_start(path) == read_start(start, itself=True)
    except CheckpointError:  # what cannot be read is not known again
        return config.start_from
    return spelled if same else config.start_from


def check_starts(configs: Iterable[TrainConfig]) -> None:
    """Refuse runs that start from what lies in a folder of the same call: it would be overwritten, or not yet there.

    Raises:
        ConfigError: If one does.
    """
    configs = list(configs)
    own = {run_folder(config.checkpoint_dir, config).resolve() for config in configs}
    for config in configs:
        start = config.start  # a link can lie in such a folder, or lead into it
        if start is not None and {start.resolve().parent, start.parent.resolve()} & own:
            raise ConfigError(
                f"start_from: expected a checkpoint of another run, found {config.start}, in a folder of this call's "
                "own runs; choose another --trial"
            )
