"""batch_eval.py: bad, odd and foreign checkpoints are named, and the good ones evaluated."""

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import batch_eval
import eval_mop
from pipeline.checkpoints import save_checkpoint
from pipeline.evaluation.select import BatchPlan
from pipeline.places import Place, PlaceError
from pipeline.records.cache import find_caches
from pipeline.records.results import plain_rows, read_results
from tests.batches import (
    ALL,
    BASELINE,
    CACHES,
    FEW,
    MOE,
    RESULTS,
    TASK,
    by_path,
    edit_checkpoint,
    path_of,
)
from tests.checkpoints import flip_in
from tests.mission_models import save_tiny_distilbert
from tests.pipeline.test_checkpoints import Bomb, make_foreign, save_foreign


def set_weights(name: str, value: float) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["policy_state_dict"][name].fill_(value)


def make_narrow(content: dict[str, Any]) -> None:
    """Let the policy expect another observation than the one there is."""
    weights = content["policy_state_dict"]
    weights["input_projection.weight"] = weights["input_projection.weight"][:, 5:].clone()
    content["config"]["input_dim"] -= 5


def test_bad_checkpoints_are_named_and_the_good_ones_evaluated(place, played, capsys):
    def spoil(seed: int) -> Path:
        path = Path(path_of(Path(TASK, "trial_1", f"seed_{seed}")))
        path.parent.mkdir(parents=True)
        shutil.copy(path_of(MOE), path)
        return path

    crater = place / "crater"
    bad = [spoil(seed) for seed in range(1, 9)]
    bad[0].write_bytes(b"\x00\x01 no checkpoint")
    bad[1].write_bytes(bad[1].read_bytes()[:-3000])
    bad[2].write_bytes(b"")
    bad[3].write_bytes(pickle.dumps({"policy_state_dict": Bomb(crater)}))
    torch.save({**torch.load(path_of(MOE), weights_only=True), "extra": Bomb(crater)}, bad[4])
    edit_checkpoint(bad[5], make_narrow)
    edit_checkpoint(bad[6], set_weights("head.bias", float("nan")))
    edit_checkpoint(bad[7], lambda content: content.pop("update"))
    shutil.copy(path_of(MOE, "2"), bad[7].with_name("checkpoint_2.pt"))  # its twin is looked for
    before = {path for path in place.parent.rglob("*") if place not in path.parents}

    assert batch_eval.main([*FEW]) == 1
    good = [*ALL[:2], bad[7].with_name("checkpoint_2.pt").as_posix(), ALL[2]]
    assert read_results(RESULTS)["checkpoint_path"].tolist() == good
    assert not crater.exists()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    named = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert len(named) == len(bad)
    for path in bad:
        assert len([line for line in named if line.startswith(f"failed: {path}: ") and line.count(str(path)) == 1]) == 1
    assert sum("empty, damaged" in line for line in named) == 3
    assert sum("can run code" in line for line in named) == 2
    assert sum("holds posix.mkdir" in line for line in named) == 1  # the other is a pickle of a later protocol
    assert "input_dim: expected 152, found 147" in named[5]
    assert "found NaN or infinity in head.bias" in named[6]
    assert printed.out.count(" failed") == len(bad)
    assert len(find_caches(CACHES)) == len(good)
    assert {path for path in place.parent.rglob("*") if place not in path.parents} == before


def test_a_checkpoint_that_cannot_be_claimed_fails_alone(place, monkeypatch, capsys):
    """Its place was asked for before anything was tried: one such run stopped all."""
    plain = BatchPlan.cache_of

    def cache_of(plan: BatchPlan, found: Place) -> Path:
        if found.trial == 1:
            raise PlaceError(f"trial: expected less, found {found.trial}")
        return plain(plan, found)

    monkeypatch.setattr(BatchPlan, "cache_of", cache_of)
    assert batch_eval.main(list(FEW)) == 1
    assert list(by_path()) == [path_of(BASELINE)]
    printed = capsys.readouterr()
    assert printed.err.count("trial: expected less, found 1") == 2


def test_a_stored_config_that_no_table_can_hold_fails_alone(place, capsys):
    content = torch.load(path_of(MOE), weights_only=True)
    content["config"]["num_updates"] = 10**20
    save_checkpoint(Path(path_of(MOE)), content)
    assert batch_eval.main(list(FEW)) == 1
    assert list(by_path()) == [path_of(MOE, "2"), path_of(BASELINE)]
    assert "num_updates: expected less than 2^63" in capsys.readouterr().err


@pytest.mark.parametrize("update", ["2", "3"])
def test_a_damaged_final_checkpoint_is_named_unless_another_is_what_was_asked_for(place, capsys, update):
    """Which update it is of, it cannot say."""
    Path(path_of(MOE)).write_bytes(b"")
    assert batch_eval.main(["--trial", "1", "--update", update, *FEW]) == int(update == "3")
    assert (f"failed: {path_of(MOE)}" in capsys.readouterr().err) == (update == "3")
    assert RESULTS.exists() == (update == "2")


def test_a_flipped_byte_in_the_weights_is_a_named_failure(place, capsys):
    flip_in(
        Path(path_of(MOE, "2")), torch.load(path_of(MOE, "2"), weights_only=True)["policy_state_dict"]["head.weight"]
    )
    assert batch_eval.main(list(FEW)) == 1
    assert f"failed: {path_of(MOE, '2')}: it is damaged: its weights are not" in capsys.readouterr().err
    assert list(by_path()) == ALL[1:]


