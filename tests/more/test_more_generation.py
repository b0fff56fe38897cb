"""Generation with MoRE: the cache changes nothing, options do what they say, likelihoods are sums of log p."""

import pytest
import torch

from more.config import MODEL_TYPES, ModelConfig
from more.generation import batch_log_likelihood, choose_tokens, evaluating, generate, sequence_log_likelihood
from more.model import Cache, MoreModel

every_variant = pytest.mark.parametrize("model_type", [*MODEL_TYPES, "more_a all"])
"""With `more_a` whose experts attend to all earlier tokens."""
every_top_k = pytest.mark.parametrize("top_k", [1, 2])

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7], [9, 3]]


def build(model_type: str, top_k: int = 1, **changes) -> MoreModel:
    sizes = {"vocab_size": 30, "d_model": 16, "num_heads": 2, "num_layers": 2, "num_experts": 4, "max_length": 24}
    model_type, _, sees = model_type.partition(" ")
    sizes["expert_attention"] = sees or "same"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MoreModel(ModelConfig(model_type=model_type, top_k=top_k, num_recurrences=2, **sizes, **changes))
        for parameter in model.parameters():  # far from uniform, so that sequences differ
            parameter.data.mul_(3)
    return model.double()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def extend_greedily(model: MoreModel, prompt: list[int], count: int, **settings) -> list[int]:
    """The loop without a cache."""
    with evaluating(model):
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]), **settings).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


# --------------------------------------------------------------------------------------------------------- cache


@every_variant
@every_top_k
@pytest.mark.parametrize("recurrences", [1, 2, 4])
def test_cached_decoding_equals_the_full_forward(model_type, top_k, recurrences):
    """Chunks of several sizes, sequences of different lengths, padding at the right of each chunk."""
    model = build(model_type, top_k).eval()
    tokens = torch.randint(0, 30, (3, 20), generator=generator())
    with torch.no_grad():
        full = model(tokens, num_recurrences=recurrences)
        cache = Cache(model, 3, 24, recurrences)
        for lengths in ([4, 1, 0], [2, 3, 3], [1, 1, 1], [0, 5, 4], [1, 1, 1]):
            chunk = torch.zeros(3, max(lengths), dtype=torch.long)
            start = cache.lengths.tolist()
            for row, length in enumerate(lengths):
                chunk[row, :length] = tokens[row, start[row] : start[row] + length]
            uneven = len(set(lengths)) > 1
            out = model(chunk, lengths=torch.tensor(lengths) if uneven else None, cache=cache)
            for row, length in enumerate(lengths):
                expected = full.logits[row, start[row] : start[row] + length]
                torch.testing.assert_close(out.logits[row, :length], expected, rtol=0, atol=1e-11)
        assert cache.lengths.tolist() == [8, 11, 9]
        assert cache.longest == 11


@every_variant
def test_selected_sequences_of_a_cache_go_on_as_they_would(model_type):
    model = build(model_type, 2).eval()
    tokens = torch.randint(0, 30, (3, 8), generator=generator())
    rows = torch.tensor([2, 0, 2])
    with torch.no_grad():
        cache = Cache(model, 3, 8)
        model(tokens[:, :5], cache=cache)
        cache.select(rows)
        out = model(tokens[rows, 5:], cache=cache).logits
        torch.testing.assert_close(out, model(tokens).logits[rows, 5:], rtol=0, atol=1e-11)


@every_variant
def test_a_longer_sequence_that_is_gone_takes_no_room_from_those_that_stay(model_type):
    model = build(model_type, 2).eval()
    tokens = torch.randint(0, 30, (2, 8), generator=generator())
    with torch.no_grad():
        cache = Cache(model, 2, 8)
        model(tokens[:, :6], lengths=torch.tensor([6, 2]), cache=cache)
        cache.select(torch.tensor([1]))
        assert cache.longest == 2
        out = model(tokens[1:, 2:], cache=cache).logits
        torch.testing.assert_close(out, model(tokens[1:]).logits[:, 2:], rtol=0, atol=1e-11)


# ------------------------------------------------------------------------------------------------------ generate


@every_variant
@every_top_k
@pytest.mark.parametrize("recurrences", [None, 1])
def test_greedy_is_the_argmax_loop_whatever_else_is_in_the_batch(model_type, top_k, recurrences):
    model = build(model_type, top_k).train()
    expected = [extend_greedily(model, prompt, 8, num_recurrences=recurrences) for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_new_tokens=8, num_recurrences=recurrences) == expected
    assert [
        generate(model, [prompt], max_new_tokens=8, num_recurrences=recurrences)[0] for prompt in PROMPTS
    ] == expected
    assert model.training  # as it was before


@every_variant
def test_a_tensor_of_prompts_of_one_length(model_type):
    model = build(model_type)
    prompts = torch.tensor([[1, 2, 3], [7, 8, 9]])
    assert generate(model, prompts, max_new_tokens=5) == [extend_greedily(model, p.tolist(), 5) for p in prompts]


