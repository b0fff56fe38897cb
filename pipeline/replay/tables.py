"""What replay found, as the tables that analyses read: steps and episodes of a run, effects of interventions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from babyai.facts import EVENT_NAMES, OBJECT_NAMES, SUBGOAL_NAMES
from pipeline.interventions.catalogue import describe_conditions
from pipeline.interventions.numbers import compute_cross_entropy
from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.records.effects import EffectTable, build_effects
from pipeline.records.tables import EpisodeTable, RoutingTable
from pipeline.replay.run import Effects, Intact
from pipeline.replay.trajectories import Trajectories

PHASES = ("no lock", "no lock, carrying", "locked", "locked, carrying", "unlocked", "unlocked, carrying")
"""Phases of a level: whether a door was locked at its start, is unlocked by now, and whether anything is carried."""

_FIRST_EVENTS = {"t_pick": "picked", "t_unlocked": "unlocked", "t_drop": "dropped"}


def build_tables(intact: Intact, policy: int) -> tuple[EpisodeTable, RoutingTable]:
    """Return the episodes and steps of one policy on replay, as `pipeline.records.cache.write_cache` takes them.

    `action` is what the policy would do, `expert_action` the bot's, which is what was done; facts and outcomes are
    those of the bot's trajectories, `labelled` counts all steps, `agreed` those with equal actions.
    """
    way = intact.way
    action = intact.logits[policy].argmax(dim=-1).numpy()
    weights = [layer[policy].numpy() for layer in intact.weights]
    lpc = intact.lpc[policy].numpy()
    spread = [torch.special.entr(layer[policy].double()).sum(dim=-1) for layer in intact.weights]
    entropy = torch.stack(spread).mean(dim=0).float().numpy() if spread else np.full(len(way), np.nan, np.float32)
    values = {
        **{name: way.steps[name] for name in STEP_COLUMNS.keys() & way.steps.keys()},
        "episode": way.episode,
        "t_step": way.t_step,
        "action": action,
        "action_logits": intact.logits[policy].numpy(),
        "lpc": lpc,
        "entropy": entropy,
    }
    routing = RoutingTable(
        **{name: values[name].astype(column.dtype) for name, column in STEP_COLUMNS.items()},
        weights=tuple(weights),
        expert_hidden_sizes=[list(layer) for layer in intact.sizes],
        subgoal_names=SUBGOAL_NAMES,
        event_names=EVENT_NAMES,
        object_names=OBJECT_NAMES,
        lpc_exponent=intact.lpc_exponent,
    )
    observed = {
        "level_seed": way.level_seeds,
        "mission": [way.missions[number] for number in way.mission],
        "outcome": way.outcomes,
        "steps": np.diff(way.begins),
        "expert_steps": way.expert_steps,
        "mean_lpc": average(lpc, way),
        "labelled": np.diff(way.begins),
        "agreed": np.add.reduceat(routing.action == routing.expert_action, way.begins[:-1], dtype=np.int64),
        **{name: _find_first(way, EVENT_NAMES.index(event)) for name, event in _FIRST_EVENTS.items()},
    }
    columns = {name: EPISODE_COLUMNS[name].build(values) for name, values in observed.items()}
    return EpisodeTable(**columns, env_context=way.contexts), routing


def average(values: np.ndarray, way: Trajectories) -> np.ndarray:
    """Return means over episodes, float64 (..., N), of values (..., S)."""
    return np.add.reduceat(values, way.begins[:-1], axis=-1, dtype=np.float64) / np.diff(way.begins)


def _find_first(way: Trajectories, event: int) -> np.ndarray:
    """Return the t_step of each episode's first event of a kind, -1 where there is none, int64 (N,)."""
    first = np.full(len(way.level_seeds), -1)
    rows = np.flatnonzero(way.steps["event"] == event)[::-1]  # backwards: the first is written last
    first[way.episode[rows]] = way.t_step[rows]
    return first


