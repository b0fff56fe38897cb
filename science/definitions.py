"""docs/science.md, written from the analyses' own docstrings and tables: `python -m science.definitions`.

A report prints the same docstrings, so that what is defined, computed and printed cannot differ.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

from science import (
    calibration,
    complexity,
    distinctness,
    fronts,
    knockouts,
    pathways,
    price,
    result,
    sufficiency,
)

PAGE = Path(__file__).parents[1] / "docs" / "science.md"

ANALYSES = (pathways, sufficiency, distinctness, knockouts, price, fronts, complexity, calibration)

_HEAD = """# Definitions of the science

What each quantity of a study is: its formula, its null, its twin by intervention, its source. The text is that of the
modules, which a report prints too; `python -m science.definitions` writes this page.

## What all of them share

- Notation: run r, level family g, episode i, step t; weights w[t, l, e] of expert e of layer l; group x, by default a
  level family and the bot's subgoal. Means go from steps to episodes to groups, so that a long episode counts once;
  information weighs steps. Divergences and information are in bits, cross-entropy to the bot's actions is in nats.
- R, replay: each policy is fed the bot's trajectories, so that all runs see identical states. P: its own play.
- A claim is about what it generalises over. Its `unit` says so, and p is the largest over these: runs (other seeds),
  levels or episodes (other levels), groups, prices.
- Runs: Student's t below 8, from there on all flips of signs, whose smallest p is `p_floor`. Runs and levels at once,
  for effects of interventions: analysis of variance with both as random factors (quasi-F; Clark 1973, J. Verbal Learn.
  Verbal Behav. 12:335), for runs that play the same levels share what is particular to these.
- Episodes: whole ones exchanged, within levels and bins of 4 lengths, in all runs alike where they replay the same.
  Steps are no independent observations, and what a level does to all runs is no agreement between them.
- Maps are adjusted by Benjamini and Hochberg within their `family`, declared claims by Holm. That there is no effect is
  only ever told by two one-sided tests against a declared margin.
- Runs without a value are counted in `n_dropped`, with `drop_reason`; estimator "worst" includes them at their worst
  value.

## Columns of a table

{columns}
"""


def build_page() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD.format(columns=_columns(inspect.getdoc(result.Row) or ""))]
    for module in ANALYSES:
        parts.append(_section(module))
    return "\n".join(parts).rstrip() + "\n"


def _section(module: ModuleType) -> str:
    title, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    name = module.__name__.rpartition(".")[2]
    lines = [f"## `{name}`", "", title, "", rest, ""]
    if quantities := getattr(module, "QUANTITIES", {}):
        lines += ["| quantity | in short |", "|---|---|"]
        lines += [f"| `{quantity}` | {words} |" for quantity, words in quantities.items()]
        lines.append("")
    return "\n".join(lines)


def _columns(doc: str) -> str:
    """Return the attributes of a docstring as a table."""
    rows = ["| column | meaning |", "|---|---|"]
    for line in doc.partition("Attributes:\n")[2].splitlines():
        if line.startswith("     "):
            rows[-1] = f"{rows[-1].removesuffix(' |')} {line.strip()} |"
        elif line.strip():
            name, _, meaning = line.strip().partition(": ")
            rows.append(f"| `{name}` | {meaning} |")
    return "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(build_page(), encoding="utf-8")
