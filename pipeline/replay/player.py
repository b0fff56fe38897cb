"""Steps of trajectories as what policies are shown: observations, missions, and what decides of interventions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from babyai.observations import encode_observations
from pipeline.interventions.apply import Hidden, IntervenedBatch
from pipeline.interventions.situation import Situation
from pipeline.replay.lanes import Lane
from pipeline.replay.trajectories import Trajectories


class Player:
    """Shows a batch of policies the steps that stand in its rows, the same to each.

    Args:
        batch: P policies.
        way: The trajectories.
        missions: (P, K, lang_dim), mission vectors of the trajectories' sentences.
        donors: Sentences of the donors, if there are any.
    """

    def __init__(
        self,
        batch: IntervenedBatch,
        way: Trajectories,
        missions: Tensor,
        donors: Sequence[str] | None = None,
    ) -> None:
        self._batch, self._way, self._missions = batch, way, missions
        places = {sentence: number for number, sentence in enumerate(donors or ())}
        self._place = np.array([places.get(sentence, -1) for sentence in way.missions], np.int64)

    def act(self, lane: Lane, hidden: Hidden) -> tuple[Tensor, list[Tensor], Hidden]:
        """Return logits, weights and the new state, see `IntervenedBatch.act`."""
        inputs, start = self._show(lane)
        return self._batch.act(inputs, hidden, start, self._find_situation(lane))

    def read(self, lane: Lane, hidden: Hidden) -> tuple[list[Tensor], list[Tensor], Hidden]:
        """Return experts' outputs, weights and the new state, see `IntervenedBatch.read_experts`."""
        inputs, start = self._show(lane)
        return self._batch.read_experts(inputs, hidden, start)

    def branch(self, lane: Lane, hidden: Hidden) -> Iterator[Tensor]:
        """Yield logits along every path, see `IntervenedBatch.branch`."""
        inputs, start = self._show(lane)
        return self._batch.branch(inputs, hidden, start)

    def _show(self, lane: Lane) -> tuple[Tensor, Tensor]:
        device, steps = self._batch.device, self._way.steps
        shown = [steps[name][lane.step] for name in ("view", "direction", "carrying")]
        obs = torch.from_numpy(encode_observations(*shown)).to(device).double()
        replicas = len(self._missions)
        mission = self._missions[:, torch.from_numpy(self._way.mission[self._way.episode[lane.step]]).to(device)]
        inputs = torch.cat([obs.expand(replicas, *obs.shape), mission], dim=-1)
        return inputs, torch.from_numpy(lane.start).to(device).expand(replicas, -1)

    def _find_situation(self, lane: Lane) -> Situation:
        way, step = self._way, lane.step
        columns = (
            lane.condition,
            way.level_seeds[way.episode[step]],
            way.t_step[step].astype(np.int64),
            way.steps["subgoal"][step].astype(np.int64),
            way.steps["carrying"][step],
            way.steps["door_unlocked"][step].astype(np.int64),
            way.steps["since"][step],
            self._place[way.mission[way.episode[step]]],
        )
        replicas = len(self._missions)
        return Situation(*(np.broadcast_to(column, (replicas, *column.shape)) for column in columns))
