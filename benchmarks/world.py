"""The compiled BabyAI world beside minigrid: steps with the expert's label, levels, and what compiling costs.

    python -m benchmarks.world
    python -m benchmarks.world --tasks GoToObj --num_envs 16 1024 --skip_compilation
    python -m benchmarks.world --tasks BossLevel --num_envs 1024 --threads 2 --skip_compilation

Steps per second, resets included: minigrid's environment and its bot on one core, and `VectorEnv`, which labels every
observation too, on one or more. Levels: minigrid's generator and the compiled one. Compilation: a first step with an
empty cache of compiled code, and one with a full cache.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from babyai.compiled import layout
from babyai.compiled.catalogue import LevelProgram, level_program
from babyai.compiled.draft import allocate_scratch
from babyai.compiled.generate import generate
from babyai.levels import build_env, resolve_task_id
from benchmarks.common import (
    ROOT,
    as_benchmark,
    format_machine_facts,
    format_records,
    format_table,
    measure_rate,
    parse_positive,
)
from benchmarks.yardstick import compare_environments
from pipeline.command.cli import Parser


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
        options = {"follow": follow, "threads": args.threads}
        rates = compare_environments(task_id, num_envs, seconds, args.rounds, args.seed, **options)
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
    env, seeds, again = build_env(task_id), itertools.count(args.seed), itertools.count(args.seed)
    env.unwrapped.gen_obs = dict  # a level alone, on both sides: not what is seen of it
    slow = measure_rate(lambda: env.reset(seed=next(seeds)), args.seconds / 2)
    quick = measure_rate(lambda: generate(world, 0, next(again), program.params, scratch, 0), args.seconds / 2)
    return LevelTimes(task_id, 1e6 / slow, 1e6 / quick)


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


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    tasks = ["GoToObj", "UnlockPickup", "GoTo", "BossLevel"]
    parser.add_argument("--tasks", nargs="+", default=tasks, help=f"BabyAI tasks (default: {' '.join(tasks)})")
    whole = parse_positive(int)
    parser.add_argument("--num_envs", type=whole, nargs="+", default=[16, 256], help="environments (default: 16 256)")
    parser.add_argument(
        "--threads", type=whole, default=1, help="of `VectorEnv`, 256 environments at least to each (default: 1)"
    )
    parser.add_argument("--seconds", type=parse_positive(float), default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--rounds", type=whole, default=3, help="rounds it is split into; medians (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of levels and actions (default: 0)")
    parser.add_argument(
        "--skip_compilation", action="store_true", help="leave out what compiling costs (half a minute)"
    )


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    tasks = [resolve_task_id(name) for name in args.tasks]
    print(f"The BabyAI world with its expert\n{format_machine_facts(machine, [args.threads])}\n", flush=True)
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
    columns = [("task", "task_id"), ("", lambda _: "one level"), ("minigrid", "minigrid:.0f")]
    columns += [("compiled", "compiled:.1f"), ("ratio", lambda level: f"{level.minigrid / level.compiled:.0f}")]
    print("\nMicroseconds for a level\n\n" + format_records(columns, levels))
    compilation = [] if args.skip_compilation else measure_compilation()
    for what, (importing, step) in zip(("empty", "full"), compilation, strict=False):
        print(f"\nfirst step with an {what} cache of compiled code: {step:.1f} s, after {importing:.1f} s of imports")
    return {"worlds": worlds, "levels": levels, "compilation_seconds": compilation}


if __name__ == "__main__":
    sys.exit(main())
