"""Models and methods side by side: at equal rollouts, and at equal new tokens.

Rollouts cost different numbers of tokens, since a tree reads shared prefixes once: a comparison at equal rollouts alone
would hide that, one at equal tokens alone how often the reward was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maxent.evaluation.metrics.intervals import Interval, bootstrap_mean

SINGLE = ("greedy", "sample")
"""Methods that draw one answer; they set no bound for the others."""


def compare_runs(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each run that has samples, on the samples that all of them have.

    - `at_rollouts`: mean best reward within the first `rollouts` of each sample, the most that all runs have.
    - `at_tokens`: the same within the new tokens of the run that fed fewest on this sample; `tokens` is their mean.
      None where not even one rollout fits in them on every sample.
    - `new_tokens`: mean new tokens per sample, in all.

    Each figure is an `Interval` over samples.
    """
    done = [run for run in runs if run["samples"]]
    if not done:
        return []
    count = min(len(run["samples"]) for run in done)
    bounding = [run for run in done if run["method"] not in SINGLE] or done
    rollouts = min(len(sample["rollouts"]) for run in bounding for sample in run["samples"][:count])
    budgets = [min(_count_tokens(run["samples"][at]) for run in bounding) for at in range(count)]
    rows = []
    for run in done:
        samples = run["samples"][:count]
        first = [max(one["reward"] for one in sample["rollouts"][:rollouts]) for sample in samples]
        within = [
            max((one["reward"] for one in sample["rollouts"] if one["total_new_tokens"] <= budget), default=None)
            for sample, budget in zip(samples, budgets, strict=True)
        ]
        rows.append(
            {
                "model": run["model"],
                "display_name": run["display_name"],
                "method": run["method"],
                "rollouts": min(rollouts, *(len(sample["rollouts"]) for sample in samples)),
                "tokens": sum(budgets) / count,
                "at_rollouts": bootstrap_mean(first),
                "at_tokens": None if None in within else bootstrap_mean(within),
                "new_tokens": bootstrap_mean([_count_tokens(sample) for sample in samples]),
            }
        )
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table; empty without rows."""
    if not rows:
        return []
    most = max(row["rollouts"] for row in rows)
    head = [
        "model",
        "method",
        f"best reward at {most} rollout{'s' * (most != 1)}",
        f"at {rows[0]['tokens']:.0f} new tokens",
        "new tokens",
    ]
    cells = [head]
    for row in rows:
        fewer = f" (of {row['rollouts']})" if row["rollouts"] < most else ""
        best = f"{_format(row['at_rollouts'])}{fewer}"
        cells.append(
            [row["display_name"], row["method"], best, _format(row["at_tokens"]), _format(row["new_tokens"], 0)]
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    count = rows[0]["at_rollouts"].n
    what = "95 % bootstrap intervals" if rows[0]["at_rollouts"].low is not None else "too few for intervals"
    return [*lines, f"means over {count} sample{'s' * (count != 1)}, {what}"]


def format_scores(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each run that is done: how good its answers are, each figure with its interval."""
    lines = []
    for run in runs:
        found = {name: Interval(**score) for name, score in run.get("scores", {}).items() if score["value"] is not None}
        if found:
            texts = [f"{name} {_format(interval)}" for name, interval in found.items()]
            lines.append(f"answers of {run['display_name']}, {run['method']}: {', '.join(texts)}")
    return lines


def _count_tokens(sample: Mapping[str, Any]) -> int:
    return sample["rollouts"][-1]["total_new_tokens"]


def _format(interval: Interval | None, digits: int = 3) -> str:
    if interval is None:
        return "-"
    value = f"{interval.value:.{digits}f}"
    return value if interval.low is None else f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
