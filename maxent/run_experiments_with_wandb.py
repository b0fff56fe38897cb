"""Search for answers with one or several models, from the project's root or from within maxent/.

    python run_experiments_with_wandb.py --models toy --dataset M4 --preset quick --no_wandb
    python run_experiments_with_wandb.py --models llama-7b mistral-7b phi-2 --dataset HAR --num_samples 10 \
        --num_rollouts 10 --experiment_name "model_comparison"
    python -c "from run_experiments_with_wandb import MODEL_CONFIGS; print(list(MODEL_CONFIGS.keys()))"

Results go to evaluation/results/ in the current folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    from maxent.registry import MODEL_CONFIGS
except ImportError:  # imported from within maxent/, where the project is not to be found
    from registry import MODEL_CONFIGS

__all__ = ["MODEL_CONFIGS"]

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "maxent.run_experiments_with_wandb", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from maxent.experiment import main

    sys.exit(main())
