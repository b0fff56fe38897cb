"""Settings of one policy on many levels: what is accepted, what is refused and how, and the shares of the steps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import LATER_FIELDS, TrainConfig, resolved_yaml
from pipeline.mixtures import count_slots, parse_task_ids, parse_weights, short_level

TWO = {"task_id": ["GoToObj", "PickupLoc"], "mixture": "verbs2"}


def parse(*argv: str) -> TrainConfig:
    return parse_command("", TrainConfig, list(argv))[0]


def message_of(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ spellings


@pytest.mark.parametrize("text", ["[GoToObj, PickupLoc]", "GoToObj,PickupLoc", "[GoToObj,PickupLoc]"])
def test_flags_name_levels_and_weights(text):
    config = parse("--task_id", text, "--mixture", "verbs2", "--task_weights", "1, 3", "--task_input", "onehot")
    assert config.task_id == config.levels == ["GoToObj", "PickupLoc"]
    assert config.task_weights == [1.0, 3.0]
    assert config.run_name == "verbs2"
    assert config.policy_input_dim == 154


def test_yaml_names_levels_and_flags_win(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("task_id: [GoToObj, PickupLoc]\ntask_weights: [1, 1]\nmixture: verbs2\n")
    assert parse("--config", str(path)).task_weights == [1.0, 1.0]
    single = parse("--config", str(path), *"--task_id GoTo --mixture null --task_weights null".split())
    assert (single.task_id, single.levels, single.run_name) == ("GoTo", ["GoTo"], "GoTo")
    path.write_text(resolved_yaml(TrainConfig(**TWO, task_weights=[2, 1])))
    assert parse("--config", str(path)) == TrainConfig(**TWO, task_weights=[2, 1])


def test_a_list_of_one_is_the_single_level():
    assert TrainConfig(task_id=["GoToObj"], task_weights=[3]) == TrainConfig(task_id="GoToObj")
    named = TrainConfig(task_id=["GoToObj"], mixture="one")
    assert (named.levels, named.run_name) == (["GoToObj"], "one")


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--task_id", "GoToObj,PickupLoc"], "mixture: expected a name for these 2 levels"),
        (["--mixture", "verbs2"], "mixture: expected a list of levels in task_id with it, found 'BabyAI-GoToObj-v0'"),
        (["--task_weights", "1,2"], "task_weights: expected a list of levels in task_id with it"),
        (["--task_id", "A,B,A", "--mixture", "m"], "task_id: expected distinct levels, found A 2 times"),
        (["--task_id", "[]"], "task_id: expected a level, or a list such as [GoToObj, PickupLoc]"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "1,2,3"], "task_weights: expected 2, one for each"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "1,0"], "task_weights: expected a number"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "1,-2"], "task_weights: expected a number"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "nan,1"], "task_weights: expected a number"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "1e308,1e308"], "task_weights: expected a number"),
        (["--task_id", "A,B", "--mixture", "m", "--task_weights", "a,b"], "task_weights: expected a number"),
        (
            ["--task_id", "A,B", "--mixture", "m", "--task_weights", "[true, 1]"],
            "task_weights: expected a number from 1e-6",
        ),
        (
            ["--task_id", "A,B", "--mixture", "m", "--num_envs", "1"],
            "num_envs: expected at least 2, one for each level",
        ),
        *((["--task_id", "A,B", "--mixture", name], "mixture: expected a letter") for name in ("", "../x", "BabyAI-x")),
        *(
            (["--task_id", "A,B", "--mixture", name], "mixture: expected a letter")
            for name in ("trial_1", "1st", "a/b")
        ),
        (["--task_input", "twohot"], "task_input: expected one of none, onehot"),
    ],
)
def test_what_does_not_fit_is_told_once(argv, expected):
    message = message_of(*argv)
    assert message.startswith(expected)
    assert "found" in message


def test_later_fields_change_no_older_identity():
    """Digests of studies are made of it; two runs are compared by all fields."""
    single = TrainConfig()
    later = {"task_weights": None, "mixture": None, "task_input": "none", "obs_encoding": "raw"}
    later["mission_fusion"] = "concat"
    assert LATER_FIELDS == {**later, "start_from": None, "train_only": None, "solo_env_share": 0.0}
    assert not LATER_FIELDS.keys() & single.identity().keys()
    assert single.full_identity() == {**LATER_FIELDS, **single.identity()}
    mixture = TrainConfig(**TWO, task_input="onehot", obs_encoding="onehot")
    unset = {"task_weights", "start_from", "train_only", "solo_env_share", "mission_fusion"}
    assert mixture.identity() == {k: v for k, v in mixture.full_identity().items() if k not in unset}
    assert replace(mixture, train_only=["head"]).identity()["train_only"] == ["head"]
    assert replace(mixture, task_input="none").full_identity() != mixture.full_identity()


# --------------------------------------------------------------------------------------------------------------- shares


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20),
    more=st.integers(0, 200),
)
def test_every_level_has_a_slot_and_large_ones_what_they_are_due(weights, more):
    num_envs = len(weights) + more
    slots = count_slots(weights, num_envs)
    assert sum(slots) == num_envs
    assert min(slots) >= 1
    assert all(a <= b for a, x in zip(slots, weights, strict=True) for b, y in zip(slots, weights, strict=True)
               if x < y)  # fmt: skip
    for count, weight in zip(slots, weights, strict=True):
        assert count <= max(1, -(-num_envs * weight // sum(weights)) + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("weights", "num_envs", "slots"),
    [
        ([1, 1, 2], 16, [4, 4, 8]),
        ([1, 1, 1], 16, [6, 5, 5]),
        ([1, 2], 10, [3, 7]),
        ([1, 1000], 4, [1, 3]),
        ([0.1, 0.1, 5, 5], 5, [1, 1, 2, 1]),
        ([5], 3, [3]),
    ],
)
def test_shares_by_hand(weights, num_envs, slots):
    assert count_slots(weights, num_envs) == slots


def test_fewer_environments_than_levels_cannot_be_shared():
    with pytest.raises(ValueError, match="at least 2"):
        count_slots([1, 1], 1)


def test_names_and_weights_are_copies():
    mine, heavy = ["A", "B"], [1.0, 2.0]
    parse_task_ids(mine).append("C")
    parse_weights(heavy).append(3.0)
    assert (mine, heavy) == (["A", "B"], [1.0, 2.0])


@pytest.mark.parametrize(("task", "name"), [("BabyAI-GoToObj-v0", "GoToObj"), ("BabyAI-GoToObjS6-v1", "GoToObjS6-v1")])
def test_short_names_tell_levels_apart(task, name):
    assert short_level(task) == name
