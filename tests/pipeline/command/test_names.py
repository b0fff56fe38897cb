"""What to do next is said in the words of whoever is at the keyboard."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.command import names
from pipeline.command.names import SCRIPTS, name_command, name_module
from rlmop.command import COMMANDS

ROOT = Path(__file__).parents[3]
FOLDERS = ("babyai", "film", "pipeline", "plotting", "rlmop", "science")
FILES = sorted([*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))])


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("called", ["rlmop", "python -m rlmop"])
def test_who_calls_rlmop_is_told_of_rlmop_even_in_a_clone(called, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{called} train", "--seed", "1"])
    assert name_command("evaluate") == f"{called} evaluate"
    assert name_command("ls") == f"{called} ls"


@pytest.mark.parametrize("called", ["train_mop.py", "/bin/marimo", "routing_viz.py", ""])
def test_who_works_in_a_clone_is_told_of_scripts(called, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [called])
    assert name_command("evaluate") == "python batch_eval.py"
    assert name_command("ls") == "rlmop ls"  # which has no script


def test_who_calls_scripts_from_elsewhere_is_told_where_they_are(empty, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{ROOT}/train_mop.py"])
    assert name_command("evaluate") == f"python {ROOT}/batch_eval.py"


@pytest.mark.parametrize("called", ["routing_viz.py", "/usr/bin/marimo", "-c"])
def test_who_has_installed_it_is_told_of_rlmop(called, empty, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called])
    assert name_command("train") == "rlmop train"


@pytest.mark.parametrize(
    ("folder", "called"),
    [
        (ROOT, "python more/evaluate.py"),
        (ROOT / "more", "python evaluate.py"),
        (ROOT / "docs", f"python {shlex.quote(str(ROOT / 'more' / 'evaluate.py'))}"),
    ],
)
def test_a_module_of_a_clone_is_named_by_its_place(folder, called, monkeypatch):
    monkeypatch.chdir(folder)
    assert name_module("more.evaluate") == called


def test_a_module_of_an_installation_is_named_as_one(empty, monkeypatch):
    monkeypatch.setattr(names, "__file__", str(empty / "pipeline" / "command" / "names.py"))
    assert name_module("more.evaluate") == "python -m more.evaluate"


def test_scripts_and_commands_are_there():
    assert set(SCRIPTS) <= set(COMMANDS)
    assert [name for name in SCRIPTS.values() if not (ROOT / name).is_file()] == []


def said(source: str) -> list[str]:
    """Return the commands that a program's texts name, other than its docstrings."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in prose]
    pattern = rf"{'|'.join(map(re.escape, SCRIPTS.values()))}|rlmop (?:{'|'.join(COMMANDS)})\b"
    return sorted(match[0] for text in texts if isinstance(text, str) for match in re.finditer(pattern, text))


def test_commands_in_texts_are_found():
    assert said("'''rlmop ls'''\nprint(f'{1}: run batch_eval.py')\nx = 'rlmop train now'") == [
        "batch_eval.py",
        "rlmop train",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_message_spells_a_command_itself(path):
    """A message that does would tell people who installed of scripts that they have not, or the other way round."""
    told = {"pipeline/command/names.py", "rlmop/command.py", "pipeline/checkpoints.py"}  # the last: what wrote a file
    if path.relative_to(ROOT).as_posix() not in told:
        assert said(path.read_text(encoding="utf-8")) == []
