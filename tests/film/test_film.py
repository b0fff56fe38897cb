"""Films of episodes and contact sheets."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from PIL import Image

from babyai.level_seeds import evaluation_seeds
from babyai.render import level_mission, render_level, replay, replay_frames
from film import command, contact_sheet, sheet
from film import files as film_files
from film.episodes import FilmEpisode, FilmError, film_bot, film_cached, film_checkpoint
from film.frames import FilmCanvas
from film.make import make_film
from pipeline.config import ConfigError
from pipeline.evaluation.play import EVALUATION_SEED
from pipeline.records.cache import read_cache, write_cache
from pipeline.records.metrics import choose_episode
from tests.short_episodes import TASK, play_short_episodes

ROOT = Path(__file__).parents[2]
DEBUG = ("--num_updates", "1", "--final_eval_episodes", "0")


@pytest.fixture(scope="module")
def evaluation():
    return play_short_episodes()


@pytest.fixture
def cache_path(evaluation, tmp_path):
    return write(tmp_path / "routing_data.json", evaluation)


def write(path, evaluation, **header):
    header = {
        "checkpoint_path": "checkpoint_final.pt",
        "evaluated_at": "2026-01-02T03:04:05+00:00",
        "task_id": TASK,
        "max_steps": 6,
        **header,
    }
    write_cache(
        path,
        header={key: value for key, value in header.items() if value is not ...},
        metrics=evaluation.metrics,
        episodes=evaluation.episodes,
        routing=evaluation.routing,
    )
    return path


def gif_frames(path):
    with Image.open(path) as image:
        frames = []
        for k in range(image.n_frames):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
        return frames


# -------------------------------------------------------------------------------------------------------------- films


def test_film_of_a_cache(cache_path, evaluation, tmp_path, capsys):
    output = tmp_path / "new" / "film.gif"
    assert command.main(["--cache", str(cache_path), "--output", str(output), "--tile_size", "8", "--dpi", "60"]) == 0
    chosen = choose_episode(evaluation.episodes)
    assert f"episode {chosen}: " in capsys.readouterr().out
    frames = gif_frames(output)
    assert len(frames) == evaluation.episodes.steps[chosen] + 1
    # The grid is there, in every frame, whatever the palette: compare with what was drawn
    episode = film_cached(read_cache(cache_path), chosen)
    pictures = list(replay_frames(TASK, episode.level_seed, episode.actions, tile_size=8, max_steps=6))
    canvas = FilmCanvas(episode, pictures[0].shape[:2], dpi=60)
    for step, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        drawn = canvas.draw(step, picture)
        assert frame.shape == drawn.shape
        assert np.abs(frame - drawn).mean() < 1.0
        assert has_picture(drawn, picture)
    assert (np.array(frames[0][0, 0]) == 255).all()
    assert sorted(path.name for path in output.parent.iterdir()) == ["film.gif"]
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("sizes", [(0, 8, 16), (0, 16, 16, 16, 32, 32), (0, 8, 16, 24, 32, 48, 64, 96),
                                   (0, 512, 1024, 4096)])  # fmt: skip
def test_names_of_experts_stand_apart_within_the_frame(sizes):
    """From six experts on the names of one layer lay on those of the next, and long ones were cut off."""
    weights = (np.full((4, len(sizes)), 1 / len(sizes)),) * 3
    steps = {"actions": np.zeros(4, int), "expert_actions": np.zeros(4, int), "subgoals": ("",) * 4}
    episode = FilmEpisode(TASK, 0, None, "go", "success", "a policy", **steps, weights=weights,
                          expert_sizes=(sizes,) * 3, lpc=np.full(4, 1234567.0))  # fmt: skip
    canvas = FilmCanvas(episode, (80, 80), dpi=100)
    renderer = canvas._canvas.get_renderer()
    boxes = [ax.get_legend().get_window_extent(renderer) for ax in canvas._axes[:3]]
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    words = [text for ax in canvas._axes for text in ax.findobj(Text) if text.get_text()]
    assert max(text.get_window_extent(renderer).x1 for text in words) <= canvas.size[0]
    assert sizes != (0, 8, 16) or canvas.size == (936, 524)  # as ever


def has_picture(drawn, picture):
    """Say whether a picture stands somewhere in a frame, pixel by pixel."""
    height, width = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(drawn[..., 0], (height, width))
    places = np.argwhere((windows[:, :, 0, 0] == picture[0, 0, 0]) & (windows[:, :, -1, -1] == picture[-1, -1, 0]))
    return any((drawn[y : y + height, x : x + width] == picture).all() for y, x in places)


def test_films_of_one_episode_are_equal(cache_path, tmp_path):
    episode = film_cached(read_cache(cache_path), 2)
    for name in ("one.gif", "two.gif"):
        make_film(episode, tmp_path / name, tile_size=6, dpi=50)
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "two.gif").read_bytes()


def test_film_of_the_bot(tmp_path, monkeypatch, capsys):
    output = tmp_path / "bot.gif"
    arguments = ["--task_id", "UnlockPickup", "--level_seed", "3", "--tile_size", "6", "--dpi", "50", "--fps", "10"]
    assert command.main([*arguments, "--output", str(output)]) == 0
    episode = film_bot("UnlockPickup", 3)
    assert "success" in capsys.readouterr().out
    assert replay(episode.task_id, 3, episode.actions).outcome == 1
    assert [text for _, text in episode.events][:2] == ["picked green key", "unlocked green door"]
    assert {"Pickup", "Open"} <= set(episode.subgoals)
    with Image.open(output) as image:
        assert image.n_frames == len(episode) + 1
        assert image.info["duration"] == 100
    # A bot that is cut off or gives up is filmed as far as it came
    assert film_bot("UnlockPickup", 3, max_steps=4).outcome == "timeout"
    assert film_bot("KeyInBox", 0).outcome == "the bot gave up"
    monkeypatch.setenv("BABYAI_DONE_ACTIONS", "1")  # played by minigrid's objects, into which one can reach
    monkeypatch.setattr("babyai.plain_world.Expert.suggest", lambda self, action: None)
    with pytest.raises(FilmError, match="level seed 3: expected a level that the bot can play"):
        film_bot("UnlockPickup", 3)


def test_the_last_frame_of_a_slow_film_stays_as_long_as_the_others(tmp_path):
    """Below one step in 1.5 s the end went by sooner than any step."""
    frames = [np.full((4, 4, 3), level, np.uint8) for level in (0, 100, 200)]
    for fps, last in ((0.25, 4000), (4, 1500)):
        film_files.write_film(tmp_path / "film.gif", iter(frames), 3, fps=fps, samples=frames)
        with Image.open(tmp_path / "film.gif") as image:
            image.seek(2)
            assert image.info["duration"] == last


def test_film_as_mp4(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    output = tmp_path / "bot.MP4"
    episode = film_bot(TASK, 1)
    make_film(episode, output, fps=4, tile_size=7, dpi=50)
    shown = render_level(TASK, 1, tile_size=7, highlight=True)
    canvas = FilmCanvas(episode, shown.shape[:2], dpi=50)
    width, height = canvas.size
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", output, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(ffmpeg, capture_output=True, timeout=60, check=True)
    for word in ("h264", "yuv420p", f"{width}x{height}", "4 fps"):
        assert word in decoded.stderr.decode()
    pictures = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, height, width, 3)
    assert len(pictures) == len(episode) + 1 + 6  # the last one stays for a second and a half
    assert np.abs(canvas.draw(0, shown).astype(int) - pictures[0]).mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == ["bot.MP4"]


def test_film_of_a_checkpoint(tmp_path):
    run = subprocess.run(
        [sys.executable, ROOT / "train_mop.py", "--config", ROOT / "configs/debug.yaml", *DEBUG],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (checkpoint,) = tmp_path.rglob("checkpoint_final.pt")
    output = tmp_path / "film.gif"
    arguments = ["--checkpoint", str(checkpoint), "--max_steps", "5", "--tile_size", "6", "--dpi", "50"]
    assert command.main([*arguments, "--output", str(output)]) == 0
    episode = film_checkpoint(checkpoint, max_steps=5)
    assert episode.level_seed == evaluation_seeds(EVALUATION_SEED, 1)[0]
    assert len(gif_frames(output)) == len(episode) + 1
    assert len(episode.weights) == len(episode.expert_sizes) >= 1
    with pytest.raises(FilmError, match="level seed 0: expected a level that the bot can solve"):
        film_checkpoint(checkpoint, "KeyInBox", 0)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_cache_whose_actions_lead_elsewhere_is_refused(evaluation, tmp_path, capsys):
    table, episodes = evaluation.routing, evaluation.episodes
    turn = replace(table, action=np.where(table.action == 0, 1, 0).astype(np.int8))
    moved = replace(table, position=(table.position + 1).astype(np.int16))
    outcome = replace(episodes, outcome=np.where(episodes.outcome == 3, 1, 3).astype(np.int8))
    seeds = replace(episodes, level_seed=episodes.level_seed + 50)
    changes = {
        "turn": ({"routing": turn}, {}),
        "moved": ({"routing": moved}, {}),
        "outcome": ({"episodes": outcome}, {}),
        "seeds": ({"episodes": seeds}, {}),
        "limit": ({}, {"max_steps": 2}),
        "odd limit": ({}, {"max_steps": "many"}),
        "task": ({}, {"task_id": "BabyAI-GoToObjS6-v1"}),
        "no task": ({}, {"task_id": "BabyAI-NoSuch-v0"}),
    }
    for name, (tables, header) in changes.items():
        path = write(tmp_path / f"{name}.json", replace(evaluation, **tables), **header)
        output = tmp_path / "film.gif"
        assert command.main(["--cache", str(path), "--episode", "1", "--output", str(output)]) == 2, name
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: "), name
        if "no task" not in name:
            assert f"{path}, episode 1" in lines[0], name
            assert "evaluate again" in lines[0], name
        assert not output.exists()


def test_caches_that_do_not_tell_enough_are_refused(evaluation, tmp_path):
    table, episodes = evaluation.routing, evaluation.episodes
    cases = {
        "level seed": {"episodes": replace(episodes, level_seed=np.full_like(episodes.level_seed, -1))},
        "holds none": {"routing": None},
        "actions": {"routing": replace(table, action=np.full_like(table.action, -1))},
        "gaps": {"routing": table.select(table.t_step != 1)},
    }
    for word, change in cases.items():
        path = write(tmp_path / "cache.json", replace(evaluation, **change))
        with pytest.raises(FilmError, match=word):
            film_cached(read_cache(path), 0)
    path = write(tmp_path / "cache.json", evaluation, task_id=...)
    with pytest.raises(FilmError, match="--task_id"):
        film_cached(read_cache(path), 0)
    assert film_cached(read_cache(path), 0, "GoToObjS4").task_id == TASK


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task_id", "GoToObjj"], "close matches: GoToObj"),
        (["--cache", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt"),
        (["--cache", "CACHE", "--episode", "6"], "expected an episode from 0 to 5, found 6"),
        (["--cache", "CACHE", "--episode", "-1"], "episode: expected at least 0"),
        (["--cache", "CACHE", "--task_id", "GoToObj"], "leave it out"),
        (["--cache", "CACHE", "--level_seed", "3"], "choose its --episode"),
        (["--cache", "CACHE", "--checkpoint", "a.pt"], "found both"),
        (["--task_id", "GoToObj", "--episode", "1"], "expected a --cache"),
        (["--task_id", "GoToObj", "--fps", "0"], "fps: expected"),
        (["--task_id", "GoToObj", "--level_seed", str(2**63)], "level_seed: expected less than 2^63"),
        (["--task_id", "GoToObj", "--lang_encoder", "builtin"], "--lang_encoder: expected a --checkpoint"),
        (["--cache", "CACHE", "--lang_encoder", "builtin"], "--lang_encoder: expected a --checkpoint"),
        (["--cache", "."], ".: cannot be read"),
        (["--task_id", "GoToObj", "--fsp", "3"], "unknown key"),
        (["--task_id", "GoToObj", "--output", "film.avi"], "ends in .gif or .mp4, found '.avi'"),
        (["--task_id", "GoToObj", "--output", "film"], "ends in .gif or .mp4"),
        ([], "expected --checkpoint, --cache or --task_id"),
    ],
)
def test_mistakes_on_the_command_line_get_one_line_and_leave_nothing(
    arguments, words, cache_path, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    arguments = [str(cache_path) if word == "CACHE" else word for word in arguments]
    arguments = arguments if "--output" in arguments else [*arguments, "--output", "film.gif"]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1, error
    assert error[0].startswith("error: ")
    assert words in error[0]
    assert list(folder.iterdir()) == []


def test_a_missing_encoder_is_named_and_a_failed_film_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert command.main(["--task_id", TASK, "--output", str(tmp_path / "film.mp4")]) == 2
    assert "pip install imageio-ffmpeg" in capsys.readouterr().err
    frame = np.zeros((4, 4, 3), np.uint8)

    def frames():
        yield frame
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        film_files.write_film(tmp_path / "film.gif", frames(), 2, fps=4, samples=[frame])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="found the folder"):
        (tmp_path / "a.gif").mkdir()
        film_files.check_format(tmp_path / "a.gif")


# ------------------------------------------------------------------------------------------------------ contact sheets


@pytest.mark.parametrize("suffix", ["png", "pdf", "PNG"])  # the last was written as sheet.png
def test_contact_sheet(suffix, tmp_path, capsys):
    output = tmp_path / f"sheet.{suffix}"
    arguments = ["--task_id", "GoToObjS4", "--num_levels", "5", "--tile_size", "8", "--output", str(output)]
    assert contact_sheet.main(arguments) == 0
    assert "5 levels" in capsys.readouterr().out
    assert output.read_bytes()[:4] in (b"\x89PNG", b"%PDF")
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("columns", [1, None])
def test_the_title_of_a_contact_sheet_is_within_it(columns):
    """Of a single column it was cut off after a few letters."""
    task_id, picture = "BabyAI-OpenDoorsOrderN4Debug-v0", np.zeros((60, 60, 3), np.uint8)
    figure = sheet.draw_sheet(task_id, [picture] * 2, [(0, "go"), (1, "go")], columns=columns)
    title = figure.texts[0].get_window_extent(figure.canvas.get_renderer())
    assert title.x1 <= figure.bbox.x1 - title.x0 / 2
    first, *_ = figure.axes
    assert first.get_window_extent().width == pytest.approx(1.7 * figure.dpi)


def test_contact_sheet_names_seed_and_mission_of_each_picture():
    seeds = range(6)
    pictures = [render_level(TASK, seed, tile_size=4) for seed in seeds]
    figure = sheet.draw_sheet(TASK, pictures, [(seed, level_mission(TASK, seed)) for seed in seeds])
    assert len(figure.axes) == 6
    for ax, picture in zip(figure.axes, pictures, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), picture)
    texts = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert texts[0] == TASK
    assert texts[1::2] == [f"seed {seed}" for seed in seeds]
    assert texts[2::2] == [level_mission(TASK, seed) for seed in seeds]
    assert len({ax.get_position().bounds[:2] for ax in figure.axes}) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task_id", "GoToObjj"], "close matches"),
        (["--task_id", "GoToObj", "--num_levels", "0"], "num_levels: expected 1 to 200"),
        (["--task_id", "GoToObj", "--output", "sheet.gif"], "ends in .png, .pdf, .svg"),
        (["--task_id", "GoToObj", "--evaluated", "--first_seed", "7"], "--first_seed: expected none with --evaluated"),
        ([], "--task_id: expected a value"),
    ],
)
def test_mistakes_about_a_contact_sheet_get_one_line_and_leave_nothing(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = arguments if "--output" in arguments else [*arguments, "--output", "sheet.png"]
    assert contact_sheet.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert list(tmp_path.iterdir()) == []
