"""Steps of vector environments, compared."""

import numpy as np

from babyai.steps import STEP_FIELDS
from babyai.vector_env import VectorStep

ARRAYS = [name for name, _, _ in STEP_FIELDS]


def assert_same(a: VectorStep, b: VectorStep, but: tuple[str, ...] = ()) -> None:
    for name in ARRAYS:
        if name not in but:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    if "ended" not in but:
        assert a.ended == b.ended
