"""Small experiments of the tree search, for tests: how they are called, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

from maxent import experiment

ROOT = Path(__file__).parents[1]
TINY = (
    "--no_charts",
    "--models",
    "toy",
    "--num_samples",
    "2",
    "--num_rollouts",
    "3",
    "--max_tokens",
    "4",
    "--data_source",
    "synthetic",
)


def run(folder, path, *flags, env=None, timeout=120):
    return subprocess.run(
        [sys.executable, path, *flags],
        cwd=ROOT / folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def call(*flags, output):
    return experiment.main([*TINY, "--output_dir", str(output), *flags])


def read_results(folder):
    (path,) = folder.glob("wandb_experiments_*.json")
    return json.loads(path.read_text())


def read_lines(folder, name):
    (path,) = folder.glob(f"wandb_experiments_*/{name}/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "time")}
    return [without_times(one) for one in value] if isinstance(value, list) else value
