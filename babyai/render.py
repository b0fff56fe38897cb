"""Pictures of levels and of episodes, drawn by minigrid's own renderer.

    picture = render_level("BabyAI-GoToObj-v0", seed=3)                        # uint8 (H, W, 3)
    picture = render_level("BabyAI-GoToObj-v0", seed=3, actions=[2, 2, 0])     # after three actions
    for frame in replay_frames("BabyAI-GoToObj-v0", 3, [2, 2, 0]): ...         # four pictures

A level is a function of its seed, and an episode of its level and actions, so both are drawn again whenever they are
wanted; no picture is stored. What is drawn equals minigrid's `get_frame`, but from one frame to the next only the
tiles that look different are drawn: 0.35 ms per frame of a 22 x 22 grid instead of 2.2 (tiles of 32 pixels). The first
pictures in a process take longer, because minigrid draws each kind of tile once, pixel by pixel (10 ms per kind at 32
pixels).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import babyai.minigrid_import  # noqa: F401

# isort: split
import numpy as np
from minigrid.core.grid import Grid
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

from babyai.errors import ReplayError
from babyai.facts import NUM_ACTIONS, OUTCOME_NAMES, RUNNING, VIEW_SIZE
from babyai.plain_world import Simulator

MAX_TILE_SIZE = 128  # drawing one tile of that size takes a fifth of a second


@dataclass(frozen=True)
class Replay:
    """Where an episode's actions lead.

    Attributes:
        mission: the instruction.
        position: int16 (T + 1, 2), the agent's [x, y] before each of T actions and after the last one.
        direction: int8 (T + 1,), 0..3: right, down, left, up.
        outcome: as `babyai.facts` numbers it; 0: the episode is still running after the last action.
    """

    mission: str
    position: np.ndarray
    direction: np.ndarray
    outcome: int


def level_mission(task_id: str, seed: int) -> str:
    """The instruction of a level; arguments and errors as in `render_level`."""
    return _load(task_id, seed).mission


def render_level(
    task_id: str,
    seed: int,
    *,
    actions: Sequence[int] | np.ndarray = (),
    tile_size: int = 32,
    highlight: bool = False,
    max_steps: int | None = None,
) -> np.ndarray:
    """A picture of a level, at its start or after some actions: uint8 (height * tile_size, width * tile_size, 3).

    Args:
        task_id: id or short name, see `babyai.levels.resolve_task_id`.
        seed: the level's.
        actions: ints in 0..6, taken before the picture.
        tile_size: pixels along each side of a cell, 1 to 128.
        highlight: whether the cells that the agent sees are brighter.
        max_steps: step limit of the episode; None for the level's own.

    Raises:
        UnknownTaskError: no such task.
        LevelError: minigrid's generator finds no level for this seed.
        ReplayError: there is no such action, or the episode ends before the last one.
        ValueError: another argument is out of range.
    """
    simulator, painter = _open(task_id, seed, tile_size, highlight, max_steps)
    for _ in _play(simulator, _check_actions(actions)):
        pass
    return painter.paint()


def replay_frames(
    task_id: str,
    seed: int,
    actions: Sequence[int] | np.ndarray,
    *,
    tile_size: int = 32,
    highlight: bool = True,
    max_steps: int | None = None,
) -> Iterator[np.ndarray]:
    """Pictures of an episode: before each action and after the last one, so one more than there are actions.

    Arguments, pictures and errors are those of `render_level`. Errors come at once, but for an episode that ends before
    the last action: that is noticed when it does. Each picture is an array of its own.
    """
    checked = _check_actions(actions)
    simulator, painter = _open(task_id, seed, tile_size, highlight, max_steps)
    return (painter.paint() for _ in _play(simulator, checked))


def replay(task_id: str, seed: int, actions: Sequence[int] | np.ndarray, *, max_steps: int | None = None) -> Replay:
    """Where the actions lead; arguments and errors as in `render_level`."""
    checked = _check_actions(actions)
    simulator = _load(task_id, seed, max_steps)
    position = np.zeros((len(checked) + 1, 2), np.int16)
    direction = np.zeros(len(checked) + 1, np.int8)
    outcome = RUNNING
    for step, outcome in enumerate(_play(simulator, checked)):  # noqa: B007 (the last one is used)
        position[step], direction[step] = simulator.env.agent_pos, simulator.env.agent_dir
    return Replay(simulator.mission, position, direction, outcome)


def _load(task_id: str, seed: int, max_steps: int | None = None) -> Simulator:
    simulator = Simulator(task_id, max_steps)
    simulator.env.gen_obs = lambda: None  # most of a step's time, and nobody looks
    simulator.load(seed)
    return simulator


def _open(
    task_id: str, seed: int, tile_size: int, highlight: bool, max_steps: int | None
) -> tuple[Simulator, "_Painter"]:
    if isinstance(tile_size, bool) or not isinstance(tile_size, int) or not 1 <= tile_size <= MAX_TILE_SIZE:
        raise ValueError(f"tile_size: expected 1 to {MAX_TILE_SIZE} pixels, found {tile_size!r}")
    simulator = _load(task_id, seed, max_steps)
    return simulator, _Painter(simulator, tile_size, highlight)


def _check_actions(actions: Sequence[int] | np.ndarray) -> list[int]:
    array = np.asarray(actions)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ReplayError(f"actions: expected a list of ints, found {array.dtype} of shape {array.shape}")
    odd = array[(array < 0) | (array >= NUM_ACTIONS)]
    if odd.size:
        raise ReplayError(f"actions: expected 0..{NUM_ACTIONS - 1}, found {odd[0]}")
    return [int(action) for action in array]


def _play(simulator: Simulator, actions: list[int]) -> Iterator[int]:
    """Takes the actions; yields how the episode stands before each of them and after the last one."""
    outcome = RUNNING
    yield outcome
    for step, action in enumerate(actions):
        if outcome != RUNNING:
            raise ReplayError(
                f"{simulator.task_id}, level seed {simulator.level_seed}: expected an episode of {len(actions)} steps, "
                f"found that it ends after {step} ({OUTCOME_NAMES[outcome]}); these actions belong to another level, "
                "or to another step limit (max_steps)"
            )
        outcome = simulator.step(action).outcome
        yield outcome


class _Painter:
    """Draws what a simulator shows into one picture, tile by tile where it has changed."""

    def __init__(self, simulator: Simulator, tile_size: int, highlight: bool) -> None:
        self._env, self._tile_size, self._highlight = simulator.env, tile_size, highlight
        width, height = self._env.width, self._env.height
        self._looks = np.full((width, height), -1)  # what is drawn at each cell
        self._tiles = np.zeros((height, tile_size, width, tile_size, 3), np.uint8)

    def paint(self) -> np.ndarray:
        """The picture now, uint8 (H, W, 3), a copy."""
        env = self._env
        agent = x, y = tuple(map(int, env.agent_pos))
        looks = env.grid.encode() @ (1, 1 << 4, 1 << 8)  # type, colour and state: (width, height)
        lit = _find_lit(env) if self._highlight else np.zeros_like(looks, bool)
        looks += lit * (1 << 12)
        looks[x, y] += (int(env.agent_dir) + 1) << 13
        for column, row in np.argwhere(looks != self._looks).tolist():
            self._tiles[row, :, column] = Grid.render_tile(
                env.grid.get(column, row),
                agent_dir=env.agent_dir if (column, row) == agent else None,
                highlight=bool(lit[column, row]),
                tile_size=self._tile_size,
            )
        self._looks = looks
        height, tile_size, width = self._tiles.shape[:3]
        return self._tiles.reshape(height * tile_size, width * tile_size, 3).copy()


def _find_lit(env: RoomGridLevel) -> np.ndarray:
    """The cells that the agent sees, bool (width, height)."""
    _, seen = env.gen_obs_grid()  # [column, row] of its view, in whose last row's middle it stands
    column, row = np.nonzero(seen)
    aside, ahead = column - VIEW_SIZE // 2, VIEW_SIZE - 1 - row
    (x, y), (ahead_x, ahead_y), (aside_x, aside_y) = env.agent_pos, env.dir_vec, env.right_vec
    x, y = x + ahead * ahead_x + aside * aside_x, y + ahead * ahead_y + aside * aside_y
    lit = np.zeros((env.width, env.height), bool)
    inside = (x >= 0) & (x < env.width) & (y >= 0) & (y < env.height)
    lit[x[inside], y[inside]] = True
    return lit
