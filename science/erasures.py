"""Policies without what probes read off their states: subspaces that are projected out, and what that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from science.conditions import RANDOM, build_erasures
from science.probing import WIDTH, Target, choose_steps, draw_projection, find_directions, list_targets
from science.states import PLACES, STEPS

if TYPE_CHECKING:
    from pipeline.interventions.donors import Subspace
    from pipeline.records.effects import EffectTable


def erase(
    agents: Sequence[Any], runs: list[dict[str, Any]], way: Any, donating: Any, seed: int, exponent: float
) -> EffectTable:
    """Return what it does to policies that their states no longer tell what a probe reads off them.

    Args:
        agents: Policies.
        runs: What is told of each.
        way: Levels that are scored.
        donating: Levels on which probes are trained; none of them is scored.
        seed: Of projections and random subspaces.
        exponent: An expert costs size^exponent.
    """
    from pipeline.replay.run import find_donors, intervene, replay
    from pipeline.replay.tables import build_effect_table

    targets = list_targets(donating.steps, donating.episode)
    donors = find_donors(agents, donating)
    donors = dataclasses.replace(donors, subspaces=find_subspaces(agents, donating, targets, seed))
    intact = replay(agents, way, lpc_exponent=exponent)
    return build_effect_table(intact, intervene(intact, build_erasures(list(targets)), donors=donors), runs)


def find_subspaces(agents: Sequence[Any], way: Any, targets: Mapping[str, Target], seed: int) -> dict[str, Subspace]:
    """Return by condition the subspaces of each policy's states that probes read, and random ones of equal rank."""
    from pipeline.interventions.donors import Subspace
    from pipeline.replay.run import replay

    later = np.flatnonzero(way.t_step > 0)
    chosen = later[choose_steps(way.episode[later], STEPS, seed)]
    means: list[np.ndarray] = []
    bases: dict[str, list[np.ndarray]] = {}
    for number, agent in enumerate(agents):
        bank = replay([agent], way, bank=True).bank
        cells = [cell[0, chosen].cpu().numpy() for layer in bank for cell in layer]
        place = np.repeat(
            [i for layer in bank for i in range(len(layer))], [cell.shape[1] for cell in cells]
        )  # 0: of a router, 1: of experts
        state = np.concatenate(cells, axis=1)
        means.append(state.mean(axis=0))
        for name, target in targets.items():
            for which, where in enumerate(PLACES):
                label, units = f"{name} of {where}", np.flatnonzero(place == which)
                rng = np.random.default_rng([seed, number, which, list(targets).index(name)])
                read = _read(state[:, units], target.codes[chosen], where, seed)
                centered = state[:, units] - state[:, units].mean(axis=0)
                drawn = [centered.T @ rng.normal(size=(len(centered), read.shape[1])) for _ in range(RANDOM)]
                for text, columns in zip([label, *(f"random {n + 1} for {label}" for n in range(RANDOM))],
                                         [read, *drawn], strict=True):  # fmt: skip
                    basis = np.zeros((state.shape[1], read.shape[1]))
                    basis[units] = _span(columns)
                    bases.setdefault(text, []).append(basis)
    device = next(agents[0][0].parameters()).device
    mean = np.stack(means)
    return {text: Subspace.from_arrays(mean, np.stack(each), device) for text, each in bases.items()}


def _read(state: np.ndarray, codes: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Return the directions (U, C - 1) of a state that a probe of its projection reads."""
    classes = int(codes.max(initial=-1)) + 1
    if not state.shape[1] or len(np.unique(codes[codes >= 0])) < 2:
        return np.zeros((state.shape[1], max(classes - 1, 1)))
    if state.shape[1] <= WIDTH:
        read = find_directions(state, codes)
    else:
        down = draw_projection(state.shape[1], name, seed)
        read = down @ find_directions(state @ down, codes)
    return np.column_stack([read, np.zeros((len(read), max(classes - 1 - read.shape[1], 0)))])


def _span(columns: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span the same; zeros in place of those that add nothing."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept = np.where(sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-12), 1.0, 0.0)
    found = np.zeros_like(columns)
    found[:, : left.shape[1]] = left * kept
    return found
