"""Charts and trees of an experiment under way: what cannot be written is told, and nothing else is lost by it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maxent.dts_implementation.search.result import SearchResult
from maxent.trees import Decode, keep_tree
from pipeline.command.displays import draw_without_display
from pipeline.command.errors import MISTAKES, explain

Announce = Callable[[str], object]


def try_keeping_tree(
    results: Path, run: Mapping[str, Any], index: int, result: SearchResult, decode: Decode, announce: Announce
) -> bool:
    """Write the tree of a sample; return whether that went well. See `maxent.trees.keep_tree`."""
    try:
        keep_tree(results, run, index, result, decode)
    except Exception as error:  # of the disk, or of the model's tokenizer: the search is done, and its results are kept
        announce(
            f"tree of sample {index + 1} not kept: {_explain(error)}; the search goes on (--no_trees leaves it out)"
        )
        return False
    return True


def try_drawing(results: Path, announce: Announce) -> bool:
    """Write the charts and the pages of trees of a results file, if a sample is done; return whether that went well."""
    again = f"{name_command()} {shlex.quote(str(results))}"
    try:
        from maxent.charts.command import find_folder
        from maxent.charts.records import read_experiment
        from maxent.charts.tree_page import write_pages

        if not read_experiment(results).drawn:
            return True
        draw_without_display()
        from maxent.charts.drawing import draw_charts

        folder = find_folder(results)
        charts = draw_charts(results, folder, command=again)
        pages, problems = write_pages(results, folder)
    except Exception as error:
        announce(f"charts not drawn: {_explain(error)}; the results are whole, `{again}` draws them")
        return False
    trees = f" and {len(pages)} page{'s' * (len(pages) != 1)} of trees" if pages else ""
    announce(f"{len(charts)} charts{trees} in {folder}")
    for problem in problems:
        announce(f"tree not shown: {problem}")
    return not problems


def name_command() -> str:
    """Return how the command that draws charts is called from the current folder."""
    try:
        path = os.path.relpath(Path(__file__).with_name("charts"))
    except ValueError:  # on another drive
        path = os.pardir
    return "python -m maxent.charts" if path.startswith(os.pardir) else f"python {path}"


def _explain(error: Exception) -> str:
    return explain(error) if isinstance(error, MISTAKES) else f"{type(error).__name__}: {explain(error)}"
