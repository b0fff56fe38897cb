"""Transfer: what is compared, how censoring is told, and a study whose policies go on to new levels."""

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
from pipeline.config import TrainConfig
from pipeline.parts import part_of
from pipeline.places import run_folder
from pipeline.tracking import METRICS_FILE
from pipeline.training.batch import ReplicaBatch
from pipeline.training.driver import train_runs
from pipeline.training.loop import run_update
from pipeline.training.options import Sweep
from science import transfer
from science.adapting import adapt_item, adapt_missing, list_learned
from science.arms import PARTS, SCRATCH, list_arms
from science.calibration import compute as calibrate
from science.claims import judge
from science.config import Claim, read_study
from science.figures.draw import draw_analysis
from science.forecast import STEPS_PER_SECOND, describe_runs, estimate_seconds, list_work
from science.levels import ALL_TASKS
from science.outputs import read_table
from science.plan import build_design
from science.planted_transfer import BUDGET, TRANSFER, plant_learning
from science.report.facts import design_facts
from science.runs import train_missing
from science.stages import find_stage
from science.store import Store
from science.synthetic import Design
from science.traces import Run
from science.transfer import COMPARISONS, QUANTITIES, Learned, compute
from science.transfer_settings import Transfer

NEVER = float("inf")


def learn(**arms: list[float]) -> list[Learned]:
    """Return times of runs of one level, by arm; underscores stand for blanks."""
    return [
        Learned(Run("New", "alpha=0", 1, seed), arm.replace("_", " "), steps)
        for arm, times in arms.items()
        for seed, steps in enumerate(times)
        if not np.isnan(steps)
    ]


def values(result, quantity: str, **wanted) -> list[float]:
    return [row.value for row in result.find(quantity, unit="run", task="New", **wanted)]


# ---------------------------------------------------------------------------------------------------------- exact cases


def test_gains_are_doublings_and_bounds_say_what_the_budget_cut():
    found = compute(
        learn(scratch=[400, 800, NEVER, 200, NEVER], router=[100, 800, 250, NEVER, NEVER]), budget=1000, success=0.8
    )
    assert values(found, "gain_router") == pytest.approx([2, 0, 2, np.log2(200 / 1000), np.nan], nan_ok=True)
    rows = found.find("gain_router", unit="run", task="New")
    assert [(row.low == row.value, row.high == row.value) for row in rows] == [
        *((False, False), (False, False), (True, False), (False, True), (False, False)),
    ]
    assert rows[4].drop_reason == "neither: no success of 0.8 within 1,000 env-steps"
    mean = found.row("gain_router", task="New")
    assert mean.value == pytest.approx((2 + 0 + 2 + np.log2(0.2)) / 4) and (mean.n_runs, mean.n_dropped) == (4, 1)
    worst = found.row("gain_router", task="New", estimator="worst")
    assert worst.value == pytest.approx(mean.value * 4 / 5) and "included at 0" in worst.drop_reason
    assert {row.quantity for row in found.rows} == {"gain_router", "steps_to_learn", "learned"}


def test_who_is_there_as_soon_as_it_can_be_told_may_have_been_there_sooner():
    entries = learn(scratch=[400, 400, 400, 100, NEVER], router=[100, 100, 100, 400, 100])
    early = {("router", 0), ("router", 1), (SCRATCH, 1), (SCRATCH, 3), ("router", 4)}
    entries = [dataclasses.replace(entry, at_once=(entry.arm, entry.run.seed) in early) for entry in entries]
    rows = compute(entries, budget=1000).find("gain_router", unit="run", task="New")
    assert [(row.low == row.value, row.high == row.value) for row in rows] == [
        *((True, False), (False, False), (False, False), (False, True), (True, False)),
    ]


