"""The settings of evaluating a language model, without torch, so that `--help` and mistakes are told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from more.babi import TASKS
from more.config import ModelConfig, ModelType
from pipeline.command.cli import check_numbers
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
        text_file: Your own text that it was trained on, likewise.
        recurrences: Numbers of recurrences at test time, e.g. 1,2,4,8; null takes the trained one.
        stop_below: A token stops iterating once a step has moved its state by less than this share of its size; steps
            taken and operations saved are reported beside the figures without. 0 lets none stop.
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
    text_file: str | None = None
    recurrences: str | None = None
    stop_below: float = 0.0
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
        if not 0 <= self.stop_below < 1:
            raise ConfigError(f"stop_below: expected a share from 0 to below 1, found {self.stop_below}")
        parse_numbers("recurrences", self.recurrences, least=1)

    def steps_for(self, config: ModelConfig) -> list[int]:
        """Return the numbers of recurrences at which a model is evaluated; of base, where nothing recurs, one."""
        asked = parse_numbers("recurrences", self.recurrences, least=1)
        return asked if asked and config.model_type != "base" else [config.num_recurrences]


def parse_numbers(name: str, text: str | None, least: int = 0) -> list[int]:
    """Return the numbers of a list such as `1,2,4` or `0-2`; [] for None.

    Raises:
        ConfigError: If it is no such list, a range does not go from low to high, a number is below the least, or there
            are more than `MOST_NUMBERS`.
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
    if any(number < least for number in numbers):
        raise ConfigError(f"{name}: expected numbers of at least {least}, found {text!r}")
    return list(dict.fromkeys(numbers))


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
        check_numbers(self, 1, "num_questions", "test_recurrences")


def read_prompts(written: Any) -> list[str]:
    """Return the prompts of what stands on the command line or in YAML, one or several.

    Raises:
        ConfigError: If they are no texts.
    """
    prompts = written if isinstance(written, list) else [written]
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(f"prompts: expected texts, found {prompts!r}")
    return prompts


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of writing on.

    Attributes:
        prompts: Texts to go on with; none reads them from standard input, a line each.
        recurrences: Number of recurrences of all prompts, or of each, e.g. 1,8; null takes the trained one.
        max_new_tokens: Tokens written at most.
        temperature: 0 takes the most probable token.
        top_k: Sample among the k most probable tokens.
        top_p: Sample among the fewest most probable tokens that together reach this probability.
        seed: Of the sampling, for each prompt anew.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
    """

    prompts: list[str] = field(
        default_factory=list, metadata={"positional": True, "aliases": ("prompt",), "read": read_prompts}
    )
    recurrences: str | None = None
    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: If a value cannot be used.
        """
        check_numbers(self, 1, "max_new_tokens", "top_k")
        check_numbers(self, 0, "seed")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: expected a number of at least 0, found {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: expected a number above 0 and up to 1, found {self.top_p}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ConfigError("top_k, top_p: they need a temperature above 0; at 0 the most probable token is taken")
        numbers = parse_list("recurrences", self.recurrences)
        if len(numbers) > 1 and len(numbers) != len(self.prompts):
            raise ConfigError(
                f"recurrences: expected one number, or one for each of {len(self.prompts)} prompts, found "
                f"{len(numbers)} ({self.recurrences})"
            )


def parse_list(name: str, text: str | None) -> list[int]:
    """Return the numbers of a list such as `1,8,8`, as they stand; [] for None.

    Raises:
        ConfigError: If one is no number of at least 1.
    """
    return [number for part in (text.split(",") if text is not None else []) for number in parse_numbers(name, part, 1)]


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export; all are of the questions that lm_eval_task writes.

    Attributes:
        num_questions: Questions of each task at most; null takes all.
        data_dir: Folder with the data, where it is not where it was in training; null takes that of the checkpoint.
    """

    num_questions: int | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: If a value cannot be used.
        """
        check_numbers(self, 1, "num_questions")
