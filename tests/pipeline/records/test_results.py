"""The results CSV: its columns, what it keeps, and that nobody who is killed or in a hurry loses a row."""

import csv
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.command.files import replace_atomically
from pipeline.records.adding import append_result, append_results
from pipeline.records.cells import COLUMNS
from pipeline.records.merging import merge_results
from pipeline.records.metrics import compute_metrics
from pipeline.records.results import ResultsError, as_results, find_done, plain_rows, read_results
from tests.tables import random_tables
from tests.written_rows import row

SPAWN = multiprocessing.get_context("spawn")


def test_columns_of_a_new_file(tmp_path):
    append_result(tmp_path / "r.csv", row())
    first_line = (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith(
        "checkpoint_path,task_id,trial,num_episodes,success_rate,path_ratio,mean_lpc,bot_plan_failures,num_updates,"
        "unroll_len,lr,lpc_alpha,expert_hidden_sizes,intermediate_dim,router_hidden_size,max_steps,lang_dim,"
        "evaluated_at,seed,update,policy,"
    )
    assert first_line == ",".join(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_every_metric_has_a_column():
    metrics = compute_metrics(random_tables(0, [2, 3])[1], bot_plan_failures=0)
    assert metrics.keys() <= set(COLUMNS)


def test_round_trip(tmp_path):
    metrics = compute_metrics(random_tables(0, [2, 3])[1], bot_plan_failures=0)
    written = row(**metrics, window=100)  # a key that is no column is left out
    append_result(tmp_path / "new" / "r.csv", written)
    results = read_results(tmp_path / "new" / "r.csv")
    (read,) = plain_rows(results)
    assert tuple(read) == COLUMNS
    assert read == {name: written.get(name) for name in COLUMNS}
    for name, value in read.items():
        assert value is None or type(value) is type(written[name]), name
    pd.testing.assert_frame_equal(as_results([read]), results)


def test_columns_have_types(tmp_path):
    append_result(tmp_path / "r.csv", row(0, trial=None, evaluated_at="2026-03-01T12:00:00+00:00"))
    append_result(tmp_path / "r.csv", row(1, trial=2**53 + 1, lr=None, has_routing=None, expert_hidden_sizes=None))
    results = read_results(tmp_path / "r.csv")
    names = ["trial", "lr", "has_routing", "policy", "evaluated_at", "expert_hidden_sizes"]
    assert [str(results[name].dtype) for name in names] == "Int64 float64 boolean string string object".split()
    assert results["trial"].tolist() == [pd.NA, 2**53 + 1] and results["expert_hidden_sizes"][0] == [
        [0, 16, 32],
        [0, 16],
    ]
    assert results.isna().sum()[names].tolist() == [1, 1, 1, 2, 1, 1]
    empty = as_results([])
    assert len(empty) == 0 and empty.dtypes.equals(results.dtypes)


def test_frames_without_some_columns_get_them():
    frame = pd.DataFrame({"checkpoint_path": ["a.pt"], "task_id": ["T"], "seed": [3], "lr": [np.nan], "note": ["x"]})
    found = as_results(frame)
    assert found["seed"].tolist() == [3] and found["update"].isna().all() and found["note"].tolist() == ["x"]
    assert as_results(found) is found


def test_rows_of_other_code_keep_what_their_columns_should_not_hold():
    found = as_results([{"checkpoint_path": "a.pt", "lr": "fast", "trial": "first", "seed": 1}])
    assert (found["lr"][0], found["trial"][0], found["seed"][0]) == ("fast", "first", 1)


def test_a_row_that_was_read_can_be_written_again(tmp_path):
    path = tmp_path / "r.csv"
    append_result(path, row(0, seed=0))
    append_result(path, row(1, mean_lpc=0.1 + 0.2, update=5))
    before = path.read_bytes()
    for read in plain_rows(read_results(path)):
        append_result(path, read)
    assert path.read_bytes() == before


def test_cells_as_text(tmp_path):
    append_result(tmp_path / "r.csv", row(lr=np.float32(0.5), trial=np.int64(3), mean_lpc=None, seed=0))
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert (cells["lr"], cells["trial"], cells["mean_lpc"], cells["seed"]) == ("0.5", "3", "", "0")
    assert (cells["normalize_lpc"], cells["has_routing"]) == ("false", "true")
    assert cells["expert_hidden_sizes"] == "[[0, 16, 32], [0, 16]]"


def test_same_checkpoint_takes_its_own_place(tmp_path):
    for k in range(3):
        append_result(tmp_path / "r.csv", row(k))
    append_result(tmp_path / "r.csv", row(1, num_episodes=1000, success_rate=None))
    results = read_results(tmp_path / "r.csv")
    assert results["checkpoint_path"].tolist() == [f"checkpoints/{k}.pt" for k in range(3)]
    assert results["num_episodes"].tolist() == [100, 1000, 100]
    assert results["success_rate"].isna().tolist() == [False, True, False]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(paths=st.lists(st.one_of(texts, st.sampled_from(['a,"b"\n', "\r", " x ", '"', "=1+1", "é\r\n"])), min_size=1))
@settings(max_examples=25, deadline=None)
def test_any_text_in_a_path(tmp_path_factory, paths):
    path = tmp_path_factory.mktemp("results") / "r.csv"
    for name in paths:
        append_result(path, row(checkpoint_path=name))
    assert read_results(path)["checkpoint_path"].tolist() == list(dict.fromkeys(paths))
    with path.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 1 + len(set(paths))


def test_file_names_that_are_no_unicode(tmp_path):
    name = os.fsdecode(b"runs/\xff.pt")
    for _ in range(2):
        append_result(tmp_path / "r.csv", row(checkpoint_path=name))
    assert read_results(tmp_path / "r.csv")["checkpoint_path"].tolist() == [name]


@pytest.mark.parametrize("bad", [{"lr": float("nan")}, {"success_rate": np.float64("inf")}, {"checkpoint_path": ""}])
def test_bad_rows_are_refused(tmp_path, bad):
    append_result(tmp_path / "r.csv", row())
    before = (tmp_path / "r.csv").read_bytes()
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
        append_result(tmp_path / "r.csv", row(1, **bad))
    assert (tmp_path / "r.csv").read_bytes() == before


def test_link_and_target_are_one_file(tmp_path):
    (tmp_path / "real").mkdir()
    append_result(tmp_path / "real" / "r.csv", row(0))
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "r.csv")
    append_result(tmp_path / "link.csv", row(1))
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_results(tmp_path / "real" / "r.csv")) == 2


