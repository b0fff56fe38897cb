"""What one policy did on fixed levels, intact or changed: on its own way, and shown the bot's. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records.tables import EpisodeTable, RoutingTable


@dataclass(frozen=True, eq=False)
class Played:
    """One policy under one intervention.

    Attributes:
        name: Of the intervention, in a few words.
        episodes: Of the policy's own play, a row for each of N levels.
        routing: Steps of it, with the weights by which outputs were multiplied.
        shown_episodes: The bot's trajectories of the levels.
        shown_routing: Steps of these, S; what the intact policy would do there.
        ce: float32 (S,), cross-entropy to the bot's action along them, nats.
        agrees: bool (S,), whether the most probable action is the bot's.
        kl: float32 (S,), KL(intact policy || this one), nats.
    """

    name: str
    episodes: EpisodeTable
    routing: RoutingTable
    shown_episodes: EpisodeTable
    shown_routing: RoutingTable
    ce: np.ndarray
    agrees: np.ndarray
    kl: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths.

        Raises:
            ValueError: If an array has not a value for each step shown.
        """
        for name in ("ce", "agrees", "kl"):
            if getattr(self, name).shape != (len(self.shown_routing),):
                expected, found = (len(self.shown_routing),), getattr(self, name).shape
                raise ValueError(f"{name}: expected shape {expected}, found {found}")
