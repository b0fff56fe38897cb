"""What the report says of the calibration card: which tests are wrong on noise, and which verdicts that touches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from science.calibration import ALPHA
from science.card import widen
from science.config import Claim
from science.plan import Design
from science.report.content import ClaimEntry, Picture, Pictures
from science.report.facts import count_words
from science.report.tables import Table
from science.report.text import format_interval, format_number
from science.store import Store


def calibration_of(
    design: Design, store: Store, pictures: Pictures, path: Path
) -> tuple[tuple[str, ...], Table | None, Picture | None]:
    """Return the calibration card: sentences, numbers, figure."""
    import pandas as pd

    drawn = store.read("draw/calibration")
    if drawn is None or not path.exists():
        return (("It was not made: what follows has not been tested on noise of this shape.",), None, None)
    table = widen(pd.read_csv(path))
    sets = design.config.statistics.calibration
    runs = count_words(len(design.config.seeds), "run")
    said = [
        f"Every test was first tried on made-up data of this study's shape (its {runs}, levels, lengths of episodes "
        f"and groups): {sets} data sets of noise, and {sets} in which the effect was planted. On noise a sound test is "
        "wrong about as often as its level says, or more seldom."
    ]
    bad = [f"{row['quantity']} (whose mean on noise is {format_number(row['without'])})" for row in find_wrong(table)]
    tried = table["false_positives"].notna()
    if bad:
        said.append(
            f"Wrong on noise more often than the level of {ALPHA:g} allows: {', '.join(bad)}. A verdict on the same "
            "side of 0 as that mean is not to be trusted."
        )
    elif tried.any():
        said.append(f"No test is wrong more often than {ALPHA:g}, to within what {sets} data sets can tell.")
    if not tried.all():
        said.append(f"So few runs give no p at all: {', '.join(table['quantity'][~tried])}.")
    said += list_untried(design, list(table["quantity"]))
    notes = drawn.notes.get("notes", [])
    said += [f"{note}." for note in notes if note.partition(":")[0] not in set(table["quantity"])]
    head = ("test", "without effect", "false positives [95 % interval]", "planted", "found", "detectable effect")
    rows = tuple(
        (
            row["quantity"],
            row["nothing"],
            format_interval(row["false_positives"], row["low"], row["high"]) if row["data_sets"] else "no p",
            row["planted"],
            format_number(row["recovered"]),
            format_number(row["detectable"]),
        )
        for row in table.to_dict("records")
    )
    shown = Table(head, rows, frozenset({2, 4, 5}), path="calibration.csv", stacked=True)
    taken = [
        pictures.take(design.folder / "figures" / f"{name}.png", caption)
        for name, caption in drawn.notes["captions"].items()
    ]
    return tuple(said), shown, taken[0] if taken else None


def list_untried(design: Design, tried: Sequence[str]) -> list[str]:
    """Return what is said of declared claims whose test was not tried on noise: which, and why."""
    from science.cases import CASES, UNTRIED

    known, found = {case.name for case in CASES}, []
    for claim in design.config.claims:
        name = case_of(claim)
        if name in tried or name in known:  # of what could not be done on this design the notes say why
            continue
        why = UNTRIED.get(claim.claim, "no data without it are simulated")
        found.append(f"Not tried on noise: {name}, for {why}. A verdict on it rests on its test's assumptions alone.")
    return list(dict.fromkeys(found))


def case_of(claim: Claim) -> str:
    """Return the name of the card's case that tries a claim."""
    return f"{claim.claim} (no effect)" if claim.direction == "none" else claim.claim


def find_wrong(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a card (`science.card.widen`) whose tests are wrong more often than its level allows."""
    return table[table["low"] > ALPHA].to_dict("records")


def doubt_claims(claims: Sequence[ClaimEntry], design: Design, path: Path) -> tuple[ClaimEntry, ...]:
    """Return claims, those with a verdict that noise of this design gives too with a warning.

    Args:
        claims: As the page has them.
        design: Of the study.
        path: Of calibration.csv.
    """
    import pandas as pd

    if not path.exists():
        return tuple(claims)
    wrong = {row["quantity"]: row["without"] for row in find_wrong(widen(pd.read_csv(path)))}
    found = []
    for entry, claim in zip(claims, design.config.claims, strict=True):
        side = {"greater": 1, "less": -1}.get(claim.direction, 0)
        side = -side if entry.verdict == "contradicted" else side
        name = case_of(claim)
        without = wrong.get(name, 0.0)
        if entry.verdict in ("supported", "contradicted") and name in wrong and without * side >= 0:
            why = (
                f"not to be trusted: its test says so on noise of this design too, which gives "
                f"{format_number(without)} by itself (see the calibration card)"
            )
            entry = replace(entry, why=f"{entry.why}; {why}" if entry.why else why)
        found.append(entry)
    return tuple(found)
