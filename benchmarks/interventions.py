"""A grid of interventions x runs x levels in one batch, beside the same played one by one; results must be the same.

    python -m benchmarks.interventions
    python -m benchmarks.interventions --task UnlockPickup --checkpoint a/checkpoint_final.pt b/checkpoint_final.pt
    python -m benchmarks.interventions --levels 40 --conditions 60 --json interventions.json

Three ways to ask: closed loop (every policy plays on, with its own actions, to the end of the level), replay lasting
(the bot's trajectories; an intervention acts throughout an episode) and replay one step (it acts at one step, from
the state that the intact policy had kept). "One by one" is each run and condition by itself with --num_envs
environments or rows, as one would without the grid: the intact replay once for each run.

The last column scales CPU seconds to 60 conditions x 10 runs x 200 levels, on one core. What is measured is the grid
asked for here: how long episodes are depends on the policies, and a lesioned policy mostly runs into its step limit.
Untrained policies stand in where no checkpoint is given; all their episodes do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babyai.level_seeds import evaluation_seeds
from babyai.levels import resolve_task_id
from babyai.missions import build_mission_encoder
from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.evaluation.checkpoint import load_checkpoint
from pipeline.evaluation.grid import evaluate_grid
from pipeline.evaluation.play import Agent, PlaySettings
from pipeline.interventions.catalogue import list_knockouts
from pipeline.interventions.donors import Donors
from pipeline.interventions.spec import Intervention, parse_interventions
from pipeline.policies import build_policy, build_projection
from pipeline.replay.run import find_donors, intervene, replay
from pipeline.replay.trajectories import Trajectories, follow_expert

CLOSED = "closed loop"

WHOLE = 60 * 10 * 200
"""Conditions x runs x levels of the grid that a study plays."""


@dataclass(frozen=True)
class GridTime:
    """One way to ask, together and one by one.

    Attributes:
        way: closed loop, replay lasting or replay one step.
        conditions: Interventions, the sham among them.
        runs: Policies.
        levels: Levels of each.
        steps: Time steps computed, over all.
        seconds: Of the grid, by the clock.
        cpu_seconds: That it had a core.
        alone_seconds: One by one, by the clock.
        alone_cpu_seconds: That it had a core.
        ratio: Of the CPU seconds.
        whole_cpu_minutes: `cpu_seconds` scaled to 60 conditions x 10 runs x 200 levels.
    """

    way: str
    conditions: int
    runs: int
    levels: int
    steps: int
    seconds: float
    cpu_seconds: float
    alone_seconds: float
    alone_cpu_seconds: float
    ratio: float
    whole_cpu_minutes: float


def list_conditions(sizes: Sequence[Sequence[int]], number: int) -> list[Intervention]:
    """Return the first so many of what a study asks: the sham, knock-outs and their controls, thresholds, dials."""
    items = [Intervention()]
    for what in ("zero", "random_direction", "mean", "resample"):
        items += list_knockouts(sizes, what=what)
    items += list_knockouts(sizes, renormalise=True)
    for what in ("threshold", "random_drop"):
        items += [Intervention(what=what, amount=tau) for tau in (0.02, 0.05, 0.1, 0.2, 0.3)]
    items += [Intervention(what="dial", amount=price) for price in (1e-4, 1e-3)]
    items += [Intervention(state="zero"), Intervention(what="clamp", to="subgoal"), Intervention(what="skip")]
    if number > len(items):
        raise ConfigError(f"--conditions: expected at most {len(items)} with these experts, found {number}")
    return parse_interventions(items[:number])


def load_agents(args: argparse.Namespace, task_id: str) -> list[Agent]:
    """Return what plays a task: trained policies where checkpoints are given, else untrained ones of several seeds."""
    device = resolve_device(args.device)
    if args.checkpoint:
        return [load_checkpoint(path, device=device).agent(task_id) for path in args.checkpoint]
    encoder = build_mission_encoder("builtin", device=device, announce=lambda line: None)
    configs = [TrainConfig(seed=seed) for seed in range(args.runs)]
    return [(build_policy(c).to(device), encoder, build_projection(c, encoder.width).to(device)) for c in configs]


Found = dict[str, np.ndarray]
"""What was found, arrays (runs, conditions, ...)."""

Ask = Callable[[Sequence[Intervention]], Found]
Prepare = Callable[[Sequence[int], int], Ask]
"""Takes runs and rows, does what is done once for all conditions of them, and returns what asks some conditions."""
"""Asks runs of these numbers under these interventions, with so many rows each."""


def check_same(way: str, grid: Found, alone: Sequence[Sequence[Found]]) -> None:
    """Raise RuntimeError unless single runs and conditions gave what the grid gave."""
    for name, values in grid.items():
        joined = np.stack([np.stack([one[name][0, 0] for one in run]) for run in alone])
        tolerance = 1e-5 if values.dtype.kind == "f" else 0.0  # last bits depend on how many rows are computed together
        if not np.allclose(values, joined, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise RuntimeError(f"{way}: {name} differs where conditions are asked one by one")


def measure_way(
    way: str, args: argparse.Namespace, runs: int, items: Sequence[Intervention], prepare: Prepare
) -> GridTime:
    """Return the times of the grid, and of its runs and conditions one by one; what is intact once for each run.

    Args:
        way: Its name.
        args: The flags.
        runs: Number of policies.
        items: The conditions.
        prepare: See `Prepare`.
    """

    def ask_alone(run: int) -> list[Found]:
        ask = prepare([run], args.num_envs)
        return [ask([item]) for item in items]

    prepare([0], args.num_envs)(items[:1])  # compiles
    grid, seconds, cpu = time_call(lambda: prepare(range(runs), args.rows)(items))
    alone, *alone_times = time_call(lambda: [ask_alone(run) for run in range(runs)])
    check_same(way, grid, alone)
    levels = grid.pop("levels").shape[-1]
    steps = int(grid["steps"].sum()) if way == CLOSED else grid["ce"].size
    whole = cpu / 60 * WHOLE / (len(items) * runs * levels)
    return GridTime(way, len(items), runs, levels, steps, seconds, cpu, *alone_times, alone_times[1] / cpu, whole)


def ask_in_closed_loop(
    args: argparse.Namespace, agents: Sequence[Agent], task_id: str, seeds: list[int], donors: Donors
) -> Prepare:
    """Return what lets policies play on by themselves; of that nothing is done once."""

    def ask(runs: Sequence[int], rows: int, items: Sequence[Intervention]) -> Found:
        settings = PlaySettings(num_envs=rows, max_steps=args.max_steps, record=False)
        mine = [agents[run] for run in runs]
        played = evaluate_grid(mine, items, task_id, seeds, settings, donors=donors.select(runs))
        found = {
            name: np.array([[getattr(one.episodes, name) for one in run] for run in played])
            for name in ("steps", "outcome", "agreed", "labelled", "mean_lpc")
        }
        ce = np.array([[one.ce for one in run] for run in played])
        return found | {"ce": ce, "levels": found["outcome"]}

    return lambda runs, rows: partial(ask, runs, rows)


def ask_on_replay(agents: Sequence[Agent], way: Trajectories, donors: Donors, *, one_step: bool) -> Prepare:
    """Return what shows policies the bot's trajectories, intact once, then changed."""

    def prepare(runs: Sequence[int], rows: int) -> Ask:
        intact = replay([agents[run] for run in runs], way, bank=one_step, rows=rows)

        def ask(items: Sequence[Intervention]) -> Found:
            effects = intervene(intact, items, one_step=one_step, donors=donors.select(runs))
            found = {name: getattr(effects, name).numpy() for name in ("ce", "kl", "agree", "lpc")}
            return found | {"levels": np.broadcast_to(way.level_seeds, (len(runs), len(items), len(way.level_seeds)))}

        return ask

    return prepare


