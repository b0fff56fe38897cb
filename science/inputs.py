"""What analyses read: traces of own play and of replay, and effects of interventions, one file for each task and price.

Runs that could not be trained or evaluated are left out here; analyses count them by the notes of these items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.errors import MISTAKES, UserError, explain
from pipeline.command.files import replace_atomically
from pipeline.command.workers import Link
from science.plan import Design, Run
from science.store import Item, Store

if TYPE_CHECKING:
    from science.traces import Run as TracedRun
    from science.traces import Traces

UNTRAINED = "untrained"
"""Setting of policies as they are before training."""

DONORS = 64
"""Levels of which means and stand-ins are taken; none is scored."""

SLOTS = 256
"""Environments of each policy side by side."""

MANY = 128
"""Conditions beyond which policies are changed one after the other."""

TRACE_SOURCES = ("science.traces", "science.reading", "science.npz")
REPLAY_SOURCES = (*TRACE_SOURCES, "science.inputs", "pipeline.interventions", "pipeline.replay")
OBSERVATION_SOURCES = ("science.observations", "science.npz", "pipeline.replay.trajectories")
EFFECT_SOURCES = (
    *(
        "science.inputs",
        "science.conditions",
        "science.coalitions",
        "pipeline.interventions",
        "pipeline.replay",
        "pipeline.records.effects",
    ),
    *("pipeline.evaluation.grid", "pipeline.evaluation.effects"),
)
ERASURE_SOURCES = ("science.erasures", "science.states", "science.probing")
"""Of erasures besides."""


class InputError(UserError):
    """Nothing is left of which an item could be made; the message says what is missing."""


def cells(design: Design) -> dict[tuple[str, str], list[Run]]:
    """Return the routed runs of each task and setting."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in design.routed:
        found.setdefault((run.task, run.setting), []).append(run)
    return found


def runs_of(design: Design, item: Item) -> list[Run]:
    """Return the runs of the cell that an item is of."""
    task, setting = item.name.split("/")[-2:]
    return cells(design)[task, setting]


def traced(run: Run, update: int = -1) -> TracedRun:
    """Return a run as traces and tables name it."""
    from science.traces import Run as TracedRun

    return TracedRun(run.task, run.setting, run.config.trial, run.seed, update, run.alpha or 0.0)


def item_path(design: Design, item: Item, ending: str = ".npz") -> Path:
    """Return where an item's file is."""
    return design.work / Path(item.name.replace("=", "_") + ending)


