"""States of a study's runs, gathered on replay: their items of work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.command.files import replace_atomically
from pipeline.command.workers import Link
from science import inputs
from science.observations import observe
from science.plan import Design
from science.probing import choose_steps, list_targets, project
from science.states import STEPS, States, write_states
from science.store import Item, Store
from science.traces import Run

SOURCES = (*inputs.REPLAY_SOURCES, "science.observations", "science.probing", "science.states", "science.gathering")


def list_items(design: Design) -> list[Item]:
    """Return the items of states, one for each task and setting."""
    config = design.config
    settings = {"episodes": config.episodes, "eval_seed": config.eval_seed, "seed": config.statistics.seed}
    return [
        Item(f"states/{task}/{setting}", settings, tuple(f"train/{run.training}" for run in runs), SOURCES)
        for (task, setting), runs in inputs.cells(design).items()
    ]


def make_states(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Keep the states of a cell's runs."""
    from pipeline.command.devices import one_thread

    with one_thread():
        kept, agents, missing = inputs.load_agents(design, store, item)
        runs = tuple(inputs.traced(run, store.read(f"train/{run.training}").notes.get("update", -1)) for run in kept)
        link.heed()
        way = inputs.follow_levels(design, item.name.split("/")[1], design.config.episodes)
        found = gather(agents, runs, way, design.config.statistics.seed, link)
    path = inputs.item_path(design, item)
    with replace_atomically(path) as temporary:
        write_states(temporary, found)
    return [path], {"missing": missing}


def gather(agents: Sequence[Any], runs: tuple[Run, ...], way: Any, seed: int, link: Link | None = None) -> States:
    """Return the states of policies along trajectories."""
    from pipeline.replay.run import replay

    later = np.flatnonzero(way.t_step > 0)
    chosen = later[choose_steps(way.episode[later], STEPS, seed)]
    parts: dict[str, list[np.ndarray]] = {}
    experts: dict[str, tuple[int, int]] = {}
    for agent in agents:  # one by one: a bank of all steps of all runs would not fit
        if link is not None:
            link.heed()
        intact = replay([agent], way, bank=True)
        weights = np.concatenate([layer[0, chosen, :-1].numpy() for layer in intact.weights], axis=-1)
        routers = np.concatenate([cells[0][0, chosen].cpu().numpy() for cells in intact.bank], axis=-1)
        found = {"weights": weights, "routers": routers}
        for layer, (cells, sizes) in enumerate(zip(intact.bank, intact.sizes, strict=True)):
            begin = 0
            for expert, size in enumerate(sizes):
                if size:
                    name = f"expert {layer}.{expert}"
                    experts[name] = (layer, expert)
                    found[name] = cells[1][0, chosen, begin : begin + size].cpu().numpy()
                    begin += size
        for name, values in found.items():
            parts.setdefault(name, []).append(project(values, name, seed).astype(np.float32))
    seen = observe(way).encode()[chosen]
    return States(
        runs,
        np.asarray(way.level_seeds, np.int64),
        np.asarray(way.episode, np.int32),
        chosen,
        list_targets(way.steps, way.episode),
        {name: np.stack(values) for name, values in parts.items()},
        experts,
        project(seen, "observation", seed).astype(np.float32),
        seen.astype(np.uint8),
    )
