"""What a reward must do and must not do, shown on the embedded data; and how the legacy heuristic is gamed.

Each check returns one line of what it has measured, or raises `CheckFailed`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from maxent.data.catalogue import DataSettings, load_dataset
from maxent.data.facts import compute_facts
from maxent.data.sample import Dataset, Sample
from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchSettings
from maxent.evaluation.metrics.monotonicity import measure_monotonicity
from maxent.loading import NUM_PHRASES, PhraseToy
from maxent.rewards.catalogue import Scorer, build_scorer
from maxent.rewards.result import Answer
from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.shell import as_command

PADDING = "Let us look at this more closely. These words are here to fill space."
BUZZWORDS = "data pattern series analysis trends values peaks seasonal variation insight overview"
CONTRADICTIONS = (
    "The trend is rising, the trend is falling, the trend is flat. Noise is low, noise is moderate, noise is high. "
    "Peak near the start, peak in the middle, peak near the end. Trough near the start, trough in the middle, trough "
    "near the end. Fluctuations grow, fluctuations shrink, fluctuations stay even. It ends above its start, it ends "
    "below its start, it ends near its starting level."
)

GAMING_STRINGS = (
    "Well.",
    "Well, so many values.",
    "Well, so many values, all in a row.",
    "Well, so many values, all in a row. Answer: who knows.",
    "Well, so many values, all in a row, one by one.",
    "Well, so many values, all in a row, one by one, for whoever has a look.",
    "Well, so many values, all in a row, one by one, for whoever has a look at them now.",
    "Well, so many values, all in a row, one by one, for whoever has a look at them now, and has a coffee.",
    "Well, so many values, all in a row, one by one, for whoever has a look at them now, and has a coffee. Therefore.",
    "Well, so many values, all in a row, one by one, for whoever has a look at them now, and has a coffee. Therefore. "
    "Well, so many values, all in a row, one by one, for whoever has a look at them now, and has a coffee. Therefore.",
)
"""Ten strings, none of which says anything of a series that could be true or false; of two in a row the later one is
longer. They rise as those behind the "88.9 %" do: in 7 of 9 steps, with one fall, and the last is level."""


class CheckFailed(Exception):
    """A reward did what it must not do; the message has the figures."""


@dataclass(frozen=True)
class CheckSettings:
    """What is checked.

    Attributes:
        num_samples: Series, and as many movements; at least 2.
        num_rollouts: Of each search whose rewards are watched; at least 2.
        seed: Of the embedded data.
    """

    num_samples: int = 40
    num_rollouts: int = 10
    seed: int = 0


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks and print what they measured; return 0 if all hold, else 1."""
    settings, _ = parse_command("Check the rewards on the embedded data.", CheckSettings, argv)
    check_numbers(settings, 2, "num_samples", "num_rollouts")
    check_numbers(settings, 0, "seed")
    data = DataSettings("synthetic", seed=settings.seed, num_train=240, num_held_out=settings.num_samples)
    captions, activities = load_dataset("M4", data), load_dataset("HAR", data)
    claims, activity = build_scorer("claims", captions), build_scorer("activity", activities)
    print(captions.describe())
    print(f"{activities.describe()}\nreward activity: {activity.note}\n")
    failed = 0
    for check, arguments in (
        (check_true_claims, (captions, claims)),
        (check_false_claims, (captions, claims)),
        (check_order, (captions, claims)),
        (check_label, (captions, claims)),
        (check_label, (activities, activity)),
        (check_padding, (captions, claims)),
        (check_padding, (activities, activity)),
        (check_stuffing, (captions, claims)),
        (check_prompt_copies, (captions, claims)),
        (check_prompt_copies, (activities, activity)),
    ):
        failed += not _run(check, *arguments)
    print()
    report_legacy(captions, claims)
    for method, meaning in (("best_of_n", "independent draws"), ("dts", "tree search")):
        rates = measure_search(captions, claims, method, settings.num_rollouts)
        print(
            f"Monotonicity of {settings.num_rollouts} rollouts, {meaning}: {rates['strict']:.1%} strict, "
            f"{rates['non_strict']:.1%} with ties, records {rates['record_rate']:.1%}; best reward {rates['best']:.2f}"
        )
    print(f"\n{failed} OF THE CHECKS FAILED" if failed else "\nALL TESTS PASSED")
    return 1 if failed else 0


