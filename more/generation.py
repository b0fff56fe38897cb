"""Text from a model: batched generation with a cache, and the likelihood of given continuations.

    generate(model, [prompt, longer_prompt], max_new_tokens=20, end_token=0)                    # greedy
    generate(model, prompts, max_new_tokens=20, temperature=0.8, top_k=50, top_p=0.95, generator=generator)
    sequence_log_likelihood(model, prompt, [answer, other_answer])                              # log p of each

Prompts of different lengths are padded at their right and keep their own positions, so that a greedy result does not
depend on what else is in the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from more.model import Cache, MoreModel

Tokens = Tensor | Sequence[int]


@torch.no_grad()
def generate(
    model: MoreModel,
    prompts: Tensor | Sequence[Tokens],
    *,
    max_new_tokens: int,
    end_token: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_recurrences: int | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Return the new tokens of each prompt, without the prompt and without the end token.

    The model is in evaluation mode meanwhile. A sequence that has ended leaves the batch once half of it has.

    Args:
        model: Any variant.
        prompts: (batch, time), or one sequence of at least one token per prompt.
        max_new_tokens: At most so many tokens each.
        end_token: Ends a sequence; None never ends one early.
        temperature: Divides the logits before sampling; 0 takes the most probable token.
        top_k: Sample among the k most probable tokens.
        top_p: Sample among the fewest most probable tokens that together reach this probability, after `top_k`.
        num_recurrences: r; None is the config's.
        generator: Of the sampling, on the model's device; needed when temperature > 0, so that results can be repeated.

    Raises:
        ValueError: If a setting is out of range, a prompt empty, or prompt and new tokens exceed the trained length.
    """
    check_sampling(temperature, top_k, top_p, generator)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, found {max_new_tokens}")
    tokens, lengths = pad(prompts, model)
    needed = tokens.shape[1] + max_new_tokens
    if needed > model.config.max_length:
        raise ValueError(
            f"prompts: the longest has {tokens.shape[1]} tokens, which with {max_new_tokens} new ones exceeds the "
            f"trained length of {model.config.max_length}; shorten the prompt or max_new_tokens"
        )
    found: list[list[int]] = [[] for _ in tokens]
    alive = torch.arange(len(tokens), device=tokens.device)  # prompt of each row of the batch
    done = torch.zeros_like(alive, dtype=torch.bool)
    cache = Cache(model, len(tokens), needed, num_recurrences)
    with evaluating(model):
        ragged = int(lengths.min()) < tokens.shape[1]
        features, _, _ = model.compute_features(
            tokens, lengths=lengths if ragged else None, cache=cache, num_recurrences=num_recurrences
        )
        features = features[alive, lengths - 1]  # (batch, d_model) of each prompt's last token
        for count in range(max_new_tokens):
            logits = model.compute_logits(features)
            chosen = choose_tokens(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            ended = torch.zeros_like(done) if end_token is None else chosen == end_token
            done = done | ended
            for prompt, token, stop in zip(alive.tolist(), chosen.tolist(), done.tolist(), strict=True):
                if not stop:
                    found[prompt].append(token)
            if bool(done.all()) or count + 1 == max_new_tokens:
                break
            if 2 * int(done.sum()) >= len(done):
                rows = (~done).nonzero().flatten()
                cache.select(rows)
                alive, chosen, done = alive[rows], chosen[rows], done[rows]
            features, _, _ = model.compute_features(chosen[:, None], cache=cache, num_recurrences=num_recurrences)
            features = features[:, 0]
    return found


def choose_tokens(
    logits: Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return one token (batch,) for each row of logits (batch, vocab); arguments as of `generate`."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        best = logits.topk(top_k, dim=-1)  # exactly k, also where values tie
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probs = ordered.softmax(dim=-1)
        before = probs.cumsum(dim=-1) - probs  # probability of all tokens ahead; 0 for the first, which always stays
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, ordered)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> None:
    """Check how tokens are to be chosen.

    Raises:
        ValueError: If a setting is out of range or has no effect; it names the setting.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature: expected a number of at least 0, found {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected at least 1, found {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number above 0 and up to 1, found {top_p}")
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise ValueError("top_k, top_p: they need a temperature above 0; at 0 the most probable token is taken")
    if temperature > 0 and generator is None:
        raise ValueError("generator: expected a torch.Generator, since temperature is above 0; found none")


def sequence_log_likelihood(
    model: MoreModel, prompt: Tokens, continuations: Sequence[Tokens], *, num_recurrences: int | None = None
) -> list[float]:
    """Return log p(continuation | prompt) of each continuation, nats, summed over its tokens.

    Args:
        model: Any variant; in evaluation mode meanwhile.
        prompt: At least one token; read once, however many continuations there are.
        continuations: At least one token each.
        num_recurrences: r; None is the config's.

    Raises:
        ValueError: If there is nothing to score, or prompt and continuation exceed the trained length.
    """
    return batch_log_likelihood(model, [prompt], [continuations], num_recurrences=num_recurrences)[0]


@torch.no_grad()
def batch_log_likelihood(
    model: MoreModel,
    prompts: Sequence[Tokens],
    continuations: Sequence[Sequence[Tokens]],
    *,
    num_recurrences: int | None = None,
) -> list[list[float]]:
    """Return for each prompt what `sequence_log_likelihood` returns; all prompts are read in one batch.

    Args:
        model: As there.
        prompts: One sequence of tokens each.
        continuations: Those of each prompt.
        num_recurrences: As there.

    Raises:
        ValueError: As there.
    """
    if len(prompts) != len(continuations) or not all(len(answers) for answers in continuations):
        raise ValueError(
            f"continuations: expected at least one for each of {len(prompts)} prompts, found "
            f"{[len(answers) for answers in continuations]}"
        )
    tokens, lengths = pad(prompts, model)
    answers, answer_lengths = pad([answer for group in continuations for answer in group], model, "continuations")
    owner = [row for row, group in enumerate(continuations) for _ in group]
    owners = torch.tensor(owner, device=tokens.device)
    needed = tokens.shape[1] + answers.shape[1] - 1  # the last token of an answer is never read
    if needed > model.config.max_length:
        raise ValueError(
            f"prompts: the longest has {tokens.shape[1]} tokens, which with a continuation of {answers.shape[1]} "
            f"exceeds the trained length of {model.config.max_length}; shorten the prompt"
        )
    cache = Cache(model, len(tokens), needed, num_recurrences)
    with evaluating(model):
        if tokens.shape[1] > 1:
            model.compute_features(tokens[:, :-1], lengths=lengths - 1, cache=cache, num_recurrences=num_recurrences)
        cache.select(owners)
        last = tokens.gather(1, lengths[:, None] - 1)[owners]  # (answers, 1)
        read = torch.cat([last, answers[:, :-1]], dim=1)
        features, _, _ = model.compute_features(
            read, lengths=answer_lengths, cache=cache, num_recurrences=num_recurrences
        )
    real = torch.arange(answers.shape[1], device=tokens.device) < answer_lengths[:, None]  # (answers, time)
    logits = model.compute_logits(features[real])  # (real tokens, vocab)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = features.new_zeros(answers.shape, dtype=logits.dtype)
    scores[real] = logits.log_softmax(dim=-1).gather(-1, answers[real][:, None]).squeeze(-1)
    found: list[list[float]] = [[] for _ in prompts]
    for row, score in zip(owner, scores.sum(dim=1).tolist(), strict=True):
        found[row].append(score)
    return found


@contextlib.contextmanager
def evaluating(model: MoreModel) -> Iterator[None]:
    """Within the block the model is in evaluation mode; after it, as it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def group_by_length(sequences: Sequence[Tokens], batch_size: int) -> list[list[int]]:
    """Return the indices of sequences in batches, those of like length together: less padding."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def pad(sequences: Tensor | Sequence[Tokens], model: MoreModel, name: str = "prompts") -> tuple[Tensor, Tensor]:
    """Return (batch, longest) tokens, padded with 0 at the right, and their lengths (batch,), on the model's device."""
    device = model.embedding.weight.device
    rows = [torch.as_tensor(row, dtype=torch.long, device=device).flatten() for row in sequences]
    if not rows or not all(len(row) for row in rows):
        raise ValueError(f"{name}: expected at least one token each, found lengths {[len(row) for row in rows]}")
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
