"""How a run begins: from another run's checkpoint, or, with words that have parts, from the sums of their parts.

config = adopt(config)                          # sizes of --init_from in place of null
loaded = load_model(config.init_from)
embed_by_parts(model, vocabulary.parts())       # `x7=x3` begins near `x7=x1` and near `x2=x3`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from more.checkpoints import read_model_config
from more.config import ModelConfig, compute_widths
from more.model import MoreModel
from more.settings import TrainingConfig
from pipeline.config import ConfigError

FREE = ("num_recurrences", "dropout", "max_length", "dispatch", "vocab_size")
"""Fields of `ModelConfig` that weights do not fix; all others must be those of the checkpoint."""


def adopt(config: TrainingConfig) -> TrainingConfig:
    """Return settings whose null sizes are those of the checkpoint that they start from, if there is one.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ConfigError: If a size is given and is another, or the experts' widths would be others at the r that is given.
    """
    if config.init_from is None:
        return config
    stored = read_model_config(config.init_from)
    changes = {}
    for name, value in {**stored, "seq_length": stored["max_length"]}.items():
        if name in ("max_length", "vocab_size", "dropout") or not hasattr(config, name):
            continue
        given = getattr(config, name)
        if given is None:
            changes[name] = value
        elif name not in FREE and name != "seq_length" and given != value:
            raise ConfigError(
                f"{name}: {given!r} was given, and {config.init_from}, from which the run is to start, has {value!r}; "
                f"pass --{name} {value} or leave one of the two flags out"
            )
    config = dataclasses.replace(config, **changes)
    sizes = ModelConfig(**stored)
    try:
        widths = compute_widths(dataclasses.replace(sizes, num_recurrences=config.num_recurrences))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if widths != compute_widths(sizes):
        raise ConfigError(
            f"num_recurrences: with match {sizes.match} the experts of {sizes.num_recurrences} and of "
            f"{config.num_recurrences} steps differ in width, and {config.init_from} was trained with "
            f"{sizes.num_recurrences}; pass --num_recurrences {sizes.num_recurrences}, or start from a run of match "
            "total or none"
        )
    return config


@torch.no_grad()
def embed_by_parts(model: MoreModel, parts: Sequence[tuple[str, ...]]) -> None:
    """Let the embedding of each token be the sum of vectors of its parts, as large as what was drawn.

    So `x7=x3` is not one of hundreds of unrelated words; from there on every token's embedding is trained by itself.

    Args:
        model: As drawn; the rows of its embedding become the vectors of the parts.
        parts: Of each token, one or more names.
    """
    numbers: dict[str, int] = {}
    for names in parts:
        for name in names:
            numbers.setdefault(name, len(numbers))
    weight = model.embedding.weight
    drawn = weight.clone()
    for row, names in enumerate(parts):
        weight[row] = drawn[[numbers[name] for name in names]].sum(dim=0) / len(names) ** 0.5
