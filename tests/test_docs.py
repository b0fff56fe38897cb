"""The site of `make docs`, as far as it can be told without building it: pages, modules, how docstrings are read."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    import sys

    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_every_page_is_in_the_contents_and_the_contents_are_pages():
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix() for kind in ("md", "rst") for path in DOCS.rglob(f"*.{kind}")
    }
    assert sorted(listed) == sorted(pages - {"index"})


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.rst")), ids=lambda page: page.stem)
def test_modules_of_the_reference_are_there(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    assert modules
    assert [name for name in modules if not (DOCS.parent / f"{name.replace('.', '/')}.py").is_file()] == []
    for title, line in re.findall(r"^(.+)\n([=-]+)$", text, re.MULTILINE):
        assert len(title) == len(line)


def test_docstrings_are_read_as_they_are_written(conf):
    lines = ["A `b` of |c| and `|d|`.", "", "    code(`e`)", "", "Then", "- one", "  more", "- two", ""]
    expected = [
        *("A ``b`` of \\|c\\| and ``|d|``.", "", "::", "", "    code(`e`)", "", "", "Then", "", "- one", "  more"),
        *("- two", ""),
    ]
    assert conf.from_markdown(lines) == expected


def test_sections_hold_no_code(conf):
    lines = ["Do.", "", "Args:", "    a: One.", "", "    b: Two.", "", "Returns:", "    Three."]
    assert conf.from_markdown(lines) == lines
    assert conf.from_markdown([]) == []


def test_what_is_offered_to_notebooks_of_others_is_in_the_reference():
    """All that `plotting_utils` re-exports, and the statistics."""
    modules = re.findall(
        r"^ *from (plotting\.\w+) import", (DOCS.parent / "plotting_utils.py").read_text(), re.MULTILINE
    )
    modules += [
        f"science.statistics.{path.stem}" for path in (DOCS.parent / "science" / "statistics").glob("[a-z]*.py")
    ]
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.rst"))
    assert [name for name in modules if f".. automodule:: {name}\n" not in text] == []
