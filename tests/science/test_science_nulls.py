"""Each null on 200 data sets without anything to be found: p <= 0.05 as often as it should be."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from science import calibration, complexity, distinctness
from science.agreement import exchange_levels, find_null
from science.cases import CASES
from science.profiles import correlate, find_profiles
from science.result import Draft
from science.statistics.inference import compare_over_both, compare_with_margin, compare_with_zero
from science.statistics.nulls import p_value
from science.synthetic import Design, draw_template, plant_noisy_policy, plant_signal
from science.traces import Group

DATASETS = 200
LOW, HIGH = stats.binom.ppf([0.005, 0.995], DATASETS, 0.05)


def count_small(p_values):
    p_values = np.asarray(p_values)
    assert len(p_values) == DATASETS and np.isfinite(p_values).all()
    return int((p_values <= 0.05).sum())


def within(p_values):
    return LOW <= count_small(p_values) <= HIGH


@pytest.fixture(scope="module")
def small():
    return draw_template(Design(runs=6, episodes=20, shortest=8, longest=15), np.random.default_rng(0))


def profiles_of(template, seed, **planted):
    traces = plant_signal(template, np.random.default_rng(seed), **planted)
    return traces, find_profiles(Draft("", ""), traces, planted.get("by", "level_subgoal"))


def test_groups_permuted_within_runs(small):
    found = []
    for seed in range(DATASETS):
        _, profiles = profiles_of(small, seed, own=0.05, drift=0.03)
        u, rng = profiles.centered, np.random.default_rng(seed)
        found.append(find_null(u, [], correlate(u, []), rng, 99)[0])
    assert within(found)


def test_runs_flipped_where_one_group_varies_most():
    """A group that varies more than others in all runs misleads permuted groups; flipped runs keep it."""
    only_groups, both = [], []
    for seed in range(DATASETS):
        rng = np.random.default_rng(seed)
        u = rng.normal(size=(10, 4, 6)) * np.array([4, 1, 1, 1])[:, None]
        u -= u.mean(axis=1, keepdims=True)
        found = correlate(u, [])
        only_groups.append(find_null(u[:7], [], found[:7, :7], rng, 99)[0])  # below eight runs none is flipped
        both.append(find_null(u, [], found, rng, 99)[0])
    assert count_small(only_groups) > HIGH
    assert count_small(both) <= HIGH


@pytest.mark.parametrize(("own", "level"), [(0, 0.05), (0.05, 0.04)])
def test_episodes_exchanged_where_levels_act_on_all_runs_alike(small, own, level):
    naive, found = [], []
    for seed in range(DATASETS):
        traces, profiles = profiles_of(small, seed, by="cell", own=own, level=level)
        rng = np.random.default_rng(seed)
        naive.append(find_null(profiles.centered, [], correlate(profiles.centered, []), rng, 39)[0])
        found.append(p_value(*exchange_levels(traces, "cell", profiles, rng, 39)))
    assert count_small(naive) > DATASETS / 4
    assert within(found)


def own_play(template, rng):
    """Return a template in which half of each run's episodes end early, at another length in each run."""
    lengths = np.bincount(template.episode, minlength=len(template.episode_run))
    shorter = np.maximum(4, (lengths * rng.uniform(0.6, 1, len(lengths))).astype(int))
    kept = template.time < np.where(rng.random(len(lengths)) < 0.5, lengths, shorter)[template.episode]
    of_step = ("episode", "time", "weights", "logits", "action", "bot_action", "lpc")
    groups = {name: Group(group.codes[kept], group.names) for name, group in template.groups.items()}
    return replace(template, source="P", groups=groups, **{name: getattr(template, name)[kept] for name in of_step})


