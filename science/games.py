"""What coalitions of experts are worth: a game in the sense of Shapley, read from the effects of interventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from science.coalitions import code_of, interaction_weights, list_players, players_in, shapley_weights
from science.effects import Effects
from science.result import NAN, Draft
from science.traces import Run

MIN_EPISODES = 5
"""Levels of a subgoal below which nothing is told of it."""


@dataclass(frozen=True, eq=False)
class Game:
    """What coalitions of N experts are worth to R runs on G levels.

    Attributes:
        runs: R runs.
        players: Layer and expert of each player.
        sizes: int (N,), their hidden sizes; 0 not known.
        groups: Names of X groups of steps, the first of all steps.
        worths: Per measure float64 (R, G, X, 2^N), NaN where a level has no step of a group.
        made_up: float64 (R, N), what the knock-out of each alone does if the other weights are made to sum to 1; NaN
            not known.
    """

    runs: tuple[Run, ...]
    players: list[tuple[int, int]]
    sizes: np.ndarray
    groups: tuple[str, ...]
    worths: dict[str, np.ndarray]
    made_up: np.ndarray

    def credit(self, measure: str) -> np.ndarray:
        """Return Shapley values (R, G, X, N)."""
        return self.worths[measure] @ shapley_weights(len(self.players)).T

    def interactions(self) -> np.ndarray:
        """Return interaction indices of pairs (R, G, X, pairs), cross-entropy."""
        return self.worths["ce"] @ interaction_weights(len(self.players)).T

    def worth(self, measure: str) -> np.ndarray:
        """Return v(all) - v(none), (R, G, X)."""
        return self.worths[measure][..., -1] - self.worths[measure][..., 0]

    def alone(self) -> np.ndarray:
        """Return what the knock-out of each expert alone does, v(all) - v(all others), (R, G, X, N)."""
        every = 2 ** len(self.players) - 1
        others = [every & ~(1 << place) for place in range(len(self.players))]
        return self.worths["ce"][..., -1:] - self.worths["ce"][..., others]

    @property
    def blocks(self) -> list[list[int]]:
        """Players of a layer that are equal in size, two or more, as places."""
        keys = [(layer, int(size)) for (layer, _), size in zip(self.players, self.sizes, strict=True)]
        found = [[place for place, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]
        return [places for places in found if len(places) > 1] if self.sizes.all() else []

    @property
    def columns(self) -> dict[str, Any]:
        """What rows tell of it."""
        return {"n_levels": 1, "n_episodes": self.worths["ce"].shape[1]}

    @property
    def where(self) -> str:
        """Task and setting, for notes."""
        return f"{self.runs[0].task}, {self.runs[0].setting}"


def read_game(draft: Draft, cell: Effects, sizes: Sequence[Sequence[int]] | None = None) -> Game | None:
    """Return the game of a task and setting; None, with a note, where coalitions are missing.

    Args:
        draft: Gets notes.
        cell: Effects of coalitions and a sham.
        sizes: Of all experts; None: players are those that any condition takes out.
    """
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
    used = [*cell.of_kind("sham")[:1], *cell.of_kind("coalition")]
    names = {index: cell.conditions[index].name for index in used}
    if sizes is None:
        every = sorted(set().union(*map(players_in, names.values())))
    else:
        every = list_players(sizes)
    codes = {index: code_of(name, every) for index, name in names.items()}
    if not every or sorted(codes.values()) != list(range(2 ** len(every))):
        draft.note(f"{where}: expected all {2 ** len(every)} coalitions, once each, found {len(set(codes.values()))}")
        return None
    place = np.full(len(cell.conditions), -1)
    place[list(codes)] = list(codes.values())
    shape = (len(cell.runs), len(cell.level_seeds), 1 + len(cell.groups), len(codes))
    rows = np.flatnonzero(place[cell.condition] >= 0)
    at = (
        cell.run[rows],
        np.searchsorted(cell.level_seeds, cell.level_seed[rows]),
        1 + cell.group[rows],
        place[cell.condition[rows]],
    )
    worths = {}
    for measure, sign in (("ce", -1), ("agreement", 1)):
        worths[measure] = np.full(shape, NAN)
        worths[measure][at] = sign * cell.difference(measure)[rows]
        if np.nan_to_num(worths[measure][..., -1]).any():
            draft.note(f"{where}: the sham differs from the intact policy: no credit here is to be believed")
    seen = np.isfinite(worths["ce"]).all(axis=(0, 3)).sum(axis=0) >= MIN_EPISODES
    seen[0] = True
    of_player = [0 if sizes is None else sizes[layer][expert] for layer, expert in every]
    names_of = ("", *cell.groups)
    kept = tuple(name for name, one in zip(names_of, seen, strict=True) if one)
    worths = {measure: values[:, :, seen] for measure, values in worths.items()}
    made_up = np.full((len(cell.runs), len(every)), NAN)
    for index in cell.of_kind("knockout", what="zero", renormalise=True):
        player = cell.conditions[index].layer, cell.conditions[index].expert
        if player in every:
            made_up[:, every.index(player)] = cell.per_run("ce", index)
    return Game(cell.runs, every, np.array(of_player, np.int64), kept, worths, made_up)
