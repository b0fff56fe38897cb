"""The policy alone: the packed form against one `nn.GRU` call per router and expert (the plain forward).

    python -m benchmarks.policy
    python -m benchmarks.policy --num_envs 64 --threads 2 --repeats 9

acting: one step of all environments without gradients. update: all that the policy does for one weight update but the
optimiser's step. The plain form takes T steps and keeps their graph; the packed form acts for T steps without gradients
and then computes them again with gradients in one pass, as the trainer does, packing the weights twice. replay: that
second pass alone, forward and backward. Both forms are measured in turns within one process.

With as many threads as cores, whatever else runs makes torch's threads wait for one another: up to a hundred times
slower was seen. Take those rows from an idle machine only; the facts above the table say how busy it was.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import (
    collect_machine_facts,
    collect_settings,
    format_machine_facts,
    format_table,
    parse_positive,
    write_results,
)
from mixture_of_experts import MixtureOfExpertsPolicy, reset_hidden_on_done
from pipeline.checkpoints import NUM_ACTIONS, build_policy, seeded_init
from pipeline.config import ConfigError, TrainConfig
from pipeline.imitation import resolve_device
from pipeline.losses import LossTerms, compute_losses
from pipeline.packed import pack

EPISODE_LENGTH = 20  # mean; starts of episodes cost a masked state whether there are any or not


@dataclass(frozen=True)
class Comparison:
    """Both forms at one size; times are medians in milliseconds.

    Attributes:
        num_envs: Environments stepped together.
        threads: Of torch.
        plain_acting_ms: One step, plain.
        packed_acting_ms: One step, packed; packing itself happens once per unroll and is part of the update.
        plain_update_ms: A whole update, plain.
        packed_update_ms: A whole update, packed.
        packed_replay_ms: Of it, the pass with gradients.
        largest_difference: Between the logits of the two forms over the unroll.
    """

    num_envs: int
    threads: int
    plain_acting_ms: float
    packed_acting_ms: float
    plain_update_ms: float
    packed_update_ms: float
    packed_replay_ms: float
    largest_difference: float


class Forms:
    """One policy, one made-up unroll, and what each form does with it."""

    def __init__(self, num_envs: int, unroll_len: int, device: torch.device, seed: int) -> None:
        """Draw weights of the classic setting and an unroll of T steps of N environments."""
        self.policy: MixtureOfExpertsPolicy = build_policy(TrainConfig(seed=seed)).to(device)
        config = TrainConfig()
        with seeded_init(seed, stream=3):
            shape = (unroll_len, num_envs)
            obs = torch.randint(0, 6, (*shape, config.input_dim)).float()
            mission = torch.randn(num_envs, config.lang_dim).expand(unroll_len, -1, -1).contiguous()
            start = torch.rand(shape) < 1 / EPISODE_LENGTH
            labels = torch.randint(0, NUM_ACTIONS, shape)
        self.obs, self.mission, self.start, self.labels = (t.to(device) for t in (obs, mission, start, labels))
        self.valid = torch.ones_like(self.start)
        self.steps, self.num_envs, self.device = unroll_len, num_envs, device
        self.packed = pack(self.policy)

    @torch.no_grad()
    def act_plain(self) -> None:
        """Take one plain step without gradients."""
        hidden = reset_hidden_on_done(self.policy.init_hidden(self.num_envs, self.device), self.start[0])
        self.policy(self.obs[0], self.mission[0], hidden)[0].argmax(dim=-1)

    @torch.no_grad()
    def act_packed(self) -> None:
        """Take one packed step without gradients."""
        hidden = self.packed.init_hidden(self.num_envs)
        self.packed.sequence(self.obs[:1], self.mission[:1], hidden, self.start[:1]).logits[0].argmax(dim=-1)

    def unroll_plain(self) -> tuple[Tensor, list[Tensor]]:
        """Return logits (T, N, actions) and routing per layer (T, N, experts) of T plain steps."""
        hidden = self.policy.init_hidden(self.num_envs, self.device)
        logits, routing = [], []
        for t in range(self.steps):
            hidden = reset_hidden_on_done(hidden, self.start[t])
            step, hidden, info = self.policy(self.obs[t], self.mission[t], hidden, return_routing_info=True)
            step.argmax(dim=-1)
            logits.append(step)
            routing.append([layer["router_weights"] for layer in info.values()])
        return torch.stack(logits), [torch.stack(layer) for layer in zip(*routing, strict=True)]

    @torch.no_grad()
    def act_unroll_packed(self) -> Tensor:
        """Return logits (T, N, actions) of T packed steps without gradients."""
        packed = pack(self.policy)
        hidden, logits = packed.init_hidden(self.num_envs), []
        for t in range(self.steps):
            now = slice(t, t + 1)
            out = packed.sequence(self.obs[now], self.mission[now], hidden, self.start[now])
            hidden = out.hidden
            out.logits[0].argmax(dim=-1)
            logits.append(out.logits[0])
        return torch.stack(logits)

    def replay_packed(self) -> None:
        """Compute gradients in one packed pass."""
        packed = pack(self.policy)
        out = packed.sequence(self.obs, self.mission, packed.init_hidden(self.num_envs), self.start)
        self._loss(out.logits, out.routing).total.backward()
        self.policy.zero_grad(set_to_none=True)

    def update_packed(self) -> None:
        """Act and compute gradients as the trainer does."""
        self.act_unroll_packed()
        self.replay_packed()

    def update_plain(self) -> None:
        """Act and compute gradients through the plain steps."""
        self._loss(*self.unroll_plain()).total.backward()
        self.policy.zero_grad(set_to_none=True)

    def largest_difference(self) -> float:
        """Return the largest difference between the logits of the two forms."""
        with torch.no_grad():
            return float((self.unroll_plain()[0] - self.act_unroll_packed()).abs().max())

    def _loss(self, logits: Tensor, routing: list[Tensor]) -> LossTerms:
        sizes = self.policy.layer_expert_sizes
        return compute_losses(logits, self.labels, self.valid, routing, sizes, alpha=1e-5, normalize=False)


def measure_in_turns(
    functions: Sequence[Callable[[], object]], repeats: int, calls: int, device: torch.device
) -> list[float]:
    """Return the median time of a call of each function, ms.

    Args:
        functions: Called in turns, so that a busy machine treats them alike.
        repeats: Measurements of each, after one that does not count.
        calls: Calls within a measurement.
        device: A GPU is waited for.
    """
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            for _ in range(calls):
                function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:
                found.append(1000 * (time.perf_counter() - started) / calls)
    return [statistics.median(found) for found in times]


def compare_forms(
    num_envs: int, threads: int, unroll_len: int, repeats: int, device: torch.device, seed: int
) -> Comparison:
    """Return both forms' times at one size."""
    torch.set_num_threads(threads)
    forms = Forms(num_envs, unroll_len, device, seed)
    acting = measure_in_turns([forms.act_plain, forms.act_packed], repeats, 10, device)
    update = measure_in_turns([forms.update_plain, forms.update_packed, forms.replay_packed], repeats, 1, device)
    return Comparison(num_envs, threads, *acting, *update, forms.largest_difference())


