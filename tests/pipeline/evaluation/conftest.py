"""A working directory with checkpoints of two short runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import pipeline.evaluation.work
from babyai import hub
from pipeline.evaluation.checkpoint import EvaluationSettings
from pipeline.training.loop import run_update
from tests.batches import BASELINE, MOE
from tests.pipeline.training.test_training import debug_config, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Two runs: a routed one with three checkpoints, the last two of which are the same, and a baseline with one."""
    root = tmp_path_factory.mktemp("trained") / "checkpoints"
    for config, folder, intervals in (
        (debug_config(num_updates=4), MOE, (2, 4)),
        (debug_config(num_updates=2, policy="gru", trial=2), BASELINE, ()),
    ):
        (root / folder).mkdir(parents=True)
        batch = train(config, 0)
        for _ in range(config.num_updates):
            run_update(batch)
            if batch.update in intervals:
                batch.save(0, root / folder / f"checkpoint_{batch.update}.pt")
        batch.save(0, root / folder / "checkpoint_final.pt")
    return root


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    """A working directory with copies of those checkpoints."""
    shutil.copytree(trained, tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def played(monkeypatch) -> list[tuple[str, int]]:
    """(path, episodes) of every evaluation that takes place in this process."""
    calls, plain = [], pipeline.evaluation.work.evaluate_checkpoints

    def spy(checkpoints: list[Any], task_id: str, settings: EvaluationSettings, **options: Any) -> Any:
        calls.extend((checkpoint.path.as_posix(), settings.num_episodes) for checkpoint in checkpoints)
        return plain(checkpoints, task_id, settings, **options)

    monkeypatch.setattr(pipeline.evaluation.work, "evaluate_checkpoints", spy)
    return calls


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_find_cached", lambda name: None)
