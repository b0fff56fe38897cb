"""Files on their way between machines: what has changed, in which order, and what may be written here."""

import os
from pathlib import Path

import pytest

from pipeline.command.errors import ConfigError
from pipeline.command.workers import WorkItem
from pipeline.launch.files import Change, Outbox, apply_changes, check_relative, gather, lay_out
from pipeline.places import leave_out_earlier


def write(path: str, content: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def there(tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_changes_make_the_same_files_here(there, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    outbox = Outbox(["out"])

    def bring() -> list[Change]:
        changes = outbox.collect()
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(here)
            apply_changes(changes, ["out"])
        assert tree(here) == tree(there)
        return changes

    write("out/metrics.jsonl", b"1\n")
    write("out/a/checkpoint_1.pt", b"one")
    assert [change.path for change in bring()] == ["out/metrics.jsonl", "out/a/checkpoint_1.pt"]  # its lines first
    with open("out/metrics.jsonl", "ab") as file:
        file.write(b"2\n")
    write("out/a/checkpoint_2.pt", b"two")
    os.unlink("out/a/checkpoint_1.pt")
    kinds = [(change.kind, change.path, change.content) for change in bring()]
    assert kinds == [
        ("append", "out/metrics.jsonl", b"2\n"),
        ("write", "out/a/checkpoint_2.pt", b"two"),
        ("delete", "out/a/checkpoint_1.pt", b""),
    ]
    write("out/metrics.jsonl", b"other, and longer\n")
    assert [change.kind for change in bring()] == ["write"]
    write("out/metrics.jsonl", b"short\n")
    assert [change.kind for change in bring()] == ["write"]
    assert bring() == []


def test_what_is_written_while_files_are_read_comes_with_what_tells_of_it(there, monkeypatch):
    write("out/a/log.jsonl", b"1\n")
    write("out/results.json", b"1")
    outbox, read = Outbox(["out"]), Path.read_bytes
    write("out/results.json", b"2")

    def write_meanwhile(path):  # a third sample: its tree, its line, then the results
        if path == Path("out/results.json"):
            write("out/a/tree_3.json", b"tree")
            write("out/a/log.jsonl", b"1\n2\n3\n")
            write("out/results.json", b"3")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", write_meanwhile)
    assert [(change.path, change.content) for change in outbox.collect()] == [
        ("out/a/log.jsonl", b"2\n3\n"),
        ("out/a/tree_3.json", b"tree"),
        ("out/results.json", b"3"),
    ]


def test_what_is_there_at_the_beginning_and_passing_files_do_not_travel(there):
    write("out/old.pt", b"old")
    outbox = Outbox(["out"])
    for name in ("out/.lock", "out/.results.csv.lock", "out/.lock.soft", "out/.x.pt.0123456789ab.tmp", "elsewhere.pt"):
        write(name, b"passing")
    write("out/.hidden", b"kept")
    assert [change.path for change in outbox.collect()] == ["out/.hidden"]


def test_a_place_may_be_one_file(there):
    outbox = Outbox([Path("out/one.json")])
    write("out/one.json", b"1")
    write("out/two.json", b"2")
    (change,) = outbox.collect()
    apply_changes([change], [Path("out/one.json")])
    with pytest.raises(ValueError, match=r"out/two\.json: expected a file below out/one\.json"):
        apply_changes([Change("write", "out/two.json", b"")], [Path("out/one.json")])


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "out/../../x", "other/x"])
def test_nothing_is_written_elsewhere(there, path):
    with pytest.raises(ValueError, match="expected a file below out"):
        apply_changes([Change("write", path, b"x"), Change("delete", path)], ["out"])
    assert tree(there.parent) == {}


def test_a_file_that_grows_must_be_the_one_it_grew_from(there):
    write("out/log.jsonl", b"12")
    apply_changes([Change("append", "out/log.jsonl", b"3", 1)], ["out"])  # what was here beyond it is replaced
    assert Path("out/log.jsonl").read_bytes() == b"13"
    with pytest.raises(ValueError, match="expected 9 bytes or more before it grows, found 2"):
        apply_changes([Change("append", "out/log.jsonl", b"3", 9)], ["out"])


def test_inputs_are_laid_out_as_they_are(there, tmp_path, monkeypatch):
    write("in/a/b", b"1")
    write("in/.lock", b"")
    write("c", b"2")
    item = WorkItem("x", print, inputs=(Path("in"), Path("c"), Path("missing"), Path("in/a")))
    found = gather(item)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    lay_out(found)
    assert tree(Path()) == {"c": b"2", "in/a/b": b"1"}


def test_of_folders_those_files_go_that_an_item_chooses_and_each_that_it_names(there):
    for number in (1, 2, 10):
        write(f"in/a/checkpoint_{number}.pt", b"1")
    write("in/a/checkpoint_final.pt", b"1")
    write("in/b/metrics.jsonl", b"1")
    write("in/b/checkpoint_3.pt", b"1")
    inputs = (Path("in/a"), Path("in/b"), Path("in/a/checkpoint_1.pt"), Path("missing.pt"))
    found = gather(WorkItem("x", print, inputs=inputs, choose=leave_out_earlier))
    assert sorted(path for path, _ in found) == [
        *("in/a/checkpoint_1.pt", "in/a/checkpoint_10.pt", "in/a/checkpoint_final.pt"),
        *("in/b/checkpoint_3.pt", "in/b/metrics.jsonl"),
    ]


@pytest.mark.parametrize("path", ["/tmp/x", "a/../../b"])
def test_paths_that_have_no_name_elsewhere_are_refused(path):
    with pytest.raises(ConfigError, match="expected a path below the current folder"):
        check_relative(WorkItem("x", print, outputs=(Path(path),)))
    check_relative(WorkItem("x", print, inputs=(Path("a/b"),)))