def test_episodes_exchanged_where_runs_play_the_same_levels_at_other_lengths(small):
    naive, found = [], []
    for seed in range(DATASETS):
        rng = np.random.default_rng(seed)
        traces, profiles = profiles_of(own_play(small, rng), seed, by="cell", own=0.03, level=0.06, drift=0.03)
        naive.append(find_null(profiles.centered, [], correlate(profiles.centered, []), rng, 39)[0])
        found.append(p_value(*exchange_levels(traces, "cell", profiles, rng, 19)))
    assert count_small(naive) > DATASETS / 4
    assert count_small(found) <= HIGH


def test_episodes_exchanged_for_information_in_paths():
    found = []
    for seed in range(DATASETS):
        rng = np.random.default_rng(seed)
        one = draw_template(Design(runs=1, episodes=30), rng)
        traces = plant_signal(one, rng, drift=0.08, level=0.05)
        (row,) = distinctness.compute(traces, draws=39, seed=seed).find("path_information")[:1]
        found.append(row.p)
    assert within(found)


def test_episodes_exchanged_for_lpc_and_behaviour():
    """Both change in the course of an episode, and neither has to do with the other in a place."""
    found, naive = [], []
    for seed in range(DATASETS):
        rng = np.random.default_rng(seed)
        one = draw_template(Design(runs=1, episodes=40, side=5), rng)
        traces = plant_noisy_policy(plant_signal(one, rng, drift=0.1, level=0.03), rng, spread=0.3, drift=2.0)
        result = complexity.compute(traces, draws=39, seed=seed, min_steps=10)
        found.append([result.find(name)[0].p for name in ("lpc_entropy", "lpc_divergence")])
        naive.append(result.find("lpc_entropy_naive")[0].p)
    entropy, divergence = np.transpose(found)
    assert within(entropy) and within(divergence)
    assert count_small(naive) > HIGH  # cells as if they were independent


@pytest.mark.parametrize(("run_sd", "level_sd"), [(0, 0), (1, 0), (0, 1), (0.3, 0.5)])
def test_runs_and_levels_as_samples(run_sd, level_sd):
    found, only_runs = [], []
    for seed in range(DATASETS):
        rng = np.random.default_rng(seed)
        table = run_sd * rng.normal(size=(10, 1)) + level_sd * rng.normal(size=(1, 30)) + rng.normal(size=(10, 30))
        found.append(compare_over_both(table).p)
        only_runs.append(compare_with_zero(table.mean(axis=1)).p)
    assert count_small(found) <= HIGH
    if level_sd == 1:
        assert count_small(only_runs) > DATASETS / 4
    if (run_sd, level_sd) in ((1, 0), (0, 1)):
        assert count_small(found) >= LOW


def test_equivalence_is_told_wrongly_as_often_as_it_may_be():
    """At the margin itself, where it is hardest."""
    rng = np.random.default_rng(0)
    values = 0.3 + 0.2 * rng.normal(size=(DATASETS, 10))
    assert within([compare_with_margin(row, 0.3).p for row in values])


DRAWN = ("pathways.consistency", "distinctness.path_information", "complexity.lpc_entropy")
"""Cases of nulls that are drawn, which have tests of their own above."""
BY_THEMSELVES = ("price.hypervolume_above_baseline", "price.dial_gap")
"""Cases in which the design alone makes a difference; at equal costs it does not."""
SMALLEST = {
    "needed.path_matters": {"sizes": ((0, 8, 16),) * 2},
    "dynamics.handover": {"episodes": 24},
}
"""What a case needs beyond the design of all: two layers, so that paths cost the same; more levels to put into bins."""


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name not in {*DRAWN, *BY_THEMSELVES}])
def test_claims_over_runs(name):
    (case,) = (case for case in CASES if case.name == name)
    plain = Design(runs=8, episodes=10, shortest=6, longest=9, sizes=((0, 8, 16, 32),))
    design = replace(plain, **SMALLEST.get(name, {}))
    p = [calibration.run_dataset(case, design, False, number)[0].p for number in range(DATASETS)]
    assert count_small(p) <= HIGH
