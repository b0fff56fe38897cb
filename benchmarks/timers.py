"""Where the time of a training update goes, measured from outside: the training code holds no timers.

    with TimeSplit() as split:
        loop.run_update(batch)
    split.seconds["expert"]

Timers are put around methods for the length of the `with` block. Each moment counts once, for the innermost timer that
runs. Timers slow down what they measure, and small frequent calls most: take shares from here, throughput from a run
without them. An unroll that is one compiled call is one part; what is in it is told by `SteppedEngine`, which plays the
same unroll step by step and somewhat slower. For a task that is not compiled all of the world counts as `rest`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from babyai.compiled.core import CompiledCore
from babyai.vector_env import VectorEnv
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.torch_engine import TorchEngine
from pipeline.engine.weights import ReplicaWeights
from pipeline.training import loop
from pipeline.training.rollout import Rollout
from pipeline.training.unroll import CompiledUnroll

PARTS = ("unroll", "levels", "world", "rest", "observing", "acting", "choosing", "loss", "backward", "optimiser")
"""unroll: acting and all of the world, where that is one compiled call; levels: generating them, with the expert's
plans; world: stepping, verifying, and the expert's labels; rest: the vector environment's own bookkeeping; observing:
views, and writing them where the policy reads; acting: the policy's steps; choosing: noise, actions, the loop over an
unroll's steps; loss: what is computed for a whole unroll at once; backward; optimiser: with norms and clipping."""

PARTS_OF_STEPS = PARTS[1:]
"""Those of an unroll step by step."""

_ON_DEVICE = {"acting", "choosing", "loss", "backward", "optimiser"}
_TIMED = (
    (loop, "run_update", "loss"),
    (Rollout, "collect", "choosing"),
    (Rollout, "_show", "observing"),
    (CompiledEngine, "act", "acting"),
    (TorchEngine, "act", "acting"),
    (CompiledEngine, "_backpropagate", "backward"),
    (TorchEngine, "differentiate", "backward"),
    (ReplicaWeights, "norms", "optimiser"),
    (ReplicaWeights, "step", "optimiser"),
    (VectorEnv, "step", "rest"),
    (CompiledCore, "begin", "levels"),
    (CompiledCore, "act", "world"),
    (CompiledCore, "show", "observing"),
    (CompiledUnroll, "play", "rest"),
    (CompiledUnroll, "_go_on", "unroll"),
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
