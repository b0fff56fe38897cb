"""Samples, prompts, what is generated, and which source is taken."""

import dataclasses
import re

import numpy as np
import pytest

from maxent.data import catalogue
from maxent.data.catalogue import DATASETS, DataSettings, load_dataset
from maxent.data.facts import FACTS, compute_facts
from maxent.data.prompts import ACTIVITIES, fit_prompt, parse_answer
from maxent.data.sample import SPLITS, DataError, Frame, Sample, render_prompt
from maxent.data.synthetic import make_activities, make_captions, make_stories, make_sums
from pipeline.command.hub import HubError


def make_sample(points: int = 40, label: str = "walking") -> Sample:
    series = np.arange(points, dtype=np.float64)[None]
    return Sample("one", Frame("Say what it is, please.", ("Series",), "Answer:"), series, "question", label, label)


def count_words(text: str) -> int:
    return len(text.split())


# -------------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("make", [make_captions, make_activities, make_stories, make_sums])
def test_the_view_has_everything_but_the_answer(make):
    for sample in make(20, "test", 0):
        view = sample.view()
        kept = {field.name for field in dataclasses.fields(view)}
        assert kept == {"id", "prompt", "series", "task"}
        assert view.prompt == sample.prompt and view.series is sample.series
        if sample.task == "caption":
            assert sample.label not in view.prompt
        assert sample.target.strip().endswith(sample.label)


def test_a_prompt_states_mean_and_deviation_of_each_channel_and_normalises_by_them():
    series = np.array([[1.0, 2.0, 3.0, 4.0], [-10.0, 10.0, -10.0, 10.0]])
    lines = render_prompt(Frame("What?", ("a", "b"), "Say:"), series).splitlines()
    assert lines == [
        "What?",
        "a (mean 2.5, deviation 1.291): -1.2 -0.4 0.4 1.2",
        "b (mean 0, deviation 11.55): -0.9 0.9 -0.9 0.9",
        "Say:",
    ]


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -3e9])
def test_a_constant_series_has_deviation_0_and_no_minus_0(value):
    assert "deviation 0): 0.0 0.0 0.0" in render_prompt(Frame("", ("a",)), np.full((1, 3), value))


def test_a_sample_refuses_what_is_no_series():
    frame = Frame("", ("a",))
    with pytest.raises(ValueError, match="expected 1 channels"):
        Sample("x", frame, np.zeros((2, 3)), "question", "", "")
    with pytest.raises(ValueError, match="finite"):
        Sample("x", frame, np.array([[np.nan]]), "question", "", "")


# -------------------------------------------------------------------------------------------------------------- prompts


def test_what_fits_stays_as_it_is():
    sample = make_sample()
    assert fit_prompt(sample, count_words, count_words(sample.prompt)) == (sample, None)


@pytest.mark.parametrize("limit", [40, 25, 18])
def test_a_prompt_that_is_too_long_loses_points_and_never_words(limit):
    sample = make_sample()
    shorter, note = fit_prompt(sample, count_words, limit)
    assert count_words(shorter.prompt) <= limit
    opening, numbers, closing = shorter.prompt.splitlines()
    assert (opening, closing) == ("Say what it is, please.", "Answer:")
    assert "mean 19.5, deviation 11.69" in numbers  # of the whole series
    assert f"1 in {shorter.step} of 40 points" in numbers
    shown = len(numbers.split("): ")[1].split())
    assert shown == -(-40 // shorter.step)
    assert note == f"prompt of one: {shown} of 40 points shown, for 51 tokens do not fit into {limit}"
    assert shorter.series is sample.series  # rewards look at all of it
    # As many points as fit: one step less is too long.
    fewer = dataclasses.replace(sample, step=shorter.step - 1)
    assert count_words(fewer.prompt) > limit or len(fewer.series[0][:: fewer.step]) == shown


def test_no_room_for_the_instruction_is_an_error():
    with pytest.raises(DataError, match=r"51 tokens do not fit into 5, .*single point.*--max_tokens"):
        fit_prompt(make_sample(), count_words, 5)
    (story,) = make_stories(1, "test", 0)
    with pytest.raises(DataError, match="no series to shorten"):
        fit_prompt(story, count_words, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: walking", "walking"),
        ("It may be running. Answer: running\nNo: it is slow.\nAnswer: walking", "walking"),
        ("answer:  Walking Up.", "walking_up"),
        ("**Answer: `walking-down`**", "walking_down"),
        ("Answer: sitting. Because nothing moves.", "sitting"),
        ("The answer: lying\nand so on", "lying"),
        ("walking", None),
        ("Walking comes to mind first.", None),
        ("Answer: walking or running", None),
        ("Answer: walking, running", None),
        ("Answer: swimming", None),
        ("Answer: walking\nAnswer:", None),
        ("Answer:\nwalking", None),
        ("", None),
    ],
)
def test_the_last_answer_counts_and_only_if_it_is_one_label(text, expected):
    assert parse_answer(text, ACTIVITIES) == expected


