"""What charts need of a results file, checked once: arrays by run and sample, and what is to be said of them.

experiment = read_experiment(Path("evaluation/results/wandb_experiments_20260101_120000.json"))
experiment.runs[0].samples[0].rewards           # (rollouts,) float64
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxent.results import SCHEMA_VERSION
from pipeline.command.errors import UserError


class ResultsFileError(UserError, ValueError):
    """A results file that cannot be drawn; the message says what was found."""


@dataclass(frozen=True)
class SampleRecord:
    """The search of one sample; n rollouts.

    Attributes:
        id: Of the sample.
        rewards: (n,) float64, in the order in which they were drawn.
        tokens: (n,) float64, new tokens fed up to and with each rollout.
        best_reward: The highest.
        strict: Share of the steps on which the reward rises, None for a single rollout.
        non_strict: Share of the steps on which it does not fall, None for a single rollout.
        seconds: That the search took.
        answer: Place of the answer among the rollouts, from 0.
    """

    id: str
    rewards: np.ndarray
    tokens: np.ndarray
    best_reward: float
    strict: float | None
    non_strict: float | None
    seconds: float
    answer: int


@dataclass(frozen=True)
class RunRecord:
    """A model and a method.

    Attributes:
        model: Key.
        name: As it is displayed.
        color: Of the model, #RRGGBB.
        method: Key.
        status: waiting, running, done or failed.
        error: Why it failed, "" if it did not.
        weights: pretrained, stand-in or toy; None if the model was not loaded.
        simulator: The model plans with the environment itself.
        samples: Those that are done.
    """

    model: str
    name: str
    color: str
    method: str
    status: str
    error: str
    weights: str | None
    simulator: bool
    samples: tuple[SampleRecord, ...]

    @property
    def label(self) -> str:
        """Name and method."""
        return f"{self.name}, {self.method}"


@dataclass(frozen=True)
class Experiment:
    """A results file.

    Attributes:
        path: Of it.
        status: running, done, failed or interrupted.
        data: Name of the dataset.
        kind: real or synthetic.
        reward: Its name.
        sees_label: The reward knows the answer.
        lam: Lambda, in units of the reward.
        seed: Of all draws.
        runs: In the order of the file.
    """

    path: Path
    status: str
    data: str
    kind: str
    reward: str
    sees_label: bool
    lam: float
    seed: int
    runs: tuple[RunRecord, ...]

    @property
    def drawn(self) -> tuple[RunRecord, ...]:
        """The runs with at least one sample that is done."""
        return tuple(run for run in self.runs if run.samples)


def read_experiment(path: Path) -> Experiment:
    """Return what a results file holds.

    Raises:
        ResultsFileError: If it is none, or of another version.
    """
    content = read_content(path)
    try:
        return Experiment(
            path=path,
            status=_take(content, "status", str),
            data=_take(content, "data.name", str),
            kind=_take(content, "data.kind", str),
            reward=_take(content, "reward.name", str),
            sees_label=_take(content, "reward.sees_label", bool),
            lam=_take(content, "settings.lam", float),
            seed=_take(content, "seed", int),
            runs=tuple(_read_run(run, f"runs[{at}]") for at, run in enumerate(_take(content, "runs", list))),
        )
    except ResultsFileError as error:
        raise ResultsFileError(f"{path}: {error}; expected a file as run_experiments_with_wandb.py writes it") from None


def read_content(path: Path) -> dict[str, Any]:
    """Return a results file as plain values.

    Raises:
        ResultsFileError: If it is none, or of another version.
    """
    wanted = "expected a results file, wandb_experiments_{stamp}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsFileError(f"{path}: cannot be read ({error.strerror}); {wanted}") from None
    except ValueError as error:
        raise ResultsFileError(f"{path}: {wanted}, found no JSON ({error})") from None
    if not isinstance(content, dict) or "runs" not in content:
        raise ResultsFileError(f"{path}: {wanted}, found JSON without runs")
    if (version := content.get("schema_version")) != SCHEMA_VERSION:
        raise ResultsFileError(f"{path}: expected schema_version {SCHEMA_VERSION}, found {version!r}")
    return content


def _read_run(run: Any, where: str) -> RunRecord:
    color = _take(run, "color", str, where)
    if not re.fullmatch("#[0-9A-Fa-f]{6}", color):
        raise ResultsFileError(f"{where}.color: expected #RRGGBB, found {color!r}")
    samples = _take(run, "samples", list, where)
    return RunRecord(
        model=_take(run, "model", str, where),
        name=_take(run, "display_name", str, where),
        color=color,
        method=_take(run, "method", str, where),
        status=_take(run, "status", str, where),
        error=_take(run, "error.message", str, where) if run.get("error") else "",
        weights=_take(run, "weights", str, where) if run.get("weights") is not None else None,
        simulator=run.get("simulator") is True,
        samples=tuple(_read_sample(one, f"{where}.samples[{at}]") for at, one in enumerate(samples)),
    )


def _read_sample(sample: Any, where: str) -> SampleRecord:
    rollouts = _take(sample, "rollouts", list, where)
    if not rollouts:
        raise ResultsFileError(f"{where}.rollouts: expected at least one, found none")
    places = [f"{where}.rollouts[{at}]" for at in range(len(rollouts))]
    columns = {
        name: np.array([_take(one, name, float, place) for one, place in zip(rollouts, places, strict=True)])
        for name in ("reward", "total_new_tokens")
    }
    answer = _take(sample, "answer.rollout", int, where)
    if not 1 <= answer <= len(rollouts):
        raise ResultsFileError(f"{where}.answer.rollout: expected 1 to {len(rollouts)}, found {answer}")
    rates = {
        name: None if sample.get(name) is None else _take(sample, name, float, where)
        for name in ("monotonicity", "monotonicity_non_strict")
    }
    return SampleRecord(
        id=_take(sample, "id", str, where),
        rewards=columns["reward"],
        tokens=columns["total_new_tokens"],
        best_reward=_take(sample, "best_reward", float, where),
        strict=rates["monotonicity"],
        non_strict=rates["monotonicity_non_strict"],
        seconds=_take(sample, "time", float, where),
        answer=answer - 1,
    )


def _take(holder: Any, name: str, kind: type, where: str = "") -> Any:
    """Return a value by a path such as `data.name`.

    Raises:
        ResultsFileError: If it is missing, or of another kind; a float must be finite, and may be written as integer.
    """
    value, place = holder, where
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ResultsFileError(f"{place or 'the file'}: {part!r} is missing")
        value, place = value[part], f"{place}.{part}".lstrip(".")
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ResultsFileError(f"{place}: expected {kind.__name__}, found {value!r:.60}")
    if kind is float and not math.isfinite(value):
        raise ResultsFileError(f"{place}: expected a finite number, found {value!r}")
    return value


# ------------------------------------------------------------------------------------------------------------ in words


def describe_experiment(experiment: Experiment) -> list[str]:
    """Return the small print of every chart: data, reward, weights, samples, and what is not whole."""
    runs = experiment.drawn
    lines = [
        f"{_describe_counts(runs)}; {experiment.data}, {experiment.kind} data; reward: {experiment.reward}; "
        f"\u03bb\u00a0=\u00a0{experiment.lam:g}; seed\u00a0{experiment.seed}; weights: {_describe_weights(runs)}"
    ]
    if any(run.simulator for run in runs):
        lines.append("planned with the environment as simulator: no evaluation of the policy")
    failed = [run for run in experiment.runs if run.status == "failed"]
    if failed:
        lines.append("failed: " + "; ".join(f"{run.label} (after {_count(run)})" for run in failed))
    stopped = [run for run in experiment.runs if run.status in ("waiting", "running")]
    if stopped:
        lines.append("not finished: " + "; ".join(f"{run.label} ({_count(run)})" for run in stopped))
    return lines


def find_warning(experiment: Experiment) -> str:
    """Return what must not be overlooked of the reward; "" if there is nothing."""
    if experiment.sees_label:
        return f"The reward {experiment.reward} sees the label: an upper bound, no result."
    if experiment.reward == "legacy":
        return "The reward legacy can be gamed: shown for comparison with old figures only."
    return ""


def _describe_weights(runs: Sequence[RunRecord]) -> str:
    names: dict[str, list[str]] = {}
    for run in runs:
        known = names.setdefault(run.weights or "unknown", [])
        if run.name not in known:
            known.append(run.name)
    if len(names) == 1:
        return next(iter(names))
    shown = {
        weights: ", ".join(models) if len(models) < 3 else f"{len(models)} models" for weights, models in names.items()
    }
    return ", ".join(f"{weights} ({models})" for weights, models in shown.items())


def _describe_counts(runs: Sequence[RunRecord]) -> str:
    counts = sorted({len(run.samples) for run in runs})
    return (
        f"n = {counts[0]} sample{'s' * (counts[0] != 1)}"
        if len(counts) == 1
        else f"n = {counts[0]} to {counts[-1]} samples"
    )


def _count(run: RunRecord) -> str:
    return f"{len(run.samples)} sample{'s' * (len(run.samples) != 1)}"
