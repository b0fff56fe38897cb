"""The baseline: one GRU without routing, trained and evaluated exactly as the Mixture-of-Pathways policy is.

    python train.py --config config.yaml --trial 100
    python train.py --config config.yaml --trial 100 --seeds 0-9      # ten runs as one program

It reads the same config.yaml (the expert fields do not apply; `hidden_size` does) and writes the same kind of
checkpoint. Give it a trial of its own: a folder holds one run. The policy is in `pipeline/baseline.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.baseline import GRUPolicy

__all__ = ["GRUPolicy", "main"]

DESCRIPTION = "Train the GRU baseline on BabyAI. Flags win over the YAML file, that over defaults."


def __getattr__(name: str) -> Any:
    """Import what else this module offers when it is asked for: --help is told without torch."""
    if name == "GRUPolicy":
        from pipeline import baseline

        return baseline.GRUPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    from pipeline.training import command  # here: whoever imports the policy needs no training

    return command.main(DESCRIPTION, argv, policy="gru")


if __name__ == "__main__":
    sys.exit(main())
