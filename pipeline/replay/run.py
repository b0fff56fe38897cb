"""Policies shown the bot's trajectories: what each would do, intact and under interventions, all at once.

    way = follow_expert("UnlockPickup", seeds)
    intact = replay(agents, way, bank=True)                             # logits and routing of each policy and step
    lasting = intervene(intact, interventions)                          # each acts from the episode's start on
    single = intervene(intact, interventions, one_step=True)            # each acts at one step, from the intact state
    single.kl[policy, condition, step]

All policies see the same states, so what differs between them is no difference of behaviour. Every pass has the same
number of rows, so that its products have the same shapes: the sham's numbers are those of the intact policy, bit for
bit. It computes in float64 and keeps float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from babyai.missions import MissionEncoder
from mixture_of_experts import compute_layer_lpc
from pipeline.engine.missions import MissionVectors
from pipeline.interventions.apply import IntervenedBatch
from pipeline.interventions.donors import Donors, check_disjoint
from pipeline.interventions.numbers import compute_cross_entropy, compute_divergence
from pipeline.interventions.spec import Intervention
from pipeline.replay.lanes import deal_episodes, deal_steps
from pipeline.replay.player import Player
from pipeline.replay.trajectories import Trajectories

ROWS = 256
"""Rows of a pass: environments, or steps, that each policy computes together."""

Agent = tuple[nn.Module, MissionEncoder, nn.Linear]
"""A policy, its sentence encoder, its mission projection. None of them is changed."""


@dataclass(frozen=True)
class Intact:
    """What P policies do at the S steps of the bot's trajectories.

    Attributes:
        way: The trajectories.
        policies: In float64.
        mission_vectors: float64 (P, K, lang_dim) of the trajectories' sentences.
        rows: Of each pass.
        lpc_exponent: An expert costs size^exponent.
        logits: float32 (P, S, actions).
        weights: Per layer float32 (P, S, E).
        lpc: float32 (P, S), NaN without routers.
        bank: State before each step, per layer and cell float64 (P, S, units), zero at an episode's start; None if it
            was not kept. 2.7 kB a step for three layers of [0, 16, 32] with routers of 64.
    """

    way: Trajectories
    policies: list[nn.Module]
    mission_vectors: Tensor
    rows: int
    lpc_exponent: float
    logits: Tensor
    weights: list[Tensor]
    lpc: Tensor
    bank: list[list[Tensor]] | None

    @property
    def sizes(self) -> list[list[int]]:
        """Expert sizes per layer; empty for a policy without routers."""
        return getattr(self.policies[0], "layer_expert_sizes", [])


@dataclass(frozen=True)
class Effects:
    """What C interventions did to P policies at S steps of the bot's trajectories.

    Attributes:
        interventions: The conditions.
        one_step: Whether each acted at one step, from the intact state, or from the episode's start on.
        ce: float32 (P, C, S), cross-entropy to the bot's action, nats.
        kl: float32 (P, C, S), KL(intact policy || changed policy), nats.
        agree: bool (P, C, S), the most probable action is the bot's.
        lpc: float32 (P, C, S), of the weights by which outputs were multiplied.
        logits: float32 (P, C, S, actions) if they were to be kept, else None.
        weights: Per layer float32 (P, C, S, E) if they were to be kept, else empty.
    """

    interventions: list[Intervention]
    one_step: bool
    ce: Tensor
    kl: Tensor
    agree: Tensor
    lpc: Tensor
    logits: Tensor | None = None
    weights: list[Tensor] = field(default_factory=list)


def replay(
    agents: Sequence[Agent],
    way: Trajectories,
    *,
    bank: bool = False,
    rows: int = ROWS,
    lpc_exponent: float = 2.0,
) -> Intact:
    """Return what policies of one architecture do along trajectories.

    Args:
        agents: Policies on one device, each with encoder and projection of its own.
        way: From `follow_expert`.
        bank: Keep the states, for one-step interventions.
        rows: Of each pass; changes the speed.
        lpc_exponent: An expert costs size^exponent.

    Raises:
        ValueError: If architectures differ.
    """
    policies, missions = _copy_agents(agents, way)
    batch = IntervenedBatch(policies, [Intervention()])
    shape = len(policies), len(way)
    logits = torch.zeros(*shape, policies[0].head.out_features)
    weights = [torch.zeros(*shape, len(layer)) for layer in batch.sizes]
    lpc = torch.full(shape, torch.nan)
    hidden = batch.init_hidden(rows)
    kept = [[state.new_zeros(*shape, state.shape[-1]) for state in cells] for cells in hidden] if bank else None
    player = Player(batch, way, missions)
    for lane in deal_episodes(way.begins, 1, rows):
        where, step = torch.from_numpy(lane.active), torch.from_numpy(lane.step[lane.active])
        if kept is not None:
            start = torch.from_numpy(lane.start)[:, None].to(batch.device)
            for cells, states in zip(kept, hidden, strict=True):
                for cell, state in zip(cells, states, strict=True):
                    cell[:, step] = torch.where(start, 0.0, state)[:, where]
        found, chosen, hidden = player.act(lane, hidden)
        logits[:, step] = found[:, where].float().cpu()
        for layer, value in zip(weights, chosen, strict=True):
            layer[:, step] = value[:, where].float().cpu()
        if chosen:
            lpc[:, step] = compute_lpc(chosen, batch.sizes, lpc_exponent)[:, where]
    return Intact(way, policies, missions, rows, lpc_exponent, logits, weights, lpc, kept)


def _copy_agents(agents: Sequence[Agent], way: Trajectories) -> tuple[list[nn.Module], Tensor]:
    """Return the policies in float64, and the vectors of the sentences of trajectories, (P, K, lang_dim)."""
    policies = [copy.deepcopy(policy).double().eval() for policy, _, _ in agents]
    tables = [MissionVectors(encoder, copy.deepcopy(projection).double()) for _, encoder, projection in agents]
    for table in tables:
        table.add(way.missions)
    numbers = torch.arange(len(way.missions), device=next(policies[0].parameters()).device)
    return policies, torch.stack([table(numbers) for table in tables])


def intervene(
    intact: Intact,
    interventions: Sequence[Intervention],
    *,
    one_step: bool = False,
    donors: Donors | None = None,
    keep_logits: bool = False,
    keep_weights: bool = False,
) -> Effects:
    """Return what interventions do along the same trajectories, all conditions and policies in one batch.

    Args:
        intact: From `replay`; with its bank for one-step interventions.
        interventions: The conditions. Their `when` counts in both modes: at a step where a condition does not hold, a
            one-step intervention does nothing.
        one_step: Act at one step each, from the intact state before it; else throughout an episode.
        donors: From `find_donors`, of the same policies and of other levels.
        keep_logits: Keep them; 28 bytes for each policy, condition and step.
        keep_weights: Likewise the routing weights.

    Raises:
        ConfigError: If an intervention does not fit the policies, or needs donors that are not there.
        ValueError: If the bank is missing, or levels are both donors and scored.
    """
    way, policies = intact.way, intact.policies
    if one_step and intact.bank is None:
        raise ValueError("one_step: expected states of each step; call replay(..., bank=True)")
    check_disjoint(donors, way.level_seeds)
    batch = IntervenedBatch(policies, interventions, donors)
    shape = len(policies), len(interventions), len(way)
    effects = Effects(
        list(interventions),
        one_step,
        ce=torch.zeros(shape),
        kl=torch.zeros(shape),
        agree=torch.zeros(shape, dtype=torch.bool),
        lpc=torch.full(shape, torch.nan),
        logits=torch.zeros(*shape, intact.logits.shape[-1]) if keep_logits else None,
        weights=[torch.zeros(*shape, len(layer)) for layer in batch.sizes] if keep_weights else [],
    )
    player = Player(batch, way, intact.mission_vectors, None if donors is None else donors.missions)
    if one_step:
        lanes = deal_steps(way.t_step == 0, len(interventions), intact.rows)
    else:
        lanes = deal_episodes(way.begins, len(interventions), intact.rows)
    hidden = batch.init_hidden(intact.rows)
    action = torch.from_numpy(way.steps["expert_action"])
    for lane in lanes:
        if one_step:
            hidden = [[cell[:, torch.from_numpy(lane.step)] for cell in cells] for cells in intact.bank]
        found, chosen, hidden = player.act(lane, hidden)
        at = torch.from_numpy(lane.condition[lane.active]), torch.from_numpy(lane.step[lane.active])
        where = torch.from_numpy(lane.active)
        logits = found[:, where].float().cpu()
        bots = action[at[1]]
        effects.ce[:, at[0], at[1]] = compute_cross_entropy(logits, bots).float()
        effects.kl[:, at[0], at[1]] = compute_divergence(intact.logits[:, at[1]], logits).float()
        effects.agree[:, at[0], at[1]] = logits.argmax(dim=-1) == bots
        if chosen:
            effects.lpc[:, at[0], at[1]] = compute_lpc(chosen, batch.sizes, intact.lpc_exponent)[:, where]
        if effects.logits is not None:
            effects.logits[:, at[0], at[1]] = logits
        for layer, value in zip(effects.weights, chosen if keep_weights else [], strict=True):
            layer[:, at[0], at[1]] = value[:, where].float().cpu()
    return effects


def find_donors(agents: Sequence[Agent], way: Trajectories, *, rows: int = ROWS) -> Donors:
    """Return what policies with routers compute along trajectories, for means, stand-ins and missions.

    Args:
        agents: As for `replay`.
        way: Of levels that are not scored.
        rows: Of each pass.
    """
    policies, missions = _copy_agents(agents, way)
    batch = IntervenedBatch(policies, [Intervention()])
    player = Player(batch, way, missions)
    width = policies[0].head.in_features
    shape = len(agents), len(way)
    outputs = [torch.zeros(*shape, len(layer), width, dtype=torch.float64) for layer in batch.sizes]
    weights = [torch.zeros(*shape, len(layer), dtype=torch.float64) for layer in batch.sizes]
    hidden = batch.init_hidden(rows)
    for lane in deal_episodes(way.begins, 1, rows) if batch.sizes else ():
        where, step = torch.from_numpy(lane.active), torch.from_numpy(lane.step[lane.active])
        found, chosen, hidden = player.read(lane, hidden)
        for kept, values in ((outputs, found), (weights, chosen)):
            for layer, value in zip(kept, values, strict=True):
                layer[:, step] = value[:, where].cpu()
    return Donors(
        way.episode,
        way.steps["subgoal"],
        tuple(way.level_seeds.tolist()),
        tuple(part.to(batch.device) for part in outputs),
        tuple(part.to(batch.device) for part in weights),
        way.missions,
        missions,
    )


def compute_lpc(weights: Sequence[Tensor], sizes: Sequence[Sequence[int]], exponent: float) -> Tensor:
    """Return LPC (...), float32 on the CPU, summed over layers, for weights (..., E) per layer."""
    layers = [compute_layer_lpc(part, row, exponent) for part, row in zip(weights, sizes, strict=True)]
    return torch.stack(layers).sum(dim=0).float().cpu()
