"""What the report says of the design, of what failed, and of where all of it comes from."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.command.provenance import find_commit, find_versions
from pipeline.records.intervals import MIN_FOR_INTERVAL
from plotting.origin import project_version
from science.catalogue import ANALYSES
from science.claims import OLD
from science.plan import Design
from science.report.content import ClaimEntry
from science.report.tables import short_name
from science.report.text import format_number, join_numbers
from science.statistics.inference import detectable_effect, smallest_p

_LIBRARIES = ("numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "torch", "matplotlib", "jinja2")

MOST_NAMED = 8
"""Levels that the first sentence names; the design names all."""

Facts = tuple[tuple[str, str], ...]


def abstract_of(design: Design, claims: Sequence[ClaimEntry]) -> tuple[str, ...]:
    """Return what was done and found, in two sentences; a third one if verdicts rest on tables of an earlier state."""
    config = design.config
    prices = ", ".join(f"{alpha:g}" for alpha in config.lpc_alphas)
    seeds = count_words(len(config.seeds), "seed")
    routed = sum(run.alpha is not None for run in design.trainings)
    policies = f"{routed} routed policies ({seeds} at each price of complexity, {prices})"
    baselines = len(design.trainings) - routed
    dense = f" and {count_words(baselines, 'dense baseline')}" if baselines else ""
    learned = [short_name(task) for task in design.tasks if task not in design.held_out]
    if config.mixture is None:
        trained, of = f"{join_words(learned)}, each task by itself,", "their task"
    else:
        trained, of = f"all of {_name_levels(learned)} together", "each level"
        held_out = [short_name(task) for task in design.held_out]
        trained += f", and not on {_name_levels(held_out)}," * bool(design.held_out)
    done = (
        f"{policies}{dense} were trained on {trained} and studied on the same {config.episodes:,} episodes of {of}: in "
        "their own play, on the bot's trajectories, and with parts changed."
    )
    if not claims:
        return (done, "No claim was declared; everything is exploratory.")
    words = ("supported", "contradicted", "equivalent", "undecided")
    counts = {word: [str(c.number) for c in claims if c.verdict == word] for word in words}
    found = "; ".join(f"{len(n)} {word} ({', '.join(n)})" for word, n in counts.items() if n)
    old = [str(claim.number) for claim in claims if OLD in claim.why]
    stale = f"Of earlier inputs, settings or code: {count_words(len(old), 'verdict')} ({', '.join(old)})."
    return (done, f"Of {count_words(len(claims), 'declared claim')}: {found}.", *[stale] * bool(old))


def _name_levels(names: Sequence[str]) -> str:
    """Return levels in words: their names, or of many their number."""
    return join_words(names) if len(names) <= MOST_NAMED else f"{len(names)} levels"


def join_words(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: a, b and c."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def count_words(n: int, word: str) -> str:
    """Return a number with a noun, in the plural but for one."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def design_facts(design: Design) -> Facts:
    """Return the facts of the design."""
    config, runs = design.config, len(design.config.seeds)
    tests = max(1, len(config.claims))
    level = config.statistics.level
    floor, effect = smallest_p(runs), detectable_effect(runs, alpha=level / tests, power=config.statistics.power)
    seeds = join_numbers(config.seeds)
    exact = f"no exact test has a p below {format_number(floor)}" if floor else "tests over runs are t tests"
    can = (
        f"{MIN_FOR_INTERVAL} runs are the fewest with an interval or a test: none here"
        if math.isnan(floor)
        else f"{exact}; a mean over runs is found with {config.statistics.power:.0%} power, at level {level:g} shared "
        f"by {count_words(tests, 'claim')}, if it is {format_number(effect)} standard deviations between runs or more"
    )
    return (
        (
            "Tasks" if config.mixture is None else "Levels learned",
            ", ".join(short_name(task) for task in design.tasks if task not in design.held_out),
        ),
        *_mixture_facts(design),
        ("Prices of complexity", ", ".join(f"{alpha:g}" for alpha in config.lpc_alphas)),
        ("Seeds", f"{runs} ({seeds})"),
        ("Baselines", ", ".join(_baselines(design)) or "none"),
        *_transfer_facts(design),
        (
            "Episodes",
            f"{config.episodes:,} of each {'task' if config.mixture is None else 'level'}, of fixed level "
            "seeds, the same for all runs",
        ),
        ("Analyses", "; ".join(ANALYSES[name].title for name in config.analyses)),
        ("What this many runs can show", can),
    )


def _mixture_facts(design: Design) -> Facts:
    config = design.config
    if config.mixture is None:
        return ()
    held_out = ", ".join(short_name(task) for task in design.held_out) or "none"
    return (
        ("Mixture", f"{config.mixture}: each policy learns all of them, {_tell_weights(design)}"),
        ("Levels held out", held_out),
    )


