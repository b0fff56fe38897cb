"""Orders and parcels carried by Ray: a task for each try of an item, and one actor that takes what they send.

https://docs.ray.io/en/latest/ray-core/walkthrough.html. Retries are the driver's, not Ray's: a new try must go out with
the files that have come back.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.command.errors import ConfigError, explain
from pipeline.command.interruption import ENDING
from pipeline.command.launcher import Launcher
from pipeline.launch.driver import Message
from pipeline.launch.packages import need_package

CONNECT_SECONDS = 10
LOOK_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, *ENDING)


class RayCarrier:
    """See `pipeline.launch.driver.Carrier`.

    Args:
        launcher: Its address and what an item needs.

    Raises:
        ConfigError: If the cluster cannot be reached, or has no node that is enough for an item.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._ray, self._gone = need_package("ray"), False
        self._needs = {"num_cpus": launcher["num_cpus"], "num_gpus": launcher["num_gpus"]}
        self._address = launcher["address"] or os.environ.get("RAY_ADDRESS") or None
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            _connect(self._ray, self._address)
        finally:
            for number, handler in handlers.items():  # Ray sets its own
                with suppress(ValueError, TypeError):
                    signal.signal(number, handler)
        try:
            self._check_room()
            self._mailbox = _define_mailbox(self._ray).remote()
            self._do = _define_task(self._ray)
        except BaseException:
            self._ray.shutdown()
            raise
        self._tries: dict[Any, tuple[int, int]] = {}  # by the task's reference
        self._looked, self._room = -math.inf, 0

    def _list_nodes(self) -> list[dict[str, float]]:
        with self._cluster_there():
            return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    @contextmanager
    def _cluster_there(self) -> Iterator[None]:
        """Say in one line that the head, or this machine's own node, is gone: no driver can go on without them.

        Raises:
            ConfigError: If it is.
        """
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError) as error:  # as the version has it
            self._gone = True
            raise ConfigError(
                f"--launcher ray: the cluster of {self._address or 'this machine'} is gone, its head or the node of "
                f"this machine ({type(error).__name__}); what has come back is kept. Start it again (ray start), and "
                "the same call goes on from there, that of training with --resume"
            ) from None

    def _check_room(self) -> None:
        nodes = self._list_nodes()
        if not any(_fits(node, self._needs) for node in nodes):
            most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
            raise ConfigError(
                f"--launcher_options: expected num_cpus and num_gpus that one node has, found {self._needs}; the "
                f"largest of {len(nodes)} nodes of {self._address or 'this machine'} has {most['CPU']:g} cores and "
                f"{most['GPU']:g} GPUs"
            )

    def _look(self) -> None:
        """Count, now and then, how many items the nodes that are alive can do at once: nodes come and go."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        needs = {kind: need for kind, need in zip(("CPU", "GPU"), self._needs.values(), strict=True) if need}
        fitting = [node for node in self._list_nodes() if _fits(node, self._needs)]
        self._room = sum(int(min((node[kind] / need for kind, need in needs.items()), default=1)) for node in fitting)
        self._looked = time.monotonic()

    def count_slots(self) -> int:
        """Return how many items the cluster can do at once, as it was a moment ago; at least 1."""
        self._look()
        return max(1, self._room)

    def find_missing(self) -> str | None:
        """Return what is missing if no node is there that has what an item needs, as it was a moment ago."""
        self._look()
        if self._room:
            return None
        where = self._ray.get_runtime_context().gcs_address  # whatever RAY_ADDRESS calls it
        needs = " and ".join(f"{name}={value:g}" for name, value in self._needs.items())
        return (
            f"--launcher ray: expected a node of {where} that has {needs}, found none alive; start one there with "
            f"`ray start --address={where}`"
        )

    def send(self, number: int, attempt: int, name: str, order: bytes) -> None:
        """Hand a task to Ray."""
        task = self._do.options(name=name, max_retries=0, **self._needs).remote(number, attempt, order, self._mailbox)
        self._tries[task] = number, attempt

    def receive(self, seconds: float) -> list[Message]:
        """Return parcels, then the ends of tasks: a task ends when its last parcel has been taken."""
        ended: list[Any] = []
        with self._cluster_there():
            if self._tries:
                ended, _ = self._ray.wait(list(self._tries), num_returns=len(self._tries), timeout=0)
            sent = self._ray.get(self._mailbox.take.remote(0 if ended else seconds))
        found = [Message(number, attempt, parcel) for number, attempt, parcel in sent]
        for task in ended:
            found.append(_end_of(self._ray, task, *self._tries.pop(task)))
        return found

    def wish_stop(self, begun: set[int]) -> None:
        """Let the next parcel of each item be answered with it."""
        with self._cluster_there():
            self._ray.get(self._mailbox.wish_stop.remote())
        for task, (number, _) in self._tries.items():
            if number not in begun:
                self._ray.cancel(task)

    def close(self) -> None:
        """Leave the cluster, which ends all tasks of this driver; one that was started here ends too."""
        if not self._gone:  # else Ray would look for the head for a minute and end this process without our word
            self._ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if address is None:
        ray.init(address="local", include_dashboard=False, **quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError and others, as the version has it
        raise ConfigError(
            f"--launcher ray: expected a Ray cluster at {address}, found none that answers ({explain(error)[:300]}); "
            "`ray status` shows one, and without an address and RAY_ADDRESS this machine is used"
        ) from None


def _knock(address: str) -> None:
    """Ask whether anybody is at an address; Ray itself takes minutes to give up.

    Raises:
        OSError: If nobody is.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _fits(node: dict[str, float], needs: dict[str, float]) -> bool:
    return node.get("CPU", 0) >= needs["num_cpus"] and node.get("GPU", 0) >= needs["num_gpus"]


