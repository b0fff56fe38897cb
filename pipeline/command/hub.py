"""Files of the Hugging Face hub: from the local cache, or downloaded after a probe of bounded time.

    paths = fetch("openai-community/gpt2", ["tokenizer.json"])

HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME mean what they always mean. `huggingface_hub` is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from babyai.hub import first_line, probe_hub
from pipeline.command.errors import UserError

PROBE_SECONDS = 5.0


class HubError(UserError, ValueError):
    """A file of the hub cannot be had; the message says why in one line."""


class UnavailableError(HubError):
    """The hub, or its cache, answered, and the file could not be had all the same."""


def fetch(repository: str, files: Sequence[str], *, kind: Literal["model", "dataset"] = "model") -> list[Path]:
    """Return the local paths of a repository's files.

    Raises:
        HubError: If one is neither in the local cache nor to be had from the hub; UnavailableError if the hub answers.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError("huggingface_hub is not installed (pip install huggingface_hub)")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, file, repo_type=kind) for file in files]
    if all(isinstance(path, str) for path in cached):
        return [Path(path) for path in cached]
    failure = reach_hub()
    if failure is not None:
        raise HubError(failure)
    try:
        return [Path(hf_hub_download(repository, file, repo_type=kind)) for file in files]
    except Exception as error:  # network, disk, permission, a missing repository: all mean that it is not here
        raise UnavailableError(f"{repository}: {first_line(error)}") from error


@lru_cache(maxsize=1)
def reach_hub() -> str | None:
    """Return None when the hub answers, else why it does not; asked once per process."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    limit = PROBE_SECONDS + 3  # what importing the client may take
    return probe_hub("openai-community/gpt2", PROBE_SECONDS, limit=limit, failure="cannot be reached")
