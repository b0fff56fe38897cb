"""Heatmaps: colours by hand, true coordinates, what is drawn when there is little or nothing to draw."""

import copy
import dataclasses
import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds, get_available_analyses
from plotting.cells import (
    draw_expert_legend,
    legend_labels,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_visits_heatmap,
    routing_colors,
    short_count,
)
from plotting.data import as_routing_data
from plotting.heatmaps import plot_grouped_routing, plot_overall_routing
from plotting.scales import compute_lpc_scale
from plotting.style import (
    EXPERT_CMAPS,
    EXPERT_COLORS,
    UNVISITED_COLOR,
    WALL_COLOR,
    expert_color,
    expert_labels,
    figure_style,
    save_figure,
)
from tests.figures import layout_problems, texts
from tests.tables import build_context, random_tables

GRID = compute_grid_bounds([(2, 3), (5, 4)])
AVERAGES = {
    (2, 3): {"layer_0": np.array([1.0, 0.0, 0.0])},
    (3, 3): {"layer_0": np.array([0.2, 0.6, 0.2])},
    (5, 4): {"layer_0": np.array([1, 1, 1]) / 3},
}


@pytest.fixture
def ax():
    return Figure(figsize=(3, 3)).add_subplot()


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    assert plt.get_fignums() == []


def cell_colors(ax, grid_info):
    mesh = next(artist for artist in ax.collections if isinstance(artist, QuadMesh))
    colors = np.asarray(mesh.get_array())
    assert colors.shape == (grid_info["grid_height"], grid_info["grid_width"], 3)
    return colors


# ------------------------------------------------------------------------------------------------------- single maps


def test_hue_is_the_dominant_expert_and_intensity_its_weight(ax):
    assert render_routing_heatmap(ax, AVERAGES, GRID, "layer_0") is ax
    colors = cell_colors(ax, GRID)
    assert colors.shape == (2, 4, 3)
    np.testing.assert_allclose(colors[0, 0], to_rgb(EXPERT_COLORS[0]), atol=1e-6)
    np.testing.assert_allclose(colors[0, 1], EXPERT_CMAPS[1]((0.6 - 1 / 3) / (2 / 3))[:3], atol=1e-6)
    np.testing.assert_allclose(colors[1, 3], EXPERT_CMAPS[0](0.0)[:3], atol=1e-6)  # uniform
    np.testing.assert_allclose(colors[1, 0], to_rgb(UNVISITED_COLOR), atol=1e-6)


def test_ticks_are_true_coordinates(ax):
    render_routing_heatmap(ax, AVERAGES, GRID, "layer_0")
    assert ax.get_xticks().tolist() == [2, 3, 4, 5] and ax.get_yticks().tolist() == [3, 4]
    assert ax.get_xlim() == (1.5, 5.5) and ax.get_ylim() == (4.5, 2.5)  # y downwards
    ax.figure.draw_without_rendering()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "3", "4", "5"]


def test_a_cell_is_where_its_coordinates_are(ax):
    render_routing_heatmap(ax, {(4, 4): {"layer_0": np.array([1.0, 0.0])}}, GRID, "layer_0")
    assert np.argwhere((cell_colors(ax, GRID) != to_rgb(UNVISITED_COLOR)).any(axis=-1)).tolist() == [[1, 2]]
    mesh = next(a for a in ax.collections if isinstance(a, QuadMesh))
    assert mesh.get_coordinates()[1, 2].tolist() == [3.5, 3.5]  # upper left corner of (4, 4)


def test_large_grids_have_few_ticks(ax):
    render_routing_heatmap(ax, {}, compute_grid_bounds([(0, 0), (21, 21)]), "layer_0")
    assert ax.get_xticks().tolist() == [0, 5, 10, 15, 20]


