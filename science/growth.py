"""Runs while they train: checkpoints of some updates, spaced evenly on a logarithmic scale, and what they do.

grown/replay      routing on the bot's trajectories at each checkpoint
grown/played      success of each at its own play
grown/knockouts   what taking each expert out does on the trajectories, the others' weights made to sum to 1

Training keeps these checkpoints (`TrainConfig.checkpoint_updates`). Where they are missing, for the run was trained
before anyone asked or a file was deleted, it is trained again aside, up to the last one missing: the same weights, for
neither the number of updates nor what is saved decides them. Nothing that is there is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.files import replace_atomically
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.workers import Link
from pipeline.places import checkpoint_path, run_folder
from science import inputs
from science.plan import Design, Run
from science.runs import STEPS_OF_A_PROCESS, Failures, StoppedError, list_ready
from science.store import Item, Store

if TYPE_CHECKING:
    from pipeline.interventions.spec import Intervention
    from pipeline.records.effects import EffectTable

KINDS = ("replay", "played", "knockouts")

SOURCES = (*inputs.REPLAY_SOURCES, *inputs.EFFECT_SOURCES, "science.growth")


def grow_item(design: Design, run: Run) -> Item:
    """Return the item of a run's checkpoints on the way."""
    return Item(f"grow/{run.training}", {"updates": design.updates}, (f"train/{run.training}",))


def list_items(design: Design) -> list[Item]:
    """Return what is to be made of the checkpoints, for each task and setting."""
    config, found = design.config, []
    for (task, setting), runs in inputs.cells(design).items():
        needs = tuple(f"grow/{run.training}" for run in runs)
        for kind in KINDS:
            episodes = config.episodes if kind == "replay" else config.changed_episodes
            settings = {"episodes": episodes, "eval_seed": config.eval_seed, "updates": design.updates}
            found.append(Item(f"grown/{kind}/{task}/{setting}", settings, needs, SOURCES))
    return found


# ------------------------------------------------------------------------------------------------------------ training


def find_checkpoint(design: Design, run: Run, update: int) -> Path:
    """Return a run's checkpoint of an update: where it was trained, or else aside."""
    if update == run.config.num_updates:
        return run.checkpoint
    first = checkpoint_path(run_folder(run.config.checkpoint_dir, run.config), update)
    return (
        first if first.exists() else checkpoint_path(run_folder(_aside(design, run).checkpoint_dir, run.config), update)
    )


def _aside(design: Design, run: Run) -> Any:
    """Return the settings with which a run is trained again, up to the last checkpoint that is missing."""
    folder = run_folder(run.config.checkpoint_dir, run.config)
    missing = [u for u in design.updates[:-1] if not checkpoint_path(folder, u).exists()]
    return dataclasses.replace(
        run.config,
        checkpoint_dir=str(design.work / "aside" / "checkpoints"),
        log_dir=str(design.work / "aside" / "runs"),
        checkpoint_updates=missing,
        num_updates=max(missing, default=0) + 1,
    )


def grow_missing(
    design: Design, store: Store, jobs: int | None, say: Callable[[str], object], launcher: Launcher = HERE
) -> Failures:
    """See to it that each trained run has its checkpoints on the way, and stamp those that do.

    Args:
        design: Of the study.
        store: Of its stamps.
        jobs: Processes; elsewhere None is as many as there is room for.
        say: Takes a line.
        launcher: Where.

    Returns:
        Why others have not.

    Raises:
        StoppedError: If training was interrupted.
    """
    failures: Failures = {}
    routed = [run for run in design.trainings if run.alpha is not None]
    stale = list_ready(store, routed, lambda run: grow_item(design, run))
    able = [run for run in stale if _is_missing(design, run)]
    if able:
        say(f"train again, for checkpoints on the way: {len(able)} of {len(routed)} runs")
        _train_aside(design, able, jobs, failures, launcher)
    for run in stale:
        paths = [find_checkpoint(design, run, update) for update in design.updates]
        lost = [path for path in paths if not path.exists()]
        item = grow_item(design, run)
        if lost:
            failures.setdefault(item.name, f"{lost[0]}: expected a checkpoint, found none after training")
            store.forget(item)
        else:
            store.write(item, paths)
    return failures


def _is_missing(design: Design, run: Run) -> bool:
    return any(not find_checkpoint(design, run, update).exists() for update in design.updates)


