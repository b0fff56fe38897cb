"""What every benchmark shares: its command line, facts about the machine, rates and times, tables, the JSON file."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.command.cli import Parser
from pipeline.command.devices import resolve_device
from pipeline.command.files import write_text
from pipeline.command.shell import as_command

ROOT = Path(__file__).parents[1]
Result = TypeVar("Result")
Measure = Callable[[argparse.Namespace, dict[str, Any]], dict[str, Any]]


def as_benchmark(add_flags: Callable[[Parser], None]) -> Callable[[Measure], Callable[..., int]]:
    """Return a decorator that makes a benchmark's main of a function that measures, prints, and returns its figures.

    The function gets the flags and the facts about the machine. Its figures go into the file that `--json` names,
    dataclasses as dictionaries, with flags and facts. The module's docstring is the command's description.

    Args:
        add_flags: Adds the benchmark's own flags to its parser.
    """

    def decorate(measure: Measure) -> Callable[..., int]:
        module = sys.modules[measure.__module__]
        name = Path(module.__file__).stem

        @as_command()
        @functools.wraps(measure)
        def main(argv: Sequence[str] | None = None) -> None:
            parser = Parser(
                prog=f"python -m benchmarks.{name}",
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            add_flags(parser)
            parser.add_argument("--json", type=Path, help="file for the results")
            args = parser.parse_args(argv)
            machine = collect_machine_facts(resolve_device(getattr(args, "device", "cpu")))
            results = measure(args, machine)
            if args.json is not None:
                content = {"benchmark": name, "machine": machine, "settings": vars(args), **results}
                text = json.dumps(content, indent=2, allow_nan=False, default=_as_plain)
                write_text(args.json, text + "\n")

        return main

    return decorate


def _as_plain(value: object) -> object:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)


def parse_positive(kind: type) -> Callable[[str], float]:
    """Return an argparse type for positive numbers of a kind (int or float)."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a positive {kind.__name__}, found {text!r}")
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse names it when the text is no number at all
    return parse


def collect_machine_facts(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what a measurement depends on besides the code, as plain types.

    Args:
        device: Where the policy runs; a GPU is named.
    """
    device = torch.device(device)
    return {
        "cpu": _find_cpu_model(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _find_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def format_machine_facts(facts: dict[str, Any], threads: Sequence[int]) -> str:
    """Return one line for a log. `load` is the machine's load average at the start: what else was running."""
    counted = ", ".join(map(str, threads))
    return (
        f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the start, policy on {facts['device']}, "
        f"torch {facts['torch']} with {counted} thread(s), Python {facts['python']}, {facts['date']}"
    )


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; the first two are aligned left, numbers right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * w) if k < 2 else ("-" * (w - 1) + ":") for k, w in enumerate(widths)]
    return "\n".join([line(columns), line(rule), *(line(row) for row in rows)])


def format_records(columns: Sequence[tuple[str, str | Callable[[Any], str]]], records: Sequence[object]) -> str:
    """Return the table of some records, a row each.

    Args:
        columns: Heading, and what stands below: an attribute with its format, as in `seconds:.1f` (None is a dash), or
            a function of the record.
        records: Of one dataclass.
    """

    def show(record: object, cell: str | Callable[[Any], str]) -> str:
        if not isinstance(cell, str):
            return cell(record)
        name, _, form = cell.partition(":")
        value = getattr(record, name)
        return "-" if value is None else format(value, form)

    rows = [[show(record, cell) for _, cell in columns] for record in records]
    return format_table([heading for heading, _ in columns], rows)


# --------------------------------------------------------------------------------------------------------------- times


def wait_for(device: torch.device) -> None:
    """Return when a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_rate(work: Callable[[], object], seconds: float, device: torch.device | None = None) -> float:
    """Return calls per second, at least one call until `seconds` have passed; a GPU is waited for after each."""
    started, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - started < seconds:
        work()
        if device is not None:
            wait_for(device)
        calls += 1
    return calls / (time.perf_counter() - started)


def time_call(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """Return what a call returns, its seconds by the clock, and those that it and its processes had a core."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = work()
    return result, time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system
