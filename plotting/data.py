"""`RoutingData`: the one view of recorded routing that all plots take, whatever it comes from.

    data = as_routing_data(read_cache(path))            # or (routing table, episode table), or a list of dicts
    data.filter(data.routing.carrying).weights("layer_0").mean(axis=0)

Columns are those of `RoutingTable`, with one entry per step; `data.of_episode(column)` spreads a column of the episode
table over the steps. What is derived is computed when it is first asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.command.errors import UserError
from pipeline.places import CACHE_NAME
from pipeline.records.cache import Cache, find_actions, played_level
from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.records.forms import LayoutNumbers, parse
from pipeline.records.intervals import Estimates, group_means
from pipeline.records.metrics import choose_episode
from pipeline.records.plain import from_plain
from pipeline.records.steps import StepReader, iter_records
from pipeline.records.tables import EpisodeTable, RoutingTable
from plotting.style import count_of


class PlotError(UserError, ValueError):
    """What is to be drawn is not there; the message says what is."""


@dataclasses.dataclass(frozen=True, eq=False)
class RoutingData:
    """Steps of some episodes, with what the routers did; of one run, or of several that are to be averaged.

    Attributes:
        routing: One row per step.
        episodes: One row per episode; `routing.episode` numbers them. It may hold episodes that have no steps here.
        title: What the data is of, such as a task's name; may be empty.
        layouts_only: True if the rows of `episodes` are mere layouts, each perhaps played more than once.
        kept_held: `held` of a subset, which its own steps no longer tell; leave it out.
        run: int (episodes,), which run each episode is of, from `plotting.replicates.join_runs`; None for a single run.
            With it the run is the unit of every mean and interval, without it the episode.
        replaced: Levels that were replaced by others because the expert cannot solve them; None for not known.
    """

    routing: RoutingTable
    episodes: EpisodeTable
    title: str = ""
    layouts_only: bool = False
    kept_held: np.ndarray | None = None
    run: np.ndarray | None = None
    replaced: int | None = None

    def __post_init__(self) -> None:
        """Check that every step's episode is in the table.

        Raises:
            ValueError: If one is not.
        """
        highest = int(self.routing.episode.max(initial=-1))
        if highest >= len(self.episodes):
            raise ValueError(f"episode: expected rows of a table of {len(self.episodes)} episodes, found {highest}")

    def __len__(self) -> int:
        """Return the number of steps, S."""
        return len(self.routing)

    # ---------------------------------------------------------------------------------------------------- what is there

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers with a router, `layer_0` first; empty for a baseline."""
        return [f"layer_{layer}" for layer in range(len(self.routing.weights))]

    @property
    def expert_sizes(self) -> list[list[int]]:
        """Hidden size of each expert, per layer; empty if not known."""
        return self.routing.expert_hidden_sizes

    @property
    def lpc_exponent(self) -> float:
        """The power of its size that an expert costs."""
        return self.routing.lpc_exponent

    @property
    def expert_costs(self) -> list[np.ndarray]:
        """Per layer float64 (E,), what each expert costs, size^exponent; empty if expert sizes are not known."""
        return [np.asarray(sizes, np.float64) ** self.lpc_exponent for sizes in self.expert_sizes]

    @property
    def largest_lpc(self) -> float:
        """LPC if the largest experts were always taken; 0 if expert sizes are not known."""
        return sum(self.largest_layer_lpc)

    @property
    def largest_layer_lpc(self) -> list[float]:
        """The same of each layer; empty if expert sizes are not known."""
        return [float(costs.max(initial=0.0)) for costs in self.expert_costs]

    @property
    def num_experts(self) -> list[int]:
        """Number of experts, per layer."""
        return [weights.shape[1] for weights in self.routing.weights]

    @property
    def has_routing(self) -> bool:
        """Whether there are routers at all."""
        return bool(self.routing.weights)

    def knows(self, column: str) -> bool:
        """Return whether a column of the step or episode table holds something that was recorded, at least once."""
        if column in STEP_COLUMNS:
            known = STEP_COLUMNS[column].known(getattr(self.routing, column))
            return column not in self.routing.unknown and bool(known.any())
        values = np.asarray(getattr(self.episodes, column))[self.episodes_present]
        return bool(EPISODE_COLUMNS[column].known(values).any())

    # ---------------------------------------------------------------------------------------------------------- columns

    @property
    def lpc(self) -> np.ndarray:
        """float32 (S,), total LPC as recorded; NaN without routers."""
        return self.routing.lpc

    def weights(self, layer_name: str) -> np.ndarray:
        """Return the routing weights of a layer, float32 (S, E)."""
        names = self.layer_names
        if layer_name not in names:
            raise PlotError(f"layer_name: expected one of {', '.join(names) or 'none'}, found {layer_name!r}")
        return self.routing.weights[names.index(layer_name)]

    @cached_property
    def layer_lpc(self) -> dict[str, np.ndarray]:
        """Per layer float64 (S,), sum over experts of weight x cost; empty if expert sizes are not known."""
        if not self.expert_sizes:
            return {}
        layers = zip(self.layer_names, self.routing.weights, self.expert_costs, strict=True)
        return {name: weights @ costs for name, weights, costs in layers}

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return what `compute` gives, which is called only once under a name; not for subsets, which start anew."""
        if name not in self._remembered:
            self._remembered[name] = compute()
        return self._remembered[name]

    @cached_property
    def _remembered(self) -> dict[str, Any]:
        return {}

    def of_episode(self, column: str | np.ndarray | Sequence) -> np.ndarray:
        """Return a column of the episode table (or any column with a value per episode) for every step, (S, ...)."""
        values = getattr(self.episodes, column) if isinstance(column, str) else column
        return np.asarray(values)[self.routing.episode]

    @cached_property
    def held(self) -> np.ndarray:
        """int16 (S,), index into `routing.object_names` of what the agent carries, -1 nothing, -2 not known.

        From the events of earlier steps: what was picked last and not dropped since. A subset keeps what the steps it
        was taken from told.
        """
        if self.kept_held is not None:
            return self.kept_held
        routing = self.routing
        known = {"event", "event_object", "carrying"}.isdisjoint(routing.unknown)
        if not known or self.layouts_only or not len(self):
            return np.full(len(self), -2, np.int16)
        changed = np.full(len(self), -3, np.int16)  # after the step: an object, -1 nothing, -3 as before
        for code, name in enumerate(routing.event_names):
            if name in ("picked", "dropped"):
                happened = routing.event == code
                changed[happened] = routing.event_object[happened] if name == "picked" else -1
        held = np.concatenate([[np.int16(-3)], changed[:-1]])
        begins = np.concatenate([[True], routing.episode[1:] != routing.episode[:-1]])
        names = {name: code for code, name in enumerate(routing.object_names)}
        first = [names.get(context.get("carrying_at_start"), -1) for context in self.episodes.env_context]
        held[begins] = np.array(first, np.int16)[routing.episode[begins]]
        since = np.maximum.accumulate(np.where(held != -3, np.arange(len(self)), 0))
        held = held[since]
        return np.where(routing.carrying, np.where(held >= 0, held, -2), -1).astype(np.int16)

    @cached_property
    def episodes_present(self) -> np.ndarray:
        """Ascending int (n,), the rows of `episodes` that have steps here."""
        return np.flatnonzero(np.bincount(self.routing.episode, minlength=1)) if len(self) else np.zeros(0, np.intp)

    @property
    def num_episodes(self) -> int:
        """Number of episodes (or layouts, see `layouts_only`) that have steps here."""
        return len(self.episodes_present)

    @property
    def typical_episode(self) -> int:
        """The row of an episode that stands for others, see `pipeline.records.metrics.choose_episode`.

        Raises:
            ValueError: If there are no steps.
        """
        return choose_episode(self.episodes, np.bincount(self.routing.episode, minlength=len(self.episodes)))

    @property
    def contexts(self) -> list[dict[str, Any]]:
        """The `env_context` of each episode that has steps here; read them, do not change them."""
        return [self.episodes.env_context[episode] for episode in self.episodes_present.tolist()]

    @property
    def run_of_step(self) -> np.ndarray | None:
        """The run of each step, int (S,); None for a single run."""
        return None if self.run is None else self.of_episode(self.run)

    @property
    def num_units(self) -> int:
        """What means and intervals are over: runs that have steps here if there are several, else episodes."""
        return self.num_episodes if self.run is None else len(np.unique(self.run[self.episodes_present]))

    def group_means(self, values: np.ndarray, groups: np.ndarray, num_groups: int) -> Estimates:
        """Return means over episodes, or runs, with intervals: see `pipeline.records.intervals.group_means`.

        Args:
            values: Of each step, (S,) or (S, K).
            groups: int (S,), 0 .. num_groups - 1; -1: none.
            num_groups: G.
        """
        return group_means(values, groups, self.routing.episode, num_groups, self.run_of_step)

    def describe_size(self) -> str:
        """Return such as "300 episodes, 3,355 steps", "3 runs, 300 episodes, 3,355 steps"."""
        levels = count_of(self.num_episodes, "layout" if self.layouts_only else "episode")
        if self.layouts_only and len(self) and not any(self.contexts):
            levels = "layouts not known"
        runs = [] if self.run is None else [count_of(self.num_units, "run")]
        return ", ".join([*runs, levels, count_of(len(self), "step")])

    # --------------------------------------------------------------------------------------------------------- subsets

    def filter(self, mask: np.ndarray | slice) -> RoutingData:
        """Return the data of some steps, by boolean mask (S,), indices or slice; episodes keep their numbers."""
        if not isinstance(mask, slice):
            mask = np.asarray(mask, dtype=None if len(mask) else np.intp)
        return dataclasses.replace(self, routing=self.routing.select(mask), kept_held=self.held[mask])

    def where(self, filter_fn: Callable[[dict[str, Any]], bool] | np.ndarray | None) -> RoutingData:
        """Return the data of the steps that a filter keeps.

        Args:
            filter_fn: None keeps all; a boolean mask (S,) is quick; a function gets each step as a dict record with
                its `env_context` and takes about 5 microseconds per step.
        """
        if filter_fn is None:
            return self
        if callable(filter_fn):
            filter_fn = np.fromiter((bool(filter_fn(record)) for record in self.records()), dtype=bool, count=len(self))
        return self.filter(filter_fn)

    def split_runs(self) -> list[RoutingData]:
        """Return the data of each run, without steps where a subset has none of a run; a single run as it is."""
        if self.run is None:
            return [self]
        parts = [self.filter(self.run_of_step == run) for run in range(int(self.run.max(initial=-1)) + 1)]
        return [dataclasses.replace(part, run=None) for part in parts]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each step as a dict, see `pipeline.records.steps.iter_records`."""
        return iter_records(self.routing, self.episodes)


