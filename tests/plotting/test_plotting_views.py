"""Routing in time, its distributions, its relations: numbers by hand on ten steps, intervals, figures of odd data."""

import ast
import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.figure import Figure
from matplotlib.text import Text

import plotting_utils
from plotting.aggregate import group_routing_data
from plotting.data import as_routing_data
from plotting.distributions import (
    compute_entropy,
    compute_path_frequencies,
    plot_action_frequencies,
    plot_entropy_distribution,
    plot_path_frequencies,
    plot_weight_distributions,
)
from plotting.relations import (
    compute_distance_profile,
    compute_specialisation,
    known_aspects,
    known_places,
    plot_distance_profiles,
    plot_specialisation,
)
from plotting.temporal import compute_event_aligned, find_events, plot_episode, plot_event_aligned
from plotting.views import CACHE_VIEWS, OTHER_VIEWS, ViewOptions, draw_view, list_views
from tests.tables import NAMES, random_tables

T2 = 4.302652729749462  # Student's t with 2 degrees of freedom, 97.5 %
ROOT = Path(__file__).parents[2]
LARGE = [0.0, 0.5, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def ten_steps(**changes):
    """Return three episodes of 4, 3 and 3 steps, experts [0, 4]: LPC is 16 x the weight of the large one."""
    routing, episodes = random_tables(0, [4, 3, 3], [[0, 4]])
    large = np.array(LARGE, np.float32)
    unlocked = NAMES["event_names"].index("unlocked")
    event = np.array([0, unlocked, unlocked, 0, 0, 0, unlocked, 0, 0, 0], np.int8)
    walking = np.full((10, 3), np.nan, np.float32)
    walking[:, 0] = [0, 1, 1, np.nan, 0, 0, 1, 1, 1, 0]
    columns = {
        "weights": (np.stack([1 - large, large], axis=1),),
        "lpc": 16 * large,
        "event": event,
        "walking": walking,
        "action": np.array([0, 0, 2, 2, 2, 2, 0, 2, 2, 2], np.int8),
        "expert_action": np.array([0, 1, 2, -1, 2, 2, 2, 2, 2, 2], np.int8),
    }
    routing = dataclasses.replace(routing, **(columns | changes))
    return routing, dataclasses.replace(episodes, outcome=np.array([1, 3, -1], np.int8))


def texts(figure: Figure) -> str:
    """Return all that is written in a figure, a line of text each."""
    return "\n".join(" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_visible())


# ----------------------------------------------------------------------------------------------------------- in time


def test_events_are_counted_by_episode():
    assert find_events(ten_steps()) == {"unlocked": 2}


def test_aligned_on_an_event_by_hand():
    """First event of each episode; the window ends with the episode; nothing is padded."""
    aligned = compute_event_aligned(ten_steps(), "unlocked", before=2, after=2)
    assert aligned.offsets.tolist() == [-2, -1, 0, 1, 2]
    assert aligned.lpc.n.tolist() == [1, 2, 2, 1, 1]
    np.testing.assert_allclose(aligned.lpc.mean, [0, 0, 12, 16, 8])
    np.testing.assert_allclose(aligned.weights[0].mean[:, 1], [0, 0, 0.75, 1, 0.5])
    assert np.isnan(aligned.lpc.low).all()  # never three episodes
    assert (aligned.num_events, aligned.num_episodes) == (2, 3)


def align(data, before=2, after=2):
    aligned = compute_event_aligned(data, "unlocked", before, after)
    return aligned, aligned.lpc.mean.tolist(), aligned.lpc.n.tolist()


def test_a_subset_is_aligned_by_time_steps_not_by_rows():
    """Rows were counted, so that the step two after the event stood at offset 1."""
    event = np.array([1, 0, 0, 0, 1, 0, 0, 1, 0, 0], np.int8) * NAMES["event_names"].index("unlocked")
    data = as_routing_data(ten_steps(event=event))  # at step 0 of each episode
    even = data.filter(data.routing.t_step % 2 == 0)
    aligned, mean, n = align(even)
    assert n == [0, 0, 3, 0, 3]
    np.testing.assert_allclose(mean, [np.nan, np.nan, 16 / 3, np.nan, 16])  # steps 0: 0, 0, 16; steps 2: 16, 16, 16
    assert [bar.get_height() for bar in plot_event_aligned(aligned)[-1].patches] == [0, 0, 3, 0, 3]
    for values in (mean, n):  # however the rows are ordered
        assert np.array_equal(values, align(even.filter(np.arange(len(even))[::-1]))[1 + (values is n)], equal_nan=True)


def test_a_group_of_carrying_is_aligned_by_time_steps():
    unlocked = NAMES["event_names"].index("unlocked")
    event = np.array([0, 0, unlocked, 0, 0, unlocked, 0, 0, 0, 0], np.int8)
    carrying = np.array([1, 0, 1, 1, 1, 1, 0, 1, 1, 1], bool)
    data = as_routing_data(ten_steps(event=event, carrying=carrying))
    group = next(part for key, part in group_routing_data(data, "carrying").items() if len(part) == 8)
    aligned, mean, n = align(group)
    # episode 0: steps 0, 2, 3 and the event at 2; episode 1: steps 0, 1 and the event at 1
    assert n == [1, 1, 2, 1, 0] and (aligned.num_events, aligned.num_episodes) == (2, 3)
    np.testing.assert_allclose(mean, [0, 0, 8, 8, np.nan])


def test_an_event_whose_step_is_left_out_does_not_count():
    data = as_routing_data(ten_steps())  # events at steps 1 and 2 of episode 0, at step 2 of episode 1
    later = data.filter(data.routing.t_step != 1)
    aligned, mean, n = align(later)
    assert n == [2, 0, 2, 1, 0] and aligned.num_events == 2  # the first that is there
    np.testing.assert_allclose(mean, [0, np.nan, 16, 8, np.nan])
    alone = data.filter((data.routing.t_step != 2) | (data.routing.episode != 1))
    assert align(alone)[0].num_events == 1
    with pytest.raises(ValueError, match=r"happens here \(none does\)"):
        align(data.filter(data.routing.event == 0))


def test_steps_of_unknown_time_are_counted_as_they_come():
    known = as_routing_data(ten_steps())
    time = np.where(known.routing.episode == 0, -1, known.routing.t_step).astype(np.int32)
    assert align(ten_steps(t_step=np.full(10, -1, np.int32)))[2] == align(known)[2] == [1, 2, 2, 1, 1]
    part = as_routing_data(ten_steps(t_step=time))
    assert align(part)[1:] == align(known)[1:]
    left = part.filter((part.routing.episode != 1) | (part.routing.t_step != 1))
    assert align(left)[2] == [1, 1, 2, 1, 1]  # the times of episode 1 count, although those of episode 0 are not known


def test_an_event_has_to_happen():
    with pytest.raises(ValueError, match=r"happens here \(unlocked\), found 'picked'"):
        compute_event_aligned(ten_steps(), "picked")
    with pytest.raises(ValueError, match="before, after"):
        compute_event_aligned(ten_steps(), "unlocked", before=-1)


def test_the_figure_around_an_event_says_how_many_reach_an_offset():
    axes = plot_event_aligned(compute_event_aligned(ten_steps(), "unlocked", 2, 2))
    assert [bar.get_height() for bar in axes[-1].patches] == [1, 2, 2, 1, 1]
    written = texts(axes[0].figure)
    assert "2 of 3 episodes have the event" in written and "n episodes" in written
    hollow = [line for line in axes[0].lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == 5
    assert not any(len(part.get_segments()) for part in axes[0].collections)  # no intervals below three


def test_an_episode_is_drawn_step_by_step():
    routing, episodes = ten_steps()
    axes = plot_episode((routing, episodes), 0)
    assert len(axes) == 3  # a layer, LPC, entropy
    skip, large = axes[0].patches
    np.testing.assert_allclose(skip.get_data().values, [1, 0.5, 0, 0.5])
    np.testing.assert_allclose(large.get_data().values, [1, 1, 1, 1])
    np.testing.assert_allclose(axes[1].patches[0].get_data().values, [0, 8, 16, 8])
    written = texts(axes[0].figure)
    assert "Episode 0" in written and episodes.mission[0] in written and "success" in written
    assert written.count("unlocked") == 2 and "Time step of the episode" in written


def test_an_episode_has_to_have_steps():
    with pytest.raises(ValueError, match=r"episode: expected one that has steps \(0 to 2\), found 3"):
        plot_episode(ten_steps(), 3)


def test_layouts_are_no_episodes():
    data = dataclasses.replace(as_routing_data(ten_steps()), layouts_only=True)
    for call in (lambda: plot_episode(data, 0), lambda: compute_event_aligned(data, "unlocked")):
        with pytest.raises(ValueError, match="layouts"):
            call()
    assert not {"episode", "events"} & set(list_views(data))
    assert "3 layouts" in texts(plot_entropy_distribution(data).figure)


def test_the_typical_episode_is_of_those_that_have_steps_here():
    routing, episodes = ten_steps()
    data = as_routing_data((routing, dataclasses.replace(episodes, steps=np.full(3, -1, np.int32))))
    assert data.typical_episode == 0  # the one success
    assert data.filter(routing.episode > 0).typical_episode == 1  # of two that are equally long
    failed = as_routing_data((routing, dataclasses.replace(episodes, outcome=np.full(3, 3, np.int8))))
    assert failed.typical_episode == 2  # of 3, 3 and 4 steps
    assert list(draw_view(failed, "episode", ViewOptions())) == ["routing_episode_2"]


# ----------------------------------------------------------------------------------------------------- distributions


def test_entropy_by_hand():
    np.testing.assert_allclose(
        compute_entropy(np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]])), [0.693147, 0, 0.562335], atol=1e-6
    )


