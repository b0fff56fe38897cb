"""What colours and axes mean: absolute scales, collapsed routers, one colour for one thing, a given width and font."""

import dataclasses
import itertools
import json

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds
from plotting.cells import legend_entries, render_lpc_heatmap, render_routing_heatmap
from plotting.collapse import collapse_banner, find_collapse
from plotting.data import as_routing_data
from plotting.distributions import plot_entropy_distribution
from plotting.heatmaps import plot_grouped_routing, plot_overall_routing
from plotting.options import parse_width
from plotting.replicates import join_runs
from plotting.scales import Marks, choose_axis, choose_lpc_scale, describe_scale
from plotting.style import (
    EXPERT_COLORS,
    alpha_color,
    current_size,
    expert_colors,
    expert_hues,
    figure_size,
    layer_style,
)
from plotting.temporal import compute_event_aligned, plot_episode, plot_event_aligned
from plotting.views import ViewOptions, draw_view
from tests.figures import known_views, layout_problems, texts, texts_outside
from tests.tables import build_context, random_tables


def build_data(lengths=(30, 40, 20), sizes=((0, 16, 32), (0, 16, 32)), replaced=None, lpc=None):
    """Return episodes in a level of 8 x 8; with `lpc` all weight on skip and that LPC at each step."""
    routing, episodes = random_tables(0, list(lengths), [list(layer) for layer in sizes])
    routing = dataclasses.replace(routing, position=np.clip(routing.position % 7, 1, 6).astype(np.int16))
    if lpc is not None:
        skip = tuple(np.eye(w.shape[1], dtype=np.float32)[np.zeros(len(w), int)] for w in routing.weights)
        routing = dataclasses.replace(routing, weights=skip, lpc=np.resize(np.asarray(lpc, np.float32), len(routing)))
    contexts = tuple(build_context(k) for k in range(len(episodes)))
    data = as_routing_data((routing, dataclasses.replace(episodes, env_context=contexts)))
    return dataclasses.replace(data, replaced=replaced)


def lpc_bars(figure):
    """Return the ends of the colour bars of LPC."""
    bars = [bar for ax in figure.axes if (bar := getattr(ax, "_colorbar", None)) and bar.cmap.name == "viridis"]
    return sorted((bar.vmin, bar.vmax) for bar in bars)


# ------------------------------------------------------------------------------------------------------------- scales


def test_maps_go_from_zero_to_the_largest_lpc_unless_asked_otherwise():
    """An LPC of 1.8 to 4.8 filled the colour map as one of 300 to 2,000 does."""
    data = build_data()
    assert lpc_bars(plot_overall_routing(data)) == [(0, 1024), (0, 1024), (0, 2048)]
    assert lpc_bars(plot_grouped_routing(data, "outcome")) == [(0, 2048)]
    for figure in (
        plot_overall_routing(data, scale="relative"),
        plot_grouped_routing(data, "outcome", scale="relative"),
    ):
        assert all(low > 0 and high < 2048 for low, high in lpc_bars(figure))
        assert any("relative scale" in text for text in texts(figure))
    with pytest.raises(ValueError, match="scale: expected one of absolute, relative, found 'log'"):
        plot_overall_routing(data, scale="log")


def test_layers_whose_scales_differ_say_so():
    figure = plot_overall_routing(build_data(sizes=[[0, 16, 32], [0, 8]]))
    assert lpc_bars(figure) == [(0, 64), (0, 1024), (0, 1088)]
    assert any("layers differ: 1,024, 64" in text for text in texts(figure))


