"""Levels: (task id, seed) -> a BabyAI level, as minigrid generates it, only faster and in bounded work.

    maker = LevelMaker("BabyAI-GoToObj-v0")
    level = maker.make(seed=3)          # level.env is a minigrid environment, reset to that level
    print(level.mission, level.max_steps)

The generator is minigrid's own `gen_mission` of each level class. Around it a subclass, made once per level class,
replaces the parts that cost time without changing the result: the empty room grid (walls are one shared object), the
random draws (numpy's bounded integers computed from the raw stream, checked against numpy at import), rejection without
printing, and the observation that minigrid computes on every reset and step. tests/babyai/test_world.py compares the
outcome with an untouched minigrid for every registered task.
"""

import babyai.minigrid_import  # noqa: F401

# isort: split
import argparse
import difflib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (importing it registers the tasks)
import numpy as np
from gymnasium.envs.registration import load_env_creator
from minigrid.core.grid import Grid
from minigrid.core.roomgrid import Room
from minigrid.core.world_object import Wall, WorldObj
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel
from minigrid.envs.babyai.core.verifier import Instr

from babyai.errors import LevelError, UnknownTaskError

TASK_PREFIX = "BabyAI-"

# A level's generation stops after this many random draws, which takes about a second. The costliest of 150 levels of
# each registered task needed 7,400 (SynthS5R2). On one seed in 800 of SynthS5R2 minigrid draws for ever: the agent may
# not start facing a thing, and in a crowded room of 3 x 3 cells it always would.
MAX_DRAWS = 500_000


def list_tasks() -> tuple[str, ...]:
    """Every registered `BabyAI-*` id, sorted."""
    return tuple(sorted(name for name in gymnasium.registry if name.startswith(TASK_PREFIX)))


def resolve_task_id(name: str) -> str:
    """The full id of a task given as `BabyAI-GoToObj-v0` or, in short, `GoToObj` (any version; the newest wins).

    Raises:
        UnknownTaskError: no registered task has that name; the message lists close matches.
    """
    tasks = list_tasks()
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


@dataclass(frozen=True)
class Level:
    """One level, ready to be played.

    Attributes:
        task_id: full id.
        seed: the level's seed; (task_id, seed) determines everything else.
        mission: the instruction.
        max_steps: steps until the episode is cut off.
        env: minigrid's environment, reset to this level. The maker re-uses it: making another level ends this one.
    """

    task_id: str
    seed: int
    mission: str
    max_steps: int
    env: RoomGridLevel


class LevelMaker:
    """Generates the levels of one task, all in the same minigrid environment object."""

    def __init__(self, task_id: str, max_steps: int | None = None) -> None:
        """Builds the environment of `task_id`.

        Args:
            task_id: id or short name, see `resolve_task_id`.
            max_steps: step limit for every level; None keeps each level's own.

        Raises:
            UnknownTaskError: no such task.
            ValueError: `max_steps` is not a positive int.
        """
        if max_steps is not None and (isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1):
            raise ValueError(f"max_steps: expected None or an int >= 1, found {max_steps!r}")
        self.task_id = resolve_task_id(task_id)
        spec = gymnasium.spec(self.task_id)
        level_class = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        self._env = _quick_class(level_class)(**spec.kwargs)
        if max_steps is not None:
            # Not passed to the constructor: some level classes overwrite the argument with their own rule.
            self._env.fixed_max_steps = True
            self._env.max_steps = max_steps

    def make(self, seed: int) -> Level:
        """The level of `seed` (an int >= 0).

        Raises:
            LevelError: no valid level was found within `MAX_DRAWS` random draws.
            ValueError: `seed` is not a non-negative int.
        """
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"level seed: expected an int >= 0, found {seed!r}")
        env = self._env
        try:
            env.reset(seed=int(seed))
        except LevelError as error:
            raise LevelError(f"{self.task_id}, level seed {seed}: {error}") from None
        return Level(self.task_id, int(seed), env.mission, env.max_steps, env)

    @property
    def draws(self) -> int:
        """Random draws that the last level took: the unit in which generation work is bounded."""
        return self._env._draws.count


# ---------------------------------------------------------------------------------------------------------------------
# Random draws


