"""What an item imports is among the code that machines compare, and among the code that containers get."""

import ast
import pickle
from pathlib import Path

import pytest

import benchmarks
from benchmarks.maxent_study.searching import do_group
from pipeline.command.workers import WorkItem
from pipeline.launch import code, remote
from pipeline.launch.code import BESIDE, PACKAGES, ROOT, compute_code, list_beside, list_code, refuse_other_code
from tests.launch_items import misbehave

PROJECT = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for path in [*ROOT.glob("*.py"), *(p for folder in ROOT.glob("*/__init__.py") for p in folder.parent.rglob("*.py"))]
    if path.relative_to(ROOT).parts[0] != "tests"
}
"""The project's files, parsed."""


def find_launching() -> set[str]:
    """Return the packages in which work items are made."""
    return {
        path.parts[0]
        for path, tree in PROJECT.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("WorkItem")
    }


def find_file(name: str) -> Path | None:
    path = Path(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p in PROJECT), None)


def follow_imports(package: str) -> set[Path]:
    """Return the project's files that a package has and imports, whether at once or later."""
    waiting = [path for path in PROJECT if path.parts[0] == package]
    found = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(PROJECT[path]):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [file for name in names if (file := find_file(name)) is not None]
    return found


def test_packages_with_work_items_are_found():
    assert {"pipeline", "science", "more", "maxent", "benchmarks"} <= find_launching()
    assert Path("pipeline/command/workers.py") in follow_imports("more")


@pytest.mark.parametrize("package", sorted(find_launching()))
def test_what_items_import_is_compared(package):
    compared = {path.relative_to(ROOT) for path in list_code([package] if package in BESIDE else [])}
    assert sorted(follow_imports(package) - compared) == []


def test_what_items_import_is_in_the_containers():
    pytest.importorskip("modal", reason="needs requirements/cluster.txt")
    import modal_app

    needed = set().union(*map(follow_imports, find_launching()))
    assert len(needed) > 300 and sorted(path for path in needed if modal_app.is_left_out(path)) == []


def test_what_is_beside_the_installed_packages_is_compared_for_its_own_items_alone():
    installed = {path.relative_to(ROOT).parts[0] for path in list_code()}
    assert installed.isdisjoint(BESIDE) and set(PACKAGES) <= installed
    assert list_beside(do_group) == ("benchmarks",) and list_beside(misbehave) == ()
    orders = [pickle.loads(remote.write_order(WorkItem("x", do), 1.0)) for do in (do_group, misbehave)]
    assert [order["code"] for order in orders] == [compute_code(("benchmarks",)), compute_code()]
    assert orders[0]["code"] != orders[1]["code"]
    assert Path(benchmarks.__file__) in list_code(("benchmarks",))


def test_a_machine_without_them_is_told_to_work_in_a_clone(tmp_path, monkeypatch):
    wanted = compute_code(("benchmarks",))
    assert refuse_other_code(wanted, wanted, ("benchmarks",)) is None
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert "expected benchmarks/ beside the project's packages" in refuse_other_code(wanted, wanted, ("benchmarks",))
