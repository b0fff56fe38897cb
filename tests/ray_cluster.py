"""A Ray cluster of this machine's own processes: a head and worker nodes, each with a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_TRIES = 3
QUIET = ("--include-log-monitor", "false")  # a process less for each node


class Node:
    """`ray start` and all that it starts, as one group of processes."""

    def __init__(self, folder: Path, *words: str, code: Path = ROOT) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._log = (folder / "ray.log").open("wb")
        (folder / "tmp").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *QUIET, *words],
            cwd=folder,
            env={**environment(), "PYTHONPATH": str(code), "TMPDIR": str(folder / "tmp")},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Let the node be gone at once, as a machine that loses power."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._log.close()


def environment() -> dict[str, str]:
    """Return what every process of the cluster, the driver too, must have; nodes that are gone are missed soon."""
    quick = {"period_ms": "500", "timeout_ms": "1000", "failure_threshold": "3", "initial_delay_ms": "500"}
    return {
        **os.environ,
        **{f"RAY_health_check_{name}": value for name, value in quick.items()},
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


class Cluster:
    """A head without cores, and nodes of one core each."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder = folder
        # Sockets below the temporary folder of the test would have names too long for the system.
        self._sockets = Path(f"/tmp/ray-{os.getpid()}-{port}")
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[Node] = []
        head = ("--head", "--port", str(port), "--temp-dir", str(self._sockets), "--include-dashboard", "false")
        try:
            self._start("head", *head, "--num-cpus", "0")
        except BaseException:
            self.close()
            raise

    def add(self, name: str, *words: str, **more) -> Node:
        """Start a node, and return it once it is there; two that start at once on one machine take the same sockets."""
        return self._start(name, "--address", self.address, "--num-cpus", "1", *words, **more)

    def _start(self, name: str, *words: str, **more) -> Node:
        """Start a node, more than once if need be: where a machine is busy, Ray's own limit of 30 s may end one."""
        for number in range(START_TRIES):
            node = Node(self._folder / f"{name}_{number}", *words, "--object-store-memory", "80000000", **more)
            self.nodes.append(node)
            log = node.folder / "ray.log"
            while node.process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return node
                time.sleep(0.1)
            node.kill()
            self.nodes.remove(node)
        raise AssertionError(log.read_text())

    def close(self) -> None:
        """End all of it."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self._sockets, ignore_errors=True)
