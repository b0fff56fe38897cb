"""Caches packed by gzip: they hold the same, and give way to each other."""

import gzip
import os

import pytest

from pipeline.places import find_caches
from pipeline.records.cache import CacheError, read_cache, read_header, write_cache
from plotting.browsing import load_cache
from tests.cache_files import HEADER, read_all, write
from tests.tables import assert_same_episodes, assert_same_steps, random_tables


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
