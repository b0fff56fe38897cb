"""What a study hands out: tables, figures, the calibration card, verdicts, and the report of all of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.command.files import replace_atomically, write_json, write_text
from pipeline.command.workers import Link
from science.card import read_card, widen, write_card
from science.catalogue import ANALYSES
from science.films import list_items
from science.plan import Design
from science.report.text import join_numbers, spell_out
from science.store import Item, Store

ANALYSIS_SOURCES = (
    *("science.questions", "science.result", "science.statistics", "science.traces", "science.effects"),
    *("science.profiles", "science.exchange", "science.agreement", "science.fronts"),
    *("science.observations", "science.feedforward", "science.forced", "science.coalitions", "science.npz"),
    *("science.knockouts", "science.difficulty", "science.distinctness"),  # whose numbers other analyses take too
    *("science.games", "science.credit_rankings", "science.credit_consistency"),
    *("science.levels", "science.kinship", "science.arms", "science.adapting"),
    *("science.handover", "science.rises", "science.probing", "science.states"),
)
FIGURE_SOURCES = ("science.figures", "plotting.style", "plotting.panels", "plotting.cells")


def table_path(design: Design, analysis: str) -> Path:
    """Return the file of an analysis's tidy rows."""
    return design.folder / "tables" / f"{analysis}.csv"


def card_path(design: Design) -> Path:
    """Return the file of the calibration card."""
    return design.folder / "calibration.csv"


def result_path(design: Design, analysis: str) -> Path:
    """Return the file of what an analysis says besides its rows."""
    return design.work / "results" / f"{analysis}.json"


def make_table(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Make an analysis: its table, and what it says besides."""
    from science.questions import answer

    name = item.name.partition("/")[2]
    link.heed()
    result = answer(name, design, store, item)
    path, beside = table_path(design, name), result_path(design, name)
    write_text(path, result.to_csv())
    files = [path, beside]
    dropped = [{"run": entry.run.name, "reason": entry.reason, "quantity": entry.quantity} for entry in result.dropped]
    write_json(
        beside,
        {"definition": result.definition, "notes": list(result.notes), "dropped": dropped},
        indent=1,
    )
    if (parquet := write_parquet(path)) is not None:
        files.append(parquet)
    return files, {}


def write_parquet(path: Path) -> Path | None:
    """Write a table as Parquet beside its CSV, where pyarrow is installed; return the file."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    target = path.with_suffix(".parquet")
    with replace_atomically(target) as temporary:
        read_table(path).to_parquet(temporary, index=False)
    return target


def read_table(path: Path) -> Any:
    """Return a table of tidy rows: texts are "" where they are empty, numbers NaN."""
    import pandas as pd

    from science.result import COLUMNS, Row

    table = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in COLUMNS}, low_memory=False)
    for name, kind in Row.__annotations__.items():
        if kind == "str":
            table[name] = table[name].astype("string").fillna("").astype(str)
        elif kind == "int":
            table[name] = table[name].fillna(-1).astype("int64")
        else:
            table[name] = table[name].astype("float64")
    return table