def test_another_price_of_an_expert_sets_scales_and_what_is_collapsed():
    """With lpc_exponent 1 layers were drawn at size^2, and routers at a tenth of the most were called collapsed."""
    data = build_data(lpc=[3.0, 5.0])
    assert find_collapse(data) == ["zero"]
    linear = dataclasses.replace(data, routing=dataclasses.replace(data.routing, lpc_exponent=1.0))
    assert find_collapse(linear) == [""] and collapse_banner(linear) == ""
    assert linear.largest_lpc == 64 and [costs.tolist() for costs in linear.expert_costs] == [[0, 16, 32]] * 2
    assert lpc_bars(plot_overall_routing(linear)) == [(0, 32), (0, 32), (0, 64)]
    assert aggregate_routing_by_position(linear).largest_lpc == 64
    assert "from 0 to the largest possible, 64 (32 in each layer)" in describe_scale(linear, Marks())
    root = dataclasses.replace(data, routing=dataclasses.replace(data.routing, lpc_exponent=0.5))
    assert "from 0 to the largest possible, 11.3 (5.7 in each layer)" in describe_scale(root, Marks())
    with pytest.raises(ValueError, match="lpc_exponent: expected the same in all tables"):
        join_runs([data, linear])


def test_cells_with_few_steps_set_no_scale():
    """Five "Close" steps set a maximum of 1,000 and darkened all the rest."""
    values, visits = {(1, 1): 100.0, (2, 1): 200.0, (3, 1): 1000.0}, {(1, 1): 50, (2, 1): 50, (3, 1): 2}
    assert choose_lpc_scale([(values, visits)], None, Marks()) == (100.0, 200.0)
    assert choose_lpc_scale([(values, visits)], 3072, Marks(scale="relative")) == (100.0, 200.0)
    assert choose_lpc_scale([(values, dict.fromkeys(values, 1))], None, Marks()) == (100.0, 1000.0)  # all are rare
    assert choose_lpc_scale([(values, visits)], 3072, Marks()) == (0.0, 3072.0)
    assert choose_lpc_scale([(values, visits)], 0, Marks()) == (0.0, 200.0)  # sizes are not known
    ax = Figure().add_subplot()
    render_lpc_heatmap(ax, values, compute_grid_bounds(list(values)), visits=visits)
    colors = np.asarray(ax.collections[0].get_array()).reshape(-1, 3)
    np.testing.assert_allclose(colors[1], mpl.colormaps["viridis"](1.0)[:3], atol=1e-6)


def test_curves_of_a_collapsed_router_lie_at_the_bottom():
    low, high = choose_axis([1.8, 4.8], 3072)
    assert low < 0 < 300 < high
    assert choose_axis([300.0, 2000.0, np.nan], 3072)[1] == pytest.approx(2120)
    low, high = choose_axis([340.0, 400.0], 3072, "relative")
    assert 330 < low < 340 and 400 < high < 410
    data = build_data(lpc=[2.0, 5.0])
    event = compute_event_aligned(build_data(), "unlocked")
    for axes in (plot_episode(data, 0), plot_event_aligned(dataclasses.replace(event, data=data))):
        assert max(ax.get_ylim()[1] for ax in axes) >= 204


# ----------------------------------------------------------------------------------------------------------- collapse


@pytest.mark.parametrize(("lpc", "found"), [([2.0, 5.0], "zero"), ([512.0], "constant"), ([512.0, 700.0], "")])
def test_routing_that_does_not_vary_is_named_in_every_view(lpc, found):
    data = build_data(lpc=lpc)
    assert find_collapse(data) == [found]
    for view in known_views(data):
        for figure in draw_view(data, view, ViewOptions()).values():
            named = any("Collapsed router" in text for text in texts(figure))
            assert named == (bool(found) and view != "actions") or (view == "actions" and named == bool(found)), view


def test_collapsed_runs_among_others_are_counted():
    runs = join_runs([build_data(), build_data(lpc=[512.0]), build_data(lpc=[1.0])])
    assert find_collapse(runs) == ["", "constant", "zero"]
    assert collapse_banner(runs).startswith("Collapsed routers in 2 of 3 runs")
    assert collapse_banner(build_data()) == ""