class _Draws:
    """`Generator.integers(low, high)` and `.uniform(low, high)` of a fresh PCG64 generator, counted.

    numpy needs about 2 us for one bounded integer; computing it from the raw 64-bit stream takes a fifth of that.
    Bounded integers use 32 bits at a time (low half first) and Lemire's rejection (https://arxiv.org/abs/1805.10941).
    """

    def __init__(self, bit_generator: np.random.BitGenerator, limit: int = MAX_DRAWS) -> None:
        self.count = 0
        self.limit = limit
        self._bit_generator = bit_generator
        self._raw: list[int] = []  # reversed, so that pop() takes the next one
        self._high_half = -1

    def _next64(self) -> int:
        if not self._raw:
            self._raw = self._bit_generator.random_raw(64).tolist()
            self._raw.reverse()
        return self._raw.pop()

    def _next32(self) -> int:
        high = self._high_half
        if high >= 0:
            self._high_half = -1
            return high
        word = self._next64()
        self._high_half = word >> 32
        return word & 0xFFFFFFFF

    def integers(self, low: int, high: int) -> np.int64:
        """A number in [low, high). np.int64 and not int, as numpy: level code compares some of them with `is`."""
        self.count += 1
        if self.count > self.limit:
            raise LevelError(f"no valid level after {self.limit} random draws")
        span = int(high - low)
        if span <= 1:
            if span < 1:
                raise ValueError("low >= high")
            return np.int64(low)  # numpy consumes nothing either
        product = self._next32() * span
        if product & 0xFFFFFFFF < span:
            threshold = (0x100000000 - span) % span
            while product & 0xFFFFFFFF < threshold:
                product = self._next32() * span
        return np.int64(low + (product >> 32))

    def uniform(self, low: float, high: float) -> float:
        self.count += 1
        return low + (high - low) * ((self._next64() >> 11) * 2.0**-53)


class _NumpyDraws:
    """The same numbers from numpy itself, for a numpy whose streams differ from what `_Draws` computes."""

    def __init__(self, bit_generator: np.random.BitGenerator, limit: int = MAX_DRAWS) -> None:
        self.count = 0
        self.limit = limit
        generator = np.random.Generator(bit_generator)
        self._integers, self.uniform = generator.integers, generator.uniform

    def integers(self, low: int, high: int) -> np.int64:
        self.count += 1
        if self.count > self.limit:
            raise LevelError(f"no valid level after {self.limit} random draws")
        return self._integers(low, high)


def _draws_match_numpy() -> bool:
    reference = np.random.Generator(np.random.PCG64(11))
    draws = _Draws(np.random.PCG64(11))
    for k in range(150):
        # 3 * 2**30 makes rejections frequent (1 in 4)
        for high in (1, 2 + k % 20, 3 * 2**30):
            if draws.integers(-1, high) != reference.integers(-1, high):
                return False
        if draws.uniform(0, 1) != reference.uniform(0, 1):
            return False
    return True


_make_draws: Callable[[np.random.BitGenerator], Any] = _Draws if _draws_match_numpy() else _NumpyDraws

# ---------------------------------------------------------------------------------------------------------------------
# The faster generator around minigrid's gen_mission

WALL = Wall()  # every wall of every level: walls have no state, and nothing compares them by identity


class _QuickGrid(Grid):
    """minigrid's grid without the range checks (a level is walled in, so no index can leave it), counting changes."""

    version = 0

    def get(self, i: int, j: int) -> WorldObj | None:
        return self.grid[j * self.width + i]

    def set(self, i: int, j: int, v: WorldObj | None) -> None:
        self.version += 1
        self.grid[j * self.width + i] = v


