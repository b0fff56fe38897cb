"""Causal attention with rotary positions, and the keys and values kept for generation.

Rotary positions: Su et al., RoFormer, https://arxiv.org/abs/2104.09864, equation 34.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from more.untraced import not_traced

ROTARY_BASE = 10000.0

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Without cuDNN's, which on an H200 prepares for about 10 ms for every new shape, and batches have many shapes."""


@not_traced  # it is looked up
def build_rotary_table(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Return the turns of positions 0 to length - 1, (length, head_dim / 2), complex64 whatever the model's type is."""
    return _build_rotary_table(length, head_dim, device)


@functools.lru_cache(maxsize=16)
def _build_rotary_table(length: int, head_dim: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a table first made under inference mode could not be trained with
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
        angles = torch.outer(torch.arange(length, dtype=torch.float64, device="cpu"), ROTARY_BASE**-exponents)
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Return x (..., heads, head_dim) turned by its position, in float32 at least.

    One complex product: 2 to 8 times faster on a CPU than four real ones and their concatenation.

    Args:
        x: Queries or keys; two neighbouring channels are a complex number.
        turns: (..., 1, head_dim / 2) rows of the table at the positions of x.
    """
    pairs = torch.view_as_complex(x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


class Place(NamedTuple):
    """Where the tokens of a forward pass stand; the same for all layers.

    Attributes:
        positions: (batch or 1, time) of the tokens in their sequences.
        places: (batch x time,) of the tokens in a cache: sequence x capacity + position; None without one.
        turns: (batch or 1, time, head_dim / 2) rotary table there.
        valid: (batch, time) bool, False for padding; None if there is none.
        mask: (batch, time, seen) bool, which kept positions each token may look at; None at the start of sequences.
        seen: Kept positions that any token may see, those of this pass included; 0 at the start of sequences.
    """

    positions: Tensor
    turns: Tensor
    places: Tensor | None = None
    valid: Tensor | None = None
    mask: Tensor | None = None
    seen: int = 0


class KeyValues:
    """Keys and values of one attention, one row of places per sequence of a batch.

    Args:
        batch: Sequences.
        places: Room for so many keys each.
        heads: Heads.
        head_dim: Width of a head.
        like: Tensor whose type and device the buffers get.
    """

    def __init__(self, batch: int, places: int, heads: int, head_dim: int, like: Tensor) -> None:
        self.keys = like.new_zeros(batch, places, heads, head_dim)
        self.values = torch.zeros_like(self.keys)

    def write(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Store keys and values of new tokens.

        Args:
            keys: (batch, new, heads, head_dim).
            values: Likewise.
            places: (batch x new,) where, counting all sequences' places through: sequence x places + place.
        """
        for kept, new in ((self.keys, keys), (self.values, values)):
            kept.flatten(0, 1).index_copy_(0, places, new.flatten(0, 1).to(kept.dtype))

    def select(self, rows: Tensor) -> None:
        """Keep the given sequences, in that order; one may be taken several times."""
        self.keys, self.values = self.keys[rows], self.values[rows]


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
    """Return attention (batch, queries, heads x head_dim) for (batch, length, heads, head_dim) inputs.

    Args:
        queries: Turned already, as are the keys.
        keys: See there.
        values: See there.
        mask: (batch, queries, keys) bool, True where a query may look; None for everywhere or `causal`.
        causal: Query i sees keys 0 to i.
    """
    with sdpa_kernel(KERNELS) if queries.device.type == "cuda" else nullcontext():
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=None if mask is None else mask[:, None],
            is_causal=causal,
        )  # (batch, heads, queries, head_dim)
    return mixed.transpose(1, 2).flatten(2)


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention of a block.

    Args:
        d_model: Width of input and output.
        num_heads: Heads.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, place: Place, kept: KeyValues | None = None) -> Tensor:
        """Return (batch, time, d_model).

        Args:
            x: (batch, time, d_model).
            place: Where the tokens stand; without a mask keys and values of x alone matter.
            kept: Keys and values so far, to which those of x are added; None without a cache.
        """
        batch, time, d_model = x.shape
        shape = (batch, time, 3, self.num_heads, d_model // self.num_heads)
        turned, values = self.query_key_value(x).view(shape).split([2, 1], dim=2)
        queries, keys = rotate(turned, place.turns[:, :, None, None]).unbind(2)  # (batch, time, heads, head_dim)
        values = values.squeeze(2)
        if kept is not None:
            kept.write(keys, values, place.places)
        if place.mask is None:
            return self.out(attend(queries, keys, values, None, causal=True))
        keys, values = (part[:, : place.seen].to(queries.dtype) for part in (kept.keys, kept.values))
        return self.out(attend(queries, keys, values, place.mask))
