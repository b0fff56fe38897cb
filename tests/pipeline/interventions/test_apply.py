"""Changed forward passes: the packed form does what the plain one does, and leaves all other rows alone bit for bit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from babyai.facts import EVENT_NAMES
from pipeline.interventions.apply import IntervenedBatch
from pipeline.interventions.donors import Donors
from pipeline.interventions.situation import Situation
from pipeline.interventions.spec import Intervention
from tests.interventions import Scene, act_plainly, start_plain
from tests.policies import KINDS, Widths, build_small_policy

OBS, LANG, WIDTH, ROUTER, ACTIONS = 6, 3, 8, 5, 4
SIZES = [[0, 3, 6], [4, 2], [0, 0], [5]]
STEPS, ROWS, POLICIES = 6, 4, 2
MISSIONS = ("go", "stay", "turn")

TABLE = {"Pickup": [[0.5, 0.25, 0.25], None, [1, 0], None], "Open": [[0, 0, 1], [0.5, 0.5], None, [1]]}
CATALOGUE = [
    {},
    {"what": "zero"},
    {"what": "zero", "where": {"size": 6}, "renormalise": True},
    {"what": "zero", "where": {"layers": [1]}, "renormalise": True},
    {"what": "zero", "where": {"experts": [[0, 2], [1, 0]]}, "state": "freeze"},
    {"what": "zero", "where": {"experts": [[0, 0]]}, "state": "zero"},
    {"what": "mean", "where": {"experts": [[0, 1], [0, 2], [3, 0]]}},
    {"what": "mean", "where": {"layers": [1, 2]}, "by": "subgoal"},
    {"what": "resample", "where": {"experts": [[0, 1], [1, 1]]}},
    {"what": "resample", "where": {"layers": [0]}, "seed": 5, "state": "freeze"},
    {"what": "skip", "where": {"size": 0}},
    {"what": "skip", "where": {"experts": [[1, 0]]}},
    {"what": "random_direction", "where": {"experts": [[0, 2]]}},
    {"what": "random_direction", "seed": 1},
    {"what": "clamp", "to": "uniform"},
    {"what": "clamp", "to": "one_hot", "where": {"experts": [[0, 1], [1, 1]]}},
    {"what": "clamp", "to": "mean", "where": {"layers": [0]}},
    {"what": "clamp", "to": "subgoal"},
    {"what": "clamp", "to": [[0.2, 0.3, 0.5], None, None, None]},
    {"what": "clamp", "to": TABLE, "state": "zero"},
    {"what": "threshold", "tau": 0.4},
    {"what": "threshold", "tau": 1.0, "renormalise": False},
    {"what": "random_drop", "tau": 0.4},
    {"what": "random_drop", "tau": 0.6, "where": {"layers": [0]}, "renormalise": False},
    {"what": "temperature", "temperature": 0.3, "state": "freeze"},
    {"what": "temperature", "temperature": 4, "where": {"layers": [0, 1]}},
    {"what": "dial", "lambda": 0.05},
    {"what": "dial", "lambda": 0.3, "exponent": 1, "where": "routers"},
    {"what": "none", "state": "zero"},
    {"what": "none", "state": "zero", "where": "routers"},
    {"what": "none", "state": "freeze", "where": {"layers": [0], "routers": True}},
    {"what": "none", "state": "freeze", "where": {"size": 3}},
    {"what": "none", "state": "zero", "where": {"experts": [[3, 0]]}},
    {"what": "swap_mission"},
    {"what": "swap_mission", "seed": 2},
]
WHENS = [
    "always",
    {"subgoal": "Pickup"},
    {"carrying": True},
    {"door_unlocked": False},
    {"event": "picked", "steps": 2},
    {"step": 3},
    {"carrying": False, "subgoal": "Open"},
]


class Played(NamedTuple):
    """Logits, weights per layer and last states of some steps, (steps, P, rows, ...)."""

    logits: torch.Tensor
    weights: list[torch.Tensor]
    hidden: list[list[torch.Tensor]]


def build_policies(kind: str) -> list[nn.Module]:
    widths = Widths(OBS, LANG, WIDTH, ROUTER, ACTIONS)
    return [build_small_policy(kind, SIZES, widths, seed).double() for seed in range(POLICIES)]


def build_donors() -> Donors:
    generator, rng = torch.Generator().manual_seed(7), np.random.default_rng(7)
    steps = 12

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(POLICIES, *shape, generator=generator, dtype=torch.float64)

    return Donors(
        episode=np.repeat(np.arange(4), 3),
        subgoal=rng.choice([-1, 0, 2, 4], steps).astype(np.int8),
        level_seeds=tuple(range(1000, 1004)),
        outputs=tuple(draw(steps, len(sizes), WIDTH) for sizes in SIZES),
        weights=tuple(draw(steps, len(sizes)).softmax(dim=-1) for sizes in SIZES),
        missions=MISSIONS,
        mission_vectors=draw(len(MISSIONS), LANG),
    )


def make_scenes(rng: np.random.Generator, rows: int) -> list[list[list[Scene]]]:
    """Return scenes by step, policy and row."""

    def draw(t: int, level: int) -> Scene:
        return Scene(
            level_seed=level,
            t_step=t,
            subgoal=int(rng.choice([-1, 2, 4])),
            carrying=bool(rng.integers(2)),
            door_unlocked=int(rng.integers(-1, 2)),
            since=tuple(int(n) for n in rng.integers(0, 4, len(EVENT_NAMES))),
            mission=int(rng.integers(-1, len(MISSIONS))),
        )

    levels = rng.integers(0, 2**32, rows).tolist()
    return [[[draw(t, level) for level in levels] for _ in range(POLICIES)] for t in range(STEPS)]


def gather(scenes: list[list[Scene]], condition: np.ndarray) -> Situation:
    def column(name: str, dtype: type = np.int64) -> np.ndarray:
        return np.array([[getattr(scene, name) for scene in row] for row in scenes], dtype)

    names = ("level_seed", "t_step", "subgoal")
    return Situation(
        condition,
        *(column(name) for name in names),
        column("carrying", bool),
        column("door_unlocked"),
        column("since", np.int32),
        column("mission"),
    )


def make_inputs(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(STEPS, POLICIES, rows, OBS + LANG, generator=generator, dtype=torch.float64)


def run(batch: IntervenedBatch, inputs: torch.Tensor, scenes: list, condition: np.ndarray) -> Played:
    hidden = batch.init_hidden(inputs.shape[2])
    start = torch.zeros(inputs.shape[1:3], dtype=torch.bool)
    logits, weights = [], []
    for t in range(STEPS):
        found, chosen, hidden = batch.act(inputs[t], hidden, start, gather(scenes[t], condition))
        logits.append(found)
        weights.append(chosen)
        hidden = [[state.clone() for state in cells] for cells in hidden]
    return Played(torch.stack(logits), [torch.stack(layer) for layer in zip(*weights, strict=True)], hidden)


def run_plainly(
    policy: nn.Module, item: Intervention, inputs: torch.Tensor, scenes: Sequence[Scene], donors: Donors, p: int
) -> tuple[torch.Tensor, list[torch.Tensor], list]:
    """Return logits (steps, actions), weights per layer and the last state of one row, inputs (steps, width)."""
    hidden, logits, weights = start_plain(policy), [], []
    with torch.no_grad():
        for t, scene in enumerate(scenes):
            row = inputs[t][None]
            found, chosen, hidden = act_plainly(policy, item, row[:, :OBS], row[:, OBS:], hidden, scene, donors, p)
            logits.append(found)
            weights.append(chosen)
    return torch.stack(logits), [torch.stack(layer) for layer in zip(*weights, strict=True)], hidden


def assert_agree(kind: str, items: list[Intervention], condition: np.ndarray, seed: int) -> None:
    policies, donors, inputs = build_policies(kind), build_donors(), make_inputs(condition.shape[1])
    scenes = make_scenes(np.random.default_rng(seed), condition.shape[1])
    packed = run(IntervenedBatch(policies, items, donors), inputs, scenes, condition)
    for p, row in np.ndindex(*condition.shape):
        item = items[condition[p, row]]
        mine = [scenes[t][p][row] for t in range(STEPS)]
        logits, weights, hidden = run_plainly(policies[p], item, inputs[:, p, row], mine, donors, p)
        torch.testing.assert_close(packed.logits[:, p, row], logits, rtol=1e-9, atol=1e-9)
        for layer, expected in enumerate(weights):
            torch.testing.assert_close(packed.weights[layer][:, p, row], expected, rtol=1e-9, atol=1e-9)
        for cells, state in zip(packed.hidden, hidden, strict=True):
            flat = torch.cat([cell[p, row] for cell in cells])
            expected = torch.cat([state["router"][0], *(expert[0] for expert in state["experts"])])
            torch.testing.assert_close(flat, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("content", CATALOGUE, ids=lambda content: Intervention.parse(content).name)
def test_packed_equals_plain_under_every_intervention(content):
    condition = np.zeros((POLICIES, ROWS), np.int64)
    assert_agree("moe", [Intervention.parse(content)], condition, seed=0)


@given(st.data(), st.sampled_from(KINDS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_packed_equals_plain_with_any_interventions_side_by_side(data, kind):
    contents = data.draw(st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=5))
    items = [Intervention.parse({**content, "when": data.draw(st.sampled_from(WHENS))}) for content in contents]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    assert_agree(kind, items, rng.integers(0, len(items), (POLICIES, ROWS)), seed=int(rng.integers(2**16)))
