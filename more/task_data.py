"""Generated tasks as data of a run: their vocabulary, what is kept of them in checkpoints, batches.

source = TaskSource(TaskSettings.of("chains"), seed=0)
source.tokenizer.vocab_size, source.plan("train", batch_size=64, seed=1).batch(0)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from more.babi import DataError
from more.tasks import NOT_ASKED, TASK_NAMES, TaskSet, TaskSettings, generate_task
from more.tokens import END_OF_TEXT, Tokenizer

_TWO_PARTS = re.compile(r"(\w*[=@>+])(\w+)")


class Vocabulary:
    """The tokens of a task, one word each, in the place of a `Tokenizer`.

    Args:
        words: Of the tokens in order of their numbers; the end-of-text token is added.

    Attributes:
        json: All that defines it, as text.
        digest: SHA-256 of `json`.
        vocab_size: Tokens known.
        end_token: Id of the end-of-text token, which no sequence of a task holds.
        switched_off: "", see `Tokenizer`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*words, END_OF_TEXT]
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self.json = json.dumps({"words": list(words)})
        self.digest = hashlib.sha256(self.json.encode()).hexdigest()
        self.vocab_size = len(self.words)
        self.end_token = self.vocab_size - 1
        self.switched_off = ""
        self.name = f"own vocabulary, {self.vocab_size:,} tokens"

    def parts(self) -> list[tuple[str, ...]]:
        """Return for each token what it is made of: `x7=x3` of `x7=` and `x3`; most are of one part."""
        return [match.groups() if (match := _TWO_PARTS.fullmatch(word)) else (word,) for word in self.words]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of words that white space parts.

        Raises:
            DataError: If a word is none of the task's.
        """
        words = text.split()
        unknown = [word for word in words if word not in self._numbers]
        if unknown:
            raise DataError(
                f"{unknown[0]!r}: expected words of the task's vocabulary, such as {' '.join(self.words[-4:-1])}"
            )
        return [self._numbers[word] for word in words]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the words of tokens, without the end of text."""
        return " ".join(self.words[token] for token in tokens if token != self.end_token)


def open_tokenizer(text: str) -> Tokenizer | Vocabulary:
    """Return what `json` of a tokenizer or of a vocabulary describes.

    Raises:
        DataError: If the text describes neither.
    """
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict) and set(content) == {"words"}:
        return Vocabulary(content["words"])
    return Tokenizer.from_json(text)


class TaskPlan:
    """Which sequences make up which batch, for any number of epochs, by random access; as `more.corpus.BatchPlan`.

    Args:
        found: Sequences of a split.
        batch_size: Sequences of a batch.
        seed: Of the order.
    """

    def __init__(self, found: TaskSet, batch_size: int, seed: int) -> None:
        self.found, self.batch_size, self.seed = found, batch_size, seed
        self.batches_per_epoch = -(-len(found) // batch_size)
        self.tokens_per_epoch = found.targets.size
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of batch `number`, counted from 0 over all epochs; int64 (rows, length) each."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.found))
        rows = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return self.found.inputs[rows], self.found.targets[rows]


@dataclasses.dataclass(eq=False)
class TaskSource:
    """A generated task as the data of a run, in the place of `more.data.Source`.

    Attributes:
        settings: Of the task.
        seed: Of the data; runs of other seeds learn the same sequences in another order.
    """

    settings: TaskSettings
    seed: int

    @functools.cached_property
    def tokenizer(self) -> Vocabulary:
        """The task's vocabulary."""
        return Vocabulary(self.settings.words())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what determines the sequences."""
        return self.settings.digest(self.seed)

    def plan(self, split: str, batch_size: int, seed: int) -> TaskPlan:
        """Return the batches of a split."""
        return TaskPlan(generate_task(self.settings, split, self.seed), batch_size, seed)

    def describe(self) -> dict[str, Any]:
        """Return what was used, in plain types, as checkpoints keep it."""
        task = dataclasses.asdict(self.settings)
        return {
            "text": f"{self.settings.name} (seed {self.seed})",
            "questions": "at every token of a run",
            "tokenizer": self.tokenizer.name,
            "notes": [],
            "settings": {"data": self.settings.name, "data_seed": self.seed, "task": task},
            "digest": self.digest,
        }

    def announcement(self) -> str:
        """Return the line that says what is used."""
        task = self.settings
        return (
            f"data: {task.name} (seed {self.seed}), {task.num_sequences:,} sequences of {task.total_length} tokens, "
            f"depth 1 to {task.train_depth}, in the test to {task.test_depth}; {self.tokenizer.name}"
        )


def is_task(description: Mapping[str, Any]) -> bool:
    """Return whether the data of a checkpoint is a generated task."""
    return description["settings"].get("data") in TASK_NAMES


def reopen_task(description: Mapping[str, Any]) -> TaskSource:
    """Return the data in what `TaskSource.describe` returned.

    Raises:
        DataError: If this version generates other sequences.
    """
    settings = description["settings"]
    source = TaskSource(TaskSettings(**settings["task"]), settings["data_seed"])
    if source.digest != description["digest"]:
        raise DataError(
            f"the checkpoint was trained on {description['text']} as another version of this project generates it"
        )
    return source


def count_asked(targets: np.ndarray) -> int:
    """Return at how many places of a batch's targets something is asked."""
    return int(np.count_nonzero(targets != NOT_ASKED))
