"""A causal language model of the library transformers, as little of it as a search needs: one forward pass, logits out.

What differs between architectures is asked here once: which arguments a model knows, which positions its layers may
look at, how long a sequence it has positions for.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASKED_KINDS = ("full_attention", "sliding_attention")
"""Kinds of layers, by transformers' names, whose attention a mask alone can restrict to ancestors."""


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn what torch raises when memory is used up into a MemoryError, which a search answers by asking for less."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has none of its own
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"{what} do not fit in memory beside the model and what is kept of the tree; a smaller --wave, "
            "--kv_budget_mb or --max_tokens needs less"
        ) from None


class Network:
    """A causal language model in evaluation mode.

    Args:
        model: A `PreTrainedModel` with a language-model head.

    Attributes:
        model: The same.
        kinds: Kinds of attention that its layers have, each once, as transformers calls them.
        window: Positions that a sliding layer looks back over, its own included; None without one.
        limit: Positions it was made for, None without bound.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        config = model.config.get_text_config(decoder=True)
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"]
        self.kinds = tuple(dict.fromkeys(kinds))
        self.window: int | None = window if "sliding_attention" in self.kinds else None
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        self._knows_keep = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where tokens have to be."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its activations, and of the masks it takes."""
        return self.model.dtype

    @property
    def vocab_size(self) -> int:
        """Tokens that it can be fed."""
        return self.model.get_input_embeddings().weight.shape[0]

    def build_prompt(self, prompt: Any) -> Tensor:
        """Return a prompt as the model takes it: (1, time) token numbers or (1, time, width) embeddings.

        Args:
            prompt: (time,) token numbers, or (time, width) embeddings of any floating type.

        Raises:
            ValueError: If it is neither, empty, or longer than the model has positions for.
        """
        found = torch.as_tensor(prompt)
        if found.dim() not in (1, 2) or not len(found) or (found.dim() == 2) != found.is_floating_point():
            raise ValueError(
                "prompt: expected token numbers (time,) or embeddings (time, width), at least one, "
                f"found {found.dtype} of shape {tuple(found.shape)}"
            )
        if self.limit is not None and len(found) > self.limit:
            raise ValueError(f"prompt: expected at most {self.limit} tokens, found {len(found)}; shorten it")
        if found.is_floating_point():
            return found[None].to(self.device, self.dtype)
        outside = (found < 0) | (found >= self.vocab_size)
        if outside.any():
            raise ValueError(
                f"prompt: expected tokens from 0 to {self.vocab_size - 1}, found {int(found[outside][0])}; "
                "is it of this model's tokenizer?"
            )
        return found[None].long().to(self.device)

    def extend(self, prompt: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return a prompt followed by each of some equally long rows of tokens, in the prompt's own form."""
        tokens = torch.tensor(rows, dtype=torch.long, device=self.device)  # (rows, time)
        if prompt.is_floating_point():
            tokens = self.model.get_input_embeddings()(tokens).to(prompt.dtype)
        return torch.cat([prompt.expand(len(rows), *prompt.shape[1:]), tokens], dim=1)

    @torch.no_grad()
    def forward(self, inputs: Tensor, *, last: bool, **arguments: Any) -> np.ndarray:
        """Return logits in float32: (batch, vocabulary) of the last position, or (batch, time, vocabulary).

        Args:
            inputs: Token numbers (batch, time) or embeddings (batch, time, width).
            last: Of the last position alone.
            arguments: Further ones of the model.

        Raises:
            MemoryError: If it does not fit in memory; the model is as it was.
        """
        arguments["inputs_embeds" if inputs.is_floating_point() else "input_ids"] = inputs
        if last and self._knows_keep:
            arguments["logits_to_keep"] = 1
        with memory_errors(f"{inputs.shape[0]} x {inputs.shape[1]} tokens"):
            logits = self.model(**arguments).logits
            return (logits[:, -1] if last else logits).float().cpu().numpy()
