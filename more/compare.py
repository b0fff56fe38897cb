"""Compare the variants: train all combinations on the embedded data, evaluate them, and tabulate over seeds.

    python -m more.compare --variants all --seeds 0-2 --recurrences 1,2,4 --match active --output more_comparison.json

Every combination is one run under <folder>/<variant>_rec<r>/seed_<s>/; what is done is skipped, so that the command
can be stopped and started again. `base` has no recurrence and runs once per seed. The tables (JSON and Markdown) are
written anew after every run; seeds are the unit of replication, the intervals Student's t.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from more.config import MODEL_TYPES, VARIANTS, Match
from more.options import EvaluationSettings, parse_numbers
from more.settings import TrainingConfig
from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import UserError
from pipeline.command.files import write_json, write_text
from pipeline.command.folders import check_file, check_folder
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, Link, Stopped, WorkItem, do_items
from pipeline.config import ConfigError
from pipeline.tracking import METRICS_FILE


class Run(NamedTuple):
    """One combination that is trained and evaluated."""

    variant: str
    recurrences: int
    seed: int

    def name(self) -> str:
        """Return what messages call it."""
        return f"{self.variant}_rec{self.recurrences} seed {self.seed}"


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    Attributes:
        variants: all, or some of base,more_a,more_b,more_c,more_d.
        seeds: E.g. 0-2 or 0,1,2.
        recurrences: Numbers of recurrences in training, e.g. 1,2,4.
        match: Sizes the variants like base: none, total, active or operations.
        preset: standard or debug.
        updates: Weight updates of every run; null takes the preset's epochs.
        num_questions: Test questions of each task at most; null takes all.
        max_documents: Documents of the perplexity at most; null takes all.
        folder: Where the runs go.
        cache_dir: Folder of tokenised data.
        jobs: Runs at a time, each in a process of its own.
        torch_threads: CPU threads of each run.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
    """

    variants: str = "all"
    seeds: str = "0-2"
    recurrences: str = "1,2,4"
    match: Match = "active"
    preset: Literal["standard", "debug"] = "debug"
    updates: int | None = None
    num_questions: int | None = None
    max_documents: int | None = None
    folder: str = "more_comparison"
    cache_dir: str = "data_cache"
    jobs: int = 1
    torch_threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: If one cannot be used.
        """
        unknown = [name for name in self.variant_names() if name not in MODEL_TYPES]
        if unknown:
            raise ConfigError(f"variants: expected all or some of {', '.join(MODEL_TYPES)}, found {unknown[0]!r}")
        for name in ("seeds", "recurrences"):
            if not parse_numbers(name, getattr(self, name)):
                raise ConfigError(f"{name}: expected at least one number, found none")
        check_numbers(self, 1, "jobs", "torch_threads", "updates", "num_questions", "max_documents")

    def variant_names(self) -> list[str]:
        """Return the variants asked for."""
        return list(VARIANTS) if self.variants == "all" else [name.strip() for name in self.variants.split(",")]

    def runs(self) -> list[Run]:
        """Return all runs, seed by seed, so that an unfinished comparison is balanced."""
        steps = parse_numbers("recurrences", self.recurrences)
        return [
            Run(variant, count, seed)
            for seed in parse_numbers("seeds", self.seeds)
            for variant in self.variant_names()
            for count in (steps if variant != "base" else steps[:1])
        ]


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a run failed, 2 refused, 128 + signal stopped."""
    options = {"output": "JSON file of all figures; a Markdown table of the same name goes beside it."}
    settings, values = parse_command("Compare the variants.", CompareSettings, argv, options=options)
    output = Path(values["output"] or "more_comparison.json")
    if output.suffix != ".json":
        raise ConfigError(f"output: expected a name ending in .json, found {str(output)!r}")
    check_file("output", output)
    check_folder("folder", Path(settings.folder))
    from pipeline.command.devices import resolve_device  # here: --help and mistakes are told without torch

    resolve_device(settings.device)
    return compare(settings, output)


