"""Policies of many levels evaluated: a row and a cache for each level, equal to what a single level's would be."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import batch_eval
import eval_mop
from film.episodes import FilmError, film_cached, film_checkpoint
from pipeline.command.errors import UserError
from pipeline.evaluation.checkpoint import EvaluationSettings, evaluate_checkpoint, load_checkpoint
from pipeline.evaluation.fresh import evaluate_fresh
from pipeline.evaluation.select import select_checkpoints
from pipeline.places import Place, cache_path, find_caches, find_checkpoints, locate_cache
from pipeline.records.cache import read_cache
from pipeline.records.results import plain_rows, read_results
from pipeline.training.loop import run_update
from tests.batches import CACHES, FEW, MOE, RESULTS, without_time
from tests.pipeline.training.test_training import debug_config, train

LEVELS = ["BabyAI-GoToRedBallNoDists-v0", "BabyAI-GoToObjS6-v1"]
SEEN, OTHER = "GoToObjS6-v1", "BabyAI-OpenDoor-v0"


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> Path:
    """A mixture with two checkpoints, and one that is told of its levels."""
    root = tmp_path_factory.mktemp("mixtures") / "checkpoints"
    for name, told, updates in (("both", "none", (1, None)), ("told", "onehot", (None,))):
        batch = train(debug_config(task_id=LEVELS, mixture=name, task_input=told, num_updates=2), 1)
        folder = root / name / "trial_1" / "seed_0"
        folder.mkdir(parents=True)
        for update in updates:
            if update is None:
                run_update(batch)
            batch.save(0, folder / f"checkpoint_{'final' if update is None else update}.pt")
    return root


@pytest.fixture
def work(mixtures, tmp_path, monkeypatch) -> Path:
    shutil.copytree(mixtures, tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*argv: str) -> int:
    return batch_eval.main([*FEW, *argv])


def rows() -> dict[tuple[str, str], dict]:
    """Return the rows by checkpoint and level; there is one for each."""
    found = plain_rows(read_results(RESULTS))
    by_key = {("/".join(Path(row["checkpoint_path"]).parts[1::3]), row["eval_task_id"]): row for row in found}
    assert len(by_key) == len(found)
    return by_key


def test_each_checkpoint_has_a_row_and_a_cache_for_each_level(work, capsys):
    assert evaluate("--task", "both") == 0
    found = rows()
    names = [f"both/checkpoint_{name}.pt" for name in ("1", "final")]
    assert sorted(found) == sorted((name, level) for name in names for level in LEVELS)
    settings = EvaluationSettings(num_episodes=3, max_steps=12)
    for (name, level), row in found.items():
        assert (row["task_id"], row["trial"], row["seed"]) == ("both", 1, 0)
        checkpoint = load_checkpoint(f"checkpoints/both/trial_1/seed_0/{Path(name).name}")
        alone = evaluate_checkpoint(checkpoint, level, settings, record=True)
        assert {key: row[key] for key in alone.metrics} == alone.metrics
        update = None if "final" in name else 1
        path = cache_path(CACHES, "both", 1, 0, update, level)
        assert path.parts[-2] == level
        cache = read_cache(path)
        assert cache.header["task_id"] == "both"
        assert cache.header["eval_task_id"] == level
        assert cache.header["config"]["task_id"] == LEVELS
        np.testing.assert_allclose(cache.routing.lpc, alone.routing.lpc, rtol=1e-5)
    assert [place.played for place in find_caches(CACHES)] == [level for _ in names for level in sorted(LEVELS)]
    out = capsys.readouterr().out
    assert out.count("both: GoToRedBallNoDists") == out.count("both: GoToObjS6-v1") == 2

    assert evaluate("--task", "both") == 0
    assert capsys.readouterr().out.count("done before") == 4
    kept = {key: without_time(row) for key, row in found.items()}
    RESULTS.unlink()
    assert batch_eval.main(["--reindex"]) == 0
    assert {key: without_time(row) for key, row in rows().items()} == kept


def test_tasks_choose_levels_of_mixtures(work):
    def chosen(**options) -> list[tuple[str, str | None]]:
        found = select_checkpoints(Path("checkpoints"), final_only=True, **options)
        return [(place.task_id, place.eval_task_id) for place in found]

    everything = [(name, level) for name in ("both", "told") for level in sorted(LEVELS)]
    assert chosen() == everything
    assert chosen(tasks=["told"]) == everything[2:]
    assert chosen(tasks=[SEEN]) == [(name, LEVELS[1]) for name in ("both", "told")]
    assert chosen(tasks=["OpenDoor"]) == []
    assert chosen(tasks=["both"], eval_tasks=["OpenDoor"]) == [("both", OTHER)]
    with pytest.raises(ValueError, match="found 'nothing'"):
        chosen(tasks=["nothing"])


def test_copies_of_runs_under_another_name_are_no_mixtures(work):
    """Whatever lay in a folder with trials and seeds was evaluated."""
    shutil.copytree(work / "checkpoints" / "both", work / "checkpoints" / "backup_of_mine")
    broken = work / "checkpoints" / "other" / "trial_1" / "seed_0" / "checkpoint_final.pt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    found = select_checkpoints(Path("checkpoints"), tasks=["both"])
    assert {place.task_id for place in found} == {"both"} and len(found) == 4
    assert {place.task_id for place in select_checkpoints(Path("checkpoints"))} == {"both", "told", "other"}


def test_levels_that_were_not_trained_can_be_played_unless_the_policy_is_told_of_levels(work, trained, capsys):
    shutil.copytree(trained / MOE, Path("checkpoints") / MOE)
    assert evaluate("--final-only", "--eval_task", "OpenDoor") == 1
    found = rows()
    assert {(row["task_id"], row["eval_task_id"]) for row in found.values()} == {
        ("both", OTHER),
        (MOE.parts[0], OTHER),
    }
    err = capsys.readouterr().err
    assert err.count("failed: ") == 1
    assert (
        "told/trial_1/seed_0/checkpoint_final.pt/BabyAI-OpenDoor-v0: BabyAI-OpenDoor-v0: expected a level that" in err
    )
    # On its own level a run has a row and a cache beside those, in the classic places.
    assert evaluate("--final-only", "--task", MOE.parts[0], "--trial", "1") == 0
    own = [row for row in plain_rows(read_results(RESULTS)) if row["task_id"] == MOE.parts[0]]
    assert sorted(row["eval_task_id"] for row in own) == sorted([OTHER, MOE.parts[0]])
    assert (CACHES / MOE / "routing_data.json").is_file()
    assert (CACHES / MOE / OTHER / "routing_data.json").is_file()


def test_fewer_levels_replace_none_of_another_level(work, capsys):
    only = ("--task", "told", "--final-only")
    assert evaluate(*only) == 0
    assert batch_eval.main([*only, "--num_episodes", "2", "--max_steps", "9"]) == 1
    assert capsys.readouterr().err.count("which one on 2 would replace") == 2
    one = ["--task", SEEN, "--final-only", "--num_episodes", "2", "--max_steps", "9", "--force"]
    assert batch_eval.main(one) == 0
    counts = {key: row["num_episodes"] for key, row in rows().items() if key[0].startswith("told")}
    assert sorted(counts.values()) == [2, 3]


def test_one_checkpoint_plays_all_its_levels(work, capsys):
    path = "checkpoints/told/trial_1/seed_0/checkpoint_final.pt"
    assert eval_mop.main(["--checkpoint", path, *FEW, "--json", "m.json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(Path("m.json").read_text())
    assert list(found) == LEVELS
    mean = sum(metrics["success_rate"] for metrics in found.values()) / 2
    assert f"success_rate           {mean:.6g}" in out.split("mean over 2 tasks")[1]
    assert eval_mop.main(["--checkpoint", path, *FEW, "--routing", "r.json"]) == 2
    assert "--routing: expected --task_id with it, one of BabyAI-GoToRedBallNoDists-v0" in capsys.readouterr().err
    assert eval_mop.main(["--checkpoint", path, *FEW, "--routing", "r.json", "--task_id", SEEN]) == 0
    header = read_cache("r.json").header
    assert (header["task_id"], header["eval_task_id"]) == ("told", LEVELS[1])


def test_films_and_notebooks_play_the_level_that_was_played(work):
    assert evaluate("--task", "told", "--final-only") == 0
    cache = read_cache(cache_path(CACHES, "told", 1, 0, None, LEVELS[1]))
    assert film_cached(cache, 0).task_id == LEVELS[1]
    path = Path("checkpoints/told/trial_1/seed_0/checkpoint_final.pt")
    assert film_checkpoint(path, SEEN, max_steps=12).task_id == LEVELS[1]
    with pytest.raises(FilmError, match="found several: BabyAI-GoToRedBallNoDists-v0, BabyAI-GoToObjS6-v1"):
        film_checkpoint(path)
    place = next(place for place in find_checkpoints("checkpoints") if place.task_id == "told")
    with pytest.raises(UserError, match="expected a level to be played, found a policy of several"):
        evaluate_fresh(place, EvaluationSettings(num_episodes=2))
    (chosen,) = select_checkpoints(Path("checkpoints"), tasks=["told"], eval_tasks=[SEEN])
    fresh = evaluate_fresh(chosen, EvaluationSettings(num_episodes=3, max_steps=12))
    assert fresh.metrics == cache.metrics


def test_paths_of_caches_tell_the_level():
    path = cache_path("c", "both", 1, 2, 30, OTHER)
    assert path == Path("c/both/trial_1/seed_2/update_30/BabyAI-OpenDoor-v0/routing_data.json")
    assert locate_cache(path) == Place(path, "both", 1, 2, 30, eval_task_id=OTHER)
    assert locate_cache(path, "c").played == OTHER
    assert cache_path("c", OTHER, 1, 0, None, OTHER) == cache_path("c", OTHER, 1, 0)
    with pytest.raises(ValueError, match="eval_task_id: expected a level's full name"):
        cache_path("c", "both", 1, 0, None, "../up")
