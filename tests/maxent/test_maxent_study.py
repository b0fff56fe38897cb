"""The study: what is read of a search is what a search would have found, and what is done is not done again."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.maxent_study import searching
from benchmarks.maxent_study.command import main
from benchmarks.maxent_study.policies import find_policies
from benchmarks.maxent_study.reading import (
    average,
    collect,
    count_within,
    find_records,
    format_estimate,
    over_seeds,
    pair,
    read_at,
)
from benchmarks.maxent_study.settings import CASES, StudySettings
from benchmarks.maxent_study.sums import encode, write_sum
from benchmarks.maxent_study.units import list_groups, list_units, read_record, write_record
from maxent.dts_implementation.models.sequence_model import Prior, ToyModel
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from maxent.rewards.result import RewardResult
from more.babi import Question as Sum
from more.tokens import train_tokenizer
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.training.batch import ReplicaBatch

ROOT = Path(__file__).parents[2]
DEPTH = 6
TABLE = np.random.default_rng(3).uniform(-1, 1, (DEPTH, 5))
SETTINGS = SearchSettings(num_rollouts=60, max_tokens=DEPTH, wave=4, budget_tokens=120, prior=Prior(1.0, None, 1.0))


def reward(answer):
    """Return the mean of a number for each place and token."""
    return RewardResult(float(TABLE[np.arange(len(answer.tokens)), list(answer.tokens)].mean()))


def run(method, **changes):
    return search(ToyModel(5, seed=2), "", reward, replace(SETTINGS, method=method, **changes))


def score(rollout):
    return float(len(rollout.tokens))


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("method", ["best_of_n", "dts", "dts_star", "mh"])
@pytest.mark.parametrize("budget", [5, 17, 40, 120])
def test_best_within_a_budget_is_that_of_all_rollouts_that_fit(method, budget):
    result = run(method)
    found = read_at(result.rollouts, budget, score=score)
    spent, fitting = 0, []
    for rollout in result.rollouts:
        spent += rollout.new_tokens
        if spent > budget:
            break
        fitting.append(rollout)
    best = max(rollout.reward for rollout in fitting)
    first = next(rollout for rollout in fitting if rollout.reward == best)
    assert found["best"] == best == fitting[-1].best_so_far
    assert (found["rollouts"], found["score"]) == (len(fitting), score(first))
    assert found["tokens"] == sum(rollout.new_tokens for rollout in fitting) <= budget
    assert found["calls"] == len({rollout.leaf for rollout in fitting})
    assert found["mean"] == pytest.approx(np.mean([rollout.reward for rollout in fitting]))


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"greedy", "sample", "beam"}))
def test_a_search_with_a_smaller_budget_is_the_beginning_of_one_with_a_larger(method):
    """So that one search can be read at all budgets; at its end a budget makes waves smaller, which is left out."""
    long, short = run(method), run(method, budget_tokens=60)
    sizes = Counter(rollout.wave for rollout in short.rollouts)
    full = next((wave for wave in sizes if sizes[wave] < 4), None) if method != "mh" else None
    whole = [rollout for rollout in short.rollouts if full is None or rollout.wave < full]
    assert len(whole) >= 8
    assert [one.tokens for one in whole] == [one.tokens for one in long.rollouts[: len(whole)]]


def test_nothing_is_read_where_no_answer_is_finished():
    result = run("best_of_n")
    assert read_at(result.rollouts, result.rollouts[0].new_tokens - 1, score=score) is None
    assert count_within(result.rollouts, result.rollouts[0].new_tokens) >= 1


def test_records_rise_and_hold_the_best_so_far_at_every_budget():
    rollouts = run("dts").rollouts
    records = find_records(rollouts)
    assert len(records) > 1
    assert all(low < high for (_, low), (_, high) in itertools.pairwise(records))
    for budget in range(rollouts[0].new_tokens, 121):
        assert (
            max(best for tokens, best in records if tokens <= budget) == read_at(rollouts, budget, score=score)["best"]
        )


def test_a_vote_counts_only_what_fits_in_the_budget():
    rollouts = run("best_of_n").rollouts
    texts = [rollout.text for rollout in rollouts[: count_within(rollouts, 17)]]
    labels = {text: str(place) for place, text in enumerate(dict.fromkeys(texts))}
    weights = dict.fromkeys(labels.values(), 0.0)
    for rollout in rollouts[: len(texts)]:
        weights[labels[rollout.text]] += np.exp(rollout.reward / 0.1)
    winner = max(weights, key=weights.get)
    for truth in weights:
        found = read_at(rollouts, 17, score=score, parse=labels.__getitem__, truth=truth)
        assert found["vote"] == float(truth == winner)
    assert read_at(rollouts, 17, score=score, parse=lambda text: None, truth="a")["vote"] == 0.0


def record(seed, **values):
    samples = [{"id": name, "at": [None, {"budget": 30, "best": value}]} for name, value in values.items()]
    return {"seed": seed, "samples": samples}


def test_differences_are_paired_by_seed_and_sample_and_averaged_within_seeds():
    ours = collect([record(0, a=1.0, b=2.0), record(1, a=5.0), record(2, a=3.0, b=0.0)], "best", 30)
    others = collect([record(0, a=0.5, b=1.0, c=9.0), record(1, a=1.0), record(2, a=1.0)], "best", 30)
    assert pair(ours, others) == {(0, "a"): 0.5, (0, "b"): 1.0, (1, "a"): 4.0, (2, "a"): 2.0}
    assert average(pair(ours, others)) == {0: 0.75, 1: 4.0, 2: 2.0}
    estimate = over_seeds(pair(ours, others))
    values = np.array([0.75, 4.0, 2.0])
    assert estimate.n == 3
    assert float(estimate.mean) == pytest.approx(values.mean())
    assert float(estimate.high) == pytest.approx(values.mean() + 4.302653 * values.std(ddof=1) / 3**0.5)
    assert collect([record(0, a=1.0)], "best", 31) == {}
    two = over_seeds({(0, "a"): 1.0, (1, "a"): 2.0})
    assert format_estimate(two) == "1.500"
    assert format_estimate(over_seeds({})) == "-"
    assert format_estimate(estimate, 2, signed=True).startswith("+2.25 [-")


# ------------------------------------------------------------------------------------------------------------- command


def flags(folder, **changes):
    chosen = {
        **{"part": "sums", "seeds": "0-1", "output": folder, "methods": "greedy,best_of_n,beam,dts", "num_sums": 2},
        **{"chunk": 1, "largest_budget": 30, "sum_updates": 2, "recurrences": "2", "num_rollouts": 20, **changes},
    }
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def settings(folder, **changes):
    return StudySettings(
        **{
            **{"part": "sums", "seeds": "0-1", "output": str(folder), "methods": "greedy,best_of_n,beam,dts"},
            **{"num_sums": 2, "chunk": 1, "largest_budget": 30, "sum_updates": 2, "recurrences": "2"},
            **{"num_rollouts": 20, **changes},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("study")
    assert main(flags(made)) == 0
    return made


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def test_every_unit_has_a_record_and_every_case_a_table_and_a_figure(folder):
    wanted = settings(folder)
    units = [unit for group in list_groups(wanted) for unit in list_units(wanted, group)]
    assert len(units) == 2 * 2 * 2 * 2 * 4  # seeds, models, cases, chunks, methods
    assert {unit.find_path(wanted) for unit in units} == set(stamps(folder))
    for unit in units:
        (sample,) = read_record(wanted, unit, print)["samples"]
        assert [reading["budget"] for reading in sample["at"]] == [10, 20, 30]
        assert all(reading["tokens"] <= reading["budget"] for reading in sample["at"])
    text = (folder / "tables.md").read_text()
    assert text.count("## sums") == 2
    assert "more_a_rec2" in text
    assert {path.name for path in folder.glob("*.png")} == {"maxent-study-sums.png", "maxent-study-sums-likelihood.png"}


def test_what_is_there_is_not_done_again(folder, monkeypatch, capsys):
    before = stamps(folder)
    monkeypatch.setattr(searching, "open_group", None)  # would be called for whatever is missing
    assert main(flags(folder)) == 0
    assert stamps(folder) == before
    assert "sums" in capsys.readouterr().out


def test_a_record_that_was_cut_off_is_made_anew_and_no_other(folder, capsys):
    before = stamps(folder)
    cut, short, gone = sorted(before)[:3]
    contents = [path.read_text() for path in (cut, short, gone)]
    cut.write_text(contents[0][:100])
    short.write_text(json.dumps({**json.loads(contents[1]), "samples": []}))
    gone.unlink()
    assert main(flags(folder)) == 0
    assert f"{cut}: expected a whole record" in capsys.readouterr().out
    after = stamps(folder)
    assert set(after) == set(before)
    assert {path for path in before if after[path] != before[path]} >= {cut, short}
    assert all(after[path] == before[path] for path in sorted(before)[3:])

    def without_time(text):
        return [{**one, "cpu_seconds": None} for one in json.loads(text)["samples"]]

    for path, content in zip((cut, short, gone), contents, strict=True):
        assert without_time(path.read_text()) == without_time(content)


def test_records_of_other_settings_are_refused_and_kept(folder, capsys):
    before = stamps(folder)
    assert main(flags(folder, wave=3)) == 2
    assert "was made with other settings (wave)" in capsys.readouterr().err
    assert stamps(folder) == before


def test_more_questions_keep_those_that_are_there(folder):
    wider = settings(folder, num_sums=3)
    units = [unit for group in list_groups(wider) for unit in list_units(wider, group)]
    there = [unit for unit in units if read_record(wider, unit, print) is not None]
    assert len(there) * 3 == len(units) * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": "dts,magic"}, "methods: expected all or some of .*'magic'"),
        ({"seeds": "3-1"}, "seeds: expected a range from low to high"),
        ({"part": "babyai"}, "policies: expected checkpoints"),
        ({"largest_budget": 5}, "largest_budget: expected at least 10, found 5"),
        ({"chunk": 0}, "chunk: expected at least 1"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings("nowhere", **changes)


def test_policies_are_numbered_by_their_seeds_if_these_differ(tmp_path):
    for seed in (3, 1):
        (tmp_path / f"seed_{seed}").mkdir()
        (tmp_path / f"seed_{seed}" / "a.pt").touch()
    assert [Path(path).parts[-2] for path in find_policies(f"{tmp_path}/*/a.pt").values()] == ["seed_1", "seed_3"]
    assert list(find_policies(f"{tmp_path}/*/a.pt")) == [1, 3]
    (tmp_path / "seed_3" / "b.pt").touch()
    assert list(find_policies(f"{tmp_path}/*/*.pt")) == [0, 1, 2]
    with pytest.raises(ConfigError, match="found none at"):
        find_policies(f"{tmp_path}/*/c.pt")


def test_one_answer_fits_into_the_smallest_budget_of_each_case():
    for case in CASES:
        assert case.max_tokens - 1 <= case.budgets[0]
        assert list(case.budgets) == sorted(set(case.budgets))


def test_a_chain_is_given_smaller_budgets_and_other_records_stay_as_they_are():
    case = CASES[0]
    chosen = settings("nowhere", part="m4", largest_budget=10_000, chain_budget=1000)
    assert chosen.case_budgets(case, "mh") == (100, 300, 1000)
    assert chosen.case_budgets(case, "dts") == case.budgets
    wider = settings("nowhere", part="m4", largest_budget=10_000, chain_budget=3000)
    assert chosen.describe(case, "dts") == wider.describe(case, "dts")
    assert chosen.describe(case, "mh") != wider.describe(case, "mh")


def test_sums_are_learned_from_what_follows_the_sign():
    one = Sum(0, "", "7+5=", "12")
    tokenizer = train_tokenizer([write_sum(one)], 257)
    inputs, targets = encode([one, Sum(0, "", "10+9=", "19")], tokenizer)
    end = tokenizer.end_token
    assert tokenizer.decode(inputs[0, 1:].tolist()).rstrip() == "7+5=12"
    kept = targets[0][targets[0] >= 0].tolist()
    assert kept == [*tokenizer.encode("12\n"), end]
    first = (targets[0] >= 0).nonzero()[0].item()
    assert tokenizer.decode(inputs[0, : first + 1].tolist()) == "7+5="


def test_help_needs_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "benchmarks.maxent_study", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert "exit codes:" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert loaded & {"torch", "transformers", "matplotlib", "scipy", "pandas", "tokenizers"} == set()
    assert "benchmarks" in loaded


def read_samples(folder, case):
    """Return all samples of a case's records, by method."""
    paths = sorted((folder / "records" / case).rglob("*.json"))
    return {record["method"]: record["samples"] for record in (json.loads(path.read_text()) for path in paths)}


