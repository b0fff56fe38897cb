"""What a study left (`science/study.py`), as HTML for a notebook: claims with verdicts, figures, tables.

    studies = find_studies("studies/out")                # {"pathways": Path, ...}, the newest first
    parts = show_study(studies["pathways"])              # pieces of HTML

Files are read, nothing is computed. docs/science.md says what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from plotting.page import show_caption, show_folded, show_heading, show_note, show_picture, show_table

_MOST_ROWS = 200
_PNG_PER_INCH = 300
_PART = {"claim": "quantity", "part": "part", "reference": "reference", "n_runs": "runs", "p": "p"}
_TABLE = ("quantity", "task", "setting", "layer", "expert", "group", "condition", "value", "low", "high", "null_mean")
_COUNTS = ("n_runs", "n_dropped", "p", "p_adjusted")

HOW = (
    "No study has been made here yet. A tiny one, in a minute or two: python science/study.py --config "
    "studies/debug.yaml; the one of the pathways: python science/study.py --config studies/pathways.yaml"
)
"""What to run where there is none."""


def find_studies(root: str | Path) -> dict[str, Path]:
    """Return the folders of studies that have a report, by name, the newest first."""
    found = [path.parent for path in Path(root).glob("*/claims.csv") if (path.parent / "report.md").is_file()]
    found.sort(key=lambda folder: (-(folder / "claims.csv").stat().st_mtime, folder.name))
    return {folder.name: folder for folder in found}


def show_study(folder: Path) -> list[str]:
    """Return a study as pieces of HTML: what it is, its claims, and of each analysis figures and means over runs.

    Raises:
        ValueError: If a file of it cannot be read; the message says which and what to do.
    """
    try:
        report = (folder / "report.md").read_text(encoding="utf-8")
        settings = json.loads((folder / "study.json").read_text(encoding="utf-8"))["config"]
        claims = pd.read_csv(folder / "claims.csv", dtype={"number": str}, keep_default_na=True)
        return _show(folder, report, settings, claims)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{folder}: cannot be shown ({' '.join(reason.split())}); make its report again: python science/study.py "
            "--config with the file of the study"
        ) from None


def _show(folder: Path, report: str, settings: dict[str, Any], claims: pd.DataFrame) -> list[str]:
    title, *rest = report.split("\n## ", 1)[0].split("\n")
    problems = [line[4:] for line in rest if line.startswith("> - ")]
    sentences = " ".join(line for line in rest if line.strip() and not line.startswith(">"))
    parts = [show_heading(title.lstrip("# "), sentences)]
    parts += [show_note(f"Incomplete: {'; '.join(problems)}")] if problems else []
    parts += _show_claims(claims) if len(claims) else [show_note("No claim was declared: all is exploratory.")]
    headings, captions = _read_pictures(report)
    names = [name for name in settings["analyses"] if (folder / "tables" / f"{name}.csv").is_file()]
    pictures = sorted((folder / "figures").glob("*.png"), key=lambda path: [*captions, path.name].index(path.name))
    for name in ["calibration", *names]:
        mine = [path for path in pictures if path.stem == name or path.stem.startswith(f"{name}_")]
        table = folder / ("calibration.csv" if name == "calibration" else f"tables/{name}.csv")
        if not mine and not table.is_file():
            continue
        heading = next((headings[path.name] for path in mine if headings.get(path.name)), name.capitalize())
        parts.append(show_heading(heading))
        for path in mine:
            caption = captions.get(path.name, "")
            with Image.open(path) as picture:
                inches = picture.width / _PNG_PER_INCH
            parts += [show_picture(path.read_bytes(), caption or path.stem, inches), show_caption(caption)]
        parts += [_show_rows(table)] if table.is_file() else []
    return [*parts, show_caption(f"All of it, with definitions and films: {folder / 'report.html'}")]


def _show_claims(claims: pd.DataFrame) -> list[str]:
    """Return declared claims with verdicts, and behind a click the numbers of their parts."""
    whole, pieces = claims[claims["part"] == "all"], claims[claims["part"] != "all"]
    said = [f"{r.says} ({r.claim}: {r.direction})" for r in whole.itertuples()]
    found = [f"{r.verdict}{f': {r.why}' if isinstance(r.why, str) else ''}" for r in whole.itertuples()]
    table = pd.DataFrame({"": whole["number"], "claim": said, "verdict": found})
    table["p (Holm)"] = [_number(value) for value in whole["p_adjusted"]]
    parts = [show_heading("Declared claims"), show_table(table)]
    if len(pieces):
        shown = pieces[list(_PART)].rename(columns=_PART)
        shown.insert(2, "value", [_interval(*row) for row in pieces[["value", "low", "high"]].itertuples(index=False)])
        parts.append(show_folded("Parts of the claims: each task and price", show_table(_texts(shown))))
    return parts


def _show_rows(path: Path) -> str:
    """Return the rows of a table that are no single run's, behind a click."""
    table = pd.read_csv(path)
    tidy = path.parent.name == "tables"
    rows = table[table["unit"] != "run"] if tidy else table
    kept = rows.head(_MOST_ROWS)
    if tidy:
        kept = kept[[name for name in (*_TABLE, *_COUNTS) if name in kept and kept[name].notna().any()]]
        for name in ("layer", "expert"):  # -1 is none
            if name in kept:
                kept = kept.assign(**{name: kept[name].where(kept[name] >= 0)})
    left = f", the first {len(kept)}" if len(kept) < len(rows) else ""
    what = "means over runs" if tidy else "rows"
    return show_folded(f"Table: {len(rows):,} {what}{left} (all in {path})", show_table(_texts(kept)))


def _read_pictures(report: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return of each picture of a report the title of its section, and its caption, in their order."""
    headings, captions, section = {}, {}, ""
    for heading, caption, name in re.findall(r"(?<!#)## (.+)$|!\[(.*?)\]\(figures/([\w.-]+)\)", report, re.MULTILINE):
        if heading:
            section = heading
        else:
            headings[name], captions[name] = section, caption
    return headings, captions


def _interval(value: float, low: float, high: float) -> str:
    return _number(value) + (f" ({_number(low)} to {_number(high)})" if pd.notna(low) and pd.notna(high) else "")


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.4g}"


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose numbers are texts of four digits, nothing where there is none."""
    columns: dict[str, Sequence[str]] = {name: [_number(value) for value in table[name]] for name in table}
    return pd.DataFrame(columns)
