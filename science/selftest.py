"""The design on noise and on planted routers, by itself: nothing is trained, and no result of the study is read."""

from __future__ import annotations

import sys

from pipeline.command.interruption import Interruption
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.workers import Event, Link, WorkItem
from pipeline.launch.items import launch
from pipeline.training.summary import align_right
from science import card
from science.calibration import ALPHA
from science.config import StudyConfig
from science.plan import Design, build_design
from science.report.text import format_interval, format_number
from science.result import Result
from science.run import count_cores
from science.runs import match_baselines


def run_selftest(config: StudyConfig, *, jobs: int | None = None, launcher: Launcher = HERE) -> int:
    """Print the calibration card of a study file's shape; return 0, or 1 if a test is wrong too often on noise.

    Args:
        config: The study file.
        jobs: Processes; None: one for each core, elsewhere as many as there is room for.
        launcher: Where each claim's data sets are drawn and tested.
    """
    import pandas as pd

    design = build_design(config, match_baselines(config))
    claims = card.list_cases(config.analyses)
    found: dict[str, Result] = {}
    failed = False
    with Interruption() as interruption:

        def report(event: Event) -> None:
            nonlocal failed
            if event.kind == "done":
                found[event.item.name] = event.content
                print(f"{event.item.name}: done", flush=True)
            elif event.kind in ("failed", "died"):
                failed = True
                print(f"failed: {event.item.name}: {event.content}", file=sys.stderr)

        work = [WorkItem(claim, make, (claim, design)) for claim in claims]
        most = min(jobs or count_cores(), len(work)) if launcher.is_local else jobs
        launch(work, launcher=launcher.part("selftest"), jobs=most, report=report, stopping=interruption.stopping)
        if interruption.stopping():
            print("stopped", file=sys.stderr)
            return interruption.exit_code
    results = [found[claim] for claim in claims if claim in found]
    for note in (note for result in results for note in result.notes):
        print(f"note: {note}")
    frames = [result.to_frame() for result in results if result.rows]
    if not frames:
        return 1
    table = card.widen(pd.concat(frames))
    rows = [("test", "false positives", "found where planted", "")]
    for row in table.to_dict("records"):
        wrong = row["low"] > ALPHA
        failed |= bool(wrong)
        false = format_interval(row["false_positives"], row["low"], row["high"]) if row["data_sets"] else "no p"
        rows.append((row["quantity"], false, format_number(row["recovered"]), "WRONG TOO OFTEN" if wrong else ""))
    print("\n".join(["", *align_right(rows)]))
    return int(failed)


def make(link: Link, claim: str, design: Design) -> Result:
    """Calibrate a claim as a work item."""
    return card.calibrate(claim, design, None, link)
