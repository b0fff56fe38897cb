"""What a study file says of policies that go on to learn new levels, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.command.cli import check_numbers
from pipeline.command.errors import ConfigError, check_known
from science.arms import PARTS
from science.names import read_names


def _read_levels(value: Any) -> list[str]:
    return read_names("levels", value)


def _read_parts(value: Any) -> list[str]:
    names = read_names("parts", value)
    check_known("parts", names, PARTS)
    if not names:
        raise ConfigError(f"parts: expected some of {', '.join(PARTS)}, found none")
    return [part for part in PARTS if part in names]


@dataclass(frozen=True)
class Transfer:
    """Trained policies go on to learn levels that are new to them, with a part of them free.

    Attributes:
        levels: That are learned, none of the study's tasks; none: its held-out tasks.
        parts: What is left free, each by itself: router, experts, head, and all.
        num_updates: Updates after which a level that is not learned is censored.
        success: Share of episodes solved, acting as it learns, that counts as learned; see `science.learning`.
        alpha: Price at which policies were trained and go on; null: the lowest of the study.
        seeds: Policies that go on, the first of the study's; null: all.
        untrained: Whether each part is trained in an untrained policy besides.
    """

    levels: list[str] = field(default_factory=list, metadata={"read": _read_levels})
    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={"read": _read_parts})
    num_updates: int = 1000
    success: float = 0.9
    alpha: float | None = None
    seeds: int | None = None
    untrained: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "parts", _read_parts(self.parts))
        check_numbers(self, 1, "num_updates", "seeds")
        if not 0 < self.success <= 1:
            raise ConfigError(f"success: expected a share above 0, at most 1, found {self.success!r}")


def check_transfer(asked: Transfer, study: Any) -> None:
    """Refuse what does not fit a study.

    Args:
        asked: Of the study.
        study: Its settings, `StudyConfig`.

    Raises:
        ConfigError: If something does not.
    """
    if not (asked.levels or study.held_out_tasks):
        raise ConfigError("transfer: levels: expected levels to be learned, or held_out_tasks, found neither")
    for name in asked.levels:
        if name in study.tasks:
            raise ConfigError(f"transfer: levels: expected levels that are not in tasks, found {name} in both")
    if study.mixture is None and len(study.tasks) > 1:
        raise ConfigError(
            f"transfer: expected a mixture, or one task, whose policies go on, found {len(study.tasks)} tasks and no "
            "mixture"
        )
    if study.shared.task_input == "onehot":
        raise ConfigError(
            "transfer: by train.task_input onehot policies are told a level's place among those they learn, and new "
            "levels have none; set task_input: none"
        )
    if asked.alpha is not None and asked.alpha not in study.lpc_alphas:
        prices = ", ".join(f"{alpha:g}" for alpha in study.lpc_alphas)
        raise ConfigError(f"transfer: alpha: expected one of {prices}, found {asked.alpha:g}")
    if asked.seeds is not None and asked.seeds > len(study.seeds):
        raise ConfigError(f"transfer: seeds: expected at most {len(study.seeds)}, found {asked.seeds}")
