"""maxent/run_experiments_with_wandb.py: as a command from both folders, and in this process."""

import dataclasses
import re
import subprocess
import sys

import pytest

from maxent import experiment
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.dts_implementation.search.maxent_ts import search
from maxent.loading import PhraseToy, list_phrases
from maxent.registry import MODEL_CONFIGS
from maxent.results import describe_rollout
from maxent.rewards.catalogue import build_scorer
from maxent.settings import ExperimentSettings, join_lists, read_command
from pipeline.checkpoint_files import compute_digest
from pipeline.command.errors import ConfigError
from pipeline.command.folders import hold_lock
from pipeline.command.launcher import HERE
from tests.maxent_experiments import ROOT, TINY, call, read_lines, read_results, run, without_times
from tests.maxent_networks import build_network, save_more, save_tokenizer

# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("folder", "path"), [("maxent", "run_experiments_with_wandb.py"), (".", "maxent/run_experiments_with_wandb.py")]
)
def test_the_command_runs_from_both_folders_and_the_toy_needs_no_torch(folder, path, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")
    output = tmp_path / "results"
    done = run(folder, path, *TINY, "--no_wandb", "--output_dir", str(output), env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "data: M4, synthetic" in done.stdout and "weights: toy (built in), data: synthetic" in done.stdout
    assert "dts, sample 2/2: best reward " in done.stdout and "Results saved to: " in done.stdout
    content = read_results(output)
    assert content["status"] == "done" and [one["status"] for one in content["runs"]] == ["done"]
    assert [len(sample["rollouts"]) for sample in content["runs"][0]["samples"]] == [3, 3]


def test_the_list_of_models_needs_this_folder_only():
    program = "import sys; from run_experiments_with_wandb import MODEL_CONFIGS; print(list(MODEL_CONFIGS.keys())); "
    program += "print({'torch', 'wandb', 'numpy', 'maxent', 'pipeline'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "maxent", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(list(MODEL_CONFIGS)), "set()"]


def test_the_help_needs_no_torch_and_names_all_flags(tmp_path):
    for name in ("torch", "wandb", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise ImportError\n")
    done = run("maxent", "run_experiments_with_wandb.py", "--help", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    seed = "models dataset num_samples num_rollouts max_tokens device experiment_name tags no_wandb".split()
    for name in (*seed, "methods", "lam", "epsilon", "kv", "model_path", "stand_in", "resume", "preset", "config"):
        assert f"--{name} " in done.stdout or f"--{name}\n" in done.stdout


def test_spaced_lists_and_presets():
    assert join_lists(["--models", "toy", "phi-2", "--lam", "1", "--tags=a"]) == [
        *("--models", '["toy", "phi-2"]', "--lam", "1", "--tags", '["a"]')
    ]
    assert join_lists(["--models", "[toy, phi-2]", "--methods"]) == ["--models", "[toy, phi-2]", "--methods"]
    assert read_command([]) == (ExperimentSettings(), False, HERE)
    assert read_command([])[0].models == ["llama-7b"]
    quick, resume, _ = read_command(["--preset", "quick", "--num_rollouts", "7", "--models", "toy", "more", "--resume"])
    assert (quick.num_samples, quick.num_rollouts, quick.max_tokens, resume) == (3, 7, 30, True)
    assert quick.models == ["toy", "more"]


def test_a_preset_counts_before_the_settings_are_checked():
    assert read_command(["--preset", "quick", "--budget_tokens", "40"])[0].max_tokens == 30
    with pytest.raises(ConfigError, match="budget_tokens: expected at least 49"):
        read_command(["--budget_tokens=40"])
    with pytest.raises(ConfigError, match="--preset: expected one of quick, found 'quik'"):
        read_command(["--preset=quik"])
    with pytest.raises(ConfigError, match="--preset: expected a value"):
        read_command(["--preset"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models", "toy", "gpt-9"], "models: expected one or several of llama-7b, .*model_path.*found 'gpt-9'"),
        (["--models", "toy", "toy"], "models: expected at least one, and each once"),
        (["--models"], "--models: expected a value"),
        (["--methods", "dts", "astar"], "methods: expected one or several of dts, .*found 'astar'"),
        (["--num_rollouts", "0"], "num_rollouts: expected at least 1, found 0"),
        (["--num_samples", "many"], "num_samples: expected int, found 'many'"),
        (["--lam", "0"], "lam: expected a number above 0, found 0"),
        (["--top_p", "2"], "top_p: expected a number above 0 and up to 1"),
        (["--dataset", "M5"], "dataset: expected one of M4, HAR, TSQA, sums, stories, or .*; found 'M5'"),
        (["--reward", "activity"], "reward: activity cannot judge M4"),
        (["--model_path", "phi-2"], "model_path: expected KEY=PATH .*found 'phi-2'"),
        (["--model_path", "phi-2=a", "phi-2=b"], "model_path: expected one path for phi-2, found a and b"),
        (["--preset", "slow"], "--preset: expected one of quick, found 'slow'"),
        (["--answer", "vote"], "answer: vote needs labels, which M4 has none of"),
        (["--budget_tokens", "2"], "budget_tokens: expected at least 3, .*max_tokens 4 fits, found 2"),
        (["--stand_in_steps", "0"], "stand_in_steps: expected at least 1, found 0"),
        (["--stand_in_dir", ""], "stand_in_dir: expected a text, found an empty one"),
        (["--resume"], "--resume: expected results of the same settings .*found none of 0"),
        (["--models", "more"], "failed: MoRE, dts: more: expected a checkpoint, --model_path more=PATH"),
        (["--models", "more", "--model_path", "more=nowhere.pth"], "expected a folder or a file, found nothing there"),
        (["--models", "phi-2", "--model_path", "phi-2=nowhere"], "expected a folder or a file, found nothing there"),
    ],
)
def test_bad_input_is_refused_in_one_line(flags, words, tmp_path, capsys):
    assert call("--no_wandb", *flags, output=tmp_path) == 2  # of a flag that is given twice the last counts
    captured = capsys.readouterr().err
    assert re.search(words, captured), captured
    assert "Traceback" not in captured


def test_weights_that_cannot_be_had_name_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert call("--models", "mistral-7b", "--no_wandb", output=tmp_path / "results") == 2
    captured = capsys.readouterr()
    for word in ("mistralai/Mistral-7B-v0.1", "--model_path mistral-7b=PATH", "--stand_in"):
        assert word in captured.err


# --------------------------------------------------------------------------------------------------------- the records


def test_results_and_metrics_are_the_search_s_own_records(tmp_path):
    methods = ["dts", "mcts", "greedy"]
    assert call("--no_wandb", "--methods", *methods, output=tmp_path) == 0
    content = read_results(tmp_path)
    dataset = load_dataset("M4", DataSettings("synthetic"))
    model = PhraseToy(list_phrases(dataset))
    scorer = build_scorer(None, dataset)
    settings = ExperimentSettings(**content["settings"])
    for run_part, method in zip(content["runs"], methods, strict=True):
        records = []
        for index, kept in enumerate(run_part["samples"]):
            sample = dataset.splits["test"][index]
            seed = experiment.derive_sample_seed(settings.seed, index)
            result = search(model, sample.prompt, scorer.bind(sample), settings.build_search(method, seed))
            expected = [describe_rollout(rollout) for rollout in result.rollouts]
            assert without_times(kept["rollouts"]) == without_times(expected)
            assert kept["best_reward"] == result.rewards.max()
            assert kept["answer"]["text"] == result.best.text and kept["cost"]["new"] == result.cost.new
            records += result.rollouts
        lines = read_lines(tmp_path, f"toy_{method}")
        rollouts = [line for line in lines if "rollout_reward" in line]
        assert [line["update"] for line in lines] == list(range(1, len(lines) + 1))
        for line, rollout in zip(rollouts, records, strict=True):
            names = ("rollout_reward", "rollout_idx", "nodes_explored", "best_so_far", "log_weight", "output_length")
            values = (rollout.reward, rollout.index, rollout.nodes, rollout.best_so_far, rollout.log_weight)
            assert tuple(line[name] for name in names) == (*values, len(rollout.text))
        final = {name.removeprefix("final/"): value for name, value in lines[-1].items() if name.startswith("final/")}
        assert final == run_part["summary"] and final["samples_completed"] == 2
        assert "sample_1/best_reward" in lines[-2]
    assert content["runs"][1]["samples"][0]["search"]["log_z"] is None  # it has no density
    rows = {row["method"]: row for row in content["comparison"]}
    assert rows["dts"]["rollouts"] == 3 and rows["greedy"]["rollouts"] == 1


def test_a_model_that_fails_stops_no_other(tmp_path, capsys, monkeypatch):
    searched = experiment.search_sample

    def fail(method, sample, index, *others):
        if method == "mcts" and index == 1:
            raise RuntimeError("CUDA error: device-side assert\ntriggered")
        return searched(method, sample, index, *others)

    monkeypatch.setattr(experiment, "search_sample", fail)
    flags = ["--models", "more", "toy", "--methods", "mcts", "dts", "--no_wandb"]
    assert call(*flags, output=tmp_path) == 1
    content = read_results(tmp_path)
    found = {(one["model"], one["method"]): (one["status"], len(one["samples"])) for one in content["runs"]}
    assert found == {
        ("more", "mcts"): ("failed", 0),
        ("more", "dts"): ("failed", 0),
        ("toy", "mcts"): ("failed", 1),
        ("toy", "dts"): ("done", 2),
    }
    assert content["status"] == "failed"
    captured = capsys.readouterr()
    assert "failed: Toy, mcts: RuntimeError: CUDA error: device-side assert triggered" in captured.err
    assert "in fail\n" in content["runs"][2]["error"]["traceback"] and content["runs"][0]["error"]["traceback"] is None
    monkeypatch.setattr(experiment, "search_sample", searched)
    assert call(*flags, "--resume", output=tmp_path) == 1  # more is still missing
    found = {(one["model"], one["method"]): one["status"] for one in read_results(tmp_path)["runs"]}
    assert found[("toy", "mcts")] == "done"


@pytest.mark.parametrize(
    ("dataset", "method"), [("HAR", "dts"), ("TSQA", "mh"), ("sums", "beam"), ("stories", "dts_star")]
)
def test_every_dataset_and_a_vote(dataset, method, tmp_path):
    flags = ["--dataset", dataset, "--methods", method, "--answer", "vote", "--reward", "likelihood", "--no_wandb"]
    assert call(*flags, output=tmp_path) == 0
    (part,) = read_results(tmp_path)["runs"]
    assert 0 <= part["scores"]["accuracy"]["value"] <= 1 and part["scores"]["accuracy"]["n"] == 2


def test_a_folder_of_the_library_and_a_checkpoint_of_ours(tmp_path):
    folder = tmp_path / "network"
    build_network("llama", max_position_embeddings=256).save_pretrained(folder)
    save_tokenizer(folder)
    flags = ["--models", "toy", "phi-2", "--model_path", f"phi-2={folder}", "--methods", "dts", "greedy", "--no_wandb"]
    assert call(*flags, "--dataset", "sums", "--device", "cpu", output=tmp_path / "results") == 0
    runs = {(one["model"], one["method"]): one for one in read_results(tmp_path / "results")["runs"]}
    found = runs[("phi-2", "dts")]
    assert (found["weights"], found["source"], found["kv"]) == ("pretrained", str(folder), "packed")
    assert found["digest"] == compute_digest(build_network("llama", max_position_embeddings=256).state_dict())
    assert [len(sample["rollouts"]) for sample in found["samples"]] == [3, 3]
    path = save_more(tmp_path / "model.pth")
    flags = ["--models", "more", "--model_path", f"more={path}", "--dataset", "sums", "--device", "cpu", "--no_wandb"]
    assert call(*flags, output=tmp_path / "more") == 0
    (found,) = read_results(tmp_path / "more")["runs"]
    assert (found["weights"], found["display_name"]) == ("pretrained", "MoRE")


def test_a_story_that_no_program_solves_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    dataset = load_dataset("stories", DataSettings(source="synthetic"))
    first, second, third = dataset.splits["test"][:3]
    frame = dataclasses.replace(second.frame, opening=f"Mary fled to the attic.\n{second.frame.opening}")
    unread = dataclasses.replace(second, frame=frame)
    asked = dataclasses.replace(dataset, splits={**dataset.splits, "test": [first, unread, third]})
    monkeypatch.setattr(experiment, "load_questions", lambda settings: asked)
    assert call("--dataset", "stories", "--num_samples", "3", "--no_wandb", output=tmp_path) == 0
    (part,) = read_results(tmp_path)["runs"]
    assert [sample["id"] for sample in part["samples"]] == [first.id, third.id]
    assert "reward: programmatic cannot judge 1 of 3 samples, left out" in capsys.readouterr().out


def test_a_folder_that_holds_no_model_says_what_it_lacks(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    flags = ["--models", "phi-2", "more", "--model_path", f"phi-2={tmp_path / 'empty'}", f"more={tmp_path / 'no.pth'}"]
    assert call(*flags, "--no_wandb", "--device", "cpu", output=tmp_path / "results") == 2
    captured = capsys.readouterr().err
    assert "expected a causal language model and its tokenizer" in captured and "--model_path" in captured
    assert "failed: MoRE, dts: " in captured and "no.pth" in captured


def test_two_at_once_do_not_go_on_with_the_same_results(tmp_path, capsys):
    assert call("--no_wandb", output=tmp_path) == 0
    (path,) = tmp_path.glob("*.json")
    with hold_lock(path.with_name(f".{path.name}.lock"), 0):
        assert call("--no_wandb", "--resume", output=tmp_path) == 2
    assert "another process is at work on it" in capsys.readouterr().err
