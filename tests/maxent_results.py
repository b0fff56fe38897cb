"""Results files for tests of charts, written by hand rather than by searches."""

import json
from pathlib import Path

import numpy as np

from maxent.registry import MODEL_CONFIGS
from maxent.results import build_run
from maxent.settings import ExperimentSettings


def build_results(models=("toy",), methods=("dts",), samples=3, rollouts=5, *, seed=0, **others) -> dict:
    """Return the content of a results file with random rewards; single methods have one rollout."""
    rng = np.random.default_rng(seed)
    runs = []
    for model in models:
        for method in methods:
            count = 1 if method in ("greedy", "sample") else rollouts
            run = {
                **build_run(ExperimentSettings(), model, method),
                "status": "done",
                "weights": "toy" if model == "toy" else "stand-in",
            }
            run["samples"] = [build_sample(f"M4-test-{at}", rng.uniform(-1, 1, count), rng) for at in range(samples)]
            runs.append(run)
    return {
        "schema_version": 1,
        "status": "done",
        "seed": 3,
        "settings": {"lam": 0.25},
        "data": {"name": "M4", "kind": "synthetic", "origin": "here"},
        "reward": {"name": "claims", "sees_label": False, "note": ""},
        "runs": runs,
        **others,
    }


def build_sample(name: str, rewards, rng) -> dict:
    """Return a sample of a results file with given rewards, and random numbers of tokens."""
    steps = np.diff(rewards)
    tokens = np.cumsum(rng.integers(3, 40, len(rewards)))
    return {
        "id": name,
        "prompt": "Describe.",
        "label": None,
        "best_reward": float(rewards.max()),
        "monotonicity": float((steps > 0).mean()) if len(steps) else None,
        "monotonicity_non_strict": float((steps >= 0).mean()) if len(steps) else None,
        "time": float(rng.uniform(0.5, 2)),
        "answer": {"rollout": int(rewards.argmax()) + 1, "text": "a", "reward": float(rewards.max())},
        "rollouts": [
            {"index": at + 1, "reward": float(reward), "total_new_tokens": int(fed)}
            for at, (reward, fed) in enumerate(zip(rewards, tokens, strict=True))
        ],
    }


def write_results(folder: Path, content: dict, stamp: str = "20260101_120000") -> Path:
    """Write a results file and return where it is."""
    path = folder / f"wandb_experiments_{stamp}.json"
    path.write_text(json.dumps(content))
    return path


def rewards_of(run: dict) -> list[np.ndarray]:
    """Return the rewards of each sample of a run."""
    return [np.array([one["reward"] for one in sample["rollouts"]]) for sample in run["samples"]]


def tokens_of(run: dict) -> list[np.ndarray]:
    """Return the new tokens up to each rollout, of each sample of a run."""
    return [np.array([one["total_new_tokens"] for one in sample["rollouts"]]) for sample in run["samples"]]


COLORS = {key: known["color"] for key, known in MODEL_CONFIGS.items()}
