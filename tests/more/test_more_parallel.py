"""Several processes that train one model, as torchrun starts them: the same weights as of one, one voice, one file."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from more.checkpoints import read_checkpoint
from more.parallel import ALONE, Group, ParallelError, _fill_buckets, join, told_once
from more.runs import run_training
from pipeline.config import ConfigError
from tests.more_settings import small_config, small_trainer

ROOT = Path(__file__).parents[2]

MIXED = {"num_experts": 4, "batch_size": 5, "z_weight": 0.1, "balance_weight": 0.1}
CASES = {
    "base": {"model_type": "base", **MIXED},  # five windows: two for one process, three for the other
    "more_a": {"model_type": "more_a", "num_recurrences": 2, "sample_recurrences": True, **MIXED},
    "looped": {"model_type": "looped", "num_recurrences": 2, **MIXED, "accumulate": 2},
    "one_row": {"model_type": "more_b", "batch_size": 1, "seq_length": 24, "num_experts": 2},  # one has none
}
"""more_b at r = 1 has matrices without a gradient, which weight decay must leave alone."""

CHAINS = ["--preset", "chains", "--num_sequences", "200", "--batch_size", "8", "--log_interval", "5"]
CHAINS += ["--tensorboard", "false"]

TRAIN_CASES = """
import itertools, json, sys
from more.parallel import join, told_once
from more.runs import run_training
from more.settings import TrainingConfig

if __name__ == "__main__":
    with told_once(), join("cpu") as group:
        *cases, parts, whole = (TrainingConfig(**values) for values in json.loads(open(sys.argv[1]).read()))
        for config in (*cases, whole):
            assert run_training(config, group=group) == 0
        calls = itertools.count()
        wished = (lambda: next(calls) == 3) if group.rank == 1 else (lambda: False)
        assert run_training(parts, quiet=True, group=group, stopping=wished) == 143
        assert run_training(parts, quiet=True, group=group, resume=True) == 0
"""


LEAVING = """
import sys
from pathlib import Path
import torch
from more.parallel import join, told_once
from pipeline.config import ConfigError

def threads():
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)

with told_once():
    try:
        with join("cpu") as group:
            import torch._dynamo  # as an optimizer does; it keeps whatever group is there
            group.add_up(torch.ones(3))
            print("within", threads() > 0)
            if str(group.rank) in sys.argv[1]:
                raise ConfigError("as it is")
    finally:
        print("after", threads())
"""


def environment(**changes: object) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
        **{k: str(v) for k, v in changes.items()},
    }


def start_two(arguments: list[str], folder: Path, **options: object) -> list[subprocess.Popen]:
    """Return two processes of a command, told of each other as torchrun tells them, without its own words."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="localhost", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(2)
    ]


