"""Env-steps per second of training, and where the time goes.

    python -m benchmarks.training
    python -m benchmarks.training --tasks GoToObj --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt
    python -m benchmarks.training --tasks GoToObj --learn_updates 365
    python -m benchmarks.training --tasks --no_yardstick --num_envs 64 --unroll_len 16    # mixtures alone

Each task is measured twice, because the speed depends on how long episodes are: with an untrained policy (lr 1e-12
keeps the weights as drawn), whose episodes mostly run into their step limit, and with one that solves the task, whose
episodes are short, so that starting levels dominates. The second is a trained checkpoint where one is given; otherwise
the expert's actions are executed (expert_action_prob 1), so that episodes are as short as the expert's.

Everything that training does is included, starts of levels too: with the untrained policy a round is a whole number of
step limits, so that each environment starts as many levels in every round. Throughput and shares come from separate
passes, because the timers of the second slow it down.
"""  # noqa: E501 (a command stays on one line)

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from babyai.levels import build_env, resolve_task_id
from benchmarks.common import (
    as_benchmark,
    format_machine_facts,
    format_records,
    format_table,
    parse_positive,
    time_call,
)
from benchmarks.mixtures import LEVELS, MIXTURE_COLUMNS, measure_mixtures
from benchmarks.peak import measure_peak, share_of_peak
from benchmarks.timers import PARTS_OF_STEPS, TimeSplit
from benchmarks.yardstick import EnvironmentRates, compare_environments
from pipeline.checkpoints import CheckpointError, LoadedPolicy, load_policy
from pipeline.command.cli import Parser
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import SteppedEngine
from pipeline.mixtures import OF_MIXTURES
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch

FROZEN_LR = 1e-12  # Adam's steps then vanish in float32: the weights stay as they are, the work is the same

RL_MOP_RATES = {"BabyAI-GoToObj-v0": 730, "BabyAI-UnlockPickup-v0": 940, "BabyAI-GoTo-v0": 1310}
"""Env-steps per second of the existing rl-mop on a machine of the same kind (two cores), untrained, 16 x 32. Quoted."""
RL_MOP_FIRST_UPDATES = {"BabyAI-GoToObj-v0": (365, 210)}
"""Updates, and its mean rate over them while it learns from scratch. Quoted."""

UNTRAINED, EXPERT, TRAINED = "untrained", "expert's actions", "trained checkpoint"


@dataclass(frozen=True)
class Throughput:
    """One task with one policy.

    Attributes:
        task_id: Full id.
        policy: "untrained", "expert's actions" or "trained checkpoint".
        env_steps_per_second: Median over rounds.
        lowest: Of the slowest round.
        highest: Of the fastest round.
        env_steps_per_cpu_second: Per second that the process had a core; on a busy machine the steadier number.
        levels_per_1000_steps: How often a level starts.
        success_rate: Over the last episodes; None while none has ended.
        shares: Part of the update -> share of its time, step by step and with timers.
        slowdown_by_timers: Rate without timers, an unroll being one call where it can be / rate with them.
        share_of_peak: Of what `--threads` cores do in products of large matrices, measured just before; None on a GPU.
        rl_mop: Quoted rate, where there is one for this case.
    """

    task_id: str
    policy: str
    env_steps_per_second: float
    lowest: float
    highest: float
    env_steps_per_cpu_second: float
    levels_per_1000_steps: float
    success_rate: float | None
    shares: dict[str, float]
    slowdown_by_timers: float
    share_of_peak: float | None
    rl_mop: float | None


