"""What a question about a story is answered by who reads places alone, so that accuracy can be told from it.

    guess(question, closed)                         # "kitchen"; None where there is no such rule

Chance and majority are weak baselines: the place that was mentioned last is right in more than half of bAbI's first two
tasks. A model that has learned to follow a story is right where these rules fail.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from more.babi import Question

LAST = "the place mentioned last"
BEFORE = "the place before the asked one's last mention"
NAMES = {1: LAST, 2: LAST, 3: BEFORE}
"""The rule of each task, in words."""


def guess(question: Question, closed: Collection[str]) -> str | None:
    """Return the answer by the rule of a question's task; None for a sum, or where no place was mentioned.

    Args:
        question: Of bAbI's tasks 1 to 3.
        closed: All answers of the task, the places.
    """
    if question.task not in NAMES or not question.context:
        return None
    mentioned = [word for word in re.findall(r"\w+", question.context) if word in closed]
    if question.task == 3:
        asked = next((word for word in reversed(re.findall(r"\w+", question.question)) if word in closed), None)
        if asked in mentioned:
            last = len(mentioned) - 1 - mentioned[::-1].index(asked)
            return next((word for word in reversed(mentioned[:last]) if word != asked), None)
    return mentioned[-1] if mentioned else None
