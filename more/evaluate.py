"""Evaluate a language model: perplexity, bAbI, sums, accuracy against recurrences, a text sample.

    python more/evaluate.py --checkpoint_path checkpoints/more_a_rec4/final_model.pth
    python more/evaluate.py --model_type more_a --num_recurrences 4 --checkpoint_path PATH --recurrences 1,2,4,8
    python more/evaluate.py --checkpoint_path PATH --recurrences 4,16 --stop_below 0.1  # tokens stop by themselves

Prints tables and writes all figures as JSON beside the checkpoint (or to --output). docs/more.md explains them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "more.evaluate", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from more.commands import evaluate

    sys.exit(evaluate())
