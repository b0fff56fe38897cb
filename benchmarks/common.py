"""What every benchmark shares: facts about the machine, tables, the JSON file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.command.cli import Parser
from pipeline.command.files import replace_atomically


def build_empty_parser(module: str, description: str | None) -> Parser:
    """Return the parser of a benchmark, without its flags."""
    return Parser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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


def collect_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return a benchmark's flags as plain types."""
    return json.loads(json.dumps(vars(args), default=str))


def write_results(path: str | Path, results: dict[str, Any]) -> None:
    """Write results as JSON, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
