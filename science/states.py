"""States of routers and experts at replayed steps, cut to what probes see; and policies without what probes read.

A state is that before a step, which holds what the policy remembers of all steps before. Steps at which an episode
begins, where there is none, are left out.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.command.files import replace_atomically
from pipeline.command.workers import Link
from science import inputs
from science.observations import observe
from science.plan import Design
from science.probing import WIDTH, Target, choose_steps, draw_projection, find_directions, list_targets, project
from science.store import Item, Store
from science.traces import Run, TraceError

if TYPE_CHECKING:
    from pipeline.interventions.donors import Subspace
    from pipeline.records.effects import EffectTable

STEPS = 1000
"""Steps of a task that probes are trained and scored on; drawn once, the same for all runs."""

RANDOM = 2
"""Random subspaces beside each one that a probe reads."""

PLACES = ("routers", "experts")
SOURCES = (*inputs.REPLAY_SOURCES, "science.observations", "science.probing", "science.states")
_ARRAYS = ("level_seed", "episode", "chosen", "observation", "observation_full")


@dataclass(frozen=True, eq=False)
class States:
    """What R runs of one task and setting had in mind at n of S replayed steps in N episodes.

    Attributes:
        runs: Whose.
        level_seed: int64 (N,).
        episode: int32 (S,).
        chosen: int64 (n,), the steps that probes see.
        targets: By name, of all S steps.
        sources: By name float32 (R, n, D): weights, routers, and each expert as (layer, expert) in `experts`.
        experts: Name of an expert's source -> layer and expert.
        observation: float32 (n, D), observation and mission, cut as the sources are.
        observation_full: uint8 (n, F), not cut.
    """

    runs: tuple[Run, ...]
    level_seed: np.ndarray
    episode: np.ndarray
    chosen: np.ndarray
    targets: Mapping[str, Target]
    sources: Mapping[str, np.ndarray]
    experts: Mapping[str, tuple[int, int]]
    observation: np.ndarray
    observation_full: np.ndarray


def list_items(design: Design) -> list[Item]:
    """Return the items of states, one for each task and setting."""
    config = design.config
    settings = {"episodes": config.episodes, "eval_seed": config.eval_seed, "seed": config.statistics.seed}
    return [
        Item(f"states/{task}/{setting}", settings, tuple(f"train/{run.name}" for run in runs), SOURCES)
        for (task, setting), runs in inputs.cells(design).items()
    ]


def make_states(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Keep the states of a cell's runs."""
    from pipeline.command.devices import one_thread

    with one_thread():
        kept, agents, missing = inputs.load_agents(design, store, item)
        runs = tuple(inputs.traced(run, store.read(f"train/{run.name}").notes.get("update", -1)) for run in kept)
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


# ------------------------------------------------------------------------------------------------------------- erasures


def list_conditions(names: Sequence[str]) -> list[Any]:
    """Return the sham, and of each target and place what removes what a probe reads, and as much at random."""
    from pipeline.interventions.spec import Intervention

    found = [Intervention()]
    for name in names:
        for place in PLACES:
            label = f"{name} of {place}"
            found.append(Intervention(what="project", subspace=label, name=label, label="erasure"))
            for number in range(1, RANDOM + 1):
                text = f"random {number} for {label}"
                found.append(Intervention(what="project", subspace=text, name=text, label="random_erasure"))
    return found


def erase(
    agents: Sequence[Any], runs: list[dict[str, Any]], way: Any, donating: Any, seed: int, exponent: float
) -> EffectTable:
    """Return what it does to policies that their states no longer tell what a probe reads off them.

    Args:
        agents: Policies.
        runs: What is told of each.
        way: Levels that are scored.
        donating: Levels on which probes are trained; none of them is scored.
        seed: Of projections and random subspaces.
        exponent: An expert costs size^exponent.
    """
    from pipeline.replay.run import find_donors, intervene, replay
    from pipeline.replay.tables import build_effect_table

    targets = list_targets(donating.steps, donating.episode)
    donors = find_donors(agents, donating)
    donors = dataclasses.replace(donors, subspaces=find_subspaces(agents, donating, targets, seed))
    intact = replay(agents, way, lpc_exponent=exponent)
    return build_effect_table(intact, intervene(intact, list_conditions(list(targets)), donors=donors), runs)


