"""A study of policies that learn several levels: one training each, every level played, held-out ones as well."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.evaluation.checkpoint import evaluate_checkpoint, load_checkpoint
from pipeline.policies import build_policy
from science import inputs, knockouts, price
from science.claims import find_parts
from science.conditions import build_conditions
from science.config import Claim, read_study
from science.figures.draw import draw_analysis
from science.figures.levels import order_levels
from science.forecast import describe_runs
from science.growth import grow_missing
from science.learning import find_learned, find_whole
from science.outputs import read_table
from science.plan import build_design
from science.questions import Given
from science.result import Draft
from science.runs import evaluate_missing, evaluation_settings, fit_sizes, match_baselines, train_item, train_missing
from science.stages import find_stage
from science.store import Store
from science.traces import Run

TASKS = ("BabyAI-GoToObjS4-v0", "BabyAI-GoToObjS6-v1")
HELD_OUT = "BabyAI-GoToRedBallNoDists-v0"
STUDY = {
    "name": "mixed",
    "train": {
        **{"policy": "mop", "num_updates": 3, "num_envs": 4, "unroll_len": 8, "lang_encoder": "builtin"},
        **{"lang_dim": 4, "intermediate_dim": 8, "expert_hidden_sizes": [[0, 4, 8]], "router_hidden_size": 4},
        **{"checkpoint_interval": 0, "device": "cpu", "max_steps": 12, "lr": 1e-2},
    },
    **{"tasks": ["GoToObjS4", "GoToObjS6-v1"], "mixture": "two", "held_out_tasks": ["GoToRedBallNoDists"]},
    **{"seeds": "0-2", "lpc_alphas": [0, 1e-4, 1e-3], "baselines": ["largest"], "episodes": 8, "changed_episodes": 4},
    "statistics": {"draws": 9, "calibration": 1},
}


def read(folder: Path, **changes):
    path = folder / "mixed.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "out": str(folder / "out"), **changes}))
    return read_study("test", ["--config", str(path)])[0]


def make(stage: str, design, store: Store, only=("price", "knockouts")) -> None:
    class Link:
        def heed(self, _=0):
            pass

    for item in find_stage(stage).items(design, list(only)):
        store.write(item, *find_stage(stage).make(design, store, item, Link()))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study trained, evaluated, replayed, changed by knock-outs, with tables of two analyses."""
    design = build_design(config := read(tmp_path_factory.mktemp("mixed")), match_baselines(config))
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    said: list[str] = []
    assert train_missing(design, store, 1, said.append) == {}
    assert evaluate_missing(design, store, 1, said.append) == {}
    for stage in ("played", "replay", "intervene"):
        make(stage, design, store)
    make("analyse", design, store)
    return design, store, said


def test_each_policy_is_trained_once_and_plays_every_task(made):
    design, store, said = made
    assert design.tasks == (*TASKS, HELD_OUT) and design.held_out == (HELD_OUT,)
    assert len(design.trainings) == 4 * 3 and len(design.runs) == 3 * 4 * 3
    assert said[0].startswith("train: 12 of 12 runs") and said[1].startswith("evaluate: 36 of 36 runs and tasks")
    assert len(list(design.work.rglob("checkpoint_final.pt"))) == 12
    stamps = [store.read(f"evaluate/{run.name}") for run in design.runs]
    assert len({path for stamp in stamps for path in stamp.files}) == 36
    assert {run.config.levels == list(TASKS) for run in design.runs} == {True}
    assert all(store.is_fresh(train_item(run)) for run in design.runs)


def test_what_is_evaluated_is_the_checkpoint_on_that_level(made):
    design, store, _ = made
    for run in (design.runs[0], next(run for run in design.routed if run.task == HELD_OUT)):
        found = evaluate_checkpoint(
            load_checkpoint(run.checkpoint), run.task, evaluation_settings(design), record=False
        )
        notes = store.read(f"evaluate/{run.name}").notes
        assert (found.metrics["success_rate"], found.metrics["mean_lpc"]) == (notes["success"], notes["lpc"])


def test_a_task_has_the_numbers_that_it_has_by_itself(made):
    """Several tasks of one policy are analysed side by side, and none has to do with another."""
    design, store, _ = made
    from science.effects import Effects, read_effects

    played = inputs.read_all(store, [item.name for item in find_stage("played").items(design, [])])
    names = [item.name for item in find_stage("intervene").items(design, ["knockouts"]) if "/R/" in item.name]
    effects = Effects.concatenate([read_effects(path) for name in names for path in store.files(name)])
    for kind, whole in (("price", price.compute(played, draws=9)), ("knockouts", knockouts.compute(effects, played))):
        for task in design.tasks:
            traces = played.select([i for i, run in enumerate(played.runs) if run.task == task])
            own = effects.select([i for i, run in enumerate(effects.runs) if run.task == task])
            alone = price.compute(traces, draws=9) if kind == "price" else knockouts.compute(own, traces)
            assert pd.DataFrame(row.__dict__ for row in whole.rows if row.task == task).equals(
                pd.DataFrame(row.__dict__ for row in alone.rows)
            )


