"""A frozen Hugging Face model as sentence encoder: loading, embedding, fingerprint.

    encoder = load_huggingface_encoder("distilbert-base-uncased", folder, torch.device("cpu"))
    encoder.embed(["go to the red ball"])   # (1, 768)

An embedding is the first token's state in the last layer, computed in float32. A folder may keep what other code had
switched on, and the process may have other defaults; neither moves the embeddings. `transformers` is imported where it
is used: importing it takes seconds.
"""

import functools
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from babyai.builtin_encoder import TEST_SENTENCES
from babyai.errors import MissionEncoderError
from babyai.hub import DEFAULT_MODEL, TOKENIZER_FILES, first_line, quiet_transformers
from babyai.torch_defaults import own_defaults

BATCH_SIZE = 32  # sentences per forward pass; 16 to 32 is where DistilBERT on two cores stops gaining


@dataclass(frozen=True)
class HuggingFaceEncoder:
    """A loaded model.

    Attributes:
        width: length of an embedding.
        fingerprint: SHA-256, in hex, of weights, vocabulary and what else determines the embeddings.
        embed: maps n sentences to an (n, width) tensor; raises MissionEncoderError for one that is too long.
    """

    width: int
    fingerprint: str
    embed: Callable[[list[str]], torch.Tensor]


def load_huggingface_encoder(name: str, folder: Path, device: torch.device) -> HuggingFaceEncoder:
    """Return the model in `folder`; code that lies there is never run.

    Args:
        name: what errors call it.
        folder: where its files are.
        device: where it runs.

    Raises:
        MissionEncoderError: the folder holds no model, or none that can encode sentences.
    """
    # Loading a model must not move the caller's random generator.
    with quiet_transformers(), torch.random.fork_rng(devices=[]), own_defaults(device.type):
        try:
            return _load(name, folder, device)
        except MissionEncoderError:
            raise
        except Exception as error:  # transformers raises nearly every type for a folder it cannot read
            raise MissionEncoderError(f"{name} cannot be loaded as a model: {first_line(error)}") from error


def _load(name: str, folder: Path, device: torch.device) -> HuggingFaceEncoder:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise MissionEncoderError(f"expected a Hugging Face model in {folder}, found no config.json there")
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise MissionEncoderError(f"{folder} holds no tokenizer (one of {', '.join(TOKENIZER_FILES)})")
    # False, said aloud: left out, an interactive run stops to ask whether to execute the folder's own code.
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise MissionEncoderError(
            f"{name} is an encoder-decoder ({config.model_type}); expected an encoder such as {DEFAULT_MODEL}"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _reset(config)
    model, loading = AutoModel.from_pretrained(
        folder, config=config, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    # A pooler comes after the last hidden state; a file often lacks it, and then it is random, and unused.
    absent = {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
    if absent:
        raise MissionEncoderError(f"{name} lacks {len(absent)} weights of its own model, such as {min(absent)}")
    if max(tokenizer.get_vocab().values()) >= model.get_input_embeddings().num_embeddings:
        raise MissionEncoderError(f"{name} has a tokenizer with more words than its model, so not its own")
    model = model.eval().requires_grad_(False).to(device)
    embed = functools.partial(_embed, model, tokenizer, name)
    with torch.no_grad():
        first, second = embed(list(TEST_SENTENCES[:2]))
    if torch.equal(first, second):
        raise MissionEncoderError(
            f"{name} gives every sentence the same first-token state (a left-to-right model?); "
            f"expected an encoder such as {DEFAULT_MODEL}"
        )
    return HuggingFaceEncoder(first.shape[0], _fingerprint(model, tokenizer), embed)


def _reset(config: Any) -> None:
    """Put back what says how a model is computed, not what it is: it moves the last bits, and no fingerprint shows it.

    What makes it random (dropout) is off in evaluation mode, and the weights are read as float32 whatever is stored.
    """
    config.output_attentions = config.output_hidden_states = False
    config.chunk_size_feed_forward = 0
    config._attn_implementation = None  # transformers' own choice


def _embed(model: Any, tokenizer: Any, name: str, sentences: list[str]) -> torch.Tensor:
    """Return the first token's last hidden state for each sentence, (n, hidden)."""
    with own_defaults(model.device.type):
        return _compute_states(model, tokenizer, name, sentences)


def _compute_states(model: Any, tokenizer: Any, name: str, sentences: list[str]) -> torch.Tensor:
    # Said aloud: a tokenizer's file may have been saved with either.
    token_ids = tokenizer(list(sentences), truncation=False, padding=False)["input_ids"]
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    limit = min(tokenizer.model_max_length, positions)
    # Batches of one length hold no padding, and without it a row comes out bit for bit the same in any batch
    # (measured on CPU, 1 to 32 rows; padding moves it by 2e-6). So a resumed run, which meets its sentences
    # in other batches than the run it continues, computes the same numbers. Missions have few lengths.
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(token_ids):
        by_length.setdefault(len(ids), []).append(index)
    if max(by_length) > limit:
        longest = sentences[by_length[max(by_length)][0]]
        raise MissionEncoderError(f"{name} reads {limit} tokens, found {max(by_length)} in {longest[:80]!r}")
    states: list[torch.Tensor | None] = [None] * len(sentences)
    for indices in by_length.values():
        for start in range(0, len(indices), BATCH_SIZE):
            chosen = indices[start : start + BATCH_SIZE]
            ids = torch.tensor([token_ids[i] for i in chosen], device=model.device)  # (batch, tokens)
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)
            hidden = getattr(output, "last_hidden_state", None)  # (batch, tokens, hidden)
            if hidden is None:
                raise MissionEncoderError(f"{name} returns no last_hidden_state; expected an encoder")
            for i, state in zip(chosen, hidden[:, 0], strict=True):
                states[i] = state
    return torch.stack(states)


def _fingerprint(model: Any, tokenizer: Any) -> str:
    """Return the SHA-256 of what the embeddings depend on: weights, vocabulary, a few settings.

    It is taken over loaded values in the model's own order, so that path, file format (safetensors or
    pickle), sharding and parameter names, which differ between copies and library versions, do not matter.
    """
    config = model.config
    settings = [config.model_type, getattr(config, "num_attention_heads", None)]
    settings.append(str(getattr(config, "activation", None) or getattr(config, "hidden_act", None)))
    digest = hashlib.sha256(repr(settings).encode())
    for token, index in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{index} {token}\n".encode("utf-8", "surrogatepass"))
    # Covers what a vocabulary leaves out: lower-casing, special tokens, word splitting.
    digest.update(repr(tokenizer(list(TEST_SENTENCES))["input_ids"]).encode())
    for key, parameter in model.named_parameters():
        if not key.startswith("pooler."):  # unused, and random when the file has none
            digest.update(repr(tuple(parameter.shape)).encode())
            digest.update(parameter.detach().cpu().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
