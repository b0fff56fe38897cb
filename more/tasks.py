"""Generated tasks whose answers need so many steps: chains of assignments, pointer hops, running sums.

    settings = TaskSettings.of("chains")
    found = generate_task(settings, "test", seed=0)            # found.inputs, found.targets, found.depths

A sequence holds one or more interleaved runs. A run begins with a token that says its value outright, and each later
token of the run asks for one step more: *depth* counts the steps. At every such token the value is asked.

| task | a token | its value |
|---|---|---|
| `chains` | `x3=5` or `x7=x3`: a new variable is a literal or an earlier variable | the literal its links lead to |
| `hops` | after a list `2>7 ...` of a cycle over all symbols: `a@2` puts pointer a, `a>` moves it | where it stands |
| `modular` | `=3` sets a sum, `+4` adds to it | the sum, modulo the number of symbols |

Every run goes as deep as it may, so that deep answers are many: to `train_depth` in training and validation, to
`test_depth` in the test, which so holds longer runs than were trained, in sequences of one and the same length. No two
splits share a sequence: a hash of the sequence says which split it is of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from pipeline.config import ConfigError

TaskName = Literal["chains", "hops", "modular"]
TASK_NAMES: tuple[str, ...] = get_args(TaskName)
VERSION = 2
"""Of the generators: another number means other sequences from the same seed."""

NOT_ASKED = -100
"""Target where nothing is asked; `torch.nn.functional.cross_entropy` leaves it out."""

HELD_OUT = {"valid": 1_000, "test": 4_000}
"""Sequences of the other splits."""

SPLITS = ("train", "valid", "test")
_SHARES = 8  # parts of all sequences by hash: one is for the test, one for validation, the others for training


@dataclass(frozen=True)
class TaskSettings:
    """What is generated.

    Attributes:
        name: chains, hops or modular.
        length: Tokens at which something is asked.
        streams: Runs that are interleaved.
        symbols: Values there are: literals of chains, symbols of the cycle, the modulus.
        train_depth: Largest depth in training and validation.
        test_depth: Largest depth in the test.
        num_sequences: Of the training split.
    """

    name: TaskName
    length: int
    streams: int
    symbols: int
    train_depth: int
    test_depth: int
    num_sequences: int = 128_000

    @classmethod
    def of(cls, name: str, **changes: int | None) -> TaskSettings:
        """Return the settings of a task by name; a change that is None leaves the task's own value."""
        values = {**_DEFAULTS[name], **{key: value for key, value in changes.items() if value is not None}}
        return cls(name=name, **values)

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: If one cannot be used; it names the flag of `more/train.py`.
        """
        flags = {"length": "task_length", "streams": "task_streams", "symbols": "task_symbols"}
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                name = flags.get(field.name, field.name)
                raise ConfigError(f"{name}: expected an integer of at least 1, found {value!r}")
        if self.symbols < max(2, self.streams if self.name == "chains" else 2):
            least = max(2, self.streams)
            raise ConfigError(f"task_symbols: expected at least {least} for {self.name}, found {self.symbols}")
        room = self.length // self.streams - 1
        for name in ("train_depth", "test_depth"):
            if getattr(self, name) > room:
                raise ConfigError(
                    f"{name}: expected at most {room}, which {self.length} tokens in {self.streams} streams leave "
                    f"room for, found {getattr(self, name)}"
                )

    @property
    def total_length(self) -> int:
        """Tokens of a sequence; hops begins with a list of its cycle."""
        return self.length + (self.symbols if self.name == "hops" else 0)

    @property
    def _version(self) -> int:
        """Chains with as many symbols as streams had one literal in two streams before version 3; others had none."""
        return 3 if self.name == "chains" and self.symbols == self.streams else VERSION

    def words(self) -> list[str]:
        """Return the task's tokens in the order of their numbers; the values come first."""
        values = [str(value) for value in range(self.symbols)]
        streams = [chr(ord("a") + stream) for stream in range(self.streams)] if self.streams > 1 else [""]
        if self.name == "chains":
            sources = [*values, *(f"x{variable}" for variable in range(self.length))]
            return [*values, *(f"x{variable}={source}" for variable in range(self.length) for source in sources)]
        if self.name == "hops":
            links = [f"{one}>{other}" for one in values for other in values]
            return [*values, *links, *(f"{s}@{v}" for s in streams for v in values), *(f"{s}>" for s in streams)]
        return [*values, *(f"{s}{sign}{v}" for sign in "=+" for s in streams for v in values)]

    def digest(self, seed: int) -> str:
        """Return the SHA-256 of what determines the sequences."""
        content = json.dumps([self._version, dataclasses.asdict(self), HELD_OUT, seed], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


_DEFAULTS: dict[str, dict[str, Any]] = {
    "chains": {"length": 12, "streams": 2, "symbols": 4, "train_depth": 4, "test_depth": 5},
    "hops": {"length": 14, "streams": 2, "symbols": 8, "train_depth": 4, "test_depth": 6},
    "modular": {"length": 16, "streams": 1, "symbols": 5, "train_depth": 6, "test_depth": 12},
}


@dataclass(frozen=True)
class TaskSet:
    """Sequences of one split.

    Attributes:
        inputs: (n, total_length) tokens, int64.
        targets: (n, total_length) value that is asked at each token, as its token; `NOT_ASKED` where none is.
        depths: (n, total_length) steps to the value; -1 where none is asked.
        heuristics: By name, (n, total_length) probability that a rule which takes no second step is right there.
    """

    inputs: np.ndarray
    targets: np.ndarray
    depths: np.ndarray
    heuristics: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.inputs)


