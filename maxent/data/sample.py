"""What a search is asked: one question about a time series, or about a text, with its answer kept apart.

sample.prompt                 # what a model is given, text
sample.view()                 # what a reward is given: everything but the answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.command.errors import DataError as DataError  # rewards, which know data alone, raise it

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Frame:
    """The words around a series in a prompt.

    Attributes:
        opening: The instruction, or all of a prompt that has no series.
        channels: Name of each channel of the series.
        closing: What the answer follows.
    """

    opening: str
    channels: tuple[str, ...] = ()
    closing: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """What a reward may know of a sample; see `Sample`."""

    id: str
    prompt: str
    series: np.ndarray
    task: str


@dataclass(frozen=True, eq=False)
class Sample:
    """One question.

    Attributes:
        id: Unique within its dataset.
        frame: The words of the prompt.
        series: float64 (channels, points), finite, in the units of its source; (0, 0) if there is none.
        task: `caption`, `activity`, `question`, `sum` or `story`.
        label: The true answer: a caption, a class, a word. What generated answers are compared with.
        target: The text that a model would learn to write after the prompt; it ends in the label.
        step: The prompt shows every `step`-th point of the series.

    Raises:
        ValueError: If the series has another number of channels than the prompt has names, or is not finite.
    """

    id: str
    frame: Frame
    series: np.ndarray
    task: str
    label: str
    target: str
    step: int = 1

    def __post_init__(self) -> None:
        if self.series.ndim != 2 or len(self.series) != len(self.frame.channels):
            raise ValueError(
                f"{self.id}: expected {len(self.frame.channels)} channels, found shape {self.series.shape}"
            )
        if not np.isfinite(self.series).all():
            raise ValueError(f"{self.id}: expected finite numbers")

    @property
    def prompt(self) -> str:
        """What a model is given; see `render_prompt`."""
        return render_prompt(self.frame, self.series, self.step)

    def view(self) -> View:
        """Return what a reward may know: neither label nor target."""
        return View(self.id, self.prompt, self.series, self.task)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples by split, and where they are from.

    Attributes:
        name: As in `--dataset`.
        splits: `train`, `valid` and `test`.
        real: False for what was generated here.
        origin: In one line: files, or the seed, and why it was these.
        labels: The classes of a classification, in a fixed order; empty for free text.
    """

    name: str
    splits: Mapping[str, Sequence[Sample]]
    real: bool
    origin: str
    labels: tuple[str, ...] = field(default=())

    def describe(self) -> str:
        """Return one line on what this is."""
        sizes = ", ".join(f"{len(self.splits[split])} {split}" for split in SPLITS if self.splits[split])
        return f"data: {self.name}, {'real' if self.real else 'synthetic'} ({self.origin}): {sizes}"


DECIMALS = 1
"""Of normalised numbers: a tenth of a deviation. More would be tokens without meaning to a caption."""


def render_prompt(frame: Frame, series: np.ndarray, step: int = 1) -> str:
    """Return a prompt: the opening, a line of numbers for each channel, the closing.

    Each channel is normalised by its own mean and deviation (of the whole of it, with n - 1), which are stated.

    Args:
        frame: The words.
        series: float64 (channels, points).
        step: Every `step`-th point is shown, and the prompt says so.
    """
    lines = [frame.opening]
    for name, values in zip(frame.channels, series, strict=True):
        mean, deviation = float(values.mean()), compute_deviation(values)
        scaled = (values[::step] - mean) / (deviation or 1.0)
        thinned = f", 1 in {step} of {len(values)} points" if step > 1 else ""
        numbers = " ".join(f"{number + 0.0:.{DECIMALS}f}" for number in np.round(scaled, DECIMALS).tolist())
        lines.append(f"{name} (mean {mean:.4g}, deviation {deviation:.4g}{thinned}): {numbers}")
    if frame.closing:
        lines.append(frame.closing)
    return "\n".join(lines)


def compute_deviation(values: np.ndarray) -> float:
    """Return the standard deviation with n - 1; 0 for a single number, and where only rounding varies."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return deviation if deviation > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))) else 0.0
