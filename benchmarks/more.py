"""Tokens per second of the language models, in training and in cached generation, beside two yardsticks.

    python -m benchmarks.more --preset debug
    python -m benchmarks.more --preset standard --seconds 1 --rounds 1 --batch_size 1

dense is a transformer of the active size of base: the same code, with one feed-forward part in place of the mixture.
mixtral is `MixtralForCausalLM` of the library transformers, with random weights, tied embeddings, and as many layers,
heads, experts and expert parameters as base. A training step is forward, backward and AdamW on cross-entropy and
balance loss; dropout is 0, as Mixtral has none. Generation is greedy, with a cache, and counts new tokens alone.

Each model in turn is built, run once without counting, and measured for some seconds; then the next, and all again for
each round, so that a busy machine treats them alike. Figures are medians over rounds. Compare within one run only.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import as_benchmark, format_machine_facts, format_table, measure_rate, parse_positive, wait_for
from more.config import MODEL_TYPES, PRESETS, ModelConfig
from more.generation import generate
from more.model import MoreModel, count_parameters, routing_losses
from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.command.errors import ConfigError
from pipeline.policies import seeded_init

BALANCE = 0.01  # weight of the balance loss
DEBUG_VOCABULARY = 1024  # about what the embedded texts' tokenizer has
YARDSTICKS = ("dense", "mixtral")


@dataclass(frozen=True)
class Speed:
    """One model's figures; tokens per second are medians over rounds.

    Attributes:
        model: A variant, dense or mixtral.
        num_recurrences: r; 1 where there is no recurrence.
        total_parameters: All.
        active_parameters: That one token meets.
        training: Tokens per second of training steps.
        generation: New tokens per second.
    """

    model: str
    num_recurrences: int
    total_parameters: int
    active_parameters: int
    training: float
    generation: float


@dataclass(frozen=True)
class Runner:
    """A built model and what is measured on it.

    Attributes:
        step: One training step.
        generate: One batch of new tokens.
        total: Parameters.
        active: Of them, those that one token meets.
    """

    step: Callable[[], object]
    generate: Callable[[], object]
    total: int
    active: int


@dataclass(frozen=True)
class Work:
    """What every model is given.

    Attributes:
        tokens: (batch, time + 1) of the training step.
        prompts: (batch, time) of generation.
        new_tokens: To be generated for each prompt.
    """

    tokens: Tensor
    prompts: Tensor
    new_tokens: int


class DenseFeedForward(nn.Module):
    """Takes the place of a `MixtureLayer`: one feed-forward part for all tokens, no router."""

    def __init__(self, d_model: int) -> None:
        """Use torch's initialisation; speed does not depend on it."""
        super().__init__()
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor, *others: object) -> tuple[Tensor, None]:
        """Return (batch, time, d_model) and no routing."""
        return self.down(F.gelu(self.up(x))), None


