"""Several runs of one setting: the run is the unit of every mean and interval, by hand; which caches are replicates."""

import dataclasses
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.config import TrainConfig
from pipeline.records.cache import cache_path, find_caches, read_header, write_cache
from pipeline.records.intervals import group_means, share_interval
from pipeline.records.metrics import compute_metrics
from plotting.browsing import attempt
from plotting.command import main
from plotting.data import as_routing_data
from plotting.distributions import (
    compute_path_frequencies,
    plot_action_frequencies,
    plot_entropy_distribution,
    plot_path_frequencies,
    plot_weight_distributions,
)
from plotting.heatmaps import plot_overall_routing
from plotting.relations import (
    compute_distance_profile,
    compute_specialisation,
    plot_distance_profiles,
    plot_specialisation,
)
from plotting.replicates import find_settings, join_runs
from plotting.temporal import compute_event_aligned, plot_event_aligned
from plotting.views import ViewOptions, draw_view, list_views
from tests.plotting.test_plotting_views import T2, ten_steps, texts
from tests.tables import random_tables

TASK = "BabyAI-GoToObj-v0"


def three_runs():
    """Return three runs of `ten_steps` that differ in LPC by 0, 10 and 20, and one weight of the first layer."""
    runs = []
    for number in range(3):
        routing, episodes = ten_steps()
        large = np.full(10, 0.1 + 0.1 * number, np.float32)
        columns = {"lpc": routing.lpc + np.float32(10 * number), "weights": (np.stack([1 - large, large], axis=1),)}
        runs.append(as_routing_data((dataclasses.replace(routing, **columns), episodes)))
    return runs


# ------------------------------------------------------------------------------------------------- means, intervals


def test_means_of_runs_by_hand():
    # run 0: episodes of mean 2 and 4, so 3; runs 1 and 2: 5 and 7, however long their episodes are
    values = [1.0, 3.0, 4.0, 5.0, 7.0, 7.0, 7.0, 7.0]
    units, runs = [0, 0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 1, 2, 2, 2, 2]
    found = group_means(np.array(values), np.zeros(8, int), np.array(units), 2, np.array(runs))
    half = T2 * 2 / math.sqrt(3)
    assert found.mean[0] == 5.0 and found.n.tolist() == [3, 0] and found.rows.tolist() == [8, 0]
    assert (found.low[0], found.high[0]) == (pytest.approx(5 - half), pytest.approx(5 + half))
    assert math.isnan(found.mean[1])
    both = group_means(np.stack([values, values], axis=1), np.zeros(8, int), np.array(units), 2, np.array(runs))
    np.testing.assert_array_equal(both.mean, np.stack([found.mean, found.mean], axis=1))


def test_shares_of_runs_by_hand():
    parts, totals = [[1], [3], [5], [6], [0]], [2, 8, 10, 10, 0]  # of the runs: 4/10, 5/10, 6/10, nothing
    found = share_interval(np.array(parts), np.array(totals), np.array([0, 0, 1, 2, 3]))
    half = T2 * 0.1 / math.sqrt(3)
    assert found.mean[0] == pytest.approx(0.5) and found.n.tolist() == [3] and found.rows.tolist() == [15]
    assert (found.low[0], found.high[0]) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


