"""Where the time of a training update goes, measured from outside: the training code holds no timers.

    with TimeSplit() as split:
        trainer.run_update()
    split.seconds["expert"]

Timers are put around methods for the length of the `with` block. Each moment counts once, for the innermost timer that
runs, except that all of a level's start counts as `levels`, with the expert's plan of it apart. Timers slow down what
they measure, and small frequent calls most: take shares from here, throughput from a run without them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import babyai.vector_env
import pipeline.imitation
import pipeline.rollout
from babyai.expert import Expert
from babyai.simulator import Simulator
from babyai.vector_env import VectorEnv
from pipeline.imitation import ImitationTrainer

PARTS = ("levels", "planning", "stepping", "observing", "expert", "acting", "replay", "backward", "rest")
"""levels: start of a level without planning; planning: the expert solving a level beforehand; stepping: and verifying;
acting: single steps of the policy, choice of actions, storing the unroll; replay: forward pass with gradients and loss;
backward: with clipping and optimiser; rest: the vector environment's own loop."""

_WHOLE = {"levels", "planning"}  # what they call counts for them
_ON_DEVICE = {"acting", "replay", "backward"}
_TIMED = (
    (ImitationTrainer, "run_update", "backward"),
    (pipeline.imitation, "pack", "replay"),
    (pipeline.imitation, "replay_unroll", "replay"),
    (pipeline.imitation, "compute_losses", "replay"),
    (pipeline.imitation, "collect_unroll", "acting"),
    (pipeline.rollout, "encode_observations", "observing"),
    (VectorEnv, "step", "rest"),
    (VectorEnv, "_start_level", "levels"),
    (VectorEnv, "_observe", "observing"),
    (babyai.vector_env, "plan_length", "planning"),
    (Simulator, "step", "stepping"),
    (Simulator, "_look", "observing"),  # observation and expert share it, the expert calls it first
    (Expert, "suggest", "expert"),
)


class TimeSplit:
    """Timers around the parts of an update while used as a context manager.

    Attributes:
        seconds: Wall-clock seconds so far, for each of `PARTS`.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Prepare; on a GPU, timers of the policy wait for it, which a training run does not."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else None
        self._running: list[str] = []
        self._mark = 0.0
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> TimeSplit:
        for owner, name, part in _TIMED:
            timed = self._time(getattr(owner, name), part)
            self._patches.enter_context(mock.patch.object(owner, name, timed))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def shares(self) -> dict[str, float]:
        """Return the share of each part, 0 to 1; they sum to 1."""
        total = sum(self.seconds.values())
        return {part: seconds / total for part, seconds in self.seconds.items()}

    def _time(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        wait = self._wait if part in _ON_DEVICE else None

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._running and self._running[-1] in _WHOLE and part != "planning":
                return function(*args, **kwargs)
            self._switch()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                if wait is not None:
                    wait()
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        """Book the time since the last switch on whatever ran."""
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._mark
        self._mark = now
