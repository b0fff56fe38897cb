"""The policy's share of training: each form of it, where an update's time goes, many runs at once, and the limit.

    python -m benchmarks.policy
    python -m benchmarks.policy --num_envs 64 256 --threads 2 --repeats 9

One update is T steps of acting and one step of Adam, in an environment that costs nothing: what it shows was made up
beforehand. Forms of the policy: plain (one `nn.GRU` call for each router and expert, autograd through all steps; acting
and gradients only), torch (`TorchEngine`), compiled (`CompiledEngine`, the one that trains on the CPU). The limit is
arithmetic: operations of the update's matrix products, against what one large product reaches on one core.

All forms are measured in turns within one process. Take rows with as many threads as cores from an idle machine only;
the facts above the tables say how busy it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch

import pipeline.training.levels
from babyai.observations import encode_observations
from babyai.steps import VectorStep
from benchmarks.common import as_benchmark, format_machine_facts, format_records, format_table, parse_positive, wait_for
from benchmarks.peak import count_operations, measure_peak, share_of_peak
from benchmarks.timers import PARTS_OF_STEPS, TimeSplit
from mixture_of_experts import MixtureOfExpertsPolicy, reset_hidden_on_done
from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import CompiledEngine, SteppedEngine
from pipeline.engine.torch_engine import TorchEngine
from pipeline.policies import build_policy
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch
from pipeline.training.losses import Price, compute_losses

EPISODE_LENGTH = 20  # mean
SHOWN = 67  # made-up steps, shown in turns


class StandIn:
    """A vector environment that costs nothing: shows made-up steps in turns, whatever the actions."""

    core = "made up"
    missions = ("go to the red ball", "go to a blue key")

    def __init__(self, task_id: Sequence[str], num_envs: Sequence[int], levels: object, **_: object) -> None:
        """Make up the steps; arguments as for a `VectorEnv` of a list of tasks."""
        self.num_envs = num_envs = sum(num_envs)
        self.counters = {"levels_started": 0, "levels_unsolvable": 0, "steps": 0, "steps_unlabelled": 0}
        generator = np.random.default_rng(0)
        self._steps, self._shown = [], 0
        for _ in range(SHOWN):
            step = VectorStep.zeros(num_envs)
            step.view[:] = generator.integers(0, 6, step.view.shape)
            step.direction[:] = generator.integers(0, 4, num_envs)
            step.expert_action[:] = generator.integers(0, 7, num_envs)
            step.expert_valid[:] = step.active[:] = True
            step.episode_start[:] = generator.random(num_envs) < 1 / EPISODE_LENGTH
            step.mission_id[:] = np.arange(num_envs) % 2
            self._steps.append(step)

    def reset(self) -> VectorStep:
        """Return the first step."""
        return self._steps[0]

    def step(self, actions: np.ndarray) -> VectorStep:
        """Return the next step."""
        self._shown += 1
        return self._steps[self._shown % SHOWN]


def build_batch(
    args: argparse.Namespace,
    num_envs: int = 16,
    threads: int = 1,
    *,
    replicas: int = 1,
    engine: type | None = None,
    real: bool = False,
) -> ReplicaBatch:
    """Return a batch of the benchmark's policy in environments that cost nothing, or in GoToObj.

    Args:
        args: Settings of the benchmark.
        num_envs: Environments of each run.
        threads: Of torch.
        replicas: Runs.
        engine: None takes the usual one.
        real: In GoToObj.
    """
    configs = [
        TrainConfig(
            seed=args.seed + replica,
            policy=args.policy,
            num_envs=num_envs,
            unroll_len=args.unroll_len,
            lang_encoder="builtin",
            device=args.device,
            torch_threads=threads,
        )
        for replica in range(replicas)
    ]
    costless = mock.patch.object(pipeline.training.levels, "VectorEnv", StandIn)
    with nullcontext() if real else costless:
        return ReplicaBatch(configs, announce=lambda line: None, engine=engine)


# --------------------------------------------------------------------------------------------------------------- forms


@dataclass(frozen=True)
class Comparison:
    """All forms at one size; times are medians in milliseconds.

    Attributes:
        num_envs: Environments stepped together.
        threads: Of torch.
        plain_ms: Acting and gradients of an update, plain.
        torch_ms: A whole update with `TorchEngine`.
        compiled_ms: A whole update with `CompiledEngine`; None where the policy is not on the CPU.
        env_steps_per_second: Of the form that trains on this device.
        share_of_peak: Of what `threads` cores do in products of large matrices.
        largest_difference: Between the first update's gradients of the two engines, over the largest gradient.
    """

    num_envs: int
    threads: int
    plain_ms: float
    torch_ms: float
    compiled_ms: float | None
    env_steps_per_second: float
    share_of_peak: float
    largest_difference: float | None


class Plain:
    """An update's acting and gradients in the plain form."""

    def __init__(self, args: argparse.Namespace, num_envs: int, device: torch.device) -> None:
        """Take the unroll that the batches get."""
        config = TrainConfig(seed=args.seed, policy=args.policy)
        self.policy: MixtureOfExpertsPolicy = build_policy(config).to(device)
        shown = StandIn([""], [num_envs], None)._steps[: args.unroll_len]
        obs = [torch.from_numpy(encode_observations(s.view, s.direction, s.carrying)) for s in shown]
        self.obs = torch.stack(obs).to(device)
        self.mission = torch.zeros(len(shown), num_envs, config.lang_dim, device=device)
        self.start, self.labels, self.valid = (
            torch.from_numpy(np.stack([getattr(s, name) for s in shown])).to(device)
            for name in ("episode_start", "expert_action", "expert_valid")
        )

    def update(self) -> None:
        """Act step by step, keeping the graph, and compute gradients."""
        policy, routing, logits = self.policy, [], []
        hidden = policy.init_hidden(self.obs.shape[1], self.obs.device)
        for obs, mission, start in zip(self.obs, self.mission, self.start, strict=True):
            hidden = reset_hidden_on_done(hidden, start)
            step, hidden, info = policy(obs, mission, hidden, return_routing_info=True)
            step.argmax(dim=-1)
            logits.append(step)
            routing.append([layer["router_weights"] for layer in info.values()])
        stacked = [torch.stack(layer) for layer in zip(*routing, strict=True)]
        sizes = policy.layer_expert_sizes
        terms = compute_losses(torch.stack(logits), self.labels, self.valid, stacked, sizes, Price(alpha=1e-5))
        terms.total.backward()
        policy.zero_grad(set_to_none=True)