def _run(check: Callable[[Dataset, Scorer], str], dataset: Dataset, scorer: Scorer) -> bool:
    name = f"{scorer.name}: {check.__name__.removeprefix('check_').replace('_', ' ')}"
    try:
        print(f"ok      {name}: {check(dataset, scorer)}")
    except CheckFailed as error:
        print(f"FAILED  {name}: {error}")
        return False
    return True


def score(scorer: Scorer, sample: Sample, text: str) -> float:
    """Return the reward of a text."""
    return scorer.bind(sample)(Answer((0,), text, True, -1.0)).total


def split_sentences(caption: str) -> list[str]:
    """Return the sentences of a caption of the grammar."""
    return [f"{one}." for one in re.split(r"\.(?:\s|$)", caption) if one]


# --------------------------------------------------------------------------------------------------------------- checks


def check_true_claims(dataset: Dataset, scorer: Scorer) -> str:
    """The reward rises with each true sentence, from 0 for none to 1 for all."""
    for sample in dataset.splits["test"]:
        sentences = split_sentences(sample.label)
        found = [score(scorer, sample, " ".join(sentences[:count])) for count in range(len(sentences) + 1)]
        if not (np.diff(found) > 0).all() or found[0] != 0 or found[-1] != 1:
            raise CheckFailed(f"{sample.id}: expected a rise from 0 to 1, found {found}")
    return f"from 0 to 1 in equal steps, on {len(dataset.splits['test'])} series"


def check_false_claims(dataset: Dataset, scorer: Scorer) -> str:
    """A caption of another series is worth less than the true one, and a false sentence less than silence."""
    samples = dataset.splits["test"]
    others = [score(scorer, one, other.label) for one in samples for other in samples if one is not other]
    for sample in samples:
        true = compute_facts(sample.series[0]).noise
        wrong = next(word for word in ("low", "high") if word != true)
        if score(scorer, sample, f"Noise is {wrong}.") >= 0:
            raise CheckFailed(f"{sample.id}: {wrong} noise is not punished where it is {true}")
    if not max(others) < 1:
        raise CheckFailed(f"a caption of another series reaches {max(others)}")
    return f"captions of other series get {np.mean(others):.2f} on average and {max(others):.2f} at most"


def check_order(dataset: Dataset, scorer: Scorer) -> str:
    """Neither the order of questions nor that of sentences matters."""
    samples = dataset.splits["test"][:20]
    asked = [(sample, sample.label) for sample in samples] * 2
    forward = [score(scorer, *pair) for pair in asked]
    if forward != [score(scorer, *pair) for pair in asked[::-1]][::-1]:
        raise CheckFailed("asked backwards, the rewards differ")
    for sample, other in itertools.pairwise(samples):
        sentences = split_sentences(other.label)
        if score(scorer, sample, " ".join(sentences)) != score(scorer, sample, " ".join(sentences[::-1])):
            raise CheckFailed(f"{sample.id}: sentences in reverse order get another reward")
    return "asked in either order, told in either order, the same to the last bit"


def check_label(dataset: Dataset, scorer: Scorer) -> str:
    """The true answer may be anything: rewards stay."""
    samples = dataset.splits["test"]
    for sample, other in zip(samples, [*samples[1:], samples[0]], strict=True):
        swapped = replace(sample, label=other.label, target=other.target)
        for text in (sample.target, other.target, ""):
            if score(scorer, sample, text) != score(scorer, swapped, text):
                raise CheckFailed(f"{sample.id}: another label gives another reward")
    return f"with the label of another sample, the same to the last bit, on {len(samples)} samples"


