"""What the README and the docs show works: code runs, commands parse, links lead somewhere."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from more.settings import TrainingConfig
from pipeline.command.cli import parse_command
from pipeline.config import TrainConfig
from pipeline.training.command import SWITCHES
from pipeline.training.options import OPTIONS, parse_sweep

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MORE_SCRIPTS = ["more/train.py", "more/evaluate.py", "more/evaluate_for_llm.py"]
SCRIPTS = ["train.py", "train_mop.py", "eval_mop.py", "batch_eval.py", *MORE_SCRIPTS]


def indented_blocks(page: Path) -> list[str]:
    """Return a page's blocks of code, each without its indentation."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") for block in blocks]


def commands(pages: list[Path]) -> list[str]:
    lines = [line for page in pages for block in indented_blocks(page) for line in block.splitlines()]
    without_comments = [line.split("  #")[0].strip() for line in lines]
    return sorted({line for line in without_comments if re.match(r"(\S*python\S*) \S+\.py\b", line)})


def docstring_commands() -> list[str]:
    found = []
    for script in SCRIPTS:
        text = ast.get_docstring(ast.parse((ROOT / script).read_text(encoding="utf-8"))) or ""
        text = re.sub(r" *\\\n *", " ", text)  # a backslash continues a line
        found += [line.split("  #")[0].strip() for line in text.splitlines() if line.strip().startswith("python ")]
    return sorted(set(found))


COMMANDS = sorted({*commands(PAGES), *docstring_commands()})


def test_there_are_commands_to_check():
    assert any("train_mop.py --config config.yaml" in command for command in COMMANDS)
    assert any("batch_eval.py" in command for command in COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "train" in c.split()[1]])
def test_training_commands_parse(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).exists()
    numbers = [re.sub(r"^(S|N|\$seed)$", "1", argument) for argument in arguments]  # placeholders such as --seed S
    if script == "more/train.py":
        language, _ = parse_command("", TrainingConfig, numbers, switches=SWITCHES)
        assert language.resolve().model_config(vocab_size=512).max_length == language.resolve().seq_length
        return
    config, beside = parse_command("", TrainConfig, numbers, switches=SWITCHES, options=OPTIONS)
    assert isinstance(config, TrainConfig)
    parse_sweep(config, **{name: beside[name] for name in OPTIONS})  # raises where a value cannot be used


@pytest.mark.parametrize("command", [c for c in COMMANDS if "eval" in c.split()[1]])
def test_evaluation_commands_know_their_flags(command):
    _, script, *arguments = shlex.split(command)
    shown = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    for flag in [argument for argument in arguments if argument.startswith("--")]:
        assert flag.replace("-", "_").replace("__", "--") in shown


def python_blocks() -> list[str]:
    return [block for page in PAGES for block in indented_blocks(page) if re.match(r"(import|from) \w", block)]


def test_python_in_the_readme_runs():
    block = next(b for b in python_blocks() if "MixtureOfExpertsPolicy" in b)
    program = block + "\nprint(float(compute_lpc(routing, policy.layer_expert_sizes)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 2048


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.splitlines()[0])
def test_python_in_the_docs_compiles(block):
    compile(block, "docs", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_config_file_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "configs").glob("*.yaml") if f"configs/{path.name}" not in text] == []


ALL_HELP = """
import contextlib, sys
from rlmop.command import COMMANDS, main
from more import commands, compare
calls = [(main, [name]) for name in COMMANDS] + [(main, ["evaluate", "--checkpoint=x"])]
calls += [(run, []) for run in (commands.train, commands.evaluate, commands.evaluate_for_llm, compare.main)]
for run, words in calls:
    sys.argv = ["rlmop", *words, "--help"]
    with contextlib.suppress(SystemExit):
        run()
"""

OTHER_FLAGS = {
    *("logdir", "dist", "vfs-cache-mode"),  # of TensorBoard, pytest, rclone
    *("all_views", "page"),  # of the notebooks
}


def test_flags_in_the_docs_are_there():
    """Of any command; measurements in LOG.md name what there was when they were made."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    known = set(re.findall(r"^ +(?:-h, )?--([\w-]+)", done.stdout, flags=re.MULTILINE)) | OTHER_FLAGS
    assert {"seeds", "compact", "over_prices", "checkpoint_minutes", "match", "variants"} <= known
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        if page.name != "LOG.md":
            named = set(re.findall(r"(?<![\w-])--([a-z][\w-]+)", page.read_text(encoding="utf-8")))
            assert named - known == set(), page.name
    for name in OTHER_FLAGS & {"all_views", "page"}:
        assert f'"{name}"' in (ROOT / "routing_viz.py").read_text(encoding="utf-8")