def make_played(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Gather the own play of a cell's runs."""
    from science.reading import read_caches, write_traces

    entries, missing = [], {}
    for run in runs_of(design, item):
        files = store.files(f"evaluate/{run.name}")
        if files:
            update = store.read(f"train/{run.training}").notes.get("update", -1)
            entries.append((traced(run, update), files[0]))
        else:
            missing[run.name] = "was not evaluated"
    if not entries:
        raise InputError("expected one evaluated run at least, found none")
    traces, unread = read_caches(entries, source="P")
    path = item_path(design, item)
    with replace_atomically(path) as temporary:
        write_traces(temporary, traces)
    return [path], {"missing": {**missing, **unread}}


def make_replay(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Feed a cell's policies, or untrained ones, the bot's trajectories."""
    from pipeline.command.devices import one_thread

    with one_thread():
        return _replay(design, store, item, link)


def _replay(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    from pipeline.replay.run import replay
    from pipeline.replay.tables import build_tables, hash_observations
    from science.reading import Played, build_traces, write_traces
    from science.traces import Run as TracedRun

    task, setting = item.name.split("/")[1:]
    if setting == UNTRAINED:
        runs, agents, missing = [], build_untrained(design, task), {}
        runs = [TracedRun(task, UNTRAINED, 0, seed, 0) for seed in design.config.seeds]
    else:
        kept, agents, missing = load_agents(design, store, item)
        runs = [traced(run, store.read(f"train/{run.training}").notes.get("update", -1)) for run in kept]
    link.heed()
    way = follow_levels(design, task, design.config.episodes)
    intact = replay(agents, way, lpc_exponent=design.runs[0].config.lpc_exponent)
    link.heed()
    beside = {"observation": hash_observations(way), "unlabelled": way.unlabelled_episodes}
    played = [Played(run, *build_tables(intact, place), **beside) for place, run in enumerate(runs)]
    path = item_path(design, item)
    with replace_atomically(path) as temporary:
        write_traces(temporary, build_traces(played, source="R"))
    return [path], {"missing": missing, "levels_replaced": len(way.unsolvable)}


def make_observations(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Keep what the replayed steps of a task show, which is the same for all of its runs."""
    from science.observations import observe, write_observations

    link.heed()
    way = follow_levels(design, item.name.partition("/")[2], design.config.episodes)
    path = item_path(design, item)
    with replace_atomically(path) as temporary:
        write_observations(temporary, observe(way))
    return [path], {}


def follow_levels(design: Design, task: str, count: int) -> Any:
    """Return the bot's way through the first levels that it can solve: those that `pipeline.evaluation` plays.

    Raises:
        ExpertError: If it solves next to none.
    """
    from babyai.errors import ExpertError
    from babyai.level_seeds import evaluation_seeds
    from pipeline.replay.trajectories import follow_expert

    seed, taken = scored_seed(design), count
    while True:
        way = follow_expert(task, evaluation_seeds(seed, taken), max_steps=design.runs[0].config.max_steps)
        missing = count - len(way.level_seeds)
        if missing <= 0:
            return way
        taken += missing
        if taken > 20 * count + 1000:
            raise ExpertError(f"{task}: the expert solves {count - missing} of {taken} levels; choose another task")


def scored_seed(design: Design) -> int:
    """Return which list of levels is scored."""
    from babyai.level_seeds import EVALUATION_SEED

    return EVALUATION_SEED if design.config.eval_seed is None else design.config.eval_seed


def follow_donors(design: Design, task: str) -> Any:
    """Return the bot's way through levels that are not scored: for means, stand-ins and other missions."""
    from babyai.level_seeds import evaluation_seeds
    from pipeline.replay.trajectories import follow_expert

    scored = set(evaluation_seeds(scored_seed(design), 4 * design.config.episodes + DONORS))
    seeds = [seed for seed in evaluation_seeds(scored_seed(design) + 1, 2 * DONORS) if seed not in scored][:DONORS]
    return follow_expert(task, seeds, max_steps=design.runs[0].config.max_steps)


def load_agents(design: Design, store: Store, item: Item) -> tuple[list[Run], list[Any], dict[str, str]]:
    """Return the runs of a cell whose checkpoint can be used, their policies, and why others are left out.

    Raises:
        InputError: If there is none.
    """
    from pipeline.evaluation.checkpoint import load_checkpoint

    kept, agents, missing = [], [], {}
    for run in runs_of(design, item):
        if not store.files(f"train/{run.training}"):
            missing[run.name] = "has no checkpoint"
            continue
        try:
            agent = load_checkpoint(run.checkpoint).agent(run.task)
        except MISTAKES as error:
            missing[run.name] = explain(error)
            continue
        kept.append(run)
        agents.append(agent)
    if not kept:
        raise InputError("expected one checkpoint at least, found none: " + "; ".join(missing.values()))
    return kept, [(policy, agents[0][1], projection) for policy, _, projection in agents], missing


def build_untrained(design: Design, task: str) -> list[Any]:
    """Return the policies of a task's seeds as they are before training."""
    from babyai.missions import build_mission_encoder
    from pipeline.policies import build_policy, build_projection, fix_level

    runs = [run for run in design.routed if run.task == task and run.alpha == design.routed[0].alpha]
    encoder = build_mission_encoder(runs[0].config.lang_encoder, announce=lambda line: None)
    policies = [fix_level(build_policy(run.config).eval(), run.config, task) for run in runs]
    return [
        (policy, encoder, build_projection(run.config, encoder.width))
        for policy, run in zip(policies, runs, strict=True)
    ]


def make_effects(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Change a cell's policies in all ways of a family, on replay or on their own play."""
    from pipeline.command.devices import one_thread

    with one_thread():
        return _intervene(design, store, item, link)


def _intervene(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    from pipeline.records.effects import write_effects
    from science.conditions import build_conditions

    _, family, source, task, _ = item.name.split("/")
    kept, agents, missing = load_agents(design, store, item)
    runs = [describe_run(run, store) for run in kept]
    way = follow_levels(design, task, design.config.changed_episodes)
    link.heed()
    if family == "transplants":
        table = _transplant(design, agents, runs, task, way, link)
    elif family == "erasures":
        from science.erasures import erase

        first, seed = design.routed[0].config, design.config.statistics.seed
        table = erase(agents, runs, way, follow_donors(design, task), seed, first.lpc_exponent)
    else:
        first, seed = design.routed[0].config, design.config.statistics.seed
        conditions = build_conditions(family, source, first.expert_hidden_sizes, seed, first.lpc_exponent)
        table = _change(design, agents, runs, way, conditions, source, link)
    path = item_path(design, item)
    write_effects(path, table)
    return [path], {"missing": missing, "levels_replaced": len(way.unsolvable)}


def describe_run(run: Run, store: Store) -> dict[str, Any]:
    """Return what tables of effects tell of a run."""
    return dataclasses.asdict(traced(run, store.read(f"train/{run.training}").notes.get("update", -1)))


def _change(
    design: Design, agents: Sequence[Any], runs: list[dict[str, Any]], way: Any, conditions: list[Any], source: str,
    link: Link,
) -> Any:  # fmt: skip
    """Return the effects of conditions that all policies share."""
    from pipeline.evaluation.effects import tabulate
    from pipeline.evaluation.grid import evaluate_grid
    from pipeline.evaluation.play import PlaySettings
    from pipeline.interventions.spec import Intervention
    from pipeline.replay.run import find_donors, intervene, replay
    from pipeline.replay.tables import build_effect_table

    first = design.routed[0].config
    donors = None
    if any(condition.needs_donors for condition in conditions):
        donating = follow_donors(design, way.task_id)
        donors = find_donors(agents, donating)
        if len(donating.missions) < 2:  # there is no other mission
            conditions = [condition for condition in conditions if condition.what != "swap_mission"]
        link.heed()
    if source == "R":
        intact = replay(agents, way, lpc_exponent=first.lpc_exponent)
        link.heed()
        if len(conditions) > MANY:  # a policy at a time, for memory
            return _change_each(design, agents, runs, way, conditions, link)
        return build_effect_table(intact, intervene(intact, conditions, donors=donors), runs)
    if not any(condition.is_sham for condition in conditions):
        conditions = [Intervention(), *conditions]
    settings = PlaySettings(num_envs=SLOTS, max_steps=first.max_steps, record=False, lpc_exponent=first.lpc_exponent)
    seeds = way.level_seeds.tolist()
    played = evaluate_grid(agents, conditions, way.task_id, seeds, settings, donors=donors, progress=link.heed)
    return tabulate(played, runs, way.task_id)


def _change_each(
    design: Design, agents: Sequence[Any], runs: list[dict[str, Any]], way: Any, conditions: list[Any], link: Link
) -> Any:
    """Return the effects of many conditions that need no donors, policy by policy."""
    from pipeline.records.effects import EffectTable
    from pipeline.replay.run import intervene, replay
    from pipeline.replay.tables import build_effect_table

    tables = []
    for agent, run in zip(agents, runs, strict=True):
        link.heed()
        intact = replay([agent], way, lpc_exponent=design.routed[0].config.lpc_exponent)
        tables.append(build_effect_table(intact, intervene(intact, conditions), [run]))
    return EffectTable.concatenate(tables)


def _transplant(
    design: Design, agents: Sequence[Any], runs: list[dict[str, Any]], task: str, way: Any, link: Link
) -> Any:
    """Return the effects of clamping each policy's weights to means by subgoal, which differ by policy."""
    import numpy as np

    from babyai.facts import SUBGOAL_NAMES
    from pipeline.records.effects import EffectTable
    from pipeline.replay.run import find_donors, intervene, replay
    from pipeline.replay.tables import build_effect_table
    from science.conditions import build_transplants

    donating = follow_donors(design, task)
    donors = find_donors(agents, donating)
    present = np.intersect1d(np.unique(donating.steps["subgoal"]), np.unique(way.steps["subgoal"]))
    present = present[present >= 0]
    means = [layer[:, present].cpu().numpy() for layer in donors.mean_weights]
    names = [SUBGOAL_NAMES[code] for code in present]
    tables = []
    for place, agent in enumerate(agents):
        link.heed()
        intact = replay([agent], way, lpc_exponent=design.routed[0].config.lpc_exponent)
        conditions = build_transplants(means, place, names, design.config.statistics.seed)
        tables.append(build_effect_table(intact, intervene(intact, conditions), [runs[place]]))
        for condition in tables[-1].header["conditions"]:
            condition.pop("to", None)  # each run's own: the names are the same for all
    return EffectTable.concatenate(tables)


def read_all(store: Store, names: Sequence[str]) -> Traces | None:
    """Return the traces of several items as one, None if none was made."""
    from science.reading import read_traces
    from science.traces import Traces

    files = [path for name in names for path in store.files(name)]
    return Traces.concatenate([read_traces(path) for path in files]) if files else None