TIME_COLUMNS = (
    ("way", "way"),
    ("conditions", "conditions"),
    ("runs", "runs"),
    ("levels", "levels"),
    ("steps", "steps"),
    ("grid, s", "seconds:.1f"),
    ("CPU s", "cpu_seconds:.1f"),
    ("one by one, s", "alone_seconds:.1f"),
    ("CPU s", "alone_cpu_seconds:.1f"),
    ("ratio of CPU s", "ratio:.1f"),
    ("60 x 10 x 200, CPU min", "whole_cpu_minutes:.1f"),
)


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    count = parse_positive(int)
    parser.add_argument("--task", default="UnlockPickup", help="default: UnlockPickup")
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[], help="trained runs of one architecture")
    parser.add_argument("--runs", type=count, default=2, help="untrained policies, without --checkpoint; default: 2")
    parser.add_argument("--levels", type=count, default=8, help="default: 8")
    parser.add_argument("--conditions", type=count, default=12, help="default: 12")
    parser.add_argument("--max_steps", type=count, help="step limit of the closed loop; default: each level's own")
    parser.add_argument("--num_envs", type=count, default=16, help="environments one by one; default: 16")
    parser.add_argument("--rows", type=count, default=256, help="rows of each run in the grid; default: 256")
    parser.add_argument("--threads", type=count, default=1, help="of torch; default: 1")
    parser.add_argument("--device", default="cpu", help="default: cpu")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print."""
    torch.set_num_threads(args.threads)
    print(format_machine_facts(machine, [args.threads]), end="\n\n")
    task_id = resolve_task_id(args.task)
    agents = load_agents(args, task_id)
    items = list_conditions(getattr(agents[0][0], "layer_expert_sizes", []), args.conditions)
    seeds = evaluation_seeds(0, args.levels + 16)
    way = follow_expert(task_id, seeds[: args.levels])
    donors = find_donors(agents, follow_expert(task_id, seeds[args.levels :]))
    closed = ask_in_closed_loop(args, agents, task_id, way.level_seeds.tolist(), donors)
    results = [
        measure_way(CLOSED, args, len(agents), items, closed),
        measure_way("replay lasting", args, len(agents), items, ask_on_replay(agents, way, donors, one_step=False)),
        measure_way("replay one step", args, len(agents), items, ask_on_replay(agents, way, donors, one_step=True)),
    ]
    print(f"{task_id}, {'trained' if args.checkpoint else 'untrained'} policies\n")
    print(format_records(TIME_COLUMNS, results))
    return {"times": results}


if __name__ == "__main__":
    sys.exit(main())
