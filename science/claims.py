"""Verdicts on declared claims, from the tables of the analyses.

A claim is about a quantity over runs (or over what its row names as its unit). Where a table has the quantity of
several tasks, prices or conditions, each is a part, and the claim holds if every part does: its p is the largest of
theirs (an intersection-union test, Berger 1982, Technometrics 24:295). Over the claims p values are adjusted after
Holm; "no effect" is only ever told by two one-sided tests (TOST, Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657)
against the margin that was declared, adjusted likewise.

    supported      significant, on the declared side, not equivalent to the reference; or declared as none, and it is
    contradicted   significant, on the other side; or declared as none, and significantly beyond the margin
    equivalent     within the margin of the reference, whatever else
    undecided      this design could not tell
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.records.intervals import MIN_FOR_INTERVAL
from science.config import Claim, name_setting
from science.statistics.inference import adjust, compute_equivalence

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["supported", "contradicted", "equivalent", "undecided"]

PARTS = ("task", "setting", "estimator", "layer", "expert", "group", "condition")
"""Columns that tell the parts of a claim apart."""

COLUMNS = (
    *("number", "claim", "says", "direction", "margin", "part", "verdict", "why", "value", "low", "high"),
    *("reference", "unit", "n_runs", "n_levels", "n_episodes", "n_dropped", "p", "p_floor", "p_adjusted"),
    *("p_equivalence", "p_equivalence_adjusted"),
)
"""Of claims.csv: of each claim a row whose part is "all", then its parts. A claim's own p is what speaks against its
reference; of a claim of none, that it is beyond the margin."""

ALL = "all"

OLD = "rests on earlier inputs, settings or code"
"""Of a claim whose table was not made again."""


@dataclass(frozen=True)
class Part:
    """What a table says of one part of a claim.

    Attributes:
        name: Task, price and what else tells it apart.
        value: Of the quantity.
        low: Lower end of its interval.
        high: Upper end.
        reference: What it is compared with.
        unit: That the interval and the test generalise over.
        n_runs: Runs in it.
        n_levels: Level families in it.
        n_episodes: Episodes in it.
        n_dropped: Runs left out.
        p: That it differs from the reference; NaN: no test.
        p_floor: The smallest that could have been found.
        p_equivalence: Of the two one-sided tests; NaN: none.
    """

    name: str
    value: float
    low: float
    high: float
    reference: float
    unit: str
    n_runs: int
    n_levels: int
    n_episodes: int
    n_dropped: int
    p: float
    p_floor: float
    p_equivalence: float


def judge(
    claims: Sequence[Claim], tables: Mapping[str, pd.DataFrame], level: float, held_out: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the verdicts, with the columns `COLUMNS`.

    Args:
        claims: Declared ones.
        tables: Tidy rows of each analysis, by its name; one that is missing leaves its claims undecided.
        level: Chance of a false verdict over all claims together.
        held_out: Tasks that no policy was trained on: a claim is about one of them only if it names it.
    """
    import pandas as pd

    parts = [find_parts(claim, tables.get(claim.analysis), held_out) for claim in claims]
    largest = [
        _largest([_p_against(claim, part) for part in of_claim]) for claim, of_claim in zip(claims, parts, strict=True)
    ]
    equivalent = [_largest([part.p_equivalence for part in of_claim]) for of_claim in parts]
    adjusted, equivalent_adjusted = adjust(np.array(largest), "holm"), adjust(np.array(equivalent), "holm")
    rows = []
    for index, (claim, of_claim) in enumerate(zip(claims, parts, strict=True)):
        verdict, why = _decide(claim, of_claim, float(adjusted[index]), float(equivalent_adjusted[index]), level)
        about = {"number": index + 1, "claim": claim.claim, "says": claim.says, "direction": claim.direction}
        about["margin"] = math.nan if claim.margin is None else claim.margin
        whole = {
            **_summarise(of_claim),
            "part": ALL,
            "verdict": verdict,
            "why": why,
            "p": largest[index],
            "p_floor": max((part.p_floor for part in of_claim), default=math.nan),
            "p_adjusted": float(adjusted[index]),
            "p_equivalence": equivalent[index],
            "p_equivalence_adjusted": float(equivalent_adjusted[index]),
        }
        rows.append({**about, **whole})
        rows += [{**about, "part": part.name, **_of_part(part)} for part in of_claim]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def mark_old(claims: pd.DataFrame, old: Collection[str]) -> pd.DataFrame:
    """Return verdicts, those from tables that are not of the present state of the study with words on it in `why`.

    Args:
        claims: Of `judge`.
        old: Analyses whose inputs, settings or code have changed since their tables were made.
    """
    marked = (claims["part"] == ALL) & claims["claim"].map(lambda claim: claim.partition(".")[0] in old).astype(bool)
    why = [f"{text}; {OLD}" if text else OLD for text in claims["why"][marked]]
    claims = claims.copy()
    claims.loc[marked, "why"] = why
    return claims


