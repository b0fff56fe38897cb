"""The commands as a user types them, on the debug configuration."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import read_checkpoint
from pipeline.tracking import METRICS

ROOT = Path(__file__).parent.parent
DEBUG = str(ROOT / "configs" / "debug.yaml")
RUN = Path("BabyAI-GoToObjS6-v1") / "trial_1" / "seed_0"


def command(folder: Path, *args: str, script: str = "train_mop.py") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / script), "--config", DEBUG, *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "runs" / RUN / "metrics.jsonl").read_text().splitlines()]


def known_metric(key: str) -> bool:
    return key in METRICS or f"{key.rpartition('_')[0]}_{{i}}" in METRICS or key == "update"


SHORT = ("--num_updates", "8", "--checkpoint_interval", "4", "--log_interval", "2", "--final_eval_episodes", "10")


def test_training_writes_checkpoints_and_metrics_and_protects_them(tmp_path):
    done = command(tmp_path, *SHORT, "--eval_interval", "4", "--eval_episodes", "5")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "checkpoints" / RUN
    assert {path.name for path in folder.iterdir()} == {"checkpoint_4.pt", "checkpoint_final.pt"}
    assert str(Path("checkpoints") / RUN / "checkpoint_final.pt") in done.stdout
    assert str(Path("runs") / RUN) in done.stdout
    assert "mission encoder: builtin" in done.stdout
    rows = metrics(tmp_path)
    assert [row["update"] for row in rows] == [2, 4, 6, 8, 8]
    assert {key for row in rows for key in row if not known_metric(key)} == set()
    assert [row["update"] for row in rows if "eval/success_rate" in row] == [4, 8, 8]
    assert rows[-1]["eval/episodes"] == 10

    before = files(tmp_path)
    again = command(tmp_path, *SHORT)
    assert again.returncode == 0
    assert "complete" in again.stdout
    other = command(tmp_path, *SHORT, "--lr", "0.5")
    assert other.returncode == 2
    assert "lr is 0.003 there, 0.5 here" in other.stderr
    longer = command(tmp_path, *SHORT, "--num_updates", "10")
    assert longer.returncode == 2
    assert "--resume" in longer.stderr
    both = command(tmp_path, *SHORT, "--resume", "--overwrite")
    assert both.returncode == 2
    impossible = command(tmp_path, *SHORT, "--overwrite", "--lang_encoder", "no/such/folder/anywhere")
    assert impossible.returncode == 2
    assert "no/such/folder/anywhere" in impossible.stderr
    assert files(tmp_path) == before

    overwritten = command(tmp_path, *SHORT, "--lr", "0.5", "--overwrite")
    assert overwritten.returncode == 0, overwritten.stderr
    assert read_checkpoint(folder / "checkpoint_final.pt")["config"]["lr"] == 0.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_a_checkpoint_and_resumes_to_the_same_bits(number, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    length = ("--log_interval", "1", "--final_eval_episodes", "0", "--num_updates")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_mop.py"), "--config", DEBUG, *length, "100000"],
        cwd=stopped,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    log = stopped / "runs" / RUN / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, output
    assert "--resume continues" in output
    reached = metrics(stopped)[-1]["update"]
    assert read_checkpoint(stopped / "checkpoints" / RUN / f"checkpoint_{reached}.pt")["update"] == reached

    target = str(reached + 5)
    resumed = command(stopped, *length, target, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    straight = command(whole, *length, target)
    assert straight.returncode == 0, straight.stderr
    ends = [read_checkpoint(folder / "checkpoints" / RUN / "checkpoint_final.pt") for folder in (whole, stopped)]
    assert ends[0]["update"] == ends[1]["update"] == int(target)
    for key, value in ends[0]["policy_state_dict"].items():
        assert torch.equal(value, ends[1]["policy_state_dict"][key]), key
    # The log has each update once, however often the run was interrupted.
    assert [row["update"] for row in metrics(stopped)] == list(range(1, int(target) + 1))


def test_resume_without_a_checkpoint_starts_afresh(tmp_path):
    done = command(tmp_path, *SHORT, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / RUN / "checkpoint_final.pt").exists()


def test_the_baseline_trains_through_the_same_loop(tmp_path):
    done = command(tmp_path, *SHORT, script="train.py")
    assert done.returncode == 0, done.stderr
    content = read_checkpoint(tmp_path / "checkpoints" / RUN / "checkpoint_final.pt")
    assert content["config"]["policy"] == "gru"
    assert "gru.weight_ih_l0" in content["policy_state_dict"]
    refused = command(tmp_path, *SHORT)
    assert refused.returncode == 2
    assert "policy is 'gru' there, 'moe' here" in refused.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--task_id", "BabyAI-GoToObbj-v0"), ("GoToObbj", "GoToObj")),
        (("--nun_envs", "3"), ("nun_envs", "num_envs")),
        (("--num_envs", "many"), ("num_envs", "int", "many")),
        (("--num_envs", "0"), ("num_envs", "at least 1", "0")),
        (("--config", "absent.yaml"), ("absent.yaml",)),
        (("--task_id", "KeyInBox", "--num_updates", "1"), ("KeyInBox", "expert")),
    ],
)
def test_bad_input_gets_one_clear_message_and_writes_nothing(args, words, tmp_path):
    done = command(tmp_path, *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last
    assert files(tmp_path) == {}


def test_tensorboard_is_written_by_default(tmp_path):
    done = command(tmp_path, *SHORT, "--tensorboard", "true")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs" / RUN).glob("events.out.tfevents.*"))


def test_no_gpu_where_one_is_asked_for_is_an_error_not_a_fallback(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_mop.py"), "--config", DEBUG, "--device", "cuda"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 2
    assert "device" in done.stderr
