"""Who may import whom: the rules of direction, read from the source."""

import ast
import graphlib
import re
import sys

import pytest

from tests.source_files import NOTEBOOKS, PATHS, ROOT, module_name

SCRIPTS = {"train", "train_mop", "eval_mop", "batch_eval", "routing_viz", "cross_task_viz", "modal_app"}
MINIGRID = ("levels", "plain_facts", "plain_world", "render", "compiled/catalogue")


def find_nodes(source: str, *, lazy: bool = True) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports of a source.

    Args:
        source: Python text.
        lazy: Count imports within functions and `if __name__ == "__main__"` too.
    """
    found: list[ast.Import | ast.ImportFrom] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.append(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            assert all(alias.name != "*" for alias in node.names), f"import * in line {node.lineno}"
            found.append(node)
        runs_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        )
        if lazy or not runs_later:
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(source))
    return found


def find_imports(source: str, *, lazy: bool = True) -> set[str]:
    """Return the modules that a source imports, `a.b` for `from a.b import c`; see `find_nodes`."""
    nodes = find_nodes(source, lazy=lazy)
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def imports_of(path: str, *, lazy: bool = True) -> set[str]:
    return find_imports((ROOT / path).read_text(encoding="utf-8"), lazy=lazy)


def top(names: set[str]) -> set[str]:
    """Return the first part of each name, without the standard library."""
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


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


# ------------------------------------------------------------------------------------------------------------ rooms

SCRIPTS_ROOM = "scripts"
ROOMS: dict[str, set[str]] = {
    "mixture_of_experts": set(),
    "stateful_mop": {"mixture_of_experts"},
    "babyai": set(),
    "pipeline/command": {"babyai"},
    "pipeline/launch": {"pipeline/command"},
    "pipeline/mixtures": {"pipeline/command"},
    "pipeline/parts": {"pipeline/command"},
    "pipeline/config": {"pipeline/command", "pipeline/mixtures", "pipeline/parts"},
    "pipeline/places": {"pipeline/command"},
    "pipeline/tracking": {"pipeline/command", "pipeline/mixtures"},
    "pipeline/guard": {"pipeline/command", "pipeline/tracking"},
    "pipeline/baseline": {"mixture_of_experts"},
    "pipeline/policies": {
        *("babyai", "mixture_of_experts", "stateful_mop"),
        *("pipeline/baseline", "pipeline/command", "pipeline/config"),
    },
    "pipeline/plain_objects": set(),
    "pipeline/checkpoint_files": {"pipeline/command", "pipeline/plain_objects"},
    "pipeline/migration": {"babyai", "pipeline/config", "pipeline/plain_objects"},
    "pipeline/checkpoints": {"pipeline/checkpoint_files", "pipeline/config", "pipeline/migration", "pipeline/policies"},
    "pipeline/records": {"babyai", "pipeline/command", "pipeline/config", "pipeline/mixtures", "pipeline/places"},
    "pipeline/engine": {"babyai", "mixture_of_experts", "pipeline/parts", "stateful_mop"},
    "pipeline/interventions": {"babyai", "pipeline/command", "pipeline/engine"},
    "pipeline/evaluation": {
        *("babyai", "mixture_of_experts", "pipeline/checkpoints", "pipeline/command", "pipeline/config"),
        *("pipeline/engine", "pipeline/interventions", "pipeline/mixtures", "pipeline/places", "pipeline/policies"),
        *("pipeline/launch", "pipeline/records"),
    },
    "pipeline/replay": {
        *("babyai", "mixture_of_experts", "pipeline/command", "pipeline/engine", "pipeline/interventions"),
        "pipeline/records",
    },
    "pipeline/what_if": {
        *("babyai", "pipeline/command", "pipeline/evaluation", "pipeline/interventions", "pipeline/records"),
        "pipeline/replay",
    },
    "pipeline/training": {
        *("babyai", "mixture_of_experts", "pipeline/checkpoint_files", "pipeline/checkpoints", "pipeline/command"),
        *("pipeline/config", "pipeline/engine", "pipeline/evaluation", "pipeline/guard", "pipeline/launch"),
        *("pipeline/mixtures", "pipeline/places", "pipeline/policies", "pipeline/records", "pipeline/tracking"),
    },
    "science/statistics": {"pipeline/records"},
    "plotting": {
        *(
            "babyai",
            "pipeline/command",
            "pipeline/config",
            "pipeline/mixtures",
            "pipeline/places",
            "pipeline/records",
            "pipeline/tracking",
        ),
        "science/statistics",
    },
    "science": {
        *("babyai", "film", "pipeline/checkpoints", "pipeline/command", "pipeline/config", "pipeline/evaluation"),
        *("pipeline/guard", "pipeline/launch", "pipeline/mixtures"),
        *(
            "pipeline/interventions",
            "pipeline/parts",
            "pipeline/places",
            "pipeline/policies",
            "pipeline/records",
            "pipeline/replay",
        ),
        *("pipeline/tracking", "pipeline/training", "plotting", "science/statistics"),
    },
    "pipeline/inspection": {
        *("pipeline/checkpoints", "pipeline/command", "pipeline/config", "pipeline/guard", "pipeline/places"),
        *("pipeline/mixtures", "pipeline/records", "pipeline/tracking"),
    },
    "film": {
        *("babyai", "pipeline/command", "pipeline/config", "pipeline/evaluation", "pipeline/records", "plotting"),
    },
    "more": {
        *("mixture_of_experts", "pipeline/checkpoint_files", "pipeline/command", "pipeline/config", "pipeline/guard"),
        *("pipeline/launch", "pipeline/records", "pipeline/tracking", "plotting"),
    },
    "maxent/registry": set(),
    "maxent/data": {"pipeline/command"},
    "maxent/rewards": {"maxent/data"},
    "maxent/dts_implementation/models": {
        *("babyai", "maxent/data", "maxent/registry", "maxent/rewards", "mixture_of_experts", "more"),
        *("pipeline/command", "pipeline/engine", "pipeline/evaluation"),
    },
    "maxent/dts_implementation/search": {"maxent/dts_implementation/models", "maxent/rewards"},
    "maxent/evaluation": {"maxent/data", "maxent/dts_implementation/search"},
    "maxent/reward_checks": {
        *("maxent/data", "maxent/dts_implementation/models", "maxent/dts_implementation/search", "maxent/evaluation"),
        *("maxent/loading", "maxent/rewards", "pipeline/command"),
    },
    "maxent/test_reward_monotonicity": {"maxent/reward_checks"},
    "maxent/settings": {
        *("maxent/dts_implementation/models", "maxent/dts_implementation/search", "maxent/registry"),
        "pipeline/command",
    },
    "maxent/threads": set(),
    "maxent/stand_ins": {"maxent/data", "maxent/dts_implementation/models", "maxent/settings", "pipeline/command"},
    "maxent/levels": {"babyai", "maxent/data"},
    "maxent/questions": {
        *("maxent/data", "maxent/dts_implementation/models", "maxent/levels", "maxent/settings", "pipeline/command"),
    },
    "maxent/loading": {
        *("maxent/data", "maxent/dts_implementation/models", "maxent/registry", "maxent/settings", "maxent/stand_ins"),
        *("maxent/threads", "pipeline/checkpoint_files", "pipeline/command"),
    },
    "maxent/results": {
        *("maxent/data", "maxent/dts_implementation/search", "maxent/evaluation", "maxent/registry", "maxent/settings"),
        "pipeline/command",
    },
    "maxent/metrics": {
        *("maxent/dts_implementation/search", "maxent/results", "maxent/settings", "pipeline/tracking"),
    },
    "maxent/comparison": {"maxent/evaluation"},
    "maxent/trees": {"maxent/dts_implementation/search", "pipeline/command"},
    "maxent/charts": {"maxent/evaluation", "maxent/results", "maxent/trees", "pipeline/command", "plotting"},
    "maxent/pictures": {"maxent/charts", "maxent/dts_implementation/search", "maxent/trees", "pipeline/command"},
    "maxent/answers": {"maxent/data", "maxent/dts_implementation/search", "maxent/evaluation"},
    "maxent/experiment": {
        *("maxent/answers", "maxent/comparison", "maxent/data", "maxent/dts_implementation/search"),
        *("maxent/loading", "maxent/metrics", "maxent/pictures", "maxent/questions", "maxent/results"),
        *("maxent/elsewhere", "maxent/rewards", "maxent/settings", "maxent/threads", "pipeline/command"),
    },
    "maxent/elsewhere": {
        *("maxent/results", "maxent/settings", "maxent/stand_ins", "pipeline/command", "pipeline/launch"),
    },
    "maxent/run_experiments_with_wandb": {"maxent/experiment", "maxent/registry"},
    SCRIPTS_ROOM: {
        *("babyai", "film", "pipeline/baseline", "pipeline/command", "pipeline/evaluation", "pipeline/launch"),
        *(
            "pipeline/mixtures",
            "pipeline/places",
            "pipeline/records",
            "pipeline/training",
            "pipeline/what_if",
            "plotting",
        ),
    },
    "rlmop": {"babyai", "film", "pipeline/command", "pipeline/inspection", "plotting", "science", SCRIPTS_ROOM},
}
"""Which rooms a room may look into; a room is a folder, or a module that stands by itself. docs/architecture.md."""

FOLDERS = {room for room in ROOMS if (ROOT / room).is_dir()}
LIGHT_ROOMS = (
    *("pipeline/command", "pipeline/launch", "pipeline/mixtures", "pipeline/config", "pipeline/places"),
    "pipeline/records",
    *("science/statistics", "science", "plotting"),
    *("maxent/registry", "maxent/data", "maxent/rewards", "maxent/evaluation", "maxent/dts_implementation/search"),
    *("maxent/settings", "maxent/answers", "maxent/questions", "maxent/levels", "maxent/stand_ins", "maxent/results"),
    *("maxent/metrics", "maxent/comparison", "maxent/experiment", "maxent/trees", "maxent/charts", "maxent/pictures"),
    "maxent/run_experiments_with_wandb",
)
HEAVY = {"torch", "transformers", "minigrid", "gymnasium"}


def room_of(name: str) -> str:
    """Return the room of a module, "benchmarks" for those, which may look everywhere."""
    path = name.replace(".", "/")
    for room in ROOMS:
        if path == room or (room in FOLDERS and path.startswith(f"{room}/")):
            return room
    return "benchmarks" if path.startswith("benchmarks") else SCRIPTS_ROOM


def modules_of(path: str, *, lazy: bool = True) -> set[str]:
    """Return the modules of this project that one imports, `a.b.c` for `from a.b import c` where that is a module."""
    found: set[str] = set()
    for node in find_nodes((ROOT / path).read_text(encoding="utf-8"), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & NAMES) or {node.module}
    return found & NAMES


NAMES = {module_name(path) for path in PATHS}
GRAPH = {module_name(path): modules_of(path) - {module_name(path)} for path in PATHS}
"""Module -> modules; imports within functions count."""


def test_rooms_look_in_one_direction():
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name, imported in GRAPH.items():
        if (room := room_of(name)) != "benchmarks":
            found[room] |= {room_of(other) for other in imported} - {room}
    assert {room: others - ROOMS[room] for room, others in found.items() if others - ROOMS[room]} == {}
    assert {room: ROOMS[room] - others for room, others in found.items() if ROOMS[room] - others} == {}  # nothing idle
    tuple(graphlib.TopologicalSorter(ROOMS).static_order())  # raises CycleError


def test_no_module_imports_itself_in_the_end():
    assert GRAPH["pipeline.engine.packed"] >= {"mixture_of_experts", "stateful_mop"}  # edges are seen
    tuple(graphlib.TopologicalSorter(GRAPH).static_order())  # raises CycleError


def test_nobody_imports_a_script_but_notebooks_benchmarks_the_one_command_and_containers():
    found = {
        (name, other)
        for name, imported in GRAPH.items()
        for other in imported
        if other in SCRIPTS and room_of(name) not in ("benchmarks", "rlmop")
    }
    assert {pair for pair in found if f"{pair[0]}.py" not in (*NOTEBOOKS, "modal_app.py")} == set()


@pytest.mark.parametrize(
    ("package", "adapters"), [("more", {"maxent.dts_implementation.models.more_model"}), ("maxent", set())]
)
def test_nothing_but_benchmarks_imports_the_language_models_and_their_search(package, adapters):
    assert {name for name, imported in GRAPH.items() if any(o.startswith(f"{package}.") for o in imported)} - {
        name for name in NAMES if name.startswith((f"{package}.", "benchmarks"))
    } == adapters


ANALYSES = {
    *("agreement", "calibration", "cases", "complexity", "distinctness", "effects", "exchange", "feedforward"),
    *("fronts", "knockouts", "observations", "pathways", "planted_effects", "planted_fronts", "price", "profiles"),
    *("difficulty", "kinship", "levels", "planted_levels", "reading", "result", "similarity", "sufficiency"),
    *("dynamics", "handover", "planted_training", "probes", "probing", "rises", "states", "training_cases"),
    *("synthetic", "traces"),
    *("coalitions", "credit_consistency", "credit_rankings", "forced", "games", "needed", "npz", "planted_forced"),
    *("arms", "planted_transfer", "shapley", "transfer"),
}
"""Modules of `science/` that are pure functions of arrays."""

_BELOW = ("babyai.facts", "pipeline.records.", "science.statistics.")


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_analyses_are_functions_of_records(name):
    path = f"science/{name}.py"
    imported = {module for module in imports_of(path) if not module.startswith("babyai.facts")}  # the codes' names
    assert top(imported) <= {
        "numpy",
        "scipy",
        "statsmodels",
        "sklearn",
        "threadpoolctl",
        "pandas",
        "pipeline",
        "science",
    }
    own = {f"science.{other}" for other in ANALYSES}
    others = {o for o in GRAPH[f"science.{name}"] if not o.startswith(_BELOW)}
    assert others <= own


def test_nobody_imports_the_science_but_its_statistics():
    rooms = {room_of(name) for name, imported in GRAPH.items() for o in imported if room_of(o) == "science"}
    assert rooms <= {"science", "benchmarks", "rlmop"}


def test_one_adapter_alone_knows_the_world_and_its_policies():
    models = {name for name in NAMES if room_of(name) == "maxent/dts_implementation/models"}
    world = ("babyai.", "pipeline.engine.", "pipeline.evaluation.", "mixture_of_experts")
    knowing = {name for name in models if any(other.startswith(world) for other in GRAPH[name])}
    assert knowing == {"maxent.dts_implementation.models.babyai_policy"}


# --------------------------------------------------------------------------------------------------------- the map

MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def find_mapped(text: str) -> list[str]:
    """Return the modules that the first columns of a map's tables name, each as often as it is named.

    They lie in the folder of the title, that of a smaller title in the one above it; or in the one that begins a cell.
    """
    found, above = [], ""
    for section in re.split(r"^(?=###? )", text, flags=re.MULTILINE):
        title, _, body = section.partition("\n")
        if (match := re.search(r"`([a-z_/]+)/`", title)) is None:
            continue
        folder = match[1] if title.startswith(("## ", f"### `{above}/")) else f"{above}/{match[1]}"
        above = folder if title.startswith("## ") else above
        for cell in re.findall(r"^\| (`.*?) \| ", body, re.MULTILINE):
            inner = re.match(r"`([a-z]+)/`: ", cell)
            place = folder if inner is None else inner[1] if (ROOT / inner[1]).is_dir() else f"{folder}/{inner[1]}"
            found += [f"{place}/{name}.py" for name in re.findall(r"`(\w+)`", cell)]
    return found


def test_tables_of_the_map_are_read():
    text = "# Title\n| `no` | |\n## `a/b/` and `c/`\n| `d`, `e` | x `f` |\n| `film/`: `g` | |\n"
    text += "### `h/`: i\n| `j` | |\n| `k/`: `l` | |\n### `a/b/m/`\n| `n` | |\n"
    assert find_mapped(text) == ["a/b/d.py", "a/b/e.py", "film/g.py", "a/b/h/j.py", "a/b/h/k/l.py", "a/b/m/n.py"]


def test_every_module_is_in_the_map_once():
    """In the table of its room; what stands by itself in the one of rooms."""
    cells = re.findall(r"^\| (`.*?) \| ", MAP.partition("\n## Rooms")[2].partition("\n## ")[0], re.MULTILINE)
    alone = [name for cell in cells for name in re.findall(r"`([\w/{},]+)\.py`", cell)]
    spread = [name.partition("{") for name in alone]
    alone = [f"{head}{name}.py" for head, _, tail in spread for name in tail.rstrip("}").split(",")]
    found = [*find_mapped(MAP), *alone]
    assert sorted({name for name in found if found.count(name) > 1}) == []
    kept = [path for path in PATHS if not path.endswith(("__init__.py", "__main__.py"))]
    scripts = {f"{name}.py" for name in (*SCRIPTS, "plotting_utils")}
    expected = {path for path in kept if not path.startswith("benchmarks/")} - scripts
    assert set(found) - expected == set()
    assert expected - set(found) == set()


# ------------------------------------------------------------------------------------------- what comes from elsewhere


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("mixture_of_experts.py", {"torch"}),
        ("stateful_mop.py", {"torch", "mixture_of_experts"}),
        ("train_mop.py", {"pipeline"}),
        ("train.py", {"pipeline"}),
        (
            "rlmop/command.py",
            {"pipeline", "plotting", "film", "rlmop", "science", *sorted(SCRIPTS - {"routing_viz", "cross_task_viz"})},
        ),
        ("pipeline/config.py", {"yaml", "pipeline"}),
        ("pipeline/places.py", {"pipeline"}),
        ("pipeline/command/files.py", set()),
        ("pipeline/command/errors.py", {"babyai"}),
        ("pipeline/training/losses.py", {"torch", "mixture_of_experts"}),
        ("babyai/facts.py", {"numpy"}),
        ("babyai/errors.py", set()),
        ("babyai/observations.py", {"numpy", "babyai"}),
        ("babyai/vector_env.py", {"numpy", "babyai"}),
        ("more/config.py", set()),
        ("more/model.py", {"torch", "mixture_of_experts", "more"}),
        ("more/exported/configuration_more.py", {"transformers", "more"}),
        ("more/exported/modeling_more.py", {"torch", "transformers", "more"}),
        ("maxent/registry.py", set()),
        ("maxent/rewards/result.py", set()),
        *((path, {"numpy", "maxent", "pipeline", "pyarrow"}) for path in PATHS if path.startswith("maxent/data/")),
        *((path, {"numpy", "maxent", "scipy"}) for path in PATHS if path.startswith("maxent/rewards/")),
        *((path, {"numpy", "maxent", "scipy"}) for path in PATHS if path.startswith("maxent/evaluation/")),
        ("maxent/dts_implementation/models/sequence_model.py", {"numpy"}),
        ("maxent/dts_implementation/models/network.py", {"numpy", "torch"}),
        ("maxent/dts_implementation/models/packed_cache.py", {"numpy", "torch", "transformers", "maxent"}),
        ("maxent/dts_implementation/models/pytorch_hf_wrapper.py", {"numpy", "torch", "transformers", "maxent"}),
        ("maxent/dts_implementation/models/more_model.py", {"numpy", "torch", "more", "maxent"}),
        *((path, {"numpy", "maxent"}) for path in PATHS if path.startswith("maxent/dts_implementation/search/")),
    ],
)
def test_module_imports_no_more_than_it_may(path, allowed):
    assert top(imports_of(path)) <= allowed


def importers(*names: str) -> set[str]:
    return {p for p in PATHS if not p.startswith("benchmarks/") and top(imports_of(p)) & set(names)}


@pytest.mark.parametrize("path", [p for p in PATHS if room_of(module_name(p)) in LIGHT_ROOMS])
def test_analysis_runs_without_torch_and_environments(path):
    allowed = {"torch"} if path == "pipeline/command/devices.py" else set()
    assert top(imports_of(path)) & HEAVY <= allowed


def test_notebooks_import_torch_and_environments_lazily_if_at_all():
    assert [path for path in NOTEBOOKS if top(imports_of(path, lazy=False)) & HEAVY] == []


def test_minigrid_stays_behind_the_border_of_the_world():
    """Nothing outside sees the objects of an environment."""
    assert importers("minigrid", "gymnasium") == {f"babyai/{name}.py" for name in MINIGRID}


def test_torch_enters_the_world_with_the_encoders_only():
    world = {path for path in importers("torch") if path.startswith("babyai/")}
    assert world == {"babyai/missions.py", "babyai/huggingface_encoder.py", "babyai/torch_defaults.py"}


def test_slow_and_optional_packages_are_imported_where_they_are_used():
    """Importing transformers takes seconds; wandb and tensorboard need not be installed."""
    for path in PATHS:
        at_import = imports_of(path, lazy=False)
        late = {"transformers", "huggingface_hub", "wandb", "tensorboard", "scipy", "imageio_ffmpeg", "pyarrow"}
        late |= {"statsmodels", "sklearn", "jinja2", "ray", "submitit"}
        late -= {"transformers"} if path.startswith("more/exported/") else set()  # which opens these files itself
        assert not top(at_import) & late, path
        assert "torch.utils.tensorboard" not in at_import, path


def test_paths_have_one_grammar():
    """Nobody but `pipeline.places` spells the names of runs' folders, checkpoints and caches; prose may."""
    for path in PATHS:
        if path == "pipeline/places.py" or room_of(module_name(path)) in ("more", "benchmarks"):
            continue
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in prose]
        spelled = [
            t
            for t in texts
            if isinstance(t, str) and re.search(r"^(trial_|seed_|checkpoint_(final|\*))|_data\.json$", t)
        ]
        assert spelled == [], path


def test_packages_have_empty_inits():
    assert [p for p in PATHS if p.endswith("__init__.py") and (ROOT / p).read_text()] == []
