"""Who may import whom: the rules of direction, read from the source."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("babyai", "pipeline", "film", "more", "plotting", "benchmarks")
FILES = sorted([*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))])
PATHS = [path.relative_to(ROOT).as_posix() for path in FILES]
SCRIPTS = {"train", "train_mop", "eval_mop", "batch_eval", "routing_viz", "cross_task_viz"}
ROOT_MODULES = {path.stem for path in ROOT.glob("*.py")}
PROJECT = ROOT_MODULES | {name for name in PACKAGES if (ROOT / name).is_dir()}


def find_imports(source: str, *, lazy: bool = True) -> set[str]:
    """Return the modules that a source imports, `a.b` for `from a.b import c`.

    Args:
        source: Python text.
        lazy: Count imports within functions and `if __name__ == "__main__"` too.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            assert all(alias.name != "*" for alias in node.names), f"import * in line {node.lineno}"
            found.add(node.module)
        runs_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        )
        if lazy or not runs_later:
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(source))
    return found


def imports_of(path: str, *, lazy: bool = True) -> set[str]:
    return find_imports((ROOT / path).read_text(encoding="utf-8"), lazy=lazy)


def top(names: set[str]) -> set[str]:
    """Return the first part of each name, without the standard library."""
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_imports_are_found_wherever_they_stand():
    source = """
import a.b as c, d
from e.f import g
if True:
    import h
def function():
    import i
if __name__ == "__main__":
    from j import k
class Thing:
    import l
"""
    assert find_imports(source) == {"a.b", "d", "e.f", "h", "i", "j", "l"}
    assert find_imports(source, lazy=False) == {"a.b", "d", "e.f", "h", "l"}


@pytest.mark.parametrize("source", ["from . import a", "from .a import b", "from a import *"])
def test_relative_and_star_imports_are_noticed(source):
    with pytest.raises(AssertionError):
        find_imports(source)


@pytest.mark.parametrize("path", PATHS)
def test_imports_are_absolute_and_explicit(path):
    assert "sys.path" not in {ast.unparse(n) for n in ast.walk(ast.parse((ROOT / path).read_text()))}
    imports_of(path)  # asserts the rest


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("mixture_of_experts.py", {"torch"}),
        ("stateful_mop.py", {"torch", "mixture_of_experts"}),
        ("train_mop.py", {"pipeline"}),
        ("train.py", {"torch", "pipeline"}),
        ("pipeline/config.py", {"yaml"}),
        ("pipeline/command/cli.py", {"yaml", "jsonargparse", "pipeline"}),
        ("pipeline/command/files.py", set()),
        ("pipeline/records/tables.py", {"numpy"}),
        ("pipeline/records/metrics.py", {"numpy", "pipeline"}),
        ("pipeline/training/losses.py", {"torch", "mixture_of_experts"}),
        ("pipeline/engine/packed.py", {"torch", "mixture_of_experts", "stateful_mop", "pipeline"}),
        ("babyai/observations.py", {"numpy"}),
        ("babyai/levels.py", {"numpy", "minigrid", "gymnasium"}),
        ("babyai/facts.py", {"numpy"}),
        ("babyai/vector_env.py", {"numpy", "babyai"}),
        ("more/config.py", set()),
        ("more/model.py", {"torch", "mixture_of_experts", "more"}),
    ],
)
def test_module_imports_no_more_than_it_may(path, allowed):
    assert top(imports_of(path)) <= allowed


@pytest.mark.parametrize("path", [p for p in PATHS if p.startswith("babyai/")])
def test_the_world_knows_nothing_of_what_is_built_on_it(path):
    assert top(imports_of(path)) & PROJECT <= {"babyai"}


WAIST = ("tables", "records", "cache", "cache_copy", "cache_episodes", "cache_forms", "cache_steps", "results")
ANALYSIS = [p for p in PATHS if p in {f"pipeline/{name}.py" for name in WAIST} | {"plotting_utils.py"}]
NOTEBOOKS = [p for p in PATHS if p in ("routing_viz.py", "cross_task_viz.py")]


def test_the_waist_imports_nothing_of_the_pipeline_but_itself_and_files():
    allowed = {f"pipeline.{name}" for name in (*WAIST, "files")}
    for name in WAIST:
        inner = {module for module in imports_of(f"pipeline/{name}.py") if module.startswith("pipeline.")}
        assert {".".join(module.split(".")[:2]) for module in inner} <= allowed, name


@pytest.mark.parametrize("path", [*ANALYSIS, *(p for p in PATHS if p.startswith("plotting/"))])
def test_analysis_runs_without_torch_and_environments(path):
    assert not top(imports_of(path)) & {"torch", "transformers", "minigrid", "gymnasium", "babyai"}


def test_notebooks_import_torch_and_environments_lazily_if_at_all():
    heavy = {"torch", "transformers", "minigrid", "gymnasium", "babyai"}
    assert [path for path in NOTEBOOKS if top(imports_of(path, lazy=False)) & heavy] == []


