"""Fronts and what a price does to experts: what was planted is found."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.records.intervals import wilson_interval
from science import price, questions
from science.effects import Condition
from science.figures.fronts import pair_rows
from science.fronts import FrontPoint, find_hypervolume
from science.planted_effects import build_effects, plant_knockouts
from science.price import find_half_price
from science.result import Result
from science.synthetic import Design, draw_template, plant_prices, plant_signal, set_weights
from science.traces import Traces

ALPHAS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def priced() -> Traces:
    free = draw_template(Design(runs=8, episodes=12), rng(), alphas=ALPHAS)
    half = np.tile([np.inf, 3e-4, 3e-5], (3, 1))
    return replace(plant_prices(free, rng(), half, noise=0.003), source="P")


def test_planted_sigmoids_are_found(priced):
    found = price.compute(priced, draws=99)
    for layer in range(3):
        for expert, planted in ((1, 3e-4), (2, 3e-5)):
            row = found.row("half_price", layer=layer, expert=expert)
            assert np.log10(row.value) == pytest.approx(np.log10(planted), abs=0.12)
            assert row.low < row.value < row.high and row.estimator == "t of log10"
            trend = found.row("price_trend", layer=layer, expert=expert)
            assert trend.value < -0.9 and trend.p_adjusted < 0.05
    assert found.row("price_trend_of_lpc").value == pytest.approx(-1)
    never = found.row("half_price", layer=0, expert=0)
    assert never.estimator == "censored" and never.condition == "between 0.01 and inf" and np.isnan(never.value)


def test_half_prices_are_read_between_prices():
    alphas = np.array([0, 1e-3, 1e-2, 1e-1])
    assert find_half_price(alphas, np.array([0.4, 0.4, 0.0, 0.0])) == pytest.approx((10**-2.5,) * 2)
    assert find_half_price(alphas, np.array([0.4, 0.1, 0.1, 0.1])) == (0, 1e-3)
    assert find_half_price(alphas, np.array([0.4, 0.3, 0.35, 0.3])) == (0.1, np.inf)


def test_the_area_below_a_front():
    lpc, success = np.array([10.0, 50.0, 20.0]), np.array([0.5, 1.0, 0.4])
    assert find_hypervolume(lpc, success, 100.0) == pytest.approx((0.5 * 40 + 1.0 * 50) / 100)
    assert np.isnan(find_hypervolume(lpc, np.full(3, np.nan), 100.0))


def test_one_runs_success_has_wilsons_interval(priced):
    known = replace(priced, success=(priced.level_seed % 4 > 0).astype(np.float32))
    row = price.compute(known, draws=9).find("front_success", condition="alpha 0", unit="run")[0]
    assert row.value == 0.75 and (row.low, row.high) == pytest.approx(wilson_interval(9, 12))


def test_fronts_are_above_baselines_that_cost_more(priced):
    points = [FrontPoint(seed, lpc=3000, success=1.0) for seed in range(7)]
    found = price.compute(priced, baselines=points, draws=9)
    row = found.row("hypervolume_above_baseline")
    assert row.value > 0 and row.n_runs == 7 and row.drop_reason == "no baseline of this seed"
    replayed = price.compute(replace(priced, source="R"), draws=9)
    assert any("success is not known" in note for note in replayed.notes)


def test_a_seed_without_one_of_two_baselines_or_of_its_prices_is_left_out(priced):
    """What is left of its front would dominate less."""
    points = [FrontPoint(seed, lpc=lpc, success=1.0) for seed in range(8) for lpc in (300, 3000)]
    whole = price.compute(priced, baselines=points, draws=9)
    found = price.compute(priced, baselines=[p for p in points if (p.seed, p.lpc) != (3, 300)], draws=9)
    row = found.row("hypervolume_above_baseline")
    assert row.n_runs == 7 and row.drop_reason == "1 baseline of this seed, of 2"
    cheapest = min(run.lpc_alpha for run in priced.runs)
    kept = [i for i, run in enumerate(priced.runs) if (run.seed, run.lpc_alpha) != (3, cheapest)]
    found = price.compute(priced.select(kept), baselines=points, draws=9)
    for quantity in ("hypervolume", "hypervolume_above_baseline"):
        row = found.row(quantity)
        assert row.n_runs == 7 and row.drop_reason == "not at every price"
        others = [r.value for r in whole.find(quantity, unit="run") if r.seed != 3]
        assert [r.value for r in found.find(quantity, unit="run") if r.seed != 3] == pytest.approx(others)


def test_the_dearest_baseline_spans_something(priced):
    """From its own LPC as the reference point it would span nothing, however well it does."""
    failing, solving = (
        price.compute(priced, baselines=[FrontPoint(seed, 9e3, success) for seed in range(8)], draws=9)
        for success in (0.0, 1.0)
    )
    rows = [found.row("hypervolume_above_baseline") for found in (failing, solving)]
    assert rows[0].value - rows[1].value == pytest.approx(0.1 / 1.1)


def test_a_baselines_success_stands_at_its_own_lpc():
    """Two of a seed had one name, and each was drawn at the other's LPC too."""
    points = [FrontPoint(1, 3072.0, 1.0, "gru=largest"), FrontPoint(1, 768.0, 0.2, "gru=smallest")]
    rows = [row for point in points for row in questions.describe_baseline("GoToObj", point)]
    table = Result("price", "", tuple(rows)).to_frame()
    drawn = pair_rows(table, "baseline")
    assert sorted(zip(drawn["lpc"], drawn["success"], strict=True)) == [(768.0, 0.2), (3072.0, 1.0)]


