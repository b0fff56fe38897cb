"""Which interventions the analyses ask for, in families; each family is made by itself, on replay (R) or own play (P).

knockouts     each expert: silent (zero), silent with the others' weights summing to 1, its mean over other levels,
              its output of another level (resample); the control, a random direction of the same length; the sham
thresholds    weights below tau removed, and as many at random
transplants   weights clamped to mean weights by subgoal: the run's own, another run's, the own shuffled
dial          weights turned by exp(-lambda cost), of the policies of the lowest price
lesions       the largest expert of each layer out, all at once; the smallest that are no skip
inputs        no memory; the mission of another level
coalitions    every set of experts that are no skip silent; each alone with the others' weights summing to 1 besides
erasures      without what a probe reads off the states, and without as much at random (`science.erasures`)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.command.errors import ConfigError
from science.catalogue import ANALYSES
from science.coalitions import list_players, name_without
from science.plan import Design, path_experts
from science.probing import TARGETS
from science.states import PLACES

if TYPE_CHECKING:
    from pipeline.interventions.spec import Intervention

TAUS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
"""Thresholds; 0 is the intact policy."""

TURNS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Strengths of the dial, lambda times the cost of the largest expert."""

SHUFFLES = 3
"""Shuffled transplants of each run."""

RANDOM = 2
"""Random subspaces beside each one that a probe reads."""

OTHERS = 3
"""Other runs of which each run gets the weights, at most."""


def list_families(design: Design, only: Sequence[str]) -> list[tuple[str, str]]:
    """Return the families that some analyses need, each with R or P, in order."""
    return sorted({family for name in only for family in ANALYSES[name].conditions})


def settings_of(design: Design, family: str) -> list[tuple[str, str]]:
    """Return the cells, task and setting, on which a family is made."""
    cells = list(dict.fromkeys((run.task, run.setting) for run in design.routed))
    if family != "dial":
        return cells
    lowest = min(run.alpha for run in design.routed)
    free = {run.setting for run in design.routed if run.alpha == lowest}
    return [cell for cell in cells if cell[1] in free]


def build_conditions(
    family: str, source: str, sizes: Sequence[Sequence[int]], seed: int, exponent: float = 2.0
) -> list[Intervention]:
    """Return the conditions of a family that all policies share; none of the transplants, which differ.

    Args:
        family: See the module.
        source: R or P; on own play, which costs more, stand-ins of the same policy are left out.
        sizes: Hidden sizes of the experts, per layer.
        seed: Of what is drawn.
        exponent: An expert costs size^exponent; of the dial.

    Raises:
        ConfigError: If there are too many coalitions.
        ValueError: If there is no such family.
    """
    from pipeline.interventions.catalogue import build_dial, list_knockouts
    from pipeline.interventions.spec import Intervention

    if family == "knockouts":
        found = [Intervention(), *list_knockouts(sizes), *list_knockouts(sizes, renormalise=True)]
        found += list_knockouts(sizes, what="random_direction", seed=seed)
        if source == "R":
            found += [*list_knockouts(sizes, what="mean"), *list_knockouts(sizes, what="resample", seed=seed)]
        return found
    if family == "thresholds":
        whats = (("threshold", "tau", {}), ("random_drop", "random tau", {"seed": seed}))
        return [
            Intervention(what=what, amount=tau, name=f"{name} {tau:g}", **more)
            for what, name, more in whats
            for tau in TAUS
        ]
    if family == "dial":
        return [build_dial(turn, sizes, exponent) for turn in TURNS]
    if family == "lesions":
        return build_lesions(sizes)
    if family == "inputs":
        return [
            Intervention(),
            Intervention(state="zero", name="no memory"),
            Intervention(what="swap_mission", seed=seed, name="mission of another level"),
        ]
    if family == "coalitions":
        return build_coalitions(sizes)
    raise ValueError(f"family: expected knockouts, thresholds, dial, lesions, inputs or coalitions, found {family!r}")


def build_coalitions(sizes: Sequence[Sequence[int]]) -> list[Intervention]:
    """Return the sham, every set of experts that are no skip silenced, and each alone with the weights made up for.

    Raises:
        ConfigError: If there are too many.
    """
    from pipeline.interventions.places import Where
    from pipeline.interventions.spec import Intervention

    try:
        players = list_players(sizes)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    found = [Intervention()]
    for count in range(1, len(players) + 1):
        for gone in itertools.combinations(players, count):
            about = {"name": name_without(gone), "label": "coalition"}
            found.append(Intervention(what="zero", where=Where(experts=gone), **about))
    return found + [Intervention(what="zero", where=Where(experts=(one,)), renormalise=True) for one in players]


def build_lesions(sizes: Sequence[Sequence[int]]) -> list[Intervention]:
    """Return lesions of the largest expert of each layer and of the smallest, the other weights made to sum to 1.

    The smallest are left out where they are the largest. A layer of a single expert keeps it.
    """
    from pipeline.interventions.places import Where
    from pipeline.interventions.spec import Intervention

    found = {}
    for path in ("largest", "smallest"):
        chosen = enumerate(path_experts(sizes, path))
        found[path] = tuple((layer, expert) for layer, expert in chosen if len(sizes[layer]) > 1)
    return [
        Intervention(
            what="zero", where=Where(experts=experts), renormalise=True, name=f"{path} out", label=f"lesion_{path}"
        )
        for path, experts in found.items()
        if experts and (path == "largest" or experts != found["largest"])
    ]


def build_transplants(means: Sequence[np.ndarray], run: int, subgoals: Sequence[str], seed: int) -> list[Intervention]:
    """Return the transplants into one run.

    Args:
        means: Per layer (R, X, E), mean weights by subgoal of each run, over levels that are not scored.
        run: The one that gets them.
        subgoals: X names.
        seed: Of the shuffles.
    """
    from pipeline.interventions.spec import Intervention

    def clamp(source: int, order: np.ndarray, name: str, label: str) -> Intervention:
        to = {
            subgoal: [(layer[source, order[x]] / layer[source, order[x]].sum()).tolist() for layer in means]
            for x, subgoal in enumerate(subgoals)
        }
        return Intervention(what="clamp", to=to, name=name, label=label)

    runs, x = len(means[0]), np.arange(len(subgoals))
    found = [Intervention(), clamp(run, x, "own weights", "transplant_own")]
    for step in range(1, min(runs, OTHERS + 1)):
        found.append(clamp((run + step) % runs, x, f"weights of another run {step}", "transplant_other"))
    rng = np.random.default_rng([seed, run])
    for number in range(SHUFFLES if len(x) > 1 else 0):
        order = rng.permutation(x)
        while (order == x).all():
            order = rng.permutation(x)
        found.append(clamp(run, order, f"own weights shuffled {number + 1}", "transplant_shuffled"))
    return found


def build_erasures(names: Sequence[str]) -> list[Intervention]:
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


def count_conditions(design: Design) -> dict[tuple[str, str], int]:
    """Return how many conditions each family has that the study's analyses need."""
    sizes = design.routed[0].config.expert_hidden_sizes
    counts = {}
    for family, source in list_families(design, design.config.analyses):
        if family == "transplants":
            counts[family, source] = 2 + min(len(design.config.seeds) - 1, OTHERS) + SHUFFLES
            continue
        if family == "erasures":
            counts[family, source] = len(build_erasures(TARGETS))
            continue
        try:
            counts[family, source] = len(build_conditions(family, source, sizes, 0))
        except ConfigError:  # too many coalitions: that item fails and says so
            counts[family, source] = 0
    return counts
