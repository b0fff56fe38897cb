"""Functions that `torch.compile` calls as they are, without what that costs where nothing is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def not_traced(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that is called, not traced, within a compiled model.

    `torch.compiler.disable` does the same and loads the compiler at once, 0.9 s for every process that reads a model;
    this loads it when something is compiled.
    """
    untraced = torch._disable_dynamo(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return untraced(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

    return call
