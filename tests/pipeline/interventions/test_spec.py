"""Interventions as values: read, written, checked."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from babyai.facts import EVENT_NAMES, SUBGOAL_NAMES
from pipeline.command.errors import ConfigError
from pipeline.interventions.catalogue import describe_conditions, list_knockouts
from pipeline.interventions.places import When, Where
from pipeline.interventions.spec import ON_EXPERTS, STATES, WHATS, Intervention, parse_interventions
from pipeline.interventions.targets import TARGETS

DOCS = Path(__file__).parents[3] / "docs"
SIZES = [[0, 16, 32], [0, 32], [8]]

wheres = st.one_of(
    st.sampled_from(["all", "routers", {"size": 32}, {"size": 0, "layers": [0, 1]}, {"routers": True, "layers": [1]}]),
    st.lists(st.integers(0, 2), min_size=1, unique=True).map(lambda layers: {"layers": layers}),
    st.lists(st.sampled_from([(0, 1), (0, 2), (1, 0), (2, 0)]), min_size=1, unique=True).map(
        lambda pairs: {"experts": [list(pair) for pair in pairs]}
    ),
)
whens = st.one_of(
    st.just("always"),
    st.fixed_dictionaries(
        {},
        optional={
            "subgoal": st.sampled_from(SUBGOAL_NAMES),
            "carrying": st.booleans(),
            "door_unlocked": st.booleans(),
            "step": st.integers(0, 9),
        },
    ),
    st.builds(
        lambda event, steps: {"event": event, "steps": steps}, st.sampled_from(EVENT_NAMES[1:]), st.integers(1, 5)
    ),
)


@st.composite
def contents(draw):
    what = draw(st.sampled_from(WHATS))
    found = {"what": what, "when": draw(whens)}
    layers = st.sampled_from(["all", "routers", {"layers": [0, 2]}])
    if what in ON_EXPERTS:
        found["where"] = draw(wheres.filter(lambda w: w != "routers" and not (isinstance(w, dict) and "routers" in w)))
    elif what == "none":
        found["where"] = draw(wheres)
    elif what not in ("swap_mission", "project"):
        found["where"] = draw(layers)
    if what not in ("swap_mission", "project"):
        found["state"] = draw(st.sampled_from(STATES))
    if what == "project":
        found["subspace"] = draw(st.sampled_from(["a", "b c"]))
    if what in ("threshold", "random_drop"):
        found |= {"tau": draw(st.floats(0, 1)), "renormalise": draw(st.booleans())}
    if what == "zero":
        found["renormalise"] = draw(st.booleans())
    if what == "temperature":
        found["temperature"] = draw(st.floats(0.01, 10))
    if what == "dial":
        found |= {"lambda": draw(st.floats(0, 10)), "exponent": draw(st.floats(0, 3))}
    if what == "clamp":
        vectors = [[0.25, 0.25, 0.5], None, [1.0]]
        found["to"] = draw(
            st.sampled_from(["uniform", "mean", "subgoal", vectors, {"Pickup": vectors, "Open": vectors}])
        )
    if what == "mean":
        found["by"] = draw(st.sampled_from([None, "subgoal"]))
    return found


@given(contents())
def test_what_is_read_is_what_is_written(content):
    item = Intervention.parse(content)
    plain = item.to_dict()
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    again = Intervention.parse(plain)
    assert again == item and hash(again) == hash(item)
    assert again.digest == item.digest


def test_names_and_labels_are_no_part_of_what_is_done():
    one = Intervention(what="zero", name="a", label="b")
    assert one.digest == Intervention(what="zero").digest
    assert one.digest != Intervention(what="zero", renormalise=True).digest
    assert one.digest != Intervention(what="skip").digest
    assert (one.kind, Intervention(what="zero").kind) == ("b", "knockout")


def test_without_arguments_it_is_the_sham():
    assert Intervention().is_sham
    assert Intervention.parse({}) == Intervention()
    assert not Intervention(state="zero").is_sham


def test_defaults_of_renormalising():
    assert Intervention.parse({"what": "threshold", "tau": 0.1}).renormalise is True
    assert Intervention.parse({"what": "zero"}).renormalise is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("zero", "intervention: expected a mapping"),
        ({"wat": 1}, "intervention: expected keys among .*what.*, found 'wat'"),
        ({"what": "kill"}, "what: expected one of none, zero, .*found 'kill'"),
        ({"what": ["zero"]}, "what: expected one of"),
        ({"state": "lost"}, "state: expected one of update, freeze, zero, found 'lost'"),
        ({"what": "threshold"}, "threshold: expected tau, a number, found 'none'"),
        ({"what": "threshold", "tau": 2}, r"tau: expected a number in \[0, 1\], found 2"),
        ({"what": "threshold", "tau": "x"}, "tau: expected a number"),
        ({"what": "threshold", "tau": 0.1, "lambda": 1}, "lambda: expected none with threshold"),
        ({"what": "dial", "lambda": -1}, "lambda: expected a number >= 0, found -1"),
        ({"what": "dial", "lambda": 1, "exponent": None}, "exponent: expected a number >= 0"),
        ({"what": "temperature", "temperature": 0}, "temperature: expected a number > 0, found 0"),
        ({"what": "zero", "tau": 0.1}, "tau: expected none with zero"),
        ({"what": "skip", "renormalise": True}, "renormalise: expected none with skip"),
        ({"what": "zero", "renormalise": 1}, "renormalise: expected true or false, found 1"),
        ({"what": "zero", "where": "routers"}, "where: expected experts with zero, found 'routers'"),
        ({"what": "zero", "where": "layer 1"}, "where: expected all, routers, or a mapping"),
        ({"what": "zero", "where": {"layer": 1}}, "where: expected all, routers, or a mapping"),
        ({"what": "zero", "where": {"layers": 1}}, "where: layers: expected a list, found 1"),
        ({"what": "zero", "where": {"layers": [-1]}}, "where: layers: expected numbers of layers, from 0"),
        ({"what": "zero", "where": {"experts": [1]}}, r"where: experts: expected pairs \[layer, expert\]"),
        ({"what": "zero", "where": {"experts": [[0, 1]], "size": 3}}, "where: expected experts, size"),
        ({"what": "zero", "where": {"size": -3}}, "where: size: expected the hidden size of an expert"),
        ({"what": "threshold", "tau": 0.1, "where": {"size": 16}}, "where: expected all, layers or routers"),
        ({"what": "clamp"}, "to: expected one of uniform"),
        (
            {"what": "clamp", "to": "best"},
            "to: expected one of uniform, one_hot, .*shuffled, found 'best'",
        ),
        ({"what": "clamp", "to": "one_hot"}, "where: expected one expert for each layer"),
        ({"what": "clamp", "to": "one_hot", "where": {"experts": [[0, 1], [0, 2]]}}, "one expert for each layer"),
        ({"what": "clamp", "to": [[0.5, 0.6]]}, "to: expected weights of each layer that are >= 0 and sum to 1"),
        ({"what": "clamp", "to": [["a"]]}, "to: expected one of uniform"),
        ({"what": "clamp", "to": {"Fly": [[1.0]]}}, "to: expected one of GoNextTo"),
        ({"what": "zero", "to": "uniform"}, "to: expected none with zero"),
        ({"what": "zero", "by": "subgoal"}, "by: expected subgoal, with mean only"),
        ({"what": "project"}, "subspace: expected the name of one with project"),
        ({"what": "zero", "subspace": "a"}, "subspace: expected .* none with anything else"),
        ({"what": "project", "subspace": "a", "where": {"layers": [0]}}, "where and state: expected all and update"),
        ({"what": "swap_mission", "state": "zero"}, "where and state: expected all and update with swap_mission"),
        ({"when": "sometimes"}, "when: expected always, or a mapping"),
        ({"when": {"subgoal": "Fly"}}, "when: subgoal: expected one of GoNextTo"),
        ({"when": {"event": "picked"}}, "when: expected event and steps together"),
        ({"when": {"event": "none", "steps": 2}}, "when: event: expected one of picked"),
        ({"when": {"event": "picked", "steps": 0}}, "when: steps: expected an integer >= 1"),
        ({"when": {"step": -1}}, "when: step: expected an integer >= 0"),
        ({"when": {"carrying": 1}}, "when: carrying: expected true or false"),
        ({"what": "resample", "seed": -1}, "seed: expected an integer >= 0"),
        ({"what": "zero", "seed": 1}, "seed: expected none with zero"),
        ({"what": "zero", "exponent": 1.0}, "exponent: expected none with zero"),
        ({"where": {"layers": [[0]]}}, "where: layers: expected numbers of layers"),
        ({"where": {"layers": ["a", 1]}}, "where: layers: expected numbers of layers"),
        ({"where": {"experts": [[[0], 1]]}}, r"where: experts: expected pairs \[layer, expert\]"),
        ({"where": {"experts": [[0, 1, 2]]}}, r"where: experts: expected pairs \[layer, expert\]"),
        ({"where": {"experts": []}}, r"where: experts: expected pairs \[layer, expert\]"),
        ({"name": 3}, "name: expected text, found 3"),
    ],
)
def test_what_cannot_be_used_is_named(content, message):
    with pytest.raises(ConfigError, match=message):
        Intervention.parse(content)


def test_a_list_says_which_entry_is_wrong_and_refuses_equal_names():
    with pytest.raises(ConfigError, match=r"interventions\[1\]: tau: expected"):
        parse_interventions([{}, {"what": "threshold", "tau": 3}])
    with pytest.raises(ConfigError, match="distinct names, found zero more than once"):
        parse_interventions([{"what": "zero"}, {"what": "zero"}])
    with pytest.raises(ConfigError, match="expected a list"):
        parse_interventions("zero")


def test_places_are_found_in_an_architecture():
    assert Where.parse("all").find_experts(SIZES) == [[True] * 3, [True] * 2, [True]]
    assert Where.parse({"size": 32}).find_experts(SIZES) == [[False, False, True], [False, True], [False]]
    assert Where.parse({"experts": [[1, 0]]}).find_layers(SIZES) == [False, True, False]
    assert Where.parse("routers").find_experts(SIZES) == [[False] * 3, [False] * 2, [False]]
    for content, message in [
        ({"layers": [3]}, "layers below 3"),
        ({"experts": [[1, 2]]}, "experts of layer 1 below 2"),
        ({"size": 64}, r"a size among \[0, 8, 16, 32\], found 64"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Where.parse(content).find_experts(SIZES)


def test_times_and_places_read_themselves():
    for value in ("all", "routers", {"experts": [[0, 1], [1, 0]]}, {"size": 16, "layers": [0]}):
        assert Where.parse(value).to_plain() == value
    for value in ("always", {"subgoal": "Open", "carrying": False}, {"event": "picked", "steps": 3}):
        assert When.parse(value).to_plain() == value


def test_transplants_have_kinds_of_their_own():
    kinds = {"subgoal": "transplant_own", "other": "transplant_other", "shuffled": "transplant_shuffled"}
    assert {to: Intervention(what="clamp", to=to).kind for to in kinds} == kinds
    assert Intervention(what="clamp", to="uniform").kind == "clamp"


def test_controls_name_what_they_control():
    items = [
        Intervention(),
        *list_knockouts(SIZES),
        *list_knockouts(SIZES, what="random_direction"),
        Intervention(what="threshold", amount=0.1),
        Intervention(what="random_drop", amount=0.1),
        Intervention(what="random_drop", amount=0.2),
    ]
    rows = {row["name"]: row for row in describe_conditions(parse_interventions(items), SIZES)}
    assert len(rows) == 1 + 6 + 6 + 3
    assert rows["random_direction l0e2"]["control_of"] == "zero l0e2"
    assert (rows["zero l1e1"]["layer"], rows["zero l1e1"]["expert"], rows["zero l1e1"]["size"]) == (1, 1, 32)
    assert rows["zero l1e1"]["control_of"] is None
    assert rows["random_drop tau=0.1"]["control_of"] == "threshold tau=0.1"
    assert rows["random_drop tau=0.2"]["control_of"] is None
    assert rows["sham"]["kind"] == "sham"


def test_the_page_says_every_value_and_its_example_is_read():
    text = (DOCS / "interventions.md").read_text(encoding="utf-8")
    rows = text.partition("| `what` | becomes | `where` |\n|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert [row.split("`")[1] for row in rows] == list(WHATS)
    for name in (*TARGETS, *STATES):
        assert f"`{name}`" in text
    example = text.partition("which names what it cannot use:\n\n")[2].partition("\n\n")[0]
    names = [item.name for item in parse_interventions(yaml.safe_load(example))]
    assert names == ["sham", "zero size 32", "dial lambda=0.001", "no key phase"]
