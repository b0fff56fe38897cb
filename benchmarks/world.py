"""The compiled BabyAI world beside minigrid: steps with the expert's label, levels, and what compiling costs.

    python -m benchmarks.world
    python -m benchmarks.world --tasks GoToObj --num_envs 16 1024 --skip_compilation

Steps per second on one core, resets included: minigrid's environment and its bot, and `VectorEnv`, which labels every
observation too. Levels: minigrid's generator and the compiled one. Compilation: a first step with an empty cache of
compiled code, and one with a full cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from babyai.compiled import layout
from babyai.compiled.catalogue import LevelProgram, level_program
from babyai.compiled.draft import allocate_scratch
from babyai.compiled.generate import generate
from babyai.levels import build_env, resolve_task_id
from benchmarks.common import (
    build_empty_parser,
    collect_machine_facts,
    collect_settings,
    format_machine_facts,
    format_table,
    parse_positive,
    write_results,
)
from benchmarks.yardstick import compare_environments
from pipeline.command.cli import Parser
from pipeline.command.shell import as_command

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class WorldRates:
    """Env-steps per second of one task with one kind of actions.

    Attributes:
        task_id: Full id.
        actions: "random" or "expert's".
        minigrid: Its environment and bot.
        ours: `VectorEnv`, by its number of environments.
    """

    task_id: str
    actions: str
    minigrid: float
    ours: dict[int, float]


@dataclass(frozen=True)
class LevelTimes:
    """Microseconds for one level of a task, of minigrid's generator and of the compiled one."""

    task_id: str
    minigrid: float
    compiled: float


def measure_world(task_id: str, follow: bool, args: argparse.Namespace) -> WorldRates:
    """Return the rates of a task; each number of environments is measured in turns with minigrid."""
    ours, minigrid = {}, []
    for num_envs in args.num_envs:
        seconds = args.seconds / args.rounds
        rates = compare_environments(task_id, num_envs, seconds, args.rounds, args.seed, follow=follow)
        ours[num_envs] = rates.ours
        minigrid.append(rates.minigrid)
    return WorldRates(task_id, "expert's" if follow else "random", float(np.median(minigrid)), ours)


def measure_levels(task_id: str, args: argparse.Namespace) -> LevelTimes | None:
    """Return what a level costs; None for a task whose generator is not compiled."""
    program = level_program(task_id)
    if not isinstance(program, LevelProgram):
        return None
    world, scratch = layout.allocate(program.geometry, 1), allocate_scratch(program.geometry, 1)
    generate(world, 0, args.seed, program.params, scratch, 0)
    env = build_env(task_id)
    slow = _time_levels(lambda seed: env.reset(seed=seed), args)
    quick = _time_levels(lambda seed: generate(world, 0, seed, program.params, scratch, 0), args)
    return LevelTimes(task_id, 1e6 * slow, 1e6 * quick)


def _time_levels(make: Callable[[int], object], args: argparse.Namespace) -> float:
    started, made = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds / 2:
        make(args.seed + made)
        made += 1
    return (time.perf_counter() - started) / made


FIRST_STEP = """
import time
started = time.perf_counter()
from babyai.level_seeds import SeedStreams
from babyai.vector_env import VectorEnv
imported = time.perf_counter()
env = VectorEnv("GoToObj", 2, SeedStreams(0, 2), plan_every=1)
env.step(env.reset().expert_action)
print(imported - started, time.perf_counter() - imported)
"""


def measure_compilation() -> list[tuple[float, float]]:
    """Return (seconds of import, seconds of a first step) with an empty cache, then with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_STEP]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        runs = [
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
    return [tuple(map(float, run.stdout.split())) for run in runs]


def build_parser() -> Parser:
    """Return the parser of this benchmark's flags."""
    parser = build_empty_parser("world", __doc__)
    tasks = ["GoToObj", "UnlockPickup", "GoTo", "BossLevel"]
    parser.add_argument("--tasks", nargs="+", default=tasks, help=f"BabyAI tasks (default: {' '.join(tasks)})")
    whole = parse_positive(int)
    parser.add_argument("--num_envs", type=whole, nargs="+", default=[16, 256], help="environments (default: 16 256)")
    parser.add_argument("--seconds", type=parse_positive(float), default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--rounds", type=whole, default=3, help="rounds it is split into; medians (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of levels and actions (default: 0)")
    parser.add_argument("--skip_compilation", action="store_true", help="leave out what compiling costs (a minute)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit code."""
    args = build_parser().parse_args(argv)
    tasks = [resolve_task_id(name) for name in args.tasks]
    machine = collect_machine_facts()
    print(f"The BabyAI world with its expert, one core\n{format_machine_facts(machine, [1])}\n", flush=True)
    worlds = [measure_world(task, follow, args) for task in tasks for follow in (False, True)]
    columns = ["task", "actions", "minigrid + BabyAIBot"]
    for num_envs in args.num_envs:
        columns += [f"VectorEnv({num_envs})", "ratio"]
    rows = []
    for world in worlds:
        numbers = [cell for rate in world.ours.values() for cell in (f"{rate:,.0f}", f"{rate / world.minigrid:.0f}")]
        rows.append([world.task_id, world.actions, f"{world.minigrid:,.0f}", *numbers])
    print(format_table(columns, rows))
    levels = [found for found in (measure_levels(task, args) for task in tasks) if found is not None]
    rows = [
        [
            level.task_id,
            "one level",
            f"{level.minigrid:.0f}",
            f"{level.compiled:.1f}",
            f"{level.minigrid / level.compiled:.0f}",
        ]
        for level in levels
    ]
    print("\nMicroseconds for a level\n\n" + format_table(["task", "", "minigrid", "compiled", "ratio"], rows))
    compilation = [] if args.skip_compilation else measure_compilation()
    for what, (importing, step) in zip(("empty", "full"), compilation, strict=False):
        print(f"\nfirst step with an {what} cache of compiled code: {step:.1f} s, after {importing:.1f} s of imports")
    if args.json is not None:
        results = {
            "benchmark": "world",
            "machine": machine,
            "settings": collect_settings(args),
            "worlds": [asdict(world) for world in worlds],
            "levels": [asdict(level) for level in levels],
            "compilation_seconds": compilation,
        }
        write_results(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
