"""Train a stateful Mixture-of-Pathways policy on BabyAI by imitating the BabyAI bot.

    python train_mop.py --config config.yaml
    python train_mop.py --config config.yaml --task_id UnlockPickup --seed 3 --lpc_alpha 1e-4
    python train_mop.py --config config.yaml --resume          # after Ctrl-C, or to train longer with --num_updates
    python train_mop.py --config config.yaml --trial 2 --seeds 0-9 --lpc_alphas 0,1e-5,1e-4   # 30 runs as one program

Every field of the configuration is also a flag. Checkpoints go to checkpoints/<task_id>/trial_<N>/seed_<S>/, metrics to
the same place under runs/. docs/training.md explains the losses, the metrics and how to reproduce a run bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.training import command

DESCRIPTION = (
    "Train a Mixture-of-Pathways policy on BabyAI. Flags win over the YAML file, that over defaults. With --seeds and "
    "--lpc_alphas all combinations are trained together: --trial 2 --seeds 0-9 --lpc_alphas 0,1e-5 makes trial 2 "
    "(alpha 0) and trial 3 (alpha 1e-5), ten seeds each."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return command.main(DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())
