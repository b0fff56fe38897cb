"""Objects in pickles that are plain data in another dress: read as that data, their own code never called.

    with torch.serialization.safe_globals(stand_ins()):
        content = torch.load(path, weights_only=True)

Checkpoints written elsewhere keep numpy numbers, texts and small arrays, paths and argument namespaces in their
configuration. In their place stand functions of this module, which make numbers, texts, lists and dicts and nothing
else, so that no constructor of another library is open to a hostile file. Whatever is not listed here stays refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np


class NotPlainError(ValueError):
    """An object that is no plain data; the message names it."""


class Fields(dict):
    """Stands for an object that is its attributes and nothing more, such as an `argparse.Namespace`."""

    def __setstate__(self, state: Any) -> None:
        """Take the attributes."""
        self.update(state)


class NumpyType:
    """Stands for `numpy.dtype`: a type of numbers or texts."""

    def __init__(self, code: str, *_: Any) -> None:
        """Take what `numpy.dtype` pickles: a code such as i8, and two switches without meaning here."""
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        """Take the byte order.

        Raises:
            NotPlainError: If it is a type of several fields.
        """
        _, self.order, *parts = state[:5]
        if any(part is not None for part in parts):
            raise NotPlainError("a numpy array of records")

    def decode(self, data: bytes) -> np.ndarray:
        """Return values, (n,).

        Raises:
            NotPlainError: If it is a type of other values than numbers and texts.
        """
        kind = np.dtype(self.order + self.code)
        if kind.kind not in "biufcSU":
            raise NotPlainError(f"numpy values of type {kind}")
        return np.frombuffer(data, kind) if kind.itemsize else np.zeros(1, kind)


class NumpyArray:
    """Stands for `numpy.ndarray`; `tolist` gives its values."""

    def __init__(self, *_: Any) -> None:
        """Start empty, whatever numpy would have begun with."""
        self._values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        """Take shape, type and values."""
        _, shape, kind, by_columns, data = state
        if not isinstance(kind, NumpyType) or not isinstance(data, bytes):
            raise NotPlainError("a numpy array of objects")
        values = kind.decode(data) if data else np.zeros(0)
        self._values = values.reshape(shape, order="F" if by_columns else "C")

    def tolist(self) -> Any:
        """Return the values as nested lists, of no dimension the value itself."""
        return self._values.tolist()


def _make_array(kind: type, *_: Any) -> NumpyArray:
    if kind is not NumpyArray:
        raise NotPlainError("an array of another class than numpy's own")
    return NumpyArray()


def _make_number(kind: NumpyType, data: bytes = b"") -> bool | int | float | complex | str | bytes:
    if not isinstance(kind, NumpyType) or not isinstance(data, bytes):
        raise NotPlainError("a numpy object")
    return kind.decode(data)[0].item()


def _make_path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


def _make_windows_path(*parts: str) -> str:
    return str(PureWindowsPath(*parts))


def _make_dict(*_: Any) -> dict:
    return {}  # the entries follow; what missing ones would have been does not count


def _make_bytes(*parts: Any) -> bytes:
    if parts:
        raise NotPlainError("bytes")
    return b""


def _factory(*_: Any) -> None:
    raise NotPlainError("a call of a built-in type")


def stand_ins() -> list[tuple[Callable[..., Any], str]]:
    """Return (what stands for it, full name of a global), as `torch.serialization.safe_globals` takes them."""
    names: dict[Callable[..., Any], tuple[str, ...]] = {
        Fields: ("argparse.Namespace", "types.SimpleNamespace"),
        NumpyType: ("numpy.dtype",),
        NumpyArray: ("numpy.ndarray",),
        _make_array: ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        _make_number: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        _make_path: tuple(f"{m}.{k}" for m in ("pathlib", "pathlib._local") for k in ("PosixPath", "PurePosixPath")),
        _make_windows_path: tuple(
            f"{m}.{k}" for m in ("pathlib", "pathlib._local") for k in ("WindowsPath", "PureWindowsPath")
        ),
        _make_dict: ("collections.defaultdict",),
        _make_bytes: ("builtins.bytes",),
        _factory: tuple(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
    }
    return [(made, name) for made, all_names in names.items() for name in all_names]
