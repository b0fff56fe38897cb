"""Checkpoints: what is in them, and how one becomes a policy again. Nothing else knows their keys.

A checkpoint is data, never code: it is read with `torch.load(weights_only=True)`. It holds

    schema_version          1
    policy_state_dict       names as in docs/checkpoints.md
    optimizer_state_dict
    config                  every field of the run's TrainConfig, resolved, plus num_actions and update
    update                  weight updates done
    lang_proj_state_dict    the mission projection
    lang_encoder            which sentence encoder, with a fingerprint of its weights
    resume                  what continuing bit for bit needs (levels in play, generator states, counters)

Checkpoints written elsewhere by this model family have fewer keys; they pass through `pipeline.migration`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically
from pipeline.config import TrainConfig
from pipeline.migration import migrate_foreign, numpy_scalars
from pipeline.policies import build_policy

SCHEMA_VERSION = 1


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used; the message names the file, what was expected and what to do."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where.
        content: The keys of the module's docstring but `schema_version`, which is added.
    """
    with replace_atomically(path) as temporary:
        with temporary.open("wb") as file:
            try:
                torch.save({"schema_version": SCHEMA_VERSION, **content}, file)
            except RuntimeError as error:  # torch's own, of a file that could not be written
                if isinstance(error.__context__, OSError):
                    raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
                raise


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, migrated to today's form, its tensors on the CPU.

    The file is mapped, not read: a tensor that nobody looks at costs nothing. Of a checkpoint of 228 MB, two thirds of
    it the optimiser's, opening takes 18 ms where reading took 191 ms.

    Raises:
        CheckpointError: If the file is missing, damaged, holds more than plain data, or is foreign.
    """
    path = Path(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a .pt checkpoint") from None
    try:
        # Old checkpoints of this family keep numpy numbers in their config: plain data, made known by name.
        with torch.serialization.safe_globals(numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception:  # torch's own text advises to load it all the same
        raise CheckpointError(
            f"{path}: expected a checkpoint of plain data written by train_mop.py or train.py; it is empty, damaged or "
            "holds other objects, which are never loaded because loading them can run code"
        ) from None
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
    return content


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
        CheckpointError: As `read_checkpoint` does, and if it says less than that.
    """
    content = read_checkpoint(path)
    try:
        return CheckpointHeader(
            int(content["update"]),
            dict(content["config"]),
            dict(content["lang_encoder"]),
            frozenset(content.get("unknown_fields", ())),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
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
    return policy_from_content(read_checkpoint(path), path, device)


def policy_from_content(
    content: Mapping[str, Any], path: str | Path, device: torch.device | str = "cpu"
) -> LoadedPolicy:
    """Return the policy of a checkpoint's content; `path` is for messages.

    Raises:
        CheckpointError: If keys are missing or weights do not fit the configuration.
    """
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
            digest=compute_digest({**policy.state_dict(), **_prefixed("lang_proj", projection.state_dict())}),
            unknown_fields=frozenset(content.get("unknown_fields", ())),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _misfit(path, error) from None
    return loaded


def _misfit(path: str | Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:400]
    return CheckpointError(f"{path}: its parts do not fit together ({type(error).__name__}: {reason})")


def _prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def compute_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in order of their names.

    It does not depend on where a file lies, on its name or on how it was written: the same weights have the same
    digest, a retrained checkpoint under an old name has another.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
