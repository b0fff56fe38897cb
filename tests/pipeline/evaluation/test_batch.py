"""eval_mop.py and batch_eval.py: what they write, when they leave it, and that no accident loses anything."""

import csv
import errno
import fcntl
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import batch_eval
import eval_mop
import pipeline.evaluation.work
from babyai import hub
from pipeline.checkpoints import save_checkpoint
from pipeline.evaluation.checkpoint import EvaluationSettings
from pipeline.evaluation.fresh import evaluate_fresh, keep_fresh
from pipeline.evaluation.kept import LossError
from pipeline.evaluation.select import BatchPlan, select_checkpoints
from pipeline.evaluation.work import choose_share, claim
from pipeline.places import Place, PlaceError, find_checkpoints
from pipeline.records.cache import find_caches, read_cache
from pipeline.records.results import append_result, plain_rows, read_results
from pipeline.training.loop import run_update
from tests.babyai.test_missions import save_tiny_distilbert
from tests.checkpoints import flip_in
from tests.pipeline.test_checkpoints import Bomb, make_foreign, save_foreign
from tests.pipeline.training.test_training import debug_config, train

ROOT = Path(__file__).parents[3]
TASK = "BabyAI-GoToObjS6-v1"
MOE, BASELINE = Path(TASK, "trial_1", "seed_0"), Path(TASK, "trial_2", "seed_0")
RESULTS, CACHES = Path("evaluation_results.csv"), Path("evaluation_cache")
FEW = ("--num_episodes", "3", "--max_steps", "12")
# As FORMATS has them: others read these files by these names in this order.
FIRST_COLUMNS = """checkpoint_path, task_id, trial, num_episodes, success_rate, path_ratio, mean_lpc, bot_plan_failures,
num_updates, unroll_len, lr, lpc_alpha, expert_hidden_sizes, intermediate_dim, router_hidden_size, max_steps, lang_dim,
evaluated_at""".replace("\n", " ").split(", ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two runs: a routed one with three checkpoints, the last two of which are the same, and a baseline with one."""
    root = tmp_path_factory.mktemp("trained") / "checkpoints"
    for config, folder, intervals in (
        (debug_config(num_updates=4), MOE, (2, 4)),
        (debug_config(num_updates=2, policy="gru", trial=2), BASELINE, ()),
    ):
        (root / folder).mkdir(parents=True)
        batch = train(config, 0)
        for _ in range(config.num_updates):
            run_update(batch)
            if batch.update in intervals:
                batch.save(0, root / folder / f"checkpoint_{batch.update}.pt")
        batch.save(0, root / folder / "checkpoint_final.pt")
    return root


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    """A working directory with copies of those checkpoints."""
    shutil.copytree(trained, tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def played(monkeypatch) -> list[tuple[str, int]]:
    """(path, episodes) of every evaluation that takes place in this process."""
    calls, plain = [], pipeline.evaluation.work.evaluate_checkpoints

    def spy(checkpoints: list[Any], task_id: str, settings: EvaluationSettings, **options: Any) -> Any:
        calls.extend((checkpoint.path.as_posix(), settings.num_episodes) for checkpoint in checkpoints)
        return plain(checkpoints, task_id, settings, **options)

    monkeypatch.setattr(pipeline.evaluation.work, "evaluate_checkpoints", spy)
    return calls


def path_of(folder: Path, name: str = "final") -> str:
    return (Path("checkpoints") / folder / f"checkpoint_{name}.pt").as_posix()


ALL = [path_of(MOE, "2"), path_of(MOE), path_of(BASELINE)]


def files() -> dict[str, tuple[bytes, int]]:
    """Return content and time of every file that is there, but for locks."""
    found = (path for path in Path().rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def by_path() -> dict[str, dict[str, Any]]:
    """Return the rows by checkpoint; there is one for each."""
    rows = plain_rows(read_results(RESULTS))
    assert len({row["checkpoint_path"] for row in rows}) == len(rows)
    return {row["checkpoint_path"]: row for row in rows}


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "evaluated_at"}


def edit_checkpoint(path: str | Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    save_checkpoint(Path(path), content)


def copy_runs(seeds: int) -> list[str]:
    """Replace the checkpoints by one of each of so many seeds; return their paths."""
    kept = Path(path_of(MOE)).read_bytes()
    shutil.rmtree("checkpoints")
    paths = [Path(path_of(Path(TASK, "trial_1", f"seed_{seed}"))) for seed in range(seeds)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(kept)
    return [path.as_posix() for path in paths]


# ----------------------------------------------------------------------------------------------- what is written, when


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


# -------------------------------------------------------------------------------------------------- several at once


@pytest.fixture
def groups(monkeypatch) -> list[list[str]]:
    """The paths of every group that is evaluated at once; who is called broken fails."""
    calls, plain = [], pipeline.evaluation.work.evaluate_checkpoints

    def spy(checkpoints: list[Any], *args: Any, **options: Any) -> Any:
        calls.append([checkpoint.path.as_posix() for checkpoint in checkpoints])
        if any(path in BROKEN for path in calls[-1]):
            raise RuntimeError("it is broken")
        return plain(checkpoints, *args, **options)

    monkeypatch.setattr(pipeline.evaluation.work, "evaluate_checkpoints", spy)
    return calls


BROKEN = [path_of(Path(TASK, "trial_1", "seed_13"))]


def add_runs(seeds: range) -> list[str]:
    """Add runs like the routed one, of other weights; return their checkpoints' paths."""
    paths = [path_of(Path(TASK, "trial_1", f"seed_{seed}")) for seed in seeds]
    for seed, path in zip(seeds, paths, strict=True):
        Path(path).parent.mkdir(parents=True)
        shutil.copy(path_of(MOE), path)
        edit_checkpoint(path, lambda content, seed=seed: content["policy_state_dict"]["head.bias"].mul_(seed))
    return paths


def test_checkpoints_that_are_alike_are_evaluated_at_once_with_the_same_results(place, groups, capsys):
    more = add_runs(range(1, 4))
    assert batch_eval.main([*FEW, "--together", "1"]) == 0
    assert groups == [[path] for path in [*ALL[:2], *more, ALL[2]]]
    alone, kept = by_path(), {cache.path: read_cache(cache.path) for cache in find_caches(CACHES)}
    groups.clear()
    assert batch_eval.main([*FEW, "--together", "4", "--force"]) == 0
    assert groups == [[*ALL[:2], *more[:2]], more[2:], ALL[2:]]  # as many as asked for, and no baseline among them
    assert {path: without_time(row) for path, row in by_path().items()} == {
        path: without_time(row) for path, row in alone.items()
    }
    for path, cache in kept.items():
        again = read_cache(path)
        assert without_time(again.header) == without_time(cache.header)
        assert list(again.records()) == list(cache.records())
    assert capsys.readouterr().out.count("done before") == 0


def test_one_that_fails_does_not_take_its_group_with_it(place, groups, capsys):
    more = add_runs(range(12, 15))
    assert BROKEN == more[1:2]
    assert batch_eval.main([*FEW, "--seed", "13"]) == 1
    groups.clear()
    assert batch_eval.main(list(FEW)) == 1
    assert groups == [[*ALL[:2], *more], *([path] for path in [*ALL[:2], *more]), ALL[2:]]
    assert set(by_path()) == {*ALL, more[0], more[2]}
    assert capsys.readouterr().err.splitlines()[-1] == f"failed: {more[1]}: RuntimeError: it is broken"


def test_what_cannot_be_written_fails_alone(place, groups, capsys):
    (CACHES / TASK / "trial_1" / "seed_2" / "routing_data.json").mkdir(parents=True)  # in the way
    more = add_runs(range(1, 4))
    assert batch_eval.main(["--trial", "1", "--final-only", *FEW]) == 1
    assert groups == [[path_of(MOE), *more]]
    assert set(by_path()) == {path_of(MOE), more[0], more[2]}
    assert f"failed: {more[1]}: " in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "largest"), [([], 4), (["--jobs", "2"], 2)])
def test_each_process_gets_its_share(place, monkeypatch, flags, largest):
    """A worker that claims all leaves nothing to the other."""
    plans = []
    monkeypatch.setattr(pipeline.evaluation.work, "work", lambda plan, *_: plans.append(plan))
    monkeypatch.setattr(
        pipeline.evaluation.work, "do_items", lambda items, **_: plans.extend(item.arguments[0] for item in items)
    )
    add_runs(range(1, 2))
    batch_eval.main([*FEW, *flags])
    assert {plan.together for plan in plans} == {largest}


@pytest.mark.parametrize(("count", "jobs"), [(1, 1), (4, 2), (7, 3), (3, 3)])
def test_workers_go_through_all_and_with_force_nothing_twice(count, jobs):
    todo = [Place(Path(f"{k}.pt"), "BabyAI-GoToObj-v0", 1, k, None) for k in range(count)]
    for force in (False, True):
        plan = BatchPlan(EvaluationSettings(), RESULTS, CACHES, force=force)
        shares = [choose_share(plan, todo, job, jobs) for job in range(jobs)]
        if force:
            assert [found for share in shares for found in share] == todo and all(shares)
        else:
            assert all(sorted(share, key=todo.index) == todo for share in shares)
            assert len({share[0].path for share in shares}) == jobs


def test_what_another_process_has_claimed_is_left_out_of_the_group(place, groups):
    more = add_runs(range(1, 4))
    (found,) = select_checkpoints(Path("checkpoints"), trial=1, seed=2)
    with claim(BatchPlan(EvaluationSettings(), RESULTS, CACHES), found) as mine:
        assert mine
        assert batch_eval.main(["--final-only", "--trial", "1", *FEW]) == 0
    assert groups == [[path_of(MOE), more[0], more[2]]]
    assert batch_eval.main(["--final-only", "--trial", "1", *FEW]) == 0
    assert groups[1:] == [[more[1]]]


# -------------------------------------------------------------------------------------------------- bad checkpoints


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


# ------------------------------------------------------------------------------------------------------------- reindex


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


# ------------------------------------------------------------------------------------------------- foreign checkpoints


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_find_cached", lambda name: None)


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


# ---------------------------------------------------------------------------------------------------- one checkpoint


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


def test_another_task_and_unseen_levels(place, capsys):
    assert eval_mop.main(["--checkpoint", path_of(BASELINE), "--task_id", "GoToObj", *FEW, "--eval_seed", "4"]) == 0
    assert capsys.readouterr().out.startswith("BabyAI-GoToObj-v0: 3 levels")


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


COMMON = "config num_episodes num_envs max_steps eval_seed lang_encoder device torch_threads"
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


# ------------------------------------------------------------------------------------------------- several processes


def start(*args: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "batch_eval.py"), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait while a process runs; fail if it ends before."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count_rows() -> int:
    return len(read_results(RESULTS)) if RESULTS.exists() else 0


def assert_sound(paths: list[str] | None = None) -> None:
    """Every row has its cache and every cache is whole; with `paths`, these and no others are there."""
    caches = {}
    for found in find_caches(CACHES):
        cache = read_cache(found.path)
        assert len(cache.routing) == cache.metrics["total_steps"]
        caches[cache.header["checkpoint_path"]] = cache
    rows = by_path() if RESULTS.exists() else {}
    for path, row in rows.items():
        assert caches[path].metrics == {name: row[name] for name in caches[path].metrics}
    if paths is not None:
        assert sorted(rows) == sorted(caches) == sorted(paths)
        assert list(Path().rglob("*.tmp")) == []


@pytest.fixture
def claimed(place) -> Iterator[str]:
    """The path of a checkpoint at which another process seems to be."""
    plan = BatchPlan(EvaluationSettings(), RESULTS, CACHES)
    (found,) = select_checkpoints(Path("checkpoints"), trial=2)
    with claim(plan, found) as mine:
        assert mine
        yield found.path.as_posix()


def test_without_flock_claims_keep_calls_apart_and_name_who_is_at_it(place, monkeypatch, capsys):
    """As on NFS without its lock service: files take the locks' place, and one may be left by another machine."""

    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    plan = BatchPlan(EvaluationSettings(), RESULTS, CACHES)
    (found,) = select_checkpoints(Path("checkpoints"), trial=2)
    with claim(plan, found) as mine, claim(plan, found) as again:
        assert (mine, again) == (True, False)
        (left,) = (CACHES / ".claims").iterdir()
    assert list((CACHES / ".claims").iterdir()) == []
    left.write_text("12\nnode7.cluster\n")
    assert batch_eval.main(["--trial", "2", *FEW]) == 0
    assert f"it is process 12 on node7.cluster; if that has ended, delete {left}" in capsys.readouterr().out
    left.unlink()
    assert batch_eval.main(["--trial", "2", *FEW]) == 0
    assert len(by_path()) == 1


def test_what_another_call_is_at_is_left_to_it(claimed, capsys):
    assert batch_eval.main([*FEW]) == 0
    assert list(by_path()) == [path for path in ALL if path != claimed]
    printed = capsys.readouterr()
    assert printed.out.count("left to another call") == 1
    assert "failed" not in printed.err


@pytest.mark.slow
def test_several_processes_give_the_same_numbers(place):
    assert batch_eval.main(list(FEW)) == 0
    alone = {path: without_time(row) for path, row in by_path().items()}
    flags = [*FEW, "--jobs", "2", "--results_path", "two.csv", "--cache_dir", "two"]
    assert batch_eval.main(flags) == 0
    assert {row["checkpoint_path"]: without_time(row) for row in plain_rows(read_results("two.csv"))} == alone
    for cache in find_caches(CACHES):
        other = read_cache(Path("two") / cache.path.relative_to(CACHES))
        assert other.routing.action_logits.tolist() == read_cache(cache.path).routing.action_logits.tolist()


@pytest.mark.slow
def test_four_calls_at_once_share_the_work_and_lose_no_row(place):
    paths = copy_runs(8)
    ends = [finish(process) for process in [start(*FEW, "--together", "2") for _ in range(4)]]
    assert [code for code, _, _ in ends] == [0] * 4
    assert_sound(paths)
    before = files()
    assert batch_eval.main(list(FEW)) == 0
    assert files() == before


@pytest.mark.slow
def test_killed_calls_leave_what_they_finished_and_the_next_one_does_the_rest(place):
    paths, rng = copy_runs(12), random.Random(0)
    for _ in range(3):
        process, rows = start("--num_episodes", "60", "--together", "2"), count_rows()
        wait_until(lambda rows=rows: count_rows() > rows, process)
        time.sleep(rng.random() * 0.15)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert_sound()
        assert 0 < count_rows() < len(paths)
    if batch_eval.main(["--num_episodes", "3"]):  # killed between a cache and its row: its levels are not replaced by 3
        assert batch_eval.main(["--num_episodes", "60"]) == 0
    assert_sound(paths)
    assert {row["num_episodes"] for row in by_path().values()} == {3, 60}


def workers_of(process: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = []
    for pid in children.read_text().split():
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            pass
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


@pytest.mark.slow
@needs_proc
def test_a_worker_that_dies_takes_only_its_checkpoint_with_it(place, capsys):
    """The other worker has passed by that checkpoint, so that nobody takes it up."""
    flags = ["--trial", "1", "--final-only", "--skip_routing", "--max_steps", "12", "--num_episodes"]
    batch_eval.main(["--trial", "2", *flags[2:], "1"])
    (row,) = plain_rows(read_results(RESULTS))
    append_result(RESULTS, {**row, "num_episodes": 10**6})
    process = start(*flags[2:], "1000000", "--jobs", "2")
    wait_until(lambda: len(workers_of(process)) == 2, process)
    wait_until(lambda: len(workers_of(process)) == 1, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 1
    assert f"failed: {path_of(MOE)}: the process that was at it died" in err
    assert "done before" in out
    assert list(by_path()) == [path_of(BASELINE)]
    assert batch_eval.main([*flags, "2"]) == 0
    assert set(by_path()) == {path_of(BASELINE), path_of(MOE)}


@pytest.mark.slow
@needs_proc
def test_when_a_worker_dies_the_other_goes_on(place):
    paths = copy_runs(6)
    process = start("--num_episodes", "30", "--jobs", "2", "--together", "2")
    wait_until(count_rows, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    code, _, err = finish(process)
    assert_sound()
    missing = set(paths) - set(by_path())  # the other may have come to the dead one's checkpoints afterwards
    assert len(missing) <= 2
    assert code == (1 if missing else 0)
    assert all(f"failed: {path}: " in err for path in missing)
    assert batch_eval.main(["--num_episodes", "3"]) == 0
    assert_sound(paths)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_stops_without_leaving_half_of_anything(place, jobs):
    paths = copy_runs(12)
    process = start("--num_episodes", "60", "--jobs", jobs, "--together", "2")
    wait_until(count_rows, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the call and its workers alike
    code, _, err = finish(process)
    assert code == 130
    assert "stopped" in err.splitlines()[-1]
    assert_sound()
    assert list(Path().rglob("*.tmp")) == []
    assert 0 < count_rows() < len(paths)
    assert batch_eval.main(["--num_episodes", "60"]) == 0  # a cache without its row is not replaced by less
    assert_sound(paths)


def test_ctrl_c_while_one_checkpoint_is_evaluated(place, monkeypatch, capsys):
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.evaluation.checkpoint.evaluate_checkpoint", interrupt)
    assert eval_mop.main(["--checkpoint", path_of(MOE), "--json", "out.json"]) == 130
    assert "stopped" in capsys.readouterr().err
    assert not Path("out.json").exists()
