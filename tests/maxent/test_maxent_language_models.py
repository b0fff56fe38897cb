"""Language models behind the search's protocol: whatever is kept, logits are those of plain passes."""

import json

import numpy as np
import pytest
import torch

from maxent.dts_implementation.models import packed_cache
from maxent.dts_implementation.models.more_model import MoreSequenceModel
from maxent.dts_implementation.models.network import Network
from maxent.dts_implementation.models.packed_cache import PackedCache
from maxent.dts_implementation.models.pytorch_hf_wrapper import (
    HuggingFaceModel,
    check_packing,
    find_end_tokens,
    load_hugging_face,
)
from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchResult, SearchSettings
from more.config import MODEL_TYPES
from more.tokens import train_tokenizer
from tests.maxent_networks import (
    ARCHITECTURES,
    VOCAB,
    build_model,
    build_more,
    build_network,
    save_tokenizer,
    walk,
)
from tests.maxent_toys import make_reward

PROMPT = [5, 9, 23, 41, 8, 17, 30, 11, 58, 3, 44]
PRIOR = Prior(temperature=1.0, top_k=8, top_p=0.95)


@torch.no_grad()
def read_plainly(network, prompt: list[int], prefix: tuple[int, ...]) -> np.ndarray:
    """Return the logits after each token of prompt and prefix, (time, vocabulary): one pass that keeps nothing."""
    tokens = torch.tensor([[*prompt, *prefix]])
    return (network(tokens) if not hasattr(network, "generate") else network(tokens, use_cache=False)).logits[0].numpy()


def assert_plain(found: dict[tuple[int, ...], np.ndarray], network, prompt: list[int] = PROMPT) -> None:
    """Hold a walk's logits to plain passes."""
    for prefix, logits in found.items():
        plain = read_plainly(network, prompt, prefix)[-1]
        np.testing.assert_allclose(logits, plain, rtol=0, atol=1e-5 * max(1.0, np.abs(plain).max()))
    assert max(map(len, found)) > 10


# -------------------------------------------------------------------------------------------------- each architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_columns_equal_plain_passes(name, tmp_path):
    built = build_network(name)
    built.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model = load_hugging_face(str(tmp_path), kv="packed")  # raises if the test at loading fails
    found = walk(model, PROMPT)
    assert_plain(found, built)
    cost = model.cost
    assert (cost.prefill, cost.new, cost.recomputed) == (len(PROMPT), len(found) - 1, 0)
    assert model.prefixes.kept == len(PROMPT) + len(found) - 1


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_eager_attention_equals_plain_passes(name):
    network = build_network(name)
    network.set_attn_implementation("eager")
    assert_plain(walk(HuggingFaceModel(network, kv="packed"), PROMPT), network)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers_are_packed_too(name, dtype):
    network = build_network(name).to(dtype)
    model = HuggingFaceModel(network, kv="packed")
    logits = model.start(PROMPT)
    assert logits.dtype == np.float32
    if dtype == torch.float64:
        assert_plain(walk(model, PROMPT), network)


@pytest.mark.parametrize("name", ["llama", "mistral, window", "mixtral", "mamba"])
def test_plain_twin_reads_everything_anew(name):
    network = build_network(name)
    model = HuggingFaceModel(network, kv="none")
    found = walk(model, PROMPT)
    assert_plain(found, network)
    assert model.cost.new == len(found) - 1
    assert model.cost.recomputed == sum(len(PROMPT) + len(prefix) - 1 for prefix in found if prefix)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_forks_and_ragged_chunks_equal_plain_passes(model_type):
    network = build_more(model_type)
    model = MoreSequenceModel(network)
    found = walk(model, PROMPT)
    assert max(np.abs(logits).max() for logits in found.values()) > 5
    assert_plain(found, network)
    again = walk(model, PROMPT)  # forks have left the prompt's cache alone
    assert all(np.array_equal(found[prefix], again[prefix]) for prefix in found)
    assert (model.cost.prefill, model.cost.new) == (len(PROMPT), len(found) - 1)
    assert model.cost.recomputed > 0
    assert model.limit == 48 - len(PROMPT)


