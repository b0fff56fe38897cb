"""Checkpoints of language models: data, never code, with all that is needed to use them again. Written atomically.

    loaded = load_model("checkpoints/more_a_rec4/final_model.pth")
    loaded.model, loaded.tokenizer, loaded.config, loaded.data

A file holds schema_version, model_state_dict, model_config, training_config, data (which data, and how it is had
again), tokenizer (its JSON), update and tokens; one to resume from also optimizer_state_dict, metric_sums (what the
next line of metrics adds up), and timed if it is there until the next one is. Its digests are those of
`pipeline.checkpoint_files`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from more.config import ModelConfig, migrate_settings
from more.model import MoreModel, count_parameters
from more.task_data import Vocabulary, open_tokenizer
from more.tokens import Tokenizer
from pipeline.checkpoint_files import CheckpointError, Layout, check_content, open_file, write_file
from pipeline.command.devices import drawn_from
from pipeline.config import ConfigError

SCHEMA_VERSION = 1
FINAL_NAME = "final_model.pth"
LAYOUT = Layout(writer="more/train.py", weights={"model_state_dict": ""}, state=("optimizer_state_dict", "metric_sums"))
_NUMBERED = re.compile(r"checkpoint_(\d+)\.pth")


def numbered_path(folder: Path, update: int) -> Path:
    """Return the path of a checkpoint to resume from."""
    return folder / f"checkpoint_{update}.pth"


def number_of(path: Path) -> int:
    """Return the update of a checkpoint to resume from, by its name."""
    return int(_NUMBERED.fullmatch(path.name).group(1))


def list_numbered(folder: Path) -> list[Path]:
    """Return the checkpoints to resume from in order of their updates."""
    return sorted((path for path in folder.glob("checkpoint_*.pth") if _NUMBERED.fullmatch(path.name)), key=number_of)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; the keys are the module's, without `schema_version` and `digests`."""
    write_file(path, {"schema_version": SCHEMA_VERSION, **content}, LAYOUT)


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint file: all that was saved.

    Raises:
        CheckpointError: If the file is missing, damaged, or no checkpoint of a language model.
    """
    content = _open(path, device, mapped=False)
    check_content(path, content, LAYOUT, state=True)
    return content


def _open(path: str | Path, device: torch.device | str, *, mapped: bool) -> dict[str, Any]:
    """Return the content of a checkpoint file; its tensors are not checked.

    Raises:
        CheckpointError: As `read_checkpoint` does, but for damage in the tensors.
    """
    content = open_file(path, LAYOUT, device, mapped=mapped)
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        found = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected a checkpoint of a language model (more/train.py), found {found}")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, found {content.get('schema_version')!r}; it was "
            "written by another version of this project"
        )
    return content


@dataclass(frozen=True)
class LoadedModel:
    """A language model read from a checkpoint.

    Attributes:
        model: In evaluation mode.
        tokenizer: That it was trained with.
        training_config: Resolved settings of its run, as plain types.
        data: What it was trained on (`more.data.Source.describe`).
        update: Weight updates done.
        tokens: Targets learned from.
    """

    model: MoreModel
    tokenizer: Tokenizer | Vocabulary
    training_config: dict[str, Any]
    data: dict[str, Any]
    update: int
    tokens: int

    def describe(self) -> dict[str, Any]:
        """Return which model it is, in plain types, as evaluations keep it: sizes, training and data."""
        count = count_parameters(self.model)
        return {
            "model": dataclasses.asdict(self.model.config),
            "parameters": {"total": count.total, "active": count.active},
            "update": self.update,
            "tokens": self.tokens,
            "seed": self.training_config["seed"],
            "data": {key: self.data[key] for key in ("text", "questions", "tokenizer")},
        }


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Return the model of a checkpoint file, ready for use.

    Raises:
        CheckpointError: If the file is no usable checkpoint; see `read_checkpoint`.
    """
    content = _open(path, device, mapped=True)
    try:
        model = build_model(ModelConfig(**migrate_settings(content["model_config"])), seed=0)
        model.load_state_dict(content["model_state_dict"])
        loaded = LoadedModel(
            model=model.to(device).eval(),
            tokenizer=open_tokenizer(content["tokenizer"]),
            training_config=migrate_settings(content["training_config"]),
            data=dict(content["data"]),
            update=int(content["update"]),
            tokens=int(content["tokens"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{path}: its parts do not fit together ({type(error).__name__}: {reason})") from None
    check_content(path, content, LAYOUT, state=False)
    for name, value in loaded.model.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"{path}: expected finite weights, found NaN or infinity in {name}; its training has diverged: take an "
                "earlier checkpoint, or train again with a lower --lr"
            )
    return loaded


def read_model_config(path: str | Path) -> dict[str, Any]:
    """Return the sizes of a checkpoint's model, fields of `ModelConfig`; no weights are read.

    Raises:
        CheckpointError: If the file is no checkpoint of a language model.
    """
    return migrate_settings(_open(path, "cpu", mapped=True)["model_config"])


def build_model(config: ModelConfig, seed: int) -> MoreModel:
    """Return an untrained model on the CPU, its weights drawn from `seed`; torch's generator is left as it was."""
    with drawn_from(seed):
        return MoreModel(config)


def check_flags(loaded: LoadedModel, path: str | Path, flags: Mapping[str, Any]) -> None:
    """Refuse flags that contradict a checkpoint's own config.

    Args:
        loaded: The checkpoint.
        path: For the message.
        flags: Values by field of `ModelConfig`; None was not given.

    Raises:
        ConfigError: If one differs; the message names both values.
    """
    stored = dataclasses.asdict(loaded.model.config)
    for name, value in flags.items():
        if value is not None and value != stored[name]:
            raise ConfigError(
                f"{name}: {value!r} was given, and {path} was trained with {stored[name]!r}; leave the flag out or "
                "name the other checkpoint"
            )
