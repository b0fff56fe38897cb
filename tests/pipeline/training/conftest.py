"""The command of training, called in an empty folder."""

import pytest

from pipeline.training import driver
from pipeline.training.command import main
from tests.training_runs import DEBUG, SHORT, SMALL


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "count_jobs", lambda config: 1)  # on any machine; quicker for runs as short as these

    def run(*args: str, **forced: str) -> tuple[int, str, str]:
        code = main("test", ["--config", DEBUG, *SMALL, *SHORT, *args], **forced)
        out, err = capsys.readouterr()
        return code, out, err

    return run
