"""What a comparison on a generated task trains: variants and controls, crossed with r and with the number of experts.

| row | model |
|---|---|
| `base` | a block, no recurrence |
| `base_deep` | base with r layers: r times the parameters, the operations of r passes |
| `looped` | base, its blocks passed r times |
| `more_a` to `more_d` | recurrent experts; those of `more_a` attend to earlier tokens of their own here (`same`) |
| `more_a_all` | more_a as it is by default, whose experts attend to all earlier tokens; with one expert it is more_a |

`base_deep` and `looped` are base where r is 1, and are left out there; so is `base_deep` of several experts, which has
experts and layers enough to say nothing of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.config import ConfigError

TASK_VARIANTS = ("base", "base_deep", "looped", "more_a", "more_a_all", "more_b", "more_c", "more_d")

DEFAULT_LR = 3e-3
DEEP_LR = 1e-3
"""Learning rate of base with three or more layers, which 3e-3 is too much for."""


class Row(NamedTuple):
    """What the seeds of one row of the table have in common.

    Attributes:
        variant: One of `TASK_VARIANTS`.
        recurrences: r in training.
        experts: Of each layer.
        lr: Learning rate.
    """

    variant: str
    recurrences: int
    experts: int
    lr: float


def plan_rows(variants: Sequence[str], recurrences: Sequence[int], experts: Sequence[int], lr: str | None) -> list[Row]:
    """Return all rows, those that would be the same model once.

    Args:
        variants: Of `TASK_VARIANTS`.
        recurrences: r in training.
        experts: Numbers of experts.
        lr: Learning rates to choose from; None for the one that suits each row.
    """
    rates = read_rates(lr)
    return [
        Row(variant, steps, count, rate)
        for variant in variants
        for count in experts
        if not (variant == "more_a_all" and count == 1 and "more_a" in variants)
        if not (variant == "base_deep" and count > 1 and 1 in experts)
        for steps in (recurrences if variant != "base" else (1,))
        if not (variant in ("base_deep", "looped") and steps == 1)
        for rate in (rates or [DEEP_LR if variant == "base_deep" and steps > 2 else DEFAULT_LR])
    ]


def describe_model(variant: str, recurrences: int) -> dict[str, Any]:
    """Return the settings of `more.settings.TrainingConfig` that make a variant."""
    if variant == "base_deep":
        return {"model_type": "base", "num_recurrences": 1, "num_layers": recurrences}
    if variant in ("more_a", "more_a_all"):
        sees = "all" if variant == "more_a_all" else "same"
        return {"model_type": "more_a", "num_recurrences": recurrences, "expert_attention": sees}
    return {"model_type": variant, "num_recurrences": recurrences}


def read_rates(text: str | None) -> list[float]:
    """Return the learning rates of a list such as 0.003,0.001; [] for None.

    Raises:
        ConfigError: If it is no such list.
    """
    try:
        rates = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        rates = [0.0]
    if not all(0 < rate < 1 for rate in rates):
        raise ConfigError(f"lr: expected numbers between 0 and 1 as in 0.003,0.001, found {text!r}")
    return list(dict.fromkeys(rates))
