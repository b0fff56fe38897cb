"""Small models of `more/` that have learned sums, and are asked others.

In `more/`'s own comparison sums are a small part of the text and no variant learns them. Here they are all there is:
one sum with 0 <= a, b <= 99 is a document, and only what follows `=` is learned. Models of 82,000 parameters then get
some of the new sums right after a minute, which leaves something to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.maxent_study.asked import Asked, Question
from benchmarks.maxent_study.settings import CASES, StudySettings
from maxent.data.prompts import read_line
from maxent.data.sample import Sample
from maxent.data.synthetic import build_text_samples
from maxent.dts_implementation.models.more_model import MoreSequenceModel
from maxent.rewards.likelihood import reward_likelihood
from maxent.rewards.programmatic import reward_programmatic
from more.babi import Question as Sum
from more.checkpoints import build_model
from more.config import ModelConfig
from more.model import MoreModel, compute_routing_terms, count_parameters, routing_losses
from more.stories import split_sums
from more.tokens import Tokenizer, train_tokenizer
from more.training import compute_lr
from pipeline.command.files import replace_atomically

LARGEST = 99
BATCH, LR = 128, 3e-3
SIZES: dict[str, Any] = {"d_model": 32, "num_heads": 4, "num_layers": 2, "num_experts": 4}
_IGNORED = -100


def open_sums(settings: StudySettings, variant: str, recurrences: int, seed: int, tick: Callable[[], object]) -> Asked:
    """Return a model of a seed with test sums of that seed, trained now if it is not there.

    Args:
        settings: Of the study; models are kept below its output.
        variant: Of `more/`.
        recurrences: r, of training and searches; `base` has none.
        seed: Of the split of the sums, weights and order.
        tick: Called after each update.
    """
    sums = split_sums(LARGEST, np.random.default_rng([seed, 1]))
    tokenizer = train_tokenizer([write_sum(one) for one in sums["train"]], 257)
    config = ModelConfig(variant, recurrences, tokenizer.vocab_size, **SIZES, dropout=0.0, max_length=32, match="total")
    model = build_model(config, seed)
    path = Path(settings.output) / "sums" / f"{variant}_rec{recurrences}_{settings.sum_updates}_seed{seed}.pth"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(model, encode(sums["train"], tokenizer), settings.sum_updates, seed, tick)
        with replace_atomically(path) as temporary:
            torch.save(model.state_dict(), temporary)
    asked = sums["test"][: settings.num_sums]
    samples = build_text_samples([(one.question, one.answer) for one in asked], "sum", "sums")
    facts = {"parameters": count_parameters(model).active, "greedy": measure(model, sums["test"], tokenizer)}
    return Asked(MoreSequenceModel(model, tokenizer), build_questions(samples), facts)


def build_questions(samples: Sequence[Sample]) -> dict[str, list[Question]]:
    """Return the questions of each case of sums."""
    rewards = {"programmatic": reward_programmatic, "likelihood": reward_likelihood}
    return {
        case.name: [
            Question(
                sample.id,
                sample.prompt,
                lambda answer, sample=sample, case=case: rewards[case.reward](sample.view(), answer),
                lambda rollout, sample=sample: float(read_line(rollout.text) == sample.label),
                read_line,
                sample.label,
            )
            for sample in samples
        ]
        for case in CASES
        if case.part == "sums"
    }


def write_sum(one: Sum) -> str:
    """Return a sum as a document."""
    return f"{one.question}{one.answer}\n"


def encode(sums: Sequence[Sum], tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets, (sums, longest): what follows `=` and the end are targets, the rest is ignored."""
    texts = [[tokenizer.end_token, *tokenizer.encode(write_sum(one)), tokenizer.end_token] for one in sums]
    inputs = torch.full((len(texts), max(map(len, texts)) - 1), tokenizer.end_token)
    targets = torch.full_like(inputs, _IGNORED)
    for row, (text, one) in enumerate(zip(texts, sums, strict=True)):
        begin = len(tokenizer.encode(one.question))
        inputs[row, : len(text) - 1] = torch.tensor(text[:-1])
        targets[row, begin : len(text) - 1] = torch.tensor(text[begin + 1 :])
    return inputs, targets


def train(
    model: MoreModel, data: tuple[torch.Tensor, torch.Tensor], updates: int, seed: int, tick: Callable[[], object]
) -> None:
    """Train a model as `more/train.py` does: AdamW, the same losses, the same course of the learning rate."""
    inputs, targets = data
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    rng = np.random.default_rng([seed, 2])
    model.train()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = compute_lr(update, updates, LR, 0.05)
        rows = torch.from_numpy(rng.integers(len(inputs), size=BATCH))
        output = model(inputs[rows])
        loss = F.cross_entropy(output.logits.flatten(0, 1), targets[rows].flatten(), ignore_index=_IGNORED)
        balance, z = routing_losses(output, compute_routing_terms(output))
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.01 * balance + 0.001 * z).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tick()
    model.eval()


@torch.no_grad()
def measure(model: MoreModel, sums: Sequence[Sum], tokenizer: Tokenizer) -> float:
    """Return the share of sums whose greedy answer is right letter by letter, its end included."""
    model.eval()
    inputs, targets = encode(sums, tokenizer)
    right = (model(inputs).logits.argmax(-1) == targets) | (
        targets == _IGNORED
    )  # each token given the true ones before
    return float(right.all(1).double().mean())
