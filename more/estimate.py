"""What a run takes, said before it takes it: memory that must be there, and time by measured updates.

needed = compute_least_memory(parameters, vocab_size, tokens_per_batch)
check_memory(needed, measure_free_memory(device), ...)
pace = Pace(); ...; pace.add(); pace.seconds_left(updates)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.command.errors import UserError
from pipeline.config import ConfigError

TRIAL = 10
"""Updates by which the pace is known."""
TRIAL_SECONDS = 120.0
"""Where they are slow, it is said after so long, and at least three updates."""


class MemoryShortError(UserError, MemoryError):
    """A run that does not fit into memory; the message says how much it needs and what takes less."""


# --------------------------------------------------------------------------------------------------------------- memory


def compute_least_memory(parameters: int, vocab_size: int, tokens_per_batch: int) -> int:
    """Return the bytes that training needs in any case.

    Weights, gradients and the two moments of AdamW, in float32, and twice the logits of a batch: themselves and their
    gradient. Activations of the blocks come on top, some hundred bytes per token, layer and channel.
    """
    return 4 * 4 * parameters + 2 * 4 * vocab_size * tokens_per_batch


def measure_free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take on a device; None where nothing says so.

    On the CPU the least of what the system has available, what is left to the control group (a container's limit),
    and what is left to the process (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(), _left_to_group(), _left_to_process()]
    return min((value for value in found if value is not None), default=None)


def _available() -> int | None:
    return _read_kilobytes(Path("/proc/meminfo"), "MemAvailable:")


def _read_kilobytes(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_to_group() -> int | None:
    """Return what is left to the control group, whose files may be forgotten at need."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        place = Path("/sys/fs/cgroup")
        try:
            most, taken = int((place / limit).read_text()), int((place / used).read_text())
            lines = (place / limit).with_name("memory.stat").read_text().splitlines()
            reclaimable = next((int(line.split()[1]) for line in lines if line.startswith(f"{cache} ")), 0)
            return most - taken + reclaimable
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return None


def _left_to_process() -> int | None:
    try:
        import resource  # not on every system
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _read_kilobytes(Path("/proc/self/status"), "VmSize:")
    return None if limit == resource.RLIM_INFINITY or used is None else limit - used


def check_memory(needed: int, free: int | None, what: str, advice: str) -> None:
    """Refuse what cannot fit.

    Args:
        needed: Bytes, at least.
        free: Bytes; None where it is not known.
        what: The model, in words.
        advice: What takes less.

    Raises:
        MemoryShortError: If more is needed than is free.
    """
    if free is not None and needed > free:
        raise MemoryShortError(
            f"memory: {what} needs at least {format_bytes(needed)} to be trained, and {format_bytes(max(0, free))} "
            f"are free; {advice}"
        )


@contextmanager
def memory_shortage_told(advice: str) -> Iterator[None]:
    """Within the block an allocation that fails is told in one line.

    Raises:
        MemoryShortError: If one fails.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError, of a GPU, is a RuntimeError too
        text = str(error)
        if isinstance(error, UserError) or not (
            isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
        ):
            raise
        raise MemoryShortError(f"memory: it was used up ({' '.join(text.split())[:200]}); {advice}") from None


def format_bytes(count: float) -> str:
    """Return a number of bytes for people, e.g. 2.1 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


# ----------------------------------------------------------------------------------------------------------------- time


def format_duration(seconds: float) -> str:
    """Return a time for people, e.g. 7.5 h."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"


class Pace:
    """How fast updates go, by the first of them; the very first is left out, as it also prepares.

    Updates differ, by the length of their windows and by a number of recurrences that is drawn: the time that is left
    is told by the work that is left, of which each update has done its own.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._first: tuple[float, int, float] | None = None  # time, tokens and work after the first update
        self._last = (self._began, 0, 0.0)
        self.updates = 0
        self._told = False

    def add(self, tokens: int, work: float) -> bool:
        """Count an update; return whether it is time to tell.

        Args:
            tokens: That have been learned from until now.
            work: That has been done until now, in any unit.
        """
        now = self._clock()
        self.updates += 1
        self._last = (now, tokens, work)
        if self._first is None:
            self._first = self._last
        slow = self.updates >= 3 and now - self._began >= TRIAL_SECONDS
        if self._told or not (slow or self.updates == TRIAL):
            return False
        self._told = True
        return True

    def seconds_for(self, work: float) -> float:
        """Return how long so much work takes, at the pace of the updates after the first."""
        return work * (self._last[0] - self._first[0]) / max(1e-9, self._last[2] - self._first[2])

    @property
    def tokens_per_second(self) -> float:
        """The same in tokens learned from."""
        return (self._last[1] - self._first[1]) / max(1e-9, self._last[0] - self._first[0])


def count_validations(update: int, total: int, eval_interval: int) -> int:
    """Return the validations after an update: those on the way, and one at the end."""
    if update >= total:
        return 0
    return (total - 1) // eval_interval - update // eval_interval + 1 if eval_interval else 1


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where that cannot be done.

    Raises:
        ConfigError: If the CPU's compiler is missing.
    """
    if device.type != "cpu":
        return
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise ConfigError(
            "compile: expected a C++ compiler, which torch.compile needs on the CPU, found none; install g++ or clang, "
            "or leave --compile out"
        ) from None
