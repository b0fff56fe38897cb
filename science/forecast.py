"""What a study would do, how long that takes, and what its design can show; nothing is done."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.records.intervals import MIN_FOR_INTERVAL
from pipeline.training.summary import align_right
from science import adapting, growth, stages
from science.catalogue import ANALYSES
from science.conditions import count_conditions
from science.config import StudyConfig
from science.plan import ADAPTED, LEARNER, Design, Run, build_design
from science.run import count_cores
from science.runs import evaluate_item, match_baselines, train_item
from science.statistics.inference import detectable_effect, smallest_p
from science.store import Item, Store

STEPS_PER_SECOND = 40_000.0
"""Env-steps of training, of one core: of a policy on 21 levels; on one level up to 70,000 (docs/LOG.md)."""

EPISODES_PER_SECOND = {"evaluate": 60.0, "intervene": 350.0, "replay": 1000.0, "force": 250.0}
"""Episodes, of one core: of own play, of own play under a condition, of replay under one or none, along all paths.
Measured on three layers of [0, 16, 32]: 20,500 steps a second under conditions, 30,400 on replay; who fails plays five
times as long."""

SECONDS = {"film": 15.0, "played": 2.0, "draw": 8.0}
"""Of one item, of one core."""

GROW = "grow"
"""Kind of the items of checkpoints on the way, which are no stage: runs are trained for them."""

OVER_LEVELS = ("difficulty", "similarity")
"""Analyses whose claims are over levels."""

CALIBRATION_SECONDS = 3e-5
"""Of a data set, for each run and level in it, of one core: the mean over cases, 18 of 200 + 200 data sets in 270 s."""


def print_plan(config: StudyConfig, only: Sequence[str]) -> int:
    """Print the plan of a study; return the exit code."""
    design = build_design(config, match_baselines(config))
    store = Store(design.folder)
    cores = count_cores()
    print("\n".join(describe_runs(design)))
    rows, total = [("stage", "items", "to do", "minutes")], 0.0
    for name, items, stale in list_work(design, store, only):
        minutes = sum(estimate_seconds(design, item) for item in stale) / 60 / (cores if len(stale) > 1 else 1)
        total += minutes
        rows.append((name, str(len(items)), str(len(stale)), f"{minutes:.1f}" if stale else "-"))
    rows.append(("all", "", "", f"{total:.0f}" if total >= 10 else f"{total:.1f}"))
    print("\n".join(["", *align_right(rows)]))
    print(f"minutes are a guess for {cores} cores that do nothing else")
    print("\n".join(["", *describe_claims(config)]))
    return 0


def describe_runs(design: Design) -> list[str]:
    """Return what is trained, and how often it is changed, in lines."""
    config = design.config
    prices = ", ".join(f"{alpha:g}" for alpha in config.lpc_alphas)
    dense = sorted({(run.setting, run.config.hidden_size) for run in design.runs if run.alpha is None})
    learned = [task for task in design.tasks if task not in design.held_out]
    together = "" if config.mixture is None else f"{config.mixture}, learned by one policy: "
    lines = [
        f"study {config.name}, in {design.folder}",
        f"tasks       {together}{', '.join(learned)}",
        *([f"held out    {', '.join(design.held_out)}"] if design.held_out else []),
        f"runs        {len(design.trainings)}: {len(config.seeds)} seeds, prices {prices}"
        + "".join(f"; {setting}, a GRU of {width}" for setting, width in dense),
        f"levels      {config.episodes} of each task, {config.changed_episodes} for interventions",
    ]
    if design.learners:
        asked = config.difficulty_baselines
        each = f"{asked.seeds} GRUs of {asked.hidden_size}, {asked.num_updates} updates each"
        lines.append(f"learners    {len(design.learners)}: {each}, on each task by itself, for how hard it is")
    if design.adapted:
        lines.append(_describe_adapted(design))
    counts = count_conditions(design)
    if counts:
        lines.append("conditions  " + "; ".join(f"{family} {source} {n}" for (family, source), n in counts.items()))
    return lines


def _describe_adapted(design: Design) -> str:
    arms, levels = dict.fromkeys(run.setting for run in design.adapted), design.new_levels
    steps = sum(run.config.num_updates * run.config.num_envs * run.config.unroll_len for run in design.adapted)
    return (
        f"transfer    {len(design.adapted)} runs, {steps:,} env-steps: {', '.join(levels)}, each learned in "
        f"{design.config.transfer.num_updates} updates by {', '.join(arms)}"
    )


def list_work(design: Design, store: Store, only: Sequence[str]) -> list[tuple[str, list[Item], list[Item]]]:
    """Return each stage's name, items, and those that are to be made: stale, or of what is."""
    found, pending = [], set()
    kinds = [
        ("train", [train_item(run) for run in (*design.trainings, *design.learners)]),
        ("evaluate", [evaluate_item(design, run) for run in design.runs]),
        *([(ADAPTED, adapting.list_items(design))] if any(ANALYSES[name].adapted for name in only) else []),
        *([(GROW, _list_growing(design))] if any(ANALYSES[name].grown for name in only) else []),
        *((stage.name, stage.items(design, only)) for stage in stages.STAGES),
    ]
    for name, items in kinds:
        stale = [item for item in items if pending.intersection(item.needs) or not store.is_fresh(item)]
        pending |= {item.name for item in stale}
        found.append((name, items, stale))
    return found


