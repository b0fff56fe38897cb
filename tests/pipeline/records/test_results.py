"""The results CSV: its columns, what it keeps, and that nobody who is killed or in a hurry loses a row."""

import csv
import multiprocessing
import os
import re
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
from pipeline.records.cells import COLUMNS, FIRST_COLUMNS
from pipeline.records.merging import merge_results
from pipeline.records.metrics import compute_metrics
from pipeline.records.results import ResultsError, as_results, find_done, plain_rows, read_results
from tests.tables import random_tables

SPAWN = multiprocessing.get_context("spawn")
ROW = {
    "checkpoint_path": "checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt",
    "task_id": "BabyAI-GoToObj-v0",
    "trial": 1,
    "num_episodes": 100,
    "success_rate": 0.93,
    "lr": 1e-4,
    "lpc_alpha": 0.0,
    "expert_hidden_sizes": [[0, 16, 32], [0, 16]],
    "max_steps": None,
    "normalize_lpc": False,
    "has_routing": True,
    "eval_seed": 0,
    "checkpoint_digest": "ab" * 32,
}


def row(k=0, **changes):
    return {**ROW, "checkpoint_path": f"checkpoints/{k}.pt", **changes}


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


# ------------------------------------------------------------------------------------------------------- other files


def test_older_file_is_kept_and_completed(tmp_path):
    path = tmp_path / "r.csv"
    cells = ["old.pt", "GoToObj", "1", "100.0", "0.5", "1.25", "900", "2", *[""] * 4, '"[16, 32]"', *[""] * 4, "2024"]
    path.write_text(f"{','.join(FIRST_COLUMNS)}\r\n{','.join(cells)}\r\n", encoding="utf-8")
    (old,) = plain_rows(read_results(path))
    assert (old["num_episodes"], old["expert_hidden_sizes"], old["agreement"]) == (100, [[16, 32]], None)
    append_result(path, row())
    assert plain_rows(read_results(path))[0] == old and len(read_results(path)) == 2
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("old.pt,GoToObj,1,100.0,0.5,")  # not rewritten


