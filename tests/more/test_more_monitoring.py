"""What is told of routers while they train: load, dead experts, entropy."""

import math

import pytest
import torch

from mixture_of_experts import MixtureOfExpertsPolicy, Router, RouterTerms, compute_router_terms
from more.monitoring import RouterFigures, RouterSums


def terms(load: list[float]) -> RouterTerms:
    values = torch.tensor(load)
    return RouterTerms(values, values, torch.tensor(0.5), torch.tensor(1.0), torch.tensor(2.0))


def figures_of(decided: RouterTerms) -> RouterFigures:
    sums = RouterSums()
    sums.add([decided])
    return sums.take()[0]


def test_figures_of_a_router_by_hand():
    even = figures_of(terms([0.25] * 4))
    assert (even.load_cv, even.dead_experts, even.entropy) == (0.0, 0, 0.5)
    alone = figures_of(terms([1.0, 0.0, 0.0, 0.0]))
    assert alone.load_cv == pytest.approx(math.sqrt(3))
    assert alone.dead_experts == 3
    assert figures_of(terms([0.5, 0.48, 0.02])).dead_experts == 1


def test_figures_are_averaged_by_weight():
    sums = RouterSums()
    assert sums.take() == []
    sums.add([terms([1.0, 0.0])], weight=3)
    sums.add([terms([0.0, 1.0])], weight=1)
    assert sums.take()[0].load == pytest.approx((0.75, 0.25))
    assert sums.take() == []


def test_the_same_figures_watch_routers_of_both_sides():
    generator = torch.Generator().manual_seed(0)
    language = Router(8, 0, 4, recurrent=False, top_k=1)
    policy = MixtureOfExpertsPolicy(6, 8, [[0, 4, 4]], 5, 7, lang_dim=2).moe_layers[0].router
    for router, experts in ((language, 4), (policy, 3)):
        figures = figures_of(compute_router_terms(router(torch.randn(10, 8, generator=generator))))
        assert len(figures.load) == experts
        assert sum(figures.load) == pytest.approx(1)
        assert 0 <= figures.entropy <= math.log(experts) + 1e-6
