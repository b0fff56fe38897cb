"""The evaluation of one checkpoint: what is measured, tables and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from more.checkpoints import LoadedModel, check_flags, load_model
from more.corpus import load_corpus
from more.cost import count_expert_operations
from more.data import Source, open_source, settings_from_description
from more.evaluation import Perplexity, build_question_sets, find_misfit, measure_perplexity, measure_questions
from more.experts import Stopping
from more.generation import generate
from more.heuristics import NAMES
from more.options import EvaluationSettings
from more.stopping import check_stopping, format_stopping, summarise_steps
from more.task_data import is_task
from more.task_report import evaluate_task, format_model, format_task_report
from more.tokens import describe_switched_off
from pipeline.command.devices import resolve_device
from pipeline.command.errors import DataError
from pipeline.config import ConfigError


def open_checkpoint(path: Path, settings: Any) -> LoadedModel:
    """Return a checkpoint's model, having checked the flags `model_type` and `num_recurrences` against it."""
    loaded = load_model(path, resolve_device(settings.device))
    if threads := loaded.training_config.get("torch_threads"):  # as many as its sizes were worth in training
        torch.set_num_threads(threads)
    check_flags(loaded, path, {"model_type": settings.model_type, "num_recurrences": settings.num_recurrences})
    return loaded


def reopen_source(
    loaded: LoadedModel, data_dir: str | None, quiet: bool = False, text_file: str | None = None
) -> Source:
    """Return the data that a checkpoint was trained on.

    Raises:
        DataError: If it cannot be had any more, or is not the same, or is a generated task, which holds no text.
    """
    if is_task(loaded.data):
        raise DataError(
            f"the checkpoint was trained on {loaded.data['text']}, a generated task without text and questions; "
            "evaluate.py says what it is worth"
        )
    stored = settings_from_description(loaded.data)
    if text_file is not None:
        stored = dataclasses.replace(stored, data="auto", data_dir=None, text_file=text_file)
    elif data_dir is not None:
        stored = dataclasses.replace(stored, data="auto", data_dir=data_dir)
    elif loaded.data["text"].startswith("embedded") and loaded.data["questions"].startswith("embedded"):
        stored = dataclasses.replace(stored, data="embedded", data_dir=None)
    announce = (lambda _: None) if quiet else print
    describe_switched_off(loaded.tokenizer, "that of the checkpoint", announce)
    known = (loaded.tokenizer, loaded.data["tokenizer"])  # whatever tokenizer lies in the folder by now
    source = open_source(stored, announce, tokenizer=known)
    if source.digest != loaded.data["digest"]:
        raise DataError(
            f"the checkpoint was trained on text {loaded.data['text']}, questions {loaded.data['questions']}; what is "
            "found now has other content. Name the right folder with --data_dir, or your own text with --text_file"
        )
    return source


