"""The trees of searches as files, one for each sample, beside the metrics of its run.

    keep_tree(results.path, run, index, result, model.decode)
    read_tree(find_tree(results.path, "toy", "dts", 0))

A tree is columns by node, as in `dts_implementation/search/tree.py`, with the text of each token. Numbers have six
digits. A tree costs about 30 bytes a node, and 0.2 % of the time of a search with the smallest of networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maxent.dts_implementation.search.result import SearchResult
from maxent.dts_implementation.search.tree import OPEN, TERMINAL, TRUNCATED
from pipeline.command.errors import UserError
from pipeline.command.files import write_text

SCHEMA_VERSION = 1
STATUS = {OPEN: "o", TERMINAL: "e", TRUNCATED: "c"}
"""Letter of a node's status: can go on; ended by itself; cut at the length limit."""

COLUMNS = ("parent", "token", "text", "prior", "value", "visits", "choices")

Decode = Callable[[Sequence[int]], str]


class TreeFileError(UserError, ValueError):
    """A kept tree that cannot be read; the message says what was found."""


def find_tree(results: Path, model: str, method: str, index: int) -> Path:
    """Return where the tree of a sample is, by its number from 0."""
    return results.with_suffix("") / f"{model}_{method}" / f"tree_{index}.json"


def keep_tree(results: Path, run: Mapping[str, Any], index: int, result: SearchResult, decode: Decode) -> Path:
    """Write the tree of a sample, whole or not at all, and return where it is.

    Args:
        results: The results file, beside which it lies.
        run: Part of the results of its model and method.
        index: Number of the sample, from 0.
        result: The search.
        decode: Of the model: tokens -> text.

    Raises:
        OSError: If it cannot be written.
    """
    path = find_tree(results, run["model"], run["method"], index)
    write_text(path, json.dumps(describe_tree(result, decode), allow_nan=False, separators=(",", ":")) + "\n")
    return path


def describe_tree(result: SearchResult, decode: Decode) -> dict[str, Any]:
    """Return a tree as plain values.

    - `answer`: the node of the answer; `lam`: lambda.
    - `parent`, `token`: by node, -1 at the root, which is node 0; a parent comes before its children.
    - `text`: place in `texts` of what the token adds to the text; that is "" for special tokens.
    - `prior`: p(token | parent); `value`: soft value, the reward at a leaf, null before the first visit; `visits`.
    - `choices`: number of tokens that the prior allows next, 0 where nothing was asked.
    - `status`: a letter for each node, see `STATUS`.
    """
    tree = result.tree
    speller = Speller(decode)
    text = [speller.place(tree.token[max(tree.parent[node], 0)], tree.token[node]) for node in range(len(tree))]
    return {
        "schema_version": SCHEMA_VERSION,
        "lam": tree.lam,
        "answer": result.best.leaf,
        "parent": list(tree.parent),
        "token": list(tree.token),
        "text": text,
        "prior": [_shorten(one) for one in tree.prior],
        "value": [_shorten(one) if seen else None for one, seen in zip(tree.value, tree.visits, strict=True)],
        "visits": list(tree.visits),
        "choices": [0 if one is None else len(one.ids) for one in tree.distribution],
        "status": "".join(STATUS[one] for one in tree.status),
        "texts": speller.texts,
    }


class Speller:
    """What single tokens add to a text.

    A token is decoded after the one before it, whose text is taken away again: by itself, a word that follows a space
    often loses it, and names of actions would not be apart.

    Args:
        decode: Tokens -> text.

    Attributes:
        texts: Distinct ones.
    """

    def __init__(self, decode: Decode) -> None:
        self.texts: list[str] = []
        self._decode = decode
        self._places: dict[str, int] = {}
        self._alone: dict[int, str] = {}
        self._pairs: dict[tuple[int, int], int] = {}

    def place(self, before: int, token: int) -> int:
        """Return the place in `texts` of what a token adds; `before` is -1 if it is the first, `token` at the root."""
        pair = (before, token)
        if pair not in self._pairs:
            text = self._spell(before, token)
            if text not in self._places:
                self._places[text] = len(self.texts)
                self.texts.append(text)
            self._pairs[pair] = self._places[text]
        return self._pairs[pair]

    def _spell(self, before: int, token: int) -> str:
        if token < 0:
            return ""
        for one in (before, token):
            if one >= 0 and one not in self._alone:
                self._alone[one] = self._decode([one])
        if before < 0:
            return self._alone[token]
        both, first = self._decode([before, token]), self._alone[before]
        return both[len(first) :] if both.startswith(first) else self._alone[token]


def read_tree(path: Path) -> dict[str, Any] | None:
    """Return a kept tree, None if there is none.

    Raises:
        TreeFileError: If it cannot be used.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TreeFileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise TreeFileError(f"{path}: expected the tree of a sample, found no JSON ({error})") from None
    if not isinstance(tree, dict) or tree.get("schema_version") != SCHEMA_VERSION:
        found = tree.get("schema_version") if isinstance(tree, dict) else type(tree).__name__
        raise TreeFileError(f"{path}: expected a tree of schema_version {SCHEMA_VERSION}, found {found!r}")
    _check(tree, path)
    return tree


def _check(tree: dict[str, Any], path: Path) -> None:
    """Refuse a tree whose columns do not fit together.

    Raises:
        TreeFileError: If that is so.
    """
    if missing := [name for name in (*COLUMNS, "status", "texts", "answer", "lam") if name not in tree]:
        raise TreeFileError(f"{path}: {missing[0]!r} is missing")
    count = len(tree["status"])
    if wrong := [name for name in COLUMNS if not isinstance(tree[name], list) or len(tree[name]) != count]:
        raise TreeFileError(f"{path}: expected {count} nodes in each column, found others in {wrong[0]}")
    try:
        parents = count > 0 and all(-1 < parent < node for node, parent in enumerate(tree["parent"]) if node)
        texts = all(0 <= place < len(tree["texts"]) for place in tree["text"])
        whole = parents and texts and 0 <= tree["answer"] < count
    except TypeError:
        whole = False
    if not whole:
        raise TreeFileError(f"{path}: its nodes do not make a tree")


def _shorten(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