def test_checkpoints_in_odd_folders_are_told_of(place, capsys):
    odd = Path("checkpoints", TASK, "trial_007", "seed_0", "checkpoint_final.pt")
    odd.parent.mkdir(parents=True)
    shutil.copy(path_of(BASELINE), odd)
    assert batch_eval.main(["--trial", "2", *FEW]) == 0
    assert "passed over: 1 checkpoints that lie in no <task>" in (err := capsys.readouterr().err)
    assert str(odd) in err


def test_levels_that_the_bot_cannot_solve_are_told_of(place, capsys):
    """96 of 146 on this task with 50 episodes; they were in the CSV alone."""
    folder = Path("checkpoints", "BabyAI-OpenDoorsOrderN4Debug-v0", "trial_2", "seed_0")
    folder.mkdir(parents=True)
    shutil.copy(path_of(BASELINE), folder)
    few = ["--num_episodes", "4", "--max_steps", "4"]
    for before in ("", " (done before)"):
        assert batch_eval.main(["--trial", "2", *few]) == 0
        rows = {row["task_id"]: row for row in by_path().values()}
        replaced = rows[folder.parts[1]]["bot_plan_failures"]
        assert replaced > 0
        said = f"  4, replaced {replaced} of {4 + replaced} levels, which the bot cannot solve{before}"
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "replaced" in line] == [line for line in lines if line.endswith(said)]
        assert sum(line.endswith(said) for line in lines) == 1
    flags = ["--checkpoint", str(folder / "checkpoint_final.pt"), "--task_id", "OpenDoorsOrderN4Debug", *few]
    assert eval_mop.main(flags) == 0
    assert said.split(",")[1] in capsys.readouterr().out.splitlines()[0]


def test_a_checkpoint_s_own_words_choose_no_path(place, capsys):
    evil = {"task_id": "../../evil", "trial": 10**6, "checkpoint_dir": "/evil"}
    edit_checkpoint(path_of(MOE), lambda content: content["config"].update(evil))
    folder = Path("checkpoints", "..evil", "trial_1")
    folder.mkdir(parents=True)
    shutil.copy(path_of(MOE), folder)  # no task's folder: passed over
    outside = {path for path in place.parent.rglob("*") if place not in path.parents}
    assert batch_eval.main(["--final-only", "--trial", "1", *FEW]) == 0
    (row,) = plain_rows(read_results(RESULTS))
    assert (row["task_id"], row["trial"]) == (TASK, 1)
    assert [cache.path for cache in find_caches(CACHES)] == [CACHES / MOE / "routing_data.json"]
    assert {path for path in place.parent.rglob("*") if place not in path.parents} == outside
    assert {path.name for path in place.iterdir()} <= {"checkpoints", RESULTS.name, CACHES.name, f".{RESULTS}.lock"}
    capsys.readouterr()
    assert eval_mop.main(["--checkpoint", path_of(MOE), "--routing", "out.json"]) == 2
    assert "../../evil" in capsys.readouterr().err
    assert not Path("out.json").exists()


def test_a_missing_folder_is_refused(place, capsys):
    assert batch_eval.main(["--checkpoint_dir", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert batch_eval.main(["--task", "GoToObbj"]) == 2
    assert "GoToObj" in capsys.readouterr().err


def test_another_kind_of_results_file_is_not_overwritten(place, capsys):
    RESULTS.write_text("name,age\nx,3\n")
    assert batch_eval.main(["--trial", "2", *FEW]) == 2
    assert RESULTS.read_text() == "name,age\nx,3\n"
    assert str(RESULTS) in capsys.readouterr().err


def test_a_foreign_checkpoint_needs_its_encoder_and_leaves_cells_empty(place, offline, capsys, tmp_path_factory):
    shutil.rmtree("checkpoints")
    folder = Path("checkpoints", "BabyAI-GoToObj-v0", "trial_2")
    folder.mkdir(parents=True)
    path = save_foreign(folder / "checkpoint_1000.pt", make_foreign([[0, 4], [4, 0]]))
    assert batch_eval.main(list(FEW)) == 1
    assert "distilbert-base-uncased" in capsys.readouterr().err
    assert batch_eval.main([*FEW, "--lang_encoder", "builtin"]) == 1
    assert "distilbert-base-uncased" in capsys.readouterr().err
    encoder = save_tiny_distilbert(tmp_path_factory.mktemp("hf") / "wide", dim=768, hidden_dim=8, n_layers=1)
    assert batch_eval.main([*FEW, "--lang_encoder", str(encoder)]) == 0
    with RESULTS.open(newline="") as file:
        (row,) = csv.DictReader(file)
    told = {"trial": "2", "lr": "0.0003", "lpc_alpha": "0.5", "normalize_lpc": "true", "unroll_len": "16"}
    known = {"update": "1000", "expert_hidden_sizes": "[[0, 4], [4, 0]]", "intermediate_dim": "24", "lang_dim": "32"}
    assert {name: row[name] for name in told | known} == told | known
    unknown = ("num_updates", "seed", "lpc_denominator", "lpc_eps", "lpc_exponent", "expert_dropout", "train_lang_proj")
    assert [row[name] for name in unknown] == [""] * len(unknown)  # our defaults would be made up
    assert float(row["mean_lpc"]) > 0
    assert row["checkpoint_path"] == path.as_posix()