def test_the_tables_tell_each_task_with_the_same_runs_and_baselines(made):
    design, _, _ = made
    table = read_table(design.folder / "tables" / "price.csv")
    for quantity in ("price_trend_of_lpc", "baseline_success"):
        rows = table[(table["quantity"] == quantity) & (table["seed"] >= 0)]
        assert rows.groupby("task")["seed"].apply(sorted).to_dict() == {task: [0, 1, 2] for task in design.tasks}


def test_training_steps_and_experts_are_asked_on_every_task(made):
    """What is looked at on the way, at single steps and in coalitions is each policy's, on every level it plays."""
    design, store, _ = made
    only = ("dynamics", "needed", "shapley")
    assert grow_missing(design, store, 1, lambda line: None) == {}
    for stage in ("force", "grown", "intervene", "analyse"):
        make(stage, design, store, only)
    for name in only:
        table = read_table(design.folder / "tables" / f"{name}.csv")
        single = table[table["seed"] >= 0]
        assert set(single["task"]) >= {*TASKS, HELD_OUT} and set(single["seed"]) == {0, 1, 2}, name
        assert not (table["drop_reason"].fillna("").str.contains("checkpoint")).any(), name


def test_a_claim_is_about_a_held_out_task_only_if_it_names_it(made):
    table = read_table(made[0].folder / "tables" / "price.csv")
    parts = find_parts(Claim("price.price_trend_of_lpc"), table, made[0].held_out)
    assert [part.name for part in parts] == list(TASKS)
    named = find_parts(Claim("price.price_trend_of_lpc", task=HELD_OUT), table, made[0].held_out)
    assert len(named) == 1


def test_the_plan_says_what_one_policy_learns_and_what_is_held_out(made):
    text = "\n".join(describe_runs(made[0]))
    assert "two, learned by one policy: BabyAI-GoToObjS4-v0, BabyAI-GoToObjS6-v1" in text
    assert f"held out    {HELD_OUT}" in text and "runs        12: 3 seeds" in text


def test_a_policy_that_is_told_of_levels_is_changed_as_it_plays(tmp_path, made):
    """Told of one level, it is another function than told of the other; replay takes the one of the task."""
    train = {**STUDY["train"], "task_input": "onehot"}
    changes = {"held_out_tasks": [], "train": train, "seeds": "0", "lpc_alphas": [0], "baselines": []}
    config = read(tmp_path, **changes)
    design = build_design(config, {})
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    assert train_missing(design, store, 1, lambda line: None) == {}
    make("replay", design, store, only=["pathways"])
    for kind in ("alpha=0", inputs.UNTRAINED):
        first, second = (inputs.read_all(store, [f"replay/{task}/{kind}"]) for task in TASKS)
        assert first.weights[0].tolist() != second.weights[0].tolist()
    kept, agents, _ = inputs.load_agents(design, store, find_stage("replay").items(design, [])[0])
    expected = load_checkpoint(kept[0].checkpoint).agent(TASKS[0])[0]
    for name, weight in agents[0][0].state_dict().items():
        np.testing.assert_array_equal(weight, expected.state_dict()[name])


def test_a_baseline_is_counted_by_what_it_really_takes():
    config = TrainConfig(task_id=list(TASKS), mixture="two", task_input="onehot", lang_dim=4)
    for settings in (config, TrainConfig(lang_dim=4)):
        built = build_policy(dataclasses.replace(settings, policy="gru", hidden_size=13))
        assert fit_sizes(settings)(13) == sum(weight.numel() for weight in built.parameters())
    assert fit_sizes(config)(13) - fit_sizes(TrainConfig(lang_dim=4))(13) == 3 * 13 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {**STUDY["train"], "task_input": "onehot"}}, "held_out_tasks: GoToRedBallNoDists: by train.task_in"),
        ({"mixture": None}, "held_out_tasks: expected a mixture with it"),
        ({"mixture": None, "held_out_tasks": [], "task_weights": [1, 2]}, "task_weights: expected a mixture with it"),
        ({"mixture": None, "held_out_tasks": [], "train": {"task_input": "onehot"}}, "onehot goes with a mixture"),
        ({"task_weights": [1, 2, 3]}, "task_weights: expected 2, one for each level"),
        ({"mixture": "BabyAI-x"}, "mixture: expected a letter"),
        ({"train": {**STUDY["train"], "num_envs": 1}}, "num_envs: expected at least 2"),
        ({"held_out_tasks": ["GoToObjS4"]}, "held_out_tasks: expected levels that are not in tasks, found GoToObjS4"),
        ({"train": {"task_id": ["GoToObj"]}}, "train: task_id is set by the study itself; its levels are `tasks`"),
        ({"train": {"mixture": "two"}}, "train: mixture is set by the study itself; give mixture beside tasks"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, **changes)


def test_two_names_of_one_level_are_found_out(tmp_path):
    with pytest.raises(ConfigError, match=r"held_out_tasks: .*BabyAI-GoToObjS4-v0 in both"):
        build_design(read(tmp_path, held_out_tasks=["BabyAI-GoToObjS4-v0"]), {"largest": 4})
    with pytest.raises(ConfigError, match="tasks: expected distinct levels in a mixture"):
        build_design(read(tmp_path, tasks=["GoToObjS4", "BabyAI-GoToObjS4-v0"]), {"largest": 4})


