"""The stages of a study after training and evaluation: which items each has, and what makes them.

played      P traces: what each run's routers did while it played the fixed levels
replay      R traces: what they do on the bot's trajectories of the same levels; of untrained policies too
observe     what the steps of these trajectories show
force       what every single path would do at each step, for each analysis that asks for it
grown       what runs did while they trained: routing, success, knock-outs at some updates
states      of the routers and experts, at some of the replayed steps
intervene   effects of changing the policies, for each analysis that asks for any
film        twin films of the knock-outs that matter most
calibrate   the design itself, on noise and on planted effects
analyse     a table of tidy rows for each analysis
draw        its figures
report      claims.csv, report.html, report.md, study.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.command.workers import Link
from science import adapting, card, films, forcing, gathering, growth, inputs, outputs
from science.catalogue import ANALYSES
from science.conditions import list_families, settings_of
from science.plan import Design
from science.store import Item, Store

Made = tuple[list[Path], dict[str, Any]]
"""Files, and notes for whoever comes after."""


@dataclass(frozen=True)
class Stage:
    """Items of one kind, none of which needs another.

    Attributes:
        name: Of it, and the first part of its items' names.
        items: Returns all items, fresh or not.
        make: Makes one.
    """

    name: str
    items: Callable[[Design, Sequence[str]], list[Item]]
    make: Callable[[Design, Store, Item, Link], Made]


def _played(design: Design, only: Sequence[str]) -> list[Item]:
    return [
        Item(f"played/{task}/{setting}", {}, tuple(f"evaluate/{run.name}" for run in runs), inputs.TRACE_SOURCES)
        for (task, setting), runs in inputs.cells(design).items()
    ]


def _replay(design: Design, only: Sequence[str]) -> list[Item]:
    settings = {"episodes": design.config.episodes, "eval_seed": design.config.eval_seed}
    found = [
        Item(
            f"replay/{task}/{setting}", settings, tuple(f"train/{run.training}" for run in runs), inputs.REPLAY_SOURCES
        )
        for (task, setting), runs in inputs.cells(design).items()
    ]
    if any(ANALYSES[name].untrained for name in only):
        untrained = {**settings, "train": design.config.train, "seeds": design.config.seeds}
        if design.config.mixture is not None:  # what policies are told of a level is its place among them
            untrained["levels"] = list(design.config.tasks)
        found += [
            Item(f"replay/{task}/{inputs.UNTRAINED}", untrained, (), inputs.REPLAY_SOURCES) for task in design.tasks
        ]
    return found


def _observe(design: Design, only: Sequence[str]) -> list[Item]:
    if not any(ANALYSES[name].observations for name in only):
        return []
    config = design.config
    settings = {
        "episodes": config.episodes,
        "eval_seed": config.eval_seed,
        "max_steps": design.runs[0].config.max_steps,
    }
    return [Item(f"observe/{task}", settings, (), inputs.OBSERVATION_SOURCES) for task in design.tasks]


def _grown(design: Design, only: Sequence[str]) -> list[Item]:
    return growth.list_items(design) if any(ANALYSES[name].grown for name in only) else []


def _states(design: Design, only: Sequence[str]) -> list[Item]:
    return gathering.list_items(design) if any(ANALYSES[name].states for name in only) else []


def _intervene(design: Design, only: Sequence[str]) -> list[Item]:
    config = design.config
    settings = {"episodes": config.changed_episodes, "eval_seed": config.eval_seed, "seed": config.statistics.seed}
    cells, found = inputs.cells(design), []
    for family, source in list_families(design, only):
        for task, setting in settings_of(design, family):
            needs = tuple(f"train/{run.training}" for run in cells[task, setting])
            sources = inputs.EFFECT_SOURCES + (inputs.ERASURE_SOURCES if family == "erasures" else ())
            found.append(Item(f"intervene/{family}/{source}/{task}/{setting}", settings, needs, sources))
    return found


def _analyse(design: Design, only: Sequence[str]) -> list[Item]:
    cells = list(inputs.cells(design))
    found = []
    for name in only:
        entry = ANALYSES[name]
        needs = [f"{kind}/{task}/{setting}" for kind in ("replay", "played") for task, setting in cells]
        if entry.untrained:
            needs += [f"replay/{task}/{inputs.UNTRAINED}" for task in design.tasks]
        if entry.observations:
            needs += [f"observe/{task}" for task in design.tasks]
        for family, source in entry.conditions:
            needs += [f"intervene/{family}/{source}/{t}/{s}" for t, s in settings_of(design, family)]
        if entry.forced:
            needs += [f"force/{task}/{setting}" for task, setting in cells]
        if entry.learners:
            needs += [f"train/{run.name}" for run in design.learners]
        if entry.grown:
            needs += [item.name for item in growth.list_items(design)]
        if entry.states:
            needs += [item.name for item in gathering.list_items(design)]
        if entry.adapted:
            needs += [item.name for item in adapting.list_items(design)]
        if entry.evaluations:
            needs += [f"evaluate/{run.name}" for run in design.runs]
        statistics = design.config.to_dict()["statistics"]
        settings = {"draws": statistics["draws"], "seed": statistics["seed"]}
        if entry.learners and design.learners:
            settings["learned"] = design.config.difficulty_baselines.success
        if entry.adapted and design.adapted:
            settings["learned"] = design.config.transfer.success
        if design.held_out:
            settings["held_out"] = list(design.held_out)
        found.append(Item(f"analyse/{name}", settings, tuple(needs), (entry.module, *outputs.ANALYSIS_SOURCES)))
    return found


def _calibrate(design: Design, only: Sequence[str]) -> list[Item]:
    statistics = design.config.to_dict()["statistics"]
    settings = {name: statistics[name] for name in ("calibration", "seed")}
    settings["levels"] = [len(design.tasks) - len(design.held_out), len(design.held_out), len(design.new_levels)]
    # The first task's traces stand for the design: their runs, levels and lengths.
    needs = tuple(f"replay/{task}/{setting}" for task, setting in inputs.cells(design) if task == design.tasks[0])
    return [Item(f"calibrate/{claim}", settings, needs, card.SOURCES) for claim in card.list_cases(only)]


def _draw(design: Design, only: Sequence[str]) -> list[Item]:
    cases = tuple(f"calibrate/{claim}" for claim in card.list_cases(design.config.analyses))
    found = [Item(f"draw/{name}", {}, (f"analyse/{name}",), outputs.FIGURE_SOURCES) for name in only]
    return [*found, Item("draw/calibration", {}, cases, (*outputs.FIGURE_SOURCES, "science.card"))]


STAGES = (
    Stage("played", _played, inputs.make_played),
    Stage("replay", _replay, inputs.make_replay),
    Stage("observe", _observe, inputs.make_observations),
    Stage("force", forcing.list_items, forcing.make_forced),
    Stage("grown", _grown, growth.make_grown),
    Stage("states", _states, gathering.make_states),
    Stage("intervene", _intervene, inputs.make_effects),
    Stage("film", films.list_items, films.make_films),
    Stage("calibrate", _calibrate, card.make_case),
    Stage("analyse", _analyse, outputs.make_table),
    Stage("draw", _draw, outputs.make_figures),
)


def find_stage(name: str) -> Stage:
    """Return the stage of a name."""
    return next(stage for stage in STAGES if stage.name == name)
