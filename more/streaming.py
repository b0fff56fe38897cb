"""Text from a model as it is written, piece by piece, for as long as is wanted.

for piece in stream(model, tokenizer, "Mary went to", max_new_tokens=100, num_recurrences=4):
print(piece, end="", flush=True)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from more.generation import check_sampling, choose_tokens, evaluating
from more.model import Cache, MoreModel
from more.tokens import Tokenizer

UNFINISHED = "\ufffd"
"""What a character of several bytes reads as before its last one is written."""


def stream(
    model: MoreModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_recurrences: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yield what a model writes after a prompt, until it ends the text or has written so many tokens.

    A text longer than the trained length is gone on with after its last half of a window, which is read anew. Only
    whole characters are yielded, so that the pieces put together are what `Tokenizer.decode` makes of all tokens.

    Args:
        model: Any variant.
        tokenizer: Its tokenizer.
        prompt: May be empty, and longer than a window, of which its end is then read.
        max_new_tokens: At most so many tokens.
        temperature: Divides the logits before sampling; 0 takes the most probable token.
        top_k: Sample among the k most probable tokens.
        top_p: Sample among the fewest most probable tokens that together reach this probability, after `top_k`.
        num_recurrences: r; None is the config's.
        generator: Of the sampling, on the model's device.

    Raises:
        ValueError: If a setting is out of range.
    """
    check_sampling(temperature, top_k, top_p, generator)
    window = model.config.max_length
    tokens = [tokenizer.end_token, *tokenizer.encode(prompt)]
    start, told = len(tokens), ""
    cache: Cache | None = None
    with evaluating(model):
        while len(tokens) - start < max_new_tokens:
            if cache is None or cache.longest == window:
                begins = cache is None and len(tokens) <= window
                cache = Cache(model, 1, window, num_recurrences)
                unread = tokens if begins else tokens[-max(1, window // 2) :]
            with torch.no_grad():
                read = torch.tensor([unread], device=model.embedding.weight.device)
                features, _, _ = model.compute_features(read, cache=cache, num_recurrences=num_recurrences)
                logits = model.compute_logits(features[:, -1])
                chosen = choose_tokens(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            token = int(chosen)
            if token == tokenizer.end_token:
                break
            tokens.append(token)
            unread = [token]
            text = tokenizer.decode(tokens[start:])
            if not text.endswith(UNFINISHED) and text != told:
                yield text[len(told) :]
                told = text
    rest = tokenizer.decode(tokens[start:])[len(told) :]
    if rest:
        yield rest
