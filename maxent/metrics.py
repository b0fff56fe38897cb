"""What is tracked of an experiment: the one table of keys, and the lines of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maxent.dts_implementation.search.estimates import RunningEstimates
from maxent.dts_implementation.search.result import Rollout
from maxent.results import PREFIX
from maxent.settings import ExperimentSettings, describe
from pipeline.tracking import Tracker, TrackingError, check_wandb, import_wandb

PROJECT = "maxent-ts-optimized"
"""Of Weights & Biases."""

METRICS: dict[str, str] = {
    "new_tokens": "new tokens fed since the run began, all samples together",
    "rollout_reward": "reward of this rollout",
    "rollout_idx": "number of the rollout within its sample, from 1",
    "output_length": "characters of the answer",
    "nodes_explored": "nodes that this rollout added to the tree",
    "time": "seconds that this rollout took",
    "best_so_far": "highest reward of the sample up to this rollout",
    "record_rate": "share of the sample's rollouts after the first that were better than all before",
    "log_weight": "log p + reward / lambda - log q, nats",
    "log_z": "estimate of log Z from the sample's rollouts so far, nats",
    "ess": "effective sample size of the sample's rollouts so far",
    "sample_{i}/best_reward": "highest reward of the sample",
    "sample_{i}/monotonicity": "share of the steps from rollout to rollout on which the reward rises",
    "sample_{i}/time": "seconds that the sample took",
    "sample_{i}/nodes": "nodes of the sample's tree, the prompt not counted",
    "final/avg_best_reward": "mean over samples of sample_{i}/best_reward",
    "final/std_best_reward": "its standard deviation over samples (n)",
    "final/avg_monotonicity": "mean over samples of sample_{i}/monotonicity",
    "final/std_monotonicity": "its standard deviation over samples (n)",
    "final/avg_time_per_sample": "mean seconds of a sample",
    "final/total_time": "seconds of all samples together",
    "final/samples_completed": "samples that were searched to their end",
}
"""Every key, and what it means; `{i}` stands for a sample's number, counted from 0."""


class RunLog:
    """The metrics of one model and method: a line for each rollout, each sample, and the end.

    Lines are numbered through (`update`), so that a run that goes on drops those of a sample that was not finished.

    Args:
        run: Its part of the results.
        settings: Of the experiments.
        results: The results file; metrics lie in a folder of its name beside it.
        wandb: What all runs tell `wandb.init`; None without Weights & Biases.
        announce: Is told, in a line, what is worth telling.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        settings: ExperimentSettings,
        results: Path,
        wandb: Mapping[str, Any] | None,
        announce: Callable[[str], object],
    ) -> None:
        samples = run["samples"]
        self._update = sum(len(sample["rollouts"]) + 1 for sample in samples)
        self._fed = sum(sample["cost"]["new"] for sample in samples)
        self._total = self._fed
        self._estimates = RunningEstimates()
        folder = results.with_suffix("") / f"{run['model']}_{run['method']}"
        stamp = results.stem.removeprefix(PREFIX)
        arguments: dict[str, Any] = {
            "config": {**describe(settings), **{name: run[name] for name in SHOWN}},
            "tensorboard": False,
            "resume_update": self._update if samples else None,
            "announce": announce,
            "table": METRICS,
            "counter": "new_tokens",
        }
        chosen = None if wandb is None else {**wandb, **name_run(run, settings, stamp)}
        try:
            self._tracker = Tracker(folder, wandb_project=chosen, **arguments)
        except TrackingError as error:
            if chosen is None:
                raise
            announce(f"{error}; goes on without it")
            self._tracker = Tracker(folder, wandb_project=None, **arguments)

    def begin_sample(self) -> None:
        """Begin the next sample."""
        self._estimates = RunningEstimates()
        self._total = self._fed

    def note_rollout(self, rollout: Rollout) -> None:
        """Log a rollout."""
        self._estimates.add(rollout)
        self._total = self._fed + rollout.total_new_tokens
        self._log(
            {
                "rollout_reward": rollout.reward,
                "rollout_idx": rollout.index,
                "output_length": len(rollout.text),
                "nodes_explored": rollout.nodes,
                "time": rollout.seconds,
                "best_so_far": rollout.best_so_far,
                "record_rate": self._estimates.record_rate,
                "log_weight": rollout.log_weight,
                "log_z": self._estimates.log_z,
                "ess": self._estimates.ess,
            }
        )

    def note_sample(self, index: int, sample: Mapping[str, Any]) -> None:
        """Log a sample that is done; `sample` is as in the results."""
        self._fed = self._total = self._fed + sample["cost"]["new"]
        self._log({f"sample_{index}/{name}": sample[name] for name in ("best_reward", "monotonicity", "time", "nodes")})

    def note_end(self, summary: Mapping[str, Any]) -> None:
        """Log the figures of all samples."""
        self._log({f"final/{name}": value for name, value in summary.items()})

    def close(self, *, failed: bool = False) -> bool:
        """End the run; return whether all lines were written."""
        self._tracker.close(failed=failed)
        return self._tracker.missing is None

    def _log(self, metrics: dict[str, Any]) -> None:
        self._update += 1
        self._tracker.log(self._update, {"new_tokens": self._total, **metrics})


SHOWN = ("model", "display_name", "color", "method", "weights", "source", "kv", "simulator", "num_recurrences")
"""Of a run's part of the results, what Weights & Biases is told as well."""


def choose_wandb(settings: ExperimentSettings, announce: Callable[[str], object]) -> dict[str, Any] | None:
    """Return what all runs tell `wandb.init`; None without Weights & Biases.

    What is missing is announced and done without: a package, or a key, without which its files stay here.
    """
    if settings.no_wandb or settings.wandb_mode == "disabled":
        return None
    try:
        import_wandb()
    except TrackingError:
        announce(
            "Weights & Biases is not installed (pip install wandb): metrics are beside the results, in metrics.jsonl"
        )
        return None
    mode = settings.wandb_mode
    if mode == "online":
        try:
            check_wandb()
        except TrackingError as error:
            announce(f"{error}; its files stay here, for `wandb sync`")
            mode = "offline"
    return {"project": PROJECT, "mode": mode}


def name_run(run: Mapping[str, Any], settings: ExperimentSettings, stamp: str) -> dict[str, Any]:
    """Return name and tags of a run; with several methods the name ends with that of its own."""
    display = run["display_name"]
    name = f"{display}_{stamp}" if settings.experiment_name is None else f"{settings.experiment_name}_{display}"
    tags = ["optimized", "monotonicity", settings.dataset, f"color:{run['color']}", display]
    tags += ["stand-in"] * settings.is_stand_in(run["model"]) + settings.tags
    return {"name": name if len(settings.methods) == 1 else f"{name}_{run['method']}", "tags": tags}
