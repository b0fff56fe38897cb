"""What stopping early is worth at test time: steps taken, by depth and over all, operations saved, and what it costs.

    stopping = Stopping(0.01)                                  # more.experts: when a token stops
    hits, _ = find_hits(model, found, symbols, 8, stopping)
    summarise_steps(model.config, 8, stopping, found.depths)   # {"steps": 3.2, "by_depth": {...}, ...}

Steps are counted, not skipped: see `more.experts.Stopping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from more.config import ModelConfig
from more.cost import count_token_operations
from more.experts import Stopping
from more.options import EvaluationSettings
from pipeline.config import ConfigError


def check_stopping(settings: EvaluationSettings, config: ModelConfig) -> None:
    """Refuse to let a model stop that takes no steps.

    Raises:
        ConfigError: If it is of base.
    """
    if settings.stop_below and config.model_type == "base":
        raise ConfigError(
            "stop_below: expected a model that iterates (more_a to more_d, looped), found base, which takes one step; "
            "leave the flag out"
        )


def summarise_steps(
    config: ModelConfig, num_recurrences: int, stopping: Stopping, depths: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the mean steps of all tokens read, by depth too where depths (n, time) are given, and the operations.

    Steps are means over the layers and the experts of a token, in which its operations are linear, so that those of the
    mean are the mean of those.

    Args:
        config: Of the model.
        num_recurrences: r, the most steps there are.
        stopping: That the model has been called with; its record is taken.
        depths: Steps to each answer; -1 where nothing is asked.
    """
    passes = stopping.take()
    total = sum(float(taken.double().sum()) for taken in passes)
    steps = total / sum(taken.numel() for taken in passes)
    found = {
        "steps": steps,
        "token_operations": count_token_operations(config, steps),
        "token_operations_of_all": count_token_operations(config, num_recurrences),
    }
    if depths is not None:
        taken = torch.cat([taken.mean(dim=-1) for taken in passes]).cpu().numpy()  # (n, time)
        found["by_depth"] = {str(depth): float(taken[depths == depth].mean()) for depth in range(int(depths.max()) + 1)}
    return found


def format_stopping(found: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what stopping saves, one for each r.

    Args:
        found: `threshold`, and `steps`, by r as `summarise_steps` returns it.
    """
    lines = ["", f"a token stops where a step moves its state by less than {found['threshold']:g} of its size:"]
    for r, by in found["steps"].items():
        saved = 1 - by["token_operations"] / by["token_operations_of_all"]
        lines.append(
            f"r = {r}: {by['steps']:.2f} steps per token, {by['token_operations']:,.0f} operations of "
            f"{by['token_operations_of_all']:,.0f}, {saved:.0%} saved"
        )
    return lines
