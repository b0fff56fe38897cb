"""All charts of a results file, as files; what experiments and the command call.

draw_charts(Path("wandb_experiments_20260101_120000.json"), folder, formats=("png", "pdf"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from maxent.charts.curves import plot_rewards, plot_tokens
from maxent.charts.maps import plot_heatmaps
from maxent.charts.records import Experiment, ResultsFileError, read_experiment
from maxent.charts.scores import plot_monotonicity, plot_time
from plotting.origin import describe_origin
from plotting.style import figure_size, save_figure

CHARTS: dict[str, Callable[[Experiment], Figure]] = {
    "reward_over_rollouts": plot_rewards,
    "monotonicity": plot_monotonicity,
    "time_against_reward": plot_time,
    "reward_heatmap": plot_heatmaps,
    "reward_against_tokens": plot_tokens,
}
"""Name of the file -> what draws it."""


def draw_charts(
    path: Path,
    folder: Path,
    *,
    formats: Sequence[str] = ("png",),
    width: float | None = None,
    font: float | None = None,
    command: str = "",
) -> list[Path]:
    """Draw all charts of a results file and return the files written; the same file gives the same bytes.

    Args:
        path: The results.
        folder: Made where it is missing.
        formats: Such as png (300 dpi), pdf, svg.
        width: Of the figures in inches; None for what suits each.
        font: Size of their text in points; None for 9.
        command: As it can be repeated; it is written into the files.

    Raises:
        ResultsFileError: If the file cannot be drawn, or no sample is done.
        ValueError: If a figure has no room in this width.
        OSError: If a file cannot be written.
    """
    experiment = read_experiment(path)
    if not experiment.drawn:
        raise ResultsFileError(f"{path}: no sample is done yet, there is nothing to draw")
    origin = describe_origin(command, [path])
    written = []
    with figure_size(width, font):
        for name, plot in CHARTS.items():
            written += save_figure(plot(experiment), folder / f"{name}.png", formats, origin)
    return written
