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
from pipeline.parts import SEED
from pipeline.places import checkpoint_path, run_folder
from science.arms import list_arms
from science.config import StudyConfig, name_setting
from science.learning import check_time
from science.store import digest

BASELINE = "gru"

LEARNER = "learner"
"""Setting of dense networks that tell how hard a task is."""

LEARNER_LINES = 200
"""Lines of metrics of such a network, about: how finely the steps that it needs are told."""

ADAPTED = "transfer"
"""What names of items of policies that learn a new level begin with."""

ALONE = {"task_id": "GoToObj", "mixture": None, "task_weights": None, "task_input": "none"}
"""Settings of training on one level, to be named."""


@dataclass(frozen=True)
class Run:
    """A run of the study on one level family; a policy of a mixture is one run on each of its levels.

    Attributes:
        task: Full name of the task that is played: its own, one of its mixture, or one held out.
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
    def training(self) -> str:
        """Name of what is trained, which runs on other tasks may share: the mixture's stands for the task."""
        return f"{self.config.run_name}/{self.setting}/seed={self.seed}"

    @property
    def played_elsewhere(self) -> str | None:
        """The task, if the policy has no single one of its own."""
        return None if self.config.mixture is None else self.task

    @property
    def checkpoint(self) -> Path:
        """Its final one."""
        return checkpoint_path(run_folder(self.config.checkpoint_dir, self.config), None)


