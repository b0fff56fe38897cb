"""`routing_data.json`: where it is, how it is written, how it is read, older forms included. See docs/cache.md.

The compact form is the same file through gzip, `routing_data.json.gz`. Whoever reads need not know which one is there.

    path = cache_path("evaluation_cache", "BabyAI-GoToObj-v0", trial=1, seed=0)
    cache = read_cache(path)
    cache.routing.lpc[cache.routing.direction == 3].mean()        # columns
    for record in cache.records(): record["layer_routing"]        # or dicts

A cache is data from outside: everything in it is checked, and no part of it chooses where a file is written.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

import orjson

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically
from pipeline.command.names import name_command
from pipeline.places import CACHE_NAME, COMPACT, cache_path, compact_path, find_caches, stored_cache
from pipeline.records.columns import CODE_NAMES
from pipeline.records.episodes import format_episodes
from pipeline.records.forms import SCHEMA_VERSION, Parsed, check_header, parse
from pipeline.records.steps import dump, format_steps, iter_records
from pipeline.records.tables import EpisodeTable, RoutingTable

__all__ = [
    "Cache",
    "CacheError",
    "cache_path",
    "find_caches",
    "other_level",
    "played_level",
    "read_cache",
    "read_header",
    "read_starts",
    "write_cache",
]

_OWN = ("schema_version", "num_steps", "num_actions", *CODE_NAMES.values(), "unknown_columns")
_PARTS = ("metrics", "episodes", "routing_data")

# The layout of a file that write_cache wrote, by which it can be read in blocks. Any other layout of the same JSON is
# read as a whole.
_EPISODES_LINE = '"episodes": ['
_STEPS_LINE = '"routing_data": ['
_END = "\n]\n}\n"
_BLOCK_CHARS = 1 << 17  # 200 steps, whose objects stay in the processor's cache; 4 MB took 1.5 times as long
_LONGEST_LINE = 1 << 22

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LEVEL = 6  # docs/LOG.md: of 70 MB of a failing run 1.6 are left, in a quarter of a second; 2.1 at level 1


class CacheError(UserError, ValueError):
    """A cache that cannot be used; the message says what was expected and what to do."""


# ----------------------------------------------------------------------------------------------------------- writing


def write_cache(
    path: str | Path,
    *,
    header: Mapping[str, Any],
    metrics: Mapping[str, float | int | None],
    episodes: EpisodeTable,
    routing: RoutingTable | None,
    inline_context: bool = False,
    compact: bool = False,
) -> None:
    """Write a cache atomically, one episode and one time step per line, in place of an earlier one in either form.

    Args:
        path: From `cache_path`.
        header: Plain values, at least `checkpoint_path` and `evaluated_at`. `num_episodes`, `expert_hidden_sizes` and
            the names of codes are added.
        metrics: From `compute_metrics`.
        episodes: All episodes played.
        routing: Their steps; None if they were not recorded.
        inline_context: Repeat the `env_context` in every step, for readers of the oldest form. The file gets several
            times as long.
        compact: Write it through gzip, with `.gz` behind its name; so it is also if `path` has that.

    Raises:
        ValueError: If the header lacks or contradicts something, or a value is no plain finite JSON.
    """
    missing = [key for key in ("checkpoint_path", "evaluated_at") if key not in header]
    taken = [key for key in (*_OWN, *_PARTS) if key in header]
    if missing or taken:
        raise ValueError(
            f"header: expected checkpoint_path and evaluated_at, missing {missing}; not to be given: {taken}"
        )
    if routing is not None and int(routing.episode.max(initial=-1)) >= len(episodes):
        raise ValueError(f"episode: expected rows of {len(episodes)} episodes, found {routing.episode.max()}")
    head: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **header}
    derived = {"num_episodes": len(episodes)}
    if routing is not None:
        derived["expert_hidden_sizes"] = routing.expert_hidden_sizes
    for key, value in derived.items():
        if head.setdefault(key, value) != value:
            raise ValueError(f"header: {key}: expected {value!r} as in the tables, found {head[key]!r}")
    head["num_steps"] = None if routing is None else len(routing)
    if routing is not None:
        head["num_actions"] = routing.action_logits.shape[1]
        head |= {key: list(getattr(routing, key)) for key in CODE_NAMES.values()}
        head["unknown_columns"] = sorted(routing.unknown)
    head["metrics"] = dict(metrics)
    top = "".join(f"{dump(key)}: {dump(value)},\n" for key, value in head.items())
    path = Path(path)
    plain = path.with_name(path.name.removesuffix(COMPACT))
    compact = compact or path != plain
    target, other = (compact_path(plain), plain) if compact else (plain, compact_path(plain))
    with replace_atomically(target) as temporary, _open_to_write(temporary, compact=compact) as file:
        file.write("{\n" + top + _EPISODES_LINE + "\n" + ",\n".join(format_episodes(episodes)))
        file.write(f"\n],\n{_STEPS_LINE}\n")
        if routing is not None:
            file.writelines(format_steps(routing, episodes, inline_context=inline_context))
        file.write(_END)
    if plain.name == CACHE_NAME:  # only where that name means a cache; until it is gone the newer of the two counts
        other.unlink(missing_ok=True)


@contextmanager
def _open_to_write(path: Path, *, compact: bool) -> Iterator[TextIO]:
    with ExitStack() as opened:
        file = opened.enter_context(path.open("wb"))
        if compact:  # without a time: the same evaluation gives the same bytes
            packed = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)
            file = opened.enter_context(packed)
        yield opened.enter_context(io.TextIOWrapper(file, encoding="utf-8", newline="\n"))


# ----------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class Cache:
    """A cache that was read.

    Attributes:
        path: Its file.
        header: All fields of the file but metrics, episodes and routing_data.
        metrics: As they were computed when it was written.
        episodes: One row per episode, or per layout, see `layouts_only`.
        routing: The steps, None if they were not recorded.
        layouts_only: True for an older file that does not tell episodes apart: the rows of `episodes`, and therefore
            `routing.episode`, are distinct layouts, each of which may have been played more than once.
    """

    path: Path
    header: dict[str, Any]
    metrics: dict[str, Any]
    episodes: EpisodeTable
    routing: RoutingTable | None
    layouts_only: bool = False

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one dict per time step, see `iter_records`; none if steps were not recorded."""
        return iter(()) if self.routing is None else iter_records(self.routing, self.episodes)


