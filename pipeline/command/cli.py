"""Command lines: a dataclass of settings, read from a YAML file and flags, with an error message for every mistake.

    python train_mop.py --config config.yaml --seed 3 --lpc_alpha 1e-4

Precedence is flag > YAML > default, wherever `--config` stands. jsonargparse makes a flag of every field, checks types,
and takes the text of `--help` from the dataclass's docstring.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from pipeline.config import ALIASES, ConfigError, parse_expert_sizes

Settings = TypeVar("Settings")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with field names in place of their other spellings.

    Raises:
        ConfigError: If the file is missing, no valid YAML, no mapping, or names a field twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: expected valid YAML, found: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path}: expected lines of `key: value`, found {type(loaded).__name__}")
    # From the nodes, because safe_load lets the last of several equal keys win without a word.
    written: dict[str, str] = {}
    for node, _ in yaml.compose(text, Loader=yaml.SafeLoader).value:
        name = ALIASES.get(node.value, node.value)
        if name in written:
            raise ConfigError(f"--config {path}: {name} is given twice (as {written[name]} and as {node.value})")
        written[name] = node.value
    values = {ALIASES.get(key, key): value for key, value in loaded.items()}
    if "expert_hidden_sizes" in values:
        values["expert_hidden_sizes"] = parse_expert_sizes(values["expert_hidden_sizes"])
    return values


def _split_argv(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the path after `--config` and the other arguments, with field names in place of other spellings."""
    path, rest = None, []
    sizes_flag = ""
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        flag, has_value, value = token.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        if name.endswith("+"):  # jsonargparse would add to the default
            raise ConfigError(f"{flag}: expected the whole value after {flag[:-1]}")
        name = ALIASES.get(name, name)
        if name in ("config", "expert_hidden_sizes"):
            if not has_value:
                if not tokens:
                    raise ConfigError(f"{flag}: expected a value after it")
                value = tokens.pop(0)
            if name == "config":
                path = value
                continue
            try:
                sizes = yaml.safe_load(value) if value.lstrip().startswith("[") else value
            except yaml.YAMLError:
                sizes = value
            if sizes_flag not in ("", flag):
                raise ConfigError(f"expert_hidden_sizes is given twice (as {sizes_flag} and as {flag})")
            sizes_flag = flag
            rest += ["--expert_hidden_sizes", json.dumps(parse_expert_sizes(sizes))]
        else:
            rest.append(f"--{name}{has_value}{value}" if name else token)
    return path, rest


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
        switches: Flags without a value that are no fields, name -> help (e.g. resume).
        options: Flags with a text value that are no fields, name -> help.
        required: Those of the options that must be given.
        replaces: Options that take the place of a field, option -> field; the field's flag is refused beside them.
        **forced: Fields that the script sets whatever YAML and flags say (the baseline's policy).

    Raises:
        ConfigError: On an unknown key, a wrong type or an impossible value.
    """
    import jsonargparse  # lazily: whoever only wants a dataclass need not have it

    parser = jsonargparse.ArgumentParser(
        prog=_program_name(), description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", type=str, default=None, help="YAML file with any of the fields below.")
    for name, text in (options or {}).items():
        needed = "Required. " if name in required else ""
        parser.add_argument(f"--{name}", type=str, default=None, help=needed + text)
    for name, text in (switches or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_class_arguments(settings_class)
    for action in parser._actions:  # jsonargparse offers `--list+` too, which _split_argv refuses
        action.option_strings = [option for option in action.option_strings if not option.endswith("+")]
    hints = {f.name: get_type_hints(settings_class)[f.name] for f in dataclasses.fields(settings_class)}
    extra = [*(switches or {}), *(options or {})]
    path, rest = _split_argv(sys.argv[1:] if argv is None else argv)
    texts: dict[str, str] = {}
    # jsonargparse wraps argparse's errors and its own in one another, hence `except Exception`.
    if path is not None:
        given = read_yaml(path)
        _check_keys(given, path, hints, extra)
        try:
            parsed = parser.parse_object(given)
        except Exception as error:
            raise ConfigError(f"--config {path}: {_explain(str(error), given, hints, extra)}") from None
        parser.set_defaults({key: parsed[key] for key in given})
        texts = {key: value for key, value in given.items() if isinstance(value, str) and _accepts(hints[key], str)}
    try:
        values = parser.parse_args(rest).as_dict()
    except Exception as error:
        raise ConfigError(_explain(str(error), {}, hints, extra)) from None
    # A text of the YAML file is meant as it stands; jsonargparse reads it as YAML again, and makes null of "#".
    flags = {token[2:].partition("=")[0] for token in rest if token.startswith("--")}
    values.update({key: text for key, text in texts.items() if key not in flags})
    beside = {name: values.pop(name) for name in extra}
    for option, field in (replaces or {}).items():
        if beside[option] is not None and field in flags:
            raise ConfigError(f"--{option} and --{field} exclude each other: --{option} takes the place of --{field}")
    for name, value in forced.items():
        if name in flags and values[name] != value:
            raise ConfigError(
                f"--{name}: expected {value}, which is all that {parser.prog} does; found {values[name]!r}"
            )
    for name in required:
        if beside[name] is None:
            raise ConfigError(f"--{name}: expected a value, found none; --help explains it")
    values.pop("config")
    return settings_class(**{**values, **forced}), beside


def _program_name() -> str | None:
    """Return how a module was called, `python -m package.module`; None for a script, whose name argparse finds."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _check_keys(given: dict[Any, Any], path: str, hints: Mapping[str, Any], extra: Sequence[str]) -> None:
    """Refuse unknown keys, and null for a field that takes none, which jsonargparse lets pass."""
    for key, value in given.items():
        if key in extra:
            raise ConfigError(f"--config {path}: {key} is a flag and no key of the file; pass --{key}")
        if key not in hints:
            raise ConfigError(f"--config {path}: {_unknown(str(key), hints)}")
        if value is None and type(None) not in get_args(hints[key]):
            raise ConfigError(f"--config {path}: {key}: expected {_type_name(hints[key])}, found null")


def _unknown(key: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    known = set(names) | {alias for alias, name in ALIASES.items() if name in names}
    if key in known:
        return f"expected --{key}, found it without its two dashes"
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the known keys"
    return f"unknown key {key!r}; {hint}"


def _accepts(hint: Any, kind: type) -> bool:
    return hint is kind or kind in get_args(hint)


def _type_name(hint: Any) -> str:
    """Return a field's type in words: `float`, `float or null`, `one of moe, mop, gru`."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return " or ".join("null" if part is type(None) else getattr(part, "__name__", str(part)) for part in parts)


_WRONG_TYPE = re.compile(r'Parser key "(\w+)": .*(?:Got|Given) value: (.*)')

_NO_VALUE = re.compile(r"argument --(\w+): expected one argument")


def _explain(message: str, given: Mapping[str, Any], hints: Mapping[str, Any], extra: Sequence[str]) -> str:
    """Return a message of jsonargparse in our form: what was expected, what was found, what to do.

    Args:
        message: Of the exception.
        given: Values by key as YAML has them; flags are text, so that the message itself says what was found.
        hints: Types of the fields.
        extra: Names of the other flags.
    """
    text = " ".join(message.split())
    marker = "unrecognized arguments: "
    if marker in text:
        flag = text.split(marker, 1)[1].split()[0]
        return _unknown(flag.lstrip("-").partition("=")[0], [*hints, *extra])
    if match := _NO_VALUE.search(text):
        return f"--{match[1]}: expected a value after it (written --{match[1]}=VALUE if it begins with a dash)"
    if match := _WRONG_TYPE.search(text):
        key, found = match.groups()
        return f"{key}: expected {_type_name(hints[key])}, found {given.get(key, found)!r}"
    return text.removeprefix("error: ")
