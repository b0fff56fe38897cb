"""Every quantity that an analysis can give has a name for an axis and a definition in the docstring."""

import re
from dataclasses import replace

import numpy as np
import pytest

from science import (
    complexity,
    distinctness,
    dynamics,
    fronts,
    knockouts,
    needed,
    pathways,
    price,
    probes,
    shapley,
    sufficiency,
)
from science.coalitions import code_of, list_players, name_without
from science.effects import Condition, Effects
from science.fronts import FrontPoint
from science.observations import Observations
from science.planted_effects import build_effects, plant_knockouts, plant_thresholds
from science.planted_forced import plant_forced
from science.planted_training import plant_bit, plant_erasures, plant_play, plant_rise, rise
from science.synthetic import Design, draw_template, plant_noisy_policy, plant_signal
from science.traces import Group


@pytest.fixture(scope="module")
def results():
    """All quantities that there are."""
    rng = np.random.default_rng(0)
    template = draw_template(Design(runs=4, episodes=16, side=3), rng, alphas=(0.0, 1e-4, 1e-3))
    traces = plant_noisy_policy(plant_signal(template, rng, own=0.05), rng)
    cells = traces.group("cell")
    traces = replace(traces, groups={**traces.groups, "observation": Group(cells.codes, cells.names)})
    runs, seeds = template.runs, np.arange(16)
    harm = rng.random((12, 9))
    lesions = plant_knockouts(
        traces, rng, harm, noise=0.1, control=0.5 * rng.random((12, 9)), by_group=rng.random((12, 9, 4))
    )
    kinds = ("transplant_own", "transplant_other", "transplant_shuffled", "zero_states", "swap_mission")
    others = build_effects(runs, seeds, [Condition(kind, kind) for kind in kinds], rng.random((12, 5, 16)))
    pair = [Condition(f"{r}", "knockout", 0, 1, 16, "zero", renormalise=r) for r in (True, False)]
    done, intact = np.ones((12, 2, 16)), np.ones((12, 16))
    plain = build_effects(runs, seeds, pair, rng.random((12, 2, 16)), success=done, success_intact=intact)
    dial = build_effects(
        runs,
        seeds,
        [Condition("dial 1", "dial", tau=1.0)],
        rng.random((12, 1, 16)),
        success=np.ones((12, 1, 16)),
        success_intact=np.ones((12, 16)),
    )
    dial = replace(dial, lpc=np.full(len(dial), 100.0))
    played = replace(traces, source="P")
    first = traces.run == 0
    steps = int(first.sum())
    observed = Observations(
        level_seed=traces.level_seed[traces.episode_run == 0],
        length=np.bincount(traces.episode[first]).astype(np.int32),
        missions=("go",),
        mission=np.zeros(16, np.int32),
        view=rng.integers(0, 3, (steps, 4)).astype(np.uint8),
        direction=np.zeros(steps, np.uint8),
        carrying=np.zeros(steps, np.uint8),
    )
    tasks = [plant_forced(traces.select([0, 1, 2, 3]), rng) for _ in range(5)]
    tasks = [
        replace(forced, runs=tuple(replace(run, task=f"T{n}") for run in forced.runs)) for n, forced in enumerate(tasks)
    ]
    players = list_players(traces.sizes)
    gone = [[p for i, p in enumerate(players) if not code >> i & 1] for code in range(63)]
    coalitions = [Condition("sham", "sham"), *(Condition(name_without(out), "coalition") for out in gone)]
    coalitions += [Condition(f"single {p}", "knockout", *p, 16, "zero", renormalise=True) for p in players]
    worth = 0.1 * rng.random((4, len(coalitions), 16, 3)) + 0.5
    worth[:, 0] = 0
    assert sorted(code_of(c.name, players) for c in coalitions[:64]) == list(range(64))
    games = build_effects(
        runs[:4], seeds, coalitions, worth[..., 0], groups=("Open", "Pickup"), by_group=worth[..., 1:]
    )
    still = draw_template(Design(runs=3, episodes=24), rng)
    updates = [1, 10, 100]
    grown = plant_rise(still, rng, updates=updates, at=5.0)
    success = np.tile(rise(updates, 5.0).round(), (3, 1))
    gone = plant_knockouts(still, rng, rng.random((3, 9)), by_group=rng.random((3, 9, 4)), noise=0.1)
    gone = Effects.concatenate(
        [replace(gone, runs=tuple(replace(run, update=update) for run in gone.runs)) for update in updates]
    )
    bits = plant_bit(still, rng, size=1.0)
    bits = replace(
        bits, sources={**bits.sources, "expert 0.1": bits.sources["routers"]}, experts={"expert 0.1": (0, 1)}
    )
    erased = plant_erasures(still, rng, harm=0.1)
    of_experts = replace(
        erased,
        conditions=tuple(replace(c, name=c.name.replace("routers", "experts")) for c in erased.conditions),
    )
    points = [FrontPoint(seed, 1000.0, 0.5) for seed in range(4)]
    return [
        pathways.compute(traces, effects=others, untrained=traces, draws=9),
        distinctness.compute(traces, effects=lesions, draws=9),
        sufficiency.compute(plant_thresholds(traces, rng, [0.9], [0.8], [0.1])),
        knockouts.compute(lesions, traces),
        knockouts.compute(plain, traces),
        price.compute(played, effects=lesions, draws=9),
        price.compute(played, effects=dial, baselines=points, draws=9),
        complexity.compute(traces, observed={"Planted": observed}, effects=others, draws=9),
        needed.compute(tasks, draws=9),
        shapley.compute(games, traces, draws=9),
        dynamics.compute(grown, played=plant_play(still, rng, updates=updates, chance=success), effects=gone, draws=9),
        probes.compute([bits], effects=Effects.concatenate([erased, of_experts])),
    ]


@pytest.mark.parametrize(
    "module",
    [pathways, sufficiency, distinctness, knockouts, price, complexity, needed, shapley, dynamics, probes],
)
def test_every_quantity_has_a_name_and_a_definition(results, module):
    name = module.__name__.rpartition(".")[2]
    found = {row.quantity for result in results if result.analysis == name for row in result.rows}
    assert found == set(module.QUANTITIES)
    words = (module.__doc__ or "") + (fronts.__doc__ or "")
    assert [quantity for quantity in found if not re.search(rf"\b{quantity}\b", words)] == []


def test_every_result_has_values(results):
    for result in results:
        assert result.definition and any(np.isfinite(row.value) for row in result.rows)
        for row in result.rows:
            assert not row.low > row.high and not (row.p < 0 or row.p > 1), row
