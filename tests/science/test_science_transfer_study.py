"""A study whose policies go on to new levels: its settings, what each arm starts from, stopping and moving it."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from pipeline.checkpoints import load_policy, read_checkpoint, save_checkpoint
from pipeline.command.errors import ConfigError
from pipeline.parts import part_of
from pipeline.places import run_folder
from pipeline.tracking import METRICS_FILE
from pipeline.training.driver import train_runs
from pipeline.training.options import Sweep
from science.adapting import adapt_item, adapt_missing, list_learned
from science.arms import PARTS, list_arms
from science.claims import judge
from science.config import Claim, read_study
from science.forecast import STEPS_PER_SECOND, describe_runs, estimate_seconds, list_work
from science.levels import ALL_TASKS
from science.outputs import read_table
from science.plan import build_design
from science.report.facts import design_facts
from science.runs import train_missing
from science.stages import find_stage
from science.store import Store
from science.transfer_settings import Transfer

# ---------------------------------------------------------------------------------------------------------- settings

STUDY = {
    "name": "moved",
    "train": {
        **{"policy": "mop", "num_updates": 3, "num_envs": 4, "unroll_len": 8, "lang_encoder": "builtin", "window": 3},
        **{"lang_dim": 4, "intermediate_dim": 8, "expert_hidden_sizes": [[0, 4, 8]], "router_hidden_size": 4},
        **{"checkpoint_interval": 0, "device": "cpu", "max_steps": 12, "lr": 1e-2},
    },
    **{"tasks": ["GoToObjS4", "GoToObjS6-v1"], "mixture": "two", "held_out_tasks": ["GoToRedBallNoDists"]},
    **{"seeds": "0-2", "lpc_alphas": [0, 1e-3], "episodes": 8, "analyses": ["transfer"]},
    "transfer": {"num_updates": 12, "success": 0.3, "parts": ["router", "experts"], "seeds": 2},
    "statistics": {"draws": 9, "calibration": 1},
}


def read(folder: Path, **changes):
    path = folder / "moved.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "out": str(folder / "out"), **changes}))
    return read_study("test", ["--config", str(path)])[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transfer": {"parts": ["rooter"]}}, "transfer: parts: .*found 'rooter'; did you mean router"),
        ({"transfer": {"parts": []}}, "transfer: parts: .*found none"),
        ({"transfer": {"success": 0}}, "transfer: success: expected a share above 0, at most 1, found 0"),
        ({"transfer": {"updates": 3}}, "transfer: unknown key 'updates'"),
        ({"transfer": {"alpha": 0.5}}, "transfer: alpha: expected one of 0, 0.001, found 0.5"),
        ({"transfer": {"seeds": 4}}, "transfer: seeds: expected at most 3, found 4"),
        ({"transfer": {"levels": ["GoToObjS4"]}}, "transfer: levels: .*found GoToObjS4 in both"),
        ({"transfer": {"levels": ["A", "A"]}}, "transfer: levels: expected distinct names, found A twice"),
        ({"held_out_tasks": []}, "transfer: levels: expected levels to be learned, or held_out_tasks"),
        ({"mixture": None, "held_out_tasks": [], "transfer": {"levels": ["GoTo"]}}, "found 2 tasks and no mixture"),
        ({"transfer": None}, "analyses: transfer: expected its settings"),
        (
            {
                "train": {**STUDY["train"], "task_input": "onehot"},
                "held_out_tasks": [],
                "transfer": {"levels": ["GoTo"]},
            },
            "transfer: by train.task_input onehot",
        ),
        ({"train": {"start_from": "x.pt"}}, "train: start_from is set by the study itself; see `transfer`"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, **changes)


def test_levels_known_by_another_name_are_found_out(tmp_path):
    config = read(tmp_path, transfer={"levels": ["BabyAI-GoToObjS4-v0"]})
    with pytest.raises(ConfigError, match=r"transfer: levels: .*BabyAI-GoToObjS4-v0 in both"):
        build_design(config, {})


@pytest.mark.parametrize("name", ["transfer", "difficulty_baselines"])
def test_runs_too_short_to_tell_whether_they_learned_are_refused(tmp_path, name):
    """Twelve steps are two unrolls of eight."""
    config = read(tmp_path, **{name: {"num_updates": 4}})
    assert build_design(config, {})
    short = dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), num_updates=3)})
    with pytest.raises(ConfigError, match=rf"{name}: num_updates: expected at least 4 for .*up to 12 steps.*found 3"):
        build_design(short, {})


@pytest.mark.parametrize(
    ("name", "changes"),
    [("transfer", {}), ("difficulty_baselines", {"transfer": None, "analyses": [], "difficulty_baselines": {}})],
)
def test_how_soon_a_level_is_learned_is_not_told_by_episodes_in_which_the_expert_acts(tmp_path, name, changes):
    config = read(tmp_path, train={**STUDY["train"], "expert_action_prob": 0.5}, **changes)
    with pytest.raises(ConfigError, match=rf"{name}: expected train.expert_action_prob 0, .*found 0.5; leave it out"):
        build_design(config, {})


def test_analyses_that_are_not_named_have_it_only_where_it_has_settings(tmp_path):
    assert "transfer" in read(tmp_path, analyses=[]).analyses
    assert "transfer" not in read(tmp_path, analyses=[], transfer=None).analyses


def test_arms_are_in_order():
    names = [arm.name for arm in list_arms(PARTS)]
    assert names == ["scratch", "router", "experts", "head", "all"] + [f"untrained {p}" for p in names[1:4]]
    assert [arm.name for arm in list_arms(["head"], twins=False)] == ["scratch", "head"]
    assert [(arm.train_only, arm.trained) for arm in list_arms(Transfer(parts=["all", "head"]).parts)] == [
        *((None, False), (["head"], True), (None, True), (["head"], False)),
    ]


# ------------------------------------------------------------------------------------------------------------ a study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study whose policies were trained and have gone on, with the table of the analysis."""
    design = build_design(read(tmp_path_factory.mktemp("moved")), {})
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    assert train_missing(design, store, 1, lambda line: None) == {}
    said: list[str] = []
    assert adapt_missing(design, store, 1, said.append) == {}
    item = next(item for item in find_stage("analyse").items(design, ["transfer"]))
    link = SimpleNamespace(heed=lambda done=0: None)
    store.write(item, *find_stage("analyse").make(design, store, item, link))
    return design, store, said


