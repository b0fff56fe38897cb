"""A policy on a BabyAI level behind the protocol: what it says equals playing the level, whatever branches beside."""

import copy

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from babyai.facts import ACTION_NAMES, SUCCESS
from babyai.level_seeds import SeedList
from babyai.missions import build_mission_encoder
from babyai.observations import encode_observations
from babyai.vector_env import VectorEnv
from maxent.dts_implementation.models.babyai_policy import BabyAIPolicyModel, load_babyai_policy
from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.estimates import summarise
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.rewards.episode import Episode, EpisodeReward
from maxent.rewards.result import Answer
from mixture_of_experts import MixtureOfExpertsPolicy, compute_lpc
from pipeline.checkpoints import CheckpointError, save_checkpoint
from pipeline.config import TrainConfig
from pipeline.evaluation.play import evaluate
from pipeline.policies import build_policy
from tests.checkpoints import make_content
from tests.policies import Widths, build_small_policy

TASK = "BabyAI-GoToObjS4-v0"
SIZES = [[0, 4, 8], [0, 6]]
LARGEST = 8.0**2 + 6.0**2
WHOLE = Prior(1.0, None, 1.0)


def build_parts(kind: str = "moe", obs_encoding: str = "raw"):
    """Return policy, encoder and projection."""
    policy = build_small_policy(kind, SIZES, Widths(152, 32, 8, 8, 7), obs_encoding=obs_encoding).eval()
    encoder = build_mission_encoder("builtin", announce=lambda line: None)
    return policy, encoder, torch.nn.Linear(encoder.width, 32)


def play_plainly(parts, seed: int, actions, max_steps: int | None) -> tuple[list[np.ndarray], Episode]:
    """Return the logits before each action and after the last, and the episode: one environment, the plain policy."""
    policy, encoder, projection = (copy.deepcopy(part) for part in parts)
    policy, projection = policy.double(), projection.double()
    env = VectorEnv(TASK, 1, SeedList([seed]), max_steps=max_steps)
    step = env.reset()
    moe = isinstance(policy, MixtureOfExpertsPolicy)
    hidden = policy.init_hidden(1, "cpu") if moe else policy.init_hidden_states(1)
    hidden = tree_map(lambda part: part.double(), hidden)
    logits, lpc = [], []
    with torch.no_grad():
        mission = projection(encoder.encode(env.missions).double())
        for action in (*actions, None):
            obs = torch.from_numpy(encode_observations(step.view, step.direction, step.carrying)).double()
            if moe:
                chosen, hidden, routing = policy(obs, mission, hidden, return_routing_info=True)
            else:
                chosen, weights, hidden = policy.get_routing_info(obs, mission, hidden)
                routing = {f"layer_{i}": {"router_weights": layer} for i, layer in enumerate(weights)}
            logits.append(chosen[0].numpy())
            if action is None:
                break
            lpc.append(float(compute_lpc(routing, policy.layer_expert_sizes)) / LARGEST)
            step = env.step(np.array([action]))
            if step.ended:
                end = step.ended[0]
                logits.append(np.full(7, -np.inf))
                return logits, Episode(end.reward, end.steps, True, end.outcome == SUCCESS, float(np.mean(lpc)))
    return logits, Episode(0.0, len(actions), False, False, float(np.mean(lpc or [0.0])))


def find_solution(seed: int) -> list[int]:
    """Return the expert's actions."""
    env = VectorEnv(TASK, 1, SeedList([seed]))
    step, actions = env.reset(), []
    while not step.ended:
        actions.append(int(step.expert_action[0]))
        step = env.step(step.expert_action)
    return actions


