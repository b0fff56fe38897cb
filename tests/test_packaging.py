"""`pip install .`: what a wheel holds, and that it works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email import message_from_string
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"})


def listed(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build a wheel of a copy of the checkout, with what is installed: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "benchmarks", "configs", "examples", "requirements", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copytree(ROOT / "studies", copy / "studies", ignore=shutil.ignore_patterns("out"))
    for path in (
        *ROOT.glob("*.py"),
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.txt"),
        ROOT / "README.md",
        ROOT / "config.yaml",
    ):
        shutil.copy(path, copy)
    program = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=copy, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_wheel_holds_the_code_its_data_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    expected |= {"pipeline/records/routing_data.schema.json"}
    clone = ("_viz.py", "modal_app.py")  # notebooks, which are data; and what gives containers the clone that it is in
    expected |= {path.name for path in ROOT.glob("*.py") if not path.name.endswith(clone)}
    assert {"babyai", "more", "pipeline", "rlmop"} <= set(PACKAGES)
    assert expected - names == set()
    shared = {name.partition("data/share/rl-mop/")[2] for name in names if "share/rl-mop" in name}
    assert shared == {
        "config.yaml",
        "routing_viz.py",
        "cross_task_viz.py",
        "examples/slurm.sh",
        *(f"configs/{p.name}" for p in (ROOT / "configs").iterdir()),
        *(f"studies/{p.name}" for p in (ROOT / "studies").glob("*.yaml")),
    }
    others = {name.split("/")[0] for name in names} - {name.split("/")[0] for name in expected}
    assert {name.rpartition(".")[2] for name in others} == {"data", "dist-info"}


def test_wheel_needs_what_the_requirements_say(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    needs = message_from_string(archive.read(name).decode()).get_all("Requires-Dist")
    plain = {need for need in needs if "extra" not in need}
    assert plain == listed("requirements.txt")
    for extra in ("cluster", "dev", "docs", "science"):
        suffix = f'; extra == "{extra}"'
        assert {need.removesuffix(suffix) for need in needs if need.endswith(suffix)} == listed(
            f"requirements/{extra}.txt"
        )


def test_installed_it_works_in_another_folder(wheel, tmp_path):
    """As pip lays it out; the packages it needs are those of this environment."""
    site = tmp_path / "lib" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (data,) = site.glob("*.data")
    (info,) = site.glob("*.dist-info")
    shutil.copytree(data / "data", tmp_path, dirs_exist_ok=True)
    record = (info / "RECORD").read_text().replace(f"{data.name}/data/", "../../")
    (info / "RECORD").write_text(record)
    shutil.rmtree(data)
    (script,) = (entry for entry in PathDistribution(info).entry_points if entry.group == "console_scripts")
    assert (script.name, script.value) == ("rlmop", "rlmop.command:main")
    work = tmp_path / "work"
    work.mkdir()

    def rlmop(*words: str) -> subprocess.CompletedProcess:
        module, _, function = script.value.partition(":")
        program = f"import sys; from {module} import {function} as main; sys.exit(main())"
        command = [sys.executable, "-P", "-c", program, *words]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    done = rlmop("init")
    assert done.returncode == 0, done.stderr
    assert (work / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert (work / "routing_viz.py").exists()
    shown = rlmop("train", "--config", "configs/debug.yaml", "--help")
    assert "(debug.yaml: " in shown.stdout
    planned = rlmop("study", "--config", "studies/debug.yaml", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "BabyAI-GoToObj-v0" in rlmop("levels", "gotoobj").stdout
    assert "no run; train one" in rlmop("ls").stderr
    assert rlmop("--version").stdout.strip() == f"rl-mop {PROJECT['project']['version']}"


def test_requirements_for_development_are_the_extra():
    text = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    needed = ["-r requirements.txt", "-r requirements/dev.txt", "-r requirements/science.txt"]
    assert [line for line in text if line.startswith("-r")] == needed


# ------------------------------------------------------------------------------------------ for those who pick it up


def test_citation_is_valid_and_of_this_version():
    """The keys that CFF 1.2.0 requires, and their types."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["cff-version"] == "1.2.0"
    assert cff["version"] == PROJECT["project"]["version"]
    assert cff["authors"] == [{"name": PROJECT["project"]["authors"][0]["name"]}]
    (reference,) = cff["references"]
    assert {"type", "title", "authors"} <= set(reference)


def test_pre_commit_runs_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # works offline, at the versions of requirements/dev.txt
    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    for tool in ("ruff format", "ruff check", "marimo check --strict"):
        assert f"-m {tool}" in lint
        assert any(f"-m {tool}" in entry for entry in entries)


def test_notebooks_are_sound_also_where_the_project_is_installed(tmp_path):
    """The linter took the packages in site-packages for others of the same names, so that `make lint` failed."""
    site = Path(sysconfig.get_path("purelib", f"{os.name}_user", vars={"userbase": str(tmp_path)}))
    for name in PACKAGES:
        (site / name).mkdir(parents=True)
    words = ["-m", "marimo", "check", "--strict", "routing_viz.py", "cross_task_viz.py"]
    environment = {**os.environ, "PYTHONUSERBASE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
