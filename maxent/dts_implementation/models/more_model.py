"""A language model of `more/` as a `SequenceModel`.

    model = load_more("more/checkpoints/more_a_rec4/final_model.pth")

The experts' own attention keeps streams by expert, which no mask over columns could restrict: so each branch of a wave
is a sequence of a batch of its own, forked from the prompt's cache. The prompt is read once. A prefix that a wave goes
on from is read again together with the first token that continues it (`cost.recomputed`), all of them as one ragged
chunk; from there on each token is fed once.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maxent.data.sample import DataError
from maxent.dts_implementation.models.network import memory_errors
from maxent.dts_implementation.models.sequence_model import Cost
from more.babi import Question
from more.checkpoints import load_model
from more.generation import pad
from more.model import Cache, MoreModel
from more.report import reopen_source
from more.stories import SPLITS
from more.tokens import Tokenizer


def fork_cache(cache: Cache, rows: Tensor) -> Cache:
    """Return a cache of the given sequences (indices) of another, one perhaps several times; both can be added to.

    Parts are copied shallowly, and `select` gives each of the copies tensors of its own: so nothing is copied twice.
    """
    forked = copy.copy(cache)
    forked.attention = [copy.copy(kept) for kept in cache.attention]
    forked.experts = [copy.copy(kept) for kept in cache.experts]
    for kept in forked.experts:
        if kept is not None:
            kept.steps = [copy.copy(step) for step in kept.steps]
    forked.select(rows)
    return forked


@dataclass
class Branches:
    """Sequences that are read on together.

    Attributes:
        cache: Theirs.
        ends: The column that each has come to.
    """

    cache: Cache
    ends: list[int]


class MoreSequenceModel:
    """A `SequenceModel` of any of the five variants.

    Prompts are text or token numbers. The end-of-text token, which starts every document, ends an answer.

    Args:
        model: In evaluation mode from now on.
        tokenizer: That it was trained with; None takes token numbers only, decodes to them, and has no token that ends
            an answer.
        num_recurrences: r of all passes; None is the config's.
        one_line: A token with a line break ends an answer as well, as it ends that of a question in training.

    Attributes:
        cost: See `SequenceModel`.
        eos: See `SequenceModel`.
    """

    def __init__(
        self,
        model: MoreModel,
        tokenizer: Tokenizer | None = None,
        *,
        num_recurrences: int | None = None,
        one_line: bool = False,
    ) -> None:
        self.cost = Cost()
        self.eos: frozenset[int] = frozenset()
        if tokenizer is not None:
            pieces = tokenizer.pieces(range(tokenizer.vocab_size)) if one_line else []
            breaks = (token for token, piece in enumerate(pieces) if "\n" in piece)
            self.eos = frozenset({tokenizer.end_token, *breaks})
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._num_recurrences = num_recurrences
        self._length = 0

    @property
    def limit(self) -> int | None:
        """See `SequenceModel`: what the trained length leaves beside the prompt."""
        return self._model.config.max_length - self._length

    @property
    def num_recurrences(self) -> int | None:
        """Steps of its experts, r; None for `base`, in which nothing recurs."""
        config = self._model.config
        return None if config.model_type == "base" else self._num_recurrences or config.num_recurrences

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Return its weights by name."""
        return self._model.state_dict()

    def count_tokens(self, prompt: str) -> int:
        """Return how many tokens a text is as a prompt, if there is a tokenizer."""
        return 1 + len(self._tokenizer.encode(prompt))

    @torch.no_grad()
    def start(self, prompt: Any) -> np.ndarray:
        """See `SequenceModel`.

        Args:
            prompt: Text, which the end-of-text token is put before as in training, or token numbers as they are.

        Raises:
            ValueError: If it is empty or longer than the trained length.
        """
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise ValueError("prompt: text needs a tokenizer, and this model was given none; pass token numbers")
            prompt = [self._tokenizer.end_token, *self._tokenizer.encode(prompt)]
        tokens, _ = pad([prompt], self._model, "prompt")
        longest = self._model.config.max_length
        if tokens.shape[1] > longest:
            raise ValueError(f"prompt: expected at most {longest} tokens, found {tokens.shape[1]}; shorten it")
        self._length = tokens.shape[1]
        self._prompt = Cache(self._model, 1, longest, self._num_recurrences)
        features, _, _ = self._model.compute_features(tokens, cache=self._prompt)
        self._prefixes: list[tuple[int, ...]] = [()]  # by column
        self._branches: list[Branches] = []
        self.cost = Cost(prefill=self._length, forwards=1)
        return self._compute_logits(features[:, -1])[0]

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`; what a wave goes on from is read again when it is continued."""

    @torch.no_grad()
    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`.

        Rows that continue an end of a group of branches go on with it, and its other branches are let go; they would be
        read again from the prompt on, as is whatever else a row continues.
        """
        prefixes = [(*self._prefixes[node], int(token)) for token, node in zip(tokens, nodes, strict=True)]
        count = len(self._prefixes)
        found: list[np.ndarray | None] = [None] * len(prefixes)
        recomputed = forwards = 0
        for branches, rows in self._group(nodes):
            try:
                with memory_errors(f"{len(rows)} answers at once"):
                    logits, again = self._read(branches, rows, nodes, prefixes)
            except BaseException:
                self._branches = []  # they have read on, to columns that there will not be
                raise
            branches.ends = [count + row for row in rows]
            forwards += 1
            recomputed += again
            for row, one in zip(rows, logits, strict=True):
                found[row] = one
        self._prefixes += prefixes
        self.cost.new += len(prefixes)
        self.cost.recomputed += recomputed
        self.cost.forwards += forwards
        return np.stack(found)

    def close(self) -> None:
        """See `SequenceModel`; the prompt's cache alone is kept."""
        self._branches = []

    def decode(self, tokens: Sequence[int]) -> str:
        """See `SequenceModel`; without a tokenizer, the numbers."""
        tokens = [token for token in tokens if token not in self.eos]
        return " ".join(map(str, tokens)) if self._tokenizer is None else self._tokenizer.decode(tokens)

    def _group(self, nodes: Sequence[int]) -> list[tuple[Branches, list[int]]]:
        """Return rows by the branches that they go on with, new ones, without ends, for those that have none."""
        at = {end: index for index, branches in enumerate(self._branches) for end in branches.ends}
        groups: dict[int, list[int]] = {}
        for row, node in enumerate(nodes):
            groups.setdefault(at.get(node, -1), []).append(row)
        if -1 in groups:
            self._branches.append(Branches(self._prompt, []))
        return [(self._branches[index], rows) for index, rows in groups.items()]

    def _read(
        self, branches: Branches, rows: list[int], nodes: Sequence[int], prefixes: Sequence[tuple[int, ...]]
    ) -> tuple[np.ndarray, int]:
        """Feed rows to their branches; return logits (rows, vocabulary) and how many tokens had been fed before."""
        if branches.ends:
            chosen = [branches.ends.index(nodes[row]) for row in rows]
            if chosen != list(range(len(branches.ends))):
                branches.cache.select(torch.tensor(chosen, device=branches.cache.lengths.device))
            tokens, _ = pad([prefixes[row][-1:] for row in rows], self._model)
            features, _, _ = self._model.compute_features(tokens, cache=branches.cache)
            return self._compute_logits(features[:, 0]), 0
        tokens, lengths = pad([prefixes[row] for row in rows], self._model)
        branches.cache = fork_cache(self._prompt, torch.zeros_like(lengths))
        features, _, _ = self._model.compute_features(tokens, lengths=lengths, cache=branches.cache)
        features = features[torch.arange(len(rows), device=lengths.device), lengths - 1]
        return self._compute_logits(features), int(lengths.sum()) - len(rows)

    def _compute_logits(self, features: Tensor) -> np.ndarray:
        """Return (rows, vocabulary), float32."""
        return self._model.compute_logits(features).float().cpu().numpy()


