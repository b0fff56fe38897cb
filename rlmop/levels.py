"""`rlmop levels`: the names of BabyAI's tasks, all or those that hold a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.names import name_command
from pipeline.command.shell import as_command


@dataclass(frozen=True)
class LevelSettings:
    """Which names are listed.

    Attributes:
        words: Only names that hold all of these, in either case.
    """

    words: list[str] = field(default_factory=list, metadata={"positional": True})


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    settings, _ = parse_command("List the names of all BabyAI tasks.", LevelSettings, argv)
    from babyai.levels import list_tasks  # only here: --help and mistakes are told without minigrid

    names = list_tasks(*settings.words)
    if not names:
        raise ConfigError(
            f"no task's name holds {' and '.join(map(repr, settings.words))}; {name_command('levels')} lists all"
        )
    print("\n".join(names))
