"""The settings of the command line of figures, without matplotlib, so that `--help` is told at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipeline.command.errors import ConfigError, check_known

ACROSS = "across_tasks"
"""The view of several caches together: small multiples of heatmaps, one checkpoint of each task."""

SWITCHES = {
    "list": "Draw nothing; say which views there are.",
    "data": "Write the numbers that each figure shows as CSV beside it.",
    "show_counts": "Write the number of steps into the cells of heatmaps.",
    "over_prices": "Draw the settings of --all_caches that differ in the price of complexity only side by side: views "
    "price_maps and association.",
    "over_runs": "Draw the runs of --all_caches that differ in trial or seed only as one; the run is then the unit.",
}
MIN_VISITS = 5
"""Cells of heatmaps with fewer steps are hatched, where nothing else is asked for."""

STATE_FACTS = ("direction", "carrying", "door_unlocked")
"""Facts of a step that make its state within a cell."""

STATE_WORDS = {"direction": "heading", "carrying": "carrying", "door_unlocked": "door"}
"""The same in words."""

SCALES = ("absolute", "relative")
"""Of LPC: from 0 to the largest possible, or from the least to the greatest value that is shown."""

_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class PlotSettings:
    """What is drawn, and where it goes.

    Attributes:
        cache: A routing_data.json to draw.
        all_caches: A folder of caches, all of which to draw.
        results: An evaluation_results.csv to draw.
        view: Which views, with commas between them, or all; --list shows them. By default overall, for results
            success_lpc.
        formats: Of the files: png (300 dpi), pdf, svg; with commas between them.
        output_dir: Folder of the figures.
        episode: Of the view episode; by default a success of median length.
        event: Of the view events; by default each that happens.
        before: Steps shown before an event.
        after: Steps shown after it.
        group_by: Grouping of the views behaviour, cell_actions, association and price_maps, such as key_phase.
        state: What makes a state besides the cell, in the view behaviour: some of direction, carrying, door_unlocked,
            with commas between them; "none" for the cell alone. By default all that was recorded.
        min_visits: Cells of heatmaps with fewer steps are hatched; they set no scale.
        scale: Of LPC, absolute (from 0, maps to the largest that the experts allow) or relative (to what is shown).
        width: Of figures, such as 180mm, 8.5cm or 3.5in; by default what suits each.
        font: Size of their text in points; 9 by default, 7 suits a figure of 85mm or 180mm.
        log_dir: Folder of training logs for the view learning; by default runs beside the checkpoints, or here.
    """

    cache: str | None = None
    all_caches: str | None = None
    results: str | None = None
    view: str | list[str] = field(default_factory=list)
    formats: str | list[str] = "png"
    output_dir: str = "plots"
    episode: int | None = None
    event: str | None = None
    before: int = 10
    after: int = 10
    group_by: str = "overall"
    state: str | list[str] | None = None
    min_visits: int = MIN_VISITS
    scale: str = SCALES[0]
    width: str | None = None
    font: float | None = None
    log_dir: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without files.

        Raises:
            ConfigError: On an impossible value.
        """
        given = [name for name in ("cache", "all_caches", "results") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise ConfigError(f"expected one of --cache FILE, --all_caches FOLDER, --results FILE, found {found}")
        check_known("formats", self.kinds, _FORMATS)
        if not self.kinds:
            raise ConfigError(f"formats: expected some of {', '.join(_FORMATS)}, found none")
        check_known("scale", [self.scale], SCALES)
        if self.font is not None and not 3.0 <= self.font <= 40.0:
            raise ConfigError(f"font: expected 3 to 40 points, found {self.font:g}")
        try:
            self.inches()
        except ValueError as error:
            raise ConfigError(str(error)) from None
        check_known("state", [name for name in self.facts or () if name != "none"], STATE_FACTS)
        for name in ("episode", "before", "after", "min_visits"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name}: expected 0 or more, found {getattr(self, name)}")

    def inches(self) -> float | None:
        """Return the width of figures; None for what suits each."""
        return None if self.width is None else parse_width(self.width)

    @property
    def views(self) -> list[str]:
        """The views by name."""
        default = "success_lpc" if self.results is not None else "overall"
        return _split(self.view) or [default]

    @property
    def facts(self) -> tuple[str, ...] | None:
        """Facts of a state, None for all known."""
        return None if self.state is None else tuple(name for name in _split(self.state) if name != "none")

    @property
    def kinds(self) -> list[str]:
        """The formats by name."""
        return [name.lower().lstrip(".") for name in _split(self.formats)]


def parse_width(text: str) -> float:
    """Return a width in inches: of "180mm", "8.5 cm" or "3.5in"; a number alone is of inches.

    Raises:
        ValueError: If it is no width, or none from 1 to 40 inches.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(mm|cm|in)?\s*", str(text))
    inches = float(match[1]) * {"mm": 1 / 25.4, "cm": 1 / 2.54}.get(match[2], 1.0) if match else 0.0
    if not 1.0 <= inches <= 40.0:
        raise ValueError(f"width: expected such as 180mm, 8.5cm or 3.5in, from 1 to 40 inches, found {text!r}")
    return inches


def _split(value: str | list[str]) -> list[str]:
    """Return names given as a list, or as one text with commas between them, each once."""
    texts = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))
