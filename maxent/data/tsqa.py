"""Questions about time series: ChengsenWang/TSQA of the Hugging Face hub, or local files with the same columns.

Columns: Question, Answer, Series (a list of numbers, or its text); Task is said in the id where it is there. Wang et
al., https://arxiv.org/abs/2412.11376.
"""

from __future__ import annotations

from pathlib import Path

from maxent.data.files import (
    SUFFIXES,
    describe_dropped,
    list_columns,
    parse_numbers,
    read_rows,
    split_rows,
)
from maxent.data.prompts import build_question_frame
from maxent.data.sample import SPLITS, DataError, Dataset, Sample

COLUMNS = ("Question", "Answer", "Series")
REPOSITORY, FILE = "ChengsenWang/TSQA", "TSQA.csv"
WANTED = f"CSV, JSON or parquet file with the columns {', '.join(COLUMNS)}"
SOURCE = f"https://huggingface.co/datasets/{REPOSITORY} has {FILE}"


def find_tsqa(folder: Path) -> list[Path] | None:
    """Return the files below a folder, in any depth, that have the columns, whatever they are called; None if none has.

    Raises:
        DataError: If none has, and one that is named so, or lies in such a folder, is broken or cannot be looked into.
    """
    files = sorted(path for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}"))
    found = [path for path in files if set(COLUMNS) <= set(list_columns(path) or ())]
    named = [path for path in files if "tsqa" in str(path.relative_to(folder)).lower()]
    if not found and named:
        next(read_rows(named[0], COLUMNS), None)  # says what is wrong, rather than that other data are taken
    return found or None


def load_tsqa(files: list[Path]) -> Dataset:
    """Return all questions of some files, 80 : 10 : 10 with seed 42 for both draws, as OpenTSLM deals them.

    Raises:
        DataError: If a file cannot be read, or there are too few rows.
    """
    samples, dropped = [], 0
    for path in files:
        for number, row in enumerate(read_rows(path, COLUMNS)):
            numbers = parse_numbers(row["Series"])
            question, answer = (" ".join(str(row[name] or "").split()) for name in ("Question", "Answer"))
            if numbers is None or not question or not answer:
                dropped += 1
                continue
            name = "-".join(filter(None, ("TSQA", str(row.get("Task") or "").strip().replace(" ", "_"))))
            frame = build_question_frame(question)
            samples.append(
                Sample(f"{name}-{number}", frame, numbers[None], "question", answer, target=f" Answer: {answer}")
            )
    if len(samples) < 4:
        names = ", ".join(map(str, files))
        raise DataError(f"{names}: expected at least 4 rows with question, answer and numbers, found {len(samples)}")
    places = split_rows(len(samples), (42, 42))
    splits = {split: [samples[at] for at in places[split]] for split in SPLITS}
    origin = f"{', '.join(map(str, files))}{describe_dropped(dropped, 'question, answer or numbers')}"
    return Dataset("TSQA", splits, True, origin)
