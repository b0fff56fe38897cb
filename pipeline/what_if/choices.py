"""Which changes of a policy can be chosen, as controls have them: the dial's strengths, experts to knock out. Light.

places = list_places([[0, 16, 32]])                      # {"layer 0, expert 2 (size 32)": Where(...), ...}
build_dial(1.0, sizes)                                   # a complexity dial
build_knockout("layer 0, expert 2 (size 32)", "mean", sizes)
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.interventions import catalogue
from pipeline.interventions.places import Where, choose, refuse
from pipeline.interventions.spec import Intervention

STRENGTHS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""Of the dial: lambda times the cost of the largest expert, so that 1 divides its weight against the skip's by e."""

WAYS = {"zero": "silent (0)", "mean": "its mean over other levels", "skip": "its input passed on"}
"""What becomes of an expert's output, by `Intervention.what`."""


def build_dial(strength: float, sizes: Sequence[Sequence[int]], exponent: float = 2.0) -> Intervention:
    """Return `pipeline.interventions.catalogue.build_dial` under the name that figures give it."""
    return catalogue.build_dial(strength, sizes, exponent, name="complexity dial, \u03bb = {:.3g}")


def list_places(sizes: Sequence[Sequence[int]]) -> dict[str, Where]:
    """Return what can be knocked out, by name: all experts of a size, then each expert of each layer.

    Args:
        sizes: Hidden sizes of the experts, per layer.
    """
    found = {f"all of {_size_word(size)}": Where(size=size) for size in sorted({s for row in sizes for s in row})[::-1]}
    for layer, row in enumerate(sizes):
        for expert, size in enumerate(row):
            found[f"layer {layer}, expert {expert} ({_size_word(size)})"] = Where(experts=((layer, expert),))
    return found


def build_knockout(place: str, what: str, sizes: Sequence[Sequence[int]], *, renormalise: bool = False) -> Intervention:
    """Return a knock-out.

    Args:
        place: One of `list_places`.
        what: One of `WAYS`.
        sizes: Hidden sizes of the experts, per layer.
        renormalise: Whether the other weights sum to 1 again; of zero alone.

    Raises:
        ConfigError: If there is no such place or way; what is expected is told.
    """
    places = list_places(sizes)
    if place not in places:
        refuse("place", f"one of {'; '.join(places)}", place)
    choose("what", what, tuple(WAYS))
    zero = what == "zero"
    name = f"{place}: {WAYS[what]}{', weights renormalised' if zero and renormalise else ''}"
    return Intervention(what=what, where=places[place], renormalise=renormalise if zero else None, name=name)


def _size_word(size: int) -> str:
    return f"size {size}" if size else "skip"
