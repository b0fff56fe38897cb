"""Checkpoints: what is in them, and how one becomes a policy again. Nothing else knows their keys.

A checkpoint is data, never code: it is read with `torch.load(weights_only=True)`. It holds

    schema_version          1
    policy_state_dict       names as in docs/checkpoints.md
    optimizer_state_dict
    config                  every field of the run's TrainConfig, resolved, plus num_actions and update
    update                  weight updates done
    lang_proj_state_dict    the mission projection
    lang_encoder            which sentence encoder, with a fingerprint of its weights
    started_from            of a run with `start_from`: path, digest of the weights and update of where it began
    resume                  what continuing bit for bit needs (levels in play, generator states, counters)
    digests                 of the weights, and of what resuming needs besides; see `pipeline.checkpoint_files`

Checkpoints written elsewhere by this model family have fewer keys; they pass through `pipeline.migration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.checkpoint_files import (
    CheckpointError,
    Layout,
    check_content,
    compute_digest,
    open_file,
    write_file,
)
from pipeline.config import TrainConfig
from pipeline.migration import fill_config, migrate_foreign
from pipeline.policies import build_policy

SCHEMA_VERSION = 1
LAYOUT = Layout(
    writer="train_mop.py or train.py",
    weights={"policy_state_dict": "", "lang_proj_state_dict": "lang_proj."},
    state=("optimizer_state_dict", "resume"),
)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where.
        content: The keys of the module's docstring but `schema_version` and `digests`, which are added.
    """
    write_file(path, {"schema_version": SCHEMA_VERSION, **content}, LAYOUT)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, migrated to today's form, its tensors on the CPU: all that was saved.

    Raises:
        CheckpointError: If the file is missing, damaged, holds more than plain data, or is foreign.
    """
    content = _open(path, mapped=False)
    check_content(path, content, LAYOUT, state=True)
    return content


def verify_checkpoint(path: str | Path, *, resumable: bool) -> int:
    """Return the update of a checkpoint file whose weights are what was saved; it is read for that and not kept.

    Args:
        path: The file.
        resumable: A run is to go on from it: what that needs must be there, and be what was saved.

    Raises:
        CheckpointError: If it is not so.
    """
    content = _open(path, mapped=True)
    check_content(path, content, LAYOUT, state=resumable)
    if resumable and content.get("resume") is None:
        raise CheckpointError(f"{path}: has no `resume` part: it can be evaluated, not continued")
    try:
        return int(content["update"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _misfit(path, error) from None


def _open(path: str | Path, *, mapped: bool) -> dict[str, Any]:
    """Return the content of a checkpoint file, migrated to today's form; its tensors are not checked.

    Mapped, those that nobody looks at are not even read: of a checkpoint of 228 MB, two thirds of it the optimiser's,
    opening takes 18 ms where reading took 191 ms.

    Raises:
        CheckpointError: As `read_checkpoint` does, but for damage in the tensors.
    """
    content = open_file(path, LAYOUT, mapped=mapped)
    if not isinstance(content, dict) or not isinstance(content.get("policy_state_dict"), dict):
        raise CheckpointError(f"{path}: expected a dict with `policy_state_dict`, found {_describe(content)}")
    if "schema_version" not in content:
        try:
            return {**migrate_foreign(content), "schema_version": SCHEMA_VERSION}
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
    if content["schema_version"] != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, found {content['schema_version']!r}; it was written by "
            "another version of this project"
        )
    return fill_config(content)


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of its run.

    Attributes:
        update: Weight updates done.
        config: Every field of the run's TrainConfig, plus num_actions and update.
        lang_encoder: Description of its sentence encoder, with its `fingerprint`.
        unknown_fields: Fields of `config` that a foreign checkpoint did not tell; their values are mere defaults.
    """

    update: int
    config: dict[str, Any]
    lang_encoder: dict[str, Any]
    unknown_fields: frozenset[str] = frozenset()


def read_header(path: str | Path) -> CheckpointHeader:
    """Return what a checkpoint says of its run; no weights, optimiser or levels in play are read.

    Raises:
        CheckpointError: If the file is missing, damaged in what it says, or says less than that.
    """
    content = _open(path, mapped=True)
    try:
        return CheckpointHeader(
            int(content["update"]),
            dict(content["config"]),
            dict(content["lang_encoder"]),
            frozenset(content.get("unknown_fields", ())),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _misfit(path, error) from None


def read_start(path: str | Path, *, itself: bool = False) -> str | None:
    """Return the digest of the weights that a checkpoint's run started from, None if it drew its own.

    Args:
        path: The checkpoint.
        itself: Return that of its own weights instead: what a run that starts from it says.

    Raises:
        CheckpointError: If the file is missing, or damaged in what it says.
    """
    content = _open(path, mapped=True)
    try:
        if itself:
            return str((content.get("digests") or {}).get("weights") or LAYOUT.digest_weights(content))
        started = content.get("started_from") or {}
        return started.get("weights")
    except (TypeError, ValueError, AttributeError) as error:
        raise _misfit(path, error) from None


def _describe(content: Any) -> str:
    return f"a dict with {sorted(map(str, content))[:8]}" if isinstance(content, dict) else type(content).__name__


# ------------------------------------------------------------------------------------------------------------ policy


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy read from a checkpoint.

    Attributes:
        policy: In evaluation mode.
        projection: Its mission projection.
        config: The run's configuration.
        lang_encoder: Description of its sentence encoder, for `restore_mission_encoder`.
        update: Weight updates done.
        num_actions: Width of the logits.
        digest: SHA-256 of the weights of policy and projection, hexadecimal: the checkpoint's identity.
        unknown_fields: Fields of `config` that a foreign checkpoint did not tell; their values are mere defaults.
    """

    policy: nn.Module
    projection: nn.Linear
    config: TrainConfig
    lang_encoder: dict[str, Any]
    update: int
    num_actions: int
    digest: str
    unknown_fields: frozenset[str] = frozenset()


def load_policy(path: str | Path, device: torch.device | str = "cpu") -> LoadedPolicy:
    """Return the policy of a checkpoint file, ready to act.

    Raises:
        CheckpointError: If the file is no usable checkpoint; see `read_checkpoint`.
    """
    content = _open(path, mapped=True)
    try:
        fields = dict(content["config"])
        num_actions = int(fields.pop("num_actions"))
        fields.pop("update", None)
        config = TrainConfig(**fields)
        weight = content["lang_proj_state_dict"]["weight"]
        policy = build_policy(config, num_actions)
        policy.load_state_dict(content["policy_state_dict"])
        projection = nn.Linear(weight.shape[1], weight.shape[0])
        projection.load_state_dict(content["lang_proj_state_dict"])
        if projection.out_features != config.lang_dim:
            raise CheckpointError(f"lang_dim {config.lang_dim} in config, {projection.out_features} in the projection")
        loaded = LoadedPolicy(
            policy=policy.to(device).eval(),
            projection=projection.to(device).requires_grad_(False),
            config=config,
            lang_encoder=dict(content["lang_encoder"]),
            update=int(content["update"]),
            num_actions=num_actions,
            digest=compute_digest({**policy.state_dict(), **projection.state_dict(prefix="lang_proj.")}),
            unknown_fields=frozenset(content.get("unknown_fields", ())),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _misfit(path, error) from None
    check_content(path, content, LAYOUT, state=False, weights=loaded.digest)
    return loaded


def _misfit(path: str | Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:400]
    return CheckpointError(f"{path}: its parts do not fit together ({type(error).__name__}: {reason})")