def hash_observations(way: Trajectories) -> np.ndarray:
    """Return a number for what each step shows, observation and mission together, int64 (S,); equal for equal ones."""
    steps = way.steps
    parts = [steps["view"].reshape(len(way), -1), steps["direction"][:, None], steps["carrying"][:, None]]
    shown = np.concatenate(parts, axis=1).astype(np.uint8)
    missions = [way.missions[number].encode() for number in way.mission]
    digests = (
        hashlib.blake2b(row.tobytes() + missions[episode], digest_size=8).digest()
        for row, episode in zip(shown, way.episode, strict=True)
    )
    return np.frombuffer(b"".join(digests), "<i8")


def build_effect_table(
    intact: Intact, effects: Effects, runs: Sequence[Mapping[str, Any]], *, by: Literal["subgoal", "phase"] = "subgoal"
) -> EffectTable:
    """Return means of effects over each episode, and over its steps of each group.

    Args:
        intact: What `effects` were found from.
        effects: From `intervene`.
        runs: What is to be told of each policy, plain.
        by: Groups: the bot's subgoals, or `PHASES`.

    Raises:
        ValueError: If runs are not as many as policies.
    """
    way = intact.way
    policies, conditions = effects.ce.shape[:2]
    if len(runs) != policies:
        raise ValueError(f"runs: expected {policies}, as many as policies, found {len(runs)}")
    bots = torch.from_numpy(way.steps["expert_action"])
    before = {
        "ce": compute_cross_entropy(intact.logits, bots).float(),
        "agreement": (intact.logits.argmax(dim=-1) == bots).float(),
        "lpc": intact.lpc,
    }
    values = {"ce": effects.ce, "kl": effects.kl, "agreement": effects.agree.float(), "lpc": effects.lpc}
    values |= {f"{name}_intact": value[:, None].expand(-1, conditions, -1) for name, value in before.items()}
    # Bins: the episodes, then the episodes' groups that occur
    names, codes = _find_groups(way, by)
    groups, episodes = len(names), len(way.level_seeds)
    bins = np.where(codes < 0, -1, way.episode * groups + codes)
    present, place = np.unique(bins, return_inverse=True)
    kept = present >= 0
    counts = np.bincount(place, minlength=len(present))[kept]
    level = np.concatenate([np.arange(episodes), present[kept] // groups])
    group = np.concatenate([np.full(episodes, -1), present[kept] % groups])
    length = np.concatenate([np.diff(way.begins), counts])
    order = np.argsort(place, kind="stable")
    begins = np.searchsorted(place[order], np.arange(len(present)))

    def average_all(value: torch.Tensor) -> np.ndarray:
        array = value.numpy()
        sums = np.add.reduceat(array[..., order], begins, axis=-1, dtype=np.float64)[..., kept]
        return np.concatenate([average(array, way), sums / counts], axis=-1).reshape(-1)

    shape = (policies, conditions, len(level))
    columns = {name: average_all(value) for name, value in values.items()}
    columns |= {
        "run": np.broadcast_to(np.arange(policies)[:, None, None], shape).reshape(-1),
        "condition": np.broadcast_to(np.arange(conditions)[:, None], shape).reshape(-1),
        "level_seed": np.broadcast_to(way.level_seeds[level], shape).reshape(-1),
        "group": np.broadcast_to(group, shape).reshape(-1),
        "steps": np.broadcast_to(length, shape).reshape(-1),
    }
    header = {
        "source": "R",
        "mode": "one_step" if effects.one_step else "persistent",
        "task": way.task_id,
        "conditions": describe_conditions(effects.interventions, intact.sizes),
        "runs": [dict(run) for run in runs],
        "groups": list(names),
        "unsolvable_levels": len(way.unsolvable),
        "unlabelled_episodes": way.unlabelled_episodes,
    }
    return build_effects(columns, header)


def _find_groups(way: Trajectories, by: str) -> tuple[Sequence[str], np.ndarray]:
    """Return names of groups, and of each step the number of its group, int64 (S,), -1 for none."""
    if by == "phase":
        return PHASES, 2 * (way.steps["door_unlocked"].astype(np.int64) + 1) + way.steps["carrying"]
    return SUBGOAL_NAMES, way.steps["subgoal"].astype(np.int64)
