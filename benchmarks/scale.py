"""What 100, 1,000 and 10,000 evaluated runs cost whoever finds, reads, merges, lists or draws them.

    python -m benchmarks.scale
    python -m benchmarks.scale --counts 100 1000 --json scale.json

The runs are synthetic: the prices, tasks and seeds of a sweep, each with a log, a checkpoint of no weights, an empty
cache and a row of results. Seconds are the processor's, and told as they are known; what stands in brackets makes the
files. Linear growth is ten times as much from one column to the next.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import as_benchmark, format_machine_facts, format_table, parse_positive, time_call
from pipeline.command.cli import Parser
from pipeline.config import TrainConfig
from pipeline.guard import CONFIG_FILE
from pipeline.inspection import listing
from pipeline.places import cache_path, checkpoint_path, find_caches, find_checkpoints, run_folder
from pipeline.records.adding import append_results, note_result, settled
from pipeline.records.merging import merge_results
from pipeline.records.results import read_results, read_rows
from pipeline.tracking import METRICS_FILE
from plotting import command as plotting_command

TASKS = ("GoToObj", "GoToLocal", "PickupLoc", "OpenDoor", "GoToRedBall", "PutNextLocal", "Unlock", "GoToSeq")
PRICES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
DIFFERING = ("task_id", "trial", "seed", "lpc_alpha", "device")
"""Settings of `TrainConfig` in which a run differs from the default."""
VIEWS = ("success_lpc", "alpha", "tasks", "learning")
ASKED = 100
"""Checkpoints whose rows are looked up, one after the other."""


def list_configs(count: int) -> list[TrainConfig]:
    """Return so many runs: seed by seed, each task at each price, which has a trial of its own."""
    cases = itertools.product(range(count), TASKS, enumerate(PRICES, start=1))
    return [
        TrainConfig(task_id=f"BabyAI-{task}-v0", seed=seed, trial=trial, lpc_alpha=price, device="cpu")
        for seed, task, (trial, price) in itertools.islice(cases, count)
    ]


def describe_row(number: int, config: TrainConfig) -> dict[str, Any]:
    """Return a row of results."""
    rate = 0.5 + 0.4 * (number % 7) / 7
    return {
        **{"checkpoint_path": checkpoint_path(run_folder("checkpoints", config), None).as_posix()},
        **{"task_id": config.task_id, "trial": config.trial, "seed": config.seed, "update": config.num_updates},
        **{"num_episodes": 100, "success_rate": rate, "path_ratio": 1.25, "mean_lpc": 1000.0 + number % 11},
        **{"successes": round(100 * rate), "success_low": rate - 0.1, "success_high": rate + 0.1, "eval_seed": 0},
        **{"expert_hidden_sizes": [[0, 16, 32]] * 3, "evaluated_at": "2026-01-01T00:00:00+00:00", "policy": "moe"},
        **{"lpc_alpha": config.lpc_alpha, "checkpoint_digest": f"{number:064x}", "num_updates": config.num_updates},
        **{"lr": config.lr, "unroll_len": config.unroll_len, "has_routing": True},
    }


@cache
def _shared_files() -> tuple[str, str, bytes]:
    """Return what the files of all runs have alike: most settings, the log, the checkpoint."""
    alike = {name: value for name, value in TrainConfig().to_dict().items() if name not in DIFFERING}
    lines = [
        {"update": update, "env_steps": 1000 * update, "rollout/success_rate": 0.5, "rollout/window_episodes": 1000}
        for update in (10, TrainConfig().num_updates)
    ]
    checkpoint = io.BytesIO()
    with zipfile.ZipFile(checkpoint, "w") as file:
        file.writestr("nothing", "")
    return yaml.safe_dump(alike), "".join(json.dumps(line) + "\n" for line in lines), checkpoint.getvalue()


def write_run(config: TrainConfig) -> None:
    """Write what a run leaves: its settings, two lines of a log, a checkpoint of no weights, an empty cache."""
    alike, log, checkpoint = _shared_files()
    logs = run_folder("runs", config)
    logs.mkdir(parents=True)
    own = yaml.safe_dump({name: getattr(config, name) for name in DIFFERING})
    (logs / CONFIG_FILE).write_text(alike + own, encoding="utf-8")
    (logs / METRICS_FILE).write_text(log, encoding="utf-8")
    path = checkpoint_path(run_folder("checkpoints", config), None)
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint)
    cache = cache_path("evaluation_cache", config.task_id, config.trial, config.seed)
    cache.parent.mkdir(parents=True)
    cache.touch()


def note_all(rows: list[dict[str, Any]]) -> None:
    """Look up and add rows in turn, as an evaluation does."""
    path = Path("evaluation_results.csv")
    with settled(path):
        for row in rows:
            if path.exists():
                read_rows(path, row["checkpoint_path"])
            note_result(path, row)


def call_quietly(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Run a command.

    Raises:
        RuntimeError: If it fails; with what it has said.
    """
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    if code:
        raise RuntimeError(f"{' '.join(words)}: expected exit code 0, found {code}: {said.getvalue()[-1000:]}")