def measure_in_turns(
    functions: Sequence[Callable[[], object]],
    repeats: int,
    calls: int,
    device: torch.device,
    pick: Callable[[list[float]], float] = statistics.median,
) -> list[float]:
    """Return the time of a call of each function, ms.

    Args:
        functions: Called in turns, so that a busy machine treats them alike.
        repeats: Measurements of each, after one that does not count.
        calls: Calls within a measurement.
        device: A GPU is waited for.
        pick: Which of the measurements: their median, or the least.
    """
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            for _ in range(calls):
                function()
            wait_for(device)
            if repeat:
                found.append(1000 * (time.perf_counter() - started) / calls)
    return [pick(found) for found in times]


def compare_forms(
    args: argparse.Namespace, num_envs: int, threads: int, device: torch.device, peak: float
) -> Comparison:
    """Return all forms' times at one size; `peak` is that of one core."""
    engines = [TorchEngine, CompiledEngine] if device.type == "cpu" else [TorchEngine]
    batches = [build_batch(args, num_envs, threads, engine=engine) for engine in engines]
    difference = None
    if len(batches) == 2:
        gradients = []
        for batch in batches:
            loop.run_update(batch)
            gradients.append(batch.weights.gradient)
        difference = float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max())
    functions = [partial(loop.run_update, batch) for batch in batches]
    if args.policy == "moe":
        functions.append(Plain(args, num_envs, device).update)
    times = measure_in_turns(functions, args.repeats, 3 if num_envs < 64 else 1, device)
    used = times[len(engines) - 1]
    rate = 1000 * num_envs * args.unroll_len / used
    return Comparison(
        num_envs=num_envs,
        threads=threads,
        plain_ms=times[-1] if args.policy == "moe" else float("nan"),
        torch_ms=times[0],
        compiled_ms=times[1] if len(engines) == 2 else None,
        env_steps_per_second=rate,
        share_of_peak=share_of_peak(rate, batches[0].configs[0], peak, threads),
        largest_difference=difference,
    )


