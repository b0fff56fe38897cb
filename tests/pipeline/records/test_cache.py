"""Caches: written and read back, refused where they cannot be written, and as the documentation shows them."""

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

from pipeline.records.cache import read_cache, read_header, write_cache
from pipeline.records.metrics import compute_metrics
from pipeline.records.results import COLUMNS
from pipeline.records.steps import DIGITS
from tests.cache_files import HEADER, load, write
from tests.tables import SIZES, assert_same_episodes, assert_same_steps, random_tables

ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize(
    ("config", "exponent"),
    [({"lpc_exponent": 1.5}, 1.5), ({"lpc_exponent": "x"}, 2), ({"lpc_exponent": None}, 2), ({}, 2)],
)
def test_the_price_of_an_expert_is_that_of_the_run(tmp_path, config, exponent):
    routing, episodes = random_tables(0, [3, 2], SIZES)
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    for name in ("a.json", "a.json.gz"):
        header = HEADER | {"config": config}
        write_cache(tmp_path / name, header=header, metrics=metrics, episodes=episodes, routing=routing)
        table = read_cache(tmp_path / name).routing
        assert table.lpc_exponent == table.select(slice(2)).lpc_exponent == exponent


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
