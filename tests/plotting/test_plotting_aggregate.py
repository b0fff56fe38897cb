"""Routing by position and by group: numbers by hand, partitions, labels of rooms, old records."""

import copy
import dataclasses
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.records.cache import Cache, read_cache, write_cache
from pipeline.records.steps import iter_records
from plotting.aggregate import (
    RoutingGroups,
    aggregate_routing_by_position,
    compute_grid_bounds,
    get_available_analyses,
    group_routing_data,
    room_labels_for_groups,
)
from plotting.data import as_routing_data
from plotting.groupings import GROUPINGS
from plotting.layouts import describe_levels
from tests.tables import build_context, random_tables


def context(**changes):
    return build_context(0) | changes


def step(episode, position, weights, lpc=0.0, **more):
    return {"episode": episode, "position": position, "layer_routing": {"layer_0": weights}, "lpc": lpc, **more}


TEN = [
    step(0, [1, 1], [1.0, 0.0], 10.0),
    step(0, [1, 1], [0.5, 0.5], 30.0),
    step(0, [2, 1], [0.0, 1.0], 40.0),
    step(0, [3, 1], [0.25, 0.75], 1.0),
    step(0, [3, 1], [0.75, 0.25], 2.0),
    step(0, [3, 1], [0.5, 0.5], 6.0),
    step(1, [1, 4], [0.1, 0.9], 7.0),
    step(1, [1, 1], [0.0, 1.0], 50.0),
    step(1, [2, 1], [0.0, 1.0], 60.0),
    step(1, [2, 3], [1.0, 0.0], 8.0),
]


def test_ten_steps_by_hand():
    averages = aggregate_routing_by_position(TEN)
    assert averages.visits == {(1, 1): 3, (2, 1): 2, (3, 1): 3, (2, 3): 1, (1, 4): 1}
    assert list(averages.visits) == [(1, 1), (2, 1), (3, 1), (2, 3), (1, 4)]  # by row, then column
    assert averages.lpc == {(1, 1): 30.0, (2, 1): 50.0, (3, 1): 3.0, (2, 3): 8.0, (1, 4): 7.0}
    np.testing.assert_allclose(averages.routing[1, 1]["layer_0"], [0.5, 0.5])
    np.testing.assert_allclose(averages.routing[3, 1]["layer_0"], [0.5, 0.5])
    np.testing.assert_allclose(averages.routing[1, 4]["layer_0"], [0.1, 0.9], rtol=1e-6)
    routing, lpc, layer_names = averages
    assert routing is averages.routing and lpc is averages.lpc and layer_names == ["layer_0"]
    assert averages.layer_lpc == {}  # nobody said how large the experts are


def test_layer_lpc_needs_the_sizes_of_experts():
    averages = aggregate_routing_by_position(as_routing_data(TEN, expert_sizes=[[0, 4]]))
    assert averages.layer_lpc["layer_0"][1, 1] == pytest.approx(0.5 * 16)
    assert averages.layer_lpc["layer_0"][2, 1] == pytest.approx(16)


@pytest.mark.parametrize("filter_fn", [lambda r: r["lpc"] > 35, np.array([r["lpc"] > 35 for r in TEN])])
def test_a_filter_is_a_function_of_records_or_a_mask(filter_fn):
    averages = aggregate_routing_by_position(TEN, filter_fn)
    assert averages.visits == {(1, 1): 1, (2, 1): 2}
    assert averages.lpc == {(1, 1): 50.0, (2, 1): 50.0}


def test_a_filter_may_keep_nothing():
    averages = aggregate_routing_by_position(TEN, np.zeros(10, bool))
    assert averages.visits == averages.lpc == averages.routing == {}


def test_filter_sees_the_level():
    routing, episodes = random_tables(0, [3, 4])
    seen = []
    aggregate_routing_by_position((routing, episodes), lambda r: seen.append(r["env_context"]) or True)
    assert seen == [episodes.env_context[0]] * 3 + [episodes.env_context[1]] * 4


