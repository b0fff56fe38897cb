"""Slots go on: they act, episodes end, next levels begin, and each shows what there is now. All of it compiled.

    act_slots(game.world, game.rules, game.slots, game.ledger, *events, actions, 0, 0, N)
    held = begin_levels(game, 0, N)

A range of slots touches its own rows, and what `Game` says is the range's own: ranges can be played by several threads.
What compiled code cannot do alone is left to Python (`babyai.vector_env`): naming a mission that is new, recording that
a seed gives no level, and giving further seeds. `held` counts the slots that wait for it.
"""

from typing import NamedTuple

import numpy as np

from babyai.compiled.bot import bot_reset, bot_subgoal, bot_suggest
from babyai.compiled.draft import Scratch
from babyai.compiled.generate import generate
from babyai.compiled.jit import compiled
from babyai.compiled.known import Known, find_known
from babyai.compiled.layout import AGENT, CARRIED, DIRECTION, G_STRIDE, MAX_STEPS, PAD, STEPS, World
from babyai.compiled.play import look, observe, step
from babyai.compiled.record import (
    NUM_SOUGHT,
    Memory,
    door_unlocked,
    find_event,
    find_nearest,
    remember_front,
    start_recording,
)
from babyai.compiled.sentences import write_mission_key
from babyai.compiled.slots import STARTED, UNKNOWN, UNLABELLED, Ledger, Slots
from babyai.compiled.slots import STEPS as STEPS_TAKEN
from babyai.facts import NOTHING, RUNNING, SUCCESS
from babyai.steps import NO_LABEL

NO_EVENTS = np.zeros(0, np.int8), np.zeros(0, np.int16)  # where what actions do is not recorded
OWN_LIMIT = 0  # instead of a step limit: each level's own
FAILED = -2  # instead of a plan's length


class Rules(NamedTuple):
    """What all slots have in common.

    Attributes:
        params: int64 (tasks, P) of the tasks' generators.
        limit: Steps of every episode, or OWN_LIMIT.
        plan_every: Every so many levels of a slot the expert plays beforehand; 0: none.
        label: Whether the expert labels what is shown.
        record: Whether facts are recorded.
    """

    params: np.ndarray
    limit: int
    plan_every: int
    label: bool
    record: bool


class Game(NamedTuple):
    """All that slots go on with; scratch and ledger are a range's own.

    Attributes:
        world: The slots' levels.
        scratch: Of the generators.
        rules: What slots have in common.
        slots: What each has beside its level.
        known: Missions that have a number.
        keys: int8 (N, KEY_LENGTH) what the slots' missions depend on.
        memory: Of recording.
        ledger: What comes of playing.
    """

    world: World
    scratch: Scratch
    rules: Rules
    slots: Slots
    known: Known
    keys: np.ndarray
    memory: Memory
    ledger: Ledger


# ------------------------------------------------------------------------------------------------------------- to begin


@compiled
def begin_levels(game, first, end):
    """Give each waiting slot of a range the level of its next seed; return how many are held up.

    Only one seed of each is tried, and none before all have one: in which order missions are met and seeds rejected
    does not depend then on when seeds were given.
    """
    rules, held = game.rules, 0
    for k in range(first, end):
        slot = game.slots.rows[k]
        if slot.waiting and slot.used == slot.offered:
            held += 1
    if held > 0:
        return held
    for k in range(first, end):
        slot = game.slots.rows[k]
        if not slot.waiting:
            continue
        seed = game.slots.seeds[k, slot.used]
        slot.used += 1
        slot.seed = seed
        plan = rules.plan_every > 0 and slot.started % rules.plan_every == 0
        length = start_row(game.world, game.scratch, rules, game.slots.rows, k, seed, plan, game.keys, game.memory)
        if length == FAILED:
            slot.rejected = True
            slot.failures += 1
            held += 1
            continue
        slot.active, slot.waiting, slot.failures = True, False, 0
        slot.started += 1
        slot.taken = 0
        slot.expert_steps = length
        game.ledger.counts[STARTED, slot.task] += 1
        slot.mission_id = find_known(game.known, game.keys[k])
        if slot.mission_id == UNKNOWN:
            held += 1
    return held


