"""What logits are held to: plain passes, and searches that keep nothing."""

import numpy as np
import pytest
import torch

from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchResult, SearchSettings
from tests.maxent_toys import make_reward

PROMPT = [5, 9, 23, 41, 8, 17, 30, 11, 58, 3, 44]
PRIOR = Prior(temperature=1.0, top_k=8, top_p=0.95)


@torch.no_grad()
def read_plainly(network, prompt: list[int], prefix: tuple[int, ...]) -> np.ndarray:
    """Return the logits after each token of prompt and prefix, (time, vocabulary): one pass that keeps nothing."""
    tokens = torch.tensor([[*prompt, *prefix]])
    return (network(tokens) if not hasattr(network, "generate") else network(tokens, use_cache=False)).logits[0].numpy()


def assert_plain(found: dict[tuple[int, ...], np.ndarray], network, prompt: list[int] = PROMPT) -> None:
    """Hold a walk's logits to plain passes."""
    for prefix, logits in found.items():
        plain = read_plainly(network, prompt, prefix)[-1]
        np.testing.assert_allclose(logits, plain, rtol=0, atol=1e-5 * max(1.0, np.abs(plain).max()))
    assert max(map(len, found)) > 10


def run(model, prompt=PROMPT, **changes) -> SearchResult:
    """Search with an untrained model, few rollouts and a reward of any answer."""
    values = {"num_rollouts": 12, "max_tokens": 10, "wave": 4, "prior": PRIOR, **changes}
    return search(model, prompt, make_reward(), SearchSettings(**values))


def assert_same(one: SearchResult, other: SearchResult) -> None:
    """Hold two searches to the same answers, their probabilities to rounding."""
    assert [r.tokens for r in one.rollouts] == [r.tokens for r in other.rollouts]
    for left, right in zip(one.rollouts, other.rollouts, strict=True):
        assert left.log_p == pytest.approx(right.log_p, abs=1e-4)
        assert left.log_q == (None if right.log_q is None else pytest.approx(right.log_q, abs=1e-4))
