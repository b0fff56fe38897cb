"""The language models' commands as a user types them, from the project's root and from within more/."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from more import commands
from more.checkpoints import read_checkpoint
from tests.more_settings import CACHE, small_flags

ROOT = Path(__file__).parents[2]


def start(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a model was trained by the command, in this process."""
    place = tmp_path_factory.mktemp("commands")
    before = Path.cwd()
    os.chdir(place)
    try:
        flags = small_flags(model_type="more_a", num_recurrences=2, cache_dir=CACHE)
        assert commands.train([*flags, "--sample_recurrences"]) == 0
    finally:
        os.chdir(before)
    return place


def test_a_run_that_diverges_has_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    assert commands.train(small_flags(cache_dir=CACHE)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"failed: update 0: the gradient is not finite .*lower --lr", last)


def test_training_writes_the_documented_files_and_tags(folder):
    final = folder / "checkpoints" / "more_a_rec2" / "final_model.pth"
    assert read_checkpoint(final)["training_config"]["sample_recurrences"] is True
    logs = folder / "runs" / "more_a_rec2"
    assert (logs / "metrics.jsonl").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs), size_guidance={"histograms": 0}).Reload()
    scalars = {"Loss/train", "Perplexity", "Learning_Rate"}
    scalars |= {f"Layer_{i}/{name}" for i in (0, 1) for name in ("Router_Entropy", "Load_Balance_CV")}
    assert scalars <= set(events.Tags()["scalars"])
    assert set(events.Tags()["histograms"]) == {f"Layer_{i}/Expert_Load_Distribution" for i in (0, 1)}
    histogram = events.Histograms("Layer_0/Expert_Load_Distribution")[-1].histogram_value
    line = json.loads((logs / "metrics.jsonl").read_text().splitlines()[-1])
    load = line["Layer_0/Expert_Load_Distribution"]
    # Bins between -1/2, 1/2, 3/2 ... hold the shares; what is left of them is empty.
    by_edge = dict(zip(histogram.bucket_limit, histogram.bucket, strict=True))
    assert [by_edge.get(expert + 0.5, 0.0) for expert in range(3)] == pytest.approx(load)
    assert histogram.num == pytest.approx(1)


