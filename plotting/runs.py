"""From rows of `evaluation_results.csv` to runs and settings, the units that cross-run figures are about.

A run is a (task, trial, seed); its checkpoints are one run seen several times. A setting is what the run was trained
with, task included, seed and trial aside: runs of one setting are replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.records import wilson_interval

Row = Mapping[str, Any]

SETTING_COLUMNS = (
    *("task_id", "policy", "lpc_alpha", "normalize_lpc", "lpc_denominator", "lpc_eps", "lpc_exponent"),
    *("expert_hidden_sizes", "intermediate_dim", "router_hidden_size", "hidden_size", "lang_dim", "expert_norm"),
    *("expert_dropout", "lang_encoder", "train_lang_proj", "num_updates", "unroll_len", "lr"),
)
"""Columns by which settings differ."""

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
_NEAR_ZERO = 0.01
_CONSTANT = 1e-5  # float32 routing weights leave a constant LPC about 1e-7 apart


@dataclass(frozen=True, eq=False)
class Run:
    """One trained policy.

    Attributes:
        task_id: Its task.
        trial: Its trial, None if unknown.
        seed: Its seed, None if unknown.
        setting: Values of `SETTING_COLUMNS`, lists as text.
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
    """Return the runs by task, trial and seed, and notes on what does not count.

    Rows of the same update of a run count once (a run's final checkpoint is often its last numbered one), and so do
    runs of one task whose final weights are the same: evaluating a copy replicates nothing.
    """
    checkpoints: dict[tuple, list[Row]] = {}
    for row in rows:
        checkpoints.setdefault((row["task_id"], row.get("trial"), row.get("seed")), []).append(row)
    runs, seen, copies = [], set(), 0
    for key in sorted(checkpoints, key=lambda key: (key[0], *(-1 if part is None else part for part in key[1:]))):
        by_update = {_update(row): row for row in sorted(checkpoints[key], key=_order)}
        run = Run(*key, _setting(max(by_update.values(), key=_order)), tuple(by_update.values()))
        weights = (key[0], run.final.get("checkpoint_digest"))
        if weights[1] is not None and weights in seen:
            copies += 1
            continue
        seen.add(weights)
        runs.append(run)
    return runs, [f"{count_of(copies)} with the weights of another left out"] if copies else []


def group_settings(runs: Iterable[Run]) -> dict[tuple, list[Run]]:
    """Return the runs of each setting, settings in order of task, then of their other values."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    return {key: groups[key] for key in sorted(groups, key=lambda key: [_sortable(value) for value in key])}


def label_settings(settings: Sequence[tuple]) -> dict[tuple, str]:
    """Return for each setting, in words, its values in the columns in which settings of a task differ; "" if in none.

    So settings of different tasks can have one label, as in a legend. A policy without routers is told from others by
    its name alone.
    """
    differing = [
        (place, name)
        for place, name in enumerate(SETTING_COLUMNS)
        if any(
            len({s[place] for s in settings if s[0] == task and (name == "policy" or _routed(s))}) > 1
            for task in {s[0] for s in settings}
        )
    ]
    labels = {}
    for setting in settings:
        parts = [(name, setting[place]) for place, name in differing if name == "policy" or _routed(setting)]
        parts = [(name, value) for name, value in parts if value is not None]
        labels[setting] = ", ".join(_PHRASES.get(name, f"{name} {{}}").format(_text(value)) for name, value in parts)
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


def _setting(row: Row) -> tuple:
    values = (row.get(name) for name in SETTING_COLUMNS)
    return tuple(_text(value) if isinstance(value, list) else value for value in values)


def _routed(setting: tuple) -> bool:
    return setting[SETTING_COLUMNS.index("policy")] != "gru"


def _sortable(value: Any) -> tuple:
    return (value is not None, not isinstance(value, str), value if value is not None else 0)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        equal = len({str(part) for part in value}) == 1 and len(value) > 1 and isinstance(value[0], list)
        return f"{str(value[0]).replace(' ', '')} x {len(value)}" if equal else str(value).replace(" ", "")
    return str(value)
