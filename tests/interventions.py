"""Interventions written plainly: one environment, one step, on the policies' own modules; and what tests draw from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from babyai.facts import EVENT_NAMES, SUBGOAL_NAMES
from pipeline.interventions.donors import Donors, Subspace
from pipeline.interventions.draws import draw_directions, draw_uniform, mix_keys
from pipeline.interventions.spec import Intervention
from stateful_mop import StatefulMoPPolicy

LENDERS = (1, 0)
"""Of two policies the one whose weights each can be given."""

Plain = list[dict[str, Any]]
"""Per layer the states, each (1, size): `router`, and `experts`, a list."""


@dataclass(frozen=True)
class Scene:
    """What one row is at one step."""

    level_seed: int = 0
    t_step: int = 0
    subgoal: int = -1
    carrying: bool = False
    door_unlocked: int = -1
    since: tuple[int, ...] = (10**6,) * len(EVENT_NAMES)
    mission: int = -1


def is_open(item: Intervention, scene: Scene) -> bool:
    when = item.when
    if when.subgoal is not None and (scene.subgoal < 0 or SUBGOAL_NAMES[scene.subgoal] != when.subgoal):
        return False
    if when.carrying is not None and scene.carrying is not when.carrying:
        return False
    if when.door_unlocked is not None and scene.door_unlocked != int(when.door_unlocked):
        return False
    if when.event is not None and scene.since[EVENT_NAMES.index(when.event)] >= when.steps:
        return False
    return when.step is None or scene.t_step == when.step


def start_plain(policy: nn.Module) -> Plain:
    zeros = [layer.init_hidden(1) for layer in policy.moe_layers]
    return [{"router": router[0], "experts": [state[0] for state in experts]} for router, experts in zeros]


def is_meant(item: Intervention, sizes: list[list[int]], layer: int, expert: int) -> bool:
    where = item.where
    if where.routers or (where.layers is not None and layer not in where.layers):
        return False
    if where.experts is not None and (layer, expert) not in where.experts:
        return False
    return where.size is None or sizes[layer][expert] == where.size


def is_layer_meant(item: Intervention, layer: int) -> bool:
    where = item.where
    if where.experts is not None:
        return layer in {place for place, _ in where.experts}
    return where.layers is None or layer in where.layers


def find_mean(values: Tensor, donors: Donors, subgoal: int | None) -> Tensor:
    """Return the mean over donors' episodes of episodes' means of values (S, ...)."""
    rows = [s for s in range(len(donors.episode)) if subgoal is None or donors.subgoal[s] == subgoal]
    if not rows:
        return find_mean(values, donors, None)
    means = []
    for episode in sorted({int(donors.episode[s]) for s in rows}):
        means.append(torch.stack([values[s] for s in rows if donors.episode[s] == episode]).mean(dim=0))
    return torch.stack(means).mean(dim=0)


def reweigh(
    item: Intervention, layer: int, logits: Tensor, sizes: list[int], scene: Scene, key, donors: Donors, p: int
) -> Tensor:
    """Return the changed weights (E,) of one layer for its router's logits (E,)."""
    w = logits.softmax(dim=-1)
    if item.what == "temperature":
        scaled = (w.log() / item.amount).exp()
        return scaled / scaled.sum()
    if item.what == "dial":
        costs = torch.tensor([float(size) ** item.exponent if size else 0.0 for size in sizes], dtype=w.dtype)
        scaled = w.log() - item.amount * costs
        return (scaled - scaled.logsumexp(0)).exp()
    if item.what in ("threshold", "random_drop"):
        best = int(w.argmax())
        small = [e for e in range(len(w)) if float(w[e]) < item.amount and e != best]
        if item.what == "random_drop":
            order = draw_uniform(mix_keys(key, layer), len(w))
            small = sorted((e for e in range(len(w)) if e != best), key=lambda e: order[e])[: len(small)]
        left = torch.stack([w[e] * (e not in small) for e in range(len(w))])
        return left / left.sum() if item.renormalise else left
    target: Any = item.to
    if target == "uniform":
        return torch.full_like(w, 1 / len(w))
    if target == "one_hot":
        expert = dict(item.where.experts)[layer]
        return torch.nn.functional.one_hot(torch.tensor(expert), len(w)).to(w)
    if target in ("mean", "subgoal"):
        return find_mean(donors.weights[layer][p], donors, scene.subgoal if target == "subgoal" else None)
    if target == "other":
        return find_mean(donors.weights[layer][LENDERS[p]], donors, scene.subgoal)
    if target == "shuffled":
        group = int(donors.exchange(item.seed)[_group(scene.subgoal)])
        return find_mean(donors.weights[layer][p], donors, -1 if group == len(SUBGOAL_NAMES) else group)
    if isinstance(target[0], tuple) and isinstance(target[0][0], str):
        named = dict(target)
        if scene.subgoal < 0 or SUBGOAL_NAMES[scene.subgoal] not in named:
            return w
        target = named[SUBGOAL_NAMES[scene.subgoal]]
    return w if target[layer] is None else torch.tensor(target[layer], dtype=w.dtype)


