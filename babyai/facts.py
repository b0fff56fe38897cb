"""The world's vocabulary, codes and their names; and the facts of a step that evaluation stores beside observations.

    env = VectorEnv("UnlockPickup", 16, SeedList(seeds), plan_every=1, record=True)
    step = env.reset()
    step.facts.walking[:, TARGET]                    # moves to the target, float32 (16,)
    EVENT_NAMES[step.facts.event[0]]                 # "unlocked"

Every code that is stored or crosses a module's border is defined here, once. This module needs numpy only, so that
whoever reads stored facts need not have minigrid.

Doors, keys, targets
- The *door* is the nearest of the doors that were locked when the episode began; if there were none, of all doors.
- The *key* is the nearest of the keys whose colour is that of a door that was locked when the episode began; if there
  are none, of all keys. A key hidden in a box is none until the box is opened.
- The *target* is the nearest of the objects that the instruction speaks of. Of a sequence the part counts that is to be
  carried out next ("X, then Y": X until it is done; "X and Y": those of both that are not yet done), by the verifier's
  own record. "Put X next to Y" means X until one is carried, then Y, and X again when it is put down elsewhere.

Distances
- *Walking*: the least number of moves between 4-neighbours that lead from the agent's cell to the object's. Walls
  block. Doors do not, open, closed or locked. Other objects block, except the one that is walked to.
- Where none of the objects in question can be reached that way, objects no longer block; this is the case for a target
  that has to be freed first. An object that can be reached counts as nearer than any that cannot.
- *Nearest* is by walking distance, ties go to the lowest y, then the lowest x. The *straight* distance is the Euclidean
  one to that same object.
- What the agent carries is at distance 0 and therefore nearest. NaN: there is no such object, or no more (a box that
  has been opened is gone).
"""

from dataclasses import dataclass

import numpy as np

VIEW_SIZE = 7
"""Cells along each side of the agent's view."""

ACTION_NAMES = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
NUM_ACTIONS = len(ACTION_NAMES)
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(NUM_ACTIONS)

DIRECTION_NAMES = ("right", "down", "left", "up")
NUM_DIRECTIONS = len(DIRECTION_NAMES)

RUNNING, SUCCESS, FAILURE, TIMEOUT = range(4)
"""How an episode stands. Success needs a reward: BabyAI also terminates on failure. In tables of episodes -1 stands for
an outcome that is not known."""

OUTCOME_NAMES = {SUCCESS: "success", FAILURE: "failure", TIMEOUT: "timeout"}
"""Outcomes of an episode that has ended."""

COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
KINDS = ("door", "key", "ball", "box")

OBJECT_NAMES = tuple(f"{color} {kind}" for kind in KINDS for color in COLORS)
"""What `StepFacts.event_object` numbers."""

EVENT_NAMES = ("none", "picked", "dropped", "unlocked", "opened", "closed", "box_opened")
"""What `StepFacts.event` numbers."""

NOTHING, PICKED, DROPPED, UNLOCKED, OPENED, CLOSED, BOX_OPENED = range(len(EVENT_NAMES))

SUBGOAL_NAMES = ("GoNextTo", "Explore", "Open", "Close", "Pickup", "Drop", "Done")
"""What `StepFacts.subgoal` numbers: the bot's subgoals. "Explore" is walking somewhere in order to see more; "Done":
nothing is left to do, as the bot sees it."""

PLACES = ("door", "key", "target")
"""The columns of `StepFacts.walking` and `StepFacts.straight`."""

DOOR, KEY, TARGET = range(len(PLACES))


@dataclass(frozen=True)
class StepFacts:
    """The facts of N slots at one step; the arrays are fresh each time. The module says what the terms mean.

    All but the events describe the state that the observation shows. Events belong to the action that led here, also
    when it ended the episode, as rewards and outcomes do. Inactive slots hold -1 and NaN.

    Attributes:
        position: int16 (N, 2), the agent's [x, y].
        door_unlocked: int8 (N,), -1: no door of the level was locked when the episode began; 0: none of those that were
            has been unlocked; 1: at least one has.
        subgoal: int8 (N,), code of the subgoal that the expert's action serves, -1 where there is no label.
        walking: float32 (N, 3), moves to the nearest door, key, target; NaN where there is none.
        straight: float32 (N, 3), Euclidean distances in cells to the same objects.
        event: int8 (N,), code of what the last action did; 0: nothing.
        event_object: int16 (N,), code of the object it was done to, -1: none.
    """

    position: np.ndarray
    door_unlocked: np.ndarray
    subgoal: np.ndarray
    walking: np.ndarray
    straight: np.ndarray
    event: np.ndarray
    event_object: np.ndarray

    def __post_init__(self) -> None:
        num_envs = len(self.position)
        for name, shape, dtype, _ in FACT_FIELDS:
            array = getattr(self, name)
            if array.shape != (num_envs, *shape) or array.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} {(num_envs, *shape)}, found {array.dtype} {array.shape}")

    @classmethod
    def empty(cls, num_envs: int) -> "StepFacts":
        """The facts of `num_envs` inactive slots, to be filled in."""
        return cls(**{name: np.full((num_envs, *shape), fill, dtype) for name, shape, dtype, fill in FACT_FIELDS})


FACT_FIELDS = [
    ("position", (2,), np.dtype(np.int16), -1),
    ("door_unlocked", (), np.dtype(np.int8), -1),
    ("subgoal", (), np.dtype(np.int8), -1),
    ("walking", (len(PLACES),), np.dtype(np.float32), np.nan),
    ("straight", (len(PLACES),), np.dtype(np.float32), np.nan),
    ("event", (), np.dtype(np.int8), 0),
    ("event_object", (), np.dtype(np.int16), -1),
]
"""Name, shape of one slot, type and the value at inactive slots of each array of `StepFacts`."""
