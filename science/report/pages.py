"""The report as one HTML page that needs no other file, and as Markdown beside the figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from science.report.content import Report
from science.report.text import parse_blocks

METHODS = """
The unit of replication is what a claim generalises over, and every number names it: runs (of a recipe), groups of
steps, levels, episodes (of one run alone). A claim over two of them takes the larger p.

- Intervals are at 95 %: Student's t over the runs' own values; of pairs of runs, which share runs, a jackknife over
  runs; of effects of interventions, with runs and level seeds as random factors. Success in the table of the design has
  Wilson's interval for a sample of clusters, whose n is the effective number of episodes, p (1 - p) / (s^2 / R) with
  the variance s^2 between R runs. None below three runs. Strips and rows show every run as a point; maps, and the small
  panels of many levels, show means.
- Tests over runs: from eight runs on the exact sign-flip test, whose smallest p is 2 / 2^n; below, Student's t. Effects
  of interventions: over runs and level seeds at once.
- Where routes are set against a variable of the episode, whole episodes are exchanged within run, level and similar
  length: neither steps nor times are shuffled, for these are not exchangeable.
- Adjusted p: over declared claims Holm (1979), over a map Benjamini and Hochberg (1995). A large p is no evidence that
  there is no effect; that is told by two one-sided tests (Schuirmann 1987) against a declared margin, with the
  standard error of the interval that is shown.
- Prices are never pooled: they are compared within a seed. Runs that collapsed, diverged or lack something are counted
  on the figure, and where that has a meaning a row "worst" has them at their worst value.
- Replay (R): every policy is fed the same trajectories of the bot, so that differences in routing are none of
  behaviour. Own play (P): each policy acts by itself.
"""


def render(report: Report) -> tuple[str, str]:
    """Return a report as HTML and as Markdown."""
    from jinja2 import Environment, FileSystemLoader

    folder = Path(__file__).parent
    shared = {"loader": FileSystemLoader(folder), "trim_blocks": True, "keep_trailing_newline": True}
    methods = parse_blocks(METHODS)
    pages = []
    for name, escape in (("page.html.j2", True), ("page.md.j2", False)):
        environment = Environment(autoescape=escape, **shared)
        environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
        environment.filters["inline"] = mark_code
        environment.filters["breakable"] = break_names
        environment.filters["together"] = keep_together
        environment.filters["capitalise"] = lambda text: str(text)[:1].upper() + str(text)[1:]
        pages.append(environment.get_template(name).render(r=report, methods=methods))
    # Figures and headings stand by themselves, and no table goes on from a paragraph.
    spaced = re.sub(r"(?<=[^\n])\n(?=!\[|#)|(?<=[^\n|])\n(?=\|)|(?m:^#+ .*$)\n(?=[^\n])", _space, pages[1])
    return pages[0], re.sub(r"\n{3,}", "\n\n", spaced).strip() + "\n"


def _space(found: re.Match[str]) -> str:
    return found.group() + "\n"


def break_names(text: str) -> Any:
    """Return a text as HTML, escaped: names may break after a dot or underscore, for narrow columns, "x = 1" not."""
    from markupsafe import Markup, escape  # comes with jinja2

    return Markup(re.sub(r"(?<=[a-z])([._])(?=[a-z])", r"\1<wbr>", str(escape(text)).replace(" = ", "&nbsp;=&nbsp;")))


def keep_together(text: str) -> Any:
    """Return a number with its interval as HTML, escaped: it may break before the interval and before "against"."""
    from markupsafe import Markup, escape  # comes with jinja2

    parts = re.split(r" (?=\[|against |\()", str(text))
    return Markup(" ".join(f"<span>{escape(part)}</span>" for part in parts)) if len(parts) > 1 else escape(text)


def mark_code(text: str) -> Any:
    """Return a text as HTML, escaped, what stands between backquotes as code."""
    from markupsafe import Markup, escape  # comes with jinja2

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
