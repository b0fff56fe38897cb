"""What the models of a call are asked, and which models can be asked that.

    dataset = load_questions(settings)

Sums and stories are those that the training of a MoRE checkpoint held out, if one is asked: of any others it may know
the answers by heart. Levels of BabyAI are for a policy alone, and it for them.
"""

from __future__ import annotations

from pathlib import Path

from maxent.data.catalogue import DATASETS, DataSettings, load_dataset
from maxent.data.sample import SPLITS, DataError, Dataset
from maxent.data.synthetic import build_text_samples
from maxent.levels import PREFIX, make_levels
from maxent.settings import ExperimentSettings
from pipeline.command.errors import ConfigError

TASKS = {"sums": "sum", "stories": "story"}
"""Datasets that `more/` learns from -> their task."""


def load_questions(settings: ExperimentSettings) -> Dataset:
    """Return what all models of a call are asked.

    Raises:
        ConfigError: If the dataset is unknown, or not all of the models can be asked it.
        UserError: If it cannot be had; the message says what to do.
    """
    check_models(settings)
    if "babyai" in settings.models:
        return make_levels(settings.dataset, settings.num_samples, settings.seed)
    data = DataSettings(settings.data_source, settings.data_path, settings.seed)
    path = settings.find_paths().get("more")
    held_out = "more" in settings.models and settings.dataset in TASKS and settings.data_source in ("auto", "synthetic")
    if held_out and path is not None and Path(path).exists():
        return load_held_out(settings.dataset, path, settings.data_path)
    return load_dataset(settings.dataset, data)


def check_models(settings: ExperimentSettings) -> None:
    """Refuse models and datasets that do not go together.

    Raises:
        ConfigError: If they do not.
    """
    dataset, others = settings.dataset, [key for key in settings.models if key != "babyai"]
    if "babyai" not in settings.models:
        if dataset in DATASETS:
            return
        if dataset.startswith(PREFIX):
            raise ConfigError(
                f"dataset: {dataset} is played by a policy, --models babyai --model_path babyai=CHECKPOINT; found "
                f"--models {' '.join(others)}, which answer in text: {', '.join(DATASETS)}"
            )
        raise ConfigError(
            f"dataset: expected one of {', '.join(DATASETS)}, or for --models babyai a BabyAI task such as "
            f"BabyAI-GoToObj-v0; found {dataset!r}"
        )
    if dataset in DATASETS:
        raise ConfigError(
            f"dataset: babyai plays levels and answers no text; expected a BabyAI task, as in --dataset "
            f"BabyAI-GoToObj-v0, found {dataset}"
        )
    if others:
        raise ConfigError(
            f"models: babyai acts in levels, {', '.join(others)} answer in text; ask them in calls of their own"
        )


def load_held_out(name: str, path: str, data_path: str | None) -> Dataset:
    """Return the sums or stories that the training of a checkpoint of `more/` dealt into its splits.

    Raises:
        CheckpointError: If the file is no usable checkpoint.
        DataError: If what it was trained on cannot be had any more, or it was asked no questions.
    """
    from maxent.dts_implementation.models.more_model import read_questions  # imports torch

    try:
        known = read_questions(path, name, data_path)
    except ValueError as error:
        reason = str(error).replace("--data_dir", "--data_path")
        raise DataError(f"{name}: the questions that more={path} has not seen cannot be told: {reason}") from None
    if not known.splits["test"]:
        raise DataError(
            f"{name}: expected questions that the training of more={path} has held out, found none: its training had "
            "no questions, as that on a text of one's own; ask a checkpoint that had some, as more/train.py --data "
            "embedded makes, or leave more out of --models"
        )
    splits = {split: build_text_samples(known.splits[split], TASKS[name], f"{name}-{split}") for split in SPLITS}
    return Dataset(name, splits, known.real, known.origin)
