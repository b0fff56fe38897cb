"""The one main of all commands: exit codes, one line for a mistake, signals, and readers that have gone."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from babyai.errors import UnknownTaskError
from pipeline.command.cli import Parser
from pipeline.command.errors import ConfigError, FolderError, explain
from pipeline.command.interruption import Interruption, Terminated
from pipeline.command.shell import as_command
from tests.torch_defaults import every_default

ROOT = Path(__file__).parents[3]


def run(body, **options) -> int:
    return as_command(**options)(body)()


def fail_with(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (143, 143)])
def test_what_a_command_returns_is_its_exit_code(returned, code):
    assert run(lambda: returned) == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("lr: expected a number,\nfound none"), "lr: expected a number, found none"),
        (FolderError("no"), "no"),
        (UnknownTaskError("GoTo"), "GoTo"),
        (FileNotFoundError(2, "No such file", "a.pt"), "a.pt: No such file"),
        (OSError("full"), "full"),
    ],
)
def test_a_mistake_that_can_be_mended_is_told_in_one_line(error, line, capsys):
    assert run(fail_with(error)) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert explain(error) == line


@pytest.mark.parametrize(("encoding", "written"), [("ascii", b"\\u2019 1\n"), ("ascii:replace", b"? 1\n")])
def test_what_the_encoding_lacks_is_written_in_its_place(encoding, written):
    program = "from pipeline.command.shell import as_command; as_command()(lambda: print(chr(0x2019), 1))()"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (written, b"", 0)


def test_afterwards_the_output_is_as_it_was(capsys):
    before = sys.stdout.errors
    assert run(lambda: print(chr(0xDC80))) == 0
    assert sys.stdout.errors == before
    assert capsys.readouterr().out == "\\udc80\n"


def test_a_mistake_of_the_program_is_none_of_the_user():
    with pytest.raises(KeyError):
        run(fail_with(KeyError("x")))


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (Terminated(1), 129)])
def test_what_stops_a_command(error, code, capsys):
    assert run(fail_with(error), stopped="stopped; all is kept") == code
    assert capsys.readouterr().err == "stopped; all is kept\n"


def test_sigterm_is_heard_where_nothing_else_hears_it_and_only_within_a_command():
    def body():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    assert run(body) == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_second_signal_of_an_interruption_stops_at_once(monkeypatch):
    monkeypatch.setattr("pipeline.command.interruption.REPEAT_SECONDS", 0.0)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.stopping() and interruption.exit_code == 143
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
    assert Interruption(lambda: True).stopping() and not Interruption(lambda: False).stopping()


# ------------------------------------------------------------------------------------------------------- every command

MODULES = [
    *("eval_mop", "batch_eval", "plotting.command", "film.command", "film.contact_sheet"),
    *("more.commands:train", "more.commands:evaluate", "more.commands:evaluate_for_llm", "more.compare"),
    "maxent.reward_checks",
    *(f"benchmarks.{name}" for name in ("evaluation", "figures", "more", "policy", "sweep", "training", "world")),
]


def main_of(module: str):
    if module == "train_mop":
        return lambda argv: importlib.import_module("pipeline.training.command").main("", argv)
    module, _, name = module.partition(":")
    return getattr(importlib.import_module(module), name or "main")


@pytest.mark.parametrize("module", ["train_mop", *MODULES])
def test_every_command_tells_what_is_wrong_and_stops_like_the_others(module, monkeypatch, capsys):
    """`film` and `contact_sheet` showed a traceback on Ctrl-C."""
    main = main_of(module)
    beside = ["--cache", "a.json"] if module == "benchmarks.figures" else []  # argparse misses what is required first
    assert main([*beside, "--no_such_flag", "1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "no_such_flag" in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    for error, code in ((KeyboardInterrupt, 130), (Terminated, 143), (BrokenPipeError, 141), (ConfigError, 2)):

        def interrupt(*_, error=error):
            raise error

        monkeypatch.setattr(Parser, "parse_known_args", interrupt)
        assert main([]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_command_works(number, tmp_path):
    command = [sys.executable, "-m", "film.contact_sheet", "--task_id", "BossLevel", "--num_levels", "200"]
    process = subprocess.Popen(
        [*command, "--tile_size", "64", "--output", str(tmp_path / "sheet.png")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "BossLevel" not in process.stderr.read(20):  # its bar
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.endswith("stopped\n") and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@every_default
def test_a_command_makes_float32_whatever_its_caller_has_set(defaults):
    def body():
        made = torch.ones(2) @ torch.ones(2, 2)
        assert (made.dtype, made.device.type) == (torch.float32, "cpu")
        assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"

    with defaults():
        before = torch.get_default_dtype(), torch.get_default_device()
        assert run(body) == 0
        assert run(fail_with(ConfigError("lr: expected ..."))) == 2
        assert (torch.get_default_dtype(), torch.get_default_device()) == before


LISTING = """
from pipeline.command.shell import as_command
@as_command()
def main():
    for k in range(COUNT):
        print("a line")
raise SystemExit(main())
"""


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        (["-c", LISTING.replace("COUNT", "3")], (141,)),  # noticed when all is flushed
        (["-c", LISTING.replace("COUNT", "30000")], (141,)),
        (["-m", "babyai.levels"], (-signal.SIGPIPE,)),
        (["-m", "babyai.compiled.catalogue"], (-signal.SIGPIPE,)),
        (["train_mop.py", "--help"], (0, 141)),  # argparse does not mind
    ],
)
def test_a_reader_that_has_gone_is_no_error(arguments, codes):
    """As in `... | head -1`, when head has ended before the command prints."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in codes
