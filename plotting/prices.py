"""Prices of complexity side by side: settings equal but for the price, as maps of LPC by price and phase.

    for series in find_price_series(find_caches("evaluation_cache")):
        plot_price_maps(series, "key_phase")
        plot_associations(compute_associations(series.load(), "key_phase"))

A price is alpha, and whether the penalty is divided by the task loss (normalised, equation 2 of the paper) or not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.config import NOT_IDENTITY
from pipeline.places import Place
from pipeline.records.cache import find_actions, read_header
from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds, group_routing_data
from plotting.cells import lpc_mappable, render_lpc_heatmap
from plotting.collapse import collapse_banners
from plotting.data import RoutingData
from plotting.groupings import GROUPINGS, find_grouping
from plotting.layouts import describe_levels
from plotting.panels import replaced_note
from plotting.replicates import Setting, find_settings
from plotting.runs import short_task
from plotting.scales import Marks, choose_lpc_scale, describe_scale, span_of
from plotting.sheet import MARGIN, Sheet, build_message, fit_maps, full_width, lines_height
from plotting.source import add_source, maps_table
from plotting.style import alpha_color, count_of, figure_style

PRICE_FIELDS = ("lpc_alpha", "normalize_lpc", "lpc_denominator")
"""Fields of a configuration that make the price."""


@dataclass(frozen=True)
class PriceSeries:
    """Settings of one task that differ in the price of complexity only.

    Attributes:
        task_id: Their task.
        folder: Name of a folder for their figures, told by trials.
        settings: {label of the price: its runs}, unnormalised first, by alpha.
        colors: {label: the colour of its alpha}, that of all other figures; a normalised price has the same.
    """

    task_id: str
    folder: str
    settings: Mapping[str, Setting]
    colors: Mapping[str, str]

    @property
    def label(self) -> str:
        """Such as "GoToObjMazeS4R2, 3 prices"."""
        return f"{short_task(self.task_id)}, {count_of(len(self.settings), 'price')}"

    @property
    def places(self) -> list[Place]:
        """The caches of all."""
        return [place for setting in self.settings.values() for place in setting.places]

    def load(self) -> dict[str, RoutingData]:
        """Return the steps of each price, runs joined.

        Raises:
            ValueError: A cache cannot be used, or caches do not fit together.
        """
        return {label: setting.load() for label, setting in self.settings.items()}


def find_price_series(places: Iterable[Place]) -> tuple[list[PriceSeries], list[str]]:
    """Return the series of at least two prices, and notes on what does not count.

    Args:
        places: From `find_caches`.
    """
    settings, notes = find_settings(places, least=1)
    series: dict[Hashable, dict[tuple, Setting]] = {}
    for setting in settings:
        header = read_header(setting.places[0])
        config = header.get("config")
        if not isinstance(config, dict) or config.get("lpc_alpha") is None:
            continue
        normalised = bool(config.get("normalize_lpc"))
        price = (normalised, str(config.get("lpc_denominator")) if normalised else "", float(config["lpc_alpha"]))
        rest = {k: v for k, v in config.items() if k not in {*PRICE_FIELDS, *NOT_IDENTITY, "trial", "seed", "window"}}
        evaluated = [*(header.get(name) for name in ("max_steps", "eval_seed")), find_actions(header)]
        key = (setting.task_id, repr(sorted(rest.items())), repr(evaluated))
        first = series.setdefault(key, {}).setdefault(price, setting)
        if first is not setting:  # they differ in a denominator that nothing is divided by
            notes.append(f"{setting.label}: not shown, of the same price as {first.label}")
    found = []
    for members in series.values():
        if len(members) < 2:
            continue
        ways = {price[:2] for price in members if price[0]}
        labels = {_label(price, len(ways) > 1): price for price in sorted(members)}
        kept = {label: members[price] for label, price in labels.items()}
        colors = {label: alpha_color(alpha) for label, (_, _, alpha) in labels.items()}
        trials = sorted({place.trial for setting in kept.values() for place in setting.places})
        places = [place for setting in kept.values() for place in setting.places]
        others = sorted({place.task_id for place in places if place.eval_task_id is not None})
        folder = "_".join([*others, "prices_trials", *map(str, trials)])
        found.append(PriceSeries(next(iter(kept.values())).task_id, folder, kept, colors))
    return found, notes


def _label(price: tuple[bool, str, float], tell_denominator: bool) -> str:
    normalised, denominator, alpha = price
    words = f"\N{GREEK SMALL LETTER ALPHA} = {alpha:g}"
    if normalised:
        words += f", normalised ({denominator})" if tell_denominator else ", normalised"
    return words


def plot_price_maps(
    settings: Mapping[str, RoutingData],
    group_by: str = "overall",
    marks: Marks | None = None,
    *,
    title: str = "",
    max_groups: int = 6,
) -> Figure:
    """Return a grid of maps of LPC: one row for each price, one column for each group; one scale.

    Args:
        settings: {label: data of the runs of a price}, as of `PriceSeries.load`.
        group_by: See `plotting.groupings`, such as key_phase.
        marks: Which cells are hatched, and the scale.
        title: Of what the prices are.
        max_groups: Of more groups those with the most steps over all prices are shown.

    Raises:
        ValueError: If there is no such grouping.
    """
    name = find_grouping(group_by)
    groups = {label: group_routing_data(data, name) for label, data in settings.items()}
    sizes: dict[Hashable, int] = {}
    labels: dict[Hashable, str] = {}
    for found in groups.values():
        for key in found:
            sizes[key] = sizes.get(key, 0) + len(found[key])
            labels[key] = found.labels[key]
    kept = set(sorted(sizes, key=lambda key: -sizes[key])[:max_groups])
    keys = [key for key in sizes if key in kept]
    hidden = sum(size for key, size in sizes.items() if key not in kept)
    averages = {
        (label, key): aggregate_routing_by_position(found[key])
        for label, found in groups.items()
        for key in keys
        if key in found
    }
    marks = marks or Marks()
    first_data = next(iter(settings.values()))
    maps = [(each.lpc, each.visits) for each in averages.values()]
    scale = choose_lpc_scale(maps, first_data.largest_lpc, marks)
    dropped = sum(found.dropped for found in groups.values())
    reasons = "; ".join(dict.fromkeys(found.reason for found in groups.values() if found.dropped))
    notes = [
        "mean LPC over the steps in a cell, all runs of a price together",
        describe_scale(first_data, marks, shared=True),
        f"{dropped:,} steps in no group: {reasons}" if dropped else "",
        f"{hidden:,} steps of smaller groups not shown" if hidden else "",
        *dict.fromkeys(replaced_note(data) for data in settings.values()),
    ]
    banner = collapse_banners(settings)
    what = "" if name == "overall" else f" and {GROUPINGS[name].title}"
    heading = f"{title + ': ' if title else ''}LPC by price{what}"
    with figure_style():
        if not keys:
            return build_message(heading, f"No step is in a group: {reasons or 'there are none'}.")
        grid_info = compute_grid_bounds(first_data)
        first, gap, bar = MARGIN + 1.75, 0.13, 0.09  # inches
        rest = first + (len(keys) - 1) * gap + 0.08 + 0.8
        width, height = fit_maps(grid_info, 1.8, len(keys), rest)
        lefts = [first + column * (width + gap) for column in range(len(keys))]
        step = max(height, 0.75) + gap
        bar_left = lefts[-1] + width + 0.08
        lines = (heading, "; ".join(filter(None, notes)))
        full = full_width(max(bar_left + 0.8, 6.0))
        top = lines_height(full, banner, *lines[1:]) + 0.26
        sheet = Sheet(full, top + len(settings) * step + 0.25 + MARGIN, *lines, banner=banner)
        for row, (label, data) in enumerate(settings.items()):
            row_top = top + row * step
            sheet.text(MARGIN, row_top, label, fontweight="bold", fontsize="small")
            size = data.describe_size().replace(", ", "\n")
            sheet.text(MARGIN, row_top + 0.2, size, color="0.3", fontsize="small")
            for left, key in zip(lefts, keys, strict=True):
                text = labels[key] if row == 0 else ""
                ax = sheet.axes(left, row_top, width, height, text)
                if (label, key) in averages:
                    each = averages[label, key]
                    local = grid_info | describe_levels(groups[label][key])
                    render_lpc_heatmap(ax, each, local, vmin=scale[0], vmax=scale[1], min_visits=marks.min_visits)
                else:
                    ax.set_axis_off()
                    ax.text(0.5, 0.5, "no steps", transform=ax.transAxes, ha="center", va="center", color="0.5")
                if left != lefts[0]:
                    ax.set_yticks([])
                if row < len(settings) - 1:
                    ax.set_xticks([])
        bar_height = height if len(settings) == 1 else min(2.4, step + height)
        sheet.bar(lpc_mappable(*scale), bar_left, top, bar, bar_height, "LPC", span_of(maps, marks))
        add_source(
            sheet.figure, maps_table({f"{label}, {labels[key]}": each for (label, key), each in averages.items()})
        )
        return sheet.figure
