"""Mission encoders: what they return, how they are recognised again, and when they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from babyai import hub, missions
from babyai.builtin_encoder import embed_builtin
from babyai.missions import (
    FOREIGN_DESCRIPTION,
    MISSION_WIDTH,
    MissionEncoderError,
    build_mission_encoder,
    restore_mission_encoder,
)
from tests.mission_models import SENTENCES, save_tiny_distilbert, silent
from tests.torch_defaults import every_default


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return save_tiny_distilbert(tmp_path_factory.mktemp("hf") / "tiny")


# --- cache ------------------------------------------------------------------


def test_each_distinct_sentence_is_encoded_once():
    encoder = build_mission_encoder("builtin", announce=silent)
    embed, computed = encoder._embed, []
    encoder._embed = lambda sentences: computed.append(list(sentences)) or embed(sentences)
    first = encoder.encode([SENTENCES[0], SENTENCES[1], SENTENCES[0]])
    second = encoder.encode([SENTENCES[2], SENTENCES[1]])
    assert computed == [[SENTENCES[0], SENTENCES[1]], [SENTENCES[2]]]
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], second[1])


def test_cache_growth_keeps_rows():
    encoder = build_mission_encoder("builtin", announce=silent)
    sentences = [f"go to room {i}" for i in range(40)]
    for sentence in sentences:
        encoder.encode([sentence])
    assert np.array_equal(encoder.encode(sentences).numpy(), np.stack([embed_builtin(s) for s in sentences]))


def test_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(missions, "CACHE_LIMIT", 4)
    encoder = build_mission_encoder("builtin", announce=silent)
    for start in range(4):
        chosen = SENTENCES[start : start + 3]
        assert np.array_equal(encoder.encode(chosen).numpy(), np.stack([embed_builtin(s) for s in chosen]))
        assert len(encoder._rows) <= 4


def test_returned_embeddings_are_copies_usable_in_training():
    encoder = build_mission_encoder("builtin", announce=silent)
    vectors = encoder.encode(SENTENCES[:2])
    torch.nn.Linear(MISSION_WIDTH, 3)(vectors).sum().backward()
    vectors.zero_()
    assert np.array_equal(encoder.encode(SENTENCES[:1])[0].numpy(), embed_builtin(SENTENCES[0]))


def test_empty_list_and_single_string():
    encoder = build_mission_encoder("builtin", announce=silent)
    assert encoder.encode([]).shape == (0, MISSION_WIDTH)
    with pytest.raises(TypeError, match="one string"):
        encoder.encode("go to the red ball")


# --- Hugging Face ------------------------------------------------------------------


def test_distilbert_folder(model_folder, capfd):
    lines = []
    before = torch.get_rng_state()
    encoder = build_mission_encoder(str(model_folder), announce=lines.append)
    assert torch.equal(torch.get_rng_state(), before)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert len(lines) == 1
    assert str(model_folder) in lines[0]
    assert (encoder.kind, encoder.width) == ("huggingface", 32)
    vectors = encoder.encode(SENTENCES)
    assert vectors.shape == (len(SENTENCES), 32)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad


def test_distilbert_equals_plain_transformers(model_folder):
    """Batched by length here; there one by one, and padded in one batch with its mask."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(model_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    together = build_mission_encoder(str(model_folder), announce=silent).encode(SENTENCES)
    single = build_mission_encoder(str(model_folder), announce=silent)
    with torch.no_grad():
        plain = [model(**tokenizer(s, return_tensors="pt")).last_hidden_state[0, 0] for s in SENTENCES]
        padded = model(**tokenizer(SENTENCES, padding=True, return_tensors="pt")).last_hidden_state[:, 0]
    torch.testing.assert_close(together, torch.stack(plain), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, padded, atol=1e-5, rtol=0)
    one_by_one = torch.cat([single.encode([s]) for s in SENTENCES])
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=0)


def test_distilbert_runs_in_batches_and_once(model_folder, monkeypatch):
    from transformers import DistilBertModel

    encoder = build_mission_encoder(str(model_folder), announce=silent)
    shapes, forward = [], DistilBertModel.forward

    def counted(self, input_ids, **kwargs):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(DistilBertModel, "forward", counted)
    same_length = [f"go to the {c} {o}" for c in ("red", "green", "blue") for o in ("ball", "box", "key")]
    encoder.encode([*same_length, *same_length, "open the door"])
    encoder.encode([*same_length, "open the door"])
    assert sorted(shapes) == [(1, 5), (9, 7)]  # [CLS] and [SEP] are tokens too