@given(seed=st.integers(0, 999), clusters=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_clusters_of_one_unit_each_change_nothing(seed, clusters):
    rng = np.random.default_rng(seed)
    units = rng.integers(0, clusters, 30)
    values, groups = rng.random((30, 2)), rng.integers(-1, 3, 30)
    plain, nested = group_means(values, groups, units, 3), group_means(values, groups, units, 3, units + 5)
    for name in ("mean", "low", "high", "n", "rows"):
        np.testing.assert_allclose(getattr(nested, name), getattr(plain, name), rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------------------------------------- views


def test_curves_around_an_event_are_over_runs():
    runs = three_runs()
    alone = compute_event_aligned(runs[0], "unlocked", 1, 0)
    assert alone.lpc.mean[1] == 12.0 and alone.lpc.n[1] == 2  # of its two episodes with the event: 8 and 16
    found = compute_event_aligned(join_runs(runs), "unlocked", 1, 0)
    half = T2 * 10 / math.sqrt(3)
    assert found.lpc.mean[1] == 22.0 and found.lpc.n.tolist() == [3, 3] and found.lpc.rows[1] == 6
    assert (found.lpc.low[1], found.lpc.high[1]) == (pytest.approx(22 - half), pytest.approx(22 + half))
    np.testing.assert_allclose(found.weights[0].mean[1], [0.8, 0.2], rtol=1e-6)
    assert (found.num_events, found.num_episodes) == (6, 9)
    axes = plot_event_aligned(found)
    written = texts(axes[0].figure)
    assert axes[-1].get_ylabel() == "n runs"
    assert "n = 3 runs, 9 episodes, 30 steps" in written and "6 of 9 episodes have the event" in written
    assert "mean over runs of each run's mean over episodes, first time in each; t interval over runs" in written
    assert "mean over episodes, first time in each; t interval over episodes" in texts(
        plot_event_aligned(alone)[0].figure
    )


def test_a_run_without_the_event_does_not_count():
    runs = three_runs()
    routing = dataclasses.replace(runs[2].routing, event=np.zeros(10, np.int8))
    found = compute_event_aligned(
        join_runs([*runs[:2], dataclasses.replace(runs[2], routing=routing)]), "unlocked", 0, 0
    )
    assert found.lpc.mean[0] == 17.0 and found.lpc.n[0] == 2 and math.isnan(found.lpc.low[0])


def test_near_objects_is_over_runs():
    runs = three_runs()
    alone = compute_distance_profile(runs[0], "door")
    found = compute_distance_profile(join_runs(runs), "door")
    np.testing.assert_allclose(found.lpc.mean, alone.lpc.mean + 10)
    assert found.lpc.n.tolist() == [3, 3] and found.unknown == 3 * alone.unknown
    np.testing.assert_allclose(found.lpc.high - found.lpc.mean, T2 * 10 / math.sqrt(3))
    axes = plot_distance_profiles(join_runs(runs), ["door"])
    assert axes[-1, 0].get_ylabel() == "n runs" and "t interval over runs" in texts(axes[0, 0].figure)


def test_distributions_are_over_runs():
    joined = join_runs(three_runs())
    entropy = [-(1 - p) * math.log(1 - p) - p * math.log(p) for p in (0.1, 0.2, 0.3)]
    mean = sum(entropy) / 3
    half = T2 * np.std(entropy, ddof=1) / math.sqrt(3)
    written = texts(plot_entropy_distribution(joined).figure)
    assert f"Layer 0: {mean:.2f} ({max(0, mean - half):.2f} to {min(math.log(2), mean + half):.2f})" in written
    assert "mean over runs and its t interval" in written
    axes = plot_weight_distributions(joined)
    curve = axes[0].lines[1].get_ydata()  # of the large expert: its weight is 0.1, 0.2, 0.3 in the three runs
    assert curve[[0, 10, 15, 25, 35]].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])
    assert "band: 95 % interval over runs" in texts(axes[0].figure)
    assert "n = 3 runs" in texts(plot_action_frequencies(joined).figure)
    paths = compute_path_frequencies(joined)
    assert paths.shares.mean.tolist() == [1.0] and paths.shares.n.tolist() == [3]
    assert "interval over runs" in texts(plot_path_frequencies(paths).figure)


def test_specialisation_is_over_runs():
    joined = join_runs(three_runs())
    found = compute_specialisation(joined, "action")
    np.testing.assert_allclose(found.weights[0].mean, [[0.8, 0.2], [0.8, 0.2]], rtol=1e-6)
    assert found.weights[0].n.tolist() == [3, 3] and found.weights[0].rows.tolist() == [9, 21]
    assert "mean over n runs of the run's mean weight" in texts(plot_specialisation(joined)[0, 0].figure)


def test_a_single_run_stays_what_it_was():
    run = three_runs()[0]
    assert join_runs([run]) is run
    assert run.run is None and run.run_of_step is None and run.num_units == 3
    assert run.describe_size() == "3 episodes, 10 steps"


def test_a_subset_of_joined_runs_keeps_the_run_as_unit():
    joined = join_runs(three_runs())
    part = joined.filter(joined.routing.episode < 3)  # the first run's
    assert part.num_units == 1 and part.describe_size() == "1 run, 3 episodes, 10 steps"
    assert compute_distance_profile(part, "door").lpc.n.tolist() == [1, 1]
    np.testing.assert_array_equal(joined.held, np.concatenate([run.held for run in three_runs()]))
    assert "3 runs, 9 episodes, 30 steps" in texts(plot_overall_routing(joined))


def test_views_of_joined_runs_follow_no_single_episode():
    joined = join_runs(three_runs())
    assert set(list_views(three_runs()[0])) - set(list_views(joined)) == {"episode"}
    for view in list_views(joined):
        assert draw_view(joined, view, ViewOptions())


