"""The command that draws the charts of a results file, and its trees, again.

python -m maxent.charts maxent/evaluation/results/wandb_experiments_20260101_120000.json
python -m maxent.charts RESULTS.json --output_dir figures --formats png,pdf --width 180mm --font 7
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.command.cli import parse_command
from pipeline.command.displays import draw_without_display
from pipeline.command.errors import ConfigError
from pipeline.command.folders import check_folder
from pipeline.command.names import program
from pipeline.command.shell import as_command

FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class ChartSettings:
    """What is drawn, and where it goes.

    Attributes:
        results: Required. The file wandb_experiments_{stamp}.json of an experiment, finished or not.
        output_dir: Folder of the files; null: wandb_experiments_{stamp}/charts beside the results.
        formats: Of the charts: png (300 dpi), pdf, svg; with commas between them.
        width: Of the charts, such as 180mm, 8.5cm or 3.5in; null: what suits each.
        font: Size of their text in points; 9 by default, 7 suits a figure of 85mm or 180mm.
    """

    results: str = field(default="", metadata={"positional": True})
    output_dir: str | None = None
    formats: str = "png"
    width: str | None = None
    font: float | None = None

    def __post_init__(self) -> None:
        if not self.results:
            raise ConfigError("results: expected the path of a file wandb_experiments_{stamp}.json, found none")
        if not self.kinds or (unknown := [name for name in self.kinds if name not in FORMATS]):
            found = self.formats if not self.kinds else unknown[0]
            raise ConfigError(f"formats: expected some of {', '.join(FORMATS)}, found {found!r}")
        if self.font is not None and not 4 <= self.font <= 24:
            raise ConfigError(f"font: expected 4 to 24 points, found {self.font}")

    @property
    def kinds(self) -> list[str]:
        """The formats by name."""
        return list(dict.fromkeys(part.strip().lower() for part in self.formats.split(",") if part.strip()))


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of `python -m maxent.charts`; return the exit code.

    0: done. 1: some trees could not be read, all else is written. 2: refused.
    """
    description = (
        "Draw the charts of an experiment again from its results file: reward over rollouts, monotonicity, time "
        "against best reward, a heat map, best reward against new tokens; and a page for the trees of each model and "
        "method, where they were kept. For example: python -m maxent.charts RESULTS.json --output_dir figures"
    )
    settings, _ = parse_command(description, ChartSettings, argv)
    path = Path(settings.results)
    folder = Path(settings.output_dir) if settings.output_dir is not None else find_folder(path)
    from maxent.charts.records import read_experiment
    from plotting.options import parse_width

    try:
        width = None if settings.width is None else parse_width(settings.width)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    read_experiment(path)  # before a folder is made
    check_folder("output_dir", folder)
    draw_without_display()
    from maxent.charts.drawing import draw_charts
    from maxent.charts.tree_page import write_pages

    tokens = sys.argv[1:] if argv is None else argv
    command = f"{program()} {shlex.join(tokens)}"
    try:
        charts = draw_charts(path, folder, formats=settings.kinds, width=width, font=settings.font, command=command)
    except ValueError as error:  # no room in this width
        raise ConfigError(str(error)) from None
    pages, problems = write_pages(path, folder)
    for written in (*charts, *pages):
        print(written)
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    return int(bool(problems))


def find_folder(results: Path) -> Path:
    """Return where the charts of a results file go if nothing else is asked for."""
    return results.with_suffix("") / "charts"
