"""Benchmarks run and write what they document. How fast anything is, is never asserted."""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from babyai.observations import OBSERVATION_DIM
from babyai.vector_env import VectorEnv
from benchmarks import evaluation, interventions, training
from benchmarks.analyses import AnalysisTime
from benchmarks.checkpoints import CheckpointCost
from benchmarks.common import collect_machine_facts, format_machine_facts, format_records, format_table, time_call
from benchmarks.encodings import EncodingScore
from benchmarks.evaluation import CacheCost, EvaluationTime, Together
from benchmarks.interventions import GridTime
from benchmarks.launch import LaunchCost
from benchmarks.maxent import Bookkeeping, Drawing
from benchmarks.maxent_search import CASES, Gain
from benchmarks.mixtures import MixtureRate
from benchmarks.more import Speed
from benchmarks.policy import Comparison
from benchmarks.scale import VIEWS
from benchmarks.timers import PARTS, PARTS_OF_STEPS, TimeSplit
from benchmarks.training import Throughput
from benchmarks.world import LevelTimes, WorldRates
from benchmarks.yardstick import EnvironmentRates
from pipeline.checkpoints import CheckpointError
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import CompiledEngine, SteppedEngine
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch

ROOT = Path(__file__).parents[1]


def run_benchmark(module: str, json_path: Path, *flags: str) -> tuple[str, dict]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags, "--json", str(json_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads(json_path.read_text())


def names(dataclass: type) -> set[str]:
    return {field.name for field in fields(dataclass)}


@pytest.mark.slow
def test_training_benchmark(tmp_path):
    flags = "--tasks GoToObjS4 --num_envs 2 --unroll_len 8 --seconds 0.1 --rounds 2 --warmup 1 --learn_updates 2"
    flags += " --mixture GoToObjS4 OpenDoor"
    printed, results = run_benchmark("training", tmp_path / "training.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "throughput", "environments", "learning", "mixtures"}
    untrained, solving = results["throughput"]
    assert (untrained["policy"], solving["policy"]) == ("untrained", "expert's actions")
    for case in (untrained, solving):
        assert set(case) == names(Throughput)
        assert set(case["shares"]) == set(PARTS)
        assert sum(case["shares"].values()) == pytest.approx(1)
        assert case["rl_mop"] is None  # quoted for 16 environments x 32 steps of three tasks only
    assert solving["success_rate"] > 0.9
    assert solving["levels_per_1000_steps"] > untrained["levels_per_1000_steps"]
    assert set(results["environments"]["BabyAI-GoToObjS4-v0"]) == names(EnvironmentRates)
    assert results["learning"][0]["updates"] == 2
    assert results["machine"]["torch"] in printed
    assert printed.count("| task") == 4
    (mixture,) = results["mixtures"]
    assert set(mixture) == names(MixtureRate)
    assert mixture["levels"] == ["BabyAI-GoToObjS4-v0", "BabyAI-OpenDoor-v0"]
    assert mixture["ratio"] > 0


@pytest.mark.slow
def test_policy_benchmark(tmp_path):
    flags = "--num_envs 2 3 --threads 1 --runs 1 3 --unroll_len 3 --repeats 1"
    printed, results = run_benchmark("policy", tmp_path / "policy.json", *flags.split())
    keys = {"benchmark", "machine", "settings", "peak", "operations", "comparisons", "parts", "together"}
    assert set(results) == keys
    layer = 64 * 336 + (64 * 192 + 16 * 48 + 32 * 96) + 64 * 3 + 48 * 64  # gates, states, router, projections
    assert results["operations"] == 2 * (3 * (184 * 64 + 3 * layer + 64 * 7) - 184 * 64)
    assert [row["replicas"] for row in results["together"]] == [1, 3]
    for parts in results["parts"].values():
        assert set(parts) == set(PARTS_OF_STEPS)
    assert [row["num_envs"] for row in results["comparisons"]] == [2, 3]
    for row in results["comparisons"]:
        assert set(row) == names(Comparison)
        assert row["largest_difference"] < 1e-5
    assert results["machine"]["date"] in printed


@pytest.mark.slow
def test_training_benchmark_takes_a_checkpoint(tmp_path):
    sizes = {"expert_hidden_sizes": [[0, 4]], "intermediate_dim": 8, "router_hidden_size": 8, "lang_dim": 8}
    config = TrainConfig(task_id="GoToObjS4", lang_encoder="builtin", device="cpu", num_envs=2, unroll_len=2, **sizes)
    ReplicaBatch([config], announce=lambda line: None).save(0, tmp_path / "checkpoint.pt")
    flags = "--tasks GoToObjS4 --num_envs 2 --unroll_len 4 --seconds 0.1 --warmup 1 --no_yardstick".split()
    flags += ["--mixture", "--checkpoint"]
    _, results = run_benchmark("training", tmp_path / "out.json", *flags, str(tmp_path / "checkpoint.pt"))
    assert [case["policy"] for case in results["throughput"]] == ["untrained", "trained checkpoint"]
    assert results["environments"] == {}
    other = [sys.executable, "-m", "benchmarks.training", "--tasks", "GoTo", "--checkpoint"]
    run = subprocess.run([*other, str(tmp_path / "checkpoint.pt")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "found one of BabyAI-GoToObjS4-v0" in run.stderr


@pytest.mark.slow
def test_evaluation_benchmark(tmp_path):
    sizes = {"expert_hidden_sizes": [[0, 4]], "intermediate_dim": 8, "router_hidden_size": 8, "lang_dim": 8}
    config = TrainConfig(task_id="GoToObjS4", lang_encoder="builtin", device="cpu", num_envs=2, unroll_len=2, **sizes)
    ReplicaBatch([config], announce=lambda line: None).save(0, tmp_path / "checkpoint.pt")
    checkpoint = f"GoToRedBallNoDists={tmp_path / 'checkpoint.pt'}"
    flags = f"--tasks GoToObjS4 GoToRedBallNoDists --num_envs 3 --seconds 0.05 --together 2 --checkpoint {checkpoint}"
    printed, results = run_benchmark("evaluation", tmp_path / "evaluation.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "startup", "times", "together", "caches"}
    assert set(results["startup"]) == {"import_seconds", "build_seconds"}
    policies = ["expert's actions"] * 2 + ["untrained"] * 2 + ["trained checkpoint"] * 2 + ["untrained"] * 2
    assert [row["policy"] for row in results["times"]] == policies
    assert [row["recorded"] for row in results["times"]] == [True, False] * 4
    for row in results["times"]:
        assert set(row) == names(EvaluationTime)
        assert row["rl_mop_seconds"] is None  # quoted for GoToObj only
    assert [row["success_rate"] for row in results["times"][:2]] == [1.0, 1.0]
    for row in results["together"]:
        assert set(row) == names(Together)
    for row in results["caches"]:
        assert set(row) == names(CacheCost)
        assert row["steps"] >= 1000
    assert results["machine"]["date"] in printed
    assert printed.count("| task") == 3


@pytest.mark.slow
def test_checkpoint_benchmark(tmp_path):
    printed, results = run_benchmark("checkpoints", tmp_path / "c.json", "--policies", "default", "--rounds", "1")
    assert set(results) == {"benchmark", "machine", "settings", "checkpoints"}
    assert [set(row) for row in results["checkpoints"]] == [names(CheckpointCost)]
    assert results["machine"]["date"] in printed


@pytest.mark.slow
def test_world_benchmark(tmp_path):
    flags = "--tasks GoToObj --num_envs 2 3 --threads 2 --seconds 0.05 --rounds 1 --skip_compilation"
    printed, results = run_benchmark("world", tmp_path / "world.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "worlds", "levels", "compilation_seconds"}
    assert [row["actions"] for row in results["worlds"]] == ["random", "expert's"]
    for row in results["worlds"]:
        assert set(row) == names(WorldRates)
        assert set(row["ours"]) == {"2", "3"} and row["minigrid"] > 0
    assert [set(row) for row in results["levels"]] == [names(LevelTimes)]
    assert results["machine"]["date"] in printed


@pytest.mark.slow
def test_sweep_benchmark(tmp_path):
    flags = "--runs 3 --jobs 2 --updates 1 --num_envs 2 --unroll_len 4"
    printed, results = run_benchmark("sweep", tmp_path / "sweep.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "rates", "shares_of_peak", "minutes", "mebibytes"}
    assert f"{results['mebibytes']:,.0f} MiB" in printed
    for policy, rate in results["rates"].items():
        assert results["minutes"][policy] == pytest.approx(3 * 5000 * 2 * 4 / rate / 60)
    assert "rl-mop" not in printed  # quoted for another sweep


@pytest.mark.parametrize("engine", [CompiledEngine, SteppedEngine])
def test_timers_count_each_moment_once_and_leave_nothing_behind(engine):
    untouched = VectorEnv.step
    config = TrainConfig(task_id="GoToObjS4", lang_encoder="builtin", device="cpu", num_envs=2, unroll_len=8)
    batch = ReplicaBatch([config], announce=lambda line: None, engine=engine)
    with TimeSplit() as split:
        assert VectorEnv.step is not untouched
        started = time.perf_counter()
        for _ in range(10):
            loop.run_update(batch)
        seconds = time.perf_counter() - started
    assert VectorEnv.step is untouched
    inside = {"levels", "world", "observing", "acting"}
    idle = {"unroll"} if engine is SteppedEngine else inside
    assert {part for part in PARTS if split.seconds[part] == 0} == idle
    assert sum(split.seconds.values()) == pytest.approx(seconds, rel=0.1)
    assert sum(split.shares().values()) == pytest.approx(1)


def test_tables_and_facts():
    assert format_table(["a", "b", "c"], [["x", "yy", "1"], ["xx", "y", "10"]]).splitlines() == [
        "| a  | b  |  c |",
        "| -- | -- | -: |",
        "| x  | yy |  1 |",
        "| xx | y  | 10 |",
    ]
    line = format_machine_facts(collect_machine_facts(), [1, 2])
    assert "\n" not in line
    assert "1, 2 thread(s)" in line


def test_a_table_of_records_takes_attributes_and_functions():
    rates = [EnvironmentRates(minigrid=2.0, ours=1000.4), EnvironmentRates(minigrid=4.0, ours=None)]
    columns = [("a", lambda rate: f"x{rate.minigrid:g}"), ("b", "minigrid:.1f"), ("c", "ours:,.0f"), ("c", "ours")]
    assert format_records(columns, rates).splitlines() == [
        "| a  | b   |     c |      c |",
        "| -- | --- | ----: | -----: |",
        "| x2 | 2.0 | 1,000 | 1000.4 |",
        "| x4 | 4.0 |     - |      - |",
    ]


def test_a_timed_call_counts_its_processes():
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    run, wall, cpu = time_call(lambda: subprocess.run([sys.executable, "-c", spin], check=True))
    assert run.returncode == 0
    assert wall > 0.2 and cpu > 0.2


@pytest.mark.slow
def test_language_model_benchmark(tmp_path):
    flags = (
        "--variants base more_a --num_recurrences 1 2 --batch_size 2 --seq_length 16 --prompt_length 4 --new_tokens 3"
    )
    flags += " --seconds 0.01 --rounds 1"
    printed, results = run_benchmark("more", tmp_path / "more.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "speeds"}
    models = [(row["model"], row["num_recurrences"]) for row in results["speeds"]]
    assert models == [("base", 1), ("more_a", 1), ("more_a", 2), ("dense", 1), ("mixtral", 1)]
    base, *_, dense, mixtral = results["speeds"]
    for row in results["speeds"]:
        assert set(row) == names(Speed)
        assert row["active_parameters"] == pytest.approx(base["active_parameters"], rel=0.02)
        assert row["training"] > 0 and row["generation"] > 0
    assert mixtral["total_parameters"] == pytest.approx(base["total_parameters"], rel=0.02)
    assert dense["total_parameters"] == dense["active_parameters"]
    assert results["machine"]["date"] in printed
    too_long = [sys.executable, "-m", "benchmarks.more", "--new_tokens", "97"]
    run = subprocess.run(too_long, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "prompt_length + new_tokens: expected at most 128 for this preset, found 129" in run.stderr


@pytest.mark.slow
def test_search_benchmark(tmp_path):
    flags = "--seeds 2 --num_rollouts 6 --budget_tokens 30"
    printed, results = run_benchmark("maxent_search", tmp_path / "search.json", *flags.split())
    rollouts, tokens = results["gains"]["6 rollouts"], results["gains"]["30 new tokens"]
    for gains in (rollouts, tokens):
        assert all(set(gain) == names(Gain) for gain in gains)
        assert [gain["method"] for gain in gains] == [method for method, _ in CASES]
        assert all((gain["wins"] is None) == (gain["method"] == "best_of_n") for gain in gains)
    assert {gain["rollouts"] for gain in rollouts} == {6}
    assert max(gain["new_tokens"] for gain in tokens) <= 30
    assert printed.count("| method") == 2


def test_tree_search_benchmark(tmp_path):
    flags = "--rollouts 1 3 --prompt_length 8 --new_tokens 5 --layers 1 --width 32 --vocab_size 100 --rounds 1"
    printed, results = run_benchmark("maxent", tmp_path / "maxent.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "drawings", "bookkeeping"}
    single, several = results["drawings"]
    assert set(single) == set(several) == names(Drawing)
    assert single["packed_entries"] == single["repeated_entries"] == single["unshared_entries"] == 8 + 4
    assert 8 + 4 < several["packed_entries"] <= several["unshared_entries"] == 8 + 3 * 4
    assert several["repeated_entries"] == 3 * (8 + 4)
    assert set(results["bookkeeping"]) == names(Bookkeeping)
    assert 0 < results["bookkeeping"]["share"] < 1
    assert results["machine"]["date"] in printed


@pytest.mark.slow
def test_interventions_benchmark(tmp_path):
    flags = "--task GoToObjS4 --runs 2 --levels 2 --conditions 4 --max_steps 6 --num_envs 2 --rows 8"
    printed, results = run_benchmark("interventions", tmp_path / "interventions.json", *flags.split())
    assert set(results) == {"benchmark", "machine", "settings", "times"}
    assert [row["way"] for row in results["times"]] == ["closed loop", "replay lasting", "replay one step"]
    for row in results["times"]:
        assert set(row) == names(GridTime)
        assert (row["conditions"], row["runs"], row["levels"]) == (4, 2, 2)
    assert results["times"][0]["steps"] <= 4 * 2 * 2 * 6
    assert results["times"][1]["steps"] == results["times"][2]["steps"]
    assert results["machine"]["date"] in printed


def test_analyses_benchmark(tmp_path):
    printed, results = run_benchmark("analyses", tmp_path / "analyses.json", *"--seeds 3 --prices 3 --levels 8".split())
    assert all(set(each) == names(AnalysisTime) and each["rows"] > 0 for each in results["times"])
    assert {"price", "complexity", "knockouts"} <= {each["analysis"] for each in results["times"]}
    assert printed.count("| analysis") == 1


LEVELS = ["BabyAI-GoToObjS6-v1", "BabyAI-GoToRedBallNoDists-v0"]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    """The checkpoint of an untrained mixture whose policy is told its level."""
    path = tmp_path_factory.mktemp("told") / "checkpoint_final.pt"
    fields = {"task_id": LEVELS, "mixture": "two", "task_input": "onehot", "lang_encoder": "builtin", "num_envs": 2}
    ReplicaBatch([TrainConfig(**fields, device="cpu")], announce=lambda line: None).save(0, path)
    return path


def test_policies_that_are_told_their_level_are_measured_on_one(told):
    """The policy of the checkpoint itself wants a wider input than evaluation gives."""
    args = argparse.Namespace(device="cpu", lang_encoder=None, seed=0, checkpoint=[told])
    subject = evaluation.build_subject(args, evaluation.TRAINED, LEVELS[1], told)
    ((policy, _, _),) = interventions.load_agents(args, LEVELS[1])
    for found in (subject.policy, policy):
        assert found.input_projection.in_features == OBSERVATION_DIM + TrainConfig().lang_dim
    with pytest.raises(ValueError, match="BabyAI-GoTo-v0: expected a level that this policy was trained on"):
        evaluation.build_subject(args, evaluation.TRAINED, "BabyAI-GoTo-v0", told)
    with pytest.raises(ValueError, match="BabyAI-GoTo-v0: expected a level that this policy was trained on"):
        interventions.load_agents(args, "BabyAI-GoTo-v0")


def test_training_is_measured_with_checkpoints_of_one_level(told):
    with pytest.raises(CheckpointError, match="expected a policy of one level that is told nothing of it, found mix"):
        training.load_checkpoints([told], LEVELS)


def test_encodings_benchmark(tmp_path):
    flags = "--config configs/debug.yaml --levels GoToObjS4 --seconds 0.02 --seeds 2 --parts 2 --episodes 3"
    printed, results = run_benchmark("encodings", tmp_path / "encodings.json", *flags.split())
    rows = results["encodings"]
    assert [row["encoding"] for row in rows] == ["raw", "onehot", "embedding"] * 2
    assert all(set(row) == names(EncodingScore) and row["level"] == "GoToObjS4" for row in rows)
    assert all(len(row["success"]) == 2 and 0 <= row["accuracy"] <= 1 for row in rows)
    assert all(row["cpu_seconds"] >= 0.01 * part for part, row in zip([1, 1, 1, 2, 2, 2], rows, strict=True))
    assert {row["fusion"] for row in rows} == {"concat"}  # as the settings say
    assert printed.count("| level") == 2
    flags += " --encodings onehot --fusions film concat"
    _, results = run_benchmark("encodings", tmp_path / "fusions.json", *flags.split())
    assert [(row["encoding"], row["fusion"]) for row in results["encodings"]] == [
        ("onehot", "film"),
        ("onehot", "concat"),
    ] * 2


def test_what_lists_of_items_and_evaluated_runs_cost_is_measured(tmp_path):
    _, results = run_benchmark("launch", tmp_path / "launch.json", "--counts", "3")
    (cost,) = results["launch"]
    assert set(cost) == names(LaunchCost) and cost["items"] == 3
    printed, results = run_benchmark("scale", tmp_path / "scale.json", "--counts", "45")
    (seconds,) = results["seconds"]
    assert {"find checkpoints", "look up and add each row", "merge as many files", "rlmop ls"} < set(seconds)
    assert {f"figure {view}" for view in VIEWS} < set(seconds) and all(name in printed for name in seconds)
