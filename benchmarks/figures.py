"""Seconds to read a cache of 100,000 steps, aggregate it and draw it: what one waits for in a notebook.

    python -m benchmarks.figures --cache evaluation_cache/BabyAI-GoToObjMazeS4R2-v0/trial_1/seed_0/routing_data.json

The episodes of the given cache are repeated until there are as many steps as asked for; the result is written to a
temporary folder, read back, and drawn without a display. "Open" is a new process that runs all of `routing_viz.py`, as
one sees it on opening: imports, the cache, the picture of a level, the first figure as PNG.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, as_benchmark, format_machine_facts, format_table, parse_positive, time_call
from pipeline.command.cli import Parser
from pipeline.places import stored_cache
from pipeline.records.cache import Cache, cache_path, read_cache, write_cache
from pipeline.records.tables import EpisodeTable, RoutingTable
from plotting.aggregate import aggregate_routing_by_position, get_available_analyses, group_routing_data
from plotting.data import as_routing_data
from plotting.examples import find_examples
from plotting.heatmaps import plot_grouped_routing, plot_overall_routing

_ADDED = {"schema_version", "num_steps", "num_actions", "unknown_columns", "num_episodes", "metrics"}


def repeat_episodes(cache: Cache, steps: int) -> tuple[RoutingTable, EpisodeTable]:
    """Return the tables of a cache, repeated until they hold at least `steps` steps."""
    times = -(-steps // len(cache.routing))
    episodes = EpisodeTable.concatenate([cache.episodes] * times)
    routing = RoutingTable.concatenate([cache.routing] * times, num_episodes=[len(cache.episodes)] * times)
    return routing, episodes


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median wall-clock and CPU seconds of some calls, those of the processes that they start included."""
    times = [time_call(work)[1:] for _ in range(repeats)]
    wall, cpu = map(statistics.median, zip(*times, strict=True))
    return wall, cpu


_OPEN = "import os, runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__'); os._exit(0)"
"""Program that ends with the notebook's last cell: tidying up at exit takes half a second more."""


def open_notebook(cache_dir: Path) -> None:
    """Run `routing_viz.py` to its first figure in a new process."""
    flags = ["--cache_dir", str(cache_dir), "--checkpoint_dir", str(cache_dir / "none")]
    command = [sys.executable, "-c", _OPEN, "routing_viz.py", "--", *flags]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def regroup(cache: Cache, name: str) -> None:
    """Do what changing the grouping does: groups, a picture of an example level of each, the figure as PNG."""
    from film.scenes import render_examples

    data = as_routing_data(cache)
    group_routing_data(data, name)
    examples = find_examples(data, name)
    pictures, _ = render_examples(cache, examples)
    missions = {example.key: example.mission for example in examples if example.key in pictures}
    plot_grouped_routing(data, name, pictures, missions).savefig(io.BytesIO(), dpi=100)


def run(cache: Cache, steps: int, repeats: int) -> list[dict[str, float | str]]:
    """Return a row for each thing measured: `what`, `seconds`, `cpu_seconds`."""
    routing, episodes = repeat_episodes(cache, steps)
    header = {key: value for key, value in cache.header.items() if key not in _ADDED and not key.endswith("_names")}
    header["expert_hidden_sizes"] = routing.expert_hidden_sizes
    header.setdefault("task_id", "BabyAI-GoToObj-v0")
    rows: list[dict[str, float | str]] = []

    def add(what: str, work: Callable[[], object]) -> None:
        seconds, cpu = measure(work, repeats)
        rows.append({"what": what, "seconds": seconds, "cpu_seconds": cpu})

    with tempfile.TemporaryDirectory() as folder:
        path = cache_path(folder, header["task_id"], 1)
        write = partial(write_cache, path, header=header, metrics={}, episodes=episodes, routing=routing)
        for form, compact in (("compact cache", True), ("cache", False)):
            add(f"write the {form}", lambda compact=compact: write(compact=compact))
            megabytes = stored_cache(path).stat().st_size / 1e6
            add(f"read the {form}, {megabytes:.1f} MB", lambda: read_cache(path))
        read = read_cache(path)
        add("open routing_viz.py", lambda: open_notebook(Path(folder)))
        add("open routing_viz.py, no cache", lambda: open_notebook(Path(folder) / "none"))
    data = as_routing_data(read)
    groupings = [name for name in get_available_analyses(data) if name != "overall"]
    add("aggregate by position", lambda: aggregate_routing_by_position(as_routing_data(read)))
    add("which analyses there are", lambda: get_available_analyses(as_routing_data(read)))
    for name in groupings:
        add(f"group by {name}", lambda name=name: group_routing_data(as_routing_data(read), name))
    add("overall figure, as PNG", lambda: plot_overall_routing(data).savefig(io.BytesIO(), dpi=100))
    for name in groupings:
        add(f"change to {name}: group, pictures, PNG", lambda name=name: regroup(read, name))
    return rows


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole = parse_positive(int)
    parser.add_argument("--cache", required=True, help="a routing_data.json whose episodes are repeated")
    parser.add_argument("--steps", type=whole, default=100_000, help="steps (default: 100,000)")
    parser.add_argument("--repeats", type=whole, default=3, help="of each, the median counts (default: 3)")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    rows = run(read_cache(args.cache), args.steps, args.repeats)
    print(f"Reading and drawing {args.steps:,} steps, median of {args.repeats}")
    print(format_machine_facts(machine, [1]) + "\n")
    cells = [[str(row["what"]), f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}"] for row in rows]
    print(format_table(["what", "seconds", "CPU seconds"], cells))
    return {"steps": args.steps, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
