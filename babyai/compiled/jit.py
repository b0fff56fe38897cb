"""How the compiled world is compiled: with numba, without the interpreter lock, kept on disk between runs."""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba

from babyai import facts, steps
from babyai.compiled.disk import DiskCache
from babyai.compiled.parts import use_as_part


def digest_sources(paths: Iterable[Path]) -> str:
    """Return what changes with every change to any of the files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_CODES = Path(facts.__file__), Path(steps.__file__)  # constants in what is compiled
SOURCES = [*Path(__file__).parent.glob("*.py"), *_CODES]
"""What the compiled world is made of."""

SOURCE_STAMP = digest_sources(SOURCES)
"""Changes with every change to any of them: what is on disk is then compiled anew."""


def compile_to_disk(function: Callable[..., Any], stamp: str, **options: Any) -> Callable[..., Any]:
    """Compile a function on its first call from Python and keep the result on disk, see `babyai.compiled.disk`.

    For other compiled functions it is a part, see `babyai.compiled.parts`.

    Args:
        function: Holds no interpreter lock while it runs.
        stamp: What is on disk under another stamp is not used. The file of the function itself would not tell: what is
            compiled contains the functions that it calls.
        options: Of numba.njit.
    """
    options |= {"no_cfunc_wrapper": True, "error_model": "numpy"}
    dispatcher = numba.njit(nogil=True, **options)(function)
    if hasattr(dispatcher, "get_call_template"):  # not under NUMBA_DISABLE_JIT
        dispatcher._cache = DiskCache(Path(inspect.getfile(function)), function.__qualname__, stamp)
        use_as_part(dispatcher, function, options)
    return dispatcher


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of the world, see `compile_to_disk`; it must not allocate: arrays have no reference counts.

    Arithmetic is exact whoever calls it: numba would take it over from a caller with faster arithmetic.
    """
    return compile_to_disk(function, SOURCE_STAMP, _nrt=False, fastmath=False)
