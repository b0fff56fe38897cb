"""Dynamics of training: planted times and slopes are found, and noise has no peak; checkpoints on the way."""

from dataclasses import replace

import numpy as np
import pytest

from science import dynamics
from science.effects import Effects
from science.handover import add_handover, correlate_ranks, find_handover
from science.plan import list_updates
from science.planted_effects import plant_knockouts
from science.planted_training import plant_handover, plant_play, plant_rise, rise
from science.result import Draft, Result
from science.rises import find_rises
from science.synthetic import Design, draw_template
from science.traces import Traces

UPDATES = [1, 3, 8, 22, 60, 160]
AT = np.array([4.0, 9.0, 20.0, 50.0])


@pytest.fixture(scope="module")
def template() -> Traces:
    return draw_template(Design(runs=4, episodes=40), np.random.default_rng(0))


@pytest.fixture(scope="module")
def grown(template) -> Traces:
    return plant_rise(template, np.random.default_rng(1), updates=UPDATES, at=AT)


@pytest.fixture(scope="module")
def played(template) -> Effects:
    return plant_play(template, np.random.default_rng(2), updates=UPDATES, chance=rise(UPDATES, AT * 2.5).round())


@pytest.fixture(scope="module")
def lesions(template) -> Effects:
    rng = np.random.default_rng(3)
    last = rng.random((4, 9, 4))
    parts = []
    for update, share in zip(UPDATES, rise(UPDATES, 9.0)[0], strict=True):
        drawn = share * last + (1 - share) * rng.random((4, 9, 4)) * (update != UPDATES[-1])
        effects = plant_knockouts(template, rng, drawn.mean(axis=2), by_group=drawn)
        parts.append(replace(effects, runs=tuple(replace(run, update=update) for run in effects.runs)))
    return Effects.concatenate(parts)


@pytest.fixture(scope="module")
def found(grown, played, lesions) -> Result:
    return dynamics.compute(grown, played=played, effects=lesions, draws=19)


def of_runs(found: Result, quantity: str, **wanted) -> np.ndarray:
    return np.array([row.value for row in found.find(quantity, unit="run", **wanted)])


# -------------------------------------------------------------------------------------------------------- known answers


def test_routes_at_the_end_are_those_at_the_end(found):
    np.testing.assert_array_equal(of_runs(found, "saturation", condition="update 160"), 1.0)
    end = found.row("saturation", condition="update 160")
    assert end.value == 1 and np.isnan([end.low, end.high, end.p]).all()  # runs agree exactly
    assert 0 < end.null_mean < 1
    start = found.row("saturation", condition="update 1")
    assert start.value < end.value and start.update == -1
    assert [row.update for row in found.find("saturation", unit="run", condition="update 3")] == [3] * 4


def test_planted_times_of_rise_are_found(found):
    """The first update looked at that is not before the planted one; of success 0.9, 2.5 times later."""
    expected = [8, 22, 22, 60]
    rows = found.find("information_rise", unit="run")
    # Information is quadratic in how far weights have come: half of it is there a little later than half of them
    for row, at, first in zip(rows, AT, expected, strict=True):
        assert row.value in (first, UPDATES[UPDATES.index(first) + 1])
        assert row.low < row.value == row.high and row.high >= at
    assert of_runs(found, "success_rise").tolist() == [22, 60, 60, 160]
    over = found.row("success_rise")
    assert over.value == pytest.approx(np.exp(np.log([22, 60, 60, 160]).mean())) and over.low < over.value < over.high
    lead = of_runs(found, "rise_lead")
    np.testing.assert_allclose(lead, np.log2(of_runs(found, "success_rise") / of_runs(found, "information_rise")))


def test_what_has_risen_must_stay():
    updates = np.array([1, 2, 4, 8])
    values = np.array([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0.5, 1, 1], [np.nan, 1, 1, 1]])
    np.testing.assert_array_equal(find_rises(updates, values, np.full(5, 0.5)), [8, 1, np.nan, 2, 2])


def test_information_is_that_of_exchanged_groups_where_there_is_none(template):
    still = plant_rise(template, np.random.default_rng(1), updates=UPDATES, at=AT, own=0.0)
    found = dynamics.compute(still, draws=19)
    assert found.row("information_rise").n_dropped == 4
    assert found.row("information_rise").drop_reason == "collapsed"
    assert found.row("success_rise").drop_reason == "not played"
    assert not found.find("success")


