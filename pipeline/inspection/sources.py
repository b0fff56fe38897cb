"""Which folders hold the runs that are asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.command.errors import ConfigError
from pipeline.command.names import name_command
from pipeline.places import find_run_folders, locate_run, root_of


@dataclass(frozen=True)
class InspectionSettings:
    """Where runs are, seen from the folder in which one works.

    Attributes:
        checkpoint_dir: Folder of checkpoints.
        log_dir: Folder of metrics.
        results_path: The CSV of evaluations.
    """

    checkpoint_dir: str = "checkpoints"
    log_dir: str = "runs"
    results_path: str = "evaluation_results.csv"


@dataclass(frozen=True)
class Sources:
    """Where runs, their metrics and their evaluations are.

    Attributes:
        checkpoints: Root of the checkpoints.
        logs: Root of the metrics.
        results: The CSV of evaluations.
        within: Task, trial and seed of the runs that are meant, as far as these are the same for all of them.
    """

    checkpoints: Path
    logs: Path
    results: Path
    within: tuple[str | int | None, ...] = ()


def find_sources(folder: str | Path, settings: InspectionSettings) -> Sources:
    """Return where to look for runs.

    Args:
        folder: In which one works, with a folder of checkpoints or logs; or one of these; or one in them, of a task, a
            trial or a run.
        settings: Where runs are, seen from the first.

    Raises:
        ConfigError: If it is none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of runs, found {'a file' if folder.exists() else 'none'}")
    if (folder / settings.checkpoint_dir).is_dir() or (folder / settings.log_dir).is_dir():
        return _from_base(folder, settings)
    for root in (folder, *folder.absolute().parents[:3]):
        inner = folder.absolute().relative_to(root.absolute()).parts
        for place in find_run_folders(root):
            if place.path.absolute().relative_to(root.absolute()).parts[: len(inner)] == inner:
                return replace(_from_root(root, settings), within=place.run[: len(inner)])
    raise ConfigError(
        f"{folder}: expected a folder with {settings.checkpoint_dir} or {settings.log_dir} in it, or one in these, "
        f"found no run; train one: {name_command('train')} --config config.yaml"
    )


def find_run(text: str, settings: InspectionSettings) -> tuple[Sources, int | None]:
    """Return where a run is, and which update is meant if it is one of its numbered checkpoints.

    Args:
        text: Path of the folder of a trial or a run, of checkpoints or logs, or of a checkpoint; or task/trial or
            task/trial/seed, as in GoToObj/1/0, of runs of the folder in which one works.
        settings: Where runs are, seen from there.

    Raises:
        ConfigError: If it is neither.
    """
    if Path(text).exists():
        run = locate_run(text)
        if run is None:
            raise ConfigError(
                f"{text}: expected the folder of a trial or a run, or a checkpoint in one, found another path"
            )
        within = run.run if run.seed is not None else run.run[:2]
        return replace(_from_root(root_of(run), settings), within=within), run.update
    match = re.fullmatch(r"([^/]+)/(?:trial_)?(\d+)(?:/(?:seed_)?(\d+))?/?", text, re.ASCII)
    if match is None:
        raise ConfigError(
            f"{text}: expected a path that is there, or task/trial or task/trial/seed, as in GoToObj/1/0; "
            f"{name_command('ls')} lists runs"
        )
    sources = _from_base(Path(), settings)
    known = {place.task_id for root in (sources.checkpoints, sources.logs) for place in find_run_folders(root)}
    tasks = sorted(task for task in known if match[1].lower() in _spellings(task))
    if len(tasks) != 1:
        found = f"{', '.join(tasks)}: write it whole" if tasks else f"runs of {', '.join(sorted(known)) or 'no task'}"
        raise ConfigError(f"{text}: expected a task that has runs, found {found}")
    return replace(sources, within=(tasks[0], *(int(number) for number in match.groups()[1:] if number))), None


def _from_base(base: Path, settings: InspectionSettings) -> Sources:
    return Sources(base / settings.checkpoint_dir, base / settings.log_dir, base / settings.results_path)


def _from_root(root: Path, settings: InspectionSettings) -> Sources:
    """Return the sources of which one root is known; the others lie beside it."""
    base = _from_base(root.parent, settings)
    if root.name == Path(settings.log_dir).name:
        return Sources(base.checkpoints, root, base.results)
    return Sources(root, base.logs, base.results)


def _spellings(task_id: str) -> set[str]:
    """Return how a task may be called: whole, without BabyAI-, without its version; in small letters."""
    name = task_id.lower()
    short = name.removeprefix("babyai-")
    return {name, short, name.rpartition("-v")[0], short.rpartition("-v")[0]}
