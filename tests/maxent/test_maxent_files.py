"""Readers of the real files, on small ones in their formats."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from maxent.data import catalogue, files
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.data.files import parse_numbers, read_rows, split_rows
from maxent.data.sample import SPLITS, DataError


def write_csv(path: Path, columns: list[str], rows: list[list[str]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def write_m4(folder: Path, frequency: str = "Monthly", count: int = 20) -> None:
    ids = [f"{frequency[0]}{number}" for number in range(count)]
    series = [[key, json.dumps([number, 1.5, -2, number])] for number, key in enumerate(ids)]
    captions = [[key, f"Caption of {key}, with a comma.\nAnd a line."] for key in ids[::-1]]
    write_csv(folder / f"m4_series_{frequency}.csv", ["id", "series"], series)
    write_csv(folder / f"m4_captions_{frequency}.csv", ["id", "caption"], captions)


def load(name: str, folder: Path, source: str = "local"):
    return load_dataset(name, DataSettings(source=source, path=str(folder)))


# ------------------------------------------------------------------------------------------------------------------- M4


def test_m4_series_meet_their_captions_and_are_dealt_as_elsewhere(tmp_path):
    write_m4(tmp_path / "raw" / "M4TimeSeriesCaptionDataset", "Monthly", 14)
    write_m4(tmp_path / "raw" / "M4TimeSeriesCaptionDataset", "Daily", 6)
    dataset = load("M4", tmp_path)
    assert dataset.real and dataset.describe().startswith("data: M4, real (Daily, Monthly of ")
    assert [len(dataset.splits[split]) for split in SPLITS] == [16, 2, 2]
    for sample in (sample for split in SPLITS for sample in dataset.splits[split]):
        assert sample.label == f"Caption of {sample.id}, with a comma.\nAnd a line."
        assert sample.series.tolist()[0] == [int(sample.id[1:]), 1.5, -2, int(sample.id[1:])]
    # datasets.Dataset.train_test_split: a permutation of numpy's default generator, whose head is the test split.
    names = [f"D{at}" for at in range(6)] + [f"M{at}" for at in range(14)]
    order = np.random.default_rng(42).permutation(20).tolist()
    assert [sample.id for sample in dataset.splits["test"]] == [names[at] for at in order[:2]]
    second = np.random.default_rng(43).permutation(18).tolist()
    assert [sample.id for sample in dataset.splits["valid"]] == [names[order[2 + at]] for at in second[:2]]


def test_m4_leaves_out_what_has_no_caption_or_no_numbers_and_says_so(tmp_path):
    write_m4(tmp_path)
    series = [[f"M{at}", "[1, NaN, 3]" if at == 3 else "[1, 2, 3]"] for at in range(25)]
    write_csv(tmp_path / "m4_series_Monthly.csv", ["id", "series"], series)
    dataset = load("M4", tmp_path)
    assert sum(len(dataset.splits[split]) for split in SPLITS) == 19
    assert "6 rows without caption or numbers left out" in dataset.describe()


def test_m4_that_is_not_whole_is_an_error_and_never_replaced(tmp_path):
    write_m4(tmp_path)
    (tmp_path / "m4_captions_Monthly.csv").unlink()
    for source in ("auto", "local"):
        with pytest.raises(DataError, match=r"m4_captions_Monthly\.csv: expected beside m4_series_Monthly\.csv"):
            load("M4", tmp_path, source)
    write_csv(tmp_path / "m4_captions_Monthly.csv", ["id", "text"], [["M0", "x"]])
    with pytest.raises(DataError, match="expected the columns id, caption, found id, text; caption is missing"):
        load("M4", tmp_path, "auto")
    write_csv(tmp_path / "m4_captions_Monthly.csv", ["id", "caption"], [["other", "x"]])
    with pytest.raises(DataError, match="at least 4 series with a caption of the same id, found 0"):
        load("M4", tmp_path)
    write_m4(tmp_path / "copy")
    with pytest.raises(DataError, match=r"expected one m4_series_Monthly\.csv, found 2"):
        load("M4", tmp_path)


# ------------------------------------------------------------------------------------------------------------------ HAR

HAR_COLUMNS = ["x_axis", "y_axis", "z_axis", "label", "rationale"]
AXIS = json.dumps([0.1] * 4)


def write_har(folder: Path, rows: list[list[str]]) -> None:
    for split in ("train", "val", "test"):
        write_csv(folder / f"har_cot_{split}_cot.csv", HAR_COLUMNS, rows)


def test_har_is_read_without_its_repeated_headers(tmp_path):
    rows = [
        [AXIS, AXIS, AXIS, "walking", "It sways. Answer: walking"],
        HAR_COLUMNS,
        [AXIS, AXIS, AXIS, " Sitting ", "Nothing\nmoves."],
        [AXIS, "[0.1, NaN, 0.1, 0.1]", AXIS, "walking", "broken"],
        [AXIS, "[0.1]", AXIS, "walking", "of another length"],
    ]
    write_har(tmp_path / "har_cot", rows)
    dataset = load("HAR", tmp_path)
    assert dataset.labels == ("sitting", "walking")
    assert "6 rows without three finite axes left out" in dataset.describe()
    for split in SPLITS:
        assert [(one.label, one.target) for one in dataset.splits[split]] == [
            ("walking", " It sways. Answer: walking"),
            ("sitting", " Nothing moves. Answer: sitting"),
        ]
        assert {one.series.shape for one in dataset.splits[split]} == {(3, 4)}


def test_har_that_is_broken_is_an_error(tmp_path):
    write_har(tmp_path, [[AXIS, AXIS, AXIS, "swimming", ""]])
    with pytest.raises(DataError, match=r"har_cot_train_cot\.csv: row 1: expected one of biking.*found 'swimming'"):
        load("HAR", tmp_path)
    write_har(tmp_path, [])
    with pytest.raises(DataError, match="expected samples in each split, found none in train"):
        load("HAR", tmp_path)
    (tmp_path / "har_cot_val_cot.csv").unlink()
    with pytest.raises(DataError, match=r"har_cot_val_cot\.csv: expected beside the others"):
        load("HAR", tmp_path, "auto")


def write_uci(folder: Path, train: int = 20, test: int = 5) -> Path:
    folder = folder / "UCI HAR Dataset"
    names = ["WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"]
    for split, count in (("train", train), ("test", test)):
        (folder / split / "Inertial Signals").mkdir(parents=True)
        (folder / split / f"y_{split}.txt").write_text("".join(f"{1 + at % 6}\n" for at in range(count)))
        for axis in "xyz":
            line = "  1.0e-001 -2.0000000e-002  3.0e+000\n"
            (folder / split / "Inertial Signals" / f"total_acc_{axis}_{split}.txt").write_text(line * count)
    (folder / "activity_labels.txt").write_text("".join(f"{at} {name}\n" for at, name in enumerate(names, 1)))
    return folder


def test_uci_folders_are_read_and_their_names_translated(tmp_path):
    write_uci(tmp_path)
    dataset = load("HAR", tmp_path)
    assert dataset.labels == ("lying", "sitting", "standing", "walking", "walking_down", "walking_up")
    assert [len(dataset.splits[split]) for split in SPLITS] == [18, 2, 5]
    assert [one.label for one in dataset.splits["test"]] == [
        *("walking", "walking_up", "walking_down", "sitting", "standing")
    ]
    np.testing.assert_allclose(dataset.splits["test"][0].series, [[0.1, -0.02, 3.0]] * 3)


def test_uci_folders_that_are_broken_are_an_error(tmp_path):
    folder = write_uci(tmp_path)
    (folder / "test" / "y_test.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"y_test\.txt: expected as many rows as the signals have, found 2 against 5"):
        load("HAR", tmp_path)
    (folder / "test" / "y_test.txt").write_text("1\n2\n3\n4\n9\n")
    with pytest.raises(DataError, match=r"y_test\.txt: row 5: expected one of 1, 2, 3, 4, 5, 6, found 9"):
        load("HAR", tmp_path)
    signal = folder / "train" / "Inertial Signals" / "total_acc_y_train.txt"
    signal.write_text("1 2\n3\n")
    with pytest.raises(DataError, match=r"total_acc_y_train\.txt: expected rows of as many numbers"):
        load("HAR", tmp_path)
    signal.unlink()
    with pytest.raises(DataError, match=r"total_acc_y_train\.txt: cannot be read"):
        load("HAR", tmp_path)


# ----------------------------------------------------------------------------------------------------------------- TSQA

ROWS = [
    {"Task": "Trend", "Question": f"Is number {at} up?", "Answer": f"(a) Yes {at}", "Series": [[0.0, 1.0, float(at)]]}
    for at in range(10)
]


def write_table(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
        case _:
            rows = [[row["Task"], row["Question"], row["Answer"], "", json.dumps(row["Series"])] for row in ROWS]
            write_csv(path, ["Task", "Question", "Answer", "Label", "Series"], rows, "utf-8-sig")
    return path


@pytest.mark.parametrize("name", ["TSQA.csv", "deep/er/whatever.csv", "questions.json", "rows.jsonl"])
def test_tsqa_is_recognised_by_its_columns_wherever_it_lies(tmp_path, name):
    write_table(tmp_path / name)
    write_csv(tmp_path / "other.csv", ["Question", "Answer"], [["a", "b"]])
    (tmp_path / "broken.json").write_text("{")
    dataset = load("TSQA", tmp_path)
    assert [len(dataset.splits[split]) for split in SPLITS] == [8, 1, 1]
    order = np.random.default_rng(42).permutation(10)
    (sample,) = dataset.splits["test"]
    assert sample.id == f"TSQA-Trend-{order[0]}" and sample.label == f"(a) Yes {order[0]}"
    assert sample.prompt.startswith(f"Is number {order[0]} up? End with `Answer: <answer>`.\nSeries (mean")
    assert sample.series.tolist() == [[0.0, 1.0, float(order[0])]]


def test_tsqa_comes_from_the_hub_where_there_is_no_local_copy(tmp_path, monkeypatch):
    path = write_table(tmp_path / "cache" / "TSQA.csv")
    asked = []
    monkeypatch.setattr(catalogue, "fetch", lambda *args, **kwargs: asked.append((args, kwargs)) or [path])
    monkeypatch.chdir(tmp_path / "cache" / "..")
    for source in ("hub", "auto"):
        dataset = load_dataset("TSQA", DataSettings(source=source))
        assert dataset.real and str(path) in dataset.describe()
    assert asked == [(("ChengsenWang/TSQA", ["TSQA.csv"]), {"kind": "dataset"})] * 2


def test_tsqa_leaves_out_rows_without_numbers(tmp_path):
    rows = [["What?", "This", "[1, 2]"]] * 5 + [["What?", "", "[1, 2]"], ["What?", "This", "two"]]
    write_csv(tmp_path / "t.csv", ["Question", "Answer", "Series"], rows)
    assert "2 rows without question, answer or numbers left out" in load("TSQA", tmp_path).describe()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("TSQA.csv", "Question,Answer\na,b\n", "expected the columns Question, Answer, Series, found Question, Answer"),
        ("TSQA.json", "[", "cannot be read as json"),
        ("TSQA/part.csv", "<html>\nNot found\n", "expected the columns"),
    ],
)
def test_tsqa_that_is_broken_is_an_error_and_never_replaced(tmp_path, name, content, said):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    for source in ("auto", "local"):
        with pytest.raises(DataError, match=f"{name}: {said}"):
            load("TSQA", tmp_path, source)


def test_parquet_without_its_reader_is_said_where_it_must_be_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda _: None)
    (tmp_path / "stories.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no CSV, JSON or parquet file with the columns Question, Answer, Series"):
        load("TSQA", tmp_path)
    (tmp_path / "tsqa-00000.parquet").write_bytes(b"PAR1")
    for source in ("local", "auto"):
        with pytest.raises(DataError, match=r"tsqa-00000\.parquet: parquet files need pyarrow \(pip install pyarrow\)"):
            load("TSQA", tmp_path, source)


def test_real_parquet_files_are_read(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert [len(load("TSQA", tmp_path).splits[split]) for split in SPLITS] == [8, 1, 1]


# ------------------------------------------------------------------------------------------------------------ all files


def test_a_series_longer_than_the_csv_modules_limit_is_read_and_the_limit_restored(tmp_path):
    limit = csv.field_size_limit()
    numbers = json.dumps(list(range(40_000)))
    assert len(numbers) > limit
    path = write_csv(tmp_path / "long.csv", ["id", "series"], [["a", numbers]])
    (row,) = read_rows(path, ("id", "series"))
    assert len(parse_numbers(row["series"])) == 40_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"id,series\nx\n", "row 1: expected a value for series, found none"),
        ("a.csv", b"id,series\n\xff\xfe,1\n", "cannot be read as csv"),
        ("a.json", b"{}", "expected a list of rows, found dict"),
        ("a.json", b"[1]", "row 1: expected columns by name, found int"),
        ("a.json", b"[", "cannot be read as json"),
        ("a.jsonl", b"{\n", "cannot be read as jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: {said}"):
        list(read_rows(tmp_path / name, ("id", "series")))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read as csv \(No such file"):
        list(read_rows(tmp_path / "none.csv", ("id",)))


@pytest.mark.parametrize("value", ["", "[]", "x", "[1, null]", "[true]", "[1, Infinity]", "3", None, [[1], [2]], {}])
def test_what_is_no_list_of_numbers_is_none(value):
    assert parse_numbers(value) is None


@pytest.mark.parametrize("count", [4, 5, 10, 11, 99])
def test_splits_are_a_partition(count):
    places = split_rows(count, (42, 43))
    assert sorted(row for rows in places.values() for row in rows) == list(range(count))
    assert all(places.values())


def test_too_few_rows_are_no_three_splits():
    with pytest.raises(DataError, match="at least 4 rows"):
        split_rows(3, (42, 42))