def test_paths_by_hand():
    paths = compute_path_frequencies(ten_steps())
    assert paths.paths.tolist() == [[0], [1]] and paths.shares.rows.tolist() == [5, 5]  # equal weights: the first
    assert paths.path_lpc.tolist() == [0.0, 16.0]
    np.testing.assert_allclose(paths.mean_lpc, [3.2, 16.0])
    np.testing.assert_allclose(paths.shares.mean, [0.5, 0.5])


@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_paths_are_a_partition_of_the_steps(seed, lengths):
    tables = random_tables(seed, lengths)
    paths = compute_path_frequencies(tables)
    assert paths.shares.rows.sum() == sum(lengths) and paths.shares.mean.sum() == pytest.approx(1.0)
    assert (np.diff(paths.shares.rows) <= 0).all() and len({tuple(path) for path in paths.paths}) == len(paths.paths)


def test_paths_not_shown_are_summed_up():
    paths = compute_path_frequencies(random_tables(3, [30, 30, 30]))
    written = texts(plot_path_frequencies(paths, top=2).figure)
    share = 1 - paths.shares.mean[:2].sum()
    assert f"{len(paths.paths) - 2} rarer paths not shown, together {share:.1%} of the steps" in written
    assert "3 episodes, 90 steps" in written


def test_weights_are_drawn_as_shares_of_steps():
    (ax,) = plot_weight_distributions(ten_steps())
    x, share = ax.lines[1].get_data()  # the large expert
    at = {weight: share[int(np.argmin(np.abs(x - weight)))] for weight in (0.0, 0.01, 0.5, 0.51, 1.0)}
    assert at == pytest.approx({0.0: 1.0, 0.01: 0.7, 0.5: 0.7, 0.51: 0.5, 1.0: 0.5})


