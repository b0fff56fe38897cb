"""`rlmop`: the project's commands under one name, each with the main of its script.

    rlmop train --config config.yaml             # as python train_mop.py --config config.yaml
    rlmop evaluate                               # as python batch_eval.py
    rlmop ls                                     # which runs there are

Installing the project puts it on the path; without, `python -m rlmop` does the same. A command is imported when it is
called, so that this one starts at once.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.command.errors import ConfigError
from pipeline.command.shell import EXIT_CODES, as_command


@dataclass(frozen=True)
class Command:
    """What follows `rlmop`.

    Attributes:
        group: Under which it is listed.
        text: What it does, in some words.
        run: Imports its main, calls it, and returns the exit code.
    """

    group: str
    text: str
    run: Callable[[], int]


def _init() -> int:
    from rlmop.start import main

    return main()


def _train() -> int:
    from train_mop import main

    return main()


def _baseline() -> int:
    from train import main

    return main()


def _evaluate() -> int:
    if any(word.partition("=")[0] == "--checkpoint" for word in sys.argv[1:]):
        from eval_mop import main
    else:
        from batch_eval import main
    return main()


def _ls() -> int:
    from pipeline.inspection.listing import main

    return main()


def _compare() -> int:
    from pipeline.inspection.comparison import main

    return main()


def _plot() -> int:
    from plotting.command import main

    return main()


def _film() -> int:
    from film.command import main

    return main()


def _sheet() -> int:
    from film.contact_sheet import main

    return main()


def _study() -> int:
    from science.study import main

    return main()


def _levels() -> int:
    from rlmop.levels import main

    return main()


COMMANDS: Mapping[str, Command] = {
    "init": Command("begin", "copy settings, a small study, the notebooks and a batch script into a folder", _init),
    "levels": Command("begin", "list the names of all BabyAI tasks", _levels),
    "sheet": Command("begin", "draw a task's levels on one sheet", _sheet),
    "train": Command("train", "train a Mixture-of-Pathways policy, or many: --seeds 0-9 --lpc_alphas 0,1e-5", _train),
    "baseline": Command("train", "train the GRU baseline, through the same loop", _baseline),
    "evaluate": Command(
        "look", "evaluate every checkpoint that is not done; or one, with --checkpoint PATH", _evaluate
    ),
    "ls": Command("look", "list runs: state, success, complexity, settings that differ", _ls),
    "compare": Command("look", "set runs side by side: rlmop compare GoToObj/1 GoToObj/2", _compare),
    "plot": Command("look", "draw routing and results without a display", _plot),
    "film": Command("look", "film an episode and what the router does", _film),
    "study": Command(
        "look", "train, intervene, analyse and report by one command: --config studies/debug.yaml", _study
    ),
}
"""Every command by its name, in the order in which they are listed."""

_GROUPS = {"begin": "To begin", "train": "Train", "look": "See what became of it"}


def describe_commands(name: str) -> str:
    """Return what there is to do, in one screen; `name` is what this program was called by."""
    lines = [f"usage: {name} COMMAND [--FLAG VALUE ...]", ""]
    lines.append("Train stateful Mixture-of-Pathways policies on BabyAI, and see which experts they recruit.")
    for group, title in _GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {word:<10} {command.text}" for word, command in COMMANDS.items() if command.group == group]
    return "\n".join(
        [
            *lines,
            "",
            "From nothing to a figure:",
            f"  {name} init && {name} train --config config.yaml",
            f"  {name} evaluate && {name} ls && {name} plot --all_caches evaluation_cache",
            "",
            f"{name} COMMAND --help explains each flag. Notebooks: marimo edit routing_viz.py. Language models:",
            "python -m more.train --help.",
            EXIT_CODES,
        ]
    )


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = "rlmop" if not sys.argv[0].endswith("__main__.py") else "python -m rlmop"
    if not words or words[0] in ("-h", "--help", "help"):
        print(describe_commands(name))
        return 0
    if words[0] == "--version":
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"rl-mop {version('rl-mop')}")
        except PackageNotFoundError:
            print("rl-mop, not installed: of this folder")
        return 0
    word = words[0]
    if word not in COMMANDS:
        close = difflib.get_close_matches(word.lower().lstrip("-"), COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {name} {close[0]}?" if close else f"{name} --help lists them"
        raise ConfigError(f"expected a command, found {word!r}; {hint}")
    # From here on the process is that command: usage, messages and what is written into files name it so.
    sys.argv = [f"{name} {word}", *words[1:]]
    return COMMANDS[word].run()
