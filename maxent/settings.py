"""The flags of the experiments, with their defaults; light.

    settings, resume = read_command(["--models", "toy", "phi-2", "--dataset", "M4", "--preset", "quick"])

Lists may be written with spaces, as in `--models toy phi-2`; `parse_command` is given them in one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.registry import MODEL_CONFIGS
from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import ConfigError

LISTS = ("models", "methods", "tags", "model_path")
BUILT_IN = ("toy",)


@dataclass(frozen=True)
class ExperimentSettings:
    """Settings of the experiments.

    Attributes:
        models: Keys of models, one or several: llama-7b, llama-13b, mistral-7b, phi-2, gemma-7b, toy, more.
        dataset: M4, HAR, TSQA, sums or stories.
        num_samples: Questions of the test split.
        num_rollouts: Answers that are drawn for each question, at most.
        max_tokens: New tokens after which an answer is cut.
        device: cuda, cuda:N, mps or cpu; auto is the best that there is.
        experiment_name: Begins the names of the runs; null: they end with the time instead.
        tags: Further tags of the runs, one or several.
        no_wandb: Leave Weights & Biases alone.
        no_charts: Draw none; `python -m maxent.charts RESULTS.json` draws them later.
        no_trees: Keep no trees of searches, about 30 bytes a node, and show none.
        methods: One or several of dts, dts_star, best_of_n, sample, greedy, beam, mcts, mh, dts_paper.
        lam: Lambda of prior * exp(reward / lambda), in units of the reward.
        epsilon: Share of dts rollouts that follow the prior.
        wave: Rollouts chosen from one state of the tree; null: a fifth of them, up to 16.
        budget_tokens: New tokens that a search may feed for a question; null: no bound.
        answer: Which rollout is the answer: that of the highest reward, one drawn from the tree, or a vote of labels.
        reward: claims, activity, programmatic, likelihood, oracle or legacy; null: the dataset's own.
        prior_temperature: Divides the logits.
        top_k: Keeps the most probable tokens; null: all.
        top_p: Keeps the fewest tokens that reach this probability.
        kv: packed keeps keys and values of each prefix, none keeps nothing, auto is packed where the model allows it.
        kv_budget_mb: MiB for keys and values; null: no bound.
        seed: Of all draws, and of generated data.
        model_path: KEY=PATH, one or several: where the weights of a model are.
        stand_in: A small model of the same architecture, trained here, in place of weights; refused as yet.
        data_path: Folder of data files; null: data.
        data_source: Where data come from; auto takes the first of the others that there is.
        wandb_mode: Of Weights & Biases; offline keeps its files here until `wandb sync`.
        output_dir: Folder of the results.
        dtype: Type of the weights, as float32 or bfloat16; auto: as they were stored.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    models: list[str] = field(default_factory=lambda: ["llama-7b"])
    dataset: str = "M4"
    num_samples: int = 10
    num_rollouts: int = 10
    max_tokens: int = 50
    device: str = "auto"
    experiment_name: str | None = None
    tags: list[str] = field(default_factory=list)
    no_wandb: bool = False
    no_charts: bool = False
    no_trees: bool = False
    methods: list[str] = field(default_factory=lambda: ["dts"])
    lam: float = 0.1
    epsilon: float = 0.2
    wave: int | None = None
    budget_tokens: int | None = None
    answer: Literal["max", "sample", "vote"] = "max"
    reward: str | None = None
    prior_temperature: float = 0.8
    top_k: int | None = 50
    top_p: float = 0.9
    kv: Literal["auto", "packed", "none"] = "auto"
    kv_budget_mb: float | None = None
    seed: int = 0
    model_path: list[str] = field(default_factory=list)
    stand_in: bool = False
    data_path: str | None = None
    data_source: Literal["auto", "local", "hub", "synthetic"] = "auto"
    wandb_mode: Literal["online", "offline", "disabled"] = "online"
    output_dir: str = "evaluation/results"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (("models", tuple(MODEL_CONFIGS)), ("methods", tuple(METHODS))):
            given = getattr(self, name)
            if unknown := [one for one in given if one not in known]:
                local = " (local weights: --model_path KEY=PATH)" if name == "models" else ""
                raise ConfigError(f"{name}: expected one or several of {', '.join(known)}{local}, found {unknown[0]!r}")
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{name}: expected at least one, and each once, found {' '.join(given) or 'none'}")
        check_numbers(self, 1, "num_samples", "num_rollouts", "max_tokens", "wave", "budget_tokens", "kv_budget_mb")
        check_numbers(self, 0, "seed")
        for name in ("experiment_name", "dtype", "device", "output_dir"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name}: expected a text, found an empty one")
        if self.budget_tokens is not None and self.budget_tokens < self.max_tokens - 1:
            raise ConfigError(
                f"budget_tokens: expected at least {self.max_tokens - 1}, so that one answer of max_tokens "
                f"{self.max_tokens} fits, found {self.budget_tokens}"
            )
        self.find_paths()
        try:
            self.build_search("dts", 0)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def find_paths(self) -> dict[str, str]:
        """Return key -> path of weights.

        Raises:
            ConfigError: If one is not named as `KEY=PATH`.
        """
        found: dict[str, str] = {}
        for entry in self.model_path:
            key, _, path = entry.partition("=")
            if not path or key not in MODEL_CONFIGS or key in BUILT_IN:
                known = ", ".join(key for key in MODEL_CONFIGS if key not in BUILT_IN)
                raise ConfigError(f"model_path: expected KEY=PATH with a key of {known}, found {entry!r}")
            if key in found:
                raise ConfigError(f"model_path: expected one path for {key}, found {found[key]} and {path}")
            found[key] = path
        return found

    def build_search(self, method: str, seed: int) -> SearchSettings:
        """Return the settings of a search.

        Raises:
            ValueError: If one is out of range; it names the setting.
        """
        return SearchSettings(
            method=method,
            num_rollouts=self.num_rollouts,
            max_tokens=self.max_tokens,
            budget_tokens=self.budget_tokens,
            lam=self.lam,
            epsilon=self.epsilon,
            wave=self.wave,
            answer=self.answer,
            prior=Prior(self.prior_temperature, self.top_k, self.top_p),
            seed=seed,
        )


