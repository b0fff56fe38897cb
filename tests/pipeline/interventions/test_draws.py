"""Numbers drawn from keys: functions of the keys alone, and evenly spread."""

import numpy as np

from pipeline.interventions.draws import draw_directions, draw_uniform, mix_keys


def test_a_key_gives_the_same_numbers_in_any_company():
    keys = mix_keys(5, np.arange(100), 7)
    numbers = draw_uniform(keys, 3)
    np.testing.assert_array_equal(draw_uniform(keys[[40, 2]], 3), numbers[[40, 2]])
    np.testing.assert_array_equal(draw_uniform(mix_keys(5, 40, 7), 3), numbers[40])
    np.testing.assert_array_equal(draw_uniform(keys, 2), numbers[:, :2])


def test_keys_tell_every_part_and_their_order_apart():
    parts = np.arange(50)
    keys = mix_keys(parts[:, None, None], parts[:, None], parts)
    assert len(np.unique(keys)) == keys.size
    assert mix_keys(1, 2) != mix_keys(2, 1)
    assert mix_keys(-1) != mix_keys(1)


def test_uniform_numbers_are_uniform_and_uncorrelated():
    numbers = draw_uniform(mix_keys(3, np.arange(20_000)), 4)
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = np.apply_along_axis(lambda column: np.histogram(column, 20, (0, 1))[0], 0, numbers)
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    between = np.corrcoef(numbers.T) - np.eye(4)
    along = [np.corrcoef(column[:-1], column[1:])[0, 1] for column in numbers.T]
    assert np.abs(between).max() < 0.04 and np.abs(along).max() < 0.04


def test_directions_are_unit_vectors_that_favour_none():
    for width in (1, 5, 8):
        directions = draw_directions(mix_keys(width, np.arange(20_000)), width)
        assert directions.shape == (20_000, width)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
        moments = directions.T @ directions / len(directions)
        np.testing.assert_allclose(moments, np.eye(width) / width, atol=0.02)
        assert np.abs(directions.mean(axis=0)).max() < 0.03