def test_a_run_that_was_not_trained_is_no_run_that_never_learned():
    found = compute(learn(scratch=[400, 400, np.nan], router=[100, np.nan, 100]), budget=1000)
    assert values(found, "gain_router") == pytest.approx([2, np.nan, np.nan], nan_ok=True)
    assert found.row("gain_router", task="New").drop_reason == "an arm was not trained"
    assert not found.find("gain_router", estimator="worst")
    assert found.row("learned", task="New", condition=SCRATCH).n_runs == 2


def test_a_twin_takes_out_what_an_untrained_part_can_do():
    found = compute(
        learn(
            router=[100, 200, NEVER],
            experts=[400, 200, NEVER],
            untrained_router=[800, NEVER, NEVER],
            untrained_experts=[200, 500, NEVER],
        ),
        budget=1000,
    )
    assert values(found, "router_against_experts") == pytest.approx([2, 0, np.nan], nan_ok=True)
    assert values(found, "router_against_experts_above_untrained") == pytest.approx([2 + 2, 0 + 1, np.nan], nan_ok=True)
    assert values(found, "gain_router_above_untrained") == pytest.approx([3, np.log2(5), np.nan], nan_ok=True)
    assert found.row("router_against_experts", task="New").twin == "router_against_experts_above_untrained"


def test_times_are_told_with_medians_and_shares():
    found = compute(learn(scratch=[100, 300, NEVER], head=[NEVER, NEVER, 50]), budget=1000)
    assert found.row("steps_to_learn", task="New", unit="runs", condition=SCRATCH).value == 300
    head = found.row("steps_to_learn", task="New", unit="runs", condition="head")
    assert np.isnan(head.value) and head.n_dropped == 2
    share = found.row("learned", condition="head")
    assert share.value == pytest.approx(1 / 3) and 0 < share.low < 1 / 3 < share.high < 1


def test_runs_with_the_same_value_prove_no_more_than_their_signs():
    """A t test has no spread to go by; without this, three runs of one coarse log would be certain."""
    found = compute(learn(scratch=[400] * 3, router=[100] * 3), budget=1000)
    for task in ("New", ALL_TASKS):
        row = found.row("gain_router", task=task)
        assert (row.value, row.p, row.p_floor) == (pytest.approx(2), 0.25, 0.25)
    ten = compute(learn(scratch=[400] * 10, router=[100] * 10), budget=1000)
    assert ten.row("gain_router", task="New").p == pytest.approx(2 / 2**10)


def test_arms_exchanged_change_the_sign_and_nothing_else():
    rng = np.random.default_rng(0)
    learned = plant_learning(rng, runs=9, levels=4, ahead={"router": 1.0})
    other = {SCRATCH: "router", "router": SCRATCH}
    one, two = (
        compute(entries, budget=BUDGET)
        for entries in (learned, [dataclasses.replace(e, arm=other.get(e.arm, e.arm)) for e in learned])
    )
    for row in one.find("gain_router"):
        if row.unit != "run" and row.estimator != "worst":
            back = two.row("gain_router", task=row.task)
            assert (back.value, back.p, back.n_runs) == (pytest.approx(-row.value), pytest.approx(row.p), row.n_runs)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="found 2000"):
        compute(learn(scratch=[2000]), budget=1000)
    with pytest.raises(ValueError, match="found it twice"):
        compute(learn(scratch=[100]) * 2, budget=1000)


def test_success_from_the_start_is_noted():
    entries = [dataclasses.replace(entry, at_once=entry.run.seed < 2) for entry in learn(router=[100, 100, 200])]
    assert compute(entries, budget=1000).notes == (
        "New, router: 2 of 3 runs have that success as soon as it can be told: they may have needed fewer steps",
    )


# ---------------------------------------------------------------------------------------------------- known answers


