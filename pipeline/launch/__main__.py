"""`python -m pipeline.launch`: see `pipeline.launch.status`."""

import sys

from pipeline.launch.status import main

if __name__ == "__main__":
    sys.exit(main())