def identify(config: TrainConfig) -> dict[str, Any]:
    """Return what decides a run's weights; of a checkpoint that it starts from, where that is within the study."""
    found = config.identity()
    if config.start_from is not None:
        found["start_from"] = Path(config.start_from).relative_to(config.checkpoint_dir).as_posix()
    return found


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
        identity = {name: value for name, value in identify(config).items() if name not in ("trial", "seed")}
        mine = {"task_id": config.run_name, "digest": digest({**identity, "num_updates": config.num_updates})}
        numbers = [entry["trial"] for entry in self._known if entry["task_id"] == config.run_name]
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
        tasks: Full names of all that are played, those held out last.
        runs: All of them, by task, setting and seed; baselines last.
        trials: The numbers of their trials.
        held_out: The tasks that no policy was trained on.
        learners: Dense networks that learn a task by itself, which tell how hard it is.
        adapted: Policies that learn a new level, in each of the ways that `science.arms` names: their settings are
            these names, their prices those of the policies that they start from.
    """

    config: StudyConfig
    folder: Path
    tasks: tuple[str, ...]
    runs: tuple[Run, ...]
    trials: Trials
    held_out: tuple[str, ...] = ()
    learners: tuple[Run, ...] = ()
    adapted: tuple[Run, ...] = ()

    @property
    def new_levels(self) -> tuple[str, ...]:
        """Full names of the levels that trained policies go on to learn."""
        return tuple(dict.fromkeys(run.task for run in self.adapted))

    @property
    def trainings(self) -> list[Run]:
        """A run of each policy: those of a mixture differ in more than the task they play."""
        found: dict[str, Run] = {}
        for run in self.runs:
            found.setdefault(run.training, run)
        return list(found.values())

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
        known = tuple(dict.fromkeys((*self.tasks, *self.new_levels)))
        if name not in known:
            raise ConfigError(f"claims: task: expected one of {', '.join(known)}, found {task!r}")
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


def _list_learners(config: StudyConfig, tasks: Sequence[str], shared: TrainConfig, registry: Trials) -> tuple[Run, ...]:
    """Return the dense networks that learn a task by itself, from settings of one; none if the study does not ask."""
    asked, found = config.difficulty_baselines, []
    for task in tasks if asked is not None else ():
        own = replace(
            shared,
            task_id=task,
            hidden_size=asked.hidden_size,
            num_updates=asked.num_updates,
            log_interval=max(1, asked.num_updates // LEARNER_LINES),
        )
        trial = registry.number(own)
        found += [Run(task, LEARNER, None, replace(own, trial=trial, seed=seed)) for seed in range(asked.seeds)]
    return tuple(found)


def _list_adapted(
    config: StudyConfig, levels: Sequence[str], sources: Sequence[Run], shared: TrainConfig, registry: Trials
) -> tuple[Run, ...]:
    """Return the runs that learn new levels; none if the study does not ask.

    Args:
        config: The study file.
        levels: Full names.
        sources: The trained policies at the price that is asked for, one of each seed.
        shared: Settings of one level.
        registry: Numbers their trials.
    """
    asked, found = config.transfer, []
    for level in levels if "transfer" in config.analyses else ():
        own = replace(
            shared,
            task_id=level,
            lpc_alpha=sources[0].config.lpc_alpha,
            num_updates=asked.num_updates,
            log_interval=max(1, asked.num_updates // LEARNER_LINES),
            checkpoint_interval=0,
            checkpoint_updates=[],
        )
        checkpoint = sources[0].checkpoint
        of_any_seed = checkpoint.parent.name.replace(str(sources[0].seed), SEED)
        pattern = str(checkpoint.parent.with_name(of_any_seed) / checkpoint.name)
        for arm in list_arms(asked.parts, twins=asked.untrained):
            of_arm = replace(own, train_only=arm.train_only, start_from=pattern if arm.trained else None)
            trial = registry.number(of_arm)
            found += [
                Run(level, arm.name, run.alpha, replace(of_arm, trial=trial, seed=run.seed))
                for run in sources[: asked.seeds]
            ]
    return tuple(found)


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
    held_out = tuple(dict.fromkeys(resolve_task_id(task) for task in config.held_out_tasks))
    if both := [task for task in held_out if task in tasks]:
        raise ConfigError(f"held_out_tasks: expected levels that are not in tasks, found {', '.join(both)} in both")
    if config.mixture is not None and len(tasks) < len(config.tasks):
        raise ConfigError(f"tasks: expected distinct levels in a mixture, found {', '.join(config.tasks)}")
    places = {"checkpoint_dir": str(folder / "work" / "checkpoints"), "log_dir": str(folder / "work" / "runs")}
    levels = {"task_id": list(tasks), "mixture": config.mixture, "task_weights": config.task_weights}
    learned = levels if config.mixture is not None else {}
    shared = TrainConfig(**{"tensorboard": False, **config.train, **learned, **places, "final_eval_episodes": 0})
    dense = replace(shared, policy=BASELINE, lpc_alpha=0.0)
    if "dynamics" in config.analyses:
        shared = replace(shared, checkpoint_updates=list_updates(shared.num_updates, config.checkpoints)[:-1])
    registry = Trials(folder / "work" / "trials.json")
    runs = []
    for task in (*tasks, *held_out):
        own = shared if learned else replace(shared, task_id=task)
        kinds: list[tuple[str, float | None, TrainConfig]] = [
            (name_setting(alpha), alpha, replace(own, lpc_alpha=alpha)) for alpha in config.lpc_alphas
        ]
        for path in config.baselines:
            own = dense if learned else replace(dense, task_id=task)
            kinds.append((f"{BASELINE}={path}", None, replace(own, hidden_size=widths[path])))
        for setting, alpha, of_kind in kinds:
            trial = registry.number(of_kind)
            runs += [Run(task, setting, alpha, replace(of_kind, trial=trial, seed=seed)) for seed in config.seeds]
    runs.sort(key=lambda run: run.alpha is None)
    learners = _list_learners(config, tasks, replace(dense, **ALONE) if learned else dense, registry)
    adapted: tuple[Run, ...] = ()
    if config.transfer is not None:
        levels = list(dict.fromkeys(map(resolve_task_id, config.transfer.levels))) or held_out
        if both := [level for level in levels if level in tasks]:
            raise ConfigError(
                f"transfer: levels: expected levels that are not in tasks, found {', '.join(both)} in both"
            )
        price = min(config.lpc_alphas) if config.transfer.alpha is None else config.transfer.alpha
        sources = [run for run in runs if run.alpha == price and run.task == tasks[0]]
        adapted = _list_adapted(config, levels, sources, replace(shared, **ALONE) if learned else shared, registry)
    check_time("difficulty_baselines", (run.config for run in learners))
    check_time("transfer", (run.config for run in adapted))
    design = Design(config, folder, (*tasks, *held_out), tuple(runs), registry, held_out, learners, adapted)
    for claim in config.claims:
        if claim.task is not None:
            design.full_name(claim.task)
    return design
