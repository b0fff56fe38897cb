"""What the policy makes of the view's codes and of the mission: what learns best in the same processor time.

    python -m benchmarks.encodings                               # about half an hour of one core
    python -m benchmarks.encodings --levels GoToLocal --seconds 120
    python -m benchmarks.encodings --levels GoToLocal --encodings onehot --fusions concat film

Of each level, encoding and fusion a few runs, alike but for their seeds, are trained with the settings of a
configuration file until each has had its processor time, without evaluation, metrics and checkpoints. A level's
contestants take turns of a second, so that what else the machine does meets them alike. At the end of each part of the
time all are played on fixed levels, greedily. `accuracy` is the share of the expert's actions that the policy would
have taken, over the last turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from mixture_of_experts import ENCODINGS, FUSIONS
from pipeline.command.cli import Parser, parse_command
from pipeline.config import TrainConfig
from pipeline.mixtures import short_level
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch

LEVELS = ("GoToObjMazeS4R2", "PickupLoc", "UnlockPickup", "GoToLocal")


@dataclass(frozen=True)
class EncodingScore:
    """What the runs of a level, an encoding and a fusion have learned after some processor time.

    Attributes:
        level: Its name.
        encoding: One of `ENCODINGS`.
        fusion: One of `FUSIONS`.
        cpu_seconds: That each run has been trained.
        env_steps: Of each run, in these.
        accuracy: Share of the expert's actions that would have been taken, mean over runs.
        success: Share of the fixed levels solved, of each run.
        path_ratio: Steps over those of the expert, mean over runs; None where nothing was solved.
        lpc: Learned Pathway Complexity on them, mean over runs; None for the baseline.
    """

    level: str
    encoding: str
    fusion: str
    cpu_seconds: float
    env_steps: int
    accuracy: float
    success: list[float]
    path_ratio: float | None
    lpc: float | None


class _Contestant:
    """The runs of one level, encoding and fusion, and the processor time that they have had."""

    def __init__(self, config: TrainConfig, seeds: int) -> None:
        configs = [replace(config, seed=config.seed + seed) for seed in range(seeds)]
        self.batch = ReplicaBatch(configs, announce=lambda line: None)
        self.seconds = 0.0
        loop.run_update(self.batch)  # loads compiled code

    def train(self, until: float) -> None:
        """Train until all runs together have had so many seconds."""
        while self.seconds < until:
            self.seconds += time_call(lambda: loop.run_update(self.batch))[2]

    def score(self, episodes: int, accuracy: float) -> EncodingScore:
        """Return what has been learned by now."""
        config, runs = self.batch.config, len(self.batch.configs)
        metrics = [evaluation.metrics for evaluation in self.batch.evaluate(episodes)]
        ratios = [m["path_ratio"] for m in metrics if m["path_ratio"] is not None]
        return EncodingScore(
            level=short_level(config.run_name),
            encoding=config.obs_encoding,
            fusion=config.mission_fusion,
            cpu_seconds=self.seconds / runs,
            env_steps=self.batch.env_steps,
            accuracy=accuracy,
            success=[m["success_rate"] for m in metrics],
            path_ratio=statistics.fmean(ratios) if ratios else None,
            lpc=statistics.fmean(m["mean_lpc"] for m in metrics) if self.batch.expert_sizes else None,
        )


def compare_encodings(config: TrainConfig, args: argparse.Namespace) -> Iterator[list[EncodingScore]]:
    """Yield the scores of all encodings and fusions on one level at the end of each part of the time.

    Args:
        config: Settings of the runs, but for these two.
        args: Settings of the benchmark.
    """
    pairs = product(args.encodings, args.fusions or [config.mission_fusion])
    contestants = [_Contestant(replace(config, obs_encoding=e, mission_fusion=f), args.seeds) for e, f in pairs]
    for part in range(1, args.parts + 1):
        end = args.seconds * args.seeds * part / args.parts
        rows: list[Sequence[dict[str, Any]]] = []
        while contestants[-1].seconds < end:
            until = min(end, contestants[-1].seconds + 1.0)
            for contestant in contestants:
                contestant.train(until)
            rows = [contestant.batch.take_metrics() for contestant in contestants]
        accuracies = [statistics.fmean(row["train/accuracy"] for row in metrics) for metrics in rows]
        yield [c.score(args.episodes, accuracy) for c, accuracy in zip(contestants, accuracies, strict=True)]


SCORE_COLUMNS = (
    ("level", "level"),
    ("encoding", "encoding"),
    ("mission", "fusion"),
    ("CPU seconds", "cpu_seconds:.0f"),
    ("env-steps", "env_steps:,"),
    ("accuracy", "accuracy:.3f"),
    ("success", lambda row: f"{statistics.fmean(row.success):.3f}"),
    ("of the runs", lambda row: " ".join(f"{value:.2f}" for value in sorted(row.success))),
    ("path ratio", "path_ratio:.2f"),
    ("LPC", "lpc:,.0f"),
)


def add_flags(parser: Parser) -> None:
    """Add the benchmark's own flags."""
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml", help="settings of the runs")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), help="level families")
    parser.add_argument("--encodings", nargs="+", choices=ENCODINGS, default=list(ENCODINGS))
    parser.add_argument("--fusions", nargs="+", choices=FUSIONS, help="how missions are read; as the settings say")
    parser.add_argument("--seeds", type=parse_positive(int), default=3, help="runs of each of them")
    parser.add_argument("--seconds", type=parse_positive(float), default=60.0, help="processor time of each run")
    parser.add_argument("--parts", type=parse_positive(int), default=3, help="how often they are played meanwhile")
    parser.add_argument("--episodes", type=parse_positive(int), default=200, help="fixed levels of each such moment")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Train, print the scores level by level, return them."""
    print(format_machine_facts(machine, [1]))
    scores: list[EncodingScore] = []
    for level in args.levels:
        fixed = ["--config", str(args.config), "--task_id", level, "--device", "cpu", "--torch_threads", "1"]
        config, _ = parse_command("", TrainConfig, fixed)
        for found in compare_encodings(config, args):
            print(f"\n{format_records(SCORE_COLUMNS, found)}", flush=True)
            scores += found
    return {"encodings": scores}


if __name__ == "__main__":
    raise SystemExit(main())