# -------------------------------------------------------------------------------------------------------------- done


def test_done_is_a_matter_of_weights_and_settings():
    asked = {"checkpoint_digest": "d", "num_episodes": 100, "eval_seed": 0, "max_steps": None}
    done = {"checkpoint_path": "a.pt", **asked}

    def find(*rows, **wanted):
        found = find_done(as_results(rows), **wanted)
        return found if found is None else {name: value for name, value in found.items() if value is not None}

    expected = {name: value for name, value in done.items() if value is not None}
    assert find(done, **asked) == expected
    others = ({"checkpoint_digest": "e"}, {"eval_seed": 1}, {"max_steps": 50}, {"num_episodes": 1000})
    for change in (*others, {"eval_actions": "sample"}):
        assert find(done, **{**asked, **change}) is None
    assert find({**done, "max_steps": 50}, **{**asked, "max_steps": 50}) == {**expected, "max_steps": 50}
    assert find({**done, "max_steps": 50}, **asked) is None
    drawn = {"eval_actions": "sample"}
    assert find({**done, **drawn}, **asked) is None
    assert find({**done, **drawn}, **asked, **drawn) == {**expected, **drawn}
    assert find(done, **{**asked, "num_episodes": 50}) == expected
    assert find(done, **asked, checkpoint_path="b.pt") is None
    more = {**done, "num_episodes": 1000}
    assert find(done, more, dict.fromkeys(COLUMNS), **asked) == {**expected, "num_episodes": 1000}
    assert find(**asked) is None


# --------------------------------------------------------------------------------------------------- many processes


def _append(path, worker, count, seconds=0.0):
    for k in range(count):
        append_result(path, row(f"{worker}_{k}"))
        time.sleep(seconds)


