"""Expert sizes and other settings of the models: spellings that are read, and those that are refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixture_of_experts import MoELayer, Router, normalize_expert_sizes
from pipeline.config import parse_expert_sizes
from stateful_mop import MoPConfig, create_babyai_mop_config
from tests.model_forms import ROUTER, WIDTH


@pytest.mark.parametrize(
    "sizes",
    [
        *([], [[]], [[16], []], [16, [32]], [-1], [[16, -32]], [1.5], [[True]], [True], [None]),
        *("", "16;", "a,b", ["16,x"], ["16", 3], "16,-1", [np.float64(2)], 16, {"a": 1}),
    ],
)
def test_impossible_expert_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="expert_hidden_sizes: expected sizes such as"):
        normalize_expert_sizes(sizes)
    with pytest.raises(ValueError, match="expert_hidden_sizes: expected sizes such as"):
        parse_expert_sizes(sizes)


TEXT_OF_SIZES = st.text("0123456789,; -x", max_size=8)


NUMBERS = st.integers(-1, 300) | st.booleans() | st.integers(0, 9).map(np.int64) | TEXT_OF_SIZES


@given(st.lists(NUMBERS | st.lists(NUMBERS, max_size=3) | st.lists(NUMBERS).map(tuple), max_size=3) | TEXT_OF_SIZES)
def test_expert_sizes_are_read_alike_with_and_without_torch(spelled):
    """The model imports nothing of the project, and what reads records imports no torch."""

    def read(function: Callable) -> list[list[int]] | None:
        try:
            return function(spelled)
        except ValueError:
            return None

    assert read(normalize_expert_sizes) == read(parse_expert_sizes)


def test_numpy_sizes_become_plain_integers():
    sizes = normalize_expert_sizes([[np.int64(0), np.int32(16)]])
    assert sizes == parse_expert_sizes([[np.int64(0), np.int32(16)]]) == [[0, 16]]
    assert {type(size) for size in sizes[0]} == {int}


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_experts": 0},
        {"num_experts": 3, "top_k": 0},
        {"num_experts": 3, "top_k": 4},
    ],
)
def test_impossible_routers_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        Router(WIDTH, ROUTER, **arguments)


def test_layer_refuses_a_hidden_state_of_other_experts():
    layer = MoELayer(WIDTH, [2, 3], ROUTER)
    router, experts = layer.init_hidden(1)
    with pytest.raises(ValueError, match="shorter"):
        layer(torch.randn(1, WIDTH), (router, experts[:1]))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["32,64,128", "64,128,256"], [[32, 64, 128], [64, 128, 256]]),
        ("16,32;32,64", [[16, 32], [32, 64]]),
        ("0, 16", [[0, 16]]),
        ([[0, 16], (32, 64)], [[0, 16], [32, 64]]),
        ([16, 32], [[16, 32]]),
    ],
)
def test_sizes_may_be_spelled_in_several_ways(layers, expected):
    assert normalize_expert_sizes(layers) == parse_expert_sizes(layers) == expected
    assert create_babyai_mop_config(layers=layers).layers == expected


def test_mop_config_has_the_paper_s_layers_by_default():
    config = create_babyai_mop_config()
    assert config.layers == [[32, 64, 128], [64, 128, 256]]
    assert (config.input_dim, config.output_dim) == (3 * 7 * 7 + 4 + 1 + 128, 7)


@pytest.mark.parametrize("name", ["input_dim", "num_actions", "intermediate_dim", "router_dim"])
def test_mop_config_refuses_impossible_sizes(name):
    with pytest.raises(ValueError, match="expected at least 1, found 0"):
        create_babyai_mop_config(**{name: 0})


def test_mop_config_refuses_a_norm_it_does_not_know():
    with pytest.raises(ValueError, match=r"expert_norm.*'batch'"):
        MoPConfig(9, 4, 8, 5, [[3]], expert_norm="batch")
