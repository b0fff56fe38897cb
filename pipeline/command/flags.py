"""A flag: a field of settings or one beside them; its name, type and help, and its value, of YAML or of a text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from pipeline.command.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag: a field of the settings, or one that is none.

    Attributes:
        name: Without dashes.
        hint: Type of its value; None: it takes none, and is true where it stands.
        help: What it is for.
        default: Of a field, as YAML has it; None for what is no field.
        aliases: Other spellings of its name.
        read: Makes the value of what is written; None: the type alone says how.
        positional: Whether what stands without a flag is its value; at most one field is.
    """

    name: str
    hint: Any
    help: str
    default: str | None = None
    aliases: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None
    positional: bool = False

    @property
    def is_list(self) -> bool:
        """Whether its value may be a list."""
        return any(get_origin(part) is list for part in _alternatives(self.hint))

    @property
    def metavar(self) -> str:
        """What stands for its value in the help: the choices, or its name."""
        choices = ("true", "false") if self.hint is bool else get_args(self.hint)
        return f"{{{','.join(choices)}}}" if choices and all(isinstance(c, str) for c in choices) else self.name.upper()

    def value_of(self, written: Any, shown: str | None = None) -> Any:
        """Return the value of what YAML has; `shown` is how a message quotes it.

        Raises:
            ConfigError: If it cannot be one.
        """
        if self.read is not None:
            return self.read(written)
        try:
            return _convert(written, self.hint)
        except ValueError:
            found = shown or ("null" if written is None else repr(written))
            raise ConfigError(f"{self.name}: expected {_type_name(self.hint)}, found {found}") from None

    def value_of_text(self, text: str) -> Any:
        """Return the value of what follows the flag."""
        return self.value_of(_load_text(text, self.hint, verbatim=self.read is not None), repr(text))


def fields_of(settings_class: type) -> list[Flag]:
    """Return the flags of a dataclass's fields, explained by the docstrings of it and what it inherits from."""
    hints = get_type_hints(settings_class)
    texts: dict[str, str] = {}
    for base in reversed(settings_class.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= {part.arg_name: part.description or "" for part in docstring_parser.parse(base.__doc__).params}
    flags = []
    for field in dataclasses.fields(settings_class):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        text = " ".join(texts.get(field.name, "").split())
        flags.append(Flag(field.name, hints[field.name], text, in_yaml(default), **field.metadata))
    return flags


def in_yaml(value: Any) -> str:
    """Return a value as one would write it in a YAML file; a dataclass is a mapping of its fields."""
    return value if isinstance(value, str) else json.dumps(value, default=dataclasses.asdict)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)


def _load_text(text: str, hint: Any, *, verbatim: bool) -> Any:
    """Return a text as YAML reads it; where a text is wanted, as it stands, but for null and lists.

    Where only a list of numbers is wanted, its brackets may be left out: `1,2`.
    """
    wanted = _alternatives(hint)
    if not verbatim and wanted in ((list[int],), (list[float],)) and not text.lstrip().startswith("["):
        text = f"[{text}]"
    if verbatim or any(part is str or get_origin(part) is Literal for part in wanted):
        is_list = text.lstrip().startswith("[") and any(get_origin(part) is list for part in wanted)
        if not is_list and not (text == "null" and NoneType in wanted):
            return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _convert(value: Any, hint: Any) -> Any:
    """Return a value as a type asks.

    Raises:
        ValueError: If it is not of the type. A whole number is a float, and so is a text like 1e-4, a number to all but
            YAML 1.1; a truth value is no number.
    """
    for part in _alternatives(hint):
        if get_origin(part) is list and isinstance(value, list):
            return [_convert(entry, get_args(part)[0]) for entry in value]
        if get_origin(part) is Literal and value in get_args(part) and isinstance(value, str):
            return value
        if part is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
        if type(value) is part:
            return value
    raise ValueError


def _type_name(hint: Any) -> str:
    """Return a field's type in words: `float`, `float or null`, `list of int`, `one of moe, mop, gru`."""
    names = []
    for part in _alternatives(hint):
        if get_origin(part) is Literal:
            names.append(f"one of {', '.join(get_args(part))}")
        elif get_origin(part) is list:
            names.append(f"list of {_type_name(get_args(part)[0])}")
        else:
            names.append(part.__name__.replace("NoneType", "null"))
    return " or ".join(names)
