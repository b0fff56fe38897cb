"""Twin films: one level intact and with an expert taken out, of the knock-outs that matter most.

For each task, at the lowest price, the experts whose loss raises the cross-entropy most; of each the run and level on
which it does most: a level that is lost, if there is one, else the greatest rise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.workers import Link
from science.conditions import settings_of
from science.inputs import InputError, load_agents
from science.plan import Design
from science.store import Item, Store

if TYPE_CHECKING:
    from science.effects import Effects

SOURCES = ("science.films", "film", "pipeline.interventions")


def list_items(design: Design, only: Sequence[str]) -> list[Item]:
    """Return an item of films for each task."""
    if "knockouts" not in only or not design.config.films:
        return []
    settings = {"films": design.config.films, "seed": design.config.statistics.seed}
    found = []
    for task, setting in settings_of(design, "dial"):
        needs = [f"intervene/knockouts/P/{task}/{setting}"]
        needs += [f"train/{run.training}" for run in design.routed if (run.task, run.setting) == (task, setting)]
        found.append(Item(f"film/{task}/{setting}", settings, tuple(needs), SOURCES))
    return found


def make_films(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Film a task's most harmful knock-outs; notes have what each film shows."""
    from pipeline.command.devices import one_thread
    from pipeline.command.displays import draw_without_display
    from science.effects import read_effects

    draw_without_display()
    files = store.files(item.needs[0])
    if not files:
        raise InputError("expected effects of knock-outs on own play, found none: see what failed before")
    effects, made, films = read_effects(files[0]), [], []
    with one_thread():
        kept, agents, _ = load_agents(design, store, item)
        for condition, run, level_seed in choose(effects, design.config.films):
            link.heed()
            known = effects.conditions[condition]
            seed = effects.runs[run].seed
            place = next((i for i, other in enumerate(kept) if other.seed == seed), None)
            if place is None:
                continue
            name = f"{item.name.split('/')[1]}_layer_{known.layer}_expert_{known.expert}"
            path = design.folder / "films" / f"{name}.gif"
            text = f"layer {known.layer} without its expert of size {known.size}, seed {seed}, level {level_seed}"
            parting = film(design, kept[place], agents[place], known, level_seed, path)
            films.append([path.relative_to(design.folder).as_posix(), text + describe_parting(parting)])
            made.append(path)
    return made, {"films": films}


def describe_parting(step: int | None) -> str:
    """Return, in words, where two episodes part."""
    return ": the actions are the same" if step is None else f": they part at step {step}"


def choose(effects: Effects, most: int) -> list[tuple[int, int, int]]:
    """Return (condition, run, level seed) of the levels to be filmed, most harmful knock-outs first.

    Args:
        effects: On own play.
        most: Knock-outs, each of another expert.
    """
    import numpy as np

    change = effects.difference("ce")
    lost = effects.difference("success") < 0
    harm = []
    for index in effects.of_kind("knockout", renormalise=True):
        rows = np.flatnonzero((effects.condition == index) & (effects.group == -1) & np.isfinite(change))
        if effects.conditions[index].layer >= 0 and len(rows):
            worst = rows[np.lexsort((change[rows], lost[rows]))[-1]]
            harm.append((float(change[rows].mean()), index, int(effects.run[worst]), int(effects.level_seed[worst])))
    return [(index, run, seed) for _, index, run, seed in sorted(harm, reverse=True)[:most]]


def film(design: Design, run: Any, agent: Any, condition: Any, level_seed: int, path: Path) -> int | None:
    """Write a twin film of one level; return the step at which the two part."""
    from film.episodes import film_cached
    from film.twin import find_parting, make_twin
    from pipeline.evaluation.grid import evaluate_grid
    from pipeline.evaluation.play import PlaySettings
    from pipeline.interventions.places import Where
    from pipeline.interventions.spec import Intervention
    from pipeline.records.cache import Cache

    place = Where(experts=((condition.layer, condition.expert),))
    conditions = [Intervention(), Intervention(what="zero", where=place, renormalise=True)]
    config = run.config
    settings = PlaySettings(num_envs=2, max_steps=config.max_steps, record=True, lpc_exponent=config.lpc_exponent)
    played = evaluate_grid([agent], conditions, run.task, [level_seed], settings)[0]
    episodes = []
    for one, player in zip(
        played, ("intact", f"without expert {condition.expert} of layer {condition.layer}"), strict=True
    ):
        header = {"task_id": run.task, "max_steps": config.max_steps, "seed": run.seed}
        cache = Cache(path, header, one.metrics, one.episodes, one.routing)
        episodes.append(dataclasses.replace(film_cached(cache, 0, run.task), player=player))
    path.parent.mkdir(parents=True, exist_ok=True)
    make_twin(*episodes, path)
    return find_parting(*episodes)
