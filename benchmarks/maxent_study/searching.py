"""The searches of one model: what is missing is done, a record after the other."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.maxent_study.asked import Asked, Question
from benchmarks.maxent_study.reading import find_records, read_at
from benchmarks.maxent_study.settings import CASES, StudySettings
from benchmarks.maxent_study.units import Group, Unit, list_units, read_record, write_record
from maxent.comparison import SINGLE
from maxent.dts_implementation.models.sequence_model import SequenceModel
from maxent.dts_implementation.search.maxent_ts import search
from pipeline.command.workers import Link


def do_group(link: Link, settings: StudySettings, group: Group) -> None:
    """Do what is missing of a model, as an item of work; each record is reported by its number of questions.

    Raises:
        Stopped: If a stop was wished before the end; whole records are kept.
    """
    torch.set_num_threads(1)
    missing = [unit for unit in list_units(settings, group) if read_record(settings, unit, lambda line: None) is None]
    if not missing:
        return
    asked = open_group(settings, group, link.heed)
    for unit in missing:
        samples = []
        for question in asked.questions[unit.case.name][unit.start : unit.stop]:
            link.heed()
            samples.append(ask(settings, unit, asked.model, question))
        write_record(settings, unit, asked.facts, samples)
        link.report(len(samples))


def open_group(settings: StudySettings, group: Group, tick: Callable[..., object]) -> Asked:
    """Return a model with its questions, trained now if it is not there."""
    if group.part == "babyai":
        from benchmarks.maxent_study.policies import open_policy

        return open_policy(settings, group.source, group.seed)
    if group.part == "sums":
        from benchmarks.maxent_study.sums import open_sums

        variant, _, recurrences = group.model.rpartition("_rec")
        return open_sums(settings, variant, int(recurrences), group.seed, tick)
    from benchmarks.maxent_study.language import open_language

    case = next(case for case in CASES if case.part == group.part)
    return open_language(settings, case, group.seed, tick)


def ask(settings: StudySettings, unit: Unit, model: SequenceModel, question: Question) -> dict[str, Any]:
    """Return what a method finds for a question, read at each budget."""
    case, method = unit.case, unit.method
    budgets = settings.case_budgets(case, method)
    seed = zlib.crc32(f"{unit.group.seed} {question.id}".encode())
    at: list[dict[str, Any] | None] = []
    for budget in budgets if method == "beam" else budgets[-1:]:  # a beam's width follows from its budget
        began = time.process_time()
        chosen = settings.build_search(case, method, budget, seed)
        result = search(model, question.prompt, question.reward, chosen)
        for read in (budget,) if method == "beam" else budgets:
            at.append(
                read_at(
                    result.rollouts,
                    read,
                    score=question.score,
                    parse=None if method in SINGLE else question.parse,
                    truth=question.truth,
                    chain=result.chain,
                    lam=case.lam,
                )
            )
        records = [] if method == "beam" else find_records(result.rollouts)
    return {
        "id": question.id,
        "at": at,
        "records": records,
        "recomputed": result.cost.recomputed,
        "stopped": result.stopped,
        "cpu_seconds": time.process_time() - began,
    }
