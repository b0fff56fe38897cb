"""Files that are no caches, or cut off, or hold impossible values: each is refused by name."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records.cache import CacheError, read_cache, read_header
from tests.cache_files import load, read_all, write


def test_truncated_anywhere(tmp_path):
    write(tmp_path / "a.json")
    whole = (tmp_path / "a.json").read_bytes()
    cut = tmp_path / "cut.json"
    for length in [*range(0, len(whole) - 2, 97), len(whole) - 2]:
        cut.write_bytes(whole[:length])
        for read in (read_cache, read_header):
            with pytest.raises(CacheError, match=r"cut\.json: .*--force"):
                read(cut)


def test_missing_lines_are_noticed(tmp_path):
    write(tmp_path / "a.json")
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").splitlines(keepends=True)
    for start in ('{"episode":1,', '{"level_seed":'):
        where = next(k for k, line in enumerate(lines) if line.startswith(start))
        (tmp_path / "b.json").write_text("".join(lines[:where] + lines[where + 1 :]), encoding="utf-8")
        with pytest.raises(CacheError, match="expected"):
            read_cache(tmp_path / "b.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"routing_data"',
        "{}",
        '{"routing_data": {}}',
        '{"routing_data": 3, "episodes": []}',
        '{"routing_data": [[]], "episodes": []}',
        '{"routing_data": [{}], "episodes": []}',
        '{"routing_data": [{"position": [1, 2]}]}',
        '{"a": ' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"schema_version": 1, "episodes": [' + "[" * 100_000,
        '{"routing_data": ' + "9" * 5000 + "}",
        "\ufeff{}",
        "checkpoint_path,task_id\n",
    ],
    ids=lambda text: text[:30],
)
def test_foreign_files_are_refused(tmp_path, text):
    (tmp_path / "f.json").write_text(text, encoding="utf-8")
    for read in (read_cache, read_header):
        with pytest.raises(CacheError, match=r"f\.json"):
            read(tmp_path / "f.json")


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    for path in (tmp_path / "binary.json", tmp_path / "missing.json", tmp_path):
        for read in (read_cache, read_header):
            with pytest.raises(CacheError, match=re.escape(str(path))):
                read(path)


def change(content, where, value):
    *path, last = where
    for key in path:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["schema_version"], 2),
        (["schema_version"], "1"),
        (["num_episodes"], 3),
        (["num_steps"], 6),
        (["metrics"], []),
        (["event_names"], "none"),
        (["subgoal_names"], ["Open", "Open"]),
        (["num_actions"], "7"),
        (["unknown_columns"], ["colour"]),
        (["expert_hidden_sizes"], "[[0]]"),
        (["expert_hidden_sizes"], [[0, 16]]),
        (["expert_hidden_sizes"], [[0, 16, -32], [0, 8]]),
        (["episodes", 0], 3),
        (["episodes", 0, "outcome"], "won"),
        (["episodes", 0, "outcome"], ["success"]),
        (["episodes", 0, "steps"], "3"),
        (["episodes", 0, "steps"], 10**12),
        (["episodes", 0, "level_seed"], 1.5),
        (["episodes", 0, "mean_lpc"], 10**400),
        (["episodes", 0, "mission"], 7),
        (["episodes", 0, "grid_size"], [8]),
        (["episodes", 0, "agent_start_pos"], 3),
        (["episodes", 0, "agent_start_dir"], [0]),
        (["episodes", 0, "agent_start_room"], [10**30, 1]),
        (["episodes", 0, "target_pos"], ["3", "4"]),
        (["episodes", 0, "room_bounds"], [[0, 0]]),
        (["episodes", 0, "balls"], [[3, 4]]),
        (["episodes", 0, "doors"], [{"x": 3, "y": 4}]),
        (["episodes", 0, "walls"], [3]),
        (["routing_data", 1], None),
        (["routing_data", 1, "episode"], 2),
        (["routing_data", 1, "episode"], -1),
        (["routing_data", 1, "episode"], None),
        (["routing_data", 1, "position"], [1]),
        (["routing_data", 1, "position"], [1, 2.5]),
        (["routing_data", 1, "position"], [1, 2**20]),
        (["routing_data", 1, "position"], None),
        (["routing_data", 1, "position"], {"x": 1}),
        (["routing_data", 1, "layer_routing"], []),
        (["routing_data", 1, "layer_routing"], {}),
        (["routing_data", 1, "layer_routing", "layer_0"], [0.5, 0.5]),
        (["routing_data", 1, "layer_routing", "layer_0"], [0.5, 0.25, "0.25"]),
        (["routing_data", 1, "layer_routing", "layer_0"], [0.5, 0.25, [0.25]]),
        (["routing_data", 1, "layer_routing", "layer_2"], [1.0]),
        (["routing_data", 1, "lpc"], "3"),
        (["routing_data", 1, "lpc"], 1e300),
        (["routing_data", 1, "lpc"], [3]),
        (["routing_data", 1, "t_step"], 2**40),
        (["routing_data", 1, "direction"], 1000),
        (["routing_data", 1, "carrying"], "yes"),
        (["routing_data", 1, "carrying"], {}),
        (["routing_data", 1, "door_unlocked"], 2),
        (["routing_data", 1, "action_logits"], [1.0]),
        (["routing_data", 1, "action_logits"], None),
        (["routing_data", 1, "event"], "exploded"),
        (["routing_data", 1, "dist_to_key"], True),
        (["routing_data", 1, "t_pick"], 0.5),
    ],
    ids=str,
)
def test_wrong_values_are_refused(tmp_path, where, value):
    write(tmp_path / "a.json")
    content = load(tmp_path / "a.json")
    change(content, where, value)
    for name, text in (("one", json.dumps(content)), ("lines", relay(content))):
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        with pytest.raises(CacheError, match=rf"{name}\.json"):
            read_all(tmp_path / f"{name}.json")


def relay(content):
    """Lay JSON out as write_cache does."""
    head = "".join(f'"{k}": {json.dumps(v)},\n' for k, v in content.items() if k not in ("episodes", "routing_data"))
    lists = [",\n".join(map(json.dumps, content[key])) for key in ("episodes", "routing_data")]
    return f'{{\n{head}"episodes": [\n{lists[0]}\n],\n"routing_data": [\n{lists[1]}\n]\n}}\n'


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_no_json_are_not_known(tmp_path, constant):
    """Python's json writes them, as for the path ratio of a policy that never succeeded."""
    write(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    text = re.sub(r'"lpc":[^,]+', f'"lpc":{constant}', text, count=1)
    text = re.sub(r'"path_ratio":[^,]+', f'"path_ratio":{constant}', text, count=1)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    cache = read_all(tmp_path / "a.json")
    assert np.isnan(cache.routing.lpc).tolist() == [True, False, False, False, False]
    assert cache.metrics["path_ratio"] is read_header(cache.path)["metrics"]["path_ratio"] is None


@pytest.mark.parametrize(("key", "value"), [("position", "[NaN, 2]"), ("episode", "NaN")])
def test_constants_do_not_stand_for_what_must_be_known(tmp_path, key, value):
    write(tmp_path / "a.json")
    content = load(tmp_path / "a.json")
    change(content, ["routing_data", 1, key], "HERE")
    (tmp_path / "a.json").write_text(json.dumps(content).replace('"HERE"', value), encoding="utf-8")
    with pytest.raises(CacheError, match=rf"a\.json: {key}: expected"):
        read_all(tmp_path / "a.json")


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_read_or_refused(tmp_path_factory, data):
    """Whatever a few bytes become, there is a cache or a CacheError, nothing else."""
    path = tmp_path_factory.mktemp("damaged") / "a.json"
    write(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.sampled_from(b'0123456789-.eE,:"[]{}ntf\n\x00\xff'))
    path.write_bytes(content)
    try:
        read_all(path)
    except CacheError as error:
        assert str(path) in str(error)
