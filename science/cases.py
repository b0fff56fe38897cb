"""The claims that the calibration card tries, each with data in which it holds and data in which it does not.

What goes on in both is what goes on in studies: trends in the course of an episode, effects of levels on all runs
alike, pathways that each run has to itself, important experts and vulnerable groups, runs that succeed more often than
others. Absent in data without effect is only what the claim says.

Of fronts that is: whoever pays the same succeeds as often, over all costs alike, policies at each price, the dense
networks at the costs of their paths, the dial at its strengths. As a staircase of five points lies above one of two
even then, there are two cases of each: of the points of the design, and "at equal costs", of as many points on both
sides.

Of a claim of no effect p is that of equivalence, and what has to be rejected is an effect as large as the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from science import (
    complexity,
    distinctness,
    fronts,
    knockouts,
    needed,
    pathways,
    planted_levels,
    price,
    sufficiency,
)
from science.coalitions import list_players
from science.credit_consistency import add_consistency
from science.credit_rankings import MIN_PLAYERS, add_usage
from science.planted_effects import plant_knockouts, plant_thresholds, plant_transplants
from science.planted_forced import plant_credit, plant_forced
from science.planted_fronts import plant_front, plant_outcomes
from science.planted_transfer import TRANSFER
from science.profiles import correlate, find_profiles, list_experts, mean_over_pairs
from science.result import NAN, Draft, Result, Row
from science.statistics.inference import compute_equivalence
from science.statistics.nulls import EpisodeBlocks
from science.synthetic import Setup, keep_first_steps, plant_noisy_policy, plant_prices, plant_signal
from science.traces import Traces
from science.training_cases import try_erasure, try_handover, try_lead, try_memory_gain, try_selectivity

MARGIN = 0.2
"""Of the rank correlation of price and success, where no effect is claimed."""

Found = tuple[Row, np.ndarray]
"""The row that a claim rests on, and each run's values."""


@dataclass(frozen=True)
class Case:
    """A claim, and how to make data in which it holds or does not.

    Attributes:
        name: analysis.quantity, and in brackets what else tells it apart.
        test: Makes a data set and returns what is found in it.
        planted: The effect in words.
        truth: Its value, NaN where it has no simple one.
        many_prices: Whether it takes all prices; otherwise one.
        nothing: Data without effect in words.
    """

    name: str
    test: Callable[[Setup], Found]
    planted: str
    truth: float = NAN
    many_prices: bool = False
    nothing: str = "nothing planted"

    @property
    def claim(self) -> str:
        """analysis.quantity."""
        return self.name.partition(" ")[0]


def _values(result: Result, row: Row) -> Found:
    where = {key: getattr(row, key) for key in ("layer", "expert", "group", "condition")}
    return row, np.array([each.value for each in result.find(row.quantity, unit="run", **where)])


# ---------------------------------------------------------------------------------------------------------- pathways


def _consistency(setup: Setup) -> Found:
    shared = 0.03 if setup.planted else 0.0
    traces = plant_signal(setup.template, setup.rng, shared=shared, own=0.03, drift=0.03, level=0.03)
    found = pathways.compute(traces, draws=setup.draws, seed=setup.draw_seed())
    return _values(found, found.row("consistency"))


def _above_untrained(setup: Setup) -> Found:
    """Untrained routers have some of it, which levels force."""
    amounts = {"own": 0.03, "drift": 0.03, "level": 0.03}
    before = plant_signal(setup.template, setup.rng, shared=0.02, **amounts)
    before = replace(before, runs=tuple(replace(run, setting="untrained") for run in before.runs))
    after = plant_signal(setup.template, setup.rng, shared=0.04 if setup.planted else 0.02, **amounts)
    draft = Draft("pathways", "")
    profiles = find_profiles(draft, after, "level_subgoal")
    pseudo = mean_over_pairs(correlate(profiles.centered, profiles.blocks))[2]
    pathways.subtract_untrained(draft, after, "level_subgoal", pseudo, before)
    found = [row for row in draft.rows if row.quantity == "consistency_above_untrained"]
    row = found[0] if found else draft.add("consistency_above_untrained", NAN, unit="runs", n_runs=len(after.runs))
    return row, np.full(len(after.runs), NAN)  # of pairs of runs: no run has one of its own


def _transplant_gain(setup: Setup) -> Found:
    other = 0.2 if setup.planted else 0.3
    harm = {"own": 0.2, "other": other, "shuffled": 0.3}
    draft = Draft("pathways", "")
    pathways.compare_transplants(draft, plant_transplants(setup.template, setup.rng, harm))
    found = draft.finish()
    return _values(found, found.row("transplant_gain"))


