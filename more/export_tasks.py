"""The test questions of a checkpoint's data as a local task of lm-evaluation-harness: YAML, and JSON by the line.

    sets = open_questions(loaded, data_dir=None)
    write_tasks(Path("tasks"), loaded, sets, num_questions=200)

    lm_eval --model hf --model_args pretrained=FOLDER,trust_remote_code=True --include_path tasks --tasks more_questions

A question is multiple choice among all answers that occur in its task: `acc` there is what `more/evaluate.py` calls
likeliest right. The harness: https://github.com/EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from more.babi import Question
from more.checkpoints import LoadedModel
from more.evaluation import build_question_sets, find_misfit, fit_prompt
from more.report import reopen_source
from pipeline.command.errors import DataError
from pipeline.command.files import write_text
from pipeline.command.folders import check_folder
from pipeline.config import ConfigError

TAG = "more_questions"
"""Name of all tasks together."""

_YAML = """\
# Written by more/export.py, which finds its questions by this path; from elsewhere, write it anew.
task: {task}
tag: {tag}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: answers
doc_to_target: right
target_delimiter: ""
num_fewshot: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""


def check_tasks(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written to, or that holds such tasks already.

    Raises:
        ConfigError: If it does.
    """
    check_folder("lm_eval_task", folder)
    if not overwrite and (found := sorted(folder.glob("more_*.yaml"))):
        raise ConfigError(f"lm_eval_task: {found[0]} is there; pass --overwrite to replace it, or name another folder")


def open_questions(loaded: LoadedModel, data_dir: str | None) -> dict[str, list[Question]]:
    """Return the test questions of the data that a checkpoint was trained on, by the name of their set.

    Raises:
        DataError: If the data cannot be had any more, or has no question.
    """
    source = reopen_source(loaded, data_dir, quiet=True)
    sets = build_question_sets(source.questions("test"), source.sums("test"))
    if not sets:
        raise DataError(
            f"lm_eval_task: expected questions in the checkpoint's data ({loaded.data['text']}), found none"
        )
    return sets


def write_tasks(
    folder: Path, loaded: LoadedModel, sets: Mapping[str, Sequence[Question]], num_questions: int | None = None
) -> dict[str, int]:
    """Write a task for each set of questions that fits into the model's window; return their names and sizes.

    Prompts are those of `more.evaluation.ask`: a context too long for the window has lost its oldest statements.

    Args:
        folder: Where they go.
        loaded: The model, whose tokenizer says what fits.
        sets: Of `more.evaluation.build_question_sets`.
        num_questions: The first so many of each; None takes all. The answers are always those of the whole set.
    """
    tokenizer, window = loaded.tokenizer, loaded.model.config.max_length
    written = {}
    for name, questions in sets.items():
        if find_misfit(questions, tokenizer, window):
            continue
        closed = sorted({question.answer for question in questions})
        choices = [questions[0].continuation(answer) for answer in closed]
        room = window - max(len(tokenizer.encode(choice)) for choice in choices)
        rows = []
        for question in questions[:num_questions]:
            tokens, _ = fit_prompt(question, tokenizer, room)
            row = {"prompt": tokenizer.decode(tokens), "answers": choices, "right": closed.index(question.answer)}
            rows.append(json.dumps(row))
        data = folder.absolute() / f"more_{name}.jsonl"
        write_text(data, "\n".join(rows) + "\n")
        write_text(data.with_suffix(".yaml"), _YAML.format(task=data.stem, tag=TAG, data=json.dumps(str(data))))
        written[data.stem] = len(rows)
    return written
