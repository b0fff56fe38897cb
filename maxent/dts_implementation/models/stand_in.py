"""A small model in the place of one whose weights cannot be had: the same architecture, trained here in minutes.

    stand_in = build_stand_in("phi-2", dataset.splits["train"], Path("data_cache/stand_ins"))
    stand_in.display_name                       # "Phi-2 (stand-in)"
    search(stand_in.model, sample.prompt, reward, SearchSettings())

It has learned how answers are written, and little of what makes them true: with it everything runs, and nothing that it
says is a statement about the model whose place it takes. Hence the mark in each of its names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maxent.data.sample import Sample
from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel, load_hugging_face
from maxent.dts_implementation.models.stand_in_training import (
    ARCHITECTURES,
    SIZES,
    VERSION,
    StandInSettings,
    build_network,
    build_tokenizer,
    encode_samples,
    train,
)
from maxent.registry import MODEL_CONFIGS, STAND_IN_INFO
from pipeline.command.devices import drawn_from, one_thread


@dataclass(frozen=True)
class StandIn:
    """A stand-in, ready to be asked.

    Attributes:
        model: Behind the protocol, packed if the test at loading passes.
        display_name: Of the model it stands for, with the mark.
        description: One line: what it is and what it was trained on.
        losses: Mean loss, nats a token of answers, of each twentieth of the training.
        folder: Where it is kept.
        weights: `stand-in`, for the records.
    """

    model: HuggingFaceModel
    display_name: str
    description: str
    losses: tuple[float, ...]
    folder: Path
    weights: str = "stand-in"


def build_stand_in(
    key: str,
    samples: Sequence[Sample],
    folder: Path,
    settings: StandInSettings | None = None,
    *,
    device: str | torch.device = "cpu",
    announce: Callable[[str], object] = print,
    on_step: Callable[[float], object] | None = None,
    **options: Any,
) -> StandIn:
    """Return a stand-in, trained now if the folder has none of these settings and samples, or a damaged one.

    The same key, samples and settings give the same weights on one machine. Training is on one core of the CPU.

    Args:
        key: One of `ARCHITECTURES`.
        samples: It learns to write their `target` after their prompt.
        folder: In it, stand-ins have folders of their own, named by a digest of all that they depend on.
        settings: How it is made.
        device: Where it runs.
        announce: Is told, in a line, what is trained and what came of it.
        on_step: Called after each step of a training with its loss.
        options: As of `HuggingFaceModel`.

    Raises:
        ValueError: If the key has no architecture, or there are no samples.
        DataError: If a prompt is too long and cannot be shortened.
        OSError: If the folder cannot be written.
    """
    if key not in ARCHITECTURES:
        raise ValueError(f"stand_in: expected one of {', '.join(ARCHITECTURES)}, found {key!r}; it has no stand-in")
    if not samples:
        raise ValueError("stand_in: expected samples to learn from, found none")
    settings = settings or StandInSettings()
    display_name = f"{MODEL_CONFIGS[key]['display_name']} (stand-in)"
    digest = _compute_digest(key, samples, settings)
    place = folder / f"{key}-{digest[:16]}"
    if (place / STAND_IN_INFO).is_file() and (damage := find_damage(place)):
        announce(f"{display_name}: {place} is damaged ({damage}); it is trained anew")
        shutil.rmtree(place)
    if not (place / STAND_IN_INFO).is_file():
        announce(f"{display_name}: training on {len(samples)} texts, {settings.steps} steps; kept in {place}")
        with without_bars():
            _make(key, samples, settings, place, on_step)
    info = json.loads((place / STAND_IN_INFO).read_text(encoding="utf-8"))
    description = (
        f"weights: stand-in for {MODEL_CONFIGS[key]['name']}: {info['type']}, {info['parameters'] / 1e6:.2f} M "
        f"parameters, trained here on {len(samples)} texts in {info['seconds']:.0f} s, loss {info['losses'][0]:.2f} "
        f"to {info['losses'][-1]:.2f}"
    )
    announce(f"{display_name}: {description}")
    options = {"announce": announce, **options}
    with without_bars():
        model = load_hugging_face(str(place), device=device, dtype="float32", **options)
    return StandIn(model, display_name, description, tuple(info["losses"]), place)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Within the block transformers shows no bars of files: of a stand-in there is one, of a megabyte."""
    from transformers.utils import logging  # slow to import

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _compute_digest(key: str, samples: Sequence[Sample], settings: StandInSettings) -> str:
    """Return the SHA-256, hexadecimal, of all that a stand-in depends on but the machine."""
    made = {"version": VERSION, "key": key, "architecture": ARCHITECTURES[key], "sizes": SIZES, **asdict(settings)}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode())
    for sample in samples:
        digest.update(json.dumps([sample.prompt, sample.target]).encode())
    return digest.hexdigest()


def _make(
    key: str,
    samples: Sequence[Sample],
    settings: StandInSettings,
    place: Path,
    on_step: Callable[[float], object] | None,
) -> None:
    """Train a stand-in and write its folder, whole or not at all."""
    began = time.perf_counter()
    tokenizer = build_tokenizer(samples, settings.vocab_size)
    with drawn_from((settings.seed << 32) + zlib.crc32(key.encode())):
        model = build_network(key, len(tokenizer), tokenizer.eos_token_id, settings.width)
    texts = encode_samples(samples, tokenizer, SIZES["max_position_embeddings"])
    with one_thread():
        losses = train(model, texts, settings, on_step)
    info = {
        "weights": "stand-in",
        "key": key,
        "type": model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "settings": asdict(settings),
        "texts": len(samples),
        "losses": [float(part.mean()) for part in np.array_split(losses, min(20, len(losses)))],
        "seconds": time.perf_counter() - began,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as made:
        unfinished = Path(made) / "model"
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        info["files"] = {path.name: hash_file(path) for path in sorted(unfinished.iterdir())}
        (unfinished / STAND_IN_INFO).write_text(json.dumps(info, indent=1), encoding="utf-8")
        if place.exists() and not (place / STAND_IN_INFO).is_file():
            shutil.rmtree(place)
        try:
            unfinished.rename(place)
        except OSError:
            if not (place / STAND_IN_INFO).is_file():  # else another process has made the same one meanwhile
                raise


def find_damage(place: Path) -> str:
    """Return what is wrong with the folder of a stand-in: files that are missing or not as written; "" if nothing."""
    try:
        files = json.loads((place / STAND_IN_INFO).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if not (place / name).is_file():
                return f"{name} is missing"
            if hash_file(place / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STAND_IN_INFO} cannot be read: {type(error).__name__}"
    return ""


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
