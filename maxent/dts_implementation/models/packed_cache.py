"""Keys and values of a tree of prefixes: one column for each token of the prompt and each node, whatever branches.

    cache = PackedCache(network)
    logits = cache.start(prompt)                 # column 0 is the prompt
    cache.open([()])
    logits = cache.step([7, 4], [0, 0])          # columns 1 and 2

Rows of a step are queries of a batch of *one*. Each has its own position, and a mask lets it see the prompt, its
ancestors and itself. Three rules make stock models of transformers do this right:

- the cache must not cut sliding windows: positions are no places here. So layers are ours, below, and the prompt is
  read into a `DynamicCache` that was made without a config;
- masks are additive floats, (1, 1, queries, keys); some eager attentions add a mask that is bool;
- a sliding window is cut by the difference of positions, and models of mixed layers take a mask for each kind.

Whether a model does follow is tested when it is loaded (`pytorch_hf_wrapper.check_packing`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maxent.dts_implementation.models.network import MASKED_KINDS, Network, memory_errors
from maxent.dts_implementation.models.sequence_model import Cost

SPARE = 256  # columns of room that a workspace starts with, beside the prompt
CHUNK = 256  # dropped columns that are computed again in one forward pass


class UnsupportedError(ValueError):
    """A model whose state is more than keys and values, or whose attention no mask can restrict."""


class ColumnLayer:
    """Keys and values of one layer: a workspace of the open wave that begins with the prompt, and a store of the tree.

    To transformers it is a layer of its `Cache`. What is new is written in place, where a `DynamicCache` would copy all
    there is at each step.

    Args:
        keys: (1, heads, time, width) of the prompt.
        values: (1, heads, time, width), a width of its own.

    Attributes:
        used: Columns of the workspace that count; the next are written after them.
    """

    is_sliding = False
    is_compileable = False
    is_initialized = True

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.used = keys.shape[2]
        self._work = [_enlarge(part, 2, self.used, self.used + SPARE) for part in (keys, values)]
        self.empty()

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values of new columns and return all of the workspace, as transformers asks for them."""
        first, self.used = self.used, self.used + keys.shape[2]
        for work, new in zip(self._work, (keys, values), strict=True):
            work[:, :, first : self.used] = new
        return self._work[0][:, :, : self.used], self._work[1][:, :, : self.used]

    def get_seq_length(self) -> int:
        """Return how many columns the workspace holds, as transformers asks for it."""
        return self.used

    def reserve(self, columns: int) -> None:
        """See to it that the workspace has room for so many columns."""
        room = self._work[0].shape[2]
        if room < columns:
            room = max(columns, room + room // 2)
            self._work = [_enlarge(work, 2, self.used, room) for work in self._work]

    def load(self, slots: Tensor) -> None:
        """Copy columns from the store to the end of the workspace, which has room."""
        first, self.used = self.used, self.used + len(slots)
        for work, store in zip(self._work, self._store, strict=True):
            work[0, :, first : self.used] = store.index_select(1, slots)

    def empty(self) -> None:
        """Give up the store."""
        self._store = [part.new_empty(part.shape[1], 0, part.shape[3]) for part in self._work]  # (heads, slots, width)

    def save(self, places: Tensor, slots: Tensor, room: int) -> None:
        """Copy columns at some places of the workspace into slots of the store, which is given so much room."""
        had = self._store[0].shape[1]
        if had < room:
            self._store = [_enlarge(store, 1, had, room) for store in self._store]
        for work, store in zip(self._work, self._store, strict=True):
            store.index_copy_(1, slots, work[0].index_select(1, places))


def _enlarge(part: Tensor, dim: int, used: int, room: int) -> Tensor:
    """Return a tensor of so much room along a dimension, which begins with what is used of another."""
    larger = part.new_empty([room if at == dim else size for at, size in enumerate(part.shape)])
    larger.narrow(dim, 0, used).copy_(part.narrow(dim, 0, used))
    return larger


class PackedCache:
    """The columns of a tree of prefixes, with the words of `SequenceModel` for them.

    Args:
        network: The model.
        budget: Bytes that keys and values of prompt and tree may take between waves; None without bound. Over it, the
            leaves that waves have gone on from least often lose their columns, the oldest first; they are computed
            again when a wave meets them. A wave under way needs its own columns beside that.

    Attributes:
        cost: The account since `start`.
        kept: Columns in memory after the last wave, each token of the prompt counted as one.
        dropped: Columns that have been dropped since `start`.

    Raises:
        UnsupportedError: If the model's layers are of kinds that a mask cannot restrict.
    """

    def __init__(self, network: Network, budget: int | None = None) -> None:
        if other := set(network.kinds) - set(MASKED_KINDS):
            raise UnsupportedError(f"its layers have {', '.join(sorted(other))}")
        self.cost = Cost()
        self.kept = self.dropped = 0
        self._network = network
        self._budget = budget

    # ----------------------------------------------------------------------------------------------------- the protocol

    @torch.no_grad()
    def start(self, prompt: Tensor) -> np.ndarray:
        """Read a prompt, as `Network.build_prompt` makes it, and return the logits after it, (vocabulary,).

        Raises:
            UnsupportedError: If the model keeps anything but keys and values of each position.
        """
        from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache  # slow to import

        length = prompt.shape[1]
        read = DynamicCache()
        logits = self._network.forward(prompt, last=True, past_key_values=read, use_cache=True)
        parts = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in read.layers]
        if not parts or any(p is None or p.dim() != 4 or p.shape[2] != length for layer in parts for p in layer):
            raise UnsupportedError("it keeps more than keys and values of each position")
        self._bytes = sum(part.element_size() * part.numel() for layer in parts for part in layer) // length
        self._layers = [ColumnLayer(*layer) for layer in parts]
        CacheLayerMixin.register(ColumnLayer)  # as which `Cache` counts it when a model asks for its length
        self._cache = Cache(layers=self._layers)
        self._prompt = self._used = self.kept = length
        self.dropped = 0
        self.cost = Cost(prefill=length, forwards=1)
        # By column:
        self._token = [-1]
        self._parent = [-1]
        self._uses = [0]
        self._slot: dict[int, int] = {}  # of the columns in the store
        self._free: list[int] = []
        self._slots = 0  # in the store
        # Of the open wave:
        self._place: dict[int, int] = {}  # in the workspace
        self._lines: dict[int, np.ndarray] = {}  # see `_find_line`; of the columns fed last, which are named next
        return logits[0]

    @torch.no_grad()
    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`."""
        self._place, self._lines, self._used = {}, {}, self._prompt  # also after a wave that ran out of memory
        needed: set[int] = set()
        for path in paths:
            needed.update(path)
            for column in path:
                self._uses[column] += 1
        kept = sorted(column for column in needed if column in self._slot)  # parents first
        missing = sorted(needed - self._slot.keys())
        if kept:
            slots = torch.tensor([self._slot[column] for column in kept], device=self._network.device)
            for layer in self._layers:
                layer.used = self._used
                with memory_errors(f"{len(needed)} columns that a wave goes on from"):
                    layer.reserve(self._used + len(needed))
                layer.load(slots)
            self._place = dict(zip(kept, range(self._used, self._used + len(kept)), strict=True))
            self._used += len(kept)
        chunk = CHUNK
        while missing:
            some = missing[:chunk]
            try:
                self._feed(some, last=True)
            except MemoryError:
                if chunk == 1:
                    raise
                chunk //= 2
                continue
            missing = missing[chunk:]
            self.cost.recomputed += len(some)

    @torch.no_grad()
    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`."""
        count = len(self._token)
        self._token += map(int, tokens)
        self._parent += map(int, nodes)
        self._uses += [0] * len(tokens)
        fed = range(count, len(self._token))
        try:
            try:
                logits = self._feed(fed, last=False)
            except MemoryError:
                if len(fed) > 1 or not self._slot:
                    raise  # the search asks for fewer rows
                self._empty_store()
                logits = self._feed(fed, last=False)
        except BaseException:
            del self._token[count:], self._parent[count:], self._uses[count:]
            raise
        self.cost.new += len(tokens)
        return logits[0]

    @torch.no_grad()
    def close(self) -> None:
        """See `SequenceModel`; whatever is over budget is dropped now."""
        fresh = [column for column in self._place if column not in self._slot]
        dropped = self._choose_dropped(fresh)
        self._free += [self._slot.pop(column) for column in dropped if column in self._slot]
        self.dropped += len(dropped)
        if fresh := [column for column in fresh if column not in dropped]:
            missing = len(fresh) - len(self._free)
            if missing > 0:  # room for half as many again: growing copies the store
                room = self._slots + max(missing, min(self._slots // 2, self._count_room() - self._slots))
                self._free += range(room - 1, self._slots - 1, -1)
                self._slots = room
            slots = [self._free.pop() for _ in fresh]
            places = torch.tensor([self._place[column] for column in fresh], device=self._network.device)
            try:
                with memory_errors(f"{self._slots} columns"):
                    for layer in self._layers:
                        layer.save(places, torch.tensor(slots, device=places.device), self._slots)
                self._slot.update(zip(fresh, slots, strict=True))
            except MemoryError:
                self._place = {}
                self._empty_store()
                self.dropped += len(fresh)
        self._place, self._lines, self._used = {}, {}, self._prompt
        self.kept = self._prompt + len(self._slot)

    # ------------------------------------------------------------------------------------------------------ one forward

    def _feed(self, columns: Sequence[int], *, last: bool) -> np.ndarray:
        """Feed columns, parents first, to the end of the workspace and return logits, see `Network.forward`."""
        lines: dict[int, np.ndarray] = {}
        for place, column in enumerate(columns, self._used):
            parent = self._parent[column]
            lines[column] = np.append(lines[parent] if parent in lines else self._find_line(parent), place)
        with memory_errors(f"{self._used + len(columns)} columns of a wave"):
            for layer in self._layers:
                layer.used = self._used
                layer.reserve(self._used + len(columns))
        device = self._network.device
        logits = self._network.forward(
            torch.tensor([[self._token[column] for column in columns]], device=device),
            last=last,
            position_ids=torch.tensor([[self._prompt + len(line) - 1 for line in lines.values()]], device=device),
            attention_mask=self._build_masks(list(lines.values())),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._lines = lines
        self._place.update(zip(columns, range(self._used, self._used + len(columns)), strict=True))
        self._used += len(columns)
        self.cost.forwards += 1
        return logits

    def _find_line(self, column: int) -> np.ndarray:
        """Return the places in the workspace of a prefix, from its first token to its last."""
        if column in self._lines:
            return self._lines[column]
        places = []
        while column:
            places.append(self._place[column])
            column = self._parent[column]
        return np.array(places[::-1], np.int64)

    def _build_masks(self, lines: Sequence[np.ndarray]) -> Tensor | dict[str, Tensor]:
        """Return what some queries, which are the last columns of the workspace, may see."""
        masks = {
            kind: self._build_mask(lines, self._network.window if kind == "sliding_attention" else None)
            for kind in self._network.kinds
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _build_mask(self, lines: Sequence[np.ndarray], window: int | None) -> Tensor:
        """Return the additive mask (1, 1, queries, keys): 0 at prompt, ancestors and itself within the window."""
        dtype, prompt = self._network.dtype, self._prompt
        closed = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)
        mask = np.full((len(lines), self._used + len(lines)), closed, np.float32)
        if window is None:
            mask[:, :prompt] = 0
        else:
            for row, line in enumerate(lines):
                mask[row, max(prompt - max(window - len(line), 0), 0) : prompt] = 0
            lines = [line[-window:] for line in lines]
        mask[np.repeat(np.arange(len(lines)), [len(line) for line in lines]), np.concatenate(lines)] = 0
        return torch.from_numpy(mask)[None, None].to(self._network.device, dtype)

    # ----------------------------------------------------------------------------------------------------------- budget

    def _count_room(self) -> int:
        """Return how many columns beside the prompt the budget has room for."""
        if self._budget is None:
            return len(self._token)
        return max(self._budget // self._bytes - self._prompt, 0)

    def _empty_store(self) -> None:
        """Drop all columns but those of the open wave, which are in the workspace, to gain memory."""
        for layer in self._layers:
            layer.empty()
        self.dropped += len(self._slot.keys() - self._place.keys())
        self._slot, self._free, self._slots = {}, [], 0

    def _choose_dropped(self, fresh: Sequence[int]) -> set[int]:
        """Return the columns, of those stored and some fresh ones, that have to go: leaves, the least used first."""
        held = {*self._slot, *fresh}
        excess = len(held) - self._count_room()
        if excess <= 0:
            return set()
        children = dict.fromkeys(held, 0)  # that are held too
        for column in held:
            if self._parent[column]:
                children[self._parent[column]] += 1
        leaves = [(self._uses[column], column) for column in held if not children[column]]
        heapq.heapify(leaves)
        dropped: set[int] = set()
        while len(dropped) < excess:
            _, column = heapq.heappop(leaves)
            dropped.add(column)
            if parent := self._parent[column]:
                children[parent] -= 1
                if not children[parent]:
                    heapq.heappush(leaves, (self._uses[parent], parent))
        return dropped
