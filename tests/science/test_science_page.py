"""Every number on the page of a study is that of its tables, its verdicts, its card and its runs' own play."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from pipeline.command.files import write_json, write_text
from science.card import write_card
from science.config import Claim, read_study
from science.outputs import result_path, table_path, write_report
from science.plan import build_design
from science.report.tables import summarise
from science.report.text import format_interval, format_number, format_p
from science.result import Result, Row
from science.store import Item, Store

TASK = "BabyAI-GoToObj-v0"
CLAIMS = [
    Claim("pathways.consistency", "greater", says="Alike"),
    Claim("pathways.transplant_gain", "greater", says="Worth it"),
    Claim("pathways.transplant_loss", "less", 0.2, says="No loss"),
]


def over_runs(quantity: str, value: float, p: float, **columns) -> Row:
    usual = {"task": TASK, "setting": "alpha=0", "n_runs": 4, "low": value - 0.125, "high": value + 0.25}
    return Row("pathways", quantity, "runs", value=value, p=p, **{**usual, **columns})


ROWS = (
    over_runs("consistency", 0.75, 0.004, null_mean=0.25),
    over_runs("transplant_gain", -0.5, 0.02, n_runs=3, n_dropped=1, p_floor=0.001),
    over_runs("transplant_loss", 1.25, 0.3, p_floor=0.001),
    over_runs("consistency_raw", 0.9, 0.6, setting="", n_runs=7, p_adjusted=0.8),
)


def write_analysis(store: Store, design, rows: tuple[Row, ...]) -> None:
    """Write the files that making an analysis leaves, and its stamp."""
    files = table_path(design, "pathways"), result_path(design, "pathways")
    write_text(files[0], Result("pathways", "", rows).to_csv())
    write_json(files[1], {"definition": "What it is.", "notes": [], "dropped": []})
    store.write(Item("analyse/pathways", {}), list(files))


def write_calibration(store: Store, design) -> None:
    """Write a card of one case: wrong in 0.06 of noise, right in 0.7 of what was planted."""
    case = {"analysis": "calibration", "group": "pathways.consistency"}
    rows = [
        {"quantity": "false_positive_rate", "value": 0.06, "low": 0.02, "high": 0.12, "condition": "none; 50 sets"},
        {"quantity": "recovery", "value": 0.7, "condition": "much; 50 sets"},
        {"quantity": "estimate_without", "value": 0.01, "condition": ""},
        {"quantity": "detectable", "value": 0.33, "estimator": "unit of the quantity", "condition": ""},
    ]
    write_card(design.folder / "calibration.csv", pd.DataFrame([{"estimator": "", **case, **row} for row in rows]))
    store.write(Item("draw/calibration", {}), [], {"captions": {}, "notes": []})


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a report, and returns its folder."""
    flags = ["--tasks", "GoToObj", "--seeds", "0-3", "--lpc_alphas", "0,1e-3", "--out", str(tmp_path)]
    config = dataclasses.replace(read_study("test", [*flags, "--analyses", "[pathways]"])[0], claims=CLAIMS)
    design = build_design(config, {})
    store = Store(design.folder)
    for run in design.runs:
        notes = {"success": 0.9 - 0.1 * run.seed - (run.alpha > 0) * 0.5, "lpc": 100.0 * (1 + run.seed)}
        store.write(Item(f"evaluate/{run.name}", {}), [], notes)
    write_analysis(store, design, ROWS)
    write_calibration(store, design)

    def write(**about) -> Path:
        write_report(design, store, {}, ["pathways"], **about)
        return design.folder

    return write