def read_cache(path: str | Path) -> Cache:
    """Return a cache, in today's form or an older one, plain or compact.

    Args:
        path: Of the file, or what it would be if it were not compact.

    Raises:
        CacheError: If the file cannot be read or is not what it should be.
    """
    path = stored_cache(path)
    try:
        content = _unpack(path.read_bytes())
    except OSError as error:
        _refuse_unreadable(path, error)
    except (EOFError, zlib.error) as error:
        _refuse(path, error)
    try:
        with _no_garbage_collection():
            return Cache(path, *_parse_text(content.decode("utf-8")))
    except (ValueError, RecursionError, OverflowError) as error:
        _refuse(path, error)


def _unpack(content: bytes) -> bytes:
    """Return the content of a file, whatever its name, that may have gone through gzip.

    Raises:
        EOFError, zlib.error, gzip.BadGzipFile: If it is truncated or damaged; plain content is not looked at.
    """
    return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content


def _parse_text(text: str) -> Parsed:
    try:
        return parse(*_split_blocks(text))
    except json.JSONDecodeError:  # damaged, or laid out by another writer
        content = _loads(text)
        steps = content.pop("routing_data", None) if isinstance(content, dict) else None
        return parse(content, iter([steps]))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Parsing makes a million objects and no cycles; looking for cycles among them takes a fifth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_header(path: str | Path) -> dict[str, Any]:
    """Return all fields of a cache but episodes and routing_data, so with `metrics`; quick, whatever its length.

    Whether the steps are sound only `read_cache` tells; that the file is complete is checked.

    Raises:
        CacheError: If the file cannot be read or is not what it should be.
    """
    path = stored_cache(path)
    lines: list[str] = []
    try:
        with _open_to_read(path) as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - len(_END)))
            complete = file.read() == _END.encode()
            file.seek(0)
            while complete and len(lines) < 1000:
                line = file.readline(_LONGEST_LINE)
                if line == _EPISODES_LINE.encode() + b"\n":
                    head = check_header(_loads("".join(lines).rstrip(",\n") + "}"))
                    return {"metrics": {}, **head}
                if not line.endswith(b"\n"):
                    break
                lines.append(line.decode())
    except OSError as error:
        _refuse_unreadable(path, error)
    except (EOFError, zlib.error) as error:
        _refuse(path, error)
    except json.JSONDecodeError:
        pass  # laid out by another writer
    except (ValueError, RecursionError) as error:
        _refuse(path, error)
    cache = read_cache(path)
    return {**cache.header, "metrics": cache.metrics}


