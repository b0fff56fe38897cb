"""Probes: what can be read off the states of routers and experts, and does the policy need it?

A probe is a logistic ridge regression (scikit-learn, C = 1, features scaled to variance 1, classes weighing the same)
that tells a target at a step from a source. 1000 steps are drawn at random with a fixed seed, the same for all runs, of
replayed steps with a memory: all but an episode's first. Whole episodes go to one of 4 parts, and each part is told by
a probe of the other three. Sources, in `condition`, each cut to 16 numbers by a random projection if it has more:

- observation: view, direction, what is carried and the mission, as now seen; it is the same for all runs.
- weights: routing weights of all layers at this step.
- routers, expert l.e: the state before the step of all routers, or of one expert of layer l.

Targets, in `group`, of classes that occur in 8 episodes or more: the bot's subgoal; carrying; door (of levels with a
locked one: is it unlocked?); distance (walking, to the target, thirds); plan_left (steps the bot still takes, thirds).
Quantities, per run:

- accuracy: balanced, the mean over classes of the share told right; chance is 1 / number of classes.
- selectivity: accuracy minus that on labels of other episodes of similar length, stretched to fit, another exchange for
  each run (control tasks: Hewitt, Liang 2019, EMNLP, arXiv:1909.03368). What time since the start alone tells is in
  both. 0 for a source without information.
- memory_gain: accuracy of routers and experts minus that of the observation: what the state tells that is not seen now.
- memory_gain_full: minus that of the observation before it was cut, which no projection makes poorer: it is cautious.

Tests are over runs and levels at once: balanced accuracy is a mean over episodes of their shares in it. p values
are adjusted over the map of sources and targets (Benjamini and Hochberg). The variance of memory gains is
multiplied by 1 + 4/3, as the parts share their training episodes (Nadeau, Bengio 2003, Mach. Learn. 52:239): one
observation is held against all runs, and without that a test of 40 levels was wrong in 17 % of data sets of noise.

Twin, erasure: a state may hold what nobody reads. Probes are trained on 64 levels that are not scored; the part of
the state in the subspace that a probe reads (rank: classes - 1) is set to its mean before every step, in all layers at
once. erasure_gain_routers, erasure_gain_experts: cross-entropy to the bot without it, minus that without a random
subspace of the same rank (2 of them). Random directions are drawn as the state itself varies (its covariance), so that
they take as much from it as a direction usually has; a probe is not held to that, and may read one of more variance.

Known answer: a planted bit is found by its source alone, noise has selectivity 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from science.effects import Effects
from science.probing import FOLDS, Target, predict_apart, score_episodes
from science.result import NAN, Draft, Result
from science.states import PLACES, States
from science.statistics.inference import CrossedTest, compare_over_both
from science.statistics.nulls import EpisodeBlocks

QUANTITIES = {
    "accuracy": "balanced accuracy",
    "selectivity": "accuracy above that of exchanged labels",
    "memory_gain": "accuracy of the state above the observation's",
    "memory_gain_full": "accuracy of the state above the whole observation's",
    "erasure_gain_routers": "harm of erasing it from routers, above random (nats)",
    "erasure_gain_experts": "harm of erasing it from experts, above random (nats)",
}
"""What each quantity is, for an axis."""

OBSERVATION = "observation"


def compute(states: Iterable[States], *, effects: Effects | None = None, seed: int = 0) -> Result:
    """Return what probes tell of each task and setting; see the module.

    Args:
        states: Of each task and setting.
        effects: Of erasures.
        seed: Of exchanges.
    """
    draft = Draft("probes", __doc__ or "")
    seen: dict[str, dict[tuple[str, bool], np.ndarray]] = {}
    for cell in states:
        task = cell.runs[0].task
        if task not in seen:
            seen[task] = _tell_observation(draft, cell, task)
        _probe_cell(draft, cell, seen[task], seed)
    for part in [] if effects is None else effects.cells():
        add_erasures(draft, part)
    return draft.finish()


def _tell_observation(draft: Draft, cell: States, task: str) -> dict[tuple[str, bool], np.ndarray]:
    """Return, for the observation cut and whole, each episode's share in the accuracy of each target."""
    found = {}
    for name, target in cell.targets.items():
        codes, episode = target.codes[cell.chosen], cell.episode[cell.chosen]
        for whole, features in ((False, cell.observation), (True, cell.observation_full.astype(np.float32))):
            correct = predict_apart(features, codes, episode)
            shares = score_episodes(correct, codes, episode, len(cell.level_seed))
            found[name, whole] = shares
            about = {"task": task, "group": name, "condition": OBSERVATION + (", whole" if whole else "")}
            mean = float(np.nanmean(shares)) if np.isfinite(shares).any() else NAN
            n = int(np.isfinite(shares).sum())
            draft.add("accuracy", mean, unit="levels", n_episodes=n, **_chance(target), **about)
    if missing := [
        name for name in ("subgoal", "carrying", "door", "distance", "plan_left") if name not in cell.targets
    ]:
        draft.note(f"{task}: of {', '.join(missing)} there are no two classes: not asked")
    return found


