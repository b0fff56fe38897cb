"""Where runs, checkpoints, caches and figures are: the one grammar of their paths, written and read here alone.

    <root>/<task_id>/trial_<N>/seed_<S>/                                      run_folder, also of a run's logs
    <root>/<task_id>/sweep_trial_<N>.json                                     which trial of a sweep is what
    <root>/<task_id>/trial_<N>/[seed_<S>/]checkpoint_<update>.pt              or checkpoint_final.pt
    <root>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]routing_data.json      of a final checkpoint without update_<U>
    <root>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]<name>.png
    <root>/<task_id>/trial_<N>_seeds_<S>_<S>/<name>.png                       of several runs together
    <root>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]<level>/routing_data.json   played on another level than its own

`<task_id>` is the level of a run, or the name of its mixture (`TrainConfig.run_name`). A mixture has no level of its
own, so that its caches are all of the last kind.

A cache may also be compact, `routing_data.json.gz`; there is one of the two. It is also read, never written, where
older code left it: in `update_unknown` instead of `update_<U>`, and in `<root>/<task_id>/<task_id>/`, as a folder
becomes that is downloaded into itself.

    for place in find_checkpoints("checkpoints"):
        cache_path("evaluation_cache", place.task_id, place.trial, place.seed, place.update)

Numbers have no leading zeros, since trial_01 would share its results with trial_1, and are below 2^63, as large as
results can hold. What does not follow the grammar is no place and is passed over.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Protocol

from pipeline.command.errors import UserError
from pipeline.command.names import name_command

CACHE_NAME = "routing_data.json"
COMPACT = ".gz"
"""What the name of a compact cache has besides."""
FINAL_NAME = "checkpoint_final.pt"
ANY_NAME = "checkpoint_*.pt"
"""Of a run's checkpoints, as a pattern."""

_TASK = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_LARGEST = str(2**63 - 1)
_NUMBER = "|".join(
    [
        r"(?:0|[1-9]\d{0,17}",
        rf"[1-{int(_LARGEST[0]) - 1}]\d{{18}}",
        *(
            rf"{_LARGEST[:i]}[0-{int(digit) - 1}]\d{{{18 - i}}}"  # the same up to here, then smaller
            for i, digit in enumerate(_LARGEST)
            if i and digit > "0"
        ),
        f"{_LARGEST})",
    ]
)
_RUN = rf"(?P<task_id>{_TASK})/trial_(?P<trial>{_NUMBER})(?:/seed_(?P<seed>{_NUMBER}))?"
_CHECKPOINT_NAME = rf"checkpoint_(?:(?P<update>{_NUMBER})|final)\.pt"
_CHECKPOINT = rf"{_RUN}/{_CHECKPOINT_NAME}"
_UNKNOWN = "update_unknown"
_LEVEL = r"BabyAI-[A-Za-z0-9]+-v\d+"
_CACHE = (
    rf"(?:(?P<doubled>{_TASK})/(?=(?P=doubled)/))?{_RUN}"
    rf"(?:/update_(?P<update>{_NUMBER})|/(?P<unknown>{_UNKNOWN}))?(?:/(?P<level>{_LEVEL}))?"
    rf"/{re.escape(CACHE_NAME)}(?:{re.escape(COMPACT)})?"
)


class PlaceError(UserError, ValueError):
    """A path that cannot be one, or a folder that is none; the message says what was expected."""


@dataclass(frozen=True)
class Place:
    """A checkpoint, or what belongs to one: the file, and what its path says. It can be used wherever a path can.

    Attributes:
        path: The file.
        task_id: Task of the run, or the name of its mixture.
        trial: Trial of the run.
        seed: Seed of the run; None where the path has no `seed_<S>` folder.
        update: Update of the checkpoint; None for the final one.
        unknown_update: True for a cache in `update_unknown`; `update` is None.
        doubled: True for a cache in `<root>/<task_id>/<task_id>/`; only a known root tells.
        eval_task_id: Level on which a cache's policy was played, where that is not its own; else None.
    """

    path: Path
    task_id: str
    trial: int
    seed: int | None
    update: int | None
    unknown_update: bool = False
    doubled: bool = False
    eval_task_id: str | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def run(self) -> tuple[str, int, int | None]:
        """Task, trial and seed, which name the run among those of a folder."""
        return self.task_id, self.trial, self.seed

    @property
    def run_name(self) -> str:
        """Task of the run, or the name of its mixture."""
        return self.task_id

    @property
    def played(self) -> str:
        """The level that a cache tells of."""
        return self.eval_task_id or self.task_id

    @property
    def item(self) -> Path:
        """What tells an evaluation from others: the checkpoint's path, and the level below it if it is not its own."""
        return self.path if self.eval_task_id is None else self.path / self.eval_task_id

    @property
    def is_mixture(self) -> bool:
        """Whether the run was trained on several levels, as its name says."""
        return re.fullmatch(_LEVEL, self.task_id) is None


