"""Results CSVs of other programs and of earlier versions: read as they are meant, kept whole, or refused untouched."""

import csv
import re

import pandas as pd
import pytest

from pipeline.records.adding import append_result
from pipeline.records.cells import COLUMNS, FIRST_COLUMNS
from pipeline.records.results import ResultsError, as_results, plain_rows, read_results
from tests.written_rows import row


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
