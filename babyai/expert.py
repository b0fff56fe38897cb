"""The BabyAI bot as expert: the action it would take in the simulator's current state, in bounded work.

    expert = Expert(simulator)
    expert.reset()                                   # after simulator.load(seed)
    action = expert.suggest(None)                    # first observation
    simulator.step(taken)
    action = expert.suggest(taken)                   # the student took `taken`; None once the bot has given up

The bot is minigrid's `BabyAIBot`. A subclass replaces what it spends its time on with equal but faster parts: its
memory of seen cells shares the simulator's visibility, one breadth-first search per state serves all its queries, and
its subgoals read the state from a snapshot. tests/babyai/test_world.py compares every suggestion with the untouched
bot.
"""

import babyai.minigrid_import  # noqa: F401

# isort: split
from collections.abc import Callable
from typing import Any

import numpy as np
from minigrid.core.actions import Actions
from minigrid.utils.baby_ai_bot import BabyAIBot, Subgoal

from babyai.compiled.layout import MAX_PUSHES
from babyai.errors import LevelError
from babyai.facts import RUNNING, SUCCESS
from babyai.simulator import DIRECTIONS, FREE, PAD, THING, VIEW, WALKING_KIND, Simulator

Cell = tuple[int, int]

# Directions in the order in which a walker going in direction d tries them: straight on first, backwards last
_TURNS = ((0, 1, 3, 2), (1, 0, 2, 3), (2, 3, 1, 0), (3, 2, 0, 1))
_VECTORS = [np.array(vector) for vector in DIRECTIONS]
_RIGHT_VECTORS = [np.array((-dy, dx)) for dx, dy in DIRECTIONS]


class ExpertGaveUp(Exception):
    """The bot replans without coming to a decision."""


class Expert:
    """The bot, following one simulator.

    Attributes:
        gave_up: why the bot is silent, None while it is not.
    """

    def __init__(self, simulator: Simulator) -> None:
        """An expert for `simulator`; call `reset` once a level is loaded."""
        self._simulator = simulator
        self._bot: _Bot | None = None
        self.gave_up: str | None = "no level yet: call reset() after Simulator.load()"

    def reset(self) -> None:
        """Forgets the last level and plans for the one that the simulator has just loaded."""
        self.gave_up = None
        try:
            self._bot = _Bot(self._simulator)
        except Exception as error:
            self._give_up(error)

    def suggest(self, action_taken: int | None) -> int | None:
        """The bot's action (0..6) for the current state.

        Call it once for the first observation and once after every step: the bot follows what the agent does.

        Args:
            action_taken: the agent's last action; None on an episode's first observation.

        Returns:
            the action, or None from the moment the bot gives up until `reset`: a plan that missed a step would yield
            wrong labels.
        """
        if self.gave_up is not None:
            return None
        try:
            return int(self._bot.replan(action_taken))
        # Whatever the bot raises (failed assertions, type errors on missing positions, opened boxes) means that it has
        # no plan.
        except Exception as error:
            self._give_up(error)
            return None

    @property
    def subgoal(self) -> str | None:
        """What the last suggestion serves, one of `babyai.facts.SUBGOAL_NAMES`; None once the bot has given up."""
        if self._bot is None:
            return None
        if not self._bot.stack:
            return "Done"
        # The bot decides by the top of its stack, and deciding on an action leaves the stack as it is
        top = self._bot.stack[-1]
        return "Explore" if top.is_exploratory() else type(top).__name__.removesuffix("Subgoal")

    def _give_up(self, error: Exception) -> None:
        self._bot = None
        self.gave_up = f"{type(error).__name__}: {error}".rstrip(": ")


def plan_length(simulator: Simulator, level_seed: int) -> int | None:
    """The number of steps in which the expert solves a level, None if it does not within the level's step limit.

    Args:
        simulator: one that nobody else is playing on: it loads the level anew.
        level_seed: the level.
    """
    try:
        simulator.load(level_seed)
    except LevelError:
        return None
    expert = Expert(simulator)
    expert.reset()
    action, outcome = expert.suggest(None), RUNNING
    while action is not None and outcome == RUNNING:
        outcome = simulator.step(action).outcome
        if outcome == RUNNING:
            action = expert.suggest(action)
    return simulator.steps if outcome == SUCCESS else None


# ---------------------------------------------------------------------------------------------------------------------
# The bot's parts