def test_planted_times_are_found_and_every_quantity_has_a_name_and_a_definition():
    learned = plant_learning(np.random.default_rng(3), runs=7, levels=60, ahead={"router": 1.0}, own=0.0, budget=1e12)
    found = compute(learned, budget=1e12)
    assert found.row("gain_router", task=ALL_TASKS).value == pytest.approx(1.0, abs=0.1)
    assert found.row("gain_experts", task=ALL_TASKS).value == pytest.approx(0.0, abs=0.1)
    assert {row.quantity for row in found.rows} == set(QUANTITIES) == {*COMPARISONS, "steps_to_learn", "learned"}
    assert [quantity for quantity in QUANTITIES if quantity not in (transfer.__doc__ or "")] == []
    short = 2.0**16.5
    cut = [dataclasses.replace(entry, steps=entry.steps if entry.steps <= short else NEVER) for entry in learned]
    cut = compute(cut, budget=short)
    worst = cut.row("gain_router", task=ALL_TASKS, estimator="worst")
    assert 0.5 < worst.value < cut.row("gain_router", task=ALL_TASKS).value
    assert worst.value < 0.9 * found.row("gain_router", task=ALL_TASKS).value and "included at 0" in worst.drop_reason


def watch(settings: list[TrainConfig], updates: int) -> tuple[ReplicaBatch, list[float]]:
    """Return runs after so many updates, and env-steps until each had success 0.9 over its last 50 episodes."""
    batch, found = ReplicaBatch(settings, announce=lambda line: None), [NEVER] * len(settings)
    while batch.update < updates:
        run_update(batch)
        if batch.update % 4 == 0:
            for replica, row in enumerate(batch.take_metrics()):
                done = row["rollout/window_episodes"] >= 50 and row["rollout/success_rate"] >= 0.9
                found[replica] = min(found[replica], batch.env_steps if done else NEVER)
    return batch, found


def test_what_was_lost_is_learned_again_where_it_was(tmp_path):
    """Of trained policies the head alone is drawn anew: the head has the level back, and routers cannot."""
    sizes = {"intermediate_dim": 16, "expert_hidden_sizes": [[8, 8]], "router_hidden_size": 8, "lang_dim": 8}
    speed = {"num_envs": 16, "unroll_len": 16, "lr": 5e-3, "action_selection": "sample", "window": 50}
    about = {"task_id": "BabyAI-GoToRedBallNoDists-v0", "policy": "mop", "lang_encoder": "builtin", "device": "cpu"}
    base = TrainConfig(**sizes, **speed, **about)
    seeds, updates = (0, 1, 2), 40
    batch, scratch = watch([dataclasses.replace(base, seed=seed) for seed in seeds], 120)
    others = ReplicaBatch([dataclasses.replace(base, seed=seed + 100) for seed in seeds], announce=lambda line: None)
    for replica, seed in enumerate(seeds):
        fresh = others.content(replica)["policy_state_dict"]
        weights = batch.content(replica)["policy_state_dict"]
        weights |= {name: value for name, value in fresh.items() if part_of(name) == "head"}
        save_checkpoint(tmp_path / f"{seed}.pt", {**batch.content(replica), "policy_state_dict": weights})
    begin = {"start_from": str(tmp_path / "{seed}.pt")}
    arms = {
        part: watch([dataclasses.replace(base, seed=s, train_only=[part], **begin) for s in seeds], updates)[1]
        for part in ("head", "router")
    }
    budget = updates * 16 * 16
    arms["scratch"] = [steps if steps <= budget else NEVER for steps in scratch]
    assert max(arms["head"]) < min(scratch) and arms["router"] == [NEVER] * 3
    found = compute(learn(**arms), budget=budget)
    assert found.row("gain_head", task="New").value > 0
    assert found.row("learned", condition="head").value == 1 and found.row("learned", condition="router").value == 0


@pytest.mark.parametrize("levels", [1, 4])
def test_arms_that_are_alike_are_told_apart_as_often_as_the_level_says(levels):
    """40 data sets of each claim; of 5 %, 7 or more of 40 are the binomial's last 0.4 %."""
    for quantity, test in TRANSFER.items():
        p = []
        for number in range(40):
            setup = SimpleNamespace(rng=np.random.default_rng(number), planted=False, held_out=levels)
            setup.template = SimpleNamespace(runs=range(10))
            p.append(test(setup)[0].p)
        assert sum(value <= 0.05 for value in p) < 7, quantity


