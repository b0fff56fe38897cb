"""The analyses of a study, by name: what they are called, where they are, what they need. Imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.command.errors import ConfigError, suggest


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        title: In the report.
        module: That has `compute`, `QUANTITIES`, and the definition, its docstring.
        conditions: Families of interventions that it reads, each with R or P (`science.conditions`).
        untrained: Whether it compares with policies as they are before training.
        evaluations: Whether it reads each run's evaluation, the baselines' included.
        observations: Whether it reads what the replayed steps show.
        forced: Whether it reads what each single path would do.
        learners: Whether it reads how long dense networks need to learn each task.
        grown: Whether it reads what runs did while they trained.
        states: Whether it reads the states of routers and experts.
        adapted: Whether it reads how long policies need to learn new levels.
    """

    title: str
    module: str
    conditions: tuple[tuple[str, str], ...] = ()
    untrained: bool = False
    evaluations: bool = False
    observations: bool = False
    forced: bool = False
    learners: bool = False
    grown: bool = False
    states: bool = False
    adapted: bool = False

    @property
    def quantities(self) -> Mapping[str, str]:
        """Each quantity with what an axis says of it."""
        return importlib.import_module(self.module).QUANTITIES


ANALYSES: Mapping[str, Analysis] = {
    "pathways": Analysis(
        "Consistency of pathways between seeds", "science.pathways", (("transplants", "R"),), untrained=True
    ),
    "distinctness": Analysis("Distinctness of pathways", "science.distinctness", (("knockouts", "R"),)),
    "sufficiency": Analysis("Self-sufficiency of pathways", "science.sufficiency", (("thresholds", "P"),)),
    "knockouts": Analysis(
        "Knock-outs, and the audit of the usage map", "science.knockouts", (("knockouts", "R"), ("knockouts", "P"))
    ),
    "price": Analysis(
        "What a price of complexity does",
        "science.price",
        (("knockouts", "R"), ("dial", "P")),
        evaluations=True,
    ),
    "complexity": Analysis("Policy complexity", "science.complexity", (("inputs", "R"),), observations=True),
    "needed": Analysis("Needed against used complexity", "science.needed", forced=True),
    "shapley": Analysis("Exact Shapley values of experts", "science.shapley", (("coalitions", "R"),)),
    "difficulty": Analysis(
        "Difficulty and complexity", "science.difficulty", (("lesions", "R"),), untrained=True, learners=True
    ),
    "similarity": Analysis(
        "Similarity of levels, and held-out ones", "science.similarity", (("knockouts", "R"),), untrained=True
    ),
    "transfer": Analysis("Transfer to new levels", "science.transfer", adapted=True),
    "dynamics": Analysis("Dynamics of training", "science.dynamics", grown=True),
    "probes": Analysis("What states tell: probes", "science.probes", (("erasures", "R"),), states=True),
}
"""In the order of the report."""


def find_quantity(name: str) -> str:
    """Return what an axis says of `analysis.quantity`.

    Raises:
        ConfigError: If there is no such quantity; the known ones are listed.
    """
    analysis, _, quantity = name.partition(".")
    known = [f"{a}.{q}" for a, entry in ANALYSES.items() for q in entry.quantities]
    if name not in known:
        raise ConfigError(
            f"claim: expected analysis.quantity, of {', '.join(known)}, found {name!r}{suggest(name, known)}"
        )
    return ANALYSES[analysis].quantities[quantity]
