"""batch_eval.py: checkpoints that are evaluated at once, and how they are shared out."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import batch_eval
import pipeline.evaluation.work
from pipeline.evaluation.checkpoint import EvaluationSettings
from pipeline.evaluation.select import BatchPlan, select_checkpoints
from pipeline.evaluation.work import choose_share, claim
from pipeline.places import Place
from pipeline.records.cache import find_caches, read_cache
from tests.batches import ALL, CACHES, FEW, MOE, RESULTS, TASK, by_path, edit_checkpoint, path_of, without_time


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
        pipeline.evaluation.work, "launch", lambda items, **_: plans.extend(item.arguments[0] for item in items)
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