class Run(Protocol):
    """What names a run: a `TrainConfig`, a `Place`."""

    trial: int
    seed: int | None

    @property
    def run_name(self) -> str:
        """Its level, or the name of its mixture."""


# ---------------------------------------------------------------------------------------------------------- written


def run_folder(root: str | Path, run: Run) -> Path:
    """Return `<root>/<task_id>/trial_<N>/[seed_<S>]`, under which a run keeps its checkpoints or its logs."""
    folder = Path(root) / run.run_name / f"trial_{run.trial}"
    return folder if run.seed is None else folder / f"seed_{run.seed}"


def checkpoint_path(folder: Path, update: int | None) -> Path:
    """Return the path of a checkpoint in a run's folder; None stands for the final one."""
    return folder / (FINAL_NAME if update is None else f"checkpoint_{update}.pt")


def cache_path(
    cache_dir: str | Path,
    task_id: str,
    trial: int,
    seed: int | None = None,
    update: int | None = None,
    eval_task_id: str | None = None,
) -> Path:
    """Return `<cache_dir>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/][<level>/]routing_data.json`.

    The level is in it where it is another than the run's own.

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
        if isinstance(number, bool) or not isinstance(number, Integral) or not 0 <= number <= int(_LARGEST):
            raise PlaceError(
                f"{name}: expected a whole number, 0 or more and less than 2^63, found {str(number)[:40]!r}"
            )
        folder /= f"{name}_{int(number)}"
    if eval_task_id not in (None, task_id):
        if not re.fullmatch(_LEVEL, eval_task_id):
            raise PlaceError(f"eval_task_id: expected a level's full name, found {str(eval_task_id)[:120]!r}")
        folder /= eval_task_id
    return folder / CACHE_NAME


def compact_path(path: str | Path) -> Path:
    """Return the path of a cache in its compact form."""
    return Path(path).parent / f"{Path(path).name}{COMPACT}"  # with_name refuses "."


def stored_cache(path: str | Path) -> Path:
    """Return the file of a cache, which may be the compact one; of both the newer, of none `path`."""
    files = [file for file in (Path(path), compact_path(path)) if file.is_file()]
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=Path(path))


def sweep_path(root: str | Path, run: Run) -> Path:
    """Return `<root>/<task_id>/sweep_trial_<N>.json`, which tells of the sweep whose first trial is the run's."""
    return Path(root) / run.run_name / f"sweep_trial_{run.trial}.json"


def plot_path(plots_dir: str | Path, place: Place, name: str) -> Path:
    """Return `<plots_dir>/<task_id>/trial_<N>/[seed_<S>/][update_<U>/]<name>.png`, beside which its cache lies."""
    root = Path(plots_dir) / place.task_id if place.doubled else plots_dir
    folder = cache_path(root, place.task_id, place.trial, place.seed, place.update).parent
    folder = folder / _UNKNOWN if place.unknown_update else folder
    return (folder if place.eval_task_id is None else folder / place.eval_task_id) / f"{name}.png"


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
    found = match.groupdict()
    unknown, doubled = found.get("unknown") is not None, found.get("doubled") is not None
    return Place(Path(path), match["task_id"], trial, seed, update, unknown, doubled, found.get("level"))


def named_update(path: Path) -> int | None:
    """Return the update that a checkpoint's name says; None: it is a final one."""
    match = re.fullmatch(_CHECKPOINT_NAME, path.name)
    return int(match["update"]) if match and match["update"] else None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder in order of their updates (as numbers, not as text), the final last."""
    matches = ((path, re.fullmatch(_CHECKPOINT_NAME, path.name)) for path in folder.glob(ANY_NAME))
    updates = {path: int(match["update"] or -1) for path, match in matches if match}
    return sorted(updates, key=lambda path: (updates[path] < 0, updates[path]))


def leave_out_earlier(paths: Iterable[str]) -> list[str]:
    """Return paths without a folder's numbered checkpoints before its last one: no run goes on from them."""
    places = [Path(path) for path in paths]
    last: dict[Path, int] = {}
    for place in places:
        last[place.parent] = max(named_update(place) or 0, last.get(place.parent, 0))
    return [str(place) for place in places if named_update(place) in (None, last[place.parent])]


