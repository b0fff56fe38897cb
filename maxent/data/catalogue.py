"""The datasets by name, and where they are taken from: local files, the hub, or what is generated here.

dataset = load_dataset("M4", DataSettings(source="auto"))
print(dataset.describe())       # data: M4, synthetic (why not real; seed 0): 2000 train, 100 valid, 100 test
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maxent.data import har, m4, tsqa
from maxent.data.facts import compute_facts
from maxent.data.prompts import ACTIVITIES, build_question_frame
from maxent.data.sample import SPLITS, DataError, Dataset, Sample
from maxent.data.synthetic import make_activities, make_captions, make_stories, make_sums
from pipeline.command.hub import HubError, fetch

SOURCES = ("auto", "local", "hub", "synthetic")
DEFAULT_PATH = "data"


@dataclass(frozen=True)
class DataSettings:
    """Where data come from.

    Attributes:
        source: `local`, `hub`, `synthetic`; `auto` takes the first of these that there is.
        path: Folder that is looked through; None: `data` in the current folder, from within maxent/ `../data`.
        seed: Of generated data; real splits have their own.
        num_train: Generated training samples.
        num_held_out: Generated samples of validation and test, each.

    Raises:
        DataError: If `source` is none of `SOURCES`, or a number is below 1.
    """

    source: str = "auto"
    path: str | None = None
    seed: int = 0
    num_train: int = 2000
    num_held_out: int = 100

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise DataError(f"data_source: expected one of {', '.join(SOURCES)}, found {self.source!r}")
        for name in ("num_train", "num_held_out"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: expected at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class _Kind:
    """A dataset that can be had.

    Attributes:
        make: (count, split, seed) -> samples that are generated.
        labels: Classes of what is generated.
        find: Folder -> what `load` takes, or None; None for what exists as generated data only.
        load: Of what was found.
        wanted: Files that `find` looks for, and where they are to be had.
        hub: Repository and file.
    """

    make: Callable[[int, str, int], list[Sample]]
    labels: tuple[str, ...] = ()
    find: Callable[[Path], Any] | None = None
    load: Callable[[Any], Dataset] | None = None
    wanted: tuple[str, str] = ("", "")
    hub: tuple[str, str] | None = None


def make_questions(count: int, split: str, seed: int) -> list[Sample]:
    """Return questions on the trend of generated series, in the manner of TSQA."""
    question = "Is the overall trend of the series rising, falling or flat?"
    frame, samples = build_question_frame(question), []
    for caption in make_captions(2 * count + 20, split, seed):
        trend = compute_facts(caption.series[0]).trend
        if trend is not None:
            key = f"TSQA-{split}-{len(samples)}"
            samples.append(Sample(key, frame, caption.series, "question", trend, f" Answer: {trend}"))
    return samples[:count]


DATASETS: dict[str, _Kind] = {
    "M4": _Kind(make_captions, (), m4.find_m4, m4.load_m4, (m4.WANTED, m4.SOURCE)),
    "HAR": _Kind(make_activities, ACTIVITIES, har.find_har, har.load_har, (har.WANTED, har.SOURCE)),
    "TSQA": _Kind(
        make_questions,
        ("rising", "falling", "flat"),
        tsqa.find_tsqa,
        tsqa.load_tsqa,
        (tsqa.WANTED, tsqa.SOURCE),
        (tsqa.REPOSITORY, tsqa.FILE),
    ),
    "sums": _Kind(make_sums),
    "stories": _Kind(make_stories),
}


def load_dataset(name: str, settings: DataSettings) -> Dataset:
    """Return a dataset from where the settings say; `describe` of it says from where that was.

    Files that are there and broken are an error, and never a reason to generate others.

    Raises:
        DataError: If the name is unknown, or the data cannot be had from where they shall come.
    """
    if name not in DATASETS:
        raise DataError(f"dataset: expected one of {', '.join(DATASETS)}, found {name!r}")
    kind = DATASETS[name]
    missing: list[str] = []
    if kind.find is None:
        if settings.source in ("local", "hub"):
            raise DataError(f"{name}: is generated only; use data_source synthetic or auto, not {settings.source}")
        return _generate(name, kind, settings, missing)
    folder = Path(settings.path or DEFAULT_PATH)
    if settings.path is None and folder.resolve() == Path(__file__).resolve().parent:  # this package, and no data
        folder = ".." / folder
    if settings.path is not None and settings.source in ("auto", "local") and not folder.is_dir():
        raise DataError(f"data_path: expected a folder, found {'a file' if folder.exists() else 'nothing'} at {folder}")
    if settings.source in ("auto", "local"):
        if folder.is_dir() and (found := kind.find(folder)) is not None:
            return kind.load(found)
        missing.append(f"no {kind.wanted[0]} below {folder}")
    if settings.source in ("auto", "hub"):
        if kind.hub is None:
            missing.append("not on the hub")
        else:
            try:
                return kind.load(fetch(kind.hub[0], [kind.hub[1]], kind="dataset"))
            except HubError as error:
                missing.append(f"hub: {error}")
    if settings.source in ("local", "hub"):
        raise DataError(f"{name}: {'; '.join(missing)}; {kind.wanted[1]}, or use data_source synthetic")
    return _generate(name, kind, settings, missing)


def _generate(name: str, kind: _Kind, settings: DataSettings, missing: list[str]) -> Dataset:
    counts = {split: settings.num_train if split == "train" else settings.num_held_out for split in SPLITS}
    if name == "sums":  # of which there are not so many
        counts = {split: min(count, {"train": 720, "valid": 45, "test": 135}[split]) for split, count in counts.items()}
    splits = {split: kind.make(count, split, settings.seed) for split, count in counts.items()}
    return Dataset(name, splits, False, "; ".join([*missing, f"seed {settings.seed}"]), kind.labels)
