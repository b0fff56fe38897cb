"""The table of levels as a page (Markdown), as CSV and as a figure, of whatever results are there."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babyai.levels import list_tasks, resolve_task_id
from benchmarks.levels.figure import save_figure
from benchmarks.levels.records import (
    SOLVED,
    describe,
    find_last,
    is_solved,
    mark_key,
    read_record,
    short_name,
    solved_before,
)
from benchmarks.levels.reference import FIRST_HAND, KINDS, SOURCES, find_kind, find_reference
from benchmarks.levels.settings import LevelsSettings
from pipeline.command.files import write_text

NOT_RUN, NO_BOT, BEFORE = "not run", "the bot solves none", "solved before"

Row = dict[str, Any]
"""A level: `name`, `kind`, `record`."""

MARK_COLUMNS = (
    *("cpu_seconds", "updates", "env_steps", "success_rate", "success_low", "success_high", "num_episodes", "failures"),
    *("timeouts", "path_ratio", "path_ratio_n", "mean_lpc", "agreement", "sample_success_rate", "sample_success_low"),
    *("sample_success_high", "sample_failures", "sample_timeouts", "sample_path_ratio", "sample_mean_lpc"),
    *("checkpoint", "digest", "seed"),
    *("lang_encoder", "commit", "cpu", "date", "bot_plan_failures"),
)
"""Of a result, as a record has it."""
_REFERENCES = ("babyai_1_0_percent", "babyai_1_1_percent", "jat_share_of_bot_return")
COLUMNS = (
    *("level", "ready_made", "kind", "minutes", "status", "bot_levels", "bot_solved", "bot_mean_steps", *MARK_COLUMNS),
    *("versions", "settings", *_REFERENCES),
)
"""Of the CSV: a row for each level and budget; `ready_made` is empty but for settings other than the table's."""

READY = """\
Settings with a trained projection of the mission, some with a larger network and longer unrolls, for longer runs, the
reasons beside: [goto](../configs/goto.yaml), [pickuploc](../configs/pickuploc.yaml),
[putnextlocal](../configs/putnextlocal.yaml), [bosslevel](../configs/bosslevel.yaml), and [verbs](../configs/verbs.yaml)
for one policy on five levels, which is no row here. Measured by the same command, beside what the default reaches in
the same time, in which it makes more env-steps:

    python -m benchmarks.levels --ready_made --minutes 10"""


def write_outputs(settings: LevelsSettings, ready_made: Sequence[LevelsSettings] = ()) -> list[Path]:
    """Write page, CSV and figure into the folder of results, and into `docs` if one is named; return the paths.

    Budgets of earlier calls that are not among those of this one stay.

    Args:
        settings: Of the table.
        ready_made: The ready-made settings, whose rows come apart.

    Raises:
        ConfigError: If results were made with other settings.
    """
    rows, own = collect_rows(settings), collect_ready_made(ready_made)
    known = {float(key) for row in (*rows, *own) for key in row["record"]["marks"]}
    settings = dataclasses.replace(settings, minutes=tuple(sorted({*settings.minutes, *known})))
    written = []
    for folder in (settings.out, settings.docs):
        if folder is None:
            continue
        figure = save_figure(folder / "images" / "levels.png", rows, settings.minutes)
        write_text(folder / "levels.md", write_page(settings, rows, own, with_figure=figure is not None))
        write_text(folder / "levels.csv", write_csv(settings, [*rows, *own]))
        written += [folder / "levels.md", folder / "levels.csv", *([figure] if figure else [])]
    return written


def collect_rows(settings: LevelsSettings) -> list[Row]:
    """Return a row for each registered level, by kind and then by the bot's mean steps, unknown ones last."""
    rows = [
        {"name": short_name(task), "kind": find_kind(short_name(task)), "record": read_record(settings, task)}
        for task in list_tasks()
    ]

    def place(row: Row) -> tuple[int, float, str]:
        steps = (row["record"]["bot"] or {}).get("mean_steps")
        return KINDS.index(row["kind"]), float("inf") if steps is None else steps, row["name"]

    return sorted(rows, key=place)


