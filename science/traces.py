"""What routers did, step by step, in the runs of a study: the arrays that every analysis takes.

    traces = read_caches([(Run("UnlockPickup", "alpha 1e-4", 3, 0, lpc_alpha=1e-4), path), ...], source="R")
    for cell in traces.cells():                     # one task and setting: its runs are the units
        compute(cell)

R, replay: every policy was fed the bot's trajectories, so that all runs saw identical states. P, policy: each played by
itself. Files are read in `science.reading`; nothing here knows torch or an environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

COLLAPSED = 0.02
"""A layer has collapsed in which no expert's mean weight in any group is further than this from its overall mean."""


class TraceError(ValueError):
    """Traces that do not fit together; the message says what was expected, what was found, and what to do."""


@dataclass(frozen=True)
class Run:
    """Which training run a policy comes from.

    Attributes:
        task: Level family that it plays; of a policy of several there is a run for each, alike in all else.
        setting: All that differs between cells of a study but task and seed, in words.
        trial: Number of the experiment.
        seed: Of the run.
        update: Weight updates of the checkpoint, -1 not known.
        lpc_alpha: Price of complexity.
        diverged: Whether training broke down.
    """

    task: str
    setting: str
    trial: int
    seed: int
    update: int = -1
    lpc_alpha: float = 0.0
    diverged: bool = False

    @property
    def name(self) -> str:
        """How a person calls it."""
        return f"{self.task}, {self.setting}, trial {self.trial}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Group:
    """What steps are grouped by.

    Attributes:
        codes: int32 (S,), index into `names`; -1: none.
        names: Of the groups.
    """

    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Traces:
    """S steps in N episodes of R runs; steps are in order of episode, then time.

    Attributes:
        source: R or P, see the module.
        runs: R runs.
        sizes: Hidden size of each expert, per layer.
        levels: Names of the level families played.
        episode_run: int32 (N,), index into `runs`.
        episode_level: int32 (N,), index into `levels`.
        level_seed: int64 (N,).
        success: float32 (N,), 1 or 0; NaN not known. On R that of the bot's trajectory.
        episode: int32 (S,), index into the episodes.
        time: int32 (S,), steps since the episode began.
        weights: float32 (S, L, E), E that of the widest layer; 0 beyond a narrower one's experts.
        logits: float32 (S, A), of the policy's actions; NaN not known.
        action: int8 (S,), the policy's action; on R what it would have done.
        bot_action: int8 (S,), -1 none.
        lpc: float32 (S,).
        groups: What steps are grouped by: level_subgoal, subgoal, phase, carrying, cell, state, start_room;
            observation where it is known.
        unlabelled: int64 (R,), episodes ended or steps left out because the bot had no answer.
    """

    source: Literal["R", "P"]
    runs: tuple[Run, ...]
    sizes: tuple[tuple[int, ...], ...]
    levels: tuple[str, ...]
    episode_run: np.ndarray
    episode_level: np.ndarray
    level_seed: np.ndarray
    success: np.ndarray
    episode: np.ndarray
    time: np.ndarray
    weights: np.ndarray
    logits: np.ndarray
    action: np.ndarray
    bot_action: np.ndarray
    lpc: np.ndarray
    groups: Mapping[str, Group]
    unlabelled: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths and ranges.

        Raises:
            TraceError: If something does not fit; the message names it.
        """
        steps, episodes = len(self.episode), len(self.episode_run)
        if not self.runs:
            raise TraceError("runs: expected at least one, found none")
        width = max(map(len, self.sizes), default=0)
        shapes = {
            **dict.fromkeys(("episode_level", "level_seed", "success"), (episodes,)),
            **dict.fromkeys(("time", "action", "bot_action", "lpc"), (steps,)),
            "weights": (steps, len(self.sizes), width),
            "logits": (steps, self.logits.shape[-1]),
            "unlabelled": (len(self.runs),),
        }
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                raise TraceError(f"{name}: expected shape {shape}, found {found}")
        for name, group in self.groups.items():
            if group.codes.shape != (steps,) or int(group.codes.max(initial=-1)) >= len(group.names):
                raise TraceError(f"groups: {name}: expected {steps} codes below {len(group.names)}")
        if steps and (self.episode.min() < 0 or self.episode.max() >= episodes or (np.diff(self.episode) < 0).any()):
            raise TraceError(f"episode: expected indices of {episodes} episodes in ascending order")
        if episodes and not 0 <= self.episode_run.min() <= self.episode_run.max() < len(self.runs):
            raise TraceError(f"episode_run: expected indices of {len(self.runs)} runs")

    @cached_property
    def run(self) -> np.ndarray:
        """Each step's run, int32 (S,)."""
        return self.episode_run[self.episode]

    @cached_property
    def level(self) -> np.ndarray:
        """Each step's level family, int32 (S,)."""
        return self.episode_level[self.episode]

    @cached_property
    def experts(self) -> np.ndarray:
        """Which entries of `weights` are experts, bool (L, E)."""
        return np.array([[e < len(layer) for e in range(self.weights.shape[2])] for layer in self.sizes], bool)

    def group(self, name: str) -> Group:
        """Return what steps are grouped by under a name.

        Raises:
            TraceError: If there is no such group.
        """
        if name not in self.groups:
            raise TraceError(f"group: expected one of {', '.join(self.groups)}, found {name!r}")
        return self.groups[name]

    def cells(self) -> Iterator[Traces]:
        """Yield the traces of each task and setting, in order of appearance."""
        keys = [(run.task, run.setting) for run in self.runs]
        for key in dict.fromkeys(keys):
            yield self.select([index for index, other in enumerate(keys) if other == key])

    def select(self, runs: Sequence[int]) -> Traces:
        """Return the traces of some runs, by index, in the order given."""
        order = np.asarray(list(runs), np.intp)
        if len(order) == len(self.runs) and (order == np.arange(len(order))).all():
            return self
        of_episode = np.concatenate([np.flatnonzero(self.episode_run == run) for run in order] or [[]]).astype(np.intp)
        first = np.searchsorted(self.episode, of_episode, "left")
        lengths = np.searchsorted(self.episode, of_episode, "right") - first
        steps = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
        back = np.full(len(self.runs), -1, np.int32)
        back[order] = np.arange(len(order))
        of_step = ("time", "weights", "logits", "action", "bot_action", "lpc")
        return replace(
            self,
            runs=tuple(self.runs[run] for run in order),
            episode_run=back[self.episode_run[of_episode]],
            unlabelled=self.unlabelled[order],
            episode=np.repeat(np.arange(len(of_episode), dtype=np.int32), lengths),
            groups={name: Group(group.codes[steps], group.names) for name, group in self.groups.items()},
            **{name: getattr(self, name)[of_episode] for name in ("episode_level", "level_seed", "success")},
            **{name: getattr(self, name)[steps] for name in of_step},
        )

    @staticmethod
    def concatenate(parts: Sequence[Traces]) -> Traces:
        """Return the traces of all runs of several, which must be of one source and of equal experts.

        Raises:
            TraceError: If they are not.
        """
        if not parts:
            raise TraceError("traces: expected at least one, found none")
        first = parts[0]
        for part in parts:
            for name in ("source", "sizes"):
                if getattr(part, name) != getattr(first, name):
                    raise TraceError(
                        f"{part.runs[0].name}: {name}: expected {getattr(first, name)} as in {first.runs[0].name}, "
                        f"found {getattr(part, name)}; analyse them apart"
                    )
        levels = tuple(dict.fromkeys(level for part in parts for level in part.levels))
        ahead = np.cumsum([0, *(len(part.episode_run) for part in parts)])
        runs_ahead = np.cumsum([0, *(len(part.runs) for part in parts)])
        shared = [name for name in first.groups if all(name in part.groups for part in parts)]
        plain = ("level_seed", "success", "time", "weights", "logits", "action", "bot_action", "lpc", "unlabelled")
        renumbered = {
            "episode": [part.episode + start for part, start in zip(parts, ahead, strict=False)],
            "episode_run": [part.episode_run + start for part, start in zip(parts, runs_ahead, strict=False)],
            "episode_level": [
                np.array([levels.index(name) for name in part.levels], np.int32)[part.episode_level] for part in parts
            ],
        }
        return replace(
            first,
            runs=tuple(run for part in parts for run in part.runs),
            levels=levels,
            groups={name: _join([part.groups[name] for part in parts]) for name in shared},
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in plain},
            **{name: np.concatenate(arrays).astype(np.int32) for name, arrays in renumbered.items()},
        )


