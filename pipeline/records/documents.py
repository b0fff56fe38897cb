"""The declared columns as documents: the tables of docs/cache.md and the entries of the JSON schema.

python -m pipeline.records.documents        # brings both up to date with pipeline/records/columns.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.records.columns import EPISODES, FIRST_EVENTS, STEPS, WEIGHTS, Column

PAGE = Path(__file__).parents[2] / "docs" / "cache.md"
SCHEMA = Path(__file__).with_name("routing_data.schema.json")

_TYPES = {"U": ("text", "string"), "b": ("bool", "boolean"), "i": ("int", "integer"), "f": ("float", "number")}
"""How a page and a JSON schema call the types of numpy."""


def describe_columns(columns: Iterable[Column]) -> str:
    """Return a table in Markdown of what each column is in the file, in memory, and what it means."""
    rows = ["| field | in the file | in memory | unit | from | meaning |", "|---|---|---|---|---|---|"]
    for column in columns:
        keys = ", ".join(f"`{key}`" for key in column.keys)
        memory = "text" if column.dtype.kind == "U" else str(column.dtype)
        if column is WEIGHTS:
            memory += ", an array per layer"
        elif column.shape:
            memory += f" ({', '.join('actions' if width is None else str(width) for width in column.shape)})"
        if column.keys != (column.name,):
            memory = f"`{column.name}`, {memory}"
        meaning = column.meaning + (f"; null: {column.null}" if column.null else "")
        if column in FIRST_EVENTS and columns is STEPS:
            memory, meaning = "", "of the episode, see above"
        rows.append(f"| {keys} | {_file_type(column)} | {memory} | {column.unit} | {column.source} | {meaning} |")
    return "\n".join(rows)


def _file_type(column: Column) -> str:
    if column is WEIGHTS:
        return "object"
    if column.parts:
        return f"[{', '.join(column.parts)}]"
    kind = _TYPES[_plain_kind(column)][0]
    return f"{kind}s" if column.shape == (None,) else kind


def _plain_kind(column: Column) -> str:
    """Return numpy's letter for the type of the values under a column's keys in the file."""
    if column.labels:
        return "b" if set(column.labels.values()) <= {False, True} else "U"
    return "U" if column.names else column.dtype.kind


def build_property(column: Column) -> dict[str, Any]:
    """Return the JSON schema of the values under a column's keys."""
    kind, null = _plain_kind(column), [] if column.required else ["null"]
    if column is WEIGHTS:
        layers = {"^layer_(0|[1-9][0-9]*)$": {"$ref": "#/$defs/numbers"}}
        return {"type": "object", "patternProperties": layers, "additionalProperties": False}
    if column.shape == (2,):
        return {"$ref": "#/$defs/cell"}
    if column.shape == (None,):
        return {"anyOf": [{"$ref": "#/$defs/numbers"}, {"type": "null"}]}
    if column.labels and kind == "U":
        return {"enum": [*column.labels.values(), None]}
    found: dict[str, Any] = {"type": [_TYPES[kind][1], *null] if null else _TYPES[kind][1]}
    limits = zip(("minimum", "maximum"), column.limits, strict=True) if kind in "if" else ()
    return found | {word: limit for word, limit in limits if limit is not None}


def update_page(text: str) -> str:
    """Return docs/cache.md with the tables of today's columns."""
    for name, columns in (("episodes", EPISODES), ("steps", STEPS)):
        table = f"<!-- {name} -->\n{describe_columns(columns)}\n<!-- end -->"
        text, found = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _, table=table: table, text, flags=re.S)
        if not found:
            raise ValueError(f"{PAGE}: expected <!-- {name} --> ... <!-- end -->, found none")
    return text


def update_schema(text: str) -> str:
    """Return the JSON schema with the entries of today's columns."""
    schema = json.loads(text)
    parts = schema["$defs"]
    for part, columns in ((parts["episode"], EPISODES), (parts["step"], STEPS)):
        own = {key: build_property(column) for column in columns for key in column.keys}
        part["required"] = list(own)
        part["properties"] = own
    parts["episode"]["properties"] |= parts["env_context"]["properties"]
    parts["step"]["properties"] |= {"env_context": {"$ref": "#/$defs/env_context"}}
    return _dump(schema) + "\n"


def _dump(value: Any, indent: str = "") -> str:
    """Return JSON in which what fits into a line stands in one."""
    line = json.dumps(value)
    if len(indent) + len(line) <= 100 or not isinstance(value, dict | list):
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(key)}: {_dump(entry, deeper)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + _dump(entry, deeper) for entry in value) + f"\n{indent}]"


def main() -> int:
    """Write both files; return the exit code."""
    for path, update in ((PAGE, update_page), (SCHEMA, update_schema)):
        text = path.read_text(encoding="utf-8")
        if update(text) != text:
            path.write_text(update(text), encoding="utf-8")
            print(f"{path}: brought up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
