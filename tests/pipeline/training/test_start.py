"""Runs that start from another's weights, and runs that train a part of them: what moves, what stays, what is told."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints import load_policy, read_checkpoint, save_checkpoint
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.engine.torch_engine import TorchEngine
from pipeline.parts import PARTS, fill_start, parse_parts, part_of
from pipeline.policies import build_policy
from pipeline.training import driver
from pipeline.training.batch import ReplicaBatch
from pipeline.training.loop import run_update
from pipeline.training.plan import PlannedRun
from pipeline.training.start import check_fit
from tests.pipeline.training.test_training import (
    BASELINE,
    EVERYTHING_ON,
    PLAIN,
    assert_bit_equal,
    assert_same,
    debug_config,
    train,
    weights,
)
from tests.training_runs import RUN, TASK, files, final

ENCODED = {**EVERYTHING_ON, "obs_encoding": "embedding"}
KINDS = pytest.mark.parametrize("changes", [PLAIN, ENCODED, BASELINE], ids=["moe", "mop, embedding", "gru"])


def parts_of(config: TrainConfig) -> list[str]:
    """Return the parts that a run trains."""
    names = [name for name, _ in build_policy(config).named_parameters()]
    return sorted({part_of(name) for name in names} | ({"mission"} if config.train_lang_proj else set()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder of checkpoints of two seeds, trained for three updates on another level than the runs to come."""
    folder = tmp_path_factory.mktemp("trained")
    for seed in (0, 1):
        batch = train(debug_config(**PLAIN, seed=seed, task_id="BabyAI-OpenDoor-v0"), 3)
        batch.save(0, folder / f"seed_{seed}.pt")
    return folder


# ------------------------------------------------------------------------------------------------------------- freezing


@KINDS
def test_what_is_not_trained_keeps_its_bits_and_no_moments(changes):
    """Of each part by itself: it moves, everything else stays as it was drawn, and Adam has nothing of it."""
    for part in parts_of(debug_config(**changes)):
        config = debug_config(**changes, train_only=[part])
        before = {name: value.clone() for name, value in weights(train(config, 0)).items()}
        batch = train(config, 3)
        after = weights(batch)
        moved = {part_of(name) for name in after if not torch.equal(after[name], before[name])}
        assert moved == {part}
        state = batch.weights.optimizer_state(0)["state"]
        names = [name for name, _ in batch.policies[0].named_parameters()]
        names += [f"lang_proj.{name}" for name, _ in batch.projections[0].named_parameters()]
        for number, name in enumerate(names[: len(state)]):
            untouched = not state[number]["exp_avg"].any() and not state[number]["exp_avg_sq"].any()
            assert untouched or part_of(name) == part, name


def test_all_parts_are_everything():
    config = debug_config(**ENCODED)
    assert_bit_equal(weights(train(config, 4)), weights(train(debug_config(**ENCODED, train_only=parts_of(config)), 4)))


def test_both_engines_freeze_the_same():
    config = debug_config(**ENCODED, train_only=["router"])
    batch = ReplicaBatch([config], announce=lambda line: None, engine=TorchEngine)
    for _ in range(3):
        run_update(batch)
    ours, theirs = weights(batch), weights(train(config, 3))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
        assert part_of(name) == "router" or torch.equal(value, theirs[name])


def test_norms_are_of_what_is_trained():
    """Clipping looks at nothing else: an update of the head alone is the same whatever the rest's gradient is."""
    batch = train(debug_config(**PLAIN, train_only=["head"]), 0)
    batch.weights.gradient.fill_(7.0)
    names = dict(batch.policies[0].named_parameters())
    batch.weights.gradient[0, 0] = float("nan")  # of a weight that is frozen
    batch.weights.fold_gradient()
    trained = sum(parameter.numel() for name, parameter in names.items() if part_of(name) == "head")
    np.testing.assert_allclose(batch.weights.norms().tolist(), 7.0 * trained**0.5, rtol=1e-5)


