"""`rlmop`: one name for every command, told in one screen; and what it copies to begin with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlmop import command, levels, start
from rlmop.command import COMMANDS, describe_commands

ROOT = Path(__file__).parents[2]


@pytest.fixture
def called(monkeypatch):
    """Return a function that calls `rlmop` with words and returns the exit code, and what each main was called as."""
    calls: list[tuple[str, list[str]]] = []

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rlmop", *words])
        return command.main()

    for name, entry in COMMANDS.items():
        fake = command.Command(entry.group, entry.text, lambda name=name: calls.append((name, sys.argv)) or 0)
        monkeypatch.setitem(COMMANDS, name, fake)
    call.calls = calls
    return call


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_without_a_command_it_teaches_in_one_screen(called, words, capsys):
    assert called(*words) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: rlmop COMMAND")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    for name, entry in COMMANDS.items():
        assert f"  {name:<10} {entry.text}\n" in text


def test_the_command_becomes_the_program(called):
    assert called("train", "--seed", "3") == 0
    assert called("ls") == 0
    assert called.calls == [("train", ["rlmop train", "--seed", "3"]), ("ls", ["rlmop ls"])]


@pytest.mark.parametrize(
    ("word", "hint"),
    [("trian", "did you mean rlmop train?"), ("lss", "rlmop ls?"), ("--plot", "rlmop plot?"), ("xyz", "--help lists")],
)
def test_an_unknown_command_is_named_with_the_nearest(called, word, hint, capsys):
    assert called(word) == 2
    error = capsys.readouterr().err
    assert f"found {word!r}" in error
    assert hint in error
    assert called.calls == []


def test_version_is_told(called, capsys):
    assert called("--version") == 0
    assert capsys.readouterr().out.startswith("rl-mop")


def test_called_as_a_module_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rlmop" / "__main__.py"), "trian"])
    assert command.main() == 2
    assert "did you mean python -m rlmop train?" in capsys.readouterr().err


PROGRAM = """
import contextlib, io, json, sys
from rlmop.command import COMMANDS, main
shown = {}
for words in [[name] for name in COMMANDS] + [["evaluate", "--checkpoint=x"]]:
    sys.argv = ["/bin/rlmop", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            shown[" ".join(words)] = [end.code, out.getvalue()]
print(json.dumps(shown))
"""


def test_every_command_has_help_under_its_own_name():
    """Of the real mains, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    shown = json.loads(done.stdout)
    assert set(shown) == {*COMMANDS, "evaluate --checkpoint=x"}
    for words, (code, text) in shown.items():
        assert code == 0
        assert text.startswith(f"usage: rlmop {words.split()[0]} "), words
    assert "--final_only" in shown["evaluate"][1]
    assert "--json" in shown["evaluate --checkpoint=x"][1]
    assert "[FOLDER]" in shown["ls"][1].splitlines()[0]
    assert "[RUNS ...]" in shown["compare"][1].splitlines()[0]


def test_it_starts_without_what_takes_long():
    program = (
        "import sys; sys.argv = ['rlmop']; from rlmop.command import main; main();"
        "print([m for m in ('torch', 'numpy', 'minigrid', 'matplotlib', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# ----------------------------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["s4", "GOTO"], 0, "BabyAI-GoToObjS4-v0\n"),
        (["nothing"], 2, "error: no task's name holds 'nothing'; python -m babyai.levels lists all\n"),
    ],
)
def test_the_module_of_the_levels_takes_the_words_too(words, code, told):
    command = [sys.executable, "-m", "babyai.levels", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True)


def test_levels_are_those_that_hold_all_words(capsys):
    assert levels.main(["s4", "GOTO"]) == 0
    names = capsys.readouterr().out.split()
    assert "BabyAI-GoToObjMazeS4-v0" in names
    assert all("S4" in name and "GoTo" in name for name in names)
    assert levels.main(["nothing", "like", "it"]) == 2
    assert "no task's name holds 'nothing' and 'like' and 'it'" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- init


def test_init_copies_what_one_begins_with_and_replaces_nothing(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("mine")
    assert start.main([str(tmp_path)]) == 0
    assert "is there already, left alone" in capsys.readouterr().out
    assert (tmp_path / "config.yaml").read_text() == "mine"
    for name in start.FILES[1:]:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_init_copies_all_settings_a_study_notebooks_and_the_batch_script():
    shipped = {"config.yaml", *(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*.yaml"))}
    others = {"routing_viz.py", "cross_task_viz.py", "examples/slurm.sh", "studies/debug.yaml"}
    assert set(start.FILES) == shipped | others


def test_init_refuses_a_file_for_a_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert start.main([str(tmp_path / "file")]) == 2
    assert "expected a folder, found the file" in capsys.readouterr().err


def test_screen_names_the_program_as_it_was_called():
    assert "  python -m rlmop init" in describe_commands("python -m rlmop")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "slurm.sh"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_are_there(page):
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^ {4}|^# {5}|`|&& |wrap \")rlmop ([a-z]+)", text, re.MULTILINE))
    assert shown <= set(COMMANDS)
    if page.name == "commands.md":
        assert shown == set(COMMANDS)
