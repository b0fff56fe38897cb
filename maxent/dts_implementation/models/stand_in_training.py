"""How a stand-in is made: tokenizer, network, and its training on answers.

tokenizer = build_tokenizer(samples, 512)
model = build_network("phi-2", len(tokenizer), tokenizer.eos_token_id)
losses = train(model, encode_samples(samples, tokenizer, 2048), StandInSettings())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maxent.data.prompts import fit_prompt
from maxent.data.sample import Sample

VERSION = 1
"""Of what is trained; raised whenever the same settings come to give another model."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-7b": ("llama", {}),
    "llama-13b": ("llama", {"num_hidden_layers": 3, "intermediate_size": 144}),
    "mistral-7b": ("mistral", {"num_key_value_heads": 1, "sliding_window": 4096}),
    "phi-2": ("phi", {"intermediate_size": 384}),
    "gemma-7b": ("gemma", {"head_dim": 32, "hidden_act": "gelu_pytorch_tanh"}),
}
"""Key -> type as transformers calls it, and what differs from `SIZES`, in the manner of the model it stands for."""

SIZES = {
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
    sizes = {**SIZES, **differences}
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