def _end_of(ray: Any, task: Any, number: int, attempt: int) -> Message:
    """Return why a task has ended, or what it returned: why nothing could be done there."""
    why = refused = None
    try:
        refused = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        why = "withdrawn"
    except ray.exceptions.RayTaskError as error:
        why = f"its process failed ({explain(error.cause) if error.cause else explain(error)})"
    except ray.exceptions.RayError as error:
        why = f"its node or process was lost ({type(error).__name__})"
    return Message(number, attempt, why=why, refused=refused)


def _define_mailbox(ray: Any) -> Any:
    """Return the actor that holds what tasks have sent until the driver takes it; on the driver's own node."""
    import asyncio

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Mailbox:
        def __init__(self) -> None:
            self._sent: list[tuple[int, int, bytes]] = []
            self._stop = False
            self._news = asyncio.Event()

        async def post(self, number: int, attempt: int, parcel: bytes) -> bool:
            self._sent.append((number, attempt, parcel))
            self._news.set()
            return self._stop

        async def take(self, seconds: float) -> list[tuple[int, int, bytes]]:
            with suppress(asyncio.TimeoutError):
                if not self._sent and seconds:
                    await asyncio.wait_for(self._news.wait(), seconds)
            self._news.clear()
            sent, self._sent = self._sent, []
            return sent

        async def wish_stop(self) -> None:
            self._stop = True

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Mailbox).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here)


def _define_task(ray: Any) -> Any:
    """Return the task, which finds the project on its node or says that there is none."""

    def do(number: int, attempt: int, order: bytes, mailbox: Any) -> str | None:
        import pickle
        import socket

        import ray

        def post(parcel: bytes) -> bool:
            return ray.get(mailbox.post.remote(number, attempt, parcel))

        try:
            from pipeline.launch.remote import serve
        except ImportError as error:
            wanted = pickle.loads(order)["described"]
            return (
                f"{socket.gethostname()}: expected this project, version {wanted}, in the Python that runs Ray there, "
                f"found none ({error}); install it on every node, or start Ray there with PYTHONPATH naming a clone"
            )
        serve(order, post)
        return None

    return ray.remote(do)
