"""What the tree search promises as a whole, where no test of a part holds it: what is fed, told, tracked, made up."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maxent import experiment, reward_checks
from maxent.data.catalogue import DataSettings, load_dataset
from maxent.dts_implementation.models.pytorch_hf_wrapper import HuggingFaceModel
from maxent.dts_implementation.models.sequence_model import Cost, Prior, ToyModel
from maxent.dts_implementation.search import estimates
from maxent.dts_implementation.search.maxent_ts import build_policy, run_waves, search
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.dts_implementation.search.session import Session
from maxent.evaluation.metrics.tree_metrics import measure_tree
from maxent.metrics import METRICS, name_run
from maxent.registry import MODEL_CONFIGS
from maxent.results import Results
from maxent.rewards.catalogue import build_scorer
from maxent.rewards.legacy import reward_legacy
from maxent.rewards.result import Answer, RewardResult
from maxent.settings import ExperimentSettings
from tests.maxent_networks import build_network
from tests.maxent_toys import PLAIN, make_reward

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "maxent"
SMALL = DataSettings("synthetic", num_train=160, num_held_out=12)

# ---------------------------------------------------------------------------------------------------------- what is fed


@pytest.mark.parametrize("method", ["dts", "dts_star", "best_of_n", "beam", "mh"])
@pytest.mark.parametrize("kv", ["packed", "none"])
def test_the_network_reads_what_the_account_says(method, kv):
    """Packed: the prompt and each inner node of the tree once, and no token more; counted where tokens are embedded."""
    network = build_network("llama")
    read = []
    network.get_input_embeddings().register_forward_hook(lambda layer, inputs, _: read.append(inputs[0].numel()))
    model = HuggingFaceModel(network, kv=kv)
    read.clear()  # of the test at loading
    prompt = [5, 9, 23, 41, 8, 17, 30]
    settings = SearchSettings(method, num_rollouts=16, max_tokens=8, wave=4, prior=Prior(1.0, 8, 0.95))
    result = search(model, prompt, make_reward(), settings)
    tree, cost = result.tree, result.cost
    inner = sum(column >= 0 for column in tree.column) - 1  # the root is the prompt
    assert inner == cost.new > 10
    grown = sum(bool(children) for children in tree.children) - 1
    assert grown == inner or method == "beam"  # which reads what it then gives up
    assert sum(read) == cost.prefill + cost.new + cost.recomputed
    assert len(read) == cost.forwards
    if kv == "packed":
        assert sum(read) == len(prompt) + inner == model.prefixes.kept  # a column each
        assert tree.columns == 1 + inner


class SureModel:
    """A model that is in two minds at every other token, and sure of the others."""

    eos: frozenset[int] = frozenset()
    limit = None

    def __init__(self):
        self.cost, self.depths = Cost(), [0]

    def start(self, prompt):
        self.depths, self.cost = [0], Cost(1, forwards=1)
        return self._logits(0)

    def open(self, paths):
        pass

    def step(self, tokens, nodes):
        fed = [self.depths[node] + 1 for node in nodes]
        self.depths += fed
        self.cost.new += len(fed)
        return np.stack([self._logits(depth) for depth in fed])

    def close(self):
        pass

    def decode(self, tokens):
        return " ".join(map(str, tokens))

    def _logits(self, depth):
        return np.array([0.0, 0.0, 0.0]) if depth % 2 else np.array([0.0, 5.0, -4.0])


def test_branching_goes_where_the_prior_is_in_doubt():
    """Nothing widens a node by schedule: how often a child is tried follows its prior and its parent's value."""
    settings = SearchSettings(num_rollouts=60, max_tokens=6, wave=4, prior=Prior(1.0, None, 1.0))
    tree = search(SureModel(), "", make_reward(), settings).tree
    widths = {even: [] for even in (True, False)}
    for depth, children in zip(tree.depth, tree.children, strict=True):
        if children and depth < 4:
            widths[depth % 2 == 0].append(len(children))
    assert np.mean(widths[True]) < 1.3 < 2 < np.mean(widths[False])


