"""Many runs trained at once: env-steps per second of all together, how long a whole sweep would take, its memory.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --runs 50 --jobs 2 --updates 40

The sweep is that of `python train_mop.py --config configs/gotoobj.yaml --seeds 0-9 --lpc_alphas 0,1e-6,1e-5,1e-4,1e-3
--num_updates 5000 --final_eval_episodes 0`: five prices, ten seeds, 5,000 updates of 16 environments x 32 steps,
without evaluation. Measured at its start, where episodes are long, and with the expert's actions, which emulate
policies that have solved the task: most of a run. Jobs are processes that share out the runs, as `--jobs` of
train_mop.py does. "of peak" is the share of what as many cores do in torch's products of large matrices
(`benchmarks/peak.py`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from typing import Any

from babyai.levels import resolve_task_id
from benchmarks.common import as_benchmark, format_machine_facts, format_table, parse_positive
from benchmarks.peak import measure_peak, share_of_peak
from pipeline.command.cli import Parser
from pipeline.config import TrainConfig
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch
from pipeline.training.options import CPU_REPLICAS

ALPHAS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
RL_MOP_HOURS = 200.0
"""The same sweep on the existing rl-mop, two cores; extrapolated from its speed, quoted."""


def build_configs(args: argparse.Namespace, solved: bool) -> list[TrainConfig]:
    """Return the settings of the runs: `args.runs` of them, prices changing fastest."""
    return [
        TrainConfig(
            task_id=args.task,
            trial=1 + k % len(ALPHAS),
            seed=k // len(ALPHAS),
            lpc_alpha=ALPHAS[k % len(ALPHAS)],
            num_envs=args.num_envs,
            unroll_len=args.unroll_len,
            lr=1e-3,
            expert_action_prob=float(solved),
            lang_encoder="builtin",
            device="cpu",
            torch_threads=args.threads,
        )
        for k in range(args.runs)
    ]


def _train(configs: list[TrainConfig], updates: int, start: multiprocessing.Barrier, seconds: object) -> None:
    """Train some of the runs; put the seconds of `updates` updates and the process's largest MiB into a queue."""
    batches = []
    for first in range(0, len(configs), CPU_REPLICAS):  # as `train_mop.py` groups them
        batches.append(ReplicaBatch(configs[first : first + CPU_REPLICAS], announce=lambda line: None))
        loop.run_update(batches[-1])  # loads compiled code
    start.wait()
    started = time.perf_counter()
    for batch in batches:
        for _ in range(updates):
            loop.run_update(batch)
    elapsed = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    seconds.put((elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20))


def measure(args: argparse.Namespace, solved: bool) -> tuple[float, float]:
    """Return env-steps per second of all runs together, and MiB of all processes.

    The processes start together, the slowest counts.
    """
    configs = build_configs(args, solved)
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(args.jobs), context.Queue()
    shares = [configs[job :: args.jobs] for job in range(args.jobs)]
    workers = [context.Process(target=_train, args=(share, args.updates, start, seconds)) for share in shares]
    for worker in workers:
        worker.start()
    spent = [seconds.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    steps = len(configs) * args.updates * args.num_envs * args.unroll_len
    return steps / max(elapsed for elapsed, _ in spent), sum(memory for _, memory in spent)


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole = parse_positive(int)
    parser.add_argument("--task", default="GoToObj", help="BabyAI task (default: GoToObj)")
    parser.add_argument("--runs", type=whole, default=50, help="runs trained at once (default: 50)")
    parser.add_argument("--jobs", type=whole, default=2, help="processes they are shared out to (default: 2)")
    parser.add_argument("--updates", type=whole, default=20, help="measured updates of each run (default: 20)")
    parser.add_argument("--sweep_updates", type=whole, default=5000, help="of the extrapolated sweep (default: 5000)")
    parser.add_argument("--num_envs", type=whole, default=16, help="environments of a run (default: 16)")
    parser.add_argument("--unroll_len", type=whole, default=32, help="steps between updates (default: 32)")
    parser.add_argument("--threads", type=whole, default=1, help="threads of each process (default: 1)")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    args.task = resolve_task_id(args.task)
    args.jobs = min(args.jobs, args.runs)
    print(f"{args.runs} runs of {args.task} at once, {args.num_envs} environments x {args.unroll_len} steps each")
    print(format_machine_facts(machine, [args.threads]) + f", {args.jobs} process(es)\n", flush=True)
    steps = args.runs * args.sweep_updates * args.num_envs * args.unroll_len
    peak = measure_peak()
    measured = {"at the start": measure(args, solved=False), "expert's actions": measure(args, solved=True)}
    rates = {policy: rate for policy, (rate, _) in measured.items()}
    mebibytes = max(memory for _, memory in measured.values())
    minutes = {policy: steps / rate / 60 for policy, rate in rates.items()}
    config = build_configs(args, solved=True)[0]
    shares = {policy: share_of_peak(rate, config, peak, args.jobs * args.threads) for policy, rate in rates.items()}
    rows = []
    for policy, rate in rates.items():
        took = minutes[policy]
        numbers = f"{rate:,.0f}", f"{100 * shares[policy]:.0f} %", f"{took:.0f}", f"{RL_MOP_HOURS * 60 / took:.0f}"
        rows.append([policy, f"{args.runs} runs", *numbers])
    columns = ["policy", "", "env-steps/s of all", "of peak", f"minutes for {args.sweep_updates:,} updates"]
    columns.append("rl-mop / ours")
    if (args.task, steps) != ("BabyAI-GoToObj-v0", 50 * 5000 * 16 * 32):  # what the quoted figure is of
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print(format_table(columns, rows))
    print(f"\nlargest memory of the process(es): {mebibytes:,.0f} MiB")
    return {"rates": rates, "shares_of_peak": shares, "minutes": minutes, "mebibytes": mebibytes}


if __name__ == "__main__":
    sys.exit(main())
