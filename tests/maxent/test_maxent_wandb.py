"""Experiments and Weights & Biases: what it is told, and experiments without it."""

import sys
import types

import pytest

from tests.maxent_experiments import call, read_lines


class UsageError(Exception):
    """As wandb has it, where it has no key."""


@pytest.fixture
def fake_wandb(monkeypatch):
    """Replace wandb by a recorder of what `init` is told and of what is logged."""
    calls = []

    class Run:
        def define_metric(self, *_, **__):
            pass

        def log(self, values):
            calls.append(("log", values))

        def finish(self, **options):
            calls.append(("finish", options))

    def init(**options):
        calls.append(("init", options))
        return Run()

    module = types.SimpleNamespace(init=init, login=lambda: True, calls=calls)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_of_weights_and_biases_for_each_model_and_method(tmp_path, fake_wandb):
    assert call("--experiment_name", "first", "--methods", "dts", "mcts", "--tags", "mine", output=tmp_path) == 0
    started = [options for name, options in fake_wandb.calls if name == "init"]
    assert [one["name"] for one in started] == ["first_Toy_dts", "first_Toy_mcts"]
    assert {(one["project"], one["mode"]) for one in started} == {("maxent-ts-optimized", "online")}
    assert started[0]["tags"] == ["optimized", "monotonicity", "M4", "color:#888888", "Toy", "mine"]
    assert started[0]["tags"] is not started[1]["tags"]
    assert started[0]["config"]["color"] == "#888888" and started[0]["config"]["weights"] == "toy"
    logged = [values for name, values in fake_wandb.calls if name == "log"]
    lines = read_lines(tmp_path, "toy_dts") + read_lines(tmp_path, "toy_mcts")
    assert logged == [{key: value for key, value in line.items() if value is not None} for line in lines]
    assert [options for name, options in fake_wandb.calls if name == "finish"] == [{"exit_code": 0}] * 2


@pytest.mark.parametrize(
    ("flags", "mode"),
    [(["--wandb_mode", "offline"], "offline"), (["--wandb_mode", "disabled"], None), (["--no_wandb"], None)],
)
def test_modes_of_weights_and_biases(flags, mode, tmp_path, fake_wandb):
    fake_wandb.login = None  # is not asked
    assert call(*flags, output=tmp_path) == 0
    assert [options["mode"] for name, options in fake_wandb.calls if name == "init"] == ([mode] if mode else [])
    assert len(read_lines(tmp_path, "toy_dts")) == 2 * 4 + 1


def test_without_a_key_its_files_stay_here(tmp_path, fake_wandb, capsys):
    def login():
        raise UsageError("api_key not configured (no-tty)")

    fake_wandb.login = login
    assert call(output=tmp_path) == 0
    captured = capsys.readouterr()
    assert "api_key not configured" in captured.out and "`wandb sync`" in captured.out
    assert [options["mode"] for name, options in fake_wandb.calls if name == "init"] == ["offline"]
    (name,) = [options["name"] for kind, options in fake_wandb.calls if kind == "init"]
    assert name.startswith("Toy_2")


def test_one_that_cannot_begin_is_done_without(tmp_path, fake_wandb, capsys):
    def init(**_):
        raise UsageError("no network")

    fake_wandb.init = init
    assert call(output=tmp_path) == 0
    captured = capsys.readouterr()
    assert "no network" in captured.out + captured.err and "goes on without it" in captured.out + captured.err
    assert len(read_lines(tmp_path, "toy_dts")) == 2 * 4 + 1


def test_one_that_is_not_installed_is_announced(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert call(output=tmp_path) == 0
    assert "Weights & Biases is not installed (pip install wandb)" in capsys.readouterr().out
