"""Errors of the world that users see: what they asked for does not exist or cannot be played.

try: ...
except WorldError as error: ...                  # the message says what was expected, what was found, what to do
"""


class WorldError(Exception):
    """What every error of `babyai` is that a user can do something about."""


class UnknownTaskError(WorldError, ValueError):
    """The name is no registered BabyAI task."""


class LevelError(WorldError, RuntimeError):
    """minigrid's generator found no level for this seed within the allowed amount of work."""


class ExpertError(WorldError, RuntimeError):
    """The expert cannot be used for this task."""


class ReplayError(WorldError, ValueError):
    """The actions cannot have been taken in this level."""


class MissionEncoderError(WorldError, ValueError):
    """The encoder asked for cannot be had, or is not the one a checkpoint was trained with."""