def test_recurrences_of_all_passes_are_those_asked_for():
    network = build_more("more_b")
    found = {r: walk(MoreSequenceModel(network, num_recurrences=r), PROMPT) for r in (None, 1, 2)}
    prefix = max(found[1], key=len)
    np.testing.assert_array_equal(found[None][prefix], found[2][prefix])
    with torch.no_grad():
        plain = network(torch.tensor([[*PROMPT, *prefix]]), num_recurrences=1).logits[0, -1].numpy()
    np.testing.assert_allclose(found[1][prefix], plain, rtol=0, atol=1e-5 * np.abs(plain).max())


# -------------------------------------------------------------------------------------------------------- in a search


def run(model, prompt=PROMPT, **changes) -> SearchResult:
    values = {"num_rollouts": 12, "max_tokens": 10, "wave": 4, "prior": PRIOR, **changes}
    return search(model, prompt, make_reward(), SearchSettings(**values))


def assert_same(one: SearchResult, other: SearchResult) -> None:
    assert [r.tokens for r in one.rollouts] == [r.tokens for r in other.rollouts]
    for left, right in zip(one.rollouts, other.rollouts, strict=True):
        assert left.log_p == pytest.approx(right.log_p, abs=1e-4)
        assert left.log_q == (None if right.log_q is None else pytest.approx(right.log_q, abs=1e-4))


@pytest.mark.parametrize("method", ["dts", "dts_star", "best_of_n", "beam", "mcts", "mh"])
def test_packed_and_plain_searches_are_the_same(method):
    packed, plain = (run(build_model("gemma3", kv=kv), method=method) for kv in ("packed", "none"))
    assert_same(packed, plain)
    assert packed.cost.new == plain.cost.new
    assert packed.cost.recomputed == 0 < plain.cost.recomputed


@pytest.mark.parametrize("name", ["gpt2", "gpt-oss", "more_a", "more_d"])
def test_recorded_probabilities_are_those_of_teacher_forcing(name):
    network = build_more(name) if name.startswith("more") else build_network(name)
    model = MoreSequenceModel(network) if name.startswith("more") else HuggingFaceModel(network, kv="packed")
    result = run(model)
    inner = {rollout.tokens[:depth] for rollout in result.rollouts for depth in range(1, len(rollout.tokens))}
    assert model.cost.new == len(inner)
    if not name.startswith("more"):
        assert model.prefixes.kept == len(PROMPT) + len(inner)
    for rollout in result.rollouts:
        rows = read_plainly(network, PROMPT, rollout.tokens)[len(PROMPT) - 1 : -1]
        for token, log_prob, found in zip(
            rollout.tokens, rollout.token_log_probs, PRIOR.compute_distributions(rows), strict=True
        ):
            assert log_prob == pytest.approx(found.log_probs[found.ids.tolist().index(token)], abs=1e-4)
        assert rollout.log_p == pytest.approx(sum(rollout.token_log_probs))


@pytest.mark.parametrize("model_type", ["base", "more_a"])
def test_short_answers_have_room_up_to_the_trained_length_when_longer_ones_have_ended(model_type):
    """They go on from prefixes of several lengths; those that end at the limit leave their room to the others."""
    model = MoreSequenceModel(build_more(model_type, max_length=len(PROMPT) + 13))
    model.eos = frozenset(range(10))
    result = run(model, num_rollouts=40, max_tokens=50, wave=8, prior=Prior(5.0, None, 1.0))
    assert result.max_tokens == model.limit == 13
    assert {5, 13} <= {len(rollout.tokens) for rollout in result.rollouts}


