"""Seconds per 1000 evaluated episodes, and the size and speed of the routing cache.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --tasks GoToObj --checkpoint GoToObj=checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt
    python -m benchmarks.evaluation --seconds 60 --json evaluation.json

Each task is evaluated with a policy that solves it, whose episodes are short, and with an untrained one, whose episodes
mostly run into their step limit; with the routing recorded, as batch_eval.py does it, and without (--skip_routing).
The first policy is a trained checkpoint where one is given; otherwise the expert's actions stand in for those of an
untrained policy, which is computed all the same. Then --together untrained policies play one by one and at once.

What fits into --seconds is played, at most 1000 episodes, and scaled to 1000. Planning every level by the expert, which
the path ratio needs, and its label at every step are included; starting Python and building policy and encoder are not,
they are stated apart. The cache is that of 1000 episodes of the solving policy, those played repeated as often as it
takes, written (with fsync) and read back by `write_cache` and `read_cache`.
"""  # noqa: E501 (a command stays on one line)

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from babyai.facts import NUM_ACTIONS
from babyai.levels import resolve_task_id
from babyai.missions import MissionEncoder, build_mission_encoder
from babyai.vector_env import VectorStep
from benchmarks.common import ROOT, as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from benchmarks.training import EXPERT, TRAINED, UNTRAINED
from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.engine.missions import MissionVectors
from pipeline.evaluation.checkpoint import Checkpoint, load_checkpoint
from pipeline.evaluation.play import Evaluation, PlaySettings, PolicyBatch, evaluate_task, evaluate_task_many
from pipeline.places import CACHE_NAME
from pipeline.policies import build_policy, build_projection
from pipeline.records.cache import read_cache, write_cache
from pipeline.records.tables import EpisodeTable, RoutingTable

EPISODES = 1000

RL_MOP_SECONDS = {"BabyAI-GoToObj-v0": 30.0}
"""Per 1000 episodes, of the existing rl-mop on a machine of the same kind (two cores). Quoted, about."""
RL_MOP_BYTES_PER_STEP = 690
"""Of its cache. Quoted."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        name: "untrained", "expert's actions" or "trained checkpoint".
        policy: Acts.
        encoder: Of sentences.
        projection: Of missions.
        max_steps: Step limit; None for each level's own.
        build_seconds: It took to build or load all that.
    """

    name: str
    policy: nn.Module
    encoder: MissionEncoder
    projection: nn.Linear
    max_steps: int | None
    build_seconds: float


@dataclass(frozen=True)
class EvaluationTime:
    """One task, one policy, routing recorded or not.

    Attributes:
        task_id: Full id.
        policy: Name of the subject.
        recorded: Whether the routing was.
        episodes: Played; times are scaled from them to 1000.
        seconds_per_1000: Wall-clock.
        cpu_seconds_per_1000: That the process had a core; on a busy machine the steadier number.
        env_steps_per_second: Evaluation's own rate.
        steps_per_episode: Mean.
        success_rate: Of the policy.
        rl_mop_seconds: Quoted, where there is one for this case.
    """

    task_id: str
    policy: str
    recorded: bool
    episodes: int
    seconds_per_1000: float
    cpu_seconds_per_1000: float
    env_steps_per_second: float
    steps_per_episode: float
    success_rate: float
    rl_mop_seconds: float | None


@dataclass(frozen=True)
class CacheCost:
    """The cache of 1000 episodes.

    Attributes:
        task_id: Full id.
        policy: Name of the subject.
        steps: In the file.
        bytes: Of the file.
        bytes_per_step: Episodes and header included.
        write_seconds: Of `write_cache`.
        read_seconds: Of `read_cache`.
    """

    task_id: str
    policy: str
    steps: int
    bytes: int
    bytes_per_step: float
    write_seconds: float
    read_seconds: float


