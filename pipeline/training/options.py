"""The flags of many runs at once, read into the settings of each run.

One price of complexity is one trial: `--trial 4 --lpc_alphas 0,1e-5 --seeds 0-2` are trial 4 (alpha 0) and trial 5
(alpha 1e-5), each with seeds 0, 1 and 2.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from babyai.errors import UnknownTaskError
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.mixtures import check_distinct_levels

MAX_RUNS = 10_000
"""Runs of one call; more are a slip of the keyboard."""

CPU_REPLICAS = 4
"""Runs of one group on the CPU: the weights of more, all used at every step, would not stay in its cache."""

GPU_REPLICAS = 256
"""Most runs of one group on a GPU: each keeps its log files open."""

MAX_GROUP_STEPS = 2**17
"""Most steps of all runs of one group in one unroll: bounds the memory."""

OPTIONS = {
    "seeds": "Train one run for each of these seeds: 0-9, or 0,3,7-9. In place of --seed. Each "
    "run writes the same files as alone; --resume and --overwrite mean all of these runs, and complete ones are "
    "skipped.",
    "lpc_alphas": "Train all seeds with each of these prices of complexity: 0,1e-5,1e-4. In place of --lpc_alpha. One "
    "price is one trial: the first has the number --trial, the next one more. Not for policy gru.",
    "max_replicas": "Runs that one process trains as one program; further ones follow, seed by seed. Default: "
    f"{CPU_REPLICAS} on the CPU; on a GPU as many as make {MAX_GROUP_STEPS} steps an update together (runs x num_envs "
    f"x unroll_len), at most {GPU_REPLICAS}. Results do not depend on it.",
    "jobs": "Processes that share the runs, each with its own memory. Default: one per core (per torch_threads cores) "
    "that this process may use, and one on a GPU. Results do not depend on it.",
}
"""Flags of many runs, with their help."""


@dataclass(frozen=True)
class Sweep:
    """The runs of a call; a single run is a sweep of one. Those of one batch differ in `batch.MAY_DIFFER` alone.

    Attributes:
        configs: Settings of each run, by trial, then in the order of the seeds.
        max_replicas: Most runs that one process trains as one program; None: `default_replicas`.
        jobs: Processes; None: as many as the machine has cores for.
        single: Whether neither seeds nor prices were listed: no table of trials is printed or kept.
    """

    configs: tuple[TrainConfig, ...]
    max_replicas: int | None = None
    jobs: int | None = None
    single: bool = False


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a text such as `0-9` or `0,3,7-9` names, in its order.

    Raises:
        ConfigError: If it is no list of distinct whole numbers and ranges.
    """
    ranges: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip(), re.ASCII)
        if match is None:
            raise ConfigError(
                f"--seeds: expected numbers of 0 or more and ranges, as in 0-9 or 0,3,7-9, found {part!r}"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ConfigError(
                f"--seeds: expected a range from low to high, as in {last}-{first}, found {part.strip()!r}"
            )
        ranges.append(range(first, last + 1))
    _check_count("--seeds", sum(numbers.stop - numbers.start for numbers in ranges))
    seeds = [seed for numbers in ranges for seed in numbers]
    _check_distinct("--seeds", seeds, text)
    return seeds


def parse_alphas(text: str) -> list[float]:
    """Return the prices of complexity that a text such as `0,1e-5,1e-4` names, in its order.

    Raises:
        ConfigError: If it is no list of distinct finite numbers of 0 or more.
    """
    alphas = []
    for part in text.split(","):
        try:
            alpha = float(part)
        except ValueError:
            alpha = math.nan
        if not 0 <= alpha < math.inf:
            raise ConfigError(f"--lpc_alphas: expected numbers of 0 or more, as in 0,1e-5,1e-4, found {part!r}")
        alphas.append(abs(alpha))  # -0.0 is 0
    _check_distinct("--lpc_alphas", alphas, text)
    return alphas


def _check_distinct(flag: str, values: Sequence[float], text: str) -> None:
    seen: set[float] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{flag}: expected distinct values, found {value} twice in {text!r}")
        seen.add(value)


def _check_count(flag: str, count: int) -> None:
    if count > MAX_RUNS:
        raise ConfigError(f"{flag}: expected at most {MAX_RUNS} runs in one call, found {count}")


def parse_sweep(
    config: TrainConfig, *, seeds: str | None, lpc_alphas: str | None, max_replicas: str | None, jobs: str | None
) -> Sweep:
    """Return the runs that a configuration and the flags of `OPTIONS` ask for.

    Raises:
        ConfigError: If a value cannot be used.
        UnknownTaskError: If a task does not exist.
    """
    single = seeds is None and lpc_alphas is None
    if single:
        for flag, value in (("--max_replicas", max_replicas), ("--jobs", jobs)):
            if value is not None:
                raise ConfigError(f"{flag}: expected --seeds or --lpc_alphas with it, found neither: this is one run")
    if lpc_alphas is not None and config.policy == "gru":
        raise ConfigError("--lpc_alphas: policy gru has no experts to pay for; use --seeds alone, or policy moe or mop")
    if config.policy == "moe" and config.expert_norm != "none":
        raise ConfigError(
            "expert_norm: expected none with policy moe, whose experts have no LayerNorm, found "
            f"{config.expert_norm!r}; it would change nothing. Pass --policy mop, or --expert_norm none"
        )
    all_seeds = [config.seed] if seeds is None else parse_seeds(seeds)
    alphas = [config.lpc_alpha] if lpc_alphas is None else parse_alphas(lpc_alphas)
    _check_count("--seeds x --lpc_alphas", len(all_seeds) * len(alphas))
    named = dataclasses.replace(config, task_id=resolve_levels(config))
    configs = tuple(
        dataclasses.replace(named, trial=config.trial + i, lpc_alpha=alpha, seed=seed)
        for i, alpha in enumerate(alphas)
        for seed in all_seeds
    )
    return Sweep(
        configs,
        max_replicas=None if max_replicas is None else _count("--max_replicas", max_replicas),
        jobs=None if jobs is None else _count("--jobs", jobs),
        single=single,
    )


def resolve_levels(config: TrainConfig) -> str | list[str]:
    """Return `task_id` with the full ids of its levels.

    Raises:
        UnknownTaskError: If a level does not exist; the message names it.
        ConfigError: If two names are of one level, or the mixture is called as a level is.
    """
    from babyai.levels import resolve_task_id  # only here, as minigrid is slow to import

    if isinstance(config.task_id, str):
        return resolve_task_id(config.task_id)
    if _is_level(config.mixture):
        raise ConfigError(f"mixture: expected a name that no level has, found {config.mixture!r}; choose another")
    levels = []
    for name in config.task_id:
        try:
            levels.append(resolve_task_id(name))
        except UnknownTaskError as error:
            raise UnknownTaskError(f"task_id: {error}") from None
    check_distinct_levels(levels)
    return levels


def _is_level(name: str | None) -> bool:
    """Return whether a level is called so, by its full name, a short one, or one of an older version."""
    from babyai.levels import resolve_task_id

    try:
        return name is not None and bool(resolve_task_id(name))
    except UnknownTaskError:
        return False


def default_replicas(config: TrainConfig, on_cpu: bool) -> int:
    """Return how many runs are trained as one program if --max_replicas does not say."""
    most = CPU_REPLICAS if on_cpu else GPU_REPLICAS
    return max(1, min(most, MAX_GROUP_STEPS // (config.num_envs * config.unroll_len)))


def _count(flag: str, text: str) -> int:
    if not re.fullmatch(r"\d+", text.strip(), re.ASCII) or int(text) < 1:
        raise ConfigError(f"{flag}: expected a whole number of at least 1, found {text!r}")
    return int(text)
