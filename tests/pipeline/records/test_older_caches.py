"""Caches of older forms, with and without time, are read for what they hold."""

import json

import numpy as np
import pytest

from pipeline.records.cache import CacheError, read_cache
from pipeline.records.columns import EPISODE_COLUMNS
from pipeline.records.metrics import compute_metrics
from pipeline.records.steps import iter_records
from tests.cache_files import load, read_all, write
from tests.tables import build_context


def older_file(path, layouts, steps, *, inline):
    """Write steps [(layout, record)] in the oldest form (inline) or the later one."""
    rows = [{**record, **({"env_context": layouts[k]} if inline else {"episode": k})} for k, record in steps]
    content = {"checkpoint_path": "x.pt", "num_episodes": 100, "metrics": {"success_rate": 0.5}, "routing_data": rows}
    if not inline:
        content["episodes"] = layouts
    path.write_text(json.dumps(content), encoding="utf-8")


def older_step(x=1, **fields):
    return {"position": [x, 2], "layer_routing": {"layer_0": [0.25, 0.75]}, "lpc": 192.0, **fields}


@pytest.mark.parametrize("inline", [True, False])
def test_older_forms_without_time(tmp_path, inline):
    """1000 episodes became 27 layouts; nothing tells the episodes apart, so nothing is made up."""
    layouts = [build_context(0), build_context(1)]
    older_file(
        tmp_path / "a.json", layouts, [(0, older_step(3)), (1, older_step(4)), (0, older_step(5))], inline=inline
    )
    cache = read_all(tmp_path / "a.json")
    assert cache.layouts_only
    assert len(cache.episodes) == 2
    assert cache.header["num_episodes"] == 100
    assert cache.metrics == {"success_rate": 0.5}
    assert cache.routing.episode.tolist() == [0, 1, 0]
    assert [r["env_context"] for r in cache.records()] == [layouts[0], layouts[1], layouts[0]]
    for record in cache.records():
        assert record["layer_routing"] == {"layer_0": [0.25, 0.75]}
        known = {key for key, value in record.items() if value is not None}
        assert known == {"episode", "position", "layer_routing", "lpc", "env_context"}
    for name, column in EPISODE_COLUMNS.items():
        assert not column.known(np.asarray(getattr(cache.episodes, name))).any(), name
    metrics = compute_metrics(cache.episodes, bot_plan_failures=None)
    assert metrics["success_rate"] is metrics["mean_lpc"] is None


@pytest.mark.parametrize("times", [None, [0, 1, 0, 1], [0, 1, 5, 6]])
def test_steps_alone(tmp_path, times):
    """The oldest form told nothing of the level; what is not told is None."""
    steps = [older_step(x, **({"t_step": times[x]} if times else {})) for x in range(4)]
    (tmp_path / "a.json").write_text(json.dumps({"num_episodes": 2, "routing_data": steps}), encoding="utf-8")
    cache = read_all(tmp_path / "a.json")
    borders = times == [0, 1, 0, 1]
    assert cache.layouts_only is not borders
    assert cache.routing.episode.tolist() == ([0, 0, 1, 1] if borders else [0] * 4)
    assert cache.routing.position[:, 0].tolist() == [0, 1, 2, 3]
    known = {"episode", "position", "layer_routing", "lpc", "env_context", *(["t_step"] if times else [])}
    for record in cache.records():
        assert {key for key, value in record.items() if value is not None} == known
        assert record["env_context"] == {}


@pytest.mark.parametrize("inline", [True, False])
def test_older_forms_with_time(tmp_path, inline):
    times = [(0, 0), (0, 1), (0, 0), (0, 1), (0, 2), (1, 0)]
    steps = [(k, older_step(3, t_step=t, t_pick=None if t == 0 else 1)) for k, t in times]
    older_file(tmp_path / "a.json", [build_context(0), build_context(1)], steps, inline=inline)
    cache = read_all(tmp_path / "a.json")
    assert not cache.layouts_only
    assert cache.routing.episode.tolist() == [0, 0, 1, 1, 1, 2]
    assert cache.episodes.env_context[0] is not None
    assert cache.episodes.env_context == (build_context(0), build_context(0), build_context(1))
    assert cache.episodes.t_pick.tolist() == [1, 1, -1]
    assert cache.episodes.steps.tolist() == [-1, -1, -1]  # the last steps of an episode may never have been kept


@pytest.mark.parametrize(
    "times", [[(0, 0), (1, 0), (0, 1), (1, 1)], [(0, 1), (0, 2)], [(0, 0), (0, 2)], [(0, 0), (1, 1)]]
)
def test_steps_recorded_in_turns_give_no_borders(tmp_path, times):
    older_file(tmp_path / "a.json", [{}, {"x": 1}], [(k, older_step(t_step=t)) for k, t in times], inline=False)
    cache = read_all(tmp_path / "a.json")
    assert cache.layouts_only
    assert cache.routing.episode.tolist() == [k for k, _ in times]


@pytest.mark.parametrize("form", ["oldest", "later"])
def test_steps_of_todays_form_survive_in_the_older_ones(tmp_path, form):
    routing, episodes, _ = write(tmp_path / "a.json", 11, [4, 3])
    content = load(tmp_path / "a.json")
    layouts = [build_context(0), build_context(1)]
    steps = [(step.pop("episode"), step) for step in content["routing_data"]]
    older_file(tmp_path / "b.json", layouts, steps, inline=form == "oldest")
    cache = read_all(tmp_path / "b.json")
    for old, new in zip(cache.records(), iter_records(routing, episodes), strict=True):
        assert old.keys() == new.keys()
        for key in ("episode", "position", "t_step", "action", "event", "subgoal", "dist_to_key", "env_context"):
            assert old[key] == new[key], key


@pytest.mark.parametrize("inline", [True, False])
def test_levels_of_the_older_forms_are_checked_too(tmp_path, inline):
    context = build_context(0) | {"doors": [[3, 4]]}
    older_file(tmp_path / "a.json", [context], [(0, older_step())], inline=inline)
    with pytest.raises(
        CacheError, match=r"a\.json: env_context: doors: expected a list of \[x, y, color.*\[\[3, 4\]\]"
    ):
        read_cache(tmp_path / "a.json")
    for doors in (None, [], [[3, 4, "red"]], [[3, 4, "red", False, True]]):
        older_file(tmp_path / "a.json", [context | {"doors": doors}], [(0, older_step())], inline=inline)
        assert read_cache(tmp_path / "a.json").episodes.env_context[0]["doors"] == doors


def test_flat_expert_sizes_are_one_layer(tmp_path):
    older_file(tmp_path / "a.json", [{}], [(0, older_step())], inline=False)
    content = load(tmp_path / "a.json")
    content["expert_hidden_sizes"] = [0, 16]
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_cache(tmp_path / "a.json").routing.expert_hidden_sizes == [[0, 16]]
