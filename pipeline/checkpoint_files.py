"""Files of checkpoints, of policies and of language models: written whole, read as data, known again by digests.

A file is data, never code: it is read with `torch.load(weights_only=True)`, and what is no plain data is refused by
name. It can be mapped instead of read: a tensor that nobody looks at then costs nothing. Beside the content lie

    digests     weights: of what acts or predicts. state: of what only continuing needs

so that a byte that has changed on a disk or on its way is noticed by whoever uses the part it is in. The pickle, which
holds everything but the tensors, is checked at each opening by the sum that the zip format keeps of it. Files without
digests, older ones or foreign, are checked by these sums alone.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically
from pipeline.plain_objects import NotPlainError, stand_ins

_LATER_PICKLES = (b"\x80\x03", b"\x80\x04", b"\x80\x05")
_TENSOR_RECORD = re.compile(r"[^/]+/data/\d+")


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used; the message names the file, what was expected and what to do."""


@dataclass(frozen=True)
class Layout:
    """What one kind of checkpoint is.

    Attributes:
        writer: Commands that write it.
        weights: Keys of its weights -> prefix of their names in the digest.
        state: Keys of what only continuing needs.
    """

    writer: str
    weights: Mapping[str, str]
    state: tuple[str, ...]

    def digest_weights(self, content: Mapping[str, Any]) -> str:
        """Return the digest of a content's weights; see `compute_digest`."""
        parts = ((prefix, content.get(key) or {}) for key, prefix in self.weights.items())
        return compute_digest({prefix + name: value for prefix, part in parts for name, value in part.items()})

    def digest_state(self, content: Mapping[str, Any]) -> str:
        """Return the digest of the tensors that only continuing needs, wherever in their part they lie."""
        return compute_digest({name: value for key in self.state for name, value in _tensors(content.get(key), key)})


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that nested mappings and lists hold, by path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, f"{name}/{key}")


def compute_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of weights, in order of their names.

    It does not depend on where a file lies, on its name or on how it was written: the same weights have the same
    digest, a retrained checkpoint under an old name has another.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------ writing


def write_file(path: Path, content: Mapping[str, Any], layout: Layout) -> None:
    """Write a checkpoint with its digests, atomically.

    Raises:
        OSError: If it cannot be written; a file of that name stays as it was.
    """
    digests = {"weights": layout.digest_weights(content), "state": layout.digest_state(content)}
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({**content, "digests": digests}, file)
        except RuntimeError as error:  # torch's own, of a file that could not be written
            if isinstance(error.__context__, OSError):
                raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
            raise


# ------------------------------------------------------------------------------------------------------------ reading


def open_file(path: str | Path, layout: Layout, device: torch.device | str = "cpu", *, mapped: bool) -> Any:
    """Return what a checkpoint file holds; its tensors are not checked, see `check_content`.

    Args:
        path: The file.
        layout: Of its kind.
        device: Where its tensors are placed.
        mapped: Map the file, for whoever looks at some of the tensors and lets go of them soon: they are part of the
            file, and go when another program shortens it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds more than plain data.
    """
    path = Path(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); expected a checkpoint written by {layout.writer}"
        ) from None
    unusable = f"{path}: expected a checkpoint written by {layout.writer}; it is empty, damaged or something else"
    is_zip = _is_zip(path)
    if is_zip:
        _check_records(path, lambda name: not _TENSOR_RECORD.fullmatch(name))
    with torch.serialization.safe_globals(stand_ins()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of pickles as others write them
        try:
            return torch.load(path, map_location=device, weights_only=True, mmap=mapped and is_zip)
        except Exception as error:  # torch's own text advises to load it all the same
            if found := _name_objects(path, error):
                raise CheckpointError(
                    f"{path}: holds {found}, and expected is plain data alone: loading other objects can run code, so "
                    "they are never loaded. Save it again without them (as numbers, texts, lists, dicts or tensors)"
                ) from None
            raise CheckpointError(unusable) from None


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged one
        return True


def _name_objects(path: Path, error: Exception) -> str:
    """Return which objects are no plain data if this is why a file could not be loaded, else ""."""
    if isinstance(error, NotPlainError):
        return str(error)
    if "Unsupported operand" in str(error) and (_is_zip(path) or _first_bytes(path) in _LATER_PICKLES):
        return "a pickle of another protocol than torch's own, 2"
    first = re.search(r"GLOBAL (\S+)", str(error))
    if first is None:
        return ""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the old format, or one it knows less of than `torch.load`
        names = []
    shown = names[:5] or [first[1]]
    return ", ".join(shown) + (f" and {len(names) - 5} other kinds of objects" if len(names) > 5 else "")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def check_content(
    path: str | Path, content: Mapping[str, Any], layout: Layout, *, state: bool, weights: str | None = None
) -> None:
    """Refuse a content that is not what was saved.

    Args:
        path: Of its file.
        content: Of `open_file`.
        layout: Of its kind.
        state: Check also what only continuing needs.
        weights: Digest of its weights, where that is known already.

    Raises:
        CheckpointError: If it is not.
    """
    kept = content.get("digests")
    if not isinstance(kept, Mapping):
        _check_records(Path(path), lambda name: True)
    elif kept.get("weights") != (weights or layout.digest_weights(content)):
        raise CheckpointError(_damaged(path, "its weights are"))
    elif state and kept.get("state") != layout.digest_state(content):
        raise CheckpointError(_damaged(path, "the state to resume from is"))


def _damaged(path: str | Path, what: str) -> str:
    return f"{path}: it is damaged: {what} not what was saved; restore it from a copy"


def _check_records(path: Path, chosen: Callable[[str], bool]) -> None:
    """Refuse a zip file of which chosen records are not what their sums (CRC-32) say; torch does not look at them.

    Raises:
        CheckpointError: If one is not.
    """
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in filter(chosen, archive.namelist()):
                with archive.open(name) as record:
                    while record.read(1 << 20):
                        pass
    except Exception:  # a damaged directory has many faces
        raise CheckpointError(_damaged(path, "its content is")) from None


# ------------------------------------------------------------------------------------------------------------ damaged


def explain_damage(
    error: CheckpointError, damaged: Path, others: Iterable[Path], check: Callable[[Path], int]
) -> CheckpointError:
    """Return a refusal to resume from a damaged checkpoint that says from which one to go on, and how.

    Args:
        error: What is wrong with it.
        damaged: The newest checkpoint of a run.
        others: The run's other ones, the newest first.
        check: Returns the update of one from which the run can go on, raises CheckpointError for any other.
    """
    away = [damaged.name]
    for path in others:
        try:
            update = check(path)
        except CheckpointError:
            away.append(path.name)
            continue
        return CheckpointError(
            f"{error}. The newest sound checkpoint before it is {path}, of update {update}. To go on from there, "
            f"delete or rename {' and '.join(away)}, and pass --resume"
        )
    return CheckpointError(f"{error}. {damaged.parent} has no sound one to go on from: --overwrite starts afresh")
