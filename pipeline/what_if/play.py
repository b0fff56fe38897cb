"""One checkpoint intact and changed on the levels of its cache, for a notebook: played once, then from memory.

    pair, problem = try_what_if(cache, build_dial(1.0, sizes), 50, candidates=["checkpoints/.../checkpoint_final.pt"])

It plays by itself to each level's end (`evaluate_grid`), and is shown the bot's trajectories of the same levels
(`pipeline.replay`), along which cross-entropy and agreement compare like with like. What was played is kept under
(weights, levels, intervention).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from babyai.level_seeds import EVALUATION_SEED, evaluation_seeds
from babyai.levels import resolve_task_id
from pipeline.command.devices import resolve_device
from pipeline.command.errors import MISTAKES, UserError, explain
from pipeline.command.names import name_command
from pipeline.evaluation.checkpoint import Checkpoint, load_checkpoint
from pipeline.evaluation.grid import evaluate_grid
from pipeline.evaluation.play import PlaySettings
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.interventions.donors import Donors
from pipeline.interventions.spec import Intervention
from pipeline.records.cache import Cache, find_actions, played_level
from pipeline.records.played import Played
from pipeline.records.tables import EpisodeTable, RoutingTable
from pipeline.replay.run import Intact, find_donors, intervene, replay
from pipeline.replay.tables import build_tables
from pipeline.replay.trajectories import Trajectories, follow_expert

DONOR_LEVELS = 64
"""Levels that are not scored, of which means are."""

_ENVIRONMENTS = 64
_STAGES = 4  # checkpoints on their levels that are kept; some ten megabytes each

Say = Callable[[str], object]


class NoCheckpointError(UserError):
    """The weights that a cache was made from are not there; the message says what to do."""


def try_what_if(
    cache: Cache,
    intervention: Intervention | None,
    num_levels: int,
    *,
    candidates: Iterable[str | Path] = (),
    say: Say = lambda text: None,
) -> tuple[tuple[Played, Played] | None, str]:
    """Return the policy of a cache intact and changed, or None and in one line why not and what to do.

    Args:
        cache: Its header says which checkpoint, its episodes which levels.
        intervention: The change; None for a policy that has nothing to be changed.
        num_levels: The first so many of the cache's levels.
        candidates: Where else the checkpoint may lie.
        say: Gets what is being done, in a few words.
    """
    try:
        if intervention is None:
            raise UserError("This policy has no routers (a baseline): there is nothing to turn or to knock out.")
        stage = _find_stage(cache, num_levels, [Path(path) for path in candidates], say)
        return (stage.play(Intervention(name="intact"), say), stage.play(intervention, say)), ""
    except MISTAKES as error:
        return None, explain(error)


def _find_stage(cache: Cache, num_levels: int, candidates: list[Path], say: Say) -> _Stage:
    head = cache.header
    named = [Path(head["checkpoint_path"])] if head.get("checkpoint_path") else []
    paths = [path for path in dict.fromkeys([*named, *candidates]) if path.is_file()]
    again = f"evaluate what is there: {name_command('evaluate')} --force"
    if not paths:
        where = ", ".join(map(str, dict.fromkeys([*named, *candidates]))) or "the cache names none"
        raise NoCheckpointError(
            f"The checkpoint of this cache is gone ({where}): bring it back, name the folder of checkpoints at the "
            f"side, or {again}"
        )
    say("loading the checkpoint")
    digest, troubles = head.get("checkpoint_digest"), []
    for path in paths:  # one that is damaged, or of other weights, does not hide the right one behind it
        try:
            checkpoint = _load(path, path.stat().st_mtime_ns)
        except MISTAKES as error:
            troubles.append(error)
            continue
        if digest in (None, checkpoint.digest):
            break
        troubles.append(
            NoCheckpointError(
                f"{path}: holds other weights ({checkpoint.digest[:8]}) than those the cache was made from "
                f"({digest[:8]}); {again}"
            )
        )
    else:
        raise troubles[0]
    level_seeds = [int(seed) for seed in cache.episodes.level_seed if seed >= 0]
    seeds = tuple(dict.fromkeys(level_seeds or evaluation_seeds(EVALUATION_SEED, num_levels)))[:num_levels]
    task_id = resolve_task_id(played_level(head) or checkpoint.config.task_id)
    how = PlaySettings(
        _ENVIRONMENTS,
        head.get("max_steps"),
        record=True,
        lpc_exponent=checkpoint.config.lpc_exponent,
        actions="sample" if find_actions(head) == "sample" else "greedy",
    )
    return _keep_stage(checkpoint.path, checkpoint.digest, task_id, seeds, how, _Box(checkpoint))


@dataclass(frozen=True)
class _Box:
    """A checkpoint that is no part of a key: the digest is."""

    checkpoint: Checkpoint = field(compare=False)


@lru_cache(maxsize=_STAGES)
def _load(path: Path, mtime_ns: int) -> Checkpoint:
    return load_checkpoint(path, device=resolve_device("auto"))


@lru_cache(maxsize=_STAGES)
def _keep_stage(path: Path, digest: str, task_id: str, seeds: tuple[int, ...], how: PlaySettings, box: _Box) -> _Stage:
    return _Stage(box.checkpoint, task_id, seeds, how)


class _Stage:
    """A checkpoint on its levels, and what it did there under each intervention so far."""

    def __init__(self, checkpoint: Checkpoint, task_id: str, seeds: tuple[int, ...], how: PlaySettings) -> None:
        self._task_id, self._seeds, self._how = task_id, seeds, how
        self._agents = [checkpoint.agent(task_id)]
        self._played: dict[tuple[str, str], Played] = {}

    @cached_property
    def _way(self) -> Trajectories:
        return follow_expert(self._task_id, self._seeds, max_steps=self._how.max_steps)

    @cached_property
    def _intact(self) -> Intact:
        return replay(self._agents, self._way, lpc_exponent=self._how.lpc_exponent)

    @cached_property
    def _shown(self) -> tuple[EpisodeTable, RoutingTable]:
        return build_tables(self._intact, 0)

    @cached_property
    def _donors(self) -> Donors:
        stream = evaluation_seeds(EVALUATION_SEED, DONOR_LEVELS + len(self._seeds))
        others = [seed for seed in stream if seed not in self._seeds][:DONOR_LEVELS]
        return find_donors(self._agents, follow_expert(self._task_id, others, max_steps=self._how.max_steps))

    def play(self, item: Intervention, say: Say) -> Played:
        """Return what the policy does under an intervention, from memory if it was asked before."""
        key = item.digest, item.name
        if key not in self._played:
            self._played[key] = self._play(item, say)
        return self._played[key]

    def _play(self, item: Intervention, say: Say) -> Played:
        torch.set_num_threads(EvaluationSettings().torch_threads)
        say(f"{item.name}: the bot's way through {len(self._seeds)} levels")
        donors = self._donors if item.needs_donors else None
        effects = intervene(self._intact, [item], donors=donors)
        done = 0

        def count(ended: int) -> None:
            nonlocal done
            done += ended
            say(f"{item.name}: {done} of {len(self._seeds)} levels played")

        ((own,),) = evaluate_grid(
            self._agents, [item], self._task_id, self._seeds, self._how, donors=donors, progress=count
        )
        arrays = {name: getattr(effects, name)[0, 0].numpy() for name in ("ce", "kl")}
        return Played(item.name, own.episodes, own.routing, *self._shown, agrees=effects.agree[0, 0].numpy(), **arrays)