def test_nothing_visited_and_a_single_cell_draw(ax):
    render_routing_heatmap(ax, {}, GRID, "layer_0")
    assert (cell_colors(ax, GRID) == to_rgb(UNVISITED_COLOR)).all()
    render_lpc_heatmap(ax, {}, GRID)
    render_visits_heatmap(ax, {}, GRID)
    one = compute_grid_bounds([(7, 9)])
    single = Figure().add_subplot()
    render_routing_heatmap(single, {(7, 9): {"layer_0": np.array([1.0])}}, one, "layer_0")
    assert single.get_xticks().tolist() == [7] and single.get_yticks().tolist() == [9]
    render_visits_heatmap(single, {(7, 9): 1}, one)
    single.figure.draw_without_rendering()


def test_rarely_visited_cells_are_hatched_and_counts_shown(ax):
    visits = {(2, 3): 1200, (3, 3): 4, (5, 4): 5}
    render_routing_heatmap(ax, AVERAGES, GRID, "layer_0", visits=visits, min_visits=5, show_counts=True)
    (hatched,) = [a for a in ax.collections if isinstance(a, PatchCollection)]
    assert len(hatched.get_paths()) == 1 and hatched.get_hatch()
    assert {t.get_text(): t.get_position() for t in ax.texts} == {"1.2k": (2, 3), "4": (3, 3), "5": (5, 4)}


@pytest.mark.parametrize(("count", "text"), [(7, "7"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9950, "10k"),
                                             (123456, "123k"), (3_400_000, "3.4M")])  # fmt: skip
def test_counts_have_four_characters(count, text):
    assert short_count(count) == text


def test_walls_lie_under_the_heat_by_their_share(ax):
    grid_info = GRID | {"walls": {(2, 3): 1.0, (4, 3): 1.0, (4, 4): 0.5, (90, 90): 1.0}, "doors": {(3, 3): 0.5}}
    render_routing_heatmap(ax, AVERAGES, grid_info, "layer_0")
    colors = cell_colors(ax, GRID)
    np.testing.assert_allclose(colors[0, 0], to_rgb(EXPERT_COLORS[0]), atol=1e-6)  # visited where another has a wall
    np.testing.assert_allclose(colors[0, 2], to_rgb(WALL_COLOR), atol=1e-6)
    np.testing.assert_allclose(colors[1, 2], np.mean([to_rgb(WALL_COLOR), to_rgb(UNVISITED_COLOR)], axis=0), atol=1e-6)
    (doors,) = [a for a in ax.collections if isinstance(a, PatchCollection)]
    assert doors.get_edgecolor()[0, 3] == pytest.approx(0.625)


def test_rooms_are_outlined_where_walls_are_not_known(ax):
    render_routing_heatmap(ax, AVERAGES, GRID | {"room_bounds": [[0, 0, 4, 4], [3, 0, 4, 4]]}, "layer_0")
    assert [patch.get_bbox().bounds for patch in ax.patches] == [(0, 0, 3, 3), (3, 0, 3, 3)]


def test_lpc_has_the_given_scale(ax):
    assert render_lpc_heatmap(ax, {(2, 3): 0.0, (5, 4): 50.0}, GRID, vmin=0, vmax=100) is ax
    colors = cell_colors(ax, GRID)
    viridis = mpl.colormaps["viridis"]
    np.testing.assert_allclose(colors[0, 0], viridis(0.0)[:3], atol=1e-6)
    np.testing.assert_allclose(colors[1, 3], viridis(0.5)[:3], atol=1e-6)


def test_scale_of_a_constant_router_does_not_magnify_rounding():
    low, high = compute_lpc_scale([256.0, 256.0001])
    assert high - low == pytest.approx(2.56, rel=1e-3) and low < 256 < high
    assert compute_lpc_scale([0.0, 0.0]) == (-0.5, 0.5)
    assert compute_lpc_scale([100.0, 300.0, np.nan]) == (100.0, 300.0)
    assert compute_lpc_scale([]) == (0.0, 1.0)


def test_values_that_are_no_numbers_are_marked(ax):
    render_routing_heatmap(ax, {(2, 3): {"layer_0": np.array([np.nan, 1.0])}}, GRID, "layer_0")
    render_lpc_heatmap(ax, {(2, 3): np.nan, (3, 3): 4.0}, GRID)
    assert [text.get_text() for text in ax.texts] == ["?", "?"]


