"""more/generate.py: prompt in, text out, as it is written."""

import io
import re

import pytest
import torch

from more import commands
from more.checkpoints import build_model, load_model
from more.config import MODEL_TYPES, ModelConfig
from more.generation import generate
from more.options import GenerationSettings
from more.streaming import stream
from pipeline.config import ConfigError
from tests.more_settings import small_trainer

SMALL = {"vocab_size": 300, "d_model": 16, "num_heads": 2, "num_layers": 1, "num_experts": 2, "max_length": 24}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writing")
    trainer = small_trainer(folder, model_type="more_a", num_recurrences=2, lr=1e-2, updates=8)
    for _ in range(8):
        trainer.run_update()
    trainer.save(folder / "model.pth", resumable=False)
    return folder / "model.pth"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_streamed_is_what_is_generated(tokenizer, model_type):
    model = build_model(ModelConfig(model_type=model_type, num_recurrences=2, **SMALL), seed=1).eval()
    prompt = "Mary went"
    tokens = [tokenizer.end_token, *tokenizer.encode(prompt)]
    (expected,) = generate(model, [tokens], max_new_tokens=10, end_token=tokenizer.end_token, num_recurrences=3)
    pieces = list(stream(model, tokenizer, prompt, max_new_tokens=10, num_recurrences=3))
    assert "".join(pieces) == tokenizer.decode(expected)
    draw = [torch.Generator().manual_seed(5) for _ in range(2)]
    (expected,) = generate(
        model, [tokens], max_new_tokens=10, end_token=tokenizer.end_token, temperature=1.0, top_k=50, generator=draw[0]
    )
    found = stream(model, tokenizer, prompt, max_new_tokens=10, temperature=1.0, top_k=50, generator=draw[1])
    assert "".join(found) == tokenizer.decode(expected)


def test_a_text_may_be_longer_than_a_window(tokenizer):
    model = build_model(ModelConfig(**SMALL), seed=1).eval()
    written = "".join(
        stream(model, tokenizer, "Mary " * 40, max_new_tokens=90, temperature=1.0, generator=torch.Generator())
    )
    assert len(written) > 24
    # A window that is full is read anew from its middle: what follows is what its last half says.
    tokens = [tokenizer.end_token, *tokenizer.encode("Mary " * 40)]
    (expected,) = generate(model, [tokens[-12:]], max_new_tokens=5)
    assert "".join(stream(model, tokenizer, "Mary " * 40, max_new_tokens=5)).startswith(tokenizer.decode(expected)[:3])


def test_characters_of_several_bytes_come_whole(tokenizer, monkeypatch):
    model = build_model(ModelConfig(**SMALL), seed=1).eval()
    wanted = iter([*tokenizer.encode("a ků€"), tokenizer.end_token])
    monkeypatch.setattr("more.streaming.choose_tokens", lambda *_, **__: torch.tensor([next(wanted)]))
    pieces = list(stream(model, tokenizer, "", max_new_tokens=20))
    assert "".join(pieces) == "a ků€" and not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 2


def test_prompts_in_texts_out_each_with_its_recurrences(path, capsys, monkeypatch):
    seen = []
    model_class = type(load_model(path).model)
    original = model_class.compute_features

    def noting(self, *args, num_recurrences=None, **others):
        seen.append(num_recurrences)
        return original(self, *args, num_recurrences=num_recurrences, **others)

    monkeypatch.setattr(model_class, "compute_features", noting)
    flags = ["--checkpoint_path", str(path), "--max_new_tokens", "4", "--temperature", "0"]
    assert commands.generate([*flags, "Mary went", "12+30=", "--recurrences", "1,3"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"Mary went(?s:.*)\n\n12\+30=(?s:.*)\n\n$", out)
    assert set(seen) == {1, 3} and seen == sorted(seen)
    assert commands.generate([*flags, "--prompt", "Mary went", "--recurrences", "1"]) == 0
    assert out.startswith(capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", io.StringIO("Mary went\n\n12+30=\n"))
    assert commands.generate([*flags, "--recurrences", "3"]) == 0
    assert capsys.readouterr().out.endswith(out[out.index("12+30=") :])


def test_sampling_repeats_with_its_seed(path, capsys):
    texts = []
    for seed in (1, 1, 2):
        assert commands.generate(["--checkpoint_path", str(path), "Mary", "--seed", str(seed)]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recurrences": "1,2"}, "one for each of 1 prompts, found 2"),
        ({"recurrences": "0"}, "recurrences: expected numbers of at least 1"),
        ({"temperature": -1.0}, "temperature: expected a number of at least 0"),
        ({"temperature": 0.0, "top_k": 5}, "they need a temperature above 0"),
        ({"top_p": 0.0}, "top_p: expected a number above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1"),
    ],
)
def test_settings_that_cannot_be_used(changes, said):
    with pytest.raises(ConfigError, match=said):
        GenerationSettings(prompts=["a"], **changes)
