"""Where runs, checkpoints, caches and figures are: the one grammar of their paths, written and read here alone.

    <root>/<task_id>/trial_<N>/seed_<S>/                                      run_folder, also of a run's logs
    <root>/<task_id>/sweep_trial_<N>.json                                     which trial of a sweep is what
    <root>/<task_id>/trial_<N>/[seed_<S>/]checkpoint_<update>.pt              or checkpoint_final.pt
    <root>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]routing_data.json      of a final checkpoint without update_<U>
    <root>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]<name>.png
    <root>/<task_id>/trial_<N>_seeds_<S>_<S>/<name>.png                       of several runs together

    for place in find_checkpoints("checkpoints"):
        cache_path("evaluation_cache", place.task_id, place.trial, place.seed, place.update)

Numbers have no leading zeros: trial_01 would share its results with trial_1. What does not follow the grammar is no
place and is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Protocol

from pipeline.command.errors import UserError

CACHE_NAME = "routing_data.json"
FINAL_NAME = "checkpoint_final.pt"

_TASK = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_NUMBER = r"(?:0|[1-9]\d{0,18})"
_RUN = rf"(?P<task_id>{_TASK})/trial_(?P<trial>{_NUMBER})(?:/seed_(?P<seed>{_NUMBER}))?"
_CHECKPOINT_NAME = rf"checkpoint_(?:(?P<update>{_NUMBER})|final)\.pt"
_CHECKPOINT = rf"{_RUN}/{_CHECKPOINT_NAME}"
_CACHE = rf"{_RUN}(?:/update_(?P<update>{_NUMBER}))?/{re.escape(CACHE_NAME)}"
_LEVEL = r"BabyAI-[A-Za-z0-9]+-v\d+"  # checkpoints of other programs may lie beside ours


class PlaceError(UserError, ValueError):
    """A path that cannot be one, or a folder that is none; the message says what was expected."""


@dataclass(frozen=True)
class Place:
    """A checkpoint, or what belongs to one: the file, and what its path says. It can be used wherever a path can.

    Attributes:
        path: The file.
        task_id: Task of the run.
        trial: Trial of the run.
        seed: Seed of the run; None where the path has no `seed_<S>` folder.
        update: Update of the checkpoint; None for the final one.
    """

    path: Path
    task_id: str
    trial: int
    seed: int | None
    update: int | None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def run(self) -> tuple[str, int, int | None]:
        """Task, trial and seed, which name the run among those of a folder."""
        return self.task_id, self.trial, self.seed


class Run(Protocol):
    """What names a run: a `TrainConfig`, a `Place`."""

    task_id: str
    trial: int
    seed: int | None


# ---------------------------------------------------------------------------------------------------------- written


def run_folder(root: str | Path, run: Run) -> Path:
    """Return `<root>/<task_id>/trial_<N>/[seed_<S>]`, under which a run keeps its checkpoints or its logs."""
    folder = Path(root) / run.task_id / f"trial_{run.trial}"
    return folder if run.seed is None else folder / f"seed_{run.seed}"


def checkpoint_path(folder: Path, update: int | None) -> Path:
    """Return the path of a checkpoint in a run's folder; None stands for the final one."""
    return folder / (FINAL_NAME if update is None else f"checkpoint_{update}.pt")


def cache_path(
    cache_dir: str | Path, task_id: str, trial: int, seed: int | None = None, update: int | None = None
) -> Path:
    """Return `<cache_dir>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]routing_data.json`.

    Raises:
        PlaceError: If a part could lead out of `cache_dir` or would not be found again.
    """
    if not isinstance(task_id, str) or not re.fullmatch(_TASK, task_id):
        raise PlaceError(
            f"task_id: expected letters, digits, `_`, `.` and `-`, at most 100, beginning with a letter or digit, "
            f"found {str(task_id)[:120]!r}"
        )
    folder = Path(cache_dir) / task_id
    for name, number in (("trial", trial), ("seed", seed), ("update", update)):
        if number is None and name != "trial":
            continue
        if isinstance(number, bool) or not isinstance(number, Integral) or not 0 <= number < 10**19:
            raise PlaceError(f"{name}: expected a whole number, 0 or more, found {str(number)[:40]!r}")
        folder /= f"{name}_{int(number)}"
    return folder / CACHE_NAME


def sweep_path(root: str | Path, run: Run) -> Path:
    """Return `<root>/<task_id>/sweep_trial_<N>.json`, which tells of the sweep whose first trial is the run's."""
    return Path(root) / run.task_id / f"sweep_trial_{run.trial}.json"


