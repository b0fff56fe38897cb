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


@contextlib.contextmanager
def product_precision(name: str) -> Iterator[None]:
    products = torch.backends.mkldnn.matmul
    before, products.fp32_precision = products.fp32_precision, name
    try:
        yield
        assert products.fp32_precision == name  # put back by whoever changed it meanwhile
    finally:
        products.fp32_precision = before


every_default = pytest.mark.parametrize(
    "defaults",
    [
        pytest.param(lambda: default_dtype(torch.float64), id="float64"),
        pytest.param(lambda: default_dtype(torch.float16), id="float16"),
        pytest.param(lambda: default_device("meta"), id="meta"),
        pytest.param(lambda: product_precision("bf16"), id="products"),
        pytest.param(lambda: torch.autocast("cpu", dtype=torch.bfloat16), id="autocast"),
    ],
)
