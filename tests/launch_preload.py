"""What processes that carry work items have in memory when they are forked; see `tests.launch_items`."""

import sklearn.linear_model

import pipeline.evaluation.play
import pipeline.training.loop
import science.stages  # noqa: F401
from babyai.compiled.catalogue import level_program

level_program("GoToObj")  # loads what compiled functions need
