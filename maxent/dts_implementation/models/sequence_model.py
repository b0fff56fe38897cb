"""What a search needs of a model, the prior it draws from, and the account of what was computed.

A search speaks to a model through `SequenceModel` alone. Prefixes are named by **columns**: 0 is the prompt, and each
token that `step` is fed gets the next number, in the order of the rows. So a model never sees the search's tree, and
one key/value column for each distinct prefix is all that it has to keep:

    logits = model.start(prompt)            # columns: 0
    model.open([()])                        # a wave from the prompt
    model.step([7, 4], [0, 0])              # two branches: columns 1 and 2
    model.step([5], [2])                    # prompt, 4, 5: column 3
    model.close()
    model.open([(2, 3), (1,)])              # a later wave goes on from two of them
    model.step([9, 9], [3, 1])              # columns 4 and 5
    model.close()
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np


@dataclass
class Cost:
    """What was computed since a prompt was started. Equal for all methods, so that they can be compared.

    Attributes:
        prefill: Tokens of the prompt.
        new: Tokens fed to `step`: one for each distinct prefix that was ever continued.
        recomputed: Tokens fed once more, because their columns had been dropped or are not kept at all.
        reused: Tokens of answers that were found in the tree, which sampling each answer alone would have fed again.
        forwards: Calls of the network; the prompt's is one.
        reward_calls: Distinct answers that were rewarded.
        seconds: Wall-clock time of the search.

    A model counts the first three and `forwards`; the search counts the rest.
    """

    prefill: int = 0
    new: int = 0
    recomputed: int = 0
    reused: int = 0
    forwards: int = 0
    reward_calls: int = 0
    seconds: float = 0.0


class SequenceModel(Protocol):
    """An autoregressive model that many answers to one prompt are drawn from; the module's docstring shows a session.

    Logits are numpy arrays of any floating type, (vocabulary,) from `start` and (rows, vocabulary) from `step`; -inf
    rules a token out. A row that is -inf everywhere says that the answer has ended with the token just fed: so a
    simulator tells that an episode is over. A language model has no need of it, since tokens of `eos` are never fed.

    Attributes:
        cost: The account since the last `start`, which makes a new one. `step` adds to `new`, `recomputed`, `forwards`.
    """

    cost: Cost

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end an answer; may be empty."""
        ...

    @property
    def limit(self) -> int | None:
        """The most *new* tokens that fit after the prompt that was started, None without bound."""
        ...

    def start(self, prompt: Any) -> np.ndarray:
        """Forget everything, read a prompt, of the kinds that the model knows, and return the logits after it."""
        ...

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """Begin a wave that goes on from given prefixes.

        Until `close`, `step` names only columns of these paths, the prompt, and columns made since.

        Args:
            paths: Distinct prefixes, each as all its columns after the prompt, from the first token on: () is the
                prompt itself. A model that has dropped one of the columns computes it again (`cost.recomputed`); how
                often a column has been named here tells it which ones are worth keeping.
        """
        ...

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """Feed one token for each of some distinct new prefixes and return the logits after each, (rows, vocabulary).

        Row i becomes the next column in order. Rows may have different depths; none continues another row of this call.
        What nothing follows is never fed: tokens of `eos`, and the last token of an answer cut at the length limit.

        Args:
            tokens: One for each row.
            nodes: The column that each continues.

        Raises:
            MemoryError: If so many rows do not fit; nothing has changed then, and the search asks again for fewer.
        """
        ...

    def close(self) -> None:
        """End the wave; its new columns are kept."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return an answer as text, without the special tokens."""
        ...


# ------------------------------------------------------------------------------------------------------------ the prior


UNREACHABLE = 1e-300
"""Probability, relative to the most probable token, under which a token is cut away: sums must never be 0."""