def test_each_arm_starts_where_it_says_and_changes_its_part_alone(made):
    design, _, said = made
    assert said[0].startswith("transfer: 10 of 10 runs")
    assert [(run.setting, run.seed) for run in design.adapted[:4]] == [
        *(("scratch", 0), ("scratch", 1), ("router", 0), ("router", 1)),
    ]
    for run in design.adapted:
        source = next(other for other in design.routed if (other.seed, other.alpha) == (run.seed, 0.0))
        content = read_checkpoint(run.checkpoint)
        assert content["config"]["task_id"] == "BabyAI-GoToRedBallNoDists-v0" and content["config"]["mixture"] is None
        weights = content["policy_state_dict"]
        if run.setting in ("router", "experts"):
            before = load_policy(source.checkpoint).policy.state_dict()
            moved = {part_of(name) for name, value in before.items() if not torch.equal(value, weights[name])}
            assert moved == {run.setting}
            assert content["started_from"]["path"] == str(source.checkpoint)
        else:
            assert "started_from" not in content


def test_the_table_tells_of_runs_and_levels_and_claims_of_all_new_levels(made):
    design, store, _ = made
    table = read_table(design.folder / "tables" / "transfer.csv")
    assert set(table["task"]) == {"BabyAI-GoToRedBallNoDists-v0", ALL_TASKS} and set(table["setting"]) == {"alpha=0"}
    steps = table[(table["quantity"] == "steps_to_learn") & (table["unit"] == "run")]
    assert steps.groupby("condition")["seed"].apply(sorted).to_dict() == {
        arm: [0, 1] for arm in ("scratch", "router", "experts", "untrained router", "untrained experts")
    }
    for entry in list_learned(design, store):
        (row,) = steps[(steps["condition"] == entry.arm) & (steps["seed"] == entry.run.seed)]["value"]
        assert row == entry.steps or (np.isnan(row) and np.isinf(entry.steps))
        assert np.isinf(entry.steps) or entry.steps % (4 * 8) == 0
    verdicts = judge([Claim("transfer.gain_router")], {"transfer": table}, 0.05, (*design.held_out, *design.new_levels))
    assert list(verdicts["part"]) == ["all", "overall"]


