"""Behaviour by cell and group, its association with LPC, prices side by side: planted policies of known answer."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.places import find_caches
from plotting.actions import plot_actions_by, plot_cell_actions
from plotting.aggregate import group_routing_data
from plotting.association import compute_associations, plot_associations
from plotting.behaviour import compute_behaviour, known_facts, plot_behaviour, step_policies
from plotting.command import main
from plotting.data import PlotError, as_routing_data
from plotting.prices import find_price_series, plot_price_maps
from plotting.replicates import join_runs
from plotting.scales import Marks
from plotting.style import alpha_color
from plotting.without_time import plot_without_time
from tests.tables import random_tables

EPISODES, LENGTH = 80, 10
FIRM = 50.0  # a logit that leaves no doubt


def planted(seed=0, **columns):
    """Return one run whose columns are functions of (x, direction, carrying, time, episode's noise)."""
    routing, episodes = random_tables(seed, [LENGTH] * EPISODES, [[0, 16, 32]])
    rng = np.random.default_rng(seed)
    steps = EPISODES * LENGTH
    x = rng.integers(1, 5, steps)
    facts = {
        "x": x,
        "direction": rng.integers(0, 4, steps),
        "carrying": rng.random(steps) < 0.5,
        "time": np.tile(np.arange(LENGTH), EPISODES),
        "noise": np.repeat(rng.standard_normal(EPISODES), LENGTH),
    }
    position = np.column_stack([x, rng.integers(1, 4, steps)]).astype(np.int16)
    fixed = {"position": position, "direction": facts["direction"].astype(np.int8), "carrying": facts["carrying"]}
    made = {name: np.asarray(function(facts)) for name, function in columns.items()}
    made = {name: value.astype(getattr(routing, name).dtype) for name, value in made.items()}
    return as_routing_data((dataclasses.replace(routing, **fixed, **made), episodes))


def logits(action):
    return FIRM * np.eye(7)[action]


def test_a_policy_that_knows_its_heading_has_entropy_in_a_cell_and_none_in_a_state():
    data = planted(action_logits=lambda f: logits(f["direction"]))
    group = compute_behaviour(data, state=["direction"]).groups[0]
    assert all(1.7 < low <= 2 for low, _ in group.entropy.values())
    assert group.cell_information.high < 0.15
    assert 1.7 < group.state_information.low <= group.state_information.high <= 2.0001
    assert all(value < 0.2 for value in group.kl_global.values())
    alone = compute_behaviour(data, state=[]).groups[0]
    assert alone.state_information == alone.cell_information


def test_a_policy_that_knows_its_cell_is_far_from_the_policy_of_all_steps():
    data = planted(action_logits=lambda f: logits(f["x"] - 1))
    group = compute_behaviour(data, state=[]).groups[0]
    assert all(low == pytest.approx(0, abs=1e-6) for low, _ in group.entropy.values())
    assert all(1.8 < value < 2.3 for value in group.kl_global.values())
    assert group.kl_local == group.kl_global  # one group


def test_each_group_is_its_own_local_reference():
    data = planted(action_logits=lambda f: logits(f["carrying"].astype(int)))
    empty, full = compute_behaviour(data, "carrying").groups
    for group in (empty, full):
        assert max(group.kl_local.values()) == pytest.approx(0, abs=1e-6)
        assert all(0.8 < value < 1.2 for value in group.kl_global.values())


def test_without_logits_actions_taken_stand_for_the_policy_and_the_figure_says_so():
    data = planted(action=lambda f: f["direction"], action_logits=lambda f: np.full((len(f["x"]), 7), np.nan))
    found = compute_behaviour(data)
    assert found.from_actions
    assert found.groups[0].state_information.low > 1.5
    assert "actions taken" in " ".join(text.get_text() for text in plot_behaviour(found).texts)


def test_of_several_runs_each_counts_once():
    certain = planted(0, action_logits=lambda f: logits(f["x"] * 0))
    undecided = planted(1, action_logits=lambda f: np.zeros((len(f["x"]), 7)))
    both = compute_behaviour(join_runs([certain, undecided])).groups[0]
    alone = compute_behaviour(undecided).groups[0]
    place = (2, 2)
    assert both.entropy[place][0] == pytest.approx(alone.entropy[place][0] / 2)
    assert both.kl_global[place] == pytest.approx(0, abs=1e-6)  # each run has its own reference
    assert both.visits[place] == alone.visits[place] + compute_behaviour(certain).groups[0].visits[place]


def scale_ends(figure, label):
    """Return the ends of the colour bars of a label."""
    bars = [bar for ax in figure.axes if (bar := getattr(ax, "_colorbar", None))]
    return [(bar.vmin, bar.vmax) for bar in bars if label in (bar.ax.get_xlabel(), bar.ax.get_ylabel())]


def test_where_no_cell_has_enough_steps_all_set_the_scale():
    """Entropies of 2 bits were drawn on a scale to 0.05, differences of 500 on one to 1: all cells saturated."""
    data = planted(action_logits=lambda f: logits(f["direction"]), lpc=lambda f: 500.0 * f["x"])
    found = compute_behaviour(data, state=["direction"])
    entropy, kl, information = scale_ends(plot_behaviour(found, min_steps=1000), "bits")
    assert entropy[1] > 1.7 and information[1] > 0.5
    assert kl[1] == pytest.approx(max(found.groups[0].kl_global.values()))
    ((low, high),) = scale_ends(plot_without_time(data, "overall", Marks(min_visits=1000)), "difference")
    assert low == -high and high > 400


def test_of_several_runs_a_cell_is_hatched_where_no_run_has_enough_steps():
    """Ten runs of two steps each in a cell were taken for one estimate of twenty steps."""
    runs = [planted(seed) for seed in range(3)]
    (group,) = compute_behaviour(join_runs(runs)).groups
    each = [compute_behaviour(run).groups[0].visits for run in runs]
    assert group.most_visits == {place: max(visits[place] for visits in each) for place in group.visits}
    assert max(group.most_visits.values()) < 120 < min(group.visits.values())
    figure = plot_behaviour(compute_behaviour(join_runs(runs)), min_steps=120)
    hatched = [sum(len(c.get_paths()) for c in ax.collections if c.get_hatch()) for ax in figure.axes]
    assert hatched[0] == len(group.visits)
    assert "fewer than 120 steps in each run" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_a_group_of_one_of_several_runs_says_so():
    runs = [planted(seed) for seed in range(2)]
    empty = dataclasses.replace(runs[1].routing, carrying=np.zeros(EPISODES * LENGTH, bool))
    joined = join_runs([runs[0], dataclasses.replace(runs[1], routing=empty)])
    sizes = [group.data.describe_size().split(", ")[0] for group in compute_behaviour(joined, "carrying").groups]
    assert sizes == ["2 runs", "1 run"]


def test_an_unknown_fact_of_a_state_is_refused():
    data = planted()
    with pytest.raises(PlotError, match="state: expected some of direction, carrying, door_unlocked, found 'mood'"):
        compute_behaviour(data, state=["mood"])
    routing = dataclasses.replace(data.routing, unknown=frozenset({"carrying"}))
    with pytest.raises(PlotError, match="carrying was not recorded"):
        compute_behaviour(dataclasses.replace(data, routing=routing), state=["carrying"])
    assert "carrying" not in known_facts(dataclasses.replace(data, routing=routing))


def test_policies_are_softmax_of_the_logits():
    data = planted(action_logits=lambda f: np.tile(np.log([1, 2, 3, 4, 5, 6, 7]), (len(f["x"]), 1)))
    policies, from_actions = step_policies(data)
    np.testing.assert_allclose(policies[0], np.arange(1, 8) / 28, rtol=1e-6)
    assert not from_actions


@pytest.mark.parametrize("group_by", ["overall", "carrying", "subgoal"])
def test_figures_of_actions_are_drawn_for_any_grouping(group_by):
    data = planted()
    assert isinstance(plot_cell_actions(data, group_by), Figure)
    ax = plot_actions_by(data, group_by)
    heights = [patch.get_height() for patch in ax.patches]
    assert sum(heights) == pytest.approx(len(ax.containers))  # the shares of each group sum to 1


# ---------------------------------------------------------------------------------------------------------- association


def undecided_in_the_east(f):
    return np.where((f["x"] >= 3)[:, None], 0.0, 1.0) * logits(f["direction"] * 0)


def test_lpc_that_follows_the_entropy_of_cells_is_found_and_that_of_a_common_drift_is_not():
    tied = [
        planted(seed, action_logits=undecided_in_the_east, lpc=lambda f: 500 * (f["x"] >= 3) + 10 * f["noise"])
        for seed in range(3)
    ]
    free = [
        planted(seed, action_logits=undecided_in_the_east, lpc=lambda f: 500 / (1 + f["time"]) + 50 * f["noise"])
        for seed in range(3)
    ]
    table = compute_associations({"tied": join_runs(tied), "free": join_runs(free)}, draws=39)
    table = table[table["quantity"] == "action entropy"].set_index("setting")
    assert table.loc["tied", "mean"] > 0.6 and max(table.loc["tied", "run_ps"]) <= 0.05
    assert table.loc["tied", "p_adjusted"] >= table.loc["tied", "p"]
    assert abs(table.loc["free", "mean"]) < 0.5
    assert table.loc["free", "low"] < table.loc["free", "chance"] < table.loc["free", "high"]
    assert (table["n_runs"] == 3).all() and (table["method"] == "t").all()


def walked_east(seed):
    """Return a run whose LPC is told by the time alone, and whose agents walk away from where the episode begins."""
    data = planted(seed, lpc=lambda f: 900.0 * np.exp(-f["time"] / 2) + f["noise"])
    rng = np.random.default_rng(seed)
    time = data.routing.t_step
    x = (
        1 + np.minimum(time, LENGTH - 1 - time) * 3 // 4
    )  # and come back, so that the mean time of all cells is the same
    position = np.column_stack([x, rng.integers(1, 4, len(time))]).astype(np.int16)
    walking = np.where(np.arange(data.routing.walking.shape[1]) == 0, 7 - x[:, None], -1).astype(np.int16)
    routing = dataclasses.replace(data.routing, position=position, walking=walking.astype(data.routing.walking.dtype))
    return dataclasses.replace(data, routing=routing)


def test_lpc_that_follows_the_time_is_no_association_with_distance_however_large_the_correlation():
    table = compute_associations({"": join_runs([walked_east(seed) for seed in range(4)])}, draws=39)
    (row,) = table[table["quantity"] == "distance to door"].itertuples()
    assert min(row.rhos) > 0.3 or max(row.rhos) < -0.3
    assert row.chance == pytest.approx(row.mean, abs=0.1)
    assert row.p > 0.05


def test_without_exchanges_there_is_no_test():
    table = compute_associations({"": join_runs([planted(seed) for seed in range(3)])}, draws=0)
    assert table["mean"].notna().all() and table[["chance", "p", "p_adjusted"]].isna().all(axis=None)
    assert "unlike chance" not in plot_associations(table)[0].figure.get_supxlabel()


def test_the_divergence_from_all_steps_is_not_that_from_the_steps_of_the_group():
    """Grouped, a cell's policy was compared with that of its group, which "KL from all steps" does not say.

    Empty-handed the agent turns left in the west and right in the east, carrying it turns right everywhere. A cell of
    the west is nearer to the group's policy than one of the east is, and farther from that of all steps.
    """

    def policy(f):
        return np.where(f["carrying"][:, None], logits(1 + 0 * f["x"]), logits(np.where(f["x"] >= 4, 1, 0)))

    data = planted(action_logits=policy, lpc=lambda f: 900.0 * (f["x"] < 4) + f["noise"])
    found = compute_associations({"": data}, "carrying", draws=0).set_index(["group", "quantity"])
    runs = compute_behaviour(data, "carrying").groups[0]
    west, east = ([value for (x, _), value in runs.kl_global.items() if (x < 4) == side] for side in (True, False))
    assert min(west) > max(east)
    assert found.loc[("Empty-handed", "KL from all steps"), "mean"] > 0.5


def test_a_run_that_never_reaches_a_group_is_counted():
    runs = [planted(seed) for seed in range(3)]
    empty = dataclasses.replace(runs[2].routing, carrying=np.zeros(EPISODES * LENGTH, bool))
    joined = join_runs([*runs[:2], dataclasses.replace(runs[2], routing=empty)])
    table = compute_associations({"": joined}, "carrying", draws=0).set_index("group")
    assert (table.loc["Carrying", "n_dropped"] == 1).all() and (table.loc["Empty-handed", "n_dropped"] == 0).all()


def test_steps_without_an_action_are_no_turns_to_the_left():
    unknown = planted(action=lambda f: np.where(f["time"] == 0, -1, 2),
                      action_logits=lambda f: np.full((len(f["x"]), 7), np.nan))  # fmt: skip
    with pytest.raises(PlotError, match="found steps without"):
        compute_behaviour(unknown)


@pytest.mark.parametrize("draw", [lambda data: plot_behaviour(compute_behaviour(data)), plot_cell_actions,
                                  plot_without_time, lambda data: plot_price_maps({"a": data, "b": data})])  # fmt: skip
def test_maps_say_that_routers_collapsed_and_levels_were_replaced_and_leave_room_for_it(draw):
    data = dataclasses.replace(planted(lpc=lambda f: 2 + 0 * f["x"]), replaced=50)
    figure = draw(data)
    renderer = FigureCanvasAgg(figure).get_renderer()
    words = " ".join(text.get_text() for text in figure.texts)
    assert "ollapsed router" in words and "levels were replaced" in words
    highest = max(ax.get_tightbbox(renderer).y1 for ax in figure.axes)
    last = [text for text in figure.texts if "replaced" in text.get_text()][-1]
    assert last.get_window_extent(renderer).y0 >= highest - 1


def test_associations_over_prices_name_the_price_whose_router_collapsed():
    settings = {"a": planted(0), "b": dataclasses.replace(planted(1, lpc=lambda f: 2 + 0 * f["x"]), replaced=50)}
    (axes,) = plot_associations(compute_associations(settings, draws=0), data=settings)
    title = axes.figure.legends[0].get_title().get_text()
    assert title.startswith("b: Collapsed router") and "a: " not in title
    assert "levels were replaced" in axes.figure.get_supxlabel().replace("\n", " ")


def test_a_price_has_its_colour_of_all_figures(routing_caches):
    (series,) = find_price_series(find_caches(routing_caches))[0]
    assert list(series.colors.values()) == [alpha_color(0.0), alpha_color(0.001), alpha_color(0.001)]
    axes = plot_associations(compute_associations(series.load(), draws=0), colors=series.colors)
    (legend,) = axes[0].figure.legends
    assert [handle.get_color() for handle in legend.legend_handles] == list(series.colors.values())


def test_two_settings_of_one_price_are_told(routing_caches, tmp_path):
    """A denominator that nothing is divided by makes two settings of one price: one is shown, the other named."""
    folder = shutil.copytree(routing_caches, tmp_path / "caches")
    (path,) = folder.glob("*/trial_3/*/routing_data.json")
    other = path.parents[2] / "trial_4" / "seed_0" / path.name
    other.parent.mkdir(parents=True)
    text = path.read_text(encoding="utf-8")
    changed, times = re.subn(r'("lpc_denominator": ?)"\w+"', r'\1"other"', text)
    assert times == 1
    other.write_text(changed, encoding="utf-8")
    (series,), notes = find_price_series(find_caches(folder))
    assert len(series.settings) == 3
    assert len(notes) == 1 and "of the same price as" in notes[0]


def test_a_constant_lpc_is_dropped_and_counted():
    runs = [planted(0, lpc=lambda f: 7 + 0 * f["x"]), planted(1), planted(2), planted(3)]
    table = compute_associations({"": join_runs(runs)}, draws=0)
    assert (table["n_dropped"] == 1).all() and (table["n_runs"] == 3).all()
    assert all(np.isnan(rhos[0]) for rhos in table["rhos"])
    axes = plot_associations(table)
    assert "runs without a correlation" in axes[0].figure.get_supxlabel().replace("\n", " ")


def test_a_single_run_is_tested_by_exchanged_episodes_and_twice_alike():
    data = planted(0)
    first, second = (compute_associations({"": data}, "carrying", draws=19) for _ in range(2))
    assert first.equals(second)
    assert set(first["method"]) == {"exchanged episodes"} and (first["p_floor"] == 0.05).all()
    assert len(plot_associations(first)) == 2


# --------------------------------------------------------------------------------------------------------------- prices


def test_prices_are_found_told_apart_and_drawn(routing_caches):
    """Two prices, one of them normalised too, of a shared small cache that differs in its header only."""
    series, notes = find_price_series(find_caches(routing_caches))
    assert notes == []
    assert [list(found.settings) for found in series] == [
        ["\N{GREEK SMALL LETTER ALPHA} = 0", "\N{GREEK SMALL LETTER ALPHA} = 0.001",
         "\N{GREEK SMALL LETTER ALPHA} = 0.001, normalised"]
    ]  # fmt: skip
    figure = plot_price_maps(series[0].load(), title="Small")
    assert {text.get_text() for text in figure.texts} >= set(series[0].settings)


def test_the_command_draws_prices_and_refuses_them_where_there_are_none(routing_caches, tmp_path, capsys):
    arguments = ["--all_caches", str(routing_caches), "--over_prices", "--output_dir", str(tmp_path / "plots")]
    assert main([*arguments, "--view", "price_maps,association", "--group_by", "starting_room"]) == 0
    names = {path.name for path in (tmp_path / "plots").rglob("*.png")}
    assert names == {"price_maps_by_starting_room.png", "association_by_starting_room.png"}
    assert main([*arguments, "--list"]) == 0 and "3 prices" in capsys.readouterr().out
    (tmp_path / "one").mkdir()
    place = next(iter(find_caches(routing_caches))).path
    alone = tmp_path / "one" / place.relative_to(routing_caches)
    alone.parent.mkdir(parents=True)
    alone.write_bytes(place.read_bytes())
    assert main(["--all_caches", str(tmp_path / "one"), "--over_prices"]) == 2
    assert "differ in the price" in capsys.readouterr().err
    assert main(["--all_caches", str(routing_caches), "--view", "price_maps"]) == 2
    assert "--over_prices" in capsys.readouterr().err
    assert main(["--cache", str(alone), "--over_prices"]) == 2
    assert main(["--all_caches", str(routing_caches), "--group_by", "mood"]) == 2
    assert "group_by: expected one of overall" in capsys.readouterr().err


def test_prices_without_a_step_in_a_group_say_why():
    """A task without a lock by key phase ended in an IndexError, and what was still to be drawn with it."""
    data = planted()
    without = dataclasses.replace(data, routing=dataclasses.replace(data.routing, unknown=frozenset({"door_unlocked"})))
    assert not group_routing_data(without, "key_phase")
    (title, words) = (text.get_text() for text in plot_price_maps({"a": without, "b": without}, "key_phase").texts)
    assert "by price and " in title and "No step is in a group: " in words


@pytest.fixture(scope="module")
def routing_caches(tmp_path_factory):
    """Return a folder of three caches of one run, their headers of different prices."""
    from pipeline.config import TrainConfig
    from pipeline.records.cache import write_cache

    folder = tmp_path_factory.mktemp("prices")
    task = "BabyAI-GoToObjS4-v0"
    routing, episodes = random_tables(0, [6] * 30, [[0, 16, 32]])
    for trial, (alpha, normalised) in enumerate([(0.001, True), (0.0, False), (0.001, False)], start=1):
        config = TrainConfig(task_id=task, trial=trial, lpc_alpha=alpha, normalize_lpc=normalised)
        path = folder / task / f"trial_{trial}" / "seed_0" / "routing_data.json"
        header = {
            "checkpoint_path": f"{trial}.pt",
            "evaluated_at": "2026-01-01T00:00:00",
            "task_id": task,
            "update": 10,
        }
        header |= {"config": json.loads(json.dumps(config.to_dict()))}
        write_cache(path, header=header, metrics={}, episodes=episodes, routing=routing)
    return folder
