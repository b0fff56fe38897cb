"""What the table of levels measures and where, read from the command line; light."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig

ROOT = Path(__file__).parents[2]
CORES = 2
"""Budgets are minutes of so many cores."""
JOBS = 2
"""Levels at a time on this machine, where nobody says."""

READY_MADE = ("pickuploc", "putnextlocal", "goto", "bosslevel")
"""Files in `configs/` with settings of their own for a level that is worth more than the default."""

OPTIONS = {
    "minutes": "Budgets after which each policy is evaluated, minutes of two cores: a level is trained on one core for "
    "twice as long. Measured is the time that the process has a core, so that other load hardly matters; reading, "
    "compiling and evaluating are not counted. Default: 1,3,10,60.",
    "only": "Levels to measure, in this order, with commas between: GoTo,PickupLoc. Default: all that are registered, "
    "first those of the BabyAI paper.",
    "out": "Folder of results and checkpoints; what is there is not done again. Default: levels.",
    "docs": "Folder that gets the page, table and figure as well (levels.md, levels.csv, images/levels.png), for the "
    "site; what its levels.csv has and the folder of results has not is taken from there. Default: only the folder of "
    "results.",
    "jobs": "Levels at a time, one core each. Default: 2; elsewhere as many as there is room for.",
}
"""Flags beside the settings of training, with their help; those of the launcher are `pipeline.command.launcher`'s."""

SWITCHES = {
    "to_the_end": "Train levels that are solved to the later budgets too. Default: a level that is solved after one is "
    "trained no further.",
    "ready_made": "Measure the ready-made settings (" + ", ".join(f"configs/{name}.yaml" for name in READY_MADE) + "), "
    "each on its level, and not those of the table.",
    "bot_only": "Measure what the bot solves, and train nothing.",
    "tables": "Write page, table and figure of what is there, and measure nothing.",
}


@dataclass(frozen=True)
class LevelsSettings:
    """What is measured.

    Attributes:
        config: Settings of each run but for the level.
        minutes: Budgets of `CORES` cores, rising.
        only: Levels as they were named; None: all.
        out: Folder of results.
        docs: Folder that gets page, table and figure as well.
        jobs: Levels at a time; None: `JOBS` here, elsewhere as many as there is room for.
        to_the_end: Whether levels that are solved are trained to the later budgets too.
        ready_made: Name of the ready-made settings that these are; None for those of the table.
    """

    config: TrainConfig
    minutes: tuple[float, ...] = (1.0, 3.0, 10.0, 60.0)
    only: tuple[str, ...] | None = None
    out: Path = Path("levels")
    docs: Path | None = None
    jobs: int | None = None
    to_the_end: bool = False
    ready_made: str | None = None

    def level_config(self, task_id: str) -> TrainConfig:
        """Return the settings with which a level is trained: without end, on one core, all files within `out`.

        Args:
            task_id: Full id.
        """
        return dataclasses.replace(
            self.config,
            **{"task_id": task_id, "task_weights": None, "mixture": None, "task_input": "none"},
            **{"num_updates": 10**9, "eval_interval": 0, "checkpoint_interval": 0},
            **{"checkpoint_dir": str(self.out / "checkpoints"), "log_dir": str(self.out / "runs")},
            **{"tensorboard": False, "wandb_project": None, "device": "cpu", "torch_threads": 1},
        )


def budget_seconds(minutes: float) -> float:
    """Return the processor time of a budget, seconds."""
    return 60.0 * CORES * minutes


def parse_settings(
    config: TrainConfig,
    *,
    minutes: str | None = None,
    only: str | None = None,
    out: str | None = None,
    docs: str | None = None,
    jobs: str | None = None,
    to_the_end: bool = False,
    ready_made: str | None = None,
) -> LevelsSettings:
    """Return what the settings of training and the flags of `OPTIONS` ask for.

    Raises:
        ConfigError: If a value cannot be used.
    """
    if config.policy == "gru":
        raise ConfigError("policy: expected moe or mop, found gru; the table tells complexity, which gru has none of")
    if config.final_eval_episodes < 1:
        raise ConfigError("final_eval_episodes: expected at least 1 level to evaluate on, found 0")
    default = LevelsSettings(config)
    return LevelsSettings(
        config,
        minutes=default.minutes if minutes is None else parse_minutes(minutes),
        only=None if only is None else parse_names(only),
        out=_find_out(default.out if out is None else Path(out), ready_made),
        docs=None if docs is None else Path(docs),
        jobs=default.jobs if jobs is None else _parse_jobs(jobs),
        to_the_end=to_the_end,
        ready_made=ready_made,
    )


def _find_out(out: Path, ready_made: str | None) -> Path:
    """Return the folder of results: ready-made settings have each their own in that of the table."""
    return out if ready_made is None else out / "ready_made" / ready_made


def parse_minutes(text: str) -> tuple[float, ...]:
    """Return the budgets that a text such as `10,60` names.

    Raises:
        ConfigError: If they are no positive, rising numbers.
    """
    try:
        minutes = tuple(float(part) for part in text.split(","))
    except ValueError:
        minutes = ()
    if not minutes or not all(0 < m < math.inf for m in minutes) or list(minutes) != sorted(set(minutes)):
        raise ConfigError(
            f"--minutes: expected rising positive numbers with commas between, as in 10,60, found {text!r}"
        )
    return minutes


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names in a text such as `GoTo,PickupLoc`.

    Raises:
        ConfigError: If one is empty or there twice.
    """
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"--only: expected distinct levels with commas between, as in GoTo,PickupLoc, found {text!r}")
    return names


def _parse_jobs(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--jobs: expected a whole number of at least 1, found {text!r}")
    return int(text)


def resolve_settings_levels(settings: LevelsSettings, order: Sequence[str]) -> list[str]:
    """Return the full ids of the levels to measure.

    Args:
        settings: What is measured.
        order: Short names that come first if all levels are.

    Raises:
        UnknownTaskError: If one does not exist; the message names it.
        ConfigError: If two names are of one level.
    """
    from babyai.levels import list_tasks, resolve_task_id  # only here: --help is told without minigrid

    if settings.only is None:
        first = [resolve_task_id(name) for name in order]
        return [*first, *(task for task in list_tasks() if task not in first)]
    levels = [resolve_task_id(name) for name in settings.only]
    for task_id in levels:
        if levels.count(task_id) > 1:
            raise ConfigError(f"--only: expected distinct levels, found {task_id} twice")
    return levels
