"""more/export.py: a folder that transformers opens where there is no project, with equal logits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from more.config import MODEL_TYPES
from more.export_folder import export_model
from more.export_sources import collect_sources, list_own_imports, make_relative
from more.export_tokenizer import convert_tokenizer
from more.generation import generate
from more.model import routing_losses
from more.task_data import TaskSource, Vocabulary
from more.tasks import TaskSettings
from tests.more.exports import build_loaded, wrap

ROOT = Path(__file__).parents[2]
KINDS = [(kind, top_k, "same") for kind in MODEL_TYPES for top_k in (1, 2)] + [
    ("more_a", 1, "all"),
    ("more_a", 3, "all"),
]
TEXTS = ["Mary went to the garden.", "1+2=", "Where is Mary? 12 kůň\n"]


# ------------------------------------------------------------------------------------------ where there is no project

ELSEWHERE = """
import json, os, sys, warnings

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is not here")

OURS = json.loads(sys.argv[2])
sys.meta_path.insert(0, Nowhere())
for name in OURS:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported")
warnings.simplefilter("error")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

for name in sorted(os.listdir(sys.argv[1])):
    if not os.path.isdir(name):
        continue
    expected = torch.load(f"{name}.pt")
    model, told = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, output_loading_info=True)
    assert not any(told.values()), told
    assert model.lm_head.weight is model.model.embedding.weight and not model.training
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    assert [tokenizer(text)["input_ids"] for text in expected["texts"]] == expected["tokens"], name
    with torch.no_grad():
        for steps in (None, 5):
            found = model(expected["read"], num_recurrences=steps).logits
            torch.testing.assert_close(found, expected[steps], rtol=0, atol=1e-5)
    if "written" in expected:
        prompts = tokenizer(expected["texts"], return_tensors="pt", padding=True)
        written = model.generate(**prompts, max_new_tokens=6, do_sample=False)[:, prompts["input_ids"].shape[1]:]
        written = [[token for token in row if token != tokenizer.eos_token_id] for row in written.tolist()]
        assert written == expected["written"], name
    print(name)

more = AutoModelForCausalLM.from_pretrained("more_a_1_same", trust_remote_code=True, num_recurrences=5)
expected = torch.load("more_a_1_same.pt")
with torch.no_grad():
    torch.testing.assert_close(more(expected["read"]).logits, expected[5], rtol=0, atol=1e-5)
more.save_pretrained("again")
assert {file for file in os.listdir("more_a_1_same") if file.endswith(".py")} <= set(os.listdir("again"))
again = AutoModelForCausalLM.from_pretrained("again", trust_remote_code=True)
with torch.no_grad():
    assert torch.equal(again(expected["read"]).logits, more(expected["read"]).logits)
    wide = AutoModelForCausalLM.from_pretrained("more_a_1_same", trust_remote_code=True, dtype=torch.bfloat16)
    assert wide(expected["read"]).logits.dtype == torch.bfloat16
