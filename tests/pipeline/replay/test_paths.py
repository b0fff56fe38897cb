"""Every single path, forced for one step."""

import numpy as np
import pytest
import torch

from babyai.facts import NUM_ACTIONS
from babyai.missions import build_mission_encoder
from babyai.observations import OBSERVATION_DIM
from pipeline.command.errors import ConfigError
from pipeline.interventions.places import Where
from pipeline.interventions.spec import Intervention
from pipeline.replay.paths import MAX_PATHS, cost_paths, force_paths, list_paths
from pipeline.replay.run import intervene, replay
from pipeline.replay.trajectories import follow_expert
from tests.policies import Widths, build_small_policy

SIZES = [[0, 3, 6], [2, 0]]


@pytest.fixture(scope="module")
def way():
    return follow_expert("BabyAI-UnlockPickup-v0", range(4))


def replay_small(way, kind: str, *, bank: bool = True):
    widths = Widths(OBSERVATION_DIM, 5, 8, 6, NUM_ACTIONS)
    encoder = build_mission_encoder("builtin")
    agents = [
        (build_small_policy(kind, SIZES, widths, seed), encoder, torch.nn.Linear(encoder.width, 5)) for seed in range(2)
    ]
    return replay(agents, way, bank=bank, rows=16)


@pytest.mark.parametrize("kind", ["moe", "mop"])
def test_forced_paths_are_the_one_step_clamps_to_one_hot_bit_for_bit(way, kind):
    intact = replay_small(way, kind)
    forced = force_paths(intact)
    items = [
        Intervention(what="clamp", to="one_hot", where=Where(experts=tuple(enumerate(map(int, path)))))
        for path in forced.paths
    ]
    effects = intervene(intact, items, one_step=True, keep_logits=True)
    assert forced.paths.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    np.testing.assert_array_equal(forced.ce, effects.ce.numpy())
    np.testing.assert_array_equal(forced.action, effects.logits.argmax(dim=-1).numpy())
    np.testing.assert_allclose(effects.lpc.numpy(), np.broadcast_to(forced.cost[:, None], effects.lpc.shape))


def test_what_a_path_costs():
    paths = list_paths(SIZES)
    assert cost_paths(paths, SIZES).tolist() == [4, 0, 13, 9, 40, 36]
    assert cost_paths(paths, SIZES, 1.0).tolist() == [2, 0, 5, 3, 8, 6]
    assert cost_paths(paths, SIZES, 0.0).tolist() == [1, 0, 2, 1, 2, 1]  # a skip is free at any exponent


def test_too_many_paths_are_refused_with_what_to_do():
    assert len(list_paths([[0, 1, 2]] * 5)) == MAX_PATHS
    with pytest.raises(ConfigError, match=r"expected 1 to 243, .*found 729, of 6 layers; .*without needed"):
        list_paths([[0, 1, 2]] * 6)
    with pytest.raises(ConfigError, match="a policy without routers"):
        list_paths([])


def test_a_bank_is_needed(way):
    with pytest.raises(ValueError, match="bank=True"):
        force_paths(replay_small(way, "mop", bank=False))
