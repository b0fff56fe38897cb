"""Command lines: a dataclass of settings, read from a YAML file and flags, with an error message for every mistake.

    python train_mop.py --config config.yaml --seed 3 --lpc_alpha 1e-4

Precedence is flag > YAML > default, wherever `--config` stands. Every field is a flag; its value is read as YAML reads
it, its explanation is that of the dataclass's docstring. A field of type bool may stand without a value, for true.

What a field's type does not say, its `dataclasses.field(metadata=...)` does: `aliases`, other spellings of its name;
`read`, a function that makes the value of what is written and raises `ConfigError`; `positional`, that what stands
without a flag is its value.

`--help` beside `--config` shows the file's values.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from pipeline.command.errors import ConfigError
from pipeline.command.flags import Flag, fields_of, in_yaml
from pipeline.command.names import LANGUAGE_MODELS, program
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
    beside = [Flag(name, str, "Required. " * (name in required) + text) for name, text in (options or {}).items()]
    beside += [Flag(name, None, text) for name, text in (switches or {}).items()]
    fields = {flag.name: flag for flag in fields_of(settings_class)}
    config = Flag("config", str, "YAML file with any of the fields below.")
    tokens = list(sys.argv[1:] if argv is None else argv)
    parser = _build_parser(description, [config, *beside], list(fields.values()), required)
    title = (settings_class.__doc__ or "").strip().splitlines()[0].rstrip(".")
    if not {"-h", "--help"}.isdisjoint(tokens):
        shown = {name: flag for name, flag in fields.items() if name not in forced}
        _print_help(parser, title, fields, shown, _find_config(tokens))
    _add_flags(parser, fields.values())
    given = _read_flags(parser, [config, *beside, *fields.values()], tokens)
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


def _build_parser(description: str, beside: Sequence[Flag], fields: Sequence[Flag], required: Sequence[str]) -> Parser:
    needed = "".join(f" --{name} {name.upper()}" for name in required)
    alone = "".join(f" [{flag.metavar}{' ...' * flag.is_list}]" for flag in fields if flag.positional)
    parser = Parser(
        prog=program(),
        usage=f"%(prog)s{alone}{needed} [--config CONFIG] [--FLAG VALUE ...]",
        description=description,
        epilog=EXIT_CODES,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
    )
    _add_flags(parser, beside)
    return parser


def _add_flags(parser: Parser, flags: Iterable[Flag], texts: Mapping[str, str] | None = None) -> None:
    """Add flags to a parser or a group of one, with other help than their own if texts are given."""
    for flag in flags:
        shape: dict[str, Any] = {"metavar": flag.metavar}
        if flag.hint in (None, bool):
            shape = {"action": "store_true"} if flag.hint is None else {**shape, "nargs": "?", "const": "true"}
        text = flag.help if texts is None else texts[flag.name]
        parser.add_argument(f"--{flag.name}", help=text.replace("%", "%%"), **shape)
        for alias in flag.aliases:
            parser.add_argument(f"--{alias}", help=argparse.SUPPRESS, **shape)


def _print_help(
    parser: Parser, title: str, fields: Mapping[str, Flag], shown: Mapping[str, Flag], path: str | None
) -> NoReturn:
    """Print what a command does and knows, and end it.

    Args:
        parser: Of what is beside the fields.
        title: Of the fields.
        fields: By name, which the file may give.
        shown: Those of them that can be chosen.
        path: Of the YAML file whose values are shown beside the defaults; None: only these are.

    Raises:
        ConfigError: If the file cannot be used.
        SystemExit: Always otherwise.
    """
    values = {} if path is None else _read_yaml(path, fields, set())
    texts = {}
    for flag in shown.values():
        value = f"default: {flag.default}"
        if flag.name in values:
            value = f"{os.path.basename(path)}: {in_yaml(values[flag.name])}; {value}"
        also = "".join(f"; also --{alias}" for alias in flag.aliases)
        texts[flag.name] = f"{flag.help} ({value}{also})".lstrip()
    group = parser.add_argument_group(title if path is None else f"{title}, with the values of {path}")
    for flag in shown.values():
        if flag.positional:
            group.add_argument(flag.metavar, nargs="*", help=texts[flag.name].replace("%", "%%"))
        else:
            _add_flags(group, [flag], texts)
    parser.print_help()
    parser.exit()


def _find_config(tokens: Sequence[str]) -> str | None:
    """Return the YAML file that is named beside a call for help."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser.parse_known_args([token for token in tokens if token not in ("-h", "--help")])[0].config


def _read_flags(parser: Parser, flags: Sequence[Flag], argv: Sequence[str]) -> dict[str, Any]:
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
    values: dict[str, Any] = {}
    alone = next((flag for flag in flags if flag.positional), None)
    for token in unknown:
        if alone is None or (token.startswith("-") and token != "-"):
            raise ConfigError(_unknown(token.lstrip("-").partition("=")[0], flags))
    if unknown:
        if hasattr(written, alone.name):
            raise ConfigError(f"{alone.name}: expected once, found it with and without --{alone.name}")
        if len(unknown) > 1 and not alone.is_list:
            raise ConfigError(f"{alone.name}: expected one, found {len(unknown)} ({', '.join(unknown)})")
        values[alone.name] = alone.value_of(unknown if alone.is_list else unknown[0])
    for flag in flags:
        spellings = [name for name in (flag.name, *flag.aliases) if hasattr(written, name)]
        if len(spellings) > 1:
            raise ConfigError(f"{flag.name} is given twice (as {' and as '.join(f'--{name}' for name in spellings)})")
        if spellings:
            text = getattr(written, spellings[0])
            values[flag.name] = text if flag.hint is None else flag.value_of_text(text)
    return values


def _unknown(key: str, flags: Sequence[Flag]) -> str:
    known = {name for flag in flags for name in (flag.name, *flag.aliases)}
    if key in known:
        return f"expected --{key}, found it without its two dashes"
    if key in LANGUAGE_MODELS:
        return f"unknown key {key!r}; the language models' commands have it: python more/train.py, more/evaluate.py"
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the known keys"
    return f"unknown key {key!r}; {hint}"


# ---------------------------------------------------------------------------------------------------------------- YAML


def _read_yaml(path: str, fields: Mapping[str, Flag], others: set[str]) -> dict[str, Any]:
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
