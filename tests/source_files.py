"""The project's own modules, for tests of what they import."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("babyai", "pipeline", "film", "maxent", "more", "plotting", "rlmop", "science", "benchmarks")
FILES = sorted([*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))])
PATHS = [path.relative_to(ROOT).as_posix() for path in FILES]
NOTEBOOKS = [p for p in PATHS if p in ("routing_viz.py", "cross_task_viz.py")]


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