@dataclass(frozen=True)
class Together:
    """Untrained policies evaluated one by one and at once, their routing recorded.

    Attributes:
        task_id: Full id.
        policies: How many.
        num_envs: Environments of each.
        episodes: Of each.
        alone_seconds: Wall-clock, one by one.
        alone_cpu_seconds: That the process had a core.
        together_seconds: Wall-clock, at once.
        together_cpu_seconds: That the process had a core.
    """

    task_id: str
    policies: int
    num_envs: int
    episodes: int
    alone_seconds: float
    alone_cpu_seconds: float
    together_seconds: float
    together_cpu_seconds: float


def build_subject(
    args: argparse.Namespace, name: str, task_id: str, checkpoint: Path | None = None, *, seed: int | None = None
) -> Subject:
    """Return what plays a task, and how long it took to get it; untrained weights of another seed if given.

    Raises:
        ConfigError: If the checkpoint's policy is told of levels and was not trained on this one.
        CheckpointError: If the checkpoint cannot be used.
        MissionEncoderError: If its sentence encoder cannot be had.
    """
    started = time.perf_counter()
    device = resolve_device(args.device)
    if checkpoint is not None:
        loaded: Checkpoint = load_checkpoint(checkpoint, device=device, lang_encoder=args.lang_encoder)
        parts = *loaded.agent(task_id), loaded.config.max_steps
    else:
        config = TrainConfig(seed=args.seed if seed is None else seed)
        encoder = build_mission_encoder("builtin", device=device, announce=lambda line: None)
        projection = build_projection(config, encoder.width).to(device)
        parts = build_policy(config).to(device), encoder, projection, None
    return Subject(name, *parts, build_seconds=time.perf_counter() - started)


