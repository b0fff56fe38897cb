"""The site that `make docs` builds of these pages and of the docstrings; see CONTRIBUTING.md."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "rl-mop"
author = copyright = "The rl-mop authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "rl-mop"

myst_heading_anchors = 4
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # attributes as a list in their class, not each an object of its own
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
suppress_warnings = ["ref.python"]  # two classes of one name, as in a signature without its module

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):$")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)|\|")  # code, or a bar, which alone would begin a substitution


def from_markdown(lines: list[str]) -> list[str]:
    """Return a docstring as reStructuredText, in which it is read; it is written in what both share with Markdown.

    But for three things: a paragraph indented by four spaces is code (outside of sections such as Args), a list needs
    no empty line before it, and `name` is code.
    """
    blocks: list[tuple[bool, list[str]]] = []  # whether it is code, and its lines
    head = ""  # the last line without indentation
    for line in lines:
        indented = line.startswith("    ")
        if line.strip() and not indented:
            head = line
        after_empty = not blocks or not blocks[-1][1][-1].strip()
        code = blocks[-1][0] if blocks and not line.strip() else indented and not _SECTION.match(head)
        code = code and (after_empty or blocks[-1][0])
        if not blocks or blocks[-1][0] != code:
            blocks.append((code, []))
        blocks[-1][1].append(line)
    text = []
    for code, block in blocks:
        if code:
            text += ["::", "", *block, ""]
            continue
        prose = []
        for before, line in zip(["", *block], block, strict=False):
            begins = line.startswith("- ") and before.strip() and not before.startswith(("- ", "  "))
            prose += ["", line] if begins else [line]
        text += _INLINE.sub(lambda match: f"``{match[1]}``" if match[1] else r"\|", "\n".join(prose)).split("\n")
    return text


def _process(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = from_markdown(lines)


def setup(app: Any) -> None:
    """Have docstrings processed before their sections are read."""
    app.connect("autodoc-process-docstring", _process, priority=100)