def find_checkpoints(root: str | Path) -> list[Place]:
    """Return the checkpoints under `<root>/<task_id>/trial_<N>/[seed_<S>/]`, ordered by task, trial, seed and update.

    No deeper folder is looked into, so that links to folders are followed and none leads in a circle. Trials, seeds and
    updates are ordered as numbers; a run's final checkpoint comes last. Other files are passed over, and checkpoints
    that other programs have left: those of a mixture, which may have any name, lie below a `seed_<S>`.

    Raises:
        PlaceError: If `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise PlaceError(f"{root}: expected a folder of checkpoints; train first ({name_command('train')}), or name it")
    paths = (path for folder in ("", "seed_*/") for path in root.glob(f"*/trial_*/{folder}checkpoint_*.pt"))
    found = (locate_checkpoint(path, root) for path in paths)
    ours = (place for place in found if place and (place.seed is not None or not place.is_mixture))
    return _in_order(ours, final=float("inf"))


def list_likely_checkpoints(root: str | Path, place: Place) -> list[Path]:
    """Return where below a root the checkpoint of a cache would lie, whether there is one or not."""
    return [] if place.unknown_update else [checkpoint_path(run_folder(root, place), place.update)]


def find_strays(root: str | Path) -> list[Path]:
    """Return the files of a folder of checkpoints that are named as one and lie where none is looked for, in order."""
    root = Path(root)
    paths = (path for folder in ("", "*/", "*/*/") for path in root.glob(f"*/trial_*/{folder}checkpoint_*.pt"))
    return sorted(
        path
        for path in paths
        if re.fullmatch(_LEVEL, path.relative_to(root).parts[0])
        and re.fullmatch(r"checkpoint_(\d+|final)\.pt", path.name)
        and locate_checkpoint(path, root) is None
        and path.is_file()
    )


def find_caches(cache_dir: str | Path) -> list[Place]:
    """Return the caches under a folder by task, trial, seed and update, in the order of their numbers.

    The cache of a run's final checkpoint comes first, as its folder does; then one of an unknown update. Links to
    folders are followed.
    """
    below = [f"{run}{update}{level}" for level in ("", "BabyAI-*/") for update in ("", "update_*/")
             for run in ("", "seed_*/")]  # fmt: skip
    patterns = (f"{task}/trial_*/{folders}{CACHE_NAME}*" for task in ("*", "*/*") for folders in below)
    paths = {path.with_name(CACHE_NAME) for pattern in patterns for path in Path(cache_dir).glob(pattern)}
    found = (locate_cache(path, cache_dir) for path in map(stored_cache, paths) if path.is_file())
    return _in_order((place for place in found if place), final=-1)


def find_trials(root: str | Path, task_id: str) -> list[int]:
    """Return the numbers of a task's trials that have a folder, in order."""
    matches = (re.fullmatch(rf"trial_({_NUMBER})", path.name) for path in (Path(root) / task_id).glob("trial_*"))
    return sorted(int(match[1]) for match in matches if match)


def list_run_folders(root: str | Path, run: Run) -> list[Path]:
    """Return the folders in which runs of a run's trial may be: the trial's own, then those of its seeds, in order."""
    trial = Path(root) / run.run_name / f"trial_{run.trial}"
    matches = ((path, re.fullmatch(rf"seed_({_NUMBER})", path.name)) for path in trial.glob("seed_*"))
    seeds = {path: int(match[1]) for path, match in matches if match}
    return [trial, *sorted(seeds, key=seeds.__getitem__)]


def locate_run(path: str | Path) -> Place | None:
    """Return the run that a path names: its folder, of checkpoints or logs, or a file in it; a trial is without seed.

    `path` of the place is the folder, `update` that of a checkpoint. None if the path does not follow the grammar.
    """
    path = Path(path)
    if (checkpoint := locate_checkpoint(path)) is not None:
        return dataclasses.replace(checkpoint, path=path.parent)
    return _run_place(path, re.fullmatch(rf"(?:.*/)?{_RUN}", path.resolve().as_posix(), re.DOTALL))


def find_run_folders(root: str | Path) -> list[Place]:
    """Return the folders under a root in which runs may be, by task, trial and seed; a trial's own comes first."""
    root = Path(root)
    folders = [path for pattern in ("*/trial_*", "*/trial_*/seed_*") for path in root.glob(pattern) if path.is_dir()]
    found = (_run_place(path, re.fullmatch(_RUN, path.relative_to(root).as_posix())) for path in folders)
    return _in_order((place for place in found if place), final=0)


def root_of(run: Place) -> Path:
    """Return the root under which the folder of a run lies, which is its `path`."""
    return run.path.resolve().parents[1 if run.seed is None else 2]


def _run_place(path: Path, match: re.Match[str] | None) -> Place | None:
    if match is None:
        return None
    return Place(
        path, match["task_id"], int(match["trial"]), None if match["seed"] is None else int(match["seed"]), None
    )


def _in_order(places: Iterable[Place], final: float) -> list[Place]:
    """Return places by task, trial, seed (none before 0) and update; a final one is taken for update `final`."""

    def order(place: Place) -> tuple:
        seed = -1 if place.seed is None else place.seed
        update = final if place.update is None else place.update
        played = place.eval_task_id or ""
        return place.task_id, place.trial, seed, update, place.unknown_update, place.doubled, played

    return sorted(places, key=order)
