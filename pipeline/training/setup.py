"""What runs must have in common to be trained together, and how they are dealt out to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from babyai.missions import MissionEncoder, build_mission_encoder, restore_mission_encoder
from pipeline.checkpoints import CheckpointError
from pipeline.config import ConfigError, TrainConfig

MAY_DIFFER = ("seed", "trial", "lpc_alpha")
"""Fields in which runs that are trained together may differ."""


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


def build_encoder(
    configs: Sequence[TrainConfig],
    device: torch.device,
    announce: Callable[[str], object],
    resume: Sequence[dict[str, Any]] | None,
) -> MissionEncoder:
    """Return the sentence encoder of all runs: that of their checkpoints, or of their settings.

    Raises:
        CheckpointError: If the checkpoints were trained with several.
        MissionEncoderError: If it cannot be had.
    """
    name = configs[0].lang_encoder
    if resume is None:
        return build_mission_encoder(name, device=device, announce=announce)
    described = [content["lang_encoder"] for content in resume]
    if any(found != described[0] for found in described):
        raise CheckpointError(
            "expected checkpoints of one sentence encoder, found several; resume the runs by themselves"
        )
    return restore_mission_encoder(described[0], device=device, announce=announce, override=name)


def find_moment(resume: Sequence[dict[str, Any]] | None, replicas: int) -> tuple[int, list[float]]:
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


def deal(replicas: int, batches: int) -> list[range]:
    """Return the runs of each batch, in order, as evenly as possible."""
    borders = [replicas * i // batches for i in range(batches + 1)]
    return [range(a, b) for a, b in pairwise(borders)]
