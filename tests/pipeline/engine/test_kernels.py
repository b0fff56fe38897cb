"""The compiled building blocks against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyai.observations import OBSERVATION_DIM, encode_observations
from pipeline.engine.compiled.kernels import (
    dot,
    exp,
    gather,
    multiply_add,
    multiply_add_rows,
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
    rows=st.integers(0, 9),
    depth=st.integers(0, 13),
    width=st.integers(0, 35),
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


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 9),
    depth=st.integers(0, 35),
    width=st.integers(0, 8),
    offsets=st.tuples(*[st.integers(0, 3)] * 2),
    seed=st.integers(0, 2**16),
)
def test_multiply_add_rows_is_a_product_with_a_transposed_matrix(rows, depth, width, offsets, seed):
    a_at, out_at = offsets
    a, b = draw(rows, a_at + depth + 2, seed=seed), draw(width, depth, seed=seed + 1)
    out = draw(rows, out_at + width + 3, seed=seed + 2)
    expected = out.astype(np.float64)
    expected[:, out_at : out_at + width] += a[:, a_at : a_at + depth].astype(np.float64) @ b.T
    multiply_add_rows(a, a_at, depth, b, width, out, out_at)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    untouched = np.ones(out.shape[1], bool)
    untouched[out_at : out_at + width] = False
    assert (out[:, untouched] == expected[:, untouched].astype(F32)).all()


def multiply(a: np.ndarray, b: np.ndarray, by_rows: bool) -> np.ndarray:
    """Return a @ b by either of the two products."""
    out = np.zeros((len(a), b.shape[1]), F32)
    if by_rows:
        multiply_add_rows(a, 0, a.shape[1], b.T.copy(), b.shape[1], out, 0)
    else:
        multiply_add(a, 0, a.shape[1], b, 0, b.shape[1], out, 0)
    return out


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_row_of_a_product_does_not_depend_on_the_rows_beside_it(by_rows):
    a, b = draw(11, 37), draw(37, 50, seed=1)
    whole = multiply(a, b, by_rows)
    for first in range(11):
        for rows in range(1, 12 - first):
            part = multiply(a[first : first + rows].copy(), b, by_rows)
            assert (part == whole[first : first + rows]).all()


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_bad_row_of_a_product_stays_alone(by_rows):
    a, b = draw(6, 8), draw(8, 5, seed=1)
    a[2] = np.nan
    out = multiply(a, b, by_rows)
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