"""


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """Return a folder with a model of each kind, one of a generated task, and beside each what it should say."""
    folder = tmp_path_factory.mktemp("exported")
    read = torch.randint(0, 200, (2, 12), generator=torch.Generator().manual_seed(3))
    task = TaskSource(TaskSettings.of("modular", length=8, streams=1, symbols=5, train_depth=4, test_depth=4), seed=0)
    models = {f"{kind}_{top_k}_{sees}": build_loaded(tokenizer, kind, top_k, sees) for kind, top_k, sees in KINDS}
    models["matched"] = build_loaded(tokenizer, "more_d", d_model=32, match="operations")
    models["task"] = build_loaded(task.tokenizer, "looped", data=task.describe())
    for name, loaded in models.items():
        export_model(loaded, folder / name)
        known = loaded.tokenizer
        texts = ["=3 +4 +1"] if name == "task" else TEXTS
        start = [] if name == "task" else [known.end_token]
        tokens = [[*start, *known.encode(text)] for text in texts]
        found = {"texts": texts, "tokens": tokens, "read": read % known.vocab_size}
        with torch.no_grad():
            for steps in (None, 5):
                found[steps] = loaded.model(found["read"], num_recurrences=steps).logits
        if name != "task":
            found["written"] = generate(loaded.model, tokens, max_new_tokens=6, end_token=known.end_token)
        torch.save(found, folder / f"{name}.pt")
    return folder


@pytest.mark.slow
def test_a_folder_opens_where_the_project_is_not_with_equal_logits_and_text(exported, tmp_path):
    """Every model type, without a warning of transformers or anything else; r changed at load and by call; saved."""
    ours = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(exported), json.dumps(ours)],
        cwd=exported,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == sorted(
        path.name for path in exported.iterdir() if path.is_dir() and path.name != "again"
    )
    assert [line for line in done.stderr.splitlines() if line.strip()] == []


def test_the_code_needs_torch_and_transformers_alone():
    sources = collect_sources()
    assert {"modeling_more.py", "configuration_more.py", "more_model.py", "mixture_of_experts.py"} <= set(sources)
    for name, text in sources.items():
        assert list_own_imports(text) == [], name
        tops = set(re.findall(r"^\s*(?:from|import) (\w+)", text, flags=re.MULTILINE))
        assert tops - set(sys.stdlib_module_names) <= {"torch", "transformers"}, name
        beside = set(re.findall(r"^from \.(\w+) import", text, flags=re.MULTILINE))
        assert {f"{other}.py" for other in beside} <= set(sources), name


def test_own_imports_become_relative_and_others_stay():
    text = "import torch\nfrom more.exported.a import B\nfrom more.c import D\nfrom mixture_of_experts import E\n"
    assert make_relative(text) == (
        "import torch\nfrom .a import B\nfrom .more_c import D\nfrom .mixture_of_experts import E\n"
    )
    assert make_relative("from more_itertools import chunked\n") == "from more_itertools import chunked\n"


# --------------------------------------------------------------------------------------------------- in transformers


@pytest.fixture(scope="module")
def wrapped(tokenizer):
    return wrap(build_loaded(tokenizer, "more_a", 2))


@pytest.fixture(scope="module")
def ragged(wrapped):
    """Return three sequences of 4, 8 and 10 tokens, padded at the left, and their mask."""
    tokens = torch.randint(0, 200, (3, 10), generator=torch.Generator().manual_seed(5))
    mask = (torch.arange(10) >= torch.tensor([[6], [2], [0]])).long()
    return tokens, mask


@torch.no_grad()
@pytest.mark.parametrize(("kind", "top_k", "sees"), KINDS)
def test_padding_at_either_side_changes_nothing(tokenizer, ragged, kind, top_k, sees):
    model = wrap(build_loaded(tokenizer, kind, top_k, sees))
    tokens, mask = ragged
    left = model(tokens, attention_mask=mask).logits
    right = model(tokens.flip(1), attention_mask=mask.flip(1)).logits
    for row, skipped in enumerate((6, 2, 0)):
        alone = model(tokens[row : row + 1, skipped:]).logits[0]
        torch.testing.assert_close(left[row, skipped:], alone, rtol=0, atol=1e-5)
        backwards = model(tokens[row : row + 1, skipped:].flip(1)).logits[0]
        torch.testing.assert_close(right[row, : 10 - skipped], backwards, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "top_k", "sees"), KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_kept_changes_no_text(tokenizer, ragged, kind, top_k, sees, beams):
    model = wrap(build_loaded(tokenizer, kind, top_k, sees))
    tokens, mask = ragged
    common = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "num_recurrences": 2}
    kept = model.generate(tokens, attention_mask=mask, **common)
    assert torch.equal(kept, model.generate(tokens, attention_mask=mask, use_cache=False, **common))
    first = model.generate(tokens[:1, 6:], attention_mask=mask[:1, 6:], **common)
    assert first[0].tolist() == kept[0, 6 : 6 + first.shape[1]].tolist()


@pytest.mark.parametrize(("kind", "top_k", "sees"), KINDS)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kept", [True, False])
def test_prompts_padded_at_the_right_are_answered_as_each_alone(tokenizer, ragged, kind, top_k, sees, beams, kept):
    model = wrap(build_loaded(tokenizer, kind, top_k, sees))
    tokens, mask = ragged[0].flip(1), ragged[1].flip(1)
    common = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "num_recurrences": 2, "use_cache": kept}
    common |= {"eos_token_id": None, "pad_token_id": 0}  # so that each is as long as the others
    written = model.generate(tokens, attention_mask=mask, **common)
    assert torch.equal(written[:, :10], tokens)
    for row, count in enumerate(mask.sum(dim=1).tolist()):
        alone = model.generate(tokens[row : row + 1, :count], **common)
        assert written[row, 10:].tolist() == alone[0, count:].tolist()


@torch.no_grad()
def test_logits_are_gone_on_with_and_told_for_the_positions_asked_for(wrapped, ragged):
    tokens, mask = ragged
    whole = wrapped(tokens, attention_mask=mask, num_recurrences=2).logits
    begun = wrapped(tokens[:, :7], attention_mask=mask[:, :7], use_cache=True, num_recurrences=2)
    assert begun.past_key_values.get_seq_length() == 7
    for width in (3, 10):  # of the new columns, or of all
        begun = wrapped(tokens[:, :7], attention_mask=mask[:, :7], use_cache=True, num_recurrences=2)
        rest = wrapped(tokens[:, 7:], attention_mask=mask[:, -width:], past_key_values=begun.past_key_values)
        torch.testing.assert_close(rest.logits, whole[:, 7:], rtol=0, atol=1e-5)
    last = wrapped(tokens, attention_mask=mask, num_recurrences=2, logits_to_keep=1).logits
    torch.testing.assert_close(last, whole[:, -1:])
    some = wrapped(tokens, attention_mask=mask, num_recurrences=2, logits_to_keep=torch.tensor([2, 9])).logits
    torch.testing.assert_close(some, whole[:, [2, 9]])
    assert wrapped(tokens).past_key_values is None
    assert torch.equal(wrapped(tokens, return_dict=False)[0], wrapped(tokens).logits)


def test_labels_give_the_loss_and_the_routers_their_share(tokenizer):
    loaded = build_loaded(tokenizer, "looped", 2)
    model = wrap(loaded, router_aux_loss_coef=0.5, router_z_loss_coef=0.25)
    tokens = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    labels[0, :4] = -100
    found = model(tokens, labels=labels)
    plain = loaded.model(tokens)
    expected = F.cross_entropy(plain.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(found.loss, expected)
    shifted = model(tokens, shift_labels=F.pad(labels[:, 1:], (0, 1), value=-100))
    torch.testing.assert_close(shifted.loss, expected)
    balance, z = routing_losses(plain)
    routed = model(tokens, labels=labels, output_router_logits=True)
    torch.testing.assert_close(routed.aux_loss, 0.5 * balance + 0.25 * z)
    torch.testing.assert_close(routed.loss, expected + routed.aux_loss)
    assert [tuple(part.shape) for part in routed.router_logits] == [(18, 3)] * 6  # three passes of two layers
    routed.loss.backward()
    assert model.model.blocks[0].mixture.router.fc.weight.grad.abs().sum() > 0
    assert model.lm_head.weight.grad is model.model.embedding.weight.grad


@torch.no_grad()
def test_the_loss_is_that_of_the_tokens_alone_wherever_padding_stands(wrapped):
    """Each token is predicted by those before it; padding, which some are read at, has seen none after it."""
    tokens = torch.randint(0, 200, (7,), generator=torch.Generator().manual_seed(1))
    alone = wrapped(tokens[None], labels=tokens[None]).loss
    for real in ("111111100", "001111111", "0110110111", "1011111010"):
        mask = torch.tensor([[int(one) for one in real]])
        padded = torch.full_like(mask, 9).masked_scatter(mask.bool(), tokens)
        found = wrapped(padded, attention_mask=mask, labels=padded.masked_fill(mask == 0, -100)).loss
        torch.testing.assert_close(found, alone)


@torch.no_grad()
def test_the_routers_logits_stand_where_their_tokens_stand(wrapped, ragged):
    tokens, mask = ragged
    padded = wrapped(tokens, attention_mask=mask, output_router_logits=True)
    alone = wrapped(tokens[:1, 6:], output_router_logits=True)
    for found, expected in zip(padded.router_logits, alone.router_logits, strict=True):
        torch.testing.assert_close(found.view(3, 10, -1)[0, 6:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"position_ids": torch.zeros(3, 10)}, "position_ids: this model does not have it"),
        ({"output_hidden_states": True}, "output_hidden_states: this model does not have it"),
        ({"attention_mask": torch.ones(3, 4)}, r"attention_mask: expected \(3, 10\)"),
        ({"past_key_values": ()}, "past_key_values: expected what a call with use_cache=True returned, found tuple"),
        ({"num_recurrences": 0}, "num_recurrences: expected an integer of at least 1"),
    ],
)
def test_what_there_is_not_is_refused(wrapped, ragged, arguments, said):
    with pytest.raises(ValueError, match=said):
        wrapped(ragged[0], **arguments)


def test_a_text_longer_than_a_window_is_refused_before_it_is_written(wrapped, ragged):
    tokens, mask = ragged
    with pytest.raises(ValueError, match=r"a prompt of 10 tokens with the new ones makes 34, .* trained on 32"):
        wrapped.generate(tokens, attention_mask=mask, max_new_tokens=24)
    assert wrapped.generate(tokens, attention_mask=mask, min_new_tokens=23, max_new_tokens=23).shape == (3, 33)


def test_sizes_that_cannot_be_used_are_refused(tokenizer):
    with pytest.raises(ValueError, match="tie_word_embeddings: expected True"):
        wrap(build_loaded(tokenizer), tie_word_embeddings=False)
    from more.exported.configuration_more import MoreConfig

    with pytest.raises(ValueError, match="top_k: expected 1 to 2"):
        MoreConfig(num_experts=2, num_experts_per_tok=3)


# --------------------------------------------------------------------------------------------------------- tokenizers


def test_tokenizers_give_the_same_tokens_and_texts(tokenizer):
    found = convert_tokenizer(tokenizer, 32)
    for text in [*TEXTS, "  a  b ", "don't , no .", "", "12345"]:
        assert found(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert found(text)["input_ids"] == [tokenizer.end_token, *tokenizer.encode(text)]
        assert found.decode(found(text)["input_ids"], skip_special_tokens=True) == text
    assert found.model_max_length == 32 and set(found("a")) == {"input_ids", "attention_mask"}


def test_words_of_a_task_have_their_numbers_and_others_are_refused():
    vocabulary = Vocabulary(["0", "1", "x0=1", "x1=x0"])
    found = convert_tokenizer(vocabulary, 8)
    assert found("x1=x0  0 \n x0=1")["input_ids"] == vocabulary.encode("x1=x0 0 x0=1") == [3, 0, 2]
    assert found.decode([2, 3, 4], skip_special_tokens=True) == vocabulary.decode([2, 3, 4]) == "x0=1 x1=x0"
    with pytest.raises(Exception, match="vocabulary"):  # tokenizers raises plain Exception
        found("x9")


def test_cards_show_code_that_compiles(exported):
    for name in ("base_1_same", "more_a_1_all", "task"):
        card = (exported / name / "README.md").read_text()
        (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        compile(block, name, "exec")
        assert ("num_recurrences" in block) == (name != "base_1_same")
        assert ("generate(" in block) == (name != "task")
    assert re.search(r'tokenizer\("=\d( [=+]\d){7}"', block), block
