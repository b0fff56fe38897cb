"""What foreign pickles hold beside plain data: read where it is data in another dress, refused by name elsewhere."""

import argparse
import collections
import datetime
import fractions
import pickle
import types
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch

from pipeline.checkpoints import CheckpointError, load_policy, read_checkpoint
from pipeline.plain_objects import NumpyArray
from tests.checkpoints import make_foreign, save_foreign

PLAIN = {
    "str_": (np.str_("GoToObj"), "GoToObj"),
    "empty str_": (np.str_(""), ""),
    "bytes_": (np.bytes_(b"ab"), b"ab"),
    "bool_": (np.bool_(True), True),
    "complex64": (np.complex64(1 + 2j), 1 + 2j),
    "big-endian": (np.array([1, 2], ">i4"), [1, 2]),
    "by columns": (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
    "texts": (np.array(["a", "bcd"]), ["a", "bcd"]),
    "no dimension": (np.array(3.5), 3.5),
    "no values": (np.zeros(0), []),
    "path": (PurePosixPath("/a/b"), "/a/b"),
    "this system's path": (Path("a/b"), str(Path("a/b"))),
    "windows path": (PureWindowsPath("C:\\a\\b"), "C:\\a\\b"),
    "namespace": (argparse.Namespace(lr=1, root=PurePosixPath("x")), {"lr": 1, "root": "x"}),
    "simple namespace": (types.SimpleNamespace(a=[1]), {"a": [1]}),
    "defaultdict": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "ordered dict": (collections.OrderedDict(a=1), {"a": 1}),
    "device": (torch.device("cpu"), torch.device("cpu")),
    "dtype": (torch.float16, torch.float16),
    "bytes": (b"", b""),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_data_in_another_dress_is_read(tmp_path, zipped):
    content = make_foreign(extra={name: value for name, (value, _) in PLAIN.items()})
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "old.pt")["extra"]
    for name, (_, expected) in PLAIN.items():
        value = found[name].tolist() if isinstance(found[name], NumpyArray) else found[name]
        assert value == expected, name
    numpy_like = [name for name, value in found.items() if type(value).__module__.startswith("numpy")]
    assert numpy_like == []


@pytest.mark.parametrize("wrap", [dict, lambda fields: argparse.Namespace(**fields)])
def test_a_foreign_config_may_hold_them(tmp_path, wrap):
    fields = {"task_id": np.str_("BabyAI-GoToObj-v0"), "lr": np.array(0.25), "trial": np.array([3])[0]}
    config = wrap({**fields, "checkpoint_dir": Path("x"), "sizes": np.arange(3), "device": torch.device("cpu")})
    loaded = load_policy(save_foreign(tmp_path / "old.pt", make_foreign(config=config)))
    assert (loaded.config.task_id, loaded.config.lr, loaded.config.trial) == ("BabyAI-GoToObj-v0", 0.25, 3)


class Sealed:
    """Neither plain nor known."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Sealed(), f"{__name__}.Sealed"),
        (fractions.Fraction(1, 2), "fractions.Fraction"),
        (datetime.timedelta(1), "datetime.timedelta"),
        (print, "print"),
        (np.array([None]), "numpy array of objects|numpy values of type object"),
        (np.zeros(2, "i4,f4"), "a numpy array of records"),
        (np.datetime64("2020-01-01"), "numpy values of type datetime64"),
        (np.random.default_rng(0), "numpy.random._pickle"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_is_not_is_refused_by_name(tmp_path, value, named, zipped):
    torch.save(make_foreign(extra=value), tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"old\.pt: holds .*({named}).*can run code"):
        read_checkpoint(tmp_path / "old.pt")


def test_all_kinds_of_objects_are_named_at_once(tmp_path):
    path = save_foreign(tmp_path / "old.pt", make_foreign(extra=[Sealed(), fractions.Fraction(1)]))
    with pytest.raises(CheckpointError, match=rf"holds fractions\.Fraction, {__name__}\.Sealed, and"):
        read_checkpoint(path)


def test_a_pickle_of_another_protocol_is_told_as_such(tmp_path):
    torch.save(make_foreign(), tmp_path / "old.pt", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="another protocol"):
        read_checkpoint(tmp_path / "old.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(make_foreign(), protocol=5))
    with pytest.raises(CheckpointError, match=r"another protocol|empty, damaged"):
        read_checkpoint(tmp_path / "bare.pt")


class Call:
    """Pickles as a call of a function that is known by name, with arguments that nobody pickles."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "hostile",
    [
        Call(int, "9" * 5),
        Call(list, "abc"),
        Call(bytes, 10**6),
        Call(np.dtype, "O"),
        Call(np.ndarray, (3,), "O"),
        Call(Path, 7),
        Call(eval, "1"),
        Call(getattr, "text", "upper"),
    ],
    ids=lambda call: str(call.call),
)
def test_no_function_of_another_library_is_called(tmp_path, hostile):
    """A call is refused, or makes an empty stand-in and nothing else."""
    path = save_foreign(tmp_path / "old.pt", make_foreign(extra=hostile))
    try:
        extra = read_checkpoint(path)["extra"]
    except CheckpointError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert type(extra).__module__ == "pipeline.plain_objects"
