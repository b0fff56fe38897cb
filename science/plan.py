"""What a study consists of: its runs, and its items of work in the order in which they can be done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.command.errors import ConfigError
from pipeline.command.files import write_json
from pipeline.config import TrainConfig
from pipeline.places import checkpoint_path, run_folder
from science.config import StudyConfig, name_setting
from science.store import digest

BASELINE = "gru"


@dataclass(frozen=True)
class Run:
    """A run of the study.

    Attributes:
        task: Full name of its task.
        setting: How tables name what it shares with the runs of other seeds: alpha=1e-05, or gru=largest.
        alpha: Its price of complexity; None for a baseline.
        config: All of its settings, trial and folders included.
    """

    task: str
    setting: str
    alpha: float | None
    config: TrainConfig

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @property
    def name(self) -> str:
        """For messages and stamps."""
        return f"{self.task}/{self.setting}/seed={self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Its final one."""
        return checkpoint_path(run_folder(self.config.checkpoint_dir, self.config), None)


class Trials:
    """Numbers of trials: one setting has one number for ever, so that a changed study file never meets other runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
        except (OSError, ValueError, KeyError, TypeError):
            self._known = []

    def number(self, config: TrainConfig) -> int:
        """Return the number of a run's trial."""
        identity = {name: value for name, value in config.identity().items() if name not in ("trial", "seed")}
        mine = {"task_id": config.task_id, "digest": digest({**identity, "num_updates": config.num_updates})}
        numbers = [entry["trial"] for entry in self._known if entry["task_id"] == config.task_id]
        for entry in self._known:
            if {key: entry[key] for key in mine} == mine:
                return entry["trial"]
        self._known.append({**mine, "trial": 1 + max(numbers, default=0)})
        return self._known[-1]["trial"]

    def save(self) -> None:
        """Write the numbers down."""
        write_json(self._path, {"trials": self._known}, indent=1)


@dataclass(frozen=True)
class Design:
    """The runs of a study and where its files are.

    Attributes:
        config: The study file.
        folder: Of the study.
        tasks: Full names.
        runs: All of them, by task, setting and seed; baselines last.
        trials: The numbers of their trials.
    """

    config: StudyConfig
    folder: Path
    tasks: tuple[str, ...]
    runs: tuple[Run, ...]
    trials: Trials

    @property
    def work(self) -> Path:
        """Folder of what is not to be published."""
        return self.folder / "work"

    @property
    def routed(self) -> list[Run]:
        """The runs that have routers."""
        return [run for run in self.runs if run.alpha is not None]

    def full_name(self, task: str) -> str:
        """Return the full name of one of the study's tasks.

        Raises:
            ConfigError: If it is none of them.
        """
        from babyai.levels import resolve_task_id

        name = resolve_task_id(task)
        if name not in self.tasks:
            raise ConfigError(f"claims: task: expected one of {', '.join(self.tasks)}, found {task!r}")
        return name

    @property
    def updates(self) -> list[int]:
        """Updates at which runs are looked at while they train; the last one is the end."""
        return list_updates(self.routed[0].config.num_updates, self.config.checkpoints)

    @property
    def settings(self) -> list[str]:
        """Names of the settings in order, baselines last."""
        return list(dict.fromkeys(run.setting for run in self.runs))


def list_updates(last: int, count: int) -> list[int]:
    """Return `count` updates, or fewer where there are not as many, evenly spaced on a logarithmic scale from 1."""
    return sorted({round(last ** (place / (count - 1))) for place in range(count)})


def path_experts(layers: Sequence[Sequence[int]], path: str) -> list[int]:
    """Return which expert of each layer the path with which a baseline is matched takes.

    Args:
        layers: Hidden sizes of each layer's experts; 0 is a skip.
        path: largest; or smallest, of those that are no skip.
    """
    if path == "largest":
        return [max(range(len(sizes)), key=lambda expert, sizes=sizes: sizes[expert]) for sizes in layers]
    return [
        min(range(len(sizes)), key=lambda expert, sizes=sizes: (sizes[expert] == 0, sizes[expert])) for sizes in layers
    ]


def study_folder(config: StudyConfig) -> Path:
    """Return the folder of a study."""
    return Path(config.out) / config.name


def build_design(config: StudyConfig, widths: dict[str, int]) -> Design:
    """Return the runs of a study. Trials are numbered as they first come up, and keep their numbers.

    Args:
        config: The study file.
        widths: Hidden size of the baseline of each path.

    Raises:
        UnknownTaskError: If a task does not exist.
    """
    from babyai.levels import resolve_task_id  # only here, as minigrid is slow to import

    folder = study_folder(config)
    tasks = tuple(dict.fromkeys(resolve_task_id(task) for task in config.tasks))
    places = {"checkpoint_dir": str(folder / "work" / "checkpoints"), "log_dir": str(folder / "work" / "runs")}
    shared = TrainConfig(**{"tensorboard": False, **config.train, **places, "final_eval_episodes": 0})
    dense_of = shared
    if "dynamics" in config.analyses:
        shared = replace(shared, checkpoint_updates=list_updates(shared.num_updates, config.checkpoints)[:-1])
    registry = Trials(folder / "work" / "trials.json")
    runs = []
    for task in tasks:
        kinds: list[tuple[str, float | None, TrainConfig]] = [
            (name_setting(alpha), alpha, replace(shared, task_id=task, lpc_alpha=alpha)) for alpha in config.lpc_alphas
        ]
        for path in config.baselines:
            dense = replace(dense_of, task_id=task, policy=BASELINE, hidden_size=widths[path], lpc_alpha=0.0)
            kinds.append((f"{BASELINE}={path}", None, dense))
        for setting, alpha, of_kind in kinds:
            trial = registry.number(of_kind)
            runs += [Run(task, setting, alpha, replace(of_kind, trial=trial, seed=seed)) for seed in config.seeds]
    runs.sort(key=lambda run: run.alpha is None)
    design = Design(config, folder, tasks, tuple(runs), registry)
    for claim in config.claims:
        if claim.task is not None:
            design.full_name(claim.task)
    return design
