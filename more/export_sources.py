"""The code of an exported model: the project's own files with their imports made relative, so that it needs no project.

    collect_sources()["modeling_more.py"]           # file name -> text, all that `modeling_more` needs

The mathematics has one home; what is exported are copies of it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ENTRANCES = ("more.exported.configuration_more", "more.exported.modeling_more")
OWN = re.compile(r"^from (more(?:\.exported)?|mixture_of_experts)(?:\.(\w+))? import ", re.MULTILINE)


def collect_sources() -> dict[str, str]:
    """Return the text of each file of code by its name in the folder, the entrances and all that they import."""
    waiting, found = list(ENTRANCES), {}
    while waiting:
        module = waiting.pop()
        if (name := name_file(module)) in found:
            continue
        text = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        waiting += list_own_imports(text)
        origin = f"{module.replace('.', '/')}.py of {describe_version()}"
        found[name] = f"# {origin}, imports made relative by more/export.py\n{make_relative(text)}"
    return dict(sorted(found.items()))


def name_file(module: str) -> str:
    """Return the name in the folder of a module's copy: `more.layer` is more_layer.py, entrances keep theirs."""
    return f"{module.removeprefix('more.exported.').replace('.', '_')}.py"


def list_own_imports(text: str) -> list[str]:
    """Return the modules of the project that a source imports, wherever the import stands."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return [node.module for node in nodes if node.module.split(".")[0] in ("more", "mixture_of_experts")]


def make_relative(text: str) -> str:
    """Return a source whose imports of the project's modules are of files beside it."""

    def replace(match: re.Match[str]) -> str:
        return f"from .{name_file('.'.join(filter(None, match.groups()))).removesuffix('.py')} import "

    return OWN.sub(replace, text)


def describe_version() -> str:
    """Return the project's name and version."""
    try:
        return f"rl-mop {version('rl-mop')}"
    except PackageNotFoundError:  # a clone that is not installed
        return "rl-mop"
