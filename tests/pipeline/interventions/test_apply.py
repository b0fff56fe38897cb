"""Changed forward passes: the packed form does what the plain one does, and leaves all other rows alone bit for bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from babyai.facts import EVENT_NAMES
from pipeline.command.errors import ConfigError
from pipeline.engine.packed import pack_replicas
from pipeline.interventions.apply import IntervenedBatch
from pipeline.interventions.donors import Donors, Subspace
from pipeline.interventions.situation import NEVER, Situation, count_since
from pipeline.interventions.spec import Intervention
from tests.interventions import LENDERS, Scene, act_plainly, start_plain
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
    {"what": "clamp", "to": "other"},
    {"what": "clamp", "to": "shuffled", "seed": 3},
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
    {"what": "project", "subspace": "two"},
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
        subspaces=build_subspaces(draw),
    ).lend(LENDERS)


def build_subspaces(draw: Callable[..., torch.Tensor]) -> dict[str, Subspace]:
    """Return a plane of the states, and nothing of them."""
    units = len(SIZES) * ROUTER + sum(map(sum, SIZES))
    plane = torch.linalg.qr(draw(units, 2)).Q
    return {"two": Subspace(draw(units), plane), "none": Subspace(draw(units), torch.zeros_like(plane))}


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


# ------------------------------------------------------------------------------------------------- bits, known answers

NOTHING = {"what": "skip", "where": {"size": 0}}  # of a skip expert: what it does anyway


@pytest.mark.parametrize("kind", KINDS)
def test_the_sham_is_the_policy_bit_for_bit(kind):
    policies, inputs = build_policies(kind), make_inputs(ROWS)
    scenes = make_scenes(np.random.default_rng(0), ROWS)
    sham = run(IntervenedBatch(policies, [Intervention()]), inputs, scenes, np.zeros((POLICIES, ROWS), np.int64))
    packed = pack_replicas(policies)
    with torch.no_grad():
        hidden = packed.init_hidden(ROWS)
        for t in range(STEPS):
            start = torch.zeros(POLICIES, 1, ROWS, dtype=torch.bool)
            now = inputs[t].unsqueeze(1)
            out = packed.sequence(now[..., :OBS], now[..., OBS:], hidden, start)
            hidden = out.hidden
            assert torch.equal(out.logits[:, 0], sham.logits[t])
            for layer, weights in enumerate(out.routing):
                assert torch.equal(weights[:, 0], sham.weights[layer][t])
    for state, cells in zip(hidden, sham.hidden, strict=True):
        assert torch.equal(state, torch.cat(cells, dim=-1))


@given(st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=6), st.integers(0, 2**16), st.sampled_from(KINDS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_row_keeps_its_bits_whatever_the_others_are(contents, seed, kind):
    policies, donors, inputs = build_policies(kind), build_donors(), make_inputs(ROWS)
    rng = np.random.default_rng(seed)
    items = [Intervention(), *map(Intervention.parse, contents)]
    scenes = make_scenes(rng, ROWS)
    condition = rng.integers(0, len(items), (POLICIES, ROWS))
    mixed = run(IntervenedBatch(policies, items, donors), inputs, scenes, condition)
    for number, item in enumerate(items):
        alone = run(IntervenedBatch(policies, [item], donors), inputs, scenes, np.zeros_like(condition))
        rows = torch.from_numpy(condition == number)
        assert torch.equal(mixed.logits[:, rows], alone.logits[:, rows]), item
        for one, other in zip(mixed.weights, alone.weights, strict=True):
            assert torch.equal(one[:, rows], other[:, rows])
        for one, other in zip(mixed.hidden, alone.hidden, strict=True):
            assert all(torch.equal(a[rows], b[rows]) for a, b in zip(one, other, strict=True))


def test_every_intervention_does_something_and_none_where_it_is_closed():
    policies, donors, inputs = build_policies("moe"), build_donors(), make_inputs(ROWS)
    scenes = make_scenes(np.random.default_rng(1), ROWS)
    condition = np.zeros((POLICIES, ROWS), np.int64)
    intact = run(IntervenedBatch(policies, [Intervention()]), inputs, scenes, condition).logits
    for content in CATALOGUE[1:]:
        open_now = run(IntervenedBatch(policies, [Intervention.parse(content)], donors), inputs, scenes, condition)
        assert torch.equal(open_now.logits, intact) == (content == NOTHING), content
        closed = Intervention.parse({**content, "when": {"step": STEPS}})
        assert torch.equal(run(IntervenedBatch(policies, [closed], donors), inputs, scenes, condition).logits, intact)
        late = Intervention.parse({**content, "when": {"step": 3}})
        logits = run(IntervenedBatch(policies, [late], donors), inputs, scenes, condition).logits
        assert torch.equal(logits[:3], intact[:3])


def compare(first: dict, second: dict) -> tuple[Played, Played]:
    policies, donors, inputs = build_policies("moe"), build_donors(), make_inputs(ROWS)
    scenes = make_scenes(np.random.default_rng(2), ROWS)
    condition = np.zeros((POLICIES, ROWS), np.int64)
    batches = [IntervenedBatch(policies, [Intervention.parse(content)], donors) for content in (first, second)]
    return tuple(run(batch, inputs, scenes, condition) for batch in batches)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"what": "dial", "lambda": 0}, {}),
        ({"what": "temperature", "temperature": 1}, {}),
        ({"what": "threshold", "tau": 0}, {}),
        ({"what": "random_drop", "tau": 0}, {}),
        (  # one of two left
            {"what": "zero", "where": {"experts": [[1, 0]]}, "renormalise": True},
            {"what": "clamp", "to": "one_hot", "where": {"experts": [[1, 1]]}},
        ),
        (
            {"what": "clamp", "to": [None, [0.5, 0.5], [0.5, 0.5], None]},
            {"what": "clamp", "to": "uniform", "where": {"layers": [1, 2]}},
        ),
        (
            {"what": "dial", "lambda": 1e4, "where": {"layers": [0]}},
            {"what": "clamp", "to": "one_hot", "where": {"experts": [[0, 0]]}},
        ),
        ({"what": "temperature", "temperature": 1e-6}, {"what": "threshold", "tau": 1}),  # the argmax alone
        ({"what": "random_drop", "tau": 1}, {"what": "threshold", "tau": 1}),  # nothing to choose
    ],
)
def test_known_equalities(first, second):
    one, other = compare(first, second)
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-7, atol=1e-7)


def test_thresholds_keep_the_argmax_and_drop_at_random_drops_as_many():
    cut, drawn = compare({"what": "threshold", "tau": 0.3}, {"what": "random_drop", "tau": 0.3})
    one, other = cut.weights[0][0], drawn.weights[0][0]  # of later layers and steps the inputs differ
    assert torch.equal((one == 0).sum(dim=-1), (other == 0).sum(dim=-1))
    assert torch.equal(one.argmax(dim=-1), other.argmax(dim=-1))
    assert (one == 0).any() and (one != other).any()
    for layer in (*cut.weights, *drawn.weights):
        torch.testing.assert_close(layer.sum(dim=-1), torch.ones(layer.shape[:-1], dtype=torch.float64))


def test_the_random_direction_moves_a_layer_as_far_as_zero_does():
    """One layer without residual: its output is what the head reads, and the head is made the identity."""
    widths = Widths(OBS, LANG, WIDTH, ROUTER, WIDTH)
    policy = build_small_policy("moe", [[0, 3, 6]], widths).double()
    with torch.no_grad():
        policy.head.weight.copy_(torch.eye(WIDTH))
        policy.head.bias.zero_()
    inputs = make_inputs(ROWS)[:, :1]
    scenes = [[row] for row, *_ in make_scenes(np.random.default_rng(0), ROWS)]
    place = {"where": {"experts": [[0, 2]]}}
    contents = [{}, {"what": "zero", **place}, {"what": "random_direction", **place}]
    condition = np.zeros((1, ROWS), np.int64)
    intact, zero, drawn = (
        run(IntervenedBatch([policy], [Intervention.parse(c)]), inputs, scenes, condition).logits for c in contents
    )
    torch.testing.assert_close((zero - intact).norm(dim=-1), (drawn - intact).norm(dim=-1))
    assert not torch.allclose(zero, drawn)


def test_a_baseline_can_lose_its_memory_and_nothing_else():
    widths = Widths(OBS, LANG, WIDTH, ROUTER, ACTIONS)
    policies = [build_small_policy("gru", [], widths, seed).double() for seed in range(POLICIES)]
    inputs, scenes = make_inputs(ROWS), make_scenes(np.random.default_rng(0), ROWS)
    items = [Intervention(), Intervention(state="zero"), Intervention(state="freeze")]
    condition = np.tile([0, 1, 2, 1], (POLICIES, 1))
    played = run(IntervenedBatch(policies, items), inputs, scenes, condition)
    for p, row in np.ndindex(*condition.shape):
        state = torch.zeros(1, 1, 7, dtype=torch.float64)
        for t in range(STEPS):
            obs = inputs[t, p, row][None]
            with torch.no_grad():
                logits, after = policies[p](obs[:, :OBS], obs[:, OBS:], state)
            torch.testing.assert_close(played.logits[t, p, row], logits[0])
            state = after if condition[p, row] == 0 else state
    with pytest.raises(ConfigError, match="expected a policy with routers and experts, found one without"):
        IntervenedBatch(policies, [Intervention(what="zero")])


def test_what_does_not_fit_is_refused():
    policies = build_policies("moe")
    for content, message in [
        ({"what": "zero", "where": {"experts": [[9, 0]]}}, "layers below 4"),
        ({"what": "zero", "where": {"size": 99}}, "a size among"),
        ({"what": "clamp", "to": [[0.5, 0.5, 0]]}, "weights of 4 layers .* found those of 1"),
        ({"what": "clamp", "to": [[0.5, 0.5], None, None, None]}, "3 weights for layer 0, .* found 2"),
        ({"what": "mean"}, "expected steps of donors, found none"),
        ({"what": "clamp", "to": "subgoal"}, "expected steps of donors, found none"),
    ]:
        with pytest.raises(ConfigError, match=message):
            IntervenedBatch(policies, [Intervention.parse(content)])
    with pytest.raises(ValueError, match="donors: expected those of 1 policies, found 2"):
        IntervenedBatch(policies[:1], [Intervention()], build_donors())
    lonely = replace(build_donors(), missions=("go",), lent=None, subgoal=np.zeros(12, np.int8))
    for to, message in [("other", r"lent by other policies, .* donors.lend"), ("shuffled", "two subgoals or more")]:
        with pytest.raises(ConfigError, match=message):
            IntervenedBatch(policies, [Intervention(what="clamp", to=to)], lonely)
    with pytest.raises(ConfigError, match="two missions or more"):
        IntervenedBatch(policies, [Intervention(what="swap_mission")], lonely)


def test_with_fewer_policies_the_others_go_on_as_they_would():
    policies, donors, inputs = build_policies("moe"), build_donors(), make_inputs(ROWS)
    items = [Intervention.parse(content) for content in CATALOGUE if "seed" not in content][:8]
    items += [
        Intervention(what="resample"),
        Intervention(what="clamp", to="subgoal"),
        Intervention(what="swap_mission"),
    ]
    scenes = make_scenes(np.random.default_rng(0), ROWS)
    condition = np.arange(POLICIES * ROWS).reshape(POLICIES, ROWS) % len(items)
    batch = IntervenedBatch(policies, items, donors)
    both = run(batch, inputs, scenes, condition)
    second = run(batch.select([1]), inputs[:, 1:], [row[1:] for row in scenes], condition[1:])
    # The products of one policy alone may be another routine's, which rounds otherwise
    torch.testing.assert_close(both.logits[:, 1:], second.logits, rtol=1e-12, atol=1e-12)


def test_subgoals_are_exchanged_among_those_with_steps_and_none_keeps_its_own():
    donors = build_donors()
    present = sorted({*donors.groups.tolist()})
    drawn = {tuple(donors.exchange(seed).tolist()) for seed in range(30)}
    assert len(drawn) > 1
    for exchanged in drawn:
        assert sorted(exchanged) == list(range(8))
        for group in range(8):
            assert (exchanged[group] == group) == (group not in present)
    with pytest.raises(ValueError, match="another policy for each of 2, found"):
        donors.lend([0, 1])


def test_steps_since_events_are_counted_by_episode():
    since = np.full((2, len(EVENT_NAMES)), NEVER, np.int32)
    picked = EVENT_NAMES.index("picked")
    for event, start, expected in [
        ([0, picked], [True, True], [NEVER, NEVER]),  # it belongs to the episode before
        ([picked, 0], [False, False], [0, NEVER]),
        ([0, picked], [False, False], [1, 0]),
        ([0, 0], [False, True], [2, NEVER]),
    ]:
        since = count_since(since, np.array(event), np.array(start))
        assert since[:, picked].tolist() == expected


def test_a_projection_onto_nothing_is_the_sham_bit_for_bit():
    policies, donors, inputs = build_policies("mop"), build_donors(), make_inputs(ROWS)
    items = [
        Intervention(),
        Intervention(what="project", subspace="none"),
        Intervention(what="project", subspace="two"),
    ]
    scenes = make_scenes(np.random.default_rng(1), ROWS)
    batch = IntervenedBatch(policies, items, donors)
    sham, nothing, plane = (run(batch, inputs, scenes, np.full((POLICIES, ROWS), c)) for c in range(3))
    assert torch.equal(sham.logits, nothing.logits)
    assert not torch.allclose(sham.logits, plane.logits)
    mixed = run(batch, inputs, scenes, np.tile([0, 2, 0, 2], (POLICIES, 1)))
    assert torch.equal(mixed.logits[:, :, ::2], sham.logits[:, :, ::2])
    assert torch.equal(mixed.logits[:, :, 1::2], plane.logits[:, :, 1::2])


def test_subspaces_that_donors_do_not_hold_are_named():
    item = Intervention(what="project", subspace="three")
    with pytest.raises(ConfigError, match=r"project three: expected a subspace that donors hold \(two, none\), found"):
        IntervenedBatch(build_policies("moe"), [item], build_donors())
