"""Which tasks have a compiled generator: task id -> its program, read from minigrid's own environment object.

    program = level_program("BabyAI-GoToObj-v0")
    print(program.geometry, program.params)

    python -m babyai.compiled.catalogue     # which registered tasks fall back, and why

A task is compiled only if its class is one of minigrid's own, minigrid's version is the one whose generators were
compiled, and every attribute of the environment is known; anything else is played by minigrid (`babyai.plain_core`).
"""

import argparse
import functools
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import babyai.minigrid_import  # noqa: F401

# isort: split
import minigrid
import minigrid.envs.babyai as envs
import numpy as np
from gymnasium.utils.seeding import np_random
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.babyai.core import verifier
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

from babyai import facts
from babyai.compiled import kinds
from babyai.compiled import layout as at
from babyai.compiled.draft import MAX_ROOMS
from babyai.compiled.draws import NUM_DRAWS, draw, draw_fraction, start
from babyai.levels import MAX_DRAWS, build_env, list_tasks, resolve_task_id

MINIGRID_VERSIONS = ("3.2.",)
"""Beginnings of the versions whose generators were compiled."""

_ACTIONS = {"goto": at.GOTO, "pickup": at.PICK, "open": at.OPEN, "putnext": at.PUTNEXT}
_FORMS = {"action": kinds.ACTION, "and": kinds.BOTH, "seq": kinds.SEQUENCE}
_SELECTIONS = {None: -1, "color": kinds.BY_COLOR, "loc": kinds.BY_LOCATION}
_COLORS: dict[str | None, int] = {None: -1, **COLOR_TO_IDX}
_OBJECTS = {None: -1, **{name: OBJECT_TO_IDX[name] for name in ("key", "ball", "box")}}


@dataclass(frozen=True)
class LevelProgram:
    """How `generate` makes the levels of a task.

    Attributes:
        task_id: Full id.
        geometry: int32 (G,), see `layout.build_geometry`.
        params: int64 (P,), see `kinds`.
    """

    task_id: str
    geometry: np.ndarray
    params: np.ndarray


@dataclass(frozen=True)
class Fallback:
    """Why a task's levels are made by minigrid's own objects.

    Attributes:
        task_id: Full id.
        reason: One sentence.
    """

    task_id: str
    reason: str


class _UnknownError(ValueError):
    """The environment has something that no compiled generator has."""


@dataclass(frozen=True)
class _Form:
    """A level class: its kind, its own attributes with the columns they go to, and what it needs to be regular."""

    kind: int
    columns: tuple[tuple[str, Callable[[Any], int], int], ...] = ()
    rooms: tuple[int, int] = (1, 1)  # at least so many columns and rows
    count: tuple[int, int] = (0, 0)  # bounds of P_COUNT
    extra: int = 2  # things besides P_COUNT distractors and a door in every wall between rooms
    extra_per_room: int = 0


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _UnknownError(f"expected an int, found {value!r}")
    return value


def _flag(value: Any) -> int:
    if not isinstance(value, bool):
        raise _UnknownError(f"expected True or False, found {value!r}")
    return int(value)


def _one_of(table: dict[Any, int]) -> Callable[[Any], int]:
    def look_up(value: Any) -> int:
        if not isinstance(value, str | None) or value not in table:
            raise _UnknownError(f"expected one of {list(table)}, found {value!r}")
        return table[value]

    return look_up


def _probability(value: Any) -> int:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _UnknownError(f"expected a probability, found {value!r}")
    return math.ceil(value * 2**53)  # k / 2**53 < value, for an int k, in ints


_DISTS = ("num_dists", _whole, kinds.P_COUNT)
_PER_ROOM = ("objs_per_room", _whole, kinds.P_COUNT)
_DEBUG = ("debug", _flag, kinds.P_FLAG)
_DISTRACTED = ("distractors", _flag, kinds.P_FLAG)
_MANY = 63

