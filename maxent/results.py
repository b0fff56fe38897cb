"""The results of experiments: one JSON file with every rollout, replaced after each sample.

    results = Results.create(Path("evaluation/results"), settings, header)
    run = results.find_run("toy", "dts")
    run["samples"].append(describe_search(sample, result))
    results.save()

A kill loses the sample that was being searched, and no other: the file is whole at any time.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from maxent.data.sample import Sample
from maxent.dts_implementation.search.estimates import summarise
from maxent.dts_implementation.search.result import Rollout, SearchResult
from maxent.evaluation.metrics.monotonicity import measure_monotonicity
from maxent.evaluation.metrics.tree_metrics import measure_tree
from maxent.registry import MODEL_CONFIGS
from maxent.settings import ExperimentSettings, describe
from pipeline.command.errors import UserError
from pipeline.command.files import write_json
from pipeline.command.provenance import find_commit, find_versions

SCHEMA_VERSION = 1
PREFIX = "wandb_experiments_"
PACKAGES = ("rl-mop", "numpy", "torch", "transformers", "wandb")
"""Whose versions a results file keeps."""
FREE = (
    "device",
    "no_charts",
    "no_trees",
    "no_wandb",
    "output_dir",
    "stand_in_dir",
    "tags",
    "torch_threads",
    "wandb_mode",
)
"""Settings that another call may change when it goes on: rollouts do not depend on them."""


class ResultsError(UserError, ValueError):
    """Results that cannot be gone on with; the message says what to do."""


@dataclass
class Results:
    """A results file and what it holds.

    Attributes:
        path: The file.
        content: Plain values.
        part: File that is written in its place: of who has a part of the runs alone.
    """

    path: Path
    content: dict[str, Any]
    part: Path | None = None

    @classmethod
    def create(cls, folder: Path, settings: ExperimentSettings, header: Mapping[str, Any]) -> Results:
        """Return new results of experiments that are about to begin; the file is written.

        Args:
            folder: Made where it is missing.
            settings: Of the experiments.
            header: What else is said of them: data, reward.
        """
        stamp = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
        path, number = folder / f"{PREFIX}{stamp}.json", 1
        while path.exists():  # begun within the same second
            number += 1
            path = folder / f"{PREFIX}{stamp}_{number}.json"
        content = {
            "schema_version": SCHEMA_VERSION,
            "status": "running",
            "seed": settings.seed,
            "command": list(sys.argv),
            "versions": {"python": platform.python_version(), **find_versions(PACKAGES)},
            "git": find_commit(),
            "settings": describe(settings),
            **header,
            "runs": [build_run(settings, model, method) for model in settings.models for method in settings.methods],
        }
        results = cls(path, to_plain(content))
        results.save()
        return results

    @classmethod
    def reopen(cls, folder: Path, settings: ExperimentSettings) -> Results:
        """Return the newest results of these settings.

        Raises:
            ResultsError: If there are none.
        """
        wanted = _select(to_plain(describe(settings)))
        paths = sorted(folder.glob(f"{PREFIX}*.json"), reverse=True)
        differing = ""
        for path in paths:
            try:
                content = read_content(path)
                found = _select(content["settings"])
            except (OSError, ValueError):
                differing = differing or f"; {path.name} cannot be read"
                continue
            if found == wanted:
                return cls(path, {**content, "status": "running"})
            names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            differing = differing or f"; {path.name} has other values of {', '.join(names)}"
        raise ResultsError(
            f"--resume: expected results of the same settings in {folder}, found none of {len(paths)}{differing}; "
            "give the flags of before, or begin anew without --resume"
        )

    def reload(self) -> None:
        """Read the file again: another process may have been at work on it until just now.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it holds something else by now.
        """
        self.content = {**read_content(self.path), "status": "running"}

    def save(self) -> None:
        """Write the file, whole, with the lists of each run's figures brought up to its samples.

        Raises:
            OSError: If that fails; the file is as it was.
        """
        for run in self.content["runs"]:
            run.update(list_figures(run["samples"]))
        write_json(self.part or self.path, self.content)

    def find_run(self, model: str, method: str) -> dict[str, Any]:
        """Return the part of a model and a method."""
        return next(run for run in self.content["runs"] if (run["model"], run["method"]) == (model, method))

    def check_weights(self, key: str, digest: str | None, source: str) -> None:
        """Refuse to go on with a model whose weights are not those that its samples were searched with.

        Results that do not tell are gone on with, and so is a model of which they are not known.

        Args:
            key: Of the model.
            digest: Of its weights.
            source: Where it is from.

        Raises:
            ResultsError: If they are not.
        """
        runs = [run for run in self.content["runs"] if run["model"] == key and run["samples"]]
        before = {run.get("digest") for run in runs} - {None, digest}
        if digest is not None and before:
            found = ", ".join(sorted(one[:8] for one in before))
            raise ResultsError(
                f"--resume: expected the weights that {self.path} was begun with ({found}), found others "
                f"({digest[:8]}) in {source}; put those of before there, or begin anew without --resume"
            )

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Refuse to go on if the samples are not those of before.

        Raises:
            ResultsError: If they are not.
        """
        for run in self.content["runs"]:
            changed = ""
            for kept, sample in zip(run["samples"], samples, strict=False):
                if kept["id"] != sample.id:
                    changed = changed or f"its sample {kept['id']} is now {sample.id}"
                elif kept["label"] != sample.label:
                    changed = changed or f"its sample {kept['id']} now has another label"
            if len(run["samples"]) > len(samples):
                changed = changed or f"it has {len(run['samples'])} samples, and there are {len(samples)} now"
            if changed:
                raise ResultsError(
                    f"{self.path}: {changed}, for the data have changed; "
                    "name those of before with --data_source and --data_path, or begin anew without --resume"
                )