def as_routing_data(
    data: RoutingData | Cache | tuple[RoutingTable, EpisodeTable] | Iterable[Mapping[str, Any]],
    expert_sizes: Sequence[Sequence[int]] | None = None,
) -> RoutingData:
    """Return the one view that plots take; nothing is copied but where dicts are turned into columns.

    Args:
        data: A `RoutingData` (returned as it is), a cache or the dict of its JSON, a pair of tables, or one dict per
            step as in a cache's `routing_data`: `position` and `layer_routing` are needed, all else is optional.
            Episodes are told apart by `episode`; without it by `env_context`, which then tells layouts only. Records
            do not say how episodes ended, unless they have an `outcome`.
        expert_sizes: Of the experts, per layer, for dicts, which do not carry them.

    Raises:
        ValueError: If the cache holds no steps or a record is not what it should be; the message says what to do.
        TypeError: If it is nothing of all this.
    """
    if isinstance(data, RoutingData):
        return data
    if isinstance(data, Cache):
        if data.routing is None:
            raise PlotError(f"{data.path}: expected recorded steps, found none; evaluate without --skip_routing")
        return _from_cache(data)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], RoutingTable):
        return RoutingData(*data)
    if isinstance(data, Mapping) and "routing_data" in data:
        top = {key: value for key, value in data.items() if key != "routing_data"}
        return as_routing_data(Cache(Path(CACHE_NAME), *parse(top, iter([data["routing_data"]]))))
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        found = "a dict without routing_data" if isinstance(data, Mapping) else type(data).__name__
        raise TypeError(f"expected a cache, its JSON, two tables or a list of step records, found {found}")
    records = list(data)
    for record in records:
        if not isinstance(record, Mapping):
            raise TypeError(f"expected a dict for each step, found {type(record).__name__}")
    return _from_records(records, [list(layer) for layer in expert_sizes or []])


