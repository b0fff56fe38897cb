"""Estimates, by hand and against each other."""

import math

import numpy as np
import pytest

from maxent.dts_implementation.models.sequence_model import ToyModel
from maxent.dts_implementation.search import estimates
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from tests.maxent_toys import DEPTH, PLAIN, compute_exact, make_reward


def test_estimates_of_three_weights():
    log_weights = np.log([1.0, 2.0, 5.0])
    assert math.isclose(estimates.compute_log_z(log_weights), math.log(8 / 3))
    assert math.isclose(estimates.compute_ess(log_weights), 64 / 30)
    assert math.isclose(estimates.compute_z_error(log_weights), np.std([1, 2, 5], ddof=1) / math.sqrt(3) / (8 / 3))
    kl = estimates.compute_kl(log_weights, [0.0, 1.0, 0.5], lam=0.5)
    assert math.isclose(kl, (2 / 8 + 0.5 * 5 / 8) / 0.5 - math.log(8 / 3))
    assert estimates.compute_label_posterior(["a", "b", "a"], log_weights) == pytest.approx({"a": 0.75, "b": 0.25})
    found = estimates.compute_label_posterior(["b", None, "a"], log_weights)
    assert list(found) == ["a", "b"]  # the heaviest first
    assert found == pytest.approx({"a": 5 / 6, "b": 1 / 6})


def test_estimates_survive_weights_of_any_size():
    for shift in (-5000.0, 5000.0):
        log_weights = np.log([1.0, 2.0, 5.0]) + shift
        assert math.isclose(estimates.compute_log_z(log_weights), math.log(8 / 3) + shift)
        assert math.isclose(estimates.compute_ess(log_weights), 64 / 30)
        assert estimates.compute_z_error(log_weights) > 0
    assert estimates.compute_label_posterior([None, None], [0.0, 0.0]) == {}
    assert math.isnan(estimates.compute_z_error([0.0]))


def test_labels_without_any_weight_share_equally():
    assert estimates.compute_label_posterior(["a", "b", None], [-np.inf, -np.inf, 0.0]) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("method", METHODS)
def test_running_estimates_end_where_those_of_all_do(method):
    running, rates = estimates.RunningEstimates(), []
    settings = SearchSettings(method=method, num_rollouts=25, max_tokens=DEPTH, prior=PLAIN)

    def watch(rollout):
        running.add(rollout)
        rates.append(running.record_rate)

    result = search(ToyModel(), "", make_reward(low=-1), settings, on_rollout=watch)
    figures = estimates.summarise(result)
    assert math.isnan(rates[0])
    assert running.best_so_far == figures["best"] == result.best.best_so_far
    for name in ("log_z", "ess", "record_rate"):
        value = getattr(running, name)
        if figures[name] is None:
            assert value is None or math.isnan(value)
        else:
            assert math.isclose(value, figures[name], rel_tol=1e-9)
    assert (figures["log_z"] is None) == (method not in ("dts", "best_of_n", "sample"))
    assert figures["mean"] == result.rewards.mean()
    assert figures["value"] == result.tree.value[0]


@pytest.mark.parametrize("method", ["dts", "best_of_n"])
def test_kl_and_labels_are_near_the_truth(method):
    model, reward, lam = ToyModel(), make_reward(), 0.2
    exact, log_z = compute_exact(model, reward, lam)
    prior = {tokens: p for tokens, p in compute_exact(model, reward, 1e12)[0].items()}
    kl = sum(p * math.log(p / prior[tokens]) for tokens, p in exact.items())
    settings = SearchSettings(method=method, num_rollouts=4000, max_tokens=DEPTH, prior=PLAIN, lam=lam, wave=50)
    result = search(model, "", reward, settings)
    figures = estimates.summarise(result)
    assert math.isclose(figures["kl"], kl, abs_tol=0.05)
    assert abs(math.expm1(figures["log_z"] - log_z)) < 4 * figures["z_error"] < 0.2
    labels: dict[int, float] = {}
    for tokens, p in exact.items():
        labels[tokens[0]] = labels.get(tokens[0], 0) + p
    found = estimates.compute_label_posterior([rollout.tokens[0] for rollout in result.rollouts], result.log_weights)
    assert found == pytest.approx(labels, abs=0.03)
