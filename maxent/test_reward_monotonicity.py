"""Show that the rewards rise with what is true and with nothing else, from the project's root or from within maxent/.

    python test_reward_monotonicity.py
    python maxent/test_reward_monotonicity.py

A command, not a test of the suite; the checks are in maxent/reward_checks.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "maxent.test_reward_monotonicity", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from maxent.reward_checks import main

    sys.exit(main())
