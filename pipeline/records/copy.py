"""The columns of a large `routing_data.json` beside it in binary, so that it is parsed once.

Parsing 100,000 steps takes a second, loading their columns a tenth. The JSON stays the source of truth: a copy counts
only if it names the digest of the JSON that lies beside it and of the program that parsed it. Any other, be it stale,
damaged or of another version, is as good as none and replaced when the JSON has been parsed. It may always be deleted.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.command.files import replace_atomically
from pipeline.records import episodes as cache_episodes
from pipeline.records import forms as cache_forms
from pipeline.records import steps as cache_steps
from pipeline.records import tables
from pipeline.records.forms import Parsed, check_header
from pipeline.records.metrics import EPISODE_COLUMNS, STEP_COLUMNS, EpisodeTable, RoutingTable

COPY_NAME = ".routing_data.npz"
MIN_BYTES = 1 << 23
"""Of a JSON that gets a copy; a smaller one is parsed in less than 0.2 seconds."""

_NAMES = ("expert_hidden_sizes", "subgoal_names", "event_names", "object_names", "unknown")


def read_copy(path: Path, content: bytes) -> Parsed | None:
    """Return what parsing a cache gives, from its copy; None if there is none that can be used.

    Args:
        path: Of the JSON.
        content: Of the JSON.
    """
    if len(content) < MIN_BYTES:
        return None
    try:
        with path.with_name(COPY_NAME).open("rb") as file, np.load(file, allow_pickle=False) as found:
            if found["source"].tobytes() != _source(content):
                return None
            return _unpack({name: found[name] for name in found.files})
    except Exception:  # whatever is wrong with the copy, the JSON is there
        return None


def write_copy(path: Path, content: bytes, parsed: Parsed) -> None:
    """Write the copy of a large cache that was parsed; without one where that cannot be done, as in a read-only folder.

    Args:
        path: Of the JSON.
        content: Of the JSON.
        parsed: What parsing it gave.
    """
    if len(content) < MIN_BYTES:
        return
    with suppress(OSError), replace_atomically(path.with_name(COPY_NAME)) as temporary, temporary.open("wb") as file:
        np.savez(file, source=np.frombuffer(_source(content), np.uint8), **_pack(parsed))


def _source(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + _program()


@cache
def _program() -> bytes:
    """Return the digest of the code that turns a JSON into columns: what it once made of a file must not outlive it."""
    modules = (cache_episodes, cache_forms, cache_steps, tables)
    parts = [Path(module.__file__).read_bytes() for module in modules]
    return hashlib.sha256(b"".join([*parts, Path(__file__).read_bytes()])).digest()


def _pack(parsed: Parsed) -> dict[str, np.ndarray]:
    header, metrics, episodes, routing, layouts_only = parsed
    texts: dict[str, Any] = {"header": header, "metrics": metrics, "layouts_only": layouts_only}
    levels = {"mission": episodes.mission, "env_context": episodes.env_context}
    texts["layers"] = None
    arrays = {f"episodes.{name}": getattr(episodes, name) for name in EPISODE_COLUMNS}
    if routing is not None:
        texts |= {name: list(getattr(routing, name)) for name in _NAMES} | {"layers": len(routing.weights)}
        arrays |= {f"steps.{name}": getattr(routing, name) for name in STEP_COLUMNS}
        arrays |= {f"weights.{layer}": column for layer, column in enumerate(routing.weights)}
    parts = {"texts": texts, "levels": levels}
    return arrays | {name: np.frombuffer(json.dumps(part).encode(), np.uint8) for name, part in parts.items()}


def _unpack(arrays: dict[str, np.ndarray]) -> Parsed:
    texts, content = json.loads(arrays["texts"].tobytes()), arrays["levels"].tobytes()
    try:
        levels = orjson.loads(content)  # in half the time; it reads neither NaN nor a path that is no UTF-8
    except orjson.JSONDecodeError:
        levels = json.loads(content)
    columns = {name: arrays[f"episodes.{name}"] for name in EPISODE_COLUMNS}
    episodes = EpisodeTable(**columns, mission=tuple(levels["mission"]), env_context=tuple(levels["env_context"]))
    routing = None
    if texts["layers"] is not None:
        routing = RoutingTable(
            **{name: arrays[f"steps.{name}"] for name in STEP_COLUMNS},
            weights=tuple(arrays[f"weights.{layer}"] for layer in range(texts["layers"])),
            expert_hidden_sizes=texts["expert_hidden_sizes"],
            subgoal_names=tuple(texts["subgoal_names"]),
            event_names=tuple(texts["event_names"]),
            object_names=tuple(texts["object_names"]),
            unknown=frozenset(texts["unknown"]),
        )
        if routing.episode.max(initial=-1) >= len(episodes):
            raise ValueError(f"episode: expected less than {len(episodes)}, found {routing.episode.max()}")
    return check_header(texts["header"]), texts["metrics"], episodes, routing, texts["layouts_only"]
