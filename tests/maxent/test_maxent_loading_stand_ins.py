"""--stand_in: who gets a small model in place of weights, what it learns from, where it is kept, how it is marked."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from maxent import experiment, loading, stand_ins
from maxent.data import catalogue
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.dts_implementation.models import stand_in as models
from maxent.registry import MODEL_CONFIGS
from maxent.settings import ExperimentSettings
from tests.maxent_networks import build_network, save_tokenizer

ROOT = Path(__file__).parents[2]
FLAGS = [*("--dataset", "sums", "--num_samples", "1", "--num_rollouts", "3", "--max_tokens", "3", "--device", "cpu")]
FLAGS += ["--stand_in", "--stand_in_steps", "2", "--no_wandb"]
SETTINGS = ExperimentSettings(dataset="sums", device="cpu", stand_in=True, stand_in_steps=2)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Return a folder with a stand-in of Phi-2 for sums, which nobody may change."""
    folder = tmp_path_factory.mktemp("kept")
    assert call("--models", "phi-2", folder=folder, output=folder / "results") == 0
    return folder


def call(*flags, folder, output):
    return experiment.main([*FLAGS, *flags, "--stand_in_dir", str(folder / "stand_ins"), "--output_dir", str(output)])


def find_stand_in(folder):
    (found,) = (folder / "stand_ins").iterdir()
    return found


def read_runs(output):
    (path,) = output.glob("*.json")
    return json.loads(path.read_text())["runs"]


def test_a_stand_in_is_announced_marked_and_kept(kept, tmp_path, capsys):
    (run,) = read_runs(kept / "results")
    assert (run["weights"], run["display_name"], run["kv"]) == ("stand-in", "Phi-2 (stand-in)", "packed")
    assert run["source"] == str(find_stand_in(kept)) and run["color"] == MODEL_CONFIGS["phi-2"]["color"]
    assert call("--models", "phi-2", "toy", folder=kept, output=tmp_path) == 0
    shown = capsys.readouterr().out
    assert "training on" not in shown  # it was kept
    assert len(re.findall(r"weights: stand-in for microsoft/phi-2: phi, 0\.\d+ M parameters, trained here", shown)) == 1
    assert re.search(r"^Phi-2 \(stand-in\) +dts ", shown, re.MULTILINE) and re.search(
        r"^Toy +dts ", shown, re.MULTILINE
    )
    assert "answers of Phi-2 (stand-in), dts" in shown
    assert [one["weights"] for one in read_runs(tmp_path)] == ["stand-in", "toy"]


def test_training_says_how_far_it_is_where_there_is_no_bar(tmp_path):
    told = []
    settings = replace(SETTINGS, stand_in_dir=str(tmp_path), stand_in_steps=6)
    dataset = load_dataset("sums", DataSettings("synthetic"))
    loading.load("llama-7b", settings, dataset, told.append)
    assert "training on 720 texts, 6 steps; kept in " in told[0]
    assert [line.split(",")[0] for line in told[1:5]] == [f"  {step} of 6 steps" for step in (2, 3, 5, 6)]
    assert len(told) == 6 and "stand-in for meta-llama/Llama-2-7b-hf" in told[5]


def test_weights_and_biases_and_its_tags_know(kept, tmp_path, monkeypatch):
    seen = []

    class Run:
        def define_metric(self, *_, **__): ...
        def log(self, *_, **__): ...
        def finish(self, **__): ...

    wandb = type("wandb", (), {"init": staticmethod(lambda **options: seen.append(options) or Run())})
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    flags = [flag for flag in FLAGS if flag != "--no_wandb"]
    flags += ["--models", "phi-2", "--wandb_mode", "offline", "--experiment_name", "first", "--tags", "mine"]
    flags += ["--stand_in_dir", str(kept / "stand_ins"), "--output_dir", str(tmp_path)]
    assert experiment.main(flags) == 0
    (options,) = seen
    assert options["name"] == "first_Phi-2 (stand-in)"
    assert options["tags"] == [
        *("optimized", "monotonicity", "sums", "color:#F38181", "Phi-2 (stand-in)", "stand-in", "mine")
    ]
    assert options["config"]["weights"] == "stand-in" and options["config"]["display_name"] == "Phi-2 (stand-in)"