def test_actions_are_compared_where_the_expert_has_an_answer():
    ax = plot_action_frequencies(ten_steps())
    heights = [round(bar.get_height() * 9) for bar in ax.patches]
    assert heights == [3, 0, 6, 0, 0, 0, 0, 1, 1, 7, 0, 0, 0, 0]  # agent, then expert, over nine steps
    written = texts(ax.figure)
    assert "1 of them without the expert's answer" in written and f"agree in {7 / 9:.1%}" in written


def test_actions_of_an_unknown_expert_are_those_of_the_agent():
    ax = plot_action_frequencies(ten_steps(expert_action=np.full(10, -1, np.int8)))
    assert len(ax.patches) == 7 and "no expert recorded" in texts(ax.figure)
    with pytest.raises(ValueError, match="recorded actions"):
        plot_action_frequencies(ten_steps(unknown=frozenset(["action"])))


# --------------------------------------------------------------------------------------------------------- relations


def test_distances_by_hand():
    assert known_places(ten_steps()) == ["door"]
    profile = compute_distance_profile(ten_steps(), "door")
    assert profile.edges.tolist() == [0, 1, 2] and profile.unknown == 1
    np.testing.assert_allclose(profile.lpc.mean, [16 / 3, 44 / 3])  # means of (0, 0, 16) and (12, 16, 16)
    assert profile.lpc.n.tolist() == [3, 3] and profile.lpc.rows.tolist() == [4, 5]
    np.testing.assert_allclose(profile.lpc.high - profile.lpc.mean, [T2 * 16 / 3, T2 * 4 / 3])
    np.testing.assert_allclose(profile.weights[0].mean[:, 1], [1 / 3, 11 / 12])


