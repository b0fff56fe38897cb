"""How long the analyses of `science/` take on traces of a study's size: seconds by the clock, and of a core.

    python -m benchmarks.analyses --seeds 10 --prices 5 --levels 200

Routers, policies and effects are planted, episodes have 10 to 50 steps, three layers three experts. The calibration
card is timed for one data set of each claim, with and without effect, of one price.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from pipeline.command.cli import Parser
from science import calibration, complexity, distinctness, knockouts, pathways, price, sufficiency
from science.planted_effects import plant_knockouts, plant_thresholds
from science.synthetic import Design, draw_template, plant_noisy_policy, plant_signal

ALPHAS = (0.0, *(10.0 ** (k / 2 - 6) for k in range(19)))


@dataclass(frozen=True)
class AnalysisTime:
    """What one analysis took.

    Attributes:
        analysis: Its name.
        seconds: By the clock.
        core_seconds: That it had a core.
        rows: Of its result.
    """

    analysis: str
    seconds: float
    core_seconds: float
    rows: int


def measure_analyses(seeds: int, prices: int, levels: int) -> list[AnalysisTime]:
    """Return the time of each analysis, at its own number of draws."""
    rng = np.random.default_rng(0)
    design = Design(runs=seeds, episodes=levels, shortest=10, longest=50, side=16)
    template = draw_template(design, rng, alphas=ALPHAS[:prices])
    traces = plant_noisy_policy(plant_signal(template, rng, shared=0.03, own=0.03, drift=0.03, level=0.03), rng)
    runs, groups = len(traces.runs), len(traces.group("subgoal").names)
    lesions = plant_knockouts(traces, rng, np.zeros((runs, 9)), noise=0.1, by_group=np.zeros((runs, 9, groups)))
    thresholds = plant_thresholds(traces, rng, [0.9] * 7, [0.8] * 7, [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    work: dict[str, Callable[[], Any]] = {
        "pathways, by subgoal": lambda: pathways.compute(traces),
        "pathways, by cell": lambda: pathways.compute(traces, by="cell"),
        "sufficiency": lambda: sufficiency.compute(thresholds),
        "distinctness": lambda: distinctness.compute(traces, effects=lesions),
        "knockouts": lambda: knockouts.compute(lesions, traces),
        "price": lambda: price.compute(traces, effects=lesions),
        "complexity": lambda: complexity.compute(traces),
        "calibration, a data set each": lambda: calibration.compute(design, datasets=1),
    }
    found = []
    for name, compute in work.items():
        result, seconds, core_seconds = time_call(compute)
        found.append(AnalysisTime(name, seconds, core_seconds, len(result.rows)))
    return found


def add_flags(parser: Parser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--seeds", type=parse_positive(int), default=10, help="runs at each price")
    parser.add_argument("--prices", type=parse_positive(int), default=5, help=f"at most {len(ALPHAS)}")
    parser.add_argument("--levels", type=parse_positive(int), default=200, help="episodes of each run")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure, print and return the times."""
    times = measure_analyses(args.seeds, args.prices, args.levels)
    columns = [("analysis", "analysis"), ("seconds", "seconds:.1f"), ("core seconds", "core_seconds:.1f")]
    columns += [("rows", "rows")]
    print(f"\n{args.seeds} seeds x {args.prices} prices x {args.levels} levels\n\n{format_records(columns, times)}")
    print(f"\n{format_machine_facts(machine, [1])}")
    return {"times": times}


if __name__ == "__main__":
    sys.exit(main())
