"""Items as bytes that another process of this project can read, though they come from a command's own module.

What a module defines that was started as a command is pickled as of `__main__`, which is another module elsewhere.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from pipeline.command.workers import WorkItem


def pickle_item(item: WorkItem) -> bytes:
    """Return an item, for `pickle.loads`.

    Raises:
        TypeError: If it cannot be pickled.
    """
    written = io.BytesIO()
    try:
        _Pickler(written).dump(item)
    except Exception as error:
        raise TypeError(f"{item.name}: expected a module's function and what can be pickled: {error}") from error
    return written.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__" and (name := _name_main()):
            return _find, (name, thing.__qualname__)
        return NotImplemented


def name_module(function: Any) -> str:
    """Return how the module that has defined a function is imported elsewhere."""
    name = getattr(function, "__module__", None) or ""
    return (_name_main() or name) if name == "__main__" else name


def _name_main() -> str | None:
    """Return how the module that was started is imported elsewhere."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    return None if file is None else Path(file).stem


def _find(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
