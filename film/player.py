"""An episode as a page with a play button, which needs neither a server nor a network.

    page = build_player(cache, episode=7)            # HTML; in a notebook: mo.iframe(page.html, height=...)

Every frame is in the page, from the second on only the pixels that change: about 10 kB a step.
"""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from babyai.render import replay_frames
from film.episodes import film_cached
from film.frames import FilmCanvas
from film.make import choose_tile_size
from pipeline.records.cache import Cache
from plotting.page import data_url

_DPI = 100
_MOST_FRAMES = 300  # of a longer episode every second step is shown, or every third
_COMPRESSION = 4  # half the size of 3; 6 takes longer for 1 % less

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<style>
body { margin: 0; font: 15px/1.4 system-ui, "Liberation Sans", Arial, sans-serif; color: #1A1A1A; background: white; }
canvas { display: block; width: 100%; height: auto; }
.controls { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; padding: 4px 0 8px; }
button, select { font: inherit; padding: 4px 12px; border: 1px solid #8A8A8A; border-radius: 6px; background: #F4F4F4; }
button { cursor: pointer; } #play { min-width: 6em; background: #0B4FD1; border-color: #0B4FD1; color: white; }
input { flex: 1 1 120px; accent-color: #0B4FD1; } output { min-width: 8em; }
</style>
</head>
<body>
<div class="controls">
<button id="play">▶ Play</button>
<button id="back" aria-label="a step back">◀</button>
<button id="on" aria-label="a step on">▶</button>
<input id="step" type="range" min="0" value="0" aria-label="step">
<output id="where"></output>
<label>steps per second <select id="speed"><option>1<option>2<option selected>4<option>8<option>16</select></label>
</div>
<canvas id="frame" role="img" aria-label="WORDS"></canvas>
<script>
const film = FILM;
const get = name => document.getElementById(name);
const canvas = get("frame"), slider = get("step"), pen = canvas.getContext("2d");
[canvas.width, canvas.height] = film.size;
slider.max = film.frames.length - 1;
let shown = -1, timer = null;
const load = source => new Promise(done => {
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.src = source;
});
const loaded = Promise.all(film.frames.map(load));
const show = async wanted => {
    const pictures = await loaded;
    const k = Math.max(0, Math.min(pictures.length - 1, wanted));
    for (let at = shown < k ? shown + 1 : 0; at <= k; at++) pen.drawImage(pictures[at], 0, 0);
    shown = k;
    slider.value = k;
    get("where").textContent = `step ${film.steps[k]} of ${film.steps[film.steps.length - 1]}`;
};
const stop = () => {
    clearInterval(timer);
    timer = null;
    get("play").textContent = "▶ Play";
};
const play = () => {
    clearInterval(timer);
    get("play").textContent = "⏸ Pause";
    timer = setInterval(() => shown + 1 < film.frames.length ? show(shown + 1) : stop(), 1000 / get("speed").value);
};
get("play").onclick = async () => {
    if (timer) return stop();
    if (shown + 1 >= film.frames.length) await show(0);
    play();
};
get("back").onclick = () => { stop(); show(shown - 1); };
get("on").onclick = () => { stop(); show(shown + 1); };
slider.oninput = () => { stop(); show(Number(slider.value)); };
get("speed").onchange = () => { if (timer) play(); };
show(0);
</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Player:
    """A page that plays an episode.

    Attributes:
        html: The page.
        size: (width, height) of a frame in pixels.
        steps: The steps that it shows, of 0..T.
    """

    html: str
    size: tuple[int, int]
    steps: tuple[int, ...]


def build_player(cache: Cache, episode: int) -> Player:
    """Play an episode of a cache once, and return a page that shows it.

    Args:
        cache: From `read_cache`.
        episode: Row of its episodes.

    Raises:
        Exception: One of `film.scenes.SCENE_ERRORS`.
    """
    film = film_cached(cache, episode)
    tile_size = choose_tile_size(film.task_id, film.level_seed, _DPI)
    options = {"tile_size": tile_size, "highlight": True, "max_steps": film.max_steps}
    pictures = replay_frames(film.task_id, film.level_seed, film.actions, **options)
    end = len(film)
    steps = tuple(sorted({*range(0, end + 1, -(-(end + 1) // _MOST_FRAMES)), end}))
    canvas, frames, before = None, [], None
    for step, picture in enumerate(pictures):  # not all at once: those of a long episode take gigabytes
        if step not in steps:
            continue
        canvas = canvas or FilmCanvas(film, picture.shape[:2], dpi=_DPI)
        frame = canvas.draw(step, picture)
        frames.append(data_url(_encode_change(frame, before), "image/png"))
        before = frame
    content = json.dumps({"size": canvas.size, "steps": steps, "frames": frames})
    words = html.escape(f"{film.mission}: {film.outcome}", quote=True)
    filled = {"WORDS": words, "FILM": content}
    return Player(re.sub(r"\b(?:WORDS|FILM)\b", lambda found: filled[found[0]], _PAGE), canvas.size, steps)


def _encode_change(frame: np.ndarray, before: np.ndarray | None) -> bytes:
    """Return a frame, uint8 (H, W, 3), as PNG in which the pixels that stay as they were are transparent."""
    stays = np.zeros(frame.shape[:2], bool) if before is None else (frame == before).all(axis=2)
    alpha = np.where(stays, 0, 255).astype(np.uint8)
    pixels = np.dstack([np.where(stays[..., None], np.uint8(0), frame), alpha])
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", compress_level=_COMPRESSION)
    return content.getvalue()
