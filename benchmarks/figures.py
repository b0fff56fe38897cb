"""Seconds to read a cache of 100,000 steps, aggregate it and draw it: what one waits for in a notebook.

    python -m benchmarks.figures --cache evaluation_cache/BabyAI-GoToObjMazeS4R2-v0/trial_1/seed_0/routing_data.json

The episodes of the given cache are repeated until there are as many steps as asked for; the copy is written to a
temporary folder, read back, and drawn without a display.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import collect_machine_facts, format_machine_facts, format_table, parse_positive, write_results
from pipeline.cache import Cache, read_cache, write_cache
from pipeline.records import EpisodeTable, RoutingTable
from plotting.aggregate import aggregate_routing_by_position, get_available_analyses, group_routing_data
from plotting.data import as_routing_data
from plotting.heatmaps import plot_grouped_routing, plot_overall_routing

_ADDED = {"schema_version", "num_steps", "num_actions", "unknown_columns", "num_episodes", "metrics"}


def repeat_episodes(cache: Cache, steps: int) -> tuple[RoutingTable, EpisodeTable]:
    """Return the tables of a cache, repeated until they hold at least `steps` steps."""
    times = -(-steps // len(cache.routing))
    episodes = EpisodeTable.concatenate([cache.episodes] * times)
    routing = RoutingTable.concatenate([cache.routing] * times, num_episodes=[len(cache.episodes)] * times)
    return routing, episodes


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median wall-clock and CPU seconds of some calls."""
    wall, cpu = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return statistics.median(wall), statistics.median(cpu)


def run(cache: Cache, steps: int, repeats: int) -> list[dict[str, float | str]]:
    """Return a row for each thing measured: `what`, `seconds`, `cpu_seconds`."""
    routing, episodes = repeat_episodes(cache, steps)
    header = {key: value for key, value in cache.header.items() if key not in _ADDED and not key.endswith("_names")}
    header["expert_hidden_sizes"] = routing.expert_hidden_sizes
    rows: list[dict[str, float | str]] = []

    def add(what: str, work: Callable[[], object]) -> None:
        seconds, cpu = measure(work, repeats)
        rows.append({"what": what, "seconds": seconds, "cpu_seconds": cpu})

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "routing_data.json"
        add("write the cache", lambda: write_cache(path, header=header, metrics={}, episodes=episodes, routing=routing))
        add("read the cache", lambda: read_cache(path))
        read = read_cache(path)
    data = as_routing_data(read)
    groupings = [name for name in get_available_analyses(data) if name != "overall"]
    add("aggregate by position", lambda: aggregate_routing_by_position(as_routing_data(read)))
    add("which analyses there are", lambda: get_available_analyses(as_routing_data(read)))
    for name in groupings:
        add(f"group by {name}", lambda name=name: group_routing_data(as_routing_data(read), name))
    add("overall figure, as PNG", lambda: plot_overall_routing(data).savefig(io.BytesIO(), dpi=100))
    for name in groupings[:1]:
        figure = lambda name=name: plot_grouped_routing(data, name).savefig(io.BytesIO(), dpi=100)  # noqa: E731
        add(f"figure by {name}, as PNG", figure)
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True, help="a routing_data.json whose episodes are repeated")
    parser.add_argument("--steps", type=parse_positive(int), default=100_000, help="steps (default: 100,000)")
    parser.add_argument(
        "--repeats", type=parse_positive(int), default=3, help="of each, the median counts (default: 3)"
    )
    parser.add_argument("--json", default=None, help="file for the results")
    args = parser.parse_args()
    facts = collect_machine_facts()
    rows = run(read_cache(args.cache), args.steps, args.repeats)
    print(f"Reading and drawing {args.steps:,} steps, median of {args.repeats}")
    print(format_machine_facts(facts, [1]))
    print()
    print(
        format_table(
            ["what", "seconds", "CPU seconds"],
            [[str(row["what"]), f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}"] for row in rows],
        )
    )
    if args.json is not None:
        write_results(args.json, {"machine": facts, "steps": args.steps, "rows": rows})


if __name__ == "__main__":
    main()
