"""The binary copy beside a large cache: the same content, and never more than a convenience."""

import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.command.files import replace_atomically
from pipeline.records import cache
from pipeline.records import copy as cache_copy
from pipeline.records.cache import CacheError, find_caches, read_cache, write_cache
from pipeline.records.copy import COPY_NAME
from pipeline.records.metrics import compute_metrics
from tests.tables import SIZES, assert_same_episodes, assert_same_steps, random_tables

HEADER = {"checkpoint_path": "c\udce9.pt", "evaluated_at": "2026-01-02T03:04:05+00:00", "config": {"lr": 1e-3}}


@pytest.fixture(autouse=True)
def every_cache_is_large(monkeypatch):
    monkeypatch.setattr(cache_copy, "MIN_BYTES", 0)
    monkeypatch.setattr(cache, "MIN_BYTES", 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "BabyAI-GoToObj-v0" / "trial_1" / "routing_data.json"


@pytest.fixture
def parsed(monkeypatch):
    """Return the list of files that were parsed."""
    seen = []
    parse = cache._parse_text
    monkeypatch.setattr(cache, "_parse_text", lambda text: seen.append(1) or parse(text))
    return seen


def write(path, seed=0, sizes=SIZES, *, record=True, unknown=frozenset()):
    routing, episodes = random_tables(seed, [3, 0, 2], sizes)
    routing = replace(routing, unknown=unknown) if record else None
    metrics = compute_metrics(episodes, bot_plan_failures=1)
    write_cache(path, header=HEADER, metrics=metrics, episodes=episodes, routing=routing)


def assert_same(found, expected):
    assert list(found.header.items()) == list(expected.header.items())
    assert (found.metrics, found.layouts_only) == (expected.metrics, expected.layouts_only)
    assert_same_episodes(found.episodes, expected.episodes)
    if expected.routing is None:
        assert found.routing is None
    else:
        assert_same_steps(found.routing, expected.routing)


def read_json_alone(path):
    path.with_name(COPY_NAME).unlink(missing_ok=True)
    return read_cache(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"sizes": []}, {"record": False}, {"unknown": frozenset({"subgoal", "walking"})}, {"sizes": [[0, 16, 32]]}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_a_copy_holds_what_parsing_gives(path, parsed, options):
    write(path, **options)
    del parsed[:]
    from_copy = read_cache(path)
    assert parsed == []  # the writer has left a copy
    from_json = read_json_alone(path)
    assert len(parsed) == 1
    assert_same(from_copy, from_json)
    assert_same(read_cache(path), from_json)
    assert len(parsed) == 1


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("in_turns", [False, True])
def test_older_forms_have_copies_too(path, parsed, inline, in_turns):
    write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    steps = content["routing_data"][::-1] if in_turns else content["routing_data"]
    for step in steps if inline else []:
        step["env_context"] = {"grid_size": [8, 8], "walls": ["#" * step.pop("episode")]}
    old = {"routing_data": steps} | ({} if inline else {"episodes": [{"grid_size": [8, 8]}] * 3})
    path.write_text(json.dumps(old), encoding="utf-8")
    from_json = read_cache(path)
    del parsed[:]
    from_copy = read_cache(path)
    assert parsed == [] and from_json.layouts_only == in_turns
    assert_same(from_copy, from_json)


def test_another_json_makes_a_copy_stale_whatever_its_size_and_time(path, parsed):
    write(path)
    stamp = path.stat()
    before = read_cache(path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"bot_plan_failures":1', '"bot_plan_failures":2'), encoding="utf-8")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    del parsed[:]
    assert before.metrics["bot_plan_failures"] == 1
    assert read_cache(path).metrics["bot_plan_failures"] == 2 and len(parsed) == 1
    assert read_cache(path).metrics["bot_plan_failures"] == 2 and len(parsed) == 1  # replaced


def test_another_program_parses_again(path, parsed, monkeypatch):
    write(path)
    del parsed[:]
    monkeypatch.setattr(cache_copy, "_program", lambda: b"another" * 5)
    read_cache(path)
    read_cache(path)
    assert len(parsed) == 1


def damage(data: bytes, how: str) -> bytes:
    if how == "one bit":  # in the columns: only the zip's check sums tell
        place = data.index(b"steps.action_logits.npy") + 300
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    return {"empty": b"", "truncated": data[: len(data) // 2], "text": b"no archive", "npy": b"\x93NUMPY\x01\x00"}[how]


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "npy", "one bit"])
def test_a_damaged_copy_is_none(path, parsed, how, capfd, recwarn):
    write(path)
    expected = read_cache(path)
    copy = path.with_name(COPY_NAME)
    copy.write_bytes(damage(copy.read_bytes(), how))
    del parsed[:]
    assert_same(read_cache(path), expected)
    assert len(parsed) == 1
    assert_same(read_cache(path), expected)
    assert len(parsed) == 1 and capfd.readouterr() == ("", "") and not list(recwarn)


def save(copy, arrays):
    with copy.open("wb") as file:
        np.savez(file, **arrays)


def test_a_copy_that_needs_pickle_or_lacks_columns_is_none(path, parsed):
    write(path)
    copy = path.with_name(COPY_NAME)
    with np.load(copy) as found:
        arrays = dict(found)
    del parsed[:]
    for change in (
        {"steps.lpc": np.array([{"a": 1}] * 5)},
        {"steps.lpc": arrays["steps.lpc"][:-1]},
        {"steps.episode": arrays["steps.episode"] + 7},
        {"texts": np.frombuffer(b"[" * 100_000, np.uint8)},
    ):
        save(copy, arrays | change)
        read_cache(path)
    save(copy, {name: array for name, array in arrays.items() if name != "weights.0"})
    read_cache(path)
    assert len(parsed) == 5
    save(copy, arrays)
    read_cache(path)
    assert len(parsed) == 5  # it was these changes


@pytest.mark.parametrize("error", [PermissionError(13, "read-only"), OSError(28, "no space left")])
def test_where_no_copy_can_be_written_the_json_is_read(path, parsed, monkeypatch, error, capfd):
    def refuse(target):
        if target.name == COPY_NAME:
            raise error
        return replace_atomically(target)

    monkeypatch.setattr(cache_copy, "replace_atomically", refuse)
    write(path)
    read_cache(path)
    read_cache(path)
    assert len(parsed) == 3 and [p.name for p in path.parent.iterdir()] == ["routing_data.json"]
    assert capfd.readouterr() == ("", "")


def test_a_damaged_json_is_refused_though_it_had_a_copy(path):
    write(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CacheError, match="truncated or damaged"):
        read_cache(path)


def test_readers_at_once_get_the_same(path):
    write(path)
    expected = read_json_alone(path)
    path.with_name(COPY_NAME).unlink()
    found, threads = [], [threading.Thread(target=lambda: found.append(read_cache(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for each in found:
        assert_same(each, expected)
    assert sorted(p.name for p in path.parent.iterdir()) == [COPY_NAME, "routing_data.json"]


def test_a_copy_is_no_cache(path):
    write(path)
    assert [place.path for place in find_caches(path.parents[2])] == [path]


def test_small_caches_have_none(path, monkeypatch):
    monkeypatch.setattr(cache_copy, "MIN_BYTES", 1 << 23)
    monkeypatch.setattr(cache, "MIN_BYTES", 1 << 23)
    write(path)
    read_cache(path)
    assert [p.name for p in path.parent.iterdir()] == ["routing_data.json"]
