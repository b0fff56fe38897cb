"""The flags of the experiments, with their defaults; light.

    settings, resume, launcher = read_command(["--models", "toy", "phi-2", "--preset", "quick"])

Lists may be written with spaces, as in `--models toy phi-2`; `parse_command` is given them in one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.registry import MODEL_CONFIGS, STAND_IN_INFO
from pipeline.command.cli import Parser, check_numbers, parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.launcher import FLAGS, Launcher, parse_launcher

LISTS = ("models", "methods", "tags", "model_path")
BUILT_IN = ("toy",)


@dataclass(frozen=True)
class ExperimentSettings:
    """Settings of the experiments.

    Attributes:
        models: Keys of models, one or several: llama-7b, llama-13b, mistral-7b, phi-2, gemma-7b; toy, built in; more, a
            checkpoint of more/train.py; or babyai alone, one of train_mop.py.
        dataset: M4 (captions of series), HAR (activities), TSQA (questions on series), sums, stories; for babyai a
            BabyAI task, as GoToObj.
        num_samples: Questions that are asked, from the beginning of the test split.
        num_rollouts: Answers that are drawn for each question, at most.
        max_tokens: New tokens after which an answer is cut; of babyai, actions, after which an episode earns nothing.
        device: cuda, cuda:N, mps or cpu; auto is the best that there is.
        experiment_name: Begins the names of the runs; null: they end with the time instead.
        tags: Further tags of the runs, one or several.
        no_wandb: Leave Weights & Biases alone.
        no_charts: Draw none; `python -m maxent.charts RESULTS.json` draws them later.
        no_trees: Keep no trees of searches, about 30 bytes a node, and show none.
        methods: One or several of dts (draws answers in proportion to prior * exp(reward / lambda)), dts_star (seeks
            the best one), best_of_n, sample and greedy (one answer), beam, mcts, mh (Metropolis-Hastings), dts_paper
            (dts as published).
        lam: Lambda, in units of the reward: an answer whose reward is higher by this much weighs e times as much.
        epsilon: Share of dts rollouts that follow the model alone, which keeps the estimates of dts sound.
        wave: Rollouts decoded together, from one state of the tree: more are faster, fewer learn more of each other;
            null: a fifth of them, up to 16.
        budget_tokens: New tokens that a search may feed for a question, for comparisons at equal cost; null: no bound.
        answer: Which rollout is the answer: that of the highest reward, one drawn from the tree, or a vote of labels.
        reward: claims (M4), activity (HAR), programmatic (sums, stories), episode (BabyAI), likelihood (all); oracle
            and legacy know the true answer, for upper bounds and warnings; null: the dataset's own.
        prior_temperature: Divides the model's logits; below 1 sharpens. What is searched is the model after this, top_k
            and top_p.
        top_k: Keeps so many of the most probable tokens; null: all.
        top_p: Keeps the fewest most probable tokens that together reach this probability; 1: all.
        kv: packed reads each prefix of the tree once, none reads it anew for each answer, which is slow; auto is packed
            where the model allows it.
        kv_budget_mb: MiB for keys and values of a tree; null: no bound.
        seed: Of all draws, and of generated data.
        model_path: KEY=PATH, one or several: a folder of weights, or the file of a checkpoint.
        num_recurrences: r of more, steps of its experts; null: as it was trained.
        lpc_alpha: Price of complexity in the reward of BabyAI's episodes, from 0 to 1, which is what always using the
            largest experts would cost.
        stand_in: In place of weights that no --model_path names, train a small model of the same architecture here, in
            minutes, on synthetic samples. It is kept, and marked wherever it is named.
        stand_in_dir: Folder in which stand-ins are kept; null: data_cache/stand_ins, from within maxent/ that of the
            folder above.
        stand_in_steps: Updates of a stand-in's training.
        data_path: Folder that is looked through for files of M4, HAR or TSQA; null: data, from within maxent/ ../data.
        data_source: auto takes local files, else the hub's, else generates data here (synthetic), and says which.
        wandb_mode: Of Weights & Biases; offline keeps its files here until `wandb sync`.
        output_dir: Folder of the results, one JSON file for each call.
        torch_threads: Cores for a model on the CPU; null: one for small models, which are faster so, all for others.
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
    num_recurrences: int | None = None
    lpc_alpha: float = 0.0
    stand_in: bool = False
    stand_in_dir: str | None = None
    stand_in_steps: int = 1000
    data_path: str | None = None
    data_source: Literal["auto", "local", "hub", "synthetic"] = "auto"
    wandb_mode: Literal["online", "offline", "disabled"] = "online"
    output_dir: str = "evaluation/results"
    torch_threads: int | None = None
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
        check_numbers(self, 1, "stand_in_steps", "num_recurrences", "torch_threads")
        check_numbers(self, 0, "seed")
        for name in ("experiment_name", "dtype", "device", "output_dir", "stand_in_dir"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name}: expected a text, found an empty one")
        if self.budget_tokens is not None and self.budget_tokens < self.max_tokens - 1:
            raise ConfigError(
                f"budget_tokens: expected at least {self.max_tokens - 1}, so that one answer of max_tokens "
                f"{self.max_tokens} fits, found {self.budget_tokens}"
            )
        for name, default, key in (("num_recurrences", None, "more"), ("lpc_alpha", 0.0, "babyai")):
            if getattr(self, name) != default and key not in self.models:
                raise ConfigError(f"{name}: is a setting of {key} alone; expected it among --models, or no --{name}")
        if not 0 <= self.lpc_alpha <= 1:
            raise ConfigError(f"lpc_alpha: expected a number from 0 to 1, found {self.lpc_alpha}")
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

    def takes_stand_in(self, key: str) -> bool:
        """Return whether a small model takes the place of a key's: one of the hub, no weights of which are named."""
        return self.stand_in and MODEL_CONFIGS[key]["name"] is not None and key not in self.find_paths()

    def is_stand_in(self, key: str) -> bool:
        """Return whether a key's weights are those of a stand-in: made here, or in the folder that is named for it."""
        path = self.find_paths().get(key)
        return self.takes_stand_in(key) or (path is not None and Path(path, STAND_IN_INFO).is_file())

    def find_display_name(self, key: str) -> str:
        """Return what a key's model is called; a stand-in is marked."""
        return MODEL_CONFIGS[key]["display_name"] + " (stand-in)" * self.is_stand_in(key)

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


