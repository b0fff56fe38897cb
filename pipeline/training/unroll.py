"""Unrolls through compiled calls, one for each replica and thread; see `pipeline.engine.compiled.unroll`.

What holds slots up is done between calls, earliest step first: missions are then numbered in the order in which a step
by step unroll would meet them, however the slots are shared out to threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from babyai.compiled.turn import Game
from babyai.steps import EpisodeEnd
from babyai.vector_env import Share, VectorEnv
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.compiled.unroll import Chooses, Shows, unroll
from pipeline.engine.missions import MissionVectors


@dataclass
class _Piece:
    """Some groups of a replica; `at` is the step before which they are held up."""

    replica: int
    first: int
    end: int
    share: Share
    at: int = 0


class CompiledUnroll:
    """Plays unrolls.

    Args:
        engine: Acts.
        envs: Of the replicas, all of compiled levels and with labels.
        missions: Their mission vectors.
        shown: By name what is written of each step, (G, T, N): mission_id, expert_action, expert_valid.
        vectors_at: Where mission vectors begin in the engine's inputs.
    """

    def __init__(
        self,
        engine: CompiledEngine,
        envs: Sequence[VectorEnv],
        missions: Sequence[MissionVectors],
        shown: dict[str, np.ndarray],
        vectors_at: int,
    ) -> None:
        self._engine, self._envs, self._missions = engine, envs, missions
        self._shown = [shown[name] for name in ("mission_id", "expert_action", "expert_valid")]
        self._vectors_at = vectors_at
        groups, self._steps, size = self._shown[0].shape
        per_replica = groups // len(envs)
        self._pieces = []
        for first, end in engine.shares:
            while first < end:
                replica = first // per_replica
                before, last = replica * per_replica, min(end, (replica + 1) * per_replica)
                share = envs[replica].share((first - before) * size, (last - before) * size, self._steps)
                self._pieces.append(_Piece(replica, first, last, share))
                first = last
        self._shares = [[p.share for p in self._pieces if p.replica == number] for number in range(len(envs))]
        self._actions = np.zeros((len(envs), per_replica * size), np.int64)
        self._no_noise, self._no_chance = np.zeros((0, 0, 0, 0), np.float32), np.zeros((0, 0, 0), np.float32)

    def start(self) -> None:
        """Begin new levels in all slots.

        Raises:
            ExpertError: Too many unsolvable levels in a row.
        """
        for env in self._envs:
            env.restart()
        self._go_through(self._steps, Chooses(self._no_noise, self._no_chance, np.float32(0), self._actions))
        for env, shares in zip(self._envs, self._shares, strict=True):
            env.close_game(shares)

    def play(self, gumbel: Tensor | None, chance: np.ndarray | None, expert_prob: float) -> list[list[EpisodeEnd]]:
        """Play an unroll that the engine has begun; see `Chooses` for the arguments.

        Returns:
            the episodes that ended, per replica, in the order of steps and slots.
        """
        noise = self._no_noise if gumbel is None else np.ascontiguousarray(gumbel.numpy())
        chances = self._no_chance if chance is None else np.ascontiguousarray(chance)
        self._go_through(0, Chooses(noise, chances, np.float32(expert_prob), self._actions))
        return [env.close_game(shares) for env, shares in zip(self._envs, self._shares, strict=True)]

    def _go_through(self, step: int, chooses: Chooses) -> None:
        """Play from a step on to the end of the unroll, doing what holds slots up on the way."""
        for piece in self._pieces:
            piece.at = step
        going = self._pieces
        while going:
            calls = [(self._open(piece), piece) for piece in going]
            self._engine.map(lambda call: self._go_on(chooses, *call), calls)
            going = [piece for number in range(len(self._envs)) for piece in self._settle(number)]

    def _open(self, piece: _Piece) -> tuple[Shows, Game]:
        missions, env = self._missions[piece.replica], self._envs[piece.replica]
        missions.add(env.missions)
        shown = Shows(missions.table, self._vectors_at, *missions.trained, *self._shown)
        return shown, env.open_game(piece.share, self._steps - piece.at)

    def _go_on(self, chooses: Chooses, opened: tuple[Shows, Game], piece: _Piece) -> None:
        shows, game = opened
        place = piece.replica, piece.at, piece.first, piece.end
        piece.at = unroll(self._engine.acts, shows, chooses, game, *place)

    def _settle(self, replica: int) -> list[_Piece]:
        """Do what holds a replica's slots up at the earliest step; return the pieces that go on."""
        held = [piece for piece in self._pieces if piece.replica == replica and piece.at <= self._steps]
        if not held:
            return []
        earliest = min(piece.at for piece in held)
        going, env = [piece for piece in held if piece.at == earliest], self._envs[replica]
        lacking = [piece for piece in going if env.lacks_seeds(piece.share)]  # others have begun levels already
        going = lacking or going
        env.settle(*(piece.share for piece in going))
        return going
