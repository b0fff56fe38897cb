r"""Sums and generated stories solved by a program, which reads the prompt and nothing else.

solve("12+5=")                                        # "17"
solve("Mary went to the garden.\nWhere is Mary?")     # "garden"
"""

from __future__ import annotations

import re

from maxent.data.prompts import read_line
from maxent.data.sample import DataError, View
from maxent.rewards.result import Answer, RewardResult

_SUM = re.compile(r"(\d+)\+(\d+)=\s*")
_SENTENCE = re.compile(r"(\w+) (\w+)(?: to)? the (\w+)\.")
_QUESTION = re.compile(r"Where (?:is(?: the)? (\w+)|was the (\w+) before the (\w+))\?\s*")

_MOVES = frozenset({"moved", "went", "journeyed", "travelled"})
_GRABS = frozenset({"got", "took", "grabbed"})
_DROPS = frozenset({"dropped", "discarded", "left"})


def reward_programmatic(view: View, answer: Answer) -> RewardResult:
    """Return 1 if the first line of an answer is what the prompt asks for, else -1.

    Raises:
        DataError: If no program solves the prompt.
    """
    solution = solve(view.prompt)
    if solution is None:
        raise DataError(f"reward programmatic: expected sums or stories as they are generated, found {view.id}")
    said = read_line(answer.text)
    return RewardResult(1.0 if said == solution else -1.0, {"answered": float(said is not None)})


def solve(prompt: str) -> str | None:
    """Return the answer to a sum or to a story's question, None if this program does not find it."""
    last = prompt.splitlines()[-1] if prompt else ""
    if found := _SUM.fullmatch(last):
        return str(int(found[1]) + int(found[2]))
    if (found := _QUESTION.fullmatch(last)) is None:
        return None
    trails = follow_story(prompt.splitlines()[:-1])
    if found[1]:
        return trails[found[1]][-1] if found[1] in trails else None
    trail = trails.get(found[2], [])
    at = trail.index(found[3]) if found[3] in trail else 0
    return trail[at - 1] if at else None


def follow_story(lines: list[str]) -> dict[str, list[str]]:
    """Return where each actor and each thing is known to have been, in order, without repeats.

    A sentence that cannot be read is passed over, as a question among the statements is.
    """
    trails: dict[str, list[str]] = {}
    holders: dict[str, str] = {}

    def note(name: str, place: str) -> None:
        trail = trails.setdefault(name, [])
        if trail[-1:] != [place]:
            trail.append(place)

    for line in lines:
        if (found := _SENTENCE.fullmatch(line.strip())) is None:
            continue
        actor, verb, what = found.groups()
        if verb in _MOVES:
            for name in (actor, *(thing for thing, holder in holders.items() if holder == actor)):
                note(name, what)
        elif verb in _GRABS:
            holders[what] = actor
            if actor in trails:
                note(what, trails[actor][-1])
        elif verb in _DROPS:
            holders.pop(what, None)
    return trails