def compare(settings: CompareSettings, output: Path) -> int:
    """Do what is missing, write the tables after every run, and return 1 if a run failed, else 0."""
    runs = settings.runs()
    failures: list[str] = []
    missing = [run for run in runs if read_result(settings, run) is None]
    write_tables(settings, output)
    items = [WorkItem(run.name(), run_item, (settings, run)) for run in missing]
    ended = 0
    with (
        Interruption() as interruption,
        tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run", dynamic_ncols=True) as bar,
    ):

        def note(event: Event) -> None:
            nonlocal ended
            if event.kind in ("started", "progress", "stopped"):
                return
            ended += 1
            if event.kind != "done":
                failures.append(f"{event.item.name}: {event.content}")
            with suppress(OSError):  # a full disk ends no other run; at the end it is told
                write_tables(settings, output)
            bar.set_postfix_str(event.item.name, refresh=False)
            bar.update()

        do_items(items, jobs=settings.jobs, report=note, stopping=interruption.stopping)
    write_tables(settings, output)
    if ended < len(items):
        if interruption.reader_gone:
            raise BrokenPipeError
        stop_at_once(interruption.signal_number)
    print(output.with_suffix(".md").read_text(encoding="utf-8"))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failures))


# ----------------------------------------------------------------------------------------------------------------- run


def run_folder(settings: CompareSettings, run: Run) -> Path:
    """Return the folder of one run."""
    return Path(settings.folder) / f"{run.variant}_rec{run.recurrences}" / f"seed_{run.seed}"


def run_config(settings: CompareSettings, run: Run) -> TrainingConfig:
    """Return the settings with which one run is trained."""
    folder = run_folder(settings, run)
    shared = ("preset", "match", "updates", "cache_dir", "device", "torch_threads")
    return TrainingConfig(
        model_type=run.variant,
        num_recurrences=run.recurrences,
        seed=run.seed,
        data="embedded",
        checkpoint_dir=str(folder / "checkpoints"),
        log_dir=str(folder / "runs"),
        tensorboard=False,
        **{name: getattr(settings, name) for name in shared},
    )


