"""Compare the variants: train all combinations, evaluate them, and tabulate over seeds.

    python -m more.compare --preset chains --jobs 2 --output more_chains.json
    python -m more.compare --preset debug --seeds 0-2 --recurrences 1,2,4 --match active --output more_comparison.json

The first, on a generated task that needs as many steps as its answers are deep (`more/tasks.py`), crosses variants with
r and with the number of experts, beside the controls of `more/task_plan.py`, and evaluates every model at many r. The
second trains on the embedded text. Every combination is one run under <folder>/<its name>/seed_<s>/; what is done is
skipped, so that the command can be stopped and started again. The tables (JSON and Markdown) are written anew after
every run; seeds are the unit of replication, the intervals Student's t.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from more.config import MODEL_TYPES, VARIANTS, Match, migrate_settings
from more.intervals import estimate, format_estimate
from more.options import EvaluationSettings, parse_numbers
from more.settings import TrainingConfig
from more.task_plan import TASK_VARIANTS, describe_model, plan_rows, read_rates
from more.tasks import TASK_NAMES, TaskName
from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import UserError
from pipeline.command.files import write_json, write_text
from pipeline.command.folders import check_file, check_folder
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.launcher import FLAGS, HERE, Launcher, parse_launcher
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, Link, Stopped, WorkItem
from pipeline.config import ConfigError
from pipeline.launch.items import launch
from pipeline.tracking import METRICS_FILE

TASK_UPDATES, TASK_QUESTIONS, TEST_RECURRENCES = 2_000, 1_000, "1,2,3,4,6,8,12,16"
"""With which 175 runs on a generated task take about 90 CPU minutes: 35 rows of 14 ms an update on the average."""


class Run(NamedTuple):
    """One combination that is trained and evaluated.

    Attributes:
        variant: Of text a model type, of a task one of `TASK_VARIANTS`.
        recurrences: r in training.
        seed: Of the run.
        experts: Of each layer; None for the preset's.
        lr: Learning rate; None for the preset's.
    """

    variant: str
    recurrences: int
    seed: int
    experts: int | None = None
    lr: float | None = None

    def row(self) -> str:
        """Return the name of what its seeds have in common."""
        experts = "" if self.experts is None else f"_experts{self.experts}"
        return f"{self.variant}_rec{self.recurrences}{experts}" + ("" if self.lr is None else f"_lr{self.lr:g}")

    def name(self) -> str:
        """Return what messages call it."""
        return f"{self.row()} seed {self.seed}"


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison. Fields that are null take the preset's value.

    Attributes:
        variants: all, or some of base,more_a,more_b,more_c,more_d,looped; with the preset chains also of
            base_deep,more_a_all.
        seeds: E.g. 0-2 or 0,1,2; null takes 0-2, with the preset chains 0-4.
        recurrences: Numbers of recurrences in training, e.g. 1,2,4.
        match: Sizes the variants like base: none, total, active or operations.
        preset: chains, which trains on a generated task, or standard or debug, which train on text.
        data: Task of the preset chains: chains, hops or modular; null takes chains.
        experts: Numbers of experts, preset chains only; null takes 1,4.
        test_recurrences: Numbers of recurrences at test, preset chains only; null takes some from 1 to 16.
        lr: Learning rates, preset chains only, e.g. 0.003,0.001: of several, the best on the validation split is taken
            for each row of the table; null takes one that suits the row.
        sample_recurrences: Draw r anew for each update, as in training.
        updates: Weight updates of every run; null takes the preset's epochs, with the preset chains 2,000.
        num_questions: Test questions of each task, test sequences of a generated one, at most; null takes all, of a
            generated task 1,000.
        max_documents: Documents of the perplexity at most; null takes all.
        folder: Where the runs go.
        cache_dir: Folder of tokenised data.
        jobs: Runs at a time, each in a process of its own. Default: one; with --launcher as many as there is room for.
        torch_threads: CPU threads of each run.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
    """

    variants: str = "all"
    seeds: str | None = None
    recurrences: str = "1,2,4"
    match: Match = "active"
    preset: Literal["standard", "debug", "chains"] = "chains"
    data: TaskName | None = None
    experts: str | None = None
    test_recurrences: str | None = None
    lr: str | None = None
    sample_recurrences: bool = False
    updates: int | None = None
    num_questions: int | None = None
    max_documents: int | None = None
    folder: str = "more_comparison"
    cache_dir: str = "data_cache"
    jobs: int | None = None
    torch_threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: If one cannot be used.
        """
        known = TASK_VARIANTS if self.on_task else MODEL_TYPES
        unknown = [name for name in self.variant_names() if name not in known]
        if unknown:
            raise ConfigError(f"variants: expected all or some of {', '.join(known)}, found {unknown[0]!r}")
        for name in ("data", "experts", "test_recurrences", "lr"):
            if getattr(self, name) is not None and not self.on_task:
                raise ConfigError(f"{name}: expected --preset chains beside it, found {self.preset}")
        for name in ("seeds", "recurrences", "experts", "test_recurrences"):
            parse_numbers(name, getattr(self, name), least=int(name != "seeds"))
        read_rates(self.lr)
        check_numbers(self, 1, "jobs", "torch_threads", "updates", "num_questions", "max_documents")

    @property
    def on_task(self) -> bool:
        """Whether the runs learn a generated task."""
        return self.preset == "chains"

    def variant_names(self) -> list[str]:
        """Return the variants asked for."""
        if self.variants == "all":
            return list(TASK_VARIANTS if self.on_task else VARIANTS)
        return [name.strip() for name in self.variants.split(",")]

    def seed_numbers(self) -> list[int]:
        """Return the seeds of every row."""
        return parse_numbers("seeds", self.seeds or ("0-4" if self.on_task else "0-2"))

    def runs(self) -> list[Run]:
        """Return all runs, seed by seed, so that an unfinished comparison is balanced."""
        steps = parse_numbers("recurrences", self.recurrences)
        if self.on_task:
            rows = plan_rows(self.variant_names(), steps, parse_numbers("experts", self.experts or "1,4"), self.lr)
            return [
                Run(row.variant, row.recurrences, seed, row.experts, row.lr)
                for seed in self.seed_numbers()
                for row in rows
            ]
        return [
            Run(variant, count, seed)
            for seed in self.seed_numbers()
            for variant in self.variant_names()
            for count in (steps if variant != "base" else steps[:1])
        ]


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a run failed, 2 refused, 128 + signal stopped."""
    options = {**FLAGS, "output": "JSON file of all figures; a Markdown table of the same name goes beside it."}
    settings, values = parse_command("Compare the variants.", CompareSettings, argv, options=options)
    launcher = parse_launcher(**{name: values[name] for name in FLAGS})
    output = Path(values["output"] or "more_comparison.json")
    if output.suffix != ".json":
        raise ConfigError(f"output: expected a name ending in .json, found {str(output)!r}")
    check_file("output", output)
    check_folder("folder", Path(settings.folder))
    from pipeline.command.devices import resolve_device  # here: --help and mistakes are told without torch

    if launcher.is_local:
        resolve_device(settings.device)
    return compare(settings, output, launcher)


