"""The memory of packed columns: whatever is dropped or does not fit, logits stay those of plain passes."""

import numpy as np
import pytest
import torch

from maxent.dts_implementation.models import packed_cache
from maxent.dts_implementation.models.more_model import MoreSequenceModel
from maxent.dts_implementation.models.network import Network
from maxent.dts_implementation.models.packed_cache import PackedCache
from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel
from tests.maxent_networks import build_model, build_more, build_network, walk
from tests.maxent_passes import PROMPT, assert_plain, assert_same, read_plainly, run


def count_bytes(network) -> int:
    """Return the bytes of a column of one of the small models."""
    config = network.config
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("room", [0, 1, 12, 10_000])
def test_dropped_columns_are_computed_again_when_they_are_met(name, room):
    network = build_network(name)
    budget = (len(PROMPT) + room) * count_bytes(network) / 2**20
    free, tight = (HuggingFaceModel(network, kv="packed", kv_budget_mb=mb) for mb in (None, budget))
    settings = {"num_rollouts": 24, "lam": 0.02}
    expected, found = run(free, **settings), run(tight, **settings)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new
    assert tight.prefixes.kept == len(PROMPT) + min(room, found.cost.new)
    assert (tight.prefixes.dropped > 0) == (room < found.cost.new)
    assert tight.cost.recomputed > 0 or room > 1
    assert tight.prefixes.dropped > 0 or tight.cost.recomputed == 0
    assert free.prefixes.dropped == free.cost.recomputed == 0
    assert_plain(walk(tight, PROMPT), network)


def test_what_waves_go_on_from_most_is_kept():
    network = build_network()
    cache = PackedCache(Network(network), budget=(len(PROMPT) + 2) * count_bytes(network))
    cache.start(torch.tensor([PROMPT]))
    cache.open([()])
    cache.step([10, 11, 12], [0, 0, 0])
    cache.close()  # one of three has to go, the oldest
    assert (cache.kept - len(PROMPT), cache.dropped) == (2, 1)
    for _ in range(2):
        cache.open([(2,)])
        cache.close()
    assert cache.cost.recomputed == 0
    cache.open([(1,)])  # which is gone
    assert cache.cost.recomputed == 1
    cache.close()  # 1 was used once, 3 never
    cache.open([(1,), (2,)])
    assert cache.cost.recomputed == 1
    cache.close()
    cache.open([(3,)])
    assert cache.cost.recomputed == 2
    cache.close()


def test_dropped_columns_are_read_in_chunks_that_fit(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network), budget=0)
    plain = walk(cache, torch.tensor([PROMPT]))
    refuse_long_passes(monkeypatch, most=4)
    narrow = walk(cache, torch.tensor([PROMPT]))
    for prefix, logits in plain.items():
        np.testing.assert_allclose(narrow[prefix], logits, rtol=0, atol=1e-4)


def test_the_store_is_given_up_when_a_single_row_does_not_fit(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network))
    cache.start(torch.tensor([PROMPT]))
    cache.open([()])
    cache.step([10, 11], [0, 0])
    cache.close()
    forward, calls = Network.forward, []

    def once_full(self, inputs, **arguments):
        calls.append(inputs.shape[1])
        if len(calls) == 1:
            raise MemoryError
        return forward(self, inputs, **arguments)

    monkeypatch.setattr(Network, "forward", once_full)
    cache.open([(1,)])
    (logits,) = cache.step([12], [1])
    cache.close()
    np.testing.assert_allclose(logits, read_plainly(network, PROMPT, (10, 12))[-1], atol=1e-4)
    assert (calls, cache.dropped, cache.kept) == ([1, 1], 1, len(PROMPT) + 2)
    cache.open([(2,)])
    assert cache.cost.recomputed == 1
    cache.close()


def test_what_cannot_be_stored_is_read_again(monkeypatch):
    network = build_network()
    cache = PackedCache(Network(network))
    enlarge = packed_cache._enlarge
    monkeypatch.setattr(packed_cache, "_enlarge", lambda *sizes: enlarge(*sizes) if sizes[1] == 2 else _Full()())
    assert_plain(walk(cache, torch.tensor([PROMPT])), network)
    assert cache.kept == len(PROMPT) and cache.cost.recomputed > 0
    assert cache.dropped == cache.cost.new + cache.cost.recomputed


def refuse_long_passes(monkeypatch, most: int) -> list[int]:
    """Let passes of more tokens than so many run out of memory, past the prompt; return the sizes of those that ran."""
    sizes: list[int] = []
    forward = Network.forward

    def limited(self, inputs, **arguments):
        held = arguments["past_key_values"].layers if "past_key_values" in arguments else []
        if not held or inputs.shape[1] <= most:
            sizes.append(inputs.shape[1])
            return forward(self, inputs, **arguments)
        model, self.model = self.model, _Full()
        try:
            return forward(self, inputs, **arguments)
        finally:
            self.model = model

    monkeypatch.setattr(Network, "forward", limited)
    return sizes


class _Full:
    def __call__(self, **arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_step_that_does_not_fit_changes_nothing_and_is_asked_for_in_parts(monkeypatch):
    model = build_model()
    expected = run(model, wave=12)
    refuse_long_passes(monkeypatch, most=3)
    found = run(model, wave=12)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new
    assert found.cost.forwards > expected.cost.forwards
    refuse_long_passes(monkeypatch, most=0)  # what is stored is given up, in vain
    with pytest.raises(MemoryError, match="--wave, --kv_budget_mb or --max_tokens"):
        run(model)


def test_branches_that_do_not_fit_together_are_read_in_parts(monkeypatch):
    network = build_more("more_a")
    model = MoreSequenceModel(network)
    expected = run(model, wave=12)
    compute = type(network).compute_features

    def limited(self, tokens, **arguments):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, tokens, **arguments)

    monkeypatch.setattr(type(network), "compute_features", limited)
    found = run(model, wave=12)
    assert_same(found, expected)
    assert found.cost.new == expected.cost.new
