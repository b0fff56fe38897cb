"""The command line of training, for the policy (`train_mop.py`) and the baseline (`train.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.command.cli import parse_command
from pipeline.command.launcher import FLAGS, parse_launcher
from pipeline.command.shell import as_command
from pipeline.config import TrainConfig
from pipeline.guard import SWITCHES, check_switches
from pipeline.training.options import OPTIONS, parse_sweep


@as_command(stopped="stopped; --resume goes on from the last checkpoints")
def main(description: str, argv: Sequence[str] | None = None, **forced: Any) -> int:
    """Parse the command line, train, and return the exit code.

    0: done. 1: some runs failed. 2: refused. 128 + signal: interrupted.
    """
    config, beside = parse_command(
        description,
        TrainConfig,
        argv,
        switches=SWITCHES,
        options={**OPTIONS, **FLAGS},
        replaces={"seeds": "seed", "lpc_alphas": "lpc_alpha"},
        **forced,
    )
    check_switches(**{name: beside[name] for name in SWITCHES})
    launcher = parse_launcher(**{name: beside.pop(name) for name in FLAGS})
    sweep = parse_sweep(config, **{name: beside.pop(name) for name in OPTIONS})
    from pipeline.training.driver import train_runs  # only here: --help and mistakes are told without torch

    return train_runs(sweep, launcher=launcher, **beside)
