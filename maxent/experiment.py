"""Models, methods and samples, one after the other; what fails is recorded, and the others go on.

Exit codes: 0 all is done; 1 some models failed, or metrics or charts could not be written; 2 refused, or no model could
be had; 130 and the like: stopped, with all samples kept that were done.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxent.answers import build_parse, describe_progress, fit_sample, score_run
from maxent.comparison import compare_runs, format_scores, format_table
from maxent.data.sample import Dataset, Sample
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import Rollout, SearchResult
from maxent.elsewhere import Told, part_path, read_part, search_models
from maxent.loading import Loaded, load
from maxent.metrics import RunLog, choose_wandb
from maxent.pictures import try_drawing, try_keeping_tree
from maxent.questions import load_questions
from maxent.results import Results, describe_search, summarise_samples, to_plain
from maxent.rewards.catalogue import EpisodeScorer, Scorer, build_scorer
from maxent.settings import ExperimentSettings, read_command
from maxent.threads import use_threads
from pipeline.command.bars import Bar
from pipeline.command.errors import MISTAKES, ConfigError, FolderError, explain
from pipeline.command.folders import HeldError, check_folder, hold_lock
from pipeline.command.interruption import Interruption
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.shell import as_command
from pipeline.command.workers import Link

LOADED = ("weights", "source", "kv", "simulator", "num_recurrences", "digest")
"""What a run's part of the results says of the model."""
LONG = 600.0
"""Seconds from which on a run that has begun is told how long it will take."""


class Stopped(Exception):
    """A stop is wished, in the middle of a sample, or of a stand-in's training."""