# ------------------------------------------------------------------------------------------------------ distinctness


def _path_information(setup: Setup) -> Found:
    traces = plant_signal(setup.template, setup.rng, own=0.06 if setup.planted else 0.0, drift=0.05, level=0.05)
    found = distinctness.compute(traces, draws=setup.draws, seed=setup.draw_seed())
    return _values(found, found.row("path_information"))


def _dissociation(setup: Setup) -> Found:
    """Whom an expert's loss harms is each run's own: what all runs have in common cannot be chance of a run."""
    rng, group = setup.rng, "level_subgoal"
    traces = plant_signal(setup.template, rng, shared=0.03, own=0.04, level=0.03)
    draft = Draft("distinctness", "")
    profiles = find_profiles(Draft("", ""), traces, group)
    if len(profiles.runs) < len(traces.runs):
        raise LookupError("needs two groups of steps that all runs have")
    usage = profiles.centered.transpose(0, 2, 1)  # (R, K, X)
    _, experts, groups = usage.shape
    harm = 0.2 * rng.random((1, experts, 1)) + 0.1 * rng.random((1, 1, groups)) + 0.05 * rng.normal(size=usage.shape)
    if setup.planted:
        harm += 0.05 * usage / usage.std()
    names = [traces.group(group).names[place] for place in profiles.groups]
    effects = plant_knockouts(traces, rng, harm.mean(axis=2), noise=0.3, by_group=harm, names=names)
    distinctness.add_dissociation(draft, traces, effects, group)
    found = draft.finish()
    return _values(found, found.row("dissociation"))


# -------------------------------------------------------------------------------------- knock-outs, self-sufficiency


def _effect(setup: Setup) -> Found:
    layers, *_ = list_experts(setup.template)
    harm = np.full((len(setup.template.runs), len(layers)), 0.02 if setup.planted else 0.0)
    effects = plant_knockouts(setup.template, setup.rng, harm, run_sd=0.01, level_sd=0.03, noise=0.1)
    found = knockouts.compute(effects)
    return _values(found, found.row("effect_on_ce", layer=0, expert=0, unit="runs+levels"))


def _audit(setup: Setup) -> Found:
    return _find_audit(setup, "audit")


def _audit_beyond_norm(setup: Setup) -> Found:
    """What a random direction of the same norm does follows usage, in data without effect too."""
    return _find_audit(setup, "audit_beyond_norm", control=1.0)


def _find_audit(setup: Setup, quantity: str, control: float | None = None) -> Found:
    rng = setup.rng
    traces = plant_signal(setup.template, rng, own=0.05, level=0.05)
    means = [traces.weights[traces.run == run].mean(axis=0)[traces.experts] for run in range(len(traces.runs))]
    usage = np.stack(means)
    scaled = (usage - usage.mean()) / usage.std(axis=1, keepdims=True)
    harm = 0.1 * (rng.normal(size=usage.shape) + (0.7 if setup.planted else 0.0) * scaled)
    beside = None if control is None else 0.1 * control * scaled
    if beside is not None:
        harm = harm + beside
    effects = plant_knockouts(traces, rng, harm, level_sd=0.1, noise=0.1, control=beside)
    draft = Draft("knockouts", "")
    knockouts.add_audit(draft, effects, knockouts.find_usage(draft, traces), traces)
    found = draft.finish()
    return _values(found, found.row(quantity))


def _sufficiency(setup: Setup) -> Found:
    taus, own = [0.05, 0.1, 0.2], [0.9, 0.8, 0.7]
    control = [0.85, 0.7, 0.5] if setup.planted else own
    found = sufficiency.compute(plant_thresholds(setup.template, setup.rng, own, control, taus))
    return _values(found, found.row("sufficiency_above_random"))


# ------------------------------------------------------------------------------------------------------------ prices


def _price_trend(setup: Setup) -> Found:
    traces = keep_first_steps(setup.template)
    traces = plant_prices(traces, setup.rng, _half(traces, setup.planted), noise=0.08)
    grid, expert = fronts.build_grid(Draft("", ""), traces), int(np.flatnonzero(traces.experts[0])[-1])
    places = zip(grid.layers.tolist(), grid.experts.tolist(), strict=True)
    return _find_trend(setup, traces, grid.usage[:, :, list(places).index((0, expert))], "price_trend")


def _trend_of_lpc(setup: Setup) -> Found:
    traces = keep_first_steps(setup.template)
    traces = plant_prices(traces, setup.rng, _half(traces, setup.planted), noise=0.08)
    return _find_trend(setup, traces, fronts.build_grid(Draft("", ""), traces).lpc, "price_trend_of_lpc")