class Distribution(NamedTuple):
    """A sparse distribution over the next token; n tokens, in falling order of probability.

    Attributes:
        ids: (n,) int64, the tokens.
        log_probs: (n,) float64, nats, normalised over these.
        cumulative: (n,) float64, running sum of the probabilities; the last one is 1.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    cumulative: np.ndarray


@dataclass(frozen=True)
class Prior:
    """The prior of a search: a model's distribution after temperature, then top-k, then top-p, renormalised each time.

    It is one distribution for growing the tree, for rollouts and for weights alike; what it cuts away does not exist.

    Attributes:
        temperature: Divides the logits; above 0.
        top_k: Keeps the k most probable tokens, None all.
        top_p: Keeps the fewest most probable tokens that together reach this probability, in (0, 1].

    Raises:
        ValueError: If a setting is out of range; it names the setting.
    """

    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"prior_temperature: expected a number above 0, found {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: expected at least 1, or none, found {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number above 0 and up to 1, found {self.top_p}")

    def compute_distributions(self, logits: np.ndarray) -> list[Distribution | None]:
        """Return the distribution of each row of logits (rows, vocabulary), None where all are -inf.

        Ties are ordered by token. float64 whatever the logits are.

        Raises:
            ValueError: If a logit is NaN or +inf.
        """
        size = logits.shape[1]
        if not (logits < np.inf).all():  # false for NaN too
            raise ValueError("logits: the model gave NaN or +inf; try --dtype float32")
        if self.top_k is not None and self.top_k < size:
            ids = np.sort(np.argpartition(logits, size - self.top_k, axis=1)[:, size - self.top_k :], axis=1)
            scores = np.take_along_axis(logits, ids, axis=1).astype(np.float64)
            order = np.argsort(-scores, axis=1, kind="stable")
            ids = np.take_along_axis(ids, order, axis=1)
        else:
            scores = logits.astype(np.float64)
            ids = order = np.argsort(-scores, axis=1, kind="stable")
        scores = np.take_along_axis(scores, order, axis=1)
        ended = scores[:, 0] == -np.inf
        scores[ended] = 0.0
        log_probs = (scores - scores[:, :1]) / self.temperature
        probs = np.exp(log_probs)
        ahead = np.cumsum(probs / probs.sum(axis=1, keepdims=True), axis=1)[:, :-1]  # of each token but the first
        keep = 1 + ((ahead < self.top_p) | (self.top_p == 1)).sum(axis=1, where=probs[:, 1:] >= UNREACHABLE)
        cumulative = np.cumsum(probs, axis=1)
        totals = np.take_along_axis(cumulative, keep[:, None] - 1, axis=1)
        log_probs -= np.log(totals)
        cumulative /= totals
        return [
            None if over else Distribution(ids[row, :count], log_probs[row, :count], cumulative[row, :count])
            for row, (over, count) in enumerate(zip(ended.tolist(), keep.tolist(), strict=True))
        ]


# ---------------------------------------------------------------------------------------------------------------- a toy


class ToyModel:
    """A model of a few tokens whose logits are drawn anew for each prefix: small enough to enumerate.

    Args:
        vocab_size: Number of tokens, 2 to 26; they decode to letters.
        eos: The token that ends an answer; None has none, so that every answer has the full length.
        scale: Standard deviation of the logits, nats; 0 makes all tokens equally probable.
        seed: Another seed, another model; so is it with another prompt, which is text.

    Raises:
        ValueError: If `vocab_size` or `eos` is out of range.
    """

    def __init__(self, vocab_size: int = 5, *, eos: int | None = 0, scale: float = 1.0, seed: int = 0) -> None:
        if not 2 <= vocab_size <= 26:
            raise ValueError(f"vocab_size: expected 2 to 26, found {vocab_size}")
        if eos is not None and not 0 <= eos < vocab_size:
            raise ValueError(f"eos: expected one of the {vocab_size} tokens, found {eos}")
        self.vocab_size = vocab_size
        self.eos = frozenset() if eos is None else frozenset({eos})
        self.limit: int | None = None
        self.cost = Cost()
        self._scale = scale
        self._seed = seed
        self._logits: dict[tuple[int, ...], np.ndarray] = {}
        self._origin: tuple[int, ...] = ()
        self._prefixes: list[tuple[int, ...]] = []

    def start(self, prompt: str = "") -> np.ndarray:
        """See `SequenceModel`; each character of the prompt counts as a token."""
        self._origin = (self._seed, zlib.crc32(prompt.encode()))
        self._prefixes = [()]
        self.cost = Cost(prefill=len(prompt), forwards=1)
        return self._compute_logits(())

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`; every prefix is always at hand."""

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`."""
        fed = [(*self._prefixes[node], int(token)) for token, node in zip(tokens, nodes, strict=True)]
        self._prefixes += fed
        self.cost.new += len(fed)
        self.cost.forwards += 1
        return np.stack([self._compute_logits(prefix) for prefix in fed])

    def close(self) -> None:
        """See `SequenceModel`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """See `SequenceModel`."""
        return "".join(chr(ord("a") + token) for token in tokens if token not in self.eos)

    def _compute_logits(self, prefix: tuple[int, ...]) -> np.ndarray:
        """Return the logits after a prefix, (vocab_size,)."""
        key = (*self._origin, len(prefix), *prefix)  # with the length: numpy pads what seeds it with zeros
        if key not in self._logits:
            self._logits[key] = self._scale * np.random.default_rng(key).standard_normal(self.vocab_size)
        return self._logits[key]


def enumerate_answers(
    model: SequenceModel, prompt: Any, prior: Prior, max_tokens: int
) -> list[tuple[tuple[int, ...], float]]:
    """Return every answer of at most `max_tokens` tokens and its log-probability, nats: a partition of all there is.

    For models small enough; the number of answers grows as vocabulary ** `max_tokens`.
    """
    (first,) = prior.compute_distributions(model.start(prompt)[None])
    answers: list[tuple[tuple[int, ...], float]] = []
    level = [((), 0.0, 0, first)]  # tokens, log-probability, column, distribution
    columns = 1
    model.open([()])
    for depth in range(1, max_tokens + 1):
        longer = []
        for tokens, log_p, column, distribution in level:
            for token, step in zip(distribution.ids.tolist(), distribution.log_probs.tolist(), strict=True):
                answer = ((*tokens, token), log_p + step)
                if token in model.eos or depth == max_tokens:
                    answers.append(answer)
                else:
                    longer.append((*answer, column))
        level = []
        if longer:
            logits = model.step([tokens[-1] for tokens, _, _ in longer], [parent for _, _, parent in longer])
            for (tokens, log_p, _), distribution in zip(longer, prior.compute_distributions(logits), strict=True):
                if distribution is None:
                    answers.append((tokens, log_p))
                else:
                    level.append((tokens, log_p, columns, distribution))
                columns += 1
    model.close()
    return answers
