"""Seeds by prices, and the fronts of success against LPC that they span; `science.price` defines the quantities."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from pipeline.records.intervals import wilson_interval
from science.effects import Effects
from science.profiles import find_unusable, list_experts
from science.result import NAN, Draft
from science.traces import Run, Traces, group_means, sum_over

BEYOND = 1.1
"""The reference point of hypervolumes, in the greatest LPC of all policies compared."""


@dataclass(frozen=True)
class FrontPoint:
    """A policy without prices beside which fronts are drawn.

    Attributes:
        seed: Of its run.
        lpc: That of the path with which it is matched on active parameters.
        success: 0 to 1.
        setting: That tells it from others of its seed.
    """

    seed: int
    lpc: float
    success: float
    setting: str = "gru"


@dataclass(frozen=True, eq=False)
class Grid:
    """Seeds by prices.

    Attributes:
        task: Level family.
        runs: A run for each seed, that of the lowest price.
        alphas: float64 (P,), ascending.
        usage: float64 (N, P, K), NaN where a run is missing, K experts of all layers.
        lpc: float64 (N, P).
        success: float64 (N, P).
        layers: int (K,).
        experts: int (K,).
        episodes: Of each run.
    """

    task: str
    runs: tuple[Run, ...]
    alphas: np.ndarray
    usage: np.ndarray
    lpc: np.ndarray
    success: np.ndarray
    layers: np.ndarray
    experts: np.ndarray
    episodes: int


def build_grid(draft: Draft, traces: Traces) -> Grid | None:
    """Return usage, LPC and success by seed and price; None, and a note, where there are not two prices."""
    reasons = find_unusable(traces)
    for run, reason in reasons.items():
        draft.drop(traces.runs[run], reason)
    alphas = sorted({run.lpc_alpha for run in traces.runs})
    seeds = sorted({run.seed for run in traces.runs})
    if len(alphas) < 2:
        draft.note(f"{traces.runs[0].task}: expected two prices or more, found {alphas}: no value")
        return None
    means, _ = group_means(traces, np.zeros(len(traces.episode), np.int32), 1)
    layers, experts, _ = list_experts(traces)
    shape = (len(seeds), len(alphas))
    usage, lpc, success = np.full((*shape, len(layers)), NAN), np.full(shape, NAN), np.full(shape, NAN)
    each_lpc = _by_run(
        traces,
        sum_over(traces.episode, traces.lpc, len(traces.episode_run))
        / np.maximum(np.bincount(traces.episode, minlength=len(traces.episode_run)), 1),
    )
    each_success = _by_run(traces, traces.success.astype(np.float64))
    taken: dict[tuple[int, int], Run] = {}
    for index, run in enumerate(traces.runs):
        place = (seeds.index(run.seed), alphas.index(run.lpc_alpha))
        if place in taken:
            draft.note(
                f"{run.name}: has the price and seed of {taken[place].name}: the first counts; analyse them apart"
            )
            continue
        taken[place] = run
        if index not in reasons:
            usage[place], lpc[place] = means[index, 0][traces.experts], each_lpc[index]
            success[place] = each_success[index] if traces.source == "P" else NAN
    missing = [
        f"seed {seeds[i]} at {alphas[j]:g}" for i in range(shape[0]) for j in range(shape[1]) if (i, j) not in taken
    ]
    if missing:
        draft.note(
            f"{traces.runs[0].task}: no run of " + "; ".join(missing[:8]) + ("; ..." if len(missing) > 8 else "")
        )
    first = {place[0]: taken[place] for place in sorted(taken, reverse=True)}  # of each seed, at the lowest price
    episodes = int(np.bincount(traces.episode_run).max(initial=0))
    runs = tuple(first[seed] for seed in range(len(seeds)))
    return Grid(traces.runs[0].task, runs, np.array(alphas), usage, lpc, success, layers, experts, episodes)


def _by_run(traces: Traces, values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    count = np.bincount(traces.episode_run[known], minlength=len(traces.runs))
    total = np.bincount(traces.episode_run[known], values[known], minlength=len(traces.runs))
    return np.where(count > 0, total / np.maximum(count, 1), NAN)


# ------------------------------------------------------------------------------------------------------------ fronts


def find_hypervolume(lpc: np.ndarray, success: np.ndarray, worst: float) -> float:
    """Return the area dominated by points of LPC (n,) and success (n,) from (worst, 0), as a share of worst x 1."""
    known = np.isfinite(lpc) & np.isfinite(success) & (lpc <= worst)
    if not known.any() or not worst > 0:
        return NAN
    order = np.argsort(lpc[known], kind="stable")
    cost, best = lpc[known][order], np.maximum.accumulate(success[known][order])
    widths = np.diff([*cost, worst])
    return float(widths @ best / worst)


def add_fronts(draft: Draft, grid: Grid, baselines: list[FrontPoint], effects: Effects | None) -> None:
    """Add front_lpc, front_success, hypervolume and what it is compared with."""
    worst = BEYOND * float(np.nanmax([*grid.lpc.ravel(), *(point.lpc for point in baselines)], initial=0.0))
    if not np.isfinite(grid.success).any():
        draft.note(f"{grid.task}: success is not known: no front")
        return
    runs = [without_price(run) for run in grid.runs]
    for j, alpha in enumerate(grid.alphas):
        shared = {"condition": f"alpha {alpha:g}", "n_episodes": grid.episodes, "tested": False}
        draft.over_runs("front_lpc", grid.lpc[:, j], runs, limits=(0, np.inf), **shared)
        each = [_wilson(value, grid.episodes) for value in grid.success[:, j]]
        draft.over_runs("front_success", grid.success[:, j], runs, limits=(0, 1), each=each, **shared)
    own = np.array([find_hypervolume(x, y, worst) for x, y in zip(grid.lpc, grid.success, strict=True)])
    whole = np.isfinite(grid.lpc).all(axis=1) & np.isfinite(grid.success).all(axis=1)
    lacks = ["" if one else "not at every price" for one in whole]
    own[~whole] = NAN
    about = {"condition": f"from LPC {worst:.4g}", "tested": False, "n_episodes": grid.episodes}
    draft.over_runs("hypervolume", own, runs, reasons=lacks, **about)
    if effects is not None:
        _dial(draft, grid, runs, own, worst, effects)
    if not baselines:
        return
    other = np.full(len(runs), NAN)
    known = [point for point in baselines if np.isfinite([point.lpc, point.success]).all()]
    most = max(Counter(point.seed for point in known).values(), default=0)
    for n, run in enumerate(runs):
        points = [point for point in known if point.seed == run.seed]
        if len(points) < most or not points:
            lacks[n] = lacks[n] or f"{len(points) or 'no'} baseline of this seed" + f", of {most}" * (most > 1)
            continue
        other[n] = find_hypervolume(np.array([p.lpc for p in points]), np.array([p.success for p in points]), worst)
    draft.over_runs("hypervolume_above_baseline", own - other, runs, reasons=lacks, n_episodes=grid.episodes)


def _wilson(share: float, episodes: int) -> tuple[float, float]:
    return wilson_interval(round(share * episodes), episodes) if np.isfinite(share) else (NAN, NAN)


def _dial(draft: Draft, grid: Grid, runs: list[Run], own: np.ndarray, worst: float, effects: Effects) -> None:
    """Add dial_gap, of the seeds whose policy of the lowest price was played with the dial."""
    free = [i for i, run in enumerate(effects.runs) if run.task == grid.task and run.lpc_alpha == grid.alphas[0]]
    dials = effects.of_kind("dial")
    if not free or not dials:
        return
    values, reasons = np.full(len(runs), NAN), ["no dial"] * len(runs)
    lpc = np.array([effects.per_run(effects.lpc.astype(np.float64), dial) for dial in dials])
    success = np.array([effects.per_run(effects.success.astype(np.float64), dial) for dial in dials])
    for n, run in enumerate(runs):
        for index in (i for i in free if effects.runs[i].seed == run.seed):
            x, y = np.append(lpc[:, index], grid.lpc[n, 0]), np.append(success[:, index], grid.success[n, 0])
            values[n] = own[n] - find_hypervolume(x, y, worst)
            reasons[n] = "" if np.isfinite(values[n]) else "success or LPC is not known, of a price or of the dial"
    draft.over_runs("dial_gap", values, runs, reasons=reasons, n_episodes=len(np.unique(effects.level_seed)))


def without_price(run: Run) -> Run:
    """Return a run as a seed of all prices."""
    return replace(run, setting="", trial=-1, lpc_alpha=NAN)
