"""A Sankey diagram of how tokens flow through the experts of all layers, as one HTML file without outside parts.

    page = render_page(title, subtitle, caption, TokenRoutes(pieces, choices, probs), aggregate, num_experts=8)

Two views: one text, in which every token is a ribbon of its own from the text to its expert in each layer, and all
texts together, in which a ribbon's height is the number of tokens that went from one expert to the next. Numpy only.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np

PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#d4a72c")
"""Colours of the experts, in turn; beyond eight they are told apart by their labels."""

WIDTH, TOP, NODE, GAP = 1120, 46, 16, 10  # px: page, space above the columns, node width, space between nodes
MOST_SLICES = 8  # more recurrent steps than these are told in words alone
LINE = 15  # px: a token's line in the text column, at least


@dataclass(frozen=True)
class TokenRoutes:
    """The way of one text's tokens.

    Attributes:
        pieces: What each token reads as.
        choices: (tokens, layers) expert that each token went to first.
        probs: (tokens, layers) the router's probability of that expert.
        answer_from: First token that the model wrote itself; None if it wrote none.
    """

    pieces: list[str]
    choices: np.ndarray
    probs: np.ndarray
    answer_from: int | None = None

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ValueError: If they do not fit together.
        """
        expected = (len(self.pieces), *self.choices.shape[1:])
        if self.choices.ndim != 2 or self.choices.shape != expected or self.probs.shape != expected:
            raise ValueError(
                f"expected choices and probs of shape ({len(self.pieces)}, layers), found {self.choices.shape} and "
                f"{self.probs.shape}"
            )


def count_flows(choices: np.ndarray, num_experts: int) -> np.ndarray:
    """Return (layers - 1, experts, experts): how many tokens went from expert i of a layer to expert j of the next."""
    layers = choices.shape[1]
    flows = np.zeros((layers - 1, num_experts, num_experts), dtype=np.int64)
    for layer in range(layers - 1):
        np.add.at(flows[layer], (choices[:, layer], choices[:, layer + 1]), 1)
    return flows


def count_loads(choices: np.ndarray, num_experts: int) -> np.ndarray:
    """Return (layers, experts): how many tokens went to each expert."""
    return np.stack([np.bincount(column, minlength=num_experts) for column in choices.T])


# ------------------------------------------------------------------------------------------------------------- drawing


def _color(expert: int) -> str:
    return PALETTE[expert % len(PALETTE)]


def _ribbon(x0: float, y0: float, x1: float, y1: float, height: float) -> str:
    """Return the path of a band of constant height from (x0, y0) to (x1, y1), the y being its upper edges."""
    middle = (x0 + x1) / 2
    return (
        f"M{x0:.1f},{y0:.2f}C{middle:.1f},{y0:.2f} {middle:.1f},{y1:.2f} {x1:.1f},{y1:.2f}"
        f"L{x1:.1f},{y1 + height:.2f}C{middle:.1f},{y1 + height:.2f} {middle:.1f},{y0 + height:.2f} "
        f"{x0:.1f},{y0 + height:.2f}Z"
    )


def _columns(layers: int, left: float, right: float) -> list[float]:
    return [left + (right - left) * layer / max(1, layers - 1) for layer in range(layers)]


def _node_tops(loads: np.ndarray, unit: float, height: float) -> np.ndarray:
    """Return the upper edge of every node (layers, experts); a column is centred within `height`."""
    heights = loads * unit
    above = np.cumsum(heights + GAP, axis=1) - (heights + GAP)
    total = heights.sum(axis=1, keepdims=True) + GAP * (loads.shape[1] - 1)
    return TOP + (height - total) / 2 + above


def _draw_nodes(
    loads: np.ndarray, tops: np.ndarray, xs: list[float], unit: float, label_left: bool, steps: int
) -> list[str]:
    """Return the experts of all layers; each is cut into as many upright slices as it takes recurrent steps."""
    parts = []
    total = loads[0].sum()
    told = f", {steps} recurrent steps each" if steps > 1 else ""
    cuts = [NODE * step / steps for step in range(1, steps)] if steps <= MOST_SLICES else []
    for layer, x in enumerate(xs):
        parts.append(f'<text class="head" x="{x + NODE / 2:.1f}" y="18" text-anchor="middle">layer {layer}</text>')
        if steps > 1:
            parts.append(f'<text class="share" x="{x + NODE / 2:.1f}" y="34" text-anchor="middle">{steps} steps</text>')
        for expert, load in enumerate(loads[layer].tolist()):
            top, size = tops[layer, expert], load * unit
            last = layer == len(xs) - 1
            left = last and label_left
            tx, anchor = (x - 6, "end") if left else (x + NODE + 6, "start")
            slices = "".join(f'<path class="slice" d="M{x + cut:.2f},{top:.2f}v{size:.2f}"/>' for cut in cuts if load)
            parts.append(
                f'<g class="node"><rect x="{x:.1f}" y="{top:.2f}" width="{NODE}" height="{max(size, 1.5):.2f}" '
                f'fill="{_color(expert)}" opacity="{1 if load else 0.25}"/>{slices}'
                f'<text x="{tx:.1f}" y="{top + max(size, 1.5) / 2 + 4:.2f}" text-anchor="{anchor}" '
                f'class="{"label" if load else "label dead"}">{expert} <tspan class="share">{load / total:.0%}</tspan>'
                f"</text><title>layer {layer}, expert {expert}: {load} of {total} tokens ({load / total:.1%}){told}"
                "</title>"
                "</g>"
            )
    return parts


