"""Evaluation: every level once and to its end, the same numbers however they are computed."""

import contextlib
import copy
import io

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pipeline.evaluation.play
from babyai.facts import EVENT_NAMES, FAILURE, OBJECT_NAMES, SUCCESS, TIMEOUT, StepFacts
from babyai.level_seeds import SeedList, evaluation_seeds
from babyai.missions import build_mission_encoder
from babyai.observations import encode_observations
from babyai.vector_env import EpisodeEnd, VectorEnv, VectorStep
from pipeline.baseline import GRUPolicy
from pipeline.evaluation.play import (
    Evaluation,
    PlaySettings,
    PolicyBatch,
    evaluate,
    evaluate_many,
    evaluate_task,
    evaluate_task_many,
)
from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.training.batch import ReplicaBatch
from tests.pipeline.training.test_training import debug_config, train

TASK = "BabyAI-GoToObjS6-v1"
PICKUP, DROP, TOGGLE = 3, 4, 5


@pytest.fixture(scope="module")
def moe() -> ReplicaBatch:
    """A policy that solves about half of the debug task's levels."""
    return train(debug_config(expert_hidden_sizes=[[0, 8, 16], [4, 0]]), 12)


@pytest.fixture(scope="module")
def gru() -> ReplicaBatch:
    return train(debug_config(policy="gru"), 12)


def play(batch: ReplicaBatch, seeds: list[int], task_id: str = TASK, **options) -> Evaluation:
    return evaluate(batch.policies[0], batch.encoder, batch.projections[0], task_id, seeds, **options)


def play_task(batch: ReplicaBatch, task_id: str, num_episodes: int, **options) -> Evaluation:
    return evaluate_task(batch.policies[0], batch.encoder, batch.projections[0], task_id, num_episodes, **options)


