"""Compiled functions on disk: found again, and compiled anew when any file of the package has changed."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from babyai.compiled import jit

MODULE = """
from babyai.compiled.jit import compiled

@compiled
def _double(x):
    return 2 * x

@compiled
def count(x):
    return _double(x) + _double(3) + _double(4)
"""


@pytest.fixture
def load(tmp_path):
    """Load the module above as a new process would."""
    path = tmp_path / "counting.py"
    path.write_text(MODULE)

    def load_module():
        spec = importlib.util.spec_from_file_location("counting", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_module


def test_numbers_are_compiled_once(load):
    module = load()
    assert module.count(5) == 24
    assert len(module._double.signatures) == 1


def test_what_is_on_disk_is_used_until_a_source_changes(load, monkeypatch):
    module = load()
    module.count(1)
    assert (module.count.stats.cache_hits, module.count.stats.cache_misses) == ({}, {module.count.signatures[0]: 1})
    again = load()
    again.count(1)
    assert again.count.stats.cache_misses == {}
    monkeypatch.setattr(jit, "SOURCE_STAMP", "another")
    changed = load()
    changed.count(1)
    assert changed.count.stats.cache_hits == {}


def test_the_stamp_depends_on_every_file(tmp_path):
    folder = tmp_path / "compiled"
    shutil.copytree(Path(jit.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    vocabulary = tmp_path / "facts.py"
    shutil.copy(jit.VOCABULARY, vocabulary)

    def digest():
        return jit.digest_sources([*folder.glob("*.py"), vocabulary])

    stamps = [digest()]
    assert stamps == [jit.SOURCE_STAMP]
    for path in (folder / "layout.py", vocabulary):
        with path.open("a") as file:
            file.write("\n")
        assert digest() not in stamps
        stamps.append(digest())
