"""An episode as a page: the frames in it are those of the film, and it asks for nothing else."""

import base64
import io
import json
import re
import weakref

import numpy as np
import pytest
from PIL import Image

from babyai.render import replay_frames
from film import player as player_module
from film.episodes import film_cached
from film.frames import FilmCanvas
from film.make import choose_tile_size
from film.player import build_player
from plotting.page import show_player
from tests.short_episodes import write_short_episodes


class Watched(np.ndarray):
    """A picture of which it can be told whether it is still held."""

    __hash__ = object.__hash__


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_short_episodes(tmp_path_factory.mktemp("cache") / "routing_data.json")


def read_film(page: str) -> dict:
    (text,) = re.findall(r"^const film = (.*);$", page, re.MULTILINE)
    return json.loads(text)


def test_a_page_holds_the_frames_of_the_film(cache):
    found = build_player(cache, 1)
    film = film_cached(cache, 1)
    tile_size = choose_tile_size(film.task_id, film.level_seed, 100)
    options = {"tile_size": tile_size, "highlight": True, "max_steps": film.max_steps}
    pictures = list(replay_frames(film.task_id, film.level_seed, film.actions, **options))
    canvas = FilmCanvas(film, pictures[0].shape[:2], dpi=100)
    told = read_film(found.html)
    assert told["steps"] == list(found.steps) == list(range(len(film) + 1))
    assert tuple(told["size"]) == found.size == canvas.size
    shown = Image.new("RGBA", found.size)
    for step, source in enumerate(told["frames"]):
        change = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
        shown.alpha_composite(change)
        assert np.array_equal(np.asarray(shown)[..., :3], canvas.draw(step, pictures[step])), step
    assert not re.search(r"https?:|fetch\(|src=\"(?!data:)", found.html)


def test_of_a_long_episode_some_steps_are_shown_the_last_among_them(cache, monkeypatch):
    steps = build_player(cache, 1).steps
    monkeypatch.setattr(player_module, "_MOST_FRAMES", 3)
    found = build_player(cache, 1)
    assert len(found.steps) <= 4 and found.steps[0] == 0 and found.steps[-1] == steps[-1]
    assert len(read_film(found.html)["frames"]) == len(found.steps)


def test_the_pictures_of_an_episode_are_not_all_held_at_once(cache, monkeypatch):
    """Those of 4,000 steps of BossLevel would take 2 GB."""
    alive, most = weakref.WeakSet(), []

    def watched(*args, **kwargs):
        for picture in replay_frames(*args, **kwargs):
            held = picture.view(Watched)
            alive.add(held)
            most.append(len(alive))
            yield held

    monkeypatch.setattr(player_module, "replay_frames", watched)
    assert len(build_player(cache, 1).steps) > 3
    assert max(most) <= 3


def test_within_another_page_it_can_do_nothing_to_it():
    shown = show_player('<p title="a">\'&"</p>', (200, 100))
    assert 'sandbox="allow-scripts"' in shown
    assert 'srcdoc="&lt;p title=&quot;a&quot;&gt;&#x27;&amp;&quot;&lt;/p&gt;"' in shown
    assert "calc(50.0000% + " in shown