def test_replaced_levels_are_told_in_every_view():
    data = build_data(replaced=96)
    for view in known_views(data):
        for figure in draw_view(data, view, ViewOptions()).values():
            written = " ".join(" ".join(texts(figure)).split())
            assert "96 of 99 levels were replaced by others: the expert cannot solve them" in written, view
    assert not any("replaced" in text for text in texts(plot_overall_routing(build_data(replaced=0))))


# ------------------------------------------------------------------------------------------------------------ colours


def test_an_expert_has_the_colour_of_its_kind():
    blue, orange, plum, teal = EXPERT_COLORS[:4]
    assert expert_colors([0, 16, 32], 3) == [blue, orange, plum]
    assert expert_colors([32, 16, 0], 3) == [plum, orange, blue]  # by index, the large one was blue like skip elsewhere
    assert expert_colors([0, 16, 32, 64], 4) == [blue, orange, teal, plum]
    assert expert_colors([16, 32], 2) == [orange, plum]
    assert expert_colors([0, 8], 2) == [blue, orange]
    assert expert_hues(None, 3) == [0, 1, 2]
    equal = expert_hues([16] * 6, 6)
    assert len(set(equal)) == 6 and 0 not in equal  # none of them is skip
    assert max(expert_hues([16] * 12, 12)) == 8  # "other"
    assert legend_entries([[0, 16, 32], [32, 0]], [3, 2]) == [("skip", 0), ("small (16; 32)", 1), ("large (32)", 2)]


def test_maps_and_stacks_paint_an_expert_alike():
    data = build_data(sizes=[[32, 16, 0], [0, 16, 32]])
    large = np.eye(3, dtype=np.float32)
    weights = (large[np.zeros(len(data), int)], large[np.full(len(data), 2)])
    data = dataclasses.replace(data, routing=dataclasses.replace(data.routing, weights=weights))
    averages, grid = aggregate_routing_by_position(data), compute_grid_bounds(data)
    for layer in data.layer_names:
        ax = Figure().add_subplot()
        render_routing_heatmap(ax, averages, grid, layer)
        colors = {tuple(color) for color in np.asarray(ax.collections[0].get_array()).reshape(-1, 3).round(5)}
        assert tuple(np.round(to_rgb(EXPERT_COLORS[2]), 5)) in colors
    patches = [patch for ax in plot_episode(data, 0)[:2] for patch in ax.patches]
    assert to_rgb(EXPERT_COLORS[2]) in {to_rgb(patch.get_facecolor()) for patch in patches}


def test_colours_of_alpha_are_in_order_and_the_same_everywhere():
    """They were dark for 1e-5, teal for 0 and lime for 1e-4."""
    alphas = [1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2]
    light = [np.dot(to_rgb(alpha_color(alpha)), (0.299, 0.587, 0.114)) for alpha in alphas]
    assert light == sorted(light, reverse=True) and min(-np.diff(light)) > 0.05
    red, green, blue = to_rgb(alpha_color(0.0))
    assert red == green == blue  # none of the greens
    assert len({layer_style(layer) for layer in range(8)}) == 8


def test_layers_are_told_apart_without_an_experts_colour():
    ax = plot_entropy_distribution(build_data())
    drawn = {to_rgb(patch.get_edgecolor()) for patch in ax.patches}
    assert len(drawn) == 2 and all(len(set(color)) == 1 for color in drawn)


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("text", "inches"), [("180mm", 7.0866), ("8.5 cm", 3.3465), ("3.5in", 3.5), ("7", 7.0)])
def test_widths_have_units(text, inches):
    assert parse_width(text) == pytest.approx(inches, abs=1e-4)


@pytest.mark.parametrize("text", ["wide", "180", "0mm", "-3in", "5px"])
def test_what_is_no_width_is_refused(text):
    with pytest.raises(ValueError, match="width: expected such as 180mm"):
        parse_width(text)


