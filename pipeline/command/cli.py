"""Command lines: a dataclass of settings, read from a YAML file and flags, with an error message for every mistake.

    python train_mop.py --config config.yaml --seed 3 --lpc_alpha 1e-4

Precedence is flag > YAML > default, wherever `--config` stands. Every field is a flag; its value is read as YAML reads
it, its explanation is that of the dataclass's docstring. A field of type bool may stand without a value, for true.

What a field's type does not say, its `dataclasses.field(metadata=...)` does: `aliases`, other spellings of its name,
and `read`, a function that makes the value of what is written and raises `ConfigError`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from pipeline.command.errors import ConfigError
from pipeline.command.shell import EXIT_CODES

Settings = TypeVar("Settings")


def check_numbers(settings: object, least: int, *names: str) -> None:
    """Refuse settings that are below a number, 0 or 1; null is none.

    Args:
        settings: Dataclass with these fields.
        least: For integers; a float must be finite and above 0, or with 0 at least that.
        *names: Of the fields.

    Raises:
        ConfigError: If one is.
    """
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, float) and not (math.isfinite(value) and (value > 0 or least == value == 0)):
            raise ConfigError(f"{name}: expected a positive number, found {value!r}")
        if isinstance(value, int) and value < least:
            raise ConfigError(f"{name}: expected at least {least}, found {value!r}")
        if isinstance(value, int) and value >= 2**63:  # as large as results and tables can hold
            raise ConfigError(f"{name}: expected less than 2^63, found {value!r}")


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are told as those of all commands are."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True)
class _Flag:
    """A flag: a field of the settings, or one that is none.

    Attributes:
        name: Without dashes.
        hint: Type of its value; None: it takes none, and is true where it stands.
        help: What it is for, with its default.
        aliases: Other spellings of its name.
        read: Makes the value of what is written; None: the type alone says how.
    """

    name: str
    hint: Any
    help: str
    aliases: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None

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


def parse_command(
    description: str,
    settings_class: type[Settings],
    argv: Sequence[str] | None = None,
    *,
    switches: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    required: Sequence[str] = (),
    replaces: Mapping[str, str] | None = None,
    **forced: Any,
) -> tuple[Settings, dict[str, Any]]:
    """Return the settings given by YAML and flags, and the values of the switches and options beside them.

    Args:
        description: What `--help` says first.
        settings_class: Dataclass whose fields are the keys of the YAML file and the flags; its docstring explains them.
        argv: Arguments; those of the process by default.
        switches: Flags that are no fields and are true where they stand, name -> help (e.g. resume).
        options: Flags with a text value that are no fields, name -> help.
        required: Those of the options that must be given.
        replaces: Options that take the place of a field, option -> field; the field's flag is refused beside them.
        **forced: Fields that the script sets whatever YAML and flags say (the baseline's policy).

    Raises:
        ConfigError: On an unknown key, a wrong type or an impossible value.
    """
    beside = [_Flag(name, str, "Required. " * (name in required) + text) for name, text in (options or {}).items()]
    beside += [_Flag(name, None, text) for name, text in (switches or {}).items()]
    fields = {flag.name: flag for flag in _fields_of(settings_class)}
    config = _Flag("config", str, "YAML file with any of the fields below.")
    parser = _build_parser(description, [config, *beside], settings_class, fields.values(), required)
    given = _read_flags(parser, [config, *beside, *fields.values()], sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    if (path := given.pop("config", None)) is not None:
        values = _read_yaml(path, fields, {flag.name for flag in beside})
    for option, field in (replaces or {}).items():
        if option in given and field in given:
            raise ConfigError(f"--{option} and --{field} exclude each other: --{option} takes the place of --{field}")
    for name, value in forced.items():
        if given.get(name, value) != value:
            raise ConfigError(
                f"--{name}: expected {value}, which is all that {parser.prog} does; found {given[name]!r}"
            )
    for name in required:
        if name not in given:
            raise ConfigError(f"--{name}: expected a value, found none; --help explains it")
    others = {flag.name: given.pop(flag.name, False if flag.hint is None else None) for flag in beside}
    return settings_class(**{**values, **given, **forced}), others


# --------------------------------------------------------------------------------------------------------------- flags


def _fields_of(settings_class: type) -> list[_Flag]:
    hints = get_type_hints(settings_class)
    texts: dict[str, str] = {}
    for base in reversed(settings_class.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= {part.arg_name: part.description or "" for part in docstring_parser.parse(base.__doc__).params}
    flags = []
    for field in dataclasses.fields(settings_class):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        shown = default if isinstance(default, str) else json.dumps(default)
        text = f"{' '.join(texts.get(field.name, '').split())} (default: {shown})"
        flags.append(_Flag(field.name, hints[field.name], text, **field.metadata))
    return flags


def _build_parser(
    description: str, beside: Sequence[_Flag], settings_class: type, fields: Any, required: Sequence[str]
) -> Parser:
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of a module that was called, `python -m package.module`
    needed = "".join(f" --{name} {name.upper()}" for name in required)
    parser = Parser(
        prog=None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}",
        usage=f"%(prog)s{needed} [--config CONFIG] [--FLAG VALUE ...]",
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
    )
    title = (settings_class.__doc__ or "").strip().splitlines()[0].rstrip(".")
    for group, flags in ((parser, beside), (parser.add_argument_group(title), fields)):
        for flag in flags:
            shape: dict[str, Any] = {"metavar": _metavar(flag)}
            if flag.hint in (None, bool):
                shape = {"action": "store_true"} if flag.hint is None else {**shape, "nargs": "?", "const": "true"}
            group.add_argument(f"--{flag.name}", help=flag.help.replace("%", "%%"), **shape)
            for alias in flag.aliases:
                group.add_argument(f"--{alias}", help=argparse.SUPPRESS, **shape)
    return parser


def _metavar(flag: _Flag) -> str:
    choices = ("true", "false") if flag.hint is bool else get_args(flag.hint)
    return f"{{{','.join(choices)}}}" if choices and all(isinstance(c, str) for c in choices) else flag.name.upper()


def _read_flags(parser: Parser, flags: Sequence[_Flag], argv: Sequence[str]) -> dict[str, Any]:
    """Return the values of the flags that are given, by the names of the fields."""
    tokens = []
    for token in argv:
        name, equals, value = token.partition("=")
        tokens.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if token.startswith("--") else token)
    try:
        written, unknown = parser.parse_known_args(tokens)
    except argparse.ArgumentError as error:  # there are no others: types and choices are ours
        name = error.argument_name
        if any(flag.hint is None and name == f"--{flag.name}" for flag in flags):
            raise ConfigError(f"{name}: expected no value after it") from None
        raise ConfigError(
            f"{name}: expected a value after it (written {name}=VALUE if it begins with a dash)"
        ) from None
    if unknown:
        raise ConfigError(_unknown(unknown[0].lstrip("-").partition("=")[0], flags))
    values: dict[str, Any] = {}
    for flag in flags:
        spellings = [name for name in (flag.name, *flag.aliases) if hasattr(written, name)]
        if len(spellings) > 1:
            raise ConfigError(f"{flag.name} is given twice (as {' and as '.join(f'--{name}' for name in spellings)})")
        if spellings:
            text = getattr(written, spellings[0])
            values[flag.name] = text if flag.hint is None else flag.value_of_text(text)
    return values


def _unknown(key: str, flags: Sequence[_Flag]) -> str:
    known = {name for flag in flags for name in (flag.name, *flag.aliases)}
    if key in known:
        return f"expected --{key}, found it without its two dashes"
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the known keys"
    return f"unknown key {key!r}; {hint}"


# ---------------------------------------------------------------------------------------------------------------- YAML


def _read_yaml(path: str, fields: Mapping[str, _Flag], others: set[str]) -> dict[str, Any]:
    """Return the values in a YAML file, by the names of the fields.

    Raises:
        ConfigError: If the file is missing, no valid YAML, no mapping, names a field twice or one that there is not, or
            if a value cannot be used.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: expected valid YAML, found: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path}: expected lines of `key: value`, found {type(loaded).__name__}")
    names = {name: flag.name for flag in fields.values() for name in (flag.name, *flag.aliases)}
    # From the nodes, because safe_load lets the last of several equal keys win without a word.
    written: dict[str, str] = {}
    for node, _ in yaml.compose(text, Loader=yaml.SafeLoader).value:
        name = names.get(node.value, node.value)
        if name in written:
            raise ConfigError(f"--config {path}: {name} is given twice (as {written[name]} and as {node.value})")
        written[name] = node.value
    values: dict[str, Any] = {}
    for key, value in loaded.items():
        if key in others:
            raise ConfigError(f"--config {path}: {key} is a flag and no key of the file; pass --{key}")
        if key not in names:
            raise ConfigError(f"--config {path}: {_unknown(str(key), list(fields.values()))}")
        try:
            values[names[key]] = fields[names[key]].value_of(value)
        except ConfigError as error:
            raise ConfigError(f"--config {path}: {error}") from None
    return values


# -------------------------------------------------------------------------------------------------------------- values


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)


def _load_text(text: str, hint: Any, *, verbatim: bool) -> Any:
    """Return a text as YAML reads it; where a text is wanted, as it stands, but for null and lists."""
    wanted = _alternatives(hint)
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
    """Return a field's type in words: `float`, `float or null`, `one of moe, mop, gru`."""
    names = []
    for part in _alternatives(hint):
        literal = get_origin(part) is Literal
        names.append(f"one of {', '.join(get_args(part))}" if literal else part.__name__.replace("NoneType", "null"))
    return " or ".join(names)
