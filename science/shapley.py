"""Exact Shapley values of experts: how much of what the experts do together is each one's, and who stands in for whom?

The players are the experts that are no skip, six of three layers of [0, 16, 32]. Each of their coalitions S is made on
replay: the others add 0 at every step, and the weights of S stay as they are. Its worth v(S) is the cross-entropy to
the bot's actions with nothing changed minus that with S alone, nats: 0 with all, negative as a rule. No coalition is
left out and none is sampled. Ten players, 1,024 coalitions, are the most.

- credit, of each expert: its Shapley value, the mean of what it adds over all orders in which experts may come
  (Shapley 1953, Ann. Math. Stud. 28:307). Credits sum to worth, v(all) - v(none). credit_by_subgoal,
  worth_by_subgoal: of the steps of a subgoal of the bot. credit_of_agreement, worth_of_agreement: of the share of steps
  at which the policy does as the bot.
- interaction, of each pair: the Shapley interaction index (Grabisch and Roubens 1999, Int. J. Game Theory 28:547),
  below 0 where one stands in for the other, above where they need each other; interaction_by_subgoal.
  interaction_within_layers, interaction_across_layers: means over pairs of one layer and of two.
- redundancy: 1 - sum of what single knock-outs do / worth. 0 where experts add up, 1 where each alone can be missed
  though all together cannot; of runs whose experts are worth 0.05 nats or more. redistributed: the sum of what single
  knock-outs do, as a share of worth, if the remaining weights are made to sum to 1 again; beyond 1 - redundancy it is
  no expert's absence but what the others do with its weight. knockout_credit: rank correlation over
  experts of what the knock-out of an expert alone does with its credit.
- usage_credit: rank correlation over experts of usage (mean weight) with credit, per run: does the map say who does the
  work? usage_credit_given_size: size partialled out.
- credit_consistency: do seeds give the same experts the credit for the same subgoals? The profile credit[subgoal,
  expert] of a run, less its means over experts and over subgoals, is correlated with that of another run on other
  levels: for 8 random halves of the levels, of one run on the one half with the other on the other. Runs that share
  levels share what is particular to these; here they do not. In a hard subgoal an important expert may have more credit
  still: the product of both means is taken out too (Tukey 1949, Biometrics 5:232), so far as it is known; where
  profiles are little else, some of it is left. Short of endless levels consistency is underestimated.
  credit_consistency_raw: of the profiles as they are, on all levels.

Intervals and p of credit, interaction and worth have runs and level seeds as random factors, adjusted by Benjamini and
Hochberg over experts, pairs and subgoals. Interval of credit_consistency: jackknife over runs, for pairs share runs.

Nulls. Of usage_credit: usage of a layer's experts permuted among them, in each run by itself, so that only what is said
within layers counts; p is the larger of that of the mean over runs and of values minus their null over runs. It is of
other runs with these experts, not of other experts. Of credit_consistency: subgoals permuted within each run, and from
8 runs on the sign of whole profiles flipped; and subgoals permuted with the sign of what each level adds drawn anew, in
all runs alike. The largest p counts.

Twin: credit is found by interventions, and the usage map is its observation (usage_credit); leaving one out
(knockout_credit) asks the same with one coalition for each expert.

Known answer: games by hand. An expert that adds nothing to any coalition gets 0, two that add the same get the same.
Of two experts each of which carries the same bit, log 2 nats, both get half, their interaction is - log 2, the
redundancy 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from science.coalitions import list_pairs
from science.credit_consistency import add_consistency
from science.credit_rankings import add_rankings
from science.effects import Effects
from science.games import Game, read_game
from science.knockouts import find_usage
from science.result import NAN, Draft, Result
from science.traces import Traces

QUANTITIES = {
    "credit": "Shapley value (nats)",
    "credit_by_subgoal": "Shapley value by subgoal (nats)",
    "credit_of_agreement": "Shapley value of agreement",
    "worth": "worth of all experts (nats)",
    "worth_by_subgoal": "worth of all experts by subgoal (nats)",
    "worth_of_agreement": "worth of all experts, agreement",
    "interaction": "Shapley interaction of two experts (nats)",
    "interaction_by_subgoal": "Shapley interaction by subgoal (nats)",
    "interaction_within_layers": "interaction of experts of a layer (nats)",
    "interaction_across_layers": "interaction of experts of two layers (nats)",
    "redundancy": "share of worth that single knock-outs do not show",
    "redistributed": "sum of single knock-outs with weights made up for / worth",
    "knockout_credit": "rank correlation of single knock-out and credit",
    "usage_credit": "rank correlation of usage and credit",
    "usage_credit_given_size": "the same, size partialled out",
    "credit_consistency": "correlation of credit profiles between runs, on other levels",
    "credit_consistency_raw": "correlation of credit profiles, not centred",
}
"""What each quantity is, for an axis."""


def compute(effects: Effects, traces: Traces | None = None, *, draws: int = 999, seed: int = 0) -> Result:
    """Return the credit of each task and setting; see the module.

    Args:
        effects: Of all coalitions, on replay, by subgoal.
        traces: Of the same runs, for usage and for the experts' sizes.
        draws: Of the nulls.
        seed: Of everything drawn.
    """
    draft = Draft("shapley", __doc__ or "")
    usage = {} if traces is None else find_usage(draft, traces)
    sizes = None if traces is None else traces.sizes
    for cell in effects.cells():
        game = read_game(draft, cell, sizes)
        if game is None:
            continue
        _add_credit(draft, game)
        _add_interactions(draft, game)
        rng = np.random.default_rng(seed)
        add_rankings(draft, game, _find_own(usage, traces, game), rng, draws)
        add_consistency(draft, game.runs, game.credit("ce")[:, :, 1:], game.blocks, rng, draws, game.columns)
    return draft.finish()


def _add_credit(draft: Draft, game: Game) -> None:
    credit, worth = game.credit("ce"), game.worth("ce")
    agreement = game.credit("agreement")
    draft.over_both("worth", worth[:, :, 0], game.runs, n_levels=1)
    draft.over_both("worth_of_agreement", game.worth("agreement")[:, :, 0], game.runs, n_levels=1)
    for place, (layer, expert) in enumerate(game.players):
        about: dict[str, Any] = {"layer": layer, "expert": expert, "n_levels": 1}
        draft.over_both("credit", credit[:, :, 0, place], game.runs, family=f"credit, {game.where}", **about)
        family = f"credit of agreement, {game.where}"
        draft.over_both("credit_of_agreement", agreement[:, :, 0, place], game.runs, family=family, **about)
    for x, name in enumerate(game.groups[1:], 1):
        draft.over_both("worth_by_subgoal", worth[:, :, x], game.runs, group=name, n_levels=1)
        for place, (layer, expert) in enumerate(game.players):
            about = {"layer": layer, "expert": expert, "group": name, "n_levels": 1}
            family = f"credit by subgoal, {game.where}"
            draft.over_both("credit_by_subgoal", credit[:, :, x, place], game.runs, family=family, **about)


def _add_interactions(draft: Draft, game: Game) -> None:
    pairs = list_pairs(len(game.players))
    if not pairs:
        draft.note(f"{game.where}: one expert alone that is no skip: no interactions")
        return
    found = game.interactions()
    within = np.array([game.players[i][0] == game.players[j][0] for i, j in pairs])
    for row, pair in enumerate(pairs):
        name = " with ".join("l{}e{}".format(*game.players[place]) for place in pair)
        about = {"condition": name, "n_levels": 1}
        family = f"interaction, {game.where}"
        draft.over_both("interaction", found[:, :, 0, row], game.runs, family=family, **about)
        for x, group in enumerate(game.groups[1:], 1):
            family = f"interaction by subgoal, {game.where}"
            about_group = {**about, "group": group, "family": family}
            draft.over_both("interaction_by_subgoal", found[:, :, x, row], game.runs, **about_group)
    for quantity, chosen in (("interaction_within_layers", within), ("interaction_across_layers", ~within)):
        if chosen.any():
            draft.over_both(quantity, found[:, :, 0, chosen].mean(axis=-1), game.runs, n_levels=1)


def _find_own(usage: dict[Any, np.ndarray], traces: Traces | None, game: Game) -> np.ndarray:
    """Return the usage of each player in each run (R, N), NaN where it is not known."""
    found = np.full((len(game.runs), len(game.players)), NAN)
    if traces is None:
        return found
    every = [(int(layer), int(expert)) for layer, expert in np.argwhere(traces.experts)]
    columns = [every.index(player) for player in game.players]
    for row, run in enumerate(game.runs):
        if run in usage:
            found[row] = usage[run][columns]
    return found
