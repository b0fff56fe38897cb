"""The base of the world's errors that a person can mend, such as a task's name that there is not."""


class WorldError(Exception):
    """Something asked of the world that it cannot do; the message says what was expected and what to do."""
