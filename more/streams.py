"""Attention within experts: a row sees earlier rows of its sequence, those of its own expert or all, and itself.

With `all` a row sees the rows of all earlier tokens and of its own token, each with keys and values from the expert
that the row went to: rows go back to the order of their sequences, and ordinary causal attention does the rest.

With `same` the rows of one sequence at one expert form a stream. On a CPU, without a cache, the streams are cut out of
the sorted rows, padded at their end, and causal attention does the rest, so that no row can see another sequence or a
later token. With a cache, and on a GPU, which finds many small attentions slower than one, the same rule is a mask.
With top_k = 2 a token stands in two streams, once in each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from more.attention import KeyValues, Place, attend, rotate
from more.dispatch import Groups

SHORTEST_BUCKET = 16  # streams up to this length are padded together


class ExpertCache:
    """What a layer's expert attention keeps: keys and values by recurrent step and place, and who went where.

    A place is position x top_k + slot.

    Args:
        batch: Sequences.
        capacity: Positions.
        top_k: Experts that a token goes to.
        num_experts: Experts; this number itself marks an empty place.
        steps: r.
        heads: Heads.
        head_dim: Width of a head.
        like: Tensor whose type and device the buffers get.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        top_k: int,
        num_experts: int,
        steps: int,
        heads: int,
        head_dim: int,
        like: Tensor,
    ) -> None:
        self.top_k = top_k
        self.experts = torch.full((batch, capacity * top_k), num_experts, dtype=torch.long, device=like.device)
        self.steps = [KeyValues(batch, capacity * top_k, heads, head_dim, like) for _ in range(steps)]

    def select(self, rows: Tensor) -> None:
        """Keep the given sequences, in that order; one may be taken several times."""
        self.experts = self.experts[rows]
        for step in self.steps:
            step.select(rows)


