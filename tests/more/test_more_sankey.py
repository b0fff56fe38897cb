"""The diagram of token routing: no token is lost between layers, and the page needs nothing but itself."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from more.sankey import MOST_SLICES, TokenRoutes, count_flows, count_loads, draw_aggregate, draw_tokens, render_page
from more.step_answers import StepAnswer, render_steps

CHOICES = np.array([[0, 1, 1], [0, 1, 0], [2, 1, 1], [0, 2, 1]])


def routes(pieces: list[str] | None = None) -> TokenRoutes:
    pieces = ["Mary", " went", "\n", "<b>"] if pieces is None else pieces
    return TokenRoutes(pieces, CHOICES, np.full(CHOICES.shape, 0.5))


def test_flows_by_hand():
    flows = count_flows(CHOICES, 3)
    assert flows.shape == (2, 3, 3)
    assert flows[0].tolist() == [[0, 2, 1], [0, 0, 0], [0, 1, 0]]
    assert flows[1].tolist() == [[0, 0, 0], [1, 2, 0], [0, 1, 0]]
    assert count_loads(CHOICES, 3).tolist() == [[3, 0, 1], [0, 3, 1], [1, 3, 0]]


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(0, 4)))
def test_what_enters_an_expert_leaves_it(choices):
    flows, loads = count_flows(choices, 5), count_loads(choices, 5)
    assert (loads.sum(axis=1) == len(choices)).all()
    for layer in range(choices.shape[1] - 1):
        assert (flows[layer].sum(axis=1) == loads[layer]).all()
        assert (flows[layer].sum(axis=0) == loads[layer + 1]).all()


def edges(path: str) -> tuple[float, float, float, float]:
    """Return x and upper y of a ribbon's start and end."""
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path)]
    return numbers[0], numbers[1], numbers[6], numbers[7]


def test_ribbons_fill_their_nodes_exactly():
    svg = draw_aggregate(CHOICES, 3)
    nodes = {}
    for x, y, height, title in re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="16" height="([\d.]+)".*?<title>(layer \d, expert \d)', svg
    ):
        nodes[title] = (float(x), float(y), float(height))
    unit = nodes["layer 0, expert 0"][2] / 3
    assert nodes["layer 0, expert 1"][2] == 1.5  # nothing, drawn as a line
    arriving: dict[str, list[float]] = {}
    for path, source, target, count in re.findall(
        r'<path class="flow" d="([^"]+)".*?<title>(layer \d, expert \d) to (layer \d, expert \d): (\d+)', svg
    ):
        x0, y0, x1, y1 = edges(path)
        assert x0 == pytest.approx(nodes[source][0] + 16)
        assert x1 == pytest.approx(nodes[target][0])
        assert nodes[source][1] - 0.01 <= y0
        assert y0 + int(count) * unit <= nodes[source][1] + nodes[source][2] + 0.05
        arriving.setdefault(target, []).append(y1)
    assert min(arriving["layer 1, expert 1"]) == pytest.approx(nodes["layer 1, expert 1"][1], abs=0.02)
    assert len(re.findall('class="flow"', svg)) == 6


def test_every_token_has_its_way():
    svg = draw_tokens(routes(), 3)
    tokens = re.findall(r'<g class="token" data-token="(\d+)"><title>(.*?)</title>(.*?)</g>', svg, flags=re.DOTALL)
    assert [int(number) for number, _, _ in tokens] == [0, 1, 2, 3]
    assert tokens[2][1] == "\u21b5: layer 0: expert 2 (50%), layer 1: expert 1 (50%), layer 2: expert 1 (50%)"
    assert all(ribbons.count("<path") == 3 for _, _, ribbons in tokens)
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert ">\u00b7went<" in svg


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [(tag, name) for name, _ in attributes if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("rect", "path"):
            return
        assert self.open.pop() == tag


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_the_page_stands_alone(layers):
    rng = np.random.default_rng(0)
    choices = rng.integers(0, 8, size=(30, layers))
    single = TokenRoutes(["x"] * 30, choices, rng.random((30, layers)))
    page = render_page("A & B", "of <model>", "caption", single, choices, 8)
    parser = Outside()
    parser.feed(page)
    assert parser.found == []
    assert parser.open == []  # all that was opened was closed
    assert not re.search(r"https?://|@import|url\(", page)
    assert "A &amp; B" in page
    assert "of &lt;model&gt;" in page
    assert page.count("<svg") == 2
    assert "nan" not in page.lower()


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected choices and probs of shape \(3, layers\)"):
        routes(["a", "b", "c"])


def test_the_answer_s_tokens_and_the_steps_are_marked():
    taken = TokenRoutes(["a", "b", "c"], np.zeros((3, 2), dtype=int), np.ones((3, 2)), answer_from=2)
    drawn = draw_tokens(taken, 2, steps=4)
    assert [re.search(f'class="([^"]*)" data-token="{n}"', drawn).group(1) for n in range(3)] == [
        *("token", "token"),
        "token written",
    ]
    assert drawn.count('class="border"') == 1 and ">answer<" in drawn
    assert drawn.count(">4 steps<") == 2  # of each layer
    assert drawn.count('class="slice"') == 2 * 3  # between four slices of the one expert in use, in two layers
    assert "3 of 3 tokens (100.0%), 4 recurrent steps each" in drawn
    plain = draw_tokens(TokenRoutes(taken.pieces, taken.choices, taken.probs), 2)
    assert not any(mark in plain for mark in ("slice", "border", "steps", "written"))
    assert 'class="slice"' not in draw_tokens(taken, 2, steps=MOST_SLICES + 1)


def test_the_steps_are_told_beside_the_diagram():
    rows = [StepAnswer(1, "", "garden", -2.0, 0.25), StepAnswer(2, "<b>", "hall", -0.5, 0.0)]
    table = render_steps(rows)
    assert "<tr><td>1</td><td>(nothing)</td><td>garden</td><td>-2.00</td><td>25%</td></tr>" in table
    assert "<td>&lt;b&gt;</td>" in table
    assert render_steps([]) == ""
    one = TokenRoutes(["a"], np.zeros((1, 1), dtype=int), np.ones((1, 1)))
    assert table in render_page("t", "s", "c", one, one.choices, 1, 2, table)
