"""Tables of played episodes for tests: random ones of any size, and one of two episodes worked out by hand."""

from typing import Any

import numpy as np

from pipeline.records.columns import CODE_NAMES, EPISODE_COLUMNS, STEP_COLUMNS, Column
from pipeline.records.tables import EpisodeTable, RoutingTable

SIZES = [[0, 16, 32], [0, 8]]
NAMES = {
    "subgoal_names": ("GoNextTo", "Open"),
    "event_names": ("none", "picked", "dropped", "unlocked"),
    "object_names": ("red ball", "grey key", "blue door"),
}
NAMES |= {names: ("none", "some") for names in CODE_NAMES.values() if names not in NAMES}


def build_context(k: int) -> dict[str, Any]:
    """Return a level description, another for each k."""
    return {
        "grid_size": [8, 8],
        "agent_start_pos": [1 + k % 6, 1],
        "agent_start_dir": k % 4,
        "agent_start_room": [0, 0],
        "room_grid_shape": [1, 1],
        "room_bounds": [[0, 0, 8, 8]],
        "target_pos": None if k % 2 else [3, 4],
        "goals": [],
        "keys": [],
        "balls": [[3, 4, "red"]],
        "boxes": [],
        "doors": [[0, 3, "blue", False, True]],
        "carrying_at_start": None,
        "walls": ["########", *["#......#"] * 6, "########"],
    }


def random_tables(
    seed: int, lengths: list[int], sizes: list[list[int]] = SIZES, num_actions: int = 7
) -> tuple[RoutingTable, EpisodeTable]:
    """Return a routing table and its episodes, of these lengths, filled at random with what may occur."""
    rng = np.random.default_rng(seed)
    steps, n = sum(lengths), len(lengths)

    def codes(low: int, high: int, dtype: type) -> np.ndarray:
        return rng.integers(low, high, steps).astype(dtype)

    def rows(width: int) -> np.ndarray:
        return (rng.standard_normal((steps, width)) * 10.0 ** rng.integers(-6, 4, (steps, 1))).astype(np.float32)

    weights = []
    for layer in sizes:
        raw = np.exp(rows(len(layer)).clip(-40, 40))
        weights.append((raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))
    nothing = np.full(steps, np.nan, np.float32)
    walking = rng.integers(0, 30, (steps, 3)).astype(np.float32)
    walking[rng.random((steps, 3)) < 0.3] = np.nan
    lpc = sum((w @ np.square(layer) for w, layer in zip(weights, sizes, strict=True)), np.zeros(steps))
    episode = np.repeat(np.arange(n), lengths).astype(np.int32)
    columns = dict(
        episode=episode,
        t_step=np.concatenate([np.arange(length) for length in lengths] or [np.zeros(0)]).astype(np.int32),
        position=rng.integers(0, 22, (steps, 2)).astype(np.int16),
        direction=codes(0, 4, np.int8),
        carrying=rng.random(steps) < 0.5,
        door_unlocked=codes(-1, 2, np.int8),
        action=codes(0, num_actions, np.int8),
        action_logits=rows(num_actions),
        expert_action=codes(-1, num_actions, np.int8),
        subgoal=codes(-1, 2, np.int8),
        event=codes(0, 4, np.int8),
        event_object=codes(-1, 3, np.int16),
        weights=tuple(weights),
        lpc=lpc.astype(np.float32) if sizes else nothing,
        entropy=rng.random(steps).astype(np.float32) if sizes else nothing,
        walking=walking,
        straight=(walking * np.float32(0.7071)).astype(np.float32),
        expert_hidden_sizes=sizes,
        **NAMES,
    )
    columns |= {name: _draw(rng, column, steps) for name, column in STEP_COLUMNS.items() if name not in columns}
    routing = RoutingTable(**columns)
    mean_lpc = [routing.lpc[episode == k].mean(dtype=np.float64) if lengths[k] else np.nan for k in range(n)]
    labelled = np.array([(routing.expert_action[episode == k] >= 0).sum() for k in range(n)], np.int32)
    columns = dict(
        level_seed=rng.integers(0, 2**62, n),
        mission=tuple(f"go to the red ball {k}" for k in range(n)),
        outcome=rng.integers(1, 4, n).astype(np.int8),
        steps=np.array(lengths, np.int32),
        expert_steps=rng.integers(1, 40, n).astype(np.int32),
        mean_lpc=np.array(mean_lpc, np.float64),
        labelled=labelled,
        agreed=(labelled // 2).astype(np.int32),
        t_pick=rng.integers(-1, 9, n).astype(np.int32),
        t_unlocked=rng.integers(-1, 9, n).astype(np.int32),
        t_drop=rng.integers(-1, 9, n).astype(np.int32),
        env_context=tuple(build_context(k) for k in range(n)),
    )
    columns |= {name: _draw(rng, column, n) for name, column in EPISODE_COLUMNS.items() if name not in columns}
    return routing, EpisodeTable(**columns)


def _draw(rng: np.random.Generator, column: Column, n: int) -> np.ndarray:
    """Return values of a column that is declared but has no line here, not known ones among them."""
    values = rng.integers(0, 2, (n, *column.shape)).astype(column.dtype)
    values[rng.random(values.shape) < 0.3] = column.fill
    return values


def assert_same_steps(found: RoutingTable, expected: RoutingTable, rtol: float = 0.0) -> None:
    """Compare all columns; numbers that the file rounds to `rtol`, NaN equal to NaN."""
    for name in STEP_COLUMNS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_allclose(a, b, rtol=rtol if a.dtype.kind == "f" else 0, atol=0, err_msg=name)
    assert len(found.weights) == len(expected.weights)
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=0)
    for name in ("expert_hidden_sizes", *NAMES, "unknown"):
        assert getattr(found, name) == getattr(expected, name), name


def assert_same_episodes(found: EpisodeTable, expected: EpisodeTable) -> None:
    """Compare all columns bit for bit, NaN equal to NaN."""
    for name, value in vars(expected).items():
        if isinstance(value, tuple):
            assert getattr(found, name) == value, name
        else:
            np.testing.assert_array_equal(getattr(found, name), value, strict=True, err_msg=name)