_FORMS_OF_CLASSES = {
    envs.GoToRedBallGrey: _Form(kinds.GOTO_RED_BALL_GREY, (_DISTS,), count=(0, _MANY)),
    envs.GoToRedBall: _Form(kinds.GOTO_RED_BALL, (_DISTS,), count=(0, _MANY)),
    envs.GoToRedBallNoDists: _Form(kinds.GOTO_RED_BALL, (_DISTS,), count=(0, _MANY)),
    envs.GoToObj: _Form(kinds.GOTO_OBJ),
    envs.GoToLocal: _Form(kinds.GOTO_LOCAL, (_DISTS,), count=(1, _MANY)),
    envs.GoTo: _Form(kinds.GOTO_MAZE, (_DISTS, ("doors_open", _flag, kinds.P_FLAG)), count=(1, _MANY)),
    envs.GoToImpUnlock: _Form(kinds.GOTO_IMP_UNLOCK, extra_per_room=2),
    envs.GoToRedBlueBall: _Form(kinds.GOTO_RED_BLUE_BALL, (_DISTS,), count=(0, _MANY)),
    envs.GoToDoor: _Form(kinds.GOTO_DOOR, rooms=(3, 3)),
    envs.GoToObjDoor: _Form(kinds.GOTO_OBJ_DOOR, rooms=(3, 3), extra=8),
    envs.ActionObjDoor: _Form(kinds.ACTION_OBJ_DOOR, rooms=(3, 3), extra=5),
    envs.Open: _Form(kinds.OPEN_ANY, rooms=(2, 1), extra=18),
    envs.OpenRedDoor: _Form(kinds.OPEN_RED_DOOR, rooms=(2, 1)),
    envs.OpenDoor: _Form(kinds.OPEN_DOOR, (("select_by", _one_of(_SELECTIONS), kinds.P_FIRST), _DEBUG), rooms=(3, 3)),
    envs.OpenTwoDoors: _Form(
        kinds.OPEN_TWO_DOORS,
        (
            ("first_color", _one_of(_COLORS), kinds.P_FIRST),
            ("second_color", _one_of(_COLORS), kinds.P_SECOND),
            ("strict", _flag, kinds.P_FLAG),
        ),
        rooms=(3, 2),
    ),
    envs.OpenDoorsOrder: _Form(
        kinds.OPEN_DOORS_ORDER, (("num_doors", _whole, kinds.P_COUNT), _DEBUG), rooms=(3, 3), count=(2, 4)
    ),
    envs.Pickup: _Form(kinds.PICKUP, extra=18),
    envs.UnblockPickup: _Form(kinds.UNBLOCK_PICKUP, extra=20),
    envs.PickupDist: _Form(kinds.PICKUP_DIST, (_DEBUG,), extra=5),
    envs.PickupAbove: _Form(kinds.PICKUP_ABOVE, rooms=(2, 2)),
    envs.FindObjS5: _Form(kinds.FIND_OBJ, rooms=(2, 2)),
    envs.KeyCorridor: _Form(kinds.KEY_CORRIDOR, (("obj_type", _one_of(_OBJECTS), kinds.P_FIRST),), rooms=(3, 1)),
    envs.OneRoomS8: _Form(kinds.ONE_ROOM),
    envs.PutNextLocal: _Form(kinds.PUT_NEXT_LOCAL, (("num_objs", _whole, kinds.P_COUNT),), count=(2, 18)),
    envs.PutNext: _Form(
        kinds.PUT_NEXT, (_PER_ROOM, ("start_carrying", _flag, kinds.P_FLAG)), rooms=(2, 1), count=(1, 9), extra=9
    ),
    envs.MoveTwoAcross: _Form(kinds.MOVE_TWO_ACROSS, (_PER_ROOM,), rooms=(2, 1), count=(2, 9), extra=9),
    envs.Unlock: _Form(kinds.UNLOCK, extra_per_room=3),
    envs.UnlockLocal: _Form(kinds.UNLOCK_LOCAL, (_DISTRACTED,), rooms=(2, 2), extra=4),
    envs.KeyInBox: _Form(kinds.KEY_IN_BOX, rooms=(2, 2)),
    envs.UnlockPickup: _Form(kinds.UNLOCK_PICKUP, (_DISTRACTED,), rooms=(2, 1), extra=6),
    envs.BlockedUnlockPickup: _Form(kinds.BLOCKED_UNLOCK_PICKUP, rooms=(2, 1), extra=3),
    envs.UnlockToUnlock: _Form(kinds.UNLOCK_TO_UNLOCK, rooms=(3, 1), extra=3),
}