# ------------------------------------------------------------------------------------------------- how hard tasks are


def test_dense_networks_tell_how_hard_a_task_is(tmp_path):
    """They learn one task each; the steps are those from which on it is there, else it is censored."""
    asked = {"seeds": 2, "num_updates": 12, "hidden_size": 4, "success": 0.01}
    train = {**STUDY["train"], "window": 4, "num_updates": 1}
    config = read(tmp_path, difficulty_baselines=asked, train=train, seeds="0", lpc_alphas=[0], baselines=[])
    design = build_design(config, {})
    assert [(run.task, run.config.levels, run.config.policy) for run in design.learners[::2]] == [
        (task, [task], "gru") for task in TASKS
    ]
    assert "learners    4: 2 GRUs of 4, 12 updates each" in "\n".join(describe_runs(design))
    store = Store(design.folder)
    design.work.mkdir(parents=True)
    assert train_missing(design, store, 1, lambda line: None) == {}
    item = next(item for item in find_stage("analyse").items(design, ["difficulty"]))
    assert {f"train/{run.name}" for run in design.learners} <= set(item.needs)
    learning = [(run.task, store.read(f"train/{run.name}").notes["learning"]) for run in design.learners]
    assert all(steps % (4 * 8) == 0 for _, rows in learning for steps, _, _ in rows)
    for enough in (0.01, 1.0):
        asked = dataclasses.replace(config.difficulty_baselines, success=enough)
        now = dataclasses.replace(design, config=dataclasses.replace(config, difficulty_baselines=asked))
        known, soonest = Given(now, store, item).steps_to_learn()
        for task in TASKS:
            own = [rows for name, rows in learning if name == task]
            whole = find_whole(design.learners[0].config)
            told = [find_learned(rows, enough, whole=whole, window=4) for rows in own]
            each = [np.log(steps) for steps, _ in told]
            assert (task in soonest) == all(at_once for _, at_once in told)
            assert known[task] == (np.inf if np.inf in each else pytest.approx(np.mean(each)))


def test_lesions_take_the_largest_and_the_smallest_experts_out():
    found = build_conditions("lesions", "R", [[0, 8, 16], [32, 4, 0], [16]], 0)
    assert [(item.kind, item.where.experts, item.renormalise) for item in found] == [
        ("lesion_largest", ((0, 2), (1, 0)), True),
        ("lesion_smallest", ((0, 1), (1, 1)), True),
    ]
    assert [item.kind for item in build_conditions("lesions", "R", [[0, 8]], 0)] == ["lesion_largest"]


@pytest.mark.parametrize("asked", [{"seeds": 0}, {"success": 0}, {"updates": 3}])
def test_what_dense_networks_cannot_do_is_refused(tmp_path, asked):
    with pytest.raises(ConfigError, match=f"difficulty_baselines: .*{next(iter(asked))}"):
        read(tmp_path, difficulty_baselines=asked)


# -------------------------------------------------------------------------------------------------------------- figures


def test_many_tasks_lie_below_each_other_and_levels_have_figures_of_their_own():
    tasks, draft = [f"BabyAI-Level{i}-v0" for i in range(6)], Draft("difficulty", "")
    for number, task in enumerate(tasks):
        runs = [Run(task, "alpha=0", 0, seed) for seed in range(3)]
        draft.over_runs("lpc_remaining", np.array([0.1, 0.2, np.nan]), runs)
        draft.add("level_lpc", 3.0 + number, task=task, setting="alpha=0", seed=0)
        draft.add("difficulty_plan_length", 2.0 + number, unit="levels", task=task)
    table = draft.finish().to_frame()
    before = table.copy()
    drawn = {figure.name: figure for figure in draw_analysis("difficulty", table, {}, [[0, 4]])}
    assert set(drawn) == {"difficulty_lpc", "difficulty_by_level_1"}
    axes = drawn["difficulty_by_level_1"].figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"Level{i}" for i in range(6)]
    assert {tuple(line.get_xdata()) for line in axes.lines} >= {(0.1, 0.2)}
    pd.testing.assert_frame_equal(table, before)
    assert order_levels(np.array([[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]])) in ([1, 2, 0], [0, 2, 1], [1, 0, 2])


def test_untrained_policies_are_made_anew_when_levels_change_places(tmp_path):
    """What a policy is told of a level is its place among them: so are the weights it begins with."""
    keys = []
    for tasks in (["GoToObjS4", "GoToObjS6-v1"], ["GoToObjS6-v1", "GoToObjS4"]):
        config = read(tmp_path, tasks=tasks, baselines=[])
        items = find_stage("replay").items(build_design(config, {}), ["pathways"])
        keys.append({item.name: item.key for item in items if item.name.endswith(inputs.UNTRAINED)})
    assert keys[0].keys() == keys[1].keys() and all(keys[0][name] != keys[1][name] for name in keys[0])
