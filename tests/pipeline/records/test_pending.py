"""Rows that wait beside a large CSV: the same file in the end, and no row is lost or taken for one on the way."""

import json
import os
import random
from pathlib import Path

import pandas as pd
import pytest

from pipeline.records import contents, pending
from pipeline.records.adding import append_result, note_result, settle_results
from pipeline.records.results import ResultsError, read_results, read_rows
from pipeline.records.texts import read_texts

RESULTS = Path("evaluation_results.csv")


def row(name: str, rate: float = 0.5, **more) -> dict:
    return {"checkpoint_path": name, "task_id": "BabyAI-GoToObj-v0", "num_episodes": 10, "success_rate": rate, **more}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder in which every CSV of 8 rows counts as large."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pending, "SMALL_BYTES", 0)
    monkeypatch.setattr(pending, "MOST_PART", 1)
    for number in range(8):
        append_result(RESULTS, row(f"c{number}"))
    return tmp_path


def read_left() -> list[dict]:
    """Return the rows that were put aside."""
    (left,) = Path().glob("evaluation_results.csv.left_*.jsonl")
    return [json.loads(line) for line in left.read_text().splitlines()][1:]


def make_older(seconds: float) -> None:
    """Let the CSV have been written so long ago."""
    found = RESULTS.stat()
    os.utime(RESULTS, (found.st_atime - seconds, found.st_mtime - seconds))


def test_rows_wait_and_count_as_the_files_own(folder):
    before = RESULTS.read_bytes()
    note_result(RESULTS, row("new", 0.25, expert_hidden_sizes=[[0, 8, 16]]))
    note_result(RESULTS, row("c3", 0.75))
    assert RESULTS.read_bytes() == before and pending.pending_path(RESULTS).exists()
    found = read_results(RESULTS).set_index("checkpoint_path")["success_rate"]
    assert len(found) == 9 and found["new"] == 0.25 and found["c3"] == 0.75
    (one,) = read_rows(RESULTS, "new").to_dict("records")
    assert one["expert_hidden_sizes"] == [[0, 8, 16]] and one["success_rate"] == 0.25
    assert list(read_rows(RESULTS, "c3")["success_rate"]) == [0.75] and list(read_rows(RESULTS, "c2")["success_rate"])
    assert len(read_rows(RESULTS, "none")) == 0
    settle_results(RESULTS)
    assert not pending.pending_path(RESULTS).exists()
    assert dict(pd.read_csv(RESULTS).set_index("checkpoint_path")["success_rate"]) == dict(found)


def test_the_file_is_in_the_end_what_it_is_without_waiting(folder):
    """Rows that are new, that replace others, of other levels, with texts that need quotes; some wait, some do not."""
    draw = random.Random(0)
    Path("plain.csv").write_bytes(RESULTS.read_bytes())
    for number in range(60):
        name = draw.choice(["c1", "c5", "odd, name", 'with "quotes"', "two\nlines", "caf\udce9", f"new{number % 7}"])
        other = draw.choice([None, "BabyAI-GoToObj-v0", "BabyAI-PickupLoc-v0"])
        new = row(name, number / 100, eval_task_id=other)
        append_result("plain.csv", new)
        draw.choice([note_result, note_result, note_result, append_result])(RESULTS, new)
        assert read_rows(RESULTS, name).equals(
            read_results(RESULTS).query("checkpoint_path == @name").reset_index(drop=True)
        )
    settle_results(RESULTS)
    assert RESULTS.read_bytes() == Path("plain.csv").read_bytes()


def test_rows_do_not_wait_long_nor_become_many(folder, monkeypatch):
    note_result(RESULTS, row("first"))
    make_older(pending.WAIT_SECONDS + 1)
    note_result(RESULTS, row("second"))
    assert not pending.pending_path(RESULTS).exists() and len(pd.read_csv(RESULTS)) == 10
    monkeypatch.setattr(pending, "MOST_PART", 4)
    most = 0
    for number in range(20):
        note_result(RESULTS, row(f"more{number}"))
        most = max(most, len(pending.read_pending(RESULTS)))
    assert 0 < most < 8


def test_small_files_and_whoever_adds_one_row_do_not_wait(folder, monkeypatch):
    note_result(RESULTS, row("waits"))
    append_result(RESULTS, row("one"))
    assert list(pd.read_csv(RESULTS)["checkpoint_path"][-2:]) == ["waits", "one"]
    assert not pending.pending_path(RESULTS).exists()
    monkeypatch.setattr(pending, "SMALL_BYTES", 1 << 20)
    note_result(RESULTS, row("two"))
    assert len(pd.read_csv(RESULTS)) == 11


def test_a_kill_while_a_row_is_written_loses_that_row_alone(folder):
    note_result(RESULTS, row("whole"))
    with pending.pending_path(RESULTS).open("ab") as file:
        file.write(b'{"checkpoint_path": "half", "task')
    assert list(read_results(RESULTS)["checkpoint_path"][8:]) == ["whole"]
    note_result(RESULTS, row("next"))
    assert list(read_results(RESULTS)["checkpoint_path"][8:]) == ["whole", "next"]