def test_mistakes_are_named(ax):
    with pytest.raises(ValueError, match="layer_name: expected one of layer_0, found 'layer_7'"):
        render_routing_heatmap(ax, AVERAGES, GRID, "layer_7")
    with pytest.raises(ValueError, match=r"\(9, 9\) outside"):
        render_lpc_heatmap(ax, {(9, 9): 1.0}, GRID)


def test_legend_says_what_hue_and_intensity_mean(ax):
    assert draw_expert_legend(ax, ["skip", "small (16)", "large (32)"]) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["skip", "small (16)", "large (32)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.33", "0.67", "1"]
    single = Figure().add_subplot()
    draw_expert_legend(single, ["skip"])  # always of weight 1


def test_names_of_experts():
    assert expert_labels([0, 16, 32]) == ["skip", "small (16)", "large (32)"]
    assert expert_labels([64, 32, 128]) == ["medium (64)", "small (32)", "large (128)"]
    assert expert_labels([16]) == ["size 16"]
    assert expert_labels([8, 0, 8]) == ["size 8 #1", "skip", "size 8 #2"]
    assert expert_labels([1, 2, 3, 4]) == ["size 1", "size 2", "size 3", "size 4"]
    assert legend_labels([[0, 16], [0, 32, 64]], [2, 3]) == ["skip", "small (16; 32)", "large (64)"]
    assert legend_labels([[0, 16], [0, 16]], [2, 2]) == ["skip", "size 16"]
    assert legend_labels([], [2]) == ["expert 0", "expert 1"]


# ---------------------------------------------------------------------------------------------------------- colours


MACHADO = {  # severity 1, linear RGB
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_LMS = np.array(
    [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.62998]]
)
TO_OKLAB = np.array(
    [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.02590, 0.78277, -0.80868]]
)


@pytest.mark.parametrize("vision", MACHADO)
def test_experts_are_told_apart_at_both_ends(vision):
    def see(color):
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return TO_OKLAB @ np.cbrt(TO_LMS @ np.clip(np.array(MACHADO[vision]) @ linear, 0, 1))

    def least(colors):
        return min(float(np.linalg.norm(see(a) - see(b))) for a, b in itertools.combinations(colors, 2))

    light, full = [cmap(0.0) for cmap in EXPERT_CMAPS], [cmap(1.0) for cmap in EXPERT_CMAPS]
    assert len(EXPERT_CMAPS) == 8 and full == [(*to_rgb(color), 1.0) for color in EXPERT_COLORS]
    assert least(full) > 0.13 and least(full[:3]) > 0.19
    assert least([*light, UNVISITED_COLOR]) > 0.07 and least([*light[:3], UNVISITED_COLOR]) > 0.08


def test_experts_beyond_the_eighth_share_a_grey_that_names_none_of_them():
    colors = [expert_color(expert) for expert in range(10)]
    assert len(set(colors)) == 9 and colors[8] == colors[9]
    assert len({*to_rgb(colors[9])}) == 1
    weights = np.zeros((10, 10))
    np.fill_diagonal(weights, 1.0)
    np.testing.assert_allclose(routing_colors(weights), [to_rgb(color) for color in colors], atol=1e-6)


# ----------------------------------------------------------------------------------------------------- whole figures


def build_data(seed=0, lengths=(30, 40, 20), sizes=((0, 16, 32), (0, 16, 32))):
    routing, episodes = random_tables(seed, list(lengths), [list(layer) for layer in sizes])
    position = np.clip(routing.position % 7, 1, 6).astype(np.int16)
    routing = dataclasses.replace(routing, position=position)
    shared = {"room_grid_shape": [2, 1], "room_bounds": [[0, 0, 4, 8], [3, 0, 5, 8]]}
    contexts = tuple(build_context(k) | shared | {"agent_start_room": [3 * (k % 2), 0]} for k in range(len(episodes)))
    return as_routing_data((routing, dataclasses.replace(episodes, env_context=contexts)))