def collect_ready_made(ready_made: Sequence[LevelsSettings]) -> list[Row]:
    """Return a row for each of the ready-made settings that were measured, with their name."""
    rows = []
    for settings in ready_made:
        task = resolve_task_id(settings.config.task_id)
        record, name = read_record(settings, task), short_name(task)
        if record["bot"] is not None:
            rows.append({"name": name, "kind": find_kind(name), "record": record, "ready_made": settings.ready_made})
    return rows


def find_status(record: Mapping[str, Any], minutes: float) -> str:
    """Return what became of a level within a budget.

    Solved, not solved, solved before (it was not trained this long), not run, or that the bot solves none.
    """
    mark = record["marks"].get(mark_key(minutes))
    if mark is not None:
        return "solved" if is_solved(mark) else "not solved"
    if solved_before(record, minutes):
        return BEFORE
    return NO_BOT if record["bot"] is not None and not record["bot"]["solved"] else NOT_RUN


# ---------------------------------------------------------------------------------------------------------------- CSV


def write_csv(settings: LevelsSettings, rows: Sequence[Row]) -> str:
    """Return the CSV: everything that is known, a row for each level and budget."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        record, reference = row["record"], find_reference(row["name"])
        bot = record["bot"] or {}
        for minutes in settings.minutes:
            mark = record["marks"].get(mark_key(minutes))
            own = {} if mark is None else {name: mark.get(name) for name in MARK_COLUMNS}
            if mark is not None:
                own |= {"versions": json.dumps(mark["versions"]), "settings": json.dumps(record["settings"])}
            writer.writerow(
                {
                    **{"level": record["level"], "ready_made": row.get("ready_made"), "kind": row["kind"]},
                    "minutes": mark_key(minutes),
                    **{"status": find_status(record, minutes), "bot_levels": bot.get("levels")},
                    **{"bot_solved": bot.get("solved"), "bot_mean_steps": bot.get("mean_steps"), **own},
                    **dict(zip(_REFERENCES, (reference.babyai, reference.babyai_1_1, reference.jat), strict=True)),
                }
            )
    return text.getvalue()


# --------------------------------------------------------------------------------------------------------------- page


def write_page(
    settings: LevelsSettings, rows: Sequence[Row], ready_made: Sequence[Row] = (), *, with_figure: bool
) -> str:
    """Return the page.

    Args:
        settings: Of the table.
        rows: See `collect_rows`.
        ready_made: See `collect_ready_made`.
        with_figure: Whether there is one.
    """
    episodes, config = settings.config.final_eval_episodes, settings.config
    *first, last = (mark_key(m) for m in settings.minutes)
    budgets = f"{', '.join(first)} and {last}" if first else last
    parts = [
        "# Levels of BabyAI",
        f"What the default policy (`config.yaml`) reaches on each of the {len(rows)} registered levels in {budgets} "
        "minutes of two cores, by one command that goes on where it was stopped:",
        "    make levels                                    # all of it, some days\n"
        f"    python -m benchmarks.levels --minutes {mark_key(settings.minutes[0])} --only GoTo,PickupLoc --out levels",
        "It writes this page, [levels.csv](levels.csv) with everything that is known of each row (settings, seed, "
        "commit, versions), and a file for each level in `levels/results/`. With `--docs docs` it "
        "goes on from the table that is published there.",
        _what_is_measured(config.seed, episodes),
        "## In short",
        "\n".join(_summarise(rows, settings.minutes)),
        *(["![Success on each level](images/levels.png)"] if with_figure else []),
    ]
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        parts += [f"## {_TITLES.get(kind, kind)}", write_table(own, settings.minutes)]
    parts += [
        "## Ready-made settings",
        READY,
        write_comparison(ready_made, rows, settings.minutes) or "None of them has been run yet.",
        "## Figures of others",
        SOURCES,
        "## Settings",
        _list_settings(settings, rows),
    ]
    return "\n\n".join(wrap(part) for part in parts if part) + "\n"


def wrap(part: str) -> str:
    """Return a paragraph or a list with lines of at most 120 characters; tables, code and pictures as they are."""
    if part.startswith(("|", "    ", "!", "#", "**A budget", "Settings with")):
        return part
    whole = {"break_long_words": False, "break_on_hyphens": False}
    lines = [(line, "  " if line.startswith(("- ", "  ")) else "") for line in part.splitlines()]
    return "\n".join(textwrap.fill(line, 120, subsequent_indent=below, **whole) for line, below in lines)


_TITLES = {"compound": "Compound missions", "Unlock": "Unlock: a key is needed"}


def _what_is_measured(seed: int, episodes: int) -> str:
    return f"""\
