"""From rows of `evaluation_results.csv` to runs and settings, the units that cross-run figures are about.

    runs, notes = collect_runs(read_results("evaluation_results.csv"))      # checkpoints, by run
    last = group_settings(last_checkpoints(runs))                           # a row per run, with `setting` and `label`
    last.groupby("label")["success_rate"].mean()

A run is a (task, trial, seed) in one folder of checkpoints; its checkpoints are one run seen several times. A setting
is what the run was trained with and how it was evaluated, task included, seed and trial aside: runs of one setting are
replicates. Rows from before there were `FURTHER_COLUMNS` do not tell these; where others do, they are a setting of
their own, named as unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LATER_FIELDS, NOT_IDENTITY, TrainConfig
from pipeline.places import FINAL_NAME
from pipeline.records.cells import OF_TRAINING
from pipeline.records.intervals import wilson_interval
from pipeline.records.results import Rows, as_results
from plotting.collapse import describe_collapse
from plotting.style import count_of

MIXTURE_COLUMNS = ("trained_levels", "task_weights", "task_input")
"""Columns by which runs of one mixture, or of one level, differ."""

OF_EVALUATION = ("max_steps", "eval_seed", "eval_actions")
"""Columns by which evaluations differ, beside the level."""

SETTING_COLUMNS = (
    *("task_id", "trained_on", "policy", "lpc_alpha", "normalize_lpc", "lpc_denominator", "lpc_eps", "lpc_exponent"),
    *("expert_hidden_sizes", "intermediate_dim", "router_hidden_size", "hidden_size", "lang_dim", "expert_norm"),
    *("expert_dropout", "obs_encoding", "mission_fusion", "lang_encoder", "train_lang_proj"),
    *("num_updates", "unroll_len", "lr", "expert_action_prob", "solo_env_share"),
    *MIXTURE_COLUMNS,
    *OF_EVALUATION,
)
"""Columns by which settings differ; the last three are of the evaluation, as the task is; the others of the training.

The task is the level that was played; `trained_on`, see `by_played_level`, a mixture or another level.
"""

_ALSO_EVALUATED = ("task_id", "max_steps")  # columns that are of the evaluation, and fields of the training
_NOT_SETTING = NOT_IDENTITY.union(SETTING_COLUMNS, ("trial", "seed", "window", "mixture")).difference(_ALSO_EVALUATED)
FURTHER_FIELDS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in _NOT_SETTING)
"""Fields of a configuration, beyond those columns, by which settings differ where a row tells them.

