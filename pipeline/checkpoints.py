"""Checkpoints: where they are, what is in them, and how one becomes a policy again. Nothing else knows their keys.

A checkpoint is data, never code: it is read with `torch.load(weights_only=True)`. It holds

    schema_version          1
    policy_state_dict       names as in docs/checkpoints.md
    optimizer_state_dict
    config                  every field of the run's TrainConfig, resolved, plus num_actions and update
    update                  weight updates done
    lang_proj_state_dict    the mission projection
    lang_encoder            which sentence encoder, with a fingerprint of its weights
    resume                  what continuing bit for bit needs (levels in play, generator states, counters)

Checkpoints written elsewhere by this model family have fewer keys; they pass through `migrate_foreign`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from babyai.facts import NUM_ACTIONS
from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.command.devices import derive_seed
from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically
from pipeline.config import TrainConfig
from stateful_mop import StatefulMoPPolicy, create_babyai_mop_config

SCHEMA_VERSION = 1
FINAL_NAME = "checkpoint_final.pt"
_NUMBERED = re.compile(r"checkpoint_(\d+)\.pt")
_NUMBER = r"(0|[1-9]\d*)"  # without leading zeros: trial_01 would share its results with trial_1
_IN_ROOT = re.compile(
    rf"(BabyAI-[A-Za-z0-9]+-v\d+)/trial_{_NUMBER}/(?:seed_{_NUMBER}/)?checkpoint_(0|[1-9]\d*|final)\.pt"
)


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used; the message names the file, what was expected and what to do."""


# ------------------------------------------------------------------------------------------------------------- paths


def run_folder(root: str | Path, config: TrainConfig) -> Path:
    """Return `<root>/<task_id>/trial_<N>/seed_<S>`, under which a run keeps its checkpoints or its logs."""
    return Path(root) / config.task_id / f"trial_{config.trial}" / f"seed_{config.seed}"


def checkpoint_path(folder: Path, update: int | None) -> Path:
    """Return the path of a checkpoint in a run's folder; None stands for the final one."""
    return folder / (FINAL_NAME if update is None else f"checkpoint_{update}.pt")


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder in order of their updates (as numbers, not as text), the final last."""
    numbered = [(int(m.group(1)), p) for p in folder.glob("checkpoint_*.pt") if (m := _NUMBERED.fullmatch(p.name))]
    paths = [path for _, path in sorted(numbered)]
    final = folder / FINAL_NAME
    return [*paths, final] if final.exists() else paths


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint file and what its path says.

    Attributes:
        path: The file.
        task_id: Task of the run.
        trial: Trial of the run.
        seed: Seed of the run; None where the path has no `seed_<S>` folder.
        update: Update of a numbered checkpoint; None for `checkpoint_final.pt`.
    """

    path: Path
    task_id: str
    trial: int
    seed: int | None
    update: int | None


def find_checkpoints(root: str | Path) -> list[FoundCheckpoint]:
    """Return the checkpoints under `<root>/<task_id>/trial_<N>/[seed_<S>/]`, ordered by task, trial, seed and update.

    Trials, seeds and updates are ordered as numbers; a run's final checkpoint comes last. Other files are passed over.

    Raises:
        CheckpointError: If `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise CheckpointError(
            f"{root}: expected a folder of checkpoints; train first (python train_mop.py), or name it"
        )
    found = []
    for path in root.glob("*/trial_*/**/checkpoint_*.pt"):
        match = _IN_ROOT.fullmatch(path.relative_to(root).as_posix())
        if match is not None:
            task_id, trial, seed, update = match.groups()
            found.append(
                FoundCheckpoint(
                    path,
                    task_id,
                    int(trial),
                    None if seed is None else int(seed),
                    None if update == "final" else int(update),
                )
            )

    def order(found: FoundCheckpoint) -> tuple:
        seed = -1 if found.seed is None else found.seed
        return found.task_id, found.trial, seed, found.update is None, found.update or 0

    return sorted(found, key=order)


# ----------------------------------------------------------------------------------------------------- save and load


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where.
        content: The keys of the module's docstring but `schema_version`, which is added.
    """
    with replace_atomically(path) as temporary:
        torch.save({"schema_version": SCHEMA_VERSION, **content}, temporary)


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
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception:  # torch's own text advises to load it all the same
        raise CheckpointError(
            f"{path}: expected a checkpoint of plain data written by train_mop.py or train.py; it is empty, damaged or "
            "holds other objects, which are never loaded because loading them can run code"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("policy_state_dict"), dict):
        raise CheckpointError(f"{path}: expected a dict with `policy_state_dict`, found {_describe(content)}")
    if "schema_version" not in content:
        return migrate_foreign(content, path)
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


