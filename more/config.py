"""Sizes of a Mixture-of-Recurrent-Experts language model, and how wide the experts of each variant are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

ModelType = Literal["base", "more_a", "more_b", "more_c", "more_d"]
Match = Literal["none", "total", "active"]
Dispatch = Literal["auto", "grouped", "loop"]
MODEL_TYPES: tuple[str, ...] = get_args(ModelType)

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "debug": {"d_model": 64, "num_heads": 4, "num_layers": 2, "num_experts": 4, "max_length": 128},
}
"""Fields of `ModelConfig` that differ from its defaults. The vocabulary's size comes from the tokenizer."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model.

    Attributes:
        model_type: base (experts are feed-forward) or more_a to more_d (they are recurrent); see `more/experts.py`.
        num_recurrences: r, steps that a recurrent expert takes; base has none and ignores it.
        vocab_size: Tokens known.
        d_model: Width of the residual stream.
        num_heads: Heads of every attention.
        num_layers: Blocks of attention and mixture.
        num_experts: Experts of each mixture.
        top_k: Experts that a token goes to.
        dropout: Probability, on the embedding and on what each sub-layer adds to the residual stream.
        max_length: Longest sequence, tokens; positions beyond it are untrained and refused.
        match: Widths of the variants' experts: none (4 x d_model where base has it), or such that the total or the
            active parameters are those of base. Both come to the same widths while variants share top_k and
            num_experts; see `compute_widths`.
        dispatch: How rows meet their expert's weights: grouped (one kernel), loop (one product per expert), or auto,
            grouped where it runs.
    """

    model_type: ModelType = "base"
    num_recurrences: int = 1
    vocab_size: int = 50257
    d_model: int = 512
    num_heads: int = 8
    num_layers: int = 6
    num_experts: int = 8
    top_k: int = 1
    dropout: float = 0.1
    max_length: int = 256
    match: Match = "none"
    dispatch: Dispatch = "auto"

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: If a value cannot be used; the message names field, expectation and what was found.
        """
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            choices = get_args(hints[field.name])
            if choices and value not in choices:
                raise ValueError(f"{field.name}: expected one of {', '.join(choices)}, found {value!r}")
            if hints[field.name] is int and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name}: expected an integer of at least 1, found {value!r}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a number from 0 to below 1, found {self.dropout!r}")
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"d_model: expected a multiple of 2 x num_heads = {2 * self.num_heads} (rotary positions turn pairs of "
                f"channels of each head), found {self.d_model}"
            )
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k: expected 1 to {self.num_experts} (num_experts), found {self.top_k}")
        compute_widths(self)


@dataclass(frozen=True)
class ExpertWidths:
    """Widths of one expert; 0 where the variant has no such part.

    Attributes:
        hidden: Of the feed-forward part.
        state: Of the recurrent state.
    """

    hidden: int
    state: int


class ExpertParts(NamedTuple):
    """Parameters of one expert by how often they multiply while it takes r steps."""

    once: int
    each_step: int
    later_steps: int  # from a state that is still zero at the first step: r - 1 times
    never: int  # biases, gains


def count_expert_parts(model_type: str, d_model: int, widths: ExpertWidths) -> ExpertParts:
    """Return the formulas behind matching and cost, which tests hold to the modules."""
    d, h, m = d_model, widths.hidden, widths.state
    return {
        "base": ExpertParts(2 * d * h, 0, 0, 0),
        "more_a": ExpertParts(d * d, 4 * d * d + 3 * d * h, d * d, 2 * d),  # adapters; attention, gated MLP
        "more_b": ExpertParts(2 * d * m + 3 * m * m, 0, 3 * m * m, 3 * m),  # up, down, GRU
        "more_c": ExpertParts(2 * d * h + 4 * d * m + d, 0, 3 * m * m, 3 * m + 1),  # FFN, GRU, its way out, gate
        "more_d": ExpertParts(2 * d * h + 3 * d * m, 3 * m * m, 0, 3 * m),  # FFN, GRU that starts at its output
    }[model_type]


def count_expert_parameters(model_type: str, d_model: int, widths: ExpertWidths) -> int:
    """Return the parameters of one expert."""
    return sum(count_expert_parts(model_type, d_model, widths))


def compute_widths(config: ModelConfig) -> ExpertWidths:
    """Return how wide each expert is.

    Without matching, feed-forward parts are 4 x d_model wide as in base, the state of more_b too, and other states
    d_model. With matching an expert gets the parameters of an expert of base. Everything outside the experts is the
    same in all variants, so equal experts mean equal totals and, with equal top_k, equal active parameters.

    Raises:
        ValueError: If no width comes within 2 % of the base model.
    """
    d = config.d_model
    kind = config.model_type
    states = {"base": 0, "more_a": d, "more_b": 4 * d, "more_c": d, "more_d": d}
    naive = ExpertWidths(0 if kind == "more_b" else 4 * d, states[kind])
    if config.match == "none" or kind == "base":
        return naive
    target = count_expert_parameters("base", d, ExpertWidths(4 * d, 0))

    def count(hidden: int, state: int) -> int:
        return count_expert_parameters(kind, d, ExpertWidths(hidden, state))

    if kind == "more_b":  # 6 m^2 + (2 d + 3) m = target
        state = (math.sqrt((2 * d + 3) ** 2 + 24 * target) - (2 * d + 3)) / 12
        best = _round_width(state, lambda m: count(0, m), target)
        widths = ExpertWidths(0, best)
    else:
        # more_c keeps the proportion of its naive widths, hidden = 4 x state: 3 m^2 + (12 d + 3) m = target.
        state = naive.state
        if kind == "more_c":
            state = max(1, round((math.sqrt((12 * d + 3) ** 2 + 12 * target) - (12 * d + 3)) / 6 / 8) * 8)
        slope = count(1, state) - count(0, state)
        hidden = (target - count(0, state)) / slope
        widths = ExpertWidths(_round_width(hidden, lambda h: count(h, state), target), state)
    found = count_expert_parameters(kind, d, widths)
    if abs(found - target) > 0.02 * target:
        raise ValueError(
            f"match: no width of {kind} at d_model {d} comes within 2 % of base's {target} parameters per expert "
            f"(closest: {found}); choose a larger d_model or match none"
        )
    return widths


def _round_width(width: float, count: Callable[[int], int], target: int) -> int:
    """Return a near multiple of 8, which fast kernels want, or of 4 or 1 where that strays more than 1 %."""
    for multiple in (8, 4, 1):
        rounded = max(multiple, round(width / multiple) * multiple)
        if abs(count(rounded) - target) <= 0.01 * target:
            break
    return rounded
