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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.records.intervals import mean_interval
from science.agreement import MAX_EXCHANGES, SPLITS, find_null
from science.coalitions import code_of, interaction_weights, list_pairs, list_players, players_in, shapley_weights
from science.effects import Effects
from science.knockouts import find_usage
from science.profiles import correlate, mean_over_pairs, to_unit
from science.result import NAN, Draft, Result, larger
from science.statistics.association import partial_spearman
from science.statistics.nulls import p_value
from science.traces import Run, Traces

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

LEAST_WORTH = 0.05
"""Nats below which shares of worth are not told."""

MIN_EPISODES = 5
"""Levels of a subgoal below which nothing is told of it."""

MIN_PLAYERS = 3
"""Below which nothing is ranked."""


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


@dataclass(frozen=True, eq=False)
class Game:
    """What coalitions of N experts are worth to R runs on G levels.

    Attributes:
        runs: R runs.
        players: Layer and expert of each player.
        sizes: int (N,), their hidden sizes; 0 not known.
        groups: Names of X groups of steps, the first of all steps.
        worths: Per measure float64 (R, G, X, 2^N), NaN where a level has no step of a group.
        made_up: float64 (R, N), what the knock-out of each alone does if the other weights are made to sum to 1; NaN
            not known.
    """

    runs: tuple[Run, ...]
    players: list[tuple[int, int]]
    sizes: np.ndarray
    groups: tuple[str, ...]
    worths: dict[str, np.ndarray]
    made_up: np.ndarray

    def credit(self, measure: str) -> np.ndarray:
        """Return Shapley values (R, G, X, N)."""
        return self.worths[measure] @ shapley_weights(len(self.players)).T

    def interactions(self) -> np.ndarray:
        """Return interaction indices of pairs (R, G, X, pairs), cross-entropy."""
        return self.worths["ce"] @ interaction_weights(len(self.players)).T

    def worth(self, measure: str) -> np.ndarray:
        """Return v(all) - v(none), (R, G, X)."""
        return self.worths[measure][..., -1] - self.worths[measure][..., 0]

    def alone(self) -> np.ndarray:
        """Return what the knock-out of each expert alone does, v(all) - v(all others), (R, G, X, N)."""
        every = 2 ** len(self.players) - 1
        others = [every & ~(1 << place) for place in range(len(self.players))]
        return self.worths["ce"][..., -1:] - self.worths["ce"][..., others]

    @property
    def blocks(self) -> list[list[int]]:
        """Players of a layer that are equal in size, two or more, as places."""
        keys = [(layer, int(size)) for (layer, _), size in zip(self.players, self.sizes, strict=True)]
        found = [[place for place, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]
        return [places for places in found if len(places) > 1] if self.sizes.all() else []

    @property
    def columns(self) -> dict[str, Any]:
        """What rows tell of it."""
        return {"n_levels": 1, "n_episodes": self.worths["ce"].shape[1]}

    @property
    def where(self) -> str:
        """Task and setting, for notes."""
        return f"{self.runs[0].task}, {self.runs[0].setting}"


def read_game(draft: Draft, cell: Effects, sizes: Sequence[Sequence[int]] | None = None) -> Game | None:
    """Return the game of a task and setting; None, with a note, where coalitions are missing.

    Args:
        draft: Gets notes.
        cell: Effects of coalitions and a sham.
        sizes: Of all experts; None: players are those that any condition takes out.
    """
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
    used = [*cell.of_kind("sham")[:1], *cell.of_kind("coalition")]
    names = {index: cell.conditions[index].name for index in used}
    if sizes is None:
        every = sorted(set().union(*map(players_in, names.values())))
    else:
        every = list_players(sizes)
    codes = {index: code_of(name, every) for index, name in names.items()}
    if not every or sorted(codes.values()) != list(range(2 ** len(every))):
        draft.note(f"{where}: expected all {2 ** len(every)} coalitions, once each, found {len(set(codes.values()))}")
        return None
    place = np.full(len(cell.conditions), -1)
    place[list(codes)] = list(codes.values())
    shape = (len(cell.runs), len(cell.level_seeds), 1 + len(cell.groups), len(codes))
    rows = np.flatnonzero(place[cell.condition] >= 0)
    at = (
        cell.run[rows],
        np.searchsorted(cell.level_seeds, cell.level_seed[rows]),
        1 + cell.group[rows],
        place[cell.condition[rows]],
    )
    worths = {}
    for measure, sign in (("ce", -1), ("agreement", 1)):
        worths[measure] = np.full(shape, NAN)
        worths[measure][at] = sign * cell.difference(measure)[rows]
        if np.nan_to_num(worths[measure][..., -1]).any():
            draft.note(f"{where}: the sham differs from the intact policy: no credit here is to be believed")
    seen = np.isfinite(worths["ce"]).all(axis=(0, 3)).sum(axis=0) >= MIN_EPISODES
    seen[0] = True
    of_player = [0 if sizes is None else sizes[layer][expert] for layer, expert in every]
    names_of = ("", *cell.groups)
    kept = tuple(name for name, one in zip(names_of, seen, strict=True) if one)
    worths = {measure: values[:, :, seen] for measure, values in worths.items()}
    made_up = np.full((len(cell.runs), len(every)), NAN)
    for index in cell.of_kind("knockout", what="zero", renormalise=True):
        player = cell.conditions[index].layer, cell.conditions[index].expert
        if player in every:
            made_up[:, every.index(player)] = cell.per_run("ce", index)
    return Game(cell.runs, every, np.array(of_player, np.int64), kept, worths, made_up)


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


# ------------------------------------------------------------------------------------------------------------- credit


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


# ---------------------------------------------------------------------------------------------- who does the work


def add_rankings(draft: Draft, game: Game, usage: np.ndarray, rng: np.random.Generator, draws: int) -> None:
    """Add redundancy, and how credit goes with single knock-outs and with usage.

    Args:
        draft: Gets rows.
        game: Of a task and setting.
        usage: (R, N), mean weight of each player.
        rng: Draws the null.
        draws: How many.
    """
    credit, alone = (np.nanmean(values[:, :, 0], axis=1) for values in (game.credit("ce"), game.alone()))
    worth = credit.sum(axis=1)
    little = ["" if value >= LEAST_WORTH else f"worth below {LEAST_WORTH:g} nats" for value in worth]
    share = np.where(worth >= LEAST_WORTH, np.where(worth > 0, worth, 1), NAN)
    draft.over_runs("redundancy", 1 - alone.sum(axis=1) / share, game.runs, reasons=little, **game.columns)
    made_up = game.made_up.sum(axis=1) / share
    if np.isfinite(made_up).any():
        draft.over_runs("redistributed", made_up, game.runs, reasons=little, tested=False, **game.columns)
    if len(game.players) < MIN_PLAYERS:
        draft.note(f"{game.where}: {len(game.players)} experts that are no skip: {MIN_PLAYERS} or more can be ranked")
        return
    limits = {"limits": (-1, 1), **game.columns}
    flat = np.ptp(credit, axis=1) < 1e-12
    reasons = ["no expert has more credit than another" if one else "" for one in flat]
    values = rank_rows(alone, credit)
    draft.over_runs("knockout_credit", values, game.runs, reasons=reasons, **limits)
    layers = np.array([layer for layer, _ in game.players])
    add_usage(draft, game.runs, usage, credit, layers, game.sizes, rng, draws, **limits)


def add_usage(
    draft: Draft,
    runs: Sequence[Run],
    usage: np.ndarray,
    credit: np.ndarray,
    layers: np.ndarray,
    sizes: np.ndarray,
    rng: np.random.Generator,
    draws: int,
    **columns: Any,
) -> None:
    """Add usage_credit, of usage and credit (R, N) of experts of some layers and sizes, with its null."""
    values = rank_rows(usage, credit)
    known = np.isfinite(values)
    reasons = ["" if one else "no traces, or no expert differs from another" for one in known]
    under = np.full((draws, len(runs)), NAN)
    for draw in range(draws):
        order = np.lexsort((rng.random(usage.shape), np.broadcast_to(layers, usage.shape)), axis=1)
        under[draw] = rank_rows(np.take_along_axis(usage, order, axis=1), credit)
    has = draws and known.any()
    null = np.where(known, np.nan_to_num(under).mean(axis=0), NAN) if has else NAN
    draft.over_runs(
        "usage_credit",
        values,
        runs,
        reasons=reasons,
        null=null,
        p_null=p_value(float(values[known].mean()), under[:, known].mean(axis=1)) if has else NAN,
        p_null_floor=1 / (1 + draws),
        null_unit="experts",
        twin="credit",
        **columns,
    )
    given = np.full(len(runs), NAN)
    if len(np.unique(sizes)) > 1:
        for row in np.flatnonzero(known):
            given[row] = partial_spearman(usage[row], credit[row], sizes.astype(np.float64))
        draft.over_runs("usage_credit_given_size", given, runs, reasons=reasons, **columns)


def rank_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each row of x with that of y, both (R, N); NaN where either is constant."""
    from scipy.stats import rankdata  # takes 0.4 s

    def rank(values: np.ndarray) -> np.ndarray:
        varied = np.isfinite(values).all(axis=1) & (np.ptp(np.nan_to_num(values), axis=1) > 1e-12)
        return np.where(varied[:, None], to_unit(rankdata(np.nan_to_num(values), axis=1)), NAN)

    return (rank(x) * rank(y)).sum(axis=1)


# --------------------------------------------------------------------------------------------------------- consistency


def add_consistency(
    draft: Draft,
    runs: Sequence[Run],
    credit: np.ndarray,
    blocks: list[list[int]],
    rng: np.random.Generator,
    draws: int,
    columns: dict[str, Any],
) -> None:
    """Add credit_consistency, of credit by level (R, G, X, N), NaN where a level has no step of a group."""
    where = f"{runs[0].task}, {runs[0].setting}"
    profiles = _mean_levels(credit, np.ones(credit.shape[1], bool))
    flat = ~(np.square(center(profiles)).sum(axis=(1, 2)) > 1e-16) if profiles.shape[1] else np.ones(len(runs), bool)
    kept = np.flatnonzero(~flat)
    for run in np.flatnonzero(flat):
        draft.drop(runs[run], "no expert has more credit for one subgoal than for another", "credit_consistency")
    if len(kept) < 2 or profiles.shape[1] < 2:
        draft.note(f"{where}: credit_consistency needs two runs and two subgoals: no value")
        return
    profiles, credit = profiles[kept], credit[kept]
    halves = [rng.permutation(credit.shape[1]) % 2 == 0 for _ in range(SPLITS)]
    matrix = _correlate_halves(credit, blocks, halves)
    shared = {"n_dropped": int(flat.sum()), "task": runs[0].task, "setting": runs[0].setting, **columns}
    if matrix is not None:
        p, floor, _ = find_null(center(profiles), blocks, matrix, rng, draws)
        under = np.array(list(_draw_levels(credit, profiles, blocks, halves, rng, min(draws, MAX_EXCHANGES))))
        about = {"unit": "runs+groups+levels", "p_floor": max(floor, 1 / (1 + len(under))), "twin": "usage_credit"}
        about |= {"null_mean": float(under.mean()) if len(under) else NAN}
        p = larger(p, p_value(mean_over_pairs(matrix)[0], under))
        _add_pairs(draft, "credit_consistency", matrix, [runs[i] for i in kept], p=p, **about, **shared)
    else:
        draft.note(f"{where}: too few levels of some subgoal for halves: credit_consistency has no value")
    matrix = correlate(profiles, blocks)
    _add_pairs(draft, "credit_consistency_raw", matrix, [runs[i] for i in kept], unit="runs", **shared)


def _correlate_halves(credit: np.ndarray, blocks: list[list[int]], halves: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return correlations (R, R) of runs on other levels; None where no half has all subgoals.

    Args:
        credit: (R, G, X, N).
        blocks: Of interchangeable experts.
        halves: bool (G,) each.
    """
    found = []
    for half in halves:
        first, second = (center(_mean_levels(credit, side)) for side in (half, ~half))
        if np.isfinite(first).all() and np.isfinite(second).all():
            found.append(correlate(first, blocks, second))
    matrix = np.mean(found, axis=0) if found else None
    return None if matrix is None else (matrix + matrix.T) / 2


def _draw_levels(
    credit: np.ndarray,
    profiles: np.ndarray,
    blocks: list[list[int]],
    halves: Sequence[np.ndarray],
    rng: np.random.Generator,
    draws: int,
) -> Iterator[float]:
    """Yield the mean over pairs where profiles are each run's own, and levels act on all runs as they do."""
    own, of_level = center(profiles), credit - profiles[:, None]
    rest = profiles - own
    for _ in range(draws):
        order = rng.permuted(np.tile(np.arange(own.shape[1]), (len(own), 1)), axis=1)
        exchanged = rest + np.take_along_axis(own, order[:, :, None], axis=1)
        signs = rng.choice([-1.0, 1.0], credit.shape[1])[None, :, None, None]
        matrix = _correlate_halves(exchanged[:, None] + signs * of_level, blocks, halves)
        yield NAN if matrix is None else mean_over_pairs(matrix)[0]


def _mean_levels(credit: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return means over some levels (R, X, N); NaN of a group that none has."""
    inside = credit[:, levels]
    known = np.isfinite(inside)
    return np.where(known.any(axis=1), np.nansum(inside, axis=1) / np.maximum(known.sum(axis=1), 1), NAN)


def center(profiles: np.ndarray) -> np.ndarray:
    """Return what neither group nor expert says of profiles (R, X, N), nor the product of their effects."""
    mean = profiles.mean(axis=(1, 2), keepdims=True)
    of_group = profiles.mean(axis=2, keepdims=True) - mean
    of_expert = profiles.mean(axis=1, keepdims=True) - mean
    rest, product = profiles - mean - of_group - of_expert, of_group * of_expert
    length = np.square(product).sum(axis=(1, 2), keepdims=True)
    share = (rest * product).sum(axis=(1, 2), keepdims=True) / np.where(length > 1e-300, length, 1.0)
    return rest - share * product


def _add_pairs(
    draft: Draft, quantity: str, matrix: np.ndarray, runs: Sequence[Run], *, p: float = NAN, **columns: Any
) -> None:
    value, each, pseudo = mean_over_pairs(matrix)
    for run, one in zip(runs, each, strict=True):
        own = {"trial": run.trial, "seed": run.seed, "update": run.update, "n_runs": 1}
        known = {key: columns[key] for key in ("task", "setting", "n_levels", "n_episodes") if key in columns}
        draft.add(quantity, one, **own, **known)
    interval = mean_interval(pseudo)
    ends = {"low": max(-1.0, float(interval.low)), "high": min(1.0, float(interval.high))} if len(runs) > 2 else {}
    draft.add(quantity, value, n_runs=len(runs), p=p if len(runs) > 2 else NAN, **ends, **columns)
