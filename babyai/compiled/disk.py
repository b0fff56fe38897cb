"""Compiled functions on disk: where they are kept, how they are found again, and that nothing damaged is ever run.

A file holds one function as compiled for one signature and one processor:

    <module>.<function>.py311.<sources>.<machine>.<signature>.nbc

The last three are digests: of the sources, of numba and the processor it compiles for, of the argument types. So a home
that is shared by machines holds a file for each kind of them, and processes that compile at once write the same content
under the same name; numba's own index of numbered files mixes up processors then. Before its content a file has the
digest of it: whatever was cut off, emptied or altered counts as missing, is compiled anew and overwritten.

docs/file-systems.md says in which folders they are.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import _Cache, _CacheLocator
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

_DIGEST_BYTES = hashlib.sha256().digest_size
_notes: list[str] = []  # said by this process


class DiskCache(_Cache):
    """What numba asks for a function before it compiles it, and gives it to afterwards.

    A file that cannot be read or written never ends a run: then functions are compiled at each start.

    Args:
        source: File in which the function stands.
        name: Of the function; one of its name in the file.
        stamp: Of all sources on which the compiled function depends.
    """

    def __init__(self, source: Path, name: str, stamp: str) -> None:
        self._source, self._stamp = source, stamp
        plain = name.replace("<", "").replace(">", "")  # which Windows has in no file name
        self._prefix = f"{source.stem}.{plain}.py{sys.version_info[0]}{sys.version_info[1]}."
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """The folder of first choice."""
        return str(next(_list_folders(self._source)))

    def enable(self) -> None:
        """Use what is on disk."""
        self._enabled = True

    def disable(self) -> None:
        """Do without what is on disk."""
        self._enabled = False

    def flush(self) -> None:
        """Forget what is on disk."""
        for folder in _list_folders(self._source):
            _delete(folder, self._prefix)

    def holds(self, target_context: Any) -> bool:
        """Return whether the function was compiled before from these sources for this machine."""
        beginning = f"{self._prefix}{_shorten(self._stamp)}.{_shorten(_describe_machine(target_context))}."
        return any(_list_files(folder, beginning) for folder in _list_folders(self._source))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """Return the function compiled for a signature, None if it is not on disk, or not as it was written."""
        target_context.refresh()
        if not self._enabled:
            return None
        identity = self._identify(sig, target_context)
        for folder in _list_folders(self._source):
            content = _read(folder / self._name(identity))
            if content is None:
                continue
            with suppress(Exception):  # whatever is wrong with it, compiling is the answer
                found, payload = pickle.loads(content)
                if found == identity:
                    return CompileResult._rebuild(target_context, *payload)
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep a function compiled for a signature, in the first folder that takes it."""
        if not self._enabled or data.library.has_dynamic_globals:
            return
        identity = self._identify(sig, data.target_context)
        content = dumps((identity, data._reduce()))
        refusals = []
        for folder in _list_folders(self._source, make=True):
            try:
                _write(folder / self._name(identity), content)
            except OSError as error:
                refusals.append(f"{folder}: {error.strerror or error}")
                continue
            _delete(
                folder, self._prefix, but=f"{self._prefix}{_shorten(self._stamp)}."
            )  # not what others' machines use
            if folder == _temporary_folder(self._source) or (config.CACHE_DIR and refusals):
                _say_once(f"compiled functions are kept in {folder}: others refuse ({refusals[0]})")
            return
        _say_once(
            f"compiled functions cannot be kept ({'; '.join(refusals)}): every start compiles for half a minute or more"
        )

    def _identify(self, sig: Any, target_context: Any) -> tuple[str, str, str, str]:
        """Return function, sources, machine and signature."""
        return self._prefix, self._stamp, _describe_machine(target_context), repr(sig)

    def _name(self, identity: tuple[str, str, str, str]) -> str:
        return f"{self._prefix}{'.'.join(_shorten(part) for part in identity[1:])}.nbc"


def _describe_machine(target_context: Any) -> str:
    """Return numba's version, platform, processor and its features: code for another one may be no code for this."""
    return repr((numba.__version__, *target_context.codegen().magic_tuple()))


def _shorten(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


# ------------------------------------------------------------------------------------------------------------- folders


def _list_folders(source: Path, *, make: bool = False) -> Iterator[Path]:
    """Yield the folders for what is compiled of a source file: all are read, the first that can be is written.

    With `make` a temporary one is made.
    """
    below = _CacheLocator.get_suitable_cache_subpath(str(source))
    if config.CACHE_DIR:  # NUMBA_CACHE_DIR
        yield Path(config.CACHE_DIR) / below
    yield source.parent / "__pycache__"
    yield Path(AppDirs(appname="numba", appauthor=False).user_cache_dir) / below
    if (temporary := _temporary_folder(source, make=make)) is not None:
        yield temporary


def _temporary_folder(source: Path, *, make: bool = False) -> Path | None:
    """Return a folder among temporary files; None if there is none, or one that is not this user's alone.

    What lies there is run, and everybody may write beside it.
    """
    user = os.getuid() if hasattr(os, "getuid") else None  # on Windows temporary files are in the user's own folder
    try:
        folder = Path(tempfile.gettempdir()) / ("numba-cache" if user is None else f"numba-cache-{user}")
        if make:
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = user is None or (found.st_uid == user and not found.st_mode & 0o077)
    if not stat.S_ISDIR(found.st_mode) or not private:
        return None
    return folder / _CacheLocator.get_suitable_cache_subpath(str(source))


# --------------------------------------------------------------------------------------------------------------- files


def _list_files(folder: Path, beginning: str) -> list[Path]:
    """Return the files of compiled functions in a folder whose names begin so; none where there is no such folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / name for name in names if name.startswith(beginning) and name.endswith(".nbc")]


def _delete(folder: Path, beginning: str, *, but: str | None = None) -> None:
    """Delete the files whose names begin so, but not those that begin with `but`."""
    for path in _list_files(folder, beginning):
        if but is None or not path.name.startswith(but):
            with suppress(OSError):
                path.unlink()


def _read(path: Path) -> bytes | None:
    """Return a file's content, None if there is none or it is not as it was written."""
    try:
        written = path.read_bytes()
    except OSError:
        return None
    digest, content = written[:_DIGEST_BYTES], written[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: If that fails; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
    try:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _say_once(text: str) -> None:
    if not _notes:
        _notes.append(text)
        print(f"note: {text}; NUMBA_CACHE_DIR names a folder for them", file=sys.stderr)