def find_actions(row: Mapping[str, Any]) -> Any:
    """Return how the actions of an evaluation were chosen: what its row or a cache's header says, greedy in older ones.

    Args:
        row: A header, or a row of the results in plain types.
    """
    return row.get("eval_actions") or "greedy"


def played_level(header: Mapping[str, Any]) -> Any:
    """Return the level that a cache tells of, as its header has it; None if it does not say.

    `task_id` is the run's own, or the name of its mixture, and older caches have nothing else.
    """
    return header.get("eval_task_id") or header.get("task_id")


def other_level(header: Mapping[str, Any]) -> Any:
    """Return the level that a cache tells of if it is another than the run's own, else None."""
    played = header.get("eval_task_id")
    return None if played == header.get("task_id") else played


def read_starts(path: str | Path, limit: int = 32) -> list[Any]:
    """Return the room in which each of a cache's first episodes starts, [x, y] or None; quick, whatever its length.

    A file that `write_cache` did not write, or that cannot be read, tells none.
    """
    starts: list[Any] = []
    try:
        with _open_to_read(Path(path)) as file:
            for line in iter(partial(file.readline, _LONGEST_LINE), b""):
                if line == _EPISODES_LINE.encode() + b"\n":
                    break
            for line in islice(file, limit):
                starts.append(orjson.loads(line.rstrip(b",\n")).get("agent_start_room"))
    except (OSError, ValueError, AttributeError, EOFError, zlib.error):  # AttributeError: the list has ended
        pass
    return starts


@contextmanager
def _open_to_read(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        yield io.BytesIO(_unpack(file.read())) if packed else file


def _refuse_unreadable(path: Path, error: OSError) -> NoReturn:
    if isinstance(error, gzip.BadGzipFile):
        _refuse(path, error)
    raise CacheError(f"{path}: cannot be read ({error.strerror}); expected a {CACHE_NAME}") from None


def _refuse(path: Path, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, json.JSONDecodeError):
        reason = f"no valid JSON; empty, truncated or damaged ({reason})"
    elif isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        reason = f"no valid gzip; truncated or damaged ({reason})"
    elif isinstance(error, RecursionError):
        reason = "nested too deeply"
    raise CacheError(
        f"{path}: {reason}. Expected a {CACHE_NAME} of schema_version {SCHEMA_VERSION} or an older form "
        f"(docs/cache.md). Write it again: {name_command('evaluate')} --force"
    ) from None


def _loads(text: str) -> Any:
    """Return what JSON says; the NaN and Infinity of Python's json, which are none, are null: not known."""
    return json.loads(text, parse_constant=lambda name: None)


def _split_blocks(text: str) -> tuple[Any, Iterator[Any]]:
    """Return everything but the steps, and the steps in blocks.

    Raises:
        json.JSONDecodeError: Here or from the iterator, if the text is not laid out as `write_cache` does it.
    """
    mark = f"\n{_STEPS_LINE}\n"
    begin = text.find(mark)
    if begin < 0 or not text.endswith(_END):
        raise json.JSONDecodeError("not in blocks", "", 0)
    return _loads(text[:begin].rstrip(",") + "}"), _iter_blocks(text, begin + len(mark), len(text) - len(_END))


def _iter_blocks(text: str, begin: int, end: int) -> Iterator[Any]:
    while begin < end:
        stop = text.find("\n", min(begin + _BLOCK_CHARS, end), end)
        stop = end if stop < 0 else stop
        # orjson takes 40 % less time than json. What it refuses (NaN, huge numbers), json reads or refuses afterwards.
        yield orjson.loads("[" + text[begin:stop].removesuffix(",") + "]")
        begin = stop + 1
