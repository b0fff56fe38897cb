"""What has been made, from what: a stamp beside every artefact, by which the same call knows what is left to do.

An item is fresh if its stamp has its key (the digest of its settings and of the source that makes it), if its inputs
are those it was made from, and if its files are as it left them. Whatever is made anew gets a new token, so that what
depends on it is made anew too, and nothing else, even if a crash comes between.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from pipeline.command.files import write_json

FAILED = "failed"
"""In place of the token of an input that could not be made: it is left out."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Item:
    """A piece of work with artefacts.

    Attributes:
        name: Unique in the study, parts divided by slashes; the first one is the kind of work.
        settings: All that its result depends on besides its inputs, as plain types.
        needs: Names of the items that make its inputs.
        sources: Modules whose source decides what is made.
    """

    name: str
    settings: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Of work."""
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """Digest of settings and sources."""
        return digest(
            {"name": self.name, "settings": dict(self.settings), "sources": [digest_source(s) for s in self.sources]}
        )


@dataclass(frozen=True)
class Stamp:
    """What is known of an item that was done.

    Attributes:
        key: As it was.
        token: Of this making; of another one it is another.
        inputs: Token of each input, or `FAILED`.
        files: Path relative to the study's folder -> size, time of change (ns) and SHA-256.
        notes: What the item has to say to whoever comes after it, as plain types.
    """

    key: str
    token: str
    inputs: dict[str, str]
    files: dict[str, tuple[int, int, str]]
    notes: dict[str, Any]


def digest(content: Any) -> str:
    """Return the SHA-256 of plain types, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


@cache
def digest_source(module: str) -> str:
    """Return the SHA-256 of a module's source; of a package that of all its modules. Nothing is imported.

    Args:
        module: Dotted name; one that is not there has the digest of nothing.
    """
    spec = _find(module)
    if spec is None or spec.origin is None:
        return digest(None)
    path = Path(spec.origin)
    paths = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return digest([(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths])


def _find(module: str) -> Any:
    try:
        return util.find_spec(module)
    except ModuleNotFoundError:
        return None


class Store:
    """The stamps of a study's folder.

    Attributes:
        folder: Of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamps: dict[str, Stamp | None] = {}

    def read(self, name: str) -> Stamp | None:
        """Return an item's stamp, None if there is none that can be read."""
        if name not in self._stamps:
            self._stamps[name] = self._load(name)
        return self._stamps[name]

    def _load(self, name: str) -> Stamp | None:
        try:
            content = json.loads(self._path(name).read_text(encoding="utf-8"))
            files = {path: (int(size), int(time), str(sha)) for path, (size, time, sha) in content["files"].items()}
            return Stamp(content["key"], content["token"], dict(content["inputs"]), files, dict(content["notes"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def is_fresh(self, item: Item) -> bool:
        """Return whether nothing is left to do for an item, its inputs as they are now."""
        stamp = self.read(item.name)
        if stamp is None or stamp.key != item.key or stamp.inputs != self.tokens(item.needs):
            return False
        return all(self._is_unchanged(path, *known) for path, known in stamp.files.items())

    def tokens(self, needs: Iterable[str]) -> dict[str, str]:
        """Return the token of each of some items; `FAILED` for one that was not made."""
        stamps = {name: self.read(name) for name in needs}
        return {name: FAILED if stamp is None else stamp.token for name, stamp in stamps.items()}

    def _is_unchanged(self, path: str, size: int, changed: int, sha: str) -> bool:
        try:
            found = (self.folder / path).stat()
            if found.st_size != size:
                return False
            return found.st_mtime_ns == changed or digest_file(self.folder / path) == sha
        except OSError:
            return False

    def write(self, item: Item, files: Sequence[Path], notes: Mapping[str, Any] | None = None) -> Stamp:
        """Note that an item has been done, its inputs as they are now.

        Args:
            item: That was done.
            files: What it has made.
            notes: Plain types.
        """
        known = {}
        for path in files:
            found = path.stat()
            known[path.relative_to(self.folder).as_posix()] = (found.st_size, found.st_mtime_ns, digest_file(path))
        before = self.read(item.name)
        for path in set(before.files if before else ()) - set(known):  # what it made then and does not now
            (self.folder / path).unlink(missing_ok=True)
        stamp = Stamp(item.key, uuid.uuid4().hex, self.tokens(item.needs), known, dict(notes or {}))
        write_json(self._path(item.name), {"name": item.name, **stamp.__dict__})
        self._stamps[item.name] = stamp
        return stamp

    def forget(self, item: Item, *, remove: bool = False) -> None:
        """Remove the stamp of an item that could not be made.

        Args:
            item: The item.
            remove: Remove also what it had made before, which is not of these inputs.
        """
        if remove:
            for path in self.files(item.name):
                path.unlink(missing_ok=True)
        self._path(item.name).unlink(missing_ok=True)
        self._stamps[item.name] = None

    def files(self, name: str) -> list[Path]:
        """Return what an item has made, none if it has not."""
        stamp = self.read(name)
        return [] if stamp is None else [self.folder / path for path in stamp.files]

    def inputs_of(self, item: Item) -> tuple[Path, ...]:
        """Return what there is of the files that making an item may read.

        They are those of its needs, and the stamps of all that these were made from.
        """
        names: dict[str, None] = {}
        waiting = list(item.needs)
        while waiting:
            name = waiting.pop()
            if name not in names:
                names[name] = None
                stamp = self.read(name)
                waiting += () if stamp is None else stamp.inputs
        files = [path for name in item.needs for path in self.files(name)]
        return (*(path for path in map(self._path, names) if path.exists()), *files)

    def _path(self, name: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)[:120]
        return self.folder / "work" / "stamps" / f"{readable}.{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"
