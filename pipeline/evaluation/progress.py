"""The bar of a batch evaluation: episodes, so that it moves also while a single checkpoint is played."""

from __future__ import annotations

from pipeline.command.bars import Bar


class EvaluationBar:
    """Counts episodes over all checkpoints; those of one that is done before, or fails, count when that is known.

    Args:
        checkpoints: How many there are.
        episodes: Of each.
    """

    def __init__(self, checkpoints: int, episodes: int) -> None:
        self._checkpoints, self._episodes = checkpoints, episodes
        self._ended = self._under_way = 0
        self._bar = Bar(total=checkpoints * episodes, desc="evaluating", unit="episode")
        self._show()

    def __enter__(self) -> EvaluationBar:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def play(self, episodes: int) -> None:
        """Count episodes that have ended, of a checkpoint that is being played."""
        self._under_way += episodes
        self._show()

    def end(self) -> None:
        """Count a checkpoint of which nothing more comes."""
        self._ended += 1
        self._under_way = max(0, self._under_way - self._episodes)
        self._show()

    def _show(self) -> None:
        # Alike checkpoints that fail together are played again one by one: more episodes may end than there are.
        done = min(self._bar.total, self._ended * self._episodes + self._under_way)
        self._bar.set_postfix_str(f"{self._ended} of {self._checkpoints} checkpoints", refresh=False)
        self._bar.update(done - self._bar.n)
