"""What interventions did, a row for each run, level, condition and group of steps; as a table, and as a file.

    write_effects("effects.npz", table)
    effects = read_effects("effects.npz")
    effects.to_frame().groupby(["condition", "group"])["kl"].mean()

Analyses read these tables and need neither torch nor minigrid. The file is numpy's .npz without pickled objects: the
header as JSON, and each column of `COLUMNS` as an array.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, tuple[Any, str]] = {
    "run": (np.int32, "index into `runs` of the header"),
    "level_seed": (np.int64, "makes the level again"),
    "condition": (np.int32, "index into `conditions` of the header"),
    "group": (np.int32, "index into `groups` of the header; -1: all steps of the episode"),
    "steps": (np.int32, "steps labelled by the bot, over which the means are"),
    "length": (np.int32, "steps of the episode under the intervention; -1 on replay and for a group"),
    "length_intact": (np.int32, "likewise without it"),
    "success": (np.float32, "1 or 0; NaN on replay and for a group"),
    "success_intact": (np.float32, "likewise without it"),
    "agreement": (np.float32, "share of the steps at which the most probable action is the bot's"),
    "agreement_intact": (np.float32, "likewise without it"),
    "ce": (np.float32, "mean cross-entropy to the bot, nats"),
    "ce_intact": (np.float32, "likewise without it"),
    "kl": (np.float32, "mean KL(intact policy || changed policy), nats; NaN on the policy's own way"),
    "lpc": (np.float32, "mean LPC of the weights by which outputs were multiplied; NaN without routers"),
    "lpc_intact": (np.float32, "likewise without it"),
}
"""Name of each column, type and meaning."""

_LISTS = ("conditions", "runs", "groups")
_INDEX = {"condition": "conditions", "run": "runs", "group": "groups"}


class EffectsError(UserError, ValueError):
    """A file of effects that cannot be used; the message says what was expected."""


_Columns = make_dataclass("_Columns", [(name, np.ndarray) for name in COLUMNS], frozen=True, eq=False)


@dataclass(frozen=True, eq=False)
class EffectTable(_Columns):
    """K rows of effects. Every column of `COLUMNS` is an array (K,).

    Attributes:
        header: `source` (R, on replay, or P, on the policy's own way), `mode`, `task`, `conditions` (each what
            `Intervention.to_dict` returns, with kind, layer, expert, size, control_of), `runs` and `groups`, all plain.
    """

    header: dict[str, Any]

    def __post_init__(self) -> None:
        """Check types, lengths and indices.

        Raises:
            ValueError: If a column does not fit; the message names it.
        """
        rows = len(self.run)
        for name, (dtype, _) in COLUMNS.items():
            found = getattr(self, name)
            if found.shape != (rows,) or found.dtype != dtype:
                raise ValueError(f"{name}: expected {np.dtype(dtype)} ({rows},), found {found.dtype} {found.shape}")
        for name in _LISTS:
            if not isinstance(self.header.get(name), list):
                raise ValueError(f"header: expected a list under {name}, found {self.header.get(name)!r}")
        for name, where in _INDEX.items():
            values, known = getattr(self, name), len(self.header[where])
            low = -1 if name == "group" else 0
            if rows and not (low <= values.min() and values.max() < known):
                raise ValueError(f"{name}: expected {low} to {known - 1}, found {values.min()} to {values.max()}")

    def __len__(self) -> int:
        """Return the number of rows, K."""
        return len(self.run)

    def select(self, rows: np.ndarray) -> EffectTable:
        """Return some rows, by boolean mask (K,) or indices."""
        return EffectTable(**{name: getattr(self, name)[rows] for name in COLUMNS}, header=self.header)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame; condition and group by name (group "all" for the whole episode)."""
        import pandas as pd

        frame = pd.DataFrame({name: getattr(self, name) for name in COLUMNS})
        names = [condition["name"] for condition in self.header["conditions"]]
        groups = [*self.header["groups"], "all"]
        frame["condition"] = pd.Categorical.from_codes(self.condition, names)
        frame["group"] = pd.Categorical.from_codes(np.where(self.group < 0, len(groups) - 1, self.group), groups)
        return frame

    @staticmethod
    def concatenate(tables: Sequence[EffectTable]) -> EffectTable:
        """Return tables of the same conditions and groups as one; runs are numbered on.

        Raises:
            ValueError: If there is none, or their headers differ otherwise than in their runs.
        """
        if not tables:
            raise ValueError("tables: expected at least one, found none")
        rest = [{name: value for name, value in table.header.items() if name != "runs"} for table in tables]
        for other in rest[1:]:
            if differing := sorted(k for k in {*rest[0], *other} if rest[0].get(k) != other.get(k)):
                raise ValueError(f"tables: expected equal headers but for runs, found other {', '.join(differing)}")
        starts = np.cumsum([0, *(len(table.header["runs"]) for table in tables)])
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
        moved = [table.run + start for table, start in zip(tables, starts, strict=False)]
        columns["run"] = np.concatenate(moved).astype(np.int32)
        runs = [run for table in tables for run in table.header["runs"]]
        return EffectTable(**columns, header={**rest[0], "runs": runs})


def build_effects(columns: Mapping[str, Any], header: Mapping[str, Any]) -> EffectTable:
    """Return a table of columns in any numeric type; a column that is not given is unknown, -1 or NaN."""
    rows = len(columns["run"])
    found = {
        name: np.asarray(columns[name]).astype(dtype)
        if name in columns
        else np.full(rows, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)
        for name, (dtype, _) in COLUMNS.items()
    }
    return EffectTable(**found, header=dict(header))


def write_effects(path: str | Path, table: EffectTable) -> None:
    """Write a table atomically; the same table gives the same bytes.

    Raises:
        ValueError: If the header is no plain finite JSON.
    """
    text = json.dumps(table.header, sort_keys=True, allow_nan=False)
    with replace_atomically(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in {"header": np.array(text), **{name: getattr(table, name) for name in COLUMNS}}.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))  # numpy would write the time
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def read_effects(path: str | Path) -> EffectTable:
    """Return the table of a file.

    Raises:
        EffectsError: If it cannot be read or is not what it should be.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
            missing = sorted({"header", *COLUMNS} - set(content.files))
            if missing:
                raise ValueError(f"nothing under {', '.join(missing)}")
            header = json.loads(str(content["header"]))
            if not isinstance(header, dict):
                raise ValueError("its header is no mapping")
            return EffectTable(**{name: content[name] for name in COLUMNS}, header=header)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error)
    reason = " ".join(reason.split())[:300]
    raise EffectsError(f"{path}: {reason}. Expected a file of write_effects; make it again")
