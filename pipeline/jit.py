"""How the policy's step is compiled: with numba, without the interpreter lock, kept on disk between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.types import unliteral

_SOURCES = ("jit", "kernels", "compiled_step", "compiled_backward")
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def _digest_sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


SOURCE_STAMP = _digest_sources()
"""Changes with every change to the compiled modules: numba alone looks at the file of the function itself, and would go
on using a step from disk that contains an old product."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call and keep the result on disk, beside the source or in NUMBA_CACHE_DIR.

    Fused multiply-adds are allowed; other rearrangements of arithmetic are not. A function whose name begins with an
    underscore can be called by compiled code only, which makes it quicker to compile.
    """
    return _compile(function, {"contract", "nsz"})


def compiled_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile likewise a function that sums a vector: terms may be added in the order that is fastest, always one."""
    return _compile(function, {"contract", "nsz", "reassoc"})


def _compile(function: Callable[..., Any], fastmath: set[str]) -> Callable[..., Any]:
    inner = function.__name__.startswith("_")
    dispatcher = numba.njit(fastmath=fastmath, no_cpython_wrapper=inner, **_OPTIONS)(function)
    if hasattr(dispatcher, "get_call_template"):  # not under NUMBA_DISABLE_JIT
        dispatcher._cache._cache_file._source_stamp = SOURCE_STAMP
        find_template = dispatcher.get_call_template

        def find_general_template(args: Any, kwargs: Any) -> Any:
            # numba would compile f(0) and f(n) apart
            return find_template([unliteral(arg) for arg in args], {k: unliteral(v) for k, v in kwargs.items()})

        dispatcher.get_call_template = find_general_template
    return dispatcher
