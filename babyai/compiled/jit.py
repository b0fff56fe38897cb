"""How the compiled world is compiled: with numba, without the interpreter lock, kept on disk between runs."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call and keep the result on disk, beside the source or in NUMBA_CACHE_DIR."""
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