@contextlib.contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Within the block the expert's actions replace the policy's if that is the name; the policy is still computed."""
    if name != EXPERT:
        yield
        return
    plain = PolicyBatch.act

    def act(
        self: PolicyBatch, steps: Sequence[VectorStep], missions: Sequence[MissionVectors]
    ) -> tuple[Tensor, list[Tensor]]:
        logits, routing = plain(self, steps, missions)
        expert = torch.from_numpy(np.stack([step.expert_action for step in steps]))
        return F.one_hot(expert, NUM_ACTIONS).to(logits), routing

    with mock.patch.object(PolicyBatch, "act", act):
        yield


def play(args: argparse.Namespace, subject: Subject, task_id: str, episodes: int, record: bool) -> Evaluation:
    """Evaluate so many episodes."""
    with acting_as(subject.name):
        return evaluate_task(
            subject.policy,
            subject.encoder,
            subject.projection,
            task_id,
            episodes,
            num_envs=args.num_envs,
            max_steps=subject.max_steps,
            record=record,
        )


def count_fitting(args: argparse.Namespace, probe: Callable[[], object], policies: int = 1) -> int:
    """Return the episodes that some policies play within `args.seconds`; `probe` plays `num_envs` and warms up."""
    _, seconds, _ = time_call(probe)
    return max(args.num_envs, min(EPISODES, int(args.seconds / (seconds / args.num_envs) / policies)))


def measure_evaluation(
    args: argparse.Namespace, subject: Subject, task_id: str, record: bool
) -> tuple[EvaluationTime, Evaluation]:
    """Return the time of as many episodes as fit, and what they were."""
    episodes = count_fitting(args, lambda: play(args, subject, task_id, args.num_envs, record))
    result, seconds, cpu = time_call(lambda: play(args, subject, task_id, episodes, record))
    metrics = result.metrics
    measured = EvaluationTime(
        task_id=task_id,
        policy=subject.name,
        recorded=record,
        episodes=episodes,
        seconds_per_1000=seconds * EPISODES / episodes,
        cpu_seconds_per_1000=cpu * EPISODES / episodes,
        env_steps_per_second=metrics["total_steps"] / seconds,
        steps_per_episode=metrics["mean_steps"],
        success_rate=metrics["success_rate"],
        rl_mop_seconds=RL_MOP_SECONDS.get(task_id) if subject.name != UNTRAINED else None,
    )
    return measured, result


def measure_together(args: argparse.Namespace, task_id: str) -> Together:
    """Return the times of `args.together` untrained policies, as many episodes each as fit."""
    subjects = [build_subject(args, UNTRAINED, task_id, seed=args.seed + k) for k in range(args.together)]
    players = [(subject.policy, subject.encoder, subject.projection) for subject in subjects]
    settings = PlaySettings(num_envs=args.num_envs)
    probe = partial(evaluate_task_many, players[:1], task_id, args.num_envs, settings)
    episodes = count_fitting(args, probe, policies=len(players))
    _, *alone = time_call(lambda: [evaluate_task_many([player], task_id, episodes, settings) for player in players])
    _, *together = time_call(lambda: evaluate_task_many(players, task_id, episodes, settings))
    return Together(task_id, len(players), args.num_envs, episodes, *alone, *together)


def measure_cache(task_id: str, policy: str, result: Evaluation) -> CacheCost:
    """Return what the cache of 1000 episodes costs, made of an evaluation by repeating its episodes."""
    copies = -(-EPISODES // len(result.episodes))
    episodes = EpisodeTable.concatenate([result.episodes] * copies).select(range(EPISODES))
    routing = RoutingTable.concatenate([result.routing] * copies)
    routing = routing.select(routing.episode < EPISODES)
    header = {"checkpoint_path": "benchmark.pt", "evaluated_at": "now", "task_id": task_id}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CACHE_NAME
        save = partial(write_cache, path, header=header, metrics=result.metrics, episodes=episodes, routing=routing)
        _, write_seconds, _ = time_call(save)
        cache, read_seconds, _ = time_call(lambda: read_cache(path))
        size = path.stat().st_size
    steps = len(cache.routing)
    return CacheCost(task_id, policy, steps, size, size / steps, write_seconds, read_seconds)


def measure_import_seconds() -> float:
    """Return the seconds from starting Python to having imported what `eval_mop` offers."""
    command = [sys.executable, "-c", "from eval_mop import load_checkpoint"]
    _, seconds, _ = time_call(lambda: subprocess.run(command, cwd=ROOT, check=True))
    return seconds


TIME_COLUMNS = (
    ("task", "task_id"),
    ("policy", "policy"),
    ("routing", lambda time: "recorded" if time.recorded else "skipped"),
    ("s per 1000 episodes", "seconds_per_1000:.1f"),
    ("CPU s", "cpu_seconds_per_1000:.1f"),
    ("episodes played", "episodes"),
    ("steps per episode", "steps_per_episode:.1f"),
    ("success", "success_rate:.0%"),
    ("env-steps/s", "env_steps_per_second:.0f"),
    ("rl-mop, s", lambda time: "-" if time.rl_mop_seconds is None else f"about {time.rl_mop_seconds:.0f}"),
)
CACHE_COLUMNS = (
    ("task", "task_id"),
    ("policy", "policy"),
    ("steps", "steps"),
    ("MB", lambda cost: f"{cost.bytes / 1e6:.1f}"),
    ("bytes per step", "bytes_per_step:.0f"),
    ("write, s", "write_seconds:.2f"),
    ("read, s", "read_seconds:.2f"),
    ("rl-mop, bytes per step", lambda _: str(RL_MOP_BYTES_PER_STEP)),
)
TOGETHER_COLUMNS = (
    ("task", "task_id"),
    ("policies", "policies"),
    ("environments each", "num_envs"),
    ("episodes each", "episodes"),
    ("one by one, s", "alone_seconds:.1f"),
    ("CPU s", "alone_cpu_seconds:.1f"),
    ("at once, s", "together_seconds:.1f"),
    ("CPU s", "together_cpu_seconds:.1f"),
    ("ratio of CPU s", lambda times: f"{times.alone_cpu_seconds / times.together_cpu_seconds:.1f}"),
)


def parse_checkpoint(text: str) -> tuple[str, Path]:
    """Return task and path of `TASK=PATH`.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    task, mark, path = text.partition("=")
    if not task or not mark or not path:
        raise argparse.ArgumentTypeError(f"expected TASK=PATH, found {text!r}")
    return task, Path(path)


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    whole, number = parse_positive(int), parse_positive(float)
    tasks = ["GoToObj", "UnlockPickup", "GoTo"]
    parser.add_argument("--tasks", nargs="+", default=tasks, help=f"ids or short names (default: {' '.join(tasks)})")
    parser.add_argument(
        "--checkpoint",
        type=parse_checkpoint,
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="policy that solves a task, in place of the expert's actions; may be given once per task",
    )
    parser.add_argument("--lang_encoder", help="folder or id of the checkpoints' sentence encoder")
    parser.add_argument("--num_envs", type=whole, default=16, help="environments (default: 16)")
    parser.add_argument("--together", type=whole, default=8, help="policies evaluated at once (default: 8)")
    parser.add_argument("--seconds", type=number, default=8.0, help="measured per line, about (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained weights (default: 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=whole, default=1, help="of torch (default: 1)")


def measure_task(
    args: argparse.Namespace, task_id: str, checkpoint: Path | None
) -> tuple[list[EvaluationTime], CacheCost, list[Subject]]:
    """Return all that is measured of a task, and the policies it was measured with."""
    untrained = build_subject(args, UNTRAINED, task_id)
    if checkpoint is None:
        solving = replace(untrained, name=EXPERT)
    else:
        solving = build_subject(args, TRAINED, task_id, checkpoint)
    times, cost = [], None
    for subject in (solving, untrained):
        for record in (True, False):
            measured, result = measure_evaluation(args, subject, task_id, record)
            times.append(measured)
            if cost is None:
                cost = measure_cache(task_id, subject.name, result)
    return times, cost, [solving, untrained]


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    torch.set_num_threads(args.threads)
    times: list[EvaluationTime] = []
    costs: list[CacheCost] = []
    together: list[Together] = []
    startup: dict[str, Any] = {"import_seconds": measure_import_seconds(), "build_seconds": {}}
    task_ids = [resolve_task_id(name) for name in args.tasks]
    checkpoints = {resolve_task_id(task): path for task, path in args.checkpoint}
    if stray := set(checkpoints) - set(task_ids):
        raise ConfigError(f"--checkpoint: expected one of {', '.join(task_ids)}, found {', '.join(stray)}")
    for task_id in task_ids:
        measured, cost, subjects = measure_task(args, task_id, checkpoints.get(task_id))
        times += measured
        costs.append(cost)
        together.append(measure_together(args, task_id))
        for subject in subjects:
            startup["build_seconds"].setdefault(subject.name, subject.build_seconds)

    built = ", ".join(f"{seconds:.2f} s {name}" for name, seconds in startup["build_seconds"].items())
    print(f"Evaluation with {args.num_envs} environments, as batch_eval.py does it in one process")
    print(format_machine_facts(machine, [args.threads]))
    imports = f"{startup['import_seconds']:.1f} s"
    print(f"\nNot included: starting Python with all imports, {imports}; policy and encoder: {built}")
    print("rl-mop: the existing one on a machine of the same kind, quoted.\n")
    print(format_records(TIME_COLUMNS, times))
    print("\nSeveral untrained policies, routing recorded, one by one and at once\n")
    print(format_records(TOGETHER_COLUMNS, together))
    print("\nCache of 1000 episodes\n")
    print(format_records(CACHE_COLUMNS, costs))
    return {"startup": startup, "times": times, "together": together, "caches": costs}


if __name__ == "__main__":
    sys.exit(main())
