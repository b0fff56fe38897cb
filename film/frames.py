"""One episode as pictures: the grid on the left, what the router did over time on the right.

    canvas = FilmCanvas(episode, grid_shape=(224, 224))
    frame = canvas.draw(step=3, picture=picture)          # uint8 (H, W, 3)

The charts of the whole episode are drawn once. Per frame only the grid, the cursor, the veil over what is still to come
and a few words are drawn on top: 15 ms instead of 200.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from babyai.facts import ACTION_NAMES
from film.episodes import FilmEpisode
from plotting.collapse import largest_lpc
from plotting.panels import stack_weights, step_edges, write_near
from plotting.scales import choose_axis
from plotting.style import CATEGORY_COLORS, OUTCOME_COLORS, expert_colors, expert_labels, figure_style, text_width

_INK, _FAINT, _LINE, _BAR = "#222222", "#6B6B6B", "#444444", "#5B7083"

# Inches
_MARGIN, _GAP = 0.18, 0.2
_CHART_WIDTH, _AXIS_WIDTH, _LEAST_LEGEND_WIDTH = 4.3, 0.95, 0.85
_STATUS_HEIGHT, _EVENTS_HEIGHT, _XLABEL_HEIGHT = 0.78, 0.6, 0.45
_LEAST_CHART_HEIGHT, _LEAST_GRID_WIDTH = 0.85, 2.7
_LINE_HEIGHT = 0.21
_ENTRY_HEIGHT, _HANDLE_WIDTH = 0.15, 0.24  # of a legend's entry; what it takes besides its text

_LEGEND_FONT = 8


class FilmCanvas:
    """A page for one episode, on which one step after the other is drawn.

    Attributes:
        size: (width, height) of a frame in pixels, both even, as video encoders want them.
    """

    @figure_style()
    def __init__(self, episode: FilmEpisode, grid_shape: tuple[int, int], *, dpi: int = 100) -> None:
        """Lay out the page and draw what stays the same.

        Args:
            episode: What to show.
            grid_shape: (height, width) in pixels of the pictures to come.
            dpi: Pixels per inch of everything else.
        """
        self._episode = episode
        grid_height, grid_width = grid_shape[0] / dpi, grid_shape[1] / dpi
        left_width = max(grid_width, _LEAST_GRID_WIDTH)
        names = [self._name_experts(layer) for layer in range(len(episode.weights))]
        width = _MARGIN + left_width + _GAP + _AXIS_WIDTH + _CHART_WIDTH + self._measure_legend(names) + _MARGIN
        title = textwrap.wrap(episode.mission or "(mission not known)", int(width * 9.2))
        header = _MARGIN + _LINE_HEIGHT * (len(title) + 1) + 0.1
        panels = self._choose_panels()
        most = max(map(len, names), default=0)
        chart_height = max(_LEAST_CHART_HEIGHT, _ENTRY_HEIGHT * (most + 0.6))  # and room between two layers' legends
        charts = _EVENTS_HEIGHT + _XLABEL_HEIGHT + chart_height * len(panels)
        body = max(grid_height + _STATUS_HEIGHT, charts)
        height = header + body + _MARGIN / 2
        self.size = tuple(2 * round(inches * dpi / 2) for inches in (width, height))
        self._figure = Figure(figsize=((self.size[0] + 0.1) / dpi, (self.size[1] + 0.1) / dpi), dpi=dpi)
        self._canvas = FigureCanvasAgg(self._figure)
        top = round((header + max(0.0, body - grid_height - _STATUS_HEIGHT) / 2) * dpi)
        left = round((_MARGIN + (left_width - grid_width) / 2) * dpi)
        self._grid_place = (slice(top, top + grid_shape[0]), slice(left, left + grid_shape[1]))
        self._inches = (width, height)
        self._write_header(title)
        self._axes = [self._add_axes(k, len(panels), header, body, left_width) for k in range(len(panels))]
        for ax, draw_panel in zip(self._axes, panels, strict=True):
            draw_panel(ax)
        self._axes[-1].set_xlabel("step", fontsize=9, color=_INK)
        self._draw_events()
        status_x, status_y = _MARGIN, (top + grid_shape[0]) / dpi + 0.1
        self._status = [
            self._write(status_x, status_y + k * _LINE_HEIGHT, "", weight="bold" if k == 0 else "normal", animated=True)
            for k in range(3)
        ]
        veil = {"fc": "white", "alpha": 0.72, "zorder": 5, "animated": True}
        cursor = {"fc": "none", "ec": "black", "lw": 1.4, "zorder": 6, "clip_on": False, "animated": True}
        self._veils, self._cursors = (
            [ax.add_patch(Rectangle((0, 0), 0, 0, **style)) for ax in self._axes] for style in (veil, cursor)
        )
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)

    @figure_style()
    def draw(self, step: int, picture: np.ndarray) -> np.ndarray:
        """Return the frame of a step, uint8 (H, W, 3).

        Args:
            step: 0..T; T is the state after the last action.
            picture: uint8 of `grid_shape`, the grid at that step.
        """
        self._canvas.restore_region(self._background)
        end = len(self._episode)
        for ax, veil, cursor in zip(self._axes, self._veils, self._cursors, strict=True):
            low, high = sorted(ax.get_ylim())
            veil.set_bounds(step + 0.5, low, max(0.0, end - step), high - low)
            cursor.set_bounds(step - 0.5, low, 1.0, high - low)
            for artist in (veil, cursor):
                ax.draw_artist(artist)
        for artist, text in zip(self._status, self._describe(step), strict=True):
            artist.set_text(text)
            self._figure.draw_artist(artist)
        frame = np.asarray(self._canvas.buffer_rgba())[: self.size[1], : self.size[0], :3].copy()
        frame[self._grid_place] = picture
        return frame

    # -------------------------------------------------------------------------------------------------------- layout

    def _write(self, x: float, y: float, text: str, **options):
        """Add text whose upper left corner is x, y inches from that of the page."""
        width, height = self._inches
        options = {"fontsize": 9, "color": _INK, "va": "top", "ha": "left", "parse_math": False, **options}
        return self._figure.text(x / width, 1 - y / height, text, **options)

    def _write_header(self, title: list[str]) -> None:
        episode = self._episode
        for k, line in enumerate(title):
            self._write(_MARGIN, _MARGIN + k * _LINE_HEIGHT, line, fontsize=11.5, weight="bold")
        y = _MARGIN + len(title) * _LINE_HEIGHT + 0.02
        steps = f"{len(episode)} step{'s' if len(episode) != 1 else ''}"
        color = OUTCOME_COLORS.get(episode.outcome, _FAINT)
        outcome = self._write(_MARGIN, y, f"{episode.outcome} after {steps}", color=color, weight="bold")
        end = outcome.get_window_extent(self._canvas.get_renderer()).x1 / self._figure.dpi
        rest = f"  ·  {episode.task_id}, level seed {episode.level_seed}  ·  {episode.player}"
        self._write(end, y, rest, color=_FAINT)

    def _add_axes(self, k: int, count: int, header: float, body: float, left_width: float) -> Axes:
        width, height = self._inches
        each = (body - _EVENTS_HEIGHT - _XLABEL_HEIGHT) / count
        bottom = height - header - _EVENTS_HEIGHT - (k + 1) * each
        left = _MARGIN + left_width + _GAP + _AXIS_WIDTH
        bounds = (left / width, (bottom + 0.06) / height, _CHART_WIDTH / width, (each - 0.12) / height)
        ax = self._figure.add_axes(bounds)
        ax.set_xlim(-0.5, len(self._episode) + 0.5)
        ax.tick_params(labelsize=8, colors=_LINE, labelbottom=k == count - 1)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[:].set_color(_LINE)
        return ax

    # -------------------------------------------------------------------------------------------------------- charts

    def _choose_panels(self) -> list:
        episode = self._episode
        if not episode.weights:
            subgoals = [name or "?" for name in episode.subgoals]
            actions = [ACTION_NAMES[action] for action in episode.actions]
            return [
                lambda ax: self._draw_codes(ax, subgoals, "subgoal", CATEGORY_COLORS),
                lambda ax: self._draw_codes(ax, actions, "action", [_BAR], ACTION_NAMES),
            ]
        layers = [lambda ax, layer=layer: self._draw_weights(ax, layer) for layer in range(len(episode.weights))]
        return [*layers, self._draw_lpc] if np.isfinite(episode.lpc).all() else layers

    def _name_experts(self, layer: int) -> list[str]:
        sizes = self._episode.expert_sizes[layer] if self._episode.expert_sizes else ()
        count = self._episode.weights[layer].shape[1]
        return expert_labels(list(sizes)) if sizes else [f"expert {k}" for k in range(count)]

    def _measure_legend(self, names: list[list[str]]) -> float:
        """Return the width, in inches, of what stands beside the charts: the longest name of an expert, or mean LPC."""
        texts = [name for layer in names for name in layer]
        if names and np.isfinite(self._episode.lpc).all():
            texts.append(f"{np.mean(self._episode.lpc):.0f}")
        widest = max((text_width(text, _LEGEND_FONT) for text in texts), default=0.0)
        return max(_LEAST_LEGEND_WIDTH, _HANDLE_WIDTH + widest)

    def _draw_weights(self, ax: Axes, layer: int) -> None:
        weights, labels = self._episode.weights[layer], self._name_experts(layer)
        sizes = self._episode.expert_sizes[layer] if self._episode.expert_sizes else ()
        colors = expert_colors(list(sizes), weights.shape[1])
        stack_weights(ax, np.arange(len(weights)), weights, colors, labels)
        ax.set_yticks([0, 0.5, 1], ["0", "", "1"])
        ax.set_ylabel(f"layer {layer}", fontsize=9, color=_INK)
        handles, texts = ax.get_legend_handles_labels()
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        size = {
            "fontsize": _LEGEND_FONT,
            "handlelength": 0.9,
            "handleheight": 0.9,
            "handletextpad": 0.5,
            "labelspacing": 0.3,
        }
        ax.legend(handles[::-1], texts[::-1], **place, **size)

    def _draw_lpc(self, ax: Axes) -> None:
        lpc = np.asarray(self._episode.lpc, float)
        edges = step_edges(np.arange(len(lpc)))
        ax.stairs(lpc, edges, baseline=0, fill=True, color="#d9d9d9", zorder=1)
        ax.stairs(lpc, edges, baseline=None, color=_INK, lw=1.4, zorder=2)
        ax.set_ylim(0, choose_axis(lpc, largest_lpc(self._episode.expert_sizes, self._episode.lpc_exponent))[1])
        ax.yaxis.get_major_locator().set_params(nbins=3)
        ax.set_ylabel("LPC", fontsize=9, color=_INK)
        self._write_beside(ax, f"mean\n{lpc.mean():.0f}", fontsize=_LEGEND_FONT)

    def _draw_codes(
        self, ax: Axes, values: list[str], name: str, colors: Sequence[str], order: Sequence[str] = ()
    ) -> None:
        """Draw one row per value, in the order given or else of their appearance, with bars over the steps it holds."""
        rows = sorted(dict.fromkeys(values), key=order.index) if order else list(dict.fromkeys(values))
        for row, value in enumerate(rows):
            bars = [(step - 0.5, 1.0) for step, v in enumerate(values) if v == value]
            ax.broken_barh(bars, (row - 0.36, 0.72), color=colors[row % len(colors)], lw=0, zorder=2)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks(range(len(rows)), rows, parse_math=False)
        ax.tick_params(axis="y", length=0)
        self._write_beside(ax, name, fontsize=9)

    def _write_beside(self, ax: Axes, text: str, fontsize: float) -> None:
        ax.text(1.02, 0.5, text, transform=ax.transAxes, fontsize=fontsize, color=_INK, va="center", ha="left")

    def _draw_events(self) -> None:
        """Mark events by a line through all charts, and name them above as far as there is room."""
        ax, renderer = self._axes[0], self._canvas.get_renderer()
        rows_end = [-np.inf] * 3  # where the last text of each row ends, in pixels
        right_edge = self.size[0] - _MARGIN * self._figure.dpi
        for step, text in self._episode.events:
            for panel in self._axes:
                panel.axvline(step + 0.5, color="black", lw=0.9, ls=(0, (3, 2)), zorder=4)
            for row, end in enumerate(rows_end):
                style = {"xycoords": ("data", "axes fraction"), "fontsize": 8, "color": _INK, "parse_math": False}
                label = write_near(ax, text, (step + 0.5, 1), (0, 4 + 11 * row), ha="center", **style)
                extent = label.get_window_extent(renderer)
                if extent.x0 > end + 4 and extent.x1 < right_edge:
                    rows_end[row] = extent.x1
                    break
                label.remove()

    # -------------------------------------------------------------------------------------------------------- words

    def _describe(self, step: int) -> tuple[str, str, str]:
        episode = self._episode
        if step == len(episode):
            return f"step {step} of {step}", f"the end: {episode.outcome}", ""
        action, expert = int(episode.actions[step]), int(episode.expert_actions[step])
        words = f"action: {ACTION_NAMES[action]}"
        if expert not in (-1, action):
            words += f"  (the bot: {ACTION_NAMES[expert]})"
        subgoal = f"the bot's subgoal: {episode.subgoals[step]}" if episode.subgoals[step] else ""
        return f"step {step} of {len(episode)}", words, subgoal