def test_runs_that_do_not_fit_together_are_refused():
    other = as_routing_data(random_tables(0, [4, 3], [[0, 8]]))
    with pytest.raises(ValueError, match="expert_hidden_sizes"):
        join_runs([three_runs()[0], other])
    with pytest.raises(ValueError, match="at least one"):
        join_runs([])


# ------------------------------------------------------------------------------------------------ which are replicates


def write(
    folder,
    seed,
    *,
    trial=1,
    update=None,
    alpha=0.0,
    digest=None,
    sizes=((0, 8),),
    steps=True,
    task=TASK,
    **header_fields,
):
    routing, episodes = random_tables(seed, [6, 5], [list(layer) for layer in sizes])
    path = cache_path(folder, task, trial, seed, update)
    header = {"checkpoint_path": "c.pt", "evaluated_at": "2026-03-01T12:00:00+00:00", "update": update or 400}
    header |= {"checkpoint_digest": digest or str(path), "config": {"lpc_alpha": alpha, "policy": "moe", "seed": seed}}
    header |= header_fields
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=routing if steps else None)
    return path


def test_runs_of_a_setting_differ_in_trial_or_seed_only(tmp_path):
    for seed in (0, 1, 10):
        write(tmp_path, seed)
    write(tmp_path, 0, update=100)  # an earlier checkpoint of a run
    write(tmp_path, 0, trial=2)
    write(tmp_path, 2, alpha=1e-5)
    write(tmp_path, 3, alpha=1e-5, steps=False)
    write(tmp_path, 4, alpha=1e-5, sizes=())  # a baseline
    write(tmp_path, 5, digest=str(tmp_path / TASK / "trial_1/seed_1/routing_data.json"))  # a copied checkpoint
    write(tmp_path, 6).write_text("{")
    found, notes = find_settings(find_caches(tmp_path))
    assert [(s.task_id, s.folder) for s in found] == [(TASK, "trial_1_seeds_0_1_10_trial_2_seed_0")]
    words = "GoToObj, \N{GREEK SMALL LETTER ALPHA} = 0 · 4 runs (trial 1, seeds 0, 1, 10; trial 2, seed 0)"
    assert found[0].label == words
    assert [place.update for place in found[0].places] == [None] * 4
    assert len(notes) == 2 and "seed_6" in notes[0] and "1 run with the weights of another" in notes[1]
    assert found[0].load().num_units == 4
    alone = find_settings(find_caches(tmp_path), least=1)[0][1]
    assert alone.label.endswith(" = 1e-05 · 1 run (trial 1, seed 2)") and alone.folder == "trial_1_seed_2"


def write_config(folder, seed, *, trial=1, limit=None, eval_seed=0, **fields):
    """Write the cache of a run with a whole configuration, evaluated with a limit of steps."""
    config = TrainConfig(**{"task_id": TASK, "trial": trial, "seed": seed} | fields).to_dict()
    return write(folder, seed, trial=trial, config=config, max_steps=limit, eval_seed=eval_seed)