def measure_parts(args: argparse.Namespace, real: bool) -> dict[str, float]:
    """Return milliseconds of each part of an update of 16 environments on one thread, median over updates.

    Args:
        args: Settings of the benchmark.
        real: In GoToObj instead of an environment that costs nothing.
    """
    engine = SteppedEngine if resolve_device(args.device).type == "cpu" else None
    batch = build_batch(args, real=real, engine=engine)
    for _ in range(3):
        loop.run_update(batch)
    rows = []
    for _ in range(max(3, 4 * args.repeats)):
        with TimeSplit(args.device) as split:
            loop.run_update(batch)
        rows.append(split.seconds)
    return {part: 1000 * statistics.median(row[part] for row in rows) for part in PARTS_OF_STEPS}


@dataclass(frozen=True)
class Together:
    """R runs of 16 environments trained together.

    Attributes:
        replicas: R.
        threads: CPU threads.
        env_steps_per_second: Of all runs together.
    """

    replicas: int
    threads: int
    env_steps_per_second: float


def measure_together(args: argparse.Namespace, replicas: int, threads: int, device: torch.device) -> Together:
    """Return the rate of R runs trained together, in environments that cost nothing."""
    batch = build_batch(args, 16, threads, replicas=replicas)
    (milliseconds,) = measure_in_turns([partial(loop.run_update, batch)], args.repeats, 1, device)
    return Together(replicas, threads, 1000 * replicas * 16 * args.unroll_len / milliseconds)


# -------------------------------------------------------------------------------------------------------------- tables


COMPARISON_COLUMNS = (
    ("environments", "num_envs"),
    ("threads", "threads"),
    ("plain, ms", "plain_ms:.0f"),
    ("torch, ms", "torch_ms:.1f"),
    ("compiled, ms", "compiled_ms:.1f"),
    ("env-steps/s", "env_steps_per_second:,.0f"),
    ("of the arithmetic peak", lambda row: f"{100 * row.share_of_peak:.0f} %"),
    ("largest difference", "largest_difference:.0e"),
)
TOGETHER_COLUMNS = (
    ("runs", "replicas"),
    ("threads", "threads"),
    ("env-steps/s of all", "env_steps_per_second:,.0f"),
)


def format_parts(parts: dict[str, dict[str, float]]) -> str:
    """Return the table of an update's parts."""
    rows = [[name, *(f"{value:.1f}" for value in (sum(row.values()), *row.values()))] for name, row in parts.items()]
    return format_table(["environment", "all, ms", *PARTS_OF_STEPS], rows)


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole = parse_positive(int)
    parser.add_argument("--num_envs", type=whole, nargs="+", default=[16, 64, 256], help="default: 16 64 256")
    parser.add_argument("--threads", type=whole, nargs="+", default=[1, 2], help="of torch (default: 1 2)")
    parser.add_argument("--runs", type=whole, nargs="*", default=[1, 8, 50], help="trained together (default: 1 8 50)")
    parser.add_argument("--policy", choices=["moe", "mop"], default="moe", help="default: moe")
    parser.add_argument("--unroll_len", type=whole, default=32, help="T (default: 32)")
    parser.add_argument("--repeats", type=whole, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of weights (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    device = resolve_device(args.device)
    peak = measure_peak(args.repeats)
    operations = count_operations(TrainConfig(policy=args.policy))
    comparisons = [
        compare_forms(args, num_envs, threads, device, peak) for threads in args.threads for num_envs in args.num_envs
    ]
    parts = {"costs nothing": measure_parts(args, real=False), "GoToObj": measure_parts(args, real=True)}
    together = [measure_together(args, runs, threads, device) for threads in args.threads for runs in args.runs]

    print(
        f"Policy {args.policy}, three layers of [0, 16, 32], router 64, {args.unroll_len} steps, "
        f"median of {args.repeats}"
    )
    print(format_machine_facts(machine, args.threads))
    print(
        f"Peak of one core {peak / 1e9:.0f} GFLOP/s, {operations / 1e6:.2f} MFLOP of products per env-step: at most "
        f"{peak / operations:,.0f} env-steps/s on one core\n"
    )
    print(format_records(COMPARISON_COLUMNS, comparisons))
    print("\nParts of an update of 16 environments, one thread, ms (benchmarks/timers.py says what they are)\n")
    print(format_parts(parts))
    print("\nRuns of 16 environments trained together, in environments that cost nothing\n")
    print(format_records(TOGETHER_COLUMNS, together))
    return {
        **{"peak": peak, "operations": operations, "comparisons": comparisons},
        **{"parts": parts, "together": together},
    }


if __name__ == "__main__":
    sys.exit(main())
