"""The kind of heuristic that this project's rewards replace, kept to show how it is gamed; never for a result.

It pays for length, for words that sound like analysis, for digits, and for words of the true answer, which it should
not know. An answer need not say anything true: `maxent/test_reward_monotonicity.py` shows it.
"""

from __future__ import annotations

import re

from maxent.data.sample import Sample
from maxent.rewards.result import Answer, RewardResult

KEYWORDS = ("trend", "pattern", "series", "increase", "decrease", "peak", "seasonal", "variation", "data", "value")
FULL_LENGTH = 200
"""Characters beyond which length pays no more."""


def reward_legacy(sample: Sample, answer: Answer) -> RewardResult:
    """Return a number in [0, 1] that has little to do with truth."""
    text = answer.text.lower()
    words = set(re.findall(r"\w+", text))
    expected = set(re.findall(r"\w+", sample.label.lower()))
    parts = {
        "length": 0.4 * min(len(text) / FULL_LENGTH, 1.0),
        "keywords": 0.3 * sum(word in text for word in KEYWORDS) / len(KEYWORDS),
        "digits": 0.1 * any(letter.isdigit() for letter in text),
        "label": 0.2 * len(words & expected) / max(len(expected), 1),
    }
    return RewardResult(sum(parts.values()), parts)
