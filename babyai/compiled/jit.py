"""How the compiled world is compiled: with numba, without the interpreter lock, kept on disk between runs."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call and keep the result on disk, beside the source or in NUMBA_CACHE_DIR.

    A function whose name begins with an underscore can be called by compiled code only: what Python needs in order to
    call a function takes a third of the time to compile it. Nothing compiled here allocates, so that arrays need no
    reference counts either.
    """
    inner = function.__name__.startswith("_")
    options = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": True, "_nrt": False}
    return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
