"""Actions drawn in an evaluation: what is drawn is of a level and a step alone, and is the policy's distribution."""

import numpy as np
import pytest
import torch

from babyai.facts import NUM_ACTIONS
from babyai.level_seeds import evaluation_seeds
from pipeline.evaluation.grid import evaluate_grid
from pipeline.evaluation.noise import GumbelNoise
from pipeline.evaluation.play import PlaySettings, decide, evaluate, evaluate_many
from pipeline.interventions.spec import Intervention
from pipeline.training.batch import ReplicaBatch
from tests.pipeline.evaluation.test_evaluation import TASK, assert_identical, blur
from tests.pipeline.training.test_training import debug_config, train

SEEDS = evaluation_seeds(0, 12)
DRAWN = PlaySettings(num_envs=4, max_steps=70, actions="sample")


@pytest.fixture(scope="module")
def batch() -> ReplicaBatch:
    return train(debug_config(expert_hidden_sizes=[[0, 8, 16], [4, 0]]), 12)


def agent_of(batch: ReplicaBatch) -> tuple:
    return batch.policies[0], batch.encoder, batch.projections[0]


def noise_of(seed: int, steps: int) -> np.ndarray:
    """Return the noise of a level's first steps, (steps, actions), for a slot that plays nothing else."""
    noise = GumbelNoise(1, NUM_ACTIONS)
    return np.stack([noise.draw(np.array([seed]), np.array([t]))[0] for t in range(steps)])


def test_noise_is_of_the_level_and_the_step_alone():
    alone = {seed: noise_of(seed, 100) for seed in (3, 4, 5)}
    assert len({values.tobytes() for values in alone.values()}) == 3
    assert len({row.tobytes() for row in alone[3]}) == 100
    # Two slots: one plays 3 for 40 steps and then 5, the other 4 all the time
    noise = GumbelNoise(2, NUM_ACTIONS)
    for t in range(90):
        seeds, steps = (np.array([3, 4]), np.array([t, t])) if t < 40 else (np.array([5, 4]), np.array([t - 40, t]))
        found = noise.draw(seeds, steps)
        for slot in (0, 1):
            np.testing.assert_array_equal(found[slot], alone[int(seeds[slot])][steps[slot]])


def test_what_is_drawn_has_the_probabilities_of_the_policy():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5, -30.0, 1.5]], dtype=torch.float64)
    count = 20_000
    noise = np.concatenate([noise_of(seed, 200) for seed in range(count // 200)])
    (decision,) = decide(logits.expand(1, count, 7), [], [], 2.0, noise[None])
    share = np.bincount(decision.action, minlength=7) / count
    p = torch.softmax(logits[0], dim=0).numpy()
    assert (np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / count) + 1e-12).all()


def test_neither_environments_nor_other_policies_change_what_is_drawn(batch):
    agents = blur(batch, 3)
    alone = [evaluate(*agent, TASK, SEEDS, max_steps=70, num_envs=1, actions="sample") for agent in agents]
    for num_envs in (3, 16):
        settings = PlaySettings(num_envs=num_envs, max_steps=70, actions="sample")
        for one, other in zip(alone, evaluate_many(agents, TASK, SEEDS, settings), strict=True):
            assert_identical(one, other)
    assert len({one.routing.action.tobytes() for one in alone}) == 3
    greedy = evaluate(*agents[0], TASK, SEEDS, max_steps=70)
    assert (greedy.routing.action == greedy.routing.action_logits.argmax(axis=1)).all()
    assert (alone[0].routing.action != alone[0].routing.action_logits.argmax(axis=1)).any()


def test_each_action_is_the_best_with_that_level_s_noise(batch):
    drawn = evaluate(*agent_of(batch), TASK, SEEDS, max_steps=70, num_envs=5, actions="sample")
    table, seeds = drawn.routing, drawn.episodes.level_seed
    assert drawn.episodes.steps.max() > 32  # more than a block of noise
    noise = {seed: noise_of(int(seed), 70) for seed in seeds}
    added = np.stack([noise[seeds[e]][t] for e, t in zip(table.episode, table.t_step, strict=True)])
    best = table.action_logits.astype(np.float64) + added
    clear = np.diff(np.sort(best, axis=1)[:, -2:], axis=1)[:, 0] > 1e-5  # logits are kept as float32
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(table.action[clear], best.argmax(axis=1)[clear])


def test_agreement_and_success_are_of_the_actions_taken(batch):
    drawn = evaluate(*agent_of(batch), TASK, SEEDS, max_steps=70, actions="sample")
    table = drawn.routing
    labelled = table.expert_action >= 0
    agreed = (table.action == table.expert_action)[labelled].mean()
    assert drawn.metrics["agreement"] == pytest.approx(agreed)
    assert agreed != (table.action_logits.argmax(axis=1) == table.expert_action)[labelled].mean()


def test_another_way_of_choosing_is_refused(batch):
    with pytest.raises(ValueError, match="actions: expected greedy or sample, found 'best'"):
        evaluate(*agent_of(batch), TASK, SEEDS, actions="best")


def test_the_sham_of_a_grid_draws_the_same(batch):
    agents = blur(batch, 2)
    shams = [Intervention(name="one"), Intervention(name="other")]
    played = evaluate_grid(agents, shams, TASK, SEEDS, DRAWN)
    for found, intact in zip(played, evaluate_many(agents, TASK, SEEDS, DRAWN), strict=True):
        for sham in found:
            assert_identical(sham, intact)
