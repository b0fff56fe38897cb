"""The evaluation of one checkpoint: settings, what is measured, tables and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from more.babi import DataError
from more.checkpoints import LoadedModel, check_flags, load_model
from more.config import ModelType
from more.corpus import load_corpus
from more.cost import count_expert_operations
from more.data import Source, open_source, settings_from_description
from more.evaluation import build_question_sets, measure_perplexity, measure_questions
from more.generation import generate
from more.model import count_parameters
from more.tokens import describe_switched_off
from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.devices import resolve_device
from pipeline.command.files import write_json
from pipeline.command.folders import check_file
from pipeline.command.shell import as_command
from pipeline.config import ConfigError

MOST_NUMBERS = 1000
"""Numbers in a list such as 0-2 at most."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        model_type: Checked against the checkpoint; null takes its own.
        num_recurrences: Likewise; for other numbers at test time see recurrences.
        data_dir: Folder with the data, where it is not where it was in training; null takes that of the checkpoint.
        recurrences: Numbers of recurrences at test time, e.g. 1,2,4,8; null takes the trained one.
        num_questions: Questions of each task at most; null takes all.
        max_documents: Documents of the perplexity at most; null takes all.
        stride: Step of the sliding window, tokens; null takes half the trained length.
        prompt: Beginning of the text sample; null takes the first test document's.
        sample_tokens: Tokens of the text sample at most.
        temperature: Of the text sample; 0 takes the most probable token.
        seed: Of the text sample.
        cache_dir: Folder of tokenised data.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
    """

    model_type: ModelType | None = None
    num_recurrences: int | None = None
    data_dir: str | None = None
    recurrences: str | None = None
    num_questions: int | None = None
    max_documents: int | None = None
    stride: int | None = None
    prompt: str | None = None
    sample_tokens: int = 60
    temperature: float = 0.7
    seed: int = 0
    cache_dir: str = "data_cache"
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: If a value cannot be used.
        """
        check_numbers(self, 1, "num_questions", "max_documents", "stride", "sample_tokens")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: expected a number of at least 0, found {self.temperature}")
        parse_numbers("recurrences", self.recurrences)


def parse_numbers(name: str, text: str | None) -> list[int]:
    """Return the numbers of a list such as `1,2,4` or `0-2`; [] for None.

    Raises:
        ConfigError: If it is no such list, a range does not go from low to high, or there are more than `MOST_NUMBERS`.
    """
    numbers: list[int] = []
    for part in (text or "").split(",") if text is not None else []:
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"{name}: expected numbers as in 1,2,4 or 0-2, found {text!r}")
        if max(len(first), len(last)) > 9:
            raise ConfigError(f"{name}: expected numbers of at most 9 digits, found {part.strip()[:40]!r}")
        low, high = int(first), int(last or first)
        if high < low:
            raise ConfigError(f"{name}: expected a range from low to high as in 0-2, found {part.strip()!r}")
        if len(numbers) + high - low >= MOST_NUMBERS:
            raise ConfigError(f"{name}: expected at most {MOST_NUMBERS:,} numbers, found more in {text[:40]!r}")
        numbers += range(low, high + 1)
    if name == "recurrences" and any(number < 1 for number in numbers):
        raise ConfigError(f"{name}: expected numbers of at least 1, found {text!r}")
    return list(dict.fromkeys(numbers))


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
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
    loaded = open_checkpoint(path, settings)
    check_file("output", output)
    if output.suffix != ".json":  # as a checkpoint is not, which it would replace
        raise ConfigError(f"output: expected a name ending in .json, found {str(output)!r}")
    result = evaluate_checkpoint(loaded, settings, name=str(path))
    write_json(output, result, indent=2)
    print(format_report(result))
    print(f"figures     {output}")


def open_checkpoint(path: Path, settings: Any) -> LoadedModel:
    """Return a checkpoint's model, having checked the flags `model_type` and `num_recurrences` against it."""
    loaded = load_model(path, resolve_device(settings.device))
    check_flags(loaded, path, {"model_type": settings.model_type, "num_recurrences": settings.num_recurrences})
    return loaded


