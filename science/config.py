"""The study file: what is trained, evaluated, changed and asked; checked before anything starts.

    settings, beside = read_study(["--config", "studies/debug.yaml"])

Every key of the file is also a flag, as in all commands of this project; lists and mappings are written as YAML.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import yaml

from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import ConfigError, check_known, suggest
from pipeline.command.flags import fields_of
from pipeline.command.launcher import FLAGS, parse_launcher
from pipeline.config import TrainConfig
from pipeline.mixtures import check_mixture, parse_weights
from science.catalogue import ANALYSES, find_quantity
from science.names import read_names
from science.transfer_settings import Transfer, check_transfer

Part = TypeVar("Part")

OWN_FIELDS = (
    *("task_id", "task_weights", "mixture", "trial", "seed", "lpc_alpha", "checkpoint_dir", "log_dir"),
    *("final_eval_episodes", "checkpoint_updates", "start_from", "train_only"),
)
"""Fields of a run that the study sets itself."""

PATHS = ("largest", "smallest")
"""What a dense baseline can be matched with: the path of the largest, or smallest, expert of each layer."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_TYPICAL_MARGIN = 0.1


@dataclass(frozen=True)
class Statistics:
    """How much is drawn, and how sure is sure enough.

    Attributes:
        draws: Of each null by permutation or exchange.
        calibration: Data sets of pure noise, and of planted effects, with which the design itself is tested.
        level: Chance of a false verdict over all claims together (Holm). Stars of maps (BH), experts that are dead and
            the calibration card have 0.05 whatever this is.
        power: With which the detectable effect of `--plan` is found.
        seed: Of every random draw of the analyses.
    """

    draws: int = 199
    calibration: int = 200
    level: float = 0.05
    power: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        check_numbers(self, 1, "draws", "calibration")
        check_numbers(self, 0, "seed")
        for name in ("level", "power"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a number between 0 and 1, found {getattr(self, name)!r}")


@dataclass(frozen=True)
class Learners:
    """Dense networks that learn each task by itself, to tell how hard it is: by env-steps until success.

    Attributes:
        seeds: Networks of each task, of whose steps the median is taken.
        num_updates: Updates after which a task that is not learned is censored.
        hidden_size: Of the GRU.
        success: Share of episodes solved, acting as it learns, that counts as learned; see `science.learning`.
    """

    seeds: int = 5
    num_updates: int = 1000
    hidden_size: int = 128
    success: float = 0.9

    def __post_init__(self) -> None:
        """Check ranges."""
        check_numbers(self, 1, "seeds", "num_updates", "hidden_size")
        if not 0 < self.success <= 1:
            raise ConfigError(f"success: expected a share above 0, at most 1, found {self.success!r}")


@dataclass(frozen=True)
class Claim:
    """One declared claim: it gets a verdict, everything else is exploratory.

    Attributes:
        claim: The quantity, as analysis.quantity.
        direction: On which side of its reference value (0, unless the quantity has another) it is claimed to be:
            greater, less, differs (either), or none (no effect), which needs a margin.
        margin: Half the width of the interval around the reference within which a value counts as no effect; null: no
            equivalence is tested.
        says: The claim in words.
        task: Of this task alone; null: of every task that is trained on, and the claim holds if it does in each.
        alpha: At this price of complexity alone; null: at every price of which the analysis tells it by itself.
    """

    claim: str = ""
    direction: Literal["greater", "less", "differs", "none"] = "greater"
    margin: float | None = None
    says: str = ""
    task: str | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without results."""
        find_quantity(self.claim)
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin > 0):
            raise ConfigError(f"margin: expected a positive number or null, found {self.margin!r}")
        if self.direction == "none" and self.margin is None:
            raise ConfigError(
                f"{self.claim}: direction none needs a margin within which an effect counts as none, such as "
                f"{_TYPICAL_MARGIN}; found none"
            )

    @property
    def analysis(self) -> str:
        """Before the dot."""
        return self.claim.partition(".")[0]

    @property
    def quantity(self) -> str:
        """After the dot."""
        return self.claim.partition(".")[2]


# ------------------------------------------------------------------------------------------------------------- reading


def _load(value: Any) -> Any:
    """Return what a flag's text says in YAML; what YAML has made already stays."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"expected YAML, found {value!r} ({' '.join(str(error).split())})") from None


def name_setting(alpha: float) -> str:
    """Return how tables name a price: alpha=1e-05, alpha=0."""
    short = f"{alpha:g}"
    return f"alpha={short if float(short) == alpha else repr(alpha)}"


def build_part(name: str, part: type[Part], written: Any) -> Part:
    """Return a dataclass of settings from a mapping of its fields.

    Raises:
        ConfigError: If it is no mapping, or holds an unknown key or a value that cannot be used.
    """
    written = {} if written is None else written
    if not isinstance(written, Mapping):
        raise ConfigError(f"{name}: expected lines of `key: value`, found {written!r}")
    fields = {flag.name: flag for flag in fields_of(part)}
    names = {spelling: flag for flag in fields.values() for spelling in (flag.name, *flag.aliases)}
    values = {}
    for key, value in written.items():
        if key not in names:
            hint = suggest(str(key), names) or f"; known are {', '.join(fields)}"
            raise ConfigError(f"{name}: unknown key {key!r}{hint}")
        if names[key].name in values:
            raise ConfigError(f"{name}: {names[key].name} is given twice")
        try:
            values[names[key].name] = names[key].value_of(value)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    try:
        return part(**values)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _read_train(value: Any) -> dict[str, Any]:
    value = _load(value)
    if isinstance(value, Mapping):
        for key in OWN_FIELDS:
            if key in value:
                words = {"task_id": "; its levels are `tasks`"}.get(key, "")
                words = "; see `transfer`" if key in ("start_from", "train_only") else words
                words = f"; give {key} beside tasks" if key in ("mixture", "task_weights") else words
                raise ConfigError(f"train: {key} is set by the study itself{words}; leave it out")
    config = build_part("train", TrainConfig, value)
    if config.policy == "gru":
        raise ConfigError("train: policy: expected moe or mop, which have routers to study; found gru (see baselines)")
    if config.wandb_project is not None:
        raise ConfigError("train: wandb_project: a study tracks its runs itself; leave it out")
    given = {} if value is None else value
    flags = {name: flag.name for flag in fields_of(TrainConfig) for name in (flag.name, *flag.aliases)}
    return {flags[key]: getattr(config, flags[key]) for key in given}


def _read_seeds(value: Any) -> list[int]:
    from pipeline.training.options import parse_seeds

    value = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return parse_seeds(value)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--seeds", "seeds")) from None


def _read_alphas(value: Any) -> list[float]:
    from pipeline.training.options import parse_alphas

    value = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return sorted(parse_alphas(value))
    except ConfigError as error:
        raise ConfigError(str(error).replace("--lpc_alphas", "lpc_alphas")) from None


def _read_tasks(value: Any) -> list[str]:
    return read_names("tasks", _load(value))


def _read_held_out(value: Any) -> list[str]:
    return read_names("held_out_tasks", _load(value))


def _read_baselines(value: Any) -> list[str]:
    names = read_names("baselines", _load(value))
    check_known("baselines", names, PATHS)
    return names


def _read_analyses(value: Any) -> list[str]:
    names = read_names("analyses", _load(value))
    check_known("analyses", names, tuple(ANALYSES))
    return [name for name in ANALYSES if name in names]


def _read_statistics(value: Any) -> Statistics:
    return build_part("statistics", Statistics, _load(value))


def _read_learners(value: Any) -> Learners | None:
    value = _load(value)
    return None if value is None or value is False else build_part("difficulty_baselines", Learners, value)


def _read_transfer(value: Any) -> Transfer | None:
    value = _load(value)
    return None if value is None or value is False else build_part("transfer", Transfer, value)


def _read_claims(value: Any) -> list[Claim]:
    value = _load(value)
    value = [] if value is None else value
    if not isinstance(value, list):
        raise ConfigError(f"claims: expected a list of claims, found {value!r}")
    claims = [build_part(f"claims, number {i + 1}", Claim, entry) for i, entry in enumerate(value)]
    seen: set[tuple[Any, ...]] = set()
    for claim in claims:
        key = (claim.claim, claim.task, claim.alpha)
        if key in seen:
            raise ConfigError(f"claims: expected each once, found {claim.claim} twice")
        seen.add(key)
    return claims


# ------------------------------------------------------------------------------------------------------------ settings


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study.

    Attributes:
        name: Of its folder within `out`.
        train: Fields of train_mop.py's settings, which all runs share; seed, price, task and folders are the study's.
        tasks: BabyAI level families. Policies are trained on each by itself, or with `mixture` on all of them together.
        mixture: Name of the tasks as one training set: each policy learns all of them; null: one of them.
        task_weights: Shares of the env-steps that the tasks of a mixture get, such as [1, 1, 2]; null: equal ones.
        held_out_tasks: Levels that the policies of a mixture were not trained on, and play all the same.
        seeds: One run of each price for each of these seeds: 0-9, or a list.
        lpc_alphas: Prices of complexity.
        baselines: Dense GRUs with as many parameters as are active on a path: largest, smallest, both or none.
        difficulty_baselines: Dense networks that learn each task by itself, which tells how hard it is (`Learners`):
            seeds, num_updates, hidden_size, success; null: none do.
        transfer: Trained policies that learn new levels with a part of them free (`Transfer`): levels, parts,
            num_updates, success, alpha, seeds, untrained; of the analysis transfer. null: none do.
        episodes: Levels on which each run is evaluated and replayed.
        changed_episodes: Levels on which it is changed; null: as many, though at most 100.
        eval_seed: Which fixed list of levels; the same for all runs.
        checkpoints: How many updates runs are looked at at while they train, from the first to the last, evenly spaced
            on a logarithmic scale; of the analysis dynamics.
        films: Twin films of each task, of the knock-outs that matter most, intact above and changed below; 0: none.
        analyses: What is asked; all that there are if it is empty, transfer where it has settings.
        statistics: Draws, levels and thresholds (`Statistics`): draws, calibration, level, power, seed.
        claims: Declared claims, each with quantity, direction and, to tell equivalence, a margin.
        out: Folder of all studies' results.
    """

    name: str = "study"
    train: dict[str, Any] = field(default_factory=dict, metadata={"read": _read_train})
    tasks: list[str] = field(default_factory=list, metadata={"read": _read_tasks})
    mixture: str | None = None
    task_weights: list[float] | None = field(default=None, metadata={"read": parse_weights})
    held_out_tasks: list[str] = field(default_factory=list, metadata={"read": _read_held_out})
    seeds: list[int] = field(default_factory=lambda: list(range(10)), metadata={"read": _read_seeds})
    lpc_alphas: list[float] = field(default_factory=lambda: [0.0], metadata={"read": _read_alphas})
    baselines: list[str] = field(default_factory=list, metadata={"read": _read_baselines})
    difficulty_baselines: Any = field(default=None, metadata={"read": _read_learners})
    transfer: Any = field(default=None, metadata={"read": _read_transfer})
    episodes: int = 200
    changed_episodes: int | None = None
    eval_seed: int | None = None
    checkpoints: int = 8
    films: int = 3
    analyses: list[str] = field(default_factory=list, metadata={"read": _read_analyses})
    statistics: Any = field(default_factory=dict, metadata={"read": _read_statistics})
    claims: list[Claim] = field(default_factory=list, metadata={"read": _read_claims})
    out: str = "studies/out"

    def __post_init__(self) -> None:
        """Check what goes beyond single values."""
        if not re.fullmatch(_NAME, self.name):
            raise ConfigError(
                "name: expected letters, digits, `_`, `.` and `-`, beginning with a letter or digit, found "
                f"{self.name!r}"
            )
        if isinstance(self.difficulty_baselines, Mapping):
            object.__setattr__(self, "difficulty_baselines", _read_learners(self.difficulty_baselines))
        if isinstance(self.transfer, Mapping):
            object.__setattr__(self, "transfer", _read_transfer(self.transfer))
        self._check_mixture()
        if self.transfer is not None and self.tasks:
            check_transfer(self.transfer, self)
        check_numbers(self, 1, "episodes", "changed_episodes")
        if self.changed_episodes is None:
            object.__setattr__(self, "changed_episodes", min(100, self.episodes))
        check_numbers(self, 0, "eval_seed", "films")
        check_numbers(self, 3, "checkpoints")
        if not isinstance(self.statistics, Statistics):
            object.__setattr__(self, "statistics", build_part("statistics", Statistics, self.statistics))
        if not self.analyses:
            asked = [name for name in ANALYSES if name != "transfer" or self.transfer is not None]
            object.__setattr__(self, "analyses", asked)
        if "transfer" in self.analyses and self.transfer is None:
            raise ConfigError(
                "analyses: transfer: expected its settings, such as transfer: {levels: [GoToObj]}, found null"
            )
        for claim in self.claims:
            if claim.analysis not in self.analyses:
                raise ConfigError(
                    f"claims: {claim.claim}: the study does not ask for {claim.analysis}; add it to analyses"
                )
            if claim.alpha is not None and claim.alpha not in self.lpc_alphas:
                prices = ", ".join(f"{alpha:g}" for alpha in self.lpc_alphas)
                raise ConfigError(f"claims: {claim.claim}: alpha: expected one of {prices}, found {claim.alpha:g}")

    def _check_mixture(self) -> None:
        """Check what belongs to policies that learn several levels."""
        if self.mixture is not None:
            check_mixture(self.tasks, self.task_weights, self.mixture, self.shared.num_envs)
        else:
            alone = {"task_weights": self.task_weights, "held_out_tasks": self.held_out_tasks}
            for name, value in alone.items():
                if value:
                    raise ConfigError(
                        f"{name}: expected a mixture with it, such as mixture: verbs3, whose policies learn all tasks; "
                        f"found {value!r} and policies that learn one level each"
                    )
            if self.shared.task_input != "none":
                raise ConfigError(
                    "train: task_input: expected none, as each policy learns one level; onehot goes with a mixture"
                )
        if self.held_out_tasks and self.shared.task_input == "onehot":
            raise ConfigError(
                f"held_out_tasks: {', '.join(self.held_out_tasks)}: by train.task_input onehot policies are told a "
                "level's place among those they learn, and these have none; leave them out, or set task_input: none"
            )
        for name in self.held_out_tasks:
            if name in self.tasks:
                raise ConfigError(f"held_out_tasks: expected levels that are not in tasks, found {name} in both")

    @property
    def shared(self) -> TrainConfig:
        """Settings of training that all runs share; levels, seed, price and folders are not set."""
        return TrainConfig(**self.train)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain types."""
        return dataclasses.asdict(self)


SWITCHES = {
    "plan": "Tell what would be done, how long it takes, and what this design can show; do nothing.",
    "selftest": "Test the design on planted routers and on noise of its shape; train and evaluate nothing.",
}
OPTIONS = {
    "only": "Analyses to be made, with what they need, such as pathways,price; the others keep what they have.",
    "jobs": "Processes that share the work. Default: one for each core. Results do not depend on it.",
}


def read_study(description: str, argv: Sequence[str] | None = None) -> tuple[StudyConfig, dict[str, Any]]:
    """Return the study that YAML and flags ask for, and plan, selftest, only, jobs and launcher beside it.

    Raises:
        ConfigError: If something cannot be used.
    """
    settings, beside = parse_command(description, StudyConfig, argv, switches=SWITCHES, options={**OPTIONS, **FLAGS})
    beside["launcher"] = parse_launcher(**{name: beside.pop(name) for name in FLAGS})
    if not settings.tasks:
        raise ConfigError("tasks: expected at least one, found none; give --config studies/debug.yaml, or --tasks")
    if (jobs := beside["jobs"]) is not None:
        if not re.fullmatch(r"\d+", jobs.strip(), re.ASCII) or int(jobs) < 1:
            raise ConfigError(f"--jobs: expected a whole number of at least 1, found {jobs!r}")
        beside["jobs"] = int(jobs)
    only = settings.analyses
    if beside["only"] is not None:
        names = read_names("--only", _load(beside["only"]))
        check_known("--only", names, settings.analyses)
        only = [name for name in settings.analyses if name in names]
    beside["only"] = only
    return settings, beside
