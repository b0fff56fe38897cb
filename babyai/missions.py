"""Mission text -> embedding: a frozen Hugging Face encoder, or a built-in one that needs nothing.

    encoder = build_mission_encoder("auto")              # announces in one line what it uses, and why
    embeddings = encoder.encode(["go to the red ball"])  # (1, 768) float32
    checkpoint["mission_encoder"] = encoder.describe()
    encoder = restore_mission_encoder(checkpoint["mission_encoder"])  # the same encoder, or an error

A policy is only as good as the embeddings it was trained on, so an encoder is identified by a fingerprint of
what it computes, never by its name alone, and loading a checkpoint never replaces one encoder by another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from babyai.builtin_encoder import WIDTH, compute_builtin_fingerprint, embed_builtin
from babyai.errors import MissionEncoderError
from babyai.hub import DEFAULT_MODEL, locate_model
from babyai.huggingface_encoder import load_huggingface_encoder

MISSION_WIDTH = WIDTH  # DistilBERT has the same
FOREIGN_DESCRIPTION: dict[str, Any] = {
    "kind": "huggingface",
    "name": DEFAULT_MODEL,
    "fingerprint": None,
    "width": MISSION_WIDTH,
}
"""What checkpoints of this family were trained with that say nothing about their encoder. No fingerprint: the
weights cannot be verified, but the built-in encoder is never put in their place."""

CACHE_LIMIT = 65_536  # sentences kept: 200 MB at width 768; most tasks have a few hundred
PROBE_SECONDS = 5.0  # how long "auto" waits for the hub
EXPLICIT_PROBE_SECONDS = 30.0  # how long the hub may take for a model asked for by name


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
        # (capacity, width), filled up to len(_rows); float32 whatever torch's default is
        self._table = torch.empty(0, width, dtype=torch.float32, device=self.device)

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
                grown = self._table.new_empty(max(2 * filled, filled + len(new)), self.width)
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


def _build_auto(device: str | torch.device) -> tuple[MissionEncoder, str]:
    """Return the encoder, and for the built-in one the reason it had to be that."""
    try:
        return _build_huggingface(DEFAULT_MODEL, device, PROBE_SECONDS, shadowing=False), ""
    except MissionEncoderError as error:
        return _build_builtin(device), str(error)


def _build_builtin(device: str | torch.device) -> MissionEncoder:
    def embed(sentences: list[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([embed_builtin(sentence) for sentence in sentences]))  # (n, 768)

    return MissionEncoder("builtin", "builtin", MISSION_WIDTH, compute_builtin_fingerprint(), embed, device)


def _build_huggingface(
    name: str, device: str | torch.device, probe_seconds: float, *, shadowing: bool = True
) -> MissionEncoder:
    name, folder = locate_model(name, probe_seconds, shadowing=shadowing)
    loaded = load_huggingface_encoder(name, folder, torch.device(device))
    return MissionEncoder("huggingface", name, loaded.width, loaded.fingerprint, loaded.embed, device)
