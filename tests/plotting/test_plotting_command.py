"""`python plotting_utils.py`: which files it writes, what it says, what it refuses, and what it does not need."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.records.adding import append_result
from pipeline.records.cache import cache_path, write_cache
from pipeline.records.metrics import compute_metrics
from plotting.command import main
from tests.tables import random_tables

ROOT = Path(__file__).parents[2]
TASK = "BabyAI-GoToObj-v0"
SIZES = [[0, 8]]
HEADER = {"checkpoint_path": "c.pt", "evaluated_at": "2026-03-01T12:00:00+00:00"}


def write(folder, task=TASK, *, trial=1, seed=0, update=None, sizes=SIZES, steps=True):
    """Write a cache of three episodes."""
    routing, episodes = random_tables(4, [6, 5, 4], sizes)
    path = cache_path(folder / "evaluation_cache", task, trial, seed, update)
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    header = {**HEADER, "task_id": task, "trial": trial, "seed": seed, "update": update}
    write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=routing if steps else None)
    return path


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "plots").rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_cache_is_drawn_where_its_run_belongs(folder, capsys):
    path = write(folder, update=500)
    assert main(["--cache", str(path), "--formats", "png,pdf"]) == 0
    place = f"plots/{TASK}/trial_1/seed_0/update_500"
    assert written(folder) == [f"{place}/routing_heatmap.pdf", f"{place}/routing_heatmap.png"]
    captured = capsys.readouterr()
    assert captured.out.split() == [f"{place}/routing_heatmap.png", f"{place}/routing_heatmap.pdf"]
    assert captured.err == ""  # no bar for a single cache
    assert (folder / place / "routing_heatmap.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_files_tell_the_view(folder):
    path = write(folder)
    views = "subgoal,episode,events,weights,entropy,paths,actions,distances,specialisation"
    assert main(["--cache", str(path), "--view", views, "--episode", "1", "--event", "picked", "--formats", "svg"]) == 0
    names = ["entropy", "episode_1", "events_picked", "paths", "weights"]
    names += ["actions", "distances", "heatmap_by_subgoal", "specialisation"]
    assert written(folder) == sorted(f"plots/{TASK}/trial_1/seed_0/routing_{name}.svg" for name in names)


def test_all_caches_are_drawn_and_what_lacks_a_view_is_named(folder, capsys):
    write(folder)
    write(folder, seed=1)
    write(folder, "BabyAI-Open-v0", sizes=[])
    write(folder, "BabyAI-Unlock-v0", steps=False)
    assert main(["--all_caches", "evaluation_cache", "--view", "paths"]) == 1
    assert written(folder) == [f"plots/{TASK}/trial_1/seed_{seed}/routing_paths.png" for seed in (0, 1)]
    errors = capsys.readouterr().err
    assert "skipped: evaluation_cache/BabyAI-Open-v0/trial_1/seed_0/routing_data.json: does not support paths" in errors
    assert "failed: evaluation_cache/BabyAI-Unlock-v0/" in errors and "without --skip_routing" in errors


@pytest.mark.parametrize("which", ["--cache", "--all_caches"])
def test_a_view_that_does_not_fit_does_not_stop_the_others(folder, capsys, which):
    path = write(folder)
    arguments = [which, str(path) if which == "--cache" else "evaluation_cache", "--width", "85mm", "--font", "7"]
    assert main([*arguments, "--view", "without_time,paths"]) == 1
    assert written(folder) == [f"plots/{TASK}/trial_1/seed_0/routing_paths.png"]
    errors = capsys.readouterr().err
    assert "failed: " in errors and "without_time: width: expected at least" in errors
    assert main([*arguments, "--view", "without_time"]) == (2 if which == "--cache" else 1)


def test_a_damaged_cache_does_not_stop_the_others(folder, capsys):
    write(folder, seed=0).write_text("{")
    write(folder, seed=1)
    assert main(["--all_caches", "evaluation_cache", "--view", "actions"]) == 1
    assert written(folder) == [f"plots/{TASK}/trial_1/seed_1/routing_actions.png"]
    assert "failed: " in capsys.readouterr().err


def test_tasks_stand_side_by_side(folder, capsys):
    write(folder)
    write(folder, update=5)
    write(folder, "BabyAI-Open-v0")
    write(folder, "BabyAI-Unlock-v0", sizes=[])
    assert main(["--all_caches", "evaluation_cache", "--view", "across_tasks"]) == 0
    assert written(folder) == ["plots/routing_heatmap_across_tasks.png"]
    assert "Unlock" in capsys.readouterr().err


def test_results_are_drawn(folder, capsys):
    for seed in range(3):
        row = {"checkpoint_path": f"{seed}.pt", "task_id": TASK, "trial": 1, "seed": seed, "update": 5}
        append_result("results.csv", {**row, "num_episodes": 9, "success_rate": 1.0, "mean_lpc": 5.0, "lpc_alpha": 0.1})
    assert main(["--results", "results.csv", "--view", "all", "--output_dir", "plots/paper"]) == 0
    names = ["alpha_mean_lpc", "alpha_success_rate", "learning", "success_lpc", "tasks"]
    assert written(folder) == [f"plots/paper/{name}.png" for name in names]
    assert main(["--results", "results.csv", "--list"]) == 0
    assert "3 checkpoints; views success_lpc, learning, alpha, tasks" in capsys.readouterr().out


def test_the_list_says_what_a_cache_supports_and_draws_nothing(folder, capsys):
    write(folder)
    write(folder, "BabyAI-Open-v0", sizes=[])
    assert main(["--all_caches", "evaluation_cache", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"evaluation_cache/{TASK}/trial_1/seed_0/routing_data.json: ")
    assert {"overall", "paths", "episode"} <= set(lines[0].split(": ")[1].split(", "))
    assert lines[1].endswith(": overall, actions, behaviour, cell_actions, actions_by_carrying")
    assert not (folder / "plots").exists()


@pytest.mark.parametrize(
    ("path", "name"), [("mine.json", "mine"), ("v1.2/routing_data.json", "v1.2"), ("a/b.json.gz", "b")]
)
def test_a_cache_elsewhere_is_drawn_into_a_folder_of_its_own(folder, path, name):
    """The figures of two such files had one name, and the second took the first one's place."""
    (folder / path).parent.mkdir(exist_ok=True)
    content = write(folder).read_bytes()
    (folder / path).write_bytes(gzip.compress(content) if path.endswith(".gz") else content)
    assert main(["--cache", path, "--view", "actions"]) == 0
    assert written(folder) == [f"plots/{name}/routing_actions.png"]


