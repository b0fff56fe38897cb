"""Caches in every form that code of this family has written, small, and with what happened to some of them since."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.records.steps import iter_records
from tests.tables import build_context, random_tables

TASK = "BabyAI-GoToObj-v0"
SIZES = [[0, 16, 32], [0, 16, 32]]
_OLDEST = ("position", "layer_routing", "lpc")
_LATER = ("carrying", "action_logits")
_LATEST = ("entropy", "door_unlocked", "t_step", "t_pick", "t_unlocked", "t_drop", "action")
_LATEST += ("dist_to_door", "dist_to_key", "dist_to_target")


def _steps(keys: tuple[str, ...], key: str | None = "episode") -> list[dict[str, Any]]:
    """Return the steps of three layouts with these of today's keys, and one that says which layout."""
    routing, episodes = random_tables(5, [6, 5, 4], SIZES)
    steps = [{name: record[name] for name in keys} for record in iter_records(routing, episodes)]
    for step, layout in zip(steps, routing.episode.tolist(), strict=True):
        if "carrying" in step:
            step["carrying"] = int(step["carrying"])
        if key is not None:
            step[key] = _context(layout) if key == "env_context" else layout
    return steps


def _context(layout: int) -> dict[str, Any]:
    known = ("agent_start_pos", "agent_start_room", "doors", "keys", "balls", "boxes", "goals", "target_pos")
    context = {name: value for name, value in build_context(layout).items() if name in known}
    return context | {"agent_start_room": [7 * (layout % 2), 0], "room_bounds": [[0, 0, 8, 8], [7, 0, 8, 8]]}


def _content(steps: list[dict[str, Any]], *, layouts: bool = True, **header: Any) -> dict[str, Any]:
    metrics = {"success_rate": 0.0, "path_ratio": float("nan"), "mean_lpc": 900.0}
    head = {"checkpoint_path": "old.pt", "num_episodes": 20, "evaluated_at": "2026-02-11T10:00:00", "metrics": metrics}
    levels = {"episodes": [_context(layout) for layout in range(3)]} if layouts else {}
    return head | header | levels | {"routing_data": steps}


def _in_turns() -> list[dict[str, Any]]:
    """Return steps as several environments recorded them side by side."""
    by_layout: list[list] = [[], [], []]
    for step in _steps((*_OLDEST, *_LATER, *_LATEST)):
        by_layout[step["episode"]].append(step)
    return [steps[k] for k in range(6) for steps in by_layout if k < len(steps)]


def _latest(**header: Any) -> dict[str, Any]:
    return _content(_in_turns(), **{"expert_hidden_sizes": SIZES} | header)


def _flat() -> dict[str, Any]:
    steps = [step | {"layer_routing": {"layer_0": step["layer_routing"]["layer_0"]}} for step in _in_turns()]
    return _content(steps, expert_hidden_sizes=SIZES[0])


def _not_finite() -> dict[str, Any]:
    content = _latest()
    for step, (name, value) in enumerate({"lpc": float("nan"), "entropy": float("inf")}.items()):
        content["routing_data"][step][name] = value
    content["routing_data"][2]["action_logits"][0] = float("-inf")
    content["routing_data"][3]["layer_routing"]["layer_1"] = [float("nan")] * 3
    return content


FORMS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "steps alone": (lambda: _content(_steps(_OLDEST, None), layouts=False), "{task}/trial_1"),
    "contexts": (lambda: _content(_steps(_OLDEST, "env_context"), layouts=False), "{task}/trial_2"),
    "layouts": (lambda: _content(_steps(_OLDEST)), "{task}/trial_3"),
    "carrying": (lambda: _content(_steps((*_OLDEST, *_LATER))), "{task}/trial_4"),
    "clocks": (lambda: _content(_steps((*_OLDEST, *_LATER, *_LATEST))), "{task}/trial_5/seed_0"),
    "in turns": (_latest, "{task}/trial_5/seed_0/update_600"),
    "flat": (_flat, "{task}/trial_6"),
    "not finite": (_not_finite, "{task}/trial_7"),
    "unknown update": (_latest, "{task}/trial_5/seed_0/update_unknown"),
    "doubled": (_latest, "{task}/{task}/trial_5/seed_0/update_600"),
}
"""What makes the content of each form, and the folder in which it lay."""


def write_form(root: Path, form: str) -> Path:
    """Write a cache of a form under a folder, as older code did, NaN and Infinity included; return its path."""
    build, folder = FORMS[form]
    path = root / folder.format(task=TASK) / "routing_data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(build()), encoding="utf-8")
    return path
