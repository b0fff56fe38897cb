"""What the digests in checkpoints cost, where they are made and where they are checked.

    python -m benchmarks.checkpoints
    python -m benchmarks.checkpoints --rounds 20 --json checkpoints.json

Two checkpoints with Adam's state, as a run writes them: of the default policy, and of one with experts of 1024 and
2048. Writing is with fsync. Files are in the page cache, as those are that have just been written. A header is what a
list of a folder needs, loading is what evaluation does, reading all of it what --resume does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from babyai.facts import NUM_ACTIONS
from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from pipeline.checkpoints import LAYOUT, load_policy, read_checkpoint, read_header, save_checkpoint
from pipeline.command.cli import Parser
from pipeline.config import TrainConfig
from pipeline.policies import build_policy, build_projection

SENTENCE_WIDTH = 768
POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "large": {"expert_hidden_sizes": [[0, 1024, 2048]], "intermediate_dim": 256},
}


@dataclass(frozen=True)
class CheckpointCost:
    """One checkpoint; medians of all rounds.

    Attributes:
        policy: Which.
        megabytes: Of the file, 10^6 bytes.
        digest_weights_seconds: Of the digest of its weights alone, in memory.
        digest_state_seconds: Of the digest of what resuming needs besides.
        save_seconds: Of writing it, both digests included.
        header_seconds: Of `read_header`; nothing is digested.
        load_seconds: Of `load_policy`; the weights are digested once, as their identity needs anyhow.
        read_seconds: Of `read_checkpoint`; both are digested.
    """

    policy: str
    megabytes: float
    digest_weights_seconds: float
    digest_state_seconds: float
    save_seconds: float
    header_seconds: float
    load_seconds: float
    read_seconds: float


COLUMNS = (
    ("policy", "policy"),
    ("MB", "megabytes:.1f"),
    ("digest of weights, s", "digest_weights_seconds:.4f"),
    ("of state, s", "digest_state_seconds:.4f"),
    ("save, s", "save_seconds:.4f"),
    ("header, s", "header_seconds:.4f"),
    ("load, s", "load_seconds:.4f"),
    ("read all, s", "read_seconds:.4f"),
)


def build_content(config: TrainConfig) -> dict[str, Any]:
    """Return what a run of untrained weights would save after its first update."""
    policy = build_policy(config)
    moments = {
        number: {"step": torch.ones(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.ones_like(p)}
        for number, p in enumerate(policy.parameters())
    }
    return {
        "policy_state_dict": policy.state_dict(),
        "optimizer_state_dict": {"state": moments, "param_groups": []},
        "config": {**config.to_dict(), "num_actions": NUM_ACTIONS, "update": 1},
        "update": 1,
        "lang_proj_state_dict": build_projection(config, SENTENCE_WIDTH).state_dict(),
        "lang_encoder": {"kind": "builtin", "name": "builtin", "fingerprint": "", "width": SENTENCE_WIDTH},
        "resume": {"generator": torch.Generator().get_state()},
    }


def measure_checkpoint(name: str, folder: Path, rounds: int) -> CheckpointCost:
    """Return the cost of one policy's checkpoint, written to a folder."""
    path = folder / f"{name}.pt"
    content = build_content(TrainConfig(lang_encoder="builtin", **POLICIES[name]))

    def measure(work: Callable[[], object]) -> float:
        return statistics.median(time_call(work)[1] for _ in range(rounds))

    return CheckpointCost(
        policy=name,
        save_seconds=measure(lambda: save_checkpoint(path, content)),
        megabytes=path.stat().st_size / 1e6,
        digest_weights_seconds=measure(lambda: LAYOUT.digest_weights(content)),
        digest_state_seconds=measure(lambda: LAYOUT.digest_state(content)),
        header_seconds=measure(lambda: read_header(path)),
        load_seconds=measure(lambda: load_policy(path)),
        read_seconds=measure(lambda: read_checkpoint(path)),
    )


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), help="default: both")
    parser.add_argument("--rounds", type=parse_positive(int), default=7, help="measured (default: 7)")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    with tempfile.TemporaryDirectory() as folder:
        costs = [measure_checkpoint(name, Path(folder), args.rounds) for name in args.policies]
    print("Checkpoints with digests, median seconds")
    print(format_machine_facts(machine, [torch.get_num_threads()]))
    print()
    print(format_records(COLUMNS, costs))
    return {"checkpoints": costs}


if __name__ == "__main__":
    sys.exit(main())
