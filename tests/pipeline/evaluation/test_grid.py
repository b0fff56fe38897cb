"""Interventions on the policies' own way: one batch, the same as one by one."""

import numpy as np
import pytest
import torch

from babyai.facts import EVENT_NAMES, NUM_ACTIONS, RUNNING
from babyai.level_seeds import SeedList
from babyai.missions import build_mission_encoder
from babyai.observations import OBSERVATION_DIM, encode_observations
from babyai.vector_env import VectorEnv
from pipeline.command.errors import ConfigError
from pipeline.evaluation import grid as evaluation_grid
from pipeline.evaluation.effects import tabulate
from pipeline.evaluation.grid import Intervened, evaluate_grid
from pipeline.evaluation.play import Evaluation, PlaySettings, evaluate_many
from pipeline.interventions.situation import NEVER, count_since
from pipeline.interventions.spec import Intervention, parse_interventions
from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.replay.run import find_donors, intervene, replay
from pipeline.replay.trajectories import follow_expert
from tests.interventions import Scene, act_plainly, start_plain
from tests.policies import Widths, build_small_policy

TASK = "BabyAI-UnlockPickup-v0"
SIZES = [[0, 3, 6], [2, 0]]
SEEDS = [3, 1, 8, 5]
LIMIT = 25
SETTINGS = PlaySettings(num_envs=16, max_steps=LIMIT)
ITEMS = parse_interventions(
    [
        {"what": "zero", "where": {"size": 6}},
        {},
        {"what": "resample", "where": {"experts": [[0, 1]]}, "state": "freeze"},
        {"what": "random_direction"},
        {"what": "clamp", "to": "subgoal"},
        {"what": "none", "state": "zero"},
        {"what": "swap_mission"},
        {"what": "skip", "when": {"subgoal": "GoNextTo"}},
        {"what": "temperature", "temperature": 0.2, "when": {"event": "picked", "steps": 4}},
        {"what": "dial", "lambda": 1, "when": {"carrying": True, "door_unlocked": False}},
    ]
)


def build_agents(kind: str = "moe") -> list:
    """Return two policies of random weights, which turn, walk and pick up."""
    encoder = build_mission_encoder("builtin")
    agents = []
    for seed in range(2):
        policy = build_small_policy(kind, SIZES, Widths(OBSERVATION_DIM, 5, 8, 6, NUM_ACTIONS), seed)
        agents.append((policy, encoder, torch.nn.Linear(encoder.width, 5)))
    return agents


@pytest.fixture(scope="module")
def agents() -> list:
    return build_agents()


@pytest.fixture(scope="module")
def donors(agents):
    return find_donors(agents, follow_expert(TASK, range(100, 104)))


@pytest.fixture(scope="module")
def played(agents, donors) -> list[list[Intervened]]:
    return evaluate_grid(agents, ITEMS, TASK, SEEDS, SETTINGS, donors=donors)