@every_variant
def test_the_end_token_ends_its_sequence_alone(model_type):
    model = build(model_type)
    free = [extend_greedily(model, prompt, 12) for prompt in PROMPTS]
    ends = {row[position] for row in free for position in (1, 6)} | {free[0][0]}
    cut_early = 0
    for end in ends:
        expected = [row[: row.index(end)] if end in row else row for row in free]
        assert generate(model, PROMPTS, max_new_tokens=12, end_token=end) == expected
        cut_early += any(len(row) < 12 for row in expected) and any(len(row) == 12 for row in expected)
    assert len(ends) > 1 and cut_early  # some ended while others went on


def test_sampling_repeats_with_its_generator_and_leaves_the_global_one_alone():
    model = build("more_c")
    state = torch.random.get_rng_state()
    settings = {"max_new_tokens": 10, "temperature": 1.5}
    first = generate(model, PROMPTS, generator=generator(3), **settings)
    assert generate(model, PROMPTS, generator=generator(3), **settings) == first
    assert generate(model, PROMPTS, generator=generator(4), **settings) != first
    assert torch.equal(torch.random.get_rng_state(), state)


# ------------------------------------------------------------------------------------------------ choice of tokens

LOGITS = torch.tensor([0.4, 0.1, 0.3, 0.15, 0.05]).log()


def frequencies(**settings) -> list[float]:
    tokens = choose_tokens(LOGITS.expand(20000, -1), generator=generator(), **settings)
    return (torch.bincount(tokens, minlength=5) / 20000).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, [0.4, 0.1, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.5614, 0.0351, 0.3158, 0.0789, 0.0088]),  # squares, normalised
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_k": 99}, [0.4, 0.1, 0.3, 0.15, 0.05]),
        ({"temperature": 1.0, "top_p": 0.65}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.75}, [0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0]),
        ({"temperature": 1.0, "top_p": 0.01}, [1, 0, 0, 0, 0]),
        ({"temperature": 1.0, "top_p": 1.0}, [0.4, 0.1, 0.3, 0.15, 0.05]),
        ({"temperature": 1.0, "top_k": 2, "top_p": 0.5}, [1, 0, 0, 0, 0]),  # 4/7 of the two reaches 0.5
    ],
)
def test_sampling_frequencies(settings, expected):
    found = frequencies(**settings)
    assert found == pytest.approx(expected, abs=0.012)
    assert [f for f, e in zip(found, expected, strict=True) if e == 0] == [0] * expected.count(0)


def test_top_k_takes_exactly_k_where_all_tie():
    tokens = choose_tokens(torch.zeros(500, 6), temperature=1.0, top_k=2, generator=generator())
    assert len(tokens.unique()) == 2


def test_greedy_takes_the_largest():
    assert choose_tokens(LOGITS.expand(3, -1)).tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------------------------------- likelihoods


@every_variant
@every_top_k
def test_likelihood_is_the_sum_of_log_probabilities(model_type, top_k):
    model = build(model_type, top_k)
    answers = [[[4], [5, 6, 7], [4]], [[1, 2]], [[0, 0], [29]], [[8, 9, 10, 11]]]
    found = batch_log_likelihood(model, PROMPTS, answers)
    with torch.no_grad(), evaluating(model):
        for prompt, group, scores in zip(PROMPTS, answers, found, strict=True):
            expected = []
            for answer in group:
                logp = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
                expected.append(sum(logp[len(prompt) + i - 1, token].item() for i, token in enumerate(answer)))
            assert scores == pytest.approx(expected, abs=1e-10)
            assert sequence_log_likelihood(model, prompt, group) == pytest.approx(expected, abs=1e-10)
    assert model.training


def test_likelihoods_of_all_tokens_sum_to_one():
    model = build("more_a")
    scores = sequence_log_likelihood(model, [1, 2, 3], [[t] for t in range(30)], num_recurrences=3)
    assert torch.tensor(scores).exp().sum().item() == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a number of at least 0, found -1.0"),
        ({"temperature": 1.0}, "generator: expected a torch.Generator"),
        ({"temperature": 1.0, "top_k": 0}, "top_k: expected at least 1, found 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p: expected a number above 0 and up to 1, found 0.0"),
        ({"top_p": 0.5}, "they need a temperature above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, found 0"),
        ({"max_new_tokens": 17}, "the longest has 8 tokens, which with 17 new ones exceeds the trained length of 24"),
        ({"num_recurrences": 0}, "num_recurrences: expected an integer of at least 1, found 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        generate(build("base"), PROMPTS, **{"max_new_tokens": 2, **settings})


def test_bad_prompts_and_continuations():
    model = build("base")
    with pytest.raises(ValueError, match=r"prompts: expected at least one token each, found lengths \[1, 0\]"):
        generate(model, [[1], []], max_new_tokens=2)
    with pytest.raises(ValueError, match="prompts: expected at least one token each"):
        generate(model, [], max_new_tokens=2)
    with pytest.raises(ValueError, match=r"continuations: expected at least one token each, found lengths \[1, 0\]"):
        sequence_log_likelihood(model, [1], [[2], []])
    with pytest.raises(ValueError, match=r"continuations: expected at least one for each of 1 prompts, found \[0\]"):
        sequence_log_likelihood(model, [1], [])
    with pytest.raises(ValueError, match=r"exceeds the trained length of 24; shorten the prompt"):
        sequence_log_likelihood(model, [1] * 20, [[2] * 6])