def wander(model: BabyAIPolicyModel, seed: int, waves: int = 4) -> dict[tuple[int, ...], np.ndarray]:
    """Return prefix -> logits of waves that start anywhere in the tree and go on for some steps, side by side."""
    rng = np.random.default_rng(seed)
    found = {(): model.start(seed)}
    prefixes: list[tuple[int, ...]] = [()]
    for _ in range(waves):
        alive = [at for at, prefix in enumerate(prefixes) if np.isfinite(found[prefix]).all()]
        ends = sorted({int(at) for at in rng.choice(alive, 5)})
        model.open(
            [
                () if not at else tuple(prefixes.index(prefixes[at][: d + 1]) for d in range(len(prefixes[at])))
                for at in ends
            ]
        )
        for _ in range(4):
            rows = [(at, int(action)) for at in ends for action in rng.choice(7, rng.integers(1, 3), replace=False)]
            rows = [(at, action) for at, action in rows if (*prefixes[at], action) not in found]
            rows = [rows[i] for i in rng.permutation(len(rows))]
            if not rows:
                break
            logits = model.step([action for _, action in rows], [at for at, _ in rows])
            ends = []
            for (at, action), row in zip(rows, logits, strict=True):
                prefixes.append((*prefixes[at], action))
                found[prefixes[-1]] = row
                if np.isfinite(row).all():
                    ends.append(len(prefixes) - 1)
        model.close()
    return found


# ------------------------------------------------------------------------------------------- against playing the level


@pytest.mark.parametrize(
    ("kind", "obs_encoding"), [("moe", "raw"), ("mop with LayerNorm", "raw"), ("moe", "onehot"), ("mop", "embedding")]
)
def test_every_branch_equals_playing_it_alone(kind, obs_encoding):
    parts = build_parts(kind, obs_encoding)
    model = BabyAIPolicyModel(*parts, TASK, max_steps=7)
    over = 0
    for seed in (3, 4):
        found = wander(model, seed)
        assert (model.cost.prefill, model.cost.new, model.cost.recomputed) == (1, len(found) - 1, 0)
        for prefix, logits in found.items():
            expected, episode = play_plainly(parts, seed, prefix, 7)
            np.testing.assert_allclose(logits, expected[-1], rtol=0, atol=1e-12)
            if prefix:
                assert model.play(prefix) == pytest.approx(episode, rel=1e-12)
                over += episode.over
    assert over > 3
    assert len(set(map(len, found))) > 4


def test_a_policy_without_routers_has_no_complexity():
    model = BabyAIPolicyModel(*build_parts("gru"), TASK)
    model.start(1)
    model.step([2], [0])
    assert model.play((2, 2)).lpc == 0


@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5])
def test_the_experts_actions_solve_the_level(seed):
    parts = build_parts()
    model = BabyAIPolicyModel(*parts, TASK)
    actions = find_solution(seed)
    model.start(seed)
    for depth, action in enumerate(actions):
        logits = model.step([action], [depth])
    assert (logits == -np.inf).all()
    episode = model.play(actions)
    assert episode == pytest.approx(play_plainly(parts, seed, actions, None)[1])
    assert episode.solved
    assert 0 < episode.lpc < 1 > episode.reward > 0.5
    assert model.decode(actions[:1]) == ACTION_NAMES[actions[0]]


def test_an_answer_that_was_cut_is_judged_after_its_last_action():
    """Which no search feeds, and which may have been the one that solves the level."""
    model = BabyAIPolicyModel(*build_parts(), TASK)
    *before, last = find_solution(7)
    model.start(7)
    for depth, action in enumerate(before):
        model.step([action], [depth])
    assert model.play([*before, last]).solved
    assert not model.play([*before, 6]).over
    logits = model.step([last], [len(before)])  # looking ahead has left the branch alone
    assert (logits == -np.inf).all()


def test_one_branch_alone_is_never_restored(monkeypatch):
    loads = []
    load = VectorEnv.load_state_dict
    monkeypatch.setattr(VectorEnv, "load_state_dict", lambda env, state: (loads.append(1), load(env, state))[1])
    model = BabyAIPolicyModel(*build_parts(), TASK)
    model.start(3)
    for depth in range(5):
        model.step([0], [depth])
    assert loads == []
    model.step([0, 1], [2, 0])
    model.step([1, 0], [7, 6])
    assert loads == [1]


# --------------------------------------------------------------------------------------------------------- searching