def test_overall_figure_shows_each_layer_and_says_how_much_it_rests_on():
    figure = plot_overall_routing(build_data(), title_suffix=", test")
    found = texts(figure)
    for expected in ("Routing, test", "3 episodes, 90 steps", "Layer 0", "Layer 1", "LPC, total", "LPC, layer 1"):
        assert expected in found
    assert {"Visits", "skip", "small (16)", "large (32)", "mean routing weight"} <= set(found)
    assert "“go to the red ball 0”" in found
    assert layout_problems(figure) == []


def test_overall_figure_with_picture_filter_and_counts():
    data = build_data()
    picture = np.zeros((64, 64, 3), np.uint8)
    mask = np.arange(len(data)) < 30
    figure = plot_overall_routing(data, picture, "go to the red ball", mask, show_counts=True, show_layer_lpc=False)
    assert "1 episode, 30 steps" in texts(figure) and "LPC, layer 0" not in texts(figure)
    assert any(ax.images for ax in figure.axes)
    assert layout_problems(figure) == []
    same = plot_overall_routing(data, picture, "go to the red ball", lambda record: record["episode"] == 0)
    assert "1 episode, 30 steps" in texts(same)


def test_maps_of_layers_have_their_own_scales():
    sizes = [[0, 1], [0, 100]]
    figure = plot_overall_routing(build_data(sizes=sizes))
    bars = [artist for ax in figure.axes if (artist := getattr(ax, "_colorbar", None))]
    ends = sorted(bar.vmax for bar in bars if bar.cmap.name == "viridis")
    assert len(ends) == 3 and ends[0] < 2 < 1000 < ends[-1]


def test_grouped_figure_has_a_row_per_group_and_common_bounds():
    data = build_data()
    figure = plot_grouped_routing(data, "starting_room")
    found = texts(figure)
    for expected in ("Routing by starting room", "Left", "Right", "2 episodes\n50 steps", "1 episode\n40 steps"):
        assert expected in found
    maps = [ax for ax in figure.axes if ax.get_xlim() == (-0.5, 7.5)]
    assert len(maps) == 2 * (1 + 2 + 1)
    assert {ax.get_ylim() for ax in maps} == {(7.5, -0.5)}
    assert len({tuple(ax.get_position().size.round(6)) for ax in maps}) == 1
    assert layout_problems(figure) == []


@pytest.mark.parametrize("name", ["carrying", "key_phase", "agent_quadrant", "subgoal", "outcome", "mission_verb"])
def test_every_grouping_draws(name):
    figure = plot_grouped_routing(build_data(lengths=(9, 8, 9, 9)), name, show_counts=True)
    assert layout_problems(figure) == []


def test_grouped_figure_says_what_it_leaves_out():
    data = build_data()
    figure = plot_grouped_routing(data, "target_quadrant")
    assert "40 of 90 steps not shown: the target is not known" in texts(figure)
    figure = plot_grouped_routing(data, "starting_room", max_groups=1)
    assert "1 smaller group not shown (40 steps)" in texts(figure) and "Left" in texts(figure)


def test_grouped_figure_takes_pictures_by_key():
    picture = np.zeros((8, 8, 3), np.uint8)
    images = {(0, 0): [picture, picture], (3, 0): []}
    figure = plot_grouped_routing(build_data(), "starting_room", images, {(0, 0): "go to the red ball"})
    assert sum(bool(ax.images) for ax in figure.axes) == 1
    assert "“go to the red ball”" in texts(figure)


def test_collapsed_router_draws():
    data = build_data()
    always = np.zeros_like(data.routing.weights[0])
    always[:, 1] = 1
    lpc = np.full_like(data.lpc, 512.0)
    data = dataclasses.replace(data, routing=dataclasses.replace(data.routing, weights=(always, always), lpc=lpc))
    figure = plot_overall_routing(data)
    figure.draw_without_rendering()
    assert layout_problems(plot_grouped_routing(data, "outcome")) == []
    averages = aggregate_routing_by_position(data)
    ax = Figure().add_subplot()
    render_routing_heatmap(ax, averages, compute_grid_bounds(data), "layer_0")
    visited = {tuple(color) for color in cell_colors(ax, compute_grid_bounds(data)).reshape(-1, 3).round(5)}
    assert tuple(np.round(to_rgb(EXPERT_COLORS[1]), 5)) in visited


