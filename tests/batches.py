"""Checkpoints of two short runs, and what evaluating them has written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints import save_checkpoint
from pipeline.records.results import plain_rows, read_results

ROOT = Path(__file__).parents[1]
TASK = "BabyAI-GoToObjS6-v1"
MOE, BASELINE = Path(TASK, "trial_1", "seed_0"), Path(TASK, "trial_2", "seed_0")
RESULTS, CACHES = Path("evaluation_results.csv"), Path("evaluation_cache")
FEW = ("--num_episodes", "3", "--max_steps", "12")


def path_of(folder: Path, name: str = "final") -> str:
    return (Path("checkpoints") / folder / f"checkpoint_{name}.pt").as_posix()


ALL = [path_of(MOE, "2"), path_of(MOE), path_of(BASELINE)]


def files() -> dict[str, tuple[bytes, int]]:
    """Return content and time of every file that is there, but for locks."""
    found = (path for path in Path().rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def by_path() -> dict[str, dict[str, Any]]:
    """Return the rows by checkpoint; there is one for each."""
    rows = plain_rows(read_results(RESULTS))
    assert len({row["checkpoint_path"] for row in rows}) == len(rows)
    return {row["checkpoint_path"]: row for row in rows}


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "evaluated_at"}


def edit_checkpoint(path: str | Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    save_checkpoint(Path(path), content)


def copy_runs(seeds: int) -> list[str]:
    """Replace the checkpoints by one of each of so many seeds; return their paths."""
    kept = Path(path_of(MOE)).read_bytes()
    shutil.rmtree("checkpoints")
    paths = [Path(path_of(Path(TASK, "trial_1", f"seed_{seed}"))) for seed in range(seeds)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(kept)
    return [path.as_posix() for path in paths]
