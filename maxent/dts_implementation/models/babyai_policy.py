"""A policy on a BabyAI level as a `SequenceModel`: the prompt is a level's seed, a token is an action.

    model = load_babyai_policy("checkpoints/.../checkpoint_final.pt")
    search(model, level_seed, EpisodeReward(model.play), SearchSettings(max_tokens=64, prior=Prior(1.0, None, 1.0)))

A column keeps the actions that led to it and the policy's hidden state after seeing what they led to. The environment
is a simulator: where a branch does not go on where a slot stands, the level is restored from its seed and actions. So
this is planning, with a model of the world that evaluation does not give the policy: the two cannot be compared.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from babyai.facts import ACTION_NAMES, NUM_ACTIONS, SUCCESS
from babyai.level_seeds import SeedList
from babyai.missions import MissionEncoder
from babyai.observations import encode_observations
from babyai.vector_env import VectorEnv
from maxent.dts_implementation.models.sequence_model import Cost
from maxent.rewards.episode import Episode
from mixture_of_experts import compute_layer_lpc
from pipeline.engine.missions import MissionVectors
from pipeline.engine.packed import pack_replicas
from pipeline.evaluation.checkpoint import load_checkpoint


@dataclass(frozen=True)
class _Column:
    """A prefix.

    Attributes:
        actions: From the level's start.
        hidden: The policy's state after the last observation, (1, 1, H) for each layer; empty if the episode is over.
        lpc: Sum over the decisions made so far, the one that comes next included.
        episode: If it is over.
    """

    actions: tuple[int, ...]
    hidden: tuple[Tensor, ...]
    lpc: float
    episode: Episode | None = None


class BabyAIPolicyModel:
    """A `SequenceModel` whose answers are episodes.

    It computes in float64, as evaluation does. An action that ends the episode is followed by -inf everywhere.

    Args:
        policy: One that `pipeline.engine.packed.pack_replicas` takes; a copy is used.
        encoder: Its sentence encoder.
        projection: Its mission projection; a copy is used.
        task_id: BabyAI task.
        max_steps: Step limit of the episode; None keeps the level's own.
        lpc_exponent: An expert costs size^exponent.

    Attributes:
        simulator: True: the search looks ahead in the environment itself.
        task_id: As given.
        cost: See `SequenceModel`; `new` counts actions that were taken, replays not.
        eos: See `SequenceModel`; empty, for it is the environment that ends an episode.
        limit: See `SequenceModel`; None, for the same reason.
        mission: The instruction of the level that was started.
    """

    simulator = True

    def __init__(
        self,
        policy: nn.Module,
        encoder: MissionEncoder,
        projection: nn.Linear,
        task_id: str,
        *,
        max_steps: int | None = None,
        lpc_exponent: float = 2.0,
    ) -> None:
        self.task_id = task_id
        self.cost = Cost()
        self.eos: frozenset[int] = frozenset()
        self.limit: int | None = None
        self.mission = ""
        self._weights = {**policy.state_dict(), **projection.state_dict(prefix="lang_proj.")}
        self._encoder, self._projection = encoder, copy.deepcopy(projection).double()
        with torch.no_grad():
            self._packed = pack_replicas([copy.deepcopy(policy).double().eval()])
        self._max_steps = max_steps
        self._sizes: list[list[int]] = getattr(policy, "layer_expert_sizes", [])
        self._exponent = lpc_exponent
        self._largest = sum(float(max(sizes)) ** lpc_exponent for sizes in self._sizes) or 1.0
        self._columns: list[_Column] = []

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of policy and mission projection by name, as they were given."""
        return self._weights

    def start(self, prompt: Any) -> np.ndarray:
        """See `SequenceModel`.

        Args:
            prompt: Seed of a level, an integer of at least 0.

        Raises:
            ValueError: If it is none, or minigrid can build no level from it.
        """
        try:
            seed = -1 if isinstance(prompt, bool) else operator.index(prompt)
        except TypeError:
            seed = -1
        if seed < 0:
            raise ValueError(f"prompt: expected the seed of a level, an integer of at least 0, found {prompt!r}")
        self._seed = seed
        self._columns, self._place = [], {}
        self._open_env(1)
        step = self._first
        self.mission = self._env.missions[0]
        missions = MissionVectors(self._encoder, self._projection)
        missions.add([self.mission])
        self._mission = missions.rows(torch.zeros(1, dtype=torch.long, device=self._projection.weight.device))
        logits, hidden, lpc = self._think(step, [0], self._packed.init_hidden(1))
        self._add(_Column((), tuple(hidden), float(lpc[0])))
        self._playing = {0: 0}
        self.cost = Cost(prefill=1, forwards=1)
        return logits[0]

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`; every prefix is always at hand."""

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`."""
        before = [self._columns[node] for node in nodes]
        following, slots = self._advance(nodes, tokens)
        count = len(self._columns)
        ends = {end.slot: end for end in following.ended}
        going = [row for row, slot in enumerate(slots) if slot not in ends]
        found = np.full((len(before), NUM_ACTIONS), -np.inf)
        thought: dict[int, tuple[tuple[Tensor, ...], float]] = {}
        if going:
            # Each row stays with the column that it becomes: of the tensors they are views of, nothing is kept in vain.
            hidden = [torch.cat(layer, dim=1) for layer in zip(*(before[row].hidden for row in going), strict=True)]
            logits, hidden, lpc = self._think(following, [slots[row] for row in going], hidden)
            found[going] = logits
            for at, row in enumerate(going):
                thought[row] = tuple(layer[:, at : at + 1] for layer in hidden), float(lpc[at])
        for row, (column, token, slot) in enumerate(zip(before, tokens, slots, strict=True)):
            actions = (*column.actions, int(token))
            if slot in ends:
                self._add(_Column(actions, (), column.lpc, self._describe(actions, column.lpc, ends[slot])))
            else:
                self._add(_Column(actions, thought[row][0], column.lpc + thought[row][1]))
        self._playing = {count + row: slots[row] for row in going}
        self.cost.new += len(before)
        self.cost.forwards += bool(going)
        return found

    def close(self) -> None:
        """See `SequenceModel`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the names of actions, with spaces between them."""
        return " ".join(ACTION_NAMES[token] for token in tokens)

    def play(self, actions: Sequence[int]) -> Episode:
        """Return what actions lead to on the level that was started.

        Args:
            actions: At least one; all but the last were fed.

        Raises:
            ValueError: If they were not.
        """
        *prefix, last = (int(action) for action in actions)
        known = self._place.get((*prefix, last))
        if known is not None and self._columns[known].episode is not None:
            return self._columns[known].episode
        parent = self._place.get(tuple(prefix))
        if parent is None or self._columns[parent].episode is not None:
            raise ValueError(f"actions: expected ones of which all but the last were taken, found {list(actions)}")
        following, slots = self._advance([parent], [last])
        self._playing = {}
        end = next((end for end in following.ended if end.slot == slots[0]), None)
        return self._describe((*prefix, last), self._columns[parent].lpc, end)

    # ------------------------------------------------------------------------------------------------------- columns

    def _add(self, column: _Column) -> None:
        self._place[column.actions] = len(self._columns)
        self._columns.append(column)

    def _describe(self, actions: tuple[int, ...], lpc: float, end: Any) -> Episode:
        """Return the episode after some actions, `end` being what the environment said of its end, None without one."""
        mean = lpc / len(actions)
        if end is None:
            return Episode(0.0, len(actions), False, False, mean)
        return Episode(end.reward, end.steps, True, end.outcome == SUCCESS, mean)

    @torch.no_grad()
    def _think(
        self, step: Any, slots: Sequence[int], hidden: Sequence[Tensor]
    ) -> tuple[np.ndarray, list[Tensor], np.ndarray]:
        """Return logits (rows, 7), the state after (1, rows, H) for each layer, and the complexity (rows,), a share."""
        rows = list(slots)
        device = self._mission.device
        shown = encode_observations(step.view[rows], step.direction[rows], step.carrying[rows])
        obs = torch.from_numpy(shown).to(device).double()[None, None]
        mission = self._mission.expand(1, 1, len(rows), -1)
        start = torch.from_numpy(step.episode_start[rows]).to(device)[None, None]
        out = self._packed.sequence(obs, mission, hidden, start)
        layers = [
            compute_layer_lpc(weights[0, 0], sizes, self._exponent)
            for weights, sizes in zip(out.routing, self._sizes, strict=True)
        ]
        lpc = torch.stack(layers).sum(dim=0).cpu().numpy() / self._largest if layers else np.zeros(len(rows))
        return out.logits[0, 0].cpu().numpy(), out.hidden, lpc

    # --------------------------------------------------------------------------------------------------- environment

    def _open_env(self, num_envs: int) -> None:
        """Make an environment whose slots all play the level, once."""
        seeds = SeedList([self._seed] * num_envs)
        self._env = VectorEnv(self.task_id, num_envs, seeds, max_steps=self._max_steps, label=False)
        self._first = self._env.reset()
        if not self._first.active.all():
            raise ValueError(f"prompt: {self.task_id} has no level of seed {self._seed}; choose another")
        self._template = self._env.state_dict()
        self._playing: dict[int, int] = {}  # column -> slot that stands there

    def _advance(self, columns: Sequence[int], actions: Sequence[int]) -> tuple[Any, list[int]]:
        """Take an action after each of some columns; return the environment's step, and the slot of each row.

        Slots go on as they stand if those and no others shall; else all are restored. What a row leaves behind is gone.
        """
        if sorted(columns) != sorted(self._playing):
            self._restore(columns)
            slots = list(range(len(columns)))
        else:
            slots = [self._playing[column] for column in columns]
        chosen = np.zeros(self._env.num_envs, np.int64)
        chosen[slots] = actions
        return self._env.step(chosen), slots

    def _restore(self, columns: Sequence[int]) -> None:
        """Put the first slots where some columns are, and let the others rest."""
        if len(columns) > self._env.num_envs:
            self._open_env(1 << (len(columns) - 1).bit_length())
        resting = {"active": False, "levels": 1, "level_seed": self._seed, "expert_steps": None, "actions": []}
        slots = [{**resting, "active": True, "actions": list(self._columns[column].actions)} for column in columns]
        slots += [resting] * (self._env.num_envs - len(slots))
        self._env.load_state_dict({**self._template, "slots": slots})


def load_babyai_policy(
    path: str | Path, task_id: str | None = None, *, device: str | torch.device = "cpu", max_steps: int | None = None
) -> BabyAIPolicyModel:
    """Return the policy of a checkpoint file with the sentence encoder that it was trained with.

    Args:
        path: A `.pt` file.
        task_id: BabyAI task; None for the one it was trained on.
        device: Where it runs.
        max_steps: Step limit; None for that of the training, which may be each level's own.

    Raises:
        CheckpointError: If the file cannot be used.
        MissionEncoderError: If the encoder cannot be had.
    """
    loaded = load_checkpoint(path, device=device)
    level = loaded.config.task_id if task_id is None else task_id
    return BabyAIPolicyModel(
        *(loaded.agent(level) if isinstance(level, str) else (loaded.policy, loaded.encoder, loaded.projection)),
        level,
        max_steps=loaded.config.max_steps if max_steps is None else max_steps,
        lpc_exponent=loaded.config.lpc_exponent,
    )
