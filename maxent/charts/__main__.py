"""Draw the charts of a results file again: `python -m maxent.charts --help`; `maxent.charts.command` does it."""

import sys

from maxent.charts.command import main

if __name__ == "__main__":
    sys.exit(main())