def test_evaluation_prints_tables_and_writes_json(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    path = "checkpoints/more_a_rec2/final_model.pth"
    few = ["--num_questions", "6", "--max_documents", "10", "--cache_dir", CACHE, "--recurrences", "1,2"]
    assert commands.evaluate(["--model_type", "more_a", "--num_recurrences", "2", "--checkpoint_path", path, *few]) == 0
    out = capsys.readouterr().out
    assert "bAbI 2 (two facts)" in out
    assert "sample (temperature 0.7)" in out
    figures = json.loads((folder / "checkpoints" / "more_a_rec2" / "evaluation.json").read_text())
    assert set(figures["perplexity"]) == {"1", "2"}
    found = figures["questions"]["sums"]["2"]
    assert 0 <= found["exact_low"] <= found["exact"] <= found["exact_high"] <= 1
    assert commands.evaluate(["--checkpoint_path", path, "--num_recurrences", "4"]) == 2
    assert "num_recurrences: 4 was given" in capsys.readouterr().err
    assert commands.evaluate(["--checkpoint_path", "nothing.pth"]) == 2
    assert "nothing.pth: cannot be read" in capsys.readouterr().err
    assert commands.evaluate([]) == 2
    assert "--checkpoint_path: expected a value" in capsys.readouterr().err


def test_questions_become_a_table_and_a_page(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    path = "checkpoints/more_a_rec2/final_model.pth"
    flags = ["--checkpoint_path", path, "--babi_task_id", "2", "--num_questions", "4"]
    assert commands.evaluate_for_llm([*flags, "--output_csv", "out/evaluation_results.csv"]) == 0
    with (folder / "out" / "evaluation_results.csv").open(newline="") as handle:
        assert len(list(csv.DictReader(handle))) == 4
    page = (folder / "out" / "evaluation_results.html").read_text()
    assert "<svg" in page
    assert re.search(r"; 4 of \d+ test questions", page)
    assert commands.evaluate_for_llm([*flags, "--output_csv", "out/evaluation_results.csv"]) == 0  # again
    assert "bAbI 2: written right" in capsys.readouterr().out
    policies = folder / "evaluation_results.csv"
    policies.write_text("checkpoint_path,task_id,trial\nx,y,1\n")
    assert commands.evaluate_for_llm([*flags, "--output_csv", policies.name]) == 2
    assert capsys.readouterr().err == (
        "error: output_csv: evaluation_results.csv holds something else (the policies' results, which batch_eval.py "
        "writes), which would be lost; name another file, such as --output_csv more_evaluation_results.csv\n"
    )
    assert policies.read_text().startswith("checkpoint_path,task_id")
    assert commands.evaluate_for_llm([*flags[:2], "--babi_task_id", "7"]) == 2
    assert "expected 1, 2 or 3, found 7" in capsys.readouterr().err
    before = sorted(folder.rglob("*"))
    for outputs, said in (
        (["--output_csv", "out"], "output_csv: expected a file, found the folder out"),
        (["--output_csv", "answers.html"], "expected two files, found answers.html for both"),
        (["--output_html", "out"], "output_html: expected a file, found the folder out"),
        (["--output_html", path], "holds something else"),
        (["--output_csv", f"{policies.name}/x.csv"], "output_csv: expected a folder, found the file"),
    ):
        assert commands.evaluate_for_llm([*flags, *outputs]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_an_evaluation_is_not_lost_on_a_folder(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    flags = ["--checkpoint_path", "checkpoints/more_a_rec2/final_model.pth", "--cache_dir", CACHE]
    assert commands.evaluate([*flags, "--output", "checkpoints"]) == 2
    assert (
        capsys.readouterr().err == "error: output: expected a file, found the folder checkpoints; name a file in it\n"
    )
    before = Path(flags[1]).read_bytes()
    assert commands.evaluate([*flags, "--output", flags[1]]) == 2
    assert "output: expected a name ending in .json" in capsys.readouterr().err
    assert Path(flags[1]).read_bytes() == before


def test_mistakes_in_flags_are_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for flags, said in (
        (["--model_type", "more_e"], "model_type: expected one of base, more_a"),
        (["--nonsense", "1"], "unknown key 'nonsense'"),
        (["--preset", "debug", "--updates", "0"], "updates: expected at least 1"),
        (["--preset", "debug", "--d_model", "30"], "d_model: expected a multiple of"),
        (["--preset", "debug", "--data_dir", "/no/such/folder"], "data_dir: expected a folder"),
    ):
        assert commands.train(flags) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert said in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_commands_run_as_files_from_the_root_and_from_within_more(tmp_path):
    """Relative paths mean the caller's folder, and no module beside the script takes another's place."""
    flags = small_flags(updates=2, cache_dir=CACHE, tensorboard="false")
    outputs = ["--checkpoint_dir", str(tmp_path / "checkpoints"), "--log_dir", str(tmp_path / "runs")]
    rooted = start("more/train.py", *flags, *outputs, cwd=ROOT)
    assert rooted.returncode == 0, rooted.stderr
    path = str(tmp_path / "checkpoints" / "base_rec1" / "final_model.pth")
    inside = start("train.py", *flags, *outputs, cwd=ROOT / "more")
    assert inside.returncode == 0, inside.stderr
    assert "complete (2 updates)" in inside.stdout  # the same run, found where it was put
    away = start(
        str(ROOT / "more" / "evaluate.py"),
        "--checkpoint_path",
        "checkpoints/base_rec1/final_model.pth",
        "--num_questions",
        "2",
        "--max_documents",
        "2",
        "--cache_dir",
        CACHE,
        "--output",
        "e.json",
        cwd=tmp_path,
    )
    assert away.returncode == 0, away.stderr
    assert (tmp_path / "e.json").is_file()
    table = start(
        "evaluate_for_llm.py",
        "--checkpoint_path",
        path,
        "--num_questions",
        "2",
        "--output_csv",
        str(tmp_path / "t.csv"),
        cwd=ROOT / "more",
    )
    assert table.returncode == 0, table.stderr
    assert (tmp_path / "t.html").is_file()


def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path):
    flags = small_flags(updates=100000, cache_dir=CACHE, tensorboard="false", log_interval=1)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "more" / "train.py"), *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have made its children deaf to Ctrl-C.
    )
    log = tmp_path / "runs" / "base_rec1" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume continues from there" in out
    (path,) = (tmp_path / "checkpoints" / "base_rec1").iterdir()
    content = torch.load(path, weights_only=True)
    assert content["update"] >= 2
    assert "optimizer_state_dict" in content


def test_the_page_is_opened_where_there_is_a_browser_unless_it_is_not_wished(folder, monkeypatch):
    monkeypatch.chdir(folder)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    flags = ["--checkpoint_path", "checkpoints/more_a_rec2/final_model.pth", "--num_questions", "2"]
    assert commands.evaluate_for_llm(flags) == 0  # what is printed goes to no terminal
    assert opened == []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert commands.evaluate_for_llm([*flags, "--no_browser"]) == 0
    assert opened == []
    assert commands.evaluate_for_llm(flags) == 0
    assert opened == [(folder / "checkpoints" / "more_a_rec2" / "babi_2.html").resolve().as_uri()]
    monkeypatch.setenv("SSH_CONNECTION", "there 1 here 22")
    assert commands.evaluate_for_llm(flags) == 0
    assert len(opened) == 1


def test_train_at_the_root_names_the_language_models_command(tmp_path):
    """The user's guide has `python train.py --model_type ...`, typed within more/."""
    for script in ("train.py", "train_mop.py"):
        done = start(str(ROOT / script), "--model_type", "more_a", "--num_recurrences", "4", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: unknown key 'model_type'; the language models' commands have it: python more/train.py, "
            "more/evaluate.py\n"
        )


@pytest.mark.parametrize("name", ["evaluation_results.csv", "evaluation_results.html", "more/evaluation_results.html"])
def test_what_the_documented_command_writes_is_ignored_by_git(name):
    done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
    if done.returncode == 128:
        pytest.skip("no clone of a repository")
    assert done.returncode == 0
