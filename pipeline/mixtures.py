"""One policy on many levels: what of the settings says so, and how levels share the environments.

parse_task_ids("GoToObj,PickupLoc")                  # ["GoToObj", "PickupLoc"]
count_slots([1, 1, 2], 16)                           # [4, 4, 8]
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pipeline.command.errors import ConfigError

OF_MIXTURES: dict[str, Any] = {"task_weights": None, "mixture": None, "task_input": "none"}
"""Fields of settings for many levels, with what they are where they play no part: what a run that was saved before
there were such fields would have said."""

MIXTURE_NAME = re.compile(r"(?!(?:BabyAI-|trial_|seed_|sweep_))[A-Za-z][A-Za-z0-9_.-]{0,99}")
"""What a mixture may be called. Its name stands in paths where a level's would, and must not be taken for one."""

MACRO_MEAN = "macro_mean"
"""Stands for a level in the names of metrics: the mean over levels, each counting once."""


def parse_task_ids(value: Any) -> str | list[str]:
    """Return one level or several from what YAML or a flag has: `GoToObj`, `[GoToObj, PickupLoc]`, `GoToObj,PickupLoc`.

    Raises:
        ConfigError: If it is neither a name nor a list of names, or a name stands twice.
    """
    names = value
    if isinstance(value, str) and ("," in value or value.lstrip().startswith("[")):
        names = [name.strip() for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    each = names if isinstance(names, list | tuple) else [names]
    if not each or not all(isinstance(name, str) and name for name in each):
        raise ConfigError(f"task_id: expected a level, or a list such as [GoToObj, PickupLoc], found {value!r}")
    check_distinct_levels(each)
    return names if isinstance(names, str) else list(names)


def check_distinct_levels(names: Sequence[str]) -> None:
    """Refuse a level that stands twice.

    Raises:
        ConfigError: If one does.
    """
    for name in names:
        if (count := list(names).count(name)) > 1:
            raise ConfigError(
                f"task_id: expected distinct levels, found {name} {count} times; task_weights gives one more steps"
            )


def parse_weights(value: Any) -> list[float] | None:
    """Return weights from what YAML or a flag has, `[1, 1, 2]` or `1,1,2`; None where there are none.

    Raises:
        ConfigError: If they are no numbers from 1e-6 to 1e6.
    """
    if value is None or value == "null":
        return None
    parts = value.strip().removeprefix("[").removesuffix("]").split(",") if isinstance(value, str) else value
    try:
        weights = [float(part) for part in parts if not isinstance(part, bool)]
        usable = isinstance(parts, list | tuple) and len(weights) == len(parts) > 0
        usable = usable and all(1e-6 <= weight <= 1e6 for weight in weights)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            f"task_weights: expected a number from 1e-6 to 1e6 for each level, such as [1, 1, 2], found {value!r}"
        )
    return weights


def check_mixture(levels: Sequence[str], weights: Sequence[float] | None, name: str | None, num_envs: int) -> None:
    """Refuse settings of many levels that do not fit together.

    Raises:
        ConfigError: If they do not.
    """
    if weights is not None and len(weights) != len(levels):
        raise ConfigError(
            f"task_weights: expected {len(levels)}, one for each level of task_id, found {len(weights)}: {weights!r}"
        )
    if name is None:
        raise ConfigError(
            f"mixture: expected a name for these {len(levels)} levels, which names their folders, such as "
            "--mixture verbs3; found null"
        )
    if MIXTURE_NAME.fullmatch(name) is None:
        raise ConfigError(
            "mixture: expected a letter, then letters, digits, `_`, `.` or `-`, at most 100, which does not begin as "
            f"names of levels, trials or seeds do; found {name!r}"
        )
    if num_envs < len(levels):
        raise ConfigError(f"num_envs: expected at least {len(levels)}, one for each level of task_id, found {num_envs}")


def count_slots(weights: Sequence[float], num_envs: int) -> list[int]:
    """Return how many environments each level gets, at least one, in all `num_envs`: the largest remainder method.

    Each level first gets one, or the whole number below its share if that is more; what is left goes to the largest
    remainders, ties to the level that stands first. Levels whose share is below one are paid for by the others, which
    then divide what remains by their weights.

    Args:
        weights: Of the levels, positive.
        num_envs: At least as many.

    Raises:
        ValueError: If there are fewer environments than levels.
    """
    if num_envs < len(weights):
        raise ValueError(f"num_envs: expected at least {len(weights)}, found {num_envs}")
    small: set[int] = set()
    while True:
        large = [level for level in range(len(weights)) if level not in small]
        total, left = math.fsum(weights[level] for level in large), num_envs - len(small)
        shares = {level: left * weights[level] / total for level in large}
        if not (below := {level for level, share in shares.items() if share < 1}):
            break
        small |= below
    slots = [1] * len(weights)
    for level, share in shares.items():
        slots[level] = int(share)
    by_remainder = sorted(large, key=lambda level: (slots[level] - shares[level], level))
    for level in by_remainder[: num_envs - sum(slots)]:
        slots[level] += 1
    return slots


def short_level(task_id: str) -> str:
    """Return a level's name as metrics have it, `BabyAI-GoToObj-v0` -> `GoToObj`."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")