def test_parts_can_differ_between_runs_trained_together(trained):
    """Each ends with the bits it has alone, start, part and price of its own."""
    start = str(trained / "seed_{seed}.pt")
    settings = [
        debug_config(**PLAIN, trial=1, seed=1, start_from=start, train_only=["router"]),
        debug_config(**PLAIN, trial=2, seed=0, start_from=start, train_only=["head", "experts"]),
        debug_config(**PLAIN, trial=3, seed=0, start_from=start),
        debug_config(**PLAIN, trial=4, seed=0, lpc_alpha=0.5),
    ]
    batch = ReplicaBatch(settings, announce=lambda line: None)
    for _ in range(3):
        run_update(batch)
    for replica, config in enumerate(settings):
        assert_bit_equal(batch.policies[replica].state_dict(), train(config, 3).policies[0].state_dict())


# ------------------------------------------------------------------------------------------------------------- starting


def test_a_run_begins_with_the_weights_and_nothing_else_of_a_checkpoint(trained):
    config = debug_config(**PLAIN, seed=1, start_from=str(trained / "seed_{seed}.pt"))
    batch, start = train(config, 0), load_policy(trained / "seed_1.pt")
    assert_bit_equal(batch.policies[0].state_dict(), start.policy.state_dict())
    assert_bit_equal(batch.projections[0].state_dict(), start.projection.state_dict())
    fresh = train(debug_config(**PLAIN, seed=1), 0)
    assert batch.envs[0].state_dict() == fresh.envs[0].state_dict()
    assert batch.weights.optimizer_state(0)["state"] == {}
    assert batch.update == 0
    content = batch.content(0)
    path = str(trained / "seed_1.pt")
    assert content["started_from"] == {"path": path, "weights": start.digest, "update": 3}
    assert "started_from" not in fresh.content(0)


def test_starting_from_a_run_before_its_first_update_is_that_run(tmp_path):
    config = debug_config(**EVERYTHING_ON)
    train(config, 0).save(0, tmp_path / "begin.pt")
    again = debug_config(**EVERYTHING_ON, start_from=str(tmp_path / "begin.pt"))
    assert_bit_equal(weights(train(config, 4)), weights(train(again, 4)))


def test_resuming_is_exact_and_needs_the_start_no_more(trained, tmp_path):
    (tmp_path / "start.pt").write_bytes((trained / "seed_0.pt").read_bytes())
    config = debug_config(**PLAIN, start_from=str(tmp_path / "start.pt"), train_only=["experts"])
    whole, half = train(config, 6), train(config, 3)
    half.save(0, tmp_path / "half.pt")
    (tmp_path / "start.pt").unlink()
    resumed = train(config, 6, resume=read_checkpoint(tmp_path / "half.pt"))
    ours, theirs = whole.content(0), resumed.content(0)
    for content in (ours, theirs):
        content["resume"].pop("seconds")
    assert_same(ours, theirs)


def test_the_command_starts_resumes_and_keeps_its_settings(call):
    """A sweep, each seed from its own checkpoint; resumed, then asked for with another part."""
    assert call("--seeds", "0,1")[0] == 0
    start = f"checkpoints/{TASK}/trial_1/seed_{{seed}}/checkpoint_final.pt"
    more = ("--trial", "2", "--seeds", "0,1", "--start_from", start, "--train_only", "head")
    assert call(*more)[0] == 0
    for seed in (0, 1):
        before, after = final(Path(f"trial_1/seed_{seed}")), final(Path(f"trial_2/seed_{seed}"))
        assert after["config"]["start_from"] == start
        assert after["config"]["train_only"] == ["head"]
        assert after["started_from"]["path"] == start.replace("{seed}", str(seed))
        assert after["started_from"]["weights"] == before["digests"]["weights"]
        same = {n: torch.equal(v, after["policy_state_dict"][n]) for n, v in before["policy_state_dict"].items()}
        assert {n for n, equal in same.items() if not equal} == {"head.weight", "head.bias"}
    assert call(*more, "--resume", "--num_updates", "8")[0] == 0
    code, _, err = call(*more[:-1], "router", "--resume")
    assert code == 2
    assert "train_only" in err


