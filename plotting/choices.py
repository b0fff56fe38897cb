"""Which checkpoints a notebook offers: their labels, and the one that it shows first.

    choices = find_choices(find_caches("evaluation_cache"), "evaluation_cache")
    options = {choice.label: choice.place for choice in choices}
    first = choose_first(choices).label    # "GoToObj · success 92 % · alpha = 1e-05 · trial 1 · seed 0 · final"

What is told of a checkpoint comes from the first lines of its cache, so that a folder of hundreds opens quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.places import Place, cache_path
from pipeline.records.cache import CacheError, read_header, read_starts
from pipeline.records.results import as_results
from plotting.browsing import label_place
from plotting.runs import describe_collapse

_ENOUGH = 0.5  # success rate from which on a policy is worth looking at


@dataclass(frozen=True, eq=False)
class Choice:
    """A checkpoint or cache that can be chosen, and what its cache tells of it.

    Attributes:
        place: The checkpoint or cache.
        cache: Its cache, which need not be there.
        header: Of the cache; empty if there is none that can be read.
    """

    place: Place
    cache: Path
    header: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of the cache, none if it tells none."""
        found = self.header.get("metrics")
        return found if isinstance(found, Mapping) else {}

    @property
    def success(self) -> float | None:
        """Success rate, None if not known."""
        return _number(self.metrics, "success_rate")

    @property
    def label(self) -> str:
        """Its task, success rate and price of complexity, as far as they are known, and which run it is.

        What one chooses by comes first: a narrow list shows the beginning of its lines.
        """
        alpha = _number(self.header.get("config"), "lpc_alpha")
        told = [] if self.success is None else [f"success {100 * self.success:.0f} %"]
        told += [] if alpha is None else [f"\N{GREEK SMALL LETTER ALPHA} = {alpha:g}"]
        task, *run = label_place(self.place).split(" · ")
        trained = 0 if self.place.eval_task_id is None else 1
        return " · ".join([task, *run[:trained], *told, *run[trained:]])

    @cached_property
    def num_starts(self) -> int:
        """In how many rooms the first episodes start; 0 if not known."""
        return len({str(start) for start in read_starts(self.cache) if start is not None})


def find_choices(places: Iterable[Place], cache_dir: str) -> list[Choice]:
    """Return places, in their order, with what their caches tell.

    Args:
        places: Caches, or checkpoints.
        cache_dir: Where the caches of checkpoints are.
    """
    choices = []
    for place in places:
        path = place.path
        if path.suffix == ".pt":
            path = cache_path(cache_dir, place.task_id, place.trial, place.seed, place.update, place.eval_task_id)
        try:
            header = read_header(path)
        except CacheError:  # said when it is chosen
            header = {}
        choices.append(Choice(place, path, header))
    return choices


def choose_first(choices: Sequence[Choice]) -> Choice:
    """Return the one with the most to show.

    First counts whether it has routers that have not collapsed, then whether the policy succeeds on half of the levels,
    then in how many rooms its episodes start, then whether the checkpoint is final, then success; of equals the first.

    Args:
        choices: At least one.
    """
    gates = _pass_gates(choices)
    promising = [choice for choice, passed in zip(choices, gates, strict=True) if passed == max(gates)]
    return max(promising, key=lambda choice: (choice.num_starts, choice.place.update is None, choice.success or 0.0))


def _pass_gates(choices: Sequence[Choice]) -> list[tuple[bool, bool]]:
    """Return for each: whether its routers are there and alive, and whether the policy succeeds often enough."""
    sizes = [choice.header.get("expert_hidden_sizes") for choice in choices]
    rows = [
        {**choice.metrics, "expert_hidden_sizes": found, "num_episodes": choice.header.get("num_episodes")}
        for choice, found in zip(choices, sizes, strict=True)
    ]
    alive = describe_collapse(as_results(rows)) == ""
    return [
        (bool(choice.header.get("num_steps") and found and lives), (choice.success or 0.0) >= _ENOUGH)
        for choice, found, lives in zip(choices, sizes, alive, strict=True)
    ]


def _number(values: Any, name: str) -> float | None:
    found = values.get(name) if isinstance(values, Mapping) else None
    return None if isinstance(found, bool) or not isinstance(found, int | float) else float(found)
