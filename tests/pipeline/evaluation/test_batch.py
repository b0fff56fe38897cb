"""batch_eval.py: what it writes, when, when it leaves it, and how rows are made again from caches."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import batch_eval
import pipeline.evaluation.select
import pipeline.evaluation.work
from pipeline.evaluation.checkpoint import EvaluationSettings
from pipeline.evaluation.fresh import evaluate_fresh, keep_fresh
from pipeline.evaluation.kept import LossError
from pipeline.evaluation.select import BatchPlan, select_checkpoints
from pipeline.places import find_checkpoints
from pipeline.records import pending
from pipeline.records.cache import find_caches, read_cache
from pipeline.records.pending import pending_path
from pipeline.records.results import plain_rows, read_results
from plotting.runs import FURTHER_COLUMNS
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
    files,
    path_of,
    without_time,
)

# As FORMATS has them: others read these files by these names in this order.
FIRST_COLUMNS = """checkpoint_path, task_id, trial, num_episodes, success_rate, path_ratio, mean_lpc, bot_plan_failures,
num_updates, unroll_len, lr, lpc_alpha, expert_hidden_sizes, intermediate_dim, router_hidden_size, max_steps, lang_dim,
evaluated_at""".replace("\n", " ").split(", ")


def test_one_row_and_one_cache_per_checkpoint_and_nothing_to_do_afterwards(place, played, capsys):
    assert batch_eval.main(list(FEW)) == 0
    with RESULTS.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[: len(FIRST_COLUMNS)] == FIRST_COLUMNS
    assert [line[0] for line in lines] == ALL
    assert {cache.path.as_posix() for cache in find_caches(CACHES)} == {
        f"evaluation_cache/{TASK}/trial_1/seed_0/update_2/routing_data.json",
        f"evaluation_cache/{TASK}/trial_1/seed_0/routing_data.json",
        f"evaluation_cache/{TASK}/trial_2/seed_0/routing_data.json",
    }
    row = by_path()[path_of(MOE)]
    cache = read_cache(CACHES / MOE / "routing_data.json")
    assert cache.header["checkpoint_path"] == row["checkpoint_path"]
    assert cache.header["checkpoint_digest"] == row["checkpoint_digest"]
    assert cache.metrics["mean_lpc"] == row["mean_lpc"]
    assert len(cache.routing) == row["total_steps"]
    assert (row["task_id"], row["trial"], row["seed"], row["update"]) == (TASK, 1, 0, 4)
    assert (row["num_episodes"], row["max_steps"], row["eval_seed"], row["has_routing"]) == (3, 12, 0, True)
    assert (row["expert_hidden_sizes"], row["lr"], row["lpc_alpha"]) == ([[0, 8, 16]], 3e-3, 1e-4)
    config = cache.header["config"]
    assert {name: row[column] for name, column in FURTHER_COLUMNS.items()} == {
        name: config[name] for name in FURTHER_COLUMNS
    }
    table = capsys.readouterr().out
    assert table.count(TASK) == 3

    before = files()
    assert batch_eval.main(list(FEW)) == 0
    assert batch_eval.main(["--num_episodes", "2", "--max_steps", "12"]) == 0  # what is there says more than asked
    assert files() == before
    assert len(played) == 3
    assert capsys.readouterr().out.count("done before") == 6


def test_the_classic_path_holds_for_runs_without_a_seed(place):
    folder = Path("checkpoints", "BabyAI-GoToObj-v0", "trial_7")
    folder.mkdir(parents=True)
    shutil.copy(path_of(MOE), folder)  # the folder's task counts, not the one that the file names
    assert batch_eval.main(["--task", "GoToObj", *FEW]) == 0
    assert (CACHES / "BabyAI-GoToObj-v0" / "trial_7" / "routing_data.json").is_file()
    (row,) = plain_rows(read_results(RESULTS))
    assert (row["task_id"], row["trial"], row["seed"]) == ("BabyAI-GoToObj-v0", 7, None)


def test_more_episodes_or_other_settings_evaluate_again(place, played):
    only = ["--trial", "2", "--max_steps", "12", "--num_episodes"]
    batch_eval.main([*only, "2"])
    batch_eval.main([*only, "4"])
    batch_eval.main([*only, "4", "--eval_seed", "1"])
    batch_eval.main([*only, "4", "--eval_seed", "1", "--max_steps", "11"])
    assert [count for _, count in played] == [2, 4, 4, 4]
    (row,) = plain_rows(read_results(RESULTS))
    assert (row["num_episodes"], row["eval_seed"], row["max_steps"]) == (4, 1, 11)
    assert read_cache(CACHES / BASELINE / "routing_data.json").header["eval_seed"] == 1


def test_actions_drawn_are_another_evaluation(place, played):
    only = ["--trial", "1", "--final-only", "--max_steps", "12", "--num_episodes", "3"]
    cache, found = CACHES / MOE / "routing_data.json", []
    for actions in ("greedy", "sample", "sample", "greedy"):
        assert batch_eval.main([*only, *([] if actions == "greedy" else ["--eval_actions", actions])]) == 0
        (row,) = plain_rows(read_results(RESULTS))
        assert row["eval_actions"] == actions == read_cache(cache).header["eval_actions"]
        found.append(cache.read_bytes().split(b'"episodes"')[1])
    assert len(played) == 3
    assert found[0] != found[1] == found[2] != found[3] == found[0]
    text = RESULTS.read_text().replace(",greedy", ",")  # as it was written before there was a choice
    RESULTS.write_text(text)
    cache.write_text(cache.read_text().replace('"eval_actions": "greedy",\n', ""))
    assert batch_eval.main(only) == 0 and len(played) == 3
    assert batch_eval.main([*only, "--eval_actions", "sample"]) == 0 and len(played) == 4
    assert batch_eval.main(["--eval_actions", "best"]) == 2


@pytest.mark.parametrize("more", [[], ["--skip_routing"]])
def test_more_levels_are_never_replaced_by_fewer_unasked(place, played, capsys, more):
    """A row without its cache, a cache without its row, other levels: to fewer of them nothing gives way."""
    only = ["--trial", "2", "--max_steps", "12", "--num_episodes"]
    batch_eval.main([*only, "3", *more])
    if not more:
        RESULTS.rename("kept.csv")  # the cache alone tells
    before = files()
    for fewer in ([], ["--eval_seed", "1"]):
        assert batch_eval.main([*only, "2", *fewer]) == 1
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: "))
        assert "holds its evaluation on 3 levels" in line and "--force" in line
    assert files() == before and len(played) == 1
    assert batch_eval.main([*only, "4"]) == 0
    assert batch_eval.main([*only, "2", "--force"]) == 0
    assert [row["num_episodes"] for row in by_path().values()] == [2]


def test_a_checkpoint_trained_again_gives_way_to_any_number_of_levels(place, played):
    batch_eval.main(["--trial", "2", *FEW])
    edit_checkpoint(path_of(BASELINE), lambda content: next(iter(content["policy_state_dict"].values())).add_(0.5))
    assert batch_eval.main(["--trial", "2", "--max_steps", "12", "--num_episodes", "1"]) == 0
    assert [row["num_episodes"] for row in by_path().values()] == [1]


def test_a_notebook_keeps_an_evaluation_only_where_it_replaces_none_of_more_levels(place):
    found = find_checkpoints("checkpoints")[-1]
    path = CACHES / BASELINE / "routing_data.json"
    caches = [evaluate_fresh(found, EvaluationSettings(num_episodes=n, max_steps=12)) for n in (3, 2)]
    keep_fresh(caches[0], path, RESULTS)
    before = files()
    with pytest.raises(LossError, match="holds its evaluation on 3 levels, which one on 2 would replace; evaluate 3"):
        keep_fresh(caches[1], path, RESULTS)
    RESULTS.rename("kept.csv")  # the cache alone tells too
    with pytest.raises(LossError, match=r"routing_data\.json holds"):
        keep_fresh(caches[1], path, RESULTS)
    Path("kept.csv").rename(RESULTS)
    assert files() == before
    keep_fresh(caches[1], path, RESULTS, replace_more=True)
    assert [row["num_episodes"] for row in by_path().values()] == [2]
    assert read_cache(path).header["num_episodes"] == 2


def test_a_checkpoint_trained_again_under_its_old_name_is_another(place, played):
    batch_eval.main(["--trial", "1", *FEW])
    before = by_path()
    edit_checkpoint(path_of(MOE), lambda content: content["policy_state_dict"]["head.bias"].add_(0.5))
    os.utime(path_of(MOE, "2"))  # the same weights, only written again
    batch_eval.main(["--trial", "1", *FEW])
    assert [path for path, _ in played] == [*ALL[:2], path_of(MOE)]
    after = by_path()
    assert after[path_of(MOE)]["checkpoint_digest"] != before[path_of(MOE)]["checkpoint_digest"]
    assert after[path_of(MOE, "2")] == before[path_of(MOE, "2")]


def test_a_lost_or_damaged_cache_is_made_again(place, played):
    only = ["--trial", "2", *FEW]
    batch_eval.main(only)
    cache = CACHES / BASELINE / "routing_data.json"
    cache.unlink()
    batch_eval.main(only)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    batch_eval.main(only)
    assert len(played) == 3
    assert read_cache(cache).metrics["num_episodes"] == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--results_path", "file/x.csv"], "file: cannot be written"),
        (["--cache_dir", "file"], "file: cannot be written"),
        (["--results_path", "file"], "file: "),
    ],
)
def test_where_results_cannot_go_is_told_before_anything_is_played(place, played, flags, words, capsys):
    Path("file").write_text("neither a folder nor results")
    assert batch_eval.main([*FEW, *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {words}")
    assert not played and Path("file").read_text() == "neither a folder nor results"


def test_force_evaluates_what_is_done(place, played):
    for flags in ([], [], ["--force"]):
        batch_eval.main(["--trial", "2", *FEW, *flags])
    assert len(played) == 2


def test_without_routing_there_is_no_cache_and_none_is_missed(place, played):
    batch_eval.main([*FEW, "--skip_routing"])
    assert find_caches(CACHES) == []
    assert [row["has_routing"] for row in by_path().values()] == [False] * 3
    rows = by_path()
    batch_eval.main([*FEW, "--skip_routing"])
    assert len(played) == 3
    batch_eval.main(list(FEW))  # now the caches are wanted
    assert len(played) == 6
    for path, row in by_path().items():
        assert row["has_routing"]
        assert without_time({**row, "has_routing": False}) == without_time(rows[path])


def test_a_cache_of_other_settings_than_the_row_s_does_not_count(place, played):
    only = ["--trial", "2", "--num_episodes", "2"]
    batch_eval.main([*only, "--max_steps", "12"])
    for settings in (["--max_steps", "12", "--eval_seed", "1"], ["--max_steps", "11"]):
        batch_eval.main([*only, *settings, "--skip_routing"])
        batch_eval.main([*only, *settings])
    assert len(played) == 5
    header = read_cache(CACHES / BASELINE / "routing_data.json").header
    assert (header["eval_seed"], header["max_steps"]) == (0, 11)


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ([], ALL),
        (["--task", TASK], ALL),
        (["--task", "GoToObjS6-v1"], ALL),
        (["--task", f"[{TASK}, GoTo]"], ALL),
        (["--task", "GoTo"], []),
        (["--trial", "2"], ALL[2:]),
        (["--seed", "0"], ALL),
        (["--seed", "1"], []),
        (["--update", "2"], [path_of(MOE, "2"), path_of(BASELINE)]),
        (["--update", "4"], [path_of(MOE)]),
        (["--final-only"], ALL[1:]),
        (["--final-only", "--trial", "1"], ALL[1:2]),
    ],
)
def test_filters(place, played, capsys, flags, chosen):
    assert batch_eval.main(["--num_episodes", "1", "--max_steps", "8", "--skip_routing", *flags]) == 0
    assert [path for path, _ in played] == chosen
    if not chosen:
        assert "no checkpoint matches" in capsys.readouterr().out
        assert not RESULTS.exists()


def test_a_final_checkpoint_stands_for_its_numbered_twin_only(place):
    def chosen() -> list[str]:
        return [found.path.as_posix() for found in select_checkpoints(Path("checkpoints"), trial=1)]

    assert chosen() == ALL[:2]
    edit_checkpoint(path_of(MOE), lambda content: content.update(update=5))
    assert chosen() == [path_of(MOE, "2"), path_of(MOE, "4"), path_of(MOE)]


def test_numbers_are_ordered_as_numbers(place):
    for update in (10, 9, 1000):
        shutil.copy(path_of(MOE, "2"), path_of(MOE, str(update)))
    found = select_checkpoints(Path("checkpoints"), trial=1)
    assert [c.update for c in found] == [2, 9, 10, 1000, None]


def test_what_a_baseline_does_not_have_is_empty_and_not_zero(place):
    batch_eval.main([*FEW, "--final-only"])
    with RESULTS.open(newline="") as file:
        routed, baseline = csv.DictReader(file)
    empty = ("expert_hidden_sizes", "intermediate_dim", "router_hidden_size", "mean_lpc", "mean_lpc_per_episode")
    assert [baseline[name] for name in empty] == [""] * 5
    assert "" not in [routed[name] for name in empty]
    assert (routed["hidden_size"], baseline["hidden_size"]) == ("", "32")
    assert baseline["policy"] == "gru"
    cache = read_cache(CACHES / BASELINE / "routing_data.json")
    assert cache.routing.weights == ()
    assert json.loads((CACHES / BASELINE / "routing_data.json").read_text())["routing_data"][0]["lpc"] is None


def test_inline_context_repeats_it_in_every_step(place):
    batch_eval.main(["--trial", "2", *FEW, "--inline_context"])
    content = json.loads((CACHES / BASELINE / "routing_data.json").read_text())
    assert all(step["env_context"]["grid_size"] == [6, 6] for step in content["routing_data"])


def test_compact_caches_count_as_caches(place, played, capsys):
    only = ["--trial", "2", *FEW]
    batch_eval.main(only)
    plain = CACHES / BASELINE / "routing_data.json"
    expected = read_cache(plain)
    assert batch_eval.main([*only, "--compact"]) == 0  # what is there is done, whatever its form
    assert len(played) == 1 and plain.exists()
    assert batch_eval.main([*only, "--compact", "--force"]) == 0
    packed = plain.with_name("routing_data.json.gz")
    assert sorted(path.name for path in plain.parent.iterdir()) == [packed.name]
    assert read_cache(plain).routing.action_logits.tolist() == expected.routing.action_logits.tolist()
    batch_eval.main([*only, "--compact"])
    batch_eval.main(only)
    assert len(played) == 2
    packed.write_bytes(packed.read_bytes()[:-9])
    batch_eval.main([*only, "--compact"])
    assert len(played) == 3 and read_cache(packed).metrics == expected.metrics
    assert batch_eval.main(["--reindex", "--results_path", "again.csv"]) == 0
    assert "again.csv: 1 rows" in capsys.readouterr().out


def test_reindex_leaves_rows_of_more_levels_than_the_caches(place, played, capsys):
    only = ["--trial", "2", "--max_steps", "12", "--num_episodes"]
    batch_eval.main([*only, "2"])
    batch_eval.main([*only, "3", "--skip_routing"])
    rows = by_path()
    assert batch_eval.main(["--reindex"]) == 1
    assert "holds its evaluation on 3 levels" in capsys.readouterr().err
    assert by_path() == rows
    assert batch_eval.main(["--reindex", "--force"]) == 0
    assert [row["num_episodes"] for row in by_path().values()] == [2]


def test_reindex_leaves_rows_of_weights_newer_than_the_caches(place, played, capsys):
    only = ["--trial", "2", "--max_steps", "12", "--num_episodes"]
    batch_eval.main([*only, "3"])
    path = Path(path_of(BASELINE))
    edit_checkpoint(path, lambda content: content["policy_state_dict"]["head.bias"].add_(1.0))
    batch_eval.main([*only, "3", "--skip_routing"])
    rows = by_path()
    (row,) = rows.values()
    cache = CACHES / BASELINE / "routing_data.json"
    assert row["checkpoint_digest"] != read_cache(cache).header["checkpoint_digest"]
    text = re.sub(r'"evaluated_at": "[^"]*"', '"evaluated_at": "2026-01-01T00:00:00+00:00"', cache.read_text())
    cache.write_text(text)
    capsys.readouterr()
    assert batch_eval.main(["--reindex"]) == 1
    assert f"{cache}: of weights that {path} had before" in capsys.readouterr().err
    assert by_path() == rows
    assert batch_eval.main(["--reindex", "--force"]) == 0
    assert [row["evaluated_at"][:10] for row in by_path().values()] == ["2026-01-01"]


def test_reindex_takes_all_caches(place, capsys):
    assert batch_eval.main(["--reindex", "--trial", "1", "--final_only"]) == 2
    assert "leave out --trial, --final_only" in capsys.readouterr().err


def test_reindex_rebuilds_the_rows_from_the_caches(place, played, capsys):
    batch_eval.main(list(FEW))
    rows, lines = by_path(), RESULTS.read_text().splitlines()
    RESULTS.unlink()
    assert batch_eval.main(["--reindex"]) == 0
    assert by_path() == rows
    assert sorted(RESULTS.read_text().splitlines()) == sorted(lines)
    assert len(played) == 3

    RESULTS.unlink()
    damaged = CACHES / BASELINE / "routing_data.json"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    old = CACHES / TASK / "trial_9" / "routing_data.json"
    old.parent.mkdir()
    old.write_text('{"checkpoint_path": "elsewhere.pt", "routing_data": []}')
    capsys.readouterr()
    assert batch_eval.main(["--reindex"]) == 1
    assert set(by_path()) == set(ALL[:2])
    named = capsys.readouterr().err.splitlines()
    assert len(named) == 2
    for path, line in zip((damaged, old), named, strict=True):
        assert line.startswith(f"failed: {path}: ")
        assert line.count(str(path)) == 1


def test_rows_of_a_reindex_that_is_stopped_are_in_the_file(place, played, monkeypatch):
    assert batch_eval.main(list(FEW)) == 0
    monkeypatch.setattr(pending, "SMALL_BYTES", 0)
    monkeypatch.setattr(pending, "MOST_PART", 1)
    noted, done = pipeline.evaluation.select.note_result, []

    def note(path, row):
        if len(done) == 2:
            raise KeyboardInterrupt
        noted(path, row)
        done.append(pending_path(Path(path)).exists())

    monkeypatch.setattr(pipeline.evaluation.select, "note_result", note)
    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluation.select.reindex(BatchPlan(EvaluationSettings(), RESULTS, CACHES))
    assert done == [True, True] and not pending_path(RESULTS).exists() and len(by_path()) == len(ALL)


def test_rows_of_a_large_file_are_in_it_when_the_call_ends(place, played, monkeypatch, capsys):
    """Rows wait beside it meanwhile, and what is done is known by them."""
    noted, waited = pipeline.evaluation.work.note_result, []

    def note(path, row):
        noted(path, row)
        waited.append(pending_path(Path(path)).exists())

    monkeypatch.setattr(pending, "SMALL_BYTES", 0)
    monkeypatch.setattr(pending, "MOST_PART", 1)
    monkeypatch.setattr(pipeline.evaluation.work, "note_result", note)
    assert batch_eval.main([*FEW, "--together", "1"]) == 0
    assert len(waited) == len(ALL) and True in waited
    with RESULTS.open(newline="") as file:
        assert [line[0] for line in csv.reader(file)][1:] == ALL
    assert not pending_path(RESULTS).exists()
    before = list(played)
    assert batch_eval.main(list(FEW)) == 0
    assert played == before
