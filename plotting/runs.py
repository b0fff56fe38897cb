"""From rows of `evaluation_results.csv` to runs and settings, the units that cross-run figures are about.

A run is a (task, trial, seed) in one folder of checkpoints; its checkpoints are one run seen several times. A setting
is what the run was trained with and how it was evaluated, task included, seed and trial aside: runs of one setting are
replicates. Of the training a CSV tells the columns of `SETTING_COLUMNS` only: runs that differ in nothing but another
field, such as `num_envs`, `grad_clip`, `expert_action_prob` or the task they were trained on, count as replicates here.
Caches hold the whole configuration, by which `plotting.replicates` tells such runs apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipeline.config import NOT_IDENTITY, TrainConfig
from pipeline.records.intervals import wilson_interval

Row = Mapping[str, Any]

SETTING_COLUMNS = (
    *("task_id", "policy", "lpc_alpha", "normalize_lpc", "lpc_denominator", "lpc_eps", "lpc_exponent"),
    *("expert_hidden_sizes", "intermediate_dim", "router_hidden_size", "hidden_size", "lang_dim", "expert_norm"),
    *("expert_dropout", "lang_encoder", "train_lang_proj", "num_updates", "unroll_len", "lr"),
    *("max_steps", "eval_seed"),
)
"""Columns by which settings differ; the last two are of the evaluation, as the task is; the others of the training."""

_ALSO_EVALUATED = ("task_id", "max_steps")  # columns that are of the evaluation, and fields of the training
_NOT_SETTING = NOT_IDENTITY.union(SETTING_COLUMNS, ("trial", "seed", "window")).difference(_ALSO_EVALUATED)
FURTHER_FIELDS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in _NOT_SETTING)
"""Fields of a configuration, beyond those columns, by which settings differ where a row holds its `config`.

