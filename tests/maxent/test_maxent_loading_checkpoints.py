"""Checkpoints of ours as models: MoRE on what its training held out, a BabyAI policy on the levels of evaluation."""

import json
import re

import numpy as np
import pytest
import torch

from babyai.level_seeds import EVALUATION_SEED, evaluation_seeds
from babyai.missions import build_mission_encoder
from maxent import experiment
from maxent.dts_implementation.models.more_model import load_more
from maxent.loading import load
from maxent.questions import load_questions
from maxent.rewards.programmatic import solve
from maxent.settings import ExperimentSettings
from more.data import DataSettings, open_source
from more.stories import generate
from pipeline.checkpoints import load_policy, save_checkpoint
from pipeline.config import TrainConfig
from pipeline.evaluation.play import evaluate
from pipeline.policies import build_policy
from tests.checkpoints import make_content
from tests.maxent_networks import EMBEDDED, save_more

TASK = "BabyAI-GoToObjS4-v0"
SIZES = [[0, 4, 8], [0, 6]]


def call(*flags, output):
    return experiment.main([*flags, "--device", "cpu", "--no_wandb", "--output_dir", str(output)])


def read_results(folder):
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


# --------------------------------------------------------------------------------------------------------------- MoRE


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Return the paths of untrained checkpoints by variant."""
    folder = tmp_path_factory.mktemp("more")
    return {kind: str(save_more(folder / f"{kind}.pth", kind)) for kind in ("base", "more_a")}


@pytest.mark.parametrize("name", ["sums", "stories"])
def test_more_is_asked_what_its_training_held_out(name, more):
    """Other sums than its own test split are mostly ones that it was trained on."""
    settings = ExperimentSettings(models=["toy", "more"], dataset=name, model_path=[f"more={more['base']}"], seed=1)
    dataset = load_questions(settings)
    data = generate(EMBEDDED, seed=7)
    learned = "".join(data.documents["train"])
    asked = [sample.prompt for sample in dataset.splits["test"]]
    if name == "sums":
        assert asked == [one.question for one in data.sums["test"]]
    else:
        first = [data.questions["test"][task][0].prompt() for task in (1, 2, 3)]
        assert asked[:3] == first and len(asked) == sum(map(len, data.questions["test"].values()))
    trained = [sample.prompt for sample in dataset.splits["train"]]
    assert any(prompt in learned for prompt in trained)  # told as in its training
    assert not any(f"\n{prompt}" in f"\n{learned}" for prompt in asked)
    assert all(solve(sample.prompt) == sample.label for sample in dataset.splits["test"])
    assert f"split as in the training of {more['base']}" in dataset.describe() and not dataset.real


def test_without_more_or_its_path_questions_are_generated(more):
    paths = [f"more={more['base']}"]
    for settings in (
        ExperimentSettings(models=["toy"], dataset="sums", model_path=paths),
        ExperimentSettings(models=["more"], dataset="sums"),
        ExperimentSettings(models=["more"], dataset="sums", model_path=["more=nowhere.pth"]),
    ):
        assert "seed 0" in load_questions(settings).origin


def test_a_checkpoint_that_does_not_tell_its_data_is_refused(more, tmp_path, capsys):
    content = torch.load(more["base"], weights_only=True)
    for name, data in (("untold", {}), ("others", {**content["data"], "digest": "0"})):
        path = tmp_path / f"{name}.pth"
        from more.checkpoints import save_checkpoint as save

        save(path, {key: value for key, value in content.items() if key != "digests"} | {"data": data})
        flags = ["--models", "more", "--model_path", f"more={path}", "--dataset", "sums"]
        assert call(*flags, output=tmp_path / "results") == 2
        assert f"sums: the questions that more={path} has not seen cannot be told: " in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["sums", "stories"])
def test_a_checkpoint_that_learned_from_a_text_alone_has_no_questions(name, tmp_path, capsys):
    text = tmp_path / "novel.txt"
    text.write_text("Once upon a time there was a house.\n" * 400)
    data = open_source(DataSettings(text_file=str(text)), lambda line: None).describe()
    path = save_more(tmp_path / "own.pth", data=data)
    flags = ["--models", "more", "--model_path", f"more={path}", "--dataset", name]
    assert call(*flags, output=tmp_path / "results") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{name}: expected questions that the training of more={path} has held out" in said
    assert "its training had no questions" in said


def test_an_answer_ends_with_its_line_as_in_training(more):
    settings = ExperimentSettings(models=["more"], dataset="sums", model_path=[f"more={more['base']}"], device="cpu")
    loaded = load("more", settings, load_questions(settings), print)
    whole = load_more(more["base"])
    tokenizer = whole._tokenizer
    assert loaded.model.eos - whole.eos == set(tokenizer.encode("\n"))
    assert loaded.model.decode(tokenizer.encode("4\n")) == "4"


@pytest.mark.parametrize(("kind", "given", "used"), [("more_a", 3, 3), ("more_a", None, 2), ("base", 3, None)])
def test_recurrences_are_chosen_and_recorded(kind, given, used, more, tmp_path, capsys):
    flags = ["--models", "more", "--model_path", f"more={more[kind]}", "--dataset", "stories", "--methods", "greedy"]
    flags += ["--num_samples", "1"] + ([] if given is None else ["--num_recurrences", str(given)])
    assert call(*flags, output=tmp_path) == 0
    content = read_results(tmp_path)
    (run,) = content["runs"]
    assert (run["num_recurrences"], content["settings"]["num_recurrences"], run["simulator"]) == (used, given, False)
    assert ("num_recurrences: changes nothing" in capsys.readouterr().out) == (kind == "base")
    model = load_more(more[kind], num_recurrences=used)
    (first, *_) = run["samples"][0]["rollouts"][0]["tokens"]
    assert first == int(np.argmax(model.start(run["samples"][0]["prompt"])))


def test_recurrence_changes_what_a_recurrent_model_says(more):
    logits = [load_more(more["more_a"], num_recurrences=r).start("1+2=") for r in (1, 3)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


# ------------------------------------------------------------------------------------------------------------- BabyAI


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Return the path of an untrained policy's checkpoint, and policy, encoder and projection."""
    encoder = build_mission_encoder("builtin", announce=lambda line: None)
    sizes = {"intermediate_dim": 8, "router_hidden_size": 8, "expert_hidden_sizes": SIZES}
    config = TrainConfig(task_id=TASK, lang_dim=32, **sizes)
    torch.manual_seed(0)
    projection = torch.nn.Linear(encoder.width, 32)
    content = make_content(config, lang_encoder=encoder.describe(), lang_proj_state_dict=projection.state_dict())
    path = tmp_path_factory.mktemp("policy") / "checkpoint.pt"
    save_checkpoint(path, content)
    return str(path), (build_policy(config), encoder, projection)


