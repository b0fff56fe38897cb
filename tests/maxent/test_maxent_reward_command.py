"""maxent/test_reward_monotonicity.py, from both folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maxent import reward_checks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "path"), [("maxent", "test_reward_monotonicity.py"), (".", "maxent/test_reward_monotonicity.py")]
)
def test_the_command_runs_from_both_folders_and_needs_no_torch(folder, path, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")
    done = subprocess.run(
        [sys.executable, path],
        cwd=ROOT / folder,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "ALL TESTS PASSED"
    assert sum(line.startswith("ok ") for line in lines) == 10
    assert any(line.startswith("Monotonicity of 10 rollouts, tree search: ") and "% strict" in line for line in lines)
    assert "synthetic" in lines[0]


def test_a_check_that_fails_is_said_and_ends_in_1(monkeypatch, capsys):
    def check_order(*_):
        raise reward_checks.CheckFailed("it was the other way round")

    monkeypatch.setattr(reward_checks, "check_order", check_order)
    assert reward_checks.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED  claims: order: it was the other way round\n" in out
    assert out.endswith("1 OF THE CHECKS FAILED\n")


def test_the_least_that_can_be_checked(capsys):
    assert reward_checks.main(["--num_samples", "2", "--num_rollouts", "2", "--seed", "1"]) == 0
    assert "Monotonicity of 2 rollouts" in capsys.readouterr().out
    assert reward_checks.main(["--num_rollouts", "1"]) == 2
    assert capsys.readouterr().err == "error: num_rollouts: expected at least 2, found 1\n"