@pytest.mark.parametrize("method", METHODS)
def test_search_records_what_playing_gives(method):
    parts = build_parts()
    model = BabyAIPolicyModel(*parts, TASK, max_steps=9)
    settings = SearchSettings(
        method=method, num_rollouts=24, max_tokens=7, wave=1 if method == "mh" else 6, prior=WHOLE
    )
    reward = EpisodeReward(model.play, alpha=0.25)
    result = search(model, 5, reward, settings)
    for rollout in result.rollouts:
        logits, episode = play_plainly(parts, 5, rollout.tokens, 9)
        assert rollout.reward == pytest.approx(episode.reward - 0.25 * episode.lpc)
        assert rollout.parts["lpc"] == pytest.approx(episode.lpc)
        assert len(rollout.tokens) == episode.steps <= 7
        scores = torch.from_numpy(np.stack(logits[: episode.steps])).log_softmax(-1)
        steps = [float(scores[at, action]) for at, action in enumerate(rollout.tokens)]
        np.testing.assert_allclose(rollout.token_log_probs, steps, atol=1e-9)
    again = search(model, 5, reward, settings)
    assert [rollout.tokens for rollout in again.rollouts] == [rollout.tokens for rollout in result.rollouts]
    if method == "dts":
        assert np.isfinite(summarise(result)["log_z"])


def test_greedy_search_is_how_a_policy_is_evaluated():
    parts = build_parts()
    model = BabyAIPolicyModel(*parts, TASK, max_steps=12)
    for seed in range(4):
        result = search(model, seed, EpisodeReward(model.play), SearchSettings(method="greedy", max_tokens=12))
        played = evaluate(*parts, TASK, [seed], max_steps=12).episodes
        assert result.best.parts["steps"] == played.steps[0]
        assert result.best.parts["solved"] == (played.outcome[0] == SUCCESS)
        assert result.best.parts["lpc"] * LARGEST == pytest.approx(played.mean_lpc[0], rel=1e-5)


# ------------------------------------------------------------------------------------------------ checkpoints, mistakes


def test_a_checkpoint_is_loaded_as_evaluation_loads_it(tmp_path):
    encoder = build_mission_encoder("builtin", announce=lambda line: None)
    config = TrainConfig(
        task_id=TASK, lang_dim=32, intermediate_dim=8, router_hidden_size=8, expert_hidden_sizes=SIZES, max_steps=5
    )
    projection = torch.nn.Linear(encoder.width, 32)
    content = make_content(config, lang_encoder=encoder.describe(), lang_proj_state_dict=projection.state_dict())
    save_checkpoint(tmp_path / "checkpoint.pt", content)
    model = load_babyai_policy(tmp_path / "checkpoint.pt")
    assert (model.task_id, model.simulator) == (TASK, True)
    found = wander(model, 3, waves=1)
    parts = (build_policy(config), encoder, projection)
    for prefix, logits in found.items():
        np.testing.assert_allclose(logits, play_plainly(parts, 3, prefix, 5)[0][-1], rtol=0, atol=1e-12)
    with pytest.raises(CheckpointError, match="nothing"):
        load_babyai_policy(tmp_path / "nothing.pt")


@pytest.mark.parametrize("prompt", ["a level", -1, True, 1.0, None])
def test_a_prompt_is_the_seed_of_a_level(prompt):
    with pytest.raises(ValueError, match="expected the seed of a level"):
        BabyAIPolicyModel(*build_parts(), TASK).start(prompt)


def test_actions_that_were_not_taken_are_not_judged():
    model = BabyAIPolicyModel(*build_parts(), TASK)
    model.start(3)
    with pytest.raises(ValueError, match="all but the last"):
        model.play([0, 1])


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_complexity_costs_no_more_than_the_reward(alpha):
    with pytest.raises(ValueError, match="alpha"):
        EpisodeReward(lambda actions: Episode(1.0, 1, True, True, 0.0), alpha)


def test_the_reward_is_the_episodes_less_the_price_of_thinking():
    reward = EpisodeReward(lambda actions: Episode(0.9, len(actions), True, True, 0.5), 0.2)
    result = reward(Answer((1, 2), "right forward", True, -1.0))
    assert result.total == pytest.approx(0.8)
    assert result.parts == {"episode": 0.9, "lpc": 0.5, "steps": 2.0, "solved": 1.0}
