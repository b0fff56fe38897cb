"""The declaration of columns: what follows from it, and that one more column needs nothing but its line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from babyai.facts import DIRECTION_NAMES
from pipeline.records.columns import CODE_NAMES, EPISODE_COLUMNS, EPISODES, FIRST_EVENTS, STEP_COLUMNS, STEPS, Column
from pipeline.records.documents import PAGE, SCHEMA, build_property, update_page, update_schema
from pipeline.records.plain import from_plain, to_plain

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("path", "update"), [(PAGE, update_page), (SCHEMA, update_schema)])
def test_documents_are_those_of_the_declaration(path, update):
    """If not, run `python -m pipeline.records.documents`."""
    text = path.read_text(encoding="utf-8")
    assert update(text) == text


def test_names_and_keys_are_unique():
    for columns in (STEPS, EPISODES):
        keys = [key for column in columns for key in column.keys]
        assert len(set(keys)) == len(keys)
        assert len({column.name for column in columns}) == len(columns)
    assert set(FIRST_EVENTS) <= set(STEPS) & set(EPISODES)


@pytest.mark.parametrize("column", [*STEP_COLUMNS.values(), *EPISODE_COLUMNS.values()], ids=lambda column: column.name)
def test_every_column_survives_plain_values(column):
    names = ("none", "some", "more") if column.names else ()
    codes = np.array([2, 1, column.fill, 2] if column.dtype.kind == "i" else [1, 0, column.fill, 1])
    if column.dtype.kind == "U":
        values = ("a", "b", column.fill, "c")
    elif column.labels:
        values = np.array([*column.labels, column.fill], column.dtype)
    elif column.shape and len(column.keys) == 1:
        values = np.array([[1, 2], [3, 4]], column.dtype)
    else:
        values = codes.astype(column.dtype)
    codes = {None: column.fill, "some": 1, "more": 2} if names else None
    plain = json.loads(json.dumps(to_plain(column, values, names)))
    found = from_plain(column, plain, codes)
    np.testing.assert_array_equal(found, values, strict=column.dtype.kind != "U")
    hides = column.required or column.dtype.kind == "b" or (column.shape and len(column.keys) == 1)
    assert (None in plain) == (not hides)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (Column("a", np.int8, "", ""), [1, 128], "a: expected numbers between -128 and 127, found 128"),
        (Column("a", np.int64, "", ""), [-1, 2**63], "a: expected numbers between"),
        (Column("a", np.int8, "", ""), [1, True], "whole numbers"),
        (Column("a", np.int8, "", "", shape=(2,)), [[1, None]], "whole numbers"),
        (Column("a", np.int8, "", "", shape=(2,)), [[1, 2], [3]], "2 numbers, found lists of"),
        (Column("a", np.float32, "", ""), [1e39], "finite"),
        (Column("a", np.float32, "", ""), ["1"], "a: expected numbers"),
        (Column("a", bool, "", ""), [2], "a: expected one of null, False, True"),
        (Column("a", str, "", ""), [b"x"], "texts or null"),
        (Column("a", np.int8, "", "", labels={1: "won"}), ["lost"], "one of null, won, found 'lost'"),
        (Column("a", np.int8, "", "", labels={1: "won"}), [["won"]], "plain values"),
    ],
    ids=str,
)
def test_values_that_are_not_as_declared_are_refused(column, values, message):
    with pytest.raises(ValueError, match=message):
        from_plain(column, values)


def test_schema_of_a_column():
    assert build_property(STEP_COLUMNS["direction"]) == {
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": len(DIRECTION_NAMES) - 1,
    }
    assert build_property(EPISODE_COLUMNS["outcome"]) == {"enum": ["success", "failure", "timeout", None]}
    assert build_property(STEP_COLUMNS["door_unlocked"]) == {"type": ["boolean", "null"]}
    assert {build_property(STEP_COLUMNS[name])["type"][0] for name in CODE_NAMES} == {"string"}


ONE_LINE_MORE = """
import dataclasses, json, sys, types
from pathlib import Path

# A column of a step, one of codes, and one of an episode; nothing else of the project is changed.
source = Path("pipeline/records/columns.py").read_text(encoding="utf-8")
for place, line in (
    ("STEPS = (\\n    Column(", 'Column("pressure", np.float32, "air pressure", "world", "hPa")'),
    ("STEPS = (\\n    Column(", 'Column("weather", np.int8, "outside", "world", names="weather_names", null="none")'),
    ("EPISODES = (\\n    Column(", 'Column("luck", np.int32, "of the agent", "world")'),
):
    assert source.count(place) == 1
    source = source.replace(place, place.removesuffix("Column(") + line + ",\\n    Column(")
