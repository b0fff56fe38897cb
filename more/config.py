"""Sizes of a Mixture-of-Recurrent-Experts language model, and how wide the experts of each variant are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

ModelType = Literal["base", "more_a", "more_b", "more_c", "more_d", "looped"]
Match = Literal["none", "total", "active", "operations"]
Dispatch = Literal["auto", "grouped", "loop"]
ExpertAttention = Literal["same", "all"]
MODEL_TYPES: tuple[str, ...] = get_args(ModelType)
VARIANTS = MODEL_TYPES[:5]
"""The baseline and the four that are compared with it; `looped` is a control."""

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "debug": {"d_model": 64, "num_heads": 4, "num_layers": 2, "num_experts": 4, "max_length": 128},
    "chains": {"d_model": 64, "num_heads": 4, "num_layers": 1, "num_experts": 1},
}
"""Fields of `ModelConfig` that differ from its defaults. The vocabulary's size comes from the tokenizer."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model.

    Attributes:
        model_type: base (experts are feed-forward), more_a to more_d (they are recurrent; see `more/experts.py`), or
            looped (base whose blocks are passed r times, the embedding being added each time).
        num_recurrences: r, steps that a recurrent expert takes, passes of looped; base has none and ignores it.
        vocab_size: Tokens known.
        d_model: Width of the residual stream.
        num_heads: Heads of every attention.
        num_layers: Blocks of attention and mixture.
        num_experts: Experts of each mixture.
        top_k: Experts that a token goes to.
        dropout: Probability, on the embedding and on what each sub-layer adds to the residual stream.
        max_length: Longest sequence, tokens; positions beyond it are untrained and refused.
        match: Widths of the variants' experts: none (4 x d_model where base has it), or such that the total
            parameters, those that a token uses, or the operations that it takes are those of base; see
            `compute_widths`.
        expert_attention: What an attending expert (more_a) sees: same (earlier tokens that went to the same expert) or
            all (all earlier tokens, keys and values from each one's own expert).
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
    expert_attention: ExpertAttention = "all"

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
    idle_at_one: int  # of all these: change nothing at r = 1, for the state is zero then and is not reset


def count_expert_parts(model_type: str, d_model: int, widths: ExpertWidths) -> ExpertParts:
    """Return the formulas behind matching and cost, which tests hold to the modules."""
    d, h, m = d_model, widths.hidden, widths.state
    return {
        "base": ExpertParts(2 * d * h, 0, 0, 0, 0),
        "looped": ExpertParts(0, 2 * d * h, 0, 0, 0),
        "more_a": ExpertParts(d * d, 4 * d * d + 3 * d * h, d * d, 2 * d, d * d),  # adapters; attention, gated MLP
        "more_b": ExpertParts(2 * d * m + 3 * m * m, 0, 3 * m * m, 3 * m, 4 * m * m + m),  # up, down, GRU
        "more_c": ExpertParts(  # FFN, GRU, its way out, gate
            2 * d * h + 4 * d * m + d, 0, 3 * m * m, 3 * m + 1, 3 * m * m + d * m + m
        ),
        "more_d": ExpertParts(2 * d * h + 3 * d * m, 3 * m * m, 0, 3 * m, 0),  # FFN, GRU that starts at its output
    }[model_type]


def count_expert_parameters(model_type: str, d_model: int, widths: ExpertWidths) -> int:
    """Return the parameters of one expert as they are stored."""
    parts = count_expert_parts(model_type, d_model, widths)
    return parts.once + parts.each_step + parts.later_steps + parts.never


def count_used_parameters(model_type: str, d_model: int, widths: ExpertWidths, num_recurrences: int) -> int:
    """Return the parameters of one expert that its output depends on at r = `num_recurrences`."""
    idle = count_expert_parts(model_type, d_model, widths).idle_at_one if num_recurrences == 1 else 0
    return count_expert_parameters(model_type, d_model, widths) - idle


def count_operations(model_type: str, d_model: int, widths: ExpertWidths, num_recurrences: int) -> int:
    """Return the multiply-adds with weight matrices that one token's way through one expert takes; see `more.cost`."""
    parts = count_expert_parts(model_type, d_model, widths)
    return parts.once + num_recurrences * parts.each_step + (num_recurrences - 1) * parts.later_steps


def compute_widths(config: ModelConfig) -> ExpertWidths:
    """Return how wide each expert is.

    Without matching, feed-forward parts are 4 x d_model wide as in base, the state of more_b too, and other states
    d_model. With matching an expert gets as much as an expert of base has: of stored parameters (total) or of those
    that it uses at the config's r (active; at r = 1 matrices from state to state do nothing). Everything outside the
    experts is the same in all variants, so that equal experts mean equal models. With operations, a layer takes as many
    multiply-adds as r layers of base, which is what looped takes and what base with r times the layers takes:
    recurrence in an expert, attention of the block included, against passes through whole blocks.

    Raises:
        ValueError: If no width comes within 2 % of the base model.
    """
    d, r = config.d_model, config.num_recurrences
    kind = config.model_type
    states = {"base": 0, "looped": 0, "more_a": d, "more_b": 4 * d, "more_c": d, "more_d": d}
    naive = ExpertWidths(0 if kind == "more_b" else 4 * d, states[kind])
    if config.match == "none" or kind in ("base", "looped"):
        return naive
    target = count_expert_parameters("base", d, ExpertWidths(4 * d, 0))
    if config.match == "operations":
        # and the attention of the blocks that are not there, which a token's top_k experts share
        target = r * target + (r - 1) * 4 * d * d // config.top_k

    def count(hidden: float, state: float) -> float:
        widths = ExpertWidths(hidden, state)
        if config.match == "total":
            return count_expert_parameters(kind, d, widths)
        return {"active": count_used_parameters, "operations": count_operations}[config.match](kind, d, widths, r)

    if kind == "more_b":
        widths = ExpertWidths(0, _round_width(_solve(lambda m: count(0, m), target), lambda m: count(0, m), target))
    else:
        state = naive.state
        if kind == "more_c":  # it keeps the proportion of its naive widths
            state = max(1, round(_solve(lambda m: count(4 * m, m), target) / 8) * 8)
        hidden = _solve(lambda h: count(h, state), target)
        widths = ExpertWidths(_round_width(hidden, lambda h: count(h, state), target), state)
    found = count(*dataclasses.astuple(widths))
    if abs(found - target) > 0.02 * target:
        what = "operations per expert and token" if config.match == "operations" else "parameters per expert"
        raise ValueError(
            f"match: no width of {kind} at d_model {d} comes within 2 % of base's {target} {what} (closest: {found}); "
            "choose a larger d_model or match none"
        )
    return widths


def _solve(count: Callable[[float], float], target: float) -> float:
    """Return where a rising function of a width reaches the target; 0 if it starts above it."""
    low, high = 0.0, 1.0
    while count(high) < target:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return high if low else 0.0


def _round_width(width: float, count: Callable[[int], int], target: int) -> int:
    """Return a near multiple of 8, which fast kernels want, or of 4 or 1 where that strays more than 1 %."""
    for multiple in (8, 4, 1):
        rounded = max(multiple, round(width / multiple) * multiple)
        if abs(count(rounded) - target) <= 0.01 * target:
            break
    return rounded


def migrate_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a model or a run, as they are stored, with what older ones lack.

    Before there was `expert_attention`, experts attended to tokens of their own alone, and `match: active` counted
    stored parameters also where r = 1 leaves some without effect, as `total` does. Before there was `accumulate`, the
    batch of an update was read at once.
    """
    settings = dict(stored)
    if "batch_size" in settings:  # of a run
        settings.setdefault("accumulate", 1)
    attends = settings.get("model_type") == "more_a"
    if not attends:
        settings["expert_attention"] = "all"
    if "expert_attention" not in stored:
        settings.setdefault("expert_attention", "same")
        sized = settings.get("model_type") in ("more_a", "more_b", "more_c")
        if sized and settings.get("match") == "active" and settings.get("num_recurrences") == 1:
            settings["match"] = "total"
    return settings
