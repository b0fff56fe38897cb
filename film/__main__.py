"""Film an episode: `python -m film --help`; `film.command` has the commands that work."""

import sys

from film.command import main

if __name__ == "__main__":
    sys.exit(main())