def test_baseline_without_routers_gets_a_message():
    data = build_data(sizes=())
    assert not data.has_routing and get_available_analyses(data)[0] == "overall"
    figure = plot_overall_routing(data)
    assert any("no routers" in text for text in texts(figure)) and "Visits" in texts(figure)
    assert layout_problems(figure) == []
    assert any("no routers" in text for text in texts(plot_grouped_routing(data, "starting_room")))


def test_no_steps_get_a_message():
    data = build_data()
    nothing = np.zeros(len(data), bool)
    for figure in (
        plot_overall_routing(data, filter_fn=nothing),
        plot_grouped_routing(data, "outcome", filter_fn=nothing),
        plot_overall_routing([]),
    ):
        assert any("no steps" in text for text in texts(figure))
    unknown = plot_grouped_routing([{"position": [1, 1], "layer_routing": {"layer_0": [1.0]}}], "carrying")
    assert any("No step is in a group" in text for text in texts(unknown))


def test_old_records_with_little_in_them_draw():
    level = {"agent_start_room": [0, 0], "room_grid_shape": [2, 1], "target_pos": None}
    records = [
        {"position": (x, 2), "layer_routing": {"layer_0": [0.5, 0.5]}, "lpc": 1.0, "env_context": level}
        for x in (1, 2, 4)
    ]
    for figure in (plot_overall_routing(records), plot_grouped_routing(records, "starting_room")):
        assert any("1 layout, 3 steps" in text or "1 layout\n3 steps" in text for text in texts(figure))
        assert {"expert 0", "expert 1"} <= set(texts(figure))
        assert layout_problems(figure) == []


def test_six_experts_of_different_sizes_and_a_large_level():
    data = build_data(sizes=[(0, 8, 16, 32, 64, 128), (16, 32)])
    contexts = tuple(context | {"grid_size": [25, 25]} for context in data.episodes.env_context)
    data = dataclasses.replace(
        data, episodes=dataclasses.replace(data.episodes, env_context=contexts), title="BossLevel"
    )
    figure = plot_overall_routing(data, show_counts=True)
    assert layout_problems(figure) == [] and "uniform" in texts(figure)  # 1/6 in one layer, 1/2 in the other
    assert layout_problems(plot_grouped_routing(data, "starting_room")) == []


def test_inputs_are_left_as_they_were():
    data = build_data()
    before = copy.deepcopy((vars(data.routing), vars(data.episodes), AVERAGES, GRID))
    plot_overall_routing(data)
    plot_grouped_routing(data, "outcome")
    render_routing_heatmap(Figure().add_subplot(), AVERAGES, GRID, "layer_0")
    np.testing.assert_equal((vars(data.routing), vars(data.episodes), AVERAGES, GRID), before)


def test_style_ends_with_its_block():
    before = dict(mpl.rcParams)
    with figure_style():
        assert mpl.rcParams["pdf.fonttype"] == 42 and mpl.rcParams["savefig.dpi"] >= 200
    plot_overall_routing(build_data())
    assert dict(mpl.rcParams) == before


def test_figures_are_saved_whole_in_each_format(tmp_path):
    figure = plot_overall_routing(build_data())
    paths = save_figure(figure, tmp_path / "a" / "v1.5" / "routing_heatmap.png", formats=("png", "pdf", "svg"))
    assert [path.name for path in paths] == [f"routing_heatmap.{name}" for name in ("png", "pdf", "svg")]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    assert paths[0].read_bytes()[:4] == b"\x89PNG" and paths[1].read_bytes()[:4] == b"%PDF"
    assert "<text" in paths[2].read_text()  # text stays text
    (path,) = save_figure(figure, tmp_path / "GoToObj-v0.2")  # no ending of a picture
    assert path.name == "GoToObj-v0.2.png"
    with pytest.raises(ValueError, match="docx"):
        save_figure(figure, tmp_path / "x", formats=("docx",))
    assert not (tmp_path / "x.docx").exists()
