"""The analyses of a study, by name: what they are called, where they are, what they find. Imports nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.command.errors import ConfigError


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        title: In the report.
        module: That has `compute` and the definition, its docstring.
        quantities: Each with what an axis says of it, unit included.
        untrained: Whether it compares with policies as they are before training.
        conditions: Whether it needs interventions.
        evaluations: Whether it needs each run's evaluation, the baselines' included.
    """

    title: str
    module: str
    quantities: Mapping[str, str]
    untrained: bool = False
    conditions: bool = False
    evaluations: bool = False


ANALYSES: Mapping[str, Analysis] = {
    "pathways": Analysis(
        "Consistency of pathways between seeds",
        "science.pathways",
        {"consistency": "consistency (correlation of centred group means)"},
    ),
}


def find_quantity(name: str) -> str:
    """Return what an axis says of `analysis.quantity`.

    Raises:
        ConfigError: If there is no such quantity; the known ones are listed.
    """
    analysis, dot, quantity = name.partition(".")
    known = [f"{a}.{q}" for a, entry in ANALYSES.items() for q in entry.quantities]
    if not dot or analysis not in ANALYSES or quantity not in ANALYSES[analysis].quantities:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"claim: expected analysis.quantity, found {name!r}; {hint}known are {', '.join(known)}")
    return ANALYSES[analysis].quantities[quantity]