def run_item(link: Link, settings: CompareSettings, run: Run) -> None:
    """Train (or go on training) and evaluate one combination, and write its result, as an item of work.

    `seconds` of the result is the wall-clock time of this call's training: where a run was interrupted, that of its
    last part alone.

    Raises:
        Stopped: If a stop was wished before its end.
    """
    from more.checkpoints import FINAL_NAME, load_model
    from more.report import evaluate_checkpoint
    from more.runs import run_training
    from pipeline.command.devices import resolve_device

    config, folder = run_config(settings, run), run_folder(settings, run)
    began = time.perf_counter()
    if run_training(config, resume=True, quiet=True, stopping=link.stopping) > 128:
        raise Stopped
    seconds = time.perf_counter() - began
    path = Path(config.checkpoint_dir) / config.run_name() / FINAL_NAME
    loaded = load_model(path, resolve_device(settings.device))
    wanted = EvaluationSettings(**_evaluated(settings), cache_dir=settings.cache_dir)
    evaluation = evaluate_checkpoint(loaded, wanted, name=str(path), quiet=True, tick=link.heed)
    metrics = Path(config.log_dir) / config.run_name() / METRICS_FILE
    speeds = sorted(json.loads(line)["Tokens_per_Second"] for line in metrics.read_text(encoding="utf-8").splitlines())
    if not speeds:
        raise UserError(f"{metrics}: expected the run's metrics, found none; delete {folder}, and the run is done anew")
    result = {
        **{"identity": config.resolve().identity(), "evaluation_of": _evaluated(settings)},
        **run._asdict(),
        **{"seconds": seconds, "tokens_per_second": speeds[len(speeds) // 2], "evaluation": evaluation},
    }
    write_json(folder / "result.json", result, indent=1)


def _evaluated(settings: CompareSettings) -> dict[str, int | None]:
    return {"num_questions": settings.num_questions, "max_documents": settings.max_documents}


def read_result(settings: CompareSettings, run: Run) -> dict[str, Any] | None:
    """Return the result of a run that is done with these settings, or None.

    Raises:
        ConfigError: If the folder holds the result of other settings.
    """
    path = run_folder(settings, run) / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        stored = result["identity"], result["evaluation_of"]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: expected the result of a run ({error}); delete it, and the run is evaluated anew"
        ) from None
    wanted = run_config(settings, run).resolve().identity(), _evaluated(settings)
    if stored != wanted:
        pairs = [(dict(a), dict(b)) for a, b in zip(stored, wanted, strict=True)]
        names = sorted({name for a, b in pairs for name in {*a, *b} if a.get(name) != b.get(name)})
        raise ConfigError(
            f"{path}: was made with other settings ({', '.join(names)}); choose another --folder, or delete it"
        )
    return result


# -------------------------------------------------------------------------------------------------------------- tables

FIGURES = {
    "perplexity": "perplexity",
    "babi_1": "bAbI 1",
    "babi_2": "bAbI 2",
    "babi_3": "bAbI 3",
    "sums": "sums",
    "tokens_per_second": "tokens/s",
}
"""Columns of the table and their headings."""


def collect_figures(results: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the values of each column, one per run; accuracies are those of the likeliest answer."""
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for result in results:
        evaluation, steps = result["evaluation"], str(result["recurrences"])
        for name, by_steps in evaluation["questions"].items():
            found[name].append(by_steps[steps]["likelihood"])
        found["perplexity"].append(evaluation["perplexity"][steps]["perplexity"])
        found["tokens_per_second"].append(result["tokens_per_second"])
    return found


def write_tables(settings: CompareSettings, output: Path) -> None:
    """Write all figures as JSON and the table as Markdown, of what is done so far."""
    from pipeline.records.intervals import mean_interval

    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in settings.runs():
        if (result := read_result(settings, run)) is not None:
            groups.setdefault((run.variant, run.recurrences), []).append(result)
    rows = []
    for (variant, steps), results in sorted(groups.items()):
        row: dict[str, Any] = {"variant": variant, "recurrences": steps, "seeds": [r["seed"] for r in results]}
        row["parameters"] = results[0]["evaluation"]["parameters"]
        for name, values in collect_figures(results).items():
            found = mean_interval(values)
            # Below three seeds there is no interval, and none of width 0 where all seeds agree exactly.
            known = not math.isnan(found.low) and found.low < found.high
            low, high = (float(found.low), float(found.high)) if known else (None, None)
            row[name] = {"values": values, "mean": float(found.mean), "low": low, "high": high}
        rows.append(row)
    asked = next(iter(groups.values()))[0]["evaluation"]["questions"] if groups else {}
    guesses = {name: {k: next(iter(by.values()))[k] for k in ("n", "chance", "majority")} for name, by in asked.items()}
    content = {"settings": dataclasses.asdict(settings), "guessing": guesses, "rows": rows}
    write_json(output, content, indent=1)
    write_text(output.with_suffix(".md"), format_table(content))


def format_table(content: dict[str, Any]) -> str:
    """Return the Markdown table of a comparison's JSON."""
    settings = content["settings"]
    lines = [
        f"Preset {settings['preset']}, match {settings['match']}, seeds {settings['seeds']}. Mean over seeds, in "
        "brackets the 95 % interval (Student's t; none below three seeds). Accuracy: share of test questions whose "
        "true answer is the likeliest of all answers.",
        "",
        "| variant | r | seeds | active parameters | " + " | ".join(FIGURES.values()) + " |",
        "|" + "---|" * (4 + len(FIGURES)),
    ]
    for row in content["rows"]:
        steps = "-" if row["variant"] == "base" else str(row["recurrences"])
        cells = [row["variant"], steps, str(len(row["seeds"])), f"{row['parameters']['active']:,}"]
        for name in FIGURES:
            cells.append(_format_estimate(row[name], "{:,.0f}" if name == "tokens_per_second" else "{:.3f}"))
        lines.append("| " + " | ".join(cells) + " |")
    if content["guessing"]:
        for key, label in (("chance", "guessing evenly"), ("majority", "always the most frequent answer")):
            shares = [f"{found[key]:.3f}" for found in content["guessing"].values()]
            lines.append("| " + " | ".join([label, "", "", "", "", *shares, ""]) + " |")
    return "\n".join(lines) + "\n"


def _format_estimate(estimate: dict[str, Any], form: str) -> str:
    mean = form.format(estimate["mean"])
    if estimate["low"] is None:
        return mean
    return f"{mean} [{form.format(estimate['low'])}, {form.format(estimate['high'])}]"


if __name__ == "__main__":
    sys.exit(main())
