"""A model with the questions that it is asked, whatever both are: what a part of the study hands to the searches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from maxent.dts_implementation.models.sequence_model import SequenceModel
from maxent.dts_implementation.search.result import Rollout
from maxent.rewards.result import Reward


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: Unique within seed and part.
        prompt: Of a kind that the model knows.
        reward: Of the search.
        score: Of an answer, which no search sees.
        parse: Text -> label; None without labels.
        truth: The true label.
    """

    id: str
    prompt: Any
    reward: Reward
    score: Callable[[Rollout], float]
    parse: Callable[[str], Hashable | None] | None = None
    truth: Hashable | None = None


@dataclass(frozen=True)
class Asked:
    """A model and its questions.

    Attributes:
        model: Behind the protocol of searches.
        questions: By the name of the case.
        facts: Of the model, plain values, for the records: what it is, how well it does.
    """

    model: SequenceModel
    questions: dict[str, Sequence[Question]]
    facts: dict[str, Any]
