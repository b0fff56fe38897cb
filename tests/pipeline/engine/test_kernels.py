"""The compiled building blocks against numpy."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from babyai.compiled.jit import SOURCES, digest_sources
from babyai.observations import OBSERVATION_DIM, encode_observations
from pipeline.engine.compiled import jit
from pipeline.engine.compiled.kernels import (
    dot,
    exp,
    gather,
    multiply_add,
    sigmoid,
    tanh,
    total,
    write_observations,
)

F32 = np.float32


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 21),
    depth=st.integers(0, 13),
    width=st.integers(0, 130),
    offsets=st.tuples(*[st.integers(0, 3)] * 3),
    seed=st.integers(0, 2**16),
)
def test_multiply_add_is_a_product_of_blocks(rows, depth, width, offsets, seed):
    a_at, b_at, out_at = offsets
    a, b = draw(rows, a_at + depth + 2, seed=seed), draw(depth, b_at + width + 1, seed=seed + 1)
    out = draw(rows, out_at + width + 3, seed=seed + 2)
    expected = out.astype(np.float64)
    block = a[:, a_at : a_at + depth].astype(np.float64) @ b[:, b_at : b_at + width]
    expected[:, out_at : out_at + width] += block
    multiply_add(a, a_at, depth, b, b_at, width, out, out_at)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    untouched = np.ones(out.shape[1], bool)
    untouched[out_at : out_at + width] = False
    assert (out[:, untouched] == expected[:, untouched].astype(F32)).all()


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b."""
    out = np.zeros((len(a), b.shape[1]), F32)
    multiply_add(a, 0, a.shape[1], b, 0, b.shape[1], out, 0)
    return out


def test_a_row_of_a_product_does_not_depend_on_the_rows_beside_it():
    a, b = draw(19, 37), draw(37, 150, seed=1)
    whole = multiply(a, b)
    for first in range(19):
        for rows in range(1, 20 - first):
            part = multiply(a[first : first + rows].copy(), b)
            assert (part == whole[first : first + rows]).all()


def test_a_number_of_a_product_does_not_depend_on_the_columns_beside_it():
    """All tiles add terms in one order: of three vectors, two, one, and of a part of one."""
    a, b = draw(13, 37), draw(37, 150, seed=1)
    whole = multiply(a, b)
    for first in range(0, 150, 7):
        for width in range(1, 151 - first):
            assert (multiply(a, b[:, first : first + width].copy()) == whole[:, first : first + width]).all()


def test_a_transposed_factor_gives_the_same_bits():
    a, b = draw(13, 37), draw(37, 70, seed=1)
    assert (multiply(np.ascontiguousarray(a.T).T, b) == multiply(a, b)).all()


def test_terms_are_added_in_their_order():
    """1 is lost beside 1e8 in float32 whenever it is added to it, and is not where 1e8 is gone before."""
    b = np.ones((4, 5), F32)
    assert (multiply(np.array([[1e8, 1, -1e8, 0]] * 9, F32), b) == 0).all()
    assert (multiply(np.array([[1e8, -1e8, 1, 0]] * 9, F32), b) == 1).all()


@pytest.mark.parametrize("transposed", [1, 2])
def test_a_product_refuses_what_is_not_row_by_row_in_memory(transposed):
    a, b, out = draw(4, 4), draw(4, 4), draw(4, 4)
    arrays = [a, b, out]
    arrays[transposed] = np.asfortranarray(arrays[transposed])
    with pytest.raises(TypingError, match="row by row"):
        multiply_add(arrays[0], 0, 4, arrays[1], 0, 4, arrays[2], 0)


def test_a_bad_row_of_a_product_stays_alone():
    a, b = draw(6, 8), draw(8, 5, seed=1)
    a[2] = np.nan
    out = multiply(a, b)
    assert np.isnan(out[2]).all()
    assert np.isfinite(np.delete(out, 2, axis=0)).all()


@pytest.mark.parametrize(
    ("function", "exact"), [(sigmoid, lambda x: 1 / (1 + np.exp(-x))), (tanh, np.tanh)], ids=["sigmoid", "tanh"]
)
def test_gates_are_accurate_everywhere(function, exact):
    x = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-2, 2, 4001), [0.0, 1e-30, -1e-30, 3e38, -3e38]])
    x = x.astype(F32)
    found = np.array([function(value) for value in x])
    with np.errstate(over="ignore"):
        assert np.abs(found - exact(x.astype(np.float64))).max() < 2e-7


def test_exp_is_accurate_to_the_last_digits_and_bounded():
    x = np.linspace(-87, 87, 5001).astype(F32)
    found = np.array([exp(value) for value in x], np.float64)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(found - exact) / exact).max() < 4e-7
    assert 0 < exp(F32(-1e30)) < 1e-37
    assert np.isfinite(exp(F32(1e30)))


def test_nan_passes_through_the_gates():
    assert np.isnan(sigmoid(F32(np.nan)))
    assert np.isnan(tanh(F32(np.nan)))


def test_sums():
    a, b = draw(1001), draw(1001, seed=1)
    assert dot(a, b) == pytest.approx(float(a.astype(np.float64) @ b), abs=1e-3)
    assert total(a) == pytest.approx(float(a.astype(np.float64).sum()), abs=1e-3)


def test_gather_is_indexing():
    rows, index = draw(3, 7), np.array([6, 0, 0, 3])
    out = np.empty((3, 4), F32)
    gather(rows, index, out)
    assert (out == rows[:, index]).all()


@pytest.mark.parametrize("width", [OBSERVATION_DIM, OBSERVATION_DIM + 32])
def test_observations_are_written_as_they_are_encoded_elsewhere(width):
    generator = np.random.default_rng(0)
    view = generator.integers(0, 12, (9, 7, 7, 3)).astype(np.uint8)
    direction, carrying = generator.integers(0, 4, 9), generator.random(9) < 0.5
    out = np.full((9, width), -1, F32)
    write_observations(view, direction, carrying, out)
    assert (out[:, :OBSERVATION_DIM] == encode_observations(view, direction, carrying)).all()
    assert (out[:, OBSERVATION_DIM:] == -1).all()


REWARD = """
from babyai.compiled import jit as world
from pipeline.engine.compiled import jit as policy

@world.compiled
def reward(steps, limit):
    return 1 - 0.9 * (steps / limit)

@policy.compiled
def write(out, steps, limit):
    out[0] = reward(steps, limit)
"""


def test_the_world_is_exact_also_within_an_unroll(tmp_path):
    """Fused to one operation, the product and the difference would be 0.465625."""
    path = tmp_path / "reward.py"
    path.write_text(REWARD)
    spec = importlib.util.spec_from_file_location("reward", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out = np.zeros(1)
    module.write(out, 38, 64)
    assert out[0] == 1 - 0.9 * (38 / 64) == 0.46562499999999996


def test_an_unroll_is_compiled_anew_when_the_world_changes():
    sources = {path.name for path in SOURCES}
    assert {"turn.py", "bot.py", "facts.py"} <= sources
    own = [*Path(jit.__file__).parent.glob("*.py")]
    assert jit.SOURCE_STAMP == digest_sources([*own, *SOURCES]) != digest_sources(own)
