"""Tables that the notebooks show: metrics of an evaluation, rows of the results file, and those chosen among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plotting.runs import by_played_level, collect_runs, last_checkpoints, short_task


def metrics_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the metrics of an evaluation, a row for each: its name, its value as text, over what it was taken."""

    def value(name: str, form: str) -> str:
        found = metrics.get(name)
        return "not known" if found is None else f"{found:{form}}"

    episodes, labelled = metrics.get("num_episodes"), metrics.get("labelled_steps")
    counts = [
        f"{metrics[name]:,} {word}"
        for name, word in (("successes", "succeeded"), ("failures", "failed"), ("timeouts", "ran out of time"))
        if metrics.get(name)
    ]
    low, high = metrics.get("success_low"), metrics.get("success_high")
    interval = "" if low is None or high is None else f"95 % interval {low:.1%} to {high:.1%}; "
    total = "" if episodes is None else f"of {episodes:,} levels "
    lpc = [
        f"{metrics[f'mean_lpc_{name}']:,.0f} in {word}"
        for name, word in (("success", "successes"), ("failure", "failures"), ("timeout", "timeouts"))
        if metrics.get(f"mean_lpc_{name}") is not None
    ]
    lines = [
        ("Success", value("success_rate", ".1%"), f"{interval}{total}{', '.join(counts)}"),
        (
            "Path ratio",
            value("path_ratio", ".3f"),
            f"steps / the expert's steps, mean over {value('path_ratio_n', ',')} successes; median "
            + value("path_ratio_median", ".3f"),
        ),
        (
            "LPC",
            value("mean_lpc", ",.1f"),
            f"mean over {value('total_steps', ',')} steps; {', '.join(lpc)}".rstrip("; "),
        ),
        (
            "Agreement",
            value("agreement", ".1%"),
            f"of {'the' if labelled is None else f'{labelled:,}'} steps for which the expert had an answer",
        ),
    ]
    return pd.DataFrame(lines, columns=["metric", "value", "over"])


_SHOWN = {
    "task_id": "task",
    "trained_on": "trained on",
    "trial": "trial",
    "seed": "seed",
    "update": "update",
    "policy": "policy",
    "success_rate": "success %",
    "success_low": "low",
    "success_high": "high",
    "mean_lpc": "LPC",
    "path_ratio": "path ratio",
    "agreement": "agreement %",
    "lpc_alpha": "LPC weight",
    "expert_hidden_sizes": "experts",
    "num_episodes": "levels",
    "evaluated_at": "evaluated",
    "checkpoint_path": "checkpoint",
}


def results_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `evaluation_results.csv` with the columns that one compares runs by; numbers stay numbers.

    What runs were trained on is a column where it is another level than the one played, or a mixture, in some row.
    """
    rates = ["success_rate", "success_low", "success_high", "agreement"]
    results = by_played_level(results)
    shown = results[list(_SHOWN)].assign(
        task_id=results["task_id"].map(short_task),
        trained_on=results["trained_on"].fillna("").map(short_task),
        expert_hidden_sizes=[format_sizes(sizes) if sizes else "" for sizes in results["expert_hidden_sizes"]],
        evaluated_at=results["evaluated_at"].fillna("").str[:16].str.replace("T", " "),
        **{name: 100 * results[name] for name in rates},
    )
    if (shown["trained_on"] == "").all():
        shown = shown.drop(columns="trained_on")
    shown = shown.round({"mean_lpc": 1, "path_ratio": 3, **dict.fromkeys(rates, 1)}).rename(columns=_SHOWN)
    # NA, not NaN, which a notebook would write as a number.
    return shown.astype(dict.fromkeys(shown.select_dtypes("float64"), "Float64"))


def format_sizes(layers: list) -> str:
    """Return the expert sizes of layers, "0,16,32 x 3" for three equal ones."""
    texts = [",".join(map(str, layer)) if isinstance(layer, list) else str(layer) for layer in layers]
    return f"{texts[0]} x {len(texts)}" if len(texts) > 1 and len(set(texts)) == 1 else "; ".join(texts)


def task_names(results: pd.DataFrame) -> dict[str, str]:
    """Return the tasks of rows, short name to id."""
    return {short_task(task): task for task in sorted(results["task_id"].unique())}


def name_rows(results: pd.DataFrame) -> dict[str, str]:
    """Return {checkpoint: its task} for `browsing.name_selection`, the checkpoint with the level where it has another.

    Args:
        results: From `plotting.browsing.try_results`.
    """
    played = zip(results["checkpoint_path"], results["task_id"], results["trained_on"].isna(), strict=True)
    return {path if own else f"{path}/{task}": task for path, task, own in played}


def ticked_rows(results: pd.DataFrame, ticked: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of which those of `results_table` are ticked, all if none is.

    Args:
        results: From `plotting.browsing.try_results`.
        ticked: Rows of `results_table`.
    """
    if ticked.empty:
        return results
    chosen = set(zip(ticked["checkpoint"], ticked["task"], strict=True))
    keys = zip(results["checkpoint_path"], results["task_id"].map(short_task), strict=True)
    return results[[key in chosen for key in keys]]


def select_rows(results: pd.DataFrame, *, tasks: Sequence[str] = (), last_only: bool = False) -> pd.DataFrame:
    """Return the rows of some tasks (ids; none: all), or of these each run's last checkpoint."""
    chosen = results[results["task_id"].isin(tasks)] if tasks else results
    return chosen.loc[last_checkpoints(collect_runs(chosen)[0]).index.sort_values()] if last_only else chosen