@dataclass(frozen=True)
class Task:
    """What is asked of every model.

    Attributes:
        settings: Of the experiments.
        dataset: Where samples are from.
        samples: That are searched.
        scorer: The reward.
        wandb: What `wandb.init` takes, None without Weights & Biases.
    """

    settings: ExperimentSettings
    dataset: Dataset
    samples: Sequence[Sample]
    scorer: Scorer | EpisodeScorer
    wandb: Mapping[str, Any] | None


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of maxent/run_experiments_with_wandb.py; return the exit code."""
    settings, resume, launcher = read_command(argv)
    return run_experiments(settings, resume=resume, launcher=launcher)


def run_experiments(settings: ExperimentSettings, *, resume: bool = False, launcher: Launcher = HERE) -> int:
    """Search with all models and methods; return the exit code.

    Args:
        settings: What is to be done.
        resume: Go on with the newest results of these settings.
        launcher: Where models are searched; elsewhere each is an item of work.

    Raises:
        UserError: If something is refused before the first model.
        OSError: If the results cannot be written.
    """
    folder = Path(settings.output_dir)
    check_folder("output_dir", folder)
    kept = Results.reopen(folder, settings) if resume else None
    task = build_task(settings, print)
    dataset, samples, scorer = task.dataset, task.samples, task.scorer
    header = {
        "data": {"name": dataset.name, "kind": "real" if dataset.real else "synthetic", "origin": dataset.origin},
        "reward": {"name": scorer.name, "sees_label": scorer.sees_label, "note": scorer.note},
    }
    if kept is not None:
        kept.check_samples(samples)
        print(f"goes on with {kept.path}")
    results = kept or Results.create(folder, settings, header)
    try:
        with hold_lock(results.path.with_name(f".{results.path.name}.lock"), 0):
            if kept is not None:
                results.reload()
            return run_models(task, results, launcher)
    except HeldError as error:
        raise FolderError(f"{results.path}: another process is at work on it; {error}".rstrip("; ")) from None


def build_task(settings: ExperimentSettings, announce: Callable[[str], object]) -> Task:
    """Return what is asked of every model.

    Args:
        settings: Of the experiments.
        announce: Is told, in a line, what is worth telling.

    Raises:
        UserError: If something cannot be had.
    """
    dataset = load_questions(settings)
    announce(dataset.describe())
    scorer = build_scorer(settings.reward, dataset, settings.lpc_alpha)
    asked = dataset.splits["test"]
    judged = scorer.choose(asked)
    samples = judged[: settings.num_samples]
    if settings.answer == "vote" and build_parse(dataset) is None:
        raise ConfigError(f"answer: vote needs labels, which {dataset.name} has none of; use max or sample")
    if len(samples) < settings.num_samples:
        announce(f"num_samples: the test split has {len(samples)}, all of which are taken")
    if len(judged) < len(asked):
        announce(f"reward: {scorer.name} cannot judge {len(asked) - len(judged)} of {len(asked)} samples, left out")
    if (
        settings.budget_tokens is not None
        and settings.num_rollouts * (settings.max_tokens - 1) <= settings.budget_tokens
    ):
        announce(
            f"budget_tokens: {settings.num_rollouts} rollouts of at most {settings.max_tokens} tokens feed no more "
            f"than {settings.budget_tokens}, so it ends no search; for a comparison at equal new tokens "
            "raise --num_rollouts"
        )
    announce(f"reward: {scorer.name}{f', {scorer.note}' if scorer.note else ''}")
    return Task(settings, dataset, samples, scorer, choose_wandb(settings, announce))


def run_models(task: Task, results: Results, launcher: Launcher = HERE) -> int:
    """Search with all models and methods what is missing; return the exit code."""
    settings, samples, tracked_all = task.settings, task.samples, True
    with Interruption() as interruption:
        total = len(results.content["runs"]) * len(samples)
        done = sum(len(run["samples"]) for run in results.content["runs"])
        with Bar(total=total, initial=done, desc="searching", unit="sample", disable=None) as bar:  # a log has lines
            if launcher != HERE:
                tracked_all = search_models(search_model, settings, results, launcher, interruption, bar)
            for key in settings.models if launcher == HERE else ():
                if interruption.stopping():
                    break
                tracked_all &= run_model(key, task, results, interruption, bar)
    return finish(results, interruption, tracked_all, charts=not settings.no_charts)


def finish(results: Results, interruption: Interruption, tracked_all: bool, *, charts: bool) -> int:
    """Write what has become of all, print the table, draw the charts if wished, and return the exit code."""
    runs = results.content["runs"]
    failed = [run for run in runs if run["status"] == "failed"]
    stopped = any(run["status"] in ("waiting", "running") for run in runs)
    results.content["status"] = "interrupted" if stopped else "failed" if failed else "done"
    rows = compare_runs(runs)
    results.content["comparison"] = to_plain(rows)
    results.save()
    print("\n".join(["", *format_table(rows), *format_scores(runs)]))
    for run in failed:
        print(f"failed: {run['display_name']}, {run['method']}: {run['error']['message']}", file=sys.stderr)
    print(f"\nResults saved to: {results.path}")
    drawn = not charts or try_drawing(results.path, print)
    if stopped:
        print("stopped; the same command with --resume goes on", file=sys.stderr)
        return interruption.exit_code
    if len(failed) == len(runs) and all(run["error"]["refused"] and not run["samples"] for run in runs):
        return 2
    return int(bool(failed) or not tracked_all or not drawn)


# ------------------------------------------------------------------------------------------------------------ one model


class _Reported:
    """A bar that is shown where the work was asked for."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def write(self, text: str) -> None:
        self._link.report(("say", text))

    def update(self) -> None:
        self._link.report(("sample", None))


def search_model(link: Link, settings: ExperimentSettings, path: Path, key: str, runs: list[dict[str, Any]]) -> bool:
    """Search with a model as a work item; return whether all metrics were written. See `maxent.elsewhere`."""
    before = read_part(path, key)  # of an earlier try
    results = Results(path, {"runs": [before.get(run["method"], run) for run in runs]}, part_path(path, key))
    with Interruption(heard_elsewhere=link.stopping) as interruption:
        complete = run_model(key, build_task(settings, str), results, interruption, _Reported(link))
    results.save()
    link.heed()
    return complete


def run_model(key: str, task: Task, results: Results, interruption: Interruption, bar: Told) -> bool:
    """Search with a model by all methods; return whether all metrics were written."""
    runs = [results.find_run(key, method) for method in task.settings.methods]
    runs = [run for run in runs if run["status"] != "done"]
    if not runs:
        return True
    bar.write(f"\n{runs[0]['display_name']} ({key})")
    try:
        loaded = load(key, task.settings, task.dataset, bar.write, lambda: check_going_on(interruption))
        results.check_weights(key, loaded.digest, loaded.source)
        context = loaded.model.limit
    except Stopped:
        return True
    except Exception as error:  # whatever its code and weights may raise: the others go on
        for run in runs:
            note_failure(run, error, bar.write)
        results.save()
        return True
    bar.write(f"weights: {loaded.weights} ({loaded.source}), data: {'real' if task.dataset.real else 'synthetic'}")
    tracked_all = True
    for run in runs:
        if interruption.stopping():
            break
        run.update(status="running", error=None)
        run.update({name: getattr(loaded, name) for name in LOADED})
        with use_threads(loaded.threads):
            tracked_all &= run_method(run, loaded, context, task, results, interruption, bar)
    return tracked_all