def test_the_plan_and_the_report_tell_of_it(made):
    design, store, _ = made
    assert (
        "transfer    10 runs, 3,840 env-steps: BabyAI-GoToRedBallNoDists-v0, each learned in 12 updates by scratch"
        in ("\n".join(describe_runs(design)))
    )
    work = {name: (items, stale) for name, items, stale in list_work(design, store, ["transfer"])}
    assert len(work["transfer"][0]) == 10 and work["transfer"][1] == []
    assert estimate_seconds(design, work["transfer"][0][0]) == pytest.approx(12 * 32 / STEPS_PER_SECOND)
    assert "transfer" not in {name for name, _, _ in list_work(design, store, ["knockouts"])}
    assert dict(design_facts(design))["Transfer"].startswith(
        "GoToRedBallNoDists, each learned in 12 updates by scratch,"
    )


def test_what_is_there_stays_and_what_is_gone_is_made_again_with_the_same_numbers(made):
    design, store, _ = made
    said: list[str] = []
    assert adapt_missing(design, store, 1, said.append) == {} and said == []
    run = design.adapted[3]
    before = {path: path.read_bytes() for path in (store.folder / "work" / "stamps").glob("transfer_*")}
    notes = store.read(adapt_item(design, run).name).notes
    weights = load_policy(run.checkpoint).digest
    run.checkpoint.unlink()
    fresh = Store(design.folder)
    assert adapt_missing(design, fresh, 1, said.append) == {} and said[0].startswith("transfer: 1 of 10 runs")
    assert load_policy(run.checkpoint).digest == weights
    assert fresh.read(adapt_item(design, run).name).notes == notes
    assert sum(path.read_bytes() != content for path, content in before.items()) == 1


def test_a_stopped_study_goes_on_where_it_was(tmp_path, made):
    """Half of the updates, then all of them: the same weights and the same curve as at once."""
    whole, store, _ = made
    half = build_design(read(tmp_path, transfer={**STUDY["transfer"], "num_updates": 6}), {})
    half.work.mkdir(parents=True)
    assert train_missing(half, Store(half.folder), 1, lambda line: None) == {}
    short = dataclasses.replace(
        half,
        adapted=tuple(
            dataclasses.replace(run, config=dataclasses.replace(run.config, num_updates=12, trial=run.config.trial))
            for run in half.adapted
        ),
    )
    begun = dataclasses.replace(half, adapted=half.adapted[2:3])
    assert adapt_missing(begun, Store(half.folder), 1, lambda line: None) == {}
    going = dataclasses.replace(short, adapted=short.adapted[2:3])
    assert adapt_missing(going, Store(half.folder), 1, lambda line: None) == {}
    run = going.adapted[0]
    assert load_policy(run.checkpoint).digest == load_policy(whole.adapted[2].checkpoint).digest
    ours = Store(half.folder).read(adapt_item(going, run).name).notes
    theirs = store.read(adapt_item(whole, whole.adapted[2]).name).notes
    assert json.dumps(ours) == json.dumps(theirs)


