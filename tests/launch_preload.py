"""What processes that carry work items have in memory when they are forked; see `tests.launch_items`."""

from importlib import import_module

from babyai.compiled.catalogue import level_program

for name in ("pipeline.training.loop", "pipeline.evaluation.play", "science.stages", "sklearn.linear_model"):
    import_module(name)
level_program("GoToObj")  # loads what compiled functions need
