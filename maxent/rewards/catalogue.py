"""The rewards by name, and who of them may see what.

scorer = build_scorer(None, dataset)              # the dataset's own
search(model, sample.prompt, scorer.bind(sample), settings)
scorer.name, scorer.sees_label, scorer.note       # for records, charts and the screen
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from maxent.data.sample import DataError, Dataset, Sample, View
from maxent.rewards.activity import ActivityReward
from maxent.rewards.claims import reward_claims
from maxent.rewards.episode import EpisodeReward
from maxent.rewards.legacy import reward_legacy
from maxent.rewards.likelihood import reward_likelihood
from maxent.rewards.oracle import reward_oracle
from maxent.rewards.programmatic import is_solvable, reward_programmatic
from maxent.rewards.result import Answer, Reward, RewardResult

TASKS = {
    "claims": ("caption",),
    "activity": ("activity",),
    "programmatic": ("sum", "story"),
    "episode": ("episode",),
    "likelihood": ("caption", "activity", "question", "sum", "story", "episode"),
    "oracle": ("caption", "activity", "question", "sum", "story"),
    "legacy": ("caption", "activity", "question", "sum", "story"),
}
"""Reward -> tasks that it can judge."""

DEFAULTS = {"caption": "claims", "activity": "activity", "question": "likelihood", "sum": "programmatic"}
DEFAULTS |= {"story": DEFAULTS["sum"], "episode": "episode"}


@dataclass(frozen=True)
class Scorer:
    """A reward for a dataset's samples.

    Attributes:
        name: As in `--reward`.
        sees_label: It is given the true answer: an oracle or the legacy heuristic, whose figures are no results.
        note: One line that belongs beside its figures; empty if there is nothing to say.
        function: (view, answer), or (sample, answer) if it sees the label.
        judges: Whether it has a reward for the answers to a prompt at all.
    """

    name: str
    sees_label: bool
    note: str
    function: Callable[[Any, Answer], RewardResult]
    judges: Callable[[View], bool] = lambda view: True

    def bind(self, sample: Sample, model: Any = None) -> Reward:
        """Return the reward of answers to one sample, as a search calls it. Only what is flagged gets the label."""
        return partial(self.function, sample if self.sees_label else sample.view())

    def choose(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return those of some samples that it can judge, in order.

        Raises:
            DataError: If there are none.
        """
        chosen = [sample for sample in samples if self.judges(sample.view())]
        if not chosen:
            raise DataError(
                f"reward: {self.name} can judge none of these {len(samples)} samples; use another --reward, such as "
                "likelihood"
            )
        return chosen


@dataclass(frozen=True)
class EpisodeScorer:
    """The reward of episodes, in the place of a `Scorer`: what a policy's model plays is what is rewarded.

    Attributes:
        alpha: See `EpisodeReward`.
        name: See `Scorer`.
        sees_label: See `Scorer`; there is no label.
    """

    alpha: float = 0.0
    name: str = "episode"
    sees_label: bool = False

    @property
    def note(self) -> str:
        """See `Scorer`."""
        return f"less {self.alpha:g} x complexity, as a share of its largest" if self.alpha else ""

    def bind(self, sample: Sample, model: Any) -> Reward:
        """Return the reward of the episodes that a model plays; see `Scorer`."""
        return EpisodeReward(model.play, self.alpha)

    def choose(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return all samples; see `Scorer`."""
        return list(samples)


def build_scorer(name: str | None, dataset: Dataset, lpc_alpha: float = 0.0) -> Scorer | EpisodeScorer:
    """Return a reward for a dataset.

    Args:
        name: One of `TASKS`; None for the dataset's own.
        dataset: `activity` fits its classifier on the training split, and measures it on the validation split.
        lpc_alpha: Price of complexity, of `episode` alone.

    Raises:
        DataError: If the reward is unknown, or cannot judge what the dataset asks.
    """
    task = next(sample.task for samples in dataset.splits.values() for sample in samples)
    name = name or DEFAULTS[task]
    if name not in TASKS:
        raise DataError(f"reward: expected one of {', '.join(TASKS)}, found {name!r}")
    if task not in TASKS[name]:
        fitting = ", ".join(reward for reward, tasks in TASKS.items() if task in tasks)
        raise DataError(f"reward: {name} cannot judge {dataset.name}; use one of {fitting}")
    match name:
        case "claims":
            return Scorer(name, False, "", reward_claims)
        case "activity":
            reward = ActivityReward.fit(dataset.splits["train"], dataset.splits["valid"], dataset.labels)
            note = f"the classifier behind it is right on {reward.accuracy:.0%} of {reward.num_held_out} others"
            return Scorer(name, False, note, reward)
        case "episode":
            return EpisodeScorer(lpc_alpha)
        case "programmatic":
            return Scorer(name, False, "", reward_programmatic, is_solvable)
        case "likelihood":
            return Scorer(name, False, "", reward_likelihood)
        case "oracle":
            return Scorer(name, True, "it knows the answer: an upper bound, not a result", reward_oracle)
        case _:
            return Scorer(name, True, "it can be gamed and knows the answer: for demonstration only", reward_legacy)