@dataclass(frozen=True)
class Runs:
    """How the runs of sequences are interleaved.

    Attributes:
        stream: (n, length) run of each token.
        depths: (n, length) steps since its run began; 0 where it begins.
        before: (n, length) place of the token before in the same stream; -1 for the first.
    """

    stream: np.ndarray
    depths: np.ndarray
    before: np.ndarray


def generate_task(settings: TaskSettings, split: str, seed: int, limit: int | None = None) -> TaskSet:
    """Return the sequences of a split; the same for the same arguments.

    Args:
        settings: Of the task.
        split: train, valid or test.
        seed: Of the data.
        limit: The first so many sequences only.

    Raises:
        ConfigError: If the task has so few sequences that none is of this split.
    """
    wanted = settings.num_sequences if split == "train" else HELD_OUT[split]
    wanted = wanted if limit is None else min(limit, wanted)
    deepest = settings.test_depth if split == "test" else settings.train_depth
    seeds = [seed, SPLITS.index(split), TASK_NAMES.index(settings.name), VERSION]
    parts: list[TaskSet] = []
    found = chunk = 0
    while found < wanted:
        rng = np.random.default_rng([*seeds, chunk])
        drawn = _GENERATORS[settings.name](settings, draw_runs(settings, deepest, 4_096, rng), rng)
        part = _take(drawn, np.flatnonzero(split_of(drawn.inputs) == split))
        parts.append(part)
        found, chunk = found + len(part), chunk + 1
        if found == 0:  # of 4,096 about 512 are expected: there are a handful, and drawing on would find no others
            raise ConfigError(
                f"task_length: the {settings.name} that are asked for have too few sequences, none of them for "
                f"{split}; take a longer --task_length or more --task_symbols"
            )
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "targets", "depths")}
    rules = {name: np.concatenate([part.heuristics[name] for part in parts]) for name in parts[0].heuristics}
    return _take(TaskSet(**joined, heuristics=rules), np.arange(wanted))


def split_of(inputs: np.ndarray) -> np.ndarray:
    """Return the split (n,) that each sequence (n, time) is of, whatever task and seed it comes from."""
    mixed = np.zeros(len(inputs), np.uint64)
    for column in inputs.T.astype(np.uint64):  # FNV-1a, https://www.rfc-editor.org/rfc/rfc9923
        mixed = (mixed ^ (column + np.uint64(0x9E37))) * np.uint64(0x100000001B3)
    part = (mixed >> np.uint64(40)) % np.uint64(_SHARES)
    return np.where(part == 0, "test", np.where(part == 1, "valid", "train"))


def draw_runs(settings: TaskSettings, deepest: int, count: int, rng: np.random.Generator) -> Runs:
    """Return how runs are interleaved in `count` sequences.

    The depth `deepest` is reached and not exceeded. Several streams get equally many tokens in random order, all begin
    at the front, and begin anew where they would go deeper. Otherwise something less than following the steps would do:
    which stream began first, or which one everything links to. A lone stream holds one run of that depth at a random
    place, and else begins anew at one token in eight.
    """
    length, streams = settings.length, settings.streams
    anew = np.zeros((count, length), bool)
    held = np.zeros((count, length), bool)  # tokens after the first of the run that is to reach the depth
    if streams == 1:
        place = np.arange(length) - rng.integers(0, length - deepest, size=count)[:, None]
        held = (place >= 1) & (place <= deepest)
        anew = (rng.random((count, length)) < 1 / 8) | (place == 0)
        stream = np.zeros((count, length), np.int64)
    else:
        front = rng.random((count, streams)).argsort(axis=1)
        dealt = np.arange(length - streams) + rng.integers(0, streams, size=(count, 1))
        order = rng.random(dealt.shape).argsort(axis=1)
        stream = np.hstack([front, np.take_along_axis(dealt % streams, order, axis=1)])
    depths, before = np.empty_like(stream), np.empty_like(stream)
    reached, last = (np.full((count, streams), -1) for _ in range(2))
    rows = np.arange(count)
    for place in range(length):
        own = stream[:, place]
        now = reached[rows, own]
        begins = ~held[:, place] & ((now < 0) | (now >= deepest) | anew[:, place])
        depths[:, place] = np.where(begins, 0, now + 1)
        before[:, place] = last[rows, own]
        reached[rows, own], last[rows, own] = depths[:, place], place
    return Runs(stream, depths, before)


