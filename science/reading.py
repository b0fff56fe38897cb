"""Traces from the project's tables and caches, and their own file.

    traces = read_caches([(run, "evaluation_cache/.../routing_data.json"), ...], source="P")
    write_traces("traces.npz", traces); traces = read_traces("traces.npz")

A replayed policy is stored in the same tables: positions, subgoals and the expert's action are the bot's, weights,
logits and the action are the policy's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from babyai.facts import SUCCESS
from pipeline.records.cache import read_cache
from pipeline.records.tables import EpisodeTable, RoutingTable
from science.npz import as_header, open_npz, read_header, write_npz
from science.traces import Group, Run, TraceError, Traces

_PHASES = ("t_pick", "t_unlocked", "t_drop")
_PHASE_WORDS = ("picked", "unlocked", "dropped")
_ARRAYS = (
    *("episode_run", "episode_level", "level_seed", "success", "episode", "time", "weights", "logits", "action"),
    *("bot_action", "lpc", "unlabelled"),
)


@dataclass(frozen=True, eq=False)
class Played:
    """One policy's episodes on one level family.

    Attributes:
        run: Whose policy.
        episodes: From `pipeline.records`.
        routing: Its steps.
        level: Family of the levels; empty: the run's task.
        observation: int64 (S,), a number for each distinct observation and mission; None not known.
        unlabelled: Episodes ended because the bot had no answer.
    """

    run: Run
    episodes: EpisodeTable
    routing: RoutingTable
    level: str = ""
    observation: np.ndarray | None = None
    unlabelled: int = 0


def read_caches(
    entries: Iterable[tuple[Run, str | Path]], *, source: Literal["R", "P"]
) -> tuple[Traces, dict[str, str]]:
    """Return the traces of runs from their routing caches, and by the run's name why any is left out.

    Raises:
        TraceError: If none is left.
    """
    played, missing = [], {}
    for run, path in entries:
        try:
            cache = read_cache(path)
        except ValueError as error:  # CacheError, which names the file and what to do
            missing[run.name] = str(error)
            continue
        if cache.routing is None or not len(cache.routing):
            missing[run.name] = f"{path}: expected steps, found episodes only; evaluate again with them recorded"
        elif cache.layouts_only:
            missing[run.name] = (
                f"{path}: expected a cache that tells episodes apart, found an older form; evaluate again"
            )
        else:
            unlabelled = int(cache.header.get("unlabelled_episodes") or 0)
            played.append(Played(run, cache.episodes, cache.routing, unlabelled=unlabelled))
    if not played:
        raise TraceError(
            "expected caches of at least one run, found none that can be used: " + "; ".join(missing.values())
        )
    return build_traces(played, source=source), missing


def build_traces(played: Iterable[Played], *, source: Literal["R", "P"]) -> Traces:
    """Return the traces of what was played; a run may come with several levels.

    Raises:
        TraceError: If tables have no routers or do not fit together.
    """
    by_run: dict[Run, list[Traces]] = {}
    for entry in played:
        by_run.setdefault(entry.run, []).append(_build(entry, source))
    return Traces.concatenate([_one_run(parts) for parts in by_run.values()])


def _one_run(parts: list[Traces]) -> Traces:
    """Return the traces of one run's levels as those of one run."""
    if len(parts) == 1:
        return parts[0]
    joined = Traces.concatenate(parts)
    return replace(
        joined,
        runs=joined.runs[:1],
        episode_run=np.zeros_like(joined.episode_run),
        unlabelled=joined.unlabelled.sum(keepdims=True),
    )


