"""The project on Modal: https://modal.com/docs. docs/clusters.md says what to do first.

    modal run modal_app.py --do train --tasks GoToObj,Open --trials 1-2 --seeds 0-4 --flags "--num_updates 2000"
    modal run modal_app.py --do evaluate --flags "--num_episodes 1000"
    modal run modal_app.py --do results

These three work on a volume, need nobody who waits (`modal run --detach`), and go on where they were when they are
called again. `--launcher modal` of any command brings its files here instead, and needs `modal deploy modal_app.py`.

On the volume each checkpoint's evaluation has a file of its own, rows/<checkpoint>.csv, for two containers that write
one file of a volume lose what the other has written. `--do results` reads them all and makes evaluation_results.csv.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal

ROOT = Path(__file__).resolve().parent
PROJECT, RESULTS, COMPILED = "/project", "/results", "/compiled"
CODE = ("babyai", "pipeline", "film", "maxent", "more", "plotting", "rlmop", "science", "benchmarks", "configs")


def is_left_out(path: Path) -> bool:
    """Return whether a file of the project's folder is no part of what containers need."""
    first = path.parts[0] if path.parts else ""
    code = (
        first in CODE and path.suffix in (".py", ".json", ".html", ".j2", ".yaml") and "__pycache__" not in path.parts
    )
    return not (code or (len(path.parts) == 1 and path.suffix in (".py", ".yaml")))


app = modal.App("rl-mop")
image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install_from_requirements(str(ROOT / "requirements.txt"))
    .pip_install_from_requirements(str(ROOT / "requirements" / "science.txt"))
    .env({"PYTHONPATH": PROJECT, "NUMBA_CACHE_DIR": COMPILED, "MPLBACKEND": "agg"})
    .add_local_dir(ROOT, PROJECT, ignore=is_left_out)
)
volume = modal.Volume.from_name("rl-mop-results", create_if_missing=True)
compiled = modal.Volume.from_name("rl-mop-compiled", create_if_missing=True)
WORK: dict[str, Any] = {
    "image": image,
    "volumes": {RESULTS: volume, COMPILED: compiled},
    "timeout": 24 * 3600,
    "cpu": 1.0,
    "memory": 4096,
    "max_containers": 100,
    "retries": modal.Retries(max_retries=5, backoff_coefficient=1.0, initial_delay=10.0),
}
"""What each container has; `gpu="T4"` here gives each one a GPU. What yields is retried by the driver."""


@app.function(**{name: value for name, value in WORK.items() if name != "retries"})
def do_order(order: bytes, stop: Any) -> Iterator[bytes]:
    """Do a work item of `pipeline.launch.remote`, and yield what it sends.

    Args:
        order: See `write_order`.
        stop: Has a key "stop" once a stop is wished: a `modal.Dict`.
    """
    from pipeline.launch.remote import stream

    yield from stream(order, lambda: stop.contains("stop"))


@app.function(**WORK)
def train_run(words: list[str]) -> int:
    """Train one run on the volume, or go on with it; return the command's exit code.

    Args:
        words: Of the command line of train_mop.py.
    """
    import train_mop

    with _on_volume():
        return train_mop.main([*words, "--resume"])


@app.function(**WORK)
def evaluate_checkpoint(path: str, words: list[str]) -> int:
    """Evaluate one checkpoint of the volume into a file of its own; return the command's exit code.

    Args:
        path: Of the checkpoint, from the volume's root.
        words: Of the command line of batch_eval.py.
    """
    import batch_eval
    from pipeline.places import find_checkpoints

    with _on_volume():
        (found,) = [place for place in find_checkpoints(Path("checkpoints")) if place.path == Path(path)]
        only = ["--task", found.task_id, "--trial", str(found.trial)]
        only += [] if found.seed is None else ["--seed", str(found.seed)]
        only += ["--final-only"] if found.update is None else ["--update", str(found.update)]
        rows = Path("rows", *Path(path).parts[1:]).with_suffix(".csv")
        return batch_eval.main([*words, *only, "--results_path", str(rows)])


@app.function(**WORK)
def list_checkpoints(final_only: bool) -> list[str]:
    """Return the checkpoints of the volume, from its root."""
    from pipeline.places import find_checkpoints

    with _on_volume():
        found = find_checkpoints(Path("checkpoints")) if Path("checkpoints").is_dir() else []
        return [place.path.as_posix() for place in found if place.update is None or not final_only]


