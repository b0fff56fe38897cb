"""The evaluation of a model on a generated task: accuracy by depth and by r at test, what guessing reaches, routing.

    result = evaluate_task(loaded, settings, name="model.pth")
    result["accuracy"]["4"]["7"]                              # at r = 4, of the answers that take seven steps

A value is right if it is the likeliest of the task's values. `trained` and `longer` are means over depths, from 2
(which no lookup answers) to the deepest that was trained, and beyond it, so that the few deep answers count as the many
shallow ones do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from more.checkpoints import LoadedModel
from more.cost import count_token_operations
from more.experts import Stopping
from more.model import MoreModel
from more.options import EvaluationSettings
from more.stopping import format_stopping, summarise_steps
from more.task_data import reopen_task
from more.task_tables import summarise_depths
from more.tasks import TaskSet, TaskSettings, generate_task

BATCH = 500  # sequences read together; it changes speed, not results beyond rounding


@torch.no_grad()
def find_hits(
    model: MoreModel,
    found: TaskSet,
    symbols: int,
    num_recurrences: int | None = None,
    stopping: Stopping | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the likeliest value is the true one (n, time), and where each token went (n, time, layers).

    Args:
        model: In evaluation mode.
        found: Sequences.
        symbols: Values of the task, its first tokens.
        num_recurrences: r; None is the config's.
        stopping: Lets tokens stop iterating, and keeps the steps that each has taken; None: all take r.
    """
    device = model.embedding.weight.device
    hits, experts = [], []
    for first in range(0, len(found), BATCH):
        tokens = torch.from_numpy(found.inputs[first : first + BATCH]).to(device)
        output = model(tokens, num_recurrences=num_recurrences, stopping=stopping)
        chosen = output.logits[..., :symbols].argmax(dim=-1).cpu().numpy()
        hits.append(chosen == found.targets[first : first + BATCH])
        best = [routed.probs.argmax(dim=-1) for routed in output.routing]
        experts.append(torch.stack(best, dim=-1).cpu().numpy())
    return np.concatenate(hits), np.concatenate(experts)


def mean_by_depth(values: np.ndarray, depths: np.ndarray) -> dict[str, float]:
    """Return the mean of values at each depth that occurs, by the depth."""
    return {str(depth): float(values[depths == depth].mean()) for depth in range(int(depths.max()) + 1)}


def measure_guessing(found: TaskSet, settings: TaskSettings) -> dict[str, Any]:
    """Return what chance, the most frequent value and heuristics reach, by depth."""
    majority = {}
    for depth in range(int(found.depths.max()) + 1):
        counts = np.bincount(found.targets[found.depths == depth], minlength=settings.symbols)
        majority[str(depth)] = float(counts.max() / counts.sum())
    return {
        "n": {depth: int((found.depths == int(depth)).sum()) for depth in majority},
        "chance": dict.fromkeys(majority, 1 / settings.symbols),
        "majority": majority,
        "heuristics": {name: mean_by_depth(hits, found.depths) for name, hits in found.heuristics.items()},
    }


def measure_routing(
    model: MoreModel, found: TaskSet, symbols: int, num_recurrences: int, hits: np.ndarray, experts: np.ndarray
) -> dict[str, Any]:
    """Return where tokens of each depth go, and what is lost without each expert.

    Args:
        model: In evaluation mode.
        found: Sequences.
        symbols: Values of the task.
        num_recurrences: r.
        hits: Of `find_hits` at this r.
        experts: Likewise; of `looped` pass by pass.

    Returns:
        `shares`, for each layer (of looped each pass) by depth the share of the tokens at each expert, and `without`,
        for each layer and expert the accuracy by depth when tokens cannot go to it; their next best takes its place.
    """
    count = model.config.num_experts
    shares = []
    for layer in range(experts.shape[-1]):
        taken = np.eye(count)[experts[..., layer]]  # (n, time, experts)
        depths = range(int(found.depths.max()) + 1)
        shares.append({str(depth): taken[found.depths == depth].mean(axis=0).tolist() for depth in depths})
    without = []
    for layer in range(model.config.num_layers):
        lost = []
        for expert in range(count):
            with knocked_out(model, layer, expert):
                missing, _ = find_hits(model, found, symbols, num_recurrences)
            lost.append(mean_by_depth(missing, found.depths))
        without.append(lost)
    return {"shares": shares, "without": without, "with": mean_by_depth(hits, found.depths)}


@contextlib.contextmanager
def knocked_out(model: MoreModel, layer: int, expert: int) -> Iterator[None]:
    """Within the block no token of a layer goes to one expert."""
    bias = model.blocks[layer].mixture.router.fc.bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[expert] = -math.inf
    try:
        yield
    finally:
        with torch.no_grad():
            bias.copy_(before)