def _chance(target: Target) -> dict[str, float]:
    return {"null_mean": 1 / len(target.names)}


def _probe_cell(draft: Draft, cell: States, seen: dict[tuple[str, bool], np.ndarray], seed: int) -> None:
    task, setting, count = cell.runs[0].task, cell.runs[0].setting, len(cell.level_seed)
    episode = cell.episode[cell.chosen]
    if len(np.unique(episode)) < FOLDS:
        draft.note(f"{task}, {setting}: probes need {FOLDS} episodes, found {len(np.unique(episode))}: no value")
        return
    swaps = draw_exchanges(cell, seed)
    for source, values in cell.sources.items():
        layer, expert = cell.experts.get(source, (-1, -1))
        about: dict[str, Any] = {"condition": source, "layer": layer, "expert": expert}
        for name, target in cell.targets.items():
            codes = target.codes[cell.chosen]
            own, other = (np.full((len(cell.runs), count), NAN) for _ in range(2))
            for run in range(len(cell.runs)):
                features, swapped = values[run].astype(np.float64), target.codes[swaps[run]][cell.chosen]
                own[run] = score_episodes(predict_apart(features, codes, episode), codes, episode, count)
                other[run] = score_episodes(predict_apart(features, swapped, episode), swapped, episode, count)
            place = {"group": name, **about}
            means = np.nanmean(own, axis=1) if np.isfinite(own).any() else np.full(len(own), NAN)
            draft.over_runs(
                "accuracy",
                means,
                cell.runs,
                null=1 / len(target.names),
                tested=False,
                limits=(0, 1),
                n_episodes=count,
                **place,
            )
            draft.over_both("selectivity", own - other, cell.runs, family=f"selectivity, {task}, {setting}", **place)
            if source == "weights":
                continue
            for quantity, whole in (("memory_gain", False), ("memory_gain_full", True)):
                table = own - seen[name, whole]
                known = np.isfinite(table).any(axis=1)
                gains = np.full(len(table), NAN)
                gains[known] = np.nanmean(table[known], axis=1)
                both = allow_for_training(compare_over_both(table))
                family, twin = f"{quantity}, {task}, {setting}", f"erasure_gain_{PLACES[int(expert >= 0)]}"
                draft.over_runs(
                    quantity, gains, cell.runs, both=both, n_episodes=count, family=family, twin=twin, **place
                )


def allow_for_training(test: CrossedTest) -> CrossedTest:
    """Return a test of accuracies over levels whose variance allows for probes that share training episodes.

    By the factor 1 + J n_test / n_train for J parts (Nadeau, Bengio 2003, Mach. Learn. 52:239).
    """
    from scipy.special import stdtr

    wider = math.sqrt(1 + FOLDS / (FOLDS - 1))
    ends = {end: test.mean + wider * (getattr(test, end) - test.mean) for end in ("low", "high")}
    error = wider * test.error
    p = float(2 * stdtr(test.df, -abs(test.mean) / error)) if error > 0 else test.p
    return replace(test, **ends, error=error, p=p)


def draw_exchanges(cell: States, seed: int) -> list[np.ndarray]:
    """Return for each run an exchange of episodes, int (S,): whose label each step gets."""
    blocks = EpisodeBlocks(cell.episode)
    return [blocks.draw(np.random.default_rng([seed, run.seed, run.trial])) for run in cell.runs]


def add_erasures(draft: Draft, cell: Effects) -> None:
    """Add the twin of a task and setting."""
    names = {condition.name: index for index, condition in enumerate(cell.conditions)}
    for index in cell.of_kind("erasure"):
        label = cell.conditions[index].name
        name, _, place = label.rpartition(" of ")
        controls = [
            number for text, number in names.items() if text.startswith("random ") and text.endswith(f" for {label}")
        ]
        if place not in PLACES or not controls:
            continue
        table = cell.by_level("ce", index) - cell.mean_by_level("ce", controls)
        about = {"group": name, "condition": label, "family": f"erasures, {cell.runs[0].task}, {cell.runs[0].setting}"}
        draft.over_both(f"erasure_gain_{place}", table, cell.runs, twin="memory_gain", **about)