@app.function(**WORK)
def read_rows() -> list[tuple[str, bytes]]:
    """Return name and content of the files of rows on the volume."""
    with _on_volume():
        return [(path.as_posix(), path.read_bytes()) for path in sorted(Path("rows").rglob("*.csv"))]


class _on_volume:
    """Within the block the volume is the current folder, as others have left it; what is written there stays."""

    def __enter__(self) -> None:
        self._before = os.getcwd()
        if not modal.is_local():
            volume.reload()
        os.chdir(os.environ.get("RLMOP_VOLUME", RESULTS))

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
        if not modal.is_local():
            volume.commit()


# ------------------------------------------------------------------------------------------------------ what one calls


def list_runs(tasks: str, trials: str, seeds: str, config: str, flags: str) -> list[list[str]]:
    """Return the command line of each run, seed by seed.

    Args:
        tasks: Names with commas between.
        trials: 1 or 1-3 or 1,4.
        seeds: Likewise.
        config: Of the project's YAML files, e.g. configs/gotoobj.yaml.
        flags: Of train_mop.py, for all runs.
    """
    from pipeline.training.options import parse_seeds

    names = [name.strip() for name in tasks.split(",") if name.strip()] or [None]
    found = []
    for seed, task, trial in itertools.product(parse_seeds(seeds), names, parse_seeds(trials)):
        words = ["--config", f"{PROJECT}/{config}", "--trial", str(trial), "--seed", str(seed)]
        found.append([*words, *([] if task is None else ["--task_id", task]), *shlex.split(flags)])
    return found


@app.local_entrypoint()
def main(
    do: str = "train",
    tasks: str = "",
    trials: str = "1",
    seeds: str = "0",
    config: str = "config.yaml",
    flags: str = "",
    every_checkpoint: bool = False,
    output: str = "evaluation_results.csv",
) -> None:
    """Train, evaluate, or bring the results here; what is done is left as it is.

    Args:
        do: train: tasks x trials x seeds, each run in a container of its own. evaluate: the volume's final checkpoints.
            results: the rows of all evaluations into one file here.
        tasks: See `list_runs`.
        trials: Likewise.
        seeds: Likewise.
        config: Likewise.
        flags: Of train_mop.py or batch_eval.py.
        every_checkpoint: Evaluate those on the way too.
        output: Of results, the file.
    """
    if do == "train":
        runs = list_runs(tasks, trials, seeds, config, flags)
        _tell(runs, train_run.map(runs, return_exceptions=True))
    elif do == "evaluate":
        paths = list_checkpoints.remote(not every_checkpoint)
        calls = [(path, shlex.split(flags)) for path in paths]
        _tell(paths, evaluate_checkpoint.starmap(calls, return_exceptions=True))
    elif do == "results":
        print(f"{output}: {merge_rows(read_rows.remote(), Path(output))} rows")
    else:
        print(f"error: --do: expected train, evaluate or results, found {do!r}", file=sys.stderr)
        raise SystemExit(2)


def merge_rows(files: list[tuple[str, bytes]], path: Path) -> int:
    """Add the rows of several files to one, and return how many there were.

    Args:
        files: Name and content of each.
        path: Where they go, each in the place of an earlier row of the same checkpoint and level.
    """
    import tempfile

    from pipeline.records.merging import merge_results

    with tempfile.TemporaryDirectory() as folder:
        places = []
        for number, (_, content) in enumerate(files):
            places.append(Path(folder) / f"{number}.csv")
            places[-1].write_bytes(content)
        return merge_results(places, path)


def _tell(names: list[Any], codes: Any) -> None:
    """Print what became of each call.

    Raises:
        SystemExit: With 1 if one has failed.
    """
    failed = 0
    for name, code in zip(names, codes, strict=True):
        if code != 0:
            failed += 1
            text = name if isinstance(name, str) else shlex.join(name)
            print(
                f"failed: {text}: {code if isinstance(code, BaseException) else f'exit code {code}'}", file=sys.stderr
            )
    print(f"{len(names) - failed} of {len(names)} done")
    if failed:
        raise SystemExit(1)