def test_unknown_columns_are_kept_at_the_end(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("note,checkpoint_path,num_episodes,task_id\ngood,old.pt,7,T\n", encoding="utf-8")
    append_result(path, row())
    append_result(path, row(2, note="mine"))
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join([*COLUMNS, "note"])
    results = read_results(path)
    assert [row["note"] for row in plain_rows(results)] == ["good", None, "mine"]
    assert results["num_episodes"].tolist() == [7, 100, 100] and pd.isna(results["trial"][0])


@pytest.mark.parametrize("cell", ["007", "1.50", " NA ", "nan", "NULL", "1e5", "True", "#N/A", " ", "1,5", "-", "inf"])
def test_cells_of_unknown_columns_stay_as_they_are(tmp_path, cell):
    """Read as numbers, 007 would come back as 7 and NA as nothing."""
    path = tmp_path / "r.csv"
    path.write_text(f'checkpoint_path,task_id,num_episodes,my note\nold.pt,T,7,"{cell}"\n', encoding="utf-8")
    append_result(path, row())
    append_result(path, row(2))
    assert read_results(path)["my note"].tolist() == [cell, pd.NA, pd.NA]
    with path.open(newline="", encoding="utf-8") as file:
        assert [line["my note"] for line in csv.DictReader(file)] == [cell, "", ""]


@pytest.mark.parametrize(
    "content",
    [
        b"name,age\nann,3\n",
        b"hello\n",
        b"\n \n",
        bytes(range(256)) * 3,
        b'{"routing_data": []}',
        b"checkpoint_path,task_id,num_episodes,task_id\na.pt,T,3,U\n",
        b"checkpoint_path,task_id,num_episodes\na.pt,T\n",
        b'checkpoint_path,task_id,num_episodes\n"a.pt,T,3\n',
    ],
)
def test_foreign_files_are_refused_untouched(tmp_path, content):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    for use in (lambda: append_result(path, row()), lambda: read_results(path)):
        with pytest.raises(ResultsError, match=r"r\.csv: .*expected"):
            use()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("trial", "1.5"),
        ("lr", "1e999"),
        ("lr", "0,0003"),
        ("has_routing", "yes"),
        ("seed", "x"),
        ("success_rate", "93"),
        ("success_rate", "90%"),
        ("expert_hidden_sizes", "{}"),
        ("expert_hidden_sizes", "[array([0, 16])]"),
        ("expert_hidden_sizes", "[" * 100_000),
        ("task_id", ""),
        ("task_id", "Caf\udce9"),
    ],
    ids=lambda text: text[:20],
)
def test_cells_of_another_type_are_named(tmp_path, name, cell):
    append_result(tmp_path / "r.csv", row(**{name: cell}))
    with pytest.raises(ResultsError, match=rf"r\.csv: line 2: {name}: expected .* found {re.escape(repr(cell[:60]))}"):
        read_results(tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("name", "cell", "expected"),
    [
        ("expert_hidden_sizes", "[32, 64, 128]", [[32, 64, 128]]),
        ("expert_hidden_sizes", "[[0, 16], [0, 32]]", [[0, 16], [0, 32]]),
        ("expert_hidden_sizes", "['32,64', '64,128']", [[32, 64], [64, 128]]),
        ("expert_hidden_sizes", '["32,64", "64,128"]', [[32, 64], [64, 128]]),
        ("expert_hidden_sizes", "([0, 16], [0, 32])", [[0, 16], [0, 32]]),
        ("expert_hidden_sizes", "16,32;32,64", [[16, 32], [32, 64]]),
        ("expert_hidden_sizes", "[]", []),
        ("expert_hidden_sizes", "None", None),
        ("success_rate", "nan", None),
        ("path_ratio", "inf", None),
        ("mean_lpc", "-Infinity", None),
        ("lr", " 1e-04 ", 1e-4),
        ("lr", "NA", None),
        ("trial", "1.0", 1),
        ("trial", "NaN", None),
        ("normalize_lpc", "True", True),
        ("normalize_lpc", "0.0", False),
        ("normalize_lpc", "", None),
        ("policy", "nan", "nan"),  # a text is a text
    ],
)
def test_cells_of_other_writers(tmp_path, name, cell, expected):
    append_result(tmp_path / "r.csv", row(**{name: cell}))
    (read,) = plain_rows(read_results(tmp_path / "r.csv"))
    assert read[name] == expected


CLASSIC = ['old.pt,GoToObj,1,100,0.5,nan,900,2,,,1e-04,0.0,"[32, 64, 128]",,,,,2024', "new.pt,Open,2,100" + "," * 14]
HEAD = ",".join(FIRST_COLUMNS)


@pytest.mark.parametrize(
    "lines",
    [
        [HEAD, *CLASSIC],
        ["\ufeff" + HEAD, *CLASSIC],
        [HEAD + "\r", *(line + "\r" for line in CLASSIC)],
        [HEAD + ",,", *(line + ",," for line in CLASSIC)],
        [HEAD, *(line + ",," for line in CLASSIC)],
        ["," + HEAD, *(f"{k},{line}" for k, line in enumerate(CLASSIC))],
        [HEAD + ",lr", CLASSIC[0] + ",1e-04", CLASSIC[1] + ","],
        [HEAD, CLASSIC[0], "", "," * 17, "  ", CLASSIC[1]],
        [HEAD, CLASSIC[0], HEAD, CLASSIC[1]],
        [HEAD.replace(",", ", "), CLASSIC[0].replace(',"', ', "'), CLASSIC[1].replace(",", ", ")],
        ["note," + HEAD, *("ok," + line for line in CLASSIC)],
    ],
    ids="plain bom crlf unnamed longer index twice blank joined spaces unknown".split(),
)
def test_files_that_other_programs_went_through(tmp_path, lines):
    path = tmp_path / "r.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    old, new = plain_rows(read_results(path))
    assert (old["checkpoint_path"], old["task_id"], old["success_rate"], old["lr"]) == ("old.pt", "GoToObj", 0.5, 1e-4)
    assert (old["expert_hidden_sizes"], old["path_ratio"], new["lr"]) == ([[32, 64, 128]], None, None)
    append_result(path, row())
    assert plain_rows(read_results(path))[:2] == [old, new]