def columns(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Return every column of both tables by name."""
    found = {name: getattr(evaluation.episodes, name) for name in EPISODE_COLUMNS}
    if evaluation.routing is not None:
        found |= {f"step {name}": getattr(evaluation.routing, name) for name in STEP_COLUMNS}
        found |= {f"weights {layer}": weights for layer, weights in enumerate(evaluation.routing.weights)}
    return found


def assert_identical(first: Evaluation, second: Evaluation) -> None:
    """Compare bit for bit, NaN equal to NaN."""
    one, other = columns(first), columns(second)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)
    for name in ("mission", "env_context"):
        assert getattr(first.episodes, name) == getattr(second.episodes, name)
    assert first.metrics == second.metrics


def act_as_the_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PolicyBatch.act

    def act(self: PolicyBatch, steps: list[VectorStep], missions: list) -> tuple[torch.Tensor, list[torch.Tensor]]:
        expert = torch.from_numpy(np.stack([step.expert_action for step in steps]))
        return F.one_hot(expert, 7).double(), plain(self, steps, missions)[1]

    monkeypatch.setattr(PolicyBatch, "act", act)


def act_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, generator = PolicyBatch.act, torch.Generator().manual_seed(0)

    def act(self: PolicyBatch, steps: list[VectorStep], missions: list) -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits = torch.rand(len(steps), len(steps[0].active), 7, generator=generator)
        return logits, plain(self, steps, missions)[1]

    monkeypatch.setattr(PolicyBatch, "act", act)


# --------------------------------------------------------------------------------------------------- nothing is biased


class KnownEnv:
    """Levels of known ends: those of even seeds are solved in one step, the others run into their limit of 20."""

    def __init__(self, task_id: str, num_envs: int, levels: SeedList, *, record: bool, **_: object) -> None:
        self.num_envs, self.record, self.levels = num_envs, record, levels
        self.missions = ["go"]
        self.counters = {"levels_unsolvable": 0}

    def reset(self) -> VectorStep:
        self.seeds = [self.levels.next_seed(slot) for slot in range(self.num_envs)]
        self.steps = [0] * self.num_envs
        return self.show(())

    def step(self, actions: np.ndarray) -> VectorStep:
        ended = []
        for slot, seed in enumerate(self.seeds):
            if seed is None:
                continue
            self.steps[slot] += 1
            if self.steps[slot] == (20 if seed % 2 else 1):
                outcome = TIMEOUT if seed % 2 else SUCCESS
                context = {} if self.record else None
                ended.append(EpisodeEnd(slot, seed, outcome, self.steps[slot], 0.0, 1, "go", context))
                self.seeds[slot], self.steps[slot] = self.levels.next_seed(slot), 0
        return self.show(tuple(ended))

    def show(self, ended: tuple[EpisodeEnd, ...]) -> VectorStep:
        zeros = VectorStep.zeros(self.num_envs)
        active = np.array([seed is not None for seed in self.seeds])
        start = active & (np.array(self.steps) == 0)
        kept = {name: value for name, value in vars(zeros).items() if name not in ("active", "episode_start")}
        facts = StepFacts.empty(self.num_envs) if self.record else None
        return VectorStep(**{**kept, "ended": ended, "facts": facts}, active=active, episode_start=start)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("num_episodes", [1, 10, 33, 100])
@pytest.mark.parametrize("num_envs", [1, 7, 16])
@pytest.mark.parametrize("record", [False, True])
def test_short_successful_episodes_count_as_often_as_long_failed_ones(monkeypatch, num_episodes, num_envs, record):
    monkeypatch.setattr(pipeline.evaluation.play, "VectorEnv", KnownEnv)
    encoder = build_mission_encoder("builtin", announce=lambda line: None)
    policy, projection = GRUPolicy(152, 4, 7, 4), torch.nn.Linear(encoder.width, 4)
    seeds = list(range(1, num_episodes + 1))  # 1 is a long one
    result = evaluate(policy, encoder, projection, "known", seeds, num_envs=num_envs, record=record)
    successes = num_episodes // 2
    assert result.metrics["successes"] == successes
    assert result.metrics["success_rate"] == successes / num_episodes
    assert result.metrics["timeouts"] == num_episodes - successes
    assert result.metrics["total_steps"] == successes + 20 * (num_episodes - successes)
    assert result.episodes.level_seed.tolist() == seeds
    assert result.episodes.steps.tolist() == [20 if seed % 2 else 1 for seed in seeds]
    if record:  # no step of an unfinished episode, none twice
        assert np.bincount(result.routing.episode).tolist() == result.episodes.steps.tolist()


# ---------------------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", ["moe", "gru"])
@pytest.mark.parametrize("task_id", [TASK, "BabyAI-UnlockPickup-v0"])
def test_results_depend_on_neither_the_number_of_environments_nor_order_nor_repetition(name, task_id, request):
    batch = request.getfixturevalue(name)
    seeds = evaluation_seeds(0, 20)
    one = play(batch, seeds, task_id, max_steps=40, num_envs=1)
    assert 0 < one.metrics["timeouts"]
    for num_envs in (1, 7, 16):
        assert_identical(one, play(batch, seeds, task_id, max_steps=40, num_envs=num_envs))
    order = np.random.default_rng(0).permutation(len(seeds))
    mixed = play(batch, [seeds[k] for k in order], task_id, max_steps=40, num_envs=7)
    assert mixed.metrics == one.metrics
    assert mixed.episodes.level_seed.tolist() == [seeds[k] for k in order]
    for row, k in enumerate(order):
        here, there = mixed.routing.episode == row, one.routing.episode == k
        np.testing.assert_array_equal(mixed.routing.select(here).action_logits, one.routing.select(there).action_logits)
        assert mixed.episodes.mission[row] == one.episodes.mission[k]


def test_tables_are_in_order_and_fit_each_other(moe):
    result = play(moe, evaluation_seeds(0, 20), num_envs=6)
    routing, episodes = result.routing, result.episodes
    assert 0 < result.metrics["successes"] < 20
    for k in range(20):
        assert routing.t_step[routing.episode == k].tolist() == list(range(episodes.steps[k]))
        assert routing.position[routing.episode == k][0].tolist() == episodes.env_context[k]["agent_start_pos"]
    assert (routing.action == routing.action_logits.argmax(axis=1)).all()
    assert (np.diff(routing.episode) >= 0).all()
    assert routing.expert_hidden_sizes == [[0, 8, 16], [4, 0]]
    agreed = [int((routing.expert_action == routing.action)[routing.episode == k].sum()) for k in range(20)]
    assert episodes.agreed.tolist() == agreed
    assert episodes.labelled.sum() == (routing.expert_action >= 0).sum() == result.metrics["labelled_steps"]


def test_metrics_are_the_same_whether_routing_is_kept_or_not(moe):
    seeds = evaluation_seeds(0, 12)
    kept = play(moe, seeds, max_steps=30)
    dropped = play(moe, seeds, max_steps=30, record=False)
    assert dropped.routing is None
    assert dropped.metrics == kept.metrics
    unlabelled = play(moe, seeds, max_steps=30, record=False, label=False)
    assert unlabelled.metrics == {**kept.metrics, "agreement": None, "labelled_steps": 0}


def test_evaluation_changes_nothing_of_the_policy_or_of_global_randomness(moe):
    policy = copy.deepcopy(moe.policies[0]).train()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    projection = copy.deepcopy(moe.projections[0])
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (the global generator is the point)
    expected = torch.rand(2), np.random.random(2)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    evaluate(policy, moe.encoder, projection, TASK, [1, 2, 3], max_steps=10)
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.random(2) == expected[1]).all()  # noqa: NPY002
    assert policy.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in policy.parameters())
    assert projection.weight.dtype is torch.float32
    for name, value in policy.state_dict().items():
        assert value.dtype is before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", ["moe", "gru"])
def test_evaluation_equals_stepping_the_plain_policy_by_hand(name, request):
    batch = request.getfixturevalue(name)
    seeds = [3, 4, 5]  # played one after the other, so that memory of the level before would show
    result = play(batch, seeds, max_steps=25, num_envs=2)
    policy, projection = copy.deepcopy(batch.policies[0]).double(), copy.deepcopy(batch.projections[0]).double()
    env = VectorEnv(TASK, 1, SeedList(seeds), max_steps=25)
    step, logits, weights = env.reset(), [], []
    with torch.no_grad():
        while step.active.any():
            if step.episode_start[0]:
                hidden = _zero_hidden(policy)
            obs = torch.from_numpy(encode_observations(step.view, step.direction, step.carrying)).double()
            mission = projection(batch.encoder.encode([env.missions[step.mission_id[0]]]).double())
            if name == "gru":
                out, hidden = policy(obs, mission, hidden)
            else:
                out, hidden, info = policy(obs, mission, hidden, return_routing_info=True)
                weights.append(torch.cat([layer["router_weights"] for layer in info.values()], dim=1))
            logits.append(out)
            step = env.step(out.argmax(dim=-1).numpy())
    logits = torch.cat(logits)
    assert result.routing.action.tolist() == logits.argmax(dim=-1).tolist()
    np.testing.assert_allclose(result.routing.action_logits, logits, rtol=1e-6, atol=1e-7)
    if weights:
        np.testing.assert_allclose(np.hstack(result.routing.weights), torch.cat(weights), rtol=1e-6, atol=1e-7)


def _zero_hidden(policy: torch.nn.Module) -> torch.Tensor | list:
    if isinstance(policy, GRUPolicy):
        return torch.zeros(1, 1, policy.gru.hidden_size, dtype=torch.float64)
    hidden = policy.init_hidden(1, "cpu")
    return [(router.double(), [expert.double() for expert in experts]) for router, experts in hidden]


def blur(batch: ReplicaBatch, count: int) -> list[tuple]:
    """Return agents of one architecture: the batch's own, and others of ever noisier weights."""
    agents = []
    for k in range(count):
        policy, projection = copy.deepcopy(batch.policies[0]), copy.deepcopy(batch.projections[0])
        generator = torch.Generator().manual_seed(k)
        with torch.no_grad():
            for weight in [*policy.parameters(), *projection.parameters()]:
                weight += 0.1 * k * weight.std() * torch.randn(weight.shape, generator=generator)
        agents.append((policy, batch.encoder, projection))
    return agents


@pytest.mark.parametrize("name", ["moe", "gru"])
def test_many_at_once_find_what_each_finds_alone(name, request):
    """They end at different times, the first of them long before the last."""
    agents, seeds = blur(request.getfixturevalue(name), 5), evaluation_seeds(0, 9)
    told = []
    together = evaluate_many(agents, TASK, seeds, PlaySettings(max_steps=60, num_envs=4), told.append)
    alone = [evaluate(*agent, TASK, seeds, max_steps=60, num_envs=4) for agent in agents]
    assert len({tuple(result.episodes.steps.tolist()) for result in alone}) > 2
    assert sum(told) == 5 * 9
    for one, other in zip(alone, together, strict=True):
        assert_identical(one, other)
    backwards = evaluate_many(agents[::-1], TASK, seeds, PlaySettings(max_steps=60, num_envs=9))
    for one, other in zip(alone, backwards[::-1], strict=True):
        assert_identical(one, other)


def test_many_at_once_replace_the_same_unsolvable_levels(moe):
    agents = blur(moe, 3)
    together = evaluate_task_many(agents, UNSOLVABLE, 6, PlaySettings(max_steps=30, num_envs=5))
    for agent, result in zip(agents, together, strict=True):
        assert_identical(result, evaluate_task(*agent, UNSOLVABLE, 6, max_steps=30, num_envs=5))


def test_many_at_once_without_routing(moe):
    agents = blur(moe, 2)
    for result, alone in zip(
        evaluate_many(agents, TASK, [1, 2, 3], PlaySettings(max_steps=20, record=False, label=False)),
        [evaluate(*agent, TASK, [1, 2, 3], max_steps=20, record=False, label=False) for agent in agents],
        strict=True,
    ):
        assert result.routing is None
        assert_identical(result, alone)


def test_other_architectures_cannot_play_together(moe, gru):
    with pytest.raises(ValueError, match="one architecture"):
        evaluate_many([(t.policies[0], t.encoder, t.projections[0]) for t in (moe, gru)], TASK, [1])


def test_seeds_that_repeat_are_refused(moe):
    with pytest.raises(ValueError, match="distinct"):
        play(moe, [1, 2, 1])


def test_progress_counts_every_episode_once(moe):
    told = []
    play(moe, evaluation_seeds(0, 9), max_steps=20, num_envs=4, record=False, progress=told.append)
    assert sum(told) == 9
    assert min(told) > 0


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_outcomes_are_what_minigrid_says_of_the_same_actions(moe, monkeypatch):
    """BabyAI terminates on failure too, with reward 0: that is no success."""
    act_at_random(monkeypatch)
    task_id = "BabyAI-OpenDoorsOrderN2Debug-v0"
    result = play(moe, evaluation_seeds(0, 14), task_id, max_steps=150)
    episodes, routing = result.episodes, result.routing
    for k, seed in enumerate(episodes.level_seed.tolist()):
        env = gymnasium.make(task_id, max_steps=150, disable_env_checker=True).unwrapped
        with contextlib.redirect_stdout(io.StringIO()):  # minigrid prints every rejected level
            env.reset(seed=seed)
        *before, last = routing.action[routing.episode == k].tolist()
        assert not any(end for action in before for end in env.step(action)[2:4])
        _, reward, terminated, truncated, _ = env.step(last)
        assert env.mission == episodes.mission[k]
        assert terminated or truncated
        expected = (SUCCESS if reward > 0 else FAILURE) if terminated else TIMEOUT
        assert episodes.outcome[k] == expected
    assert set(episodes.outcome.tolist()) == {SUCCESS, FAILURE, TIMEOUT}
    assert (episodes.steps[episodes.outcome == TIMEOUT] == 150).all()
    metrics = result.metrics
    counted = {SUCCESS: metrics["successes"], FAILURE: metrics["failures"], TIMEOUT: metrics["timeouts"]}
    assert counted == {code: (episodes.outcome == code).sum() for code in counted}
    assert metrics["success_rate"] == metrics["successes"] / len(episodes)


UNSOLVABLE = "BabyAI-GoToImpUnlock-v0"  # among seeds 0 to 13 the expert does not solve that of seed 6


def test_levels_that_the_expert_cannot_solve_are_counted_and_not_played(moe):
    result = play(moe, [7, 6, 8, 14], UNSOLVABLE, max_steps=200, record=False, label=False)
    assert result.episodes.level_seed.tolist() == [7, 8]
    assert (result.metrics["num_episodes"], result.metrics["bot_plan_failures"]) == (2, 2)


def test_a_list_without_any_solvable_level_has_no_rates(moe):
    result = play(moe, [6, 14], UNSOLVABLE)
    assert (result.metrics["num_episodes"], result.metrics["bot_plan_failures"]) == (0, 2)
    assert result.metrics["success_rate"] is None
    assert result.routing is None


def test_a_task_s_levels_are_replaced_until_there_are_enough(moe):
    few = play_task(moe, UNSOLVABLE, 6, max_steps=30, num_envs=5)
    many = play_task(moe, UNSOLVABLE, 12, max_steps=30, num_envs=3)
    assert few.metrics["num_episodes"] == len(few.episodes) == 6
    assert many.metrics["num_episodes"] == len(many.episodes) == 12
    assert 0 < few.metrics["bot_plan_failures"] <= many.metrics["bot_plan_failures"]
    stream = evaluation_seeds(0, 12 + many.metrics["bot_plan_failures"])
    assert set(many.episodes.level_seed.tolist()) <= set(stream)
    first = np.arange(12) < 6
    assert many.episodes.select(first).level_seed.tolist() == few.episodes.level_seed.tolist()
    np.testing.assert_array_equal(many.episodes.mean_lpc[first], few.episodes.mean_lpc)
    np.testing.assert_array_equal(
        many.routing.action_logits[many.routing.episode < 6], few.routing.action_logits, strict=True
    )
    assert np.bincount(many.routing.episode).tolist() == many.episodes.steps.tolist()
    assert_identical(many, play_task(moe, UNSOLVABLE, 12, max_steps=30, num_envs=16))


def test_another_evaluation_seed_plays_other_levels(moe):
    one = play_task(moe, TASK, 5, max_steps=5, record=False)
    other = play_task(moe, TASK, 5, max_steps=5, record=False, eval_seed=1)
    assert not set(one.episodes.level_seed) & set(other.episodes.level_seed)


# -------------------------------------------------------------------------------------------------------------- events


def test_whoever_acts_as_the_expert_has_its_path_and_the_events_of_an_unlock(moe, monkeypatch):
    act_as_the_expert(monkeypatch)
    result = play(moe, evaluation_seeds(0, 12), "BabyAI-UnlockPickup-v0", num_envs=5)
    metrics, episodes, routing = result.metrics, result.episodes, result.routing
    assert metrics["success_rate"] == metrics["agreement"] == metrics["path_ratio"] == 1.0
    assert episodes.steps.tolist() == episodes.expert_steps.tolist()
    assert (routing.action == routing.expert_action).all()
    assert (episodes.t_pick >= 0).all()
    assert (episodes.t_pick < episodes.t_unlocked).all()
    for k in range(12):
        rows = np.flatnonzero(routing.episode == k)
        events = [(EVENT_NAMES[e], row - rows[0]) for row in rows if (e := routing.event[row])]
        first = dict(reversed(events))
        assert first["picked"] == episodes.t_pick[k]
        assert first["unlocked"] == episodes.t_unlocked[k]
        assert first.get("dropped", -1) == episodes.t_drop[k]
        # An event stands in the row of the action that brought it about; the state changes in the next one.
        picked, unlocked = rows[first["picked"]], rows[first["unlocked"]]
        (key,) = {f"{color} key" for *_, color in episodes.env_context[k]["keys"]}
        (door,) = {f"{color} door" for *_, color, _, locked in episodes.env_context[k]["doors"] if locked}
        assert routing.action[picked] == PICKUP
        assert OBJECT_NAMES[routing.event_object[picked]] == key
        assert routing.carrying[picked : picked + 2].tolist() == [False, True]
        assert routing.action[unlocked] == TOGGLE
        assert OBJECT_NAMES[routing.event_object[unlocked]] == door
        assert routing.door_unlocked[unlocked : unlocked + 2].tolist() == [0, 1]
        if "dropped" in first:
            assert routing.action[rows[first["dropped"]]] == DROP
        # The last action picks up the box and ends the level.
        assert (EVENT_NAMES[routing.event[rows[-1]]], routing.action[rows[-1]]) == ("picked", PICKUP)
        assert OBJECT_NAMES[routing.event_object[rows[-1]]].endswith("box")


# ----------------------------------------------------------------------------------------------------------------- LPC


def lpc_by_hand(result: Evaluation, exponent: float) -> np.ndarray:
    layers = zip(result.routing.weights, result.routing.expert_hidden_sizes, strict=True)
    return sum(weights.astype(np.float64) @ np.array(sizes, np.float64) ** exponent for weights, sizes in layers)


@pytest.mark.parametrize("exponent", [2.0, 1.0])
def test_lpc_is_weight_times_size_to_the_exponent(moe, exponent):
    result = play(moe, evaluation_seeds(0, 16), lpc_exponent=exponent)
    routing, episodes, metrics = result.routing, result.episodes, result.metrics
    np.testing.assert_allclose(routing.lpc, lpc_by_hand(result, exponent), rtol=1e-5)
    assert routing.lpc.std() > 0 and routing.lpc_exponent == exponent
    for weights in routing.weights:
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    assert metrics["mean_lpc"] == pytest.approx(routing.lpc.mean(dtype=np.float64), rel=1e-12)
    means = [routing.lpc[routing.episode == k].mean(dtype=np.float64) for k in range(16)]
    np.testing.assert_allclose(episodes.mean_lpc, means, rtol=1e-12)
    assert metrics["mean_lpc_per_episode"] == pytest.approx(np.mean(means), rel=1e-12)
    assert metrics["mean_lpc_per_episode"] != metrics["mean_lpc"]  # episodes differ in length
    for code, name in ((SUCCESS, "success"), (TIMEOUT, "timeout")):
        of_outcome = routing.lpc[episodes.outcome[routing.episode] == code]
        assert metrics[f"mean_lpc_{name}"] == pytest.approx(of_outcome.mean(dtype=np.float64), rel=1e-12)
    assert metrics["mean_lpc_failure"] is None  # no such episode
    entropies = [-np.sum(w * np.log(w), axis=1) for w in routing.weights]
    np.testing.assert_allclose(routing.entropy, np.mean(entropies, axis=0), rtol=1e-5)


def test_a_baseline_has_no_lpc_instead_of_one_of_zero(gru):
    result = play(gru, evaluation_seeds(0, 6), max_steps=20)
    assert {value for name, value in result.metrics.items() if "lpc" in name} == {None}
    assert result.routing.weights == ()
    assert result.routing.expert_hidden_sizes == []
    assert np.isnan(result.routing.lpc).all()
    assert np.isnan(result.routing.entropy).all()
    assert np.isnan(result.episodes.mean_lpc).all()
    assert len(result.routing) == result.metrics["total_steps"]
