"""One sweep and its evaluation by every launcher: the same checkpoints, logs, results and caches as by this machine."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import read_checkpoint
from pipeline.launch.journal import read_states
from pipeline.records.results import read_results
from tests.training_runs import DEBUG, TASK

ROOT = Path(__file__).parents[3]
TRAIN = ["--config", DEBUG, "--num_updates", "6", "--checkpoint_interval", "4", "--final_eval_episodes", "2"]
TRAIN += ["--num_envs", "2", "--unroll_len", "8", "--log_interval", "2", "--seeds", "0-1", "--max_replicas", "1"]
EVALUATE = ["--num_episodes", "3", "--together", "2", "--jobs", "2"]
BOTH = "import sys, train_mop, batch_eval; a, b = map(str.split, sys.argv[1:])\n"
BOTH += "if __name__ == '__main__': sys.exit(train_mop.main(a) or batch_eval.main(b))"
LAUNCHERS = {
    "ray": ("ray", "sync_seconds=0.2"),
    "slurm": ("submitit", "executor=local,timeout_min=5"),
    "modal": ("modal", "executor=local,sync_seconds=0.2"),
}


def do(folder: Path, train: list[str], evaluate: list[str]) -> None:
    """Train and evaluate in a folder; both in one process, for starting takes longer than they do."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", BOTH, " ".join(train), " ".join(evaluate)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def files(folder: Path, pattern: str) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.glob(pattern)}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Return a folder with what this machine makes of it."""
    folder = tmp_path_factory.mktemp("local")
    do(folder, [*TRAIN, "--jobs", "1"], EVALUATE)
    return folder


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_and_its_evaluation_are_the_same_by_every_launcher(launcher, local, tmp_path):
    package, options = LAUNCHERS[launcher]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package} of requirements/cluster.txt")
    by = ["--launcher", launcher, "--launcher_options"]
    do(tmp_path, [*TRAIN, *by, f"{options},folder=trained"], [*EVALUATE, *by, f"{options},folder=evaluated"])
    here, there = files(tmp_path, "checkpoints/**/*.pt"), files(local, "checkpoints/**/*.pt")
    assert here.keys() == there.keys() and len(here) == 2 * 2
    for name, path in here.items():
        one, other = read_checkpoint(path), read_checkpoint(there[name])
        assert one["config"] == other["config"] and one["update"] == other["update"]
        for part in ("policy_state_dict", "lang_proj_state_dict"):
            assert one[part].keys() == other[part].keys()
            assert all(torch.equal(value, other[part][key]) for key, value in one[part].items())
    for seed in (0, 1):
        log = f"runs/{TASK}/trial_1/seed_{seed}/metrics.jsonl"
        rows = [[json.loads(line) for line in (folder / log).read_text().splitlines()] for folder in (tmp_path, local)]
        timed = [name for name in rows[1][0] if name.startswith("time/")]
        assert [{k: v for k, v in row.items() if k not in timed} for row in rows[0]] == [
            {k: v for k, v in row.items() if k not in timed} for row in rows[1]
        ]
    rows, expected = (
        read_results(folder / "evaluation_results.csv")
        .drop(columns="evaluated_at")
        .sort_values("checkpoint_path", ignore_index=True)
        for folder in (tmp_path, local)
    )
    assert len(rows) == 4 and rows["checkpoint_digest"].notna().all() and rows.equals(expected)
    here, there = (files(folder, "evaluation_cache/**/routing_data.json") for folder in (tmp_path, local))
    assert here.keys() == there.keys() and len(here) == 4
    for name, path in here.items():
        mine, other = (json.loads(cache.read_text()) for cache in (path, there[name]))
        assert {**mine, "evaluated_at": 0} == {**other, "evaluated_at": 0}
    for record in ("trained", "evaluated"):
        assert {state.state for state in read_states(tmp_path / record)} == {"done"}
