"""Definitions, which are docstrings, as blocks of a page; numbers as a reader wants them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ROUNDING = 1e-12
"""Differences of means that are 0 come out as 1e-17 and the like; nothing that is told is as small."""

_TERM = re.compile(r"^((?:Null|Twin|Interval|Known answer|Known|Control|Audit|Source|Unit)s?)\b[,:. ]")


@dataclass(frozen=True)
class Block:
    """A part of a text.

    Attributes:
        kind: paragraph, list, or term: a paragraph that says what the null, the twin and the like are.
        term: Of that kind.
        lines: The text, in one entry; of a list its entries.
    """

    kind: str
    lines: tuple[str, ...]
    term: str = ""


def parse_blocks(text: str) -> list[Block]:
    """Return the blocks of a docstring: paragraphs, lists whose entries begin with a dash, indented lines as a list."""
    blocks: list[Block] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        lines = part.split("\n")
        if re.match(r"^\s{4,}\S", lines[0]):
            blocks.append(Block("code", tuple(line[4:] for line in lines)))
            continue
        intro: list[str] = []
        entries: list[str] = []
        for line in lines:
            if match := re.match(r"^\s*[-*] (.*)$", line):
                entries.append(match[1])
            elif entries and line.startswith(" "):
                entries[-1] += f" {line.strip()}"
            elif entries:  # a paragraph goes on below its list
                blocks += _close(intro, entries)
                intro, entries = [line], []
            else:
                intro.append(line.strip())
        blocks += _close(intro, entries)
    return blocks


def _close(intro: list[str], entries: list[str]) -> list[Block]:
    found = []
    if intro:
        text = " ".join(intro)
        match = _TERM.match(text)
        found.append(Block("term" if match else "paragraph", (text,), match[1] if match else ""))
    if entries:
        found.append(Block("list", tuple(entries)))
    return found


def format_number(value: object) -> str:
    """Return a number with three significant digits, 0 for what rounding leaves of it; "" for none."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return value
    value = 0.0 if abs(float(value)) < _ROUNDING else value
    if float(value) == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace("-", "\N{MINUS SIGN}")
    size = abs(float(value))
    text = f"{value:,.0f}" if size >= 999.5 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def format_interval(value: float, low: float, high: float) -> str:
    """Return "0.62 [0.55, 0.69]", without ends where there are none."""
    if not math.isfinite(low) or not math.isfinite(high):
        return format_number(value)
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def format_p(p: float) -> str:
    """Return a p value as papers do: 0.03, <0.001."""
    if not math.isfinite(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def join_numbers(numbers: Sequence[int]) -> str:
    """Return numbers in ascending order, three or more in a row as the first and the last: 0-2, 5."""
    rows: list[list[int]] = []
    for number in sorted(set(numbers)):
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows)


def spell_out(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels of which each can stand alone: "the same, x" becomes what the one before says, and x."""
    found: dict[str, str] = {}
    before = ""
    for quantity, label in labels.items():
        found[quantity] = label.replace("the same", before, 1) if label.startswith("the same, ") else label
        before = found[quantity]
    return found
