"""The command lines of train.py, evaluate.py, evaluate_for_llm.py, generate.py and export.py.

Each imports what it needs torch for only when it has read its flags: `--help` and mistakes are told at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from more.options import EvaluationSettings, ExportSettings, GenerationSettings, TableSettings, parse_list
from more.settings import TrainingConfig
from pipeline.command.cli import parse_command
from pipeline.command.errors import UserError
from pipeline.command.files import write_json
from pipeline.command.folders import check_file
from pipeline.command.shell import as_command
from pipeline.config import ConfigError
from pipeline.guard import SWITCHES


@as_command()
def train(argv: Sequence[str] | None = None) -> int:
    """Run the command line of more/train.py; return the exit code.

    0: done. 1: it diverged, or the last checkpoint or some metrics could not be written. 2: refused. 128 + signal:
    interrupted.
    """
    try:
        with _processes():
            return _train(argv)
    except UserError as error:
        from more.training import FAILURES

        if not isinstance(error, FAILURES):
            raise
        print(f"failed: {error}", file=sys.stderr)
        return 1


def _processes() -> AbstractContextManager[None]:
    """Return the block in which one of several processes tells an error, and one alone whatever it has."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from more.parallel import told_once
    from more.training import FAILURES

    return told_once(FAILURES)


def _train(argv: Sequence[str] | None) -> int:
    description = "Train a language model. Flags win over the YAML file, that over the preset."
    config, switches = parse_command(description, TrainingConfig, argv, switches=SWITCHES)
    from more.parallel import join
    from more.runs import run_training

    with join(config.device) as group:
        return run_training(config, group=group, **switches)


@as_command()
def evaluate(argv: Sequence[str] | None = None) -> None:
    """Run the command line of more/evaluate.py; return the exit code."""
    options = {
        "checkpoint_path": "The .pth file.",
        "output": "Where the figures go as JSON; evaluation.json beside the checkpoint by default.",
    }
    settings, values = parse_command(
        "Evaluate a language model.", EvaluationSettings, argv, options=options, required=["checkpoint_path"]
    )
    path = Path(values["checkpoint_path"])
    output = Path(values["output"] or path.with_name("evaluation.json"))
    from more.report import evaluate_checkpoint, format_report, open_checkpoint

    check_file("output", output)
    if output.suffix != ".json":  # as a checkpoint is not, which it would replace
        raise ConfigError(f"output: expected a name ending in .json, found {str(output)!r}")
    loaded = open_checkpoint(path, settings)
    result = evaluate_checkpoint(loaded, settings, name=str(path))
    write_json(output, result, indent=2)
    print(format_report(result))
    print(f"figures     {output}")


@as_command()
def evaluate_for_llm(argv: Sequence[str] | None = None) -> None:
    """Run the command line of more/evaluate_for_llm.py; return the exit code."""
    options = {
        "checkpoint_path": "The .pth file.",
        "output_csv": "Where the rows go; babi_<task>.csv beside the checkpoint by default.",
        "output_html": "Where the diagram goes, of the first question and of all that are asked; like the CSV, ending "
        "in .html, by default.",
    }
    settings, values = parse_command(
        "Questions of a bAbI task as CSV, and the routing of their tokens.",
        TableSettings,
        argv,
        options=options,
        required=["checkpoint_path"],
        switches={"no_browser": "Do not open the diagram, which is opened where there is a browser to see it in."},
    )
    path = Path(values["checkpoint_path"])
    table = Path(values["output_csv"] or path.with_name(f"babi_{settings.babi_task_id}.csv"))
    page = Path(values["output_html"] or table.with_suffix(".html"))
    from more.question_table import check_outputs, run

    check_outputs(table, page)
    run(settings, path, table, page, browser=not values["no_browser"])


@as_command()
def generate(argv: Sequence[str] | None = None) -> None:
    """Run the command line of more/generate.py; return the exit code."""
    settings, values = parse_command(
        "Let a language model go on with texts.",
        GenerationSettings,
        argv,
        options={"checkpoint_path": "The .pth file."},
        required=["checkpoint_path"],
    )
    import torch

    from more.checkpoints import load_model
    from more.streaming import stream
    from pipeline.command.devices import resolve_device

    loaded = load_model(values["checkpoint_path"], resolve_device(settings.device))
    torch.set_num_threads(loaded.training_config.get("torch_threads") or torch.get_num_threads())
    numbers = parse_list("recurrences", settings.recurrences) or [None]
    for index, prompt in enumerate(settings.prompts or _read_prompts()):
        generator = torch.Generator(loaded.model.embedding.weight.device).manual_seed(settings.seed)
        pieces = stream(
            loaded.model,
            loaded.tokenizer,
            prompt,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            num_recurrences=numbers[index] if len(numbers) > 1 else numbers[0],
            generator=generator if settings.temperature else None,
        )
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print("\n", flush=True)


@as_command()
def export(argv: Sequence[str] | None = None) -> None:
    """Run the command line of more/export.py; return the exit code."""
    options = {
        "checkpoint_path": "The .pth file.",
        "output_dir": "Folder that transformers is to open; a new or an empty one.",
        "lm_eval_task": "Folder for the test questions as a task of lm-evaluation-harness; none by default.",
    }
    settings, values = parse_command(
        "Write a language model as a folder that Hugging Face's transformers opens, without this project.",
        ExportSettings,
        argv,
        options=options,
        required=["checkpoint_path", "output_dir"],
        switches={"overwrite": "Replace an older export; files that are not the command's stay."},
    )
    path, folder, overwrite = Path(values["checkpoint_path"]), Path(values["output_dir"]), values["overwrite"]
    tasks = Path(values["lm_eval_task"]) if values["lm_eval_task"] else None
    if tasks is None and settings != ExportSettings():
        raise ConfigError("num_questions, data_dir: they are of the questions; pass --lm_eval_task FOLDER too")
    from more.checkpoints import load_model
    from more.export_folder import check_target, export_model
    from more.export_tasks import TAG, check_tasks, open_questions, write_tasks

    check_target(folder, overwrite=overwrite)
    if tasks is not None:
        check_tasks(tasks, overwrite=overwrite)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of writing the weights
    loaded = load_model(path)
    sets = open_questions(loaded, settings.data_dir) if tasks is not None else {}
    about = export_model(loaded, folder, overwrite=overwrite)
    print(f"model       {folder}, {about['parameters']['total']:,} parameters, {len(about['files'])} files")
    if tasks is not None:
        written = write_tasks(tasks, loaded, sets, settings.num_questions)
        print(f"questions   {tasks}, tag {TAG}: {', '.join(f'{name} {count:,}' for name, count in written.items())}")


def _read_prompts() -> Iterator[str]:
    """Yield the lines of standard input; at a terminal, ask for each."""
    if sys.stdin.isatty():
        print("A prompt a line; Ctrl-D ends.", file=sys.stderr)
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\n")
