"""The calibration card: what it says, that it does not depend on order, and designs that it cannot do."""

import numpy as np
import pytest

from science import calibration
from science.result import Draft
from science.synthetic import Design, draw_template, plant_signal

DESIGN = Design(runs=8, episodes=24, shortest=8, longest=14, sizes=((0, 16, 32), (0, 16, 32)), side=4)
CLAIMS = [case.claim for case in calibration.CASES]


@pytest.fixture(scope="module")
def card():
    return calibration.compute(DESIGN, datasets=12, draws=39)


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_is_planted_is_found_more_often_than_what_is_not(card, claim):
    false = card.row("false_positive_rate", group=claim)
    found = card.row("recovery", group=claim)
    assert false.value <= 3 / 12 and found.value > false.value + 0.2
    assert false.low <= false.value <= false.high and "12 data sets" in false.condition
    assert card.row("detectable", group=claim, estimator="standard deviations between runs").value > 1
    assert card.row("detectable", group=claim, estimator="unit of the quantity").value > 0
    assert 0 <= card.row("smallest_p", group=claim).value < 0.05


def test_planted_values_are_near_those_found(card):
    for claim in ("knockouts.effect_on_ce", "sufficiency.sufficiency_above_random"):
        row = card.row("estimate", group=claim)
        assert abs(row.value - row.null_mean) < row.high - row.low  # four standard errors
    consistency = card.row("estimate", group="pathways.consistency")
    assert 0 < consistency.value < consistency.null_mean == 0.5  # of few episodes


def test_a_data_set_depends_on_its_number_alone(card):
    (case,) = (case for case in calibration.CASES if case.claim == "sufficiency.sufficiency_above_random")
    last = calibration.run_dataset(case, DESIGN, False, 11)
    calibration.run_dataset(case, DESIGN, True, 3)
    assert calibration.run_dataset(case, DESIGN, False, 11)[0] == last[0]
    again = calibration.compute(DESIGN, claims=[case.claim], datasets=12)
    expected = [row for row in card.rows if row.group == case.claim]
    assert repr(list(again.rows)) == repr(expected)


def test_a_studys_own_traces_are_a_design():
    traces = plant_signal(draw_template(DESIGN, np.random.default_rng(1)), np.random.default_rng(2), own=0.05)
    card = calibration.compute(traces, claims=["pathways.consistency", "price.price_trend"], datasets=3, planted=2)
    assert card.row("false_positive_rate", group="pathways.consistency").n_runs == 8
    assert "2 data sets" in card.row("recovery", group="pathways.consistency").condition
    assert card.notes == ("price.price_trend: cannot be calibrated on this design: needs three prices, found 1",)


def test_a_design_that_can_decide_nothing_says_so():
    card = calibration.compute(Design(runs=2, episodes=12), claims=["pathways.consistency"], datasets=2, draws=9)
    assert np.isnan(card.row("false_positive_rate").value)
    assert "2 of 2 data sets gave no p, with 2 runs" in card.notes[0]
    assert np.isnan(card.row("detectable", estimator="standard deviations between runs").value)


def test_a_claim_that_nobody_knows_is_named():
    with pytest.raises(ValueError, match=r"claims: expected some of pathways\.consistency, .*, found pathways\.beauty"):
        calibration.compute(DESIGN, claims=["pathways.beauty"])


def test_nothing_is_summarised_of_nothing():
    draft = Draft("calibration", "")
    calibration.summarise(draft, calibration.CASES[0], [], [])
    assert np.isnan(draft.rows[0].value)