class _QuickLevel:
    """Mixed in before a level class; each method gives the result of the one it replaces."""

    def gen_obs(self) -> None:
        """Nothing: `Simulator.observe` computes observations, and only when asked."""

    def _gen_grid(self, width: int, height: int) -> None:
        draws = _make_draws(self.np_random.bit_generator)
        # On the instance, so that a draw is one call and not two
        self._draws, self._rand_int, self._rand_float = draws, draws.integers, draws.uniform
        while True:  # ends with a LevelError at the latest: each attempt draws
            try:
                self._build_rooms(width, height)
                self.gen_mission()
                self.validate_instrs(self.instrs)
                break
            except (RecursionError, RejectSampling):
                draws.count += 1
        self.surface = self.mission = self.instrs.surface(self)
        self._positions_version = self.grid.version  # minigrid looks for the instruction's objects next

    def _rand_bool(self) -> bool:
        return self._rand_int(0, 2) == 0

    def _build_rooms(self, width: int, height: int) -> None:
        pitch = self.room_size - 1
        self.grid = _QuickGrid(width, height)
        self.grid.grid = _walled_cells(width, height, pitch)
        size = (self.room_size, self.room_size)
        rooms = [[Room((i * pitch, j * pitch), size) for i in range(self.num_cols)] for j in range(self.num_rows)]
        self.room_grid = rooms
        right, down, left, up = range(4)
        for j, row in enumerate(rooms):
            for i, room in enumerate(row):
                x, y = room.top
                if i + 1 < self.num_cols:
                    other = row[i + 1]
                    room.neighbors[right], other.neighbors[left] = other, room
                    room.door_pos[right] = other.door_pos[left] = (x + pitch, self._rand_int(y + 1, y + pitch))
                if j + 1 < self.num_rows:
                    other = rooms[j + 1][i]
                    room.neighbors[down], other.neighbors[up] = other, room
                    room.door_pos[down] = other.door_pos[up] = (self._rand_int(x + 1, x + pitch), y + pitch)
        middle = self.room_size // 2
        self.agent_pos = (self.num_cols // 2 * pitch + middle, self.num_rows // 2 * pitch + middle)
        self.agent_dir = 0

    def update_objs_poss(self, instr: Instr | None = None) -> None:
        # minigrid searches the whole grid at every drop action, also when nothing has moved
        if instr is None:
            if self._positions_version == self.grid.version:
                return
            self._positions_version = self.grid.version
        super().update_objs_poss(instr)

    def check_objs_reachable(self, raise_exc: bool = True) -> bool:
        cells, width = self.grid.grid, self.grid.width
        x, y = self.agent_pos
        stack = [y * width + x]
        reached = set(stack)
        while stack:
            index = stack.pop()
            cell = cells[index]
            if cell is None or cell.type == "door":
                # No outer wall is ever passed, so index arithmetic cannot leave the grid
                for neighbour in (index + 1, index - 1, index + width, index - width):
                    if neighbour not in reached:
                        reached.add(neighbour)
                        stack.append(neighbour)
        for index, cell in enumerate(cells):
            if cell is not None and cell is not WALL and index not in reached:
                if raise_exc:
                    raise RejectSampling(f"unreachable object at {(index % width, index // width)}")
                return False
        return True

    def place_obj(
        self,
        obj: WorldObj | None,
        top: tuple[int, int] | None = None,
        size: tuple[int, int] | None = None,
        reject_fn: Callable[[Any, tuple[int, int]], bool] | None = None,
        max_tries: float = math.inf,
    ) -> tuple[int, int]:
        grid, draw = self.grid, self._rand_int
        x_low, y_low = (max(top[0], 0), max(top[1], 0)) if top is not None else (0, 0)
        width, height = size if size is not None else (grid.width, grid.height)
        x_high, y_high = min(x_low + width, grid.width), min(y_low + height, grid.height)
        agent = tuple(self.agent_pos)
        tries = 0
        while tries <= max_tries:
            tries += 1
            pos = (int(draw(x_low, x_high)), int(draw(y_low, y_high)))
            if grid.get(*pos) is None and pos != agent and not (reject_fn and reject_fn(self, pos)):
                grid.set(*pos, obj)
                if obj is not None:
                    obj.init_pos = obj.cur_pos = pos
                return pos
        raise RecursionError("rejection sampling failed in place_obj")


@functools.cache
def _walls(width: int, height: int, pitch: int) -> tuple[WorldObj | None, ...]:
    return tuple(WALL if x % pitch == 0 or y % pitch == 0 else None for y in range(height) for x in range(width))


def _walled_cells(width: int, height: int, pitch: int) -> list[WorldObj | None]:
    return list(_walls(width, height, pitch))


@functools.cache
def _quick_class(level_class: type[RoomGridLevel]) -> type[RoomGridLevel]:
    if not issubclass(level_class, RoomGridLevel):
        raise UnknownTaskError(f"expected a level class built on minigrid's RoomGridLevel, found {level_class!r}")
    return type(f"Quick{level_class.__name__}", (_QuickLevel, level_class), {})


if __name__ == "__main__":
    argparse.ArgumentParser("python -m babyai.levels", description="List the names of all BabyAI tasks.").parse_args()
    print("\n".join(list_tasks()))
