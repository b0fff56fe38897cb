"""Short runs of training: their flags, and what they have left in the present folder."""

import json
from pathlib import Path

import torch

from pipeline.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[1]
DEBUG = str(ROOT / "configs" / "debug.yaml")
TASK = Path("BabyAI-GoToObjS6-v1")
SHORT = ("--num_updates", "6", "--checkpoint_interval", "4", "--log_interval", "2", "--final_eval_episodes", "4")
SMALL = ("--num_envs", "2", "--unroll_len", "8")
RUN = Path("trial_1") / "seed_0"


def files(folder: Path = Path()) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def folders(names: set[str]) -> set[str]:
    """Return the `trial_N/seed_S` among the names of files."""
    return {"/".join(Path(name).parts[2:4]) for name in names if "seed_" in name}


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (Path("runs") / TASK / run / "metrics.jsonl").read_text().splitlines()]


def final(run: Path, root: Path = Path()) -> dict:
    return read_checkpoint(root / "checkpoints" / TASK / run / "checkpoint_final.pt")


def assert_same_run(one: dict, other: dict) -> None:
    """Checkpoints of one run, trained alone or with others: the same but for rounding."""
    assert one.keys() == other.keys()
    assert one["config"] == other["config"]
    assert one["update"] == other["update"]
    for part in ("policy_state_dict", "lang_proj_state_dict"):
        assert list(one[part]) == list(other[part])
        for name, value in one[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=1e-4, atol=1e-5, msg=name)
