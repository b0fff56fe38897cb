"""Captions rewarded for what they say truly of the series: claims are read from the text and tested by `data.facts`.

    reward_claims(view, answer).total        # (right - wrong) / number of checkable facts, in [-1, 1]

Per fact, not per sentence: saying it twice changes nothing, and saying two things of one fact is wrong even if one of
them is true. So neither length nor repetition nor listing all possibilities pays. What no rule reads counts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from maxent.data.facts import FACTS, Facts, compute_facts
from maxent.data.sample import View
from maxent.rewards.copies import remove_copies
from maxent.rewards.result import Answer, RewardResult

Claim = tuple[str, str | float | tuple[float, float]]
"""A fact, and what is said of it: a word, a number, or two."""

VAGUE = "some"
"""That there is a period, or a shift, without saying which: wrong where there is none, else too little to be right."""

TOLERANCE = 0.1
"""Of the range of the values, for numbers; of the period, but at least a point."""

NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"

_SENTENCE = re.compile(r"(?<!\d)[.]|[.](?!\d)|[;!?\n]")
_CLAUSE = re.compile(r",\s|\s(?:and|but|while|whereas|with)\s|\s(?=without\s)")
_NOT = re.compile(r"\b(?:no|not|without|lacks?|absence|never|none|free of)\b|n't\b")
_LOCAL = re.compile(
    r"\b(?:initial(?:ly)?|at first|first half|second half|then|followed|before|after(?:wards)?|until|early|later?|"
    r"briefly|phase|from (?:the )?(?:start|middle)|toward|towards)\b"
)
"""What is said of a part of the series; nobody checks it against the whole."""

_SUBJECTS = (
    ("shift", r"\b(?:sudden|suddenly|abrupt\w*|level shifts?|shifts?|jumps?|structural|breaks?|level change)\b"),
    (
        "period",
        r"\b(?:periodic\w*|season\w*|cycl\w+|repeat\w*|recurring|no period)\b|"
        r"(?<!over a )(?<!over the )\bperiod:? (?:is|of|about|length|\d)",  # others speak of a stretch of time
    ),
    ("spread", r"\b(?:fluctuations?|variability|volatility|variance|amplitude|spread)\b"),
    ("noise", r"\b(?:noise|noisy|noisiness)\b"),
    ("peak", r"\b(?:peaks?|peaking|maximum|max|highest)\b"),
    ("trough", r"\b(?:troughs?|minimum|min|lowest)\b"),
    ("change", r"\b(?:ends|ending|finish\w*|final (?:value|level)|end (?:is|lies))\b"),
    ("level", r"\b(?:mean|average|averages|averaging)\b"),
    ("trend", r""),
)
"""What a clause is about, by the first of these that it has."""

_UP = r"\b(?:ris(?:e|es|ing|en)|rose|upwards?|up|increas\w+|grow(?:s|ing)?|climb\w*|ascend\w*|higher|jumps?)\b"
_DOWN = r"\b(?:fall(?:s|ing|en)?|fell|downwards?|down|decreas\w+|declin\w+|drops?|descend\w*|shrink\w*|lower)\b"
_FLAT = r"\b(?:flat|constant|stable|steady|even|unchanged|stationary)\b"
_NO_CHANGE = r"\b(?:flat|unchanged|stationary)\b"

_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "trend": (("rising", _UP), ("falling", _DOWN), ("flat", _FLAT)),
    "noise": (
        ("low", r"\b(?:low|little|small|weak|slight|minimal)\b"),
        ("moderate", r"\b(?:moderate\w*|medium|some)\b"),
        ("high", r"\b(?:high|strong|heavy|large|much|noisy)\b"),
    ),
    "place": (
        ("start", r"\b(?:start|beginning|first (?:third|part))\b"),
        ("middle", r"\b(?:middle|midpoint|cent(?:er|re)|halfway|midway)\b"),
        ("end", r"\b(?:end|last (?:third|part))\b"),
    ),
    "shift": (("up", _UP), ("down", _DOWN)),
    "change": (
        ("above", r"\b(?:above|higher)\b"),
        ("below", r"\b(?:below|lower)\b"),
        ("near", r"\b(?:near|close to|same|as high|equal|similar)\b"),
    ),
    "spread": (("grow", _UP), ("shrink", _DOWN), ("even", _FLAT)),
}
_RANGE = re.compile(
    rf"\b(?:rang\w+|values?|lie|lies|vary|varies|span\w*)\b[^.;!?\n]*?\b(?:from|between|is|of)\s+({NUMBER})\s+(?:to|and)\s+({NUMBER})"
)
_PERIOD = re.compile(
    rf"\b(?:every|period(?: of| is|:)?|lag|length)\D{{0,20}}?({NUMBER})|({NUMBER})[\s-]"
    r"(?:points?|steps?|months?|weeks?|days?|hours?|quarters?|years?)"
)
_LEVEL = re.compile(rf"\b(?:mean|average|averages|averaging)\b[^\d+-]{{0,30}}({NUMBER})")


def parse_claims(text: str) -> frozenset[Claim]:
    """Return what a caption claims, each claim once, in whatever order its sentences stand."""
    return frozenset(claim for sentence in _SENTENCE.split(text.lower()) for claim in _parse_sentence(sentence))


def _parse_sentence(sentence: str) -> Iterator[Claim]:
    for found in _RANGE.finditer(sentence):
        yield "range", (_read(found[1]), _read(found[2]))
    for clause in _CLAUSE.split(_RANGE.sub(" ", sentence)):
        subject = next(name for name, words in _SUBJECTS if re.search(words, clause))
        yield from _PARSERS[subject](subject, clause, _NOT.search(clause) is not None)


def _read(number: str) -> float:
    return float(number.replace(",", ""))


def _find_words(kind: str, clause: str) -> list[str]:
    return [name for name, words in _WORDS[kind] if re.search(words, clause)]


def _parse_trend(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    if _LOCAL.search(clause):
        return
    if denied:
        if re.search(r"\btrends?\b", clause):
            yield fact, "flat"
        return
    if re.search(r"\b(?:trends?|overall|values?|series|it|data|rising|falling|flat)\b", clause):
        found = _find_words("trend", clause)
        if len(found) > 1 and not re.search(_NO_CHANGE, clause):
            found = [word for word in found if word != "flat"]  # a steady rise is a rise
        yield from ((fact, word) for word in found)


def _parse_words(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    """Read noise, change and spread; what is denied says too little to be checked, but for noise."""
    if denied:
        if fact == "noise":
            yield fact, "low"
        return
    yield from ((fact, word) for word in _find_words(fact, clause))


def _parse_place(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    if not denied:
        yield from ((fact, place) for place in _find_words("place", clause))


def _parse_shift(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    if denied:
        yield fact, "none"
        return
    for direction in _find_words("shift", clause) or [VAGUE]:
        yield fact, direction
    yield from ((fact, place) for place in _find_words("place", clause))


def _parse_period(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    if denied:
        yield fact, 0.0
        return
    numbers = [_read(found[1] or found[2]) for found in _PERIOD.finditer(clause)]
    yield from ((fact, number) for number in numbers or [VAGUE])


def _parse_level(fact: str, clause: str, denied: bool) -> Iterator[Claim]:
    if not denied:
        yield from ((fact, _read(found[1])) for found in _LEVEL.finditer(clause))


_PARSERS: dict[str, Callable[[str, str, bool], Iterator[Claim]]] = {
    "trend": _parse_trend,
    "noise": _parse_words,
    "change": _parse_words,
    "spread": _parse_words,
    "peak": _parse_place,
    "trough": _parse_place,
    "shift": _parse_shift,
    "period": _parse_period,
    "level": _parse_level,
}


def check_claim(claim: Claim, facts: Facts) -> bool:
    """Return whether a claim on a checkable fact is true."""
    fact, said = claim
    width = TOLERANCE * (facts.high - facts.low)
    match fact:
        case "range":
            low, high = said
            return abs(low - facts.low) <= width and abs(high - facts.high) <= width
        case "level":
            return abs(said - facts.mean) <= width
        case "period" if said == VAGUE:
            return facts.period > 0
        case "period" if said == 0:
            return facts.period == 0
        case "period":
            return facts.period > 0 and abs(said - facts.period) <= max(1.0, TOLERANCE * facts.period)
        case "shift" if said == VAGUE:
            return facts.shift != "none"
        case "shift":
            return said in (facts.shift, facts.shift_place)
        case _:
            return said == getattr(facts, fact)


def reward_claims(view: View, answer: Answer) -> RewardResult:
    """Return (facts whose claims are all right - facts with a wrong claim) / checkable facts, in [-1, 1].

    0 if nothing of the series can be checked; of several channels the first is meant. `parts` has the counts, and +-1
    for each fact that something was said of.
    """
    facts = _compute_facts(view)
    checkable = facts.list_checkable()
    verdicts: dict[str, bool] = {}
    for claim in parse_claims(remove_copies(view.prompt, answer.text)):
        fact, said = claim
        if fact in checkable and not (said == VAGUE and check_claim(claim, facts)):
            verdicts[fact] = verdicts.get(fact, True) and check_claim(claim, facts)
    right = sum(verdicts.values())
    wrong = len(verdicts) - right
    parts = {"right": float(right), "wrong": float(wrong), "checkable": float(len(checkable))}
    parts |= {name: 1.0 if verdicts[name] else -1.0 for name in FACTS if name in verdicts}
    return RewardResult((right - wrong) / len(checkable) if checkable else 0.0, parts)


@lru_cache(maxsize=8)
def _compute_facts(view: View) -> Facts:
    """Return the facts of a view's series; a search asks hundreds of times of one view, which hashes by identity."""
    return compute_facts(view.series[0])
