"""Flags of many runs, their groups, and the tables at the end, by hand."""

import math
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from pipeline.training.driver import count_jobs
from pipeline.training.mapping import format_alpha, format_seeds
from pipeline.training.options import (
    CPU_REPLICAS,
    GPU_REPLICAS,
    MAX_GROUP_STEPS,
    default_replicas,
    parse_alphas,
    parse_seeds,
)
from pipeline.training.plan import PlannedRun, group_runs
from pipeline.training.summary import alpha_lines, run_lines


def test_seeds_and_prices_are_read_in_their_order():
    assert parse_seeds("3, 0-2,7") == [3, 0, 1, 2, 7]
    assert parse_alphas("1e-4, 0,2") == [1e-4, 0.0, 2.0]


@given(st.lists(st.integers(0, 60), min_size=1, unique=True))
def test_seeds_are_written_as_they_are_read(seeds):
    assert parse_seeds(format_seeds(seeds)) == sorted(seeds)


@given(st.floats(0, 1e10))
def test_prices_are_written_without_loss(alpha):
    assert float(format_alpha(alpha)) == alpha
    assert format_alpha(1e-5) == "1e-05"


def test_the_automatic_limit_bounds_steps_and_files():
    small, large = TrainConfig(num_envs=1, unroll_len=1), TrainConfig(num_envs=64, unroll_len=MAX_GROUP_STEPS // 256)
    huge = TrainConfig(num_envs=MAX_GROUP_STEPS, unroll_len=9)
    assert [default_replicas(c, on_cpu=False) for c in (small, large, huge)] == [GPU_REPLICAS, 4, 1]
    assert [default_replicas(c, on_cpu=True) for c in (small, huge)] == [CPU_REPLICAS, 1]


def test_by_default_every_core_has_a_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    counts = [count_jobs(TrainConfig(device="cpu", torch_threads=threads)) for threads in (1, 2, 4, 9)]
    assert counts == [6, 3, 1, 1]


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 7))
def test_batches_are_a_partition_into_even_parts_at_one_update(updates, limit):
    runs = [
        PlannedRun(TrainConfig(seed=seed), Path(), Path(), update, Path("x.pt") if update else None)
        for seed, update in enumerate(updates)
    ]
    groups = group_runs(runs, limit)
    assert sorted(run.key for group in groups for run in group) == sorted(run.key for run in runs)
    for group in groups:
        assert 1 <= len(group) <= limit
        assert len({run.update for run in group}) == 1
    for update in set(updates):
        sizes = [len(group) for group in groups if group[0].update == update]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == math.ceil(updates.count(update) / limit)


def planned(trial: int, alpha: float, seed: int) -> PlannedRun:
    return PlannedRun(TrainConfig(trial=trial, lpc_alpha=alpha, seed=seed), Path(), Path())


def evaluation(success: float, lpc: float | None) -> dict:
    return {
        "eval/success_rate": success,
        "eval/success_low": success - 0.1,
        "eval/success_high": success + 0.1,
        "eval/mean_lpc": lpc,
        "eval/episodes": 100,
    }


def test_means_and_intervals_over_seeds_by_hand():
    runs = [planned(1, 0.0, seed) for seed in (0, 1, 2)] + [planned(2, 1e-5, seed) for seed in (0, 1)]
    found = {
        (1, 0): evaluation(0.5, 100.0),
        (1, 1): evaluation(0.6, 110.0),
        (1, 2): evaluation(0.7, 120.0),
        (2, 0): evaluation(0.9, None),
    }
    # n = 3: mean 0.6, s = 0.1, t(2 degrees of freedom) = 4.3027; half = 4.3027 x 0.1 / sqrt(3) = 0.2484.
    # LPC: mean 110, s = 10, half = 24.84.
    lines = [line.split() for line in alpha_lines(runs, found)]
    assert lines[1] == ["1", "0", "3", "60.0%", "35.2%", "to", "84.8%", "110", "85", "to", "135"]
    assert lines[2] == ["2", "1e-05", "1", "of", "2", "90.0%", "-", "-", "-"]
    assert "3 runs or more" in " ".join(lines[3])
    rows = [line.split() for line in run_lines(runs, found)]
    assert rows[1] == ["1", "0", "0", "50.0%", "40.0%", "to", "60.0%", "100", "100"]
    assert rows[4] == ["2", "1e-05", "0", "90.0%", "80.0%", "to", "100.0%", "-", "100"]
    assert rows[5] == ["2", "1e-05", "1", "-", "not", "evaluated", "-", "-"]


def test_an_interval_over_runs_stays_within_what_can_be():
    runs = [planned(1, 0.0, seed) for seed in range(3)]
    found = {
        run.key: evaluation(rate, lpc) for run, rate, lpc in zip(runs, (0.8, 1.0, 1.0), (1.0, 9.0, 0.0), strict=True)
    }
    row = alpha_lines(runs, found)[1].split()
    assert row[4:7] == ["64.6%", "to", "100.0%"]  # 0.9333 -+ 4.3027 x 0.11547 / sqrt(3) = 0.2869
    assert row[8:] == ["0", "to", "16"]  # 3.333 -+ 4.3027 x 4.933 / sqrt(3) = 12.25


def test_runs_that_agree_have_no_interval_of_zero_width():
    """Three runs that all succeed had "100.0 %, 95 % interval 100.0 to 100.0"."""
    runs = [planned(1, 0.0, seed) for seed in range(3)]
    lines = alpha_lines(runs, {run.key: evaluation(1.0, 40.0) for run in runs})
    assert lines[1].split()[3:] == ["100.0%", "96.3%", "to", "100.0%*", "40", "-"]  # Wilson: 100 of 100 levels
    assert any("over the levels" in line for line in lines[2:]) and any("that differ" in line for line in lines[2:])
    lines = alpha_lines(runs[:2], {run.key: evaluation(1.0, 40.0) for run in runs[:2]})
    assert lines[1].split()[3:] == ["100.0%", "-", "40", "-"]
