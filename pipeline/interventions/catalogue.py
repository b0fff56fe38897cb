"""Sets of interventions that a study asks for, and what tables say of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.interventions.places import Where
from pipeline.interventions.spec import Intervention


def list_knockouts(
    sizes: Sequence[Sequence[int]], *, what: str = "zero", renormalise: bool | None = None, **settings: Any
) -> list[Intervention]:
    """Return an intervention for each expert of each layer.

    Args:
        sizes: Expert sizes per layer.
        what: What becomes of an expert's output; random_direction for the control.
        renormalise: With zero, whether the other weights sum to 1 again.
        settings: Further fields of `Intervention`.
    """
    places = [(layer, expert) for layer, row in enumerate(sizes) for expert in range(len(row))]
    return [
        Intervention(what=what, where=Where(experts=(place,)), renormalise=renormalise, **settings) for place in places
    ]


def build_dial(
    strength: float, sizes: Sequence[Sequence[int]], exponent: float = 2.0, *, name: str = "lambda {:.3g}"
) -> Intervention:
    """Return weights turned by exp(-lambda cost), lambda the strength divided by the cost of the largest expert.

    Args:
        strength: At least 0, which changes nothing; 1 divides the largest expert's weight against the skip's by e.
        sizes: Hidden sizes of the experts, per layer.
        exponent: An expert costs size^exponent.
        name: Of it, with a place for lambda.
    """
    largest = max((size for layer in sizes for size in layer), default=0)
    amount = strength / (float(largest) ** exponent if largest else 1.0)
    return Intervention(what="dial", amount=amount, exponent=exponent, name=name.format(amount))


def describe_conditions(interventions: Sequence[Intervention], sizes: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return what tables say of each condition: `to_dict`, and kind, layer, expert, size, control_of.

    `layer` and `expert` are those of the only expert named, else None; `size` is its hidden size, or the size named;
    `control_of` is the name of what a condition is the control of: random_direction of zero (not renormalised) at the
    same place, time and state, random_drop of threshold with the same tau.
    """
    found = []
    for item in interventions:
        named = item.where.experts
        layer, expert = named[0] if named is not None and len(named) == 1 else (None, None)
        size = item.where.size if layer is None else sizes[layer][expert]
        place = {"kind": item.kind, "layer": layer, "expert": expert, "size": size}
        found.append(item.to_dict() | place | {"control_of": _find_controlled(item, interventions)})
    return found


def _find_controlled(control: Intervention, interventions: Sequence[Intervention]) -> str | None:
    pairs = {"random_direction": "zero", "random_drop": "threshold"}
    for item in interventions:
        alike = all(getattr(item, name) == getattr(control, name) for name in ("where", "when", "state", "amount"))
        same = (item.what == "zero" and not item.renormalise) or item.renormalise == control.renormalise
        if pairs.get(control.what) == item.what and alike and same:
            return item.name
    return None
