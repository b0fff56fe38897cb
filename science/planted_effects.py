"""Effects of interventions with a known answer, see `science.synthetic`.

harm = np.zeros((10, 9)); harm[:, 4] = np.log(2)                  # one expert carries one bit
effects = plant_knockouts(template, rng, harm)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from science.effects import Condition, Effects
from science.profiles import list_experts
from science.synthetic import SUBGOALS
from science.traces import Run, Traces

INTACT_CE = 0.3
INTACT_AGREEMENT = 0.9


def build_effects(
    runs: Sequence[Run],
    level_seeds: np.ndarray,
    conditions: Sequence[Condition],
    ce: np.ndarray,
    *,
    success: np.ndarray | None = None,
    success_intact: np.ndarray | None = None,
    groups: Sequence[str] = (),
    by_group: np.ndarray | None = None,
) -> Effects:
    """Return a table of effects.

    Args:
        runs: R runs.
        level_seeds: int (G,).
        conditions: C conditions.
        ce: (R, C, G), differences of cross-entropy; NaN: no row.
        success: (R, C, G), 0 or 1, which makes it a table of closed loops; None: replayed.
        success_intact: (R, G).
        groups: Names of X groups.
        by_group: (R, C, G, X), differences of cross-entropy in them.
    """
    shape = ce.shape
    run, condition, level = (index.reshape(-1) for index in np.indices(shape))
    change, group = ce.reshape(-1), np.full(ce.size, -1)
    nothing = np.full(ce.size, np.nan)
    done = nothing if success is None else success.reshape(-1).astype(np.float64)
    before = nothing if success_intact is None else np.broadcast_to(success_intact[:, None], shape).reshape(-1)
    if by_group is not None:
        of_group = [index.reshape(-1) for index in np.indices(by_group.shape)]
        more = np.full(by_group.size, np.nan)
        run, condition, level = (
            np.concatenate([a, b]) for a, b in zip((run, condition, level), of_group[:3], strict=True)
        )
        change, group = np.concatenate([change, by_group.reshape(-1)]), np.concatenate([group, of_group[3]])
        done, before = np.concatenate([done, more]), np.concatenate([before, more])
    kept = np.isfinite(change)
    columns = {
        "success": done,
        "success_intact": before,
        "agreement": np.clip(INTACT_AGREEMENT - 0.3 * change, 0, 1),
        "agreement_intact": np.full(len(change), INTACT_AGREEMENT),
        "ce": INTACT_CE + change,
        "ce_intact": np.full(len(change), INTACT_CE),
        "kl": np.abs(change),
        "lpc": np.full(len(change), np.nan),
    }
    counts = {"run": run, "condition": condition, "group": group, "steps": np.full(len(change), 20)}
    return Effects(
        source="R" if success is None else "P",
        runs=tuple(runs),
        conditions=tuple(conditions),
        groups=tuple(groups),
        level_seed=np.asarray(level_seeds, np.int64)[level][kept],
        **{name: values[kept].astype(np.int32) for name, values in counts.items()},
        **{name: values[kept].astype(np.float64) for name, values in columns.items()},
    )


def plant_knockouts(
    template: Traces,
    rng: np.random.Generator,
    harm: np.ndarray,
    *,
    run_sd: float = 0.0,
    level_sd: float = 0.0,
    noise: float = 0.0,
    control: np.ndarray | None = None,
    by_group: np.ndarray | None = None,
    names: Sequence[str] = SUBGOALS,
) -> Effects:
    """Return a sham and a knock-out of each expert, on the template's runs and level seeds.

    Args:
        template: Gives runs, level seeds, experts.
        rng: Draws.
        harm: (R, K), mean differences of cross-entropy, nats.
        run_sd: Of an effect of each run and expert.
        level_sd: Of an effect of each level seed and expert, the same for all runs.
        noise: Of each run, expert and level seed.
        control: (R, K), of the random direction that goes with each knock-out; None: no control.
        by_group: (R, K, X), differences in each of X groups; None: no rows by group.
        names: Of the groups.
    """
    layers, experts, sizes = list_experts(template)
    seeds = np.unique(template.level_seed)
    each = [
        Condition(f"without {layer}.{expert}", "knockout", int(layer), int(expert), int(size), "zero")
        for layer, expert, size in zip(layers, experts, sizes, strict=True)
    ]
    conditions = [Condition("sham", "sham"), *each]
    shape = (*harm.shape, len(seeds))
    drawn = run_sd * rng.normal(size=(*harm.shape, 1)) + level_sd * rng.normal(size=(1, *shape[1:]))
    drawn = drawn + noise * rng.normal(size=shape)
    parts = [np.zeros((len(harm), 1, len(seeds))), harm[:, :, None] + drawn]
    if control is not None:
        conditions += [Condition(f"{c.name}, control", "random_direction", control_of=c.name) for c in each]
        parts.append(np.broadcast_to(control[:, :, None], shape))
    groups = None
    if by_group is not None:
        groups = np.full((len(harm), len(conditions), len(seeds), by_group.shape[2]), np.nan)
        groups[:, 1 : 1 + len(each)] = by_group[:, :, None] + noise * rng.normal(size=(*shape, by_group.shape[2]))
    return build_effects(template.runs, seeds, conditions, np.concatenate(parts, axis=1), groups=names, by_group=groups)


def plant_transplants(
    template: Traces,
    rng: np.random.Generator,
    harm: Mapping[str, float],
    *,
    others: int = 3,
    run_sd: float = 0.05,
    level_sd: float = 0.1,
    noise: float = 0.3,
) -> Effects:
    """Return transplants of each run's own weights, of other runs' and of shuffled ones.

    Args:
        template: Gives runs and level seeds.
        rng: Draws.
        harm: Mean differences of cross-entropy of own, other and shuffled, nats.
        others: Of other runs' and of shuffled ones in each run.
        run_sd: Of an effect of each run and condition.
        level_sd: Of an effect of each level seed and kind, the same for all runs.
        noise: Of each run, condition and level seed.
    """
    seeds = np.unique(template.level_seed)
    kinds = ["own", *["other"] * others, *["shuffled"] * others]
    conditions = [Condition(f"{kind} {number}", f"transplant_{kind}") for number, kind in enumerate(kinds)]
    shape = (len(template.runs), len(kinds), len(seeds))
    of_level = {kind: level_sd * rng.normal(size=len(seeds)) for kind in harm}
    ce = np.array([harm[kind] + of_level[kind] for kind in kinds]) + run_sd * rng.normal(size=(*shape[:2], 1))
    return build_effects(template.runs, seeds, conditions, ce + noise * rng.normal(size=shape))


def plant_thresholds(
    template: Traces, rng: np.random.Generator, own: Sequence[float], control: Sequence[float], taus: Sequence[float]
) -> Effects:
    """Return closed loops whose intact policy solves everything, and under thresholds as often as given.

    Args:
        template: Gives runs and level seeds.
        rng: Draws outcomes.
        own: Chance of success at each threshold.
        control: The same with random experts removed.
        taus: Thresholds.
    """
    seeds = np.unique(template.level_seed)
    conditions = [Condition(f"threshold {tau:g}", "threshold", tau=tau) for tau in taus]
    conditions += [Condition(f"random {tau:g}", "random_drop", tau=tau) for tau in taus]
    chance = np.array([*own, *control])[None, :, None]
    success = (rng.random((len(template.runs), len(conditions), len(seeds))) < chance).astype(np.float64)
    intact = np.ones((len(template.runs), len(seeds)))
    return build_effects(template.runs, seeds, conditions, 1 - success, success=success, success_intact=intact)
