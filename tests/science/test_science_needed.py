"""Needed complexity: what was planted is found, by hand and at random."""

from dataclasses import replace

import numpy as np
import pytest

from science import needed
from science.forced import read_forced, write_forced
from science.forcing import SOURCES, list_items
from science.planted_forced import plant_bit, plant_forced, price_paths
from science.statistics.nulls import EpisodeBlocks
from science.synthetic import Design, draw_template
from science.traces import TraceError

SIZES = ((0, 16, 32), (0, 16, 32))


@pytest.fixture(scope="module")
def template():
    return draw_template(Design(runs=8, episodes=24, sizes=SIZES), np.random.default_rng(0))


def rng(seed=0):
    return np.random.default_rng(seed)


def by_hand(template):
    """Two runs, two episodes of two steps, the four cheapest of nine paths; the bot does 1."""
    forced = plant_forced(template, rng())
    kept = [0, 1, 3, 4]  # costs 0, 256, 256, 512
    right = np.array(
        [
            [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]],
            [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
        ],
        bool,
    )
    return replace(
        forced,
        runs=forced.runs[:2],
        paths=forced.paths[kept],
        cost=forced.cost[kept],
        level_seed=np.array([3, 7]),
        episode=np.array([0, 0, 1, 1], np.int32),
        time=np.array([0, 1, 0, 1], np.int32),
        subgoal=np.zeros(4, np.int16),
        position=np.zeros((4, 2), np.int16),
        bot_action=np.ones(4, np.int8),
        action=right.astype(np.int8),
        ce=np.where(right, 0.5, 2.0).astype(np.float32),
        soft_action=np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int8),
        used=np.array([[300, 100, 200, 50], [400, 400, 100, 500]], np.float32),
        likeliest=np.array([[0, 1, 0, 0], [3, 3, 3, 3]], np.int16),
    )


def test_numbers_by_hand(template):
    forced = by_hand(template)
    assert forced.cost.tolist() == [0, 256, 256, 512]
    steps = needed.measure_steps(forced)
    found = needed.compute([forced], draws=9)
    # by path: run 0's paths 0 .. 3 are right at steps (0), (2), none, (0, 1); run 1's at (3), (0), (1), (3)
    expected = np.array([[0, 512, 256, np.nan], [256, 256, np.nan, 0]])
    np.testing.assert_array_equal(steps.needed, expected)
    assert steps.counted.tolist() == [[True, True, True, False], [True, True, False, True]]

    def each(quantity):
        return [row.value for row in found.find(quantity, unit="run")]

    assert each("needed") == [(256 + 256) / 2, (256 + 0) / 2]
    assert each("used") == [(200 + 200) / 2, (400 + 500) / 2]
    assert each("waste") == [(150 + 0) / 2, (144 + 500) / 2]
    assert each("shortfall") == [(206 + 56) / 2, 0]
    assert each("no_path_right") == [0, 0.25]
    assert each("likeliest_right") == [0.25, 0.25]


def test_what_one_expert_carries_is_what_a_step_needs(template):
    player = (1, 2)
    forced = plant_bit(template, player)
    found = needed.compute([forced], draws=39)
    steps = needed.measure_steps(forced)
    np.testing.assert_array_equal(
        steps.needed, np.broadcast_to(np.where(forced.bot_action == 1, 32.0**2, 0), (8, len(steps.episode)))
    )
    assert found.row("needed_used").value == pytest.approx(1) and found.row("needed_used").p <= 0.05
    assert found.row("no_path_right").value == 0
    # among the paths of 32^2 there are two: the one that carries the bit, and the one that does not
    row = found.row("path_matters")
    fold, bit = forced.episode % 2, forced.bot_action
    elsewhere = [bit[(fold != f) & (forced.subgoal == x)].any() for f, x in zip(fold, forced.subgoal, strict=True)]
    each = [bit[(forced.episode == e) & elsewhere] for e in range(24)]
    assert row.value == pytest.approx(np.mean([values.mean() for values in each if len(values)])) and row.p < 0.001
    assert found.row("path_matters_for_ce").value == pytest.approx(row.value * np.log(2), rel=1e-5)


def test_noise_has_no_correlation_beyond_time_and_level(template):
    rows = []
    for seed in range(30):
        forced = plant_forced(template, rng(seed))
        rows.append(needed.compute([forced], draws=39, seed=seed).row("needed_used"))
    above = np.array([row.value - row.null_mean for row in rows])
    assert np.mean([row.value for row in rows]) > 0.05  # time alone gives some
    assert abs(above.mean()) < 4 * above.std(ddof=1) / np.sqrt(30)
    assert sum(row.p <= 0.05 for row in rows) <= 5
    planted = needed.compute([plant_forced(template, rng(), coupling=0.5)], draws=39).row("needed_used")
    assert planted.value > planted.null_mean + 0.1 and planted.p <= 0.05


