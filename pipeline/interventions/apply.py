"""P policies acting side by side, each row with an intervention of its own.

    batch = IntervenedBatch(policies, interventions, donors)
    hidden = batch.init_hidden(rows)
    logits, weights, hidden = batch.act(inputs, hidden, start, situation)      # situation.condition: (P, rows)

A row is one environment, or one step of an episode, of one policy; weights of policies are shared by their rows. What a
row computes does not depend on the others: changes are chosen by `torch.where`, which leaves the bits of all other rows
alone. The pieces of a layer are those of `pipeline.engine.packed_policy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engine.packed import pack_replicas
from pipeline.engine.packed_policy import Mixture
from pipeline.engine.recurrence import Tape
from pipeline.interventions.donors import NUM_GROUPS, Donors
from pipeline.interventions.draws import draw_directions, draw_uniform, mix_keys
from pipeline.interventions.situation import Gates, Situation
from pipeline.interventions.spec import Intervention
from pipeline.interventions.tables import LayerTables, build_tables

Hidden = list[list[Tensor]]
"""Per layer and cell (P, M, units)."""


class _Rows(NamedTuple):
    """What a step's changes are looked up by."""

    condition: Tensor  # int64 (P, M)
    open: Tensor  # bool (P, M), the intervention acts here
    group: Tensor  # int64 (P, M), the bot's subgoal, NUM_GROUPS - 1 for none
    keys: np.ndarray  # uint64 (P, M), of what is drawn at this step, if anything is