@given(st.integers(0, 1000), st.lists(st.integers(0, 6), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_tables_and_records_give_the_same(seed, lengths):
    routing, episodes = random_tables(seed, lengths)
    tables = as_routing_data((routing, episodes))
    records = as_routing_data(list(iter_records(routing, episodes)), routing.expert_hidden_sizes)
    a, b = aggregate_routing_by_position(tables), aggregate_routing_by_position(records)
    assert a.visits == b.visits
    assert len(tables) == len(records) and tables.num_episodes == records.num_episodes
    for cell in a.visits:
        np.testing.assert_allclose(a.lpc[cell], b.lpc[cell], rtol=1e-6)
        for layer in a.layer_names:
            np.testing.assert_allclose(a.routing[cell][layer], b.routing[cell][layer], rtol=1e-6)
    for name in set(GROUPINGS) - {"outcome", "mission_verb"}:  # records do not say
        one, other = group_routing_data(tables, name), group_routing_data(records, name)
        assert {key: len(group) for key, group in one.items()} == {key: len(group) for key, group in other.items()}
        assert one.dropped == other.dropped, name
        assert list(one) == list(other)


@given(st.integers(0, 1000), st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from(list(GROUPINGS)))
@settings(max_examples=60, deadline=None)
def test_grouping_is_a_partition(seed, lengths, name):
    routing, episodes = random_tables(seed, lengths)
    marked = dataclasses.replace(routing, t_step=np.arange(len(routing), dtype=np.int32))  # a name for every step
    groups = group_routing_data((marked, episodes), name)
    found = Counter(int(t) for group in groups.values() for t in group.routing.t_step)
    assert all(count == 1 for count in found.values())
    assert len(found) + groups.dropped == len(routing) == groups.total
    assert all(len(group) for group in groups.values())
    assert bool(groups.describe_dropped()) == bool(groups.dropped)
    for group in groups.values():
        assert (np.diff(group.routing.t_step) > 0).all()  # in their order
    assert set(groups.labels) == set(groups)


def test_key_phases_by_hand():
    level = context(doors=[[5, 2, "blue", False, True]], grid_size=[11, 6])
    rows = [  # (carrying before the action, unlocked before it, event of the action, its object)
        (False, False, "picked", "red ball"),  # in the way
        (True, False, "dropped", "red ball"),
        (False, False, "picked", "blue key"),
        (True, False, "unlocked", "blue door"),
        (True, True, "dropped", "blue key"),
        (False, True, "picked", "red box"),
        (True, True, None, None),
    ]
    records = [
        step(0, [1, 1], [1.0], carrying=c, door_unlocked=u, event=e, event_object=o, t_step=t, env_context=level)
        for t, (c, u, e, o) in enumerate(rows)
    ]
    phases = group_routing_data(records, "key_phase")
    times = {key: group.routing.t_step.tolist() for key, group in phases.items()}
    assert times == {"before_key": [0, 1, 2], "with_key_locked": [3], "with_key_unlocked": [4], "after": [5, 6]}
    assert list(phases.labels.values()) == ["Before key", "With key, locked", "With key, unlocked", "After"]
    some = as_routing_data(records).filter(np.array([3, 4, 6]))  # what was picked is told by steps left out
    assert {k: len(g) for k, g in group_routing_data(some, "key_phase").items()} == {
        "with_key_locked": 1,
        "with_key_unlocked": 1,
        "after": 1,
    }


def test_a_key_of_another_door_is_not_the_key():
    level = context(doors=[[5, 2, "blue", False, True]])
    facts = {"door_unlocked": False, "env_context": level}
    records = [
        step(0, [1, 1], [1.0], carrying=False, event="picked", event_object="red key", t_step=0, **facts),
        step(0, [1, 1], [1.0], carrying=True, event=None, event_object=None, t_step=1, **facts),
    ]
    assert list(group_routing_data(records, "key_phase")) == ["before_key"]


def test_key_phase_is_not_guessed_without_events():
    records = [step(0, [1, 1], [1.0], carrying=True, door_unlocked=False, env_context=context())] * 2
    groups = group_routing_data(records, "key_phase")
    assert len(groups) == 0 and groups.dropped == 2
    assert groups.describe_dropped().startswith("2 of 2 steps not shown: ")


def grouped(name, *levels, missions=None):
    records = [
        step(k, [1, 1], [1.0], env_context=level, mission=missions[k] if missions else None)
        for k, level in enumerate(levels)
    ]
    groups = group_routing_data(records, name)
    return {key: group.routing.episode.tolist() for key, group in groups.items()}, groups


def test_doors():
    locked, open_, other = [5, 2, "blue", False, True], [5, 3, "red", True, False], [5, 1, "red", False, False]
    levels = [context(doors=doors) for doors in ([locked], [open_, locked], [other], [other, open_], [], [locked] * 2)]
    found, groups = grouped("door_location", *levels)
    assert found == {(5, 1): [2], (5, 2): [0, 1]}  # in reading order
    assert groups.dropped == 3
    boxes = [context(doors=[locked], boxes=b) for b in ([[7, 4, "red"]], [], [[7, 1, "red"], [8, 1, "red"]])]
    found, groups = grouped("door_box_row", *boxes)
    assert found == {(2, 4): [0]} and groups.labels == {(2, 4): "Door row 2, box row 4"}


def test_quadrants_follow_the_middle_of_the_level():
    starts = [[1, 1], [3, 1], [1, 3], [5, 5]]  # in a level of 7 x 7 the middle is 3
    found, _ = grouped("agent_quadrant", *(context(grid_size=[7, 7], agent_start_pos=start) for start in starts))
    assert found == {"Top-Left": [0], "Top-Right": [1], "Bottom-Left": [2], "Bottom-Right": [3]}
    found, groups = grouped("target_quadrant", context(target_pos=[6, 1]), context(target_pos=None))
    assert found == {"Top-Right": [0]} and groups.dropped == 1


def test_mission_verbs():
    missions = ["go to the red ball", "pick up a box, then open the blue door", "put the key next to the box", "?"]
    found, groups = grouped("mission_verb", *[context()] * 4, missions=missions)
    assert found == {"go to": [0], "pick up + open": [1], "put": [2]} and groups.dropped == 1


def test_outcomes_and_their_episodes():
    routing, episodes = random_tables(1, [2, 3, 4])
    episodes = dataclasses.replace(episodes, outcome=np.array([3, -1, 1], np.int8))
    groups = group_routing_data((routing, episodes), "by_outcome")
    assert {key: len(group) for key, group in groups.items()} == {"success": 4, "timeout": 2}
    assert groups.dropped == 3 and "3 of 9 steps" in groups.describe_dropped()


def test_unknown_grouping_names_those_there_are():
    with pytest.raises(ValueError, match="starting_room"):
        group_routing_data(TEN, "colour")


def test_analyses_offered_are_those_that_the_data_supports():
    assert get_available_analyses(TEN) == ["overall"]
    rooms = [context(agent_start_room=room, agent_start_pos=[1, 1]) for room in ([0, 0], [7, 0])]
    records = [step(k, [1, 1], [1.0], env_context=room, carrying=bool(k)) for k, room in enumerate(rooms)]
    assert get_available_analyses(records) == ["overall", "starting_room", "carrying"]
    assert get_available_analyses([]) == ["overall"]


# --------------------------------------------------------------------------------------------------- names of rooms


def test_rooms_are_numbered_in_the_true_grid_though_only_some_were_observed():
    bounds = [[7 * c, 7 * r, 8, 8] for r in range(3) for c in range(3)]
    keys = [(14, 0), (7, 7), (0, 14)]
    expected = ["Top-Right", "Center", "Bottom-Left"]
    assert room_labels_for_groups(keys, [3, 3], room_bounds=bounds) == expected
    assert room_labels_for_groups(keys, [3, 3], grid_size=[22, 22]) == expected
    assert room_labels_for_groups([(7, 0), (0, 7), (14, 7), (7, 14)], [3, 3], room_bounds=bounds) == [
        "Top-Center",
        "Middle-Left",
        "Middle-Right",
        "Bottom-Center",
    ]
    assert room_labels_for_groups([(7, 0)], [3, 3], grid_size=[22, 22]) == ["Top-Center"]


def test_rooms_of_small_and_large_grids():
    assert room_labels_for_groups([(0, 0), (6, 0), (0, 6), (6, 6)], [2, 2]) == [
        "Top-Left",
        "Top-Right",
        "Bottom-Left",
        "Bottom-Right",
    ]
    assert room_labels_for_groups([(0, 0)], [1, 1]) == ["Only room"]
    assert room_labels_for_groups([(0, 0), (5, 0)], [2, 1], grid_size=[11, 6]) == ["Left", "Right"]
    assert room_labels_for_groups([(0, 0), (0, 5)], [1, 2], grid_size=[6, 11]) == ["Top", "Bottom"]
    assert room_labels_for_groups([(6, 3)], [4, 3], grid_size=[13, 10]) == ["Row 2, Col 3"]


def test_a_room_that_could_be_two_is_not_guessed():
    """At x = 14 of three columns: the third of rooms of 7, or the second of rooms of 14."""
    assert room_labels_for_groups([(0, 0), (14, 0)], [3, 3]) == ["Room at (0, 0)", "Room at (14, 0)"]
    assert room_labels_for_groups([(0, 0), (7, 0), (14, 0)], [3, 1]) == ["Left", "Center", "Right"]
    assert room_labels_for_groups([(3, 0)], None) == ["Room at (3, 0)"]


def test_groups_of_starting_rooms_are_named_by_the_level():
    bounds = [[7 * c, 7 * r, 8, 8] for r in range(3) for c in range(3)]
    rooms = {"room_grid_shape": [3, 3], "room_bounds": bounds, "grid_size": [22, 22]}
    found, groups = grouped("starting_room", *(context(agent_start_room=r, **rooms) for r in ([14, 0], [0, 14])))
    assert found == {(14, 0): [0], (0, 14): [1]}
    assert groups.labels == {(14, 0): "Top-Right", (0, 14): "Bottom-Left"}


# ------------------------------------------------------------------------------------------------------------ bounds


def test_bounds_of_positions():
    expected = {"x_min": 2, "x_max": 5, "y_min": 1, "y_max": 1, "grid_width": 4, "grid_height": 1}
    for positions in ([(2, 1), (5, 1)], np.array([[2, 1], [5, 1]]), {(2, 1): 0, (5, 1): 0}):
        found = compute_grid_bounds(positions)
        assert {key: found[key] for key in expected} == expected
        assert found["walls"] == found["doors"] == {} and found["room_bounds"] == []
    with pytest.raises(ValueError, match="at least one"):
        compute_grid_bounds([])


def test_bounds_of_data_are_the_true_grid():
    records = [step(0, [3, 3], [1.0], env_context=context(grid_size=[8, 6]))]
    for data in (records, as_routing_data(records)):
        found = compute_grid_bounds(data)
        assert (found["x_min"], found["x_max"], found["y_min"], found["y_max"]) == (0, 7, 0, 5)
    found = compute_grid_bounds(TEN)  # no level is described
    assert (found["x_min"], found["x_max"], found["y_min"], found["y_max"]) == (1, 3, 1, 4)


def test_walls_and_doors_are_shares_of_the_levels_that_have_them():
    levels = [{"walls": ["##", "#."], "doors": [[1, 1, "red", False, False]]}, {"walls": ["#.", "#."], "doors": []}, {}]
    found = describe_levels(levels)
    assert found["walls"] == {(0, 0): 1.0, (1, 0): 0.5, (0, 1): 1.0}
    assert found["doors"] == {(1, 1): 0.5}


def test_levels_of_some_episodes_are_those_of_their_descriptions():
    """Those of a table are read once, whichever of its episodes are asked for, and as often as they are."""
    rooms = ([[0, 0, 3, 3]], [[0, 0, 2, 3], [1, 0, 2, 3]])
    contexts = [
        context(
            walls=["###", "#.#", "###"] if k % 3 else ["##", "##"],
            doors=None if k % 5 == 4 else [[k % 2, 1, "red", False, False]] * 2,
            room_bounds=rooms[k > 3],
            grid_size=[3 + k, 9 - k],
        )
        for k in range(7)
    ]
    data = as_routing_data([step(k, [1, 1], [1.0], env_context=contexts[k]) for k in range(7)])
    for chosen in (range(7), [0], [1, 2, 4], [3, 5], [6]):
        part = data.filter(np.isin(data.routing.episode, chosen))
        levels = [contexts[k] for k in chosen]
        assert describe_levels(part) == describe_levels(levels) != describe_levels(contexts[:2])
        bounds = compute_grid_bounds(part)
        sizes = [level["grid_size"] for level in levels]
        assert (bounds["x_max"], bounds["y_max"]) == (max(w for w, _ in sizes) - 1, max(h for _, h in sizes) - 1)
    assert describe_levels(data.filter(slice(0, 0))) == describe_levels([])


def test_groups_of_a_subset_are_its_own():
    """What is remembered of data is not taken for that of a part of it."""
    data = as_routing_data(random_tables(3, [5, 6]))
    assert data.routing.carrying.any() and not data.routing.carrying.all()
    whole = {key: len(part) for key, part in group_routing_data(data, "carrying").items()}
    assert whole == {key: len(part) for key, part in group_routing_data(data, "carrying").items()}
    part = data.filter(data.routing.carrying)
    assert list(group_routing_data(part, "carrying")) == [True] and len(group_routing_data(part, "carrying")[True])
    assert "carrying" in get_available_analyses(data) and "carrying" not in get_available_analyses(part)


# -------------------------------------------------------------------------------------------------- what plots take


def test_all_forms_of_input_are_one(tmp_path: Path):
    routing, episodes = random_tables(3, [5, 6])
    path = tmp_path / "routing_data.json"
    header = {"checkpoint_path": "c.pt", "evaluated_at": "2026-01-01", "task_id": "BabyAI-GoToObj-v0"}
    write_cache(path, header=header, metrics={}, episodes=episodes, routing=routing)
    cache = read_cache(path)
    data = as_routing_data(cache)
    assert data.title == "BabyAI-GoToObj-v0" and as_routing_data(data) is data
    drawn = dataclasses.replace(cache, header=cache.header | {"eval_actions": "sample"})
    assert as_routing_data(drawn).title == "BabyAI-GoToObj-v0, actions drawn"
    assert data.routing is cache.routing  # nothing is copied
    expected = aggregate_routing_by_position((routing, episodes)).visits
    assert aggregate_routing_by_position(cache).visits == expected
    assert aggregate_routing_by_position(list(cache.records())).visits == expected


def test_a_cache_without_steps_says_what_to_do():
    _, episodes = random_tables(0, [2])
    with pytest.raises(ValueError, match="skip_routing"):
        as_routing_data(Cache(Path("routing_data.json"), {}, {}, episodes, None))


@pytest.mark.parametrize("data", ["text", {"steps": []}, 3, [1, 2]])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(TypeError, match="expected"):
        as_routing_data(data)


def test_oldest_records_have_an_inline_level_and_little_else():
    levels = [context(agent_start_room=[0, 0]), context(agent_start_room=[7, 0])]
    records = [
        {"position": (1, 1), "layer_routing": {"layer_0": np.array([0.5, 0.5])}, "lpc": np.float32(2), "env_context": c}
        for c in (levels[0], levels[0], levels[1], copy.deepcopy(levels[0]))
    ]
    data = as_routing_data(records)
    assert data.layouts_only and data.num_episodes == 2 and data.routing.episode.tolist() == [0, 0, 1, 0]
    assert data.describe_size() == "2 layouts, 4 steps"
    assert not data.knows("carrying") and not data.knows("outcome") and data.knows("lpc")
    assert {k: len(g) for k, g in group_routing_data(data, "starting_room").items()} == {(0, 0): 3, (7, 0): 1}
    for name in ("carrying", "key_phase", "subgoal", "outcome", "mission_verb"):
        assert group_routing_data(data, name).dropped == 4


def test_inputs_are_left_as_they_were():
    routing, episodes = random_tables(5, [4, 4])
    before = copy.deepcopy((vars(routing), vars(episodes)))
    records = list(iter_records(routing, episodes))
    copied = copy.deepcopy(records)
    for data in ((routing, episodes), records):
        for name in GROUPINGS:
            group_routing_data(data, name)
        compute_grid_bounds(data)
        aggregate_routing_by_position(data, np.arange(8) < 5)
    np.testing.assert_equal((vars(routing), vars(episodes)), before)
    np.testing.assert_equal(records, copied)


def test_episodes_keep_their_numbers_in_a_subset():
    data = as_routing_data(random_tables(2, [2, 0, 3]))
    some = data.filter(data.routing.episode == 2)
    assert some.num_episodes == 1 and some.episodes_present.tolist() == [2] and len(some) == 3
    assert data.num_episodes == 2  # one has no steps
    np.testing.assert_array_equal(some.of_episode("steps"), [3, 3, 3])
    np.testing.assert_allclose(some.layer_lpc["layer_1"], some.routing.weights[1] @ [0.0, 64.0], rtol=1e-6)
    for nothing in ([], np.array([]), slice(0, 0), np.zeros(5, bool)):
        assert len(data.filter(nothing)) == 0


def test_the_largest_groups_stay_in_the_order_of_display_and_the_others_are_told():
    sizes = {"a": 3, "b": 5, "c": 4}
    groups = RoutingGroups("kind", {key: range(n) for key, n in sizes.items()}, {key: key for key in sizes}, 0, 12)
    assert groups.largest(2) == (["b", "c"], "1 smaller group not shown (3 steps)")
    assert groups.largest(3) == (["a", "b", "c"], "")
