"""The stage that forces every path of a cell's policies, for the analyses that ask which complexity a step needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.command.files import replace_atomically
from pipeline.command.workers import Link
from science import inputs
from science.catalogue import ANALYSES
from science.plan import Design
from science.store import Item, Store

SOURCES = ("science.forcing", "science.forced", "science.npz", "pipeline.interventions", "pipeline.replay")


def list_items(design: Design, only: Sequence[str]) -> list[Item]:
    """Return an item for each task and setting, if an analysis asks for it."""
    if not any(ANALYSES[name].forced for name in only):
        return []
    settings = {"episodes": design.config.changed_episodes, "eval_seed": design.config.eval_seed}
    return [
        Item(f"force/{task}/{setting}", settings, tuple(f"train/{run.training}" for run in runs), SOURCES)
        for (task, setting), runs in inputs.cells(design).items()
    ]


def make_forced(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Force each path of a cell's policies for one step, at each step of the bot's trajectories."""
    from pipeline.command.devices import one_thread

    with one_thread():
        return _force(design, store, item, link)


def _force(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    from pipeline.replay.paths import force_paths, list_paths
    from pipeline.replay.run import replay
    from science.forced import write_forced

    list_paths(design.routed[0].config.expert_hidden_sizes)  # too many of them are refused before anything is played
    kept, agents, missing = inputs.load_agents(design, store, item)
    runs = [inputs.traced(run, store.read(f"train/{run.training}").notes.get("update", -1)) for run in kept]
    way = inputs.follow_levels(design, item.name.split("/")[1], design.config.changed_episodes)
    link.heed()
    intact = replay(agents, way, bank=True, lpc_exponent=design.runs[0].config.lpc_exponent)
    link.heed()
    table = tabulate(intact, force_paths(intact), runs)
    path = inputs.item_path(design, item)
    with replace_atomically(path) as temporary:
        write_forced(temporary, table)
    return [path], {"missing": missing, "levels_replaced": len(way.unsolvable)}


def tabulate(intact: Any, forced: Any, runs: Sequence[Any]) -> Any:
    """Return what analyses read, of `pipeline.replay.run.Intact` and `pipeline.replay.paths.ForcedPaths`."""
    import numpy as np

    from babyai.facts import SUBGOAL_NAMES
    from science.forced import Forced

    way = intact.way
    largest = [layer.argmax(dim=-1).numpy() for layer in intact.weights]
    return Forced(
        runs=tuple(runs),
        sizes=tuple(tuple(int(size) for size in layer) for layer in intact.sizes),
        subgoals=tuple(SUBGOAL_NAMES),
        paths=forced.paths,
        cost=forced.cost,
        level_seed=np.asarray(way.level_seeds, np.int64),
        episode=np.asarray(way.episode, np.int32),
        time=np.asarray(way.t_step, np.int32),
        subgoal=np.asarray(way.steps["subgoal"], np.int16),
        position=np.asarray(way.steps["position"], np.int16),
        bot_action=np.asarray(way.steps["expert_action"], np.int8),
        action=forced.action,
        ce=forced.ce,
        soft_action=intact.logits.argmax(dim=-1).numpy().astype(np.int8),
        used=intact.lpc.numpy(),
        likeliest=np.ravel_multi_index(largest, [len(layer) for layer in intact.sizes]).astype(np.int16),
    )
