"""`python -m benchmarks.levels`; see `benchmarks.levels.command`."""

import sys

from benchmarks.levels.command import main

if __name__ == "__main__":
    sys.exit(main())