def test_many_distances_share_bins_of_equal_width():
    walking = np.full((10, 3), np.nan, np.float32)
    walking[:, 2] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    profile = compute_distance_profile(ten_steps(walking=walking), "target", most_bins=4)
    assert profile.edges.tolist() == [0, 3, 6, 9, 12] and profile.lpc.rows.tolist() == [3, 3, 3, 1]
    with pytest.raises(ValueError, match=r"recorded \(target\), found 'door'"):
        compute_distance_profile(ten_steps(walking=walking), "door")


def test_specialisation_by_hand():
    found = compute_specialisation(ten_steps(), "action")
    assert found.names == ["left", "forward"]
    np.testing.assert_allclose(found.weights[0].mean[:, 1], [0.625, 7 / 12])
    assert found.weights[0].n.tolist() == [2, 3] and found.weights[0].rows.tolist() == [3, 7]
    assert np.isnan(found.weights[0].low[0]).all() and np.isfinite(found.weights[0].low[1]).all()


def test_specialisation_by_outcome_counts_what_is_not_known():
    found = compute_specialisation(ten_steps(), "outcome")
    assert found.names == ["success", "timeout"] and found.unknown == 3
    written = texts(plot_specialisation(ten_steps(), ("outcome",))[0, 0].figure)
    assert "3 steps without outcome" in written and "4 steps, n = 1" in written and "n < 3" in written
    with pytest.raises(ValueError, match="by: expected one of"):
        compute_specialisation(ten_steps(), "colour")


def test_what_was_not_recorded_is_named():
    data = ten_steps(subgoal=np.full(10, -1, np.int8))
    assert "subgoal" not in known_aspects(data)
    axes = plot_specialisation(data, ("action", "subgoal"))
    assert axes.shape == (1, 1) and "subgoal not recorded" in texts(axes[0, 0].figure)
    with pytest.raises(ValueError, match="found none"):
        plot_specialisation(data, ("subgoal",))


# ------------------------------------------------------------------------------------------------------- any figure


def drawers(layers=1):
    """Return each plot function as (number of axes by row and column, call with data and axes)."""
    return {
        "episode": ((layers + 2,), lambda d, a: plot_episode(d, 0, a)),
        "events": ((layers + 2,), lambda d, a: plot_event_aligned(compute_event_aligned(d, "unlocked"), a)),
        "weights": ((layers,), plot_weight_distributions),
        "entropy": ((), plot_entropy_distribution),
        "paths": ((), lambda d, a: plot_path_frequencies(compute_path_frequencies(d), a)),
        "actions": ((), plot_action_frequencies),
        "distances": ((layers + 2, 1), lambda d, a: plot_distance_profiles(d, ["door"], a)),
        "specialisation": ((1, layers), lambda d, a: plot_specialisation(d, ["action"], a)),
    }


