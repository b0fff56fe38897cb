"""Train a Mixture-of-Recurrent-Experts language model, from the project's root or from within more/.

    python more/train.py --model_type more_a --num_recurrences 4 --preset debug
    python more/train.py --model_type more_a --num_recurrences 4 --epochs 1 --batch_size 4 --seq_length 256 --lr 1e-4
    python more/train.py --model_type more_b --num_recurrences 4 --preset debug --resume            # after Ctrl-C
    python more/train.py --preset debug --text_file novel.txt                                      # your own text
    torchrun --nproc_per_node 2 more/train.py --model_type more_a --num_recurrences 4              # two GPUs

Checkpoints go to checkpoints/<model_type>_rec<r>/, metrics to runs/<model_type>_rec<r>/, both in the current folder.
Without --model_type it is base. docs/more.md explains variants, data and metrics.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "more.train", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from more.commands import train

    sys.exit(train())
