"""eval_mop.py: one checkpoint, its options, and the flags of both commands."""

import json
from pathlib import Path

import pytest

import batch_eval
import eval_mop
from pipeline.records.cache import read_cache
from pipeline.records.results import plain_rows, read_results
from tests.batches import BASELINE, FEW, MOE, RESULTS, TASK, path_of
from tests.mission_models import save_tiny_distilbert
from tests.pipeline.training.test_training import debug_config, train


def test_one_checkpoint_to_json_and_routing(place, capsys):
    flags = ["--checkpoint", path_of(MOE), *FEW]
    assert eval_mop.main([*flags, "--json", "out/metrics.json", "--routing", "out/routing.json"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads(Path("out/metrics.json").read_text())
    cache = read_cache("out/routing.json")
    assert cache.metrics == metrics
    assert metrics["num_episodes"] == 3
    assert len(cache.routing) == metrics["total_steps"]
    assert (cache.header["trial"], cache.header["seed"], cache.header["update"]) == (1, 0, 4)
    assert "3 levels, success" in printed
    for name in metrics:
        assert f"  {name} " in printed
    # What batch_eval.py writes of it says the same.
    batch_eval.main(["--final-only", "--trial", "1", *FEW])
    (row,) = plain_rows(read_results(RESULTS))
    assert {name: row[name] for name in metrics} == metrics


def test_actions_drawn_are_told(place, capsys):
    found = []
    for actions in ("greedy", "sample", "sample"):
        flags = ["--checkpoint", path_of(MOE), *FEW, "--eval_actions", actions, "--routing", "routing.json"]
        assert eval_mop.main(flags) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.endswith(", actions drawn") == (actions == "sample")
        found.append(read_cache("routing.json").routing.action.tolist())
    assert found[0] != found[1] == found[2]


def test_another_task_and_unseen_levels(place, capsys):
    assert eval_mop.main(["--checkpoint", path_of(BASELINE), "--task_id", "GoToObj", *FEW, "--eval_seed", "4"]) == 0
    assert capsys.readouterr().out.startswith("BabyAI-GoToObj-v0: 3 levels")


def test_a_cache_of_another_task_is_of_the_run_that_was_trained(place):
    flags = ["--checkpoint", path_of(MOE), "--task_id", "GoToObj", *FEW, "--routing", "routing.json"]
    assert eval_mop.main(flags) == 0
    header = read_cache("routing.json").header
    assert (header["task_id"], header["eval_task_id"]) == (TASK, "BabyAI-GoToObj-v0")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ("--checkpoint",)),
        (["--checkpoint", "absent.pt"], ("absent.pt", "cannot be read")),
        (["--checkpoint", path_of(MOE), "--task_id", "GoToObbj"], ("GoToObbj", "GoToObj")),
        (["--checkpoint", path_of(MOE), "--num_episodes", "0"], ("num_episodes", "at least 1", "0")),
        (["--checkpoint", path_of(MOE), "--max_steps", "0"], ("max_steps", "at least 1", "0")),
        (["--checkpoint", path_of(MOE), "--num_env", "3"], ("num_env", "num_envs")),
        (["--checkpoint", path_of(MOE), "--lang_encoder", "nowhere/at/all"], ("builtin", "nowhere/at/all")),
    ],
)
def test_bad_input_gets_one_clear_message(place, capsys, flags, words):
    assert eval_mop.main(flags) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def test_a_checkpoint_is_evaluated_with_the_encoder_it_was_trained_with_or_not_at_all(place, offline, capsys):
    save_tiny_distilbert(place / "encoder")
    train(debug_config(lang_encoder=str(place / "encoder")), 1).save(0, Path("with_bert.pt"))
    flags = ["--checkpoint", "with_bert.pt", *FEW]
    assert eval_mop.main([*flags, "--json", "before.json"]) == 0
    (place / "encoder").rename(place / "moved")
    capsys.readouterr()
    assert eval_mop.main(flags) == 2
    message = capsys.readouterr().err
    assert str(place / "encoder") in message
    assert "--lang_encoder" in message
    assert eval_mop.main([*flags, "--lang_encoder", str(place / "moved"), "--json", "after.json"]) == 0
    assert Path("after.json").read_bytes() == Path("before.json").read_bytes()
    save_tiny_distilbert(place / "encoder", seed=1)
    capsys.readouterr()
    assert eval_mop.main(flags) == 2
    assert "fingerprint" in capsys.readouterr().err


COMMON = "config num_episodes num_envs max_steps eval_seed eval_actions lang_encoder device torch_threads"
BATCH = (
    "checkpoint_dir results_path cache_dir task trial seed update final-only force skip_routing jobs together reindex"
)


@pytest.mark.parametrize(
    ("main", "flags"),
    [(eval_mop.main, f"{COMMON} checkpoint task_id json routing"), (batch_eval.main, f"{COMMON} {BATCH}")],
)
def test_help_names_every_flag(capsys, main, flags):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out.replace("_", "-")
    for flag in flags.split():
        assert f"--{flag.replace('_', '-')}" in text