def test_no_answer_goes_on_after_any_of_its_end_tokens():
    network = build_network("llama", eos_token_id=[2, 7, 30])
    network.generation_config.eos_token_id = [19, 7]
    model = HuggingFaceModel(network, kv="packed")
    assert model.eos == {2, 7, 19, 30}
    result = run(model, num_rollouts=40, max_tokens=30, prior=Prior(1.0, None, 1.0))
    assert {r.tokens[-1] for r in result.rollouts if r.ended} > {7}
    assert not any(token in model.eos for r in result.rollouts for token in r.tokens[:-1])
    assert all(r.ended == (r.tokens[-1] in model.eos) for r in result.rollouts)
    assert not any(str(end) in r.text.split() for r in result.rollouts for end in model.eos)


def test_a_prompt_of_two_thousand_tokens_branches():
    prompt = np.random.default_rng(0).integers(3, VOCAB, 2000)
    network = build_network("llama", max_position_embeddings=2012, num_hidden_layers=1)
    model = HuggingFaceModel(network, kv="packed")
    result = run(model, prompt, max_tokens=50)
    assert model.limit == result.max_tokens == 12
    assert len(result.tree) > 30 and max(result.tree.depth) == 12
    rollout = result.rollouts[-1]
    plain = read_plainly(network, prompt.tolist(), rollout.tokens)[-2]
    (found,) = PRIOR.compute_distributions(plain[None])
    assert rollout.token_log_probs[-1] == pytest.approx(found.log_probs[found.ids.tolist().index(rollout.tokens[-1])])
    with pytest.raises(ValueError, match="room for at least one new token"):
        run(model, np.full(2012, 5))


@pytest.mark.parametrize("kv", ["packed", "none"])
def test_embeddings_are_a_prompt_too(kv):
    network = build_network("gemma")  # which scales what it embeds
    model = HuggingFaceModel(network, kv=kv)
    by_tokens = run(model)
    embedded = network.get_input_embeddings()(torch.tensor(PROMPT)).detach()
    assert_same(run(model, embedded), by_tokens)
    assert_same(run(model, embedded.numpy()), by_tokens)


# ------------------------------------------------------------------------------------------------------------- memory


def count_bytes(network) -> int:
    """Return the bytes of a column of one of the small models."""
    config = network.config
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("room", [0, 1, 12, 10_000])
def test_dropped_columns_are_computed_again_when_they_are_met(name, room):
    network = build_network(name)
    budget = (len(PROMPT) + room) * count_bytes(network) / 2**20
    free, tight = (HuggingFaceModel(network, kv="packed", kv_budget_mb=mb) for mb in (None, budget))
    settings = {"num_rollouts": 24, "lam": 0.02}
    expected, found = run(free, **settings), run(tight, **settings)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new
    assert tight.prefixes.kept == len(PROMPT) + min(room, found.cost.new)
    assert (tight.prefixes.dropped > 0) == (room < found.cost.new)
    assert tight.cost.recomputed > 0 or room > 1
    assert tight.prefixes.dropped > 0 or tight.cost.recomputed == 0
    assert free.prefixes.dropped == free.cost.recomputed == 0
    assert_plain(walk(tight, PROMPT), network)


def test_what_waves_go_on_from_most_is_kept():
    network = build_network()
    cache = PackedCache(Network(network), budget=(len(PROMPT) + 2) * count_bytes(network))
    cache.start(torch.tensor([PROMPT]))
    cache.open([()])
    cache.step([10, 11, 12], [0, 0, 0])
    cache.close()  # one of three has to go, the oldest
    assert (cache.kept - len(PROMPT), cache.dropped) == (2, 1)
    for _ in range(2):
        cache.open([(2,)])
        cache.close()
    assert cache.cost.recomputed == 0
    cache.open([(1,)])  # which is gone
    assert cache.cost.recomputed == 1
    cache.close()  # 1 was used once, 3 never
    cache.open([(1,), (2,)])
    assert cache.cost.recomputed == 1
    cache.close()
    cache.open([(3,)])
    assert cache.cost.recomputed == 2
    cache.close()


