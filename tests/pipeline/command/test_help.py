"""`--help` of every command is told at once: nothing heavy is imported for it, nothing compiled, nothing written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
