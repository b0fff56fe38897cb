"""Mission text -> embedding: a frozen Hugging Face encoder, or a built-in one that needs nothing.

    encoder = build_mission_encoder("auto")              # announces in one line what it uses, and why
    embeddings = encoder.encode(["go to the red ball"])  # (1, 768) float32
    checkpoint["mission_encoder"] = encoder.describe()
    encoder = restore_mission_encoder(checkpoint["mission_encoder"])  # the same encoder, or an error

A policy is only as good as the embeddings it was trained on, so an encoder is identified by a fingerprint of
what it computes, never by its name alone, and loading a checkpoint never replaces one encoder by another.

`transformers` and `huggingface_hub` are imported where they are used: importing them takes seconds.
"""

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

MISSION_WIDTH = 768  # DistilBERT's; the built-in encoder has the same, so that one lang_proj fits either
DEFAULT_MODEL = "distilbert-base-uncased"
FOREIGN_DESCRIPTION: dict[str, Any] = {
    "kind": "huggingface",
    "name": DEFAULT_MODEL,
    "fingerprint": None,
    "width": MISSION_WIDTH,
}
"""What checkpoints of this family were trained with that say nothing about their encoder. No fingerprint: the
weights cannot be verified, but the built-in encoder is never put in their place."""

BATCH_SIZE = 32  # sentences per forward pass; 16 to 32 is where DistilBERT on two cores stops gaining
CACHE_LIMIT = 65_536  # sentences kept: 200 MB at width 768; most tasks have a few hundred
PROBE_SECONDS = 5.0  # how long "auto" waits for the hub
EXPLICIT_PROBE_SECONDS = 30.0  # how long the hub may take for a model asked for by name

