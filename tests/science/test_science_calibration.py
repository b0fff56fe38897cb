"""The calibration card: what it says, that it does not depend on order, and designs that it cannot do."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from science import calibration, conditions, planted_fronts
from science.card import write_card
from science.cases import CASES, UNTRIED
from science.catalogue import find_quantity
from science.config import read_study
from science.report.calibration import doubt_claims, list_untried
from science.report.content import ClaimEntry
from science.result import Draft
from science.synthetic import Design, draw_template, plant_signal

DESIGN = Design(runs=8, episodes=24, shortest=8, longest=14, sizes=((0, 16, 32), (0, 16, 32)), side=4)
NAMES = [case.name for case in CASES]
BY_THEMSELVES = {"price.hypervolume_above_baseline": 1, "price.dial_gap": -1}
"""Cases in which the design alone makes a difference, and on which side."""
UNDECIDED = "price.price_trend_of_success (no effect)"
"""What so few runs cannot show: a mean correlation within 0.2 of none."""
DATASETS = 12
HONEST = [name for name in NAMES if name not in {*BY_THEMSELVES, UNDECIDED}]
MOST_FALSE = stats.binom.ppf(1 - 0.01 / len(HONEST), DATASETS, 0.05) / DATASETS
"""Of tests that are wrong as often as they may be, some case of all has more in 1 of 100 sets of cases."""


@pytest.fixture(scope="module")
def card():
    return calibration.compute(DESIGN, datasets=DATASETS, draws=39)


@pytest.mark.parametrize("name", HONEST)
def test_what_is_planted_is_found_more_often_than_what_is_not(card, name):
    false = card.row("false_positive_rate", group=name)
    found = card.row("recovery", group=name)
    assert false.value <= MOST_FALSE and found.value > false.value + 0.2
    assert false.low <= false.value <= false.high and "12 data sets" in false.condition
    assert card.row("detectable", group=name, estimator="standard deviations between runs").value > 1
    assert card.row("detectable", group=name, estimator="unit of the quantity").value > 0
    assert 0 <= card.row("smallest_p", group=name).value < 0.05


def test_over_all_cases_nothing_is_found_as_often_as_it_may_be(card):
    """Many cases, so that a few that are wrong too often show here where 12 data sets of one say little."""
    wrong = sum(round(DATASETS * card.row("false_positive_rate", group=name).value) for name in HONEST)
    assert wrong <= stats.binom.ppf(0.99, DATASETS * len(HONEST), 0.05)


@pytest.mark.parametrize(("name", "side"), BY_THEMSELVES.items())
def test_fronts_of_unequal_points_differ_though_who_pays_the_same_succeeds_as_often(card, name, side):
    """Five points make a higher staircase than two: the card has to say so of the very design."""
    assert card.row("false_positive_rate", group=name).low > 0.05
    assert np.sign(card.row("estimate_without", group=name).value) == side
    equal = card.row("estimate_without", group=f"{name} (at equal costs)")
    assert equal.low < 0 < equal.high


def test_no_effect_is_hardly_told_where_the_effect_is_as_large_as_the_margin(card):
    assert card.row("false_positive_rate", group=UNDECIDED).value <= 3 / 12
    assert card.row("estimate_without", group=UNDECIDED).value > card.row("estimate", group=UNDECIDED).value


def test_the_margin_is_planted():
    """Of a thousand seeds the mean correlation is the margin, and no effect is told of it as seldom as it may be."""
    (case,) = (case for case in CASES if case.name == UNDECIDED)
    design = Design(runs=1000, episodes=20, shortest=1, longest=1, sizes=((0, 8),))
    row, _ = calibration.run_dataset(case, design, False, 0)
    assert row.value == pytest.approx(0.2, abs=0.05)
    assert calibration.run_dataset(case, design, True, 0)[0].p < 1e-6


def test_planted_values_are_near_those_found(card):
    for name in ("knockouts.effect_on_ce", "sufficiency.sufficiency_above_random", "pathways.transplant_gain"):
        row = card.row("estimate", group=name)
        assert abs(row.value - row.null_mean) < row.high - row.low  # four standard errors
    consistency = card.row("estimate", group="pathways.consistency")
    assert 0 < consistency.value < consistency.null_mean == 0.5  # of few episodes


def test_the_detectable_effect_is_found_about_as_often_as_it_says():
    """Planted at 0.02 nats, which is what it says at this size, four of five data sets have it."""
    (case,) = (case for case in CASES if case.name == "knockouts.effect_on_ce")
    design = Design(runs=8, episodes=60, shortest=1, longest=1)
    card = calibration.compute(design, claims=[case.name], datasets=100)
    detectable = card.row("detectable", estimator="unit of the quantity").value
    found = card.row("recovery").value
    assert detectable == pytest.approx(case.truth, rel=0.35)
    low, high = stats.binom.ppf([0.005, 0.995], 100, 0.8) / 100
    assert low - 0.15 < found < high + 0.15


def test_a_data_set_depends_on_its_number_alone(card):
    (case,) = (case for case in CASES if case.name == "sufficiency.sufficiency_above_random")
    last = calibration.run_dataset(case, DESIGN, False, 11)
    calibration.run_dataset(case, DESIGN, True, 3)
    assert calibration.run_dataset(case, DESIGN, False, 11)[0] == last[0]
    again = calibration.compute(DESIGN, claims=[case.name], datasets=12)
    expected = [row for row in card.rows if row.group == case.name]
    assert repr(list(again.rows)) == repr(expected)


def test_a_studys_own_traces_are_a_design():
    traces = plant_signal(draw_template(DESIGN, np.random.default_rng(1)), np.random.default_rng(2), own=0.05)
    card = calibration.compute(traces, claims=["pathways.consistency", "price.price_trend"], datasets=3, planted=2)
    assert card.row("false_positive_rate", group="pathways.consistency").n_runs == 8
    assert "2 data sets" in card.row("recovery", group="pathways.consistency").condition
    assert card.notes == ("price.price_trend: cannot be calibrated on this design: needs three prices, found 1",)


@pytest.mark.parametrize("prices", [(0.0, 1e-6, 3e-5), (0.0, 0.1, 1.0, 10.0)])
def test_trends_are_planted_between_the_prices_of_the_design(prices):
    """Planted at a fixed price, they were beyond those of studies with cheaper ones, and never found."""
    template = draw_template(DESIGN, np.random.default_rng(0), alphas=prices)
    card = calibration.compute(template, claims=["price.price_trend", "price.price_trend_of_lpc"], datasets=5)
    for row in card.find("recovery"):
        assert row.value >= 0.8


def test_a_design_that_can_decide_nothing_says_so():
    card = calibration.compute(Design(runs=2, episodes=20), datasets=2, draws=9)  # episodes enough for all
    assert {row.group for row in card.find("false_positive_rate")} == set(NAMES)
    for name in NAMES:
        assert np.isnan(card.row("false_positive_rate", group=name).value), name
        assert any(note.startswith(f"{name}: 2 of 2 data sets gave no p, with ") for note in card.notes)
        assert np.isnan(card.row("detectable", group=name, estimator="standard deviations between runs").value)


def test_a_claim_that_nobody_knows_is_named():
    with pytest.raises(ValueError, match=r"claims: expected some of pathways\.consistency, .*, found pathways\.beauty"):
        calibration.compute(DESIGN, claims=["pathways.beauty"])


def test_nothing_is_summarised_of_nothing():
    draft = Draft("calibration", "")
    calibration.summarise(draft, CASES[0], [], [])
    assert np.isnan(draft.rows[0].value)


# --------------------------------------------------------------------------------------------------- declared claims


@pytest.mark.parametrize("study", ["pathways", "debug", "levels", "debug_levels"])
def test_every_declared_claim_of_the_studies_has_a_case(study):
    config, _ = read_study("test", ["--config", f"studies/{study}.yaml"])
    names = [f"{c.claim} (no effect)" if c.direction == "none" else c.claim for c in config.claims]
    assert names and set(names) <= set(NAMES)


def test_cases_and_reasons_are_of_known_quantities():
    for name in [*(case.claim for case in CASES), *UNTRIED]:
        assert find_quantity(name)
    assert not set(UNTRIED) & {case.claim for case in CASES}


def test_a_declared_claim_without_a_case_is_told_with_the_reason():
    class Study:
        config, _ = read_study(
            "test",
            [
                "--tasks",
                "GoToObj",
                "--claims",
                "[{claim: pathways.consistency_raw}, {claim: knockouts.dose}, {claim: pathways.consistency}]",
            ],
        )

    raw, dose = list_untried(Study, ["pathways.consistency"])
    assert raw.startswith("Not tried on noise: pathways.consistency_raw, for routers that all prefer the same")
    assert dose.startswith("Not tried on noise: knockouts.dose, for no data without it are simulated")


# ------------------------------------------------------------------------------------------- verdicts that noise gives


def entry(verdict: str) -> ClaimEntry:
    return ClaimEntry(1, "price.dial_gap", "", "", verdict, "", "", "", "", "")


@pytest.mark.parametrize(
    ("verdict", "without", "doubted"),
    [("supported", 0.1, True), ("supported", -0.1, False), ("contradicted", -0.1, True), ("undecided", 0.1, False)],
)
def test_a_verdict_that_noise_gives_too_is_not_to_be_trusted(tmp_path, verdict, without, doubted):
    draft = Draft("calibration", "")
    (case,) = (case for case in CASES if case.name == "price.dial_gap")
    row = draft.add("dial_gap", without, unit="runs", n_runs=8, p=0.001)
    card = Draft("calibration", "")
    calibration.summarise(card, case, [(row, np.zeros(8))] * 20, [(row, np.zeros(8))] * 20)
    write_card(tmp_path / "calibration.csv", card.finish().to_frame())

    class Study:
        config, _ = read_study("test", ["--tasks", "GoToObj", "--claims", "[{claim: price.dial_gap}]"])

    (found,) = doubt_claims([entry(verdict)], Study, tmp_path / "calibration.csv")
    assert ("not to be trusted" in found.why) == doubted
    assert doubt_claims([entry(verdict)], Study, tmp_path / "none.csv") == (entry(verdict),)


def test_a_claim_of_no_effect_is_doubted_by_its_own_case(tmp_path):
    name = "price.price_trend_of_success"
    cards = {}
    for case in (case for case in CASES if case.claim == name):
        draft = Draft("calibration", "")
        row = draft.add("price_trend_of_success", 0.0, unit="runs", n_runs=8, p=0.001)
        card = Draft("calibration", "")
        calibration.summarise(card, case, [(row, np.zeros(8))] * 20, [(row, np.zeros(8))] * 20)
        cards[case.name] = card.finish().to_frame()
    assert set(cards) == {name, f"{name} (no effect)"}

    class Study:
        config, _ = read_study(
            "test", ["--tasks", "GoToObj", "--claims", f"[{{claim: {name}, direction: none, margin: 0.1}}]"]
        )

    claim = dataclasses.replace(entry("supported"), claim=name)
    for case, card in cards.items():
        write_card(tmp_path / "calibration.csv", card)
        (found,) = doubt_claims([claim], Study, tmp_path / "calibration.csv")
        assert ("not to be trusted" in found.why) == (case != name)


def test_planted_dials_are_turned_as_those_of_studies():
    assert planted_fronts.TURNS == conditions.TURNS
    weights = np.array([[0.2, 0.3, 0.5]])
    assert planted_fronts.turn_cost(weights, [np.array([0.0, 256.0, 1024.0])], 0.0) == pytest.approx(588.8)
    assert planted_fronts.turn_cost(weights, [np.array([0.0, 256.0, 1024.0])], 30.0) < 1
