"""What one key/value column per distinct prefix saves, against the two ways that stock transformers has.

    python -m benchmarks.maxent
    python -m benchmarks.maxent --rollouts 16 --rounds 3 --prompt_length 2048

Each draws R answers of T tokens to one prompt from the same untrained Llama and the same prior; none ends early.

packed: `maxent.search`, best-of-N in one wave, with all it records: one column for each distinct prefix.
repeated: the prompt is read once, its keys and values are repeated R times, and all answers are decoded in a batch of R
with a `DynamicCache`.
read anew: the prompt is read for each answer, which is then decoded alone.

The yardsticks only draw: they keep no tree. Entries are those of keys and values, a token's in all layers counted as
one; without a shared first token packed needs (P + R F) / (R (P + F)) of what repeated needs, P being the prompt and
F = T - 1, since the last token is never fed. Bookkeeping is all of a `dts` search, with a reward that costs nothing,
that is not spent in the model.

On a CPU, seconds are those that the process had a core, which a busy machine distorts less than the clock does. Each
round measures all in turn, ratios are taken within a round, and figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive, wait_for
from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel
from maxent.dts_implementation.models.sequence_model import Cost, Prior
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchSettings
from maxent.rewards.result import Answer, RewardResult
from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.policies import seeded_init


@dataclass(frozen=True)
class Drawing:
    """Figures of one number of answers; medians over rounds.

    Attributes:
        rollouts: R.
        packed_seconds: Of the whole search.
        against_repeated: Seconds of repeated / packed.
        against_reading_anew: Seconds of reading anew / packed.
        packed_entries: Keys and values that packed keeps, in tokens.
        repeated_entries: That repeated keeps.
        unshared_entries: P + R F: packed's if no two answers began with the same token.
    """

    rollouts: int
    packed_seconds: float
    against_repeated: float
    against_reading_anew: float
    packed_entries: int
    repeated_entries: int
    unshared_entries: int


@dataclass(frozen=True)
class Bookkeeping:
    """A `dts` search; medians over rounds.

    Attributes:
        rollouts: Answers, in waves of a fifth, at most 16.
        seconds: Of the whole search.
        share: Of them, what is not spent in the model, 0 to 1.
        new_tokens: Tokens fed.
        reused_tokens: That were found in the tree.
    """

    rollouts: int
    seconds: float
    share: float
    new_tokens: int
    reused_tokens: int


class TimedModel:
    """A `SequenceModel` and the seconds spent in it.

    Args:
        inner: The model.
        clock: Returns seconds.

    Attributes:
        seconds: So far.
    """

    def __init__(self, inner: HuggingFaceModel, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock
        self.seconds = 0.0
        self.start, self.open = self._time(inner.start), self._time(inner.open)
        self.step, self.close = self._time(inner.step), self._time(inner.close)
        self.decode, self.eos = inner.decode, inner.eos

    @property
    def cost(self) -> Cost:
        """See `SequenceModel`."""
        return self._inner.cost

    @property
    def limit(self) -> int | None:
        """See `SequenceModel`."""
        return self._inner.limit

    def _time(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            began = self._clock()
            try:
                return function(*args)
            finally:
                self.seconds += self._clock() - began

        return timed


def build_network(args: argparse.Namespace, device: torch.device) -> Any:
    """Return an untrained Llama whose answers have no end."""
    from transformers import LlamaConfig, LlamaForCausalLM  # slow to import

    with seeded_init(args.seed, stream=0):
        network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=args.vocab_size,
                hidden_size=args.width,
                intermediate_size=4 * args.width,
                num_hidden_layers=args.layers,
                num_attention_heads=max(args.width // 64, 1),
                max_position_embeddings=args.prompt_length + args.new_tokens,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
    return network.to(device).eval()


@torch.no_grad()
def draw_repeated(network: Any, prompt: torch.Tensor, rows: int, new_tokens: int, prior: Prior, seed: int) -> int:
    """Draw answers in a batch of copies of the prompt's keys and values; return the entries kept in the end."""
    from transformers import DynamicCache

    rng = np.random.default_rng(seed)
    cache = DynamicCache(config=network.config)
    logits = network(prompt[None], past_key_values=cache, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(rows)
    logits = logits.expand(rows, -1)
    for count in range(new_tokens):
        found = prior.compute_distributions(logits.float().cpu().numpy())
        tokens = [int(d.ids[d.cumulative.searchsorted(rng.random(), side="right")]) for d in found]
        if count + 1 < new_tokens:
            fed = torch.tensor(tokens, device=prompt.device)[:, None]
            logits = network(fed, past_key_values=cache).logits[:, -1]
    return rows * cache.get_seq_length()


def draw_anew(network: Any, prompt: torch.Tensor, rows: int, new_tokens: int, prior: Prior, seed: int) -> None:
    """Draw answers one by one, reading the prompt for each."""
    for row in range(rows):
        draw_repeated(network, prompt, 1, new_tokens, prior, seed + row)


def no_reward(answer: Answer) -> RewardResult:
    """Return 0 for whatever answer."""
    return RewardResult(0.0)


def measure(
    args: argparse.Namespace, device: torch.device, say: Callable[[str], object]
) -> tuple[list[Drawing], Bookkeeping]:
    """Return the figures, all measured in turns."""
    network = build_network(args, device)
    prompt = torch.from_numpy(np.random.default_rng(args.seed).integers(args.vocab_size, size=args.prompt_length))
    prompt = prompt.to(device)
    model = HuggingFaceModel(network, kv="packed")
    prior = Prior()
    length, new = args.prompt_length, args.new_tokens

    def clock() -> float:
        wait_for(device)
        return time.process_time() if device.type == "cpu" else time.perf_counter()

    def time_call(work: Callable[[], Any]) -> tuple[Any, float]:
        began = clock()
        result = work()
        return result, clock() - began

    def run_search(method: str, rollouts: int, wave: int | None) -> tuple[Any, float, float]:
        timed = TimedModel(model, clock)
        settings = SearchSettings(
            method, rollouts, new, wave=wave, lam=args.lam, prior=prior, seed=args.seed, answer="max"
        )
        result, seconds = time_call(lambda: search(timed, prompt, no_reward, settings))
        return result, seconds, timed.seconds

    times: dict[int, list[tuple[float, float, float]]] = {rollouts: [] for rollouts in args.rollouts}
    entries: dict[int, tuple[int, int]] = {}
    searches = []
    for number in range(-1, args.rounds):  # the first does not count
        for rollouts in args.rollouts:
            _, packed, _ = run_search("best_of_n", rollouts, rollouts)
            kept = model.prefixes.kept
            repeated_kept, repeated = time_call(
                lambda rollouts=rollouts: draw_repeated(network, prompt, rollouts, new, prior, args.seed)
            )
            _, anew = time_call(lambda rollouts=rollouts: draw_anew(network, prompt, rollouts, new, prior, args.seed))
            entries[rollouts] = kept, repeated_kept
            if number >= 0:
                times[rollouts].append((packed, repeated / packed, anew / packed))
        most = max(args.rollouts)
        result, seconds, within = run_search("dts", most, None)
        if number >= 0:
            searches.append((seconds, 1 - within / seconds))
            say(f"round {number + 1} of {args.rounds}")
    drawings = [
        Drawing(
            rollouts,
            *(statistics.median(column) for column in zip(*times[rollouts], strict=True)),
            *entries[rollouts],
            length + rollouts * (new - 1),
        )
        for rollouts in args.rollouts
    ]
    seconds, share = (statistics.median(column) for column in zip(*searches, strict=True))
    return drawings, Bookkeeping(most, seconds, share, result.cost.new, result.cost.reused)


def format_drawings(drawings: Sequence[Drawing]) -> str:
    """Return the table."""
    return format_records(
        [
            ("R", "rollouts"),
            ("packed, s", "packed_seconds:.3f"),
            ("repeated / packed", "against_repeated:.2f"),
            ("read anew / packed", "against_reading_anew:.2f"),
            ("entries, packed", "packed_entries:,"),
            ("repeated", "repeated_entries:,"),
            ("packed / repeated", lambda row: f"{row.packed_entries / row.repeated_entries:.4f}"),
            ("unshared", lambda row: f"{row.unshared_entries / row.repeated_entries:.4f}"),
        ],
        drawings,
    )


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole, real = parse_positive(int), parse_positive(float)
    parser.add_argument("--rollouts", type=whole, nargs="+", default=[16, 64], help="R (default: 16 64)")
    parser.add_argument("--prompt_length", type=whole, default=512, help="tokens (default: 512)")
    parser.add_argument("--new_tokens", type=whole, default=32, help="T, per answer (default: 32)")
    parser.add_argument("--layers", type=whole, default=4, help="of the Llama (default: 4)")
    parser.add_argument("--width", type=whole, default=256, help="of the Llama (default: 256)")
    parser.add_argument("--vocab_size", type=whole, default=4096, help="of the Llama (default: 4096)")
    parser.add_argument("--lam", type=real, default=0.1, help="lambda of the dts search (default: 0.1)")
    parser.add_argument("--rounds", type=whole, default=5, help="default: 5")
    parser.add_argument("--threads", type=whole, default=1, help="of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, prompt and draws (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    drawings, bookkeeping = measure(args, device, lambda line: print(line, file=sys.stderr))
    print(
        f"Llama of {args.layers} x {args.width}, {args.vocab_size} tokens; prompt of {args.prompt_length}, answers of "
        f"{args.new_tokens}; medians of {args.rounds} round(s), "
        f"{'seconds of a core' if device.type == 'cpu' else 'seconds by the clock'}"
    )
    print(format_machine_facts(machine, [args.threads]) + "\n")
    print(format_drawings(drawings) + "\n")
    print(
        f"dts, {bookkeeping.rollouts} answers: {bookkeeping.seconds:.3f} s, of which bookkeeping "
        f"{100 * bookkeeping.share:.1f} %; {bookkeeping.new_tokens:,} tokens fed, {bookkeeping.reused_tokens:,} reused"
    )
    return {"drawings": drawings, "bookkeeping": bookkeeping}


if __name__ == "__main__":
    sys.exit(main())
