"""The notebooks without a browser: they are sound, run from the shell, become pages, and say what is wrong."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command.names import name_command
from pipeline.records.cache import cache_path
from plotting.browsing import (
    choose_places,
    file_word,
    label_place,
    load_cache,
    name_selection,
    try_cache,
    try_caches,
    try_results,
)
from plotting.examples import find_examples
from plotting.tables import metrics_table, results_table, select_rows
from plotting.views import OTHER_VIEWS
from tests.notebooks import TASKS, name_folders, write_example

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("routing_viz", "cross_task_viz")
OTHERS = {"routing_viz": {"studies_dir"}, "cross_task_viz": {"checkpoint_dir"}}  # flags that a notebook lacks

# Whatever marimo and what it stands on warn about is theirs
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> dict[str, str]:
    return write_example(tmp_path_factory.mktemp("example"))


def start(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )


def as_arguments(notebook: str, flags: dict[str, str]) -> list[str]:
    own = {name: value for name, value in flags.items() if name not in OTHERS[notebook]}
    return [text for name, value in own.items() for text in (f"--{name}", value)]


def run_app(name: str, flags: dict[str, str], *, all_views: bool = False) -> tuple[str, dict]:
    """Return what the page says and the names it defines; folders are given as definitions, not as arguments."""
    defs = {key: value for key, value in flags.items() if key not in OTHERS[name]} | {
        "all_views": all_views,
        "page": "",
    }
    outputs, found = importlib.import_module(name).app.run(defs=defs)
    return "\n".join(getattr(output, "text", "") for output in outputs if output is not None), dict(found)


def test_marimo_finds_nothing_to_complain_about():
    done = start("-m", "marimo", "check", "--strict", *(f"{name}.py" for name in NOTEBOOKS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_can_be_exported(name, example, tmp_path):
    page = tmp_path / "page.html"
    done = start("-m", "marimo", "export", "html", f"{name}.py", "-o", str(page), "--", *as_arguments(name, example))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "data:image/png" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_view_is_drawn_from_the_shell_into_a_page_that_fetches_nothing(name, example, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = start(f"{name}.py", "--", *as_arguments(name, example), "--all_views", "--page", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/png;base64,') >= 5
    assert not re.search(r"https?:|//cdn|@import|@file|\bfetch\(|<link|<script[^>]* src", text)
    assert "<marimo" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_that_cannot_be_kept_gets_one_line(name, example, tmp_path):
    for flags in (name_folders(tmp_path), example):
        done = start(f"{name}.py", "--", *as_arguments(name, flags), "--page", str(tmp_path))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "batch_eval.py" in line or line.startswith(f"--page {tmp_path}: cannot be written")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_flag_that_a_notebook_lacks_is_refused(name, tmp_path):
    done = start(f"{name}.py", "--", *as_arguments(name, name_folders(tmp_path)), "--cache-dri", "x")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: flags: expected --") and line.endswith(
        "found --cache-dri; did you mean --cache_dir?"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_flag_without_its_value_is_refused(name, example):
    """`--page` without a file wrote nothing and ended with 0."""
    done = start(f"{name}.py", "--", *as_arguments(name, example), "--page", "--all_views")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: flags: expected a value behind --page, found none"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_with_nothing_there_a_page_says_what_to_run(name, tmp_path):
    page, flags = tmp_path / "page.html", as_arguments(name, name_folders(tmp_path))
    assert start(f"{name}.py", "--", *flags).returncode == 0
    done = start("-m", "marimo", "export", "html", f"{name}.py", "-o", str(page), "--no-include-code", "--", *flags)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "python train_mop.py" in text
    assert "python batch_eval.py" in text
    assert "Traceback" not in text


def test_routing_is_shown_without_a_click(example):
    text, found = run_app("routing_viz", example)
    assert list(found["figures"]) == ["routing_heatmap"]
    assert found["place_field"].selected_key.startswith("GoToObj · success ")
    assert found["place_field"].selected_key.endswith(
        " % · \N{GREEK SMALL LETTER ALPHA} = 1e-05 · trial 1 · seed 0 · final"
    )
    assert "95 % interval" in text
    assert set(found["analysis_field"].options) >= {"Starting room", "Outcome", "What is carried"}


def test_every_view_of_a_cache_is_under_a_tab():
    tabs = importlib.import_module("routing_viz").TABS
    assert sorted(view for views in tabs.values() for view in views) == sorted(["overall", *OTHER_VIEWS])


def test_runs_are_compared_without_a_click(example):
    _, found = run_app("cross_task_viz", example)
    assert [path for _, path in found["paths"]] == [Path(example["plots_dir"]) / "success_lpc.png"]
    assert len(found["drawn"]) == len(found["results"]) == 6
    assert list(found["caches_field"].value) == choose_places(found["places"])


def test_all_views_have_a_file_name(example):
    _, found = run_app("routing_viz", example, all_views=True)
    assert {"routing_heatmap", "routing_weights", "routing_entropy", "routing_paths"} < set(found["figures"])
    _, found = run_app("cross_task_viz", example, all_views=True)
    names = {path.relative_to(example["plots_dir"]).as_posix() for _, path in found["paths"]}
    assert {"success_lpc.png", "learning.png", "tasks.png"} < names
    # Two tasks have runs of the same trials and seeds: each has its own files
    assert f"{TASKS[0]}/trial_1_seeds_0_1/routing_events_picked.png" in names
    assert {setting.task_id for setting in found["setting_field"].options.values()} == set(TASKS)
    assert found["joined"].num_units == 2


def test_without_replicates_the_notebook_says_so(example, tmp_path):
    flags = example | {"cache_dir": str(tmp_path)}
    text, found = run_app("cross_task_viz", flags, all_views=True)
    assert "train more seeds" in text and found["joined"] is None


@pytest.mark.parametrize("content", [b"", b'{"routing_data": [', b"\xff\xfe", b"[]"])
def test_a_damaged_cache_gives_a_message(content, tmp_path):
    flags = name_folders(tmp_path)
    path = cache_path(flags["cache_dir"], TASKS[0], 1, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    text, found = run_app("routing_viz", flags)
    assert f"{name_command('evaluate')} --force" in text
    assert "figures" not in found and "parts" not in found
    assert "No cache to draw" not in run_app("cross_task_viz", flags)[0]  # there are no results, so no figures


def test_damaged_results_give_a_message(tmp_path):
    flags = name_folders(tmp_path)
    Path(flags["results_path"]).write_text("a,b\n1,2\n")
    text, found = run_app("cross_task_viz", flags)
    assert "expected the columns checkpoint_path" in text
    assert "parts" not in found


# ------------------------------------------------------------------------------------------------- what notebooks call


def test_a_cache_is_read_again_only_when_its_file_has_changed(tmp_path):
    flags = write_example(tmp_path)
    path = cache_path(flags["cache_dir"], TASKS[0], 1, 0)
    first = load_cache(path)
    assert load_cache(path) is first
    path.write_bytes(path.read_bytes().replace(b'"max_steps": null', b'"max_steps": 99'))
    assert load_cache(path).header["max_steps"] == 99


def test_what_cannot_be_read_is_told(tmp_path):
    cache, problem = try_cache(tmp_path / "routing_data.json")
    assert cache is None
    assert "cannot be read" in problem
    results, problem = try_results(tmp_path / "missing.csv")
    assert results.empty and problem == ""
    assert try_caches([]) == ({}, [])


def test_the_final_checkpoint_of_a_run_stands_for_its_task(example):
    _, found = run_app("cross_task_viz", example)
    chosen = choose_places(found["places"])
    assert [label_place(place) for place in chosen] == [
        "GoToObj · trial 1 · seed 0 · final",
        "Unlock · trial 1 · seed 0 · final",
    ]


def test_two_selections_have_two_names():
    every = {"a": "BabyAI-GoToObj-v0", "b": "BabyAI-GoToObj-v0", "c": "BabyAI-Unlock-v0", "d": "BabyAI-Open-v0"}
    rows = [["a", "b"], ["a"], ["b"], ["a", "c"], ["a", "b", "c"], ["c"]]
    names = [name_selection({row: every[row] for row in chosen}, every) for chosen in rows]
    assert name_selection(every, every) == ""
    assert names[0] == "_GoToObj" and names[4] == "_GoToObj_Unlock" and names[5] == "_Unlock"
    assert len(set(names)) == len(rows)
    assert file_word("With key, locked") == "with_key_locked"


def test_rows_are_selected_by_task_and_by_run(example):
    results, problem = try_results(example["results_path"])
    assert problem == ""
    assert set(select_rows(results, tasks=[TASKS[1]])["task_id"]) == {TASKS[1]}
    assert select_rows(results, last_only=True)["update"].tolist() == [200] * 4
    assert select_rows(results)["checkpoint_path"].tolist() == results["checkpoint_path"].tolist()
    line = results_table(results).iloc[0]
    assert line["success %"] == round(100 * results["success_rate"][0], 1)
    assert line["experts"] == "0,16,32 x 2"


def test_metrics_that_are_not_known_are_not_numbers():
    text = metrics_table({}).to_string()
    assert text.count("not known") >= 4
    assert "nan" not in text.lower()


def test_an_example_is_the_first_moment_of_its_group(example):
    cache, _ = try_cache(cache_path(example["cache_dir"], TASKS[0], 1, 0))
    by_room = find_examples(cache, "starting_room")
    assert [(found.label, found.episode, found.actions) for found in by_room] == [("Left", 0, ()), ("Right", 1, ())]
    for found in find_examples(cache, "carrying"):
        steps = cache.routing.episode == found.episode
        first = len(found.actions)
        assert cache.routing.carrying[steps][first] == found.key
        assert list(found.actions) == cache.routing.action[steps][:first].tolist()