def _numpy_scalars() -> list[Any]:
    """Return the globals that pickled numpy scalars need, under the module names of numpy 1 and 2."""
    scalar = np.int64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?")]
    return [
        np.dtype,
        *dtypes,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


def _describe(content: Any) -> str:
    return f"a dict with {sorted(map(str, content))[:8]}" if isinstance(content, dict) else type(content).__name__


_FOREIGN_FIELDS = (
    "task_id",
    "trial",
    "seed",
    "num_envs",
    "unroll_len",
    "num_updates",
    "lr",
    "lpc_alpha",
    "normalize_lpc",
    "max_steps",
)


def migrate_foreign(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a checkpoint of outside code of this model family in today's form.

    Such a checkpoint may lack `policy`, `lang_encoder`, sizes, and hold numpy numbers in its config. Sizes are read
    from the weights, which cannot be wrong about them; of the rest only what evaluation or a table of results needs is
    kept, and what it does not say is listed as `unknown_fields`. One without the mission projection is refused: it was
    random, so with another one every instruction would be noise.

    Raises:
        CheckpointError: If the projection is missing or the weights are of no known policy.
    """
    if not isinstance(content.get("lang_proj_state_dict"), dict):
        raise CheckpointError(
            f"{path}: has no lang_proj_state_dict. The projection of the mission was random when this was trained; "
            "with another one its instructions would be noise. Evaluate it where it was trained, or train again"
        )
    weights = content["policy_state_dict"]
    try:
        sizes = _sizes_from_weights(weights, lang_dim=content["lang_proj_state_dict"]["weight"].shape[0])
        num_actions = weights["head.weight"].shape[0]
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected the weights of MixtureOfExpertsPolicy, StatefulMoPPolicy or GRUPolicy, found "
            f"{sorted(map(str, weights))[:6]} (missing {error})"
        ) from None
    from babyai.missions import FOREIGN_DESCRIPTION  # here: whoever reads our own checkpoints needs no babyai

    try:
        config = {key: _plain(value) for key, value in (content.get("config") or {}).items()}
        update = int(_plain(content.get("update", config.get("update", 0))))
        kept = {key: config[key] for key in _FOREIGN_FIELDS if config.get(key) is not None}
        resolved = TrainConfig(**{**kept, **sizes, "lang_encoder": FOREIGN_DESCRIPTION["name"]})
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its config cannot be used: {error}") from None
    told = {*kept, *sizes, "lang_encoder"}
    return {
        **content,
        "schema_version": SCHEMA_VERSION,
        "config": {**resolved.to_dict(), "num_actions": num_actions, "update": update},
        "update": update,
        "unknown_fields": sorted({field.name for field in dataclasses.fields(TrainConfig)} - told),
        "lang_encoder": dict(FOREIGN_DESCRIPTION),
        "resume": None,
    }


def _plain(value: Any) -> Any:
    """Return numpy numbers and tensors of one element as Python numbers, also within lists."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _sizes_from_weights(weights: Mapping[str, Tensor], lang_dim: int) -> dict[str, Any]:
    """Return the fields of a config that a policy's weights determine.

    Raises:
        KeyError: If an expected weight is missing.
    """
    if "gru.weight_ih_l0" in weights:
        return {
            "policy": "gru",
            "hidden_size": weights["gru.weight_hh_l0"].shape[1],
            "input_dim": weights["gru.weight_ih_l0"].shape[1] - lang_dim,
            "lang_dim": lang_dim,
        }
    layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("moe_layers."))
    sizes = []
    for layer in range(layers):
        experts = weights[f"moe_layers.{layer}.router.fc.weight"].shape[0]
        names = [f"moe_layers.{layer}.experts.{expert}.gru.weight_hh_l0" for expert in range(experts)]
        sizes.append([weights[name].shape[1] if name in weights else 0 for name in names])
    return {
        "policy": "mop" if "norms.0.weight" in weights else "moe",
        "expert_norm": "layer" if any(".norm." in key for key in weights) else "none",
        "expert_hidden_sizes": sizes,
        "intermediate_dim": weights["input_projection.weight"].shape[0],
        "input_dim": weights["input_projection.weight"].shape[1] - lang_dim,
        "lang_dim": lang_dim,
        "router_hidden_size": weights["moe_layers.0.router.gru.weight_hh_l0"].shape[1],
    }


# ------------------------------------------------------------------------------------------------------------ policy


def build_policy(config: TrainConfig, num_actions: int = NUM_ACTIONS) -> nn.Module:
    """Return the untrained policy that a configuration describes, on the CPU, its weights drawn from `config.seed`."""
    with seeded_init(config.seed, stream=0):
        if config.policy == "gru":
            from train import GRUPolicy  # the baseline lives in its script, as the layout of this project has it

            return GRUPolicy(config.input_dim, config.hidden_size, num_actions, config.lang_dim)
        if config.policy == "mop":
            sizes = create_babyai_mop_config(
                input_dim=config.input_dim + config.lang_dim,
                num_actions=num_actions,
                intermediate_dim=config.intermediate_dim,
                router_dim=config.router_hidden_size,
                layers=config.expert_hidden_sizes,
                expert_norm=config.expert_norm,
            )
            return StatefulMoPPolicy(sizes)
        return MixtureOfExpertsPolicy(
            config.input_dim,
            config.intermediate_dim,
            config.expert_hidden_sizes,
            config.router_hidden_size,
            num_actions,
            config.lang_dim,
        )


def build_projection(config: TrainConfig, encoder_width: int) -> nn.Linear:
    """Return the mission projection Linear(encoder_width -> lang_dim), drawn from `config.seed`."""
    with seeded_init(config.seed, stream=1):
        return nn.Linear(encoder_width, config.lang_dim)


@contextmanager
def seeded_init(seed: int, stream: int) -> Iterator[None]:
    """Within the block torch's CPU generator starts from (seed, stream); after it, it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, stream))
        yield


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
