"""Embedded data, from a seed: series with captions, accelerometers with activities, sums, stories.

    samples = make_captions(count=200, split="test", seed=0)

Sample i of a split is the same however many are made, and no split shares its stream with another. Sums and stories are
told as `more/` tells its own, so that models trained there can be asked here; which of them such a model has been
trained on, this module does not know: `build_text_samples` takes questions from whoever does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from maxent.data.captions import write_caption
from maxent.data.facts import compute_facts
from maxent.data.prompts import ACTIVITIES, ACTIVITY_FRAME, CAPTION_FRAME
from maxent.data.sample import SPLITS, Frame, Sample

VERSION = 1
"""Of what is generated; raised whenever the same seed comes to give other data."""

POINTS = 128
RATE = 50.0
"""Hz, of the accelerometers."""

NO_SERIES = np.zeros((0, 0))


def make_rng(seed: int, kind: str, split: str, index: int) -> np.random.Generator:
    """Return the stream of one sample."""
    return np.random.default_rng([seed, VERSION, zlib.crc32(kind.encode()), SPLITS.index(split), index])


# ------------------------------------------------------------------------------------------------------------- captions


def make_captions(count: int, split: str, seed: int) -> list[Sample]:
    """Return series of 48 to 144 points made of level, trend, season, noise and break, with captions of their facts."""
    samples = []
    for index in range(count):
        rng = make_rng(seed, "caption", split, index)
        series = make_series(rng)
        caption = write_caption(compute_facts(series), rng)
        samples.append(
            Sample(f"M4-{split}-{index}", CAPTION_FRAME, series[None], "caption", label=caption, target=f" {caption}")
        )
    return samples


def make_series(rng: np.random.Generator) -> np.ndarray:
    """Return a series, float64 (points,) of whole numbers, as sales would be."""
    size = int(rng.integers(4, 13)) * 12
    time = np.arange(size) / size
    scale = 10.0 ** rng.uniform(1, 2.5)
    series = np.full(size, scale * rng.uniform(3, 12))
    series += scale * rng.choice([-1, 0, 1]) * rng.uniform(1, 4) * time
    if rng.random() < 0.6:
        period = int(rng.choice([4, 6, 7, 12]))
        phase, overtone = rng.uniform(0, 2 * np.pi, size=2)
        angle = 2 * np.pi * np.arange(size) / period
        wave = np.sin(angle + phase) + 0.3 * np.sin(2 * angle + overtone)
        series += scale * rng.uniform(0.5, 1.5) * wave
    growth = rng.choice([0.0, 0.0, 1.5, -1.5])
    noise = rng.standard_normal(size) * np.exp(growth * (time - 0.5))
    series += scale * rng.choice([0.1, 0.3, 0.8]) * noise
    if rng.random() < 0.4:
        at = int(rng.integers(size // 6, size - size // 6))
        series[at:] += scale * rng.choice([-1, 1]) * rng.uniform(2, 5)
    return np.round(series)


# ----------------------------------------------------------------------------------------------------------- activities


@dataclass(frozen=True)
class _Motion:
    """How an activity moves a phone at the waist.

    Attributes:
        gravity: Mean of the axes, g.
        rhythm: Steps or turns a second, Hz; 0 for none.
        strength: Amplitude of the rhythm, g.
        impact: Share of the rhythm's first overtone: hard steps have much.
        noise: Deviation, g.
    """

    gravity: tuple[float, float, float]
    rhythm: float = 0.0
    strength: float = 0.0
    impact: float = 0.0
    noise: float = 0.01


_MOTIONS = {
    "biking": _Motion((0.75, 0.55, 0.2), 1.2, 0.12, 0.1, 0.10),
    "lying": _Motion((0.05, 0.3, 0.95)),
    "running": _Motion((0.95, -0.1, 0.1), 2.7, 0.9, 0.4, 0.15),
    "sitting": _Motion((0.8, 0.3, 0.45)),
    "standing": _Motion((0.98, -0.1, 0.1), noise=0.015),
    "walking": _Motion((0.97, -0.15, 0.1), 1.9, 0.25, 0.3, 0.06),
    "walking_down": _Motion((0.95, -0.15, 0.2), 2.0, 0.35, 0.8, 0.10),
    "walking_up": _Motion((0.9, -0.2, 0.3), 1.5, 0.25, 0.3, 0.08),
}


def make_activities(count: int, split: str, seed: int) -> list[Sample]:
    """Return 2.56 s of three axes at 50 Hz, in g, each of eight activities equally often; persons differ."""
    samples = []
    for index in range(count):
        rng = make_rng(seed, "activity", split, index)
        label = ACTIVITIES[index % len(ACTIVITIES)] if split == "train" else ACTIVITIES[int(rng.integers(8))]
        series = make_motion(_MOTIONS[label], rng)
        rationale = f" {describe_motion(series)} Answer: {label}"
        samples.append(Sample(f"HAR-{split}-{index}", ACTIVITY_FRAME, series, "activity", label, rationale))
    return samples


def make_motion(motion: _Motion, rng: np.random.Generator) -> np.ndarray:
    """Return one person's motion, float64 (3, 128), g."""
    time = np.arange(POINTS) / RATE
    series = np.array(motion.gravity)[:, None] + rng.normal(0, 0.15, (3, 1))  # the phone is never quite straight
    series = series + motion.noise * np.exp(rng.normal(0, 0.3)) * rng.standard_normal((3, POINTS))
    if motion.rhythm:
        rhythm = motion.rhythm * np.exp(rng.normal(0, 0.12))
        strength = motion.strength * np.exp(rng.normal(0, 0.35))
        share = np.array([1.0, 0.5, 0.7])[:, None] * np.exp(rng.normal(0, 0.2, (3, 1)))
        phase = rng.uniform(0, 2 * np.pi, (3, 1))
        angle = 2 * np.pi * rhythm * time
        impact = motion.impact * np.exp(rng.normal(0, 0.25))
        series = series + strength * share * (np.sin(angle + phase) + impact * np.sin(2 * angle + 2 * phase))
    return np.round(series, 4)


