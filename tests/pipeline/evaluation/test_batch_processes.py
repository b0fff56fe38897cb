"""batch_eval.py in several processes: no row is lost, and no accident loses more than what was under way."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import batch_eval
import eval_mop
from pipeline.evaluation.checkpoint import EvaluationSettings
from pipeline.evaluation.select import BatchPlan, select_checkpoints
from pipeline.evaluation.work import claim
from pipeline.records.adding import append_result
from pipeline.records.cache import find_caches, read_cache
from pipeline.records.results import plain_rows, read_results
from tests.batches import (
    ALL,
    BASELINE,
    CACHES,
    FEW,
    MOE,
    RESULTS,
    ROOT,
    by_path,
    copy_runs,
    files,
    path_of,
    without_time,
)


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
    paths, rng = copy_runs(24), random.Random(0)  # so many that a machine under load kills before all are done
    for _ in range(3):
        process, rows = start("--num_episodes", "200", "--together", "2"), count_rows()
        wait_until(lambda rows=rows: count_rows() > rows, process)
        time.sleep(rng.random() * 0.15)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert_sound()
        assert 0 < count_rows() < len(paths)
    if batch_eval.main(["--num_episodes", "3"]):  # killed between a cache and its row: its levels are not replaced by 3
        assert batch_eval.main(["--num_episodes", "200"]) == 0
    assert_sound(paths)
    assert {row["num_episodes"] for row in by_path().values()} == {3, 200}


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