def build_runner(name: str, config: ModelConfig, work: Work) -> Runner:
    """Return a model with weights drawn anew, ready to be measured."""
    if name == "mixtral":
        return _build_mixtral(config, work)
    model = MoreModel(config)
    counts = count_parameters(model)
    total, active = counts.total, counts.active
    if name == "dense":
        for block in model.blocks:
            block.mixture = DenseFeedForward(config.d_model)
        total = active = sum(parameter.numel() for parameter in model.parameters())
    model.to(work.tokens.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        output = model(work.tokens[:, :-1])
        loss = F.cross_entropy(output.logits.flatten(0, 1), work.tokens[:, 1:].flatten())
        if name != "dense":
            loss = loss + BALANCE * routing_losses(output).balance
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Runner(step, lambda: generate(model, work.prompts, max_new_tokens=work.new_tokens), total, active)


def _build_mixtral(config: ModelConfig, work: Work) -> Runner:
    from transformers import MixtralConfig, MixtralForCausalLM

    width = 8 * round(config.d_model / 3)  # three matrices with the parameters of the two of base; 8: for grouped_mm
    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            num_local_experts=config.num_experts,
            num_experts_per_tok=config.top_k,
            max_position_embeddings=config.max_length,
            tie_word_embeddings=True,
            output_router_logits=True,
            router_aux_loss_coef=BALANCE,
            sliding_window=None,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    ).to(work.tokens.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        model.train()
        inputs = work.tokens[:, :-1]
        model(input_ids=inputs, labels=inputs).loss.backward()  # it shifts the labels itself
        optimizer.step()
        optimizer.zero_grad()

    def write() -> None:
        model.eval()
        mask = torch.ones_like(work.prompts)
        found = model.generate(
            input_ids=work.prompts, attention_mask=mask, max_new_tokens=work.new_tokens, do_sample=False, pad_token_id=0
        )
        assert found.shape[1] == work.prompts.shape[1] + work.new_tokens

    total = sum(parameter.numel() for parameter in model.parameters())
    idle = config.num_layers * (config.num_experts - config.top_k) * 3 * config.d_model * width
    return Runner(step, write, total, total - idle)


def measure_models(
    models: Sequence[tuple[str, ModelConfig]], work: Work, *, seconds: float, rounds: int, seed: int
) -> list[Speed]:
    """Return each model's figures, all measured in turns."""
    device = work.tokens.device
    trained = work.tokens.shape[0] * (work.tokens.shape[1] - 1)
    written = work.prompts.shape[0] * work.new_tokens
    found: list[list[tuple[float, float]]] = [[] for _ in models]
    counts: list[tuple[int, int]] = [(0, 0)] * len(models)
    for _ in range(rounds):
        for index, (name, config) in enumerate(models):
            with seeded_init(seed, stream=0):
                runner = build_runner(name, config, work)
            rates = []
            for function, tokens in ((runner.step, trained), (runner.generate, written)):
                function()  # does not count
                wait_for(device)
                rates.append(tokens * measure_rate(function, seconds, device))
            found[index].append(tuple(rates))
            counts[index] = (runner.total, runner.active)
            del runner
            gc.collect()  # at the standard size two models with their optimiser's state fill gigabytes
    return [
        Speed(name, config.num_recurrences, *count, *(statistics.median(column) for column in zip(*rates, strict=True)))
        for (name, config), count, rates in zip(models, counts, found, strict=True)
    ]


def format_speeds(speeds: Sequence[Speed]) -> str:
    """Return the table; ratios are this model's rate / the yardstick's."""
    yardsticks = [speed for speed in speeds if speed.model in YARDSTICKS]
    columns = ["model", "r", "parameters, M", "active, M"]
    for task in ("training", "generation"):
        columns += [f"{task}, tokens/s", *(f"/ {speed.model}" for speed in yardsticks)]
    rows = []
    for speed in speeds:
        row = [speed.model, str(speed.num_recurrences)]
        row += [f"{speed.total_parameters / 1e6:.2f}", f"{speed.active_parameters / 1e6:.2f}"]
        for task in ("training", "generation"):
            rate = getattr(speed, task)
            row += [f"{rate:.0f}", *(f"{rate / getattr(yardstick, task):.2f}" for yardstick in yardsticks)]
        rows.append(row)
    return format_table(columns, rows)


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole, real = parse_positive(int), parse_positive(float)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="debug", help="sizes (default: debug)")
    parser.add_argument("--variants", choices=MODEL_TYPES, nargs="+", default=MODEL_TYPES, help="default: all")
    parser.add_argument("--num_recurrences", type=whole, nargs="+", default=[1, 4], help="r (default: 1 4)")
    parser.add_argument("--match", choices=("none", "total", "active"), default="active", help="default: active")
    parser.add_argument("--top_k", type=whole, default=1, help="experts of a token (default: 1)")
    parser.add_argument("--dispatch", choices=("auto", "grouped", "loop"), default="auto", help="default: auto")
    parser.add_argument("--batch_size", type=whole, default=4, help="sequences (default: 4)")
    parser.add_argument("--seq_length", type=whole, help="tokens trained on (default: the preset's longest)")
    parser.add_argument("--prompt_length", type=whole, default=32, help="tokens (default: 32)")
    parser.add_argument("--new_tokens", type=whole, default=32, help="per prompt (default: 32)")
    parser.add_argument("--seconds", type=real, default=0.5, help="per measurement (default: 0.5)")
    parser.add_argument("--rounds", type=whole, default=7, help="default: 7")
    parser.add_argument("--threads", type=whole, default=1, help="of torch (default: 1)")
    parser.add_argument("--no_yardsticks", action="store_true", help="leave out dense and mixtral")
    parser.add_argument("--seed", type=int, default=0, help="of weights and made-up tokens (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")


def choose_models(args: argparse.Namespace) -> list[tuple[str, ModelConfig]]:
    """Return names and configs of what is measured: base and yardsticks once, recurrent variants for each r.

    Raises:
        ValueError: If the flags make no usable config.
    """
    sizes: dict[str, Any] = {"vocab_size": DEBUG_VOCABULARY} if args.preset == "debug" else {}
    sizes |= PRESETS[args.preset] | {"dropout": 0.0, "match": args.match, "top_k": args.top_k}
    sizes["dispatch"] = args.dispatch
    models = []
    for name in args.variants:
        for r in [1] if name == "base" else args.num_recurrences:
            models.append((name, ModelConfig(model_type=name, num_recurrences=r, **sizes)))
    yardsticks = () if args.no_yardsticks else YARDSTICKS
    return models + [(name, ModelConfig(**sizes)) for name in yardsticks]


def build_work(args: argparse.Namespace, config: ModelConfig, device: torch.device) -> Work:
    """Return made-up tokens.

    Raises:
        ValueError: If they exceed the model's length.
    """
    length = args.seq_length or config.max_length
    for name, tokens in (("seq_length", length), ("prompt_length + new_tokens", args.prompt_length + args.new_tokens)):
        if tokens > config.max_length:
            raise ValueError(f"{name}: expected at most {config.max_length} for this preset, found {tokens}")
    with seeded_init(args.seed, stream=1):
        tokens = torch.randint(0, config.vocab_size, (args.batch_size, length + 1))
        prompts = torch.randint(0, config.vocab_size, (args.batch_size, args.prompt_length))
    return Work(tokens.to(device), prompts.to(device), args.new_tokens)


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    device = resolve_device(args.device)
    try:
        models = choose_models(args)
        work = build_work(args, models[0][1], device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    torch.set_num_threads(args.threads)
    speeds = measure_models(models, work, seconds=args.seconds, rounds=args.rounds, seed=args.seed)
    print(
        f"Language models, preset {args.preset}, match {args.match}, top-{args.top_k}: training on {args.batch_size} x "
        f"{work.tokens.shape[1] - 1} tokens, {args.batch_size} prompts of {args.prompt_length} with {args.new_tokens} "
        f"new tokens; median of {args.rounds} round(s) of {args.seconds:g} s"
    )
    print(format_machine_facts(machine, [args.threads]) + "\n")
    print(format_speeds(speeds))
    return {"speeds": speeds}


if __name__ == "__main__":
    sys.exit(main())
