"""`python -m benchmarks.maxent_study`; see `benchmarks.maxent_study.command`."""

import sys

from benchmarks.maxent_study.command import main

if __name__ == "__main__":
    sys.exit(main())