def _build(entry: Played, source: Literal["R", "P"]) -> Traces:
    episodes, routing, level = entry.episodes, entry.routing, entry.level or entry.run.task
    if not routing.weights or not routing.expert_hidden_sizes:
        raise TraceError(f"{entry.run.name}: expected routing weights and expert sizes, found none; is it a baseline?")
    steps, width = len(routing), max(w.shape[1] for w in routing.weights)
    weights = np.zeros((steps, len(routing.weights), width), np.float32)
    for layer, values in enumerate(routing.weights):
        weights[:, layer, : values.shape[1]] = values
    success = np.where(episodes.outcome == SUCCESS, 1.0, np.where(episodes.outcome < 0, np.nan, 0.0))
    return Traces(
        source=source,
        runs=(entry.run,),
        sizes=tuple(tuple(int(size) for size in layer) for layer in routing.expert_hidden_sizes),
        levels=(level,),
        episode_run=np.zeros(len(episodes), np.int32),
        episode_level=np.zeros(len(episodes), np.int32),
        level_seed=np.asarray(episodes.level_seed, np.int64),
        success=success.astype(np.float32),
        episode=np.asarray(routing.episode, np.int32),
        time=np.asarray(routing.t_step, np.int32),
        weights=weights,
        logits=routing.action_logits,
        action=routing.action,
        bot_action=routing.expert_action,
        lpc=routing.lpc,
        groups=_build_groups(entry, level),
        unlabelled=np.array([entry.unlabelled], np.int64),
    )


# ----------------------------------------------------------------------------------------------------------- groups


def _build_groups(entry: Played, level: str) -> dict[str, Group]:
    routing, episodes = entry.routing, entry.episodes
    names = routing.subgoal_names
    phase, phase_names = _phases(entry)
    x, y = routing.position.astype(np.int64).T
    door = routing.door_unlocked.astype(np.int64)
    rooms = [context.get("agent_start_room") for context in episodes.env_context]
    room_names = sorted({str(tuple(room)) for room in rooms if room is not None})
    room = np.array([-1 if r is None else room_names.index(str(tuple(r))) for r in rooms] or [-1], np.int32)
    found = {
        "level_subgoal": Group(routing.subgoal.astype(np.int32), tuple(f"{level}: {name}" for name in names)),
        "subgoal": Group(routing.subgoal.astype(np.int32), tuple(names)),
        "phase": Group(phase, phase_names),
        "carrying": Group(routing.carrying.astype(np.int32), ("not carrying", "carrying")),
        "cell": _number([x, y], "({}, {})"),
        "state": _number([x, y, routing.direction, routing.carrying, door], "({}, {}) facing {} carrying {} door {}"),
        "start_room": Group(room[routing.episode], tuple(room_names)),
    }
    if entry.observation is not None:
        found["observation"] = _number([np.asarray(entry.observation)], "{}")
    return found


def _phases(entry: Played) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which of picking up, unlocking, dropping have happened before each step, as a number, and its words."""
    done = np.zeros(len(entry.routing), np.int32)
    for bit, name in enumerate(_PHASES):
        at = np.asarray(getattr(entry.episodes, name))[entry.routing.episode]
        done |= ((at >= 0) & (entry.routing.t_step > at)).astype(np.int32) << bit
    words = [[word for bit, word in enumerate(_PHASE_WORDS) if code >> bit & 1] for code in range(8)]
    return done, tuple(", ".join(each) or "nothing yet" for each in words)


def _number(columns: list[np.ndarray], text: str) -> Group:
    table = np.column_stack([np.asarray(column, np.int64) for column in columns])
    found, codes = np.unique(table, axis=0, return_inverse=True)
    return Group(codes.reshape(-1).astype(np.int32), tuple(text.format(*row) for row in found.tolist()))


# ------------------------------------------------------------------------------------------------------------ files


def write_traces(path: str | Path, traces: Traces) -> None:
    """Write traces as .npz, without pickles."""
    header = {
        "source": traces.source,
        "runs": [asdict(run) for run in traces.runs],
        "sizes": traces.sizes,
        "levels": traces.levels,
        "groups": {name: group.names for name, group in traces.groups.items()},
    }
    arrays = {name: getattr(traces, name) for name in _ARRAYS}
    arrays |= {f"group_{name}": group.codes for name, group in traces.groups.items()}
    write_npz(path, header=as_header(header), **arrays)


def read_traces(path: str | Path) -> Traces:
    """Return traces that `write_traces` wrote.

    Raises:
        TraceError: If the file cannot be read or is not what it should be.
    """
    with open_npz(path, "traces") as file:
        header = read_header(file)
        groups = {name: Group(file[f"group_{name}"], tuple(names)) for name, names in header["groups"].items()}
        return Traces(
            source=header["source"],
            runs=header["runs"],
            sizes=tuple(tuple(layer) for layer in header["sizes"]),
            levels=tuple(header["levels"]),
            groups=groups,
            **{name: file[name] for name in _ARRAYS},
        )
