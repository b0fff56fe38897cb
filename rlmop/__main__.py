"""The one command, without installing: `python -m rlmop`; `rlmop.command` has what it can do."""

import sys

from rlmop.command import main

if __name__ == "__main__":
    sys.exit(main())