@pytest.mark.parametrize("name", drawers())
def test_given_axes_come_back_and_inputs_stay_as_they_are(name):
    shape, draw = drawers()[name]
    figure = Figure()
    given_axes = np.array([figure.add_subplot() for _ in range(int(np.prod(shape)))], object).reshape(shape)
    data = ten_steps()
    before = copy.deepcopy(data)
    found = draw(data, given_axes if shape else given_axes.item())
    assert list(np.ravel(found)) == list(np.ravel(given_axes)) and figure.get_axes() == list(np.ravel(given_axes))
    for table, old in zip(data, before, strict=True):
        for key, value in vars(old).items():
            np.testing.assert_equal(getattr(table, key), value)


BASELINE = ["overall", "actions", "behaviour", "cell_actions", "actions_by_carrying"]
"""Views that need no routers."""

ODD = {
    "one step": lambda: random_tables(1, [1]),
    "one episode": lambda: random_tables(1, [7]),
    "layers unlike": lambda: random_tables(1, [9, 8, 7], [[0, 16, 32, 64], [8], [0, 8]]),
    "always the same": lambda: ten_steps(
        weights=(np.tile(np.float32([1, 0]), (10, 1)),), lpc=np.zeros(10, np.float32), entropy=np.zeros(10, np.float32)
    ),
    "sizes unknown": lambda: ten_steps(expert_hidden_sizes=[]),
    "layouts": lambda: dataclasses.replace(as_routing_data(ten_steps()), layouts_only=True),
    "no routers": lambda: random_tables(2, [5, 6], []),
    "seven experts": lambda: random_tables(2, [5, 6], [[0, 2, 4, 8, 8, 16, 32]]),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_data_can_be_drawn(kind):
    data = ODD[kind]()
    supported = list_views(data)
    assert supported and (kind != "no routers" or supported == BASELINE)
    options = ViewOptions(event=next(iter(find_events(data)), None))
    for view in (name for name in supported if name in OTHER_VIEWS):
        for figure in draw_view(data, view, options).values():
            figure.draw_without_rendering()


@pytest.mark.parametrize("view", ["overall", "outcome"])
def test_heatmaps_show_the_pictures_they_are_given(view):
    key = {"overall": "overall", "outcome": "success"}[view]
    picture = np.full((6, 6, 3), 7, np.uint8)
    options = ViewOptions(pictures={key: picture}, missions={key: "go to the seven"})
    (figure,) = draw_view(ten_steps(), view, options).values()
    shown = [image.get_array() for ax in figure.axes for image in ax.get_images()]
    assert any(np.array_equal(image, picture) for image in shown)
    assert "go to the seven" in texts(figure)


def test_a_view_that_data_does_not_support_is_refused():
    with pytest.raises(ValueError, match=r"supports \(overall, actions, behaviour, .*\), found 'paths'"):
        draw_view(random_tables(2, [5, 6], []), "paths", ViewOptions())
    with pytest.raises(ValueError, match=r"view: expected one of overall, .*, found 'pathways'"):
        draw_view(ten_steps(), "pathways", ViewOptions())
    assert len(set(CACHE_VIEWS)) == len(CACHE_VIEWS)


NO_PYPLOT = """
import sys
import plotting.command
print([name for name in ("matplotlib.pyplot", "torch", "transformers", "minigrid", "scipy") if name in sys.modules])
"""


def test_nothing_is_left_open_because_pyplot_is_not_there():
    """Figures are not registered with pyplot, so that a notebook or a loop over caches piles up none."""
    done = subprocess.run(
        [sys.executable, "-c", NO_PYPLOT], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_plotting_utils_offers_every_figure_and_its_numbers():
    root = Path(plotting_utils.__file__).parent / "plotting"
    nodes = [node for path in root.glob("*.py") for node in ast.parse(path.read_text(encoding="utf-8")).body]
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    offered = {name for name in names if name.startswith(("plot_", "compute_"))} - {"compute_map_size"}  # of a sheet
    assert len(offered) > 20
    assert [name for name in sorted(offered) if not hasattr(plotting_utils, name)] == []
