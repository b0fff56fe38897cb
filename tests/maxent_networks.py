"""Small untrained language models of many architectures, and a walk that branches wherever a search could."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel
from maxent.dts_implementation.models.sequence_model import SequenceModel
from more.checkpoints import save_checkpoint
from more.config import ModelConfig
from more.data import DataSettings, open_source
from more.model import MoreModel
from more.stories import EmbeddedSettings
from more.tokens import train_tokenizer

VOCAB = 61
WINDOW = 6  # shorter than what is read
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,  # logits of a few units, as trained models have
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXTURE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
EMBEDDED = EmbeddedSettings(num_stories=20, num_sheets=5, num_paragraphs=5)
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 96}),
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", {"sliding_window": WINDOW}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", MIXED),
    "gemma3": ("gemma3_text", MIXED),
    "qwen2": ("qwen2", {}),
    "qwen2, mixed": ("qwen2", {**MIXED, "use_sliding_window": True}),
    "qwen3": ("qwen3", {}),
    "qwen3-moe": ("qwen3_moe", MIXTURE),
    "olmo2": ("olmo2", {}),
    "olmoe": ("olmoe", MIXTURE),
    "mixtral": ("mixtral", MIXTURE),
    "smollm3": ("smollm3", {}),
    "gpt-oss": ("gpt_oss", {**MIXTURE, **MIXED}),
    "opt": ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
}
"""Name -> transformers' type, and what differs from `SIZES`."""


def build_network(name: str = "llama", **changes):
    """Return an untrained model of an architecture, the same each time, its weights float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, differences = ARCHITECTURES.get(name, (name, {}))
    sizes = {"vocab_size": VOCAB, **{k: v for k, v in SIZES.items() if k.endswith(("id", "range"))}}
    config = AutoConfig.for_model(kind, **{**(sizes if kind == "gpt2" else SIZES), **differences, **changes})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float().eval()


def build_model(name: str = "llama", *, kv: str = "packed", budget: float | None = None, **changes) -> HuggingFaceModel:
    """Return such a model behind the protocol, without a tokenizer."""
    return HuggingFaceModel(build_network(name, **changes), kv=kv, kv_budget_mb=budget)


def build_more(model_type: str, **changes) -> MoreModel:
    """Return an untrained model of `more/` with logits of several units."""
    sizes = {"d_model": 32, "num_heads": 2, "num_layers": 2, "num_experts": 3, "max_length": 48, "vocab_size": VOCAB}
    torch.manual_seed(0)
    model = MoreModel(ModelConfig(model_type=model_type, num_recurrences=2, top_k=2, **{**sizes, **changes})).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(8)
    return model


def save_more(path: Path, model_type: str = "base", data: dict | None = None) -> Path:
    """Write a checkpoint of an untrained model of `more/`, as training on embedded data does, or on other data."""
    tokenizer = train_tokenizer(["What is 1 plus 2?"], 257)
    model = build_more(model_type, vocab_size=tokenizer.vocab_size, max_length=320)
    data = (
        data or open_source(DataSettings(data="embedded", data_seed=7, embedded=EMBEDDED), lambda line: None).describe()
    )
    content = {"training_config": {}, "data": data, "update": 1, "tokens": 1, "tokenizer": tokenizer.json}
    weights = {"model_state_dict": model.state_dict(), "model_config": asdict(model.config)}
    save_checkpoint(path, {**content, **weights})
    return path


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of bytes, with an end-of-text token of its own, as the library does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate("\0\1\2abcdefghijklmnopqrstuvwxyz .,")}
    inner = Tokenizer(models.WordLevel({**letters, "<end>": len(letters)}, unk_token="\0"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="\0").save_pretrained(folder)


def walk(model: SequenceModel, prompt, seed: int = 0) -> dict[tuple[int, ...], np.ndarray]:
    """Return prefix -> logits of a walk in three waves, which fork at the prompt, at ends and at inner columns.

    Args:
        model: That follows the protocol.
        prompt: Of a kind that it knows.
        seed: Of the tokens.
    """
    rng = np.random.default_rng(seed)
    prefixes: list[tuple[int, ...]] = [()]
    found = {(): model.start(prompt)}

    def open_wave(*columns: int) -> None:
        model.open(
            [[prefixes.index(prefixes[column][: d + 1]) for d in range(len(prefixes[column]))] for column in columns]
        )

    def step(*nodes: int) -> None:
        tokens: list[int] = []
        for row, node in enumerate(nodes):
            taken = {prefix[-1] for prefix in prefixes if prefix[:-1] == prefixes[node] and prefix}
            taken |= {token for token, other in zip(tokens, nodes[:row], strict=True) if other == node}
            tokens.append(int(rng.choice([token for token in range(3, VOCAB) if token not in taken])))
        logits = model.step(tokens, list(nodes))
        assert logits.shape == (len(nodes), VOCAB)
        for token, node, row in zip(tokens, nodes, logits, strict=True):
            prefixes.append((*prefixes[node], token))
            found[prefixes[-1]] = row

    open_wave(0)
    step(0, 0, 0)  # columns 1 2 3
    step(2, 1, 1)  # 4 5 6: another order, and a fork
    step(6, 4)  # 7 8: one is let go
    step(3, 8, 0)  # 9 10 11: one from before, and the prompt
    model.close()
    open_wave(10, 5, 0)
    step(10, 5, 0, 4)  # 12 13 14 15: of different depths, one within a path
    step(12, 13, 13)  # 16 17 18
    for end in range(16, 24):  # longer than a window
        step(end, end + 1) if end == 16 else step(len(prefixes) - 1)
    model.close()
    open_wave(len(prefixes) - 1, 3)
    step(len(prefixes) - 1, 3, 3)
    model.close()
    return found