columns = types.ModuleType("pipeline.records.columns")
sys.modules[columns.__name__] = columns
exec(compile(source, "columns.py", "exec"), columns.__dict__)

import numpy as np
from jsonschema import Draft202012Validator

from pipeline.evaluation import tally
from pipeline.records.cache import read_cache, write_cache
from pipeline.records.documents import PAGE, SCHEMA, update_page, update_schema
from pipeline.records.metrics import compute_metrics
from pipeline.records.tables import EpisodeTable, RoutingTable
from plotting.data import as_routing_data
from tests.tables import assert_same_episodes, assert_same_steps, random_tables

path = Path(sys.argv[1]) / "routing_data.json"
routing, episodes = random_tables(3, [9, 3, 8])
assert routing.pressure.dtype == np.float32 and np.isnan(routing.pressure).any() and (routing.pressure == 1).any()
assert routing.weather_names == ("none", "some") and episodes.luck.dtype == np.int32 and (episodes.luck >= 0).any()

header = {"checkpoint_path": "c.pt", "evaluated_at": "2026-01-02T03:04:05+00:00"}
metrics = compute_metrics(episodes, bot_plan_failures=0)
write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=routing)
cache = read_cache(path)
assert_same_steps(cache.routing, routing, rtol=1e-5)
assert_same_episodes(cache.episodes, episodes)
assert_same_steps(RoutingTable.concatenate([routing, routing]).select(slice(0, 20)), routing)
assert_same_episodes(EpisodeTable.concatenate([episodes, episodes]).select([0, 1, 2]), episodes)

pressure = [None if np.isnan(value) else float(value) for value in routing.pressure]
weather = [None if code < 0 else routing.weather_names[code] for code in routing.weather]
records = list(cache.records())
assert [record["pressure"] for record in records] == pressure
assert [record["weather"] for record in records] == weather
for data in (as_routing_data(cache), as_routing_data(records)):
    assert data.knows("pressure") and data.knows("weather")
    assert list(data.records())[0]["weather"] == weather[0]
assert as_routing_data(cache).knows("luck")

frame = cache.routing.to_frame()
assert [None if value != value else value for value in frame["pressure"].tolist()] == pressure
assert [None if value != value else value for value in frame["weather"].tolist()] == weather
luck = cache.episodes.to_frame()["luck"]
assert luck.dtype == "Int32" and luck.fillna(-1).tolist() == episodes.luck.tolist()

content = json.loads(path.read_text(encoding="utf-8"))
Draft202012Validator(json.loads(update_schema(SCHEMA.read_text(encoding="utf-8")))).validate(content)
assert "| `pressure` | float | float32 | hPa | world | air pressure |" in update_page(PAGE.read_text(encoding="utf-8"))
assert list(content["routing_data"][0])[:2] == ["weather", "pressure"]

for step in content["routing_data"]:
    del step["pressure"], step["weather"]
for key in ("unknown_columns", "weather_names"):
    del content[key]
path.write_text(json.dumps(content), encoding="utf-8")  # as it was before there was such a column
assert read_cache(path).routing.unknown == {"pressure", "weather"}

def row(k):  # what evaluation observes of a step of one environment, the new columns among it
    values = {name: getattr(routing, name)[k : k + 1] for name in columns.STEP_COLUMNS if name != "episode"}
    return {**values, "active": np.array([True]), "number": routing.episode[k : k + 1],
            "weights": [weights[k : k + 1] for weights in routing.weights]}

played = tally.Tally(1)
played.numbers = [0, 1, 2]
names = {"subgoal_names": tally.SUBGOAL_NAMES, "event_names": tally.EVENT_NAMES, "object_names": tally.OBJECT_NAMES}
tally.RoutingTable = lambda **found: RoutingTable(**found, weather_names=("none", "some"))
built = tally.build_routing_table([row(k) for k in range(20)], played, [0, 1, 2], routing.expert_hidden_sizes)
assert_same_steps(dataclasses.replace(built, **{name: getattr(routing, name) for name in names}), routing)
"""


def test_one_more_column_needs_its_line_and_its_value(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ONE_LINE_MORE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
