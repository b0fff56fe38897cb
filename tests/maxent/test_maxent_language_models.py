"""Language models behind the search's protocol: whatever is kept, logits are those of plain passes."""

import json

import numpy as np
import pytest
import torch

from maxent.dts_implementation.models.more_model import MoreSequenceModel
from maxent.dts_implementation.models.network import Network
from maxent.dts_implementation.models.pytorch_hf_wrapper import (
    HuggingFaceModel,
    check_packing,
    find_end_tokens,
    load_hugging_face,
)
from maxent.dts_implementation.models.sequence_model import Prior
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
from tests.maxent_passes import PRIOR, PROMPT, assert_plain, assert_same, read_plainly, run

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
