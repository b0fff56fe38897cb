"""Compare the variants: train all combinations on the embedded data, evaluate them, and tabulate over seeds.

    python -m more.compare --variants all --seeds 0-2 --recurrences 1,2,4 --match active --output more_comparison.json

Every combination is one run under <folder>/<variant>_rec<r>/seed_<s>/; what is done is skipped, so that the command
can be stopped and started again. `base` has no recurrence and runs once per seed. The tables (JSON and Markdown) are
written anew after every run; seeds are the unit of replication, the intervals Student's t.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from more.checkpoints import FINAL_NAME, load_model
from more.config import MODEL_TYPES, Match
from more.report import EvaluationSettings, evaluate_checkpoint, parse_numbers
from more.runs import run_training
from more.settings import TrainingConfig
from pipeline.command.cli import parse_command
from pipeline.command.devices import resolve_device
from pipeline.command.files import replace_atomically
from pipeline.command.folders import check_file, check_folder
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, Link, WorkItem, do_items
from pipeline.config import ConfigError
from pipeline.records.intervals import mean_interval

STOPPED = "stopped"


class _Stopped(Exception):
    """A stop is wished."""


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    Attributes:
        variants: all, or some of base,more_a,more_b,more_c,more_d.
        seeds: E.g. 0-2 or 0,1,2.
        recurrences: Numbers of recurrences in training, e.g. 1,2,4.
        match: Sizes the variants like base: none, total or active.
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
        for name in ("jobs", "torch_threads", "updates", "num_questions", "max_documents"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")

    def variant_names(self) -> list[str]:
        """Return the variants asked for."""
        return list(MODEL_TYPES) if self.variants == "all" else [name.strip() for name in self.variants.split(",")]

    def runs(self) -> list[tuple[str, int, int]]:
        """Return all (variant, r, seed), seed by seed, so that an unfinished comparison is balanced."""
        steps = parse_numbers("recurrences", self.recurrences)
        return [
            (variant, count, seed)
            for seed in parse_numbers("seeds", self.seeds)
            for variant in self.variant_names()
            for count in (steps if variant != "base" else steps[:1])
        ]


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a run failed, 2 refused, 130 stopped by Ctrl-C."""
    options = {"output": "JSON file of all figures; a Markdown table of the same name goes beside it."}
    settings, values = parse_command("Compare the variants.", CompareSettings, argv, options=options)
    output = Path(values["output"] or "more_comparison.json")
    if output.suffix != ".json":
        raise ConfigError(f"output: expected a name ending in .json, found {str(output)!r}")
    check_file("output", output)
    check_folder("folder", Path(settings.folder))
    resolve_device(settings.device)
    return compare(settings, output)


def compare(settings: CompareSettings, output: Path) -> int:
    """Do what is missing, write the tables after every run, and return 1 if a run failed, else 0."""
    runs = settings.runs()
    failures: list[str] = []
    missing = [run for run in runs if read_result(settings, *run) is None]
    write_tables(settings, output)
    items = [WorkItem(f"{run[0]}_rec{run[1]} seed {run[2]}", run_item, (settings, *run)) for run in missing]
    ended = 0
    with (
        Interruption() as interruption,
        tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run", dynamic_ncols=True) as bar,
    ):

        def note(event: Event) -> None:
            nonlocal ended
            if event.kind in ("started", "progress") or event.content == STOPPED:
                return
            ended += 1
            if event.kind != "done":
                failures.append(f"{event.item.name}: {event.content}")
            write_tables(settings, output)
            bar.set_postfix_str(event.item.name, refresh=False)
            bar.update()

        do_items(items, jobs=settings.jobs, report=note, stopping=interruption.stopping)
    if ended < len(items):
        stop_at_once(interruption.signal_number)
    print(output.with_suffix(".md").read_text(encoding="utf-8"))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failures))


# ----------------------------------------------------------------------------------------------------------------- run


def run_folder(settings: CompareSettings, variant: str, steps: int, seed: int) -> Path:
    """Return the folder of one run."""
    return Path(settings.folder) / f"{variant}_rec{steps}" / f"seed_{seed}"


def run_config(settings: CompareSettings, variant: str, steps: int, seed: int) -> TrainingConfig:
    """Return the settings with which one run is trained."""
    folder = run_folder(settings, variant, steps, seed)
    return TrainingConfig(
        model_type=variant,
        num_recurrences=steps,
        preset=settings.preset,
        match=settings.match,
        updates=settings.updates,
        seed=seed,
        data="embedded",
        checkpoint_dir=str(folder / "checkpoints"),
        log_dir=str(folder / "runs"),
        cache_dir=settings.cache_dir,
        tensorboard=False,
        device=settings.device,
        torch_threads=settings.torch_threads,
    )


def run_item(link: Link, settings: CompareSettings, variant: str, steps: int, seed: int) -> str:
    """Do `run_one` as an item of work; return "done", or "stopped" if a stop was wished before its end."""

    def tick() -> None:
        if link.stopping():
            raise _Stopped

    try:
        code = run_one(settings, variant, steps, seed, stopping=link.stopping, tick=tick)
    except _Stopped:
        return STOPPED
    return STOPPED if code else "done"


