"""What draws into files needs no display, whatever MPLBACKEND says and wherever matplotlib may keep its settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command.displays import draw_without_display
from pipeline.records.cache import cache_path, write_cache
from pipeline.records.metrics import compute_metrics
from tests.tables import random_tables

ROOT = Path(__file__).parents[3]
JUPYTER = "module://matplotlib_inline.backend_inline"

FIGURE = "plotting_utils.py --cache {cache} --output_dir out"
SHEET = "-m film.contact_sheet --task_id GoToObjS4 --num_levels 1 --tile_size 4 --output out/sheet.png"
FILM = "-m film --task_id GoToObjS4 --level_seed 1 --tile_size 4 --dpi 50 --output out/film.gif"
NOTEBOOKS = [
    "routing_viz.py -- --cache_dir evaluation_cache --checkpoint_dir none",
    "cross_task_viz.py -- --cache_dir evaluation_cache",
]


@pytest.fixture
def cache(tmp_path):
    """Write a cache of three episodes."""
    routing, episodes = random_tables(4, [6, 5, 4], [[0, 8]])
    path = cache_path(tmp_path / "evaluation_cache", "BabyAI-GoToObj-v0", 1, 0)
    header = {"checkpoint_path": "c.pt", "task_id": "BabyAI-GoToObj-v0", "trial": 1, "seed": 0}
    header["evaluated_at"] = "2026-03-01T12:00:00+00:00"
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=routing)
    return path


@pytest.mark.parametrize(
    ("command", "backend"),
    [(FIGURE, name) for name in (JUPYTER, "nonsense", "TkAgg")]
    + [(command, JUPYTER) for command in (SHEET, FILM, *NOTEBOOKS)],
)
def test_drawing_needs_no_display(command, backend, cache, tmp_path):
    """Started from Jupyter or Colab, every command that draws ended with a traceback."""
    words = [str(ROOT / word) if word.endswith(".py") else word for word in command.format(cache=cache).split()]
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    if " out" in command:
        assert any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_a_folder_for_settings_of_matplotlib_is_not_needed(cache, tmp_path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "/dev/null")
    done = subprocess.run(
        [sys.executable, str(ROOT / "plotting_utils.py"), "--cache", str(cache), "--output_dir", str(tmp_path / "out")],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").rglob("*.png"))


def test_what_was_inherited_is_replaced(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", JUPYTER)
    draw_without_display()
    assert os.environ["MPLBACKEND"] == "agg"