def _trend_of_success(setup: Setup) -> Found:
    steps = 0.03 * _rank_prices(setup.template) if setup.planted else 0.0
    return _find_success(setup, 0.85 - steps)


def _no_trend_of_success(setup: Setup) -> Found:
    """A share of seeds as large as the margin is in perfect order of price: the mean correlation is the margin."""
    template, rng = setup.template, setup.rng
    chance = 0.85 + 0.1 * rng.normal(size=len(template.runs)).clip(-1.4, 1.4)
    seeds, alphas = np.array([[run.seed, run.lpc_alpha] for run in template.runs]).T
    for seed in np.unique(seeds) if not setup.planted else ():
        if rng.random() < MARGIN:
            own = np.flatnonzero(seeds == seed)
            chance[own[np.argsort(alphas[own])]] = np.linspace(0.7, 0.99, len(own))
    row, each = _find_success(setup, chance)
    return replace(row, p=compute_equivalence(row.__dict__, MARGIN, 0.0)), each


def _find_success(setup: Setup, chance: np.ndarray | float) -> Found:
    traces = plant_outcomes(keep_first_steps(setup.template), setup.rng, chance, run_sd=0.03)
    return _find_trend(setup, traces, fronts.build_grid(Draft("", ""), traces).success, "price_trend_of_success")


def _find_trend(setup: Setup, traces: Traces, values: np.ndarray, quantity: str) -> Found:
    draft = Draft("price", "")
    grid = fronts.build_grid(draft, traces)
    price.add_trend(draft, grid, quantity, values, setup.rng, setup.draws)
    found = draft.finish()
    return _values(found, found.row(quantity))


def _rank_prices(template: Traces) -> np.ndarray:
    alphas = [run.lpc_alpha for run in template.runs]
    return np.unique(alphas, return_inverse=True)[1].reshape(-1)


def _half(template: Traces, planted: bool) -> np.ndarray:
    """Return half prices (L, E) in the middle of those of the design, or none."""
    paid = [run.lpc_alpha for run in template.runs if run.lpc_alpha > 0]
    return np.full(template.weights.shape[1:], np.sqrt(min(paid) * max(paid)) if planted else np.inf)


def _above_baseline(setup: Setup, *, equal: bool = False) -> Found:
    traces, points, _ = plant_front(setup.template, setup.rng, gain=0.1 if setup.planted else 0.0, equal=equal)
    return _find_front(traces, "hypervolume_above_baseline", baselines=points)


def _above_baseline_at_equal_costs(setup: Setup) -> Found:
    return _above_baseline(setup, equal=True)


def _dial_gap(setup: Setup, *, equal: bool = False) -> Found:
    traces, _, effects = plant_front(setup.template, setup.rng, gain=0.1 if setup.planted else 0.0, equal=equal)
    return _find_front(traces, "dial_gap", effects=effects)


def _dial_gap_at_equal_costs(setup: Setup) -> Found:
    return _dial_gap(setup, equal=True)


def _find_front(traces: Traces, quantity: str, *, baselines: list = (), effects: object = None) -> Found:
    draft = Draft("price", "")
    fronts.add_fronts(draft, fronts.build_grid(draft, traces), list(baselines), effects)
    found = draft.finish()
    return _values(found, found.row(quantity))


# ------------------------------------------------------------------------------------------------------- complexity


def _lpc_entropy(setup: Setup) -> Found:
    rng = setup.rng
    traces = plant_noisy_policy(plant_signal(setup.template, rng, drift=0.05, level=0.05), rng)
    if setup.planted:  # LPC follows how sure the policy is in a cell
        codes = traces.group("cell").codes
        sure = np.concatenate([rng.normal(size=len(traces.group("cell").names)), [0.0]])[codes]
        logits = traces.logits * np.exp(-0.4 * sure)[:, None]
        lpc = traces.lpc + 0.3 * traces.lpc.std() * sure
        traces = replace(traces, logits=logits.astype(np.float32), lpc=lpc.astype(np.float32))
    found = complexity.compute(traces, draws=setup.draws, seed=setup.draw_seed(), min_steps=10)
    return _values(found, found.row("lpc_entropy"))


# ------------------------------------------------------------------------------------------- needed complexity, credit


def _needed_used(setup: Setup) -> Found:
    forced = plant_forced(setup.template, setup.rng, coupling=0.3 if setup.planted else 0.0)
    draft, steps = Draft("needed", ""), needed.measure_steps(forced)
    blocks = EpisodeBlocks(forced.episode)
    needed.add_correlation(draft, forced.runs, steps, blocks, setup.rng, setup.draws)
    found = draft.finish()
    return _values(found, found.row("needed_used"))