@compiled
def start_row(world, scratch, rules, rows, row, seed, plan, keys, memory):
    """Start a level in a row; return the length of the expert's plan, -1 without one, FAILED if there is no level."""
    length, task = -1, rows[row].task
    if plan:
        if generate(world, row, seed, rules.params[task], scratch, task) == 0:
            return FAILED
        length = _play_expert(world, row)
        if length < 0:
            return FAILED
    if generate(world, row, seed, rules.params[task], scratch, task) == 0:
        return FAILED
    if rules.limit != OWN_LIMIT:
        world.scalars[row, MAX_STEPS] = rules.limit
    look(world, row)
    rows[row].label = NO_LABEL
    if rules.label:
        bot_reset(world, row)
        rows[row].label = bot_suggest(world, row, -1)
        if rows[row].label < 0:
            return FAILED
    write_mission_key(world, row, keys[row])
    if rules.record:
        start_recording(world, row, memory)
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


# --------------------------------------------------------------------------------------------------------------- to act


@compiled
def act_slots(world, rules, slots, ledger, events, objects, actions, t, first, end):
    """Act in the active slots of a range, and let those wait whose episodes end.

    Args:
        world: The slots' levels.
        rules: What slots have in common.
        slots: What each has beside its level; its history has room.
        ledger: Of the range.
        events: int8 (N,) filled with what actions do, if that is recorded; else `NO_EVENTS` will do.
        objects: int16 (N,) and to what.
        actions: int64 (N,).
        t: Step, for the ledger.
        first: First slot of the range.
        end: One past its last.
    """
    for k in range(first, end):
        slot = slots.rows[k]
        if rules.record:
            events[k], objects[k] = NOTHING, -1
        if not slot.active:
            continue
        action = actions[k]
        slots.history[k, slot.taken] = action
        slot.taken += 1
        ledger.counts[STEPS_TAKEN, slot.task] += 1
        front, thing, code, held = remember_front(world, k)
        outcome = step(world, k, action)
        if outcome == RUNNING:
            look(world, k)
            if rules.label:
                slot.label = bot_suggest(world, k, action)
                if slot.label < 0:
                    ledger.counts[UNLABELLED, slot.task] += 1
        else:
            _end_episode(world, slot, k, outcome, t, ledger)
        if rules.record:
            events[k], objects[k] = find_event(world, k, front, thing, code, held)


@compiled
def _end_episode(world, slot, k, outcome, t, ledger):
    """Record an episode, and let its slot wait."""
    end = ledger.ends[ledger.ended[0]]
    ledger.ended[0] += 1
    end.t, end.slot, end.seed, end.outcome = t, k, slot.seed, outcome
    end.steps, end.expert_steps, end.mission_id = slot.taken, slot.expert_steps, slot.mission_id
    end.reward = 0.0
    if outcome == SUCCESS:
        end.reward = 1 - 0.9 * (world.scalars[k, STEPS] / world.scalars[k, MAX_STEPS])
    slot.active, slot.waiting = False, True


@compiled
def replay_row(world, rows, row, actions, label):
    """Take the actions of an episode again."""
    for action in actions:
        if step(world, row, int(action)) == RUNNING:
            look(world, row)
            if label:
                rows[row].label = bot_suggest(world, row, int(action))


# -------------------------------------------------------------------------------------------------------------- to show


@compiled
def show_slots(world, rows, view, direction, carrying, mission_id, start, active, expert_action, expert_valid):
    """Write what all active slots show to the arrays of a `VectorStep`, zero so far."""
    for k in range(len(rows)):
        slot = rows[k]
        if slot.active:
            observe(world, k, view[k])
            direction[k] = world.scalars[k, DIRECTION]
            carrying[k] = world.scalars[k, CARRIED] != 0
            mission_id[k] = slot.mission_id
            start[k] = slot.taken == 0
            active[k] = True
            if slot.label >= 0:
                expert_action[k], expert_valid[k] = slot.label, True


@compiled
def describe_rows(world, memory, rows, position, unlocked, subgoal, walking, straight):
    """Write the facts of all active rows but for events."""
    for row in range(len(rows)):
        if not rows[row].active:
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
