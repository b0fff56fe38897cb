"""Stand-ins as the experiments ask for them: what they learn from, where they are kept, what is said meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maxent.data.catalogue import DataSettings, load_dataset
from maxent.data.sample import Dataset
from maxent.settings import ExperimentSettings
from pipeline.command.bars import Bar

DEFAULT_DIR = "data_cache/stand_ins"
PARTS = 4
"""Lines that a training prints where no bar can be shown."""


def find_folder(path: str | None) -> Path:
    """Return where stand-ins are kept: one place for both folders from which the command is called."""
    if path is not None:
        return Path(path)
    return Path(".." if Path.cwd() == Path(__file__).resolve().parent else "") / DEFAULT_DIR


def train_stand_in(
    key: str,
    settings: ExperimentSettings,
    dataset: Dataset,
    announce: Callable[[str], object],
    check: Callable[[], object],
    **options: Any,
) -> Any:
    """Return the stand-in of a key (`models.stand_in.StandIn`), from its folder or trained now.

    It learns from generated samples of the dataset that is asked, whatever the questions are taken from: so it is the
    same with real files and without. They are those of `--seed`, as its weights are; of generated questions, which that
    seed splits, it has seen none that it is asked.

    Args:
        key: Of the registry, one that has a stand-in.
        settings: Of the experiments.
        dataset: What it will be asked.
        announce: Is told, in a line, what is worth telling.
        check: Called after each step; what it raises ends the training, and nothing is kept.
        options: As of `HuggingFaceModel`.

    Raises:
        OSError: If the folder cannot be written.
    """
    from maxent.dts_implementation.models.stand_in import StandInSettings, build_stand_in

    if dataset.real:
        dataset = load_dataset(dataset.name, DataSettings("synthetic", seed=settings.seed))
    steps = settings.stand_in_steps
    count = itertools.count(1)
    name = settings.find_display_name(key)
    with Bar(total=steps, desc=f"training {name}", unit="step", disable=None, leave=False, delay=1.0) as bar:

        def note(loss: float) -> None:
            check()
            done = next(count)
            if bar.disable and done * PARTS // steps > (done - 1) * PARTS // steps:
                announce(f"  {done} of {steps} steps, loss {loss:.2f}")
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            bar.update()

        made = StandInSettings(steps=steps, seed=settings.seed)
        folder = find_folder(settings.stand_in_dir)
        samples = dataset.splits["train"]
        return build_stand_in(key, samples, folder, made, announce=announce, on_step=note, **options)
