"""WikiText-103 as documents, one per article, from its original text files or the hub's parquet files.

    for article in read_articles(find_wikitext(Path("data"))["test"]): ...

WikiText: Merity et al., "Pointer Sentinel Mixture Models", https://arxiv.org/abs/1609.07843.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from more.babi import DataError

REPOSITORY = "Salesforce/wikitext"
HUB_FILES = {
    "train": [f"wikitext-103-raw-v1/train-{part:05d}-of-00002.parquet" for part in range(2)],
    "valid": ["wikitext-103-raw-v1/validation-00000-of-00001.parquet"],
    "test": ["wikitext-103-raw-v1/test-00000-of-00001.parquet"],
}

_TITLE = re.compile(r" ?= (?!=).*(?<!=) = ?")


def find_wikitext(folder: Path) -> dict[str, list[Path]] | None:
    """Return the files of the splits train, valid and test below a folder, or None unless all three are there.

    Looks for `wiki.train.raw` (or `.tokens`) with its siblings, then for parquet files named as on the hub.
    """
    for first in sorted([*folder.rglob("wiki.train.raw"), *folder.rglob("wiki.train.tokens")]):
        files = {split: [first.with_name(f"wiki.{split}{first.suffix}")] for split in ("train", "valid", "test")}
        if all(paths[0].is_file() for paths in files.values()):
            return files
    for first in sorted(folder.rglob("train-00000-of-*.parquet")):
        names = {"train": "train", "valid": "validation", "test": "test"}
        files = {split: sorted(first.parent.glob(f"{name}-*.parquet")) for split, name in names.items()}
        if "wikitext" in first.as_posix() and all(files.values()):
            return files
    return None


def read_articles(files: Sequence[Path]) -> Iterator[str]:
    """Yield the articles of a split in order.

    An article starts at a title ` = Title = ` between empty lines; ` = = Section = = ` is part of it.

    Raises:
        DataError: If a file cannot be read, or parquet needs a package that is not installed.
    """
    article: list[str] = []
    previous = ""
    for line in _read_lines(files):
        if _TITLE.fullmatch(line) and not previous.strip() and article:
            if text := "\n".join(article).strip():
                yield text + "\n"
            article = []
        if line.strip():
            article.append(line.strip())
        previous = line
    if text := "\n".join(article).strip():
        yield text + "\n"


def _read_lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
            continue
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield line.rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as text ({error})") from None


def _read_parquet(path: Path) -> Iterator[str]:
    check_parquet(path)
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["text"]):
            yield from (line.rstrip("\n") for line in batch.column(0).to_pylist())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: expected a parquet file with a column `text` ({error})") from None


def check_parquet(path: Path | str) -> None:
    """Raise DataError where the reader of parquet files is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"{path}: parquet files need pyarrow (pip install pyarrow); text files wiki.*.raw do not")
