"""The trees of a run as a page that needs neither a server nor a network: text, prior, value and visits of each node.

    pages, problems = write_pages(Path("wandb_experiments_20260101_120000.json"), folder)

A page has all samples of a model and a method, and links to the pages of the others. Of a large tree a part is in the
page, as `choose_nodes` says, always with the way to the answer; the page tells how much. The browser makes rows only
for what is opened.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maxent.charts.records import read_content, read_experiment
from maxent.trees import TreeFileError, find_tree, read_tree
from pipeline.command.files import write_text

MOST_NODES = 5000
"""Of a tree that are in its page."""

MOST_IN_PAGE = 60_000
"""Nodes of all trees of a page together, about 3 MB; but each tree has `LEAST_NODES`."""

LEAST_NODES = 500
_MOST_PROMPT = 20_000  # characters
_TEMPLATE = Path(__file__).with_suffix(".html")


def write_pages(path: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Write a page for each run of which trees were kept; return the pages, and what could not be read, in words.

    Args:
        path: The results.
        folder: Made where it is missing.

    Raises:
        ResultsFileError: If the results cannot be read.
        OSError: If a page cannot be written.
    """
    read_experiment(path)  # refuses what is no results file
    content = read_content(path)
    found: list[tuple[Mapping[str, Any], list[dict[str, Any] | None]]] = []
    problems: list[str] = []
    for run in content["runs"]:
        trees: list[dict[str, Any] | None] = []
        for index in range(len(run["samples"])):
            try:
                trees.append(read_tree(find_tree(path, run["model"], run["method"], index)))
            except TreeFileError as error:
                trees.append(None)
                problems.append(str(error))
        if any(tree is not None for tree in trees):
            found.append((run, trees))
    links = [(f"{run['display_name']}, {run['method']}", name_page(run)) for run, _ in found]
    pages = []
    for run, trees in found:
        pages.append(folder / name_page(run))
        write_text(pages[-1], build_page(content, run, trees, links))
    return pages, problems


def name_page(run: Mapping[str, Any]) -> str:
    """Return the name of a run's page."""
    return f"trees_{run['model']}_{run['method']}.html"


