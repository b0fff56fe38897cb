"""N levels played by compiled code, behind the methods that `babyai.plain_core.PlainCore` has too.

    core = build_compiled_core([("GoToObj", 16)], max_steps=None, label=True, record=False)

One call steps, verifies, looks and asks the bot in all slots; another starts levels; a third writes observations. None
holds the interpreter lock, and slots can be spread over threads: each touches its own row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.bot import bot_reset, bot_subgoal, bot_suggest
from babyai.compiled.catalogue import LevelProgram, level_program
from babyai.compiled.context import describe_level
from babyai.compiled.draft import allocate_scratch
from babyai.compiled.generate import generate
from babyai.compiled.jit import compiled
from babyai.compiled.layout import (
    AGENT,
    CARRIED,
    DIRECTION,
    G_STRIDE,
    MAX_STEPS,
    PAD,
    STEPS,
    World,
)
from babyai.compiled.play import look, observe, step
from babyai.compiled.record import (
    NUM_SOUGHT,
    Memory,
    allocate_memory,
    door_unlocked,
    find_event,
    find_nearest,
    remember_front,
    start_recording,
)
from babyai.compiled.sentences import KEY_LENGTH, mission_text, write_mission_key
from babyai.facts import RUNNING, SUCCESS
from babyai.steps import NO_LABEL, VectorStep

OWN_LIMIT = 0  # instead of a step limit: each level's own


# ------------------------------------------------------------------------------------------------------------- kernels


@compiled
def _start_row(world, scratch, params, task, limit, row, seed, plan, label, labels):
    """Start a level in a row; return the length of the expert's plan (-1: none asked for), -2 if it cannot be."""
    length = -1
    if plan:
        if generate(world, row, seed, params[task], scratch, task) == 0:
            return -2
        length = _play_expert(world, row)
        if length < 0:
            return -2
    if generate(world, row, seed, params[task], scratch, task) == 0:
        return -2
    if limit != OWN_LIMIT:
        world.scalars[row, MAX_STEPS] = limit
    look(world, row)
    labels[row] = NO_LABEL
    if label:
        bot_reset(world, row)
        labels[row] = bot_suggest(world, row, -1)
        if labels[row] < 0:
            return -2
    return length


@compiled
def _play_expert(world, row):
    """Return in how many steps the expert solves the level just generated, -1 if it does not."""
    bot_reset(world, row)
    look(world, row)
    action = bot_suggest(world, row, -1)
    outcome = RUNNING
    while action >= 0 and outcome == RUNNING:  # at most as often as the level has steps
        outcome = step(world, row, action)
        if outcome == RUNNING:
            look(world, row)
            action = bot_suggest(world, row, action)
    return world.scalars[row, STEPS] if outcome == SUCCESS else -1


@compiled
def start_rows(world, scratch, params, tasks, limit, rows, seeds, plans, label, labels, record, memory, keys, lengths):
    """Start a level in each of `rows`; `lengths` tells what `_start_row` returned."""
    for k in range(len(rows)):
        row = rows[k]
        lengths[k] = _start_row(world, scratch, params, tasks[row], limit, row, seeds[k], plans[k], label, labels)
        if lengths[k] != -2:
            write_mission_key(world, row, keys[row])
            if record:
                start_recording(world, row, memory)


@compiled
def _act(world, row, action, label, labels):
    """Take an action and ask the bot about what it led to; return the outcome."""
    outcome = step(world, row, action)
    if outcome == RUNNING:
        look(world, row)
        if label:
            labels[row] = bot_suggest(world, row, action)
    return outcome


@compiled
def replay_row(world, row, actions, label, labels):
    """Take the actions of an episode again."""
    for action in actions:
        _act(world, row, int(action), label, labels)


@compiled
def step_rows(world, actions, active, label, labels, outcomes, rewards):
    """Act in all active rows; rewards are written where an episode succeeds."""
    for row in range(len(active)):
        if active[row]:
            outcome = _act(world, row, actions[row], label, labels)
            outcomes[row] = outcome
            if outcome == SUCCESS:
                rewards[row] = 1 - 0.9 * (world.scalars[row, STEPS] / world.scalars[row, MAX_STEPS])


@compiled
def step_recorded_rows(world, actions, active, labels, outcomes, rewards, events, objects):
    """Act in all active rows, and note what each action did."""
    for row in range(len(active)):
        if active[row]:
            front, thing, code, held = remember_front(world, row)
            outcome = _act(world, row, actions[row], True, labels)
            outcomes[row] = outcome
            events[row], objects[row] = find_event(world, row, front, thing, code, held)
            if outcome == SUCCESS:
                rewards[row] = 1 - 0.9 * (world.scalars[row, STEPS] / world.scalars[row, MAX_STEPS])


@compiled
def observe_rows(world, active, view, direction, carrying):
    """Write what all active rows show."""
    for row in range(len(active)):
        if active[row]:
            observe(world, row, view[row])
            direction[row] = world.scalars[row, DIRECTION]
            carrying[row] = world.scalars[row, CARRIED] != 0


@compiled
def describe_rows(world, memory, active, position, unlocked, subgoal, walking, straight):
    """Write the facts of all active rows but for events."""
    for row in range(len(active)):
        if not active[row]:
            continue
        stride = world.geometry[row, G_STRIDE]
        agent = world.scalars[row, AGENT]
        x, y = agent % stride - PAD, agent // stride - PAD
        position[row, 0], position[row, 1] = x, y
        unlocked[row] = door_unlocked(world, row, memory)
        subgoal[row] = bot_subgoal(world, row)
        find_nearest(world, row, memory)
        for k in range(NUM_SOUGHT):
            if memory.moves[row, k] >= 0:
                cell = memory.cells[row, k]
                across, down = cell % stride - PAD - x, cell // stride - PAD - y
                walking[row, k] = memory.moves[row, k]
                straight[row, k] = np.sqrt(across * across + down * down)