def test_fingerprint_follows_weights_not_paths(model_folder, tmp_path):
    from transformers import DistilBertModel

    original = build_mission_encoder(str(model_folder), announce=silent)
    copy = Path(shutil.copytree(model_folder, tmp_path / "copy"))
    assert build_mission_encoder(str(copy), announce=silent).fingerprint == original.fingerprint

    model = DistilBertModel.from_pretrained(model_folder)
    pickled = Path(shutil.copytree(model_folder, tmp_path / "pickled"))
    (pickled / "model.safetensors").unlink()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    assert build_mission_encoder(str(pickled), announce=silent).fingerprint == original.fingerprint

    with torch.no_grad():
        model.transformer.layer[1].ffn.lin1.weight[3, 5] += 1e-3
    model.save_pretrained(copy)
    assert build_mission_encoder(str(copy), announce=silent).fingerprint != original.fingerprint


def test_fingerprint_covers_vocabulary(model_folder, tmp_path):
    original = build_mission_encoder(str(model_folder), announce=silent)
    swapped = Path(shutil.copytree(model_folder, tmp_path / "swapped"))
    for file in ("tokenizer.json", "vocab.txt"):
        if (swapped / file).exists():
            text = (swapped / file).read_text()
            (swapped / file).write_text(text.replace("red", "?").replace("green", "red").replace("?", "green"))
    assert build_mission_encoder(str(swapped), announce=silent).fingerprint != original.fingerprint


def test_fingerprint_ignores_a_random_pooler(tmp_path):
    """BERT's pooler is missing from many files and random then; it does not touch the hidden states."""
    from transformers import BertConfig, BertForMaskedLM

    folder = save_tiny_distilbert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(vocab_size=64, **sizes)).save_pretrained(folder)
    prints = {build_mission_encoder(str(folder), announce=silent).fingerprint for _ in range(2)}
    assert len(prints) == 1


# --- restoring ------------------------------------------------------------------


def test_restore_accepts_the_same_encoder(model_folder, tmp_path):
    for name in ("builtin", str(model_folder)):
        encoder = build_mission_encoder(name, announce=silent)
        description = json.loads(json.dumps(encoder.describe()))
        assert set(description) == {"kind", "name", "fingerprint", "width"}
        lines = []
        again = restore_mission_encoder(description, announce=lines.append, override="auto")
        assert torch.equal(again.encode(SENTENCES), encoder.encode(SENTENCES))
        assert len(lines) == 1
    moved = Path(shutil.copytree(model_folder, tmp_path / "moved"))
    gone = {**description, "name": str(tmp_path / "gone" / "folder")}
    with pytest.raises(MissionEncoderError, match=r"--lang_encoder FOLDER"):
        restore_mission_encoder(gone, announce=silent)
    assert restore_mission_encoder(gone, announce=silent, override=str(moved)).name == str(moved.resolve())


def test_restore_refuses_other_weights(model_folder, tmp_path):
    description = build_mission_encoder(str(model_folder), announce=silent).describe()
    other = save_tiny_distilbert(tmp_path / "other", seed=1)
    found = build_mission_encoder(str(other), announce=silent).fingerprint
    with pytest.raises(MissionEncoderError) as caught:
        restore_mission_encoder(description, announce=silent, override=str(other))
    for part in (description["fingerprint"][:12], found[:12], "--lang_encoder"):
        assert part in str(caught.value)


def test_restore_never_swaps_kinds(model_folder):
    builtin = build_mission_encoder("builtin", announce=silent).describe()
    with pytest.raises(MissionEncoderError, match="builtin"):
        restore_mission_encoder(builtin, announce=silent, override=str(model_folder))
    with pytest.raises(MissionEncoderError, match="distilbert-base-uncased"):
        restore_mission_encoder(None, announce=silent, override="builtin")
    with pytest.raises(MissionEncoderError, match="000000000000"):
        restore_mission_encoder({**builtin, "fingerprint": "0" * 64}, announce=silent)
    with pytest.raises(MissionEncoderError, match="kind"):
        restore_mission_encoder({"name": "builtin"}, announce=silent)


