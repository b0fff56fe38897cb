"""What a study left, shown in a notebook: claims, figures and tables from its files alone."""

import importlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from plotting.studies import HOW, find_studies, show_study
from tests.notebooks import write_example
from tests.test_notebooks import run_app

pytestmark = pytest.mark.filterwarnings("default")  # whatever marimo and what it stands on warn about is theirs

CLAIMS = """number,claim,says,direction,margin,part,verdict,why,value,low,high,reference,unit,n_runs,p,p_adjusted
1,pathways.consistency,Seeds agree <b>,greater,,all,supported,,,,,,runs,10,0.002,0.004
1,pathways.consistency,Seeds agree <b>,greater,,Unlock,,,0.9,0.8,0.95,0.1,runs,10,0.002,
2,price.trend,Price buys less,less,,all,undecided,no test: too few,,,,,runs,2,,
"""
REPORT = """# Routing study: tiny
Four policies were studied.
> **Incomplete.** What follows is made of what could be used; not all could.
>
> - one run collapsed
## Design
Words.## Calibration card
![Wrong on noise.](figures/calibration.png)
## Consistency of pathways
![Every point is a run.](figures/pathways.png)
![Also.](figures/pathways_more.png)
"""
TABLE = """analysis,quantity,unit,task,setting,layer,expert,value,low,high,n_runs,p
pathways,consistency,run,Unlock,alpha=0,-1,-1,0.123456,,,1,
pathways,consistency,runs,Unlock,alpha=0,-1,-1,0.654321,0.5,0.75,2,
"""


def write_study(folder: Path) -> Path:
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    (folder / "claims.csv").write_text(CLAIMS)
    (folder / "report.md").write_text(REPORT)
    (folder / "study.json").write_text(json.dumps({"config": {"analyses": ["pathways", "price"]}}))
    (folder / "tables" / "pathways.csv").write_text(TABLE)
    for name in ("calibration", "pathways_more", "pathways"):
        Image.new("RGB", (600, 300), "white").save(folder / "figures" / f"{name}.png")
    return folder


def test_studies_are_found_the_newest_first(tmp_path):
    assert find_studies(tmp_path / "nowhere") == {}
    for age, name in enumerate(("old", "new")):
        os.utime(write_study(tmp_path / name) / "claims.csv", (1000 + age, 1000 + age))
    (tmp_path / "unfinished" / "work").mkdir(parents=True)
    assert list(find_studies(tmp_path).items()) == [("new", tmp_path / "new"), ("old", tmp_path / "old")]


def test_claims_figures_and_means_are_shown(tmp_path):
    parts = show_study(write_study(tmp_path / "tiny"))
    text = "\n".join(parts)
    assert "supported" in text and "Seeds agree &lt;b&gt; (pathways.consistency: greater)" in text
    assert "undecided" in text and "no test: too few" in text and "0.9 (0.8 to 0.95)" in text
    assert "Incomplete: one run collapsed" in text
    assert text.count("data:image/png;base64,") == 3
    # In the report's order, each under its section's title though the report's line breaks are lost
    marks = ["Calibration card</h2>", "Wrong on noise.</p>", "Consistency of pathways</h2>", "run.</p>", "Also.</p>"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "0.6543" in text and "0.1235" not in text  # single runs are in the file alone
    assert "Price" not in text.replace("Price buys", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [("claims.csv", b""), ("study.json", b"{}"), ("study.json", b"{"), ("figures/pathways.png", b"none")],
)
def test_a_damaged_study_is_named(tmp_path, name, content):
    folder = write_study(tmp_path / "tiny")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be shown") as caught:
        show_study(folder)
    assert str(folder) in str(caught.value) and "science/study.py" in str(caught.value)


def test_the_notebook_shows_the_newest_study_or_what_to_run(tmp_path):
    flags = write_example(tmp_path)
    _, found = run_app("cross_task_viz", flags)
    assert found["study_parts"] == []
    _, found = run_app("cross_task_viz", flags, all_views=True)
    assert HOW in found["study_parts"][0]
    for age, name in enumerate(("old", "new")):
        os.utime(write_study(Path(flags["studies_dir"]) / name) / "claims.csv", (1000 + age, 1000 + age))
    _, found = run_app("cross_task_viz", flags, all_views=True)
    assert list(found["study_field"].options) == ["new", "old"]
    assert "Consistency of pathways" in "".join(found["study_parts"])
    (Path(flags["studies_dir"]) / "new" / "study.json").write_text("{")
    _, found = run_app("cross_task_viz", flags, all_views=True)
    assert "cannot be shown" in found["study_parts"][0]


def test_a_study_alone_is_shown_and_kept_as_a_page(tmp_path):
    """Without results the notebook left, though there was a study to show."""
    flags = {**write_example(tmp_path), "results_path": str(tmp_path / "none.csv")}
    write_study(Path(flags["studies_dir"]) / "tiny")
    _, found = run_app("cross_task_viz", flags)
    assert "Consistency of pathways" in "".join(found["study_parts"]) and "drawn" not in found
    page = tmp_path / "study.html"
    given = {name: value for name, value in flags.items() if name != "checkpoint_dir"}
    importlib.import_module("cross_task_viz").app.run(defs={**given, "all_views": False, "page": str(page)})
    assert "Consistency of pathways" in page.read_text()