# ---------------------------------------------------------------------------------------------------------------- core


def is_on_disk() -> bool:
    """Return whether the world was compiled on this machine before; otherwise a first step takes about a minute."""
    return not hasattr(step_rows, "_cache") or step_rows._cache.holds(step_rows.targetctx)


def build_compiled_core(
    tasks: Sequence[tuple[str, int]],
    max_steps: int | None,
    *,
    label: bool,
    record: bool,
    required: bool = False,
) -> CompiledCore | None:
    """Return a core that plays levels of tasks, None where those of one are not compiled.

    Args:
        tasks: Id or short name of each, and how many slots play it; slots are in the order of tasks.
        max_steps: Step limit of every episode; None keeps each level's own.
        label: Whether the expert labels every observation.
        record: Whether facts are recorded; needs `label`.
        required: Raise instead of returning None.

    Raises:
        UnknownTaskError: No such task.
        ValueError: `required`, and the levels are not compiled; `max_steps` is out of range.
    """
    if max_steps is not None and (isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1):
        raise ValueError(f"max_steps: expected None or an int >= 1, found {max_steps!r}")
    programs = []
    for task_id, slots in tasks:
        program = level_program(task_id)
        if isinstance(program, LevelProgram):
            programs.append((program, slots))
        elif required:
            raise ValueError(f"core: {program.task_id} is not compiled ({program.reason}); use auto or plain")
        else:
            return None
    return CompiledCore(programs, max_steps, label=label, record=record)


class CompiledCore:
    """N rows of the compiled world; its methods are described at `babyai.plain_core.PlainCore`.

    Attributes:
        task_ids: Of each task, full id.
        labels: int64 (N,), the expert's action for the present state of each slot, NO_LABEL where it has none.
        world: The rows.
    """

    name = "compiled"

    def __init__(
        self, programs: Sequence[tuple[LevelProgram, int]], max_steps: int | None, *, label: bool, record: bool
    ) -> None:
        each, slots = [program for program, _ in programs], [count for _, count in programs]
        num_envs, geometry = sum(slots), np.stack([program.geometry for program in each])
        self.task_ids = [program.task_id for program in each]
        self.labels = np.full(num_envs, NO_LABEL, np.int64)
        self._tasks = np.repeat(np.arange(len(each)), slots)  # of each row
        self.world: World = at.allocate(geometry[self._tasks], num_envs)
        self._params = np.stack([program.params for program in each])
        self._limit = OWN_LIMIT if max_steps is None else max_steps
        self._scratch = allocate_scratch(geometry, len(each))
        self._memory: Memory = allocate_memory(self.world)
        self._keys = np.zeros((num_envs, KEY_LENGTH), np.int8)
        self._contexts: list[dict[str, Any]] = [{}] * num_envs
        self._label, self._record = label, record

    def start(self, slots: Sequence[int], seeds: Sequence[int], plans: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Start a level in each of `slots`."""
        lengths = np.empty(len(slots), np.int64)
        rows = np.array(slots), np.array(seeds, np.int64), np.array(plans, bool)
        told = self._label, self.labels, self._record, self._memory, self._keys, lengths
        start_rows(self.world, self._scratch, self._params, self._tasks, self._limit, *rows, *told)
        started = lengths != -2
        if self._record:
            for slot, good in zip(slots, started.tolist(), strict=True):
                if good:
                    find_nearest(self.world, slot, self._memory)
                    self._contexts[slot] = describe_level(self.world, slot, self._memory)
        return started, lengths

    def restore(self, slot: int, seed: int, actions: Sequence[int]) -> None:
        """Start a level and play `actions`, without asking whether it can be solved."""
        self.start([slot], [seed], [False])
        replay_row(self.world, slot, np.array(actions, np.int64), self._label, self.labels)

    def step(self, actions: np.ndarray, active: np.ndarray, result: VectorStep) -> np.ndarray:
        """Act in the active slots; fill `outcome` and events of `result`; return the rewards, float64 (N,)."""
        rewards = np.zeros(len(active))
        if self._record:
            facts = result.facts
            rest = (actions, active, self.labels, result.outcome, rewards, facts.event, facts.event_object)
            step_recorded_rows(self.world, *rest)
        else:
            step_rows(self.world, actions, active, self._label, self.labels, result.outcome, rewards)
        return rewards

    def observe(self, active: np.ndarray, result: VectorStep) -> None:
        """Fill what the active slots show: view, direction, carrying, and facts but for events."""
        observe_rows(self.world, active, result.view, result.direction, result.carrying)
        if self._record:
            facts = result.facts
            columns = facts.position, facts.door_unlocked, facts.subgoal, facts.walking, facts.straight
            describe_rows(self.world, self._memory, active, *columns)

    def mission_key(self, slot: int) -> bytes:
        """Return what distinguishes the slot's sentence from others."""
        return self._keys[slot].tobytes()

    def mission(self, slot: int) -> str:
        """Return the slot's sentence."""
        return mission_text(self._keys[slot].tobytes())

    def steps(self, slot: int) -> int:
        """Return the steps taken in the slot's episode."""
        return int(self.world.scalars[slot, STEPS])

    def env_context(self, slot: int) -> dict[str, Any]:
        """Return the slot's level at its start, see `babyai.compiled.context`; only where facts are recorded."""
        return self._contexts[slot]
