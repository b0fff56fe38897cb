"""The kind of heuristic that this project's rewards replace, kept to show how it is gamed; never for a result.

It is the one behind a published "88.9 % monotonic" (8 of 9 steps without a fall, 7 of them rises, over ten strings that
no model wrote): length up to 100 characters, words of the true answer, which it should not know, and a bonus for words
that sound like reasoning. Formula and weights are those of docs/REWARD_FUNCTION_FIX.md in
https://github.com/vincehass/SpecDiffTree, here divided by the largest value; the words of the bonus are ours. An answer
need not say anything true: `maxent/test_reward_monotonicity.py` shows it.
"""

from __future__ import annotations

import re

from maxent.data.sample import Sample
from maxent.rewards.result import Answer, RewardResult

LARGEST = 2.2
FULL_LENGTH = 100
"""Characters beyond which length pays no more."""
TOO_SHORT, TOO_LONG = 20, 500
REASONING = ("analysis", "because", "therefore", "shows", "indicates", "suggests")


def reward_legacy(sample: Sample, answer: Answer) -> RewardResult:
    """Return a number in [-0.5, 1] that has little to do with truth."""
    text = answer.text.strip().lower()
    if not text:
        return RewardResult(-1.0 / LARGEST)
    factor = 0.5 if len(text) < TOO_SHORT else 0.7 if len(text) > TOO_LONG else 1.0
    parts = {
        "length": factor * min(len(text) / FULL_LENGTH, 1.0) / LARGEST,
        "task": _compare(text, sample.label.lower()) / LARGEST,
        "reasoning": 0.2 * any(word in text for word in REASONING) / LARGEST,
    }
    return RewardResult(sum(parts.values()), parts)


def _compare(text: str, label: str) -> float:
    """Return 1 or -0.5 for what follows the last `answer:`, without one the share of the label's words that occur."""
    _, said, answer = text.rpartition("answer:")
    expected = re.findall(r"\w+", label)
    if said:
        return 1.0 if re.findall(r"\w+", answer)[:1] == expected[-1:] else -0.5
    return len(set(re.findall(r"\w+", text)) & set(expected)) / max(len(set(expected)), 1)
