"""States of routers and experts at replayed steps, cut to what probes see, and their file.

A state is that before a step, which holds what the policy remembers of all steps before. Steps at which an episode
begins, where there is none, are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from science.npz import as_header, open_npz, read_header, write_npz
from science.probing import Target
from science.traces import Run

STEPS = 1000
"""Steps of a task that probes are trained and scored on; drawn once, the same for all runs."""

PLACES = ("routers", "experts")
"""What is erased from."""

_ARRAYS = ("level_seed", "episode", "chosen", "observation", "observation_full")


@dataclass(frozen=True, eq=False)
class States:
    """What R runs of one task and setting had in mind at n of S replayed steps in N episodes.

    Attributes:
        runs: Whose.
        level_seed: int64 (N,).
        episode: int32 (S,).
        chosen: int64 (n,), the steps that probes see.
        targets: By name, of all S steps.
        sources: By name float32 (R, n, D): weights, routers, and each expert as (layer, expert) in `experts`.
        experts: Name of an expert's source -> layer and expert.
        observation: float32 (n, D), observation and mission, cut as the sources are.
        observation_full: uint8 (n, F), not cut.
    """

    runs: tuple[Run, ...]
    level_seed: np.ndarray
    episode: np.ndarray
    chosen: np.ndarray
    targets: Mapping[str, Target]
    sources: Mapping[str, np.ndarray]
    experts: Mapping[str, tuple[int, int]]
    observation: np.ndarray
    observation_full: np.ndarray


def write_states(path: str | Path, states: States) -> None:
    """Write states as .npz, without pickles."""
    header = {
        "runs": [dataclasses.asdict(run) for run in states.runs],
        "targets": {name: target.names for name, target in states.targets.items()},
        "sources": list(states.sources),
        "experts": states.experts,
    }
    arrays = {name: getattr(states, name) for name in _ARRAYS}
    arrays |= {f"target_{name}": target.codes for name, target in states.targets.items()}
    arrays |= {f"source_{number}": values for number, values in enumerate(states.sources.values())}
    write_npz(path, header=as_header(header), **arrays)


def read_states(path: str | Path) -> States:
    """Return what `write_states` wrote.

    Raises:
        TraceError: If the file cannot be read or is not what it should be.
    """
    with open_npz(path, "states") as file:
        header = read_header(file)
        targets = {n: Target(file[f"target_{n}"], tuple(names)) for n, names in header["targets"].items()}
        sources = {name: file[f"source_{number}"] for number, name in enumerate(header["sources"])}
        return States(
            runs=header["runs"],
            targets=targets,
            sources=sources,
            experts={name: tuple(place) for name, place in header["experts"].items()},
            **{name: file[name] for name in _ARRAYS},
        )
