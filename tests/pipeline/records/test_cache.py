"""Caches: written and read back, older forms, paths, and files that are no caches."""

import gzip
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.places import find_caches
from pipeline.records.cache import CacheError, read_cache, read_header, write_cache
from pipeline.records.columns import EPISODE_COLUMNS
from pipeline.records.metrics import compute_metrics
from pipeline.records.results import COLUMNS
from pipeline.records.steps import DIGITS, iter_records
from plotting.browsing import load_cache
from tests.tables import SIZES, assert_same_episodes, assert_same_steps, build_context, random_tables

ROOT = Path(__file__).parents[3]
HEADER = {
    "checkpoint_path": "checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt",
    "checkpoint_digest": "ab" * 32,
    "task_id": "BabyAI-GoToObj-v0",
    "trial": 1,
    "seed": 0,
    "update": None,
    "eval_seed": 0,
    "max_steps": None,
    "evaluated_at": "2026-01-02T03:04:05+00:00",
}


def write(path, seed=0, lengths=(3, 2), sizes=SIZES, *, record=True, **options):
    routing, episodes = random_tables(seed, list(lengths), sizes)
    metrics = compute_metrics(episodes, bot_plan_failures=1)
    routing = routing if record else None
    write_cache(path, header=HEADER, metrics=metrics, episodes=episodes, routing=routing, **options)
    return routing, episodes, metrics