class IntervenedBatch:
    """Policies of one architecture with interventions, acting without learning.

    Args:
        policies: P policies; computed in the type of their weights, float64 for numbers that do not show how many rows
            there are.
        interventions: What `Situation.condition` numbers.
        donors: Steps that some interventions need, of the same policies.

    Raises:
        ConfigError: If an intervention does not fit the architecture, or needs donors that are not there.
    """

    @torch.no_grad()
    def __init__(
        self, policies: Sequence[nn.Module], interventions: Sequence[Intervention], donors: Donors | None = None
    ) -> None:
        self._policies, self._interventions, self._donors = list(policies), list(interventions), donors
        self.sizes: list[list[int]] = getattr(policies[0], "layer_expert_sizes", [])
        self._packed = pack_replicas(self._policies)
        like = self._packed.head.weight
        cells = [layer.sizes for layer in self._packed.layers]
        self._tables = build_tables(self._interventions, self.sizes, cells, donors, len(policies), like)
        self._gates = Gates(self._interventions)
        self._keys = np.array([int(item.digest[:16], 16) for item in self._interventions], np.uint64)
        self._draws = any(item.what in ("resample", "random_direction", "random_drop") for item in interventions)
        self._swaps = np.array([item.what == "swap_mission" for item in self._interventions])
        self._by_subgoal = torch.tensor([item.by == "subgoal" for item in self._interventions], device=like.device)
        self._projects = np.array([item.what == "project" for item in self._interventions])
        self._tapes: dict[int, list[list[Tape]]] = {}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._packed.head.weight.device

    def init_hidden(self, rows: int) -> Hidden:
        """Return zeros."""
        return self._packed.split_hidden(self._packed.init_hidden(rows))

    def select(self, rows: Sequence[int]) -> IntervenedBatch:
        """Return it with some of the policies only."""
        donors = None if self._donors is None else self._donors.select(rows)
        return IntervenedBatch([self._policies[row] for row in rows], self._interventions, donors)

    @torch.no_grad()
    def act(self, inputs: Tensor, hidden: Hidden, start: Tensor, now: Situation) -> tuple[Tensor, list[Tensor], Hidden]:
        """Take a step; return logits (P, M, actions), weights per layer (P, M, E), and the new state.

        Weights are those by which the experts' outputs are multiplied: what replaces an output leaves them alone.

        Args:
            inputs: (P, M, obs_dim + lang_dim).
            hidden: State before the step; it may be overwritten by the next call.
            start: (P, M) bool; the state is zeroed before such a step.
            now: What decides of the rows.
        """
        packed, rows = self._packed, self._find_rows(now)
        tapes = self._find_tapes(inputs.shape[1])
        inputs = self._swap_missions(inputs, rows, now)
        hidden = self._project(hidden, rows, now)
        x = inputs if packed.projection is None else packed.projection(inputs)
        weights, after = [], []
        for index, (layer, tables) in enumerate(zip(packed.layers, self._tables, strict=True)):
            parts = zip(hidden[index], tables.zeroed, strict=True)
            before = [_replace(state, flags, state.new_zeros(()), rows) for state, flags in parts]
            states = layer.step(layer.gates(x), before, start.unsqueeze(-1), tapes[index], 0)
            kept = [tape.steps[0].before for tape in tapes[index]]
            parts = zip(states, tables.frozen, kept, strict=True)
            after.append([_replace(state, flags, old, rows) for state, flags, old in parts])
            if layer.mixture is None:
                x = states[0]
                continue
            chosen = self._weigh(index, layer.mixture.route(states[0]), rows)
            x = layer.mixture.close(x, self._mix(index, layer.mixture, x, states, chosen, rows))
            weights.append(chosen)
        return packed.head(x), weights, after

    def read_experts(self, inputs: Tensor, hidden: Hidden, start: Tensor) -> tuple[list[Tensor], list[Tensor], Hidden]:
        """Take a step without interventions; return outputs (P, M, E, D) and weights per layer, and the new state."""
        packed = self._packed
        tapes = self._find_tapes(inputs.shape[1])
        x = packed.projection(inputs)
        outputs, weights, after = [], [], []
        for index, layer in enumerate(packed.layers):
            states = layer.step(layer.gates(x), hidden[index], start.unsqueeze(-1), tapes[index], 0)
            mixture = layer.mixture
            experts = mixture.read(states)
            probs = mixture.route(states[0]).softmax(dim=-1)
            alone = torch.eye(probs.shape[-1], dtype=probs.dtype, device=probs.device)
            parts = [mixture.mix(x, experts, one.expand_as(probs).contiguous()) for one in alone]
            outputs.append(torch.stack(parts, dim=2))
            weights.append(probs)
            after.append(states)
            x = mixture.close(x, mixture.mix(x, experts, probs))
        return outputs, weights, after

    def branch(self, inputs: Tensor, hidden: Hidden, start: Tensor) -> Iterator[Tensor]:
        """Take a step along every path of one expert a layer, without interventions; yield logits (P, M, actions).

        Paths are in the order of `itertools.product`, the last layer's expert changing fastest. Those that begin alike
        share what they have in common: 13 layers are computed for the 27 paths of three layers of three.

        Args:
            inputs: (P, M, obs_dim + lang_dim).
            hidden: State before the step, of a policy with routers.
            start: (P, M) bool; the state is zeroed before such a step.
        """
        packed, tapes = self._packed, self._find_tapes(inputs.shape[1])

        def follow(index: int, x: Tensor) -> Iterator[Tensor]:
            if index == len(packed.layers):
                yield packed.head(x)
                return
            layer = packed.layers[index]
            mixture = layer.mixture
            states = layer.step(layer.gates(x), hidden[index], start.unsqueeze(-1), tapes[index], 0)
            experts = mixture.read(states)  # no part of the tapes, which the next branch overwrites
            count = len(self.sizes[index])
            for alone in torch.eye(count, dtype=x.dtype, device=x.device):
                weights = alone.expand(*x.shape[:2], -1).contiguous()
                yield from follow(index + 1, mixture.close(x, mixture.mix(x, experts, weights)))

        with torch.no_grad():
            yield from follow(0, packed.projection(inputs))

    def _find_tapes(self, rows: int) -> list[list[Tape]]:
        """Return where a step of so many rows is computed; the next one of as many overwrites it."""
        if rows not in self._tapes:
            self._tapes[rows] = self._packed.tapes(1, rows)
        return self._tapes[rows]

    def _find_rows(self, now: Situation) -> _Rows:
        keys = mix_keys(self._keys[now.condition], now.level_seed, now.t_step) if self._draws else self._keys
        group = np.where(now.subgoal < 0, NUM_GROUPS - 1, now.subgoal)
        arrays = (torch.tensor(a, device=self.device) for a in (now.condition, self._gates.find_open(now), group))
        return _Rows(*arrays, keys)

    def _swap_missions(self, inputs: Tensor, rows: _Rows, now: Situation) -> Tensor:
        if not self._swaps[now.condition].any():
            return inputs
        vectors = self._donors.mission_vectors  # (P, K, lang_dim)
        known = now.mission >= 0
        others = vectors.shape[1] - known
        uniform = draw_uniform(mix_keys(self._keys[now.condition], now.level_seed), 1)[..., 0]
        place = (uniform * others).astype(np.int64)
        place += known & (place >= now.mission)
        replicas = torch.arange(len(vectors), device=self.device)[:, None]
        drawn = vectors[replicas, torch.from_numpy(place).to(self.device)]
        swapped = torch.cat([inputs[..., : -vectors.shape[-1]], drawn.to(inputs.dtype)], dim=-1)
        does = torch.from_numpy(self._swaps[now.condition]).to(self.device) & rows.open
        return torch.where(does.unsqueeze(-1), swapped, inputs)

    def _project(self, hidden: Hidden, rows: _Rows, now: Situation) -> Hidden:
        """Return the state before the step, without the part that projections remove."""
        if not self._projects[now.condition].any():
            return hidden
        widths = [cell.shape[-1] for cells in hidden for cell in cells]
        whole = torch.cat([cell for cells in hidden for cell in cells], dim=-1)
        for condition in np.unique(now.condition[self._projects[now.condition]]):
            removed = self._donors.subspaces[self._interventions[condition].subspace].remove(whole)
            whole = torch.where(((rows.condition == int(condition)) & rows.open).unsqueeze(-1), removed, whole)
        parts = iter(whole.split(widths, dim=-1))
        return [[next(parts) for _ in cells] for cells in hidden]

    def _weigh(self, index: int, logits: Tensor, rows: _Rows) -> Tensor:
        """Return a layer's weights (P, M, E), changed where an intervention says so."""
        tables, weights = self._tables[index], logits.softmax(dim=-1)
        for kind, change in _WEIGHINGS.items():
            if kind in tables.kinds and bool((does := tables.does[kind][rows.condition] & rows.open).any()):
                weights = torch.where(does.unsqueeze(-1), change(tables, logits, weights, rows, index), weights)
        return weights

    def _mix(
        self, index: int, mixture: Mixture, x: Tensor, states: Sequence[Tensor], weights: Tensor, rows: _Rows
    ) -> Tensor:
        """Return a layer's mixture (P, M, D), outputs of experts replaced where an intervention says so."""
        tables, experts = self._tables[index], mixture.read(states)
        does = {
            kind: found
            for kind in ("zero", "mean", "resample", "skip", "random_direction")
            if kind in tables.kinds and bool((found := tables.does[kind][rows.condition] & rows.open).any())
        }
        if not does:
            return mixture.mix(x, experts, weights)
        chosen = weights * tables.chosen[rows.condition]  # (P, M, E) of the experts meant
        replaced = [found for kind, found in does.items() if kind != "random_direction"]
        kept = weights
        if replaced:
            kept = torch.where(torch.stack(replaced).any(dim=0).unsqueeze(-1), weights - chosen, weights)
        mixed = mixture.mix(x, experts, kept)
        if "skip" in does:
            passed = torch.addcmul(mixed, x, chosen.sum(dim=-1, keepdim=True))
            mixed = torch.where(does["skip"].unsqueeze(-1), passed, mixed)
        for kind in ("mean", "resample"):
            if kind in does:
                mixed = self._stand_in(index, kind, mixed, chosen, does[kind], rows)
        if "random_direction" in does:
            at = does["random_direction"].nonzero(as_tuple=True)
            norm = mixture.mix(x, experts, chosen)[at].norm(dim=-1, keepdim=True)
            keys = mix_keys(rows.keys[tuple(part.cpu().numpy() for part in at)], index)
            unit = torch.from_numpy(draw_directions(keys, mixed.shape[-1])).to(mixed)
            mixed = mixed.index_put(at, mixed[at] - norm * unit)
        return mixed

    def _stand_in(self, index: int, kind: str, mixed: Tensor, chosen: Tensor, does: Tensor, rows: _Rows) -> Tensor:
        """Add donors' outputs in place of those left out, to the rows that have them."""
        at = does.nonzero(as_tuple=True)
        group = rows.group[at]
        if kind == "mean":
            group = torch.where(self._by_subgoal[rows.condition[at]], group, NUM_GROUPS)
            outputs = self._donors.mean_outputs[index][at[0], group]  # (rows, E, D)
        else:
            order, begins, counts = self._donors.by_group
            uniform = draw_uniform(rows.keys[tuple(part.cpu().numpy() for part in at)], 1)[:, 0]
            groups = group.cpu().numpy()
            step = order[begins[groups] + (uniform * counts[groups]).astype(np.int64)]
            outputs = self._donors.outputs[index][at[0], torch.from_numpy(step).to(self.device)]
        added = (chosen[at].unsqueeze(-1) * outputs.to(mixed.dtype)).sum(dim=1)
        return mixed.index_put(at, mixed[at] + added)