@pytest.mark.parametrize(("part", "score"), [("m4", None), ("har", {0.0, 1.0})])
def test_stand_ins_are_trained_asked_and_kept(tmp_path, part, score):
    chosen = flags(
        tmp_path,
        part=part,
        seeds=1,
        methods="sample,best_of_n",
        num_samples=1,
        stand_in_steps=1,
        num_train=24,
        largest_budget=100,
    )
    assert main(chosen) == 0
    made = list((tmp_path / "stand_ins").iterdir())
    assert len(made) == 1
    for method, (sample,) in read_samples(tmp_path, part).items():
        reading = sample["at"][-1]
        assert -1 <= reading["mean"] <= reading["best"] <= 1
        assert reading["score"] in (score or [pytest.approx(0.5, abs=0.5)])
        assert (reading["vote"] is None) == (method == "sample" or part == "m4")
    assert f"## {part}" in (tmp_path / "tables.md").read_text()


def save_policy(path, seed):
    sizes = {"expert_hidden_sizes": [[0, 4]], "intermediate_dim": 8, "router_hidden_size": 8, "lang_dim": 8}
    config = TrainConfig(
        task_id="GoToObjS4", seed=seed, lang_encoder="builtin", device="cpu", num_envs=2, unroll_len=2, **sizes
    )
    path.parent.mkdir(exist_ok=True)
    ReplicaBatch([config], announce=lambda line: None).save(0, path)
    return path