def test_hypervolumes_of_a_task_are_of_one_box(priced, monkeypatch):
    """The dial's front is drawn from the same reference point as the baselines', however dear these are."""
    points = [FrontPoint(seed, lpc=9e3, success=1.0) for seed in range(8)]
    free = [run for run in priced.runs if run.lpc_alpha == 0]
    done, intact = np.ones((8, 1, 12)), np.ones((8, 12))
    turn = [Condition("dial 1", "dial", tau=1.0)]
    dial = build_effects(free, np.arange(12), turn, np.zeros((8, 1, 12)), success=done, success_intact=intact)
    dial = replace(dial, lpc=np.full(len(dial), 100.0))
    boxes = []
    compute = price.compute

    def note(*arguments, baselines=(), **others):
        boxes.append(list(baselines))
        return compute(*arguments, baselines=baselines, **others)

    monkeypatch.setattr(price, "compute", note)
    monkeypatch.setattr(questions, "list_baselines", lambda *_: points)
    monkeypatch.setattr(questions, "list_usage", lambda *_: [])
    given = SimpleNamespace(
        traces=lambda _: priced, effects=lambda family, _: dial if family == "dial" else None, drawn={"draws": 9}
    )
    monkeypatch.setattr(questions, "describe_baseline", lambda *_: [])
    found = questions._price(given)
    assert boxes == [points, points]
    assert len(found.find("dial_gap", unit="run")) == len(found.find("hypervolume", unit="run")) == 8


def test_an_expert_is_dead_when_its_loss_is_equivalent_to_nothing(template):
    harm = np.tile([0.0, 0.0, 0.3], (8, 3))
    effects = plant_knockouts(template, rng(), harm, noise=0.05)
    free = draw_template(Design(runs=8, episodes=12), rng(), alphas=(0.0, 1e-3))
    found = price.compute(free, effects=effects, draws=9)
    assert [found.row("dead", layer=0, expert=e).value for e in range(3)] == [1, 1, 0]
    wide = plant_knockouts(template, rng(), 0 * harm, run_sd=0.2)
    assert price.compute(free, effects=wide, draws=9).row("dead", layer=0, expert=0).value == 0  # not shown


def test_collapsed_layers_are_counted(template):
    planted = plant_signal(template, rng(), own=0.05)
    weights = planted.weights.copy()
    weights[planted.run < 2, 1] = 1 / 3
    found = price.compute(set_weights(planted, weights), draws=9)
    assert [found.row("collapsed", layer=layer).value for layer in range(3)] == [0, 0.25, 0]
