"""The definitions of all analyses as they stand in docs/science.md: from their docstrings, which the report prints too.

python -m science.report.definitions        # brings the page up to date
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path

from science.catalogue import ANALYSES
from science.report.text import Block, parse_blocks

PAGE = Path(__file__).parents[2] / "docs" / "science.md"
_BEGIN, _END = "<!-- definitions: python -m science.report.definitions -->", "<!-- end of the definitions -->"


def describe_definitions() -> str:
    """Return title, definition and quantities of each analysis, in Markdown."""
    parts = []
    for name, entry in ANALYSES.items():
        module = importlib.import_module(entry.module)
        doc = inspect.cleandoc(module.__doc__ or "")
        parts += [f"### {entry.title} (`{name}`)", *(describe_block(block) for block in parse_blocks(doc))]
        rows = ["| quantity | what a figure calls it |", "|---|---|"]
        rows += [f"| `{name}.{quantity}` | {label} |" for quantity, label in entry.quantities.items()]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def describe_block(block: Block) -> str:
    """Return a block of a definition in Markdown."""
    if block.kind == "list":
        return "\n".join(_fold(f"- {_escape(line)}", "  ") for line in block.lines)
    if block.kind == "code":
        return "\n".join(f"    {line}" for line in block.lines)
    text = _escape(block.lines[0])
    return _fold(f"**{block.term}**{text[len(block.term) :]}" if block.kind == "term" else text)


def _fold(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _escape(text: str) -> str:
    """Return a text without what Markdown would take for emphasis, code apart."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*|<])", r"\\\1", part) for part in parts)


def update_page(text: str) -> str:
    """Return the page with the definitions of today.

    Raises:
        ValueError: If it lacks the marks between which they stand.
    """
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"{PAGE}: expected {_BEGIN} and {_END}, once each")
    head, _, rest = text.partition(_BEGIN)
    return f"{head}{_BEGIN}\n\n{describe_definitions()}\n\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(update_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