# The hub's newer name of the same repository.
_HUB_ALIASES = {DEFAULT_MODEL: ("distilbert/distilbert-base-uncased",)}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_DOWNLOADS = (
    *_TOKENIZER_FILES,
    "config.json",
    "tokenizer_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
_TEST_SENTENCES = (
    "go to the red ball",
    "open a blue door",
    "Put the GREY key next to the purple box, then pick up a ball you see behind you",
)


class MissionEncoderError(ValueError):
    """The encoder asked for cannot be had, or is not the one a checkpoint was trained with."""


class MissionEncoder:
    """A frozen map from sentences to vectors that computes each distinct sentence once.

    Build one with `build_mission_encoder` or `restore_mission_encoder`.

    Attributes:
        kind: "builtin" or "huggingface".
        name: "builtin", a Hugging Face id, or the absolute path of a local folder.
        width: length of an embedding.
        fingerprint: SHA-256, in hex, of what determines the embeddings: weights and vocabulary, or algorithm.
        device: where embeddings live.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        width: int,
        fingerprint: str,
        embed: Callable[[list[str]], torch.Tensor],
        device: str | torch.device = "cpu",
    ):
        """Wrap `embed`, which maps n sentences to an (n, width) float32 tensor."""
        self.kind = kind
        self.name = name
        self.width = width
        self.fingerprint = fingerprint
        self.device = torch.device(device)
        self._embed = embed
        self._rows: dict[str, int] = {}
        self._table = torch.empty(0, width, device=self.device)  # (capacity, width), filled up to len(_rows)

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the embeddings of `sentences`, shape (n, width), float32, on `device`, without gradient.

        Sentences not seen before are computed in batches and kept, up to `CACHE_LIMIT` of them. What is
        returned for a sentence does not depend on the sentences beside it.

        Raises:
            TypeError: a single string was passed.
            MissionEncoderError: a sentence is longer than the model can read.
        """
        if isinstance(sentences, str):
            raise TypeError(f"expected a list of sentences, found one string: {sentences!r}; put it in a list")
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._rows]
        if new and len(self._rows) + len(new) > CACHE_LIMIT:
            # Start over rather than keep an order of use: it happens once in tens of thousands of sentences.
            self._rows.clear()
            new = list(dict.fromkeys(sentences))
        if new:
            self._add(new)
        index = torch.tensor([self._rows[s] for s in sentences], dtype=torch.long, device=self.device)
        return self._table[index]

    def _add(self, new: list[str]) -> None:
        # Not inference_mode: a trainable lang_proj saves these tensors for its backward pass.
        with torch.no_grad():
            vectors = self._embed(new).to(self.device, torch.float32)
            filled = len(self._rows)
            if filled + len(new) > len(self._table):
                # Doubling, so that one new sentence at a time does not copy the whole table each time.
                grown = torch.empty(max(2 * filled, filled + len(new)), self.width, device=self.device)
                grown[:filled] = self._table[:filled]
                self._table = grown
            self._table[filled : filled + len(new)] = vectors
        self._rows.update((sentence, filled + i) for i, sentence in enumerate(new))

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint needs to find and recognise this encoder, as plain types."""
        return {"kind": self.kind, "name": self.name, "fingerprint": self.fingerprint, "width": self.width}


def build_mission_encoder(
    name: str = "auto", *, device: str | torch.device = "cpu", announce: Callable[[str], object] = print
) -> MissionEncoder:
    """Return the encoder called `name`, and say in one line which it is.

    Args:
        name: a Hugging Face id, a local folder, "builtin", or "auto": DistilBERT when its files are in the
            local cache or the hub answers within `PROBE_SECONDS`, otherwise the built-in encoder.
            HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_ENDPOINT and HF_HOME mean what they always mean.
        device: where the model runs and embeddings live.
        announce: called once with the line.

    Raises:
        MissionEncoderError: a folder or id was named that cannot be loaded ("auto", "builtin" never do this).
    """
    if name == "builtin":
        encoder, why = _build_builtin(device), ""
    elif name == "auto":
        encoder, why = _build_auto(device)
    else:
        encoder, why = _build_huggingface(name, device, EXPLICIT_PROBE_SECONDS), ""
    _announce(encoder, announce, why)
    return encoder


def restore_mission_encoder(
    description: Mapping[str, Any] | None,
    *,
    device: str | torch.device = "cpu",
    announce: Callable[[str], object] = print,
    override: str | None = None,
) -> MissionEncoder:
    """Return the encoder that `MissionEncoder.describe` described, verified, or raise.

    Args:
        description: what the checkpoint holds; None stands for `FOREIGN_DESCRIPTION`.
        device: where the model runs and embeddings live.
        announce: called once with a line naming the encoder.
        override: folder or id to load from in place of the recorded name (after a move to another machine,
            say); it must hold the same weights. None and "auto" mean the recorded name.

    Raises:
        MissionEncoderError: the encoder cannot be loaded, or is not the one described.
    """
    wanted = dict(FOREIGN_DESCRIPTION if description is None else description)
    kind, name, fingerprint = wanted.get("kind"), wanted.get("name"), wanted.get("fingerprint")
    if kind not in ("builtin", "huggingface") or not isinstance(name, str):
        raise MissionEncoderError(
            "expected a description of a mission encoder with kind 'builtin' or 'huggingface' and a name, "
            f"found {wanted!r}; the checkpoint is damaged or newer than this program"
        )
    source = name if override in (None, "auto") else override
    what = f"this checkpoint was trained with the mission encoder {name} ({kind}, {_short(fingerprint)})"
    if (source == "builtin") != (kind == "builtin"):
        raise MissionEncoderError(f"{what}, found {source}; leave --lang_encoder out{_folder_hint(kind)}")
    try:
        encoder = (
            _build_builtin(device) if kind == "builtin" else _build_huggingface(source, device, EXPLICIT_PROBE_SECONDS)
        )
    except MissionEncoderError as error:
        raise MissionEncoderError(f"{what}, which cannot be loaded: {error}{_folder_hint(kind)}") from error
    if fingerprint is not None and encoder.fingerprint != fingerprint:
        hint = _folder_hint(kind) or "; use the version of this program that trained it"
        raise MissionEncoderError(f"{what}, but {source} is {_short(encoder.fingerprint)}{hint}")
    if encoder.width != wanted.get("width", encoder.width):
        raise MissionEncoderError(f"{what} of width {wanted['width']}, but {source} has width {encoder.width}")
    _announce(encoder, announce, "" if fingerprint else "the checkpoint holds no fingerprint to verify it by")
    return encoder


def _folder_hint(kind: str) -> str:
    return "; pass --lang_encoder FOLDER with a copy of those weights" if kind == "huggingface" else ""


def _short(fingerprint: str | None) -> str:
    return f"fingerprint {fingerprint[:12]}" if fingerprint else "fingerprint unknown"


def _announce(encoder: MissionEncoder, announce: Callable[[str], object], why: str) -> None:
    origin = "" if encoder.kind == "builtin" else "Hugging Face, "
    line = f"mission encoder: {encoder.name} ({origin}width {encoder.width}, {_short(encoder.fingerprint)})"
    announce(f"{line}; {why}" if why else line)


# --- builtin ------------------------------------------------------------------

_BUILTIN_VERSION = b"rl-mop builtin mission encoder 1"
_TOKEN = re.compile(rb"[a-z0-9'\-\x80-\xff]+|[^\sa-z0-9'\-\x80-\xff]")
# Chosen on 851 missions of 11 levels. More weight on single words brings missions that differ only in word
# order together; more on pairs (or adding triples) costs a linear probe behind the 32-wide projection the
# ability to read colour and object in combinations it was not fitted on. Numbers in docs/LOG.md.
_WORD_WEIGHT, _PAIR_WEIGHT, _POSITION_WEIGHT = 3, 2, 2


@functools.lru_cache(maxsize=16_384)
def _signs(*key: bytes) -> np.ndarray:
    """Return MISSION_WIDTH pseudorandom +-1 (int64) that depend on `key` alone."""
    message = b"".join(len(part).to_bytes(4, "big") + part for part in (_BUILTIN_VERSION, *key))
    digest = hashlib.shake_256(message).digest(MISSION_WIDTH // 8)
    signs = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.int64) * 2 - 1
    signs.flags.writeable = False  # the cache hands out one array many times
    return signs


def _builtin_sum(sentence: str) -> np.ndarray:
    """Return the weighted sum of a sentence's features, (MISSION_WIDTH,) int64, exact."""
    # Bytes, because lower() and split rules for str follow the Unicode tables of the Python version.
    words = _TOKEN.findall(sentence.encode("utf-8", "surrogatepass").lower())
    total = np.zeros(MISSION_WIDTH, dtype=np.int64)
    for position, word in enumerate(words):
        total += _WORD_WEIGHT * _signs(b"word", word)
        total += _POSITION_WEIGHT * _signs(b"position", str(position).encode(), word)
    bounded = [b"", *words, b""]  # no word is empty, so this marks both ends
    for left, right in itertools.pairwise(bounded):
        total += _PAIR_WEIGHT * _signs(b"pair", left, right)
    return total


