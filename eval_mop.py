"""Evaluate one checkpoint: how often it succeeds, at what cost, and what its routers did.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObjMazeS4R2-v0/trial_1/seed_0/checkpoint_final.pt
    python eval_mop.py --checkpoint PATH --num_episodes 1000 --json metrics.json --routing routing_data.json

The levels are a fixed list, the same for every checkpoint; each is played once to its end, so the result is the same
every time and for every --num_envs. `batch_eval.py` does this for all checkpoints and keeps the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.bars import Bar
from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.files import write_text
from pipeline.command.folders import check_file
from pipeline.command.shell import as_command
from pipeline.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from pipeline.evaluation.checkpoint import Checkpoint, load_checkpoint
    from pipeline.evaluation.play import Evaluation, evaluate, evaluate_task

__all__ = ["Checkpoint", "Evaluation", "evaluate", "evaluate_task", "load_checkpoint", "main"]


def __getattr__(name: str) -> Any:
    """Import what else this module offers when it is asked for: --help is told without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.evaluation import checkpoint, play

    return getattr(checkpoint if name in ("Checkpoint", "load_checkpoint") else play, name)


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; return the exit code: 0 done, 2 refused, 130 stopped by Ctrl-C."""
    options = {
        "checkpoint": "The .pt file.",
        "task_id": "Another task than the one it was trained on, or one of several; a policy of several plays all.",
        "json": "Write the metrics to this file.",
        "routing": "Write the routing cache to this file.",
    }
    settings, values = parse_command(
        "Evaluate one checkpoint on a fixed list of levels.",
        EvaluationSettings,
        argv,
        options=options,
        required=["checkpoint"],
    )
    run(settings, **values)


def run(
    settings: EvaluationSettings, *, checkpoint: str, task_id: str | None, json: str | None, routing: str | None
) -> None:
    """Evaluate, print the metrics, and write what was asked for."""
    from babyai.levels import resolve_task_id
    from pipeline.command.devices import resolve_device
    from pipeline.evaluation.checkpoint import build_header, evaluate_checkpoint, load_checkpoint, write_evaluation
    from pipeline.mixtures import MACRO_MEAN
    from pipeline.records.metrics import EVALUATION_METRICS, MACRO_MEANS, describe_metrics, evaluation_metrics

    for name, path in (("json", json), ("routing", routing)):
        if path is not None:
            check_file(name, Path(path))
    loaded = load_checkpoint(checkpoint, device=resolve_device(settings.device), lang_encoder=settings.lang_encoder)
    config = loaded.config
    tasks = [resolve_task_id(name) for name in ([task_id] if task_id else config.levels)]
    if routing is not None and len(tasks) > 1:
        raise ConfigError(f"--routing: expected --task_id with it, one of {', '.join(tasks)}: a cache is of one task")
    found: dict[str, dict[str, float | int | None]] = {}
    for task in tasks:
        with Bar(total=settings.num_episodes, desc=task, unit="episode") as bar:
            result = evaluate_checkpoint(loaded, task, settings, record=routing is not None, progress=bar.update)
        found[task] = result.metrics
        if routing is not None:
            run_name = None if "task_id" in loaded.unknown_fields else config.run_name
            header = build_header(loaded, task, settings, trial=config.trial, seed=config.seed, run_name=run_name)
            write_evaluation(Path(routing), header, result)
        drawn = ", actions drawn" if settings.eval_actions == "sample" else ""
        print(f"{task}: {describe_metrics(result.metrics)}{drawn}")
        for name, value in result.metrics.items():
            print(f"  {name:<22} {'-' if value is None else f'{value:.6g}'}")
    if len(found) > 1:
        means = evaluation_metrics(result.metrics, found)
        print(f"mean over {len(found)} tasks, each counting once")
        for key in MACRO_MEANS:
            mean = means[f"{key}/{MACRO_MEAN}"]
            print(f"  {EVALUATION_METRICS[key]:<22} {'-' if mean is None else f'{mean:.6g}'}")
    if json is not None:
        write_json(Path(json), found if len(found) > 1 else result.metrics)


def write_json(path: Path, metrics: dict[str, Any]) -> None:
    """Write metrics as a JSON file, atomically."""
    write_text(path, json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
