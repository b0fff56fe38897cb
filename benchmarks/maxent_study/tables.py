"""The study as Markdown: means over seeds with 95 % intervals, and differences from best-of-N, paired by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common import format_table
from benchmarks.maxent_study.reading import collect, format_estimate, over_seeds, pair
from benchmarks.maxent_study.settings import Case, StudySettings
from maxent.comparison import SINGLE

YARDSTICK = "best_of_n"
Records = Sequence[Mapping[str, Any]]


def write_tables(settings: StudySettings, records: Records) -> str:
    """Return all tables of some records, a section for each case."""
    sections = []
    for case in settings.cases():
        own = [record for record in records if record["case"] == case.name]
        if own:
            sections.append(write_case(settings, case, own))
    return "\n\n".join(sections) + "\n" if sections else "nothing is there yet\n"


def write_case(settings: StudySettings, case: Case, records: Records) -> str:
    """Return the section of a case."""
    models = list(dict.fromkeys(record["model"] for record in records))
    seeds = sorted({record["seed"] for record in records})
    per_seed = {seed: len({s["id"] for r in records if r["seed"] == seed for s in r["samples"]}) for seed in seeds}
    asked = " to ".join(str(count) for count in sorted({min(per_seed.values()), max(per_seed.values())}))
    lines = [
        f"## {case.name}",
        "",
        f"Reward: {case.reward}; {len(seeds)} seeds of {asked} questions; lambda {case.lam:.3g}, waves of "
        f"{settings.wave}, at most {settings.count_rollouts(case)} rollouts and {case.max_tokens} tokens an answer. "
        f"Score: {case.score}. Means over seeds, Student's t at 95 %.",
    ]
    lines += [f"- {line}" for line in list_facts(records, models)]
    for model in models:
        own = [record for record in records if record["model"] == model]
        title = f" ({model})" if len(models) > 1 else ""
        figure = "score" if case.part == "sums" else "best"
        name = case.score if figure == "score" else "best reward"
        lines += ["", f"{name}{title}, at {case.unit}:", "", tabulate(settings, case, own, figure)]
        lines += [
            "",
            f"its difference from {YARDSTICK}{title}:",
            "",
            tabulate(settings, case, own, figure, paired=True),
        ]
        lines += ["", f"at {settings.case_budgets(case)[-1]:,} {case.unit}{title}:", "", summarise(settings, case, own)]
    if case.part == "sums" and len(models) > 1:
        lines += ["", "what search adds to greedy, and how much more of it than with other models:", ""]
        lines += [compare_models(settings, case, records, models)]
    return "\n".join(lines)


def list_facts(records: Records, models: Sequence[str]) -> list[str]:
    """Return a line on each model: numbers as means over seeds with their range, what is not a number once."""
    lines = []
    for model in models:
        facts = {record["seed"]: record["facts"] for record in records if record["model"] == model}
        parts = []
        for name in next(iter(facts.values())):
            values = [fact[name] for fact in facts.values()]
            if isinstance(values[0], str):
                parts.append(f"{name}: {', '.join(dict.fromkeys(values))}")
            elif len(set(values)) == 1:
                parts.append(f"{name} {values[0]:,.4g}" if isinstance(values[0], float) else f"{name} {values[0]:,}")
            else:
                parts.append(f"{name} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        lines.append(f"{model}: {'; '.join(part for part in parts if not part.endswith(': '))}")
    return lines


def of_method(records: Records, method: str) -> Records:
    """Return the records of a method."""
    return [record for record in records if record["method"] == method]


def tabulate(settings: StudySettings, case: Case, records: Records, figure: str, *, paired: bool = False) -> str:
    """Return a table of a figure, a row for each method and a column for each budget.

    Args:
        settings: Of the study.
        case: Of the records.
        records: Of one model.
        figure: A key of `reading.read_at`.
        paired: Differences from best-of-N instead.
    """
    budgets, rows = settings.case_budgets(case), []
    for method in settings.case_methods(case):
        if not of_method(records, method) or (paired and method == YARDSTICK):
            continue
        row = [method]
        for budget in budgets:
            values = collect(of_method(records, method), figure, budget)
            if paired:
                values = pair(values, collect(of_method(records, YARDSTICK), figure, budget))
            row.append(format_estimate(over_seeds(values), signed=paired))
        rows.append(row)
    return format_table(["method", *(f"{budget:,}" for budget in budgets)], rows)


def summarise(settings: StudySettings, case: Case, records: Records) -> str:
    """Return a table of what each method did with the largest budget."""
    budget = settings.case_budgets(case)[-1]
    columns = ["method", "rollouts", "distinct", case.unit, "mean reward", "score", f"- {YARDSTICK}", "vote", "CPU s"]
    rows = []
    for method in settings.case_methods(case):
        own = of_method(records, method)
        if not own:
            continue
        found = {name: collect(own, name, budget) for name in ("rollouts", "calls", "tokens", "mean", "score", "vote")}
        plain = collect(of_method(records, YARDSTICK), "score", budget)
        if not found["mean"]:  # a budget that this method was not given
            continue
        counts = [f"{np.mean(list(found[name].values())):,.0f}" for name in ("rollouts", "calls", "tokens")]
        seconds = np.mean([sample["cpu_seconds"] for record in own for sample in record["samples"]])
        gain = "" if method == YARDSTICK else format_estimate(over_seeds(pair(found["score"], plain)), signed=True)
        vote = "" if method in SINGLE or not found["vote"] else format_estimate(over_seeds(found["vote"]))
        shown = [format_estimate(over_seeds(found[name])) for name in ("mean", "score")]
        rows.append([method, *counts, *shown, gain, vote, f"{seconds:.2f}"])
    return format_table(columns, rows)


def compare_models(settings: StudySettings, case: Case, records: Records, models: Sequence[str]) -> str:
    """Return a table of what search adds to the greedy answer of each model, and of that against the first two models.

    These are base and the recurrent variant with the fewest recurrences, and models of one seed are asked the same
    sums, so that gains are paired as well. The last column is the share of the sums that search gets right among those
    that greedy gets wrong: what is added where there is room, for a model that is right more often has less of it.
    """
    budgets = settings.case_budgets(case)
    middle = budgets[len(budgets) // 2]  # with the largest nearly all is found, whatever the model
    references = models[:2]
    columns = ["model", "method", *(f"at {budget:,}" for budget in budgets)]
    columns += [*(f"- {model}, at {middle:,}" for model in references), f"of what was wrong, at {middle:,}"]
    rows = []
    for method in settings.case_methods(case):
        if method in SINGLE:
            continue
        gains: dict[tuple[str, int], dict[tuple[int, str], float]] = {}
        solved: dict[str, dict[tuple[int, str], float]] = {}
        for model in models:
            own = [record for record in records if record["model"] == model]
            for budget in budgets:
                greedy = collect(of_method(own, "greedy"), "score", budget)
                found = collect(of_method(own, method), "score", budget)
                gains[model, budget] = pair(found, greedy)
                if budget == middle:
                    solved[model] = {key: value for key, value in found.items() if greedy.get(key) == 0.0}
        for place, model in enumerate(models):
            row = [model, method]
            row += [format_estimate(over_seeds(gains[model, budget]), signed=True) for budget in budgets]
            for other, reference in enumerate(references):
                difference = over_seeds(pair(gains[model, middle], gains[reference, middle]))
                row.append(format_estimate(difference, signed=True) if place > other else "")
            rows.append([*row, format_estimate(over_seeds(solved[model])) if solved[model] else "-"])
    return format_table(columns, rows)
