"""Levels of BabyAI as questions: the prompt is a level's seed, and an answer is a sequence of actions.

dataset = make_levels("GoToObj", count=10, seed=0)
int(dataset.splits["test"][0].prompt)             # the seed that `BabyAIPolicyModel.start` takes
"""

from __future__ import annotations

from babyai.level_seeds import evaluation_seeds
from maxent.data.sample import Dataset, Frame, Sample
from maxent.data.synthetic import NO_SERIES

PREFIX = "BabyAI-"
"""Begins the full names of tasks."""


def make_levels(name: str, count: int, seed: int) -> Dataset:
    """Return levels that no training meets, as the test split; the other splits are empty.

    Args:
        name: Of a task, in full or in short; the dataset has its full name.
        count: Levels.
        seed: Of their seeds; 0 gives those on which policies are evaluated.

    Raises:
        UnknownTaskError: If there is no such task.
    """
    from babyai.levels import resolve_task_id  # slow to import

    task_id = resolve_task_id(name)
    levels = [
        Sample(f"{task_id}-{level}", Frame(str(level)), NO_SERIES, "episode", label="", target="")
        for level in evaluation_seeds(seed, count)
    ]
    origin = f"levels as evaluation has them, which no training meets; seed {seed}"
    return Dataset(task_id, {"train": [], "valid": [], "test": levels}, False, origin)
