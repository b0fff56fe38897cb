"""Fields of settings, type by type: what a flag may say, with and without a value; what stands without a flag."""

import dataclasses
import re
from typing import Literal

import pytest

from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig

# ------------------------------------------------------------------------------------------ bool fields and switches


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ([], False),
        (["--normalize_lpc"], True),
        (["--normalize-lpc", "--seed", "1"], True),
        (["--normalize_lpc", "false"], False),
        (["--normalize_lpc=true"], True),
    ],
)
def test_a_bool_field_may_stand_without_a_value(flags, value):
    assert parse_command("test", TrainConfig, flags)[0].normalize_lpc is value


@pytest.mark.parametrize("flags", [["--resume=yes"], ["--resume=false"]])
def test_a_switch_takes_no_value(flags):
    with pytest.raises(ConfigError, match="--resume: expected no value after it"):
        parse_command("test", TrainConfig, flags, switches={"resume": "a"})


def test_a_switch_is_no_key_of_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("resume: true")
    with pytest.raises(ConfigError, match="resume is a flag and no key of the file; pass --resume"):
        parse_command("test", TrainConfig, ["--config", str(path)], switches={"resume": "a"})


# ------------------------------------------------------------------------------------------------------- other fields


@dataclasses.dataclass(frozen=True)
class Names:
    """Fields of types that a training run has not.

    Attributes:
        view: One or several, 100 % of them.
        kind: Of a choice, or none.
    """

    view: str | list[str] = dataclasses.field(default_factory=list)
    kind: Literal["a", "null", "no"] | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [("a,b", "a,b"), ("# 5", "# 5"), ("null", "null"), ("[a, b]", ["a", "b"]), ("[]", [])],
)
def test_text_or_list(text, value):
    assert parse_command("test", Names, ["--view", text])[0].view == value


def test_list_of_another_type_is_refused():
    with pytest.raises(ConfigError, match=r"view: expected str or list of str, found '\[1, 2\]'"):
        parse_command("test", Names, ["--view", "[1, 2]"])


@pytest.mark.parametrize(
    ("text", "value"), [("1,2", [1, 2]), ("7", [7]), (" [10, 30] ", [10, 30]), ("", []), ("[]", [])]
)
def test_numbers_of_a_list_need_no_brackets(text, value):
    assert parse_command("test", TrainConfig, ["--checkpoint_updates", text])[0].checkpoint_updates == value


@pytest.mark.parametrize("text", ["1;2", "a,b", "1,2]", "1.5,2", "null"])
def test_a_list_of_other_than_numbers_is_refused(text):
    with pytest.raises(ConfigError, match=f"checkpoint_updates: expected list of int, found '{re.escape(text)}'"):
        parse_command("test", TrainConfig, ["--checkpoint_updates", text])


@pytest.mark.parametrize(("text", "value"), [("no", "no"), ("null", None), ("a", "a")])
def test_choice_or_null(text, value):
    assert parse_command("test", Names, ["--kind", text])[0].kind == value
    with pytest.raises(ConfigError, match="kind: expected one of a, null, no or null, found 'b'"):
        parse_command("test", Names, ["--kind", "b"])


def test_help_of_fields_of_all_types(capsys):
    with pytest.raises(SystemExit) as end:
        parse_command("test", Names, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "One or several, 100 % of them. (default: [])" in shown
    assert "Of a choice, or none. (default: null)" in shown
    assert "exit codes: 0 done" in shown


# ---------------------------------------------------------------------------------------------------- without a flag


@dataclasses.dataclass(frozen=True)
class Alone:
    """What stands alone.

    Attributes:
        folder: A folder.
        depth: How deep.
    """

    folder: str = dataclasses.field(default=".", metadata={"positional": True})
    depth: int = 1


@dataclasses.dataclass(frozen=True)
class Several:
    """What stands beside others.

    Attributes:
        words: Some words.
        depth: How deep.
    """

    words: list[str] = dataclasses.field(default_factory=list, metadata={"positional": True})
    depth: int = 1


@pytest.mark.parametrize("flags", [["a", "--depth", "2"], ["--depth", "2", "a"], ["--folder=a", "--depth=2"]])
def test_what_stands_without_a_flag_is_the_value_of_one_field(flags):
    assert parse_command("test", Alone, flags)[0] == Alone("a", 2)


def test_several_may_stand_without_a_flag():
    assert parse_command("test", Several, ["a", "--depth", "2", "b", "1"])[0] == Several(["a", "b", "1"], 2)
    assert parse_command("test", Several, [])[0] == Several()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["a", "b"], "folder: expected one, found 2 (a, b)"),
        (["a", "--folder", "b"], "with and without --folder"),
        (["a", "--dept", "3"], "unknown key 'dept'; did you mean depth?"),
        (["-depth", "3"], "expected --depth, found it without its two dashes"),
    ],
)
def test_too_much_without_a_flag_is_refused(flags, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_command("test", Alone, flags)


def test_help_shows_what_stands_without_a_flag(capsys):
    for settings_class, shown in ((Alone, "[FOLDER] [--config CONFIG]"), (Several, "[WORDS ...] [--config CONFIG]")):
        with pytest.raises(SystemExit):
            parse_command("test", settings_class, ["--help"])
        assert shown in " ".join(capsys.readouterr().out.split())


# ------------------------------------------------------------------------------------------------------------- numbers


@dataclasses.dataclass
class Numbers:
    """Numbers of all kinds."""

    count: int | None = None
    share: float | None = None


@pytest.mark.parametrize("least", [0, 1])
def test_numbers_are_held_to_their_range(least):
    for numbers in (Numbers(), Numbers(least, 0.5), Numbers(7, 1e9)):
        check_numbers(numbers, least, "count", "share")
    with pytest.raises(ConfigError, match=f"^count: expected at least {least}, found {least - 1}$"):
        check_numbers(Numbers(least - 1), least, "share", "count")
    for share in (-0.1, float("nan"), float("inf"), *([0.0] if least else [])):
        with pytest.raises(ConfigError, match=r"^share: expected a positive number, found "):
            check_numbers(Numbers(least, share), least, "count", "share")
    check_numbers(Numbers(share=0.0), 0, "share")
