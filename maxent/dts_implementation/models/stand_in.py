"""A small model in the place of one whose weights cannot be had: the same architecture, trained here in minutes.

    stand_in = build_stand_in("phi-2", dataset.splits["train"], Path("evaluation/stand_ins"))
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

from maxent.data.prompts import fit_prompt
from maxent.data.sample import Sample
from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel, load_hugging_face
from maxent.registry import MODEL_CONFIGS

VERSION = 1
"""Of what is trained; raised whenever the same settings come to give another model."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-7b": ("llama", {}),
    "llama-13b": ("llama", {"num_hidden_layers": 3, "intermediate_size": 144}),
    "mistral-7b": ("mistral", {"num_key_value_heads": 1, "sliding_window": 4096}),
    "phi-2": ("phi", {"intermediate_size": 384}),
    "gemma-7b": ("gemma", {"head_dim": 32, "hidden_act": "gelu_pytorch_tanh"}),
}
"""Key -> type as transformers calls it, and what differs from `_SIZES`, in the manner of the model it stands for."""

_SIZES = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
_END = "<end>"
# Words, the numbers of a normalised series whole, other digits one by one: values of a caption are spelled
_WORDS = r" ?-?\d\.\d(?=\s|$)| ?\p{L}+|\d| ?[^\s\p{L}\d]+|\s"
_INFO = "stand_in.json"
_IGNORED = -100  # what transformers leaves out of a loss
_POOL = 8  # batches among which texts are sorted by length, so that little is padded


@dataclass(frozen=True)
class StandInSettings:
    """How a stand-in is made.

    Attributes:
        steps: Updates of the weights.
        batch_size: Texts of an update.
        learning_rate: At its highest; it rises over a tenth of the steps, then falls as a cosine.
        vocab_size: At most so many tokens, 257 or more.
        width: Of the hidden layers; None for about 0.3 million parameters.
        seed: Of weights and order.

    Raises:
        ValueError: If a setting is out of range; it names the setting.
    """

    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 4e-3
    vocab_size: int = 512
    width: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("vocab_size", 257), ("width", 8), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, found {value}")
        if self.width is not None and self.width % 8:
            raise ValueError(f"width: expected a multiple of 8, found {self.width}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: expected a number above 0, found {self.learning_rate}")


@dataclass(frozen=True)
class StandIn:
    """A stand-in, ready to be asked.

    Attributes:
        model: Behind the protocol, packed if the test at loading passes.
        display_name: Of the model it stands for, with the mark.
        description: One line: what it is and what it was trained on.
        weights: `stand-in`, for the records.
        losses: Mean loss, nats a token of answers, of each twentieth of the training.
        folder: Where it is kept.
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
    if (place / _INFO).is_file() and (damage := find_damage(place)):
        announce(f"{display_name}: {place} is damaged ({damage}); it is trained anew")
        shutil.rmtree(place)
    if not (place / _INFO).is_file():
        announce(f"{display_name}: training on {len(samples)} texts, {settings.steps} steps; kept in {place}")
        with without_bars():
            _make(key, samples, settings, place, on_step)
    info = json.loads((place / _INFO).read_text(encoding="utf-8"))
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
    made = {"version": VERSION, "key": key, "architecture": ARCHITECTURES[key], "sizes": _SIZES, **asdict(settings)}
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((settings.seed << 32) + zlib.crc32(key.encode()))
        model = build_network(key, len(tokenizer), tokenizer.eos_token_id, settings.width)
    texts = encode_samples(samples, tokenizer, _SIZES["max_position_embeddings"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits whatever the cores; and two that others use too are far slower than one
    try:
        losses = train(model, texts, settings, on_step)
    finally:
        torch.set_num_threads(threads)
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
        (unfinished / _INFO).write_text(json.dumps(info, indent=1), encoding="utf-8")
        if place.exists() and not (place / _INFO).is_file():
            shutil.rmtree(place)
        try:
            unfinished.rename(place)
        except OSError:
            if not (place / _INFO).is_file():  # else another process has made the same one meanwhile
                raise


def find_damage(place: Path) -> str:
    """Return what is wrong with the folder of a stand-in: files that are missing or not as written; "" if nothing."""
    try:
        files = json.loads((place / _INFO).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if not (place / name).is_file():
                return f"{name} is missing"
            if hash_file(place / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_INFO} cannot be read: {type(error).__name__}"
    return ""


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def build_tokenizer(samples: Sequence[Sample], vocab_size: int) -> Any:
    """Return a byte-level BPE tokenizer of transformers, trained on samples; any text can be encoded with it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast  # slow to import

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator((sample.prompt + sample.target for sample in samples), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=_END, clean_up_tokenization_spaces=False)


def build_network(key: str, vocab_size: int, end: int, width: int | None = None) -> Any:
    """Return an untrained network of a key's architecture, float32, its weights drawn from torch's generator."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, differences = ARCHITECTURES[key]
    sizes = {**_SIZES, **differences}
    if width is not None:
        factor = width / sizes["hidden_size"]
        sizes |= {"hidden_size": width, "intermediate_size": max(8, int(sizes["intermediate_size"] * factor))}
    tokens = {"vocab_size": vocab_size, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **tokens)).float()


def encode_samples(samples: Sequence[Sample], tokenizer: Any, longest: int) -> list[tuple[list[int], int]]:
    """Return the tokens of each text, its end included, and how many of them are the prompt's.

    Raises:
        DataError: If a prompt is too long and cannot be shortened.
    """
    encoded = []
    for sample in samples:
        target = [*tokenizer(sample.target)["input_ids"], tokenizer.eos_token_id]
        shortened, _ = fit_prompt(sample, lambda text: len(tokenizer(text)["input_ids"]), longest - len(target))
        prompt = tokenizer(shortened.prompt)["input_ids"]
        encoded.append(([*prompt, *target], len(prompt)))
    return encoded


def train(
    model: Any,
    texts: Sequence[tuple[list[int], int]],
    settings: StandInSettings,
    on_step: Callable[[float], object] | None = None,
) -> np.ndarray:
    """Train a network on the answers within texts, as `encode_samples` gives them; return the losses, (steps,)."""
    rng = np.random.default_rng([settings.seed, VERSION])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, settings.steps // 10)

    def compute_rate(step: int) -> float:
        along = (step - warm) / max(1, settings.steps - warm)
        return (step + 1) / warm if step < warm else 0.05 + 0.475 * (1 + np.cos(np.pi * along))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, compute_rate)
    losses: list[float] = []
    while len(losses) < settings.steps:
        for rows in draw_batches([len(tokens) for tokens, _ in texts], settings.batch_size, rng):
            tokens, labels = pad([texts[row] for row in rows])
            loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if on_step is not None:
                on_step(losses[-1])
            if len(losses) == settings.steps:
                break
    model.eval()
    return np.array(losses)


def draw_batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Return batches of indices in which each text is once: alike in length within a batch, in random order."""
    order = rng.permutation(len(lengths)).tolist()
    pools = [order[at : at + _POOL * batch_size] for at in range(0, len(order), _POOL * batch_size)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda row: lengths[row])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[at] for at in rng.permutation(len(batches))]


def pad(texts: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels, (batch, time): prompt and padding, which comes last and is seen by nobody, have none.

    The labels stand at their tokens' places, as transformers has it.
    """
    tokens = torch.zeros(len(texts), max(len(text) for text, _ in texts), dtype=torch.long)
    labels = torch.full_like(tokens, _IGNORED)
    for row, (text, prompt) in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text)
        labels[row, prompt : len(text)] = tokens[row, prompt : len(text)]
    return tokens, labels