def load(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def read_all(path):
    """What a careless reader does; every failure is to be a CacheError that names the file."""
    try:
        read_header(path)
    except CacheError as error:
        assert str(path) in str(error)
    return read_cache(path)


@pytest.fixture(scope="module")
def validator():
    schema = json.loads((ROOT / "pipeline/records/routing_data.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


# -------------------------------------------------------------------------------------------------------- round trip


@given(
    seed=st.integers(0, 9999),
    lengths=st.lists(st.integers(1, 7), max_size=5),
    sizes=st.sampled_from([SIZES, [[0, 16, 32]], []]),
    inline=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory, seed, lengths, sizes, inline):
    path = tmp_path_factory.mktemp("cache") / "routing_data.json"
    routing, episodes, metrics = write(path, seed, lengths, sizes, inline_context=inline)
    cache = read_cache(path)
    assert_same_steps(cache.routing, routing, rtol=0.5 * 10.0 ** (1 - DIGITS) * 1.01)
    assert_same_episodes(cache.episodes, episodes)
    assert cache.metrics == metrics
    assert HEADER.items() <= cache.header.items()
    assert cache.header["num_episodes"] == len(lengths)
    assert not cache.layouts_only
    again = path.with_name("again.json")
    write_cache(again, header=HEADER, metrics=metrics, episodes=cache.episodes, routing=cache.routing)
    if not inline:  # rounding once is rounding for good
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("sizes", [SIZES, []])
@pytest.mark.parametrize("inline", [False, True])
def test_written_files_keep_the_schema(tmp_path, validator, sizes, inline):
    write(tmp_path / "a.json", 1, [4, 1, 3], sizes, inline_context=inline)
    content = load(tmp_path / "a.json")
    validator.validate(content)
    assert len(content["routing_data"]) == content["num_steps"] == 8
    assert {"env_context" in step for step in content["routing_data"]} == {inline}
    assert (content["routing_data"][0]["lpc"] is None) == (sizes == [])
    broken = {**content, "routing_data": [{**content["routing_data"][0], "position": [1, 2, 3]}]}
    assert not validator.is_valid(broken)
    assert not validator.is_valid({**content, "metrics": {}})


def test_one_step_per_line_and_first_keys_first(tmp_path):
    path = tmp_path / "a.json"
    routing, _, _ = write(path, 1, [4, 1, 3])
    lines = path.read_text(encoding="utf-8").splitlines()
    steps = [line for line in lines if line.startswith('{"episode":')]
    assert len(steps) == len(routing)
    assert re.match(r'\{"episode":0,"position":\[\d+,\d+\],"layer_routing":\{"layer_0":\[', steps[0])
    assert lines[1] == '"schema_version": 1,'


def test_records_are_the_steps_of_the_file(tmp_path):
    write(tmp_path / "a.json", 3, [4, 2])
    content, cache = load(tmp_path / "a.json"), read_cache(tmp_path / "a.json")
    for step, record in zip(content["routing_data"], cache.records(), strict=True):
        assert record.pop("env_context").items() <= content["episodes"][step["episode"]].items()
        assert record.keys() == step.keys()
        for key, value in step.items():
            if isinstance(value, float) or (isinstance(value, list) and key == "action_logits"):
                assert record[key] == pytest.approx(value, rel=1e-6)
            elif key != "layer_routing":
                assert record[key] == value


def test_many_blocks_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.records.cache._BLOCK_CHARS", 3000)
    monkeypatch.setattr("pipeline.records.steps._BLOCK", 7)
    routing, episodes, _ = write(tmp_path / "a.json", 5, [9, 13, 8, 1])
    cache = read_cache(tmp_path / "a.json")
    assert_same_steps(cache.routing, routing, rtol=1e-5)
    assert_same_episodes(cache.episodes, episodes)


@pytest.mark.parametrize("layout", [{"indent": None}, {"indent": 0}, {"indent": 2}, {"separators": (",", ":")}])
def test_layout_of_the_json_does_not_matter(tmp_path, layout):
    routing, episodes, metrics = write(tmp_path / "a.json", 6, [3, 4])
    other = tmp_path / "b.json"
    other.write_text(json.dumps(load(tmp_path / "a.json"), sort_keys=True, **layout), encoding="utf-8")
    cache = read_cache(other)
    assert_same_steps(cache.routing, routing, rtol=1e-5)
    assert_same_episodes(cache.episodes, episodes)
    assert read_header(other) == read_header(tmp_path / "a.json")
    assert read_header(other)["metrics"] == metrics


def test_without_routing(tmp_path, validator):
    _, episodes, metrics = write(tmp_path / "a.json", record=False)
    validator.validate(load(tmp_path / "a.json"))
    cache = read_cache(tmp_path / "a.json")
    assert cache.routing is None
    assert list(cache.records()) == []
    assert_same_episodes(cache.episodes, episodes)
    assert read_header(tmp_path / "a.json")["metrics"] == metrics


def test_numbers_of_a_diverged_policy_are_null(tmp_path):
    """Infinity and NaN in logits or weights made invalid JSON."""
    routing, episodes = random_tables(0, [3])
    routing.action_logits[1, 2], routing.weights[0][2, 0], routing.lpc[2] = np.inf, np.nan, np.nan
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    write_cache(tmp_path / "a.json", header=HEADER, metrics=metrics, episodes=episodes, routing=routing)
    assert load(tmp_path / "a.json")["routing_data"][1]["action_logits"][2] is None
    read = read_cache(tmp_path / "a.json").routing
    assert np.isnan(read.action_logits).sum() == np.isnan(read.weights[0]).sum() == np.isnan(read.lpc).sum() == 1


def test_unknown_columns_stay_unknown(tmp_path):
    write(tmp_path / "a.json")
    content = load(tmp_path / "a.json")
    for step in content["routing_data"]:
        for key in ("carrying", "action_logits", "event", "subgoal", "t_step"):
            del step[key]
    (tmp_path / "b.json").write_text(json.dumps(content), encoding="utf-8")
    cache = read_cache(tmp_path / "b.json")
    unknown = {"carrying", "action_logits", "event", "subgoal", "t_step"}
    assert cache.routing.unknown == unknown
    assert all(record[key] is None for record in cache.records() for key in unknown)
    write_cache(
        tmp_path / "c.json", header=HEADER, metrics={}, episodes=cache.episodes, routing=cache.routing
    )  # and once more
    assert read_cache(tmp_path / "c.json").routing.unknown == unknown


def test_first_events_may_stand_in_the_steps_only(tmp_path):
    _, episodes, _ = write(tmp_path / "a.json", 8, [3, 5, 2])
    content = load(tmp_path / "a.json")
    for episode in content["episodes"]:
        for name in ("t_pick", "t_unlocked", "t_drop"):
            del episode[name]
    (tmp_path / "b.json").write_text(json.dumps(content), encoding="utf-8")
    assert_same_episodes(read_cache(tmp_path / "b.json").episodes, episodes)


def test_file_names_that_are_no_unicode(tmp_path):
    routing, episodes = random_tables(0, [2])
    header = {**HEADER, "checkpoint_path": os.fsdecode(b"runs/\xff/\xc3\xa9.pt")}
    write_cache(tmp_path / "a.json", header=header, metrics={}, episodes=episodes, routing=routing)
    assert read_header(tmp_path / "a.json")["checkpoint_path"] == header["checkpoint_path"]


# ----------------------------------------------------------------------------------------------------------- writing


def test_writing_refuses(tmp_path):
    routing, episodes = random_tables(0, [2, 3])
    good = {"header": HEADER, "metrics": {}, "episodes": episodes, "routing": routing}
    bad = {
        "missing": {"header": {"checkpoint_path": "x"}},
        "not to be given": {"header": {**HEADER, "metrics": {}}},
        "num_episodes": {"header": {**HEADER, "num_episodes": 3}},
        "expert_hidden_sizes": {"header": {**HEADER, "expert_hidden_sizes": [[0, 1]]}},
        "1 episodes": {"episodes": episodes.select([0])},
        "JSON": {"metrics": {"success_rate": math.nan}},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):
            write_cache(tmp_path / "a.json", **{**good, **change})
    episodes.env_context[1]["outcome"] = "bright"
    with pytest.raises(ValueError, match="outcome"):
        write_cache(tmp_path / "a.json", **good)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path):
    write(tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()
    routing, episodes = random_tables(1, [2])
    episodes.env_context[0]["walls"] = object()
    with pytest.raises(TypeError):
        write_cache(tmp_path / "a.json", header=HEADER, metrics={}, episodes=episodes, routing=routing)
    assert (tmp_path / "a.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------------------------------ compact form


@pytest.mark.parametrize("options", [{}, {"inline": True}, {"sizes": []}, {"record": False}], ids=str)
def test_compact_caches_hold_the_same(tmp_path, options):
    options = {"inline_context" if key == "inline" else key: value for key, value in options.items()}
    plain, compact = tmp_path / "a" / "routing_data.json", tmp_path / "b" / "routing_data.json"
    for path in (plain, compact):
        write(path, 3, [4, 2], compact=path is compact, **options)
    packed = compact.with_name("routing_data.json.gz")
    assert not compact.exists() and packed.exists()
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    for name in (compact, packed):  # by either name
        found, expected = read_all(name), read_cache(plain)
        assert found.path == packed and found.header == expected.header and found.metrics == expected.metrics
        assert_same_episodes(found.episodes, expected.episodes)
        if expected.routing is None:
            assert found.routing is None
        else:
            assert_same_steps(found.routing, expected.routing)
        assert read_header(name) == read_header(plain)
    before = packed.read_bytes()
    write(compact, 3, [4, 2], compact=True, **options)
    assert packed.read_bytes() == before  # nothing of the time is in it


def test_a_cache_takes_the_place_of_one_in_the_other_form(tmp_path):
    path = tmp_path / "routing_data.json"
    for compact, lengths in ((False, [3]), (True, [4]), (True, [5]), (False, [6])):
        write(path, lengths=lengths, compact=compact)
        (left,) = tmp_path.iterdir()
        assert left.name == ("routing_data.json.gz" if compact else "routing_data.json")
        assert len(read_all(path).routing) == lengths[0]
    write(path.with_name("routing_data.json.gz"))
    assert [left.name for left in tmp_path.iterdir()] == ["routing_data.json.gz"]


def test_of_two_forms_the_newer_counts(tmp_path):
    """As they are for a moment while one takes the place of the other; a crash may leave them so."""
    path = tmp_path / "T" / "trial_1" / "routing_data.json"
    for newer in (True, False):
        kept = tmp_path / "kept"
        write(path, lengths=[3], compact=not newer)
        (old,) = path.parent.iterdir()
        old.rename(kept)
        write(path, lengths=[4], compact=newer)
        kept.rename(old)
        os.utime(old, ns=(0, 0))
        assert len(read_all(path).routing) == len(load_cache(path).routing) == 4
        (place,) = find_caches(tmp_path)
        assert place.path.name == ("routing_data.json.gz" if newer else "routing_data.json")
        assert len(read_all(place).routing) == 4
    write(path, lengths=[4])


def test_a_cache_may_be_packed_and_unpacked_by_hand(tmp_path):
    path = tmp_path / "T" / "trial_1" / "routing_data.json"
    write(path)
    expected = read_cache(path)
    packed = path.with_name("routing_data.json.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()
    (place,) = find_caches(tmp_path)
    assert_same_steps(read_cache(place).routing, expected.routing)
    assert_same_steps(load_cache(path).routing, expected.routing)
    packed.rename(path)  # a name says nothing
    assert_same_steps(read_all(path).routing, expected.routing)


def test_damaged_compact_caches_are_named(tmp_path):
    write(tmp_path / "a.json.gz")
    whole = (tmp_path / "a.json.gz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for content in (*(whole[:length] for length in range(2, len(whole), 61)), bytes(flipped), whole[:-3]):
        (tmp_path / "a.json.gz").write_bytes(content)
        for read in (read_cache, read_header):
            with pytest.raises(CacheError, match=r"a\.json\.gz: no valid gzip; truncated or damaged .*--force"):
                read(tmp_path / "a.json.gz")


def test_a_failed_compact_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "routing_data.json"
    write(path)
    before = path.read_bytes()
    routing, episodes = random_tables(1, [2])
    episodes.env_context[0]["walls"] = object()
    with pytest.raises(TypeError):
        write_cache(path, header=HEADER, metrics={}, episodes=episodes, routing=routing, compact=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- older forms


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


# ------------------------------------------------------------------------------------------------------ damaged files


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


# ---------------------------------------------------------------------------------------------------------------- docs


def test_example_of_the_documentation(tmp_path, validator):
    text = (ROOT / "docs/cache.md").read_text(encoding="utf-8")
    (tmp_path / "a.json").write_text(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    validator.validate(load(tmp_path / "a.json"))
    cache = read_cache(tmp_path / "a.json")
    assert compute_metrics(cache.episodes, bot_plan_failures=0) == cache.metrics
    assert cache.routing.lpc.mean() == pytest.approx(cache.metrics["mean_lpc"], rel=1e-5)
    routing, episodes, header = cache.routing, cache.episodes, load(tmp_path / "a.json")
    own = ("schema_version", "num_steps", "num_actions", "unknown_columns", "metrics", "episodes", "routing_data")
    kept = {key: value for key, value in header.items() if key not in own and not key.endswith("_names")}
    write_cache(tmp_path / "b.json", header=kept, metrics=cache.metrics, episodes=episodes, routing=routing)
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def test_every_field_is_documented(validator):
    text = (ROOT / "docs/cache.md").read_text(encoding="utf-8")
    parts = validator.schema["$defs"]
    fields = {key for part in (validator.schema, parts["episode"], parts["step"]) for key in part["properties"]}
    assert {field for field in (*fields, *COLUMNS) if f"`{field}`" not in text} == set()