# ------------------------------------------------------------------------------------------------ who gets one, of what


def test_named_weights_and_what_is_no_model_of_the_hub_are_never_replaced():
    paths = ["phi-2=somewhere", "more=else.pth"]
    settings = ExperimentSettings(models=list(MODEL_CONFIGS), stand_in=True, model_path=paths)
    taken = [key for key in MODEL_CONFIGS if settings.takes_stand_in(key)]
    assert taken == ["llama-7b", "llama-13b", "mistral-7b", "gemma-7b"]
    assert not any(replace(settings, stand_in=False).takes_stand_in(key) for key in MODEL_CONFIGS)
    names = {key: settings.find_display_name(key) for key in MODEL_CONFIGS}
    assert (names["gemma-7b"], names["phi-2"], names["toy"]) == ("Gemma-7B (stand-in)", "Phi-2", "Toy")
    assert set(models.ARCHITECTURES) == {key for key, known in MODEL_CONFIGS.items() if known["name"] is not None}


def test_a_folder_of_weights_is_used_beside_a_stand_in(kept, tmp_path):
    folder = tmp_path / "network"
    build_network("llama", max_position_embeddings=256).save_pretrained(folder)
    save_tokenizer(folder)
    flags = ["--models", "phi-2", "llama-7b", "--model_path", f"llama-7b={folder}"]
    assert call(*flags, folder=kept, output=tmp_path / "results") == 0
    found = [(run["display_name"], run["weights"]) for run in read_runs(tmp_path / "results")]
    assert found == [("Phi-2 (stand-in)", "stand-in"), ("Llama-2-7B", "pretrained")]


def test_a_stand_in_is_marked_whoever_names_its_folder(kept, tmp_path):
    flags = ["--models", "llama-7b", "--model_path", f"llama-7b={find_stand_in(kept)}"]
    assert call(*flags, folder=kept, output=tmp_path) == 0
    (run,) = read_runs(tmp_path)
    assert (run["display_name"], run["weights"]) == ("Llama-2-7B (stand-in)", "stand-in")


def test_checkpoints_of_ours_are_asked_for_and_not_replaced(tmp_path, capsys):
    assert call("--models", "more", folder=tmp_path, output=tmp_path / "results") == 2
    assert "more: expected a checkpoint, --model_path more=PATH" in capsys.readouterr().err
    assert not (tmp_path / "stand_ins").exists()


def test_both_folders_of_the_command_share_stand_ins_and_data(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "maxent")
    assert stand_ins.find_folder(None).resolve() == ROOT / "data_cache" / "stand_ins"
    seen = []
    kind = replace(catalogue.DATASETS["M4"], find=lambda folder: seen.append(folder.resolve()))
    monkeypatch.setitem(catalogue.DATASETS, "M4", kind)
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    load_dataset("M4", DataSettings("auto", num_train=1, num_held_out=1))
    assert seen == [ROOT / "data"]
    monkeypatch.chdir(tmp_path)
    assert stand_ins.find_folder(None).resolve() == tmp_path / "data_cache" / "stand_ins"
    assert stand_ins.find_folder("x").resolve() == tmp_path / "x"


@pytest.mark.parametrize("real", [False, True])
def test_it_learns_from_generated_samples_of_the_seed_alone(real, monkeypatch):
    """Whether or not the questions are real: so it is one and the same."""
    seen = []
    monkeypatch.setattr(models, "build_stand_in", lambda key, samples, *_, **__: seen.append(samples))
    dataset = load_dataset("sums", DataSettings("synthetic", seed=3))
    asked = replace(dataset, real=True, splits={"train": [], "valid": [], "test": []}) if real else dataset
    stand_ins.train_stand_in("phi-2", replace(SETTINGS, seed=3), asked, print, lambda: None)
    learned = [sample.prompt for sample in seen[0]]
    assert learned == [sample.prompt for sample in dataset.splits["train"]]
    assert not set(learned) & {sample.prompt for sample in dataset.splits["test"]}