def _path_matters(setup: Setup) -> Found:
    forced = plant_forced(setup.template, setup.rng, wrong=0.03, matters=0.3 if setup.planted else 0.0)
    draft = Draft("needed", "")
    needed.add_twin(draft, forced, needed.measure_steps(forced))
    found = draft.finish()
    if not found.rows:
        raise LookupError("needs paths that cost the same, found none")
    return _values(found, found.row("path_matters"))


def _usage_credit(setup: Setup) -> Found:
    """Usage and credit both depend on the layer, without effect too."""
    rng, runs, sizes = setup.rng, setup.template.runs, setup.template.sizes
    players = list_players(sizes)
    if len(players) < MIN_PLAYERS:
        raise LookupError(f"needs {MIN_PLAYERS} experts that are no skip, found {len(players)}")
    layers = np.array([layer for layer, _ in players])
    used = rng.normal(size=(len(runs), len(players)))
    credit = rng.normal(size=used.shape) + (used if setup.planted else 0.0)
    effect = rng.normal(size=(2, len(sizes)))[:, layers]
    of_player = np.array([sizes[layer][expert] for layer, expert in players])
    draft = Draft("shapley", "")
    about = (effect[0] + used, effect[1] + credit, layers, of_player, rng, setup.draws)
    add_usage(draft, runs, *about)
    found = draft.finish()
    return _values(found, found.row("usage_credit"))


def _credit_consistency(setup: Setup) -> Found:
    template = setup.template
    groups = find_profiles(Draft("", ""), template, "subgoal", keep_collapsed=True).groups
    players = list_players(template.sizes)
    if len(groups) < 2 or len(players) < 2:
        raise LookupError(f"needs two subgoals and two experts that are no skip, found {len(groups)}, {len(players)}")
    levels = int((template.episode_run == 0).sum())
    shape = (len(template.runs), levels, len(groups), len(players))
    credit = plant_credit(setup.rng, *shape, shared=0.1 if setup.planted else 0.0)
    draft = Draft("shapley", "")
    add_consistency(draft, template.runs, credit, [], setup.rng, setup.draws, {})
    found = draft.finish()
    return _values(found, found.row("credit_consistency"))


_ALIKE, _HARD = "effects of levels that all runs share", "1.5 sd with difficulty, beside those effects"
_COSTS = "same success at the same cost"
_EQUAL = "same success at the same costs, as many points"

