"""What a training run does after an update: log, evaluate, write a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import TrainConfig


@dataclass(frozen=True)
class Due:
    """What is due after an update.

    Attributes:
        config: The run's settings.
        update: Weight updates done, from 1.
    """

    config: TrainConfig
    update: int

    @property
    def last(self) -> bool:
        """Whether no update follows."""
        return self.update == self.config.num_updates

    @property
    def evaluation(self) -> bool:
        """Whether the policy is to be evaluated: every `eval_interval` updates and at the end."""
        return self.config.eval_interval > 0 and (self.update % self.config.eval_interval == 0 or self.last)

    @property
    def log(self) -> bool:
        """Whether a line of metrics is to be written."""
        return self.evaluation or self.update % self.config.log_interval == 0 or self.last

    @property
    def checkpoint(self) -> bool:
        """Whether a numbered checkpoint is to be written; after the last update comes the final one instead."""
        interval = self.config.checkpoint_interval
        asked = self.update in self.config.checkpoint_updates
        return (asked or (interval > 0 and self.update % interval == 0)) and not self.last
