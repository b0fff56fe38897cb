"""The answers of one checkpoint to the questions of a bAbI task: rows for a judge, and the routing of their tokens."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from more.babi import TASKS, DataError, Question
from more.checkpoints import LoadedModel
from more.config import ModelType
from more.evaluation import Answer, ask, fit_prompt, summarise_answers
from more.model import MoreModel
from more.report import USER_ERRORS, open_checkpoint, reopen_source
from more.sankey import TokenRoutes, render_page
from pipeline.cli import parse_command
from pipeline.config import ConfigError
from pipeline.files import replace_atomically

COLUMNS = (
    "context",
    "question",
    "true_answer",
    "predicted_answer",
    "is_correct",
    "likeliest_answer",
    "likeliest_is_correct",
    "log_likelihood_of_true_answer",
    "num_candidates",
    "context_truncated",
    "babi_task_id",
    "model_type",
    "num_recurrences",
    "checkpoint_path",
)


@dataclass(frozen=True)
class TableSettings:
    """Settings of the questions.

    Attributes:
        model_type: Checked against the checkpoint; null takes its own.
        num_recurrences: Likewise.
        test_recurrences: Number of recurrences at test time; null takes the trained one.
        babi_task_id: 1, 2 or 3: the facts that an answer rests on.
        num_questions: Questions at most; null takes all.
        data_dir: Folder with the data, where it is not where it was in training; null takes that of the checkpoint.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
    """

    model_type: ModelType | None = None
    num_recurrences: int | None = None
    test_recurrences: int | None = None
    babi_task_id: int = 2
    num_questions: int | None = None
    data_dir: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: If a value cannot be used.
        """
        if self.babi_task_id not in TASKS:
            raise ConfigError(f"babi_task_id: expected 1, 2 or 3, found {self.babi_task_id}")
        for name in ("num_questions", "test_recurrences"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of more/evaluate_for_llm.py; return the exit code."""
    options = {
        "checkpoint_path": "The .pth file.",
        "output_csv": "Where the rows go; babi_<task>.csv beside the checkpoint by default.",
        "output_html": "Where the diagram goes; like the CSV, ending in .html, by default.",
    }
    try:
        settings, values = parse_command(
            "Questions of a bAbI task as CSV, and the routing of their tokens.",
            TableSettings,
            argv,
            options=options,
            required=["checkpoint_path"],
        )
        path = Path(values["checkpoint_path"])
        table = Path(values["output_csv"] or path.with_name(f"babi_{settings.babi_task_id}.csv"))
        page = Path(values["output_html"] or table.with_suffix(".html"))
        check_output(table)
        run(settings, path, table, page)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def check_output(path: Path) -> None:
    """Refuse to replace a file that is no table of this command, such as the policies' evaluation_results.csv.

    Raises:
        ConfigError: If there is such a file.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as handle:
        header = next(csv.reader(handle), [])
    if header and tuple(header) != COLUMNS:
        raise ConfigError(
            f"output_csv: {path} holds something else (columns {', '.join(header[:4])}, ...), which would be lost; "
            "name another file"
        )


def run(settings: TableSettings, checkpoint: Path, table: Path, page: Path) -> None:
    """Ask, write table and page, and print the accuracy."""
    loaded = open_checkpoint(checkpoint, settings)
    source = reopen_source(loaded, settings.data_dir)
    everything = source.questions("test")[settings.babi_task_id]
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
    write_table(table, answers, loaded, str(checkpoint), steps)
    single = trace_routes(loaded, questions[0], steps)
    aggregate = np.concatenate([trace_routes(loaded, question, steps).choices for question in questions[:200]])
    config = loaded.model.config
    subtitle = (
        f"{config.model_type}, trained with {config.num_recurrences}, tested with {steps} recurrences; {checkpoint}"
    )
    title = f"Ways of tokens through the experts: bAbI {settings.babi_task_id}"
    first = answers[0]
    caption = f"First question: {first.question.question} Answered: {first.generated}. True: {first.question.answer}."
    html = render_page(title, subtitle, caption, single, aggregate, config.num_experts)
    with replace_atomically(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    found = summarise_answers(answers)
    print(
        f"bAbI {settings.babi_task_id}: written right {found['exact']:.3f} [{found['exact_low']:.3f}, "
        f"{found['exact_high']:.3f}], likeliest right {found['likelihood']:.3f} [{found['likelihood_low']:.3f}, "
        f"{found['likelihood_high']:.3f}], chance {found['chance']:.3f}, {found['n']} questions"
    )
    print(f"table       {table}")
    print(f"diagram     {page}")


def write_table(path: Path, answers: Sequence[Answer], loaded: LoadedModel, checkpoint: str, steps: int) -> None:
    """Write one row per answer, atomically; sentences of a context are joined by spaces."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        question = answer.question
        writer.writerow(
            {
                "context": question.context.replace("\n", " "),
                "question": question.question,
                "true_answer": question.answer,
                "predicted_answer": answer.generated,
                "is_correct": answer.exact,
                "likeliest_answer": answer.likeliest,
                "likeliest_is_correct": answer.chosen,
                "log_likelihood_of_true_answer": f"{answer.log_likelihood:.6g}",
                "num_candidates": answer.candidates,
                "context_truncated": answer.truncated,
                "babi_task_id": question.task,
                "model_type": loaded.model.config.model_type,
                "num_recurrences": steps,
                "checkpoint_path": checkpoint,
            }
        )
    with replace_atomically(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


@torch.no_grad()
def trace_routes(loaded: LoadedModel, question: Question, steps: int) -> TokenRoutes:
    """Return the experts that the tokens of a question's prompt went to; with top-k above 1, the first of each."""
    model: MoreModel = loaded.model
    tokens, _ = fit_prompt(question, loaded.tokenizer, model.config.max_length)
    routing = model(torch.tensor([tokens], device=model.embedding.weight.device), num_recurrences=steps).routing
    probs = torch.stack([routed.probs[0].max(dim=-1).values for routed in routing], dim=1)  # (tokens, layers)
    choices = torch.stack([routed.probs[0].argmax(dim=-1) for routed in routing], dim=1)
    pieces = ["(start)", *loaded.tokenizer.pieces(tokens[1:])]
    return TokenRoutes(pieces, choices.cpu().numpy(), probs.float().cpu().numpy())