def test_columns_without_a_name_keep_what_they_hold(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("checkpoint_path,task_id,num_episodes,,,\na.pt,T,3,,good,\nb.pt,T,3,,bad,\n", encoding="utf-8")
    append_result(path, row())
    assert read_results(path)["unnamed_5"].tolist() == ["good", "bad", pd.NA]
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join([*COLUMNS, "unnamed_5"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([HEAD.replace(",", ";"), CLASSIC[1].replace(",", ";")], "expected commas between the cells, found semicolons"),
        ([HEAD.replace(",", "\t"), CLASSIC[1].replace(",", "\t")], "found tabs"),
        ([HEAD + ",lr", CLASSIC[0] + ",0.1", CLASSIC[1] + ","], "line 2: lr: expected one such column, .*'0.1'"),
        ([HEAD, CLASSIC[0].replace('"', ""), CLASSIC[1]], "line 2: expected 18 cells .* needs quotes"),
        ([HEAD, CLASSIC[1], CLASSIC[0][:20]], "line 3: expected 18 cells .* found 4; the file was cut off: remove"),
        ([HEAD, CLASSIC[1], CLASSIC[0][:-15]], "line 3: .* quotes are not closed"),
        ([HEAD, CLASSIC[1][:20], CLASSIC[0]], "line 2: expected 18 cells .* found 7; correct it"),
        (["# written by hand", HEAD, *CLASSIC], "expected the columns checkpoint_path, .* found '# written by hand'"),
    ],
    ids="semicolons tabs differing unquoted cut quote short comment".split(),
)
def test_what_cannot_be_understood_is_named_and_untouched(tmp_path, content, told):
    path = tmp_path / "r.csv"
    path.write_text("\n".join(content), encoding="utf-8")
    before = path.read_bytes()
    for use in (lambda: read_results(path), lambda: append_result(path, row())):
        with pytest.raises(ResultsError, match=told):
            use()
    assert path.read_bytes() == before


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "r.csv").write_text(f"{HEAD}\n{CLASSIC[1]}\n", encoding="utf-16")
    with pytest.raises(ResultsError, match="expected UTF-8, found UTF-16"):
        read_results(tmp_path / "r.csv")


@pytest.mark.parametrize("spelled", [[32, 64, 128], "[32, 64, 128]", [[32, 64, 128]], "32,64,128"])
def test_rows_of_other_code_get_todays_sizes(tmp_path, spelled):
    (found,) = as_results([row(expert_hidden_sizes=spelled)])["expert_hidden_sizes"]
    assert found == [[32, 64, 128]]


def test_a_frame_that_pandas_read_is_as_good(tmp_path):
    path = tmp_path / "r.csv"
    append_result(path, row(0, seed=3))
    append_result(path, row(1, trial=None, expert_hidden_sizes=None))
    read = read_results(path)
    found = as_results(pd.read_csv(path))
    pd.testing.assert_frame_equal(found, read)
    part = read[read["trial"].notna()]
    assert as_results(part) is part
    assert as_results(pd.read_csv(path).set_index(pd.Index([7, 9]))).index.tolist() == [7, 9]


def test_empty_and_missing_files(tmp_path):
    with pytest.raises(ResultsError, match="no such file"):
        read_results(tmp_path / "r.csv")
    (tmp_path / "r.csv").touch()
    assert read_results(tmp_path / "r.csv").empty
    append_result(tmp_path / "r.csv", row())
    assert len(read_results(tmp_path / "r.csv")) == 1


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