REWARDS = {
    "uniform": make_reward(low=-1),
    "likelihood": lambda answer: RewardResult(answer.log_p),
    "constant": lambda answer: RewardResult(-1.0),
    "huge": lambda answer: RewardResult(1e6 * len(answer.tokens)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(("lam", "scale", "epsilon"), [(1e-9, 40.0, 0.0), (1e-9, 1.0, 0.2), (1e6, 0.0, 0.2)])
def test_figures_stay_numbers_whatever_the_scales_are(method, reward, lam, scale, epsilon):
    settings = SearchSettings(
        method, num_rollouts=12, max_tokens=20, lam=lam, epsilon=epsilon, prior=PLAIN, wave=4, answer="sample"
    )
    result = search(ToyModel(20, scale=scale, seed=1), "", REWARDS[reward], settings)
    figures = {**estimates.summarise(result), **measure_tree(result)}
    assert {name for name, value in figures.items() if value is not None and not np.isfinite(value)} == set()
    assert sum(result.tree.compute_posterior().values()) == pytest.approx(1)
    lowest, highest = result.rewards.min(), result.rewards.max()
    assert lowest - 1e-6 * abs(lowest) <= result.tree.value[0] <= highest + 1e-6 * abs(highest)


# --------------------------------------------------------------------------------------------------------- what is told


@pytest.mark.parametrize("method", ["dts", "dts_star", "mcts", "best_of_n"])
def test_rollouts_are_told_with_the_values_that_include_them(method):
    told = []

    def watch(rollout):
        tree = session.tree
        told.append(rollout)
        assert tree.visits[0] == rollout.index
        assert tree.value[rollout.leaf] == rollout.reward
        below = [child for child in tree.children[0].values() if tree.visits[child]]
        assert sum(tree.visits[child] for child in below) == rollout.index
        mass = [tree.prior[child] for child in below]
        weights = np.exp([tree.value[child] / settings.lam for child in below])
        assert tree.value[0] == pytest.approx(settings.lam * np.log(np.average(weights, weights=mass)), abs=1e-9)

    settings = SearchSettings(method, num_rollouts=15, max_tokens=4, wave=5, prior=PLAIN)
    session = Session(ToyModel(), "", make_reward(), settings, watch)
    run_waves(session, build_policy(session, settings), 5)
    assert told == session.rollouts and len(told) == 15


def test_the_record_rate_has_one_meaning():
    rewards = [0.1, 0.3, 0.3, 0.2, 0.5]
    assert estimates.compute_record_rate(rewards) == 2 / 4
    assert estimates.compute_record_rate([0.5, 0.5]) == 0
    assert estimates.compute_record_rate([0.5]) is None


# ------------------------------------------------------------------------------------------- the experiments' own files

TINY = ("--models", "toy", "--num_samples", "2", "--num_rollouts", "4", "--max_tokens", "4", "--no_wandb")
ROLLOUT = ("rollout_reward", "rollout_idx", "output_length", "nodes_explored", "time")
SAMPLE = ("best_reward", "monotonicity", "time", "nodes")
FINAL = (
    *("avg_best_reward", "std_best_reward", "avg_monotonicity", "std_monotonicity", "avg_time_per_sample"),
    *("total_time", "samples_completed"),
)
FURTHER = ("best_so_far", "log_weight", "ess", "log_z", "record_rate")


def run_toy(folder: Path, *flags: str) -> dict:
    """Return the results of the toy on generated data."""
    assert experiment.main([*TINY, "--data_source", "synthetic", "--output_dir", str(folder), *flags]) == 0
    (path,) = folder.glob("wandb_experiments_*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module", params=["M4", "HAR", "sums", "stories"])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, run_toy(folder, "--dataset", request.param, "--methods", "dts", "greedy")


def test_rescoring_what_was_written_gives_what_was_reported(results):
    """The reported answer and its reward once came from different samples, and the curve from the best reward."""
    _, content = results
    dataset = load_dataset(content["data"]["name"], DataSettings("synthetic"))
    scorer = build_scorer(None, dataset)
    assert content["reward"]["sees_label"] is scorer.sees_label is False
    for run in content["runs"]:
        for sample, kept in zip(dataset.splits["test"], run["samples"], strict=False):
            assert (kept["id"], kept["prompt"], kept["label"]) == (sample.id, sample.prompt, sample.label)
            for one in kept["rollouts"]:
                answer = Answer(tuple(one["tokens"]), one["text"], one["ended"], one["log_p"])
                again = scorer.bind(sample)(answer)
                assert (one["reward"], one["parts"]) == (again.total, dict(again.parts))
            rewards = [one["reward"] for one in kept["rollouts"]]
            chosen = kept["rollouts"][kept["answer"]["rollout"] - 1]
            assert kept["answer"] == {"rollout": chosen["index"], "text": chosen["text"], "reward": max(rewards)}
            assert kept["answer"]["rollout"] == 1 + rewards.index(max(rewards))  # the first of equals
            assert kept["best_reward"] == kept["search"]["best"] == max(rewards)
            assert [one["best_so_far"] for one in kept["rollouts"]] == np.maximum.accumulate(rewards).tolist()
        assert run["best_rewards"] == [kept["best_reward"] for kept in run["samples"]]
        assert run["monotonicity_rates"] == [kept["monotonicity"] for kept in run["samples"]]
        assert run["times"] == [kept["time"] for kept in run["samples"]]
        assert run["summary"]["avg_best_reward"] == pytest.approx(np.mean(run["best_rewards"]))


def test_results_say_what_they_are_of(results):
    _, content = results
    assert {"schema_version", "versions", "git", "seed", "command", "status", "settings", "comparison"} <= set(content)
    assert content["data"]["kind"] == "synthetic"
    for run in content["runs"]:
        assert (run["model"], run["weights"], run["status"], run["error"]) == ("toy", "toy", "done", None)
        for kept in run["samples"]:
            names = {"id", "prompt", "label", "answer", "rollouts", "cost", "search", "tree", "monotonicity"}
            assert names <= set(kept)
            for one in kept["rollouts"]:
                recorded = {"reward", "parts", "tokens", "text", "log_p", "log_q", "branch_depth", "new_tokens"}
                assert {*recorded, "seconds", "token_log_probs"} <= set(one)
            cost = {"prefill", "new", "recomputed", "reused", "forwards", "reward_calls", "seconds"}
            assert set(kept["cost"]) == cost


@pytest.mark.parametrize("reward", ["oracle", "legacy"])
def test_rewards_that_know_the_label_are_flagged_in_what_is_written(reward, tmp_path, capsys):
    content = run_toy(tmp_path, "--dataset", "sums", "--num_samples", "1", "--reward", reward)
    assert content["reward"]["name"] == reward and content["reward"]["sees_label"] is True
    assert content["reward"]["note"] and f"reward: {reward}, {content['reward']['note']}\n" in capsys.readouterr().out


def test_every_key_that_is_tracked_is_there_and_says_what_the_records_say(results):
    folder, content = results
    rollout, sample, final = set(ROLLOUT) | set(FURTHER), {f"sample_{{i}}/{name}" for name in SAMPLE}, set(FINAL)
    assert set(METRICS) == {"new_tokens", *rollout, *sample, *(f"final/{name}" for name in final)}
    for run in content["runs"]:
        (path,) = folder.glob(f"wandb_experiments_*/toy_{run['method']}/metrics.jsonl")
        lines = iter([json.loads(line) for line in path.read_text().splitlines()])
        fed = 0
        for index, kept in enumerate(run["samples"]):
            running = estimates.RunningEstimates()
            for one in kept["rollouts"]:
                running.add(_Weighted(one["reward"], one["log_weight"]))
                expected = {
                    "rollout_reward": one["reward"],
                    "rollout_idx": one["index"],
                    "output_length": len(one["text"]),
                    "nodes_explored": one["nodes"],
                    "time": one["seconds"],
                    "best_so_far": one["best_so_far"],
                    "log_weight": one["log_weight"],
                    "record_rate": None if one["index"] == 1 else running.record_rate,
                    "log_z": running.log_z,
                    "ess": running.ess,
                    "new_tokens": fed + one["total_new_tokens"],
                }
                line = next(lines)
                line.pop("update")
                assert line == expected
            fed += kept["cost"]["new"]
            line = next(lines)
            assert {name: line[f"sample_{index}/{name}"] for name in SAMPLE} == {name: kept[name] for name in SAMPLE}
            assert (set(line), line["new_tokens"]) == (
                {"update", "new_tokens", *(f"sample_{index}/{name}" for name in SAMPLE)},
                fed,
            )
        line = next(lines)
        assert {name: line[f"final/{name}"] for name in FINAL} == run["summary"]
        assert next(lines, None) is None


class _Weighted:
    """As much of a rollout as running estimates need."""

    def __init__(self, reward, log_weight):
        self.reward, self.log_weight = reward, log_weight


def test_each_model_has_the_colour_of_its_own_key_and_tags_of_its_own(tmp_path):
    """Looked up as a part of a name, a colour was once another model's; and all runs shared one list of tags."""
    settings = ExperimentSettings(models=list(MODEL_CONFIGS), tags=["mine"])
    parts = Results.create(tmp_path, settings, {}).content["runs"]
    assert {part["model"]: part["color"] for part in parts} == {k: one["color"] for k, one in MODEL_CONFIGS.items()}
    tags = [name_run(part, settings, "stamp")["tags"] for part in parts]
    for part, one in zip(parts, tags, strict=True):
        assert [tag for tag in one if tag.startswith("color:")] == [f"color:{part['color']}"]
        assert part["display_name"] in one and one.count("mine") == 1
    assert settings.tags == ["mine"] and len({id(one) for one in (*tags, settings.tags)}) == len(tags) + 1


def test_if_everything_fails_the_exit_code_says_so(tmp_path, monkeypatch):
    """All had failed once, and the code was 0."""

    def fail(*_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(experiment, "search_sample", fail)
    flags = ["--methods", "dts", "mcts", "--data_source", "synthetic", "--output_dir", str(tmp_path)]
    assert experiment.main([*TINY, *flags]) == 1
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    assert content["status"] == "failed"
    assert [(run["status"], run["error"]["type"]) for run in content["runs"]] == [("failed", "RuntimeError")] * 2


# ----------------------------------------------------------------------------------------------- nothing is made up

ALLOWED = {"default_rng", "Generator", "SeedSequence"}


def find_global_randomness(source: str) -> list[str]:
    """Return what draws from a generator that no seed of ours has made: of numpy, of torch, of the standard library."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        match = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", text)
        if (match and match[1] not in ALLOWED) or re.fullmatch(
            r"torch\.(?:rand(?!om)\w*|normal|multinomial|bernoulli)", text
        ):
            found.append(text)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            found += [name for name in names if name in ("random", "numpy.random")]
    return found


def test_randomness_without_a_seed_is_found_where_there_is_any():
    source = "import numpy as np\nimport random\nx = np.random.randn(3) + torch.rand(2)\nr = np.random.default_rng(0)\n"
    assert sorted(find_global_randomness(source)) == ["np.random.randn", "random", "torch.rand"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_number_is_drawn_that_no_seed_gives(path):
    """Rewards were random numbers once, and so was the curve that was shown of them."""
    assert find_global_randomness(path.read_text(encoding="utf-8")) == []


def test_the_search_for_random_rewards_finds_none():
    done = subprocess.run(
        ["grep", "-n", "np.random.randn", "dts_implementation/search/maxent_ts.py"],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_the_list_of_models_needs_two_files_and_leaves_nothing(tmp_path):
    """In an empty folder, with neither the project nor anything else on the path."""
    for name in ("run_experiments_with_wandb.py", "registry.py"):
        shutil.copy(PACKAGE / name, tmp_path)
    program = "from run_experiments_with_wandb import MODEL_CONFIGS; print(list(MODEL_CONFIGS.keys()))"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, '.'); {program}"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{list(MODEL_CONFIGS)}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["registry.py", "run_experiments_with_wandb.py"]


# ------------------------------------------------------------------------------------ rewards, blind but for the truth


@pytest.mark.parametrize(
    ("name", "reward"),
    [("sums", "programmatic"), ("stories", "programmatic"), ("TSQA", "likelihood"), ("M4", "likelihood")],
)
def test_no_reward_follows_the_label_or_the_order_of_questions(name, reward):
    """Of `claims` and `activity`, which are checked at length elsewhere, the others."""
    dataset = load_dataset(name, SMALL)
    scorer = build_scorer(reward, dataset)
    reward_checks.check_label(dataset, scorer)
    texts = [(sample, other.target) for sample in dataset.splits["test"] for other in dataset.splits["test"][:4]]
    forward = [reward_checks.score(scorer, *pair) for pair in texts]
    assert forward[::-1] == [reward_checks.score(scorer, *pair) for pair in texts[::-1]]


@pytest.mark.parametrize("name", ["sums", "stories"])
def test_a_copied_prompt_or_all_answers_at_once_solve_nothing(name):
    dataset = load_dataset(name, SMALL)
    scorer = build_scorer(None, dataset)
    labels = sorted({sample.label for samples in dataset.splits.values() for sample in samples})
    for sample in dataset.splits["test"]:
        for text in (sample.prompt, sample.prompt * 2, " ".join(labels), f"{sample.prompt}{sample.target}"):
            assert reward_checks.score(scorer, sample, text) == -1
        rest = "\n".join(label for label in labels if label != sample.label)
        for text in (
            f"{sample.target}{rest}",
            f"{sample.target}{sample.prompt}",
        ):  # what follows the answer is not read
            assert reward_checks.score(scorer, sample, text) == 1


def test_all_labels_at_once_are_one_guess():
    """Listing all activities is no answer; saying them one after the other is the last of them."""
    dataset = load_dataset("HAR", SMALL)
    scorer = build_scorer(None, dataset)
    for sample in dataset.splits["test"]:
        assert reward_checks.score(scorer, sample, f"Answer: {', '.join(dataset.labels)}") == -1
        lines = [f"Answer: {label}" for label in dataset.labels]
        for order in (lines, lines[::-1]):
            assert reward_checks.score(scorer, sample, "\n".join(order)) == reward_checks.score(
                scorer, sample, order[-1]
            )


def test_the_legacy_heuristic_by_hand():
    sample = load_dataset("HAR", SMALL).splits["test"][0]
    label = sample.label

    def score(text: str) -> float:
        return reward_legacy(sample, Answer((0,), text, True, -1.0)).total * 2.2

    assert score("") == score("  ") == pytest.approx(-1)
    assert score("x" * 10) == pytest.approx(0.05)
    assert score("x" * 50) == pytest.approx(0.5)
    assert score("x" * 700) == pytest.approx(0.7)
    assert score(f"{'x ' * 60}{label}") == pytest.approx(2)
    assert score(f"{'x' * 100} because. Answer: {label}") == pytest.approx(2.2)
    assert score(f"{'x' * 100} because. Answer: no") == pytest.approx(0.7)
    assert score(f"Answer: {label} Answer: no{'x' * 100}") == pytest.approx(0.5)