def describe_motion(series: np.ndarray) -> str:
    """Return what the axes show, in words: how strong, how fast, and where down is."""
    moving = series - series.mean(axis=1, keepdims=True)
    strength = float(np.sqrt((moving**2).mean(axis=1).sum()))
    power = (np.abs(np.fft.rfft(moving, axis=1)) ** 2).sum(axis=0)
    rhythm = float(np.fft.rfftfreq(series.shape[1], 1 / RATE)[1 + int(power[1:].argmax())])
    down = "xyz"[int(np.abs(series.mean(axis=1)).argmax())]
    if strength < 0.06:
        return f"The body is still and gravity lies along the {down} axis."
    word = "weak" if strength < 0.25 else "strong" if strength > 0.6 else "moderate"
    return f"The motion is {word}, about {rhythm:.1f} times a second, and gravity lies along the {down} axis."


# ---------------------------------------------------------------------------------------------------------------- texts


def build_text_samples(questions: Iterable[tuple[str, str]], task: str, prefix: str) -> list[Sample]:
    """Return samples without a series, from pairs of prompt and answer.

    Args:
        questions: As a model was trained to see them: `12+5=` or a story, a line break and a question.
        task: `sum`, whose answer follows at once, or `story`, whose answer follows a space.
        prefix: Of the ids.
    """
    gap = "" if task == "sum" else " "
    return [
        Sample(f"{prefix}-{index}", Frame(prompt), NO_SERIES, task, label=answer, target=f"{gap}{answer}\n")
        for index, (prompt, answer) in enumerate(questions)
    ]


def make_sums(count: int, split: str, seed: int, largest: int = 29) -> list[Sample]:
    """Return sums a+b= of numbers from 0 to `largest`; no sum is in two splits (train 80 %, valid 5 %, test 15 %).

    Raises:
        ValueError: If the split has fewer than `count`.
    """
    order = np.random.default_rng([seed, VERSION, 1]).permutation((largest + 1) ** 2)
    test, valid = len(order) * 15 // 100, len(order) * 5 // 100
    share = {"test": order[:test], "valid": order[test : test + valid], "train": order[test + valid :]}[split]
    if count > len(share):
        raise ValueError(f"sums: expected at most {len(share)} of {split}, found {count}")
    pairs = [divmod(int(number), largest + 1) for number in share[:count]]
    return build_text_samples(((f"{a}+{b}=", str(a + b)) for a, b in pairs), "sum", f"sums-{split}")


ACTORS = ("Mary", "John", "Daniel", "Sandra")
LOCATIONS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
MOVES = ("moved to", "went to", "journeyed to", "travelled to")
GRABS = ("got", "took", "grabbed")
DROPS = ("dropped", "discarded", "left")


def make_stories(count: int, split: str, seed: int) -> list[Sample]:
    """Return stories of 3 to 6 sentences about who goes where and carries what, with `Where is ...?`.

    After bAbI's tasks 1 and 2 (Weston et al., https://arxiv.org/abs/1502.05698).
    """
    questions = [tell_story(make_rng(seed, "story", split, index)) for index in range(count)]
    return build_text_samples(questions, "story", f"stories-{split}")


def tell_story(rng: np.random.Generator) -> tuple[str, str]:
    """Return a story that ends in a question, and the answer."""
    place_of: dict[str, str] = {}
    holder_of: dict[str, str] = {}
    actors = rng.permutation(ACTORS)[:2].tolist()
    lines = []
    for _ in range(int(rng.integers(3, 7))):
        actor = str(rng.choice(actors))
        here = place_of.get(actor)
        # A thing lies where it was dropped; one that nobody has touched is wherever it is taken first.
        free = [thing for thing in OBJECTS if thing not in holder_of and here == place_of.get(thing, here)]
        held = [thing for thing, holder in holder_of.items() if holder == actor]
        chance = rng.random()
        if held and chance < 0.25:
            thing = str(rng.choice(held))
            del holder_of[thing]
            lines.append(f"{actor} {rng.choice(DROPS)} the {thing}.")
        elif here and free and chance < 0.6:
            thing = str(rng.choice(free))
            holder_of[thing], place_of[thing] = actor, here
            lines.append(f"{actor} {rng.choice(GRABS)} the {thing}.")
        else:
            target = str(rng.choice([place for place in LOCATIONS if place != here]))
            place_of.update({name: target for name in (actor, *held)})
            lines.append(f"{actor} {rng.choice(MOVES)} the {target}.")
    things = [name for name in place_of if name in OBJECTS]
    asked = str(rng.choice(things or list(place_of)))
    article = "the " if asked in OBJECTS else ""
    return "\n".join([*lines, f"Where is {article}{asked}?"]), place_of[asked]
