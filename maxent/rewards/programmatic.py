r"""Sums and stories, generated or bAbI's own, solved by a program, which reads the prompt and nothing else.

solve("12+5=")                                        # "17"
solve("Mary went to the garden.\nWhere is Mary?")     # "garden"
"""

from __future__ import annotations

import re

from maxent.data.prompts import read_line
from maxent.data.sample import DataError, View
from maxent.rewards.result import Answer, RewardResult

_SUM = re.compile(r"(\d+)\+(\d+)=\s*")
_MOVE = re.compile(r"(\w+) (?:moved|went|went back|journeyed|travelled) to the (\w+)\.")
_GRAB = re.compile(r"(\w+) (?:got|took|grabbed|picked up) the (\w+)(?: there)?\.")
_DROP = re.compile(r"(\w+) (?:dropped|discarded|left|put down) the (\w+)(?: there)?\.")
_QUESTION = re.compile(r"Where (?:is(?: the)? (\w+)|was the (\w+) before the (\w+))\?\s*")


def reward_programmatic(view: View, answer: Answer) -> RewardResult:
    """Return 1 if the first line of an answer is what the prompt asks for, else -1.

    Raises:
        DataError: If no program solves the prompt.
    """
    solution = solve(view.prompt)
    if solution is None:
        raise DataError(
            "reward programmatic: expected sums or stories as they are generated, or as bAbI 1 to 3 has them, found "
            f"{view.id}"
        )
    said = read_line(answer.text)
    return RewardResult(1.0 if said == solution else -1.0, {"answered": float(said is not None)})


def is_solvable(view: View) -> bool:
    """Return whether this program finds the answer to a prompt."""
    return solve(view.prompt) is not None


def solve(prompt: str) -> str | None:
    """Return the answer to a sum or to a story's question, None if this program does not find it.

    A story that says something which cannot be read has no answer: what was not read might have changed it. Where a
    thing has been at the place that is asked for more than once, the last time counts, as in bAbI.
    """
    last = prompt.splitlines()[-1] if prompt else ""
    if found := _SUM.fullmatch(last):
        return str(int(found[1]) + int(found[2]))
    if (found := _QUESTION.fullmatch(last)) is None:
        return None
    trails = follow_story(prompt.splitlines()[:-1])
    if trails is None:
        return None
    if found[1]:
        return trails[found[1]][-1] if found[1] in trails else None
    trail = trails.get(found[2], [])
    at = max((at for at, place in enumerate(trail) if place == found[3]), default=0)
    return trail[at - 1] if at else None


def follow_story(lines: list[str]) -> dict[str, list[str]] | None:
    """Return where each actor and each thing is known to have been, in order, without repeats.

    None if a sentence cannot be read; blank lines and questions among the statements, answered or not, are passed over.
    """
    trails: dict[str, list[str]] = {}
    holders: dict[str, str] = {}

    def note(name: str, place: str) -> None:
        trail = trails.setdefault(name, [])
        if trail[-1:] != [place]:
            trail.append(place)

    for line in map(str.strip, lines):
        if found := _MOVE.fullmatch(line):
            actor, place = found.groups()
            for name in (actor, *(thing for thing, holder in holders.items() if holder == actor)):
                note(name, place)
        elif found := _GRAB.fullmatch(line):
            actor, thing = found.groups()
            holders[thing] = actor
            if actor in trails:
                note(thing, trails[actor][-1])
        elif found := _DROP.fullmatch(line):
            holders.pop(found[2], None)
        elif line and "?" not in line:
            return None
    return trails
