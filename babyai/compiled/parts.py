"""Compiled functions as parts of others: typed and lowered once, optimised only within what Python calls.

numba optimises a function and makes machine code of it before it becomes part of its caller, where both are done again,
and so on up to the function that Python calls. With ten levels of functions that was half the time to compile
(docs/LOG.md). A part stops before: it holds the function's LLVM code as lowered, for its callers to be linked with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.types import unliteral


class _Part(JITCodeLibrary):
    """The code of a function that is neither optimised nor loaded."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return no address."""
        return 0

    @property
    def codegen(self) -> _Part:
        """Whoever is asked to keep a function's environment: nobody, as there is nothing loaded that could use it."""
        return self

    def set_env(self, name: str, env: object) -> None:
        """Do nothing."""


class _PartCompiler(Compiler):
    """Compiles into a `_Part`."""

    def __init__(self, typingctx: Any, targetctx: Any, library: None, *rest: Any) -> None:
        super().__init__(typingctx, targetctx, library, *rest)
        self.state.library = _Part(targetctx.codegen(), "part")


def use_as_part(dispatcher: Any, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Let compiled code that calls a dispatcher's function have it as a part.

    A part is made once for all numbers that it is called with, where numba would compile `f(0)` and `f(1)` apart.

    Args:
        dispatcher: What Python calls.
        function: Its function.
        options: Of numba.njit.
    """
    part = numba.njit(nogil=True, pipeline_class=_PartCompiler, **{**options, "no_cpython_wrapper": True})(function)
    find_template = part.get_call_template

    def find_general_template(args: Any, kwargs: Any) -> Any:
        return find_template([unliteral(arg) for arg in args], {k: unliteral(v) for k, v in kwargs.items()})

    dispatcher.part = part
    dispatcher.get_call_template, dispatcher.get_overload = find_general_template, part.get_overload