def end_of(processes: list[subprocess.Popen]) -> tuple[list[int], list[str], list[str]]:
    """Return exit codes, outputs, and errors without the bar."""
    told = [process.communicate(timeout=300) for process in processes]
    errors = [
        "".join(line for line in err.splitlines(keepends=True) if "update/s" not in line and line.strip())
        for _, err in told
    ]
    return [process.returncode for process in processes], [out for out, _ in told], errors


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for path in folder.rglob("metrics.jsonl") for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders of all cases, trained by two processes of torchrun, and by one."""
    root = tmp_path_factory.mktemp("both")
    two, one = ([small_config(root / count / name, **CASES[name]) for name in CASES] for count in ("two", "one"))
    dropping = {"model_type": "more_c", "num_recurrences": 2, "dropout": 0.1}
    others = [small_config(root / name, **dropping) for name in ("parts", "whole")]
    (root / "train_cases.py").write_text(TRAIN_CASES)
    (root / "cases.json").write_text(json.dumps([vars(config) for config in (*two, *others)]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "train_cases.py", "cases.json"]
    run = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for config in one:
        assert run_training(config, quiet=True) == 0
    return root, run.stdout


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(both, case):
    """Within what rounding makes of it: sums over rows are taken in another order.

    AdamW divides a gradient by its size, so that what is nearly zero moves by its rounding; hence a share of the way.
    """
    root, _ = both
    one, two = (
        read_checkpoint(next((root / count / case).rglob("final_model.pth")))["model_state_dict"]
        for count in ("one", "two")
    )
    start = small_trainer(root, **CASES[case]).model.state_dict()
    for name, weight in one.items():
        moved = float((weight - start[name]).norm())
        if moved == 0.0:
            assert torch.equal(two[name], weight), name
        assert float((two[name] - weight).norm()) <= 0.01 * moved, name
    assert any(not torch.equal(weight, start[name]) for name, weight in one.items())


@pytest.mark.parametrize("case", CASES)
def test_what_is_logged_is_that_of_both_processes(both, case):
    root, _ = both
    one, two = (lines_of(root / count / case) for count in ("one", "two"))
    assert [line["update"] for line in two] == [2, 4, 6]
    for line, other in zip(one, two, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if name != "Tokens_per_Second":
                assert other[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


def test_one_process_speaks_and_writes(both):
    root, out = both
    assert out.count("checkpoint  ") == len(CASES) + 1
    assert out.count("on cpu in 2 processes") == len(CASES) + 1
    assert out.count("on cpu in 2 processes, each read in 2 parts") == 1
    written = sorted(path.name for path in (root / "two" / "base").rglob("*") if path.is_file())
    assert written == sorted(path.name for path in (root / "one" / "base").rglob("*") if path.is_file())


# ----------------------------------------------------------------------------------------------- stops, errors, resume


def test_a_signal_to_one_stops_both_saves_once_and_an_error_is_told_once(tmp_path):
    """Started again, both find that the run is there, and one says so."""
    command = [str(ROOT / "more" / "train.py"), *CHAINS, "--model_type", "more_a", "--num_experts", "2"]
    processes = start_two([*command, "--updates", "100000"], tmp_path)
    metrics = tmp_path / "runs" / "more_a_rec1" / "metrics.jsonl"
    until = time.monotonic() + 240
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes, (said, silent), errors = end_of(processes)
    assert codes == [143, 143], errors
    assert silent == "" and errors == ["", ""]
    (path,) = tmp_path.rglob("checkpoint_*.pth")
    update = read_checkpoint(path)["update"]
    assert f"interrupted after update {update}; saved" in said

    codes, outputs, errors = end_of(start_two([*command, "--updates", "100000"], tmp_path))
    assert codes == [2, 2]
    assert outputs == ["", ""]
    (told,) = (error for error in errors if error)
    assert told.startswith("error: ") and "pass --resume to continue it" in told and told.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads are read where Linux keeps them")
@pytest.mark.parametrize(("failing", "expected"), [("", [0, 0]), ("01", [1, 2]), ("1", [1, 2])])
def test_no_thread_outlives_the_group(tmp_path, failing, expected):
    """One that is still there while the interpreter is taken down may end the process by SIGABRT."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    codes, outputs, errors = end_of(start_two(["leaving.py", failing], tmp_path))
    assert outputs == ["within True\nafter 0\n"] * 2, errors
    assert sorted(codes) == expected, errors


def test_resuming_with_two_processes_equals_never_stopping(both):
    """Bit for bit on a CPU, as with one process; the second process was told to stop after three updates."""
    root, _ = both
    one, other = (
        read_checkpoint(next((root / name).rglob("final_model.pth")))["model_state_dict"] for name in ("parts", "whole")
    )
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name
    assert [line["update"] for line in lines_of(root / "parts")] == [2, 4, 6]


# ------------------------------------------------------------------------------------------------------- one by itself


def test_alone_nothing_is_asked_of_others(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with told_once(), join("cpu") as group:
        assert group == ALONE and group.leads
        assert group.share(7) == slice(0, 7)
        assert group.largest(3) == 3
        tensor = torch.ones(2)
        assert group.add_up(tensor) is tensor
        with group.leader_first():
            group.wait()
    with pytest.raises(ConfigError, match="as it is"):
        with told_once():
            raise ConfigError("as it is")


def test_shares_cover_the_batch():
    shares = [Group(rank, 3).share(8) for rank in range(3)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(8))


def test_gradients_are_sent_in_pieces():
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 2**22 - 3, 1, 2**23, 5)]
    assert [[p.numel() for p in bucket] for bucket in _fill_buckets(parameters)] == [
        [3, 2**22 - 3],
        [1],
        [2**23],
        [5],
    ]
    assert _fill_buckets([]) == []


def test_a_certain_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for device, said in (("cuda:0", "each with its GPU, found cuda:0"), ("auto", "each of 2 processes .*, found 1")):
        with pytest.raises(ConfigError, match=said), join(device):
            pass


def test_a_process_that_has_gone_is_told_of(monkeypatch):
    def fail(*_):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", fail)
    with pytest.raises(ParallelError, match=r"process 1 of 2: another process .*closed by peer\); --resume goes on"):
        Group(1, 2).wait()
