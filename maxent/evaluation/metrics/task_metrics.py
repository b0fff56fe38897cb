"""How good answers are: classes against classes, texts against texts. Samples are the unit.

    scores = score_classes(predicted, truth, labels)      # accuracy, macro_f1, micro_f1, kappa, answered
    scores = score_texts(captions, references)            # bleu_4, rouge_l

What is predicted is parsed from generated text only, by `maxent.data.prompts.parse_answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maxent.data.overlap import compute_bleu_of_counts, compute_rouge_l, count_bleu
from maxent.data.prompts import is_right, normalise_label, parse_answer, read_line
from maxent.data.sample import Sample
from maxent.evaluation.metrics.intervals import Interval, bootstrap


@dataclass(frozen=True, eq=False)
class Confusion:
    """What was answered for what.

    Attributes:
        labels: Classes.
        counts: int64 (classes, classes + 1): rows are true, columns are answered, the last one holds what was no label.
    """

    labels: tuple[str, ...]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right answers; no label is wrong."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def answered(self) -> float:
        """Share of answers that are labels at all."""
        return float(self.counts[:, :-1].sum() / self.counts.sum())

    @property
    def f1(self) -> np.ndarray:
        """F1 of each class, float64 (classes,), 2 hits / (true + answered); NaN for a class that is in neither."""
        hits = np.diagonal(self.counts)
        both = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0)
        return np.divide(2.0 * hits, both, out=np.full(len(self.labels), np.nan), where=both > 0)

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over the classes that occur; each counts the same, however rare."""
        return float(np.nanmean(self.f1))

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together: the accuracy if every answer is a label, more than it otherwise."""
        return float(2 * np.trace(self.counts) / (self.counts.sum() + self.counts[:, :-1].sum()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa, no label being an answer of its own; NaN if one label is all there is."""
        total = self.counts.sum()
        chance = float(self.counts.sum(axis=1) @ self.counts[:, :-1].sum(axis=0)) / total**2
        return (self.accuracy - chance) / (1 - chance) if chance < 1 else float("nan")


def count_confusion(predicted: Sequence[str | None], truth: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Return the confusion matrix.

    Args:
        predicted: Labels; None, or anything that is no label, is no answer.
        truth: As many labels.
        labels: All classes.

    Raises:
        ValueError: If there is nothing to count, the lengths differ, or a true label is no class.
    """
    if not truth or len(predicted) != len(truth):
        raise ValueError(f"expected as many predictions as true labels, found {len(predicted)} and {len(truth)}")
    order = {label: at for at, label in enumerate(labels)}
    if unknown := sorted(set(truth) - set(order)):
        raise ValueError(f"expected true labels among {', '.join(labels)}, found {', '.join(unknown)}")
    counts = np.zeros((len(labels), len(labels) + 1), np.int64)
    for said, true in zip(predicted, truth, strict=True):
        counts[order[true], order.get(said, len(labels))] += 1
    return Confusion(tuple(labels), counts)


def score_classes(predicted: Sequence[str | None], truth: Sequence[str], labels: Sequence[str]) -> dict[str, Interval]:
    """Return the metrics of a classification by name, each with a bootstrap interval over samples.

    Args:
        predicted: See `count_confusion`, which also raises.
        truth: Likewise.
        labels: Likewise.
    """
    count_confusion(predicted, truth, labels)  # raises before anything is drawn
    said, true = np.array(predicted, object), np.array(truth, object)

    def compute(rows: np.ndarray) -> list[float]:
        confusion = count_confusion(said[rows].tolist(), true[rows].tolist(), labels)
        return [confusion.accuracy, confusion.macro_f1, confusion.micro_f1, confusion.kappa, confusion.answered]

    names = ("accuracy", "macro_f1", "micro_f1", "kappa", "answered")
    return dict(zip(names, bootstrap(compute, len(truth)), strict=True))


def score_texts(texts: Sequence[str], references: Sequence[str]) -> dict[str, Interval]:
    """Return `bleu_4` of the corpus and the mean `rouge_l`, with bootstrap intervals over samples.

    Raises:
        ValueError: If there is nothing to score, or the lengths differ.
    """
    if not texts or len(texts) != len(references):
        raise ValueError(f"expected as many texts as references, found {len(texts)} and {len(references)}")
    counts = count_bleu(texts, references)
    rouge = np.array([compute_rouge_l(*pair) for pair in zip(texts, references, strict=True)])

    def compute(rows: np.ndarray) -> list[float]:
        return [compute_bleu_of_counts(counts[rows].sum(axis=0)), float(rouge[rows].mean())]

    return dict(zip(("bleu_4", "rouge_l"), bootstrap(compute, len(texts)), strict=True))


def score_answers(samples: Sequence[Sample], texts: Sequence[str], labels: Sequence[str] = ()) -> dict[str, Interval]:
    """Return what the task of some samples is measured by.

    Args:
        samples: Of one task, with their labels.
        texts: The generated answers, as many, without prompts.
        labels: Classes; without them answers count as right where they equal the label, up to case and spaces, both
            read alike; see `is_right`.

    Raises:
        ValueError: If there is nothing to score, or the lengths differ.
    """
    if not samples or len(samples) != len(texts):
        raise ValueError(f"expected as many texts as samples, found {len(texts)} and {len(samples)}")
    truth = [sample.label for sample in samples]
    task = samples[0].task
    if task == "caption":
        return score_texts(texts, truth)
    if labels:
        return score_classes([parse_answer(text, labels) for text in texts], truth, labels)
    pairs = zip(texts, truth, strict=True)
    if task == "question":
        hits = [is_right(text, true) for text, true in pairs]
    else:
        hits = [normalise_label(read_line(text) or "") == normalise_label(true) for text, true in pairs]
    right = np.array(hits, np.float64)
    return {"accuracy": bootstrap(lambda rows: [float(right[rows].mean())], len(right))[0]}
