"""What the README and the docs show works: code runs, commands parse, links lead somewhere."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from maxent.data.catalogue import DATASETS
from maxent.dts_implementation.search.result import METHODS
from maxent.metrics import METRICS
from maxent.registry import MODEL_CONFIGS
from maxent.rewards.catalogue import TASKS
from maxent.settings import read_command
from more.settings import TrainingConfig
from pipeline.command.cli import parse_command
from pipeline.command.launcher import FLAGS
from pipeline.config import TrainConfig
from pipeline.training.command import SWITCHES
from pipeline.training.options import OPTIONS, parse_sweep

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SEARCH_PAGES = [ROOT / "maxent" / "RUN_EXPERIMENTS_GUIDE.md", *sorted((ROOT / "maxent" / "docs").glob("*.md"))]
MORE_SCRIPTS = ["more/train.py", "more/evaluate.py", "more/evaluate_for_llm.py", "more/generate.py", "more/export.py"]
SCRIPTS = ["train.py", "train_mop.py", "eval_mop.py", "batch_eval.py", *MORE_SCRIPTS]


def indented_blocks(page: Path) -> list[str]:
    """Return a page's blocks of code, each without its indentation."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") for block in blocks]


def commands(pages: list[Path]) -> list[str]:
    lines = [line for page in pages for block in indented_blocks(page) for line in block.splitlines()]
    without_comments = [line.split("  #")[0].strip() for line in lines]
    return sorted({line for line in without_comments if re.match(r"(\S*python\S*) \S+\.py\b", line)})


def search_commands() -> list[str]:
    """Return the commands of tree search, of its script's docstring too."""
    script = ROOT / "maxent" / "run_experiments_with_wandb.py"
    text = re.sub(r" *\\\n *", " ", ast.get_docstring(ast.parse(script.read_text())) or "")
    told = [line.strip() for line in text.splitlines() if line.strip().startswith("python run_")]
    return [line for line in sorted({*commands([*PAGES, *SEARCH_PAGES]), *told}) if "run_experiments" in line]


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
    config, beside = parse_command("", TrainConfig, numbers, switches=SWITCHES, options={**OPTIONS, **FLAGS})
    assert isinstance(config, TrainConfig)
    parse_sweep(config, **{name: beside[name] for name in OPTIONS})  # raises where a value cannot be used


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search("eval|generate|export", c.split()[1])])
def test_evaluation_commands_know_their_flags(command):
    _, script, *arguments = shlex.split(command)
    shown = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    for flag in [argument for argument in arguments if argument.startswith("--")]:
        assert flag.replace("-", "_").replace("__", "--") in shown


@pytest.mark.parametrize("command", search_commands())
def test_search_commands_parse(command):
    _, script, *arguments = shlex.split(command)
    assert (ROOT / "maxent" / Path(script).name).exists()
    settings, *_ = read_command(arguments)
    assert settings.models and set(settings.find_paths()) <= set(settings.models)


def test_every_model_and_method_of_the_search_is_in_its_page():
    text = (ROOT / "docs" / "maxent.md").read_text(encoding="utf-8")
    names = [*MODEL_CONFIGS, *METHODS, *TASKS, *DATASETS]
    assert [name for name in names if f"`{name}`" not in text] == []
    guide = SEARCH_PAGES[0].read_text(encoding="utf-8")
    colours = [one["color"] for one in MODEL_CONFIGS.values()]
    assert [one for one in (*MODEL_CONFIGS, *colours) if one not in guide] == []


def test_every_key_that_is_tracked_is_in_the_page_of_the_search():
    text = (ROOT / "docs" / "maxent.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if f"`{name}`" not in text and f"`/{name.rpartition('/')[2]}`" not in text] == []


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


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *SEARCH_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" not in path:
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in find_anchors(target), link


def test_every_config_file_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "configs").glob("*.yaml") if f"configs/{path.name}" not in text] == []


ALL_HELP = """
import contextlib, sys
from rlmop.command import COMMANDS, main
from maxent import experiment, reward_checks
from benchmarks.levels import command as levels
from benchmarks.maxent_study import command as study
from more import commands, compare
from pipeline.launch import status
calls = [(main, [name]) for name in COMMANDS] + [(main, ["evaluate", "--checkpoint=x"])]
calls += [(run, []) for run in (commands.train, commands.evaluate, commands.evaluate_for_llm, commands.export)]
calls += [(compare.main, [])]
calls += [(run, []) for run in (experiment.main, reward_checks.main, study.main, levels.main, status.main)]
for run, words in calls:
    sys.argv = ["rlmop", *words, "--help"]
    with contextlib.suppress(SystemExit):
        run()
"""

OTHER_FLAGS = {
    *("logdir", "dist", "vfs-cache-mode"),  # of TensorBoard, pytest, rclone
    *("rounds", "seconds", "no_yardstick", "levels", "encodings", "fusions", "parts"),  # of benchmarks
    *("all_views", "page", "studies_dir"),  # of the notebooks
    *("model", "model_args", "include_path", "tasks"),  # of lm-evaluation-harness
    "nproc_per_node",  # of torchrun
    *("head", "port", "address", "generate", "detach"),  # of ray, modal
    *("do", "trials", "flags"),  # of modal_app.py, read by modal
}


def test_flags_in_the_docs_are_there():
    """Of any command; measurements in LOG.md name what there was when they were made."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    known = set(re.findall(r"^ +(?:-h, )?--([\w-]+)", done.stdout, flags=re.MULTILINE)) | OTHER_FLAGS
    assert {"seeds", "compact", "over_prices", "checkpoint_minutes", "match", "variants"} <= known
    for page in (*PAGES, *SEARCH_PAGES, ROOT / "CONTRIBUTING.md"):
        if page.name != "LOG.md":
            named = set(re.findall(r"(?<![\w-])--([a-z][\w-]+)", page.read_text(encoding="utf-8")))
            assert named - known == set(), page.name
    for name in OTHER_FLAGS & {"all_views", "page"}:
        assert f'"{name}"' in (ROOT / "routing_viz.py").read_text(encoding="utf-8")
