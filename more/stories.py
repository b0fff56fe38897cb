"""The embedded data: stories in the manner of bAbI's tasks 1 to 3, sums and plain sentences, from a seed.

    data = generate(EmbeddedSettings(num_stories=6000), seed=0)
    data.documents["train"], data.questions["test"][2], data.sums["test"]

Nothing of one split is in another: no two stories share their statements, no sum and no paragraph occurs twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from more.babi import TASKS, Question, render_story

SPLITS = ("train", "valid", "test")
VERSION = 1
"""Of what is generated; raised whenever the same settings and seed come to give other text."""

ACTORS = ("Mary", "John", "Daniel", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
MOVES = ("moved to", "went to", "journeyed to", "travelled to")
GRABS = ("got", "took", "grabbed")
DROPS = ("dropped", "discarded", "left")
FACTS = {1: (1, 4), 2: (2, 5), 3: (4, 7)}
"""Fewest and most statements of a story, by task."""
PARTS = {1: 2.0, 2: 1.0, 3: 0.5}
"""Stories of a task over those of task 2."""

_SUBJECTS = ("cat", "dog", "farmer", "child", "teacher", "sailor", "bird", "horse")
_ADJECTIVES = ("old", "small", "quiet", "happy", "tired", "clever")
_VERBS = ("sleeps", "waits", "sings", "works", "plays", "rests")
_SITES = ("near the river", "under the tree", "behind the house", "on the hill", "by the road", "in the field")
_TIMES = ("in the morning", "at noon", "in the evening", "at night")


@dataclass(frozen=True)
class EmbeddedSettings:
    """How much is generated.

    Attributes:
        num_stories: Training stories of task 2; task 1 has twice, task 3 half as many (the easy ones teach to look
            things up). Of every kind validation has a twentieth, testing a tenth, at least 20.
        num_sheets: Training documents of sums; each has several lines.
        num_paragraphs: Training documents of plain sentences.
        largest_summand: Sums are of two numbers from 0 to this.
    """

    num_stories: int = 6000
    num_sheets: int = 3000
    num_paragraphs: int = 1000
    largest_summand: int = 29


@dataclass
class EmbeddedData:
    """What was generated, by split (train, valid, test); questions by task too."""

    documents: dict[str, list[str]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    questions: dict[str, dict[int, list[Question]]] = field(
        default_factory=lambda: {split: {task: [] for task in TASKS} for split in SPLITS}
    )
    sums: dict[str, list[Question]] = field(default_factory=lambda: {split: [] for split in SPLITS})


def generate(settings: EmbeddedSettings, seed: int, *, held_out_only: bool = False) -> EmbeddedData:
    """Return the embedded data; the same for the same settings and seed on every machine.

    Args:
        settings: How much.
        seed: Of everything random.
        held_out_only: Leave `train` without documents and stories, which take most of the time.
    """
    data = EmbeddedData()
    # The small splits come first, hence are the same with and without the large one.
    wanted = ("test", "valid") if held_out_only else ("test", "valid", "train")
    streams = [np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(6)]
    for task, rng in zip(TASKS, streams, strict=False):
        seen: set[str] = set()
        for split in wanted:
            while len(data.questions[split][task]) < _share(max(1, round(settings.num_stories * PARTS[task])), split):
                story = tell_story(task, rng)
                if story[0].context not in seen:
                    seen.add(story[0].context)
                    data.questions[split][task].append(story[0])
                    data.documents[split].append(render_story(story))
    data.sums = split_sums(settings.largest_summand, streams[3])
    for split in wanted:
        sheets = write_sheets(data.sums[split], _share(settings.num_sheets, split), streams[4])
        data.documents[split] += [render_story(sheet) for sheet in sheets]
    paragraphs = _write_paragraphs(streams[5])
    for split in wanted:
        data.documents[split] += [next(paragraphs) for _ in range(_share(settings.num_paragraphs, split))]
    return data


def _share(number: int, split: str) -> int:
    return {"train": number, "valid": max(20, number // 20), "test": max(20, number // 10)}[split]


# ------------------------------------------------------------------------------------------------------------- stories


@dataclass
class _World:
    """Who is where, who holds what, and where each object is known to have been, in order, without repeats."""

    place_of: dict[str, str] = field(default_factory=dict)
    holder_of: dict[str, str] = field(default_factory=dict)
    trail_of: dict[str, list[str]] = field(default_factory=dict)

    def moves(self, actor: str, place: str) -> None:
        self.place_of[actor] = place
        for held, holder in self.holder_of.items():
            if holder == actor:
                self._seen_at(held, place)

    def grabs(self, actor: str, thing: str) -> None:
        self.holder_of[thing] = actor
        self._seen_at(thing, self.place_of[actor])

    def drops(self, thing: str) -> None:
        del self.holder_of[thing]

    def _seen_at(self, thing: str, place: str) -> None:
        trail = self.trail_of.setdefault(thing, [])
        if not trail or trail[-1] != place:
            trail.append(place)

    def questions(self, task: int) -> list[tuple[str, str]]:
        """Return all questions of a task that the story so far answers, each with its answer."""
        if task == 1:
            return [(f"Where is {actor}?", place) for actor, place in self.place_of.items()]
        if task == 2:
            return [(f"Where is the {thing}?", trail[-1]) for thing, trail in self.trail_of.items()]
        return [
            (f"Where was the {thing} before the {trail[-1]}?", trail[-2])
            for thing, trail in self.trail_of.items()
            if len(trail) >= 2 and trail.index(trail[-1]) == len(trail) - 1  # its first visit there: one answer only
        ]


def tell_story(task: int, rng: np.random.Generator) -> list[Question]:
    """Return one to three questions in random order about one new story.

    Task 1 asks where somebody is (one supporting fact), task 2 where a thing is (two: who has it or dropped it, and
    where that was), task 3 where a thing was before it came to its present place (three).
    """
    low, high = FACTS[task]
    while True:
        world, facts = _World(), []
        # Two actors and one thing or two: what is told is then about what can be asked.
        actors = rng.permutation(ACTORS)[: 4 if task == 1 else 2].tolist()
        things = rng.permutation(OBJECTS)[: 0 if task == 1 else 2].tolist()
        for _ in range(int(rng.integers(low, high + 1))):
            facts.append(_next_fact(world, actors, things, rng))
        asked = world.questions(task)
        if asked:
            order = rng.permutation(len(asked))[:3]
            return [Question(task, "\n".join(facts), *asked[index]) for index in order]


def _next_fact(world: _World, actors: list[str], things: list[str], rng: np.random.Generator) -> str:
    """Let something happen in the world and return the sentence that tells it."""
    actor = _pick(rng, actors)
    place = world.place_of.get(actor)
    held = [thing for thing in things if world.holder_of.get(thing) == actor]
    free = [
        thing
        for thing in things
        if thing not in world.holder_of and world.trail_of.get(thing, [place])[-1] == place and place is not None
    ]
    chance = rng.random()
    if free and chance < 0.5:
        thing = _pick(rng, free)
        world.grabs(actor, thing)
        return f"{actor} {_pick(rng, GRABS)} the {thing}."
    if held and chance < 0.2:
        thing = _pick(rng, held)
        world.drops(thing)
        return f"{actor} {_pick(rng, DROPS)} the {thing}."
    target = _pick(rng, [other for other in PLACES if other != place])
    world.moves(actor, target)
    return f"{actor} {_pick(rng, MOVES)} the {target}."


def _pick(rng: np.random.Generator, values: tuple[str, ...] | list[str]) -> str:
    return values[int(rng.integers(len(values)))]


# ---------------------------------------------------------------------------------------------------- sums, sentences


def split_sums(largest: int, rng: np.random.Generator) -> dict[str, list[Question]]:
    """Return all sums a+b with 0 <= a, b <= largest, in random order, shared out 80 : 5 : 15 among the splits."""
    pairs = rng.permutation([(a, b) for a in range(largest + 1) for b in range(largest + 1)])
    sums = [Question(0, "", f"{a}+{b}=", str(a + b)) for a, b in pairs.tolist()]
    test, valid = max(1, len(sums) * 15 // 100), max(1, len(sums) * 5 // 100)
    return {"test": sums[:test], "valid": sums[test : test + valid], "train": sums[test + valid :]}


def write_sheets(sums: list[Question], number: int, rng: np.random.Generator) -> list[list[Question]]:
    """Return `number` lists of 3 to 10 of the sums, drawn at random."""
    return [[sums[index] for index in rng.integers(len(sums), size=int(rng.integers(3, 11)))] for _ in range(number)]


def _write_paragraphs(rng: np.random.Generator) -> Iterator[str]:
    """Yield paragraphs of two to five plain sentences, none twice."""
    seen: set[str] = set()
    while True:
        sentences = []
        for _ in range(int(rng.integers(2, 6))):
            subject = f"The {_pick(rng, _ADJECTIVES)} {_pick(rng, _SUBJECTS)}"
            end = f" {_pick(rng, _TIMES)}" if rng.random() < 0.5 else ""
            sentences.append(f"{subject} {_pick(rng, _VERBS)} {_pick(rng, _SITES)}{end}.")
        text = " ".join(sentences) + "\n"
        if text not in seen:
            seen.add(text)
            yield text