def test_without_labels_an_answer_is_what_is_said():
    assert parse_answer("Answer: Upward   Trend. It rises.") == "upward trend"
    assert parse_answer("Answer: 3.5") == "3.5"
    assert parse_answer("Answer: .") is None


# ------------------------------------------------------------------------------------------------------------ generated


@pytest.mark.parametrize("name", list(DATASETS))
def test_generated_data_come_from_the_seed_and_no_split_has_anothers(name):
    make = DATASETS[name].make
    few, many = make(5, "test", 3), make(12, "test", 3)
    assert [(one.id, one.prompt, one.target) for one in few] == [(one.id, one.prompt, one.target) for one in many[:5]]
    assert [one.prompt + one.target for one in make(5, "test", 4)] != [one.prompt + one.target for one in few]
    prompts = [{one.prompt for one in make(40, split, 3)} for split in SPLITS]
    if name != "stories":  # of which there are few short ones
        assert not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    ids = [one.id for split in SPLITS for one in make(40, split, 3)]
    assert len(set(ids)) == len(ids)


def test_captions_state_at_least_eight_facts_and_facts_vary():
    samples = make_captions(150, "train", 0)
    for sample in samples:
        checkable = compute_facts(sample.series[0]).list_checkable()
        assert len(checkable) >= 8
        assert len(re.findall(r"\.(?:\s|$)", sample.label)) == len(checkable)
    facts = [compute_facts(sample.series[0]) for sample in samples]
    for name in FACTS:
        if name not in ("range", "level"):
            shares = np.unique([str(getattr(one, name)) for one in facts], return_counts=True)[1] / len(facts)
            assert len(shares) >= 2 and shares.max() < 0.85, name
    assert len({sample.label for sample in samples}) == len(samples)


def test_activities_are_three_axes_at_50_hz_of_eight_kinds():
    samples = make_activities(80, "train", 0)
    assert {sample.series.shape for sample in samples} == {(3, 128)}
    assert [sum(sample.label == label for sample in samples) for label in ACTIVITIES] == [10] * 8
    assert {sample.label for sample in make_activities(80, "test", 0)} == set(ACTIVITIES)
    assert all(parse_answer(sample.target, ACTIVITIES) == sample.label for sample in samples)


def test_sums_are_shared_out_and_end():
    sums = {split: {one.prompt for one in make_sums(count, split, 0)} for split, count in
            (("train", 720), ("valid", 45), ("test", 135))}  # fmt: skip
    assert len(set.union(*sums.values())) == 900
    with pytest.raises(ValueError, match="at most 45 of valid"):
        make_sums(46, "valid", 0)


# -------------------------------------------------------------------------------------------------------------- sources

SMALL = {"num_train": 4, "num_held_out": 2}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    def fetch(*_, **__):
        raise HubError("https://huggingface.co cannot be reached")

    monkeypatch.setattr(catalogue, "fetch", fetch)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", list(DATASETS))
def test_auto_says_why_data_are_generated(name):
    dataset = load_dataset(name, DataSettings(**SMALL))
    assert not dataset.real
    said = dataset.describe()
    assert said.startswith(f"data: {name}, synthetic (") and said.endswith("seed 0): 4 train, 2 valid, 2 test")
    assert "\n" not in said
    if name not in ("sums", "stories"):
        assert "below data; " in said
    assert ("cannot be reached" in said) == (name == "TSQA")


def test_what_is_asked_for_and_not_there_is_an_error():
    for name in ("M4", "HAR", "TSQA"):
        for source in ("local", "hub"):
            with pytest.raises(DataError, match=rf"{name}: .*; https://.*, or use data_source synthetic"):
                load_dataset(name, DataSettings(source=source))
    with pytest.raises(DataError, match="sums: is generated only"):
        load_dataset("sums", DataSettings(source="local"))
    with pytest.raises(DataError, match="data_path: expected a folder, found nothing"):
        load_dataset("M4", DataSettings(path="nowhere"))
    with pytest.raises(DataError, match="expected one of M4, HAR, TSQA, sums, stories, found 'm5'"):
        load_dataset("m5", DataSettings())
    with pytest.raises(DataError, match="data_source: expected one of auto"):
        DataSettings(source="web")
    with pytest.raises(DataError, match="num_train: expected at least 1"):
        DataSettings(num_train=0)