class _Plan(list):
    """The bot's stack of subgoals; pushing is what bounds its work."""

    pushes = 0

    def append(self, subgoal: Subgoal) -> None:
        self.pushes += 1
        if self.pushes > MAX_PUSHES:
            raise ExpertGaveUp(f"more than {MAX_PUSHES} subgoals for one action")
        super().append(subgoal)


class _Snapshot:
    """What the bot asks of its environment, as plain attributes that hold until the next `refresh`."""

    actions = Actions
    agent_view_size = VIEW

    def __init__(self, simulator: Simulator) -> None:
        self.unwrapped = self
        self.env = env = simulator.env
        self.instrs = env.instrs
        self.grid = env.grid
        self.width, self.height = env.width, env.height
        self.room_from_pos = env.room_from_pos
        self.in_view = env.in_view
        self.refresh()

    def refresh(self) -> None:
        env = self.env
        self.agent_dir = direction = env.agent_dir
        self.agent_pos = pos = np.array(env.agent_pos)
        self.dir_vec = ahead = _VECTORS[direction]
        self.right_vec = right = _RIGHT_VECTORS[direction]
        self.carrying = env.carrying
        fwd_pos = pos + ahead
        # What Subgoal.update_agent_attributes sets
        self.subgoal_attributes = {
            "pos": pos,
            "dir_vec": ahead,
            "right_vec": right,
            "fwd_pos": fwd_pos,
            "fwd_cell": self.grid.get(*fwd_pos.tolist()),
            "carrying": self.carrying,
        }


def _sought_position(accept: Callable[[Cell, Any], bool]) -> Cell | None:
    """The position that `accept` waits for when it is a `lambda pos, cell: pos == position`, else None.

    Most of the bot's questions are of this form. Recognised by comparing bytecode with that of such a lambda, so that
    any other function takes the general way.
    """
    code = accept.__code__
    if code.co_code == _POSITION_CODE and len(code.co_freevars) == 1:
        target = accept.__closure__[0].cell_contents
        if type(target) is tuple:
            return target
    return None


def _position_test(position: Cell) -> Callable[[Cell, Any], bool]:
    return lambda pos, cell: pos == position


_POSITION_CODE = _position_test((0, 0)).__code__.co_code


class _Search:
    """Breadth-first search over cells that is run once and asked often.

    The order in which cells are reached does not depend on what is looked for, so one lazily extended traversal answers
    every question about a state.
    """

    def __init__(self, bot: "_Bot", starts: list[int], headings: list[int], through_things: bool) -> None:
        self._bot = bot
        self._blocked = _BLOCKED_BY_SHUT if through_things else _BLOCKED_BY_THINGS
        self.reached = starts  # padded indices in the order in which the bot visits them
        self._headings = headings  # the direction in which each was entered
        self.parents: dict[int, int] = dict.fromkeys(starts, -1)
        self._expanded = 0

    def find(self, accept: Callable[[Cell, Any], bool]) -> int:
        """Padded index of the first cell that `accept(position, content)` takes, -1 if there is none."""
        bot = self._bot
        target = _sought_position(accept)
        if target is not None:
            index = bot.index_of(target)
            while index not in self.parents:
                if not self._grow():
                    return -1
            return index
        positions, numbers, contents = bot.positions, bot.numbers, bot.mission.grid.grid
        start = 0
        while True:
            for index in self.reached[start:]:
                if accept(positions[index], contents[numbers[index]]):
                    return index
            start = len(self.reached)
            if not self._grow():
                return -1

    def exhaust(self) -> list[int]:
        """All cells within reach, in order."""
        while self._grow():
            pass
        return self.reached

    def path_to(self, index: int) -> list[int]:
        """From `index` back to a start, both included."""
        path = []
        while index >= 0:
            path.append(index)
            index = self.parents[index]
        return path

    def _grow(self) -> bool:
        """Goes one step on from all cells at the edge; whether that led anywhere new."""
        bot = self._bot
        seen, cells, turns, blocked = bot.seen, bot.cells, bot.turns, self._blocked
        reached, headings, parents = self.reached, self._headings, self.parents
        known = len(reached)
        for k in range(self._expanded, known):
            index = reached[k]
            if seen[index] and not blocked[cells[index]]:
                for heading, step in turns[headings[k]]:
                    neighbour = index + step
                    if neighbour not in parents:
                        parents[neighbour] = index
                        reached.append(neighbour)
                        headings.append(heading)
        self._expanded = known
        return len(reached) > known


