"""The report of a study whose analyses are given planted data: what it says, and what it is made of."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from science import knockouts, pathways, questions, run, stages, sufficiency
from science.config import Claim, read_study
from science.figures.draw import draw_analysis
from science.figures.strips import Panel, draw_strips
from science.outputs import group_dropped, read_table, table_path, write_report
from science.plan import build_design
from science.planted_effects import plant_knockouts, plant_thresholds
from science.questions import add_rows, list_usage
from science.report.definitions import PAGE, update_page
from science.report.text import format_interval, format_number, format_p, parse_blocks
from science.result import Draft
from science.store import Store
from science.synthetic import Design as Shape
from science.synthetic import draw_template, plant_signal
from science.traces import Run

SEEDS = 4
PRICES = (0.0, 1e-5, 1e-3)
SIZES = [[0, 16, 32]] * 3
TASK = "BabyAI-GoToObj-v0"


def plant(name: str):
    """Return a result of planted data, under the names of the study."""
    rng = np.random.default_rng(0)
    shape = Shape(runs=SEEDS, episodes=12)
    traces = plant_signal(draw_template(shape, rng, alphas=PRICES), rng, shared=0.06, own=0.03)
    runs = tuple(
        dataclasses.replace(r, task=TASK, setting=f"alpha={r.lpc_alpha:g}", trial=r.trial + 1) for r in traces.runs
    )
    traces = dataclasses.replace(traces, runs=runs)
    if name == "pathways":
        return pathways.compute(traces, draws=9)
    if name == "sufficiency":
        return sufficiency.compute(plant_thresholds(traces, rng, [0.9, 0.8, 0.7], [0.8, 0.6, 0.4], [0.05, 0.1, 0.2]))
    harm = np.abs(rng.normal(0.1, 0.05, (len(runs), 9)))
    effects = plant_knockouts(traces, rng, harm)
    named = [
        c if c.kind == "sham" else dataclasses.replace(c, name=f"zero l{c.layer}e{c.expert} renormalised")
        for c in effects.conditions  # as `pipeline.interventions` names them
    ]
    found = knockouts.compute(dataclasses.replace(effects, conditions=tuple(named)), traces)
    return add_rows(found, list_usage("knockouts", traces))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study's folder with tables, figures, one calibrated claim, and the report; and what was incomplete."""
    folder = tmp_path_factory.mktemp("report")
    claims = [
        Claim("pathways.consistency", "greater", 0.1, "Pathways <are> consistent"),
        Claim("sufficiency.sufficiency_above_random", "greater", alpha=0.0),
    ]
    flags = ["--tasks", "GoToObj", "--seeds", f"0-{SEEDS - 1}", "--lpc_alphas", "0,1e-5,1e-3", "--out", str(folder)]
    flags += ["--analyses", "[pathways, sufficiency, knockouts]", "--episodes", "12"]
    flags += ["--train", "{expert_hidden_sizes: [[0, 16, 32], [0, 16, 32], [0, 16, 32]]}"]
    config = dataclasses.replace(read_study("test", flags)[0], claims=claims)
    config = dataclasses.replace(config, statistics=dataclasses.replace(config.statistics, calibration=2))
    design, progress = build_design(config, {}), run.Progress()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "answer", lambda name, *_: plant(name))
        patch.setattr("science.card.list_cases", lambda analyses: ["sufficiency.sufficiency_above_random"])
        for name in ("calibrate", "analyse", "draw"):
            run._do_stage(stages.find_stage(name), design, Store(design.folder), config.analyses, 1, progress)
        assert progress.failed == {}
        failed = {f"train/{TASK}/alpha=0/seed={seed}": "the run diverged" for seed in (2, 3)}
        problems = write_report(design, Store(design.folder), failed, config.analyses)
    return design, problems


