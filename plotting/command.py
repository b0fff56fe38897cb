"""The command line of `plotting_utils.py`: any view of any cache as files, without a display.

python plotting_utils.py --cache evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json --view overall
python plotting_utils.py --all_caches evaluation_cache --view starting_room,paths --formats png,pdf
python plotting_utils.py --all_caches evaluation_cache --over_runs --view events,entropy,distances
python plotting_utils.py --results evaluation_results.csv --view success_lpc,learning,alpha,tasks
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.command.cli import parse_command
from pipeline.command.displays import draw_without_display
from pipeline.command.shell import as_command
from pipeline.config import ConfigError
from plotting.options import SWITCHES, PlotSettings


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some caches could not be drawn, 2 refused."""
    settings, switches = parse_command(
        "Draw routing and results without a display.", PlotSettings, argv, switches=SWITCHES
    )
    if switches["over_runs"] and settings.all_caches is None:
        raise ConfigError("over_runs: expected --all_caches FOLDER, whose caches it groups into runs of one setting")
    draw_without_display()
    from plotting.drawing import (  # here: --help is told without matplotlib
        check_asked,
        draw_caches,
        draw_results,
        draw_settings,
    )

    check_asked(settings, listing=switches["list"])
    if settings.results is not None:
        return draw_results(settings, listing=switches["list"])
    run = draw_settings if switches["over_runs"] else draw_caches
    return run(settings, listing=switches["list"], show_counts=switches["show_counts"])


if __name__ == "__main__":
    sys.exit(main())