def _train_aside(design: Design, runs: Sequence[Run], jobs: int | None, failures: Failures, launcher: Launcher) -> None:
    from pipeline.training.driver import train_runs
    from pipeline.training.options import Sweep

    again = [(_aside(design, run), run) for run in runs]

    def kind(entry: tuple[Any, Run]) -> tuple[str, list[int]]:
        return entry[1].config.run_name, entry[0].checkpoint_updates

    for _, members in groupby(sorted(again, key=kind), key=kind):
        configs = sorted((config for config, _ in members), key=lambda config: (config.trial, config.seed))
        steps = sum(config.num_updates * config.num_envs * config.unroll_len for config in configs)
        processes = min(jobs, 1 + steps // STEPS_OF_A_PROCESS) if launcher.is_local else jobs
        sweep = Sweep(tuple(configs), jobs=processes)
        try:
            with (design.work / "training.log").open("a", encoding="utf-8") as log, redirect_stdout(log):
                code = train_runs(sweep, overwrite=True, launcher=launcher, again=())
        except MISTAKES as error:
            failures |= {grow_item(design, run).name: explain(error) for config, run in again if config in configs}
            continue
        if code >= 128:
            raise StoppedError(code)


# -------------------------------------------------------------------------------------------------------------- making


def make_grown(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Make an item of `list_items`."""
    from pipeline.command.devices import one_thread

    make = _replay if item.name.split("/")[1] == "replay" else _change
    with one_thread():
        return make(design, store, item, link)


def load_grown(
    design: Design, store: Store, item: Item, missing: dict[str, str]
) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield of each update the runs, as traces name them, and their policies.

    Args:
        design: Of the study.
        store: Of it.
        item: Of a cell.
        missing: Gets why runs are left out.

    Raises:
        InputError: If there is no policy at all.
    """
    from pipeline.evaluation.checkpoint import load_checkpoint

    found_any = False
    for update in design.updates:
        runs, agents = [], []
        for run in inputs.runs_of(design, item):
            if not store.files(f"grow/{run.training}"):
                missing[run.name] = "has no checkpoints on the way"
                continue
            try:
                agent = load_checkpoint(find_checkpoint(design, run, update)).agent(run.task)
            except MISTAKES as error:
                missing[run.name] = explain(error)
                continue
            runs.append(inputs.traced(run, update))
            agents.append(agent)
        if runs:
            found_any = True
            yield runs, [(policy, agents[0][1], projection) for policy, _, projection in agents]
    if not found_any:
        raise inputs.InputError("expected one checkpoint at least, found none: " + "; ".join(missing.values()))


def _replay(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    from pipeline.replay.run import replay
    from pipeline.replay.tables import build_tables
    from science.reading import Played, build_traces, write_traces

    task, missing, played = item.name.split("/")[2], {}, []
    way = inputs.follow_levels(design, task, design.config.episodes)
    for runs, agents in load_grown(design, store, item, missing):
        link.heed()
        intact = replay(agents, way, lpc_exponent=design.runs[0].config.lpc_exponent)
        played += [Played(run, *build_tables(intact, place)) for place, run in enumerate(runs)]
    path = inputs.item_path(design, item)
    with replace_atomically(path) as temporary:
        write_traces(temporary, build_traces(played, source="R"))
    return [path], {"missing": missing}


def _change(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    from pipeline.interventions.catalogue import list_knockouts
    from pipeline.interventions.spec import Intervention
    from pipeline.records.effects import EffectTable, write_effects

    _, kind, task, _ = item.name.split("/")
    sizes, missing, tables = design.routed[0].config.expert_hidden_sizes, {}, []
    conditions = [Intervention()]
    conditions += list_knockouts(sizes, renormalise=True) if kind == "knockouts" else []
    way = inputs.follow_levels(design, task, design.config.changed_episodes)
    for runs, agents in load_grown(design, store, item, missing):
        link.heed()
        named = [dataclasses.asdict(run) for run in runs]
        make = _take_out if kind == "knockouts" else _play
        tables.append(make(design, agents, named, way, conditions, link))
    path = inputs.item_path(design, item)
    write_effects(path, EffectTable.concatenate(tables))
    return [path], {"missing": missing}


def _take_out(
    design: Design, agents: list[Any], runs: list[dict[str, Any]], way: Any, conditions: list[Intervention], link: Link
) -> EffectTable:
    from pipeline.replay.run import intervene, replay
    from pipeline.replay.tables import build_effect_table

    intact = replay(agents, way, lpc_exponent=design.runs[0].config.lpc_exponent)
    link.heed()
    return build_effect_table(intact, intervene(intact, conditions), runs)


def _play(
    design: Design, agents: list[Any], runs: list[dict[str, Any]], way: Any, conditions: list[Intervention], link: Link
) -> EffectTable:
    from pipeline.evaluation.effects import tabulate
    from pipeline.evaluation.grid import evaluate_grid
    from pipeline.evaluation.play import PlaySettings

    first = design.routed[0].config
    settings = PlaySettings(
        num_envs=inputs.SLOTS, max_steps=first.max_steps, record=False, lpc_exponent=first.lpc_exponent
    )
    seeds = way.level_seeds.tolist()
    played = evaluate_grid(agents, conditions, way.task_id, seeds, settings, progress=link.heed)
    return tabulate(played, runs, way.task_id)
