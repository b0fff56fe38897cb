"""The words of each task: what is asked, how an answer is read, and how a prompt that is too long is shortened."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from maxent.data.sample import DataError, Frame, Sample

ACTIVITIES = ("biking", "lying", "running", "sitting", "standing", "walking", "walking_down", "walking_up")
"""Labels of HAR, in OpenTSLM's order."""

CAPTION_FRAME = Frame(
    "Describe this time series in short true statements: its trend, its period, its noise, the range of its values, "
    "their mean, where peak and trough lie, whether its level shifts, how its end compares with its start, and whether "
    "fluctuations change.",
    ("Series",),
    "Caption:",
)
ACTIVITY_FRAME = Frame(
    "These are the three axes of an accelerometer at 50 Hz. What is the person doing? Say what the data show, then "
    f"end with one of {', '.join(ACTIVITIES)}, as in `Answer: <label>`.",
    ("x axis", "y axis", "z axis"),
    "Rationale:",
)


def build_question_frame(question: str) -> Frame:
    """Return the words around a series that a question in plain text is about."""
    return Frame(f"{question.strip()} End with `Answer: <answer>`.", ("Series",), "Reasoning:")


_ANSWER = re.compile(r"\banswer\s*:[ \t]*([^\n]*)", re.IGNORECASE)
_OPTION = re.compile(r"(?<!\w)\(?([a-z])\)")


def parse_answer(text: str, labels: Sequence[str] = ()) -> str | None:
    """Return what the last `Answer:` of a generated text says, or None if it says nothing that is asked for.

    Never the first phrase: a rationale may weigh several answers before it gives one. The answer goes to the end of its
    line, or of its first sentence. Several labels in a row are none.

    Args:
        text: Generated, without the prompt.
        labels: The classes. Empty: whatever is said comes back, in lower case; of options, `(a) A rising trend`, the
            letters alone, all that are named.
    """
    found = _ANSWER.findall(text)
    if not found:
        return None
    said = re.split(r"[.!?](?:\s|$)", found[-1].strip())[0].strip(" \t`\"'*<>")
    if not labels and _OPTION.match(said.lower()):
        return " ".join(_OPTION.findall(said.lower()))
    said = said.strip(" \t`\"'*<>()")
    if not labels:
        return " ".join(said.lower().split()) or None
    known = {normalise_label(label): label for label in labels}
    return known.get(normalise_label(said))


def is_right(text: str, label: str) -> bool:
    """Return whether a generated text answers a question that has no classes rightly.

    The true answer is read as the generated one is: as `parse_answer` reads it after `Answer:`, up to case and spaces.

    Args:
        text: Generated, without the prompt.
        label: The true answer.
    """
    said, true = parse_answer(text), parse_answer(f"Answer: {label}")
    return said is not None and true is not None and normalise_label(said) == normalise_label(true)


def read_line(text: str) -> str | None:
    """Return the first line of an answer without its full stop, None if it is empty: how sums and stories answer."""
    return (text.strip().splitlines() or [""])[0].strip(" .") or None


def normalise_label(label: str) -> str:
    """Return a label in lower case with underscores, so that `Walking up` and `walking_up` are one."""
    return re.sub(r"[\s_-]+", "_", label.strip().lower())


def fit_prompt(sample: Sample, count: Callable[[str], int], limit: int) -> tuple[Sample, str | None]:
    """Return a sample whose prompt fits, and a line that says what was done to it, None if nothing.

    The series is thinned, every second, third, ... point, until it fits: the trend, the extrema and a break remain
    visible, a short period does not. The instruction stays whole.

    Args:
        sample: Any.
        count: Text -> number of tokens.
        limit: Tokens that there is room for.

    Raises:
        DataError: If there is no room even for the instruction with a single point.
    """
    needed = count(sample.prompt)
    if needed <= limit:
        return sample, None
    points = sample.series.shape[1]
    for step in range(sample.step + 1, points + 1):
        if -(-points // step) == -(-points // (step - 1)):
            continue  # as many points as before
        shorter = replace(sample, step=step)
        if count(shorter.prompt) <= limit:
            shown = -(-points // step)
            note = f"{shown} of {points} points shown, for {needed} tokens do not fit into {limit}"
            return shorter, f"prompt of {sample.id}: {note}"
    what = "the prompt has no series to shorten" if not points else "nor does the instruction with a single point"
    raise DataError(
        f"prompt of {sample.id}: {needed} tokens do not fit into {limit}, {what}; "
        "use a model with a longer context, or lower --max_tokens"
    )