class Streams:
    """The attention of one layer's experts during one forward pass.

    Args:
        groups: The rows, sorted.
        indices: (batch, time, top_k) experts of each token.
        place: Where the tokens stand.
        num_heads: Heads.
        num_experts: Experts.
        cache: Kept keys and values, or None.
        sees: "same" or "all", see `ModelConfig.expert_attention`.
    """

    def __init__(
        self,
        groups: Groups,
        indices: Tensor,
        place: Place,
        num_heads: int,
        num_experts: int,
        cache: ExpertCache | None = None,
        sees: str = "same",
    ) -> None:
        self._groups, self._num_heads = groups, num_heads
        self._batch, self._time, self._top_k = indices.shape
        turns = place.turns.expand(self._batch, -1, -1).flatten(0, 1)[groups.token]  # (rows, head_dim / 2)
        self._turns = turns[:, None, None]
        self._cache, self._sees_all = cache, sees == "all"
        self._continues = cache is not None and place.seen > 0  # there are tokens before those of this pass
        self._mask: Tensor | None = None
        if cache is not None:
            slots = torch.arange(self._top_k, device=indices.device)
            self._places = (place.places[:, None] * self._top_k + slots).flatten()  # (batch x time x top_k,)
            self._prepare_cache(indices, place, num_experts)
        self._in_order = self._sees_all or self._continues or self._masks_streams(indices.device)
        if not self._in_order:
            self._cut(num_experts)
        elif self._mask is None and (self._top_k > 1 or not self._sees_all):
            token = torch.arange(self._time * self._top_k, device=indices.device) // self._top_k
            self._mask = (token <= token[:, None])[None]  # (1, time x top_k, time x top_k)
            if not self._sees_all:
                experts = _mark_padding(indices, place, num_experts)
                self._mask = self._mask & (experts[:, None] == experts[..., None])

    @staticmethod
    def _masks_streams(device: torch.device) -> bool:
        """Return whether streams are told apart by a mask instead of being cut out."""
        return device.type == "cuda"

    def attend(self, step: int, query_key_value: Tensor) -> Tensor:
        """Return what the rows see, (rows, d), for query_key_value (rows, 3 x d) at a recurrent step from 0."""
        rows, width = query_key_value.shape
        shape = (rows, 3, self._num_heads, width // 3 // self._num_heads)
        turned, values = query_key_value.view(shape).split([2, 1], dim=1)
        queries, keys = rotate(turned, self._turns).unbind(1)  # (rows, heads, head_dim)
        values = values.squeeze(1)
        if self._cache is not None or self._in_order:
            all_queries, all_keys, all_values = self._unsort(torch.stack([queries, keys, values], dim=1)).unbind(2)
        if self._cache is not None:
            kept = self._cache.steps[step]
            kept.write(all_keys, all_values, self._places)
            if self._continues:
                seen = self._mask.shape[-1]
                all_keys, all_values = (part[:, :seen].to(queries.dtype) for part in (kept.keys, kept.values))
        if self._in_order:
            mixed = attend(all_queries, all_keys, all_values, self._mask, causal=self._mask is None)
            return mixed.flatten(0, 1).index_select(0, self._groups.order)  # of (batch x time x top_k, d)
        found = [queries.new_zeros(0, width // 3)]
        for index, real in self._buckets:
            padded = (t.index_select(0, index.flatten()).unflatten(0, index.shape) for t in (queries, keys, values))
            found.append(attend(*padded, None, causal=True)[real])  # (rows of the bucket, d)
        return torch.cat(found).index_select(0, self._back)

    def _cut(self, num_experts: int) -> None:
        """Find the streams' rows; streams of like length go together, so that padding at most doubles the work."""
        groups, batch = self._groups, self._batch
        stream = groups.expert * batch + groups.token // self._time  # ascending, as rows are sorted stably
        counts = torch.bincount(stream, minlength=num_experts * batch)
        starts = counts.cumsum(0) - counts
        buckets: dict[int, list[int]] = {}
        lengths = counts.tolist()
        for number, length in enumerate(lengths):
            if length:
                buckets.setdefault((max(length, SHORTEST_BUCKET) - 1).bit_length(), []).append(number)
        self._buckets = []
        for numbers in buckets.values():
            longest = max(lengths[number] for number in numbers)
            chosen = torch.tensor(numbers, device=stream.device)
            within = torch.arange(longest, device=stream.device)
            real = within < counts[chosen, None]  # (streams, length)
            # Padding repeats the stream's last row: no query sees it, and a NaN could not leave its sequence.
            index = starts[chosen, None] + torch.minimum(within, counts[chosen, None] - 1)
            self._buckets.append((index, real))
        kept = [index[real] for index, real in self._buckets]
        self._back = torch.cat([stream[:0], *kept]).argsort()

    def _prepare_cache(self, indices: Tensor, place: Place, num_experts: int) -> None:
        cache, top_k, seen = self._cache, self._top_k, place.seen
        experts = _mark_padding(indices, place, num_experts)
        cache.experts.flatten().index_copy_(0, self._places, experts.flatten())
        if seen:
            key = torch.arange(seen * top_k, device=indices.device) // top_k  # position of each kept place
            earlier = key <= place.positions.repeat_interleave(top_k, dim=1)[..., None]  # (batch, time x top_k, places)
            same = cache.experts[:, None, : seen * top_k] == experts[..., None]
            self._mask = earlier if self._sees_all else earlier & same

    def _unsort(self, rows: Tensor) -> Tensor:
        """Return (batch, time x top_k, ...) of sorted rows (rows, ...); zeros for padding."""
        return self._groups.scatter(rows).view(self._batch, self._time * self._top_k, *rows.shape[1:])


def _mark_padding(indices: Tensor, place: Place, num_experts: int) -> Tensor:
    """Return the experts in the order of places, (batch, time x top_k); `num_experts` for padding."""
    experts = indices if place.valid is None else indices.masked_fill(~place.valid[..., None], num_experts)
    return experts.flatten(1)