def test_what_a_file_says_chooses_no_path(folder):
    """The header's task is whatever somebody wrote there; the figure goes where the file's own place says."""
    path = write(folder)
    path.write_text(path.read_text().replace(f'"task_id": "{TASK}"', '"task_id": "../../away"'))
    assert main(["--cache", str(path), "--view", "actions"]) == 0
    assert written(folder) == [f"plots/{TASK}/trial_1/seed_0/routing_actions.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --cache FILE, --all_caches FOLDER, --results FILE, found none"),
        (["--cache", "a", "--results", "b"], "found --cache and --results"),
        (["--cache", "a", "--view", "pathways"], "view: expected one of overall, starting_room"),
        (["--cache", "a", "--view", "across_tasks"], "view: expected one of"),
        (["--results", "a", "--view", "overall"], "view: expected one of success_lpc, learning, alpha, tasks, all"),
        (["--cache", "a", "--formats", "gif"], "formats: expected one of png, pdf, svg, found 'gif'"),
        (["--cache", "a", "--formats", ","], "formats: expected some of png, pdf, svg, found none"),
        (["--cache", "a", "--before", "-1"], "before: expected 0 or more, found -1"),
        (["--cache", "a", "--episode", "x"], "episode: expected int or null, found 'x'"),
        (["--cache", "a", "--scale", "log"], "scale: expected one of absolute, relative, found 'log'"),
        (["--cache", "a", "--width", "wide"], "width: expected such as 180mm, 8.5cm or 3.5in"),
        (["--cache", "a", "--font", "99"], "font: expected 3 to 40 points, found 99"),
        (["--cache", "a", "--vew", "all"], "did you mean view"),
        (["--cache", "a"], "a: cannot be read"),
        (["--all_caches", "a"], "a: holds no caches; `rlmop evaluate` writes them"),
        (["--results", "a"], "a: no such file; `rlmop evaluate` writes it"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert captured.out == "" and not (folder / "plots").exists()


@pytest.mark.parametrize("named", ["all", "all/old/T/trial_1"])
def test_a_folder_of_which_another_is_that_of_caches_is_told_what_lies_there(tmp_path, capsys, named):
    path = tmp_path / "all" / "old" / "T" / "trial_1" / "seed_0" / "routing_data.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert main(["--all_caches", str(tmp_path / named), "--output_dir", str(tmp_path / "plots")]) == 2
    assert f"found {path}; name the folder above a task's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--view", "mission_verb"], "view: expected one that this cache supports"),
        (["--view", "episode", "--episode", "9"], "episode: expected one that has steps (0 to 2), found 9"),
        (["--view", "events", "--event", "exploded"], "event: expected one that happens here"),
    ],
)
def test_a_single_cache_has_to_support_the_view(folder, capsys, more, message):
    assert main(["--cache", str(write(folder)), *more]) == 2
    assert message in capsys.readouterr().err


WITHOUT = """
import runpy, sys
heavy = ("torch", "transformers", "minigrid", "gymnasium", "tensorboard", "wandb")
for name in heavy:
    sys.modules[name] = None  # importing it raises ImportError
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


def test_the_script_runs_without_torch_minigrid_and_transformers(folder):
    path = write(folder)
    arguments = [str(ROOT / "plotting_utils.py"), "--cache", str(path), "--view", "overall,subgoal,paths"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "MPLCONFIGDIR": str(folder / "config")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3 and len(written(folder)) == 3


def test_the_script_says_what_it_can_do():
    done = subprocess.run(
        [sys.executable, str(ROOT / "plotting_utils.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for flag in ("--cache", "--all_caches", "--results", "--view", "--formats", "--output_dir", "--list", "--episode"):
        assert flag in done.stdout
