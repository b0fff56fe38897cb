"""Ray: a head and two nodes of this machine in folders of their own, a sweep that loses a node and its driver."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.checkpoints import read_checkpoint
from pipeline.command.workers import WorkItem
from pipeline.launch.ray_carrier import _define_task
from pipeline.launch.remote import write_order
from pipeline.records.results import read_results
from tests.ray_cluster import ROOT, Cluster, environment
from tests.training_runs import DEBUG, TASK

pytest.importorskip("ray", reason="needs requirements/cluster.txt")

RUNS = 8
SETTINGS = {"num_updates": 80, "checkpoint_interval": 10, "log_interval": 10, "final_eval_episodes": 2}
SWEEP = ("--config", DEBUG, "--num_envs", "2", "--unroll_len", "8", "--max_replicas", "1", "--seeds", f"0-{RUNS - 1}")
SWEEP += tuple(word for name, value in SETTINGS.items() for word in (f"--{name}", str(value)))
EVALUATE = ("--num_episodes", "4", "--final-only", "--together", "2")
BY_RAY = ("--launcher", "ray", "--launcher_options", "sync_seconds=0.1,folder=record")
SECONDS = 240


def start(folder: Path, address: str, script: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *words],
        cwd=folder,
        env={**environment(), "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == code, said
    return said


def run_here(folder: Path, script: str, *words: str) -> None:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / script), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def checkpoints(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob(f"checkpoints/{TASK}/*/*/*.pt"))}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "record" / "events.jsonl").read_text().splitlines()]


def wait_for(folder: Path, process: subprocess.Popen, count: int) -> None:
    """Wait until so many checkpoints have come back, none of them of a run that is done."""
    deadline = time.monotonic() + SECONDS
    while len([path for path in checkpoints(folder) if not path.endswith("final.pt")]) < count:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = read_checkpoint(one), read_checkpoint(other)
    assert first["config"] == second["config"]
    for part in ("policy_state_dict", "lang_proj_state_dict"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Return a folder with the sweep and its evaluation by this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    run_here(folder, "train_mop.py", *SWEEP, "--jobs", "1")
    run_here(folder, "batch_eval.py", *EVALUATE)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.add("first")
        cluster.add("second")
        yield cluster
    finally:
        cluster.close()


def test_a_sweep_that_loses_a_node_and_its_driver_ends_with_the_same_bits(local, cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    driver = start(folder, cluster.address, "train_mop.py", *SWEEP, *BY_RAY)
    wait_for(folder, driver, 3)
    cluster.nodes[-1].kill()
    deadline = time.monotonic() + SECONDS
    while not any(line["state"] == "lost" for line in lines(folder)):
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[0]
        time.sleep(0.05)
    wait_for(folder, driver, len(checkpoints(folder)) + 2)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    before = checkpoints(folder)
    assert 0 < len(before) < RUNS * 8  # begun, and not done

    cluster.add("third")
    said = finish(start(folder, cluster.address, "train_mop.py", *SWEEP, *BY_RAY, "--resume"))
    assert "resumed at update" in said
    here, there = checkpoints(folder), checkpoints(local)
    assert here.keys() == there.keys() and len(here) == RUNS * 8
    for path in here:
        assert_same_weights(here[path], there[path])
    for seed in range(RUNS):
        log = (folder / f"runs/{TASK}/trial_1/seed_{seed}/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["update"] for line in log] == [*range(10, 81, 10), 80]
    assert not [path for path in folder.rglob("*") if path.name == ".lock" or path.suffix == ".tmp"]

    finish(start(folder, cluster.address, "batch_eval.py", *EVALUATE, *BY_RAY))
    drop = ["evaluated_at"]
    rows = read_results(folder / "evaluation_results.csv").drop(columns=drop).sort_values("checkpoint_path")
    expected = read_results(local / "evaluation_results.csv").drop(columns=drop).sort_values("checkpoint_path")
    assert len(rows) == RUNS
    assert rows.reset_index(drop=True).equals(expected.reset_index(drop=True))
    caches = [path.relative_to(local) for path in local.glob("evaluation_cache/**/routing_data.json")]
    assert len(caches) == RUNS
    for path in caches:
        mine, other = (json.loads((root / path).read_text()) for root in (folder, local))
        assert {**mine, "evaluated_at": 0} == {**other, "evaluated_at": 0}
    said = finish(start(folder, cluster.address, "batch_eval.py", *EVALUATE, *BY_RAY))
    assert said.count("(done before)") == RUNS


def test_ctrl_c_at_the_driver_lets_items_save(cluster, tmp_path):
    words = [*SWEEP, "--seeds", "0-1", "--num_updates", "100000", "--checkpoint_interval", "50000"]
    driver = start(tmp_path, cluster.address, "train_mop.py", *words, *BY_RAY)
    deadline = time.monotonic() + SECONDS
    while not list(tmp_path.glob(f"runs/{TASK}/*/*/metrics.jsonl")):
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[0]
        time.sleep(0.05)
    time.sleep(0.5)
    driver.send_signal(signal.SIGINT)
    said = finish(driver, 130)
    assert "--resume goes on from there" in said and "saved" in said
    assert len(checkpoints(tmp_path)) >= 1


def test_a_node_without_the_code_says_so_in_one_line(monkeypatch):
    """Nodes of one machine find the driver's folder; here the node's side is called as where there is none."""
    task = _define_task(SimpleNamespace(remote=lambda function: function))
    order = write_order(WorkItem("x", print), 1.0)
    monkeypatch.setitem(sys.modules, "pipeline.launch.remote", None)
    said = task(0, 1, order, None)
    assert "expected this project, version" in said and "install it on every node" in said and "\n" not in said


def test_an_address_where_nobody_answers_is_told_in_one_line(tmp_path):
    said = finish(start(tmp_path, "127.0.0.1:1", "train_mop.py", *SWEEP, *BY_RAY), 2)
    assert "error: --launcher ray: expected a Ray cluster at 127.0.0.1:1, found none that answers" in said
    assert os.listdir(tmp_path) == []