def test_a_policy_that_was_trained_anew_is_started_from_anew(tmp_path):
    """What began with other weights is no part of the study any more; what began with its own stays."""
    design = build_design(read(tmp_path, transfer={**STUDY["transfer"], "parts": ["router"], "seeds": 1}), {})
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    assert train_missing(design, store, 1, lambda line: None) == {}
    assert adapt_missing(design, store, 1, lambda line: None) == {}
    scratch, router, _ = design.adapted
    source = design.routed[0].checkpoint
    content = read_checkpoint(source)
    content["policy_state_dict"]["head.bias"] += 1.0
    source.unlink()
    save_checkpoint(source, {k: v for k, v in content.items() if k not in ("digests", "schema_version")})
    assert train_missing(design, fresh := Store(design.folder), 1, lambda line: None) == {}
    said: list[str] = []
    stamp = scratch.checkpoint.stat().st_mtime_ns
    assert adapt_missing(design, fresh, 1, said.append) == {}
    assert said[0].startswith("transfer: 1 of 3 runs")
    started = read_checkpoint(router.checkpoint)["started_from"]
    assert started["weights"] == load_policy(source).digest
    assert torch.equal(load_policy(router.checkpoint).policy.head.bias, content["policy_state_dict"]["head.bias"])
    assert scratch.checkpoint.stat().st_mtime_ns == stamp


def test_a_study_that_has_moved_goes_on_where_it_was(tmp_path):
    """What its runs start from is called otherwise, and has the same weights."""
    asked = {"transfer": {**STUDY["transfer"], "parts": ["router"], "seeds": 1, "untrained": False}}
    design = build_design(read(tmp_path, **asked), {})
    design.work.mkdir(parents=True)
    assert train_missing(design, Store(design.folder), 1, lambda line: None) == {}
    router = dataclasses.replace(design.adapted[1].config, num_updates=6)
    assert train_runs(Sweep((router,))) == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    design = build_design(read(tmp_path, **asked, out=str(tmp_path / "moved")), {})
    assert adapt_missing(design, Store(design.folder), 1, lambda line: None) == {}
    lines = run_folder(design.adapted[1].config.log_dir, design.adapted[1].config) / METRICS_FILE
    assert [json.loads(line)["update"] for line in lines.read_text().splitlines()] == list(range(1, 13))


def test_a_run_whose_metrics_are_gone_is_no_run_that_never_learned(made):
    design, _, _ = made
    run = design.adapted[0]
    lines = run_folder(run.config.log_dir, run.config) / METRICS_FILE
    kept, fresh = lines.read_bytes(), Store(design.folder)
    fresh.forget(adapt_item(design, run))
    lines.unlink()
    try:
        failures = adapt_missing(design, fresh, 1, lambda line: None)
        assert list(failures) == [adapt_item(design, run).name]
        assert failures[adapt_item(design, run).name].startswith(
            "its metrics are gone, which tell how soon it learned;"
        )
        assert fresh.read(adapt_item(design, run).name) is None
    finally:
        lines.write_bytes(kept)
    assert adapt_missing(design, fresh, 1, lambda line: None) == {}


def test_all_arms_learn_with_the_encoder_of_their_policy(made, monkeypatch):
    """Also those that draw their weights, where settings leave it open; it is no other run for that."""
    design = made[0]
    auto = [
        dataclasses.replace(run, config=dataclasses.replace(run.config, lang_encoder="auto")) for run in design.adapted
    ]
    assert [adapt_item(design, run) for run in auto] == [adapt_item(design, run) for run in design.adapted]
    sent = []
    monkeypatch.setattr("science.adapting.train_together", lambda design, store, runs, *_, **__: sent.append(runs))
    fresh = Store(design.folder)
    monkeypatch.setattr(fresh, "is_fresh", lambda item: False)
    adapt_missing(dataclasses.replace(design, adapted=tuple(auto)), fresh, 1, lambda line: None)
    assert sent == [list(design.adapted)]  # whose settings name it


def test_without_its_policy_an_arm_is_left_out_and_the_others_are_made(tmp_path):
    design = build_design(read(tmp_path, transfer={**STUDY["transfer"], "parts": ["head"], "seeds": 1}), {})
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    said: list[str] = []
    assert adapt_missing(design, store, 1, said.append) == {}
    assert said[0].startswith("transfer: 2 of 3 runs")
    assert {entry.arm for entry in list_learned(design, store)} == {"scratch", "untrained head"}
