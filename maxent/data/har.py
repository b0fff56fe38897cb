"""Human activities from accelerometers: OpenTSLM's har_cot_{train,val,test}_cot.csv, or a UCI HAR Dataset folder.

UCI HAR: Anguita et al. 2013, https://archive.ics.uci.edu/dataset/240; 128 readings at 50 Hz, in g, six activities.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maxent.data.files import describe_dropped, parse_numbers, read_rows
from maxent.data.prompts import ACTIVITIES, ACTIVITY_FRAME, normalise_label, parse_answer
from maxent.data.sample import SPLITS, DataError, Dataset, Sample

WANTED = "har_cot_{train,val,test}_cot.csv, or a folder `UCI HAR Dataset` with train/ and test/"
SOURCE = "https://github.com/StanfordBDHG/OpenTSLM and https://archive.ics.uci.edu/dataset/240 have them"

_CSV = {"train": "train", "valid": "val", "test": "test"}
_AXES = ("x", "y", "z")
_UCI_NAMES = {"laying": "lying", "walking_upstairs": "walking_up", "walking_downstairs": "walking_down"}


def find_har(folder: Path) -> Path | None:
    """Return the folder below a folder, in any depth, that holds either form; OpenTSLM's is taken before UCI's.

    Raises:
        DataError: If one is there in part, or twice.
    """
    places = sorted({path.parent for path in folder.rglob("har_cot_*_cot.csv")})
    for place in places:
        for name in _CSV.values():
            if not (path := place / f"har_cot_{name}_cot.csv").is_file():
                raise DataError(f"{path}: expected beside the others, found nothing; {SOURCE}")
    uci = [path.parent.parent for path in sorted(folder.rglob("train/y_train.txt"))]
    found = places or uci
    if len(found) > 1:
        raise DataError(f"{folder}: expected one copy of HAR, found {', '.join(map(str, found))}; leave one there")
    return found[0] if found else None


def load_har(folder: Path) -> Dataset:
    """Return the samples of a folder that `find_har` has found, in the splits that are given.

    UCI's has no validation split: a tenth of its training rows, drawn with seed 42, becomes it.

    Raises:
        DataError: If a file cannot be read, or an activity is none of `ACTIVITIES`.
    """
    splits, dropped = _load_csv(folder) if (folder / "har_cot_train_cot.csv").is_file() else (_load_uci(folder), 0)
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"{folder}: expected samples in each split, found none in {split}")
    used = {sample.label for samples in splits.values() for sample in samples}
    labels = tuple(label for label in ACTIVITIES if label in used)
    return Dataset("HAR", splits, True, f"{folder}{describe_dropped(dropped, 'three finite axes')}", labels)


def _load_csv(folder: Path) -> tuple[dict[str, list[Sample]], int]:
    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    dropped = 0
    for split, name in _CSV.items():
        path = folder / f"har_cot_{name}_cot.csv"
        for number, row in enumerate(read_rows(path, (*(f"{axis}_axis" for axis in _AXES), "label"))):
            axes = [parse_numbers(row[f"{axis}_axis"]) for axis in _AXES]
            if any(axis is None for axis in axes) or len({len(axis) for axis in axes}) > 1:
                dropped += 1
                continue
            label = _check_label(row["label"], path, number)
            rationale = " ".join((row.get("rationale") or "").split())
            if parse_answer(rationale, ACTIVITIES) != label:
                rationale = f"{rationale} Answer: {label}".strip()
            splits[split].append(
                Sample(f"HAR-{split}-{number}", ACTIVITY_FRAME, np.stack(axes), "activity", label, f" {rationale}")
            )
    return splits, dropped


def _check_label(label: str, path: Path, number: int) -> str:
    name = normalise_label(label)
    name = _UCI_NAMES.get(name, name)
    if name not in ACTIVITIES:
        raise DataError(f"{path}: row {number + 1}: expected one of {', '.join(ACTIVITIES)}, found {label!r}")
    return name


def _load_uci(folder: Path) -> dict[str, list[Sample]]:
    train, test = (list(_read_uci(folder, split)) for split in ("train", "test"))
    order = np.random.default_rng(42).permutation(len(train)).tolist()
    held = len(train) // 10
    return {"train": [train[at] for at in order[held:]], "valid": [train[at] for at in order[:held]], "test": test}


def _read_uci(folder: Path, split: str) -> Iterator[Sample]:
    """Yield the samples of `train` or `test`: total acceleration, gravity included, as the CSV files have it."""
    names = {}
    path = folder / "activity_labels.txt"
    for number, line in enumerate(_read_text(path).splitlines()):
        if line.strip():
            code, _, name = line.strip().partition(" ")
            names[code] = _check_label(name, path, number)
    signals = []
    for axis in _AXES:
        path = folder / split / "Inertial Signals" / f"total_acc_{axis}_{split}.txt"
        text = _read_text(path)
        try:
            signals.append(np.array([line.split() for line in text.splitlines()], np.float64))
        except ValueError:
            raise DataError(f"{path}: expected rows of as many numbers each, found something else") from None
    path = folder / split / f"y_{split}.txt"
    codes = _read_text(path).split()
    if len({len(codes), *map(len, signals)}) > 1:
        found = ", ".join(str(len(signal)) for signal in signals)
        raise DataError(f"{path}: expected as many rows as the signals have, found {len(codes)} against {found}")
    for number, (code, *axes) in enumerate(zip(codes, *signals, strict=True)):
        if code not in names:
            raise DataError(f"{path}: row {number + 1}: expected one of {', '.join(names)}, found {code}")
        label = names[code]
        yield Sample(
            f"UCI-{split}-{number}", ACTIVITY_FRAME, np.stack(axes), "activity", label, target=f" Answer: {label}"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected it in a UCI HAR Dataset") from None