def act_plainly(
    policy: nn.Module,
    item: Intervention,
    obs: Tensor,
    mission: Tensor,
    hidden: Plain,
    scene: Scene,
    donors: Donors | None = None,
    p: int = 0,
) -> tuple[Tensor, list[Tensor], Plain]:
    """Return logits (actions,), weights (E,) per layer and the new state, for obs and mission of width (1, ...)."""
    open_now = is_open(item, scene)
    identity = np.uint64(int(item.digest[:16], 16))
    key = mix_keys(identity, scene.level_seed, scene.t_step)
    if open_now and item.what == "swap_mission":
        others = [k for k in range(len(donors.missions)) if k != scene.mission]
        drawn = draw_uniform(mix_keys(identity, scene.level_seed), 1)[0]
        mission = donors.mission_vectors[p, others[int(drawn * len(others))]][None]
    if open_now and item.what == "project":
        hidden = project_plainly(hidden, donors.subspaces[item.subspace], p)
    x = policy.input_projection(torch.cat([obs, mission], dim=-1))
    found, after = [], []
    for layer, block in enumerate(policy.moe_layers):
        sizes = policy.layer_expert_sizes[layer]
        meant = [open_now and is_meant(item, policy.layer_expert_sizes, layer, e) for e in range(len(sizes))]
        layer_meant = open_now and is_layer_meant(item, layer)
        on_weights = item.what in ("clamp", "threshold", "random_drop", "temperature", "dial")
        alone = item.what == "none" and item.where.experts is None and item.where.size is None
        router_moves = layer_meant and (on_weights or alone)
        expert_moves = [m and not on_weights for m in meant]

        h_router = hidden[layer]["router"]
        before = torch.zeros_like(h_router) if router_moves and item.state == "zero" else h_router
        routed = block.router(x, before[None])
        logits = routed.logits[0]
        weights = logits.softmax(dim=-1)
        if layer_meant and on_weights:
            weights = reweigh(item, layer, logits, sizes, scene, key, donors, p)

        outputs, states = [], []
        for e, expert in enumerate(block.experts):
            h = hidden[layer]["experts"][e]
            h_in = torch.zeros_like(h) if expert_moves[e] and item.state == "zero" else h
            output, h_out = expert(x, h_in[None])
            outputs.append(output[0])
            states.append(h if expert_moves[e] and item.state == "freeze" else h_out[0])
        if any(meant) and item.what == "zero" and item.renormalise:
            left = torch.stack([weights[e] * (not meant[e]) for e in range(len(sizes))])
            weights = left / left.sum() if float(left.sum()) > 0 else left
        removed = sum((weights[e] * outputs[e] for e in range(len(sizes)) if meant[e]), torch.zeros_like(x[0]))
        for e in range(len(sizes)):
            if not meant[e]:
                continue
            if item.what == "zero":
                outputs[e] = torch.zeros_like(x[0])
            elif item.what == "skip":
                outputs[e] = x[0]
            elif item.what == "mean":
                outputs[e] = find_mean(
                    donors.outputs[layer][p][:, e], donors, scene.subgoal if item.by == "subgoal" else None
                )
            elif item.what == "resample":
                rows = [s for s in range(len(donors.subgoal)) if donors.subgoal[s] == scene.subgoal]
                rows = rows or sorted(range(len(donors.subgoal)), key=lambda s: _group(donors.subgoal[s]))
                outputs[e] = donors.outputs[layer][p][rows[int(draw_uniform(key, 1)[0] * len(rows))], e]
        mixed = sum(w * output for w, output in zip(weights, outputs, strict=True))
        if any(meant) and item.what == "random_direction":
            mixed = mixed - removed.norm() * torch.from_numpy(draw_directions(mix_keys(key, layer), x.shape[-1]))
        frozen = router_moves and item.state == "freeze"
        after.append({"router": h_router if frozen else routed.hidden[0], "experts": states})
        found.append(weights)
        x = policy.norms[layer](x + mixed) if isinstance(policy, StatefulMoPPolicy) else mixed[None]
    return policy.head(x)[0], found, after


def project_plainly(hidden: Plain, subspace: Subspace, p: int) -> Plain:
    """Return states whose part in a subspace is that of the mean."""
    cells = [cell for layer in hidden for cell in (layer["router"], *layer["experts"])]
    flat = torch.cat([cell[0] for cell in cells])
    for column in subspace.basis[p].T:
        flat = flat - column * (column @ (flat - subspace.mean[p]))
    parts = iter(flat[None].split([cell.shape[1] for cell in cells], dim=1))
    return [{"router": next(parts), "experts": [next(parts) for _ in layer["experts"]]} for layer in hidden]


def _group(subgoal: int) -> int:
    return len(SUBGOAL_NAMES) if subgoal < 0 else int(subgoal)
