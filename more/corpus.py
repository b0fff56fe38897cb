"""Tokenised documents in memory-mapped files, and the batches that are cut from them.

    corpus = load_corpus(source, tokenizer, "train", cache_dir)
    plan = BatchPlan(corpus, seq_length=256, tokens_per_batch=1024, seed=42)
    inputs, targets = plan.batch(0)                 # (rows, length) each

Every document starts with an end-of-text token and is followed by one: <eot> d1 <eot> d2 <eot>. A window never holds
parts of two documents, and a batch holds windows of one length. So nothing is padded or masked, no token is read or
learned across a border, and every target is learned once an epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from more.data import Source
from more.tokens import Tokenizer, train_tokenizer
from pipeline.command.errors import DataError
from pipeline.command.files import replace_atomically, write_json, write_text

FORMAT = 1


@dataclass(frozen=True)
class Corpus:
    """The documents of one split.

    Attributes:
        tokens: (N,) uint16 or uint32, memory-mapped: <eot> d1 <eot> d2 ... <eot>.
        starts: (documents + 1,) int64, where each document's leading <eot> is; the last is that of the closing <eot>.
    """

    tokens: np.ndarray
    starts: np.ndarray

    def cut(self, seq_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return first token and length of the windows that cover all documents, in order.

        A window of length n at s has inputs s .. s + n - 1 and targets s + 1 .. s + n.
        """
        lengths = np.diff(self.starts)  # (documents,) targets of each: its tokens and the end of text
        counts = -(-lengths // seq_length)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = np.repeat(self.starts[:-1], counts) + offsets * seq_length
        return starts, np.minimum(np.repeat(lengths, counts) - offsets * seq_length, seq_length)

    def document(self, index: int) -> np.ndarray:
        """Return <eot> document <eot>, int64."""
        return self.tokens[self.starts[index] : self.starts[index + 1] + 1].astype(np.int64)


def load_tokenizer(source: Source, cache_dir: str | Path) -> Tokenizer:
    """Return the source's tokenizer; where it has none, one trained on its training text, once."""
    if source.tokenizer is not None:
        return source.tokenizer
    size = source.settings.tokenizer_size
    path = Path(cache_dir) / f"tokenizer-{source.digest[:16]}-{size}.json"
    if path.is_file():
        try:
            return Tokenizer.from_json(path.read_text(encoding="utf-8"))
        except DataError as error:
            raise DataError(f"{path}: {error}; delete it, and it is made again") from None
    tokenizer = train_tokenizer(source.documents("train"), size)
    write_text(path, tokenizer.json)
    return tokenizer


def load_corpus(
    source: Source,
    tokenizer: Tokenizer,
    split: str,
    cache_dir: str | Path,
    announce: Callable[[str], object] = print,
) -> Corpus:
    """Return the tokenised documents of a split, from the cache or tokenised now.

    Files are named by the digests of source and tokenizer, and the index is written last: a tokenisation that was
    interrupted is done again.

    Raises:
        DataError: If there is no document, or a cached file is damaged.
    """
    stem = f"{split}-{source.digest[:16]}-{tokenizer.digest[:16]}"
    tokens_path, index_path = Path(cache_dir) / f"{stem}.bin", Path(cache_dir) / f"{stem}.json"
    starts_path = Path(cache_dir) / f"{stem}.npy"
    if not index_path.is_file():
        announce(f"tokenising the {split} split into {tokens_path}")
        write_corpus(source.documents(split), tokenizer, tokens_path, starts_path, index_path)
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']}")
        tokens = np.memmap(tokens_path, dtype=index["dtype"], mode="r")
        starts = np.load(starts_path)
        if len(tokens) != index["tokens"] or len(starts) != index["documents"] + 1:
            raise ValueError(f"{len(tokens)} tokens, {len(starts) - 1} documents")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index_path}: the tokenised files do not fit ({error}); delete {stem}.*") from None
    return Corpus(tokens, starts)


def write_corpus(
    documents: Iterable[str], tokenizer: Tokenizer, tokens_path: Path, starts_path: Path, index_path: Path
) -> None:
    """Tokenise documents into their files, document by document, each file atomically.

    Raises:
        DataError: If there is no document.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    starts, position = [], 0
    with replace_atomically(tokens_path) as temporary:
        with temporary.open("wb") as out:
            for tokens in tokenizer.encode_batches(documents):
                starts.append(position)
                out.write(np.array([tokenizer.end_token, *tokens], dtype=dtype).tobytes())
                position += 1 + len(tokens)
            starts.append(position)
            out.write(np.array([tokenizer.end_token], dtype=dtype).tobytes())
        if len(starts) == 1:
            raise DataError(f"{tokens_path.name}: expected at least one document, found none")
    with replace_atomically(starts_path) as temporary, temporary.open("wb") as out:
        np.save(out, np.array(starts, dtype=np.int64))
    index = {"format": FORMAT, "dtype": np.dtype(dtype).name, "tokens": position + 1, "documents": len(starts) - 1}
    write_json(index_path, index)


class BatchPlan:
    """Which windows make up which batch, for any number of epochs, by random access.

    Windows of one length are drawn together until `tokens_per_batch` is reached; all is shuffled anew every epoch, by
    (seed, epoch). Batch k is a function of k, hence a resumed run needs to know nothing but k.

    Args:
        corpus: What is learned from.
        seq_length: Longest window, tokens.
        tokens_per_batch: Targets of a batch at most (one window at least).
        seed: Of the order.
    """

    def __init__(self, corpus: Corpus, seq_length: int, tokens_per_batch: int, seed: int) -> None:
        self.corpus, self.seed = corpus, seed
        self._starts, self._lengths = corpus.cut(seq_length)
        self._groups = []
        for length in np.unique(self._lengths):
            self._groups.append((np.flatnonzero(self._lengths == length), max(1, tokens_per_batch // int(length))))
        self.batches_per_epoch = sum(-(-len(windows) // rows) for windows, rows in self._groups)
        self.tokens_per_epoch = int(self._lengths.sum())
        self._epoch, self._order = -1, []

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of batch `number`, counted from 0 over all epochs; int64 (rows, length) each."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        windows = self._order[place]
        length = self._lengths[windows[0]]
        index = self._starts[windows][:, None] + np.arange(length + 1)  # (rows, length + 1)
        taken = self.corpus.tokens[index].astype(np.int64)
        return taken[:, :-1], taken[:, 1:]

    def _draw(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for windows, rows in self._groups:
            shuffled = rng.permutation(windows)
            batches += [shuffled[first : first + rows] for first in range(0, len(shuffled), rows)]
        return [batches[index] for index in rng.permutation(len(batches))]