_LEVEL_GEN = _Form(
    kinds.LEVEL_GEN,
    (
        _DISTS,
        ("locked_room_prob", _probability, kinds.P_LOCKED_ROOM),
        ("locations", _flag, kinds.P_LOCATIONS),
        ("unblocking", _flag, kinds.P_UNBLOCKING),
        ("implicit_unlock", _flag, kinds.P_IMPLICIT_UNLOCK),
    ),
    count=(0, _MANY),
)
_LEVEL_GEN_CLASSES = (LevelGen, envs.GoToSeq, envs.PickupLoc, envs.Synth, envs.SynthLoc, envs.SynthSeq)
_LEVEL_GEN_CLASSES += (envs.MiniBossLevel, envs.BossLevel, envs.BossLevelNoUnlock)
_FORMS_OF_CLASSES |= dict.fromkeys(_LEVEL_GEN_CLASSES, _LEVEL_GEN)


def level_program(task_id: str, max_steps: int | None = None) -> LevelProgram | Fallback:
    """Return the program of a task, or why it has none.

    Args:
        task_id: Id or short name, as `babyai.levels.build_env` takes it.
        max_steps: Step limit for every level; None keeps each level's own.

    Raises:
        UnknownTaskError: No such task.
        ValueError: `max_steps` is not a positive int.
    """
    env, task_id = build_env(task_id, max_steps), resolve_task_id(task_id)
    level_class = type(env).__bases__[-1]  # the registered one, which `build_env` mixed a bound into
    reason = _general_reason()
    if reason:
        return Fallback(task_id, reason)
    form = _FORMS_OF_CLASSES.get(level_class)
    if form is None:
        return Fallback(task_id, f"{level_class.__module__}.{level_class.__qualname__} has no compiled generator")
    try:
        _check_env(env, form)
        geometry = at.build_geometry(env.room_size, env.num_cols, env.num_rows)
        params = _read_params(env, form)
        _check_size(geometry, params, form)
    except _UnknownError as error:
        return Fallback(task_id, f"{level_class.__qualname__}: {error}")
    return LevelProgram(task_id, geometry, params)


def _general_reason() -> str | None:
    if not minigrid.__version__.startswith(MINIGRID_VERSIONS):
        return f"expected minigrid {MINIGRID_VERSIONS[0]}x, found {minigrid.__version__}"
    if verifier.use_done_actions or os.environ.get("BABYAI_DONE_ACTIONS"):
        return "the environment variable BABYAI_DONE_ACTIONS changes minigrid's verifier"
    if not _draws_match_numpy():
        return f"the random numbers of numpy {np.__version__} or of gymnasium's seeding are not the ones we compute"
    return None


@functools.cache
def _draws_match_numpy() -> bool:
    draws = np.zeros(NUM_DRAWS, np.uint64)
    for seed in (11, 2**32 + 5):
        reference, _ = np_random(seed)
        start(draws, seed, MAX_DRAWS)
        for k in range(100):
            for high in (1, 2 + k % 20, 3 * 2**30):  # the last rejects one in four
                if draw(draws, -1, high) != reference.integers(-1, high):
                    return False
            if draw_fraction(draws) != reference.uniform(0, 1) * 2**53:
                return False
    return True


