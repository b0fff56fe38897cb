"""Levels of several tasks as one vector environment: the slots of each task side by side, in the order of the tasks.

    env = MixtureEnv([VectorEnv("GoToObj", 8, SeedStreams(0, 8, "BabyAI-GoToObj-v0")), VectorEnv("Unlock", 4, ...)])
    step = env.step(actions)            # as of one environment of 12 slots
    env.task_index                      # int64 (12,): 0 in the first eight slots, 1 in the last four

Slots never change their task, so that each task's share of the steps is exact; drawing the task at each reset would let
long episodes take the batch. Each task has a core of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from babyai.steps import STEP_FIELDS, VectorStep
from babyai.vector_env import VectorEnv


class MixtureEnv:
    """Vector environments as one, behind the methods of `VectorEnv` that training needs.

    Attributes:
        parts: One environment for each task.
        task_ids: Their tasks, full ids.
        num_envs: Slots of all.
        task_index: int64 (N,), which task is played in each slot.
        missions: The distinct instructions met so far in any task; `VectorStep.mission_id` indexes it. It only grows.
    """

    def __init__(self, parts: Sequence[VectorEnv]) -> None:
        """Join environments that record no facts.

        Raises:
            ValueError: If there are none, or a task has two.
        """
        self.parts = list(parts)
        self.task_ids = [part.task_id for part in parts]
        if not parts or len(set(self.task_ids)) != len(parts):
            raise ValueError(f"parts: expected environments of distinct tasks, found {self.task_ids}")
        if any(part.record for part in parts):
            raise ValueError("parts: expected environments that record no facts")
        sizes = [part.num_envs for part in parts]
        self.num_envs = sum(sizes)
        self.task_index = np.repeat(np.arange(len(parts)), sizes)
        ends = np.cumsum(sizes).tolist()
        self._slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        for part, rows in zip(parts, self._slices, strict=True):
            part.first_slot = rows.start
        self._names = [name for name, _, _ in STEP_FIELDS]
        self._forget_missions()

    def _forget_missions(self) -> None:
        self.missions: list[str] = []
        self._mission_ids: dict[str, int] = {}
        self._known: list[list[int]] = [[] for _ in self.parts]  # number in `missions` of each mission of a part
        self._numbers, self._begins = np.zeros(1, np.int64), np.zeros(self.num_envs, np.int64)

    @property
    def counters(self) -> dict[str, int]:
        """The counters of `VectorEnv`, summed over the tasks."""
        return {name: sum(part.counters[name] for part in self.parts) for name in self.parts[0].counters}

    def reset(self) -> VectorStep:
        """Start a new level in every slot."""
        whole, parts = self._allocate()
        for part, out in zip(self.parts, parts, strict=True):
            part.reset_into(out)
        return self._join(whole, parts)

    def step(self, actions: np.ndarray) -> VectorStep:
        """Take one action per slot; see `VectorEnv.step`."""
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,):
            raise ValueError(f"actions: expected ints ({self.num_envs},), found {chosen.dtype} {chosen.shape}")
        whole, parts = self._allocate()
        for part, rows, out in zip(self.parts, self._slices, parts, strict=True):
            part.step_into(out, chosen[rows])
        return self._join(whole, parts)

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain types: the states of all parts, and the order of the instructions."""
        return {"parts": [part.state_dict() for part in self.parts], "missions": list(self.missions)}

    def load_state_dict(self, state: dict[str, Any]) -> VectorStep:
        """Go back to where `state_dict` was taken; return the step that was current then.

        Raises:
            ValueError: The state is of other tasks, settings or level sources.
        """
        if len(state["parts"]) != len(self.parts):
            raise ValueError(f"expected the state of {len(self.parts)} tasks, found that of {len(state['parts'])}")
        shown = [part.load_state_dict(saved) for part, saved in zip(self.parts, state["parts"], strict=True)]
        self._forget_missions()
        self.missions = list(state["missions"])
        self._mission_ids = {mission: number for number, mission in enumerate(self.missions)}
        whole, parts = self._allocate()
        for out, step in zip(parts, shown, strict=True):
            for name in self._names:
                getattr(out, name)[...] = getattr(step, name)
        return self._join(whole, parts)

    def close(self) -> None:
        """Deactivate every slot."""
        for part in self.parts:
            part.close()

    def _allocate(self) -> tuple[VectorStep, list[VectorStep]]:
        """Return a step of zeros, and the rows of each part as views of it."""
        whole = VectorStep.zeros(self.num_envs)
        parts = []
        for rows in self._slices:
            part = VectorStep.__new__(VectorStep)  # without the checks of shapes, as in `VectorStep.zeros`
            views = {name: whole.__dict__[name][rows] for name in self._names}
            part.__dict__.update(views, ended=(), facts=None)
            parts.append(part)
        return whole, parts

    def _join(self, whole: VectorStep, parts: Sequence[VectorStep]) -> VectorStep:
        """Number missions as those of the whole, and gather the episodes that ended."""
        if any(len(part.missions) > len(known) for part, known in zip(self.parts, self._known, strict=True)):
            self._take_up_missions()
        whole.mission_id[...] = self._numbers[whole.mission_id + self._begins]
        if ended := [episode for step in parts for episode in step.ended]:
            object.__setattr__(whole, "ended", tuple(ended))
        return whole

    def _take_up_missions(self) -> None:
        for part, known in zip(self.parts, self._known, strict=True):
            for mission in part.missions[len(known) :]:
                index = self._mission_ids.setdefault(mission, len(self.missions))
                if index == len(self.missions):
                    self.missions.append(mission)
                known.append(index)
        tables = [known or [0] for known in self._known]  # of a part without missions all slots are inactive
        self._numbers = np.concatenate(tables)
        begins = np.cumsum([0, *map(len, tables[:-1])])
        self._begins = begins[self.task_index]