def test_the_card_has_the_claims():
    card = calibrate(Design(runs=10, episodes=4), claims=["transfer.gain_router"], datasets=30)
    assert card.row("recovery", group="transfer.gain_router").value > 0.4
    assert card.row("estimate", group="transfer.gain_router").null_mean == 2.0


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
        (
            {"train": {**STUDY["train"], "expert_action_prob": 0.5}},
            "transfer: expected train.expert_action_prob 0, .* while it learns, found 0.5; leave it out",
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
        assert row == entry.steps or (np.isnan(row) and entry.steps == NEVER)
        assert entry.steps == NEVER or entry.steps % (4 * 8) == 0
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


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_show_every_level_arm_and_run():
    learned = plant_learning(np.random.default_rng(1), runs=5, levels=11, ahead={"router": 1.0})
    table = compute(learned, budget=BUDGET).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", table, QUANTITIES, [[0, 8]])}
    assert list(drawn) == ["transfer_steps_1", "transfer_steps_2", "transfer_gains"]
    first = drawn["transfer_steps_1"].axes[0]
    arms = [text.get_text() for text in first.get_yticklabels()]
    assert arms[:5] == ["scratch", "router", "experts", "head", "all"]
    own = table[(table["quantity"] == "steps_to_learn") & (table["task"] == "Planted0") & (table["unit"] == "run")]
    shown = sum(len(line.get_xdata()) for line in first.lines if line.get_marker() == "o")
    assert shown == own["value"].notna().sum()
    lost = sum(len(line.get_xdata()) for line in first.lines if line.get_marker() == ">")
    assert lost == own["value"].isna().sum() > 0
    gains = drawn["transfer_gains"].axes
    assert len(gains) == 3 and len(gains[0].get_yticklabels()) == 12
    assert all(low <= 0 <= high for low, high in (ax.get_xlim() for ax in gains))


def test_one_level_has_no_line_for_all_of_them_and_no_arm_no_panel():
    found = compute(learn(scratch=[400, 300, 200], head=[100, 200, 300]), budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    assert len(drawn["transfer_gains"].axes) == 1
    assert [text.get_text() for text in drawn["transfer_gains"].axes[0].get_yticklabels()] == ["New"]


def test_means_that_leave_levels_out_are_hollow():
    """Nobody learned the second of three levels: the mean over levels is hollow as that of this level's would be."""
    times = learn(scratch=[400, 300, 200], head=[100, 110, 120])
    learned = [
        dataclasses.replace(entry, run=dataclasses.replace(entry.run, task=level), steps=steps)
        for level in "ABC"
        for entry in times
        for steps in (NEVER if level == "B" else entry.steps,)
    ]
    found = compute(learned, budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    (ax,) = drawn["transfer_gains"].axes
    faces = {
        round(line.get_ydata()[0]): line.get_markerfacecolor() for line in ax.lines if line.get_markersize() == 3.4
    }
    assert faces.keys() == {0, 1, 2, 3}
    assert (faces[3] == "white") and faces[0] != "white" and faces[2] != "white"


def test_bounds_are_drawn_as_bounds():
    """Scratch never learned it in the first run, the head in the last: at least, and at most, so much sooner."""
    never = float("inf")
    found = compute(learn(scratch=[never, 300, 200], head=[100, 200, never]), budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    (ax,) = drawn["transfer_gains"].axes
    small = {line.get_marker(): line.get_xdata().tolist() for line in ax.lines if line.get_markersize() == 1.5}
    assert small == {
        ">": [pytest.approx(np.log2(10))],
        "<": [pytest.approx(np.log2(200 / 1000))],
        "o": [pytest.approx(np.log2(1.5))],
    }
