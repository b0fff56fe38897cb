"""A checkpoint as a folder that transformers opens, whole or not at all: sizes, weights, tokenizer, code, card.

check_target(folder, overwrite=False)
export_model(load_model(path), folder, overwrite=False)
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from more.checkpoints import LoadedModel
from more.export_card import describe_model, render_card
from more.export_sources import collect_sources, describe_version
from more.export_tokenizer import convert_tokenizer
from pipeline.command.files import reach_disk
from pipeline.command.folders import HeldError, check_folder, hold_lock
from pipeline.command.provenance import find_commit
from pipeline.config import ConfigError

MANIFEST = "more_export.json"
"""Says which model this is and which files are the command's own; all others in the folder are somebody's."""

SCHEMA_VERSION = 1
_LEFTOVER = re.compile(r"\.[0-9a-f]{12}\.(tmp|old)$")
AUTO_MAP = {"AutoConfig": "configuration_more.MoreConfig", "AutoModelForCausalLM": "modeling_more.MoreForCausalLM"}


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or whose content would be lost.

    Raises:
        ConfigError: If it is no folder or may not be written to, holds an export and `overwrite` is false, or holds
            something else.
    """
    check_folder("output_dir", folder)
    check_folder("output_dir", folder.parent)
    if not folder.is_dir() or not (found := sorted(os.listdir(folder))):
        return
    if MANIFEST not in found:
        raise ConfigError(
            f"output_dir: {folder} holds something else ({found[0]}); name another folder, or an empty one"
        )
    if not overwrite:
        raise ConfigError(
            f"output_dir: {folder} holds an exported model; pass --overwrite to replace it, or name another"
        )


def export_model(loaded: LoadedModel, folder: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a model, and return what the manifest says of it.

    The folder appears when all of it is written. With `overwrite` it takes the place of an older export, whose other
    files, those that are not the command's, come along.

    Args:
        loaded: The model.
        folder: Where; see `check_target`.
        overwrite: Replace an older export.

    Raises:
        ConfigError: As `check_target`, or if a file of somebody's has a name that the export needs.
        OSError: If it cannot be written; nothing has changed then.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            _clear_leftovers(folder)
            return _export(loaded, folder, overwrite=overwrite)
    except HeldError as error:
        raise ConfigError(f"output_dir: another process is writing {folder}; wait for it {error}".rstrip()) from None


def _export(loaded: LoadedModel, folder: Path, *, overwrite: bool) -> dict[str, Any]:
    check_target(folder, overwrite=overwrite)
    with _replace_folder(folder) as (temporary, bring_others):
        write_model(loaded, temporary, folder.name)
        files = sorted([*os.listdir(temporary), MANIFEST])
        about = {
            "schema_version": SCHEMA_VERSION,
            "written_by": describe_version(),
            "commit": find_commit(12),
            **describe_model(loaded),
            "files": files,
        }
        (temporary / MANIFEST).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        bring_others(files)
    return about


def write_model(loaded: LoadedModel, folder: Path, name: str) -> None:
    """Write all files but the manifest into an empty folder; `name` is what the card calls it."""
    import torch
    from transformers import GenerationConfig

    from more.exported.configuration_more import MoreConfig
    from more.exported.modeling_more import MoreForCausalLM

    sizes, end = loaded.model.config, loaded.tokenizer.end_token
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    weights = {key: loaded.training_config.get(key) for key in ("balance_weight", "z_weight")}
    config = MoreConfig.of(
        sizes,
        auto_map=AUTO_MAP,
        router_aux_loss_coef=weights["balance_weight"] or 0.0,
        router_z_loss_coef=weights["z_weight"] or 0.0,
        **special,
    )
    with torch.device("meta"):
        model = MoreForCausalLM(config)
    model.model = loaded.model
    model.lm_head.weight = loaded.model.embedding.weight
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    for weights_file in folder.glob("*.safetensors"):  # written for its owner's eyes alone
        with suppress(OSError):  # a file system without modes
            weights_file.chmod((folder / "config.json").stat().st_mode)
    convert_tokenizer(loaded.tokenizer, sizes.max_length).save_pretrained(folder)
    for file, text in collect_sources().items():
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(render_card(loaded, name), encoding="utf-8")


@contextmanager
def _replace_folder(folder: Path) -> Iterator[tuple[Path, Callable[[list[str]], None]]]:
    """Yield a folder beside `folder`, which takes its place when the block ends well, and what brings others' files."""
    temporary, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()

    def bring_others(new: list[str]) -> None:
        if not (folder / MANIFEST).is_file():
            return
        own = _read_own(folder)
        for path in folder.iterdir():
            if path.name in own:
                continue
            if path.name in new:
                raise ConfigError(f"output_dir: {path} is not this command's, and would be lost; move it elsewhere")
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, temporary / path.name, symlinks=True)
            else:
                shutil.copy2(path, temporary / path.name, follow_symlinks=False)

    try:
        yield temporary, bring_others
        for path in temporary.iterdir():
            if path.is_file():
                reach_disk(path)
        try:
            if folder.exists():
                folder.rename(old)
            temporary.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(temporary)):
            error.filename, error.filename2 = str(folder), None
        raise


def _clear_leftovers(folder: Path) -> None:
    """Put back an export whose place a killed process had not taken yet, and remove what such a one has left."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if _LEFTOVER.search(path.name) is None or not path.is_dir():
            continue
        if path.suffix == ".old" and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path)


def _read_own(folder: Path) -> list[str]:
    """Return the files that the manifest of an export names as the command's."""
    try:
        return [str(name) for name in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / MANIFEST}: expected what an earlier export wrote ({type(error).__name__}: {error}); name "
            "another folder"
        ) from None
