"""The command line of `plotting_utils.py`: any view of any cache as files, without a display.

python plotting_utils.py --cache evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json --view overall
python plotting_utils.py --all_caches evaluation_cache --view starting_room,paths --formats png,pdf
python plotting_utils.py --all_caches evaluation_cache --over_runs --view events,entropy,distances
python plotting_utils.py --all_caches evaluation_cache --over_prices --view price_maps,association --group_by key_phase
python plotting_utils.py --results evaluation_results.csv --view success_lpc,learning,alpha,tasks
python plotting_utils.py --results evaluation_results.csv --view tasks --width 180mm --font 7 --formats pdf --data
"""

from __future__ import annotations

import shlex
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
    for name in ("over_runs", "over_prices"):
        if switches[name] and settings.all_caches is None:
            raise ConfigError(f"{name}: expected --all_caches FOLDER, whose caches it groups into runs of one setting")
    if switches["over_runs"] and switches["over_prices"]:
        raise ConfigError("--over_runs and --over_prices exclude each other: prices are drawn over runs as it is")
    draw_without_display()
    from plotting.drawing import (  # here: --help is told without matplotlib
        Task,
        check_asked,
        draw_caches,
        draw_prices,
        draw_results,
        draw_settings,
    )

    check_asked(settings, prices=switches["over_prices"], listing=switches["list"])
    command = shlex.join(["python", "plotting_utils.py", *(sys.argv[1:] if argv is None else argv)])
    task = Task(settings, command, listing=switches["list"], show_counts=switches["show_counts"], data=switches["data"])
    if settings.results is not None:
        return draw_results(task)
    if switches["over_prices"]:
        return draw_prices(task)
    return draw_settings(task) if switches["over_runs"] else draw_caches(task)


if __name__ == "__main__":
    sys.exit(main())
