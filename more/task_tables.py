"""The tables of a comparison on a generated task: accuracy by depth and by r at test, over seeds.

content = tabulate(results)                                # of runs, as `more.compare` keeps them
print(format_task_tables({"settings": settings, **content}))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from more.intervals import estimate, format_estimate

Result = Mapping[str, Any]


def tabulate(results: Sequence[Result]) -> dict[str, Any]:
    """Return `task`, `guessing` and `rows`, in plain types.

    Of several learning rates of one row the one is taken whose runs are best on the validation split (depths that were
    trained), which the test has no part in; `rates` keeps what the others reached there.
    """
    if not results:
        return {"task": None, "guessing": None, "rows": []}
    groups: dict[tuple[str, int, int], dict[float, list[Result]]] = {}
    for result in results:
        key = (result["variant"], result["recurrences"], result["experts"])
        groups.setdefault(key, {}).setdefault(result["lr"], []).append(result)
    rows = []
    for (variant, steps, experts), by_rate in groups.items():
        valid = {
            rate: float(np.mean([found["evaluation"]["valid"] or 0.0 for found in runs]))
            for rate, runs in by_rate.items()
        }
        best = max(valid, key=valid.__getitem__)
        row = {"variant": variant, "recurrences": steps, "experts": experts, "lr": best}
        rows.append(row | {"rates": {f"{rate:g}": share for rate, share in valid.items()}, **_summarise(by_rate[best])})
    evaluation = results[0]["evaluation"]
    return {"task": evaluation["task"], "guessing": evaluation["guessing"], "rows": rows}


def summarise_depths(by_depth: Mapping[str, float], train_depth: int) -> dict[str, float | None]:
    """Return the means over the depths that were trained, from 2 on, and over longer ones; None for no depth."""
    trained = [share for depth, share in by_depth.items() if 2 <= int(depth) <= train_depth]
    longer = [share for depth, share in by_depth.items() if int(depth) > train_depth]
    return {name: sum(part) / len(part) if part else None for name, part in (("trained", trained), ("longer", longer))}


def _summarise(results: Sequence[Result]) -> dict[str, Any]:
    evaluations = [result["evaluation"] for result in results]
    first = evaluations[0]
    trained = str(first["model"]["num_recurrences"])
    row: dict[str, Any] = {
        "seeds": [result["seed"] for result in results],
        "parameters": first["parameters"],
        "token_operations": first["token_operations"],
        "seconds": estimate([result["seconds"] for result in results]),
        "trained_r": trained,
        "accuracy": {
            steps: {depth: estimate([found["accuracy"][steps][depth] for found in evaluations]) for depth in by_depth}
            for steps, by_depth in first["accuracy"].items()
        },
        "summary": {
            steps: {
                span: None if value is None else estimate([found["summary"][steps][span] for found in evaluations])
                for span, value in spans.items()
            }
            for steps, spans in first["summary"].items()
        },
    }
    if "routing" in first:
        row["routing"] = [found["routing"] for found in evaluations]
    return row


def format_task_tables(content: Mapping[str, Any]) -> str:
    """Return the Markdown of a comparison's JSON: by depth at the trained r, and over depths by r at test."""
    settings, task, guessing = content["settings"], content["task"], content["guessing"]
    if task is None:
        return "No run is done yet.\n"
    depths = list(guessing["n"])
    spans = {"trained": f"depth 2-{task['train_depth']}", "longer": f"depth above {task['train_depth']}"}
    lines = [
        f"{task['name']}, depth 1 to {task['train_depth']} in training; match {settings['match']}. Accuracy at the r "
        "of training. Mean over seeds; in brackets the 95 % interval (Student's t over runs; none below three, and "
        "none where all agree). The last two columns are means over depths.",
        "",
        "| model | r | experts | seeds | lr | parameters | operations per token | "
        + " | ".join([*depths, *spans.values()])
        + " |",
        "|" + "---|" * (7 + len(depths) + 2),
    ]
    for row in content["rows"]:
        cells = [*_name(row), str(len(row["seeds"])), f"{row['lr']:g}", f"{row['parameters']['active']:,}"]
        cells.append(f"{row['token_operations'][row['trained_r']]:,}")
        accuracy, summary = row["accuracy"][row["trained_r"]], row["summary"][row["trained_r"]]
        cells += [_cell(accuracy.get(depth)) for depth in depths] + [_cell(summary[span]) for span in spans]
        lines.append("| " + " | ".join(cells) + " |")
    rules = {"chance": guessing["chance"], "most frequent value": guessing["majority"], **guessing["heuristics"]}
    for name, by_depth in rules.items():
        means = summarise_depths(by_depth, task["train_depth"])
        cells = [f"{share:.2f}" for share in by_depth.values()]
        cells += ["" if means[span] is None else f"{means[span]:.2f}" for span in spans]
        lines.append("| " + " | ".join([name, *[""] * 6, *cells]) + " |")
    recurrent = [row for row in content["rows"] if len(row["accuracy"]) > 1]
    if recurrent:
        steps = list(recurrent[0]["accuracy"])
        for span, label in spans.items():
            lines += ["", f"By r at test, mean over {label}:", ""]
            lines += ["| model | r | experts | " + " | ".join(f"r = {count}" for count in steps) + " |"]
            lines += ["|" + "---|" * (3 + len(steps))]
            for row in recurrent:
                cells = [_cell(row["summary"][count][span]) for count in steps]
                lines.append("| " + " | ".join([*_name(row), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _name(row: Mapping[str, Any]) -> list[str]:
    return [row["variant"], "-" if row["variant"] == "base" else str(row["recurrences"]), str(row["experts"])]


def _cell(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else format_estimate(dict(found), "{:.2f}")
