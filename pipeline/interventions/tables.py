"""Interventions as arrays, indexed by a row's condition: what each does to a layer of policies of one architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from babyai.facts import SUBGOAL_NAMES
from pipeline.command.errors import ConfigError
from pipeline.interventions.donors import NUM_GROUPS, Donors
from pipeline.interventions.places import Where
from pipeline.interventions.spec import ON_EXPERTS, ON_WEIGHTS, Intervention
from pipeline.interventions.targets import OF_DONORS, pair_vectors


@dataclass(frozen=True)
class LayerTables:
    """What C conditions do to one layer of E experts whose cell has U units.

    Attributes:
        kinds: Those of `WHATS` that any condition does here, and "renormalise" for zero with it.
        does: Per kind bool (C,), which conditions do it here.
        chosen: bool (C, E), the experts meant.
        amount: (C,) tau or temperature.
        penalty: (C, E) lambda times cost.
        target: (P, C, groups, E), what weights are clamped to; NaN where they are left alone.
        zeroed: Per cell bool (C, units), states set to zero before the step.
        frozen: Per cell bool (C, units), states kept as before the step.
    """

    kinds: tuple[str, ...]
    does: dict[str, Tensor]
    chosen: Tensor
    amount: Tensor
    penalty: Tensor
    target: Tensor | None
    zeroed: tuple[Tensor, ...]
    frozen: tuple[Tensor, ...]


def build_tables(
    interventions: Sequence[Intervention],
    sizes: Sequence[Sequence[int]],
    cells: Sequence[Sequence[int]],
    donors: Donors | None,
    policies: int,
    like: Tensor,
) -> list[LayerTables]:
    """Return the tables of each layer.

    Args:
        interventions: The conditions.
        sizes: Expert sizes per layer; empty for a policy without routers.
        cells: Units of each layer's cells: router and experts, or the baseline's GRU.
        donors: What means and stand-ins are taken from.
        policies: P.
        like: Gives type and device of numbers.

    Raises:
        ConfigError: If an intervention does not fit the architecture, or needs donors that are not there.
        ValueError: If donors are of another number of policies.
    """
    if donors is not None and len(donors.mission_vectors) != policies:
        raise ValueError(f"donors: expected those of {policies} policies, found {len(donors.mission_vectors)}")
    for intervention in interventions:
        _check(intervention, sizes, donors)
    if not sizes:
        return [_build_baseline(interventions, cells[0], like)]
    pieces = _Pieces(interventions, sizes, cells, donors, policies, like)
    return [pieces.build(layer) for layer in range(len(sizes))]


def _check(item: Intervention, sizes: Sequence[Sequence[int]], donors: Donors | None) -> None:
    if not sizes and (item.what not in ("none", "swap_mission", "project") or item.where != Where()):
        raise ConfigError(
            f"{item.name}: expected a policy with routers and experts, found one without; it can have what none, "
            "swap_mission or project, where all"
        )
    if item.needs_donors and donors is None:
        raise ConfigError(f"{item.name}: expected steps of donors, found none; give donors=find_donors(...)")
    if item.to == "other" and donors.lent is None:
        raise ConfigError(f"{item.name}: expected weights lent by other policies, found none; give donors.lend(...)")
    if item.to == "shuffled" and len(np.unique(donors.groups)) < 2:
        raise ConfigError(f"{item.name}: expected donors with two subgoals or more, found one")
    if item.what == "project" and item.subspace not in donors.subspaces:
        known = ", ".join(donors.subspaces) or "none"
        raise ConfigError(f"{item.name}: expected a subspace that donors hold ({known}), found {item.subspace}")
    if item.what == "swap_mission" and len(donors.missions) < 2:
        raise ConfigError(f"{item.name}: expected donors with two missions or more, found {list(donors.missions)}")


def _build_baseline(interventions: Sequence[Intervention], cells: Sequence[int], like: Tensor) -> LayerTables:
    def flags(state: str) -> tuple[Tensor, ...]:
        rows = torch.tensor([item.state == state for item in interventions], device=like.device)
        return tuple(rows[:, None].expand(-1, units) for units in cells)

    nothing = like.new_zeros(len(interventions), 0)
    return LayerTables((), {}, nothing.bool(), nothing, nothing, None, flags("zero"), flags("freeze"))


class _Pieces:
    """What the tables of all layers are built from."""

    def __init__(
        self,
        interventions: Sequence[Intervention],
        sizes: Sequence[Sequence[int]],
        cells: Sequence[Sequence[int]],
        donors: Donors | None,
        policies: int,
        like: Tensor,
    ) -> None:
        self._items, self._sizes, self._cells, self._like = list(interventions), sizes, cells, like
        self._policies, self._donors = policies, donors
        self._layers = [item.where.find_layers(sizes) for item in interventions]
        self._experts = [item.where.find_experts(sizes) for item in interventions]

    def _flag(self, values: Iterable[Any]) -> Tensor:
        return torch.tensor(list(values), device=self._like.device)

    def build(self, layer: int) -> LayerTables:
        """Return the tables of a layer."""
        items, sizes = self._items, self._sizes[layer]
        chosen = self._flag(experts[layer] for experts in self._experts)
        in_layer = self._flag(layers[layer] for layers in self._layers)
        again = self._flag(bool(item.renormalise) for item in items)
        does = {kind: in_layer & self._flag(item.what == kind for item in items) for kind in ON_WEIGHTS}
        does |= {kind: chosen.any(dim=1) & self._flag(item.what == kind for item in items) for kind in ON_EXPERTS}
        does["renormalise"], does["zero"] = does["zero"] & again, does["zero"] & ~again
        kinds = tuple(kind for kind, rows in does.items() if bool(rows.any()))
        numbered = ("threshold", "random_drop", "temperature")
        amount = [item.amount if item.what in numbered else 1.0 for item in items]
        penalty = [[item.amount * cost(size, item) if item.what == "dial" else 0.0 for size in sizes] for item in items]
        return LayerTables(
            kinds,
            {**does, "again": again},
            chosen,
            self._like.new_tensor(amount),
            self._like.new_tensor(penalty),
            self._find_targets(layer),
            self._find_units(layer, "zero", chosen, in_layer),
            self._find_units(layer, "freeze", chosen, in_layer),
        )

    def _find_units(self, layer: int, state: str, chosen: Tensor, in_layer: Tensor) -> tuple[Tensor, ...]:
        """Return whose state is zeroed or frozen, bool (C, units) per cell."""
        wanted = self._flag(item.state == state for item in self._items)
        router = wanted & in_layer & self._flag(map(_moves_router, self._items))
        found = [router[:, None].expand(-1, self._cells[layer][0])]
        if len(self._cells[layer]) > 1:
            experts = wanted & self._flag(item.what not in ON_WEIGHTS for item in self._items)
            repeats = torch.tensor(self._sizes[layer], device=chosen.device)
            found.append((chosen & experts[:, None]).repeat_interleave(repeats, dim=1))
        return tuple(found)

    def _find_targets(self, layer: int) -> Tensor | None:
        """Return what weights are clamped to, (P, C, groups, E), NaN where they are left alone; None: all are."""
        if not any(
            item.what == "clamp" and layers[layer] for item, layers in zip(self._items, self._layers, strict=True)
        ):
            return None
        targets = [
            self._find_target(item, layer, self._experts[row][layer])
            if item.what == "clamp" and self._layers[row][layer]
            else np.full((self._policies, NUM_GROUPS, len(self._sizes[layer])), np.nan)
            for row, item in enumerate(self._items)
        ]
        return torch.from_numpy(np.stack(targets, axis=1)).to(self._like)

    def _find_target(self, item: Intervention, layer: int, experts: list[bool]) -> np.ndarray:
        """Return what an intervention clamps a layer's weights to, (P, groups, E)."""
        width = len(experts)
        shape = (self._policies, NUM_GROUPS, width)
        if item.to == "uniform":
            return np.full(shape, 1 / width)
        if item.to == "one_hot":
            return np.broadcast_to(np.array(experts, float), shape)
        if item.to in OF_DONORS:
            means = (self._donors.lent if item.to == "other" else self._donors.mean_weights)[layer].cpu().numpy()
            if item.to == "mean":
                return np.broadcast_to(means[:, -1:], shape)
            return means[:, self._donors.exchange(item.seed)] if item.to == "shuffled" else means[:, :-1]
        found = np.full(shape, np.nan)
        for group, vectors in pair_vectors(item.to):
            if len(vectors) != len(self._sizes):
                expected = f"weights of {len(self._sizes)} layers (null for one left alone)"
                raise ConfigError(f"{item.name}: to: expected {expected}, found those of {len(vectors)}")
            if vectors[layer] is None:
                continue
            if len(vectors[layer]) != width:
                expected = f"{width} weights for layer {layer}, one for each expert"
                raise ConfigError(f"{item.name}: to: expected {expected}, found {len(vectors[layer])}")
            found[:, slice(None) if group is None else SUBGOAL_NAMES.index(group)] = vectors[layer]
        return found


def cost(size: int, item: Intervention) -> float:
    """Return what an expert costs, size^exponent."""
    return float(size) ** item.exponent if size else 0.0


def _moves_router(item: Intervention) -> bool:
    """Return whether the state of the routers is meant, see `spec`."""
    if item.what in ON_WEIGHTS:
        return True
    return item.what == "none" and item.where.experts is None and item.where.size is None