def test_dropped_columns_are_read_in_chunks_that_fit(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network), budget=0)
    plain = walk(cache, torch.tensor([PROMPT]))
    refuse_long_passes(monkeypatch, most=4)
    narrow = walk(cache, torch.tensor([PROMPT]))
    for prefix, logits in plain.items():
        np.testing.assert_allclose(narrow[prefix], logits, rtol=0, atol=1e-4)


def test_the_store_is_given_up_when_a_single_row_does_not_fit(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network))
    cache.start(torch.tensor([PROMPT]))
    cache.open([()])
    cache.step([10, 11], [0, 0])
    cache.close()
    forward, calls = Network.forward, []

    def once_full(self, inputs, **arguments):
        calls.append(inputs.shape[1])
        if len(calls) == 1:
            raise MemoryError
        return forward(self, inputs, **arguments)

    monkeypatch.setattr(Network, "forward", once_full)
    cache.open([(1,)])
    (logits,) = cache.step([12], [1])
    cache.close()
    np.testing.assert_allclose(logits, read_plainly(network, PROMPT, (10, 12))[-1], atol=1e-4)
    assert (calls, cache.dropped, cache.kept) == ([1, 1], 1, len(PROMPT) + 2)
    cache.open([(2,)])
    assert cache.cost.recomputed == 1
    cache.close()


def test_what_cannot_be_stored_is_read_again(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network))
    enlarge = packed_cache._enlarge
    monkeypatch.setattr(packed_cache, "_enlarge", lambda *sizes: enlarge(*sizes) if sizes[1] == 2 else _Full()())
    assert_plain(walk(cache, torch.tensor([PROMPT])), network)
    assert cache.kept == len(PROMPT) and cache.cost.recomputed > 0
    assert cache.dropped == cache.cost.new + cache.cost.recomputed


def refuse_long_passes(monkeypatch, most: int) -> list[int]:
    """Let passes of more tokens than so many run out of memory, past the prompt; return the sizes of those that ran."""
    sizes: list[int] = []
    forward = Network.forward

    def limited(self, inputs, **arguments):
        held = arguments["past_key_values"].layers if "past_key_values" in arguments else []
        if not held or inputs.shape[1] <= most:
            sizes.append(inputs.shape[1])
            return forward(self, inputs, **arguments)
        model, self.model = self.model, _Full()
        try:
            return forward(self, inputs, **arguments)
        finally:
            self.model = model

    monkeypatch.setattr(Network, "forward", limited)
    return sizes


class _Full:
    def __call__(self, **arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_step_that_does_not_fit_changes_nothing_and_is_asked_for_in_parts(monkeypatch):
    model = build_model()
    expected = run(model, wave=12)
    refuse_long_passes(monkeypatch, most=3)
    found = run(model, wave=12)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new
    assert found.cost.forwards > expected.cost.forwards
    refuse_long_passes(monkeypatch, most=0)  # what is stored is given up, in vain
    with pytest.raises(MemoryError, match="--wave, --kv_budget_mb or --max_tokens"):
        run(model)


def test_branches_that_do_not_fit_together_are_read_in_parts(monkeypatch):
    network = build_more("more_a")
    model = MoreSequenceModel(network)
    expected = run(model, wave=12)
    compute = type(network).compute_features

    def limited(self, tokens, **arguments):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, tokens, **arguments)

    monkeypatch.setattr(type(network), "compute_features", limited)
    found = run(model, wave=12)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new


# -------------------------------------------------------------------------------------------------- what cannot be had