def _from_cache(cache: Cache) -> RoutingData:
    title, replaced = played_level(cache.header), cache.metrics.get("bot_plan_failures")
    drawn = ", actions drawn" if find_actions(cache.header) == "sample" else ""
    return RoutingData(
        cache.routing,
        cache.episodes,
        title + drawn if isinstance(title, str) else "",
        cache.layouts_only,
        replaced=replaced if isinstance(replaced, int) else None,
    )


# ---------------------------------------------------------------------------------------------------- from dict records


def _from_records(records: list[Mapping[str, Any]], expert_sizes: list[list[int]]) -> RoutingData:
    own = bool(records) and all(record.get("episode") is not None for record in records)
    if own:
        rows: dict[int, int] = {}
        numbers = [rows.setdefault(int(record["episode"]), len(rows)) for record in records]
    else:
        numbers = LayoutNumbers(repr).number(dict(record.get("env_context") or {}) for record in records)
    first = [records[row] for row in np.unique(numbers, return_index=True)[1].tolist()]
    reader = StepReader({})
    reader.add([{key: _plain(value) for key, value in r.items() if key != "env_context"} for r in records], numbers)
    routing = reader.table(expert_sizes)
    contexts = tuple(dict(record.get("env_context") or {}) for record in first)
    facts = [{**r, "mission": r.get("mission") or c.get("mission")} for r, c in zip(first, contexts, strict=True)]
    columns = {
        name: from_plain(column, [_plain(fact.get(name)) for fact in facts]) for name, column in EPISODE_COLUMNS.items()
    }
    return RoutingData(routing, EpisodeTable(**columns, env_context=contexts), layouts_only=not own)


def _plain(value: Any) -> Any:
    """Return numpy values and tuples as what JSON would hold, the form in which steps are read."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