def _tell_weights(design: Design) -> str:
    """Return the shares of the steps in words: the most common weight, and those that have another."""
    weights = design.config.task_weights
    if weights is None or len(set(weights)) == 1:
        return "with equal shares of the steps"
    usual = Counter(weights).most_common(1)[0][0]
    learned = [short_name(task) for task in design.tasks if task not in design.held_out]
    others = [f"{task} {w:g}" for task, w in zip(learned, weights, strict=True) if w != usual]
    return f"their steps in shares of {usual:g}, but {', '.join(others)}"


def _transfer_facts(design: Design) -> Facts:
    if not design.adapted:
        return ()
    first, arms = design.adapted[0], ", ".join(dict.fromkeys(run.setting for run in design.adapted))
    levels = ", ".join(short_name(level) for level in design.new_levels)
    return (
        (
            "Transfer",
            f"{levels}, each learned in {first.config.num_updates:,} updates by {arms}; price {first.alpha:g}, "
            f"{count_words(len({run.seed for run in design.adapted}), 'seed')}",
        ),
    )


def _baselines(design: Design) -> list[str]:
    found = {}
    for run in design.runs:
        if run.alpha is None:
            path = run.setting.partition("=")[2]
            found[run.setting] = f"GRU of {run.config.hidden_size}, as many parameters as are active on the {path} path"
    return list(found.values())


def training_facts(design: Design) -> Facts:
    """Return the settings of training that all runs share."""
    config = design.routed[0].config
    names = (
        *("policy", "expert_hidden_sizes", "intermediate_dim", "router_hidden_size", "num_updates", "num_envs"),
        *("unroll_len", "lr", "action_selection", "lang_encoder", "lpc_exponent", "normalize_lpc"),
    )
    names += tuple(name for name in config.identity() if name in design.config.train and name not in names)
    return tuple((name, str(getattr(config, name))) for name in names)


def problems_of(design: Design, failed: Mapping[str, str], results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what failed, and which runs could not be used, in words."""
    found = _join_failures(failed)
    found += _join_dropped(design, results)
    if len(design.config.seeds) < MIN_FOR_INTERVAL:
        found.append(
            f"{count_words(len(design.config.seeds), 'seed')} alone: no interval over runs and no test, which take "
            f"{MIN_FOR_INTERVAL} or more"
        )
    return tuple(found)


def _join_dropped(design: Design, results: Mapping[str, Any]) -> list[str]:
    """Return which runs were left out of whole analyses, or have collapsed, in words, alike ones together."""
    analyses: dict[tuple[str, str], list[str]] = {}
    for analysis, result in results.items():
        for entry in result["dropped"]:
            if not entry["quantity"] or entry["reason"] == "collapsed":
                names = analyses.setdefault((entry["run"], entry["reason"]), [])
                names += [
                    name for name in [analysis + f".{entry['quantity']}" * bool(entry["quantity"])] if name not in names
                ]
    alike: dict[tuple[str, str, str], list[str]] = {}
    for (run, reason), names in analyses.items():
        cell, _, seed = run.rpartition(", seed ")
        alike.setdefault((cell, reason, ", ".join(names)), []).append(seed)
    of = len(design.config.seeds)
    return [
        f"{short_name(cell)}: {len(seeds)} of {of} runs {reason} (seed {', '.join(seeds)}); left out of {names}"
        for (cell, reason, names), seeds in alike.items()
    ]


def _join_failures(failed: Mapping[str, str]) -> list[str]:
    """Return failures in words, those of one kind for one reason together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, why in failed.items():
        kind, _, rest = name.partition("/")
        alike.setdefault((kind, why.replace(rest, "...")), []).append(rest)
    lines = []
    for (kind, why), names in alike.items():
        shown = "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"{kind} of {shown}: {why}")
    return lines


def origin_facts(design: Design) -> Facts:
    """Return how the study can be made again."""
    versions = versions_of()
    libraries = ", ".join(f"{name} {version}" for name, version in versions["libraries"].items())
    return (
        ("Command", f"python science/study.py --config studies/{design.config.name}.yaml"),
        ("rl-mop", f"{versions['project']}, commit {versions['commit']}"),
        ("Python", versions["python"]),
        ("Libraries", libraries),
        (
            "Settings and digests",
            "study.json beside this page: the resolved study file, and the SHA-256 of every artefact",
        ),
        ("Every number", "tables/*.csv, one tidy row each; claims.csv; calibration.csv"),
    )


def versions_of() -> dict[str, Any]:
    """Return the versions of the project, its commit, of Python and of libraries."""
    libraries = {name: found for name, found in find_versions(_LIBRARIES).items() if found is not None}
    return {
        "project": project_version(),
        "commit": find_commit(12) or "unknown",
        "python": ".".join(map(str, sys.version_info[:3])),
        "libraries": libraries,
    }