def test_the_start_travels_with_a_run_that_is_trained_elsewhere():
    """Machines that share no files get what a run reads; two runs that start from one file get it once."""
    settings = [debug_config(seed=seed, start_from="a/b.pt") for seed in (0, 1)]
    runs = [PlannedRun(config, Path(f"c/{config.seed}"), Path(f"l/{config.seed}")) for config in settings]
    item = driver._describe_work("name", driver.train_group, runs)
    assert item.inputs == (Path("c/0"), Path("l/0"), Path("c/1"), Path("l/1"), Path("a/b.pt"))
    assert Path("a/b.pt") not in item.outputs


# ------------------------------------------------------------------------------------------------------------ bad input


def test_bad_values_are_named():
    for value, expected in (
        ("rooter", "did you mean router?"),
        ("", "expected one of input, router"),
        ([], "expected some of input, router"),
        ("head,head", "found head twice"),
        ([3], "expected some of input"),
    ):
        with pytest.raises(ConfigError, match="train_only: ") as caught:
            parse_parts(value)
        assert expected in str(caught.value)
    for changes, expected in (
        ({"policy": "gru", "train_only": ["router"]}, "GRU reads itself, has gru, head; found 'router'"),
        ({"policy": "gru", "train_only": ["input"]}, "GRU reads itself, has gru, head; found 'input'"),
        (
            {"policy": "gru", "train_only": ["norms"], "obs_encoding": "onehot"},
            "policy gru has input, gru, head; found",
        ),
        ({"policy": "moe", "train_only": ["norms"]}, "policy moe has input, router, experts, head; found 'norms'"),
        ({"train_only": ["mission"]}, "train_lang_proj: true"),
        ({"start_from": "a/{trial}.pt"}, "found 'a/{trial}.pt'"),
        ({"start_from": ""}, "expected the path of a checkpoint"),
    ):
        with pytest.raises(ConfigError) as caught:
            TrainConfig(**changes)
        assert expected in str(caught.value)
    assert TrainConfig(policy="gru", train_only=["input"], obs_encoding="onehot").train_only == ["input"]
    assert parse_parts("head, router") == ["router", "head"]
    assert parse_parts("null") is None
    assert fill_start("a/seed_{seed}/b.pt", 12) == Path("a/seed_12/b.pt")
    with pytest.raises(ValueError, match=r"other\.weight"):
        part_of("other.weight")
    kinds = (PLAIN, EVERYTHING_ON, BASELINE)
    assert set(PARTS) == {part for changes in kinds for part in parts_of(debug_config(**changes))}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--start_from", "missing.pt", "--trial", "3"], "start_from: missing.pt: cannot be read"),
        (["--start_from", f"checkpoints/{TASK}/{RUN}/checkpoint_final.pt", "--overwrite"], "choose another --trial"),
        (
            [
                "--start_from",
                f"checkpoints/{TASK}/{RUN}/checkpoint_final.pt",
                "--trial",
                "3",
                "--intermediate_dim",
                "8",
            ],
            "intermediate_dim 8, there 32",
        ),
        (
            ["--start_from", f"checkpoints/{TASK}/{RUN}/checkpoint_final.pt", "--trial", "3", "--policy", "mop"],
            "policy 'mop', there 'moe'",
        ),
        (
            [
                "--start_from",
                f"checkpoints/{TASK}/{RUN}/checkpoint_final.pt",
                "--trial",
                "3",
                "--mission_fusion",
                "film",
            ],
            "mission_fusion 'film', there 'concat'",
        ),
    ],
)
def test_a_start_that_cannot_be_is_told_and_nothing_is_lost(flags, expected, call):
    assert call()[0] == 0
    before = files()
    code, _, err = call(*flags)
    assert code == 2, err
    assert expected in err
    assert files() == before


def test_every_start_is_tried_before_anything_is_deleted(call):
    """Each run has a start of its own: that the first group could begin says nothing of the second."""
    begin = ("--trial", "2", "--seeds", "0,1", "--max_replicas", "1", "--start_from", "seed_{seed}.pt", "--overwrite")
    assert call()[0] == 0
    assert call("--trial", "2", "--seeds", "0,1")[0] == 0
    shutil.copy(Path("checkpoints") / TASK / RUN / "checkpoint_final.pt", "seed_0.pt")
    for change, expected in (
        ({}, "seed_1.pt: cannot be read"),
        ({"intermediate_dim": 8}, "intermediate_dim 32, there 8"),
    ):
        if change:
            train(debug_config(**change), 0).save(0, Path("seed_1.pt"))
        before = files()
        code, _, err = call(*begin)
        assert code == 2 and expected in err, err
        assert files() == before
    shutil.copy("seed_0.pt", "seed_1.pt")
    assert call(*begin)[0] == 0
    assert final(Path("trial_2/seed_1"))["started_from"]["path"] == "seed_1.pt"