def test_a_policy_plans_on_the_levels_of_evaluation(policy, tmp_path, capsys):
    path, parts = policy
    flags = ["--models", "babyai", "--model_path", f"babyai={path}", "--dataset", "GoToObjS4", "--num_samples", "3"]
    flags += ["--methods", "greedy", "dts", "dts_star", "--num_rollouts", "4", "--lpc_alpha", "0.5"]
    assert call(*flags, output=tmp_path) == 0
    shown = capsys.readouterr().out
    assert "simulator: true. The search tries actions in the level itself" in shown and "not to be compared" in shown
    assert "reward: episode, less 0.5 x complexity" in shown
    content = read_results(tmp_path)
    levels = evaluation_seeds(EVALUATION_SEED, 3)
    played = evaluate(*parts, TASK, levels).episodes
    assert content["data"]["name"] == TASK
    for run in content["runs"]:
        assert (run["simulator"], run["weights"], run["kv"]) == (True, "pretrained", "own")
        assert run["digest"] == load_policy(path).digest
        assert [sample["prompt"] for sample in run["samples"]] == [str(level) for level in levels]
        assert all(re.match("go to ", sample["mission"]) for sample in run["samples"])
        for rollout in (one for sample in run["samples"] for one in sample["rollouts"]):
            parts_ = rollout["parts"]
            assert rollout["reward"] == pytest.approx(parts_["episode"] - 0.5 * parts_["lpc"])
            assert 1 <= parts_["steps"] == len(rollout["tokens"]) <= 50  # max_tokens
        found = [sample["rollouts"][sample["answer"]["rollout"] - 1] for sample in run["samples"]]
        assert run["scores"]["solved"]["value"] == pytest.approx(np.mean([one["parts"]["solved"] for one in found]))
    greedy = [sample["rollouts"][0] for sample in content["runs"][0]["samples"]]
    assert [one["parts"]["solved"] for one in greedy] == [
        float(outcome == 1 and steps <= 50) for outcome, steps in zip(played.outcome, played.steps, strict=True)
    ]


def test_a_policy_under_its_own_likelihood(policy, tmp_path):
    flags = ["--models", "babyai", "--model_path", f"babyai={policy[0]}", "--dataset", TASK, "--max_tokens", "4"]
    assert call(*flags, "--reward", "likelihood", "--num_samples", "1", output=tmp_path) == 0
    (run,) = read_results(tmp_path)["runs"]
    assert run["scores"] == {} and run["samples"][0]["best_reward"] < 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models", "toy", "--dataset", TASK], "is played by a policy, --models babyai --model_path babyai=CHECK"),
        (["--models", "babyai"], "babyai plays levels and answers no text; expected a BabyAI task.*found M4"),
        (["--models", "babyai", "toy", "--dataset", TASK], "babyai acts in levels, toy answer in text"),
        (
            ["--models", "toy", "--dataset", "GoToObjS4"],
            "expected one of M4, HAR, .* for --models babyai a BabyAI task",
        ),
        (["--models", "babyai", "--dataset", "GoToObjj"], "found 'GoToObjj'; close matches: GoToObj"),
        (["--models", "babyai", "--dataset", TASK], "failed: BabyAI, dts: babyai: expected a checkpoint"),
        (["--models", "babyai", "--dataset", TASK, "--answer", "vote"], "answer: vote needs labels"),
        (["--models", "babyai", "--dataset", TASK, "--reward", "claims"], "use one of episode, likelihood"),
        (["--models", "babyai", "--dataset", TASK, "--lpc_alpha", "2"], "lpc_alpha: expected a number from 0 to 1"),
        (["--models", "toy", "--lpc_alpha", "0.1"], "lpc_alpha: is a setting of babyai alone"),
        (["--models", "toy", "--num_recurrences", "2"], "num_recurrences: is a setting of more alone"),
        (["--models", "toy", "--reward", "episode"], "episode cannot judge M4"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, words, tmp_path, capsys):
    assert call(*flags, output=tmp_path / "results") == 2
    captured = capsys.readouterr()
    assert re.search(words, captured.err), captured.err
    assert "Traceback" not in captured.err
