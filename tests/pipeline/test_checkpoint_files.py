"""Files of checkpoints: whatever byte changes, a file gives what was saved or is refused; what to go on from then."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from more.checkpoints import load_model
from more.checkpoints import read_checkpoint as read_more
from pipeline.checkpoint_files import CheckpointError, compute_digest, explain_damage
from pipeline.checkpoints import load_policy, read_checkpoint, read_header, save_checkpoint, verify_checkpoint
from pipeline.config import TrainConfig
from tests.checkpoints import SMALL, flip_in, make_content
from tests.more_settings import small_trainer


def save_policy(path: Path) -> Path:
    state = {"state": {0: {"exp_avg": torch.arange(50.0)}}, "param_groups": [{"lr": 0.5}]}
    resume = {"hidden": [torch.ones(40)], "env": {"levels": {"grid": torch.arange(30)}}, "seconds": 1.5}
    save_checkpoint(path, make_content(TrainConfig(**SMALL), optimizer_state_dict=state, resume=resume))
    return path


def save_model(path: Path) -> Path:
    trainer = small_trainer(path.parent)
    trainer.run_update()
    trainer.save(path, resumable=True)
    return path


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Return what nested dicts and lists hold by path, tensors as their digest."""
    if isinstance(value, torch.Tensor):
        return {name: compute_digest({"": value})}
    if not isinstance(value, dict | list | tuple):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: leaf for key, part in parts for path, leaf in flatten(part, f"{name}/{key}").items()}


@pytest.mark.parametrize(
    ("save", "read", "load", "count"),
    [
        (save_policy, read_checkpoint, lambda path: load_policy(path).policy, 100),
        (save_model, read_more, lambda path: load_model(path).model, 25),
    ],
    ids=["policy", "language model"],
)
def test_a_file_with_another_byte_gives_what_was_saved_or_is_refused(tmp_path, save, read, load, count):
    path, other = save(tmp_path / "a.pt"), tmp_path / "b.pt"
    saved, weights = path.read_bytes(), flatten(dict(load(path).state_dict()))
    content = flatten(read(path))
    draw = random.Random(0)
    ends = [*range(0, 60, 4), *range(len(saved) - 100, len(saved), 4), *range(len(saved) - 22, len(saved))]
    places = [*(draw.randrange(len(saved)) for _ in range(count)), *ends]
    refused = 0
    for place in places:
        data = bytearray(saved)
        data[place] ^= 1 << draw.randrange(8)
        other.write_bytes(data)
        for open_again, expected in ((lambda p: dict(load(p).state_dict()), weights), (read, content)):
            try:
                found = flatten(open_again(other))
            except CheckpointError as error:
                assert str(error).startswith(f"{other}: ")
                refused += 1
            else:
                assert found == expected, f"byte {place}"
    assert refused > len(places) / 2  # of the rest much is padding


def test_the_digest_within_is_the_identity_of_the_weights(tmp_path):
    path = save_policy(tmp_path / "a.pt")
    assert torch.load(path, weights_only=True)["digests"]["weights"] == load_policy(path).digest


def test_each_part_is_checked_where_it_is_used(tmp_path):
    content = read_checkpoint(save_policy(tmp_path / "a.pt"))
    flip_in(tmp_path / "a.pt", content["optimizer_state_dict"]["state"][0]["exp_avg"])
    flip_in(save_policy(tmp_path / "b.pt"), content["resume"]["env"]["levels"]["grid"])
    flip_in(save_policy(tmp_path / "c.pt"), content["policy_state_dict"]["head.weight"])
    for name in "ab":  # it acts as it did
        assert load_policy(tmp_path / f"{name}.pt").update == verify_checkpoint(
            tmp_path / f"{name}.pt", resumable=False
        )
        for read in (read_checkpoint, lambda path: verify_checkpoint(path, resumable=True)):
            with pytest.raises(CheckpointError, match=rf"{name}\.pt: it is damaged: the state to resume from"):
                read(tmp_path / f"{name}.pt")
    for read in (load_policy, read_checkpoint, lambda path: verify_checkpoint(path, resumable=False)):
        with pytest.raises(CheckpointError, match=r"c\.pt: it is damaged: its weights are not what was saved"):
            read(tmp_path / "c.pt")
    assert read_header(tmp_path / "c.pt").update == 12  # says nothing of weights


def test_language_models_weights_and_state_are_checked(tmp_path):
    content = read_more(save_model(tmp_path / "a.pth"))
    name = next(iter(content["model_state_dict"]))
    data = (tmp_path / "a.pth").read_bytes()
    flip_in(tmp_path / "a.pth", content["optimizer_state_dict"]["state"][0]["exp_avg"])
    load_model(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="the state to resume from is not what was saved"):
        read_more(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(data)
    flip_in(tmp_path / "a.pth", content["model_state_dict"][name])
    with pytest.raises(CheckpointError, match="its weights are not what was saved"):
        load_model(tmp_path / "a.pth")


def test_a_file_without_digests_loads_and_its_zip_s_own_sums_are_checked(tmp_path):
    """Checkpoints of before there were digests, and foreign ones."""
    path = tmp_path / "old.pt"
    content = make_content(TrainConfig(**SMALL))
    torch.save({**content, "schema_version": 1}, path)
    assert load_policy(path).update == read_checkpoint(path)["update"] == 12
    flip_in(path, content["policy_state_dict"]["head.weight"])
    for read in (load_policy, read_checkpoint):
        with pytest.raises(CheckpointError, match=r"old\.pt: it is damaged"):
            read(path)


@pytest.mark.parametrize("record", ["data.pkl", "byteorder"])
def test_what_is_no_tensor_is_checked_at_each_opening(tmp_path, record):
    path = save_policy(tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(record))
        content = archive.read(name)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pt: it is damaged: its content"):
        read_header(path)


# ------------------------------------------------------------------------------------------------------- what to do


def sound(**updates: int) -> Callable[[Path], int]:
    def check(path: Path) -> int:
        if path.stem not in updates:
            raise CheckpointError("damaged too")
        return updates[path.stem]

    return check


def test_the_newest_sound_checkpoint_is_named_and_what_stands_before_it():
    error, files = CheckpointError("d.pt: is damaged"), [Path("run", f"{name}.pt") for name in "dcba"]
    text = str(explain_damage(error, files[0], files[1:], sound(a=1, b=2)))
    assert text.startswith(f"d.pt: is damaged. The newest sound checkpoint before it is {files[2]}, of update 2. ")
    assert text.endswith("delete or rename d.pt and c.pt, and pass --resume")
    assert str(explain_damage(error, files[0], files[1:], sound())).endswith(
        "run has no sound one to go on from: --overwrite starts afresh"
    )