def rows_of(page: Path, title: str) -> list[dict[str, str]]:
    """Return the rows of a section's tables in report.md, by the heads of their columns."""
    section = (page / "report.md").read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    found, head = [], None
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" |")] if line.startswith("|") else None
        if cells is None or line.startswith("| **"):
            head = None if cells is None else head
        elif head is None:
            head = cells
        elif not line.startswith(("| ---", "|--")):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def test_verdicts_on_the_page_are_those_of_the_file(study):
    page = study()
    whole = pd.read_csv(page / "claims.csv").query("part == 'all'").to_dict("records")
    assert [row["verdict"] for row in whole] == ["supported", "contradicted", "undecided"]
    assert [row["p_adjusted"] for row in whole] == pytest.approx([0.012, 0.04, 0.3])  # Holm's of three
    found = rows_of(page, "Declared claims")
    assert [row["verdict"].strip("*").partition("*")[0] for row in found] == [row["verdict"] for row in whole]
    assert [row["p (Holm)"] for row in found] == ["0.012", "0.040", "0.30"]
    assert [row["found"] for row in found] == [
        "0.75 [0.625, 1] against 0.25",
        "\N{MINUS SIGN}0.5 [\N{MINUS SIGN}0.625, \N{MINUS SIGN}0.25] against 0",
        "1.25 [1.12, 1.5] against 0",
    ]
    assert [row["runs"] for row in found] == ["4", "3 (\N{MINUS SIGN}1)", "4"]
    html = (page / "report.html").read_text(encoding="utf-8").partition('id="claim-2"')[2].partition('id="claim-3"')[0]
    assert "contradicted</span>" in html and "against 0" in html and "p 0.040" in html


def test_a_verdict_from_a_table_that_was_not_made_again_says_so(study):
    """Sections said so, but a claim stayed "supported" of a table that the study no longer gives."""
    old = "rests on earlier inputs, settings or code"
    assert "rests on earlier" not in (study() / "report.md").read_text(encoding="utf-8")
    page = study(old={"pathways"})
    whole = pd.read_csv(page / "claims.csv").query("part == 'all'")
    assert list(whole["why"]) == [old] * 3 and set(whole["verdict"]) >= {"supported", "contradicted"}
    found = rows_of(page, "Declared claims")
    assert [row["verdict"].partition("**: ")[2] for row in found] == [old] * 3
    html = (page / "report.html").read_text(encoding="utf-8")
    assert html.count("Rests on earlier inputs") == 3
    assert html.count("<p>Of earlier inputs, settings or code: 3 verdicts (1, 2, 3).</p>") == 1


def test_a_claim_of_two_parts_tells_both(study, monkeypatch):
    rows = [*ROWS, over_runs("consistency", 0.5, 0.01, setting="alpha=0.001", null_mean=0.125)]
    monkeypatch.setattr("science.outputs.read_table", lambda _: Result("pathways", "", tuple(rows)).to_frame())
    parts = rows_of(study(), "Declared claims")[-2:]
    assert [(part["found"], part["p"]) for part in parts] == [
        ("0.75 [0.625, 1] against 0.25", "0.004"),
        ("0.5 [0.375, 0.75] against 0.125", "0.010"),
    ]


def test_means_on_the_page_are_those_of_the_table(study):
    found = rows_of(study(), "Consistency of pathways between seeds")
    assert [row["mean [95 % interval]"] for row in found] == [format_interval(r.value, r.low, r.high) for r in ROWS]
    assert [row["null"] for row in found] == [format_number(row.null_mean) for row in ROWS] == ["0.25", "", "", ""]
    assert [row["runs"] for row in found] == [str(row.n_runs) for row in ROWS] == ["4", "3", "4", "7"]
    assert [row["dropped"] for row in found] == ["", "1", "", ""]
    assert [row["p"] for row in found] == [format_p(row.p) for row in ROWS] == ["0.004", "0.020", "0.30", "0.60"]
    assert [row["p adjusted"] for row in found] == ["", "", "", "0.80"]


def test_means_of_many_levels_are_those_of_the_table():
    rows = [over_runs("consistency", -n / 2, 0.1, task=f"BabyAI-L{n}-v0", null_mean=n + 0.25) for n in range(1, 7)]
    (table,) = summarise(Result("pathways", "", tuple(rows)).to_frame(), {}).tables
    assert table.rows == tuple(
        (f"L{n}", f"{format_interval(row.value, row.low, row.high)} against {format_number(row.null_mean)}")
        for n, row in enumerate(rows, 1)
    )


def test_success_and_lpc_are_those_of_the_evaluation(study):
    found = rows_of(study(), "Design")
    assert [row["success [95 % interval]"].partition(" ")[0] for row in found] == ["0.75", "0.25"]
    assert [row["LPC [95 % interval]"].partition(" ")[0] for row in found] == ["250", "250"]
    assert [row["runs"] for row in found] == ["4", "4"]


def test_the_card_on_the_page_is_that_of_the_file(study):
    (row,) = rows_of(study(), "Calibration card")
    assert row["false positives [95 % interval]"] == "0.06 [0.02, 0.12]"
    assert (row["found"], row["detectable effect"]) == ("0.7", "0.33")