def plot_path(plots_dir: str | Path, place: Place, name: str) -> Path:
    """Return `<plots_dir>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]<name>.png`, beside which its cache lies."""
    return cache_path(plots_dir, place.task_id, place.trial, place.seed, place.update).with_name(f"{name}.png")


def runs_plot_path(plots_dir: str | Path, task_id: str, runs: str, name: str) -> Path:
    """Return `<plots_dir>/<task_id>/<runs>/<name>.png`, of a figure of several runs of a task.

    Args:
        plots_dir: Folder of all figures.
        task_id: Task of the runs.
        runs: Which they are, such as `trial_1_seeds_0_1`: `folder` of `plotting.replicates.Setting`.
        name: Of the figure.
    """
    return Path(plots_dir) / task_id / runs / f"{name}.png"


# -------------------------------------------------------------------------------------------------------------- read


def locate_checkpoint(path: str | Path, root: str | Path | None = None) -> Place | None:
    """Return what the path of a checkpoint says, None if it does not follow the grammar.

    Args:
        path: Of a file; whether it is there does not matter.
        root: If given, the run's task must be a folder of this one.
    """
    return _locate(_CHECKPOINT, path, root)


def locate_cache(path: str | Path, root: str | Path | None = None) -> Place | None:
    """Return what the path of a cache says, None if it does not follow the grammar; as `locate_checkpoint`."""
    return _locate(_CACHE, path, root)


def _locate(grammar: str, path: str | Path, root: str | Path | None) -> Place | None:
    if root is None:
        match = re.fullmatch(rf"(?:.*/)?{grammar}", Path(path).resolve().as_posix(), re.DOTALL)
    else:
        match = re.fullmatch(grammar, Path(path).relative_to(root).as_posix())
    if match is None:
        return None
    trial, seed, update = (None if match[name] is None else int(match[name]) for name in ("trial", "seed", "update"))
    return Place(Path(path), match["task_id"], trial, seed, update)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder in order of their updates (as numbers, not as text), the final last."""
    matches = ((path, re.fullmatch(_CHECKPOINT_NAME, path.name)) for path in folder.glob("checkpoint_*.pt"))
    updates = {path: int(match["update"] or -1) for path, match in matches if match}
    return sorted(updates, key=lambda path: (updates[path] < 0, updates[path]))


def find_checkpoints(root: str | Path) -> list[Place]:
    """Return the checkpoints under `<root>/<task_id>/trial_<N>/[seed_<S>/]`, ordered by task, trial, seed and update.

    Trials, seeds and updates are ordered as numbers; a run's final checkpoint comes last. Other files are passed over.

    Raises:
        PlaceError: If `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise PlaceError(f"{root}: expected a folder of checkpoints; train first (python train_mop.py), or name it")
    found = (locate_checkpoint(path, root) for path in root.glob("*/trial_*/**/checkpoint_*.pt"))
    return _in_order((place for place in found if place and re.fullmatch(_LEVEL, place.task_id)), final=float("inf"))


def find_caches(cache_dir: str | Path) -> list[Place]:
    """Return the caches under a folder by task, trial, seed and update, in the order of their numbers.

    The cache of a run's final checkpoint comes first, as its folder does.
    """
    paths = Path(cache_dir).glob(f"*/trial_*/**/{CACHE_NAME}")
    found = (locate_cache(path, cache_dir) for path in paths if path.is_file())
    return _in_order((place for place in found if place), final=-1)


def find_trials(root: str | Path, task_id: str) -> list[int]:
    """Return the numbers of a task's trials that have a folder, in order."""
    matches = (re.fullmatch(rf"trial_({_NUMBER})", path.name) for path in (Path(root) / task_id).glob("trial_*"))
    return sorted(int(match[1]) for match in matches if match)


def list_run_folders(root: str | Path, run: Run) -> list[Path]:
    """Return the folders in which runs of a run's trial may be: the trial's own, then those of its seeds, in order."""
    trial = Path(root) / run.task_id / f"trial_{run.trial}"
    matches = ((path, re.fullmatch(rf"seed_({_NUMBER})", path.name)) for path in trial.glob("seed_*"))
    seeds = {path: int(match[1]) for path, match in matches if match}
    return [trial, *sorted(seeds, key=seeds.__getitem__)]


def _in_order(places: Iterable[Place], final: float) -> list[Place]:
    """Return places by task, trial, seed (none before 0) and update; a final one is taken for update `final`."""

    def order(place: Place) -> tuple:
        seed = -1 if place.seed is None else place.seed
        return place.task_id, place.trial, seed, final if place.update is None else place.update

    return sorted(places, key=order)
