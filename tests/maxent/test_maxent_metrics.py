"""Metrics of answers, trees and rewards, by hand."""

import math

import numpy as np
import pytest

from maxent.data.overlap import compute_bleu, compute_rouge_l, split_words
from maxent.data.prompts import build_question_frame
from maxent.data.sample import Frame, Sample
from maxent.data.synthetic import make_activities, make_captions, make_stories, make_sums
from maxent.dts_implementation.models.sequence_model import ToyModel
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchSettings
from maxent.evaluation.metrics.intervals import Interval, bootstrap, bootstrap_mean
from maxent.evaluation.metrics.monotonicity import measure_monotonicity
from maxent.evaluation.metrics.task_metrics import count_confusion, score_answers, score_classes, score_texts
from maxent.evaluation.metrics.tree_metrics import compute_distinct, measure_tree
from maxent.rewards.oracle import reward_oracle
from maxent.rewards.result import Answer
from tests.maxent_toys import PLAIN, make_reward

# -------------------------------------------------------------------------------------------------------------- classes

TRUTH = ["a", "a", "a", "a", "b", "b", "c", "c"]
SAID = ["a", "a", "b", None, "b", "a", "x", "c"]


def test_confusion_f1_and_kappa_by_hand():
    confusion = count_confusion(SAID, TRUTH, ["a", "b", "c", "d"])
    assert confusion.counts.tolist() == [[2, 1, 0, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]
    assert confusion.accuracy == 4 / 8
    assert confusion.answered == 6 / 8
    # a: 2 hits, 4 true, 3 said; b: 1, 2, 2; c: 1, 2, 1; d is nowhere, and no class that one could fail at.
    np.testing.assert_allclose(confusion.f1, [4 / 7, 2 / 4, 2 / 3, np.nan])
    assert confusion.macro_f1 == pytest.approx((4 / 7 + 2 / 4 + 2 / 3) / 3)
    assert confusion.micro_f1 == pytest.approx(2 * 4 / (8 + 6))
    chance = (4 * 3 + 2 * 2 + 2 * 1) / 64
    assert confusion.kappa == pytest.approx((0.5 - chance) / (1 - chance))


def test_micro_f1_is_the_accuracy_only_if_all_answers_are_labels_and_macro_f1_is_another_number():
    confusion = count_confusion(["a", "a", "a", "a"], ["a", "a", "a", "b"], ["a", "b"])
    assert confusion.micro_f1 == confusion.accuracy == 0.75
    assert confusion.macro_f1 == pytest.approx((6 / 7 + 0) / 2)
    assert confusion.kappa == 0


def test_one_class_alone_leaves_kappa_open():
    assert math.isnan(count_confusion(["a"], ["a"], ["a"]).kappa)


def test_what_cannot_be_counted_is_an_error():
    for said, truth, message in (([], [], "as many"), (["a"], ["a", "b"], "as many"), (["a"], ["x"], "found x")):
        with pytest.raises(ValueError, match=message):
            count_confusion(said, truth, ["a", "b"])


def test_classes_are_scored_with_intervals():
    scores = score_classes(SAID, TRUTH, ["a", "b", "c"])
    assert scores["accuracy"].value == 0.5 and scores["accuracy"].n == 8
    for interval in scores.values():
        assert 0 <= interval.low <= interval.value <= interval.high <= 1 or interval is scores["kappa"]
    assert scores == score_classes(SAID, TRUTH, ["a", "b", "c"])  # nothing random in between


# ---------------------------------------------------------------------------------------------------------------- texts


def test_words_are_words_numbers_and_marks():
    assert split_words("It's 1,200.5 Points, really.") == ["it", "'", "s", "1,200.5", "points", ",", "really", "."]


def test_bleu_by_hand():
    # the cat sat on mat / the cat sat on the mat: 5/5, then with 1 added 4/5, 3/4, 2/3; a word short.
    expected = math.exp(sum(map(math.log, (1, 4 / 5, 3 / 4, 2 / 3))) / 4 + 1 - 6 / 5)
    assert compute_bleu(["The cat sat on mat"], ["the cat sat on the mat"]) == pytest.approx(expected)


def test_bleu_sums_counts_over_the_corpus():
    texts, references = ["a b c d e", "x"], ["a b c d e", "a b"]
    expected = math.exp(sum(map(math.log, (5 / 6, 5 / 5, 4 / 4, 3 / 3))) / 4 + 1 - 7 / 6)
    assert compute_bleu(texts, references) == pytest.approx(expected)


def test_bleu_without_a_common_4_gram_is_not_0_and_without_a_common_word_is():
    assert 0 < compute_bleu(["a c"], ["a b"]) < 1
    assert compute_bleu(["x y z"], ["a b c"]) == compute_bleu([""], ["a"]) == 0
    assert compute_bleu(["a b c d"], ["a b c d"]) == 1
    assert compute_bleu(["a a a a a"], ["a b c d e"]) < 0.4  # a word counts as often as the reference has it


def test_rouge_l_by_hand():
    assert compute_rouge_l("the dog sat on a mat", "the cat sat on the mat") == pytest.approx(2 * 4 / 12)
    assert compute_rouge_l("a b c", "c b a") == pytest.approx(2 / 6)
    assert compute_rouge_l("A b", "a B") == 1
    assert compute_rouge_l("", "a") == compute_rouge_l("a", "") == 0


def test_texts_are_scored_with_intervals():
    texts = ["a b c d"] * 5 + ["x"] * 5
    scores = score_texts(texts, ["a b c d"] * 10)
    assert scores["rouge_l"].value == 0.5
    assert 0.1 < scores["rouge_l"].low < 0.5 < scores["rouge_l"].high < 0.9
    assert scores["bleu_4"].value == compute_bleu(texts, ["a b c d"] * 10)
    with pytest.raises(ValueError, match="as many texts"):
        score_texts(["a"], [])
    with pytest.raises(ValueError, match="as many texts"):
        score_answers([], [])


@pytest.mark.parametrize("make", [make_captions, make_activities, make_stories, make_sums])
def test_each_task_has_its_metrics_and_targets_are_perfect(make):
    samples = make(12, "test", 0)
    labels = sorted({sample.label for sample in samples}) if make is make_activities else ()
    scores = score_answers(samples, [sample.target for sample in samples], labels)
    names = {
        make_captions: {"bleu_4", "rouge_l"},
        make_activities: {"accuracy", "macro_f1", "micro_f1", "kappa", "answered"},
    }
    assert set(scores) == names.get(make, {"accuracy"})
    for interval in scores.values():
        assert interval.value == pytest.approx(1) and interval.n == 12


def test_questions_are_compared_up_to_case_and_spaces():
    frame = Frame("What?", ("Series",))
    samples = [Sample(str(at), frame, np.zeros((1, 3)), "question", "Upward trend", "") for at in range(4)]
    texts = ["Answer: upward  TREND.", "Answer: down\nAnswer: Upward trend", "Upward trend", "Answer: upward"]
    assert score_answers(samples, texts)["accuracy"] == Interval(0.5, None, None, 4)


@pytest.mark.parametrize(
    ("label", "others", "wrong"),
    [
        ("(a)", ["(a) Increasing trend", "a", "A.", "a) rises", "**(a)**", "`(A)`."], ["(b)", "(a) or (b)", "alpha"]),
        ("(a) Increasing trend", ["(a)", "a", "(A) increasing  trend."], ["(b) Increasing trend", "(a) or (b)"]),
        ("(c) Rising in steps, with the largest of them at the end", ["(c)"], ["(b)", "rising"]),
        ("Yes.", ["yes", "YES!", "(yes)", "Yes. It rises."], ["no", "Yes, and no"]),
        ("(Yes)", ["yes"], ["no"]),
        ("The trend is up. It then falls.", ["the trend is up"], ["The trend is down. It then falls."]),
        ("3.5", ["3.5."], ["3", "35"]),
        ("rising", ["Rising."], ["(r)", "r"]),
    ],
)
def test_the_true_answer_of_a_question_is_read_as_what_is_answered(label, others, wrong):
    question = f"Is it one of: (a) Increasing trend (b) Falling {label}"  # a right answer repeats words of the prompt
    sample = Sample("x", build_question_frame(question), np.zeros((1, 3)), "question", label, f" Answer: {label}")

    def score(text):
        reward = reward_oracle(sample, Answer((1,), text, True, -1.0))
        return score_answers([sample], [text])["accuracy"].value, reward.total

    for text in (sample.target, *(f"So.\nAnswer: {one}" for one in others)):
        assert score(text) == (1, 1), text
    for text in (label, "Answer:", *(f"Answer: {one}" for one in wrong)):
        assert score(text) == (0, -1), text


# ------------------------------------------------------------------------------------------------------------ intervals


def test_bootstrap_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(0).standard_normal(400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert found == bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_few_samples_have_no_interval_and_equal_ones_none_to_speak_of():
    assert bootstrap_mean([0.2, 0.4]) == Interval(pytest.approx(0.3), None, None, 2)
    assert bootstrap_mean([1.0] * 6) == Interval(1.0, 1.0, 1.0, 6)
    (nothing,) = bootstrap(lambda rows: [math.nan], 6)
    assert math.isnan(nothing.value) and nothing.low is None


# -------------------------------------------------------------------------------------------------------------- rewards


def test_monotonicity_by_hand():
    found = measure_monotonicity([0.1, 0.3, 0.3, 0.2, 0.5])
    assert (found.strict, found.non_strict, found.record_rate) == (2 / 4, 3 / 4, 2 / 4)
    assert found.best_so_far.tolist() == [0.1, 0.3, 0.3, 0.3, 0.5]
    # 9 pairs differ: 7 rise, 2 fall; tau-b divides by sqrt(10 * 9).
    assert found.kendall_tau == pytest.approx((7 - 2) / math.sqrt(90))


def test_monotonicity_of_what_cannot_rise():
    found = measure_monotonicity([0.5, 0.5])
    assert (found.strict, found.non_strict, found.kendall_tau, found.record_rate) == (0, 1, None, 0)
    found = measure_monotonicity([0.5])
    assert (found.strict, found.non_strict, found.kendall_tau, found.record_rate) == (None,) * 4
    with pytest.raises(ValueError, match="at least one"):
        measure_monotonicity([])


def test_independent_continuous_rewards_rise_in_half_of_the_steps():
    rng = np.random.default_rng(0)
    rates = [measure_monotonicity(rng.uniform(size=10)).strict for _ in range(500)]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.02)


# ---------------------------------------------------------------------------------------------------------------- trees


@pytest.mark.parametrize("method", ["dts", "best_of_n", "dts_star", "greedy"])
def test_the_trees_figures_are_those_of_its_rollouts(method):
    chosen = SearchSettings(method=method, num_rollouts=40, max_tokens=4, prior=PLAIN, seed=2)
    result = search(ToyModel(3), "p", make_reward(), chosen)
    found = measure_tree(result)
    answers = [rollout.tokens for rollout in result.rollouts]
    prefixes = {tokens[:size] for tokens in answers for size in range(1, len(tokens) + 1)}
    inner = {tokens[:size] for tokens in answers for size in range(len(tokens))}
    assert found["nodes"] == len(prefixes) == sum(rollout.nodes for rollout in result.rollouts)
    assert found["depth"] == max(map(len, answers))
    assert found["branching"] == pytest.approx(len(prefixes) / len(inner))
    assert found["unique_answers"] == len(set(answers))
    shares = [answers.count(one) / len(answers) for one in set(answers)]
    assert found["effective_width"] == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    assert found["branch_depth"] == pytest.approx(np.mean([rollout.branch_depth for rollout in result.rollouts]))


def test_distinct_n_by_hand():
    assert compute_distinct(["a b a", "a b"], 1) == 2 / 5
    assert compute_distinct(["a b a", "a b"], 2) == 2 / 3
    assert compute_distinct(["", "a"], 2) == 0
