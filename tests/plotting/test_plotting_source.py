"""What goes with a figure: the numbers it shows as CSV, and in its file the command, the inputs and the version."""

import hashlib
import json
import struct

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from pipeline.command.names import name_command
from pipeline.records.adding import append_result
from pipeline.records.cache import cache_path, write_cache
from pipeline.records.metrics import compute_metrics
from plotting.command import main
from plotting.data import as_routing_data
from plotting.logs import read_logs
from plotting.origin import project_version
from plotting.relations import compute_distance_profile
from plotting.source import source_of
from plotting.sweeps import plot_learning_over_updates
from plotting.views import RESULT_VIEWS, ViewOptions, draw_results_view, draw_view
from tests.figures import known_views
from tests.tables import random_tables

TASK = "BabyAI-GoToObj-v0"
HEADER = {"checkpoint_path": "c.pt", "evaluated_at": "2026-03-01T12:00:00+00:00"}


def build_rows(seeds=3, alphas=(0.0, 1e-4), success=None):
    rows = []
    for trial, alpha in enumerate(alphas, start=1):
        for seed in range(seeds):
            lpc = 900.0 / trial + seed
            rows.append({
                "checkpoint_path": f"checkpoints/{TASK}/trial_{trial}/seed_{seed}/checkpoint_final.pt",
                "checkpoint_digest": f"{trial} {seed}", "task_id": TASK, "trial": trial, "seed": seed, "update": 20,
                "num_episodes": 100, "success_rate": 0.5 + 0.1 * seed if success is None else success,
                "mean_lpc": lpc, "mean_lpc_per_episode": 1.1 * lpc, "mean_lpc_success": 0.9 * lpc, "policy": "mop",
                "mean_lpc_timeout": 1.2 * lpc, "lpc_alpha": alpha, "expert_hidden_sizes": [[0, 16, 32]] * 3,
                "num_updates": 20, "bot_plan_failures": 46, "lr": 1e-3,
            })  # fmt: skip
    return rows


def write_logs(folder, rows, seeds=3):
    for row in rows:
        if row["seed"] >= seeds:
            continue
        path = folder / TASK / f"trial_{row['trial']}" / f"seed_{row['seed']}" / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        lines = [{"update": u, "rollout/success_rate": u / 20, "train/lpc": 1000.0 - u} for u in range(2, 21, 2)]
        lines.append({"update": 20, "eval/success_rate": 1.0})  # no line of training
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"update": 2')  # was stopped


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    routing, episodes = random_tables(4, [6, 5, 4], [[0, 8]])
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    path = cache_path(tmp_path / "evaluation_cache", TASK, 1, 0)
    write_cache(path, header=HEADER, metrics=metrics, episodes=episodes, routing=routing)
    return tmp_path


def test_every_view_of_a_cache_has_its_numbers():
    data = as_routing_data(random_tables(0, [9, 8, 7], [[0, 16, 32]] * 2))
    for view in known_views(data):
        for name, figure in draw_view(data, view, ViewOptions()).items():
            assert len(source_of(figure)), name


def test_numbers_are_those_that_are_drawn():
    data = as_routing_data(random_tables(0, [9, 8, 7], [[0, 16, 32]]))
    table = source_of(draw_view(data, "distances", ViewOptions())["routing_distances"])
    door = table[(table["panel"] == "LPC") & table["moves_to_door"].notna()]
    profile = compute_distance_profile(data, "door")
    np.testing.assert_array_equal(door["mean"].astype(float), profile.lpc.mean)
    np.testing.assert_array_equal(door["n"].astype(int), profile.lpc.n)
    maps = source_of(draw_view(data, "overall", ViewOptions())["routing_heatmap"])
    assert maps["steps"].sum() == 24
    weights = maps[[f"layer_0_expert_{expert}" for expert in range(3)]].astype(float)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