def write_parts(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Write each row into a file of results of its own; return the files."""
    folder.mkdir()
    append_results(folder / "0.csv", rows[:1])
    text = (folder / "0.csv").read_text(encoding="utf-8")
    parts = [folder / f"{number}.csv" for number in range(len(rows))]
    for part, row in zip(parts, rows, strict=True):
        part.write_text(text.replace(rows[0]["checkpoint_path"], row["checkpoint_path"]), encoding="utf-8")
    return parts


def measure(count: int) -> dict[str, float]:
    """Return the seconds of each thing with so many runs, made in the current folder; tell them one by one."""
    configs = list_configs(count)
    rows = [describe_row(number, config) for number, config in enumerate(configs)]
    found: dict[str, float] = {}

    def add(what: str, work: Callable[[], Any], expected: int | None = None) -> Any:
        result, _, found[what] = time_call(work)
        if expected is not None and result != expected:
            raise RuntimeError(f"{what}: expected {expected}, found {result}")
        print(f"{count:,} runs: {what}: {found[what]:.2f} s", file=sys.stderr, flush=True)
        return result

    add("(write their files)", lambda: list(map(write_run, configs)))
    add("find checkpoints", lambda: len(find_checkpoints(Path("checkpoints"))), count)
    add("find caches", lambda: len(list(find_caches(Path("evaluation_cache")))), count)
    add("look up and add each row", lambda: note_all(rows))
    add("read all rows", lambda: len(read_results("evaluation_results.csv")), count)
    asked = [row["checkpoint_path"] for row in rows[:: max(1, count // ASKED)]]
    add(
        f"look up {len(asked)} of them",
        lambda: sum(len(read_rows("evaluation_results.csv", path)) for path in asked),
        len(asked),
    )
    parts = add("(write a file for each)", lambda: write_parts(Path("parts"), rows))
    add("merge as many files", lambda: merge_results(parts, Path("merged.csv")), count)
    add("rlmop ls", lambda: call_quietly(listing.main, []))
    for view in VIEWS:
        words = ["--results", "evaluation_results.csv", "--view", view, "--output_dir", f"plots_{view}"]
        add(f"figure {view}", partial(call_quietly, plotting_command.main, words))
    return found


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    counts = [100, 1000, 10_000]
    parser.add_argument("--counts", nargs="+", type=parse_positive(int), default=counts, help="of runs")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    costs = {}
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            costs[count] = measure(count)
    print("Evaluated runs; seconds of the processor, the files' system included")
    print(format_machine_facts(machine, [1]) + "\n")
    names = dict.fromkeys(name for found in costs.values() for name in found)
    lines = [[name, *(f"{found[name]:.2f}" if name in found else "" for found in costs.values())] for name in names]
    print(format_table(["", *(f"{count:,}" for count in costs)], lines))
    return {"counts": args.counts, "seconds": [costs[count] for count in args.counts]}


if __name__ == "__main__":
    sys.exit(main())
