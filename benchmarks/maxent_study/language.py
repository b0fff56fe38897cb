"""Stand-ins that write captions and name activities, each trained on data of its own seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.maxent_study.asked import Asked, Question
from benchmarks.maxent_study.settings import Case, StudySettings
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.data.overlap import compute_rouge_l
from maxent.data.prompts import fit_prompt, parse_answer
from maxent.data.sample import Dataset, Sample
from maxent.dts_implementation.models.stand_in import StandInSettings, build_stand_in
from maxent.dts_implementation.search.result import Rollout
from maxent.rewards.activity import ActivityReward
from maxent.rewards.catalogue import Scorer, build_scorer


def open_language(settings: StudySettings, case: Case, seed: int, tick: Callable[[object], object]) -> Asked:
    """Return the stand-in of a seed with the first questions of that seed's test split.

    Args:
        settings: Of the study; models are kept below its output.
        case: m4 or har.
        seed: Of data and weights.
        tick: Called with the loss after each step of a training.
    """
    dataset = load_dataset(case.name.upper(), DataSettings("synthetic", seed=seed, num_train=settings.num_train))
    stand_in = build_stand_in(
        settings.stand_in,
        dataset.splits["train"],
        Path(settings.output) / "stand_ins",
        StandInSettings(steps=settings.find_steps(case.part), seed=seed),
        announce=lambda line: None,
        on_step=tick,
    )
    scorer = build_scorer(case.reward, dataset)
    model, questions = stand_in.model, []
    context = model.limit  # before a prompt is read: of both together
    for sample in dataset.splits["test"][: settings.num_samples]:
        fitting, _ = fit_prompt(sample, model.count_tokens, context - case.max_tokens)
        questions.append(build_question(fitting, dataset, scorer))
    facts: dict[str, Any] = {"model": stand_in.display_name, "loss": stand_in.losses[-1]}
    if isinstance(scorer.function, ActivityReward):
        facts["accuracy of the reward's own classifier"] = scorer.function.accuracy
    return Asked(model, {case.name: questions}, facts)


def build_question(sample: Sample, dataset: Dataset, scorer: Scorer) -> Question:
    """Return a sample as a question; an activity is right or wrong, a caption overlaps with its reference."""
    reward = scorer.bind(sample)
    if sample.task == "caption":
        return Question(sample.id, sample.prompt, reward, lambda rollout: compute_rouge_l(rollout.text, sample.label))

    def parse(text: str) -> str | None:
        return parse_answer(text, dataset.labels)

    def score(rollout: Rollout) -> float:
        return float(parse(rollout.text) == sample.label)

    return Question(sample.id, sample.prompt, reward, score, parse, sample.label)