def test_make_maxent_runs_to_its_end(tmp_path, capsys):
    """With a training of two steps, and without what `ARGS` may add."""
    (line,) = re.findall(r"^maxent: .*\n\t\$\(RUN\) (.*) \$\(ARGS\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    script, *flags = line.split()
    assert script == "maxent/run_experiments_with_wandb.py" and "--stand_in" in flags
    flags += ["--stand_in_steps", "2", "--stand_in_dir", str(tmp_path / "kept"), "--output_dir", str(tmp_path / "out")]
    assert experiment.main(flags) == 0
    (run,) = read_runs(tmp_path / "out")
    assert (run["weights"], [len(sample["rollouts"]) for sample in run["samples"]]) == ("stand-in", [5, 5, 5])


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("damage", ["weights", "half", "missing", "info"])
def test_a_damaged_one_is_named_and_trained_anew(damage, kept, tmp_path, capsys):
    shutil.copytree(kept / "stand_ins", tmp_path / "stand_ins")
    place = find_stand_in(tmp_path)
    weights = place / "model.safetensors"
    content = weights.read_bytes()
    match damage:
        case "weights":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "half":
            weights.write_bytes(content[: len(content) // 2])
        case "missing":
            (place / "tokenizer.json").unlink()
        case "info":
            (place / "stand_in.json").write_text('{"files": ')
    assert call("--models", "phi-2", folder=tmp_path, output=tmp_path / "results") == 0
    shown = capsys.readouterr().out
    assert re.search(rf"{place} is damaged \(.*\); it is trained anew\n.*training on", shown)
    assert weights.read_bytes() == content
    assert read_runs(tmp_path / "results")[0]["status"] == "done"


def test_ctrl_c_within_training_leaves_nothing_and_the_same_call_goes_on(tmp_path):
    program = f"""
import os, signal, sys
from maxent import experiment, stand_ins
from maxent.dts_implementation.models import stand_in
whole = stand_in.train
def train(model, texts, settings, on_step):
    return whole(model, texts, settings, lambda loss: (os.kill(os.getpid(), {int(signal.SIGINT)}), on_step(loss)))
stand_in.train = train
sys.exit(experiment.main(sys.argv[1:]))
"""
    flags = [*FLAGS, "--models", "toy", "gemma-7b", "--stand_in_steps", "500"]
    flags += ["--stand_in_dir", str(tmp_path / "stand_ins"), "--output_dir", str(tmp_path / "results")]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "with --resume goes on" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "stand_ins").exists() or not any((tmp_path / "stand_ins").iterdir())
    assert [(run["status"], len(run["samples"])) for run in read_runs(tmp_path / "results")] == [
        *(("done", 1), ("waiting", 0))
    ]


def test_a_folder_that_cannot_be_written_fails_that_model_alone(tmp_path, capsys):
    (tmp_path / "stand_ins").write_text("a file")
    assert call("--models", "phi-2", "toy", folder=tmp_path, output=tmp_path / "results") == 1
    found = [(run["model"], run["status"]) for run in read_runs(tmp_path / "results")]
    assert found == [("phi-2", "failed"), ("toy", "done")]
    assert f"failed: Phi-2 (stand-in), dts: {tmp_path / 'stand_ins'}" in capsys.readouterr().err


def test_going_on_with_results_finds_the_stand_in(kept, tmp_path):
    assert call("--models", "phi-2", folder=kept, output=tmp_path) == 0
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    content["runs"][0].update(status="running", samples=[])
    path.write_text(json.dumps(content))
    assert call("--models", "phi-2", "--resume", folder=kept, output=tmp_path) == 0
    assert read_runs(tmp_path)[0]["samples"]
