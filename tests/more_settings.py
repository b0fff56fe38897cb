"""Language models small enough for tests, and the flags that make the commands train one."""

import tempfile

from more.settings import TrainingConfig
from more.stories import EmbeddedSettings
from more.training import Trainer

_CACHE = tempfile.TemporaryDirectory(prefix="more_cache_")  # shared: the same few data are tokenised once
CACHE = _CACHE.name

TINY = EmbeddedSettings(num_stories=30, num_sheets=10, num_paragraphs=10, largest_summand=9)
"""Embedded text and questions, generated in a moment."""

SIZES = {
    "d_model": 16,
    "num_heads": 2,
    "num_layers": 2,
    "num_experts": 3,
    "seq_length": 48,
    "tokenizer_size": 300,
    "num_stories": 40,
    "largest_summand": 9,
    "torch_threads": 1,
}


def small_config(folder, **changes) -> TrainingConfig:
    """Return the settings of a run below `folder` that takes a second."""
    values = {
        "preset": "debug",
        "match": "none",  # not every variant can be matched at such a width
        "updates": 6,
        "batch_size": 4,
        "lr": 1e-3,
        "log_interval": 2,
        "eval_interval": 0,
        "checkpoint_interval": 0,
        "tensorboard": False,
        **{name: str(folder / name) for name in ("checkpoint_dir", "log_dir")},
        "cache_dir": CACHE,
        **SIZES,
    }
    return TrainingConfig(**{**values, **changes})


def small_flags(**changes) -> list[str]:
    """Return the same as flags, for commands that run within a folder."""
    values = {
        **SIZES,
        "preset": "debug",
        "match": "none",  # not every variant can be matched at such a width
        "updates": 6,
        "batch_size": 4,
        "log_interval": 2,
        "eval_interval": 0,
        **changes,
    }
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def small_trainer(folder, **changes) -> Trainer:
    """Return a trainer with these settings."""
    return Trainer(small_config(folder, **changes), announce=lambda _: None)
