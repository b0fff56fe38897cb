"""How an answer comes about over the recurrent steps: the same question, read with one step, two, and so on.

rows = answer_by_steps(loaded, answer, closed, steps=4)
html = render_steps(rows)
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from more.checkpoints import LoadedModel
from more.evaluation import Answer, ask
from more.generation import pad

MOST_STEPS = 16
"""Steps shown at most."""


@dataclass(frozen=True)
class StepAnswer:
    """What a model says after so many recurrent steps.

    Attributes:
        steps: r.
        generated: Its greedy continuation.
        likeliest: The likeliest answer of the closed set.
        log_likelihood: Of the true answer, nats.
        moved: Share of (token, layer) pairs of the question that go to another expert than with all steps; of
            `looped`, which goes through all layers at each step, in its last pass.
    """

    steps: int
    generated: str
    likeliest: str
    log_likelihood: float
    moved: float


@torch.no_grad()
def answer_by_steps(loaded: LoadedModel, answer: Answer, closed: Sequence[str], steps: int) -> list[StepAnswer]:
    """Return the answers to one question at 1 to `steps` steps, the last of them being that of all; [] for base.

    Args:
        loaded: Model and tokenizer.
        answer: To the question, with its prompt.
        closed: All answers of the task.
        steps: Recurrent steps, of which the last `MOST_STEPS` are shown.
    """
    model = loaded.model
    if model.config.model_type == "base":
        return []
    tokens, _ = pad([answer.prompt], model)

    def choose(count: int) -> torch.Tensor:
        _, routing, _ = model.compute_features(tokens, num_recurrences=count)
        last = routing[-model.config.num_layers :]
        return torch.stack([routed.probs.argmax(dim=-1) for routed in last])  # (layers, 1, time)

    whole, rows = choose(steps), []
    for count in range(max(1, steps - MOST_STEPS + 1), steps + 1):
        (said,) = ask(model, loaded.tokenizer, [answer.question], candidates=closed, num_recurrences=count)
        moved = (choose(count) != whole).float().mean().item()
        rows.append(StepAnswer(count, said.generated, said.likeliest, said.log_likelihood, moved))
    return rows


def render_steps(rows: Sequence[StepAnswer]) -> str:
    """Return the steps as a table in HTML; nothing for none."""
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{row.steps}</td><td>{html.escape(row.generated) or '(nothing)'}</td>"
        f"<td>{html.escape(row.likeliest)}</td><td>{row.log_likelihood:.2f}</td><td>{row.moved:.0%}</td></tr>"
        for row in rows
    )
    heads = ("steps", "answer written", "likeliest place", "log-likelihood of the true one, nats", "tokens rerouted")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        '<p class="quiet">The same question with fewer recurrent steps. Rerouted is what goes to another expert than '
        f'with all steps.</p><div class="wide"><table><tr>{head}</tr>{lines}</table></div>'
    )
