"""Files of the Hugging Face hub: from the local cache, or downloaded after a probe of bounded time.

    paths = fetch("openai-community/gpt2", ["tokenizer.json"])

HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME mean what they always mean. `huggingface_hub` is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pipeline.command.errors import UserError

PROBE_SECONDS = 5.0

_PROBE = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_url
try:
    get_hf_file_metadata(hf_hub_url("openai-community/gpt2", "config.json"), timeout=float(sys.argv[1]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class HubError(UserError, ValueError):
    """A file of the hub cannot be had; the message says why in one line."""


def fetch(repository: str, files: Sequence[str], *, kind: Literal["model", "dataset"] = "model") -> list[Path]:
    """Return the local paths of a repository's files.

    Raises:
        HubError: If one is neither in the local cache nor to be had from the hub.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError("huggingface_hub is not installed (pip install huggingface_hub)")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, file, repo_type=kind) for file in files]
    if all(isinstance(path, str) for path in cached):
        return [Path(path) for path in cached]
    failure = probe_hub()
    if failure is not None:
        raise HubError(failure)
    try:
        return [Path(hf_hub_download(repository, file, repo_type=kind)) for file in files]
    except Exception as error:  # network, disk, permission, a missing repository: all mean that it is not here
        raise HubError(f"{repository}: {_first_line(error)}") from error


@lru_cache(maxsize=1)
def probe_hub() -> str | None:
    """Return None when the hub answers, else why it does not; asked once per process.

    In a process of its own: looking up a host name has no timeout that a client could set, and a process can be ended.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, str(PROBE_SECONDS)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PROBE_SECONDS + 3,  # what importing the client may take
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # a module of the working directory must not take its place
        )
    except subprocess.TimeoutExpired:
        return f"{endpoint} did not answer within {PROBE_SECONDS:g} s"
    return f"{endpoint} cannot be reached ({_first_line(probe.stderr)})" if probe.returncode else None


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
