"""Files of arrays that analyses read: .npz, without pickles, the rest as JSON in a header."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from science.traces import Run, TraceError


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write arrays, compressed."""
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)


def as_header(header: Mapping[str, Any]) -> np.ndarray:
    """Return plain values as an array of a file."""
    return np.array(json.dumps(header))


@contextmanager
def open_npz(path: str | Path, what: str, version: int | None = None) -> Iterator[Any]:
    """Open a file, to be read by the names of its arrays within the block.

    Args:
        path: Of the file.
        what: It should hold, in words.
        version: Its `schema_version`; None: it has none.

    Raises:
        TraceError: If the file cannot be read, is of another version, or what the block makes of it does not fit.
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if version is not None and (found := int(file["schema_version"])) != version:
                raise ValueError(f"version {found}, and not {version}")
            yield file
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TraceError(f"{path}: expected {what}, .npz, found: {error}; make them again") from None


def read_header(file: Any) -> dict[str, Any]:
    """Return the header of an open file; `runs` as runs, of which fields that are not known are left out."""
    header = json.loads(str(file["header"]))
    known = {field.name for field in fields(Run)}
    return {**header, "runs": tuple(Run(**{k: v for k, v in run.items() if k in known}) for run in header["runs"])}
