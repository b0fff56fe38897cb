"""The answers of one checkpoint to the questions of a bAbI task: rows for a judge, and the routing of their tokens."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from tqdm import tqdm

from more.checkpoints import LoadedModel
from more.evaluation import Answer, ask, summarise_answers
from more.generation import group_by_length, pad
from more.heuristics import NAMES
from more.options import TableSettings
from more.report import open_checkpoint, reopen_source
from more.sankey import TokenRoutes, render_page
from more.step_answers import answer_by_steps, render_steps
from pipeline.command.displays import open_page
from pipeline.command.errors import DataError
from pipeline.command.files import write_text
from pipeline.command.folders import check_file
from pipeline.config import ConfigError

COLUMNS: dict[str, Callable[[Answer], object]] = {
    "context": lambda answer: answer.question.context.replace("\n", " "),
    "question": lambda answer: answer.question.question,
    "true_answer": lambda answer: answer.question.answer,
    "predicted_answer": lambda answer: answer.generated,
    "is_correct": lambda answer: answer.exact,
    "likeliest_answer": lambda answer: answer.likeliest,
    "likeliest_is_correct": lambda answer: answer.chosen,
    "log_likelihood_of_true_answer": lambda answer: f"{answer.log_likelihood:.6g}",
    "num_candidates": lambda answer: answer.candidates,
    "context_truncated": lambda answer: answer.truncated,
    "babi_task_id": lambda answer: answer.question.task,
}
"""Columns of the table and what is in them; sentences of a context are joined by spaces."""
MODEL_COLUMNS = ("model_type", "num_recurrences", "checkpoint_path")
"""Columns beside them, which tell the model."""

POLICIES = "checkpoint_path,task_id"
"""How the policies' evaluation_results.csv begins, which a user may have named too."""

TITLE = "Ways of tokens through the experts"


def check_outputs(table: Path, page: Path) -> None:
    """Refuse outputs that cannot be written, or would replace what this command did not write.

    Raises:
        ConfigError: If one is a folder, in one that cannot be written to, or there and of something else, such as the
            policies' evaluation_results.csv; or if both are the same file.
    """
    check_file("output_csv", table)
    check_file("output_html", page)
    if table.resolve() == page.resolve():
        raise ConfigError(f"output_csv, output_html: expected two files, found {table} for both; name another one")
    with _open_existing(table) as handle:
        start = handle.readline(10_000)
    if start and start.rstrip("\r\n") != ",".join([*COLUMNS, *MODEL_COLUMNS]):
        what = f"it begins with {start[:60]!r}"
        if start.startswith(POLICIES):
            what = "the policies' results, which batch_eval.py writes"
        raise ConfigError(
            f"output_csv: {table} holds something else ({what}), which would be lost; name another file, such as "
            f"--output_csv {_free_name(table)}"
        )
    with _open_existing(page) as handle:
        start = handle.read(1000)
    if start and f"<title>{TITLE}" not in start:
        raise ConfigError(f"output_html: {page} holds something else, which would be lost; name another file")


def _free_name(path: Path) -> Path:
    """Return a path beside one that is taken, at which there is nothing."""
    names = (path.with_name(f"more_{path.stem}{'' if n == 1 else f'_{n}'}{path.suffix}") for n in itertools.count(1))
    return next(name for name in names if not name.exists() and not name.with_suffix(".html").exists())


def _open_existing(path: Path) -> TextIO:
    """Open a file for reading; one that is not there is empty."""
    return path.open(encoding="utf-8", errors="replace", newline="") if path.exists() else io.StringIO()


