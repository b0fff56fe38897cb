"""Experiments whose models are searched by other machines: an item is a model with all methods, each with a part file.

    <results>/parts/<model>.json     {"runs": [...]} of that model, written after each sample, gone when it is done

The driver puts each part into the results as it comes, so that the results file is at any time what one machine would
have written; metrics and trees lie where they always do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from maxent.results import Results
from maxent.settings import ExperimentSettings
from maxent.stand_ins import find_folder
from pipeline.command.interruption import Interruption
from pipeline.command.launcher import Launcher
from pipeline.command.workers import Event, WorkItem
from pipeline.launch.items import RESUME, launch

Search = Callable[..., bool]
"""Of a link, settings, the results' path, a model's key and its runs: searches, and returns whether all was written."""


class Told(Protocol):
    """Where samples are counted and lines go: a bar."""

    def write(self, text: str) -> object:
        """Print a line."""

    def update(self) -> object:
        """Count a sample."""


def part_path(results: Path, key: str) -> Path:
    """Return the part file of a model."""
    return results.with_suffix("") / "parts" / f"{key}.json"


def search_models(
    search: Search,
    settings: ExperimentSettings,
    results: Results,
    launcher: Launcher,
    interruption: Interruption,
    bar: Told,
) -> bool:
    """Search with all models what is missing, where a launcher says; return whether all metrics were written.

    Args:
        search: Does it for one model, on its machine.
        settings: Of the experiments; folders are relative to the current one, as `pipeline.launch` wants them.
        results: Gets each model's runs after each sample.
        launcher: Where.
        interruption: Asked whether a stop is wished.
        bar: Of all samples.

    Raises:
        ConfigError: If the launcher cannot be had, or a path leads out of the current folder.
    """
    complete = True
    keys = [key for key in settings.models if _find_left(results, key)]
    for key in keys:
        bar_before = _count(results, key)
        take_part(results, key)  # of a driver that was killed
        for _ in range(_count(results, key) - bar_before):
            bar.update()
    keys = [key for key in keys if _find_left(results, key)]

    def report(event: Event) -> None:
        nonlocal complete
        key, kind = event.item.name, event.kind
        if kind == "progress" and event.content[0] == "say":
            bar.write(event.content[1])
            return
        if kind == "started":
            return
        take_part(results, key)
        if kind == "progress":
            bar.update()
        elif kind == "done":
            complete &= event.content
        elif kind in ("failed", "died"):
            error = {"type": kind, "message": str(event.content), "refused": False, "traceback": None}
            for run in _find_left(results, key):
                run.update(status="failed", error=error)
            bar.write(f"failed, {key}: {event.content}")
        results.save()
        if kind in ("done", "failed", "died"):
            part_path(results.path, key).unlink(missing_ok=True)

    items = [_describe_work(search, settings, results, key) for key in keys]
    launch(items, launcher=launcher, jobs=None, report=report, stopping=interruption.stopping, again=RESUME)
    with suppress(OSError):  # it holds what was stopped, or is not there
        part_path(results.path, "").parent.rmdir()
    return complete


def _describe_work(search: Search, settings: ExperimentSettings, results: Results, key: str) -> WorkItem:
    runs = [run for run in results.content["runs"] if run["model"] == key]
    beside = results.path.with_suffix("")
    folders = tuple(beside / f"{key}_{run['method']}" for run in runs)
    outputs = (*folders, part_path(results.path, key), find_folder(settings.stand_in_dir))
    given = [path for at, path in settings.find_paths().items() if at == key and Path(path).exists()]
    inputs = (*outputs, *map(Path, given), Path(settings.data_path or "data"))
    return WorkItem(key, search, (settings, results.path, key, runs), inputs=inputs, outputs=outputs)


def take_part(results: Results, key: str) -> None:
    """Put a model's part file into the results, where it is there and has as many samples or more."""
    runs = read_part(results.path, key)
    if sum(len(run["samples"]) for run in runs.values()) >= _count(results, key) and runs:
        own = results.content["runs"]
        own[:] = [runs.get(run["method"], run) if run["model"] == key else run for run in own]


def read_part(results: Path, key: str) -> dict[str, Mapping[str, Any]]:
    """Return a model's runs of its part file, by method; none where there is no file that can be read."""
    try:
        content = json.loads(part_path(results, key).read_text(encoding="utf-8"))
        return {run["method"]: run for run in content["runs"] if isinstance(run["samples"], list)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _find_left(results: Results, key: str) -> list[dict[str, Any]]:
    return [run for run in results.content["runs"] if run["model"] == key and run["status"] != "done"]


def _count(results: Results, key: str) -> int:
    return sum(len(run["samples"]) for run in results.content["runs"] if run["model"] == key)