def build_page(
    content: Mapping[str, Any],
    run: Mapping[str, Any],
    trees: Sequence[Mapping[str, Any] | None],
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of a run.

    Args:
        content: The results.
        run: Its part of them.
        trees: Of its samples, in order; None where none was kept.
        links: Label and file of the pages of all runs.
    """
    most = max(LEAST_NODES, min(MOST_NODES, MOST_IN_PAGE // max(len(trees), 1)))
    title = f"{run['display_name']}, {run['method']}"
    data = {
        "title": title,
        "facts": [
            f"{content['data']['name']}, {content['data']['kind']} data",
            f"weights: {run['weights']}",
            f"reward: {content['reward']['name']}{' (sees the label)' * bool(content['reward']['sees_label'])}",
        ],
        "links": [{"label": label, "file": file} for label, file in links],
        "self": name_page(run),
        "samples": [describe_sample(sample, tree, most) for sample, tree in zip(run["samples"], trees, strict=True)],
    }
    parts = {"TITLE": html.escape(f"Trees: {title}"), "DATA": embed(data)}
    return re.sub("__(TITLE|DATA)__", lambda match: parts[match[1]], _TEMPLATE.read_text(encoding="utf-8"))


def embed(data: Any) -> str:
    """Return plain values as JSON that can stand within a script element, whatever texts are in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def describe_sample(sample: Mapping[str, Any], tree: Mapping[str, Any] | None, most: int) -> dict[str, Any]:
    """Return what a page says of a sample.

    Args:
        sample: As in the results.
        tree: As it was kept, None if it was not.
        most: Nodes of it that are shown.
    """
    prompt, label = str(sample.get("prompt", "")), sample.get("label")
    if sample.get("mission"):  # of a level, whose prompt is its seed
        prompt = f"{sample['mission']} (level {prompt})"
    if len(prompt) > _MOST_PROMPT:
        prompt = f"{prompt[:_MOST_PROMPT]} ... ({len(prompt):,} characters)"
    return {
        "id": sample["id"],
        "prompt": prompt,
        "label": None if label in (None, "") else str(label),
        "answer": sample["answer"],
        "best": sample["best_reward"],
        "tokens": sample["rollouts"][-1]["total_new_tokens"],
        "rollouts": len(sample["rollouts"]),
        "tree": None if tree is None else prune(tree, sample["rollouts"], most),
    }


def prune(tree: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]], most: int) -> dict[str, Any]:
    """Return the part of a tree that is shown.

    What was never visited is left out, and counts to the rest of its parent's prior: the mass of all tokens that no
    rollout has taken. Nodes are numbered anew, parents first.

    Args:
        tree: As it was kept.
        rollouts: Of the sample, with the leaves at which they ended.
        most: Nodes, if the answer's way has no more.
    """
    parent, visits = tree["parent"], tree["visits"]
    depth = [0] * len(parent)
    rest = [1.0] * len(parent)
    for node in range(1, len(parent)):
        depth[node] = depth[parent[node]] + 1
        if visits[node]:
            rest[parent[node]] -= tree["prior"][node]
    way = set(find_way(parent, tree["answer"]))
    kept = sorted(choose_nodes(tree, depth, way, most))
    number = {node: at for at, node in enumerate(kept)}
    hidden = [0] * len(kept)
    for node in range(1, len(parent)):
        if visits[node] and node not in number and parent[node] in number:
            hidden[number[parent[node]]] += 1
    ended: dict[int, dict[str, Any]] = {}
    for rollout in rollouts:
        if (leaf := number.get(rollout["leaf"])) is not None:
            new = {"reward": rollout["reward"], "parts": rollout["parts"], "rollouts": []}
            ended.setdefault(leaf, new)["rollouts"].append(rollout["index"])
    columns = {name: [tree[name][node] for node in kept] for name in ("token", "text", "prior", "value", "visits")}
    return {
        **columns,
        "parent": [number.get(parent[node], -1) for node in kept],
        "rest": [_round(rest[node]) if tree["choices"][node] else 0 for node in kept],
        "choices": [tree["choices"][node] for node in kept],
        "status": "".join(tree["status"][node] for node in kept),
        "hidden": hidden,
        "texts": tree["texts"],
        "answer": number[tree["answer"]],
        "lam": tree["lam"],
        "nodes": sum(1 for one in visits[1:] if one),
        "ended": ended,
    }


def choose_nodes(tree: Mapping[str, Any], depth: Sequence[int], way: set[int], most: int) -> set[int]:
    """Return the nodes that are shown: the answer's way, half of them by visits, then whole ways to the best rewards.

    Args:
        tree: As it was kept.
        depth: Of each node.
        way: To the answer.
        most: Nodes; the answer's way may have more.
    """
    parent, visits, value = tree["parent"], tree["visits"], tree["value"]
    count = len(parent)
    if sum(map(bool, visits)) <= most:
        return {0, *way, *(node for node in range(count) if visits[node])}
    kept = {0, *way}
    shared = sorted(
        (node for node in range(count) if visits[node] > 1), key=lambda node: (-visits[node], depth[node], node)
    )
    kept |= set(shared[: max(0, most // 2 - len(kept))])
    inner = {parent[node] for node in range(count) if visits[node]}
    leaves = [node for node in range(count) if visits[node] and node not in inner]
    for leaf in sorted(leaves, key=lambda node: (-value[node], node)):
        new = set(find_way(parent, leaf)) - kept
        if len(kept) + len(new) <= most:
            kept |= new
    return kept


def find_way(parent: Sequence[int], node: int) -> list[int]:
    """Return the nodes from the root to a node, both included."""
    way = [node]
    while (node := parent[node]) >= 0:
        way.append(node)
    return way[::-1]


def _round(mass: float) -> float:
    """Return a mass without what rounding has left of nothing."""
    return 0.0 if mass < 1e-5 else float(f"{mass:.4g}")