def assert_identical(one: Evaluation, other: Evaluation) -> None:
    """Compare bit for bit, NaN equal to NaN."""
    for name in EPISODE_COLUMNS:
        np.testing.assert_array_equal(getattr(one.episodes, name), getattr(other.episodes, name), err_msg=name)
    assert one.episodes.env_context == other.episodes.env_context
    assert one.metrics == other.metrics
    assert (one.routing is None) == (other.routing is None)
    if one.routing is not None:
        for name in STEP_COLUMNS:
            np.testing.assert_array_equal(getattr(one.routing, name), getattr(other.routing, name), err_msg=name)
        for first, second in zip(one.routing.weights, other.routing.weights, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_sham_is_the_evaluation_bit_for_bit(agents, played):
    for agent, intact in enumerate(evaluate_many(agents, TASK, SEEDS, SETTINGS)):
        assert_identical(played[agent][1], intact)


def test_interventions_lead_elsewhere(played):
    for number in (0, 2, 3, 4, 5, 7):  # the others wait for what these policies never do
        steps = [[one[k].routing.action for k in (1, number)] for one in played]
        assert any(len(a) != len(b) or (a != b).any() for a, b in steps), ITEMS[number]


@pytest.mark.parametrize("num_envs", [1, 3, 64])
def test_the_number_of_environments_changes_nothing(agents, donors, played, num_envs):
    settings = PlaySettings(num_envs=num_envs, max_steps=LIMIT)
    again = evaluate_grid(agents, ITEMS[:5], TASK, SEEDS, settings, donors=donors)
    for mine, theirs in zip(again, played, strict=True):
        for one, other in zip(mine, theirs, strict=False):
            assert_identical(one, other)
            np.testing.assert_array_equal(one.ce, other.ce)


def test_other_conditions_and_policies_change_nothing(agents, donors, played):
    for number in (0, 2, 3, 6, 9):
        alone = evaluate_grid([agents[1]], [ITEMS[number]], TASK, SEEDS, SETTINGS, donors=donors.select([1]))
        assert_identical(alone[0][0], played[1][number])
    few = evaluate_grid(
        agents, ITEMS[::-1], TASK, SEEDS[::-1], PlaySettings(num_envs=7, max_steps=LIMIT), donors=donors
    )
    assert [one.intervention for one in few[0]] == ITEMS[::-1]
    for agent in range(2):
        one, other = few[agent][0].episodes, played[agent][-1].episodes
        np.testing.assert_array_equal(one.steps[::-1], other.steps)


@torch.no_grad()
def play_plainly(agent: tuple, item: Intervention, seed: int, donors, p: int) -> tuple[list[int], list, int]:
    """Return actions, logits and outcome of one level, played with the policy's own modules."""
    policy, encoder, projection = agent[0].double(), agent[1], agent[2]
    env = VectorEnv(TASK, 1, SeedList([seed]), max_steps=LIMIT, plan_every=1, record=True)
    step, hidden, actions, logits = env.reset(), start_plain(policy), [], []
    since = np.full((1, len(EVENT_NAMES)), NEVER, np.int32)
    weight, bias = projection.weight.double(), projection.bias.double()
    mission = torch.nn.functional.linear(encoder.encode(env.missions[:1]).double(), weight, bias)
    sentence = env.missions[0]
    while True:
        since = count_since(since, step.facts.event.astype(np.int64), step.episode_start)
        scene = Scene(
            level_seed=seed,
            t_step=len(actions),
            subgoal=int(step.facts.subgoal[0]),
            carrying=bool(step.carrying[0]),
            door_unlocked=int(step.facts.door_unlocked[0]),
            since=tuple(since[0].tolist()),
            mission=donors.missions.index(sentence) if sentence in donors.missions else -1,
        )
        obs = torch.from_numpy(encode_observations(step.view, step.direction, step.carrying)).double()
        found, _, hidden = act_plainly(policy, item, obs, mission, hidden, scene, donors, p)
        actions.append(int(found.argmax()))
        logits.append(found)
        step = env.step(np.array(actions[-1:]))
        if step.outcome[0] != RUNNING:
            return actions, logits, int(step.outcome[0])


@pytest.mark.parametrize("number", range(len(ITEMS)), ids=lambda number: ITEMS[number].name)
def test_the_grid_is_what_single_steps_of_single_levels_give(agents, donors, played, number):
    for p in range(2):
        one = played[p][number]
        for episode, seed in enumerate(SEEDS[:2]):
            actions, logits, outcome = play_plainly(agents[p], ITEMS[number], seed, donors, p)
            rows = one.routing.episode == episode
            assert one.routing.action[rows].tolist() == actions
            assert one.episodes.outcome[episode] == outcome
            kept = torch.from_numpy(one.routing.action_logits[rows])
            torch.testing.assert_close(kept, torch.stack(logits).float(), rtol=1e-4, atol=1e-5)
            bots = torch.from_numpy(one.routing.expert_action[rows].astype(np.int64))
            ce = torch.nn.functional.cross_entropy(kept.double(), bots)
            assert one.ce[episode] == pytest.approx(float(ce), rel=1e-5)


def test_on_the_bots_own_way_the_grid_is_the_replay(agents, donors, monkeypatch):
    """There keys are picked up and doors opened, which untrained policies never do."""
    act = evaluation_grid._Grid._act

    def follow(self, now, condition):
        return act(self, now, condition)._replace(action=now.expert_action)

    monkeypatch.setattr(evaluation_grid._Grid, "_act", follow)
    way = follow_expert(TASK, SEEDS)
    intact = replay(agents, way)
    effects = intervene(intact, ITEMS, donors=donors, keep_logits=True)
    assert (effects.kl[:, [0, *range(2, len(ITEMS))]].amax(dim=(0, 2)) > 0).all()
    for p, mine in enumerate(evaluate_grid(agents, ITEMS, TASK, SEEDS, PlaySettings(num_envs=9), donors=donors)):
        for number, one in enumerate(mine):
            logits = torch.from_numpy(one.routing.action_logits)
            torch.testing.assert_close(logits, effects.logits[p, number], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(one.routing.subgoal, way.steps["subgoal"])


def test_a_policy_goes_on_as_it_would_when_another_is_through(agents, donors, played, monkeypatch):
    act = evaluation_grid._Grid._act

    def follow(self, now, condition):
        decision = act(self, now, condition)
        first = np.arange(len(condition)) < self._slots
        return decision._replace(action=np.where(first, now.expert_action, decision.action))

    monkeypatch.setattr(evaluation_grid._Grid, "_act", follow)
    quick, slow = evaluate_grid(agents, ITEMS, TASK, SEEDS, SETTINGS, donors=donors)
    assert all(one.metrics["success_rate"] == 1 for one in quick)
    assert sum(one.episodes.steps.sum() for one in quick) < sum(one.episodes.steps.sum() for one in slow)
    for one, other in zip(slow, played[1], strict=True):
        assert_identical(one, other)


def test_without_steps_the_episodes_are_the_same(agents, donors, played):
    settings = PlaySettings(num_envs=16, max_steps=LIMIT, record=False)
    ended = []
    bare = evaluate_grid(agents, ITEMS[:3], TASK, SEEDS, settings, donors=donors, progress=ended.append)
    assert sum(ended) == 2 * 3 * len(SEEDS)
    for mine, theirs in zip(bare, played, strict=True):
        for one, other in zip(mine, theirs, strict=False):
            assert one.routing is None
            for name in ("steps", "outcome", "mean_lpc", "agreed", "labelled", "expert_steps"):
                np.testing.assert_array_equal(getattr(one.episodes, name), getattr(other.episodes, name))


def test_unsolvable_levels_are_left_out_under_every_condition(agents):
    settings = PlaySettings(max_steps=20, record=False)
    items = [Intervention(), Intervention(what="zero")]
    found = evaluate_grid(agents, items, "BabyAI-GoToImpUnlock-v0", [7, 6, 8, 14], settings)
    for one in (one for mine in found for one in mine):
        assert one.episodes.level_seed.tolist() == [7, 8]
        assert one.metrics["bot_plan_failures"] == 2


def test_policies_with_a_residual_and_baselines_too():
    for kind in ("mop with LayerNorm", "gru"):
        agents = build_agents(kind)
        items = [Intervention(), Intervention(state="zero")]
        found = evaluate_grid(agents, items, TASK, SEEDS, SETTINGS)
        for mine, intact in zip(found, evaluate_many(agents, TASK, SEEDS, SETTINGS), strict=True):
            assert_identical(mine[0], intact)
            assert not np.array_equal(mine[1].routing.action_logits, intact.routing.action_logits)


def test_the_table_sets_each_condition_beside_the_intact_policy(played):
    table = tabulate(played, [{"seed": 0}, {"seed": 1}], TASK)
    frame = table.to_frame()
    assert len(frame) == 2 * len(ITEMS) * len(SEEDS)
    assert (table.header["source"], table.header["mode"], table.header["task"]) == ("P", "closed_loop", TASK)
    assert frame.kl.isna().all() and (frame.group == "all").all()
    row = frame[(frame.run == 1) & (frame.condition == ITEMS[4].name) & (frame.level_seed == SEEDS[2])].iloc[0]
    changed, intact = played[1][4], played[1][1]
    assert row.length == changed.episodes.steps[2] and row.length_intact == intact.episodes.steps[2]
    assert row.success == (changed.episodes.outcome[2] == 1)
    assert row.agreement == pytest.approx(changed.episodes.agreed[2] / changed.episodes.labelled[2])
    assert row.ce == pytest.approx(changed.ce[2]) and row.ce_intact == pytest.approx(intact.ce[2])
    assert row.lpc == pytest.approx(changed.episodes.mean_lpc[2])
    sham = frame[frame.condition == "sham"]
    for name in ("length", "success", "agreement", "ce", "lpc"):
        np.testing.assert_array_equal(sham[name], sham[f"{name}_intact"])


def test_what_cannot_be_played_is_refused(agents, donors, played):
    with pytest.raises(ValueError, match="expected distinct seeds"):
        evaluate_grid(agents, ITEMS[:1], TASK, [1, 1])
    with pytest.raises(ValueError, match="expected at least one, found none"):
        evaluate_grid(agents, [], TASK, [1])
    with pytest.raises(ValueError, match="other levels than those scored, found 1 in both: 101"):
        evaluate_grid(agents, ITEMS[2:3], TASK, [1, 101], donors=donors)
    with pytest.raises(ValueError, match="runs: expected 2, as many as agents, found 1"):
        tabulate(played, [{}])
    with pytest.raises(ConfigError, match="expected the sham"):
        tabulate([mine[:1] for mine in played], [{}, {}])