def test_restore_of_a_foreign_checkpoint(model_folder, tmp_path, monkeypatch):
    """Without a fingerprint nothing can be verified, but the width must fit and builtin never steps in."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_find_cached", lambda name: None)
    for description in (None, FOREIGN_DESCRIPTION):
        with pytest.raises(MissionEncoderError, match="distilbert-base-uncased"):
            restore_mission_encoder(description, announce=silent)
    with pytest.raises(MissionEncoderError, match="width 768"):
        restore_mission_encoder(None, announce=silent, override=str(model_folder))
    wide = save_tiny_distilbert(tmp_path / "wide", dim=MISSION_WIDTH, hidden_dim=8, n_layers=1)
    lines = []
    encoder = restore_mission_encoder(None, announce=lines.append, override=str(wide))
    assert encoder.encode(SENTENCES).shape == (len(SENTENCES), MISSION_WIDTH)
    assert "no fingerprint" in lines[0]


# --- errors ------------------------------------------------------------------


def test_folders_that_hold_no_encoder(model_folder, tmp_path):
    def error(name: str) -> str:
        with pytest.raises(MissionEncoderError) as caught:
            build_mission_encoder(name, announce=silent)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "neither" in error(str(tmp_path / "missing"))
    assert "neither" in error("./missing")
    assert "config.json" in error(str(tmp_path))

    bare = Path(shutil.copytree(model_folder, tmp_path / "bare"))
    for file in bare.glob("*"):
        if file.name.startswith(("tokenizer", "vocab")):
            file.unlink()
    assert "tokenizer" in error(str(bare))

    no_weights = Path(shutil.copytree(model_folder, tmp_path / "no_weights"))
    (no_weights / "model.safetensors").write_bytes(b"not a tensor")
    assert "cannot be loaded" in error(str(no_weights))

    deeper = Path(shutil.copytree(model_folder, tmp_path / "deeper"))
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps({**config, "n_layers": 3}))
    assert "lacks" in error(str(deeper))

    seq2seq = Path(shutil.copytree(model_folder, tmp_path / "seq2seq"))
    (seq2seq / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    assert "encoder-decoder" in error(str(seq2seq))


def test_left_to_right_model_is_refused(model_folder, tmp_path):
    """The first token of a causal model sees nothing of the sentence after it."""
    from transformers import GPT2Config, GPT2Model

    folder = Path(shutil.copytree(model_folder, tmp_path / "gpt2"))
    (folder / "model.safetensors").unlink()
    GPT2Model(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    with pytest.raises(MissionEncoderError, match="same first-token state"):
        build_mission_encoder(str(folder), announce=silent)


def test_too_long_a_sentence_is_refused(model_folder):
    encoder = build_mission_encoder(str(model_folder), announce=silent)
    with pytest.raises(MissionEncoderError, match="reads 32 tokens, found 42"):
        encoder.encode(["red " * 40])


# --- what others left switched on ---------------------------------------------


def edit_json(file: str, **changes):
    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def save_truncated_and_padded(folder: Path) -> None:
    import tokenizers

    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.enable_truncation(max_length=4)
    inner.enable_padding(length=16, direction="left")
    inner.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    "edit",
    [
        save_truncated_and_padded,
        edit_json("tokenizer_config.json", padding_side="left", truncation=True, max_length=4, padding="max_length"),
        edit_json("config.json", dtype="float16", torch_dtype="float16"),
        edit_json("config.json", dropout=0.9, attention_dropout=0.9, use_cache=True),
        edit_json("config.json", return_dict=False, output_hidden_states=True, output_attentions=True),
        edit_json("config.json", attn_implementation="eager"),
        edit_json("config.json", chunk_size_feed_forward=1),
    ],
)
def test_what_other_code_left_on_in_a_folder_moves_no_bit(model_folder, tmp_path, edit):
    original = build_mission_encoder(str(model_folder), announce=silent)
    folder = Path(shutil.copytree(model_folder, tmp_path / "used"))
    edit(folder)
    used = build_mission_encoder(str(folder), announce=silent)
    assert used.fingerprint == original.fingerprint
    assert torch.equal(used.encode(SENTENCES), original.encode(SENTENCES))


@every_default
@pytest.mark.parametrize("kind", ["builtin", "huggingface"])
def test_torch_s_defaults_move_no_bit(model_folder, kind, defaults):
    name = "builtin" if kind == "builtin" else str(model_folder)
    expected = build_mission_encoder(name, announce=silent)
    with defaults():
        found = build_mission_encoder(name, announce=silent)
        vectors = found.encode(SENTENCES)
    assert found.fingerprint == expected.fingerprint
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, expected.encode(SENTENCES))
