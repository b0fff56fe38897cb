"""The prior, the toy, the list of models and what a reward may be."""

import math

import numpy as np
import pytest

from maxent.dts_implementation.models.sequence_model import Prior, ToyModel, enumerate_answers
from maxent.registry import MODEL_CONFIGS
from maxent.rewards.result import RewardResult
from tests.maxent_toys import PLAIN


def compute_plainly(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float) -> dict[int, float]:
    """Return token -> probability, one token at a time: temperature, then top-k, then top-p."""
    order = sorted((t for t in range(len(logits)) if logits[t] > -np.inf), key=lambda t: (-logits[t], t))[:top_k]
    weights = {t: math.exp((logits[t] - logits[order[0]]) / temperature) for t in order}
    total, ahead, kept = sum(weights.values()), 0.0, {}
    for token in order:
        if kept and ahead >= top_p:
            break
        kept[token] = weights[token]
        ahead += weights[token] / total
    return {token: weight / sum(kept.values()) for token, weight in kept.items()}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 4, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-9])
def test_prior_is_temperature_then_top_k_then_top_p(temperature, top_k, top_p):
    logits = 2 * np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    logits[2, 3:9] = -np.inf
    prior = Prior(temperature, top_k, top_p)
    for row, found in zip(logits, prior.compute_distributions(logits), strict=True):
        expected = compute_plainly(row.astype(np.float64), temperature, top_k, top_p)
        assert found.ids.tolist() == list(expected)
        np.testing.assert_allclose(np.exp(found.log_probs), list(expected.values()), rtol=1e-12)
        np.testing.assert_allclose(found.cumulative, np.cumsum(list(expected.values())), rtol=1e-12)
        assert found.cumulative[-1] == 1
        assert found.log_probs.dtype == np.float64
        (alone,) = prior.compute_distributions(row[None])  # the same whatever else is in the batch
        assert np.array_equal(alone.ids, found.ids) and np.array_equal(alone.log_probs, found.log_probs)


def test_top_p_that_is_reached_exactly_keeps_no_more():
    (found,) = Prior(1.0, None, 0.5).compute_distributions(np.log([[0.25, 0.5, 0.25]]))
    assert found.ids.tolist() == [1]


def test_ties_are_ordered_by_token():
    (found,) = Prior(1.0, 3, 1.0).compute_distributions(np.array([[0.0, 2.0, 1.0, 2.0, 1.0]]))
    assert found.ids.tolist()[:2] == [1, 3]
    (found,) = PLAIN.compute_distributions(np.zeros((1, 4)))
    assert found.ids.tolist() == [0, 1, 2, 3]


def test_logits_far_apart_leave_no_token_of_probability_zero():
    (found,) = PLAIN.compute_distributions(np.array([[1e4, -1e4, 0.0, 1e4]]))
    assert found.ids.tolist() == [0, 3]
    np.testing.assert_allclose(found.log_probs, np.log([0.5, 0.5]))


def test_a_row_without_any_token_is_an_end():
    found = PLAIN.compute_distributions(np.array([[-np.inf, -np.inf], [0.0, -np.inf]]))
    assert found[0] is None
    assert found[1].ids.tolist() == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("top_k", [None, 1])
def test_logits_that_are_no_numbers_are_refused(bad, top_k):
    with pytest.raises(ValueError, match="NaN"):
        Prior(1.0, top_k, 1.0).compute_distributions(np.array([[0.0, bad]], np.float16))


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"temperature": 0.0}, "prior_temperature"),
        ({"temperature": math.nan}, "prior_temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_prior_names_a_setting_that_is_out_of_range(setting, name):
    with pytest.raises(ValueError, match=name):
        Prior(**setting)


@pytest.mark.parametrize(("eos", "count"), [(0, 341), (None, 625)])
@pytest.mark.parametrize("prior", [PLAIN, Prior()])
def test_toy_can_be_enumerated(eos, count, prior):
    model = ToyModel(5, eos=eos)
    answers = enumerate_answers(model, "", prior, 4)
    assert len({tokens for tokens, _ in answers}) == len(answers) <= count
    assert prior != PLAIN or len(answers) == count
    assert math.isclose(sum(math.exp(log_p) for _, log_p in answers), 1, rel_tol=1e-12)
    assert all(tokens.index(eos) == len(tokens) - 1 if eos in tokens else len(tokens) == 4 for tokens, _ in answers)


def test_toy_names_prefixes_by_columns_as_the_protocol_says():
    model, other = ToyModel(5), ToyModel(5)
    model.start("a prompt")
    model.open([()])
    branches = model.step([2, 4], [0, 0])
    deeper = model.step([1], [2])  # prompt, 4, 1
    model.close()
    other.start("a prompt")
    other.open([()])
    assert np.array_equal(other.step([4], [0])[0], branches[1])
    assert np.array_equal(other.step([1], [1]), deeper)
    assert (model.cost.prefill, model.cost.new, model.cost.forwards) == (8, 3, 3)
    assert not np.array_equal(branches[0], branches[1])


def test_toy_is_another_model_for_another_prompt_seed_or_length():
    models = [(ToyModel(5), "a"), (ToyModel(5), "b"), (ToyModel(5, seed=1), "a")]
    firsts = [model.start(prompt) for model, prompt in models]
    model, _ = models[0]
    model.start("a")
    model.open([()])
    firsts += [
        model.step([0], [0])[0],
        model.step([0], [1])[0],
    ]  # token 0, where a seed padded with zeros would collide
    assert len({tuple(logits) for logits in firsts}) == 5


def test_toy_decodes_to_letters_without_the_end():
    assert ToyModel(5, eos=0).decode([1, 4, 0]) == "be"


@pytest.mark.parametrize("arguments", [{"vocab_size": 1}, {"vocab_size": 27}, {"vocab_size": 5, "eos": 5}])
def test_toy_refuses_what_it_cannot_be(arguments):
    with pytest.raises(ValueError, match="expected"):
        ToyModel(**arguments)


def test_models_are_listed_with_names_and_colours_of_their_own():
    assert list(MODEL_CONFIGS) == ["llama-7b", "llama-13b", "mistral-7b", "phi-2", "gemma-7b", "toy", "more", "babyai"]
    for field in ("color", "display_name"):
        assert len({config[field] for config in MODEL_CONFIGS.values()}) == len(MODEL_CONFIGS)
    assert MODEL_CONFIGS["llama-7b"] == {
        "name": "meta-llama/Llama-2-7b-hf",
        "color": "#FF6B6B",
        "display_name": "Llama-2-7B",
    }


@pytest.mark.parametrize("total", [math.nan, math.inf, -math.inf])
def test_reward_has_to_be_a_number(total):
    with pytest.raises(ValueError, match="finite total"):
        RewardResult(total, {"claims": 1.0})