BESIDE_MORE = {
    f"pipeline.{name}" for name in ("cli", "config", "devices", "files", "folders", "interruption", "tracking")
}


@pytest.mark.parametrize("path", [p for p in PATHS if p.startswith("more/")])
def test_language_models_share_the_router_and_the_tools_of_a_command(path):
    """And the two formulas of intervals; nothing of policies, worlds or their caches."""
    allowed = BESIDE_MORE | {"mixture_of_experts"}
    if path == "more/evaluation.py":
        allowed |= {"pipeline.records.metrics"}  # wilson_interval
    if path == "more/compare.py":
        allowed |= {"plotting.statistics"}  # mean_interval
    inner = {name for name in imports_of(path) if name.partition(".")[0] in PROJECT}
    assert {name for name in inner if not name.startswith("more.")} <= allowed


def test_nothing_but_benchmarks_imports_the_language_models():
    assert {path for path in importers("more") if not path.startswith("more/")} == set()


def test_packages_do_not_import_scripts():
    """But for the baseline's class, which the layout of the project puts into its script."""
    found = {(path, name) for path in PATHS if "/" in path for name in top(imports_of(path)) & SCRIPTS}
    assert {pair for pair in found if not pair[0].startswith("benchmarks/")} == {("pipeline/checkpoints.py", "train")}


def test_scripts_do_not_import_each_other():
    found = {(path, name) for path in PATHS if "/" not in path for name in top(imports_of(path)) & SCRIPTS}
    assert {pair for pair in found if pair[0] not in NOTEBOOKS} <= {("batch_eval.py", "eval_mop")}


def importers(*names: str) -> set[str]:
    return {p for p in PATHS if not p.startswith("benchmarks/") and top(imports_of(p)) & set(names)}


def test_minigrid_stays_behind_the_border_of_the_world():
    """A compiled core will take its place; nothing else may see per-environment objects."""
    inner = ("levels", "simulator", "expert", "recorder", "render", "compiled/from_minigrid", "compiled/catalogue")
    assert importers("minigrid", "gymnasium") == {f"babyai/{name}.py" for name in inner}


def test_nothing_but_the_vector_environment_sees_single_environments():
    inner = {"babyai.simulator", "babyai.expert", "babyai.recorder", "babyai.context"}
    allowed = {"ExpertError"}  # an error may cross the border
    for path in PATHS:
        if path.startswith(("babyai/", "benchmarks/")):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in inner:
                assert {alias.name for alias in node.names} <= allowed, path
            elif isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & inner, path


def test_torch_enters_the_world_with_the_encoders_only():
    world = {path for path in importers("torch") if path.startswith("babyai/")}
    assert world == {"babyai/missions.py", "babyai/huggingface_encoder.py"}


def test_slow_and_optional_packages_are_imported_where_they_are_used():
    """Importing transformers takes seconds; wandb and tensorboard need not be installed."""
    for path in PATHS:
        at_import = imports_of(path, lazy=False)
        assert not top(at_import) & {
            "transformers",
            "huggingface_hub",
            "wandb",
            "tensorboard",
            "jsonargparse",
            "imageio_ffmpeg",
        }, path
        assert "torch.utils.tensorboard" not in at_import, path


def test_modules_import_each_other_in_one_direction():
    names = {module_name(path) for path in PATHS}
    graph = {}
    for path in PATHS:
        found: set[str] = set()
        for name in imports_of(path, lazy=False):
            parts = name.split(".")
            found |= {".".join(parts[: i + 1]) for i in range(len(parts))} & names
        graph[module_name(path)] = found - {module_name(path)}
    assert graph["pipeline.engine.packed"] >= {"mixture_of_experts", "stateful_mop"}  # edges are seen
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def run_python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ALONE = """
import importlib, sys
names = sys.argv[1:]
tops = {name.partition(".")[0] for name in names}
for name in names:
    for loaded in [m for m in sys.modules if m.partition(".")[0] in tops]:
        del sys.modules[loaded]
    importlib.import_module(name)
    print(name)
"""


def test_every_module_can_be_imported_first():
    """Each with no other module of the project loaded, which a cycle would not survive."""
    names = [module_name(path) for path in PATHS if path not in NOTEBOOKS]
    assert run_python(ALONE, *names).split() == names


LIGHT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*(name for name in ("torch", "transformers", "minigrid") if name in sys.modules))
"""


def test_what_needs_no_torch_loads_none():
    """Counts what is imported on the way too, which reading single files does not."""
    assert (
        run_python(LIGHT, "pipeline.config", "pipeline.records.metrics", "pipeline.command.files", "pipeline.tracking")
        == ""
    )
    assert run_python(LIGHT, "babyai.vector_env", "babyai.observations", "babyai.level_seeds") == "minigrid"
    assert run_python(LIGHT, "film.__main__", "film.contact_sheet") == "minigrid"
    assert run_python(LIGHT, "mixture_of_experts", "stateful_mop", "train") == "torch"
    assert "transformers" not in run_python(LIGHT, "pipeline.training.command")