_BLOCKED_BY_THINGS = bytes(kind != FREE for kind in WALKING_KIND)
_BLOCKED_BY_SHUT = bytes(kind not in (FREE, THING) for kind in WALKING_KIND)


class _Bot(BabyAIBot):
    """minigrid's bot with a bounded plan and shared, cached perception."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.mission = _Snapshot(simulator)
        stride, width, height = simulator.stride, simulator.width, simulator.height
        self.cells = simulator.cells
        self.seen = bytearray(len(self.cells))  # padded like `cells`
        self._seen_flat = np.frombuffer(self.seen, np.uint8)
        padded = self._seen_flat.view(bool).reshape(-1, stride)
        self.vis_mask = padded[PAD : PAD + height, PAD : PAD + width].T  # the name and the [x, y] that the bot uses
        self.positions, self.numbers = _index_tables(width, height, stride)
        steps = [dy * stride + dx for dx, dy in DIRECTIONS]
        self.turns = [tuple((heading, steps[heading]) for heading in order) for order in _TURNS]
        self.stack = _Plan()
        self._process_instr(self.mission.instrs)

    def replan(self, action_taken: int | None = None) -> int:
        snapshot, stack = self.mission, self.stack
        snapshot.refresh()
        attributes = snapshot.subgoal_attributes
        stack.pushes = 0
        self._process_obs()
        self._check_erroneous_box_opening(action_taken)
        # Only the top of the stack looks at the state, and the state holds still while the bot thinks: updating a
        # subgoal when it comes to the top is the same as updating all of them first.
        if stack:
            top = stack[-1]
            top.__dict__.update(attributes)
            top.replan_after_action(action_taken)
        while stack and stack[-1].is_exploratory():
            stack.pop()
        action = None
        while stack and action is None:
            top = stack[-1]
            top.__dict__.update(attributes)
            action = top.replan_before_action()
        if not stack:
            action = Actions.done
        self._remember_current_state()
        return action

    def _process_obs(self) -> None:
        self._seen_flat[self._simulator.visible_indices()] = 1
        self._free_search: _Search | None = None
        self._pushing_search: _Search | None = None

    def _remember_current_state(self) -> None:
        snapshot = self.mission
        self.prev_agent_pos = snapshot.agent_pos
        self.prev_carrying = snapshot.carrying
        self.prev_fwd_cell = front = snapshot.subgoal_attributes["fwd_cell"]
        if front is not None and front.type == "door":
            self.fwd_door_was_open = front.is_open

    def _shortest_path(
        self, accept_fn: Callable[[Cell, Any], bool], try_with_blockers: bool = False
    ) -> tuple[list[Cell] | None, Cell | None, bool]:
        """Shortest path to a cell that `accept_fn` takes, without its start; that cell; whether objects block it."""
        search = self._free_search
        if search is None:
            snapshot = self.mission
            search = _Search(self, [self._simulator.agent_index], [snapshot.agent_dir], through_things=False)
            self._free_search = search
        found = search.find(accept_fn)
        if found >= 0:
            return self._as_cells(search.path_to(found)), self.positions[found], False
        if not try_with_blockers:
            return None, None, False
        # From everywhere that can be reached without moving anything, now through objects too
        pushing = self._pushing_search
        if pushing is None:
            starts = list(search.exhaust())
            pushing = _Search(self, starts, [0] * len(starts), through_things=True)
            self._pushing_search = pushing
        found = pushing.find(accept_fn)
        if found < 0:
            return None, None, True
        path = pushing.path_to(found)
        path += search.path_to(path[-1])[1:]
        return self._as_cells(path), self.positions[found], True

    def index_of(self, position: Cell) -> int:
        """Padded index of a cell."""
        return (position[1] + PAD) * self._simulator.stride + position[0] + PAD

    def _as_cells(self, path: list[int]) -> list[Cell]:
        positions = self.positions
        return [positions[index] for index in path[-2::-1]]


_tables: dict[tuple[int, int, int], tuple[list[Cell], list[int]]] = {}


def _index_tables(width: int, height: int, stride: int) -> tuple[list[Cell], list[int]]:
    """Padded index -> (x, y), and -> index into minigrid's grid list."""
    key = (width, height, stride)
    if key not in _tables:
        positions = [(k % stride - PAD, k // stride - PAD) for k in range(stride * (height + 2 * PAD))]
        _tables[key] = positions, [y * width + x for x, y in positions]
    return _tables[key]