def test_a_kill_between_the_file_and_its_rows_changes_nothing(folder):
    note_result(RESULTS, row("new", 0.25))
    waiting = pending.pending_path(RESULTS).read_bytes()
    settle_results(RESULTS)
    settled = RESULTS.read_bytes()
    pending.pending_path(RESULTS).write_bytes(waiting)
    assert len(read_results(RESULTS)) == 9
    settle_results(RESULTS)
    assert RESULTS.read_bytes() == settled


def test_rows_of_a_file_that_was_removed_do_not_come_back(folder):
    note_result(RESULTS, row("old"))
    RESULTS.unlink()
    note_result(RESULTS, row("new"))
    assert list(read_results(RESULTS)["checkpoint_path"]) == ["new"]
    assert not pending.pending_path(RESULTS).exists()
    assert [line["checkpoint_path"] for line in read_left()] == ["old"]


def test_rows_of_a_file_that_was_moved_are_put_aside(folder, capsys):
    note_result(RESULTS, row("waits"))
    RESULTS.rename("moved.csv")
    settle_results(RESULTS)
    assert not RESULTS.exists() and not pending.pending_path(RESULTS).exists()
    assert [line["checkpoint_path"] for line in read_left()] == ["waits"]
    assert "moved or replaced; they are in" in capsys.readouterr().err
    settle_results(RESULTS)
    assert not RESULTS.exists()


def test_rows_do_not_get_into_another_file_in_the_place_of_theirs(folder):
    note_result(RESULTS, row("waits"))
    RESULTS.rename("moved.csv")
    append_result("other.csv", row("other"))
    other = Path("other.csv").rename(RESULTS).read_bytes()
    assert list(read_results(RESULTS)["checkpoint_path"]) == ["other"] and len(read_rows(RESULTS, "waits")) == 0
    settle_results(RESULTS)
    assert RESULTS.read_bytes() == other and [line["checkpoint_path"] for line in read_left()] == ["waits"]
    note_result(RESULTS, row("next"))
    assert set(read_results(RESULTS)["checkpoint_path"]) == {"other", "next"}


def test_rows_that_go_along_with_their_file_count_there(folder):
    note_result(RESULTS, row("waits"))
    Path("copied.csv").write_bytes(RESULTS.read_bytes())
    pending.pending_path(RESULTS).rename(pending.pending_path(Path("copied.csv")))
    assert len(read_results("copied.csv")) == 9
    settle_results("copied.csv")
    assert len(pd.read_csv("copied.csv")) == 9


def test_a_file_that_cannot_be_used_keeps_the_rows_that_wait_for_it(folder):
    """Its beginning tells that it is the same one, so that it may be mended further down."""
    for number in range(60):
        append_result(RESULTS, row(f"more{number}"))
    note_result(RESULTS, row("waits"))
    whole = RESULTS.read_bytes()
    RESULTS.write_bytes(whole[:-10])
    for use in (settle_results, read_results):
        with pytest.raises(ResultsError, match=r"cut off.*rows of it wait in .*evaluation_results\.csv\.pending"):
            use(RESULTS)
    RESULTS.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    settle_results(RESULTS)
    assert list(pd.read_csv(RESULTS)["checkpoint_path"][-2:]) == ["more58", "waits"]


def test_a_file_is_read_once_for_rows_that_are_looked_up_and_added_in_turn(folder, monkeypatch):
    read = []
    monkeypatch.setattr(contents, "read_texts", lambda path: read.append(path) or read_texts(path))
    for number in range(5):
        assert len(read_rows(RESULTS, f"new{number}")) == 0
        note_result(RESULTS, row(f"new{number}"))
    assert len(read) <= 1 and len(read_results(RESULTS)) == 13


def test_what_is_no_row_is_refused_before_anything_is_written(folder):
    with pytest.raises(ValueError, match="expected a finite number"):
        note_result(RESULTS, row("new", float("nan")))
    for name in ("checkpoint_path", "policy"):
        with pytest.raises(ValueError, match=f"{name}: expected a text in UTF-8"):
            note_result(RESULTS, row("new") | {name: "lone \ud800"})
    assert not pending.pending_path(RESULTS).exists()
    pending.pending_path(RESULTS).write_text("[1, 2]\n")
    with pytest.raises(ResultsError, match=r"pending: expected rows that wait for evaluation_results\.csv"):
        read_results(RESULTS)


def test_a_link_and_its_file_have_the_same_rows(folder):
    Path("elsewhere").mkdir()
    RESULTS.rename("elsewhere/results.csv")
    RESULTS.symlink_to("elsewhere/results.csv")
    note_result(RESULTS, row("new"))
    for path in (RESULTS, Path("elsewhere/results.csv")):
        assert len(read_results(path)) == 9 and len(read_rows(path, "new")) == 1
    settle_results(RESULTS)
    assert RESULTS.is_symlink() and len(pd.read_csv("elsewhere/results.csv")) == 9