def _join(groups: Sequence[Group]) -> Group:
    names = tuple(dict.fromkeys(name for group in groups for name in group.names))
    place = {name: index for index, name in enumerate(names)}
    codes = [np.array([*(place[name] for name in group.names), -1], np.int32)[group.codes] for group in groups]
    return Group(np.concatenate(codes), names)


def sum_over(codes: np.ndarray, values: np.ndarray, num_codes: int) -> np.ndarray:
    """Return the sums (G, ...) of values (S, ...) over codes int (S,); a negative code counts nowhere.

    As `science.statistics.information.sum_by`, but by a sparse product, which is what permutations need.
    """
    from scipy.sparse import csr_matrix  # takes 0.1 s

    used = codes >= 0
    flat = np.asarray(values, np.float64).reshape(len(codes), int(np.prod(np.shape(values)[1:])))
    flat, codes = (flat, codes) if used.all() else (flat[used], codes[used])
    picked = csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), (len(codes), num_codes))
    return (picked.T @ flat).reshape(num_codes, *np.shape(values)[1:])


def group_means(traces: Traces, codes: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean weights (R, G, L, E) of each run and group, and the episodes int (R, G) that they are of.

    Steps are averaged to episodes, these to the mean, so that a long episode counts once. NaN where there is none.
    """
    pair = np.where(codes >= 0, traces.episode.astype(np.int64) * num_groups + codes, -1)
    size = len(traces.episode_run) * num_groups
    if size > 4 * len(codes) + 1000:  # many groups, of which an episode has few
        found, place = np.unique(pair, return_inverse=True)
        place, found = (place.reshape(-1) - (found[:1] < 0).sum()), found[found >= 0]
    else:
        found, place = np.arange(size), pair
    count = np.bincount(place[place >= 0], minlength=len(found))
    means = sum_over(place, traces.weights, len(found))
    found, means, count = found[count > 0], means[count > 0], count[count > 0]
    means /= count[:, None, None]
    target = traces.episode_run[found // num_groups].astype(np.int64) * num_groups + found % num_groups
    size = len(traces.runs) * num_groups
    episodes = np.bincount(target, minlength=size)
    with np.errstate(invalid="ignore"):
        mean = sum_over(target, means, size) / np.where(episodes > 0, episodes, np.nan)[:, None, None]
    shape = (len(traces.runs), num_groups)
    return mean.reshape(*shape, *traces.weights.shape[1:]), episodes.reshape(shape)


def collapsed_layers(means: np.ndarray) -> np.ndarray:
    """Return bool (R, L), in which layers routers do not tell groups apart, from `group_means` (R, G, L, E)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of groups that a run never has
        spread = np.nanmax(np.abs(means - np.nanmean(means, axis=1, keepdims=True)), axis=(1, 3))
    return ~(spread >= COLLAPSED)