@dataclass(frozen=True)
class QuickSettings(ExperimentSettings):
    """Settings of the experiments, small (`--preset quick`)."""

    num_samples: int = 3
    num_rollouts: int = 5
    max_tokens: int = 30


PRESETS = {"quick": QuickSettings}


def read_command(argv: Sequence[str] | None = None) -> tuple[ExperimentSettings, bool]:
    """Return the settings of a command line, and whether it goes on with earlier results.

    Args:
        argv: Arguments; those of the process by default.

    Raises:
        ConfigError: On anything that cannot be used.
    """
    tokens = join_lists(sys.argv[1:] if argv is None else argv)
    beside: dict[str, Any] = {
        "options": {"preset": "quick: 3 samples, 5 rollouts, 30 tokens, where flags and YAML say nothing else."},
        "switches": {"resume": "Go on with the newest results of these settings; samples that are there stay."},
    }
    description = "Search for answers with one or several models and methods, and keep every rollout."
    settings, others = parse_command(description, ExperimentSettings, tokens, **beside)
    if (preset := others["preset"]) is not None:
        if preset not in PRESETS:
            raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
        small, _ = parse_command(description, PRESETS[preset], tokens, **beside)
        settings = ExperimentSettings(**{one.name: getattr(small, one.name) for one in fields(small)})
    return settings, bool(others["resume"])


def join_lists(argv: Sequence[str]) -> list[str]:
    """Return arguments with what follows a list's flag in one, as JSON: `--tags a b` becomes `--tags ["a", "b"]`."""
    joined: list[str] = []
    place = 0
    while place < len(argv):
        flag, equals, value = argv[place].partition("=")
        place += 1
        if flag.replace("-", "_").lstrip("_") not in LISTS or not flag.startswith("--"):
            joined.append(argv[place - 1])
            continue
        values = [value] if equals else []
        while not equals and place < len(argv) and not argv[place].startswith("-"):
            values.append(argv[place])
            place += 1
        written = len(values) == 1 and values[0].lstrip().startswith("[")
        joined += [flag] if not values else [flag, values[0] if written else json.dumps(values)]
    return joined


def describe(settings: ExperimentSettings) -> dict[str, Any]:
    """Return the settings as plain values."""
    return asdict(settings)
