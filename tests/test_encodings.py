"""What policies make of the codes in an observation: numbers, one-hot vectors, embedded ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from babyai.level_seeds import SeedList
from babyai.observations import OBSERVATION_DIM, encode_observations
from babyai.vector_env import VectorEnv
from mixture_of_experts import (
    CODE_COUNTS,
    ENCODINGS,
    NUM_CODES,
    MixtureOfExpertsPolicy,
    ObservationEncoder,
    encode_one_hot,
    widen_embedding,
)
from pipeline.baseline import GRUPolicy
from pipeline.checkpoints import CheckpointError, load_policy, read_header, save_checkpoint
from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.engine.packed import pack_replicas
from pipeline.policies import build_policy
from stateful_mop import MoPConfig, StatefulMoPPolicy, create_babyai_mop_config
from tests.checkpoints import SMALL, logits_of, make_content
from tests.policies import draw_codes

WIDE = {**SMALL, "input_dim": OBSERVATION_DIM}
OBJECT, COLOUR, STATE = 0, 49, 98  # where codes of a channel begin in an observation


def test_vocabularies_are_minigrid_s():
    assert CODE_COUNTS == tuple(max(table.values()) + 1 for table in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX))
    assert NUM_CODES == 147


@pytest.mark.parametrize("task_id", ["UnlockPickup", "BossLevel", "PutNextLocal", "KeyInBox"])
def test_all_that_a_level_shows_has_its_one_hot_vector(task_id):
    env = VectorEnv(task_id, 4, SeedList(range(40)))
    step = env.reset()
    for _ in range(60):
        obs = torch.from_numpy(encode_observations(step.view, step.direction, step.carrying))
        assert torch.equal(encode_one_hot(obs)[:, :980].view(4, 49, 20).sum(-1), torch.full((4, 49), 3.0))
        step = env.step(step.expert_action)


def test_one_hot_vectors_by_hand():
    obs = torch.zeros(2, 152)
    obs[0, [OBJECT + 3, COLOUR + 3, STATE + 3]] = torch.tensor([4.0, 2.0, 1.0])  # in cell 3 a blue door, closed
    obs[0, 147:] = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
    wide = encode_one_hot(obs)
    assert wide.shape == (2, 985)
    cells = wide[:, :980].view(2, 49, 20)
    places = [(cell, column) for _, cell, column in cells[:1].nonzero().tolist()]
    unseen = [(cell, column) for cell in range(49) if cell != 3 for column in (0, 11, 17)]
    assert sorted(places) == sorted([*unseen, (3, 4), (3, 11 + 2), (3, 17 + 1)])
    assert torch.equal(wide[:, 980:], obs[:, 147:])


def test_an_embedded_cell_is_the_sum_of_its_codes_vectors():
    encoder = ObservationEncoder("embedding", embedding_dim=2)
    assert encoder.width(152) == 49 * 2 + 5
    with torch.no_grad():
        encoder.table.copy_(torch.arange(40.0).view(20, 2))
    obs = torch.zeros(1, 152)
    obs[0, [OBJECT + 48, COLOUR + 48, STATE + 48]] = torch.tensor([5.0, 4.0, 2.0])  # in the last cell a yellow key
    found = encoder(obs)[0]
    assert found[:2].tolist() == [0 + 22 + 34, 1 + 23 + 35]  # unseen: rows 0, 11 and 17 of the table
    assert found[96:98].tolist() == [10 + 30 + 38, 11 + 31 + 39]  # rows 5, 15 and 19
    assert torch.equal(found[98:], obs[0, 147:])


@pytest.mark.parametrize("bad", [-1.0, 0.5, 10.5, 99.0, float("nan"), float("inf")])
@pytest.mark.parametrize("encoding", ["onehot", "embedding"])
def test_a_code_that_no_vocabulary_has_stands_for_nothing(encoding, bad):
    torch.manual_seed(0)
    encoder = ObservationEncoder(encoding)
    obs = torch.zeros(1, 152)
    obs[0, COLOUR + 7] = bad
    without = torch.zeros(20)
    without[[0, 17]] = 1.0
    width = 20 if encoding == "onehot" else 16
    wanted = without if encoding == "onehot" else without @ encoder.table
    torch.testing.assert_close(encoder(obs)[0, 7 * width : 8 * width], wanted)
    assert encoder(obs).isfinite().all()


def test_a_code_of_another_vocabulary_is_none_of_this_one():
    obs = torch.zeros(1, 152)
    obs[0, STATE] = 3.0  # a colour or an object, no state
    assert encode_one_hot(obs)[0, :20].nonzero().flatten().tolist() == [0, 11]


def test_embedding_and_linear_map_are_one_map_of_one_hot_vectors():
    generator = torch.Generator().manual_seed(0)
    encoder = ObservationEncoder("embedding").double()
    weight = torch.randn(6, encoder.width(152) + 4, generator=generator, dtype=torch.float64)
    obs, mission = draw_codes(5, generator=generator).double(), torch.randn(5, 4, generator=generator).double()
    wide = widen_embedding(encoder.table, weight)
    assert wide.shape == (6, 980 + 5 + 4)
    two = torch.cat([encoder(obs), mission], -1) @ weight.T
    torch.testing.assert_close(torch.cat([encode_one_hot(obs), mission], -1) @ wide.T, two)


# ------------------------------------------------------------------------------------------------------------ policies


def test_names_of_weights_in_each_encoding():
    added = {"raw": set(), "onehot": set(), "embedding": {"encoder.table"}}
    for kind, projected in (
        ("moe", set()),
        ("mop", set()),
        ("gru", {"input_projection.weight", "input_projection.bias"}),
    ):
        names = {
            encoding: set(build_policy(TrainConfig(policy=kind, obs_encoding=encoding)).state_dict())
            for encoding in ENCODINGS
        }
        for encoding in ENCODINGS:
            assert names[encoding] - names["raw"] == added[encoding] | (set() if encoding == "raw" else projected)
            assert names["raw"] <= names[encoding]


def test_the_policies_read_the_same_observations_whatever_they_make_of_them():
    generator = torch.Generator().manual_seed(0)
    obs, mission = draw_codes(3, generator=generator), torch.randn(3, 32, generator=generator)
    for encoding in ENCODINGS:
        moe = MixtureOfExpertsPolicy(152, 8, [[0, 4]], 4, 7, obs_encoding=encoding)
        mop = StatefulMoPPolicy(create_babyai_mop_config(184, 7, 8, 4, [[0, 4]], obs_encoding=encoding))
        gru = GRUPolicy(152, 8, 7, obs_encoding=encoding)
        assert moe(obs, mission, moe.init_hidden(3))[0].shape == (3, 7)
        assert mop(obs, mission, mop.init_hidden_states(3))[0].shape == (3, 7)
        assert gru(obs, mission, gru.init_hidden(3))[0].shape == (3, 7)


def test_one_hot_policy_is_a_sum_of_rows():
    policy = MixtureOfExpertsPolicy(152, 8, [[0]], 4, 7, obs_encoding="onehot")
    generator = torch.Generator().manual_seed(0)
    obs, mission = draw_codes(1, generator=generator), torch.randn(1, 32, generator=generator)
    weight, codes = policy.input_projection.weight, obs[0, :147].view(3, 49).long().tolist()
    features = policy.input_projection.bias + weight[:, 980:] @ torch.cat([obs[0, 147:], mission[0]])
    for cell in range(49):
        for channel, before in enumerate((0, 11, 17)):
            features = features + weight[:, 20 * cell + before + codes[channel][cell]]
    torch.testing.assert_close(policy(obs, mission, policy.init_hidden(1))[0][0], policy.head(features))


# ----------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_encoding_is_refused():
    message = "obs_encoding: expected raw, onehot, embedding, found 'binary'"
    for build in (
        lambda: ObservationEncoder("binary"),
        lambda: MixtureOfExpertsPolicy(152, 8, [[0, 4]], 4, 7, obs_encoding="binary"),
        lambda: MoPConfig(184, 7, 8, 4, obs_encoding="binary"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(ConfigError, match=r"obs_encoding.*'binary'"):
        parse_command("", TrainConfig, ["--obs_encoding", "binary"])


def test_an_observation_without_room_for_the_codes_is_refused():
    with pytest.raises(ValueError, match="input_dim: expected at least 147, the codes that obs_encoding onehot reads"):
        MixtureOfExpertsPolicy(9, 8, [[0, 4]], 4, 7, obs_encoding="onehot")


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("policy", ["moe", "mop", "gru"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_loaded_policy_sees_what_the_saved_one_saw(tmp_path, policy, encoding):
    config = TrainConfig(**WIDE, policy=policy, obs_encoding=encoding, seed=3)
    save_checkpoint(tmp_path / "a.pt", make_content(config))
    loaded = load_policy(tmp_path / "a.pt")
    assert loaded.config.obs_encoding == encoding
    assert torch.equal(logits_of(loaded.policy, 152), logits_of(build_policy(config), 152))


@pytest.mark.parametrize("policy", ["moe", "mop", "gru"])
def test_a_checkpoint_of_one_encoding_is_none_of_another(tmp_path, policy):
    config = TrainConfig(**WIDE, policy=policy)
    for saved in ENCODINGS:
        for said in set(ENCODINGS) - {saved}:
            content = make_content(replace(config, obs_encoding=saved))
            content["config"]["obs_encoding"] = said
            save_checkpoint(tmp_path / "a.pt", content)
            with pytest.raises(CheckpointError, match=r"a\.pt: its parts do not fit together"):
                load_policy(tmp_path / "a.pt")


def test_a_checkpoint_that_says_nothing_of_encodings_sees_raw_codes(tmp_path):
    config = TrainConfig(**WIDE)
    content = make_content(config)
    del content["config"]["obs_encoding"]
    save_checkpoint(tmp_path / "a.pt", content)
    assert read_header(tmp_path / "a.pt").config["obs_encoding"] == "raw"
    assert load_policy(tmp_path / "a.pt").config == config


def test_policies_of_different_encodings_are_not_packed_together():
    with pytest.raises(ValueError, match="one architecture"):
        pack_replicas([build_policy(TrainConfig(obs_encoding=encoding)) for encoding in ("raw", "onehot")])


def test_packed_policies_answer_broken_codes_with_numbers():
    obs = np.full((1, 1, 1, 152), np.nan, np.float32)
    obs[..., 147:] = 0
    packed = pack_replicas([build_policy(TrainConfig(obs_encoding="onehot"))])
    start = torch.ones(1, 1, 1, dtype=torch.bool)
    out = packed.sequence(torch.from_numpy(obs), torch.zeros(1, 1, 1, 32), packed.init_hidden(1), start)
    assert out.logits.isfinite().all()