def test_records_of_another_policy_are_refused_and_those_of_a_copy_are_kept(tmp_path, capsys):
    first, other = save_policy(tmp_path / "A" / "seed_0.pt", 0), save_policy(tmp_path / "B" / "seed_0.pt", 1)

    def ask(path):
        chosen = settings(tmp_path / "out", part="babyai", methods="best_of_n", largest_budget=300, policies=str(path))
        (group,) = list_groups(chosen)
        return chosen, list_units(chosen, group)

    chosen, units = ask(first)
    for unit in units:
        write_record(chosen, unit, {}, [{}] * (unit.stop - unit.start))
    copy = tmp_path / "copy" / "seed_0.pt"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    chosen, units = ask(copy)
    assert all(read_record(chosen, unit, print) for unit in units)
    kept = stamps(tmp_path / "out")
    assert (
        main([*flags(tmp_path / "out", part="babyai", methods="best_of_n", largest_budget=300), f"--policies={other}"])
        == 2
    )
    assert "was made with other settings (weights); choose another --output" in capsys.readouterr().err
    assert stamps(tmp_path / "out") == kept


def test_policies_are_asked_for_levels_of_their_own(tmp_path):
    for seed in (0, 1):
        save_policy(tmp_path / f"seed_{seed}.pt", seed)
    chosen = {"part": "babyai", "methods": "best_of_n,dts", "num_samples": 1, "largest_budget": 300, "num_rollouts": 3}
    assert main([*flags(tmp_path / "out", **chosen), "--policies", f"{tmp_path}/seed_*.pt"]) == 0
    records = sorted((tmp_path / "out" / "records" / "babyai").rglob("dts_*.json"))
    levels = [json.loads(path.read_text())["samples"][0]["id"] for path in records]
    assert len(set(levels)) == 2
    (sample,) = read_samples(tmp_path / "out", "babyai")["best_of_n"]
    assert sample["at"][0]["rollouts"] == 3
