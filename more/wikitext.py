"""WikiText as documents, one per article, from its original text files or the hub's parquet files.

    files = find_wikitext(Path("data"))
    name_wikitext(files)                            # "WikiText-103 (1,801,350 training lines)"
    for article in read_articles(files["test"]): ...

WikiText: Merity et al., "Pointer Sentinel Mixture Models", https://arxiv.org/abs/1609.07843.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from more.babi import name_some
from pipeline.command.errors import DataError

REPOSITORY = "Salesforce/wikitext"
HUB_FILES = {
    "train": [f"wikitext-103-raw-v1/train-{part:05d}-of-00002.parquet" for part in range(2)],
    "valid": ["wikitext-103-raw-v1/validation-00000-of-00001.parquet"],
    "test": ["wikitext-103-raw-v1/test-00000-of-00001.parquet"],
}
LINES = {(1_801_350, 3_760, 4_358): "WikiText-103", (36_718, 3_760, 4_358): "WikiText-2"}
"""Lines (rows) of training, validation and test in the whole of each."""

_TITLE = re.compile(r" ?= (?!=).*(?<!=) = ?")
_DECLARED = re.compile(r"wikitext-(2|103)(?:-raw)?(?:-v1)?", re.IGNORECASE)
_SHARD = re.compile(r"(train|validation|test)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet")


# ------------------------------------------------------------------------------------------------- which files they are


@dataclass(frozen=True)
class _Copy:
    """One copy of WikiText.

    Attributes:
        files: By split.
        lines: Of training, validation and test.
        declared: What the folder's name says it is, or None.
        raw: Whether rare words are there, which the other form writes as `<unk>`.
    """

    files: Mapping[str, list[Path]]
    lines: tuple[int, ...]
    declared: str | None
    raw: bool

    @property
    def whole(self) -> str | None:
        return LINES.get(self.lines)

    @property
    def name(self) -> str:
        rare = "" if self.raw else " with <unk>"
        if self.whole:
            return f"{self.whole}{rare} ({self.lines[0]:,} training lines"
        counted = f"{self.lines[0]:,} training lines, not all of it"
        if self.declared:
            return f"{self.declared}{rare} (by the name of its folder; {counted}"
        return f"WikiText of unknown size{rare} ({self.lines[0]:,} training lines"

    def rank(self) -> tuple[bool, bool, bool]:
        """Return what sorts the copy to be taken first: a whole one, the larger, with its rare words."""
        return (self.whole is None, (self.whole or self.declared) != "WikiText-103", not self.raw)

    def signature(self) -> tuple[object, ...]:
        """Return what two copies of the same text share."""
        return self.lines if self.whole else tuple(p.stat().st_size for paths in self.files.values() for p in paths)


def find_wikitext(folder: Path, say: Callable[[str], object] = lambda _: None) -> dict[str, list[Path]] | None:
    """Return the files of the splits train, valid and test below a folder, or None unless all three are there.

    Looks for `wiki.train.raw` (or `.tokens`) with its siblings and for parquet files named as on the hub that have the
    one column `text` and as many rows as WikiText, or lie in a folder that is named as the hub's configurations are
    (`wikitext-103-raw-v1`). Of several the whole is taken before a part, WikiText-103 before WikiText-2, text with its
    rare words before text with `<unk>`.

    Args:
        folder: Looked through in any depth; what it is called itself, and where it lies, does not matter.
        say: Called with a line on what was chosen of several, and on parquet files that are something else.

    Raises:
        DataError: If files that are named as WikiText cannot be read, or of several parts none is to be preferred.
    """
    folder = folder.resolve()
    copies, others = _list_texts(folder), []
    for place in sorted({path.parent for path in folder.rglob("train-*-of-*.parquet")}):
        try:
            copies += [_look_into(place)]
        except DataError as error:
            if _DECLARED.fullmatch(place.name) and not copies:
                raise
            others.append(str(error))
    if not copies:
        if others:
            say(f"text: passed over {name_some(others)}")
        return None
    copies.sort(key=_Copy.rank)
    best = copies[0]
    equal = [copy for copy in copies if copy.rank() == best.rank()]
    if len({copy.signature() for copy in equal}) > 1:
        raise DataError(
            f"{folder}: expected one copy of WikiText, found {len(equal)} that differ: "
            f"{name_some([_tell(copy, folder) for copy in equal])}; leave one of them there"
        )
    others = [_tell(copy, folder) for copy in copies[1:]] + others
    if others:
        why = ", the same as others" if len(equal) > 1 else ", the fullest" if len(copies) > 1 else ""
        say(f"text: {_tell(best, folder)} taken{why}; passed over {name_some(others)}")
    return dict(best.files)


def name_wikitext(files: Mapping[str, Sequence[Path]]) -> str:
    """Return what the files of `find_wikitext` are, by their content, and what it was recognised by."""
    return _measure(files).name + ")"


def _tell(copy: _Copy, folder: Path) -> str:
    return f"{copy.files['train'][0].relative_to(folder)}: {copy.name})"


def _list_texts(folder: Path) -> list[_Copy]:
    found = []
    for first in sorted([*folder.rglob("wiki.train.raw"), *folder.rglob("wiki.train.tokens")]):
        files = {split: [first.with_name(f"wiki.{split}{first.suffix}")] for split in ("train", "valid", "test")}
        if all(paths[0].is_file() for paths in files.values()):
            found.append(_measure(files))
    return found


def _look_into(place: Path) -> _Copy:
    """Return the WikiText that a folder's parquet files hold.

    Raises:
        DataError: If they are something else, not all there, or cannot be read.
    """
    files: dict[str, list[Path]] = {}
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        paths = sorted(place.glob(f"{name}-*.parquet"))
        shards = [(path, match) for path in paths if (match := _SHARD.fullmatch(path.name))]
        wanted = {int(match.group(3)) for _, match in shards}
        if len(wanted) != 1 or [int(match.group(2)) for _, match in shards] != list(range(*wanted)):
            listed = name_some([path.name for path, _ in shards]) or "none"
            raise DataError(f"{place}: expected all parts of {name}-00000-of-NNNNN.parquet, found {listed}")
        files[split] = [path for path, _ in shards]
    for path in (path for paths in files.values() for path in paths):
        columns, _ = read_parquet_form(path)
        if list(columns) != ["text"] or not _is_text(columns["text"]):
            found = ", ".join(f"{name}: {kind}" for name, kind in columns.items())
            raise DataError(f"{path}: expected the one column text, of strings, found {found or 'none'}")
    copy = _measure(files)
    if not (copy.whole or copy.declared):
        counted = ", ".join(f"{count:,}" for count in copy.lines)
        raise DataError(f"{place}: expected WikiText's numbers of rows or its name (wikitext-...-v1), found {counted}")
    return copy


def _measure(files: Mapping[str, Sequence[Path]]) -> _Copy:
    files = {split: list(paths) for split, paths in files.items()}
    check_not_empty(files)
    lines = tuple(sum(map(_count_lines, paths)) for paths in files.values())
    # Not resolved: in the hub's cache files are links to others, named by their digests.
    declared = _DECLARED.fullmatch(files["train"][0].absolute().parent.name)
    raw = not any("<unk>" in line for line in _read_lines(files["test"]))
    return _Copy(files, lines, f"WikiText-{declared.group(1)}" if declared else None, raw)


def _count_lines(path: Path) -> int:
    if path.suffix == ".parquet":
        return read_parquet_form(path)[1]
    count, last = 0, b"\n"
    try:
        with path.open("rb") as handle:
            while block := handle.read(2**20):
                count += block.count(b"\n")
                last = block[-1:]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return count + (last != b"\n")


# -------------------------------------------------------------------------------------------------------------- reading


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


def check_not_empty(files: Mapping[str, Sequence[Path]]) -> None:
    """Refuse a split without any text, as an interrupted copy leaves it.

    Raises:
        DataError: If there is one.
    """
    for paths in files.values():
        if not any(line.strip() for line in _read_lines(paths)):
            raise DataError(
                f"{name_some([str(p) for p in paths])}: expected WikiText's articles, found no text; get it again"
            )


def _read_lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
            continue
        try:
            with path.open(encoding="utf-8-sig") as lines:
                for line in lines:
                    yield line.rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as text ({error})") from None


def _read_parquet(path: Path) -> Iterator[str]:
    columns, _ = read_parquet_form(path)
    if not _is_text(columns.get("text", "")):
        raise DataError(f"{path}: expected a column text, of strings, found {', '.join(columns) or 'none'}")
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["text"]):
            yield from take_lines(path, batch.column(0).to_pylist())
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from None


def take_lines(path: Path, rows: Iterable[str | None]) -> Iterator[str]:
    """Yield rows of a column of text as lines.

    Raises:
        DataError: If one is null: WikiText has an empty text where it has nothing, so something was lost.
    """
    before = "(the file's start)"
    for row in rows:
        if row is None:
            raise DataError(
                f"{path}: expected text in every row of the column text, found a null after {before[:60]!r}; WikiText "
                "has none, get the file again"
            )
        before = row.strip() or before
        yield row.rstrip("\n")


def read_parquet_form(path: Path) -> tuple[dict[str, str], int]:
    """Return a parquet file's columns with their types in words, and its number of rows; no row is read.

    Raises:
        DataError: If it cannot be read, or the reader is not installed.
    """
    check_parquet(path)
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return {field.name: str(field.type) for field in file.schema_arrow}, file.metadata.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from None


def _is_text(kind: str) -> bool:
    return kind in ("string", "large_string", "string_view") or kind.startswith("dictionary<values=string")


def check_parquet(path: Path | str) -> None:
    """Raise DataError where the reader of parquet files is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{path}: parquet files need pyarrow, which requirements.txt names and this Python lacks (pip install "
            "pyarrow); text files wiki.*.raw do not"
        )