def run(settings: TableSettings, checkpoint: Path, table: Path, page: Path, *, browser: bool = True) -> None:
    """Ask, write table and page, print the accuracy, and open the page if that is wished and can be seen."""
    loaded = open_checkpoint(checkpoint, settings)
    source = reopen_source(loaded, settings.data_dir)
    everything = source.questions("test").get(settings.babi_task_id, [])
    questions = everything[: settings.num_questions]
    if not questions:
        raise DataError(f"babi_task_id {settings.babi_task_id}: expected test questions, found none")
    steps = settings.test_recurrences or loaded.model.config.num_recurrences
    with tqdm(total=len(questions), desc="questions", unit="question", dynamic_ncols=True) as bar:
        answers = ask(
            loaded.model,
            loaded.tokenizer,
            questions,
            candidates=[question.answer for question in everything],
            num_recurrences=steps,
            progress=bar.update,
        )
    routes = trace_routes(loaded, [answer.prompt for answer in answers], steps)
    whole, *_ = trace_routes(loaded, [[*answers[0].prompt, *answers[0].written]], steps)
    whole = dataclasses.replace(whole, answer_from=len(answers[0].prompt))
    config = loaded.model.config
    subtitle = (
        f"{config.model_type}, trained with {config.num_recurrences}, tested with {steps} recurrences; {checkpoint}; "
        f"{len(questions):,} of {len(everything):,} test questions"
    )
    title = f"{TITLE}: bAbI {settings.babi_task_id}"
    first = answers[0]
    caption = f"First question: {first.question.question} Answered: {first.generated}. True: {first.question.answer}."
    if first.truncated:
        caption += " Its oldest statements did not fit into the window."
    aggregate = np.concatenate([route.choices for route in routes])
    closed = [question.answer for question in everything]
    by_steps = answer_by_steps(loaded, first, closed, steps)
    recurs = 1 if config.model_type in ("base", "looped") else steps  # of an expert
    if config.model_type == "looped" and steps > 1:
        caption += f" Every pass takes {config.num_layers} of the layers shown; the first pass is on the left."
    html = render_page(title, subtitle, caption, whole, aggregate, config.num_experts, recurs, render_steps(by_steps))
    write_table(table, answers, loaded, str(checkpoint), steps)
    write_text(page, html)
    found = summarise_answers(answers)
    print(
        f"bAbI {settings.babi_task_id}: written right {found['exact']:.3f} [{found['exact_low']:.3f}, "
        f"{found['exact_high']:.3f}], likeliest right {found['likelihood']:.3f} [{found['likelihood_low']:.3f}, "
        f"{found['likelihood_high']:.3f}], chance {found['chance']:.3f}, {found['n']} questions"
    )
    if found.get("beyond", {}).get("n"):
        beyond = found["beyond"]
        print(
            f"        {NAMES[settings.babi_task_id]} is right in {found['heuristic']:.3f}; of the {beyond['n']} others "
            f"written right {beyond['exact']:.3f}, likeliest right {beyond['likelihood']:.3f}"
        )
    print(f"table       {table}")
    print(f"diagram     {page}")
    if browser:
        open_page(page)


def write_table(path: Path, answers: Sequence[Answer], loaded: LoadedModel, checkpoint: str, steps: int) -> None:
    """Write one row per answer, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *MODEL_COLUMNS])
    model = (loaded.model.config.model_type, steps, checkpoint)
    writer.writerows([*(show(answer) for show in COLUMNS.values()), *model] for answer in answers)
    write_text(path, text.getvalue())


@torch.no_grad()
def trace_routes(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], steps: int, batch_size: int = 64
) -> list[TokenRoutes]:
    """Return the experts that the tokens of each prompt went to; with top-k above 1, the first of each.

    Args:
        loaded: Model and tokenizer.
        prompts: Token numbers, the first the end-of-text token; see `Answer.prompt`.
        steps: Number of recurrences.
        batch_size: Prompts read together; it changes speed, not results beyond rounding.
    """
    found: dict[int, TokenRoutes] = {}
    for rows in group_by_length(prompts, batch_size):
        tokens, lengths = pad([prompts[row] for row in rows], loaded.model)
        _, routing, _ = loaded.model.compute_features(tokens, num_recurrences=steps, lengths=lengths)
        best = torch.stack([routed.probs for routed in routing], dim=2).float().max(dim=-1)  # (batch, time, layers)
        probs, choices = best.values.cpu().numpy(), best.indices.cpu().numpy()
        for place, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            pieces = ["(start)", *loaded.tokenizer.pieces(list(prompts[row][1:]))]
            found[row] = TokenRoutes(pieces, choices[place, :length], probs[place, :length])
    return [found[row] for row in range(len(prompts))]
