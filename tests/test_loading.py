"""Modules as they are loaded: each alone, and with what else comes along."""

import subprocess
import sys

import pytest

from tests.source_files import NOTEBOOKS, PATHS, ROOT, module_name


def run_python(program: str, *arguments: str, seconds: float = 120) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
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
    names = [module_name(path) for path in PATHS if path not in (*NOTEBOOKS, "modal_app.py")]  # modal need not be there
    assert run_python(ALONE, *names, seconds=600).split() == names  # half a minute on an idle machine


LIGHT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*(name for name in ("torch", "transformers", "minigrid") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (["pipeline.config", "pipeline.places", "pipeline.tracking", "pipeline.records.cache"], set()),
        (["plotting.views", "plotting_utils", "pipeline.command.shell", "pipeline.command.cli"], set()),
        (["babyai.facts", "babyai.observations", "babyai.level_seeds", "babyai.errors"], set()),
        (["babyai.vector_env", "film.contact_sheet", "film.command"], {"minigrid"}),
        (["pipeline.interventions.spec", "pipeline.interventions.catalogue", "pipeline.records.effects"], set()),
        (["pipeline.replay.trajectories"], {"minigrid"}),
        (["pipeline.what_if.choices", "pipeline.records.played", "plotting.what_if", "plotting.studies"], set()),
        (["mixture_of_experts", "stateful_mop", "train"], {"torch"}),
        (["pipeline.training.driver"], {"torch", "minigrid"}),
        (["rlmop.command", "rlmop.start", "rlmop.levels", "train_mop"], set()),
        (["pipeline.inspection.listing", "pipeline.inspection.comparison"], set()),
        (["maxent.registry", "maxent.rewards.result", "maxent.dts_implementation.search.maxent_ts"], set()),
        (["maxent.experiment", "maxent.run_experiments_with_wandb"], set()),
        (["science.calibration", "science.reading"], set()),
        (["science.study", "science.run", "science.outputs", "science.figures.draw", "science.report.pages"], set()),
        (["maxent.charts.drawing", "maxent.charts.command", "maxent.charts.tree_page"], set()),
        (["maxent.data.catalogue", "maxent.reward_checks", "maxent.evaluation.metrics.tree_metrics"], set()),
    ],
)
def test_no_module_loads_more_than_it_needs(modules, heavy):
    """Counts what is imported on the way too, which reading single files does not."""
    assert set(run_python(LIGHT, *modules).split()) <= heavy