def test_every_view_of_results_has_its_numbers():
    for view in RESULT_VIEWS:
        for name, figure in draw_results_view(build_rows(), view).items():
            table = source_of(figure)
            assert (table["panel"] == "mean over runs").sum() >= 2 and table["panel"].str.startswith(
                "run"
            ).sum() >= 6, name


def png_texts(path):
    """Return the texts in a PNG by their keyword."""
    content, place, found = path.read_bytes(), 8, {}
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            found[key.decode()] = value.decode("latin-1")
        place += 12 + length
    return found


def test_files_name_command_inputs_and_version_and_are_the_same_again(folder):
    cache = f"evaluation_cache/{TASK}/trial_1/seed_0/routing_data.json"
    command = ["--cache", cache, "--view", "weights", "--formats", "png,pdf,svg", "--data", "--width", "85mm"]
    assert main(command) == 0
    files = sorted((folder / "plots").rglob("routing_weights.*"))
    assert [path.suffix for path in files] == [".csv", ".pdf", ".png", ".svg"]
    before = [path.read_bytes() for path in files]
    digest = hashlib.sha256((folder / cache).read_bytes()).hexdigest()
    told = png_texts(files[2])
    assert told["Description"] == f"{name_command('plot')} {' '.join(command)}"
    assert told["Source"] == f"{cache} sha256:{digest}"
    assert told["Software"].startswith(f"rl-mop {project_version()}, Matplotlib ")
    assert digest.encode() in files[3].read_bytes() and b"--view weights" in files[3].read_bytes()
    assert main(command) == 0
    assert [path.read_bytes() for path in files] == before
    assert len(pd.read_csv(files[0]).columns) > 4


def test_results_can_be_drawn_for_a_paper(folder):
    for row in build_rows():
        append_result("results.csv", row)
    command = ["--results", "results.csv", "--view", "all", "--width", "180mm", "--font", "7", "--data"]
    assert main(command) == 0
    assert len(list((folder / "plots").glob("*.csv"))) == 5
    width = struct.unpack(">I", (folder / "plots" / "tasks.png").read_bytes()[16:20])[0]
    assert width == pytest.approx(180 / 25.4 * 300, abs=1)


# ------------------------------------------------------------------------------------------------------ training logs


def test_learning_reads_the_whole_curve(tmp_path, monkeypatch):
    """It showed a dot per run, though the log has the curve."""
    monkeypatch.chdir(tmp_path)
    rows = build_rows()
    write_logs(tmp_path / "runs", rows)
    logs, notes = read_logs(rows)
    assert notes == [] and len(logs) == 6 * 10
    axes = plot_learning_over_updates(rows, logs=logs)
    longest = [line for line in axes[0, 0].lines if len(line.get_xdata()) == 10]
    assert len(longest) == 6 + 2  # the runs, and the mean of each alpha
    figure = draw_results_view(rows, "learning")["learning"]
    assert (source_of(figure)["panel"] == "run, training").sum() == 2 * 6 * 10


def test_runs_without_a_log_keep_their_dots_and_are_counted(tmp_path):
    rows = build_rows()
    write_logs(tmp_path / "elsewhere", rows, seeds=1)
    logs, notes = read_logs(rows, tmp_path / "elsewhere")
    assert notes == ["4 runs of 6 without a training log: evaluated checkpoints alone"]
    axes = plot_learning_over_updates(rows, logs=logs, log_notes=notes)
    assert sum(len(line.get_xdata()) == 1 for line in axes[0, 0].lines) == 6 + 2  # dots, and means over all runs
    written = " ".join(" ".join(text.get_text() for text in axes[0, 0].figure.findobj(Text)).split())
    assert "4 runs of 6 without a training log" in written


def test_a_damaged_log_is_named(tmp_path):
    rows = build_rows(seeds=1, alphas=(0.0,))
    write_logs(tmp_path, rows)
    path = tmp_path / TASK / "trial_1" / "seed_0" / "metrics.jsonl"
    path.write_text("{broken\n" + path.read_text())
    logs, notes = read_logs(rows, tmp_path)
    assert logs.empty and any(f"{path}: cannot be read" in note for note in notes)