def embed_builtin(sentence: str) -> np.ndarray:
    """Return the built-in embedding of one sentence: (768,) float32, of norm sqrt(768).

    Each word, each pair of neighbours (the ends included) and each word at its position stands for a vector
    of +-1 drawn from SHAKE-256; the embedding is their weighted sum, scaled to unit mean square. Words bring
    missions that share them together, pairs and positions set word order apart. All is exact integer
    arithmetic up to one square root, one division and one rounding to float32, which IEEE 754 fixes, so any
    machine gives the same bits.

    ASCII letters are lower-cased and white space only separates words; punctuation marks are words of their
    own.
    """
    total = _builtin_sum(sentence)
    mean_square = int((total * total).sum()) / MISSION_WIDTH
    return (total / np.sqrt(max(mean_square, 1.0))).astype(np.float32)


def _build_builtin(device: str | torch.device) -> MissionEncoder:
    digest = hashlib.sha256(_BUILTIN_VERSION)
    for sentence in _TEST_SENTENCES:
        digest.update(_builtin_sum(sentence).astype("<i8").tobytes())

    def embed(sentences: list[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([embed_builtin(sentence) for sentence in sentences]))  # (n, 768)

    return MissionEncoder("builtin", "builtin", MISSION_WIDTH, digest.hexdigest(), embed, device)


# --- Hugging Face ------------------------------------------------------------------


def _build_auto(device: str | torch.device) -> tuple[MissionEncoder, str]:
    """Return the encoder, and for the built-in one the reason it had to be that."""
    try:
        return _build_huggingface(DEFAULT_MODEL, device, PROBE_SECONDS, shadowing=False), ""
    except MissionEncoderError as error:
        return _build_builtin(device), str(error)


def _build_huggingface(
    name: str, device: str | torch.device, probe_seconds: float, *, shadowing: bool = True
) -> MissionEncoder:
    """Load `name` from a folder (where `shadowing` allows one), else the local cache, else the hub."""
    if importlib.util.find_spec("transformers") is None:
        raise MissionEncoderError("transformers is not installed (pip install transformers)")
    folder = Path(name).expanduser()
    if shadowing and folder.is_dir():
        folder = folder.resolve()
        name = str(folder)
    elif not re.fullmatch(r"(\w[\w.\-]*/)?\w[\w.\-]*", name):
        raise MissionEncoderError(
            f"expected a folder holding a Hugging Face model, or a hub id such as {DEFAULT_MODEL}, "
            f"found {name!r}, which is neither; correct lang_encoder"
        )
    else:
        folder = _find_cached(name) or _download(name, probe_seconds)
    # Loading a model must not move the caller's random generator.
    with _quiet_transformers(), torch.random.fork_rng(devices=[]):
        try:
            return _load_folder(name, folder, torch.device(device))
        except MissionEncoderError:
            raise
        except Exception as error:  # transformers raises nearly every type for a folder it cannot read
            raise MissionEncoderError(f"{name} cannot be loaded as a model: {_first_line(error)}") from error


def _load_folder(name: str, folder: Path, device: torch.device) -> MissionEncoder:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise MissionEncoderError(f"expected a Hugging Face model in {folder}, found no config.json there")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise MissionEncoderError(f"{folder} holds no tokenizer (one of {', '.join(_TOKENIZER_FILES)})")
    # False, said aloud: left out, an interactive run stops to ask whether to execute the folder's own code.
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise MissionEncoderError(
            f"{name} is an encoder-decoder ({config.model_type}); expected an encoder such as {DEFAULT_MODEL}"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model, loading = AutoModel.from_pretrained(
        folder, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    # A pooler comes after the last hidden state; a file often lacks it, and then it is random, and unused.
    absent = {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
    if absent:
        raise MissionEncoderError(f"{name} lacks {len(absent)} weights of its own model, such as {min(absent)}")
    if max(tokenizer.get_vocab().values()) >= model.get_input_embeddings().num_embeddings:
        raise MissionEncoderError(f"{name} has a tokenizer with more words than its model, so not its own")
    model = model.eval().requires_grad_(False).to(device)
    embed = functools.partial(_embed_huggingface, model, tokenizer, name)
    with torch.no_grad():
        first, second = embed(list(_TEST_SENTENCES[:2]))
    if torch.equal(first, second):
        raise MissionEncoderError(
            f"{name} gives every sentence the same first-token state (a left-to-right model?); "
            f"expected an encoder such as {DEFAULT_MODEL}"
        )
    fingerprint = _fingerprint_huggingface(model, tokenizer)
    return MissionEncoder("huggingface", name, first.shape[0], fingerprint, embed, device)


def _embed_huggingface(model: Any, tokenizer: Any, name: str, sentences: list[str]) -> torch.Tensor:
    """Return the first token's last hidden state for each sentence, (n, hidden)."""
    token_ids = tokenizer(list(sentences))["input_ids"]
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
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            hidden = getattr(output, "last_hidden_state", None)  # (batch, tokens, hidden)
            if hidden is None:
                raise MissionEncoderError(f"{name} returns no last_hidden_state; expected an encoder")
            for i, state in zip(chosen, hidden[:, 0], strict=True):
                states[i] = state
    return torch.stack(states)


def _fingerprint_huggingface(model: Any, tokenizer: Any) -> str:
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
    digest.update(repr(tokenizer(list(_TEST_SENTENCES))["input_ids"]).encode())
    for key, parameter in model.named_parameters():
        if not key.startswith("pooler."):  # unused, and random when the file has none
            digest.update(repr(tuple(parameter.shape)).encode())
            digest.update(parameter.detach().cpu().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _find_cached(name: str) -> Path | None:
    """Return a hub id's folder in the local cache, or None unless all that is needed is there."""
    from huggingface_hub import try_to_load_from_cache

    for repository in (name, *_HUB_ALIASES.get(name, ())):
        config = try_to_load_from_cache(repository, "config.json")
        if isinstance(config, str):
            folder = Path(config).parent
            tokenizer = any((folder / file).is_file() for file in _TOKENIZER_FILES)
            if tokenizer and (any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))):
                return folder
    return None


def _download(name: str, probe_seconds: float) -> Path:
    """Download a hub id into the local cache and return its folder there."""
    if any(os.environ.get(flag, "").upper() in _TRUE for flag in _OFFLINE_FLAGS):
        flags = " or ".join(_OFFLINE_FLAGS)
        raise MissionEncoderError(f"{name} is not in the local cache, and {flags} is set")
    failure = _probe_hub(name, probe_seconds)
    if failure:
        raise MissionEncoderError(f"{name} is not in the local cache, and {failure}")
    from huggingface_hub import snapshot_download

    try:
        with _quiet_transformers():
            folder = Path(snapshot_download(name, allow_patterns=list(_DOWNLOADS)))
            if not any(folder.glob("*.safetensors")):  # an older repository
                snapshot_download(name, allow_patterns=["pytorch_model*.bin", "pytorch_model.bin.index.json"])
    except Exception as error:  # network, disk, permission, a hub's own errors: all mean that it is not here
        raise MissionEncoderError(f"{name} cannot be downloaded: {_first_line(error)}") from error
    return folder


_OFFLINE_FLAGS, _TRUE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), ("1", "ON", "YES", "TRUE")
_PROBE = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_url
try:
    get_hf_file_metadata(hf_hub_url(sys.argv[1], "config.json"), timeout=float(sys.argv[2]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def _probe_hub(name: str, seconds: float) -> str | None:
    """Ask the hub once for the header of a model's configuration; return None when it is there, else why not.

    In a process of its own: looking up a host name has no timeout that a client could set, and a process can
    be ended when time is up. It uses the client that would download, hence the same endpoint, proxy,
    certificates and token.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, name, str(seconds)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            # A module in the working directory must not take a library's place.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"{endpoint} did not answer within {seconds:g} s"
    if probe.returncode:
        return f"{endpoint} gives no access to it ({_first_line(probe.stderr)})"
    return None


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence progress bars, load reports and warnings of both libraries, and put their settings back."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hub_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