`task_id` and `max_steps` are those of the training here.
"""

METRIC_LABELS = {
    "success_rate": "Success rate",
    "mean_lpc": "LPC, mean over steps",
    "path_ratio": "Steps / expert's steps",
    "agreement": "Agreement with the expert",
}
"""Metrics that can be drawn by task, over updates, against a setting."""

_PHRASES = {
    "policy": "{}",
    "lpc_alpha": "\N{GREEK SMALL LETTER ALPHA} = {}",
    "normalize_lpc": "normalized {}",
    "lpc_denominator": "denominator {}",
    "expert_hidden_sizes": "experts {}",
    "num_updates": "{} updates",
}
_FURTHER_PHRASES = {"task_id": "trained on {}", "max_steps": "max_steps {} in training"}
_ROUTERS = frozenset(
    "lpc_alpha normalize_lpc lpc_denominator lpc_eps lpc_exponent expert_hidden_sizes intermediate_dim "
    "router_hidden_size expert_norm expert_dropout expert_dropout_beta expert_dropout_gamma".split()
)
_NEAR_ZERO = 0.01
_CONSTANT = 1e-5  # float32 routing weights leave a constant LPC about 1e-7 apart


@dataclass(frozen=True, eq=False)
class Run:
    """One trained policy.

    Attributes:
        task_id: Its task.
        trial: Its trial, None if unknown.
        seed: Its seed, None if unknown.
        setting: Values of `SETTING_COLUMNS`, lists as text; last a tuple of (name, value), of those `FURTHER_FIELDS`
            that are known. What only routers have is None, or left out, for a policy without.
        rows: Its evaluated checkpoints by update, the final one last.
    """

    task_id: str
    trial: int | None
    seed: int | None
    setting: tuple
    rows: tuple[Row, ...]

    @property
    def final(self) -> Row:
        """Its last checkpoint."""
        return self.rows[-1]

    def value(self, column: str) -> float:
        """Return a number of the last checkpoint, NaN where there is none."""
        return number(self.final, column)


def number(row: Row, column: str) -> float:
    """Return a cell as a float, NaN for one that is empty."""
    value = row.get(column)
    return math.nan if value is None else float(value)


def collect_runs(rows: Iterable[Row]) -> tuple[list[Run], list[str]]:
    """Return the runs by task, trial, seed and folder, and notes on what does not count and on what is doubtful.

    Rows of the same update of a run count once (a run's final checkpoint is often its last numbered one), and so do
    runs of one task whose final weights are the same: evaluating a copy replicates nothing. Checkpoints that were
    evaluated with another `max_steps` or `eval_seed` than the last one of their run do not count.

    Args:
        rows: From `read_results`; one may hold a `config`, a mapping of the run's settings as in a cache's header.
    """
    checkpoints: dict[tuple, list[Row]] = {}
    for row in rows:
        folder = PurePosixPath(str(row.get("checkpoint_path") or "")).parent.as_posix()
        checkpoints.setdefault((row["task_id"], row.get("trial"), row.get("seed"), folder), []).append(row)
    runs, seen = [], set()
    copies = otherwise = replaced = 0
    for key in sorted(checkpoints, key=lambda key: tuple(_sortable(part) for part in key)):
        members = sorted(checkpoints[key], key=_order)
        alike = [row for row in members if _evaluated(row) == _evaluated(members[-1])]
        by_update = {_update(row): row for row in alike}
        otherwise += len(members) - len(alike)
        replaced += sum(_other_weights(row, by_update[_update(row)]) for row in alike)
        run = Run(*key[:3], _setting(members[-1]), tuple(sorted(by_update.values(), key=_order)))
        weights = (key[0], run.final.get("checkpoint_digest"))
        if weights[1] is not None and weights in seen:
            copies += 1
            continue
        seen.add(weights)
        runs.append(run)
    same = Counter((run.task_id, run.trial, run.seed) for run in runs)
    repeated = sum(n - 1 for (_, trial, seed), n in same.items() if (trial, seed) != (None, None))
    notes = [
        f"{count_of(copies)} with the weights of another left out" if copies else "",
        f"{count_of(repeated)} with the task, trial and seed of another in another folder" if repeated else "",
        f"{count_of(otherwise, 'checkpoint')} left out, evaluated with another max_steps or eval_seed than the last of "
        "the run"
        if otherwise
        else "",
        f"{count_of(replaced, 'checkpoint')} left out, of the same run and update as another" if replaced else "",
    ]
    return runs, [note for note in notes if note]


def group_settings(runs: Iterable[Run]) -> dict[tuple, list[Run]]:
    """Return the runs of each setting, settings in order of task, then of their other values."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    return {key: groups[key] for key in sorted(groups, key=_setting_order)}


def label_settings(settings: Sequence[tuple]) -> dict[tuple, str]:
    """Return for each setting, in words, its values in the columns in which settings of a task differ; "" if in none.

    So settings of different tasks can have one label, as in a legend. Policies with routers are compared with each
    other, those without too; the two are told apart by the policy alone.
    """
    differing = {routed: _find_differing([s for s in settings if _routed(s) == routed]) for routed in (True, False)}
    policy = SETTING_COLUMNS.index("policy")
    mixed = any(len({s[policy] for s in settings if s[0] == task}) > 1 for task in {s[0] for s in settings})
    labels = {}
    for setting in settings:
        names, further, unsure = differing[_routed(setting)]
        columns, told = dict(zip(SETTING_COLUMNS, setting, strict=False)), dict(setting[-1])
        parts = [
            _PHRASES.get(name, f"{name} {{}}").format(_text(columns[name]))
            for name in SETTING_COLUMNS
            if (mixed if name == "policy" else name in names) and columns[name] is not None
        ]
        parts += [
            _FURTHER_PHRASES.get(name, f"{name} {{}}").format(_text(told[name])) for name in further if name in told
        ]
        unknown = [name for name in unsure if name not in told]
        if unknown:
            parts.append(f"unknown: {', '.join(unknown)}" if told else "configuration unknown")
        labels[setting] = ", ".join(parts)
    return labels


def count_of(n: int, word: str = "run") -> str:
    """Return "1 run", "2 runs"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def short_task(task_id: str) -> str:
    """Return a task's name without what all tasks have: `BabyAI-GoToObj-v0` -> `GoToObj`."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def success_interval(row: Row) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a checkpoint's success over levels; NaN if its rate is not known."""
    if row.get("success_low") is not None and row.get("success_high") is not None:
        return float(row["success_low"]), float(row["success_high"])
    if row.get("success_rate") is None or not row.get("num_episodes"):
        return math.nan, math.nan
    return wilson_interval(round(row["success_rate"] * row["num_episodes"]), row["num_episodes"])


def check_metric(metric: str) -> None:
    """Raise ValueError unless this is a metric of `METRIC_LABELS`."""
    if metric not in METRIC_LABELS:
        raise ValueError(f"metric: expected one of {', '.join(METRIC_LABELS)}, found {metric!r}")


def clip_to_range(metric: str, low: float | np.ndarray, high: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of an interval that a metric can take: rates are in [0, 1], the others not negative."""
    highest = 1.0 if metric in ("success_rate", "agreement") else np.inf
    return np.clip(low, 0.0, highest), np.clip(high, 0.0, highest)


def has_lpc(row: Row) -> bool:
    """Return whether the policy has routers, as far as the row tells."""
    return row.get("mean_lpc") is not None


def describe_collapse(row: Row) -> str:
    """Return "zero", "constant" or "": whether a checkpoint's router has collapsed, as far as its means tell.

    zero: the mean LPC is below 1 % of the largest that its experts allow. constant: the mean over steps, that over
    episodes and those of each outcome are the same number, although the episodes are not equally long (they ended in
    more than one way, or as successes, on levels of different lengths).
    """
    if not has_lpc(row):
        return ""
    largest = sum(max(layer, default=0) ** 2 for layer in row.get("expert_hidden_sizes") or [])
    if row["mean_lpc"] <= _NEAR_ZERO * largest:
        return "zero"
    outcomes = [row.get(f"mean_lpc_{name}") for name in ("success", "failure", "timeout")]
    known = [value for value in outcomes if value is not None]
    means = [row["mean_lpc"], row.get("mean_lpc_per_episode"), *known]
    varied = len(known) > 1 or outcomes[0] is not None
    if not varied or means[1] is None or (row.get("num_episodes") or 0) < 2:
        return ""
    return "constant" if max(means) - min(means) <= _CONSTANT * max(means) else ""


def pareto_front(success: Sequence[float], lpc: Sequence[float]) -> np.ndarray:
    """Return the indices, by LPC, of the points that no other point beats.

    One beats another if its success is as high and its LPC as low, and one of the two is better.

    Args:
        success: (n,), high is good.
        lpc: (n,), low is good; a point with a NaN is on no front.
    """
    s, c = np.asarray(success, np.float64), np.asarray(lpc, np.float64)
    as_good = (s[None, :] >= s[:, None]) & (c[None, :] <= c[:, None])
    better = (s[None, :] > s[:, None]) | (c[None, :] < c[:, None])
    front = np.flatnonzero(~(as_good & better).any(axis=1) & np.isfinite(s) & np.isfinite(c))
    return front[np.lexsort((s[front], c[front]))]


def _update(row: Row) -> int:
    update = row.get("update")
    return -1 if update is None else int(update)


def _order(row: Row) -> tuple[bool, int]:
    """Sort checkpoints: a final one comes last, also where its update is not known."""
    return str(row.get("checkpoint_path") or "").endswith("checkpoint_final.pt"), _update(row)


def _evaluated(row: Row) -> tuple:
    return row.get("max_steps"), row.get("eval_seed")


def _other_weights(row: Row, kept: Row) -> bool:
    """Return whether two rows of an update are known to be of different weights."""
    digests = {row.get("checkpoint_digest"), kept.get("checkpoint_digest")}
    return len(digests) > 1 and None not in digests


def _setting(row: Row) -> tuple:
    routed = row.get("policy") != "gru"
    values = [_cell(row.get(name)) if routed or name not in _ROUTERS else None for name in SETTING_COLUMNS]
    config = row.get("config")
    told = config if isinstance(config, Mapping) else {}
    further = [
        (name, short_task(str(told[name])) if name == "task_id" else _cell(told[name]))
        for name in FURTHER_FIELDS
        if name in told and (routed or name not in _ROUTERS)
    ]
    return (*values, tuple(further))


def _cell(value: Any) -> Any:
    """Return a value that can be compared and hashed, lists as text."""
    if isinstance(value, list):
        return _text(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _routed(setting: tuple) -> bool:
    return setting[SETTING_COLUMNS.index("policy")] != "gru"


def _find_differing(settings: Sequence[tuple]) -> tuple[list[str], list[str], list[str]]:
    """Return the columns in which settings of a task differ, the further fields, and those that not all of it tell."""
    columns, further, unsure = set(), set(), set()
    for task in {setting[0] for setting in settings}:
        members = [setting for setting in settings if setting[0] == task]
        columns |= {name for k, name in enumerate(SETTING_COLUMNS) if len({setting[k] for setting in members}) > 1}
        for name in FURTHER_FIELDS:
            told = [dict(setting[-1])[name] for setting in members if name in dict(setting[-1])]
            further |= {name} if len(set(told)) > 1 else set()
            unsure |= {name} if 0 < len(told) < len(members) else set()
    return (
        [name for name in SETTING_COLUMNS if name in columns],
        [name for name in FURTHER_FIELDS if name in further],
        [name for name in FURTHER_FIELDS if name in unsure],
    )


def _setting_order(setting: tuple) -> tuple:
    further = tuple((name, _sortable(value)) for name, value in setting[-1])
    return (*(_sortable(value) for value in setting[:-1]), further)


def _sortable(value: Any) -> tuple:
    return (value is not None, not isinstance(value, str), value if value is not None else 0)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        equal = len({str(part) for part in value}) == 1 and len(value) > 1 and isinstance(value[0], list)
        return f"{str(value[0]).replace(' ', '')} x {len(value)}" if equal else str(value).replace(" ", "")
    return str(value)