def make_figures(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Draw the figures of an analysis; or gather the calibration card and draw it."""
    from pipeline.command.displays import draw_without_display

    draw_without_display()
    from plotting.style import save_figure
    from science.calibration import ALPHA
    from science.figures.calibration import draw_calibration
    from science.figures.draw import draw_analysis

    name = item.name.partition("/")[2]
    made: list[Path] = []
    notes: list[str] = []
    if name == "calibration":
        files = [path for need in item.needs for path in store.files(need)]
        table, notes = read_card(files)
        made.append(card_path(design))
        write_card(made[0], table)
        drawn = [draw_calibration(widen(table), ALPHA)] if len(table) else []
    else:
        files = [path for path in store.files(f"analyse/{name}") if path.suffix == ".csv"]
        sizes = expert_sizes(design)
        drawn = draw_analysis(name, read_table(files[0]), spell_out(ANALYSES[name].quantities), sizes) if files else []
    captions = {}
    for figure in drawn:
        link.heed()
        paths = save_figure(figure.figure, design.folder / "figures" / f"{figure.name}.png", ("png", "pdf"))
        made += paths
        captions[figure.name] = figure.caption
    return made, {"captions": captions, "notes": notes}


def expert_sizes(design: Design) -> list[list[int]]:
    """Return the hidden sizes of the experts, per layer."""
    return design.runs[0].config.expert_hidden_sizes


# -------------------------------------------------------------------------------------------------------------- report


def write_report(
    design: Design, store: Store, failed: Mapping[str, str], only: Sequence[str], old: Collection[str] = ()
) -> list[str]:
    """Write claims.csv, report.html, report.md and study.json; return what failed or could not be used, in words.

    Args:
        design: Of the study.
        store: Of it.
        failed: Name of an item -> why it could not be made.
        only: Analyses asked for in this call.
        old: Others, whose inputs have changed since they were made.
    """
    from science.report.pages import render

    report, claims = build_report(design, store, failed, only, old)
    write_text(design.folder / "claims.csv", claims.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    html, markdown = render(report)
    write_text(design.folder / "report.html", html)
    write_text(design.folder / "report.md", markdown)
    write_json(design.folder / "study.json", describe_study(design, store), indent=1)
    return list(report.problems)


def build_report(
    design: Design, store: Store, failed: Mapping[str, str], only: Sequence[str], old: Collection[str]
) -> Any:
    """Return the report and the verdicts; see `write_report`."""
    import dataclasses

    from science.claims import judge, mark_old
    from science.report.calibration import calibration_of, doubt_claims
    from science.report.content import ClaimEntry, Pictures, Report, build_section, read_claims
    from science.report.facts import (
        abstract_of,
        design_facts,
        origin_facts,
        problems_of,
        training_facts,
    )
    from science.report.runs import runs_tables
    from science.report.tables import asked_price

    tables, results = {}, {}
    for name in design.config.analyses:
        if store.files(f"analyse/{name}"):
            tables[name] = read_table(table_path(design, name))
            results[name] = json.loads(result_path(design, name).read_text(encoding="utf-8"))
    judged = [
        dataclasses.replace(claim, task=None if claim.task is None else design.full_name(claim.task))
        for claim in design.config.claims
    ]
    claims = judge(judged, tables, design.config.statistics.level, (*design.held_out, *design.new_levels))
    claims = mark_old(claims, set(old) & set(tables))
    entries: tuple[ClaimEntry, ...] = doubt_claims(read_claims(claims), design, card_path(design))
    pictures = Pictures(design.folder)
    calibration = calibration_of(design, store, pictures, card_path(design))
    sections = []
    for name in design.config.analyses:
        entry = ANALYSES[name]
        if name not in tables:
            from science.report.content import Section

            why = failed.get(
                f"analyse/{name}", "it was not asked for in this call" if name not in only else "it was not made"
            )
            sections.append(Section(name, entry.title, missing=why))
            continue
        drawn = store.read(f"draw/{name}")
        captions = {} if drawn is None else drawn.notes["captions"]
        shown = [
            pictures.take(design.folder / "figures" / f"{figure}.png", caption) for figure, caption in captions.items()
        ]
        result = {**results[name], "dropped": group_dropped(results[name]["dropped"])}
        films = list_films(store, design) if name == "knockouts" else []
        about = {"films": films, "old": name in old, "price": asked_price(design.config.claims, name)}
        sections.append(
            build_section(name, entry.title, result, tables[name], spell_out(entry.quantities), shown, **about)
        )
    problems = problems_of(design, failed, results)
    report = Report(
        title=f"Routing study: {design.config.name}",
        problems=problems,
        abstract=abstract_of(design, entries),
        design=design_facts(design),
        runs=runs_tables(design, store),
        calibration=calibration[0],
        calibration_table=calibration[1],
        calibration_picture=calibration[2],
        claims=entries,
        sections=tuple(sections),
        origin=origin_facts(design),
        training=training_facts(design),
    )
    return report, claims


def list_films(store: Store, design: Design) -> list[tuple[str, str]]:
    """Return path and text of the twin films that there are."""
    stamps = [store.read(item.name) for item in list_items(design, ["knockouts"])]
    return [(path, text) for stamp in stamps if stamp is not None for path, text in stamp.notes["films"]]


def group_dropped(dropped: Sequence[Mapping[str, str]]) -> list[str]:
    """Return runs left out, a line for each reason: those of which the same quantities are missing together.

    Reasons that differ in a number alone are one; seeds in a row are written 0-9.
    """
    missing: dict[tuple[str, str], list[str]] = {}
    for entry in dropped:
        missing.setdefault((entry["reason"] or "no value", entry["run"]), []).append(entry["quantity"])
    alike: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for (reason, run), quantities in missing.items():
        kind = (re.sub(r"\d+\.\d+", "#", reason, count=1), tuple(dict.fromkeys(quantities)))
        alike.setdefault(kind, {})[run] = [*alike.get(kind, {}).get(run, []), reason]
    lines = []
    for (_, quantities), runs in alike.items():
        cells: dict[str, list[int]] = {}
        for run in runs:
            cell, _, seed = run.rpartition(", seed ")
            words = re.sub(r", trial \d+$", "", cell.replace(", , trial -1", ", all prices"))
            cells.setdefault(words, []).append(int(seed))
        by_seeds: dict[tuple[str, str], list[str]] = {}
        for cell, seeds in cells.items():
            task, _, setting = cell.partition(", ")
            by_seeds.setdefault((task, join_numbers(seeds)), []).append(setting)
        named = [
            f"{task}, {', '.join(settings).replace(', alpha=', ', ')}, seed {seeds}"
            for (task, seeds), settings in by_seeds.items()
        ]
        names = "; ".join(named[:6]) + (f"; and {len(named) - 6} more settings" if len(named) > 6 else "")
        words = ", ".join(quantity.replace("_", " ") or "all quantities" for quantity in quantities)
        lines.append(f"{join_reasons(list(runs.values()))} ({len(runs)}): {names}. Left out of {words}")
    return lines


def join_reasons(reasons: Sequence[Sequence[str]]) -> str:
    """Return reasons that differ in their first number alone as one: "success 0.40 to 0.48 below 0.5"."""
    different = list(dict.fromkeys(text for texts in reasons for text in texts))
    numbers = sorted(float(re.findall(r"\d+\.\d+", text)[0]) for text in different) if len(different) > 1 else []
    return (
        re.sub(r"\d+\.\d+", f"{numbers[0]:.2f} to {numbers[-1]:.2f}", different[0], count=1)
        if numbers
        else different[0]
    )


def describe_study(design: Design, store: Store) -> dict[str, Any]:
    """Return study.json: the resolved settings, the versions, and the digests of what was made of what."""
    from science.report.facts import versions_of

    config = design.config.to_dict()
    items = {}
    for path in sorted((design.work / "stamps").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        items[content["name"]] = {
            "key": content["key"],
            "files": {name: sha for name, (_, _, sha) in content["files"].items()},
        }
    return {
        "schema_version": 1,
        "config": _plain(config),
        "versions": versions_of(),
        "runs": [
            {"task": run.task, "setting": run.setting, "trial": run.config.trial, "seed": run.seed}
            for run in design.runs
        ],
        "items": dict(sorted(items.items())),
    }


def _plain(value: Any) -> Any:
    """Return plain types that JSON knows: what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
