"""`--help` of every command is told at once, with nothing imported or written for it, and lists what can be given."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from rlmop.command import COMMANDS as WORDS

ROOT = Path(__file__).parents[3]

HEAVY = {
    *("gymnasium", "matplotlib", "minigrid", "numba", "pandas", "PIL", "scipy", "tensorboard", "tokenizers", "torch"),
    *("transformers", "huggingface_hub", "orjson", "ray", "submitit", "modal"),
}

COMMANDS = [
    *("train_mop.py", "train.py", "eval_mop.py", "batch_eval.py", "plotting_utils.py"),
    *("-m film", "-m film.contact_sheet", "-m plotting.command"),
    *("-m more.train", "-m more.evaluate", "-m more.evaluate_for_llm", "-m more.compare", "more/train.py"),
    *("-m science.study", "science/study.py"),
    *("-m more.generate", "more/generate.py", "-m more.export", "more/export.py"),
    *("-m maxent.charts", "-m benchmarks.maxent_study", "-m benchmarks.levels", "-m pipeline.launch"),
    *(f"-m rlmop {word}" for word in WORDS),
    "-m rlmop evaluate --checkpoint PATH",
]


def imported(report: str) -> set[str]:
    """Return the first names of the modules in what `python -X importtime` writes."""
    return {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", report, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_heavy_and_no_folder_to_write_to(command, tmp_path):
    words = [str(ROOT / word) if word.endswith(".py") else word for word in command.split()]
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), "/dev/null")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words, "--help"],
        cwd=tmp_path,
        env={**os.environ, **home, "PYTHONPATH": str(ROOT), "MPLBACKEND": "module://not.installed"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "exit codes:" in done.stdout
    assert imported(done.stderr) & HEAVY == set()
    assert list(tmp_path.iterdir()) == []


def test_imports_are_seen_in_the_report():
    report = (
        "import time:       101 |        700 |   torch.nn\nimport time: self [us] | cumulative | imported package\n"
    )
    assert imported(report) == {"torch"}


def test_help_lists_every_field_and_no_flag_that_is_refused():
    done = subprocess.run(
        [sys.executable, "train_mop.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    flags = {*re.findall(r"^\s+--(\w+) .*\S", done.stdout, re.MULTILINE)}
    assert {field.name for field in dataclasses.fields(TrainConfig)} - flags == set()
    for words in ("BabyAI level family", "Learning rate of Adam", "--config", "--resume"):
        assert words in done.stdout
    assert not re.findall(r"--\w+\+", done.stdout)  # --expert_hidden_sizes+, which would add to a list


def help_of(capsys, settings_class: type, *flags: str) -> str:
    """Return the help that flags ask for, in one line."""
    with pytest.raises(SystemExit) as end:
        parse_command("test", settings_class, [*flags])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_leaves_out_what_the_script_decides(capsys):
    """`train.py --help` offered policies that it refuses."""
    with pytest.raises(SystemExit):
        parse_command("test", TrainConfig, ["--help"], policy="gru")
    shown = capsys.readouterr().out
    assert "--policy" not in shown and "--hidden_size" in shown


def test_help_beside_a_file_shows_its_values(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 2e-3\nmop_layers: '0,16;8'\nwandb_project: null\n")
    for flags in (["--config", str(path), "--help"], ["-h", f"--config={path}", "--seed", "3"]):
        shown = help_of(capsys, TrainConfig, *flags)
        assert "Learning rate of Adam. (mine.yaml: 0.002; default: 0.001)" in shown
        assert "(mine.yaml: [[0, 16], [8]]; default: [[0, 16, 32]," in shown
        assert "(mine.yaml: null; default: null)" in shown
        assert "--num_envs NUM_ENVS Environments stepped together. (default: 16)" in shown
        assert f"with the values of {path}" in shown
    assert "mine.yaml" not in help_of(capsys, TrainConfig, "--help")


def test_help_beside_a_file_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "bad.yaml").write_text("nun_envs: 3\n")
    for name, words in (("bad.yaml", "did you mean num_envs?"), ("absent.yaml", "cannot be read")):
        with pytest.raises(ConfigError, match=re.escape(words)):
            parse_command("test", TrainConfig, ["--help", "--config", str(tmp_path / name)])
    with pytest.raises(ConfigError, match="--config"):
        parse_command("test", TrainConfig, ["--help", "--config"])


def test_help_names_other_spellings(capsys):
    shown = help_of(capsys, TrainConfig, "--help")
    for alias in ("mop_intermediate_dim", "mop_layers", "mop_router_dim"):
        assert f"; also --{alias})" in shown
