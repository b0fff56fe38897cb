"""Claims declared before the study, and what became of each: supported, contradicted, equivalent, undecided.

    claim = Claim("pathways.consistency", "greater", margin=0.1)
    for verdict in judge([claim], {"pathways": result}): print(verdict.word, verdict.reason)

Rules, with p adjusted by Holm over all claims of the study and alpha = 0.05:
- supported: p <= alpha, and the quantity lies on the declared side of its null. A claim of no effect ("none") is
  supported where the quantity is equivalent to its null.
- contradicted: p <= alpha on the other side; of "none": p <= alpha and not equivalent.
- equivalent: otherwise, where two one-sided tests place the mean over runs within the margin of the null, so that the
  claimed effect is not there.
- undecided: otherwise. This includes everything that could not be computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from science.result import NAN, Result, Row
from science.statistics.inference import adjust, compare_with_margin, detectable_effect

ALPHA = 0.05

Word = Literal["supported", "contradicted", "equivalent", "undecided"]


@dataclass(frozen=True)
class Claim:
    """A sentence about one quantity.

    Attributes:
        quantity: analysis.quantity.
        direction: Side of the null on which it is claimed to lie: greater, less, differs, or none (no effect).
        margin: Distance from the null below which an effect is none worth speaking of; NaN: none declared.
        where: Columns of the row that is meant, such as task and setting.
        text: In words, for the report.
    """

    quantity: str
    direction: Literal["greater", "less", "differs", "none"] = "greater"
    margin: float = NAN
    where: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        """Check the spelling.

        Raises:
            ValueError: If it is none; the message says what is expected.
        """
        if self.quantity.count(".") != 1:
            raise ValueError(f"claim: expected analysis.quantity, found {self.quantity!r}")
        if self.direction not in ("greater", "less", "differs", "none"):
            raise ValueError(f"claim: direction: expected greater, less, differs or none, found {self.direction!r}")
        if self.direction == "none" and not self.margin > 0:
            raise ValueError(
                f"claim: {self.quantity}: a claim of no effect needs a margin above 0, found {self.margin}"
            )


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: Which.
        word: The verdict.
        reason: In a sentence.
        row: The number that it rests on; None where there is none.
        p_adjusted: Of the difference from the null, Holm over the claims.
        p_equivalent: Of equivalence, Holm over the claims with a margin; NaN without one.
        detectable: Smallest true mean that so many runs find in 80 % of studies at this claim's share of alpha
            (alpha / claims), in standard deviations between runs.
    """

    claim: Claim
    word: Word
    reason: str
    row: Row | None
    p_adjusted: float
    p_equivalent: float
    detectable: float


def judge(claims: Iterable[Claim], results: Mapping[str, Result]) -> list[Verdict]:
    """Return a verdict for each claim.

    Args:
        claims: All of the study: p values are adjusted over them.
        results: By analysis.
    """
    claims = list(claims)
    found = [_find(claim, results) for claim in claims]
    p = adjust(np.array([NAN if row is None else row.p for row, _ in found]), "holm")
    p_equivalent = adjust(
        np.array([_equivalence(c, row, results) for c, (row, _) in zip(claims, found, strict=True)]), "holm"
    )
    verdicts = []
    for claim, (row, problem), p_of, p_same in zip(claims, found, p, p_equivalent, strict=True):
        word, reason = ("undecided", problem) if row is None else _decide(claim, row, float(p_of), float(p_same))
        detectable = NAN if row is None else detectable_effect(row.n_runs, alpha=ALPHA / max(1, len(claims)))
        verdicts.append(Verdict(claim, word, reason, row, float(p_of), float(p_same), detectable))
    return verdicts


def _find(claim: Claim, results: Mapping[str, Result]) -> tuple[Row | None, str]:
    analysis, _, quantity = claim.quantity.partition(".")
    if analysis not in results:
        return None, f"analysis {analysis!r} was not made; made: {', '.join(sorted(results)) or 'none'}"
    try:
        return results[analysis].row(quantity, **claim.where), ""
    except LookupError as error:
        return None, str(error)


def _equivalence(claim: Claim, row: Row | None, results: Mapping[str, Result]) -> float:
    if row is None or not claim.margin > 0:
        return NAN
    same = {key: getattr(row, key) for key in ("estimator", "layer", "expert", "group", "condition")}
    same |= {key: getattr(row, key) for key in ("task", "setting") if getattr(row, key)}
    each = results[row.analysis].find(row.quantity, **{**same, "unit": "run"})
    null = 0.0 if np.isnan(row.null_mean) else row.null_mean
    return compare_with_margin(np.array([r.value for r in each]), claim.margin, null).p


def _decide(claim: Claim, row: Row, p: float, p_equivalent: float) -> tuple[Word, str]:
    null = 0.0 if np.isnan(row.null_mean) else row.null_mean
    shown = f"{row.value:.3g} against {null:.3g}, p {p:.2g} (Holm), n {row.n_runs}"
    differs, same = p <= ALPHA, p_equivalent <= ALPHA
    if claim.direction == "none":
        if same:
            return "supported", f"within {claim.margin:g} of the null: {shown}, p of equivalence {p_equivalent:.2g}"
        return ("contradicted", f"differs: {shown}") if differs else ("undecided", f"neither found: {shown}")
    above = row.value > null
    if differs:
        agrees = claim.direction == "differs" or above == (claim.direction == "greater")
        return ("supported", shown) if agrees else ("contradicted", f"on the other side: {shown}")
    if same:
        return "equivalent", f"within {claim.margin:g} of the null: {shown}, p of equivalence {p_equivalent:.2g}"
    if np.isnan(p):
        return "undecided", f"no test: {row.drop_reason or f'{row.n_runs} runs'}"
    if row.p_floor > ALPHA:
        return "undecided", f"so many runs cannot decide: smallest possible p {row.p_floor:.2g}; {shown}"
    return "undecided", f"not found: {shown}"
