"""Rewards: what they follow, what they are blind to, and what facts they test claims against."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxent import reward_checks
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.data.facts import Facts, compute_facts, find_shift
from maxent.data.prompts import ACTIVITIES, CAPTION_FRAME
from maxent.data.sample import DataError, Frame, Sample, View
from maxent.data.synthetic import build_text_samples, make_activities, make_captions, make_stories, make_sums
from maxent.rewards.activity import FLOOR, ActivityReward
from maxent.rewards.catalogue import DEFAULTS, TASKS, build_scorer
from maxent.rewards.claims import check_claim, parse_claims, reward_claims
from maxent.rewards.copies import remove_copies
from maxent.rewards.programmatic import reward_programmatic, solve
from maxent.rewards.result import Answer
from more.stories import EmbeddedSettings, generate

SMALL = DataSettings(source="synthetic", num_train=160, num_held_out=24)


def say(text: str, log_p: float = -1.0) -> Answer:
    return Answer((0,), text, True, log_p)


@pytest.fixture(scope="module")
def captions():
    return load_dataset("M4", SMALL)


@pytest.fixture(scope="module")
def activities():
    return load_dataset("HAR", SMALL)


@pytest.fixture(scope="module")
def activity(activities):
    return build_scorer("activity", activities)


# ---------------------------------------------------------------------------------------------------------------- facts

TIME = np.arange(96)
NOISE = np.random.default_rng(0).standard_normal(96)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (TIME * 1.0, {"trend": "rising", "peak": "end", "trough": "start", "change": "above", "shift": "none"}),
        (5.0 - TIME, {"trend": "falling", "peak": "start", "trough": "end", "change": "below"}),
        (NOISE, {"trend": "flat", "noise": "high", "shift": "none", "change": "near", "spread": "even", "period": 0}),
        (np.sin(2 * np.pi * TIME / 12) + 0.01 * NOISE, {"period": 12, "noise": "low", "trend": "flat"}),
        (np.sin(2 * np.pi * TIME / 7) + 0.1 * TIME + 0.2 * NOISE, {"period": 7, "noise": "low", "trend": "rising"}),
        (0.2 * NOISE + 3 * (TIME >= 50), {"shift": "up", "shift_place": "middle", "noise": "low"}),
        (0.2 * NOISE - 3 * (TIME >= 15), {"shift": "down", "shift_place": "start"}),
        (NOISE * np.where(TIME < 48, 1, 4), {"spread": "grow"}),
        (NOISE * np.where(TIME < 48, 4, 1), {"spread": "shrink"}),
    ],
)
def test_facts_of_series_that_are_plain(series, expected):
    facts = compute_facts(series)
    assert {name: getattr(facts, name) for name in expected} == expected


def test_facts_do_not_depend_on_units():
    for sample in make_captions(60, "train", 5):
        facts = dataclasses.asdict(compute_facts(sample.series[0]))
        scaled = dataclasses.asdict(compute_facts(1000.0 + 0.25 * sample.series[0]))
        for name in set(facts) - {"low", "high", "mean"}:
            assert facts[name] == scaled[name], name


def test_a_shift_is_the_best_step_beside_a_line():
    for sample in make_captions(20, "train", 6):
        series = sample.series[0]
        size = len(series)
        errors = {}
        for at in range(max(3, size // 10), size - max(3, size // 10)):
            design = np.stack([np.ones(size), np.arange(size), np.arange(size) >= at], axis=1)
            coefficients, error, *_ = np.linalg.lstsq(design, series, rcond=None)
            errors[at] = (float(error[0]), float(coefficients[2]))
        direction, at, height = find_shift(series)
        if direction != "none":
            assert at == min(errors, key=errors.get)
            assert height == pytest.approx(errors[at][1])


@pytest.mark.parametrize("series", [np.full(40, 7.0), np.arange(5.0), np.array([1.0])])
def test_what_cannot_be_told_is_not_checkable(series):
    facts = compute_facts(series)
    assert set(facts.list_checkable()) <= {"range", "level"}
    sample = Sample("x", CAPTION_FRAME, np.full((1, 40), 7.0), "caption", "", "")
    assert reward_claims(sample.view(), say("Rising trend.")).total == 0


# --------------------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The series rises overall.", {("trend", "rising")}),
        ("There is a clear downward trend, with low noise", {("trend", "falling"), ("noise", "low")}),
        ("There is no clear trend and no seasonality.", {("trend", "flat"), ("period", 0.0)}),
        ("It repeats every 12 points; a 7-day cycle.", {("period", 12.0), ("period", 7.0)}),
        ("Seasonal fluctuations of period 12.", {("period", 12.0)}),
        ("values ranging from 6,000 to 15,000.5 on the y-axis", {("range", (6000.0, 15000.5))}),
        ("Values lie between -3 and 4", {("range", (-3.0, 4.0))}),
        ("The mean is about 52.5.", {("level", 52.5)}),
        ("The peak is near the start and the trough in the middle.", {("peak", "start"), ("trough", "middle")}),
        ("A sudden jump near the end", {("shift", "up"), ("shift", "end")}),
        ("A structural break", {("shift", "some")}),
        ("without sudden changes", {("shift", "none")}),
        ("It ends above its start.", {("change", "above")}),
        ("Variability increases; the noise is moderate.", {("spread", "grow"), ("noise", "moderate")}),
        ("It initially rises, then falls.", set()),
        ("The trend is not rising steeply.", {("trend", "flat")}),
        ("Noise is not high.", {("noise", "low")}),
        ("This rising star of data shows many things.", {("trend", "rising")}),
        ("Nothing of it says anything.", set()),
        ("The series shows a steady increase over the observed period, with several peaks.", {("trend", "rising")}),
        ("Over the period of a year the trend is upward but with noise.", {("trend", "rising")}),
        ("A mean of 500 without a significant trend.", {("level", 500.0), ("trend", "flat")}),
        ("The range is 10 to 20.", {("range", (10.0, 20.0))}),
        ("The highest value, about 98, is reached close to the end of the series.", set()),
        ("Rising, falling and flat all over.", {("trend", "rising"), ("trend", "falling"), ("trend", "flat")}),
        ("", set()),
    ],
)
def test_claims_are_read(text, expected):
    assert parse_claims(text) == expected


FACTS_OF_A_SERIES = Facts("rising", 12, "low", 0.0, 100.0, 50.0, "end", "start", "up", "middle", "above", "even")


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (("trend", "rising"), True),
        (("trend", "flat"), False),
        (("period", 13.0), True),
        (("period", 14.0), False),
        (("period", 0.0), False),
        (("period", "some"), True),
        (("range", (9.0, 91.0)), True),
        (("range", (0.0, 111.0)), False),
        (("level", 59.0), True),
        (("level", 61.0), False),
        (("shift", "up"), True),
        (("shift", "middle"), True),
        (("shift", "down"), False),
        (("shift", "none"), False),
        (("peak", "end"), True),
        (("trough", "end"), False),
    ],
)
def test_claims_are_tested(claim, expected):
    assert check_claim(claim, FACTS_OF_A_SERIES) is expected


def test_the_true_caption_of_every_series_is_all_right():
    for sample in make_captions(200, "valid", 9):
        found = reward_claims(sample.view(), say(sample.label))
        assert found.total == 1
        assert found.parts["right"] == found.parts["checkable"] == len(found.parts) - 3


def test_saying_two_things_of_one_fact_is_wrong_even_if_one_is_true(captions):
    sample = captions.splits["test"][0]
    noise = compute_facts(sample.series[0]).noise
    other = next(word for word in ("low", "high") if word != noise)
    checkable = len(compute_facts(sample.series[0]).list_checkable())
    for text, expected in (
        (f"Noise is {noise}.", 1),
        (f"Noise is {noise}. Noise is {noise}. Noise is {noise}.", 1),
        (f"Noise is {noise}. Noise is {other}.", -1),
        (f"Noise is {other}.", -1),
    ):
        assert reward_claims(sample.view(), say(text)).total == expected / checkable


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*reward_checks.GAMING_STRINGS, *(one.label for one in make_captions(8, "train", 2)),
                                 "Peak near the end", "no period,", "rising and falling", "12 to", "."]),
                max_size=6), st.integers(0, 7))  # fmt: skip
def test_claims_stay_within_bounds_whatever_is_said(parts, index):
    sample = make_captions(8, "train", 2)[index]
    assert -1 <= reward_claims(sample.view(), say(" ".join(parts))).total <= 1


# ------------------------------------------------------------------------------------- blind to all but what is claimed


@pytest.mark.parametrize(
    "check",
    [
        *(reward_checks.check_true_claims, reward_checks.check_false_claims, reward_checks.check_order),
        *(reward_checks.check_label, reward_checks.check_padding, reward_checks.check_stuffing),
        reward_checks.check_prompt_copies,
    ],
)
def test_claims_follow_the_truth_and_nothing_else(check, captions):
    assert check(captions, build_scorer("claims", captions))


@pytest.mark.parametrize(
    "check", [reward_checks.check_label, reward_checks.check_padding, reward_checks.check_prompt_copies]
)
def test_activities_follow_the_series_and_nothing_else(check, activities, activity):
    assert check(activities, activity)


@pytest.mark.parametrize("check", [reward_checks.check_label, reward_checks.check_stuffing])
def test_the_checks_notice_a_reward_that_does_what_it_must_not(check, captions):
    with pytest.raises(reward_checks.CheckFailed):
        check(captions, build_scorer("legacy", captions))


def test_only_what_is_flagged_is_given_the_label(captions, monkeypatch):
    for name in TASKS:
        if "caption" in TASKS[name]:
            scorer = build_scorer(name, captions)
            assert scorer.sees_label == (name in ("oracle", "legacy"))
            assert bool(scorer.note) == scorer.sees_label
            seen = []
            spy = dataclasses.replace(scorer, function=lambda given, answer, seen=seen: seen.append(given))
            spy.bind(captions.splits["test"][0])(say(""))
            assert isinstance(seen[0], Sample if scorer.sees_label else View)


def test_copies_of_the_prompt_are_cut_and_own_words_stay():
    prompt = "One two three four five six seven eight.\nAnswer: <label>"
    assert remove_copies(prompt, "mine two three four five six seven yours") == "mine\nyours"
    assert remove_copies(prompt, "ONE  two three four five six") == ""
    assert remove_copies(prompt, "two three four five six") == "two three four five six"
    assert remove_copies(prompt, "so\nanswer: <label>\nAnswer: me") == "so\nAnswer: me"
    assert remove_copies("", "a b c d e f g") == "a b c d e f g"


# ------------------------------------------------------------------------------------------------------- the others


def test_activity_is_told_with_the_accuracy_of_its_classifier(activities, activity):
    reward = activity.function
    assert reward.accuracy > 0.75 and reward.num_held_out == 24
    assert activity.note == f"the classifier behind it is right on {reward.accuracy:.0%} of 24 others"
    assert ActivityReward.fit(activities.splits["train"], activities.splits["valid"], ACTIVITIES).weights.tolist() == (
        reward.weights.tolist()
    )


def test_activity_is_a_clipped_and_scaled_log_probability(activities, activity):
    reward = activity.function
    for sample in activities.splits["test"]:
        log_probs = reward.compute_log_probs(sample.series)
        assert math.fsum(np.exp(log_probs)) == pytest.approx(1)
        found = [reward(sample.view(), say(f"Answer: {label}")).total for label in ACTIVITIES]
        np.testing.assert_allclose(found, 1 - 2 * np.maximum(log_probs, FLOOR) / FLOOR)
        assert all(-1 <= one <= 1 for one in found)
        for text in ("", "walking", "Answer: walking, running", "Answer: swimming"):
            assert reward(sample.view(), say(text)).total == -1


def test_activity_that_cannot_be_fitted_is_an_error(activities):
    train, valid = activities.splits["train"], activities.splits["valid"]
    with pytest.raises(DataError, match=r"training samples of each label, found none of \['swimming'\]"):
        ActivityReward.fit(train, valid, [*ACTIVITIES, "swimming"])
    with pytest.raises(DataError, match="held-out samples"):
        ActivityReward.fit(train, [], ACTIVITIES)


def test_activity_fits_series_that_are_short_or_constant():
    frame = Frame("", ("x", "y", "z"))
    samples = [
        Sample(str(at), frame, np.full((3, 1 + at), float(at % 2)), "activity", "ab"[at % 2], "") for at in range(8)
    ]
    reward = ActivityReward.fit(samples, samples, ("a", "b"))
    assert reward.accuracy == 1


def test_likelihood_is_the_log_probability(captions):
    scorer = build_scorer("likelihood", captions)
    assert scorer.bind(captions.splits["test"][0])(say("x", -12.5)).total == -12.5


def test_two_generators_of_stories_and_sums_are_solved_from_the_prompt():
    for sample in [*make_stories(300, "test", 1), *make_sums(135, "test", 1)]:
        assert solve(sample.prompt) == sample.label
        assert reward_programmatic(sample.view(), say(sample.target)).total == 1
        assert reward_programmatic(sample.view(), say(" 0\n17")).total == -1
    data = generate(EmbeddedSettings(600, 20, 20), 0, held_out_only=True)
    questions = [one for of_task in data.questions["test"].values() for one in of_task] + data.sums["test"]
    assert len(questions) > 150
    for question in questions:
        assert solve(question.prompt()) == question.answer


@pytest.mark.parametrize(
    ("story", "question", "answer"),
    [
        ("Mary went to the garden. Mary went back to the kitchen.", "Where is Mary?", "kitchen"),
        ("Mary journeyed to the garden. Mary picked up the milk there.", "Where is the milk?", "garden"),
        (
            "Mary moved to the garden. Mary got the milk there. Mary travelled to the office.",
            "Where is Mary?",
            "office",
        ),
        (
            "Mary went to the garden. Mary took the milk there. Mary put down the milk. Mary moved to the office.",
            "Where is the milk?",
            "garden",
        ),
        (
            "Mary went to the hall. Mary grabbed the milk there. Mary went to the garden. Mary left the milk there. "
            "John moved to the garden. John picked up the milk. John went back to the hall.",
            "Where was the milk before the hall?",
            "garden",  # and not what was before its first time in the hall
        ),
        ("Mary went to the garden. Where is Mary? John went to the hall.", "Where is Mary?", "garden"),
        ("Mary went to the garden. Then she went to the kitchen.", "Where is Mary?", None),
        ("Mary went to the garden. Mary and John moved to the hall.", "Where is Mary?", None),
        ("Mary went to the garden. Mary got the milk. Mary handed the milk to John.", "Where is the milk?", None),
    ],
)
def test_stories_of_babi_are_solved_and_those_with_a_sentence_that_cannot_be_read_are_not(story, question, answer):
    assert solve("\n".join([*re.findall(r"[A-Z][^.?]*[.?]", story), question])) == answer


@pytest.mark.parametrize("prompt", ["", "Hello", "Where is Mary?", "Mary got the milk.\nWhere is the milk?", "1+1"])
def test_what_no_program_solves_is_said(prompt):
    assert solve(prompt) is None
    with pytest.raises(DataError, match="or as bAbI 1 to 3 has them, found x"):
        reward_programmatic(View("x", prompt, np.zeros((0, 0)), "sum"), say("2"))


def test_samples_that_no_program_solves_are_left_out():
    stories = [
        ("Mary went to the hall.", "hall"),
        ("Mary fled to the hall.", "hall"),
        ("Mary moved to the hall.", "hall"),
    ]
    pairs = [(f"{story}\nWhere is Mary?", answer) for story, answer in stories]
    first, unread, last = samples = build_text_samples(pairs, "story", "x")
    scorer = build_scorer("programmatic", load_dataset("stories", SMALL))
    assert scorer.choose(samples) == [first, last]
    with pytest.raises(DataError, match="programmatic can judge none of these 1 samples; use another --reward"):
        scorer.choose([unread])
    assert build_scorer("likelihood", load_dataset("stories", SMALL)).choose(samples) == samples


def test_the_oracle_is_right_about_each_task():
    for make in (make_captions, make_activities, make_stories, make_sums):
        for sample, other in zip(make(10, "test", 0), make(10, "valid", 1), strict=True):
            dataset_task = sample.task
            function = build_scorer("oracle", load_dataset("sums", SMALL)).function
            assert function(sample, say(sample.target)).total == 1
            if other.label != sample.label:
                assert function(sample, say(other.target)).total < 1
                assert function(sample, say(other.target)).total == -1 or dataset_task == "caption"


def test_each_dataset_has_a_reward_of_its_own_and_refuses_others(captions):
    assert DEFAULTS == {
        **{"caption": "claims", "activity": "activity", "question": "likelihood"},
        **{"sum": "programmatic", "story": "programmatic", "episode": "episode"},
    }
    for name, reward in (("TSQA", "likelihood"), ("sums", "programmatic"), ("stories", "programmatic")):
        assert build_scorer(None, load_dataset(name, SMALL)).name == reward
    with pytest.raises(DataError, match="activity cannot judge M4; use one of claims, likelihood, oracle, legacy"):
        build_scorer("activity", captions)
    with pytest.raises(DataError, match="reward: expected one of claims"):
        build_scorer("rouge", captions)


def test_the_legacy_heuristic_is_gamed_and_the_claims_are_not(captions, capsys):
    found = reward_checks.report_legacy(captions, build_scorer("claims", captions))
    assert found == pytest.approx({"strict": 7 / 9, "non_strict": 8 / 9, "highest_honest": 0.0})
    assert "rising in 7/9 steps, 8/9 with ties; under claims all get 0.00 to 0.00" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["best_of_n", "dts"])
def test_rewards_rise_in_fewer_than_half_of_the_steps_with_and_without_the_tree(captions, method):
    rates = reward_checks.measure_search(captions, build_scorer("claims", captions), method)
    assert 0.3 < rates["strict"] < 0.5 < rates["non_strict"] < 0.8 and 0.1 < rates["record_rate"] < 0.3
