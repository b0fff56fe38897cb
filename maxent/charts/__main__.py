"""Draw the charts of a results file again, from the project's root or from within maxent/.

python -m maxent.charts maxent/evaluation/results/wandb_experiments_20260101_120000.json
python charts evaluation/results/wandb_experiments_20260101_120000.json --output_dir figures
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a folder: Python then looks for modules in it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "maxent.charts", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from maxent.charts.command import main

    sys.exit(main())