def test_four_processes_lose_nothing(tmp_path):
    path = tmp_path / "r.csv"
    workers = [SPAWN.Process(target=_append, args=(path, worker, 25)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    names = [Path(name).stem for name in read_results(path)["checkpoint_path"]]
    assert sorted(names) == sorted(f"{worker}_{k}" for worker in range(4) for k in range(25))


def _append_and_tell(path, worker, told):
    for k in range(10_000):
        append_result(path, row(f"{worker}_{k}"))
        told.send(f"{worker}_{k}")


def test_killed_writers_lose_at_most_the_row_in_hand(tmp_path):
    path = tmp_path / "r.csv"
    rng = np.random.default_rng(0)
    kept: set[str] = set()
    for worker in range(6):
        ours, theirs = SPAWN.Pipe(duplex=False)
        writer = SPAWN.Process(target=_append_and_tell, args=(path, worker, theirs))
        writer.start()
        theirs.close()
        assert ours.poll(60)
        time.sleep(float(rng.uniform(0, 0.05)))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
        try:
            while True:
                kept.add(ours.recv())
        except (EOFError, OSError):
            pass
        names = {Path(name).stem for name in read_results(path)["checkpoint_path"]}
        assert kept <= names
        assert len(names) <= len(kept) + worker + 1
    append_result(path, row("after"))  # the locks of the dead do not hold
    assert list(tmp_path.glob(".*.tmp")) == []


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    append_result(tmp_path / "r.csv", row(0))
    with replace_atomically(tmp_path / "other.csv") as other:
        (tmp_path / ".r.csv.abc.tmp").write_text("half a fi", encoding="utf-8")
        append_result(tmp_path / "r.csv", row(1))
        assert other.exists()  # of another file
    assert not (tmp_path / ".r.csv.abc.tmp").exists()
    assert len(read_results(tmp_path / "r.csv")) == 2


def test_whole_numbers_that_could_not_be_read_back_are_not_written(tmp_path):
    path = tmp_path / "results.csv"
    append_result(path, {"checkpoint_path": "a.pt", "task_id": "T", "num_episodes": 4, "seed": 2**63 - 1})
    kept = path.read_text()
    with pytest.raises(ValueError, match="seed: expected a number of 64 bits"):
        append_result(path, {"checkpoint_path": "b.pt", "task_id": "T", "num_episodes": 4, "seed": 2**63})
    assert path.read_text() == kept
    assert read_results(path)["seed"].tolist() == [2**63 - 1]
    for cell in (str(2**63), "1e300"):
        path.write_text(kept.replace(str(2**63 - 1), cell))
        with pytest.raises(ResultsError, match="line 2: seed"):
            read_results(path)


# ------------------------------------------------------------------------------------------------------- several rows


def test_rows_of_several_files_become_one_file(tmp_path):
    """As one by one would, each in the place of an earlier one; whole lists and what is empty come along."""
    for name, rows in (("a", [row(0), row(1)]), ("b", [row(1, success_rate=0.5), row(2, mean_lpc=None)])):
        append_results(tmp_path / f"{name}.csv", rows)
    whole = tmp_path / "whole.csv"
    assert merge_results([tmp_path / "a.csv", tmp_path / "none.csv", tmp_path / "b.csv"], whole) == 4
    for each in (row(0), row(1), row(1, success_rate=0.5), row(2, mean_lpc=None)):
        append_result(tmp_path / "single.csv", each)
    assert whole.read_bytes() == (tmp_path / "single.csv").read_bytes()
    assert len(read_results(whole)) == 3


def test_of_several_rows_all_are_added_or_none(tmp_path):
    append_results(path := tmp_path / "r.csv", [row(0)])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lr: expected a finite number"):
        append_results(path, [row(1), row(2, lr=float("nan"))])
    with pytest.raises(ValueError, match="checkpoint_path: expected a path as text, found None"):
        append_results(path, [row(1), {"lr": 1.0}])
    (tmp_path / "bad.csv").write_text("no,results\n1,2\n")
    with pytest.raises(ResultsError):
        merge_results([path, tmp_path / "bad.csv"], tmp_path / "whole.csv")
    assert path.read_bytes() == before and not (tmp_path / "whole.csv").exists()