def evaluate_checkpoint(
    loaded: LoadedModel,
    settings: EvaluationSettings,
    *,
    name: str,
    quiet: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Return everything that is measured, in plain types; `tick` is called now and then, and may raise.

    Questions are asked without stopping early; `stop_below` concerns perplexity and generated tasks.

    Raises:
        ConfigError: If settings do not fit the model.
    """
    check_stopping(settings, loaded.model.config)
    window = loaded.model.config.max_length
    if settings.stride is not None and settings.stride > window:  # it would pass over tokens
        raise ConfigError(f"stride: expected at most {window}, the trained length, found {settings.stride}")
    if is_task(loaded.data):
        return evaluate_task(loaded, settings, name=name, quiet=quiet, tick=tick)

    def advance(amount: int) -> None:
        bar.update(amount)
        tick()

    model, tokenizer = loaded.model, loaded.tokenizer
    source = reopen_source(loaded, settings.data_dir, quiet, settings.text_file)
    steps = settings.steps_for(model.config)
    corpus = load_corpus(source, tokenizer, "test", settings.cache_dir, (lambda _: None) if quiet else print)
    texts: dict[str, Any] = {}
    stopped: dict[str, dict[str, Any]] = {"perplexity": {}, "steps": {}}
    documents = len(corpus.starts) - 1
    total = int(corpus.starts[min(settings.max_documents or documents, documents)])
    total *= 2 if settings.stop_below else 1

    def measure(count: int, stopping: Stopping | None = None) -> Perplexity:
        return measure_perplexity(
            model,
            corpus,
            tokenizer,
            stride=settings.stride,
            num_recurrences=count,
            stopping=stopping,
            max_documents=settings.max_documents,
            progress=advance,
        )

    with tqdm(total=total * len(steps), desc="perplexity", unit="token", disable=quiet, dynamic_ncols=True) as bar:
        for count in steps:
            texts[str(count)] = dataclasses.asdict(measure(count))
            if settings.stop_below:
                stopping = Stopping(settings.stop_below)
                stopped["perplexity"][str(count)] = dataclasses.asdict(measure(count, stopping))
                stopped["steps"][str(count)] = summarise_steps(model.config, count, stopping)
    sets = build_question_sets(source.questions("test"), source.sums("test"))
    misfits = {name: find_misfit(found, tokenizer, model.config.max_length) for name, found in sets.items()}
    asked = sum(len(questions[: settings.num_questions]) for name, questions in sets.items() if not misfits[name])
    with tqdm(total=asked * len(steps), desc="questions", unit="question", disable=quiet, dynamic_ncols=True) as bar:
        answered = measure_questions(
            model,
            tokenizer,
            sets,
            num_questions=settings.num_questions,
            recurrences=steps,
            progress=advance,
        )
    result = {
        "checkpoint": name,
        **loaded.describe(),
        "expert_operations": {str(r): count_expert_operations(model.config, r) for r in steps},
        "perplexity": texts,
        "questions": answered,
        "not_asked": {name: why for name, why in misfits.items() if why},
        "sample": write_sample(loaded, source, settings),
    }
    if settings.stop_below:
        result["stopping"] = {"threshold": settings.stop_below, **stopped}
    return result


def write_sample(loaded: LoadedModel, source: Source, settings: EvaluationSettings) -> dict[str, Any]:
    """Return a prompt and what the model makes of it."""
    prompt = settings.prompt
    if prompt is None:
        document = next(iter(source.documents("test")))
        prompt = document.split("\n")[0] + "\n"
        prompt = loaded.tokenizer.decode(loaded.tokenizer.encode(prompt)[: loaded.model.config.max_length // 2])
    tokenizer, model = loaded.tokenizer, loaded.model
    tokens = [tokenizer.end_token, *tokenizer.encode(prompt)]
    room = model.config.max_length - len(tokens)
    if room < 1:
        raise ConfigError(f"prompt: it has {len(tokens)} tokens, the model was trained on {model.config.max_length}")
    device = model.embedding.weight.device
    generator = torch.Generator(device).manual_seed(settings.seed) if settings.temperature else None
    written = generate(
        model,
        [tokens],
        max_new_tokens=min(settings.sample_tokens, room),
        end_token=tokenizer.end_token,
        temperature=settings.temperature,
        generator=generator,
    )
    return {"prompt": prompt, "text": tokenizer.decode(written[0]), "temperature": settings.temperature}


SET_NAMES = {
    "babi_1": "bAbI 1 (one fact)",
    "babi_2": "bAbI 2 (two facts)",
    "babi_3": "bAbI 3 (three facts)",
    "sums": "sums a+b",
}


def format_report(result: dict[str, Any]) -> str:
    """Return the figures as tables for a terminal."""
    if "task" in result:
        return format_task_report(result)
    lines = [
        format_model(result),
        "",
        f"{'recurrences':>11}  {'perplexity':>10}  {'per word':>10}  {'bits/byte':>9}",
    ]
    for steps, text in result["perplexity"].items():
        lines.append(
            f"{steps:>11}  {text['perplexity']:>10.3f}  {text['word_perplexity']:>10.3f}  {text['bits_per_byte']:>9.4f}"
        )
    if "stopping" in result:
        lines += format_stopping(result["stopping"])
        for steps, text in result["stopping"]["perplexity"].items():
            lines.append(f"perplexity at r = {steps} with it: {text['perplexity']:.3f}")
    lines += format_questions(result)
    sample = result["sample"]
    lines += ["", f"sample (temperature {sample['temperature']}): {sample['prompt']}|{sample['text']}"]
    return "\n".join(lines)


def format_questions(result: dict[str, Any]) -> list[str]:
    """Return the lines of accuracies, and those on the questions that a rule of reading places answers wrongly."""
    rows = [(n, r, found) for n, by_steps in result["questions"].items() for r, found in by_steps.items() if found["n"]]
    lines = []
    if rows:
        lines += [
            "",
            f"{'questions':<22}  {'r':>2}  {'n':>5}  {'written right':>21}  {'likeliest right':>21}  {'chance':>6}  "
            f"{'majority':>8}  {'heuristic':>9}",
        ]
    for name, steps, found in rows:
        rule = f"{found['heuristic']:>9.3f}" if "heuristic" in found else f"{'-':>9}"
        lines.append(
            f"{SET_NAMES.get(name, name):<22}  {steps:>2}  {found['n']:>5}  {_spans(found)}  {found['chance']:>6.3f}  "
            f"{found['majority']:>8.3f}  {rule}"
        )
    failing = [(name, steps, found["beyond"]) for name, steps, found in rows if found.get("beyond", {}).get("n")]
    if failing:
        rules = "; ".join(f"{SET_NAMES[f'babi_{task}'][:6]}: {rule}" for task, rule in NAMES.items())
        lines += ["", f"where the heuristic is wrong ({rules})"]
    for name, steps, found in failing:
        lines.append(f"{SET_NAMES.get(name, name):<22}  {steps:>2}  {found['n']:>5}  {_spans(found)}")
    for name, why in result.get("not_asked", {}).items():
        lines.append(f"{SET_NAMES.get(name, name)}: not asked, for {why}")
    return lines


def _spans(found: dict[str, Any]) -> str:
    spans = []
    for key in ("exact", "likelihood"):
        low, high = found[f"{key}_low"], found[f"{key}_high"]
        spans.append(f"{f'{found[key]:.3f} [{low:.3f}, {high:.3f}]':>21}")
    return "  ".join(spans)
