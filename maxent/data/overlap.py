"""How much of a reference a text shares: corpus BLEU-4 and ROUGE-L, on words in lower case."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Return the words, numbers and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.lower())


def compute_bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU-4 of texts and as many references; see `compute_bleu_of_counts`."""
    return compute_bleu_of_counts(count_bleu(texts, references).sum(axis=0))


def count_bleu(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return what BLEU is computed from, int64 (texts, 10), to be summed over any part of a corpus.

    Columns: matching n-grams of 1 to 4 words, n-grams of 1 to 4 words, words, words of the reference.
    """
    rows = []
    for text, reference in zip(texts, references, strict=True):
        words, truth = split_words(text), split_words(reference)
        grams = [(count_ngrams(words, order), count_ngrams(truth, order)) for order in (1, 2, 3, 4)]
        matches = [(found & known).total() for found, known in grams]
        rows.append([*matches, *(found.total() for found, _ in grams), len(words), len(truth)])
    return np.array(rows, np.int64).reshape(-1, 10)


def compute_bleu_of_counts(counts: np.ndarray) -> float:
    """Return corpus BLEU-4, in [0, 1], from counts that were summed over the corpus.

    Papineni et al. 2002, one reference each, with the usual brevity penalty. Smoothed as Lin and Och 2004 do: 1 is
    added to matches and to counts of the 2-, 3- and 4-grams, so that a small corpus without a common 4-gram is not 0.
    No common word is still 0.

    Args:
        counts: (10,), a sum of rows of `count_bleu`.
    """
    *rest, length, expected = counts.tolist()
    matches, totals = rest[:4], rest[4:]
    if not matches[0]:
        return 0.0
    logs = [math.log(matches[0] / totals[0])]
    logs += [math.log((matches[order] + 1) / (totals[order] + 1)) for order in (1, 2, 3)]
    return math.exp(sum(logs) / 4 + min(0.0, 1 - expected / length))


def count_ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """Return how often each run of `order` words occurs."""
    return Counter(zip(*(words[at:] for at in range(order)), strict=False))


def compute_rouge_l(text: str, reference: str) -> float:
    """Return ROUGE-L, in [0, 1]: F1 of the longest common subsequence of words (Lin 2004, with beta = 1)."""
    words, truth = split_words(text), split_words(reference)
    if not words or not truth:
        return 0.0
    row = [0] * (len(truth) + 1)
    for word in words:
        diagonal = 0
        for at, expected in enumerate(truth, 1):
            above = row[at]
            row[at] = diagonal + 1 if word == expected else max(above, row[at - 1])
            diagonal = above
    return 2 * row[-1] / (len(words) + len(truth))