def reopen_source(loaded: LoadedModel, data_dir: str | None, quiet: bool = False) -> Source:
    """Return the data that a checkpoint was trained on.

    Raises:
        DataError: If it cannot be had any more, or is not the same.
    """
    stored = settings_from_description(loaded.data)
    if data_dir is not None:
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
            "found now has other content. Name the right folder with --data_dir"
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
    """Return everything that is measured, in plain types; `tick` is called now and then, and may raise."""

    def advance(amount: int) -> None:
        bar.update(amount)
        tick()

    model, tokenizer = loaded.model, loaded.tokenizer
    source = reopen_source(loaded, settings.data_dir, quiet)
    steps = parse_numbers("recurrences", settings.recurrences) or [model.config.num_recurrences]
    if model.config.model_type == "base":
        steps = [model.config.num_recurrences]  # nothing recurs: all would be equal
    corpus = load_corpus(source, tokenizer, "test", settings.cache_dir, (lambda _: None) if quiet else print)
    texts: dict[str, Any] = {}
    documents = len(corpus.starts) - 1
    total = int(corpus.starts[min(settings.max_documents or documents, documents)])
    with tqdm(total=total * len(steps), desc="perplexity", unit="token", disable=quiet, dynamic_ncols=True) as bar:
        for count in steps:
            found = measure_perplexity(
                model,
                corpus,
                tokenizer,
                stride=settings.stride,
                num_recurrences=count,
                max_documents=settings.max_documents,
                progress=advance,
            )
            texts[str(count)] = dataclasses.asdict(found)
    sets = build_question_sets(source.questions("test"), source.sums("test"))
    asked = sum(len(questions[: settings.num_questions]) for questions in sets.values())
    with tqdm(total=asked * len(steps), desc="questions", unit="question", disable=quiet, dynamic_ncols=True) as bar:
        answered = measure_questions(
            model,
            tokenizer,
            sets,
            num_questions=settings.num_questions,
            recurrences=steps,
            progress=advance,
        )
    count = count_parameters(model)
    return {
        "checkpoint": name,
        "model": dataclasses.asdict(model.config),
        "parameters": {"total": count.total, "active": count.active},
        "expert_operations": {str(r): count_expert_operations(model.config, r) for r in steps},
        "update": loaded.update,
        "tokens": loaded.tokens,
        "seed": loaded.training_config["seed"],
        "data": {key: loaded.data[key] for key in ("text", "questions", "tokenizer")},
        "perplexity": texts,
        "questions": answered,
        "sample": write_sample(loaded, source, settings),
    }


def write_sample(loaded: LoadedModel, source: Source, settings: EvaluationSettings) -> dict[str, Any]:
    """Return a prompt and what the model makes of it."""
    prompt = settings.prompt
    if prompt is None:
        document = next(iter(source.documents("test")))
        prompt = document.split("\n")[0] + "\n"
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
    parameters = result["parameters"]
    lines = [
        f"{result['model']['model_type']}, trained with {result['model']['num_recurrences']} recurrences, seed "
        f"{result['seed']}: {parameters['total']:,} parameters, {parameters['active']:,} active; {result['update']} "
        f"updates, {result['tokens']:,} tokens",
        "",
        f"{'recurrences':>11}  {'perplexity':>10}  {'per word':>10}  {'bits/byte':>9}",
    ]
    for steps, text in result["perplexity"].items():
        lines.append(
            f"{steps:>11}  {text['perplexity']:>10.3f}  {text['word_perplexity']:>10.3f}  {text['bits_per_byte']:>9.4f}"
        )
    lines += [
        "",
        f"{'questions':<22}  {'r':>2}  {'n':>5}  {'written right':>21}  {'likeliest right':>21}  {'chance':>6}  "
        f"{'majority':>8}",
    ]
    for name, by_steps in result["questions"].items():
        for steps, found in by_steps.items():
            if not found["n"]:
                continue
            spans = [
                f"{found[key]:.3f} [{found[f'{key}_low']:.3f}, {found[f'{key}_high']:.3f}]"
                for key in ("exact", "likelihood")
            ]
            lines.append(
                f"{SET_NAMES[name]:<22}  {steps:>2}  {found['n']:>5}  {spans[0]:>21}  {spans[1]:>21}  "
                f"{found['chance']:>6.3f}  {found['majority']:>8.3f}"
            )
    sample = result["sample"]
    lines += ["", f"sample (temperature {sample['temperature']}): {sample['prompt']}|{sample['text']}"]
    return "\n".join(lines)