def find_parts(claim: Claim, table: pd.DataFrame | None, held_out: Sequence[str] = ()) -> list[Part]:
    """Return what a table says of a claim, none if it has nothing of it; of tasks held out only if it names one."""
    if table is None:
        return []
    rows = table[table["quantity"] == claim.quantity]
    rows = rows[~rows["task"].isin(held_out)] if claim.task is None else rows[rows["task"] == claim.task]
    if claim.alpha is not None:
        rows = rows[rows["setting"] == name_setting(claim.alpha)]
    over = rows[(rows["unit"] != "run") & (rows["estimator"] != "worst")]
    varying = [name for name in PARTS if over[name].nunique() > 1]
    found = []
    for row in over.to_dict("records"):
        reference = row["null_mean"] if math.isfinite(row["null_mean"]) else 0.0
        name = ", ".join(_name_part(name, row[name]) for name in varying if row[name] not in ("", -1))
        found.append(
            Part(
                name or "overall",
                row["value"],
                row["low"],
                row["high"],
                reference,
                row["unit"],
                *(int(row[key]) for key in ("n_runs", "n_levels", "n_episodes", "n_dropped")),
                row["p"],
                row["p_floor"],
                math.nan if claim.margin is None else compute_equivalence(row, claim.margin, reference),
            )
        )
    return found


def _name_part(column: str, value: object) -> str:
    if column in ("layer", "expert"):
        return f"{column} {value}"
    return {"R": "replay", "P": "own play"}.get(str(value), str(value))


def _decide(claim: Claim, parts: Sequence[Part], p: float, p_equivalence: float, level: float) -> tuple[Verdict, str]:
    """Return the verdict on a claim and, in words, why it is undecided."""
    if not parts:
        return "undecided", "the analysis has no such number: it could not be made, or all runs were dropped"
    equivalent = math.isfinite(p_equivalence) and p_equivalence <= level
    significant = math.isfinite(p) and p <= level
    signs = {int(np.sign(part.value - part.reference)) for part in parts if math.isfinite(part.value)}
    if claim.direction == "none":
        if equivalent:
            return "supported", ""
        if significant:
            return "contradicted", ""
    else:
        if equivalent:
            return "equivalent", ""
        if claim.direction == "differs" and significant and len(signs) == 1:
            return "supported", ""
        wanted = 1 if claim.direction == "greater" else -1
        if significant and signs == {wanted}:
            return "supported", ""
        if significant and signs == {-wanted}:
            return "contradicted", ""
    untested = [part.name for part in parts if not math.isfinite(_p_against(claim, part))]
    if untested:
        which = "" if len(untested) == len(parts) else f" for {'; '.join(untested)}"
        spread = ", not all equal" if claim.direction == "none" else ""
        return "undecided", f"no test{which}: it takes {MIN_FOR_INTERVAL} runs or more with a value{spread}"
    if len(signs) > 1 and significant:
        return "undecided", "its parts point to different sides"
    floors = [part.p_floor for part in parts if math.isfinite(part.p_floor)]
    if floors and max(floors) > level:
        return "undecided", f"so few runs cannot give a p below {max(floors):.2g}"
    return "undecided", ""


def _p_against(claim: Claim, part: Part) -> float:
    """Return p of a part: that it is not at the reference; if none is claimed, that it is beyond the margin."""
    return part.p if claim.direction != "none" else float(np.minimum(1.0, 2 * (1 - part.p_equivalence)))


def _largest(p_values: Sequence[float]) -> float:
    return max(p_values) if p_values and all(math.isfinite(p) for p in p_values) else math.nan


def _summarise(parts: Sequence[Part]) -> dict[str, object]:
    """Return what the row of a whole claim shows: of one part all, of several how many there are at least."""
    if len(parts) == 1:
        return _of_part(parts[0])
    counts = {name: min((getattr(p, name) for p in parts), default=0) for name in ("n_runs", "n_levels", "n_episodes")}
    counts["n_dropped"] = max((part.n_dropped for part in parts), default=0)
    return {"unit": "; ".join(dict.fromkeys(part.unit for part in parts)), **counts}


def _of_part(part: Part) -> dict[str, object]:
    return {name: value for name, value in part.__dict__.items() if name != "name"}
