"""Digests of what the commands make, to compare two versions of this project: the same seeds must give the same bits.

    python tools/digests.py FOLDER                    # in one checkout: train, evaluate, draw; FOLDER/digests.json
    python tools/digests.py OTHER --old FOLDER        # in the other: the same, and the first one's checkpoints too

With --old, the checkpoints that the first version wrote are evaluated by this one, and whatever differs from its
digests is printed; the exit code is then 1. Times, paths and the moment of evaluation are left out. On the CPU only.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
VARYING = {"evaluated_at", "checkpoint_path", "checkpoint_dir", "log_dir", "cache_dir", "config"}
"""Keys of caches and results that tell where and when, not what."""

TRAININGS = {
    "default": "train_mop.py --config config.yaml --num_updates 40",
    "classic": "train_mop.py --config configs/gotoobj.yaml --num_updates 60 --trial 2",
    "sweep": "train_mop.py --config configs/unlockpickup.yaml --num_updates 24 --trial 3 --seeds 0-1 "
    "--lpc_alphas 0,1e-4",
    "baseline": "train.py --config config.yaml --num_updates 40 --trial 100",
}


def main() -> int:
    """Run the commands and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for all that is made")
    parser.add_argument("--old", type=Path, help="folder that the other version has filled")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    if folder.exists():
        parser.error(f"{folder}: expected a new folder, found one that is there")
    folder.mkdir(parents=True)
    found: dict[str, str] = {}
    places = (
        f"--checkpoint_dir {folder}/checkpoints --log_dir {folder}/runs --final_eval_episodes 20 --tensorboard false"
    )
    for command in TRAININGS.values():
        run(f"{command} {places}")
    found |= dict(of_checkpoints(folder / "checkpoints"))
    found |= dict(of_metrics(folder / "runs"))
    found |= evaluated(folder / "checkpoints", folder / "evaluation")
    for name, data in (("base", ""), ("more_a", "--num_recurrences 2")):
        more = f"--model_type {name} {data} --preset debug --updates 30 --tensorboard false"
        run(f"more/train.py {more} --checkpoint_dir {folder}/more --log_dir {folder}/more_runs")
    for path in sorted((folder / "more").glob("*/final_model.pth")):
        weights = torch.load(path, weights_only=True, map_location="cpu")
        found[f"more/{path.parent.name}"] = digest(flatten(weights, lambda key: "_state_dict" in key))
    found |= dict(of_metrics(folder / "more_runs"))
    if options.old is not None:
        others = json.loads((options.old / "digests.json").read_text(encoding="utf-8"))
        old = evaluated(options.old.resolve() / "checkpoints", folder / "old")
        found |= {f"old {name}": value for name, value in old.items()}
        others |= {f"old {name}": others.get(name, "missing") for name in old}
    (folder / "digests.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if options.old is None:
        print(f"{len(found)} digests in {folder / 'digests.json'}")
        return 0
    differing = sorted(name for name in {*found, *others} if found.get(name) != others.get(name))
    for name in differing:
        print(f"differs: {name}: {others.get(name, 'missing')[:12]} there, {found.get(name, 'missing')[:12]} here")
    print(f"{len(found) - len(differing)} of {len(found)} digests are equal")
    return 1 if differing else 0


def run(command: str) -> None:
    """Run a command of the project to its end.

    Raises:
        SystemExit: If it fails.
    """
    print(f"python {command}", flush=True)
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def evaluated(checkpoints: Path, folder: Path) -> dict[str, str]:
    """Evaluate and draw all checkpoints; return the digests of rows, caches and figures."""
    results, caches, plots = folder / "results.csv", folder / "caches", folder / "plots"
    run(f"batch_eval.py --checkpoint_dir {checkpoints} --results_path {results} --cache_dir {caches} --num_episodes 30")
    run(f"plotting_utils.py --all_caches {caches} --view all --output_dir {plots}")
    run(f"plotting_utils.py --results {results} --view success_lpc,alpha,tasks --output_dir {plots}/results")
    found = {}
    with results.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kept = {key: value for key, value in row.items() if key not in VARYING}
            found[f"row {row['task_id']} {row['trial']} {row['seed']}"] = digest(kept)
    for path in sorted(caches.rglob("routing_data.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in content.items() if key not in VARYING}
        found[f"cache {path.parent.relative_to(caches)}"] = digest(kept)
    for path in sorted(plots.rglob("*.png")):
        pixels = matplotlib.image.imread(path)
        found[f"figure {path.relative_to(plots)}"] = digest([pixels.shape, pixels])
    return found


def of_checkpoints(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the digests of weights and optimisers."""
    for path in sorted(root.rglob("*.pt")):
        content = torch.load(path, weights_only=True, map_location="cpu")
        for key in ("policy_state_dict", "lang_proj_state_dict", "optimizer_state_dict", "resume"):
            yield f"{key} {path.relative_to(root)}", digest(flatten(content[key], lambda name: "seconds" not in name))


def of_metrics(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the digests of metrics, without times."""
    for path in sorted(root.rglob("metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [{k: v for k, v in line.items() if "time" not in k and "second" not in k.lower()} for line in lines]
        yield f"metrics {path.parent.relative_to(root)}", digest(kept)


def flatten(value: Any, keep: Any, name: str = "") -> dict[str, Any]:
    """Return what nested mappings and lists hold, by path."""
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value} if keep(name) else {}
    return {key: leaf for k, part in parts for key, leaf in flatten(part, keep, f"{name}/{k}").items()}


def digest(value: Any) -> str:
    """Return the SHA-256 of plain data, arrays and tensors."""
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            hasher.update(repr(key).encode())
            _feed(hasher, value[key])
    elif isinstance(value, list | tuple):
        for entry in value:
            _feed(hasher, entry)
    elif isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value)
        hasher.update(f"{array.dtype}{array.shape}".encode())
        hasher.update(array.tobytes())
    else:
        hasher.update(repr(value).encode())


if __name__ == "__main__":
    sys.exit(main())