def build_config(args: argparse.Namespace, task_id: str, fields: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run: what the flags say, and `fields` where they say nothing."""
    flags = {name: getattr(args, name) for name in ("num_envs", "unroll_len", "seed", "plan_every", "device")}
    flags |= {**OF_MIXTURES, "task_id": task_id, "torch_threads": args.threads}
    return TrainConfig(**{"lang_encoder": "builtin", **fields, **flags})


def build_mixture_config(args: argparse.Namespace, fields: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run of one level or of several, which `fields` name."""
    single = build_config(args, LEVELS[0], {})
    return replace(single, **fields)


def build_batch(
    args: argparse.Namespace,
    task_id: str,
    policy: str,
    checkpoint: LoadedPolicy | None,
    engine: type | None = None,
) -> ReplicaBatch:
    """Return a batch at update 0 whose weights will not move.

    Args:
        args: Settings of the benchmark.
        task_id: Full id.
        policy: Which policy acts.
        checkpoint: The trained policy where that is the one.
        engine: None takes the usual one.

    Raises:
        CheckpointError: If the checkpoint's sentence encoder cannot be had.
    """
    fields = {} if checkpoint is None else checkpoint.config.to_dict()
    fields |= {"lr": FROZEN_LR, "expert_action_prob": float(policy == EXPERT), "expert_action_decay": 0}
    batch = ReplicaBatch([build_config(args, task_id, fields)], announce=lambda line: None, engine=engine)
    if checkpoint is not None:
        wanted = checkpoint.lang_encoder.get("fingerprint")
        if wanted not in (None, batch.encoder.fingerprint):
            raise CheckpointError(f"{task_id}: expected the sentence encoder that the checkpoint names, found another")
        batch.policies[0].load_state_dict(checkpoint.policy.state_dict())
        batch.projections[0].load_state_dict(checkpoint.projection.state_dict())
    return batch


def measure_task(
    args: argparse.Namespace, task_id: str, policy: str, checkpoint: LoadedPolicy | None = None
) -> Throughput:
    """Return the throughput of one task with one policy; see `build_batch` for the arguments."""
    batch = build_batch(args, task_id, policy, checkpoint)
    # Untrained, all environments run into their step limit together: only whole limits hold their share of resets.
    level = build_env(task_id, batch.config.max_steps)
    level.reset(seed=0)
    limit = level.max_steps
    period = -(-limit // args.unroll_len) if policy == UNTRAINED else 1
    run_updates(batch, max(period, args.warmup))
    probe = run_updates(batch, period)
    updates = period * max(1, round(args.seconds / args.rounds / probe.wall))
    before = dict(batch.envs[0].counters)
    peak = measure_peak() if batch.device.type == "cpu" else None
    rounds = [run_updates(batch, updates) for _ in range(args.rounds)]
    levels, steps = (batch.envs[0].counters[name] - before[name] for name in ("levels_started", "steps"))
    rates = [run.env_steps / run.wall for run in rounds]
    stepped = batch
    if batch.device.type == "cpu":
        stepped = build_batch(args, task_id, policy, checkpoint, SteppedEngine)
        run_updates(stepped, max(period, args.warmup))
    with TimeSplit(batch.device) as split:
        timed = run_updates(stepped, updates)
    classic = policy == UNTRAINED and (args.num_envs, args.unroll_len) == (16, 32)
    return Throughput(
        task_id=task_id,
        policy=policy,
        env_steps_per_second=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        env_steps_per_cpu_second=statistics.median(run.env_steps / run.cpu for run in rounds),
        levels_per_1000_steps=1000 * levels / steps,
        success_rate=batch.take_metrics()[0]["rollout/success_rate"],
        shares=split.shares(),
        slowdown_by_timers=statistics.median(rates) * timed.wall / timed.env_steps,
        share_of_peak=peak and share_of_peak(statistics.median(rates), batch.config, peak, args.threads),
        rl_mop=RL_MOP_RATES.get(task_id) if classic else None,
    )


@dataclass(frozen=True)
class Run:
    """Some updates: env-steps taken, seconds by the clock, seconds of processor time."""

    env_steps: int
    wall: float
    cpu: float


def run_updates(batch: ReplicaBatch, updates: int) -> Run:
    """Run updates and return what they took."""
    before = batch.env_steps
    _, wall, cpu = time_call(lambda: [loop.run_update(batch) for _ in range(updates)])
    return Run(batch.env_steps - before, wall, cpu)


@dataclass(frozen=True)
class Learning:
    """The first updates of a run that learns from scratch; fields as of `Throughput`."""

    task_id: str
    updates: int
    env_steps_per_second: float
    env_steps_per_cpu_second: float
    success_rate: float | None
    rl_mop: float | None


def measure_learning(args: argparse.Namespace, task_id: str) -> Learning:
    """Return the mean rate over the first updates of a run that really learns, at lr 1e-3."""
    batch = ReplicaBatch([build_config(args, task_id, {"lr": 1e-3})], announce=lambda line: None)
    run = run_updates(batch, args.learn_updates)
    updates, rate = RL_MOP_FIRST_UPDATES.get(task_id, (None, None))
    return Learning(
        task_id=task_id,
        updates=args.learn_updates,
        env_steps_per_second=run.env_steps / run.wall,
        env_steps_per_cpu_second=run.env_steps / run.cpu,
        success_rate=batch.take_metrics()[0]["rollout/success_rate"],
        rl_mop=rate if updates == args.learn_updates and (args.num_envs, args.unroll_len) == (16, 32) else None,
    )


# ------------------------------------------------------------------------------------------------------------- tables


THROUGHPUT_COLUMNS = (
    ("task", "task_id"),
    ("policy", "policy"),
    ("env-steps/s", "env_steps_per_second:,.0f"),
    ("slowest..fastest round", lambda case: f"{case.lowest:,.0f}..{case.highest:,.0f}"),
    ("per CPU second", "env_steps_per_cpu_second:,.0f"),
    ("of peak", lambda case: _percent(case.share_of_peak)),
    ("levels per 1000 steps", "levels_per_1000_steps:.1f"),
    ("success", lambda case: _percent(case.success_rate)),
    ("rl-mop", "rl_mop:,.0f"),
    ("ratio", lambda case: "-" if case.rl_mop is None else f"{case.env_steps_per_second / case.rl_mop:.1f}"),
)
LEARNING_COLUMNS = (
    ("task", "task_id"),
    ("policy", lambda run: f"first {run.updates} updates, lr 1e-3"),
    ("mean env-steps/s", "env_steps_per_second:,.0f"),
    ("per CPU second", "env_steps_per_cpu_second:,.0f"),
    ("success at the end", lambda run: _percent(run.success_rate)),
    *THROUGHPUT_COLUMNS[-2:],
)


def format_shares(cases: Sequence[Throughput]) -> str:
    """Return the table of where the time goes."""
    rows = []
    for case in cases:
        shares = [_percent(case.shares[part]) for part in PARTS_OF_STEPS]
        rows.append([case.task_id, case.policy, *shares, f"{case.slowdown_by_timers:.2f} x"])
    return format_table(["task", "policy", *PARTS_OF_STEPS, "slowdown by timers"], rows)


def format_environments(rates: dict[str, EnvironmentRates]) -> str:
    """Return the table of environments alone."""
    rows = [
        [task_id, "random actions", f"{rate.minigrid:,.0f}", f"{rate.ours:,.0f}", f"{rate.ours / rate.minigrid:.1f}"]
        for task_id, rate in rates.items()
    ]
    return format_table(["task", "actions", "minigrid + BabyAIBot", "VectorEnv + Expert", "ratio"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


# ------------------------------------------------------------------------------------------------------- command line


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole, number = parse_positive(int), parse_positive(float)
    parser.add_argument("--tasks", nargs="*", default=["GoToObj", "UnlockPickup", "GoTo"], help="BabyAI tasks")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=Path,
        help="policy that solves its task, in place of the expert's actions; may be given once per task",
    )
    parser.add_argument("--num_envs", type=whole, default=16, help="environments (default: 16)")
    parser.add_argument("--unroll_len", type=whole, default=32, help="steps between updates (default: 32)")
    parser.add_argument("--plan_every", type=int, default=8, help="as in config.yaml (default: 8)")
    parser.add_argument("--seconds", type=number, default=6.0, help="measured per task and policy (default: 6)")
    parser.add_argument("--rounds", type=whole, default=3, help="into which they are divided (default: 3)")
    parser.add_argument("--warmup", type=whole, default=10, help="updates before measuring, at least (default: 10)")
    parser.add_argument("--learn_updates", type=int, default=0, help="also learn from scratch for that many updates")
    parser.add_argument("--no_yardstick", action="store_true", help="leave out the comparison with minigrid's own")
    parser.add_argument(
        "--mixture", nargs="*", default=LEVELS, help="levels of mixtures, to be compared with each alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="of levels and weights (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=whole, default=1, help="of torch (default: 1)")


def load_checkpoints(paths: Sequence[Path], task_ids: Sequence[str]) -> dict[str, LoadedPolicy]:
    """Return the policies by task.

    Raises:
        CheckpointError: If one cannot be loaded, or is of a task that is not measured.
    """
    found: dict[str, LoadedPolicy] = {}
    for path in paths:
        loaded = load_policy(path)
        if isinstance(loaded.config.task_id, list) or loaded.config.task_input != "none":
            found = f"mixture {loaded.config.mixture}" if loaded.config.mixture else "task_input onehot"
            raise CheckpointError(f"{path}: expected a policy of one level that is told nothing of it, found {found}")
        task_id = resolve_task_id(loaded.config.task_id)
        if task_id not in task_ids:
            raise CheckpointError(f"{path}: expected a policy of {', '.join(task_ids)}, found one of {task_id}")
        found[task_id] = loaded
    return found


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    task_ids = [resolve_task_id(name) for name in args.tasks]
    checkpoints = load_checkpoints(args.checkpoint, task_ids)
    cases = []
    for task_id in task_ids:
        cases.append(measure_task(args, task_id, UNTRAINED))
        checkpoint = checkpoints.get(task_id)
        cases.append(measure_task(args, task_id, TRAINED if checkpoint else EXPERT, checkpoint))
    environments = {}
    if not args.no_yardstick:
        seconds = args.seconds / args.rounds / 2
        for task_id in task_ids:
            environments[task_id] = compare_environments(task_id, args.num_envs, seconds, args.rounds, args.seed)
    learning = [measure_learning(args, task_id) for task_id in task_ids] if args.learn_updates > 0 else []
    levels = [resolve_task_id(name) for name in args.mixture]
    mixtures = measure_mixtures(args, levels, partial(build_mixture_config, args)) if len(levels) > 1 else []

    print(f"Training at {args.num_envs} environments x {args.unroll_len} steps, plan_every {args.plan_every}")
    print(format_machine_facts(machine, [args.threads]))
    print(f"\nuntrained: lr {FROZEN_LR:g} keeps the weights as drawn. expert's actions: a policy that solves the task,")
    print("emulated by executing the expert's. rl-mop: the existing one on a machine of the same kind, quoted.\n")
    print(format_records(THROUGHPUT_COLUMNS, cases))
    print("\nWhere the time goes, in a separate pass step by step with timers (benchmarks/timers.py names the parts)\n")
    print(format_shares(cases))
    if environments:
        print("\nEnvironment and expert alone on one core, env-steps/s, no plans beforehand\n")
        print(format_environments(environments))
    if learning:
        print("\nLearning from scratch, everything included\n")
        print(format_records(LEARNING_COLUMNS, learning))
    if mixtures:
        print("\nMixtures, and their levels alone at as many environments in all, with the expert's actions\n")
        print(format_records(MIXTURE_COLUMNS, mixtures))
    return {"throughput": cases, "environments": environments, "learning": learning, "mixtures": mixtures}


if __name__ == "__main__":
    sys.exit(main())