def test_starts_of_several_encoders_are_told(trained, tmp_path):
    content = read_checkpoint(trained / "seed_1.pt")
    other = {**content["lang_encoder"], "name": "another", "fingerprint": "0" * 64}
    kept = {name: value for name, value in content.items() if name not in ("digests", "schema_version")}
    save_checkpoint(tmp_path / "seed_1.pt", {**kept, "lang_encoder": other})
    shutil.copy(trained / "seed_0.pt", tmp_path / "seed_0.pt")
    settings = [debug_config(**PLAIN, seed=seed, start_from=str(tmp_path / "seed_{seed}.pt")) for seed in (0, 1)]
    check_fit(settings[:1])
    with pytest.raises(ConfigError, match=r"found builtin and, in .*seed_1\.pt, another"):
        check_fit(settings)


def test_a_start_that_was_told_of_other_levels_is_refused(tmp_path):
    """The weights fit, as there are as many levels; what they say of the first level would now be of another."""
    told = {**PLAIN, "mixture": "two", "task_input": "onehot"}
    train(debug_config(**told, task_id=["BabyAI-GoToObjS4-v0", "BabyAI-OpenDoor-v0"]), 0).save(0, tmp_path / "a.pt")
    other = debug_config(**told, task_id=["OpenDoor", "GoToObjS4"], start_from=str(tmp_path / "a.pt"))
    words = "levels BabyAI-OpenDoor-v0, BabyAI-GoToObjS4-v0 .* found one of BabyAI-GoToObjS4-v0, BabyAI-OpenDoor-v0"
    for begin in (lambda: train(other, 0), lambda: check_fit([other])):
        with pytest.raises(ConfigError, match=words):
            begin()
    check_fit([replace(other, task_id=["GoToObjS4", "OpenDoor"])])


def test_a_run_goes_on_where_its_start_is_called_otherwise(call):
    """By another path, with the same weights; not with others, nor where they cannot be looked at."""
    assert call("--seeds", "0,1")[0] == 0
    start = f"checkpoints/{TASK}/trial_1/seed_{{seed}}/checkpoint_final.pt"
    more = ("--trial", "2", "--resume", "--num_updates")
    assert call(*more, "4", "--seeds", "0,1", "--start_from", start)[0] == 0
    whole = Path(start).absolute()
    assert call(*more, "6", "--seed", "0", "--start_from", str(whole))[0] == 0  # beside seed 1, spelled as before
    run = Path("trial_2/seed_0")
    assert (final(run)["update"], final(run)["config"]["start_from"]) == (6, str(whole))
    settings = Path("runs") / TASK / run / "config.yaml"
    shutil.copy(Path("runs") / TASK / "trial_2/seed_1/config.yaml", settings)  # stopped before its first checkpoint
    settings.write_text(settings.read_text().replace("seed: 1", "seed: 0"))
    assert call(*more, "8", "--seed", "0", "--start_from", start)[0] == 0
    for other in (f"checkpoints/{TASK}/trial_1/seed_1/checkpoint_final.pt", "missing.pt"):
        code, _, err = call(*more, "9", "--seed", "0", "--start_from", other)
        assert code == 2 and "start_from is" in err, err


def test_a_link_to_a_start_is_not_deleted_with_what_is_overwritten(call):
    """It lies in a folder of the call itself; where it leads does not."""
    assert call()[0] == 0
    shutil.copy(Path("checkpoints") / TASK / RUN / "checkpoint_final.pt", "elsewhere.pt")
    link = Path("checkpoints") / TASK / "trial_2/seed_0/checkpoint_000001.pt"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("elsewhere.pt").absolute())
    code, _, err = call("--trial", "2", "--start_from", str(link), "--overwrite")
    assert code == 2 and "in a folder of this call's own runs" in err, err
    assert link.is_symlink()
