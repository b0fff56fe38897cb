"""An unroll of a replica as one compiled call: show, act, choose, step, label and begin levels, T times.

It computes what `Rollout` does step by step with `act_step` and `VectorEnv.step` (`tests/pipeline/training/
test_unroll.py`), without the interpreter between them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from babyai.compiled.layout import CARRIED, DIRECTION
from babyai.compiled.play import observe
from babyai.compiled.turn import Game, act_slots, begin_levels
from babyai.facts import VIEW_SIZE
from pipeline.engine.compiled.jit import compiled
from pipeline.engine.compiled.kernels import copy, project, write_observation
from pipeline.engine.compiled.step import act_step


class Acts(NamedTuple):
    """What `act_step` takes before and after the step's number; see there."""

    plans: np.ndarray
    layers: np.ndarray
    sizes: np.ndarray
    codes: np.ndarray
    inputs: np.ndarray
    start: np.ndarray
    weights: np.ndarray
    first_state: np.ndarray
    noise: np.ndarray
    beta: float
    gamma: float
    tape: np.ndarray
    logits: np.ndarray


class Shows(NamedTuple):
    """What is written of each step beside the policy's inputs, and the mission vectors that go into these.

    Attributes:
        vectors: float32 (M, width) of the missions that have a number; sentence vectors where their projection is
            trained.
        vectors_at: Where they begin in the inputs.
        weight: float32 (lang_dim, width) of the projection, (0, 0) where it is not trained.
        bias: float32 (lang_dim,), (0,) likewise.
        mission_id: int64 (G, T, N).
        expert_action: int64 (G, T, N).
        expert_valid: bool (G, T, N).
    """

    vectors: np.ndarray
    vectors_at: int
    weight: np.ndarray
    bias: np.ndarray
    mission_id: np.ndarray
    expert_action: np.ndarray
    expert_valid: np.ndarray


class Chooses(NamedTuple):
    """How actions are chosen.

    Attributes:
        gumbel: float32 (G, T, N, A) added to logits; no numbers: nothing is.
        chance: float32 (G, T, N); no numbers: as if all were 1.
        expert_prob: float32; where `chance` is below it and there is a label, the label is the action.
        actions: int64 (R, slots of a replica) filled.
    """

    gumbel: np.ndarray
    chance: np.ndarray
    expert_prob: float
    actions: np.ndarray


@compiled
def unroll(
    acts: Acts, shows: Shows, chooses: Chooses, game: Game, replica: int, t: int, first_group: int, end_group: int
) -> int:
    """Play some groups of a replica from step t on.

    Args:
        acts: Of all replicas; the groups of each are next to each other.
        shows: Likewise.
        chooses: Likewise.
        game: Of the replica's environment; its slots are shared out to the groups in their order.
        replica: Number of the replica.
        t: Step before which the slots were held up; 0 at the beginning.
        first_group: First of the groups, of those of all replicas.
        end_group: One past the last.

    Returns:
        the step before which slots are held up (`babyai.compiled.turn`), T after the last; T + 1 if none is.
    """
    steps, envs, groups = acts.inputs.shape[1], acts.inputs.shape[2], len(acts.inputs) // len(acts.weights)
    before = replica * groups
    first_slot, end_slot = (first_group - before) * envs, (end_group - before) * envs
    view = np.empty((VIEW_SIZE, VIEW_SIZE, 3), np.uint8)
    events, objects = np.empty(0, np.int8), np.empty(0, np.int16)
    actions = chooses.actions[replica]
    while True:
        if begin_levels(game, first_slot, end_slot) > 0:
            return t
        if t == steps:
            return t + 1
        for group in range(first_group, end_group):
            for i in range(envs):
                _show(acts, shows, game, view, group, t, i, (group - before) * envs + i)
        act_step(
            acts.plans,
            acts.layers,
            acts.sizes,
            acts.codes,
            t,
            acts.inputs,
            acts.start,
            acts.weights,
            acts.first_state,
            acts.noise,
            acts.beta,
            acts.gamma,
            acts.tape,
            acts.logits,
            first_group,
            end_group,
        )
        for group in range(first_group, end_group):
            for i in range(envs):
                actions[(group - before) * envs + i] = _choose(acts, shows, chooses, group, t, i)
        act_slots(game.world, game.rules, game.slots, game.ledger, events, objects, actions, t, first_slot, end_slot)
        t += 1


@compiled
def _show(acts: Acts, shows: Shows, game: Game, view: np.ndarray, group: int, t: int, i: int, k: int) -> None:
    """Write what slot k shows as step t of environment i of a group."""
    slot, row = game.slots.rows[k], acts.inputs[group, t, i]
    observe(game.world, k, view)
    write_observation(view, game.world.scalars[k, DIRECTION], game.world.scalars[k, CARRIED] != 0, row)
    vector = row[shows.vectors_at :]
    if shows.bias.size == 0:
        copy(vector, shows.vectors[slot.mission_id])
    elif t == 0 or slot.taken == 0:
        project(shows.vectors[slot.mission_id], shows.weight, shows.bias, vector)
    else:  # the projection changes between unrolls, and the mission with the episode
        copy(vector, acts.inputs[group, t - 1, i, shows.vectors_at :])
    acts.start[group, t, i] = slot.taken == 0
    shows.mission_id[group, t, i] = slot.mission_id
    shows.expert_valid[group, t, i] = slot.label >= 0
    shows.expert_action[group, t, i] = max(slot.label, 0)


@compiled
def _choose(acts: Acts, shows: Shows, chooses: Chooses, group: int, t: int, i: int) -> int:
    """Return the action of environment i of a group."""
    if shows.expert_valid[group, t, i] and chooses.chance.size > 0:
        if chooses.chance[group, t, i] < chooses.expert_prob:
            return shows.expert_action[group, t, i]
    logits, best, largest = acts.logits[group, t, i], 0, -np.inf
    for a in range(len(logits)):
        value = logits[a]
        if chooses.gumbel.size > 0:
            value += chooses.gumbel[group, t, i, a]
        if value > largest:
            best, largest = a, value
    return best