A row tells all in its `config`, if it has one, otherwise those of `FURTHER_COLUMNS`. `task_id` and `max_steps` are
those of the training here.
"""

FURTHER_COLUMNS = {
    **{name: name for name in ("num_envs", "action_selection", "expert_action_decay", "grad_clip", "plan_every")},
    **{name: name for name in ("expert_dropout_beta", "expert_dropout_gamma", "start_from", "train_only")},
    "max_steps": OF_TRAINING["max_steps"],
}
"""Columns of the results that hold further fields, by field; a row without `num_envs` tells none of them."""

_BEFORE = {
    **{name: LATER_FIELDS[name] for name in ("task_input", "obs_encoding", "mission_fusion", "solo_env_share")},
    "expert_action_prob": 0.0,
    "eval_actions": "greedy",
}
"""What rows count as that are from before a column, and what a caption does not mention."""

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
    "trained_on": "trained on {}",
    "trained_levels": "levels {}",
    "task_weights": "weights {}",
    "task_input": "task input {}",
    "obs_encoding": "observations {}",
    "mission_fusion": "missions by {}",
    "expert_action_prob": "expert acts at {} of the steps",
    "solo_env_share": "{} of the environments solo",
    "eval_actions": "actions: {}",
    "config.task_id": "trained on {}",
    "config.max_steps": "max_steps {} in training",
}
_ROUTERS = frozenset(
    "lpc_alpha normalize_lpc lpc_denominator lpc_eps lpc_exponent expert_hidden_sizes intermediate_dim "
    "router_hidden_size expert_norm expert_dropout expert_dropout_beta expert_dropout_gamma".split()
)


def collect_runs(rows: Rows) -> tuple[pd.DataFrame, list[str]]:
    """Return the checkpoints that count, and notes on what does not count and on what is doubtful.

    Rows of the same update of a run count once (a run's final checkpoint is often its last numbered one), and so do
    runs of one task whose final weights are the same: evaluating a copy replicates nothing. Checkpoints that were
    evaluated with another `max_steps`, `eval_seed` or `eval_actions` than the last one of their run do not count. A run
    that was evaluated on several levels is a run of each, see `by_played_level`.

    Args:
        rows: From `read_results`; a column `config` may hold mappings of the runs' settings, as in a cache's header.

    Returns:
        Rows by task, trial, seed and folder, of each run by update, the final one last; with the columns `run`, a
        number, and `collapse`, see `describe_collapse`. `success_low` and `success_high` are filled in where missing.
    """
    results = by_played_level(as_results(rows))
    paths = results["checkpoint_path"].fillna("").astype(str)
    results = results.assign(
        folder=[PurePosixPath(path).parent.as_posix() for path in paths],
        is_final=paths.str.endswith(FINAL_NAME),
        at=results["update"].fillna(-1),
        eval_actions=results["eval_actions"].fillna("greedy"),
    )
    identity = ["task_id", "trial", "seed", "folder"]
    results = results.sort_values([*identity, "is_final", "at"], na_position="first")
    results["run"] = results.groupby(identity, dropna=False, sort=False).ngroup()
    evaluated = results.groupby(["run", *OF_EVALUATION], dropna=False, sort=False).ngroup()
    alike = results[evaluated == evaluated.groupby(results["run"]).transform("last")]
    runs = alike.drop_duplicates(["run", "at"], keep="last")
    pairs = alike.merge(runs, on=["run", "at"], suffixes=("", "_kept"))
    replaced = (pairs["checkpoint_digest"] != pairs["checkpoint_digest_kept"]).fillna(False).sum()
    last = last_checkpoints(runs)
    copied = last["checkpoint_digest"].notna() & last.duplicated(["task_id", "checkpoint_digest"])
    runs, last = runs[~runs["run"].isin(last["run"][copied])], last[~copied]
    named = last[["trial", "seed"]].notna().any(axis=1)
    repeated = (named & last.duplicated(["task_id", "trained_on", "trial", "seed"])).sum()
    low, high = success_intervals(runs)
    runs = runs.assign(success_low=low, success_high=high, collapse=describe_collapse(runs))
    otherwise = len(results) - len(alike)
    notes = {
        f"{count_of(copied.sum())} with the weights of another left out": copied.sum(),
        f"{count_of(repeated)} with the task, trial and seed of another in another folder": repeated,
        f"{count_of(otherwise, 'checkpoint')} left out, evaluated with another max_steps, eval_seed or "
        "eval_actions than the last of the run": otherwise,
        f"{count_of(replaced, 'checkpoint')} left out, of the same run and update as another": replaced,
    }
    return runs.drop(columns=["folder", "is_final", "at"]), [note for note, count in notes.items() if count]


def by_played_level(results: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose `task_id` is the level that was played, as all figures take it.

    `trained_on`, a column more, is the name of the run where that is another: of a mixture, or of the level that it was
    trained on; NA otherwise. Rows that have been through this are returned as they are.

    Args:
        results: From `as_results`.
    """
    if "trained_on" in results:
        return results
    played = results["eval_task_id"].fillna(results["task_id"])
    return results.assign(task_id=played, trained_on=results["task_id"].where(results["task_id"] != played))


def last_checkpoints(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the last checkpoint of each run of `collect_runs`."""
    return runs.drop_duplicates("run", keep="last")


def group_settings(last: pd.DataFrame, ignore: str | None = None) -> pd.DataFrame:
    """Return runs by setting, with the columns `setting`, a number, and `label`.

    Settings are in order of task, then of their other values. The label tells in words the values in which settings of
    a task differ; "" if in none. So settings of different tasks can have one label, as in a legend. Policies with
    routers are compared with each other, those without too; the two are told apart by the policy alone.

    Args:
        last: From `last_checkpoints`, some or all.
        ignore: One of `SETTING_COLUMNS` by which settings are not to differ.
    """
    values = _setting_values(last).drop(columns=ignore or [])
    keys = list(values.itertuples(index=False, name=None))
    order = {key: k for k, key in enumerate(sorted(set(keys), key=lambda key: tuple(map(_sortable, key))))}
    numbers = [order[key] for key in keys]
    settings = values.assign(setting=numbers).drop_duplicates("setting").set_index("setting")
    labels = _label_settings(settings)
    return last.assign(setting=numbers, label=[labels[k] for k in numbers]).sort_values("setting", kind="stable")


def short_task(task_id: str) -> str:
    """Return a task's name without what all tasks have: `BabyAI-GoToObj-v0` -> `GoToObj`."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def success_intervals(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the ends of the 95 % Wilson intervals of success over levels; NaN if the rate is not known."""
    low, high = rows["success_low"].copy(), rows["success_high"].copy()
    missing = (low.isna() | high.isna()) & rows["success_rate"].notna() & (rows["num_episodes"].fillna(0) > 0)
    for place in np.flatnonzero(missing):  # files of other code
        rate, n = rows["success_rate"].iloc[place], int(rows["num_episodes"].iloc[place])
        low.iloc[place], high.iloc[place] = wilson_interval(round(rate * n), n)
    return low, high


def check_metrics(*metrics: str) -> None:
    """Raise ValueError unless these are metrics of `METRIC_LABELS`."""
    for metric in metrics:
        if metric not in METRIC_LABELS:
            raise ValueError(f"metric: expected one of {', '.join(METRIC_LABELS)}, found {metric!r}")


def clip_to_range(metric: str, low: float | np.ndarray, high: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of an interval that a metric can take: rates are in [0, 1], the others not negative."""
    highest = 1.0 if metric in ("success_rate", "agreement") else np.inf
    return np.clip(low, 0.0, highest), np.clip(high, 0.0, highest)


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


def _setting_values(last: pd.DataFrame) -> pd.DataFrame:
    """Return what runs were trained and evaluated with, as values that can be compared; None is not known.

    Columns are `SETTING_COLUMNS`, and `config.` with those `FURTHER_FIELDS` that a run's `config` tells.
    """
    values = last[list(SETTING_COLUMNS)].astype(object)
    for name, before in _BEFORE.items():
        values[name] = values[name].fillna(before)  # rows from before do not tell
    values["trained_levels"] = values["trained_levels"].map(_name_levels, na_action="ignore")
    configs = [{**LATER_FIELDS, **config} if config else {} for config in _find_configs(last)]  # older ones do not tell
    for name in FURTHER_FIELDS:
        told = [_told(name, config[name]) if name in config else None for config in configs]
        if any(value is not None for value in told):
            values[f"config.{name}"] = np.array(told, object)
    values = values.map(lambda value: _text(value) if isinstance(value, list) else value).astype(object)
    values = values.where(values.notna(), None)
    routers = [name for name in values if name.removeprefix("config.") in _ROUTERS]
    values.loc[(last["policy"] == "gru").fillna(False).to_numpy(bool), routers] = None
    return values


def _find_configs(last: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Return what each row tells of `FURTHER_FIELDS`, and perhaps of others; nothing of a row that does not tell."""
    known = last[list(FURTHER_COLUMNS.values())].astype(object)
    known = known.where(known.notna(), None).set_axis(list(FURTHER_COLUMNS), axis=1)
    rows = [row if row["num_envs"] is not None else {} for row in known.to_dict("records")]
    configs = last.get("config", [None] * len(last))
    return [
        config if isinstance(config, Mapping) and config else row for config, row in zip(configs, rows, strict=True)
    ]


def _told(name: str, value: Any) -> Any:
    """Return a value of a configuration; None, which is a value too, as text."""
    if name == "task_id":
        return short_task(value) if isinstance(value, str) else _name_levels(value)
    return value if isinstance(value, str | int | float) else _text(value)


def _name_levels(levels: list[str]) -> str:
    """Return short names of levels."""
    return ", ".join(map(short_task, levels))


def _label_settings(settings: pd.DataFrame) -> dict[int, str]:
    """Return a label per setting, see `group_settings`.

    Args:
        settings: From `_setting_values`, a row per setting.
    """
    further = [name for name in settings if name.startswith("config.")]
    by_task = settings.groupby("task_id")
    mixed = (by_task["policy"].nunique(dropna=False) > 1).any() if "policy" in settings else False
    labels = {}
    for _, alike in settings.groupby((settings["policy"] == "gru").to_numpy(bool)):
        by_task = alike.groupby("task_id")
        differing = (by_task.nunique(dropna=False) > 1).any()
        differing[further] = (by_task[further].nunique() > 1).any()
        mixture = list(MIXTURE_COLUMNS)
        differing[mixture] = False
        # A mixture is told from a level, and from another one, by its name
        within = alike.groupby("trained_on", dropna=False)[mixture].transform(lambda told: told.nunique(dropna=False))
        differing["policy"] = mixed and (bool((alike["policy"] == "gru").all()) or alike["policy"].nunique() > 1)
        counts = by_task[further].count()
        unsure = ((counts > 0) & counts.lt(by_task.size(), axis=0)).any()
        for setting, values in alike.iterrows():
            known = values[values.notna()]
            parts = [_PHRASES.get(name, f"{name.removeprefix('config.')} {{}}").format(_text(value))
                     for name, value in known.items()
                     if differing.get(name, False) or (name in mixture and within.at[setting, name] > 1)]  # fmt: skip
            unknown = [name.removeprefix("config.") for name in further if unsure[name] and name not in known]
            if unknown:
                told = any(name in known for name in further)
                parts.append(f"unknown: {', '.join(unknown)}" if told else "configuration unknown")
            labels[setting] = ", ".join(parts) or (_text(values["policy"]) if mixed else "")
    return labels


_SHARED = (
    *("lpc_alpha", "normalize_lpc", "expert_hidden_sizes", "num_updates", "lr", "lang_encoder", "intermediate_dim"),
    *("router_hidden_size", "obs_encoding", "mission_fusion", "expert_action_prob", "solo_env_share", "max_steps"),
    "eval_actions",
)


def describe_shared(last: pd.DataFrame) -> str:
    """Return what the runs with routers have in common, and what differs between tasks only, for a caption.

    Args:
        last: From `last_checkpoints`, some or all.
    """
    values = _setting_values(last)[[*_SHARED, "task_id"]]
    values = values[(last["policy"].fillna("") != "gru").to_numpy()]
    shared, by_task = [], []
    for name in _SHARED:
        known = values[values[name].notna()]
        if name in _BEFORE and set(known[name]) == {_BEFORE[name]}:
            continue  # as it is unless said otherwise
        texts = list(dict.fromkeys(known[name].map(_text)))
        phrase = _PHRASES.get(name, f"{name} {{}}")
        if len(texts) == 1 and len(known) == len(values):
            shared.append(phrase.format(texts[0]))
        elif texts and known.groupby("task_id")[name].nunique().max() == 1:
            by_task.append(phrase.format(" or ".join(texts)))
    parts = [f"all: {', '.join(shared)}" if shared else "", f"by task: {', '.join(by_task)}" if by_task else ""]
    return "; ".join(filter(None, parts))


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