def _replace(state: Tensor, flags: Tensor, other: Tensor, rows: _Rows) -> Tensor:
    """Return a cell's state (P, M, units) with other values at the units that flags (C, units) mean."""
    if not bool(flags.any()):
        return state
    return torch.where(flags[rows.condition] & rows.open.unsqueeze(-1), other, state)


def _renormalise(weights: Tensor) -> Tensor:
    total = weights.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, weights / total, weights)


def _drop_experts(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    return _renormalise(weights.masked_fill(tables.chosen[rows.condition], 0.0))


def _find_small(tables: LayerTables, weights: Tensor, rows: _Rows) -> Tensor:
    largest = weights.max(dim=-1, keepdim=True).values
    return (weights < tables.amount[rows.condition].unsqueeze(-1)) & (weights < largest)


def _cut(weights: Tensor, dropped: Tensor, tables: LayerTables, rows: _Rows) -> Tensor:
    left = weights.masked_fill(dropped, 0.0)
    return torch.where(tables.does["again"][rows.condition].unsqueeze(-1), _renormalise(left), left)


def _threshold(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    return _cut(weights, _find_small(tables, weights, rows), tables, rows)


def _drop_at_random(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    number = _find_small(tables, weights, rows).sum(dim=-1, keepdim=True)
    order = torch.from_numpy(draw_uniform(mix_keys(rows.keys, index), weights.shape[-1])).to(weights)
    order = order.scatter(-1, weights.argmax(dim=-1, keepdim=True), 2.0)  # the argmax comes last
    return _cut(weights, order.argsort(dim=-1).argsort(dim=-1) < number, tables, rows)


def _temper(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    return (logits / tables.amount[rows.condition].unsqueeze(-1)).softmax(dim=-1)


def _dial(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    return (logits - tables.penalty[rows.condition]).softmax(dim=-1)


def _clamp(tables: LayerTables, logits: Tensor, weights: Tensor, rows: _Rows, index: int) -> Tensor:
    replicas = torch.arange(len(weights), device=weights.device)[:, None]
    target = tables.target[replicas, rows.condition, rows.group]  # (P, M, E)
    return torch.where(target.isnan(), weights, target)


_WEIGHINGS = {
    "clamp": _clamp,
    "threshold": _threshold,
    "random_drop": _drop_at_random,
    "temperature": _temper,
    "dial": _dial,
    "renormalise": _drop_experts,
}
