"""What tree search buys where long rewards add up, on a toy: every method at equal rollouts and at equal new tokens.

    python -m benchmarks.maxent_search --seeds 20 --num_rollouts 300 --budget_tokens 3000

The toy has 8 tokens, answers of 10, and a mean of one number for each place and token as its reward; lambda is 0.02,
epsilon 0.1. A row is the mean over seeds of the best reward found, with the standard error of its difference from
best-of-N on the same seeds and how many of these were won. Times are bookkeeping alone, since the toy costs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive
from maxent.dts_implementation.models.sequence_model import Prior, ToyModel
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchSettings
from maxent.rewards.result import Reward, RewardResult
from pipeline.command.cli import Parser

DEPTH, VOCAB_SIZE = 10, 8
PLAIN = Prior(temperature=1.0, top_k=None, top_p=1.0)
SETTINGS = SearchSettings(max_tokens=DEPTH, prior=PLAIN, lam=0.02, epsilon=0.1)
MANY = 10
"""Under a budget of tokens a search may make up to this many times the rollouts: repeated answers cost no tokens."""

CASES = (
    *[("best_of_n", {}), ("beam", {}), ("mh", {}), ("dts_paper", {})],
    *[("dts", {"wave": wave}) for wave in (1, 16, 64)],
    *[("dts_star", {"exploration": exploration}) for exploration in (0.05, 0.1, 0.4, 1.0)],
    *[("mcts", {"exploration": exploration}) for exploration in (0.05, 0.1, 0.4, 1.0)],
)


@dataclass(frozen=True)
class Gain:
    """What one method reached under one limit.

    Attributes:
        method: Its name.
        setting: What differs from the defaults.
        best: Mean over seeds of the highest reward.
        error: Standard error of the mean difference from best-of-N; None for that itself.
        wins: Seeds on which it was better than best-of-N; None for that itself.
        rollouts: Mean number.
        new_tokens: Mean number.
        microseconds: For each rollout.
    """

    method: str
    setting: str
    best: float
    error: float | None
    wins: int | None
    rollouts: float
    new_tokens: float
    microseconds: float


def make_additive_reward(seed: int) -> Reward:
    """Return the mean over places of a number for each place and token, uniform in [0, 1]."""
    table = np.random.default_rng([seed, 7]).uniform(0, 1, (DEPTH, VOCAB_SIZE))
    return lambda answer: RewardResult(float(table[np.arange(DEPTH), list(answer.tokens)].mean()))


def measure_gains(seeds: int, settings: SearchSettings) -> list[Gain]:
    """Return what each case reaches under the limits of some settings, best-of-N first."""
    gains: list[Gain] = []
    plain: list[float] = []
    for method, changes in CASES:
        began = time.perf_counter()
        results = [
            search(
                ToyModel(VOCAB_SIZE, eos=None, seed=seed),
                "",
                make_additive_reward(seed),
                replace(settings, method=method, seed=seed, **changes),
            )
            for seed in range(seeds)
        ]
        took = time.perf_counter() - began
        best = [result.best.reward for result in results]
        plain = plain or best
        differences = [one - other for one, other in zip(best, plain, strict=True)]
        first = method == "best_of_n"
        gains.append(
            Gain(
                method=method,
                setting=", ".join(f"{name} {value}" for name, value in changes.items()),
                best=statistics.mean(best),
                error=None if first or seeds < 2 else statistics.stdev(differences) / seeds**0.5,
                wins=None if first else sum(difference > 0 for difference in differences),
                rollouts=statistics.mean(len(result.rollouts) for result in results),
                new_tokens=statistics.mean(result.cost.new for result in results),
                microseconds=took / sum(len(result.rollouts) for result in results) * 1e6,
            )
        )
    return gains


def add_flags(parser: Parser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--seeds", type=parse_positive(int), default=20, help="toys, each with its own reward")
    parser.add_argument("--num_rollouts", type=parse_positive(int), default=300, help="the limit of the first table")
    parser.add_argument("--budget_tokens", type=parse_positive(int), default=3000, help="the limit of the second table")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure, print and return what each method gains."""
    found = {}
    for title, limits in (
        (f"{args.num_rollouts} rollouts", {"num_rollouts": args.num_rollouts}),
        (
            f"{args.budget_tokens} new tokens",
            {"num_rollouts": args.num_rollouts * MANY, "budget_tokens": args.budget_tokens},
        ),
    ):
        found[title] = measure_gains(args.seeds, replace(SETTINGS, **limits))
        columns = [("method", "method"), ("setting", "setting"), ("best", "best:.3f"), ("s.e. of gain", "error:.3f")]
        columns += [(f"better, of {args.seeds}", "wins"), ("rollouts", "rollouts:.0f")]
        columns += [("new tokens", "new_tokens:.0f"), ("us / rollout", "microseconds:.0f")]
        print(f"\nBest reward after {title}, {args.seeds} seeds\n\n{format_records(columns, found[title])}")
    print(f"\n{format_machine_facts(machine, [1])}")
    return {"gains": found}


if __name__ == "__main__":
    sys.exit(main())
