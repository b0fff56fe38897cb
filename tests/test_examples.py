"""The example batch script: its flags are real, and a job that must stop is saved and queued again."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.command.cli import parse_command
from pipeline.config import TrainConfig
from pipeline.guard import SWITCHES
from pipeline.training.options import OPTIONS, parse_sweep

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "slurm.sh"

FAKE = """#!/bin/bash
echo "$@" > called.tmp
trap 'exit 143' TERM
mv called.tmp called
[ -n "$CODE" ] && exit "$CODE"
while :; do read -t 0.2 <> <(:); done
"""


@pytest.fixture
def job(tmp_path):
    """Return a function that starts the script as Slurm would, with fakes of what it calls."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("rlmop", FAKE), ("scontrol", '#!/bin/bash\necho "$@" > requeued\n')):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def start(code: str = "") -> subprocess.Popen:
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CODE": code,
            **{"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "5"},
        }
        return subprocess.Popen(["bash", str(SCRIPT), "--num_updates", "9"], cwd=tmp_path, env=environment)

    return start


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_must_stop_is_queued_again(job, tmp_path, number):
    process = job()
    wait_for(tmp_path / "called")
    process.send_signal(number)
    assert process.wait(timeout=60) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 77_3\n"


@pytest.mark.parametrize("code", ["0", "1", "2"])
def test_a_job_that_ends_is_not_queued_again(job, tmp_path, code):
    assert job(code).wait(timeout=60) == int(code)
    assert not (tmp_path / "requeued").exists()


def test_flags_of_the_batch_script_are_real(job, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    job("0").wait(timeout=60)
    command, *words = shlex.split((tmp_path / "called").read_text())
    assert command == "train"
    config, beside = parse_command("", TrainConfig, words, switches=SWITCHES, options=OPTIONS)
    sweep = parse_sweep(config, **{name: beside.pop(name) for name in OPTIONS})
    assert beside == {"resume": True, "overwrite": False}
    assert [run.seed for run in sweep.configs] == [3] * 5
    assert [run.trial for run in sweep.configs] == [1, 2, 3, 4, 5]
    assert config.num_updates == 9


def test_slurm_reads_its_lines_before_the_first_command():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH --")]
    assert options
    assert max(options) < first
