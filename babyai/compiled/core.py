"""N levels played by compiled code, behind the methods that `babyai.plain_core.PlainCore` has too.

    core = build_compiled_core([("GoToObj", 16)], max_steps=None, plan_every=0, label=True, record=False)

One call lets all slots act and labels what comes of it, another begins levels, a third shows them; none holds the
interpreter lock. The first takes most of the time, and many slots are shared out to threads for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.catalogue import LevelProgram, level_program
from babyai.compiled.context import describe_level
from babyai.compiled.draft import Scratch, allocate_scratch
from babyai.compiled.known import allocate_known, learn
from babyai.compiled.record import allocate_memory, find_nearest
from babyai.compiled.sentences import KEY_LENGTH, mission_text
from babyai.compiled.slots import Ledger, Slots, allocate_ledger, allocate_slots, make_room, take_over
from babyai.compiled.turn import (
    NO_EVENTS,
    OWN_LIMIT,
    Game,
    Rules,
    act_slots,
    begin_levels,
    describe_rows,
    replay_row,
    show_slots,
    start_row,
)
from babyai.facts import StepFacts
from babyai.levels import check_step_limit
from babyai.steps import VectorStep

SHARE = 256
"""Slots that are worth a thread of their own; for fewer, handing them over takes too much of the time."""


def build_compiled_core(
    tasks: Sequence[tuple[str, int]],
    max_steps: int | None,
    *,
    plan_every: int,
    label: bool,
    record: bool,
    threads: int = 1,
    required: bool = False,
) -> CompiledCore | None:
    """Return a core that plays levels of tasks, None where those of one are not compiled.

    Args:
        tasks: Id or short name of each, and how many slots play it; slots are in the order of tasks.
        max_steps: Step limit of every episode; None keeps each level's own.
        plan_every: Every so many levels of a slot the expert plays beforehand; 0: none.
        label: Whether the expert labels every observation.
        record: Whether facts are recorded; needs `label`.
        threads: How many let the slots act, where there are `SHARE` for each; results are the same.
        required: Raise instead of returning None.

    Raises:
        UnknownTaskError: No such task.
        ValueError: `required`, and the levels are not compiled; `max_steps` is out of range.
    """
    max_steps = check_step_limit(max_steps)
    programs = []
    for task_id, slots in tasks:
        program = level_program(task_id)
        if isinstance(program, LevelProgram):
            programs.append((program, slots))
        elif required:
            raise ValueError(f"core: {program.task_id} is not compiled ({program.reason}); use auto or plain")
        else:
            return None
    return CompiledCore(programs, max_steps, plan_every=plan_every, label=label, record=record, threads=threads)


class CompiledCore:
    """N rows of the compiled world; its methods are described at `babyai.plain_core.PlainCore`.

    Attributes:
        task_ids: Of each task, full id.
        game: What compiled functions go on with; its ledger and scratch are for one caller at a time.
    """

    name = "compiled"

    def __init__(
        self,
        programs: Sequence[tuple[LevelProgram, int]],
        max_steps: int | None,
        *,
        plan_every: int,
        label: bool,
        record: bool,
        threads: int = 1,
    ) -> None:
        each, slots = [program for program, _ in programs], allocate_slots(programs)
        self.task_ids = [program.task_id for program in each]
        self._geometry = np.stack([program.geometry for program in each])
        world = at.allocate(self._geometry[slots.rows["task"]], len(slots.rows))
        limit = OWN_LIMIT if max_steps is None else max_steps
        self.game = Game(
            world=world,
            scratch=self.allocate_scratch(),
            rules=Rules(np.stack([program.params for program in each]), limit, plan_every, label, record),
            slots=slots,
            known=allocate_known(),
            keys=np.zeros((len(slots.rows), KEY_LENGTH), np.int8),
            memory=allocate_memory(world),
            ledger=allocate_ledger(len(each), len(slots.rows)),
        )
        self._contexts: list[dict[str, Any]] = [{}] * len(slots.rows)
        threads = max(1, min(threads, len(slots.rows) // SHARE))
        self._shares = list(pairwise(np.linspace(0, len(slots.rows), threads + 1).astype(int).tolist()))
        self._ledgers = [
            self.game.ledger,
            *(allocate_ledger(len(each), end - first) for first, end in self._shares[1:]),
        ]
        self._map = map if threads == 1 else ThreadPoolExecutor(threads).map

    def allocate_scratch(self) -> Scratch:
        """Return scratch for one who plays some of the slots."""
        return allocate_scratch(self._geometry, len(self._geometry))

    @property
    def slots(self) -> Slots:
        """What is kept of the slots."""
        return self.game.slots

    @property
    def ledger(self) -> Ledger:
        """What comes of playing."""
        return self.game.ledger

    def make_room(self, steps: int) -> None:
        """Make room for so many actions more in each episode."""
        self.game = self.game._replace(slots=make_room(self.game.slots, steps))

    def act(self, actions: np.ndarray, result: VectorStep) -> None:
        """Let the active slots act."""
        game, facts = self.game, result.facts
        events = NO_EVENTS if facts is None else (facts.event, facts.event_object)

        def play(share: tuple[int, int], ledger: Ledger) -> None:
            act_slots(game.world, game.rules, game.slots, ledger, *events, actions, 0, *share)

        list(self._map(play, self._shares, self._ledgers))
        for ledger in self._ledgers[1:]:
            take_over(game.ledger, ledger)

    def begin(self) -> int:
        """Let waiting slots begin a level; return how many are held up."""
        return begin_levels(self.game, 0, len(self.game.slots.rows))

    def show(self, result: VectorStep) -> None:
        """Fill in what the active slots show."""
        show_slots(
            self.game.world,
            self.game.slots.rows,
            result.view,
            result.direction,
            result.carrying,
            result.mission_id,
            result.episode_start,
            result.active,
            result.expert_action,
            result.expert_valid,
        )
        if result.facts is not None:
            self._describe(result.facts)

    def _describe(self, facts: StepFacts) -> None:
        """Fill in the facts but for events, and keep the contexts of the levels that have just begun."""
        game, rows = self.game, self.game.slots.rows
        columns = facts.position, facts.door_unlocked, facts.subgoal, facts.walking, facts.straight
        describe_rows(game.world, game.memory, rows, *columns)
        for slot in np.flatnonzero(rows["active"] & (rows["taken"] == 0)).tolist():
            self._contexts[slot] = describe_level(game.world, slot, game.memory)

    def restore(self, slot: int, seed: int, actions: Sequence[int]) -> None:
        """Start a level and play `actions`, without asking whether it can be solved."""
        game = self.game
        rows = game.slots.rows
        start_row(game.world, game.scratch, game.rules, rows, slot, seed, False, game.keys, game.memory)
        if game.rules.record:
            find_nearest(game.world, slot, game.memory)
            self._contexts[slot] = describe_level(game.world, slot, game.memory)
        replay_row(game.world, rows, slot, np.array(actions, np.int64), game.rules.label)

    def mission(self, slot: int) -> str:
        """Return the slot's sentence."""
        return mission_text(self.game.keys[slot].tobytes())

    def forget_missions(self) -> None:
        """Forget the numbers of missions."""
        self.game = self.game._replace(known=allocate_known())

    def learn(self, slot: int, mission_id: int) -> None:
        """Take note of the number of the slot's mission."""
        self.game = self.game._replace(known=learn(self.game.known, self.game.keys[slot], mission_id))

    def env_context(self, slot: int) -> dict[str, Any]:
        """Return the slot's level at its start, see `babyai.compiled.context`; only where facts are recorded."""
        return self._contexts[slot]
