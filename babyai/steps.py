"""What crosses the border of `babyai`: the arrays that N slots show, and the episodes that ended."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from babyai.facts import VIEW_SIZE, StepFacts

NO_LABEL = -1
"""What the cores hold as the expert's action where it has none."""


@dataclass(frozen=True)
class EpisodeEnd:
    """An episode that has just ended.

    Attributes:
        slot: where it was played.
        level_seed: its level.
        outcome: SUCCESS, FAILURE or TIMEOUT, as `babyai.facts` numbers them.
        steps: its length.
        reward: the last step's reward, which is the episode's return.
        expert_steps: the expert's number of steps on the same level; None when it was not asked.
        mission: the instruction.
        env_context: the level at its start, see `babyai.compiled.context`; None unless facts are recorded.
    """

    slot: int
    level_seed: int
    outcome: int
    steps: int
    reward: float
    expert_steps: int | None
    mission: str
    env_context: dict[str, Any] | None = None


@dataclass(frozen=True)
class VectorStep:
    """What all N slots show after a reset or a step; the arrays are fresh each time.

    Attributes:
        view: uint8 (N, 7, 7, 3), minigrid's partial view [x, y, channel].
        direction: int64 (N,), 0..3: right, down, left, up.
        carrying: bool (N,), whether the agent holds something.
        mission_id: int64 (N,), index into `VectorEnv.missions`.
        expert_action: int64 (N,), the expert's action for this observation, 0 where there is none.
        expert_valid: bool (N,), where `expert_action` is a label.
        reward: float32 (N,), of the action that led here.
        outcome: int8 (N,), of the episode that ended with that action (`babyai.facts`), 0 otherwise.
        episode_start: bool (N,), this observation is an episode's first.
        active: bool (N,), False where no level is left: everything else is zero there, but for what the action that
            ended the last episode brought; facts are -1 and NaN.
        ended: the episodes that ended, by slot.
        facts: where things are and what the action that led here did; None unless facts are recorded.
    """

    view: np.ndarray
    direction: np.ndarray
    carrying: np.ndarray
    mission_id: np.ndarray
    expert_action: np.ndarray
    expert_valid: np.ndarray
    reward: np.ndarray
    outcome: np.ndarray
    episode_start: np.ndarray
    active: np.ndarray
    ended: tuple[EpisodeEnd, ...] = ()
    facts: StepFacts | None = None

    def __post_init__(self) -> None:
        num_envs = len(self.view)
        for name, shape, dtype in STEP_FIELDS:
            array = getattr(self, name)
            if array.shape != (num_envs, *shape) or array.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} {(num_envs, *shape)}, found {array.dtype} {array.shape}")
        if self.facts is not None and len(self.facts.position) != num_envs:
            raise ValueError(f"facts: expected those of {num_envs} slots, found {len(self.facts.position)}")

    @classmethod
    def zeros(cls, num_envs: int, record: bool = False) -> "VectorStep":
        """A step of `num_envs` inactive slots, to be filled in; with facts if `record`."""
        step = cls.__new__(cls)  # without the checks of shapes, which these arrays need not pass at every step
        fields = {name: np.zeros((num_envs, *shape), dtype) for name, shape, dtype in STEP_FIELDS}
        step.__dict__.update(fields, ended=(), facts=StepFacts.empty(num_envs) if record else None)
        return step


STEP_FIELDS = [
    ("view", (VIEW_SIZE, VIEW_SIZE, 3), np.dtype(np.uint8)),
    ("direction", (), np.dtype(np.int64)),
    ("carrying", (), np.dtype(bool)),
    ("mission_id", (), np.dtype(np.int64)),
    ("expert_action", (), np.dtype(np.int64)),
    ("expert_valid", (), np.dtype(bool)),
    ("reward", (), np.dtype(np.float32)),
    ("outcome", (), np.dtype(np.int8)),
    ("episode_start", (), np.dtype(bool)),
    ("active", (), np.dtype(bool)),
]
"""Name, shape of one slot and type of each array of `VectorStep`."""