def _check_env(env: RoomGridLevel, form: _Form) -> None:
    known = {name for name, _, _ in form.columns} | _base_attributes()
    if form is _LEVEL_GEN:
        known |= {"action_kinds", "instr_kinds", "locked_room"}
    unknown = sorted(set(vars(env)) - known)
    if unknown:
        raise _UnknownError(f"attributes that the compiled generator does not know: {', '.join(unknown)}")
    if env.agent_view_size != facts.VIEW_SIZE or env.see_through_walls:
        raise _UnknownError(f"expected a view of {facts.VIEW_SIZE} x {facts.VIEW_SIZE} cells that walls block")
    columns, rows = form.rooms
    if env.num_cols < columns or env.num_rows < rows or env.num_cols * env.num_rows > MAX_ROOMS:
        raise _UnknownError(
            f"expected at least {columns} x {rows} and at most {MAX_ROOMS} rooms, found {env.num_cols} x {env.num_rows}"
        )
    if form.kind == kinds.FIND_OBJ and env.num_cols != env.num_rows:
        raise _UnknownError("expected as many columns of rooms as rows")
    if form.kind == kinds.UNLOCK_PICKUP and env.room_size < 4:
        raise _UnknownError("expected rooms of 4 cells or more")


@functools.cache
def _base_attributes() -> frozenset[str]:
    """What every level has: its value is not used, or checked."""
    return frozenset(vars(RoomGridLevel()))


def _read_params(env: RoomGridLevel, form: _Form) -> np.ndarray:
    params = np.zeros(kinds.NUM_PARAMS, np.int64)
    params[kinds.P_KIND], params[kinds.P_DRAWS] = form.kind, MAX_DRAWS
    params[kinds.P_MAX_STEPS] = env.max_steps if env.fixed_max_steps else 0
    params[kinds.P_COUNT] = 1 if form.kind == kinds.GOTO_OBJ else 0
    for name, read, column in form.columns:
        try:
            params[column] = read(getattr(env, name))
        except _UnknownError as error:
            raise _UnknownError(f"{name}: {error}") from None
    if form is _LEVEL_GEN:
        for name, table, length, first in (
            ("action_kinds", _ACTIONS, kinds.P_NUM_ACTIONS, kinds.P_ACTIONS),
            ("instr_kinds", _FORMS, kinds.P_NUM_FORMS, kinds.P_FORMS),
        ):
            names = getattr(env, name)
            if not 1 <= len(names) <= kinds.MAX_CHOICES or not set(names) <= set(table):
                raise _UnknownError(f"{name}: expected 1 to {kinds.MAX_CHOICES} of {list(table)}, found {names!r}")
            params[length] = len(names)
            params[first : first + len(names)] = [table[kind] for kind in names]
    return params


def _check_size(geometry: np.ndarray, params: np.ndarray, form: _Form) -> None:
    """Holds the program against the bounds of the memory."""
    columns, rows = int(geometry[at.G_COLS]), int(geometry[at.G_ROWS])
    count, (low, high) = int(params[kinds.P_COUNT]), form.count
    if form.kind != kinds.GOTO_OBJ and not low <= count <= high:
        raise _UnknownError(f"expected {low} to {high} objects or doors to choose from, found {count}")
    doors = rows * (columns - 1) + columns * (rows - 1)
    most = doors + count + form.extra + form.extra_per_room * columns * rows
    if most > at.MAX_THINGS:
        raise _UnknownError(f"expected at most {at.MAX_THINGS} things in a level, found up to {most}")
    if form.kind == kinds.PICKUP_DIST and 4 * (int(geometry[at.G_ROOM_SIZE]) - 1) + 5 > at.MAX_LISTED:
        raise _UnknownError("its walls are too many for a list of grey objects")


def main() -> None:
    """Print which registered tasks have no compiled generator, and why."""
    told = "Tell which BabyAI tasks are compiled; with any other, training is slower and its results are the same."
    argparse.ArgumentParser("python -m babyai.compiled.catalogue", description=told).parse_args()
    tasks = list_tasks()
    missing = [program for task in tasks if isinstance(program := level_program(task), Fallback)]
    for fallback in missing:
        print(f"{fallback.task_id}: {fallback.reason}")
    print(f"{len(tasks) - len(missing)} of {len(tasks)} registered tasks have a compiled generator")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head -1` ends it without a word
    main()