class Deaf(torch.nn.Module):
    """A network that hears no mask: what an attention would do that ignores it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.config, self.dtype = inner, inner.config, inner.dtype
        self.get_input_embeddings = inner.get_input_embeddings

    def forward(self, attention_mask=None, **arguments):
        if attention_mask is not None:
            attention_mask = torch.zeros_like(attention_mask)
        return self.inner(attention_mask=attention_mask, **arguments)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: Deaf(build_network()), "packed logits differ from plain ones by"),
        (lambda: build_network("mamba"), "its layers have linear_attention"),
        (lambda: build_network("llama4_text"), "its layers have chunked_attention"),
        (lambda: build_network("bloom"), "it refuses what packing needs"),
    ],
)
def test_models_that_cannot_be_packed_are_read_plainly_and_it_is_said(network, reason):
    network, said = network(), []
    model = HuggingFaceModel(network, kv="auto", announce=said.append)
    assert model.kv == "none"
    (line,) = said
    assert line.startswith(type(network).__name__) and "kv none" in line and reason in line and "\n" not in line
    with pytest.raises(ValueError, match="kv: packed does not work"):
        HuggingFaceModel(network, kv="packed")
    assert HuggingFaceModel(network, kv="none", announce=pytest.fail).kv == "none"
    found = walk(model, PROMPT)
    if not isinstance(network, Deaf):
        assert_plain(found, network)


def test_a_window_is_passed_in_the_test_at_loading():
    """A model that looked back further than its config says would pass a test that ends before the window does."""
    network = Network(build_network("mistral, window"))
    assert check_packing(network) == ""
    network.window += 3
    assert "packed logits differ" in check_packing(network)


def test_load_says_what_cannot_be_had(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a causal language model .* --model_path, or use --stand_in"
    ) as error:
        load_hugging_face(str(tmp_path))
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such thing"}))
    with pytest.raises(ValueError, match=r"--stand_in"):
        load_hugging_face(str(tmp_path))


def test_code_of_a_folder_is_never_run(tmp_path):
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": classes}))
    (tmp_path / "own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match=r"code of its own, which is never run; a MoRE .* more=CHECKPOINT$"):
        load_hugging_face(str(tmp_path))


def test_load_says_what_is_damaged(tmp_path):
    build_network().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="and its tokenizer"):  # there is none
        load_hugging_face(str(tmp_path))
    save_tokenizer(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot be had \(SafetensorError"):
        load_hugging_face(str(tmp_path))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "at least one"),
        ([3, VOCAB], f"expected tokens from 0 to {VOCAB - 1}, found {VOCAB}"),
        ([-1], "found -1"),
        (np.zeros((2, 3, 4)), "expected token numbers"),
        (np.zeros(4), "expected token numbers"),
        ([5] * 97, "expected at most 96 tokens, found 97"),
        ("text", "needs a tokenizer"),
    ],
)
def test_prompts_that_are_none_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        build_model(kv="none").start(prompt)


def test_kv_is_one_of_three():
    with pytest.raises(ValueError, match="kv: expected one of auto, packed, none, found 'all'"):
        build_model(kv="all")


# --------------------------------------------------------------------------------------------------------------- text


def test_text_goes_in_and_comes_out_without_special_tokens(tmp_path):
    from transformers import AutoTokenizer

    network = build_network(vocab_size=64)
    network.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model = load_hugging_face(str(tmp_path), kv="packed")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.eos == find_end_tokens(network, tokenizer) == {2, tokenizer.eos_token_id}
    logits = model.start("a cat. ")
    assert np.array_equal(logits, model.start(tokenizer("a cat. ")["input_ids"]))
    assert model.decode([*tokenizer("the end")["input_ids"], tokenizer.eos_token_id]).replace(" ", "") == "theend"


def test_text_for_a_model_of_more_starts_as_its_documents_do():
    tokenizer = train_tokenizer(["a cat and a dog sat on a mat."] * 3, vocab_size=280)
    network = build_more("base", vocab_size=tokenizer.vocab_size)
    model = MoreSequenceModel(network, tokenizer)
    assert model.eos == {tokenizer.end_token}
    tokens = tokenizer.encode("a cat")
    np.testing.assert_array_equal(model.start("a cat"), model.start([tokenizer.end_token, *tokens]))
    assert model.decode([*tokens, tokenizer.end_token]) == "a cat"
    with pytest.raises(ValueError, match="needs a tokenizer"):
        MoreSequenceModel(network).start("a cat")
    with pytest.raises(ValueError, match="prompt: expected at most 48 tokens, found 49"):
        model.start([5] * 49)
    with pytest.raises(ValueError, match="at least one token"):
        model.start([])