def load_more(path: str | Path, device: torch.device | str = "cpu", **options: Any) -> MoreSequenceModel:
    """Return the model of a checkpoint with its tokenizer.

    Args:
        path: Of the file.
        device: Where it runs.
        options: As of `MoreSequenceModel`.

    Raises:
        CheckpointError: If the file is no usable checkpoint.
    """
    loaded = load_model(path, device)
    return MoreSequenceModel(loaded.model, loaded.tokenizer, **options)


@dataclass(frozen=True)
class KnownQuestions:
    """What a checkpoint's training dealt into splits.

    Attributes:
        splits: train, valid, test -> pairs of prompt and answer, as training tells them. No split has one of another.
        real: They are bAbI's own.
        origin: What they are, in words.
    """

    splits: Mapping[str, Sequence[tuple[str, str]]]
    real: bool
    origin: str


def read_questions(path: str | Path, kind: str, data_dir: str | None = None) -> KnownQuestions:
    """Return the questions that the training of a checkpoint knew, and those that it held out.

    Args:
        path: Of the checkpoint.
        kind: `sums`, or `stories`: those of tasks 1, 2 and 3 in turn.
        data_dir: Where files of the training lie now; None: where they lay.

    Raises:
        CheckpointError: If the file is no usable checkpoint.
        DataError: If the data are not told, cannot be had any more, or are others now (of `more.babi`).
    """
    loaded = load_model(path)
    if not {"text", "questions", "tokenizer", "settings", "digest"} <= set(loaded.data):
        raise DataError("its training has not noted which data it took")
    embedded = loaded.data["questions"].startswith("embedded")
    source = reopen_source(loaded, None if embedded else data_dir, quiet=True)

    def choose(split: str) -> list[Question]:
        if kind == "sums":
            return source.sums(split)
        tasks = source.questions(split).values()
        return [one for round_ in itertools.zip_longest(*tasks) for one in round_ if one is not None]

    splits = {split: [(one.prompt(), one.answer) for one in choose(split)] for split in SPLITS}
    origin = "embedded" if kind == "sums" else loaded.data["questions"]
    return KnownQuestions(splits, kind == "stories" and not embedded, f"{origin}, split as in the training of {path}")