def test_paths_of_one_cost_differ_only_where_that_was_planted(template):
    alike = [
        needed.compute([plant_forced(template, rng(s), wrong=0.03)], draws=1).row("path_matters") for s in range(20)
    ]
    assert abs(np.mean([row.value for row in alike])) < 0.01 and sum(row.p <= 0.05 for row in alike) <= 4
    other = needed.compute([plant_forced(template, rng(), wrong=0.03, matters=0.4)], draws=1).row("path_matters")
    assert other.value > 0.05 and other.p < 0.01


def test_what_exchanged_actions_need_is_the_null_of_needed(template):
    forced = plant_bit(template, (0, 1))
    # where all paths do the same everywhere, exchanging changes nothing
    same = replace(forced, bot_action=np.zeros_like(forced.bot_action), action=np.zeros_like(forced.action),
                   soft_action=np.zeros_like(forced.soft_action))  # fmt: skip
    row = needed.compute([same], draws=9).row("needed")
    assert row.value == row.null_mean == 0
    found = needed.compute([same], draws=9)
    assert np.isnan(found.row("needed_used").value)
    assert {entry.reason for entry in found.dropped} == {
        "all steps need the same",
        "no path was needed that shares its cost",
    }


def test_across_tasks_costs_follow_needs(template):
    cells = []
    for number in range(5):
        forced = plant_bit(template, (0, 1 if number < 2 else 2))
        runs = tuple(replace(run, task=f"T{number}") for run in forced.runs)
        cells.append(replace(forced, runs=runs, used=forced.used * (number + 1)))
    across = needed.compute(cells, draws=199).row("needed_used_across")
    assert across.value == pytest.approx(0.866, abs=0.001)  # ties
    assert across.n_levels == 5 and across.p > 0.05  # five levels in two kinds
    assert across.p_floor >= 1 / 120 and needed.compute(cells, draws=9).row("needed_used_across").p_floor == 0.1
    few = needed.compute(cells, held_out=["T4"], draws=1)
    assert not few.find("needed_used_across") and few.find("needed", task="T4")
    assert any("5 tasks or more at a setting, found 4" in note for note in few.notes)


def test_results_do_not_depend_on_order_and_are_the_same_again(template):
    forced = [plant_forced(template, rng(seed)) for seed in (0, 1)]
    forced[1] = replace(forced[1], runs=tuple(replace(run, task="Other") for run in forced[1].runs))
    first, again = (needed.compute(each, draws=19).to_csv() for each in (forced, forced))
    assert first == again
    back = needed.compute(forced[::-1], draws=19).to_csv()
    assert sorted(first.splitlines()) == sorted(back.splitlines())


def test_a_file_is_read_as_it_was_written_and_a_damaged_one_is_named(template, tmp_path):
    forced, path = plant_forced(template, rng()), tmp_path / "f.npz"
    write_forced(path, forced)
    again = read_forced(path)
    assert again.runs == forced.runs and again.sizes == forced.sizes
    np.testing.assert_array_equal(again.action, forced.action)
    assert needed.compute([again], draws=3).to_csv() == needed.compute([forced], draws=3).to_csv()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TraceError, match=r"f\.npz: expected forced paths"):
        read_forced(path)
    with pytest.raises(TraceError, match="used: expected shape"):
        replace(forced, used=forced.used[:, :3])


def test_prices_of_paths():
    assert price_paths(np.array([[0, 2], [1, 1]]), SIZES).tolist() == [1024, 512]


def test_correlation_is_within_episodes():
    episode = np.repeat([0, 1], 3)
    need = np.array([[1.0, 2, 3, 11, 12, 13]])
    steps = needed.Steps(episode, need, need, np.ones((1, 6), bool), np.zeros((1, 6, 1)))
    opposed = np.array([[3.0, 2, 1, 13, 12, 11]])
    assert needed.correlate_within(opposed, need, steps)[0] == pytest.approx(-1)
    assert np.isnan(needed.correlate_within(np.repeat([[1.0, 2]], 3, axis=1), need, steps)[0])
    assert EpisodeBlocks(episode).exchangeable == 1


def test_only_who_asks_has_every_path_forced(monkeypatch, tmp_path):
    from science.config import read_study
    from science.plan import build_design

    monkeypatch.chdir(tmp_path)
    flags = ["--tasks", "GoToObj", "--seeds", "0-1", "--lpc_alphas", "0,1e-3"]
    design = build_design(read_study("test", flags)[0], {})
    items = list_items(design, ["price", "needed"])
    assert [item.name for item in items] == [f"force/BabyAI-GoToObj-v0/alpha={a}" for a in ("0", "0.001")]
    assert len(items[0].needs) == 2 and items[0].sources == SOURCES
    assert list_items(design, ["price"]) == []