def find_subspaces(agents: Sequence[Any], way: Any, targets: Mapping[str, Target], seed: int) -> dict[str, Subspace]:
    """Return by condition the subspaces of each policy's states that probes read, and random ones of equal rank."""
    import torch

    from pipeline.interventions.donors import Subspace
    from pipeline.replay.run import replay

    later = np.flatnonzero(way.t_step > 0)
    chosen = later[choose_steps(way.episode[later], STEPS, seed)]
    means: list[np.ndarray] = []
    bases: dict[str, list[np.ndarray]] = {}
    for number, agent in enumerate(agents):
        bank = replay([agent], way, bank=True).bank
        cells = [cell[0, chosen].cpu().numpy() for layer in bank for cell in layer]
        place = np.repeat(
            [i for layer in bank for i in range(len(layer))], [cell.shape[1] for cell in cells]
        )  # 0: of a router, 1: of experts
        state = np.concatenate(cells, axis=1)
        means.append(state.mean(axis=0))
        for name, target in targets.items():
            for which, where in enumerate(PLACES):
                label, units = f"{name} of {where}", np.flatnonzero(place == which)
                rng = np.random.default_rng([seed, number, which, list(targets).index(name)])
                read = _read(state[:, units], target.codes[chosen], where, seed)
                centered = state[:, units] - state[:, units].mean(axis=0)
                drawn = [centered.T @ rng.normal(size=(len(centered), read.shape[1])) for _ in range(RANDOM)]
                for text, columns in zip([label, *(f"random {n + 1} for {label}" for n in range(RANDOM))],
                                         [read, *drawn], strict=True):  # fmt: skip
                    basis = np.zeros((state.shape[1], read.shape[1]))
                    basis[units] = _span(columns)
                    bases.setdefault(text, []).append(basis)
    like = next(agents[0][0].parameters())
    mean = torch.from_numpy(np.stack(means)).to(like.device)
    return {text: Subspace(mean, torch.from_numpy(np.stack(each)).to(like.device)) for text, each in bases.items()}


def _read(state: np.ndarray, codes: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Return the directions (U, C - 1) of a state that a probe of its projection reads."""
    classes = int(codes.max(initial=-1)) + 1
    if not state.shape[1] or len(np.unique(codes[codes >= 0])) < 2:
        return np.zeros((state.shape[1], max(classes - 1, 1)))
    if state.shape[1] <= WIDTH:
        read = find_directions(state, codes)
    else:
        down = draw_projection(state.shape[1], name, seed)
        read = down @ find_directions(state @ down, codes)
    return np.column_stack([read, np.zeros((len(read), max(classes - 1 - read.shape[1], 0)))])


def _span(columns: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span the same; zeros in place of those that add nothing."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept = np.where(sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-12), 1.0, 0.0)
    found = np.zeros_like(columns)
    found[:, : left.shape[1]] = left * kept
    return found


# ---------------------------------------------------------------------------------------------------------------- files


def write_states(path: str | Path, states: States) -> None:
    """Write states as .npz, without pickles."""
    header = {
        "runs": [dataclasses.asdict(run) for run in states.runs],
        "targets": {name: target.names for name, target in states.targets.items()},
        "sources": list(states.sources),
        "experts": states.experts,
    }
    arrays = {name: getattr(states, name) for name in _ARRAYS}
    arrays |= {f"target_{name}": target.codes for name, target in states.targets.items()}
    arrays |= {f"source_{number}": values for number, values in enumerate(states.sources.values())}
    with Path(path).open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def read_states(path: str | Path) -> States:
    """Return what `write_states` wrote.

    Raises:
        TraceError: If the file cannot be read or is not what it should be.
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            targets = {n: Target(file[f"target_{n}"], tuple(names)) for n, names in header["targets"].items()}
            sources = {name: file[f"source_{number}"] for number, name in enumerate(header["sources"])}
            return States(
                runs=tuple(Run(**run) for run in header["runs"]),
                targets=targets,
                sources=sources,
                experts={name: tuple(place) for name, place in header["experts"].items()},
                **{name: file[name] for name in _ARRAYS},
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TraceError(f"{path}: expected states, .npz, found: {error}; make them again") from None
