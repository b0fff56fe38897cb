"""A Hugging Face model's folder: a local one, the local cache's, or a download, within a bounded time.

    name, folder = locate_model("distilbert-base-uncased", probe_seconds=5.0)

HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_ENDPOINT and HF_HOME mean what they always mean. `transformers` and
`huggingface_hub` are imported where they are used: importing them takes seconds.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from babyai.errors import MissionEncoderError

DEFAULT_MODEL = "distilbert-base-uncased"

# The hub's newer name of the same repository.
_HUB_ALIASES = {DEFAULT_MODEL: ("distilbert/distilbert-base-uncased",)}

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_DOWNLOADS = (
    *TOKENIZER_FILES,
    "config.json",
    "tokenizer_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
_OFFLINE_FLAGS, _TRUE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), ("1", "ON", "YES", "TRUE")

_PROBE = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_url
try:
    get_hf_file_metadata(hf_hub_url(sys.argv[1], "config.json"), timeout=float(sys.argv[2]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def locate_model(name: str, probe_seconds: float, *, shadowing: bool = True) -> tuple[str, Path]:
    """Return a model's name (of a folder: its absolute path) and the folder that holds it.

    Args:
        name: local folder or hub id.
        probe_seconds: how long the hub may take to answer when the id is not in the local cache.
        shadowing: whether a folder may stand for an id of the same name.

    Raises:
        MissionEncoderError: there is no such model, or the hub does not answer in time.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissionEncoderError("transformers is not installed (pip install transformers)")
    folder = Path(name).expanduser()
    if shadowing and folder.is_dir():
        folder = folder.resolve()
        return str(folder), folder
    if not re.fullmatch(r"(\w[\w.\-]*/)?\w[\w.\-]*", name):
        raise MissionEncoderError(
            f"expected a folder holding a Hugging Face model, or a hub id such as {DEFAULT_MODEL}, "
            f"found {name!r}, which is neither; correct lang_encoder"
        )
    return name, _find_cached(name) or _download(name, probe_seconds)


@contextlib.contextmanager
def _importing(package: str) -> Iterator[None]:
    """Turn whatever the import of a package raises, for versions may not fit each other, into MissionEncoderError."""
    try:
        yield
    except Exception as error:
        raise MissionEncoderError(f"{package} cannot be imported: {first_line(error)}") from error


def _find_cached(name: str) -> Path | None:
    """Return a hub id's folder in the local cache, or None unless all that is needed is there."""
    with _importing("huggingface_hub"):
        from huggingface_hub import try_to_load_from_cache

    for repository in (name, *_HUB_ALIASES.get(name, ())):
        config = try_to_load_from_cache(repository, "config.json")
        if isinstance(config, str):
            folder = Path(config).parent
            tokenizer = any((folder / file).is_file() for file in TOKENIZER_FILES)
            if tokenizer and (any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))):
                return folder
    return None


def _download(name: str, probe_seconds: float) -> Path:
    """Download a hub id into the local cache and return its folder there."""
    if any(os.environ.get(flag, "").upper() in _TRUE for flag in _OFFLINE_FLAGS):
        flags = " or ".join(_OFFLINE_FLAGS)
        raise MissionEncoderError(f"{name} is not in the local cache, and {flags} is set")
    failure = probe_hub(name, probe_seconds)
    if failure:
        raise MissionEncoderError(f"{name} is not in the local cache, and {failure}")
    with _importing("huggingface_hub"):
        from huggingface_hub import snapshot_download

    try:
        with quiet_transformers():
            folder = Path(snapshot_download(name, allow_patterns=list(_DOWNLOADS)))
            if not any(folder.glob("*.safetensors")):  # an older repository
                snapshot_download(name, allow_patterns=["pytorch_model*.bin", "pytorch_model.bin.index.json"])
    except Exception as error:  # network, disk, permission, a hub's own errors: all mean that it is not here
        raise MissionEncoderError(f"{name} cannot be downloaded: {first_line(error)}") from error
    return folder


def probe_hub(
    name: str, seconds: float, *, limit: float | None = None, failure: str = "gives no access to it"
) -> str | None:
    """Ask the hub once for the header of a model's configuration; return None when it is there, else why not.

    In a process of its own: looking up a host name has no timeout that a client could set, and a process can
    be ended when time is up. It uses the client that would download, hence the same endpoint, proxy,
    certificates and token.

    Args:
        name: hub id.
        seconds: how long the hub may take to answer.
        limit: how long the process may take, in which the client is imported; None: as long.
        failure: what is said of a hub that answers with an error.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, name, str(seconds)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds if limit is None else limit,
            # A module in the working directory must not take a library's place.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"{endpoint} did not answer within {seconds:g} s"
    if probe.returncode:
        return f"{endpoint} {failure} ({first_line(probe.stderr)})"
    return None


def first_line(error: object) -> str:
    """Return the first line of an error's message, cut at 200 characters; its type's name when it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, load reports and warnings of both libraries, and put their settings back."""
    with _importing("transformers"):
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
        from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hub_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