def _generate_chains(settings: TaskSettings, runs: Runs, rng: np.random.Generator) -> TaskSet:
    count, length = runs.stream.shape
    symbols, streams, rows = settings.symbols, settings.streams, np.arange(count)
    names = rng.random((count, length)).argsort(axis=1)  # variable of each place, each used once
    values, sources = np.empty_like(runs.stream), np.empty_like(runs.stream)
    literals = np.full((count, streams), -1)
    begun = np.full((count, streams), length)  # place at which each stream's run began
    guess, latest, oldest = (np.empty((count, length)) for _ in range(3))
    newest = np.zeros(count, np.int64)
    for place in range(length):
        own, begins = runs.stream[:, place], runs.depths[:, place] == 0
        score = rng.random((count, symbols))
        held = literals[:, :, None] == np.arange(symbols)  # (n, streams, symbols): no two streams have one literal
        # One that no stream has; where there is none, that which this stream had itself.
        drawn = (score - 2 * held.any(axis=1) + held[rows, own]).argmax(axis=1)
        value = np.where(begins, drawn, literals[rows, own])
        literals[rows, own] = values[:, place] = value
        sources[:, place] = np.where(begins, value, symbols + names[rows, runs.before[:, place]])
        newest = np.where(begins, value, newest)
        begun[rows, own] = np.where(begins, place, begun[rows, own])
        latest[:, place] = newest == value
        oldest[:, place] = literals[rows, begun.argmin(axis=1)] == value
        guess[:, place] = 1 / (literals >= 0).sum(axis=1)
    inputs = symbols + names * (symbols + length) + sources
    one_link = np.where(runs.depths <= 1, 1.0, guess)
    rules = {"latest literal": latest, "oldest literal": oldest, "a literal at random": guess}
    rules["one link, else a literal at random"] = one_link
    return TaskSet(inputs, values, runs.depths, rules)


def _generate_hops(settings: TaskSettings, runs: Runs, rng: np.random.Generator) -> TaskSet:
    count, length = runs.stream.shape
    symbols, rows = settings.symbols, np.arange(count)
    circle = rng.random((count, symbols)).argsort(axis=1)
    following = np.empty_like(circle)
    np.put_along_axis(following, circle, np.roll(circle, -1, axis=1), axis=1)
    listed = rng.random((count, symbols)).argsort(axis=1)
    links = symbols + listed * symbols + np.take_along_axis(following, listed, axis=1)
    first_start = symbols + symbols * symbols
    first_move = first_start + settings.streams * symbols
    drawn = rng.integers(0, symbols, size=(count, length))
    values, starts = np.zeros_like(drawn), np.zeros_like(drawn)
    for place in range(length):
        begins, before = runs.depths[:, place] == 0, runs.before[:, place]
        values[:, place] = np.where(begins, drawn[:, place], following[rows, values[rows, before]])
        starts[:, place] = np.where(begins, drawn[:, place], starts[rows, before])
    asked = np.where(runs.depths == 0, first_start + runs.stream * symbols + starts, first_move + runs.stream)
    one_hop = np.take_along_axis(following, starts, axis=1) == values
    blank = np.full_like(links, -1)
    rules = {"where it was put": starts == values, "one hop from there": np.where(runs.depths == 0, 1.0, one_hop)}
    return TaskSet(
        np.hstack([links, asked]),
        np.hstack([np.full_like(links, NOT_ASKED), values]),
        np.hstack([blank, runs.depths]),
        {name: np.hstack([blank * 0.0, hits]) for name, hits in rules.items()},
    )


def _generate_modular(settings: TaskSettings, runs: Runs, rng: np.random.Generator) -> TaskSet:
    count, length = runs.stream.shape
    symbols, rows = settings.symbols, np.arange(count)
    terms = rng.integers(0, symbols, size=(count, length))
    values, two = np.zeros_like(terms), np.zeros_like(terms)
    for place in range(length):
        begins, before = runs.depths[:, place] == 0, runs.before[:, place]
        values[:, place] = np.where(begins, 0, values[rows, before]) + terms[:, place]
        two[:, place] = np.where(begins, 0, terms[rows, before]) + terms[:, place]
    values, two = values % symbols, two % symbols
    adds = runs.depths > 0
    inputs = symbols + (adds * settings.streams + runs.stream) * symbols + terms
    return TaskSet(inputs, values, runs.depths, {"the last term": terms == values, "the last two": two == values})


_GENERATORS: dict[str, Callable[[TaskSettings, Runs, np.random.Generator], TaskSet]] = {
    "chains": _generate_chains,
    "hops": _generate_hops,
    "modular": _generate_modular,
}


def _take(found: TaskSet, rows: np.ndarray) -> TaskSet:
    return TaskSet(
        found.inputs[rows],
        found.targets[rows],
        found.depths[rows],
        {name: hits[rows].astype(np.float64) for name, hits in found.heuristics.items()},
    )
