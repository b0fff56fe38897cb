"""A process that has set torch's defaults otherwise, as a notebook or another library may."""

import contextlib
from collections.abc import Iterator

import pytest
import torch


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


every_default = pytest.mark.parametrize(
    "defaults",
    [
        pytest.param(lambda: default_dtype(torch.float64), id="float64"),
        pytest.param(lambda: default_dtype(torch.float16), id="float16"),
        pytest.param(lambda: default_device("meta"), id="meta"),
        pytest.param(lambda: torch.autocast("cpu", dtype=torch.bfloat16), id="autocast"),
    ],
)
