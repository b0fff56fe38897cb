"""Several processes that train one model, each on its share of every batch (data parallelism), started by `torchrun`.

    torchrun --nproc_per_node 2 more/train.py --preset debug

    with told_once(), join("auto") as group:       # in each process; without torchrun a group of one
        group.share(rows)                          # which rows of a batch are this process's
        group.add_up(tensor)                       # sum over the processes, the same for all
        group.leads                                # whether this is the one that prints and writes

Gradients are summed after the backward pass instead of by `DistributedDataParallel`: every process has weighted its
loss by its share of the targets, and a process may have no row of a small batch and hence no gradient.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # here: its functions keep, as their default, a group joined before it
from torch import Tensor, nn

from pipeline.command.devices import resolve_device
from pipeline.command.errors import MISTAKES, ConfigError, UserError

TIMEOUT = timedelta(hours=2)
"""How long processes wait for one, which may be tokenising a text for all."""

BUCKET = 2**22
"""Numbers that are sent together; a copy of so many gradients is made at a time."""

_TOLD = "error_told_by"
_joined = itertools.count()
"""Groups that this process has joined; all processes join equally many."""


class ParallelError(UserError, RuntimeError):
    """Another process of the run has ended or cannot be reached."""


@dataclass(frozen=True)
class Group:
    """This process among those that train a model; by default it is alone, and every question is answered at once.

    Attributes:
        rank: Number of this process, from 0.
        size: Processes.
        device: What this process computes on; None leaves it to the settings.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this process prints, logs, saves, and holds the run's folders."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Return which of so many rows are this process's; shares differ by one row at most and may be empty."""
        return cut(rows, self.size)[self.rank]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, which replaces each; all of one shape and type."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over the processes; one that no process has stays None.

        A parameter without gradient (the matrices from state to state at r = 1) is left alone by AdamW, also by its
        weight decay, which a gradient of zeros would not do.
        """
        if self.size == 1:
            return
        parameters = list(parameters)
        there = self.add_up(torch.tensor([float(p.grad is not None) for p in parameters], device=self.device))
        used = [p for p, found in zip(parameters, there.tolist(), strict=True) if found]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _fill_buckets(used):
            flat = self.add_up(torch.cat([parameter.grad.flatten() for parameter in bucket]))
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad.copy_(part.view_as(parameter))

    def largest(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        if self.size == 1:
            return number
        return int(self._reduce(torch.tensor(number, device=self.device), dist.ReduceOp.MAX))

    def copy_from_leader(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the leading process."""
        if self.size > 1:
            with _others_reached(self):
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Return when every process has come here."""
        self.largest(0)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the others run the block when the leading process has: what it has written they find."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def _reduce(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size > 1:
            with _others_reached(self):
                dist.all_reduce(tensor, how)
        return tensor


ALONE = Group()


def cut(rows: int, parts: int) -> list[slice]:
    """Return consecutive slices of so many rows; they differ by one row at most, and none is longer than the last."""
    ends = [rows * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(ends)]


def is_one_of_several() -> bool:
    """Return whether the environment says, as torchrun's does, that this is one of several processes."""
    told = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return told and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def join(device: str) -> Iterator[Group]:
    """Meet the other processes, if there are any; within the block they are a group.

    No thread of a gloo group outlives the block, whatever ends it: one that lets go of a tensor while the interpreter
    is being taken down would end the process (SIGABRT, "terminate called without an active exception").

    Args:
        device: auto, cpu or cuda: every process of a machine gets a GPU of its own (nccl), or all use the CPU (gloo).

    Raises:
        ConfigError: If the device is a certain GPU, or there are fewer GPUs than processes.
    """
    if not is_one_of_several():
        yield ALONE
        return
    found = resolve_device(device)
    if found.type == "cuda":
        found = _own_gpu(found)
        torch.cuda.set_device(found)
    group = Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), found)
    backend = "nccl" if found.type == "cuda" else "gloo"
    with _others_reached(group):
        store = dist.PrefixStore(f"group_{next(_joined)}", _store())  # none meets what an earlier group has left
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size, timeout=TIMEOUT)
    try:
        yield group
        group.wait()  # none closes its sockets while another is still sending
    except BaseException:
        _is_first_to_tell()  # now: the others find at once that this one has gone, and might tell of that first
        if backend == "gloo":  # nccl would wait for the others
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _own_gpu(device: torch.device) -> torch.device:
    if device.index is not None:
        raise ConfigError(
            f"device: expected auto, cpu or cuda for several processes, each with its GPU, found {device}"
        )
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])), torch.cuda.device_count()
    if here > gpus:
        raise ConfigError(
            f"device: expected a GPU for each of {here} processes on this machine, found {gpus}; lower "
            "--nproc_per_node or pass --device cpu"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))


@contextmanager
def told_once(failures: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Within the block, let an error that ends the run be told by one process alone: the first that has it.

    The others leave without a word: most of them have the same error, or only find that one has gone.

    Args:
        failures: Mistakes whose code is 1 instead of 2.

    Raises:
        SystemExit: In the place of an error that another process tells, with the same code.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not is_one_of_several() or _is_first_to_tell():
            raise
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(128 + getattr(error, "number", signal.SIGINT)) from None
        raise SystemExit(2 if isinstance(error, MISTAKES) and not isinstance(error, failures) else 1) from None


def _is_first_to_tell() -> bool:
    with suppress(RuntimeError, ValueError, KeyError):  # whoever kept the store has gone, and has told why
        rank = os.environ["RANK"]
        return _store().compare_set(_TOLD, "", rank).decode() == rank
    return False


@functools.cache
def _store() -> dist.Store:
    """The few words that the processes share besides tensors; torchrun keeps them, else the first process."""
    store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
    return store


@contextmanager
def _others_reached(group: Group) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        traceback.clear_frames(error.__traceback__)  # those of torch hold the group
        raise ParallelError(
            f"process {group.rank} of {group.size}: another process of this run has ended or cannot be reached "
            f"({reason}); --resume goes on from the newest checkpoint"
        ) from None


def _fill_buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return the parameters in groups whose sizes come to `BUCKET`, or of a single larger one."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if not buckets or parameter.numel() > room:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(parameter)
        room -= parameter.numel()
    return buckets
