"""Ray: a head and two nodes of this machine in folders of their own, a sweep that loses a node and its driver."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import batch_eval
import train_mop
from pipeline.checkpoints import read_checkpoint
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
SECONDS = 600  # nothing is ever waited for so long, but on a machine that does much else besides
BOTH = "import sys, train_mop, batch_eval; a, b = map(str.split, sys.argv[1:])\n"
BOTH += "if __name__ == '__main__': sys.exit(train_mop.main(a) or batch_eval.main(b))\n"


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


def start_both(folder: Path, address: str, train: tuple[str, ...], evaluate: tuple[str, ...]) -> subprocess.Popen:
    """Start training, then evaluation; in one process, for starting takes longer than they do."""
    (folder / "both.py").write_text(BOTH)
    return start(folder, address, str(folder / "both.py"), " ".join(train), " ".join(evaluate))


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
    finish(start_both(folder, "", (*SWEEP, "--jobs", "1"), EVALUATE))
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


def test_a_sweep_that_loses_a_node_and_its_driver_ends_with_the_same_bits(
    local, cluster, tmp_path, monkeypatch, capsys
):
    folder = tmp_path
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
    torn = set(folder.rglob("*.tmp"))  # what it was writing when it was killed
    before = checkpoints(folder)
    assert 0 < len(before) < RUNS * 8  # begun, and not done

    cluster.add("third")
    said = finish(start_both(folder, cluster.address, (*SWEEP, *BY_RAY, "--resume"), (*EVALUATE, *BY_RAY)))
    assert "resumed at update" in said
    here, there = checkpoints(folder), checkpoints(local)
    assert here.keys() == there.keys() and len(here) == RUNS * 8
    for path in here:
        assert_same_weights(here[path], there[path])
    for seed in range(RUNS):
        log = (folder / f"runs/{TASK}/trial_1/seed_{seed}/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["update"] for line in log] == [*range(10, 81, 10), 80]
    assert len(torn) <= 1 and set(folder.rglob("*.tmp")) <= torn and not [*folder.rglob(".lock")]

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
    monkeypatch.chdir(folder)
    assert batch_eval.main([*EVALUATE, *BY_RAY]) == 0
    assert capsys.readouterr().out.count("(done before)") == RUNS


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


@pytest.mark.parametrize(
    ("has", "found"), [("nothing", "install it on every node"), ("another", "bring both to one version")]
)
def test_a_node_without_the_code_is_told_in_one_line(has, found, cluster, tmp_path):
    """Nodes get the driver's script's folder and its current one to search; neither holds the project here."""
    code = tmp_path / "code"
    code.mkdir()
    if has == "another":
        for name in ("pipeline", "babyai"):
            shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    node = cluster.add(f"bare-{has}", "--num-gpus", "1", code=code)
    try:
        driver = tmp_path / "driver" / "driver.py"
        driver.parent.mkdir()
        driver.write_text("import sys\nfrom train_mop import main\nsys.exit(main(sys.argv[1:]))\n")
        words = [*SWEEP, "--launcher", "ray", "--launcher_options", "num_gpus=1,num_cpus=0"]
        said = finish(start(driver.parent, cluster.address, str(driver), *words), 2)
    finally:
        node.kill()
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "expected" in line and "version" in line and found in line
    assert not checkpoints(driver.parent)


def test_a_driver_whose_nodes_are_all_gone_says_so_and_ends(cluster, tmp_path):
    node = cluster.add("short", "--num-gpus", "1")
    by_it = ("--launcher", "ray", "--launcher_options", "sync_seconds=0.1,num_gpus=1,num_cpus=0,wait_minutes=0.02")
    words = [*SWEEP, "--seeds", "0", "--num_updates", "100000", "--checkpoint_interval", "50"]
    driver = start(tmp_path, cluster.address, "train_mop.py", *words, *by_it)
    try:
        wait_for(tmp_path, driver, 1)
    finally:
        node.kill()
    said = finish(driver, 2)
    (told,) = [line for line in said.splitlines() if "Waiting for" in line]
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    port = cluster.address.partition(":")[2]
    for line in (told, error):
        assert re.search(rf"expected a node of \S+:{port} that has num_cpus=0 and num_gpus=1, found none alive", line)
        assert re.search(rf"ray start --address=\S+:{port}`", line) and "--resume" in line
    assert "given up after" in error and "wait_minutes" in error
    assert read_checkpoint(next(iter(checkpoints(tmp_path).values())))["update"] > 0


def test_an_address_where_nobody_answers_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert train_mop.main([*SWEEP, *BY_RAY]) == 2
    said = capsys.readouterr().err
    assert "error: --launcher ray: expected a Ray cluster at 127.0.0.1:1, found none that answers" in said
    assert os.listdir(tmp_path) == []


def test_that_the_head_is_gone_is_told_and_nothing_that_came_back_is_lost(cluster, tmp_path):
    """The last test of this cluster. Where a call to the head hangs, Ray itself ends the driver after a minute."""
    words = [*SWEEP, "--seeds", "0", "--num_updates", "100000", "--checkpoint_interval", "50"]
    driver = start(tmp_path, cluster.address, "train_mop.py", *words, *BY_RAY)
    wait_for(tmp_path, driver, 1)
    cluster.nodes[0].kill()
    said, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode in (1, 2) and "Traceback" not in said
    assert f"the cluster of {cluster.address} is gone" in said or "GCS may have been killed" in said
    assert read_checkpoint(next(iter(checkpoints(tmp_path).values())))["update"] > 0
