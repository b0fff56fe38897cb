"""What interventions did on the policies' own way, as the table that analyses read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from babyai.facts import SUBGOAL_NAMES, SUCCESS
from pipeline.command.errors import ConfigError
from pipeline.evaluation.grid import Intervened
from pipeline.interventions.catalogue import describe_conditions
from pipeline.records.effects import EffectTable, build_effects


def tabulate(played: Sequence[Sequence[Intervened]], runs: Sequence[dict[str, Any]], task_id: str = "") -> EffectTable:
    """Return what interventions did to each run at each level, beside the intact policy, which is the sham's.

    Args:
        played: From `evaluate_grid`, with the sham among the interventions.
        runs: What is to be told of each agent, plain.
        task_id: For the header.

    Raises:
        ConfigError: If the sham was not played.
        ValueError: If runs are not as many as agents.
    """
    if len(runs) != len(played):
        raise ValueError(f"runs: expected {len(played)}, as many as agents, found {len(runs)}")
    interventions = [one.intervention for one in played[0]]
    shams = [number for number, item in enumerate(interventions) if item.is_sham]
    if not shams:
        raise ConfigError("interventions: expected the sham (what: none) among them, to compare with; found none")
    parts: dict[str, list[np.ndarray]] = {}
    for run, conditions in enumerate(played):
        intact = _columns_of(conditions[shams[0]])
        for number, one in enumerate(conditions):
            mine = _columns_of(one)
            level = one.episodes.level_seed
            row = {"run": np.full(len(level), run), "condition": np.full(len(level), number), "level_seed": level}
            row |= {"steps": one.episodes.labelled, **mine}
            row |= {f"{name}_intact": value for name, value in intact.items()}
            for name, value in row.items():
                parts.setdefault(name, []).append(value)
    header = {
        "source": "P",
        "mode": "closed_loop",
        "task": task_id,
        "conditions": describe_conditions(interventions, played[0][0].sizes),
        "runs": [dict(run) for run in runs],
        "groups": list(SUBGOAL_NAMES),
        "unsolvable_levels": played[0][0].metrics["bot_plan_failures"],
        "unlabelled_episodes": 0,
    }
    return build_effects({name: np.concatenate(values) for name, values in parts.items()}, header)


def _columns_of(one: Intervened) -> dict[str, np.ndarray]:
    episodes = one.episodes
    with np.errstate(invalid="ignore"):
        agreement = episodes.agreed / np.where(episodes.labelled > 0, episodes.labelled, np.nan)
    return {
        "length": episodes.steps,
        "success": episodes.outcome == SUCCESS,
        "agreement": agreement,
        "ce": one.ce,
        "lpc": episodes.mean_lpc,
    }