def draw_aggregate(choices: np.ndarray, num_experts: int, steps: int = 1) -> str:
    """Return the SVG of all tokens together; a ribbon's height is a number of tokens.

    Args:
        choices: (tokens, layers), at least one token.
        num_experts: Experts of each layer.
        steps: Recurrent steps that an expert takes.
    """
    loads, flows = count_loads(choices, num_experts), count_flows(choices, num_experts)
    height = max(420.0, 44.0 * num_experts)
    unit = (height - GAP * (num_experts - 1)) / len(choices)
    xs = _columns(choices.shape[1], 40, WIDTH - 40 - NODE)
    tops = _node_tops(loads, unit, height)
    parts = []
    for layer in range(len(flows)):
        leaving = tops[layer].copy()
        entering = tops[layer + 1].copy()
        for source in range(num_experts):
            for target in range(num_experts):
                count = int(flows[layer, source, target])
                if count == 0:
                    continue
                path = _ribbon(xs[layer] + NODE, leaving[source], xs[layer + 1], entering[target], count * unit)
                parts.append(
                    f'<path class="flow" d="{path}" fill="{_color(source)}"><title>layer {layer}, expert {source} to '
                    f"layer {layer + 1}, expert {target}: {count} tokens ({count / len(choices):.1%})</title></path>"
                )
                leaving[source] += count * unit
                entering[target] += count * unit
    parts += _draw_nodes(loads, tops, xs, unit, label_left=len(xs) > 1, steps=steps)
    return _svg(parts, TOP + height + 20, f"Flow of {len(choices)} tokens through {len(xs)} layers")


def draw_tokens(routes: TokenRoutes, num_experts: int, steps: int = 1) -> str:
    """Return the SVG of one text: each token a ribbon from its place in the text through its experts.

    Args:
        routes: At least one token.
        num_experts: Experts of each layer.
        steps: Recurrent steps that an expert takes.
    """
    count, layers = routes.choices.shape
    height = max(420.0, LINE * count, 44.0 * num_experts)
    unit = min((height - GAP * (num_experts - 1)) / count, LINE * 0.8)
    xs = _columns(layers, 330, WIDTH - 70 - NODE)
    loads = count_loads(routes.choices, num_experts)
    tops = _node_tops(loads, unit, height)
    line = height / count
    parts = []
    # Within a node tokens stand in the order of the text.
    places = np.empty((count, layers))
    for layer in range(layers):
        used = tops[layer].copy()
        for token, expert in enumerate(routes.choices[:, layer]):
            places[token, layer] = used[expert]
            used[expert] += unit
    for token, piece in enumerate(routes.pieces):
        way = routes.choices[token].tolist()
        told = ", ".join(
            f"layer {layer}: expert {e} ({p:.0%})"
            for layer, (e, p) in enumerate(zip(way, routes.probs[token], strict=True))
        )
        y = TOP + token * line
        written = " written" if routes.answer_from is not None and token >= routes.answer_from else ""
        shown = html.escape(_readable(piece))
        bands = [_ribbon(150, y + (line - unit) / 2, xs[0], places[token, 0], unit)]
        colors = [_color(way[0])]
        for layer in range(layers - 1):
            bands.append(_ribbon(xs[layer] + NODE, places[token, layer], xs[layer + 1], places[token, layer + 1], unit))
            colors.append(_color(way[layer + 1]))
        drawn = "".join(f'<path d="{d}" fill="{color}"/>' for d, color in zip(bands, colors, strict=True))
        parts.append(
            f'<g class="token{written}" data-token="{token}"><title>{shown}: {told}</title>'
            f'<rect x="0" y="{y:.2f}" width="150" height="{line:.2f}" fill="transparent"/>'
            f'<text class="piece" x="142" y="{y + line / 2 + 4:.2f}" text-anchor="end">{shown}</text>{drawn}</g>'
        )
    parts += _draw_nodes(loads, tops, xs, unit, label_left=False, steps=steps)
    parts.append('<text class="head" x="142" y="18" text-anchor="end">text</text>')
    if routes.answer_from is not None and routes.answer_from < count:
        y = TOP + routes.answer_from * line
        parts.append(
            f'<path class="border" d="M0,{y:.2f}H150"/><text class="share" x="0" y="{y + 12:.2f}">answer</text>'
        )
    return _svg(parts, TOP + height + 20, f"Way of {count} tokens through {layers} layers")