**A budget** of m minutes of two cores is 2 m minutes of processor time: a level is trained on one core for twice as
long, two levels side by side. Counted is the time that the process had a core while it trained (from the end of its
first update), so that other load on the machine matters little; how fast its cores are does matter, and the env-steps
tell how far a run came. **Success** is the share of {episodes} fixed levels, the same for every run, that the policy
solves within the level's own step limit, in per cent: before the stroke with its most probable actions, behind it with
actions drawn from it, as it acts while it learns, where a circle ends by chance. Bold is {100 * SOLVED:.0f} % and more:
a level where it is either counts as solved, and is not trained to the next budget ("solved" in its column;
`--to_the_end` does). BabyAI's authors play most probable actions (Figures of others). Of the last budget that a level
was trained to, and of most probable actions, are: **path ratio**, steps over those of the bot, on levels solved;
**LPC**, the mean over steps of the complexity used, the sum of weight x size^2 over experts ([training](training.md));
**env-steps**. **Bot**: the share of these levels that minigrid's bot solves, and the mean length of its plans. In the
evaluation a level that it does not solve is replaced: a policy's success is on levels that the bot solves. Where it
solves none there is nothing to imitate. One run each, seed {seed}: with 200 levels the interval of a success of 90 % is
some four points to either side, and other seeds may differ by more."""


def _summarise(rows: Sequence[Row], budgets: Sequence[float]) -> list[str]:
    """Return a line for each budget, and one of the bot."""
    lines = []
    for minutes in budgets:
        by_status: dict[str, list[str]] = {}
        for row in rows:
            by_status.setdefault(find_status(row["record"], minutes), []).append(row["name"])
        solved, unsolved = by_status.get("solved", []), by_status.get("not solved", [])
        marks = [row["record"]["marks"].get(mark_key(minutes)) for row in rows]
        greedy = sum(mark is not None and mark["success_rate"] >= SOLVED for mark in marks)
        unit = "minute" if minutes == 1 else "minutes"
        line = f"- {mark_key(minutes)} {unit}: {len(solved) + len(unsolved)} levels run, {len(solved)} of them solved"
        line += f", {greedy} of these with the most probable actions" if solved else ""
        before = by_status.get(BEFORE, [])
        line += f"; {len(before)} solved before" if before else ""
        lines.append(f"{line}; {len(by_status.get(NOT_RUN, []))} not run.")
    bots = [(row["name"], row["record"]["bot"]) for row in rows if row["record"]["bot"]]
    none = [name for name, bot in bots if not bot["solved"]]
    some = sorted((bot["solved"] / bot["levels"], name) for name, bot in bots if 0 < bot["solved"] < bot["levels"])
    if none:
        lines.append(f"- The bot solves no level of {', '.join(none)}: it fails, and there is nothing to imitate.")
    if some:
        shares = ", ".join(f"{name} ({100 * share:.3g} %)" for share, name in some)
        lines.append(
            f"- It solves a part of {shares}, and all levels of the {len(bots) - len(none) - len(some)} others."
        )
    if len(bots) < len(rows):
        lines.append(f"- The bot was not measured on {len(rows) - len(bots)} levels.")
    return lines


def write_table(rows: Sequence[Row], budgets: Sequence[float]) -> str:
    """Return the table of some levels."""
    head = ["level", "bot solves", "bot's steps"]
    head += [f"success, {mark_key(minutes)} min" for minutes in budgets]
    head += ["path ratio", "LPC", "env-steps", "BabyAI 1.0", "1.1", "JAT"]
    lines = [f"| {' | '.join(head)} |", f"|{'--|' + '--:|' * (len(head) - 1)}"]
    for row in rows:
        record, reference = row["record"], find_reference(row["name"])
        bot = record["bot"]
        cells = [
            row["name"],
            _percent(bot and bot["solved"] / bot["levels"]),
            _number(bot and bot["mean_steps"], ".1f"),
        ]
        cells += [_success_cell(record, minutes) for minutes in budgets]
        cells += _mark_cells(find_last(record, budgets))
        star = "" if row["name"] in FIRST_HAND else "*"
        quoted = [reference.babyai, reference.babyai_1_1]
        cells += ["" if value is None else f"{value:g} %{star and chr(92) + star}" for value in quoted]
        lines.append(f"| {' | '.join([*cells, '' if reference.jat is None else f'{reference.jat:.2f}'])} |")
    return "\n".join(lines)


def write_comparison(ready_made: Sequence[Row], rows: Sequence[Row], budgets: Sequence[float]) -> str:
    """Return the table of ready-made settings, below each budget the default at the same one; without any, nothing."""
    default = {row["name"]: row["record"] for row in rows}
    lines = [
        "| level | settings | minutes | success | path ratio | LPC | env-steps |",
        "|--|--|--:|--:|--:|--:|--:|",
    ]
    for row in ready_made:
        for minutes in budgets:
            key = mark_key(minutes)
            if key not in row["record"]["marks"]:
                continue
            for name, record in ((row["ready_made"], row["record"]), ("default", default[row["name"]])):
                cells = [row["name"], name, key, _success_cell(record, minutes), *_mark_cells(record["marks"].get(key))]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _success_cell(record: Mapping[str, Any], minutes: float) -> str:
    mark = record["marks"].get(mark_key(minutes))
    if mark is None:
        status = find_status(record, minutes)
        return "solved" if status == BEFORE else status
    return " / ".join(_share(mark.get(name)) for name in ("success_rate", "sample_success_rate"))


def _share(share: float | None) -> str:
    """Return a success in per cent, bold where a level of it is solved."""
    if share is None:
        return "-"
    text = f"{100 * share:.4g}"
    return f"**{text}**" if share >= SOLVED else text


def _mark_cells(mark: Mapping[str, Any] | None) -> list[str]:
    if mark is None:
        return ["", "", ""]
    return [
        _number(mark["path_ratio"], ".2f"),
        _number(mark["mean_lpc"], ",.0f"),
        f"{mark['env_steps'] / 1e6:.3g} M",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _list_settings(settings: LevelsSettings, rows: Sequence[Row]) -> str:
    """Return the settings that all rows share, and with what they were made."""
    shared = describe(settings, rows[0]["record"]["level"])
    names = sorted(name for name in shared if name not in ("task_id", "version", "trial", "input_dim"))
    text = ", ".join(f"`{name}` {json.dumps(shared[name])}" for name in names)
    marks = [mark for row in rows for mark in row["record"]["marks"].values()]
    made = {
        "commit": {mark["commit"] for mark in marks if mark["commit"] is not None},  # a container has none
        "processor": {mark["cpu"] for mark in marks},
        "sentence encoder": {mark["lang_encoder"] for mark in marks},
        "versions": {", ".join(f"{name} {found}" for name, found in mark["versions"].items()) for mark in marks},
    }
    facts = "\n".join(f"- {name}: {'; '.join(sorted(values))}" for name, values in made.items() if values)
    return f"{text}.\n\n{facts}" if facts else f"{text}."