def check_padding(dataset: Dataset, scorer: Scorer) -> str:
    """Words that claim nothing change nothing, before and after."""
    for sample in dataset.splits["test"]:
        text = sample.target.strip()
        for padded in (f"{PADDING} {text}", f"{text}\n{PADDING}", f"{PADDING * 5}\n{text}", f"{text}\n{text}"):
            if score(scorer, sample, padded) != score(scorer, sample, text):
                raise CheckFailed(f"{sample.id}: padding changes the reward")
    return "sentences without a claim, and the whole said twice, change nothing"


def check_stuffing(dataset: Dataset, scorer: Scorer) -> str:
    """Neither words that sound like analysis nor all possibilities at once pay."""
    highest = -1.0
    for sample in dataset.splits["test"]:
        for text in (BUZZWORDS, f"{BUZZWORDS} " * 10):
            if (found := score(scorer, sample, text)) > 0:
                raise CheckFailed(f"{sample.id}: words without a claim get {found}")
        highest = max(highest, score(scorer, sample, CONTRADICTIONS))
    if highest >= 0:
        raise CheckFailed(f"all possibilities at once get {highest}")
    return f"buzzwords get 0 at most, all possibilities at once {highest:.2f} at most"


def check_prompt_copies(dataset: Dataset, scorer: Scorer) -> str:
    """The prompt, said again, is worth nothing and changes nothing."""
    for sample in dataset.splits["test"]:
        text, silence = sample.target.strip(), score(scorer, sample, "")
        for copied in (sample.prompt, f"{sample.prompt}\n{sample.prompt}"):
            if score(scorer, sample, copied) != silence:
                raise CheckFailed(f"{sample.id}: a copy of the prompt is rewarded")
            for mixed in (f"{copied}\n{text}", f"{text}\n{copied}", f"{copied} {text}"):
                if score(scorer, sample, mixed) != score(scorer, sample, text):
                    raise CheckFailed(f"{sample.id}: a copy of the prompt changes the reward of an answer")
    return "before, after or instead of an answer, it counts nothing"


# --------------------------------------------------------------------------------------------------------- measurements


def report_legacy(dataset: Dataset, scorer: Scorer) -> dict[str, float]:
    """Print how ten empty strings fare under the legacy heuristic, and under the reward; return the rates."""
    sample = dataset.splits["test"][0]
    legacy = build_scorer("legacy", dataset)
    rewards = [score(legacy, sample, text) for text in GAMING_STRINGS]
    honest = [score(scorer, sample, text) for text in GAMING_STRINGS]
    found = measure_monotonicity(rewards)
    steps = len(rewards) - 1
    print(f"Ten strings that say nothing, under legacy: {' '.join(f'{reward:.2f}' for reward in rewards)}")
    print(
        f"  rising in {round(found.strict * steps)}/{steps} steps, {round(found.non_strict * steps)}/{steps} with ties;"
        f" under claims all get {min(honest):.2f} to {max(honest):.2f}"
    )
    return {"strict": found.strict, "non_strict": found.non_strict, "highest_honest": max(honest)}


def list_phrases(dataset: Dataset, count: int) -> list[str]:
    """Return the sentences that occur most in the training captions, numbers apart."""
    sentences = [one for sample in dataset.splits["train"] for one in split_sentences(sample.label)]
    return [one for one, _ in Counter(one for one in sentences if not re.search(r"\d", one)).most_common(count)]


def measure_search(dataset: Dataset, scorer: Scorer, method: str, num_rollouts: int = 10) -> dict[str, float]:
    """Return mean rates of a search's rewards over the test samples, and its mean best reward.

    The model is a toy that says up to six sentences of the grammar and knows nothing of the series; `best_of_n` draws
    them independently, `dts` learns from what it has drawn.
    """
    model = PhraseToy(list_phrases(dataset, NUM_PHRASES))
    settings = SearchSettings(method=method, num_rollouts=num_rollouts, max_tokens=6, prior=Prior(1.0, None, 1.0))
    rows = []
    for sample in dataset.splits["test"]:
        result = search(model, sample.id, scorer.bind(sample), settings)
        found = measure_monotonicity(result.rewards)
        rows.append((found.strict, found.non_strict, found.record_rate, found.best_so_far[-1]))
    return dict(zip(("strict", "non_strict", "record_rate", "best"), np.mean(rows, axis=0).tolist(), strict=True))
