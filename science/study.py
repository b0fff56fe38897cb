"""A study by one command: train what is missing, evaluate, change, analyse, report.

    python science/study.py --config studies/debug.yaml                  # all of it, in a minute or two
    python science/study.py --config studies/pathways.yaml --plan        # what it would do, and what it can show
    python science/study.py --config studies/pathways.yaml --selftest    # the design on noise and on planted routers

It runs from the project's root or from within science/; results go to studies/out/<name>/ in the current folder. The
same call does what is left; docs/science.md defines every quantity.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # Run as a file: Python then looks for modules beside it; start again as the project's module.
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-P", "-m", "science.study", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})

from pipeline.command.shell import as_command
from science.config import read_study

DESCRIPTION = (
    "Do a study: train what is missing, evaluate, intervene, analyse, report. The same call goes on where it was, and "
    "does only what is stale."
)


@as_command(stopped="stopped; what is finished is kept, and the same call does the rest")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 all made, 1 report incomplete, 2 refused, 130 stopped."""
    config, beside = read_study(DESCRIPTION, argv)
    if beside["plan"]:
        from science.forecast import print_plan  # here: --help and mistakes are told without numpy

        return print_plan(config, beside["only"])
    if beside["selftest"]:
        from science.selftest import run_selftest

        return run_selftest(config, jobs=beside["jobs"], launcher=beside["launcher"])
    from science.run import run_study

    return run_study(config, only=beside["only"], jobs=beside["jobs"], launcher=beside["launcher"])


if __name__ == "__main__":
    sys.exit(main())
