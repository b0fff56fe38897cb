"""Routing by task: names of many experts, narrow figures, and the marks that were asked for."""

from dataclasses import replace

import numpy as np
import pytest

from plotting.data import PlotError, RoutingData
from plotting.options import parse_width
from plotting.style import figure_size
from plotting.task_maps import plot_task_heatmaps
from tests.figures import layout_problems, texts, texts_outside
from tests.tables import random_tables

MANY = [[0, 8, 16, 24, 32, 48, 64, 96]]
LAYERS = [[0, 16, 32]] * 3


def caches(sizes, count=1):
    """Return data of some tasks by their labels."""
    tables = [random_tables(seed, [30, 20, 40], sizes) for seed in range(count)]
    return {f"GoToObj · trial {seed}": RoutingData(*pair) for seed, pair in enumerate(tables)}


def widths_of_maps(figure):
    """Return how wide the maps are, in inches, and in how many columns."""
    maps = [ax for ax in figure.axes if ax.get_title()]
    lefts = {round(ax.get_position().x0, 4) for ax in maps}
    return {round(ax.get_position().width * figure.get_figwidth(), 3) for ax in maps}, len(lefts)


def test_names_of_many_experts_take_several_lines():
    """The row of names was cut off at the right, with eight experts in one layer."""
    figure = plot_task_heatmaps(caches(MANY, 2))
    assert texts(figure).count("size 96") == 2
    assert not layout_problems(figure)


@pytest.mark.parametrize("width", ["180mm", "85mm", "50mm"])
def test_narrow_figures_have_maps_in_several_rows(width):
    """At 50 mm the maps had a negative width."""
    with figure_size(parse_width(width), font=7):
        figure = plot_task_heatmaps(caches(LAYERS, 2))
    assert figure.get_figwidth() == pytest.approx(parse_width(width))
    (wide,), columns = widths_of_maps(figure)
    assert wide >= 0.5 and columns == {"180mm": 4, "85mm": 2, "50mm": 1}[width]
    assert not texts_outside(figure)


def test_a_figure_without_room_for_a_map_is_refused():
    with figure_size(parse_width("30mm")), pytest.raises(PlotError, match="width: expected at least 49mm for a map"):
        plot_task_heatmaps(caches(LAYERS))


def test_marks_are_those_that_were_asked_for():
    """`--min_visits` and `--show_counts` were ignored."""
    routing, episodes = random_tables(0, [30], LAYERS)
    position = (1 + np.arange(30) % 6)[:, None] * np.array([[1, 0]]) + np.array([[0, 1]])  # five steps in each cell
    data = RoutingData(replace(routing, position=position.astype(routing.position.dtype)), episodes)
    plain, marked = (plot_task_heatmaps({"a": data}, **how) for how in ({}, {"min_visits": 6, "show_counts": True}))
    assert "hatched: fewer than 6 steps" in texts(marked) and not any("hatched" in text for text in texts(plain))
    assert [text.get_text() for ax in marked.axes for text in ax.texts] == ["5"] * 6 * len(LAYERS)
    assert not any(ax.texts for ax in plain.axes)
