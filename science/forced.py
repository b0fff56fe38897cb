"""What policies would do along every single path at each step of the bot's trajectories; and its own file.

    write_forced("forced.npz", forced); forced = read_forced("forced.npz")
    forced.action[run, path, step]

A path is one expert of each layer. Each is forced for one step, from the state that the intact policy has reached. All
runs of a cell follow the same trajectories.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from science.npz import as_header, open_npz, read_header, write_npz
from science.traces import Run, TraceError

SCHEMA_VERSION = 1

_ARRAYS = (
    *("paths", "cost", "level_seed", "episode", "time", "subgoal", "position", "bot_action"),
    *("action", "ce", "soft_action", "used", "likeliest"),
)


@dataclass(frozen=True, eq=False)
class Forced:
    """R runs of one task and setting, C paths, S steps of N episodes in order of episode, then time.

    Attributes:
        runs: R runs.
        sizes: Hidden size of each expert, per layer.
        subgoals: What `subgoal` numbers.
        paths: int8 (C, L), the expert of each layer.
        cost: float64 (C,), LPC of all weight on the path.
        level_seed: int64 (N,).
        episode: int32 (S,).
        time: int32 (S,), steps since the episode began.
        subgoal: int16 (S,), the bot's; -1 none.
        position: int16 (S, 2), x and y of the agent.
        bot_action: int8 (S,).
        action: int8 (R, C, S), the most probable action along the path.
        ce: float32 (R, C, S), cross-entropy to the bot's action along the path, nats.
        soft_action: int8 (R, S), the intact policy's.
        used: float32 (R, S), its LPC.
        likeliest: int16 (R, S), the path of the largest weights.
    """

    runs: tuple[Run, ...]
    sizes: tuple[tuple[int, ...], ...]
    subgoals: tuple[str, ...]
    paths: np.ndarray
    cost: np.ndarray
    level_seed: np.ndarray
    episode: np.ndarray
    time: np.ndarray
    subgoal: np.ndarray
    position: np.ndarray
    bot_action: np.ndarray
    action: np.ndarray
    ce: np.ndarray
    soft_action: np.ndarray
    used: np.ndarray
    likeliest: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths and ranges.

        Raises:
            TraceError: If something does not fit; the message names it.
        """
        runs, paths, steps = len(self.runs), len(self.paths), len(self.episode)
        shapes = {
            "cost": (paths,),
            **dict.fromkeys(("time", "subgoal", "bot_action"), (steps,)),
            "position": (steps, 2),
            **dict.fromkeys(("action", "ce"), (runs, paths, steps)),
            **dict.fromkeys(("soft_action", "used", "likeliest"), (runs, steps)),
        }
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                raise TraceError(f"forced: {name}: expected shape {shape}, found {found}")
        if not runs or not paths:
            raise TraceError(f"forced: expected runs and paths, found {runs} and {paths}")
        if steps and not (0 <= self.episode.min() and (np.diff(self.episode) >= 0).all()):
            raise TraceError("forced: episode: expected ascending indices from 0")
        if steps and int(self.episode.max()) >= len(self.level_seed):
            raise TraceError(f"forced: episode: expected indices of {len(self.level_seed)} episodes")

    @property
    def where(self) -> str:
        """Task and setting, for notes."""
        return f"{self.runs[0].task}, {self.runs[0].setting}"


def write_forced(path: str | Path, forced: Forced) -> None:
    """Write it as .npz, without pickles."""
    header = {"runs": [asdict(run) for run in forced.runs], "sizes": forced.sizes, "subgoals": forced.subgoals}
    arrays = {name: getattr(forced, name) for name in _ARRAYS}
    write_npz(path, schema_version=np.array(SCHEMA_VERSION), header=as_header(header), **arrays)


def read_forced(path: str | Path) -> Forced:
    """Return what `write_forced` wrote.

    Raises:
        TraceError: If the file cannot be read, or is not what it should be.
    """
    with open_npz(path, "forced paths", SCHEMA_VERSION) as file:
        header = read_header(file)
        return Forced(
            runs=header["runs"],
            sizes=tuple(tuple(layer) for layer in header["sizes"]),
            subgoals=tuple(header["subgoals"]),
            **{name: file[name] for name in _ARRAYS},
        )