@pytest.mark.parametrize("width", ["85mm", "180mm"])
def test_figures_are_as_wide_as_asked_and_nothing_is_cut_off(width):
    data = build_data(lengths=(12, 11, 9, 10), sizes=[(0, 16, 32)] * 3)
    options = ViewOptions(width=parse_width(width), font=7.0, event="unlocked")
    for view in known_views(data):
        for name, figure in draw_view(data, view, options).items():
            assert figure.get_figwidth() == pytest.approx(parse_width(width)), name
            assert texts_outside(figure) == [], name
            sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
            assert max(sizes) <= 13 * 7 / 9 + 1e-6, name
    assert current_size().width is None  # nothing stays set


@pytest.mark.parametrize("sizes", [[(0, 16, 32)] * 3, [(0, 8, 16, 32, 64), (16, 32), (0, 8), (0, 8)]])
def test_maps_of_a_column_lie_beside_each_other(sizes):
    with figure_size(parse_width("85mm"), 7.0):
        assert layout_problems(plot_overall_routing(build_data(sizes=sizes))) == []
        assert texts_outside(plot_grouped_routing(build_data(sizes=sizes), "outcome")) == []


# -------------------------------------------------------------------------------------------------------- what is read


def test_the_json_of_a_cache_can_be_drawn_and_its_list_says_what_it_lacks(tmp_path):
    """A list gave an empty figure with a red line, the dict a TypeError."""
    from pipeline.records.cache import read_cache, write_cache

    data = build_data()
    rooms = tuple(c | {"agent_start_room": [3 * (k % 2), 0]} for k, c in enumerate(data.episodes.env_context))
    episodes = dataclasses.replace(data.episodes, env_context=rooms)
    path = tmp_path / "routing_data.json"
    header = {"checkpoint_path": "c.pt", "evaluated_at": "2026-03-01T12:00:00+00:00"}
    metrics = {"success_rate": 1.0, "path_ratio": None, "mean_lpc": 1.0, "bot_plan_failures": 7}
    write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=data.routing)
    content = json.loads(path.read_text())
    whole, read = as_routing_data(content), as_routing_data(read_cache(path))
    np.testing.assert_array_equal(whole.routing.lpc, read.routing.lpc)
    assert whole.replaced == read.replaced == 7
    for group_by in ("by_starting_room", "agent_start_room"):
        assert "2 episodes\n50 steps" in texts(plot_grouped_routing(content, group_by))
    with pytest.raises(ValueError, match="pass the whole dict, not its list routing_data alone"):
        plot_grouped_routing(content["routing_data"], "by_starting_room")
    assert texts(plot_overall_routing(content["routing_data"]))  # what needs no level is drawn
    assert "routing_data" in content  # and nothing was taken out of it


def test_any_field_of_the_level_groups():
    data = build_data()
    figure = plot_grouped_routing(data, "target_pos")
    assert "Target pos (3, 4)" in texts(figure) and "40 of 90 steps not shown: target_pos is not known" in texts(figure)
    assert len(plot_grouped_routing(data, "by_walls").axes) > 3
    with pytest.raises(
        ValueError, match=r"group_by: expected one of overall, .*; or a field of env_context: agent_start"
    ):
        plot_grouped_routing(data, "weather")


def test_hues_are_of_kinds_for_any_sizes():
    for sizes in itertools.product((0, 4, 8, 16), repeat=3):
        hues = expert_hues(sizes, 3)
        assert len(set(hues)) == 3
        assert all((hue == 0) == (size == 0 and sizes.index(0) == place) for place, (size, hue) in
                   enumerate(zip(sizes, hues, strict=True)))  # fmt: skip


def test_a_relative_axis_of_lpc_says_so_and_does_not_begin_at_zero():
    data = build_data(lpc=[340.0, 400.0])
    for view in ("distances", "events", "episode", "elapsed"):
        for figure in draw_view(data, view, ViewOptions(scale="relative")).values():
            axes = [ax for ax in figure.axes if ax.get_ylabel() == "LPC,\nrelative"]
            assert len(axes) == 1 and 100 < axes[0].get_ylim()[0] < 340, view
