"""The tasks and their levels as minigrid makes them: names, and environments whose generator is sure to end.

    env = build_env("GoToObj")
    env.reset(seed=3)                    # the level of seed 3, or a LevelError
    print(env.mission, env.max_steps)

    python -m babyai.levels              # the names of all tasks
    python -m babyai.levels goto obj     # those that hold all of these words

The compiled world makes the same levels of the tasks that it knows (`babyai.compiled.generate`).
"""

import argparse
import difflib
import functools
import signal
import sys
from typing import Any

import babyai.minigrid_import  # noqa: F401

# isort: split
import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from minigrid.core.roomgrid import RoomGrid
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel

from babyai.errors import LevelError, UnknownTaskError

TASK_PREFIX = "BabyAI-"

# A level's generation stops after this many random draws, which takes two seconds. The costliest of 150 levels of
# each registered task needed 7,400 (SynthS5R2). On one seed in 800 of SynthS5R2 minigrid draws for ever: the agent may
# not start facing a thing, and in a crowded room of 3 x 3 cells it always would.
MAX_DRAWS = 500_000

MOST_STEPS = 2**31 - 1
"""The longest step limit, as large as the compiled world counts. No episode reaches it, so a longer one is this one."""


def list_tasks(*words: str) -> tuple[str, ...]:
    """Every registered `BabyAI-*` id that holds all of these words, in either case, sorted."""
    tasks = sorted(name for name in gymnasium.registry if name.startswith(TASK_PREFIX))
    return tuple(name for name in tasks if all(word.lower() in name.lower() for word in words))


def resolve_task_id(name: str) -> str:
    """The full id of a task given as `BabyAI-GoToObj-v0` or, in short, `GoToObj` (any version; the newest wins).

    Raises:
        UnknownTaskError: no registered task has that name; the message lists close matches.
    """
    tasks = list_tasks()
    if not isinstance(name, str):  # of a policy of several
        raise UnknownTaskError(f"expected one of these levels to be named, found several: {', '.join(map(str, name))}")
    if name in tasks:
        return name
    # "-v1" sorts after "-v0": the newest version of a short name comes last.
    short_forms = {alias: task for task in tasks for alias in _aliases(task)}
    if name in short_forms:
        return short_forms[name]
    lowered = {alias.lower(): alias for alias in short_forms}
    close = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered, n=5, cutoff=0.5)]
    suggestion = f"close matches: {', '.join(close)}" if close else "babyai.levels.list_tasks() lists them"
    raise UnknownTaskError(
        f"expected one of the {len(tasks)} registered BabyAI tasks, e.g. 'BabyAI-GoToObj-v0' or 'GoToObj'; "
        f"found {name!r}; {suggestion}"
    )


def _aliases(task_id: str) -> tuple[str, str, str]:
    unversioned = task_id.rsplit("-v", 1)[0]
    return unversioned.removeprefix(TASK_PREFIX), unversioned, task_id.removeprefix(TASK_PREFIX)


def build_env(task_id: str, max_steps: int | None = None) -> RoomGridLevel:
    """The environment of a task: minigrid's own, but for a bound on its generator's work.

    `reset(seed=...)` raises a LevelError where `MAX_DRAWS` random draws make no valid level.

    Args:
        task_id: id or short name, see `resolve_task_id`.
        max_steps: step limit for every level, see `check_step_limit`; None keeps each level's own.

    Raises:
        UnknownTaskError: no such task, or its levels are not built on minigrid's RoomGridLevel.
        ValueError: `max_steps` is not a positive int.
    """
    max_steps = check_step_limit(max_steps)
    spec = gymnasium.spec(resolve_task_id(task_id))
    level_class = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    env = _bounded_class(level_class)(**spec.kwargs)
    if max_steps is not None:
        # Not passed to the constructor: some level classes overwrite the argument with their own rule.
        env.fixed_max_steps = True
        env.max_steps = max_steps
    return env


def check_step_limit(max_steps: int | None) -> int | None:
    """The step limit that episodes get of one asked for: `MOST_STEPS` at most; None stays None.

    Raises:
        ValueError: it is neither None nor a positive int.
    """
    if max_steps is None:
        return None
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps: expected None or an int >= 1, found {max_steps!r}")
    return min(max_steps, MOST_STEPS)


class CountedDraws:
    """A random generator whose draws are counted and, for `integers`, bounded: each attempt at a level makes some.

    Attributes:
        count: draws made, an attempt that failed being one more.
    """

    def __init__(self, generator: np.random.Generator, limit: int) -> None:
        self.count = 0
        self._generator, self._limit = generator, limit

    def integers(self, low: int, high: int) -> np.int64:
        """As `numpy.random.Generator.integers`, or a LevelError."""
        self.count += 1
        if self.count > self._limit:
            raise LevelError(f"no valid level after {self._limit} random draws")
        return self._generator.integers(low, high)

    def uniform(self, low: float, high: float) -> float:
        """As `numpy.random.Generator.uniform`."""
        self.count += 1
        return self._generator.uniform(low, high)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


class _BoundedLevel:
    """Mixed in before a level class: its generator's loop, without printing each rejection, on counted draws."""

    def _gen_grid(self, width: int, height: int) -> None:
        self._np_random = draws = CountedDraws(self.np_random, MAX_DRAWS)
        while True:  # ends with a LevelError at the latest
            try:
                RoomGrid._gen_grid(self, width, height)
                self.gen_mission()
                self.validate_instrs(self.instrs)
                break
            except (RecursionError, RejectSampling):
                draws.count += 1
        self.surface = self.mission = self.instrs.surface(self)


@functools.cache
def _bounded_class(level_class: type[RoomGridLevel]) -> type[RoomGridLevel]:
    if not issubclass(level_class, RoomGridLevel):
        raise UnknownTaskError(f"expected a level class built on minigrid's RoomGridLevel, found {level_class!r}")
    return type(f"Bounded{level_class.__name__}", (_BoundedLevel, level_class), {})


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head -1` ends it without a word
    parser = argparse.ArgumentParser("python -m babyai.levels", description="List the names of all BabyAI tasks.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only names that hold all of these, in either case")
    given = parser.parse_args().words
    if not (found := list_tasks(*given)):
        held = " and ".join(map(repr, given))
        print(f"error: no task's name holds {held}; python -m babyai.levels lists all", file=sys.stderr)
        sys.exit(2)
    print("\n".join(found))