def format_comparisons(comparisons: Sequence[Comparison]) -> str:
    """Return the table."""
    columns = (
        "environments|threads|acting: plain, ms|packed, ms|ratio|update: plain, ms|packed, ms|ratio|replay alone, ms|"
        "largest difference"
    )
    return format_table(columns.split("|"), [_row(c) for c in comparisons])


def _row(c: Comparison) -> list[str]:
    return [
        str(c.num_envs),
        str(c.threads),
        f"{c.plain_acting_ms:.2f}",
        f"{c.packed_acting_ms:.2f}",
        f"{c.plain_acting_ms / c.packed_acting_ms:.1f}",
        f"{c.plain_update_ms:.0f}",
        f"{c.packed_update_ms:.0f}",
        f"{c.plain_update_ms / c.packed_update_ms:.1f}",
        f"{c.packed_replay_ms:.0f}",
        f"{c.largest_difference:.0e}",
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this benchmark's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole = parse_positive(int)
    parser.add_argument("--num_envs", type=whole, nargs="+", default=[16, 64, 256], help="default: 16 64 256")
    parser.add_argument("--threads", type=whole, nargs="+", default=[1, 2], help="of torch (default: 1 2)")
    parser.add_argument("--unroll_len", type=whole, default=32, help="T (default: 32)")
    parser.add_argument("--repeats", type=whole, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and made-up data (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        device = resolve_device(args.device)
    except ConfigError as error:
        parser.error(str(error))
    facts = collect_machine_facts(device)
    comparisons = [
        compare_forms(num_envs, threads, args.unroll_len, args.repeats, device, args.seed)
        for threads in args.threads
        for num_envs in args.num_envs
    ]
    print(f"Policy alone, three layers of [0, 16, 32], router 64, {args.unroll_len} steps, median of {args.repeats}")
    print(format_machine_facts(facts, args.threads) + "\n")
    print(format_comparisons(comparisons))
    if args.json:
        results = {
            "benchmark": "policy",
            "machine": facts,
            "settings": collect_settings(args),
            "comparisons": [asdict(comparison) for comparison in comparisons],
        }
        write_results(args.json, results)


if __name__ == "__main__":
    main()
