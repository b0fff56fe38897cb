"""The calibration card: this design on noise and on planted effects of its own shape, a claim at a time.

Each claim that the analyses can make is an item of work; a data set depends on the seed, the claim and its number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.files import write_json, write_text
from pipeline.command.workers import Link
from science.inputs import item_path, read_all
from science.plan import Design
from science.store import Item, Store

if TYPE_CHECKING:
    import pandas as pd

    from science.result import Result

SOURCES = (
    *("science.calibration", "science.cases", "science.synthetic", "science.planted_effects", "science.planted_fronts"),
    *("science.pathways", "science.distinctness", "science.knockouts", "science.sufficiency", "science.price"),
    *("science.needed", "science.shapley", "science.planted_forced", "science.forced", "science.coalitions"),
    *("science.games", "science.credit_rankings", "science.credit_consistency", "science.similarity"),
    *("science.effects", "science.traces", "science.profiles", "science.exchange"),
    *("science.observations", "science.feedforward", "science.npz"),
    *("science.difficulty", "science.kinship", "science.levels", "science.planted_levels"),
    *("science.agreement", "science.complexity", "science.fronts", "science.result", "science.statistics"),
    *("science.dynamics", "science.handover", "science.rises", "science.probes", "science.probing", "science.states"),
    *("science.planted_training", "science.training_cases"),
    *("science.transfer", "science.planted_transfer", "science.arms"),
)
DRAWS = 39
"""Of each null in a data set; many data sets make up for few draws."""


WIDE = (
    *("quantity", "false_positives", "low", "high", "data_sets", "nothing", "without", "recovered", "planted"),
    "detectable",
)
"""Of the card with a row for each case."""


def list_cases(analyses: Sequence[str]) -> list[str]:
    """Return the names of the cases (`science.cases`) of some analyses."""
    from science.cases import CASES

    return [case.name for case in CASES if case.name.partition(".")[0] in analyses]


def make_case(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Run a claim on noise and on planted effects, with the runs, levels and episodes of the study's own traces."""
    traces = read_all(store, item.needs)
    result = calibrate(item.name.partition("/")[2], design, traces, link)
    path = item_path(design, item, ".json")
    write_json(path, {"rows": [_plain(asdict(row)) for row in result.rows], "notes": list(result.notes)}, indent=1)
    return [path], {}


def calibrate(name: str, design: Design, traces: Any, link: Link) -> Result:
    """Return the card's rows of a case.

    Args:
        name: Of the case.
        design: Of the study.
        traces: Whose shape is taken; None: that of the study file, with episodes of usual lengths.
        link: Ends the work if a stop is wished.
    """
    from science.calibration import run_dataset, summarise
    from science.cases import CASES
    from science.result import Draft
    from science.synthetic import Design as Shape

    case = next(case for case in CASES if case.name == name)
    sizes = tuple(tuple(layer) for layer in design.routed[0].config.expert_hidden_sizes)
    shape = Shape(len(design.config.seeds), design.config.episodes, sizes=sizes) if traces is None else traces
    draft, found = Draft("calibration", ""), []
    new = design.new_levels if case.claim.startswith("transfer.") else design.held_out
    statistics, levels = design.config.statistics, (len(design.tasks) - len(design.held_out), len(new))
    try:
        for planted in (False, True):
            found.append([])
            for number in range(statistics.calibration):
                link.heed()
                found[-1].append(run_dataset(case, shape, planted, number, DRAWS, statistics.seed, levels))
        summarise(draft, case, *found)
    except LookupError as error:
        draft.note(f"{name}: cannot be calibrated on this design: {error}")
    return draft.finish()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in row.items()}


def read_card(paths: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Return the tidy rows of all claims, and notes."""
    import pandas as pd

    from science.result import COLUMNS

    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    rows = [row for content in contents for row in content["rows"]]
    return pd.DataFrame(rows, columns=list(COLUMNS)), [note for content in contents for note in content["notes"]]


def write_card(path: Path, table: pd.DataFrame) -> None:
    """Write calibration.csv."""
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def widen(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each case, with the columns `WIDE`; NaN and "" for what a card does not have."""
    import pandas as pd

    found = []
    for claim, rows in table.groupby("group", sort=False):
        one = {name: rows[rows["quantity"] == name].iloc[0] for name in ("false_positive_rate", "recovery")}
        noise, planted = one["false_positive_rate"], one["recovery"]
        sets = int(str(noise["condition"]).rpartition("; ")[2].split()[0])
        by_itself = rows[rows["quantity"] == "estimate_without"]
        unit = rows[(rows["quantity"] == "detectable") & (rows["estimator"] == "unit of the quantity")]
        found.append(
            {
                "quantity": claim,
                "false_positives": noise["value"],
                "low": noise["low"] if sets else float("nan"),
                "high": noise["high"] if sets else float("nan"),
                "data_sets": sets,
                "recovered": planted["value"],
                "nothing": str(noise["condition"]).rpartition("; ")[0],
                "without": by_itself["value"].iloc[0] if len(by_itself) else float("nan"),
                "planted": str(planted["condition"]).rpartition("; ")[0],
                "detectable": unit["value"].iloc[0] if len(unit) else float("nan"),
            }
        )
    return pd.DataFrame(found, columns=list(WIDE)).astype({"false_positives": float, "recovered": float})
