"""The columns of `evaluation_results.csv`: what each holds, and how its cells are written and read.

to_cell("lpc_alpha", 1e-5)                       # "1e-05"
from_cell("task_weights", "[1, 1, 2]")           # [1.0, 1.0, 2.0]
"""

from __future__ import annotations

import ast
import json
import math
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import parse_expert_sizes
from pipeline.mixtures import parse_weights

_FLOATS = frozenset(
    "success_rate path_ratio mean_lpc lr lpc_alpha lpc_eps lpc_exponent success_low success_high path_ratio_median "
    "mean_lpc_per_episode mean_lpc_success mean_lpc_failure mean_lpc_timeout agreement mean_steps expert_action_prob "
    "solo_env_share grad_clip expert_dropout_beta expert_dropout_gamma".split()
)
_BOOLS = frozenset("normalize_lpc expert_dropout train_lang_proj has_routing".split())
_RATES = frozenset("success_rate success_low success_high agreement".split())
_LISTS = frozenset(["expert_hidden_sizes", "task_weights", "trained_levels", "train_only"])
_TEXTS = frozenset(
    "checkpoint_path task_id evaluated_at policy lpc_denominator expert_norm lang_encoder checkpoint_digest "
    "eval_task_id task_input obs_encoding eval_actions mission_fusion action_selection start_from".split()
)
_PATHS = frozenset(["checkpoint_path", "start_from"])

FIRST_COLUMNS = tuple(
    "checkpoint_path task_id trial num_episodes success_rate path_ratio mean_lpc bot_plan_failures num_updates "
    "unroll_len lr lpc_alpha expert_hidden_sizes intermediate_dim router_hidden_size max_steps lang_dim "
    "evaluated_at".split()
)
"""What every reader of these files knows, in this order."""

COLUMNS = (
    *FIRST_COLUMNS,
    *"seed update policy hidden_size normalize_lpc lpc_denominator lpc_eps lpc_exponent expert_norm expert_dropout "
    "lang_encoder train_lang_proj successes failures timeouts success_low success_high path_ratio_median path_ratio_n "
    "mean_lpc_per_episode mean_lpc_success mean_lpc_failure mean_lpc_timeout agreement labelled_steps mean_steps "
    "total_steps eval_seed checkpoint_digest has_routing eval_task_id trained_levels task_weights task_input "
    "obs_encoding expert_action_prob solo_env_share eval_actions mission_fusion num_envs grad_clip action_selection "
    "expert_action_decay expert_dropout_beta expert_dropout_gamma plan_every trained_max_steps start_from "
    "train_only".split(),
)
"""The columns of a new file; one with other columns keeps them at its end."""

OF_TRAINING = {"task_id": "trained_levels", "max_steps": "trained_max_steps"}
"""Columns of settings of the training, by setting, where the evaluation has one of that name too."""

_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_NOTHING = frozenset(["", *"nan na n/a <na> none null inf +inf -inf infinity -infinity".split()])
"""How other writers spell what is not known, or an average over nothing; in any case. Not of texts."""

TEXT = pd.StringDtype("python")  # pyarrow's cannot hold file names that are no Unicode


def to_cell(name: str, value: Any) -> str:
    """Return a value as the cell of its column.

    Raises:
        ValueError: If it is not finite, a whole number of more than 64 bits, or a text that no file can hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, or None where there is none, found {value}")
    if isinstance(value, int) and not _fits(value):
        raise ValueError(f"{name}: expected a number of 64 bits, found {value}")
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, allow_nan=False)
    text = str(value)
    try:
        text.encode("utf-8", "surrogateescape")  # names of files may be no Unicode
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected a text in UTF-8, found {text!r}") from None
    return text


def _fits(whole: int) -> bool:
    """Return whether a whole number can be read back, as Int64."""
    return -(2**63) <= whole < 2**63


def from_cell(name: str, cell: str) -> Any:
    """Return what a cell holds, None if that is not known; of a column that is none of `COLUMNS` the text.

    Raises:
        ValueError: If it is not what its column holds; OverflowError and RecursionError of extreme ones.
    """
    if name not in COLUMNS or name in _TEXTS:
        if name == "task_id" and not cell:
            raise ValueError
        if name in _TEXTS - _PATHS:  # names of files may be no Unicode; others are drawn
            cell.encode()
        return cell or None
    cell = cell.strip()
    if cell.lower() in _NOTHING:
        return None
    if name in _BOOLS and cell.lower() in _TRUTH:
        return _TRUTH[cell.lower()]
    if name in _LISTS:
        return _parse_list(name, cell)
    if name in _FLOATS:
        number = float(cell)
        if math.isfinite(number) and (name not in _RATES or 0 <= number <= 1):
            return number
    elif name not in _BOOLS:
        number = float(cell)
        if number.is_integer():  # pandas writes whole numbers as 100.0 where others are missing
            whole = int(number) if "." in cell or "e" in cell.lower() else int(cell)
            if _fits(whole):
                return whole
    raise ValueError


def _parse_list(name: str, value: Any) -> list[Any]:
    """Return the list of a cell, or from what other code took from one: expert sizes per layer, [] without routers.

    Raises:
        ValueError: If it is not one of its column.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "(")):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:  # as Python writes lists of texts, and tuples
            try:
                value = ast.literal_eval(value.strip())
            except (SyntaxError, MemoryError):
                raise ValueError from None
    if name == "expert_hidden_sizes":
        return [] if value == [] else parse_expert_sizes(value)
    if name == "task_weights":
        return parse_weights(value)
    if not isinstance(value, list | tuple) or not all(isinstance(level, str) for level in value):
        raise ValueError
    return list(value)


def build_column(name: str, values: list[Any], index: pd.Index | None) -> pd.Series:
    """Return values as the column that `read_results` gives, or as they stand where they are none of its kind."""
    try:
        if name in _LISTS:
            values = [None if value is None else _parse_list(name, value) for value in values]
        return pd.Series(values, index, dtype=dtype(name))
    except (TypeError, ValueError):
        return pd.Series(values, index, dtype=object)


def is_typed(values: pd.Series, name: str) -> bool:
    """Return whether a column is as `read_results` gives it."""
    lists = name not in _LISTS or all(value is None or _is_list(name, value) for value in values)
    return values.dtype == dtype(name) and lists


def _is_list(name: str, value: Any) -> bool:
    kinds = {"expert_hidden_sizes": list, "task_weights": float}
    return isinstance(value, list) and all(isinstance(part, kinds.get(name, str)) for part in value)


def dtype(name: str) -> Any:
    """Return the type of a column in a DataFrame."""
    if name in _LISTS or name not in COLUMNS:
        return object
    return "float64" if name in _FLOATS else "boolean" if name in _BOOLS else TEXT if name in _TEXTS else "Int64"


def kind(name: str) -> str:
    """Return in words what a cell of a column is to hold."""
    kinds = (
        (_RATES, "a number from 0 to 1"),
        (_FLOATS, "a finite number"),
        (_BOOLS, "true or false"),
        (("expert_hidden_sizes",), "sizes such as [[0, 16, 32], [0, 16, 32]]"),
        (("task_weights",), "weights such as [1.0, 1.0, 2.0]"),
        (("trained_levels",), 'levels such as ["BabyAI-GoToObj-v0", "BabyAI-PickupLoc-v0"]'),
        (("train_only",), 'parts such as ["router", "head"]'),
        (_TEXTS, "a text in UTF-8"),
    )
    return next((kind for names, kind in kinds if name in names), "a whole number")