CASES = (
    Case("pathways.consistency", _consistency, "half of the profiles' variance shared", 0.5),
    Case(
        "pathways.consistency_above_untrained",
        _above_untrained,
        "shared .04 (sd) against .02 before training",
        nothing="shared .02 (sd) before and after",
    ),
    Case("pathways.transplant_gain", _transplant_gain, "another run's harm 0.1 nats less than shuffled", 0.1),
    Case("distinctness.path_information", _path_information, "weights depend on the group by 0.06 (sd)"),
    Case("distinctness.dissociation", _dissociation, "harm follows usage by group by 0.05 nats (sd)"),
    Case("knockouts.effect_on_ce", _effect, "0.02 nats, sd of runs 0.01", 0.02),
    Case("knockouts.audit", _audit, "effects follow usage by 0.7 sd"),
    Case(
        "knockouts.audit_beyond_norm",
        _audit_beyond_norm,
        "effects follow usage by 0.7 sd beyond the control",
        nothing="effects follow usage as the control does",
    ),
    Case("sufficiency.sufficiency_above_random", _sufficiency, "success .9 .8 .7 against .85 .7 .5", 0.0875),
    Case("price.price_trend", _price_trend, "usage halves at the middle of the prices", many_prices=True),
    Case("price.price_trend_of_lpc", _trend_of_lpc, "usage halves at the middle of the prices", many_prices=True),
    Case("price.price_trend_of_success", _trend_of_success, "success .03 less at each price", many_prices=True),
    Case(
        "price.price_trend_of_success (no effect)",
        _no_trend_of_success,
        "no trend",
        0.0,
        many_prices=True,
        nothing=f"a trend of {MARGIN:g}, the margin",
    ),
    Case("price.hypervolume_above_baseline", _above_baseline, "success .1 more", many_prices=True, nothing=_COSTS),
    Case(
        "price.hypervolume_above_baseline (at equal costs)",
        _above_baseline_at_equal_costs,
        "success .1 more",
        many_prices=True,
        nothing=_EQUAL,
    ),
    Case("price.dial_gap", _dial_gap, "success .1 more", many_prices=True, nothing=_COSTS),
    Case(
        "price.dial_gap (at equal costs)", _dial_gap_at_equal_costs, "success .1 more", many_prices=True, nothing=_EQUAL
    ),
    Case("complexity.lpc_entropy", _lpc_entropy, "LPC and entropy share an effect of place"),
    Case(
        "needed.needed_used",
        _needed_used,
        "used rises by .3 of what a step needs",
        nothing="both change in the course of an episode and between levels",
    ),
    Case(
        "needed.path_matters",
        _path_matters,
        "other paths of the same cost wrong .3 more often",
        nothing="paths are right by their cost alone",
    ),
    Case(
        "shapley.usage_credit",
        _usage_credit,
        "credit follows usage by 1 sd within layers",
        nothing="both depend on the layer, and on nothing else",
    ),
    Case(
        "shapley.credit_consistency",
        _credit_consistency,
        "half of the variance by subgoal and expert shared",
        nothing="profiles are each run's own, levels act on all runs alike, hard subgoals and important experts add up",
    ),
    Case("difficulty.lpc_plan_length", planted_levels.follow_difficulty, _HARD, nothing=_ALIKE),
    Case("difficulty.lpc_subgoals", planted_levels.follow_subgoals, _HARD, nothing=_ALIKE),
    Case("difficulty.lpc_plan_length_played", planted_levels.follow_played, _HARD, nothing=_ALIKE),
    Case("difficulty.lpc_steps_to_learn", planted_levels.follow_learning, _HARD, nothing=_ALIKE),
    Case("difficulty.lpc_remaining_above_untrained", planted_levels.follow_plan, "0.15 more", 0.15),
    Case("difficulty.lesion_slope", planted_levels.lesion_by_difficulty, _HARD, nothing=_ALIKE),
    Case("difficulty.lesion_slope_above_small", planted_levels.lesion_above_small, _HARD, nothing=_ALIKE),
    *(
        Case(f"similarity.{name}", test, "places follow subgoals by 2 sd", nothing="places of levels that runs share")
        for name, test in planted_levels.KINSHIP.items()
    ),
    *(
        Case(f"similarity.{name}", test, "0.3 more", 0.3, nothing="runs and levels have ways of their own")
        for name, test in planted_levels.HELD_OUT.items()
    ),
    Case(
        "similarity.held_out_loss (no effect)",
        planted_levels.no_held_out_loss,
        "no loss",
        0.0,
        nothing=f"a loss of {planted_levels.MARGIN:g}, the margin",
    ),
    *(
        Case(f"transfer.{name}", test, "two doublings sooner", 2.0, nothing="runs and levels differ, arms do not")
        for name, test in TRANSFER.items()
    ),
    Case("dynamics.rise_lead", try_lead, "routes come a doubling of updates before the skill", 1.0),
    Case("dynamics.handover", try_handover, "hand-over rises with difficulty as much as it varies otherwise"),
    Case("probes.selectivity", try_selectivity, "states hold a bit of 0.5 sd", nothing="states know time and level"),
    Case(
        "probes.memory_gain",
        try_memory_gain,
        "states hold a bit of 0.5 sd",
        nothing="state and observation know time and level",
    ),
    Case("probes.erasure_gain_routers", try_erasure, "0.05 nats beyond random subspaces", 0.05),
)
"""In the order of the card."""

UNTRIED = {
    "pathways.consistency_on_these_levels": "what levels force is no chance on these levels",
    "pathways.consistency_raw": "routers that all prefer the same experts have it, and nothing else is claimed",
    "pathways.consistency_forced": "it is a share, and has no test",
    "knockouts.equivalence": "the size of an effect that is none is a convention",
    "shapley.credit": "its test is that of knockouts.effect_on_ce",
    "difficulty.lpc_remaining": "that LPC drifts in the course of an episode needs no training; see above untrained",
    "similarity.held_out_success": "it is told, not tested",
    "similarity.held_out_agreement": "it is told, not tested",
    "similarity.held_out_lpc": "it is told, not tested",
    "transfer.steps_to_learn": "it is told, not tested",
    "transfer.learned": "it is told, not tested",
    "price.half_price": "it is read off a curve, and has no test",
    **{f"dynamics.{name}_rise": "it is read off a curve, and has no test" for name in ("saturation", "information")},
    "dynamics.success_rise": "it is read off a curve, and has no test",
    "dynamics.handover_size": "training fluctuates, which makes peaks by itself",
    "probes.accuracy": "it has no test; selectivity has",
}
"""Why quantities that could be claimed have no case; of others, that nobody has made one."""