def read_content(path: Path) -> dict[str, Any]:
    """Return a results file that can be gone on with: all that is read of its runs is there.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else, of another version, or was changed by hand so that something is missing.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {content['schema_version']}")
        settings = content["settings"]
        wanted = [(model, method) for model in settings["models"] for method in settings["methods"]]
        if [(run["model"], run["method"]) for run in content["runs"]] != wanted:
            raise ValueError("runs of other models or methods than its settings have")
        for run in content["runs"]:
            run["status"], run["display_name"], run["color"]
            for sample in run["samples"]:
                sample["id"], sample["label"], sample["nodes"], sample["cost"]["new"] + 0
                if not 1 <= sample["answer"]["rollout"] <= len(sample["rollouts"]):
                    raise ValueError("an answer that is none of the rollouts")
                for rollout in sample["rollouts"]:
                    rollout["text"], rollout["parts"].items(), rollout["reward"] + 0.0, rollout["total_new_tokens"] + 0
            list_figures(run["samples"]), summarise_samples(run["samples"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return content


def build_run(settings: ExperimentSettings, model: str, method: str) -> dict[str, Any]:
    """Return the part of a model and a method that has not begun."""
    color = MODEL_CONFIGS[model]["color"]
    names = {"model": model, "display_name": settings.find_display_name(model), "color": color, "method": method}
    loaded = {"weights": None, "source": None, "kv": None, "simulator": model == "babyai", "num_recurrences": None}
    loaded["digest"] = None
    return {**names, "status": "waiting", "error": None, **loaded, "samples": []}


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout as plain values, all of its record."""
    return to_plain(asdict(rollout))


def describe_search(
    sample: Sample, result: SearchResult, note: str | None = None, mission: str | None = None
) -> dict[str, Any]:
    """Return a search as plain values.

    Args:
        sample: What was asked.
        result: What was found.
        note: What was done to the prompt so that it fits.
        mission: Of a level, whose prompt is its seed.
    """
    rewards = measure_monotonicity(result.rewards)
    return to_plain(
        {
            "id": sample.id,
            "prompt": sample.prompt,
            "label": sample.label,
            "note": note,
            "mission": mission,
            "seed": result.settings.seed,
            "best_reward": float(result.rewards.max()),
            "monotonicity": rewards.strict,
            "monotonicity_non_strict": rewards.non_strict,
            "kendall_tau": rewards.kendall_tau,
            "time": result.cost.seconds,
            "nodes": len(result.tree) - 1,
            "answer": {"rollout": result.best.index, "text": result.best.text, "reward": result.best.reward},
            "stopped": result.stopped,
            "max_tokens": result.max_tokens,
            "cost": asdict(result.cost),
            "search": summarise(result),
            "tree": measure_tree(result),
            "chain": result.chain,
            "rollouts": [describe_rollout(rollout) for rollout in result.rollouts],
        }
    )


def list_figures(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the lists over samples that a run has beside them, for readers who want no more."""
    names = {"best_rewards": "best_reward", "monotonicity_rates": "monotonicity", "times": "time"}
    return {name: [sample[of_sample] for sample in samples] for name, of_sample in names.items()}


def summarise_samples(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a run by name, over the samples that are done; None where there is nothing to average."""
    best = [sample["best_reward"] for sample in samples]
    steps = [sample["monotonicity"] for sample in samples if sample["monotonicity"] is not None]
    seconds = [sample["time"] for sample in samples]
    return to_plain(
        {
            "avg_best_reward": np.mean(best) if best else None,
            "std_best_reward": np.std(best) if best else None,
            "avg_monotonicity": np.mean(steps) if steps else None,
            "std_monotonicity": np.std(steps) if steps else None,
            "avg_time_per_sample": np.mean(seconds) if seconds else None,
            "total_time": float(sum(seconds)),
            "samples_completed": len(samples),
        }
    )


def to_plain(value: Any) -> Any:
    """Return a value as JSON can hold it; NaN and infinities become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(one) for one in value]
    if isinstance(value, np.generic | np.ndarray):
        return to_plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _select(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in FREE}