@pytest.fixture(scope="module")
def html(made) -> str:
    return (made[0].folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(made) -> str:
    return (made[0].folder / "report.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_needs_no_other_file_and_no_network(html):
    sources = re.findall(r"""(?:src|href)=["']([^"']+)""", html)
    assert sources and all(s.startswith(("data:image/png;base64,", "#", "tables/", "calibration.csv")) for s in sources)
    assert "<script" not in html and "@import" not in html and "url(" not in html


def test_the_page_has_everything_a_reviewer_reads_in_order(html):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert titles == [
        *("Design", "Calibration card", "Declared claims", "Consistency of pathways between seeds"),
        *("Self-sufficiency of pathways", "Knock-outs, and the audit of the usage map", "Statistics"),
        "How to make it again",
    ]
    links = set(re.findall(r'href="#([\w-]+)"', html))
    assert links <= set(re.findall(r'id="([\w-]+)"', html)) and len(links) >= 8


def test_each_analysis_has_its_definition_n_figures_and_table(html, made):
    assert "<code>science.exchange</code>" in html
    for name, words in (("pathways", "mean over pairs of runs"), ("knockouts", "Spearman correlation over experts")):
        section = html.partition(f'<h2 id="{name}"')[2].partition("<h2")[0]
        assert words in " ".join(section.split())
        assert "<figure" in section and f"tables/{name}.csv" in section and "n: " in section


def test_verdicts_are_told_and_text_is_escaped(html, markdown):
    assert "Pathways &lt;are&gt; consistent" in html and "Pathways <are> consistent" not in html
    assert 'class="verdict' in html and "**" in markdown
    assert "p is Holm's over the 2 claims" in " ".join(html.split())


def test_what_failed_marks_it_incomplete_and_is_joined(html, markdown, made):
    assert made[1][0] == f"train of {TASK}/alpha=0/seed=2; {TASK}/alpha=0/seed=3: the run diverged"
    assert "<b>Incomplete.</b>" in html and "**Incomplete.**" in markdown
    assert "the run diverged" in html and "the run diverged" in markdown


def test_markdown_tables_and_figures_are_blocks_of_their_own(markdown):
    lines = markdown.splitlines()
    for above, line, below in zip(lines, lines[1:], lines[2:], strict=False):
        if re.match(r"\|( -+:? \|| -+:? \|)+", line.replace("---:", "---")):
            assert not line.replace("---:", "---").replace("| ---", "").strip("| "), line
            assert above.count("|") == line.count("|") == below.count("|")
        if line.startswith(("![", "#")):
            assert above == "", (above, line)
    assert not [line for line in lines if re.search(r".(Dropped|Notes|Films):$|.!\[", line)]


def test_markdown_shows_the_figures_that_are_there(markdown, made):
    figures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert len(figures) >= 5 and all((made[0].folder / path).exists() for path in figures)
    for line in markdown.splitlines():
        assert "{%" not in line and "{{" not in line


def test_the_calibration_card_tells_false_positives_and_recovery(html, made):
    card = html.partition('<h2 id="calibration"')[2].partition("<h2")[0]
    assert '<td data-label="test">sufficiency.<wbr>sufficiency_<wbr>above_<wbr>random</td>' in card  # may break
    assert '<td data-label="found" class="num">' in card and '<table class="stacked">' in card
    assert "2 data sets" in card
    assert (made[0].folder / "calibration.csv").exists()


def test_the_same_study_gives_the_same_report(made, html):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("science.card.list_cases", lambda analyses: ["sufficiency.sufficiency_above_random"])
        failed = {f"train/{TASK}/alpha=0/seed={seed}": "the run diverged" for seed in (2, 3)}
        write_report(made[0], Store(made[0].folder), failed, made[0].config.analyses)
    assert (made[0].folder / "report.html").read_text(encoding="utf-8") == html


def test_runs_that_were_dropped_are_told_by_reason():
    quantities = ("lpc_entropy", "lpc_divergence")
    few = [
        {"run": f"T, alpha=0, trial 1, seed {seed}", "reason": "2 cells", "quantity": quantity}
        for quantity in quantities
        for seed in (0, 1)
    ]
    other = [{"run": "T, alpha=1, trial 2, seed 0", "reason": "2 cells", "quantity": q} for q in quantities]
    whole = [{"run": "T, alpha=1, trial 2, seed 3", "reason": "", "quantity": ""}]
    assert group_dropped([*few, *other, *whole]) == [
        "2 cells (3): T, alpha=0, seed 0, 1; T, alpha=1, seed 0. Left out of lpc entropy, lpc divergence",
        "no value (1): T, alpha=1, seed 3. Left out of all quantities",
    ]
    many = [{"run": f"T{n}, a, trial 1, seed 0", "reason": "x", "quantity": "q"} for n in range(8)]
    assert group_dropped(many)[0].endswith("T5, a, seed 0; and 2 more settings. Left out of q")


def test_runs_left_out_of_many_settings_are_one_line():
    """Every seed of every price was written out, and each value below a threshold was a line of its own."""
    seeds = [0, 1, 2, 3, 5, 7, 8]
    every = [
        {"run": f"T, alpha={a}, trial 1, seed {s}", "reason": "rare", "quantity": "q"} for a in (0, 1) for s in seeds
    ]
    assert group_dropped(every) == ["rare (14): T, alpha=0, 1, seed 0-3, 5, 7, 8. Left out of q"]
    low = [
        {"run": f"T, , trial -1, seed {seed}", "reason": f"success {value:.2f} below 0.5", "quantity": "q"}
        for seed, value in ((0, 0.4), (1, 0.25), (2, 0.4))
    ]
    assert group_dropped(low) == ["success 0.25 to 0.40 below 0.5 (3): T, all prices, seed 0-2. Left out of q"]


# ----------------------------------------------------------------------------------------------------------- the tables


def test_tables_come_back_as_they_were_written(made):
    table = read_table(table_path(made[0], "pathways"))
    assert table["task"].eq(TASK).all() and table["seed"].dtype == "int64"
    known = plant("pathways").to_frame()
    assert len(table) == len(known) and list(table.columns) == list(known.columns)
    np.testing.assert_allclose(table["value"], known["value"], rtol=1e-5)
    assert (table["estimator"] == known["estimator"]).all()


# ---------------------------------------------------------------------------------------------------------- the figures


def test_which_figures_an_analysis_has(made):
    tables = {name: read_table(table_path(made[0], name)) for name in made[0].config.analyses}
    names = {name: [d.name for d in draw_analysis(name, tables[name], {}, SIZES)] for name in tables}
    assert names["knockouts"][:2] == ["knockouts_audit", "knockouts_effect_on_ce"]
    assert names["sufficiency"] == ["sufficiency_curves", "sufficiency"]
    assert names["pathways"] == ["pathways"]


def points_of(ax) -> list[float]:
    return [y for line in ax.lines if line.get_linestyle() == "None" for y in line.get_ydata()]


def test_every_run_is_a_point_and_n_and_what_was_dropped_are_on_the_figure():
    draft = Draft("x", "")
    runs = [Run(TASK, "alpha=0", 1, seed) for seed in range(5)]
    values = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    draft.over_runs("q", values, runs, reasons=["", "", "", "", "collapsed"], null=0.05)
    drawn = draw_strips("x", [Panel("what", draft.finish().to_frame())])
    (ax,) = drawn.figure.axes
    assert sorted(points_of(ax)) == [0.1, 0.2, 0.3, 0.4]
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["n 4", "\N{MINUS SIGN}1"]
    heights = [segment[0][1] for c in ax.collections for segment in c.get_segments()]
    assert 0.25 in np.round(heights, 6) and 0.05 in np.round(heights, 6)  # mean over runs, and the null
    assert "dropped" not in drawn.caption and "counted in red" in drawn.caption


def test_a_quantity_that_no_run_has_says_so():
    draft = Draft("x", "")
    draft.over_runs("q", np.full(2, np.nan), [Run(TASK, "alpha=0", 1, seed) for seed in range(2)])
    (ax,) = draw_strips("x", [Panel("what", draft.finish().to_frame())]).figure.axes
    assert "no run has a value" in [text.get_text() for text in ax.texts]


def test_the_audit_has_a_point_for_each_expert_of_each_run(made):
    table = read_table(table_path(made[0], "knockouts"))
    drawn = next(iter(draw_analysis("knockouts", table, {}, SIZES)))
    assert sum(len(points_of(ax)) for ax in drawn.figure.axes) == SEEDS * len(PRICES) * 9


# ------------------------------------------------------------------------------------------------------------- the text


def test_definitions_become_blocks():
    text = "Title: what?\n\nIntro:\n\n- one: of\n  two lines\n- three\n\nNull: shuffled.\n\n    code line\n"
    blocks = parse_blocks(text)
    assert [b.kind for b in blocks] == ["paragraph", "paragraph", "list", "term", "code"]
    assert blocks[2].lines == ("one: of two lines", "three") and blocks[3].term == "Null"
    assert blocks[4].lines == ("code line",)


@pytest.mark.parametrize("name", ["pathways", "distinctness", "sufficiency", "knockouts", "price", "complexity"])
def test_every_definition_is_read_whole(name):
    import importlib
    import inspect

    doc = inspect.cleandoc(importlib.import_module(f"science.{name}").__doc__)
    blocks = parse_blocks(doc)
    shown = " ".join(line for block in blocks for line in block.lines)
    assert sorted(re.findall(r"\w+", shown)) == sorted(re.findall(r"\w+", doc))


def test_numbers_as_a_reader_wants_them():
    assert [format_number(v) for v in (0.12345, -2, 12345.6, float("nan"), 3)] == [
        *("0.123", "\N{MINUS SIGN}2", "12,346", "", "3"),
    ]
    assert [format_number(v) for v in (999.4, 999.6, 1000.4)] == ["999", "1,000", "1,000"]
    assert format_interval(0.5, 0.41, 0.59) == "0.5 [0.41, 0.59]"
    assert [format_p(p) for p in (0.0001, 0.04321, 0.5, float("nan"))] == ["<0.001", "0.043", "0.50", ""]


def test_a_table_of_no_rows_is_written_and_read(tmp_path):
    from science.result import Result

    path = tmp_path / "x.csv"
    path.write_text(Result("x", "", ()).to_csv())
    assert isinstance(read_table(Path(path)), pd.DataFrame) and len(read_table(path)) == 0


def test_the_page_of_definitions_is_that_of_the_docstrings():
    """If not, run `python -m science.report.definitions`."""
    text = PAGE.read_text(encoding="utf-8")
    assert update_page(text) == text