def test_runs_that_do_not_learn_are_counted(grown, template):
    chance = np.where(np.arange(4)[:, None] == 1, 0.5, rise(UPDATES, AT * 2.5).round())
    played = plant_play(template, np.random.default_rng(2), updates=UPDATES, chance=chance)
    row = dynamics.compute(grown, played=played, draws=0).row("success_rise")
    assert (row.n_runs, row.n_dropped) == (3, 1) and "below 0.9 in the end" in row.drop_reason


def test_lesions_settle(found):
    np.testing.assert_allclose(of_runs(found, "lesion_settling", condition="update 160"), 1.0)
    values = [found.row("lesion_settling", condition=f"update {update}").value for update in UPDATES]
    assert values[0] < 0.5 < values[3] < 1
    assert abs(found.row("lesion_settling", condition="update 1").null_mean) < 0.3  # runs have nothing in common


def test_runs_without_an_update_or_with_other_steps_are_left_out(grown):
    some = grown.select([index for index, run in enumerate(grown.runs) if (run.seed, run.update) != (2, 8)])
    result = dynamics.compute(some, draws=0)
    assert result.row("saturation", condition="update 1").n_runs == 3
    assert [(entry.run.seed, entry.reason) for entry in result.dropped if entry.reason == "not at every update"] == [
        (2, "not at every update")
    ]
    few = grown.select([index for index, run in enumerate(grown.runs) if run.update < 8])
    assert any("dynamics need three updates and a run" in note for note in dynamics.compute(few, draws=0).notes)


# ------------------------------------------------------------------------------------------------------------ hand-over


def test_a_maximum_of_noise_lies_above_all_else_and_one_read_elsewhere_does_not():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(300, 8, 48))
    place, toss = np.arange(48) // 6, rng.random(48)
    split = find_handover(table, place, toss, 8)
    same = np.stack([table[..., place == b].mean(axis=2).max(axis=1) - table[:, -1, place == b].mean(axis=1)
                     for b in range(8)])  # fmt: skip
    error = split.mean(axis=1).std() / np.sqrt(300)
    assert same.mean() > 0.5 and abs(split.mean()) < 4 * error


def test_a_planted_peak_is_found_at_its_height():
    table = np.zeros((2, 4, 12))
    table[:, 1] = np.repeat([1.0, 2.0, 3.0], 4)
    handed = find_handover(table, np.arange(12) // 4, np.random.default_rng(0).random(12), 3)
    np.testing.assert_allclose(handed, [[1, 2, 3]] * 2)
    np.testing.assert_allclose(correlate_ranks(handed, np.array([5.0, 6.0, 9.0])), 1.0)
    np.testing.assert_array_equal(correlate_ranks(np.zeros((1, 3)), np.arange(3)), 0.0)


@pytest.mark.parametrize(("slope", "sign"), [(2.0, 1), (-2.0, -1)])
def test_a_planted_slope_of_hand_over_is_found(slope, sign):
    rng = np.random.default_rng(0)
    difficulty = rng.integers(5, 30, 60).astype(float)
    table = plant_handover(difficulty, rng, runs=5, updates=6, slope=slope)
    draft = Draft("dynamics", "")
    add_handover(draft, "handover", table, difficulty, draw_template(Design(runs=5), rng).runs, rng, 99)
    row = draft.finish().row("handover")
    assert row.value * sign > 0.8 and row.p <= 0.02 and row.unit == "runs+levels"
    assert draft.finish().row("handover_size").value > 0


def test_levels_of_one_length_have_no_difficulty():
    rng = np.random.default_rng(0)
    draft = Draft("dynamics", "")
    runs = draw_template(Design(runs=3), rng).runs
    add_handover(draft, "handover", rng.normal(size=(3, 4, 40)), np.full(40, 7.0), runs, rng, 9)
    assert not draft.rows and "found 40 of 1: no value" in draft.notes[0]


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("last", "count", "expected"),
    [(100, 4, [1, 5, 22, 100]), (800, 8, [1, 3, 7, 18, 46, 118, 308, 800]), (3, 8, [1, 2, 3]), (1, 3, [1])],
)
def test_updates_are_evenly_spaced_on_a_logarithmic_scale(last, count, expected):
    assert list_updates(last, count) == expected