OTHER_SETTINGS = {
    "num_envs": (64, "num_envs 64"),
    "max_steps": (50, "max_steps 50 in training"),
    "expert_action_prob": (0.5, "expert acts at 0.5 of the steps"),
    "expert_action_decay": (100, "expert_action_decay 100"),
    "action_selection": ("sample", "action_selection sample"),
    "grad_clip": (1.0, "grad_clip 1"),
    "expert_dropout_beta": (0.5, "expert_dropout_beta 0.5"),
    "expert_dropout_gamma": (0.2, "expert_dropout_gamma 0.2"),
    "plan_every": (0, "plan_every 0"),
    "input_dim": (200, "input_dim 200"),
    "task_id": ("BabyAI-GoToLocal-v0", "trained on GoToLocal"),
    "lr": (0.1, "lr 0.1"),
    "obs_encoding": ("onehot", "observations onehot"),
    "mission_fusion": ("film", "missions by film"),
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_runs_of_other_settings_are_no_replicates(tmp_path, name):
    """Only the columns of the results were compared, so that these were averaged as if only the seed differed."""
    value, words = OTHER_SETTINGS[name]
    for seed in (0, 1):
        write_config(tmp_path, seed)
        write_config(tmp_path, seed, trial=2, **{name: value})
    found, notes = find_settings(find_caches(tmp_path))
    assert notes == [] and {s.folder for s in found} == {"trial_1_seeds_0_1", "trial_2_seeds_0_1"}
    labels = {s.folder: s.label for s in found}
    assert f", {words} · 2 runs" in labels["trial_2_seeds_0_1"]
    assert words not in labels["trial_1_seeds_0_1"]


@pytest.mark.parametrize(("name", "words"), [("limit", "max_steps 5"), ("eval_seed", "eval_seed 5")])
def test_caches_evaluated_differently_are_no_replicates(tmp_path, name, words):
    for seed in range(4):
        write_config(tmp_path, seed, **({name: 5} if seed > 1 else {}))
    found, _ = find_settings(find_caches(tmp_path))
    assert [s.folder for s in found] == ["trial_1_seeds_0_1", "trial_1_seeds_2_3"]
    assert f"GoToObj, {words} · 2 runs" in found[1].label and words not in found[0].label


def test_what_does_not_change_the_weights_does_not_part_replicates(tmp_path):
    write_config(tmp_path, 0)
    changed = {"window": 7, "log_interval": 3, "log_dir": "elsewhere", "checkpoint_dir": "there", "tensorboard": False}
    write_config(tmp_path, 1, trial=2, torch_threads=2, device="cpu", eval_interval=9, **changed)
    write_config(tmp_path, 2, task_id="GoToObj")  # the short name of the task
    found, _ = find_settings(find_caches(tmp_path))
    assert [s.label for s in found] == ["GoToObj · 3 runs (trial 1, seeds 0, 2; trial 2, seed 1)"]


def test_caches_without_a_configuration_are_compared_by_their_header(tmp_path):
    for seed in range(2):
        write(tmp_path, seed, trial=1, config=None)
        write(tmp_path, seed, trial=2, config=None, sizes=((0, 16),))
        write(tmp_path, seed, trial=3, config={"made_by": f"other code, {seed}"}, sizes=((0, 32),))
        write_config(tmp_path, seed, trial=4)
    labels = {s.folder: s.label for s in find_settings(find_caches(tmp_path))[0]}
    assert set(labels) == {f"trial_{trial}_seeds_0_1" for trial in (1, 2, 3, 4)}
    assert "experts [[0,8]], configuration unknown" in labels["trial_1_seeds_0_1"]
    assert "experts [[0,16]], configuration unknown" in labels["trial_2_seeds_0_1"]
    assert "unknown" not in labels["trial_4_seeds_0_1"]


def test_a_field_that_a_configuration_does_not_tell_is_named(tmp_path):
    for seed in range(2):
        path = write_config(tmp_path, seed)
        config = {k: v for k, v in read_header(path)["config"].items() if k != "num_envs"}
        write(tmp_path, seed, trial=2, config=config, max_steps=None, eval_seed=0)
    labels = [s.label for s in find_settings(find_caches(tmp_path))[0]]
    assert sorted(label.partition(" · ")[0] for label in labels) == ["GoToObj", "GoToObj, unknown: num_envs"]


def test_runs_of_two_folders_of_caches_stay_apart(tmp_path):
    places = []
    for name in ("one", "other"):
        write(tmp_path / name, 0)
        places += find_caches(tmp_path / name)
    found, notes = find_settings(places)
    assert [place.path for place in found[0].places] == [place.path for place in places]
    assert notes == ["1 run with the task, trial and seed of another in another folder"]


def test_a_setting_that_cannot_be_joined_says_why(tmp_path):
    path = [write(tmp_path, seed) for seed in (0, 1)][1]
    setting = find_settings(find_caches(tmp_path))[0][0]
    path.write_text("{")
    data, problem = attempt(setting.load, None)
    assert data is None and str(path) in problem


def test_the_command_draws_runs_together(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 2):
        write("caches", seed)
    arguments = ["--all_caches", "caches", "--over_runs"]
    assert main([*arguments, "--view", "entropy,distances,episode"]) == 0
    folder = f"plots/{TASK}/trial_1_seeds_0_1_2"
    captured = capsys.readouterr()
    assert captured.out.split() == [f"{folder}/routing_entropy.png", f"{folder}/routing_distances.png"]
    assert "does not support episode" in captured.err
    assert main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.startswith("GoToObj · 3 runs (trial 1, seeds 0, 1, 2): overall, ")


def test_the_command_refuses_what_has_no_replicates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write("caches", 0)
    assert main(["--all_caches", "caches", "--over_runs"]) == 2
    assert "expected runs that differ in trial or seed only, found none" in capsys.readouterr().err
    assert main(["--cache", str(path), "--over_runs"]) == 2
    assert "over_runs: expected --all_caches" in capsys.readouterr().err