def run_one(
    settings: CompareSettings,
    variant: str,
    steps: int,
    seed: int,
    *,
    stopping: Callable[[], bool] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> int:
    """Train (or go on training) and evaluate one combination, and write its result; return training's exit code.

    `run_training` explains `stopping`, `evaluate_checkpoint` explains `tick`. `seconds` of the result is the wall-clock
    time of this call's training: where a run was interrupted, that of its last part alone.
    """
    config = run_config(settings, variant, steps, seed)
    began = time.perf_counter()
    code = run_training(config, resume=True, quiet=True, stopping=stopping)
    if code:
        return code
    seconds = time.perf_counter() - began
    path = Path(config.checkpoint_dir) / config.run_name() / FINAL_NAME
    evaluation = evaluate_checkpoint(
        load_model(path, resolve_device(settings.device)),
        EvaluationSettings(
            num_questions=settings.num_questions, max_documents=settings.max_documents, cache_dir=settings.cache_dir
        ),
        name=str(path),
        quiet=True,
        tick=tick,
    )
    lines = (Path(config.log_dir) / config.run_name() / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = sorted(json.loads(line)["Tokens_per_Second"] for line in lines)
    result = {
        **{"identity": config.resolve().identity(), "evaluation_of": _evaluated(settings)},
        **{"variant": variant, "recurrences": steps, "seed": seed, "seconds": seconds},
        **{"tokens_per_second": speeds[len(speeds) // 2], "evaluation": evaluation},
    }
    target = run_folder(settings, variant, steps, seed) / "result.json"
    with replace_atomically(target) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _evaluated(settings: CompareSettings) -> dict[str, int | None]:
    return {"num_questions": settings.num_questions, "max_documents": settings.max_documents}


def read_result(settings: CompareSettings, variant: str, steps: int, seed: int) -> dict[str, Any] | None:
    """Return the result of a run that is done with these settings, or None.

    Raises:
        ConfigError: If the folder holds the result of other settings.
    """
    path = run_folder(settings, variant, steps, seed) / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        stored = result["identity"], result["evaluation_of"]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: expected the result of a run ({error}); delete it, and the run is evaluated anew"
        ) from None
    wanted = run_config(settings, variant, steps, seed).resolve().identity(), _evaluated(settings)
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
        found["perplexity"].append(evaluation["perplexity"][steps]["perplexity"])
        for name in ("babi_1", "babi_2", "babi_3", "sums"):
            found[name].append(evaluation["questions"][name][steps]["likelihood"])
        found["tokens_per_second"].append(result["tokens_per_second"])
    return found


def write_tables(settings: CompareSettings, output: Path) -> None:
    """Write all figures as JSON and the table as Markdown, of what is done so far."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for variant, steps, seed in settings.runs():
        result = read_result(settings, variant, steps, seed)
        if result is not None:
            groups.setdefault((variant, steps), []).append(result)
    rows = []
    for (variant, steps), results in sorted(groups.items()):
        row: dict[str, Any] = {"variant": variant, "recurrences": steps, "seeds": [r["seed"] for r in results]}
        row["parameters"] = results[0]["evaluation"]["parameters"]
        for name, values in collect_figures(results).items():
            estimate = mean_interval(values)
            low, high = float(estimate.low), float(estimate.high)
            known = low == low  # not a number below three seeds
            row[name] = {
                **{"values": values, "mean": float(estimate.mean)},
                **{"low": low if known else None, "high": high if known else None},
            }
        rows.append(row)
    asked = next(iter(groups.values()))[0]["evaluation"]["questions"] if groups else {}
    guesses = {name: {k: next(iter(by.values()))[k] for k in ("n", "chance", "majority")} for name, by in asked.items()}
    content = {"settings": dataclasses.asdict(settings), "guessing": guesses, "rows": rows}
    with replace_atomically(output) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with replace_atomically(output.with_suffix(".md")) as temporary:
        temporary.write_text(format_table(content), encoding="utf-8")


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
        cells = [row["variant"], "-" if row["variant"] == "base" else str(row["recurrences"]), str(len(row["seeds"]))]
        cells.append(f"{row['parameters']['active']:,}")
        for name in FIGURES:
            cells.append(_format_estimate(row[name], "{:,.0f}" if name == "tokens_per_second" else "{:.3f}"))
        lines.append("| " + " | ".join(cells) + " |")
    if content["guessing"]:
        for key, label in (("chance", "guessing evenly"), ("majority", "always the most frequent answer")):
            shares = [f"{found[key]:.3f}" for found in content["guessing"].values()]
            cells = [label, "", "", "", "", *shares, ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _format_estimate(estimate: dict[str, Any], form: str) -> str:
    mean = form.format(estimate["mean"])
    if estimate["low"] is None:
        return mean
    return f"{mean} [{form.format(estimate['low'])}, {form.format(estimate['high'])}]"


if __name__ == "__main__":
    sys.exit(main())