def evaluate_task(
    loaded: LoadedModel,
    settings: EvaluationSettings,
    *,
    name: str,
    quiet: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Return everything that is measured on a checkpoint's task, in plain types; `tick` is called now and then.

    `num_questions` of the settings is the number of test sequences at most.
    """
    model, source = loaded.model, reopen_task(loaded.data)
    task, config = source.settings, model.config
    steps = settings.steps_for(config)
    test = generate_task(task, "test", source.seed, settings.num_questions)
    valid = generate_task(task, "valid", source.seed, settings.num_questions)
    accuracy, summary = {}, {}
    stopped: dict[str, dict[str, Any]] = {"accuracy": {}, "summary": {}, "steps": {}}
    trained: tuple[np.ndarray, np.ndarray] | None = None
    for count in tqdm(steps, desc=task.name, unit="r", disable=quiet):
        found = find_hits(model, test, task.symbols, count)
        trained = found if count == config.num_recurrences else trained
        accuracy[str(count)] = mean_by_depth(found[0], test.depths)
        summary[str(count)] = summarise_depths(accuracy[str(count)], task.train_depth)
        if settings.stop_below:
            stopping = Stopping(settings.stop_below)
            hits, _ = find_hits(model, test, task.symbols, count, stopping)
            stopped["accuracy"][str(count)] = mean_by_depth(hits, test.depths)
            stopped["summary"][str(count)] = summarise_depths(stopped["accuracy"][str(count)], task.train_depth)
            stopped["steps"][str(count)] = summarise_steps(config, count, stopping, test.depths)
        tick()
    held_out, _ = find_hits(model, valid, task.symbols)
    result = {
        "checkpoint": name,
        **loaded.describe(),
        "token_operations": {str(r): count_token_operations(config, r) for r in steps},
        "task": dataclasses.asdict(task),
        "sequences": len(test),
        "guessing": measure_guessing(test, task),
        "accuracy": accuracy,
        "summary": summary,
        "valid": summarise_depths(mean_by_depth(held_out, valid.depths), task.train_depth)["trained"],
    }
    if settings.stop_below:
        result["stopping"] = {"threshold": settings.stop_below, **stopped}
    if config.num_experts > 1:
        hits, experts = trained or find_hits(model, test, task.symbols)
        tick()
        result["routing"] = measure_routing(model, test, task.symbols, config.num_recurrences, hits, experts)
    return result


def format_model(result: dict[str, Any]) -> str:
    """Return the line that says which model was evaluated."""
    model, parameters = result["model"], result["parameters"]
    return (
        f"{model['model_type']}, trained with {model['num_recurrences']} recurrences, seed {result['seed']}: "
        f"{parameters['total']:,} parameters, {parameters['active']:,} active; {result['update']} updates, "
        f"{result['tokens']:,} tokens"
    )


def format_task_report(result: dict[str, Any]) -> str:
    """Return the figures as a table for a terminal, a column for each depth."""
    task, guessing = result["task"], result["guessing"]
    depths = list(guessing["n"])
    stopped = result.get("stopping")
    names = [*guessing["heuristics"], "most frequent value", *(["r = 16, stopping"] if stopped else [])]
    width = max(map(len, names))

    def row(label: str, values: Sequence[float], digits: int = 3) -> str:
        return f"{label:<{width}}  " + "  ".join(f"{value:>5.{digits}f}" for value in values)

    lines = [
        format_model(result),
        f"{task['name']}: accuracy by depth on {result['sequences']:,} test sequences; depths above "
        f"{task['train_depth']} are deeper than any in training",
        "",
        f"{'depth':<{width}}  " + "  ".join(f"{depth:>5}" for depth in depths),
    ]
    for steps, by in result["accuracy"].items():
        lines.append(row(f"r = {steps}", list(by.values())))
        if stopped:
            lines.append(row(f"r = {steps}, stopping", list(stopped["accuracy"][steps].values())))
            lines.append(row("  steps taken", list(stopped["steps"][steps]["by_depth"].values()), digits=2))
    lines += [row("chance", list(guessing["chance"].values()))]
    lines += [row("most frequent value", list(guessing["majority"].values()))]
    lines += [row(name, list(by.values())) for name, by in guessing["heuristics"].items()]
    lines += [f"{'answers':<{width}}  " + "  ".join(f"{count:>5}" for count in guessing["n"].values())]
    if stopped:
        lines += format_stopping(stopped)
    return "\n".join(lines)