def read_command(argv: Sequence[str] | None = None) -> tuple[ExperimentSettings, bool, Launcher]:
    """Return the settings of a command line, whether it goes on with earlier results, and where it searches.

    Args:
        argv: Arguments; those of the process by default.

    Raises:
        ConfigError: On anything that cannot be used.
    """
    tokens = join_lists(sys.argv[1:] if argv is None else argv)
    beside: dict[str, Any] = {
        "options": {
            "preset": "quick: 3 samples, 5 rollouts, 30 tokens, where flags and YAML say nothing else.",
            **FLAGS,
        },
        "switches": {"resume": "Go on with the newest results of these settings; samples that are there stay."},
    }
    description = "Search for answers with one or several models and methods, and keep every rollout."
    found, others = parse_command(description, find_preset(tokens), tokens, **beside)
    if (preset := others["preset"]) is not None and preset not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    settings = ExperimentSettings(**{one.name: getattr(found, one.name) for one in fields(found)})
    return settings, bool(others["resume"]), parse_launcher(**{name: others[name] for name in FLAGS})


def find_preset(argv: Sequence[str]) -> type[ExperimentSettings]:
    """Return the settings whose defaults the arguments ask for; the plain ones where the preset is not known."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    return PRESETS.get(parser.parse_known_args(list(argv))[0].preset, ExperimentSettings)


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