def note_failure(run: dict[str, Any], error: Exception, announce: Callable[[str], object]) -> None:
    """Record in a run why it has ended."""
    refused = isinstance(error, MISTAKES)
    message = explain(error) if refused else f"{type(error).__name__}: {explain(error)}"
    where = None if refused else "".join(traceback.format_exception(error))
    found = {"type": type(error).__name__, "message": message, "refused": refused, "traceback": where}
    run.update(status="failed", error=found)
    announce(f"failed, {run['method']}: {message}")


def run_method(
    run: dict[str, Any],
    loaded: Loaded,
    context: int | None,
    task: Task,
    results: Results,
    interruption: Interruption,
    bar: Told,
) -> bool:
    """Search all samples that are missing, by one method; return whether all metrics and trees were written.

    Args:
        run: Its part of the results, which grows by each sample.
        loaded: The model.
        context: Tokens that prompt and answer together may have; None without bound.
        task: What is asked.
        results: Written after each sample.
        interruption: Asked after each rollout.
        bar: Counts samples.
    """
    log = RunLog(run, task.settings, results.path, task.wandb, bar.write)
    error: Exception | None = None
    complete = True
    try:
        results.save()
        for index in range(len(run["samples"]), len(task.samples)):
            try:
                sample, note = fit_sample(task.samples[index], loaded.count_tokens, context, task.settings.max_tokens)
                if note is not None:
                    bar.write(note)
                result = search_sample(run["method"], sample, index, loaded, task, log, interruption)
            except Stopped:
                break
            except Exception as caught:  # of the model, of the reward: the other runs go on
                error = caught
                break
            if not task.settings.no_trees:
                complete &= try_keeping_tree(results.path, run, index, result, loaded.model.decode, bar.write)
            mission = getattr(loaded.model, "mission", None)
            run["samples"].append(describe_search(sample, result, note, mission))
            run["summary"] = summarise_samples(run["samples"])
            log.note_sample(index, run["samples"][-1])  # first: who goes on drops lines without a sample, adds none
            results.save()
            bar.update()
            bar.write(describe_progress(run["method"], index, len(task.samples), result))
            left = (len(task.samples) - index - 1) * run["summary"]["avg_time_per_sample"]
            if index == 0 and left > LONG:
                bar.write(f"  about {left / 60:.0f} minutes are left for this; --preset quick asks for less")
        if error is not None:
            note_failure(run, error, bar.write)
        elif len(run["samples"]) == len(task.samples):
            run["status"] = "done"
            run["scores"] = to_plain(score_run(run, task.samples, task.dataset))
            log.note_end(run["summary"])
        results.save()
    finally:
        complete &= log.close(failed=run["status"] != "done")
    return complete


def search_sample(
    method: str,
    sample: Sample,
    index: int,
    loaded: Loaded,
    task: Task,
    log: RunLog,
    interruption: Interruption,
) -> SearchResult:
    """Search answers to one sample.

    Raises:
        Stopped: If a stop is wished.
    """

    def note(rollout: Rollout) -> None:
        log.note_rollout(rollout)
        check_going_on(interruption)

    log.begin_sample()
    settings = task.settings.build_search(method, derive_sample_seed(task.settings.seed, index))
    reward, prompt = task.scorer.bind(sample, loaded.model), loaded.read_prompt(sample)
    return search(loaded.model, prompt, reward, settings, parse=build_parse(task.dataset), on_rollout=note)


def check_going_on(interruption: Interruption) -> None:
    """Go on, unless a stop is wished.

    Raises:
        Stopped: If it is.
    """
    if interruption.stopping():
        raise Stopped


def derive_sample_seed(seed: int, index: int) -> int:
    """Return the seed of the search of a sample: the same for all models and methods."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
