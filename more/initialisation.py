"""Starting from another run's checkpoint: its sizes for whatever is left open, its tokenizer, its weights.

config = adopt(config)                          # sizes of --init_from in place of null
loaded = load_model(config.init_from)
"""

from __future__ import annotations

import dataclasses

from more.checkpoints import read_model_config
from more.settings import TrainingConfig
from pipeline.config import ConfigError

FREE = ("num_recurrences", "dropout", "max_length", "dispatch", "vocab_size")
"""Fields of `ModelConfig` that weights do not fix; all others must be those of the checkpoint."""


def adopt(config: TrainingConfig) -> TrainingConfig:
    """Return settings whose null sizes are those of the checkpoint that they start from, if there is one.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ConfigError: If a size is given and is another.
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
    return dataclasses.replace(config, **changes)