def _list_growing(design: Design) -> list[Item]:
    """Return the items of the checkpoints on the way, of each policy."""
    return [growth.grow_item(design, run) for run in design.trainings if run.alpha is not None]


def _count_again(design: Design, run: Run) -> int:
    """Return how many updates a run is trained again for checkpoints that are missing; 0 if it is yet to be trained."""
    missing = [update for update in design.updates[:-1] if not growth.find_checkpoint(design, run, update).exists()]
    return max(missing) + 1 if missing and run.checkpoint.exists() else 0


def estimate_seconds(design: Design, item: Item) -> float:
    """Return about how long an item takes one core."""
    config = design.config
    if item.kind == "train":
        learner = f"/{LEARNER}/" in item.name
        first = (design.learners if learner else design.runs)[0].config
        return first.num_updates * first.num_envs * first.unroll_len / STEPS_PER_SECOND
    if item.kind == ADAPTED:
        first = design.adapted[0].config
        return first.num_updates * first.num_envs * first.unroll_len / STEPS_PER_SECOND
    if item.kind == GROW:
        run = next(run for run in design.routed if growth.grow_item(design, run).name == item.name)
        return _count_again(design, run) * run.config.num_envs * run.config.unroll_len / STEPS_PER_SECOND
    if item.kind == "evaluate":
        return config.episodes / EPISODES_PER_SECOND["evaluate"]
    if item.kind == "replay":
        return len(config.seeds) * config.episodes / EPISODES_PER_SECOND["replay"]
    if item.kind == "force":
        return len(config.seeds) * config.changed_episodes / EPISODES_PER_SECOND["force"]
    if item.kind == "states":
        return len(config.seeds) * config.episodes / EPISODES_PER_SECOND["replay"]
    if item.kind == "grown":
        kind = item.name.split("/")[1]
        layers = design.routed[0].config.expert_hidden_sizes
        conditions = 2 + sum(map(len, layers)) if kind == "knockouts" else 1
        episodes = len(config.seeds) * len(design.updates) * conditions
        episodes *= config.episodes if kind == "replay" else config.changed_episodes
        return episodes / EPISODES_PER_SECOND["intervene" if kind == "played" else "replay"]
    if item.kind == "intervene":
        _, family, source = item.name.split("/")[:3]
        episodes = count_conditions(design)[family, source] * len(config.seeds) * config.changed_episodes
        return episodes / EPISODES_PER_SECOND["intervene" if source == "P" else "replay"]
    if item.kind == "calibrate":
        return 2 * config.statistics.calibration * len(config.seeds) * config.episodes * CALIBRATION_SECONDS
    if item.kind == "analyse":
        return 10 + 1e-6 * config.statistics.draws * len(design.routed) * config.episodes * 5
    return SECONDS.get(item.kind, 1.0)


def describe_claims(config: StudyConfig) -> list[str]:
    """Return what the design can show of each claim, in lines."""
    runs, claims, statistics = len(config.seeds), config.claims, config.statistics
    if not claims:
        return ["no claim is declared: everything is exploratory"]
    if runs < MIN_FOR_INTERVAL:
        return [f"{runs} seed(s): no claim can be tested, which takes {MIN_FOR_INTERVAL} runs or more"]
    floor, exchanged = smallest_p(runs), 1 / (1 + statistics.draws)
    effect = detectable_effect(runs, alpha=statistics.level / len(claims), power=statistics.power)
    rows = [("", "claim", "declared", "smallest p", "after Holm", "detectable effect")]
    for number, claim in enumerate(claims, 1):
        least = max(floor, 0.0)
        wanted = claim.direction + ("" if claim.margin is None else f", margin {claim.margin:g}")
        rows.append(
            (
                str(number),
                claim.claim,
                wanted,
                f"{least:.2g}" if least else "none (t test)",
                f"{min(1.0, least * len(claims)):.2g}" if least else "-",
                f"{effect:.2f} sd",
            )
        )
    lines = align_right(rows)
    if floor * len(claims) > statistics.level:
        need = next(n for n in range(8, 40) if 2 / 2**n * len(claims) <= statistics.level)
        lines.append(
            f"{runs} runs cannot support {len(claims)} claims in an exact test at level {statistics.level:g}: "
            f"it takes {need}"
        )
    lines.append(
        f"detectable: mean over standard deviation between runs, found with {statistics.power:.0%} power at this "
        f"claim's share of the level; where a null is drawn, p is at least {exchanged:.2g} besides"
    )
    levels = len(config.tasks)
    if levels > 3 and any(claim.analysis in OVER_LEVELS for claim in claims):
        known = find_correlation(levels, statistics.level / len(claims), statistics.power)
        lines.append(
            f"over levels: {levels} of them show a rank correlation of {known:.2f} or more with that power at this "
            "share of the level, however many runs there are"
        )
    assert not math.isnan(effect)
    return lines


def find_correlation(number: int, level: float, power: float) -> float:
    """Return the rank correlation over so many levels that a two-sided test finds so often.

    By Fisher's z, whose variance is 1.06 / (n - 3) of ranks (Fieller, Hartley, Pearson 1957, Biometrika 44:470).
    """
    from scipy.special import ndtri  # takes 0.1 s

    return math.tanh((ndtri(1 - level / 2) + ndtri(power)) * math.sqrt(1.06 / (number - 3)))