def _readable(piece: str) -> str:
    """Return a token with its white space visible."""
    return piece.replace("\n", "\u21b5").replace(" ", "\u00b7") if piece.strip() != piece or not piece else piece


def _svg(parts: list[str], height: float, label: str) -> str:
    return (
        f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(parts)}</svg></div>"
    )


_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1160px; padding: 24px 20px 40px; background: #fff; color: #1f2328;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 20px; margin: 0 0 2px; } p { margin: 0 0 10px; max-width: 100ch; } .quiet { color: #59636e; }
.views { margin: 14px 0 6px; display: flex; gap: 6px; }
.views button { font: inherit; padding: 4px 12px; border: 1px solid #c4cad1; border-radius: 6px; background: #f6f8fa;
  cursor: pointer; }
.views button[aria-pressed="true"] { background: #1f2328; color: #fff; border-color: #1f2328; }
svg { width: 100%; min-width: 760px; height: auto; display: block; }
svg text { font-size: 12px; fill: #1f2328; } svg .head { font-weight: 600; } svg .share, svg .dead { fill: #59636e; }
svg .label { paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.piece { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
.slice { stroke: #fff; stroke-width: 1; opacity: .8; } .border { stroke: #59636e; stroke-dasharray: 3 3; }
.written .piece { font-weight: 700; }
table { border-collapse: collapse; margin: 6px 0 18px; } th, td { padding: 3px 14px 3px 0; text-align: left;
  border-bottom: 1px solid #e1e5ea; vertical-align: top; } th { font-weight: 600; } .wide { overflow-x: auto; }
.flow { opacity: .45; } .flow:hover { opacity: .85; }
.token path { opacity: .5; } .token { cursor: default; }
svg.picked .token path { opacity: .07; } svg.picked .token.on path { opacity: .95; }
svg.picked .token .piece { opacity: .35; } svg.picked .token.on .piece { opacity: 1; font-weight: 700; }
[hidden] { display: none; }
"""

_SCRIPT = """
const views = document.querySelectorAll("[data-view]");
document.querySelectorAll(".views button").forEach(button => button.addEventListener("click", () => {
  views.forEach(view => { view.hidden = view.dataset.view !== button.value; });
  document.querySelectorAll(".views button").forEach(b => b.setAttribute("aria-pressed", b === button));
}));
document.querySelectorAll(".token").forEach(token => {
  const svg = token.closest("svg");
  token.addEventListener("mouseenter", () => { svg.classList.add("picked"); token.classList.add("on"); });
  token.addEventListener("mouseleave", () => { svg.classList.remove("picked"); token.classList.remove("on"); });
});
"""


_STEPS = "An expert's slices are its recurrent steps, all of which a token takes in the expert it goes to. "


def render_page(
    title: str,
    subtitle: str,
    caption: str,
    single: TokenRoutes,
    aggregate: np.ndarray,
    num_experts: int,
    steps: int = 1,
    beside: str = "",
) -> str:
    """Return the page with both views; it loads nothing from anywhere.

    Args:
        title: What it shows.
        subtitle: Of which model.
        caption: What the one text is.
        single: The one text.
        aggregate: (tokens, layers) choices of all texts.
        num_experts: Experts of each layer.
        steps: Recurrent steps that an expert takes.
        beside: HTML about the one text, between its caption and its diagram.
    """
    written = single.answer_from is not None
    number = len(aggregate)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1><p class="quiet">{html.escape(subtitle)}</p>
<div class="views"><button value="one" aria-pressed="true">One text</button>
<button value="all" aria-pressed="false">All texts ({number:,} tokens)</button></div>
<section data-view="one"><p>{html.escape(caption)}</p>
{beside}<p class="quiet">Each ribbon is a token, in the colour of the expert it goes to. Beside an expert stand its
number and its share of the tokens. {"Bold tokens are the model's answer. " if written else ""}{
        _STEPS if steps > 1 else ""
    }Point at a token to follow it.</p>
{draw_tokens(single, num_experts, steps)}</section>
<section data-view="all" hidden>
<p class="quiet">A ribbon is as high as the number of tokens that went from one expert to the next, in the
colour of the expert it comes from. Beside an expert stand its number and its share of the tokens.</p>
{draw_aggregate(aggregate, num_experts, steps)}</section>
<script>{_SCRIPT}</script></body></html>
"""