def compare(settings: CompareSettings, output: Path, launcher: Launcher = HERE) -> int:
    """Do what is missing, write the tables after every run, and return 1 if a run failed, else 0."""
    runs = settings.runs()
    failures: list[str] = []
    missing = [run for run in runs if read_result(settings, run) is None]
    write_tables(settings, output)
    items = []
    for run in missing:
        folders = (run_folder(settings, run),)
        items.append(WorkItem(run.name(), run_item, (settings, run), inputs=folders, outputs=folders))
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

        launch(items, launcher=launcher, jobs=settings.jobs, report=note, stopping=interruption.stopping)
    write_tables(settings, output)
    if settings.on_task and any(read_result(settings, run) is not None for run in runs):
        from more.task_charts import draw_charts

        for path in draw_charts(output):
            print(f"chart       {path}")
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
    return Path(settings.folder) / run.row() / f"seed_{run.seed}"


def run_config(settings: CompareSettings, run: Run) -> TrainingConfig:
    """Return the settings with which one run is trained."""
    folder = run_folder(settings, run)
    shared = ("preset", "match", "sample_recurrences", "cache_dir", "device", "torch_threads")
    if settings.on_task:
        special = {**describe_model(run.variant, run.recurrences), "num_experts": run.experts, "lr": run.lr}
        special |= {"data": settings.data or TASK_NAMES[0], "updates": settings.updates or TASK_UPDATES}
    else:
        special = {"model_type": run.variant, "num_recurrences": run.recurrences, "data": "embedded"}
        special["updates"] = settings.updates
    return TrainingConfig(
        **special,
        seed=run.seed,
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


def _evaluated(settings: CompareSettings) -> dict[str, Any]:
    if settings.on_task:
        return {
            "num_questions": settings.num_questions or TASK_QUESTIONS,
            "recurrences": settings.test_recurrences or TEST_RECURRENCES,
        }
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
    # What older results lack was not there to be chosen: null, or as `migrate_settings` says.
    stored = {**dict.fromkeys(wanted[0]), **migrate_settings(stored[0])}, stored[1]
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
    """Write all figures as JSON and the table as Markdown, of what is done so far; of a task the charts too."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    found: list[dict[str, Any]] = []
    for run in settings.runs():
        if (result := read_result(settings, run)) is not None:
            found.append(result)
            groups.setdefault((run.variant, run.recurrences), []).append(result)
    if settings.on_task:
        from more.task_tables import format_task_tables, tabulate

        content = {"settings": dataclasses.asdict(settings), **tabulate(found)}
        write_json(output, content, indent=1)
        write_text(output.with_suffix(".md"), format_task_tables(content))
        return
    rows = []
    for (variant, steps), results in sorted(groups.items()):
        row: dict[str, Any] = {"variant": variant, "recurrences": steps, "seeds": [r["seed"] for r in results]}
        row["parameters"] = results[0]["evaluation"]["parameters"]
        row |= {name: estimate(values) for name, values in collect_figures(results).items()}
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
        f"Preset {settings['preset']}, match {settings['match']}, seeds {settings['seeds'] or '0-2'}. Mean over seeds, "
        "in brackets the 95 % interval (Student's t; none below three seeds). Accuracy: share of test questions whose "
        "true answer is the likeliest of all answers.",
        "",
        "| variant | r | seeds | active parameters | " + " | ".join(FIGURES.values()) + " |",
        "|" + "---|" * (4 + len(FIGURES)),
    ]
    for row in content["rows"]:
        steps = "-" if row["variant"] == "base" else str(row["recurrences"])
        cells = [row["variant"], steps, str(len(row["seeds"])), f"{row['parameters']['active']:,}"]
        for name in FIGURES:
            cells.append(format_estimate(row[name], "{:,.0f}" if name == "tokens_per_second" else "{:.3f}"))
        lines.append("| " + " | ".join(cells) + " |")
    if content["guessing"]:
        for key, label in (("chance", "guessing evenly"), ("majority", "always the most frequent answer")):
            shares = [f"{found[key]:.3f}" for found in content["guessing"].values()]
            lines.append("| " + " | ".join([label, "", "", "", "", *shares, ""]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
