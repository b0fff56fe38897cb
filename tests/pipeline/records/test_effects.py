"""The table of effects, and its file."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.records.effects import (
    COLUMNS,
    EffectsError,
    EffectTable,
    build_effects,
    read_effects,
    write_effects,
)

DOCS = Path(__file__).parents[3] / "docs"
HEADER = {"source": "R", "conditions": [{"name": "sham"}, {"name": "zero"}], "runs": [{"seed": 3}], "groups": ["Open"]}


@pytest.fixture
def table() -> EffectTable:
    columns = {"run": [0, 0, 0], "condition": [0, 1, 1], "level_seed": [5, 5, 2**32 - 1], "group": [-1, -1, 0]}
    return build_effects({**columns, "kl": [0, 0.5, 0.25], "steps": [4, 4, 2]}, HEADER)


def test_columns_that_are_not_given_are_unknown(table):
    assert len(table) == 3
    assert np.isnan(table.success).all() and (table.length == -1).all()
    for name, (dtype, _) in COLUMNS.items():
        assert getattr(table, name).dtype == dtype


def test_what_is_read_is_what_was_written_and_the_same_table_gives_the_same_bytes(table, tmp_path):
    write_effects(tmp_path / "a.npz", table)
    again = read_effects(tmp_path / "a.npz")
    assert again.header == table.header
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), strict=True)
    write_effects(tmp_path / "b.npz", again)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_frames_name_conditions_and_groups(table):
    frame = table.to_frame()
    assert frame.condition.tolist() == ["sham", "zero", "zero"]
    assert frame.group.tolist() == ["all", "all", "Open"]
    assert table.select(table.condition == 1).to_frame().kl.tolist() == [0.5, 0.25]


def test_tables_of_other_runs_are_joined(table):
    joined = EffectTable.concatenate([table, table])
    assert joined.run.tolist() == [0, 0, 0, 1, 1, 1]
    assert joined.header["runs"] == [{"seed": 3}, {"seed": 3}]
    other = build_effects({"run": [0], "condition": [0]}, {**HEADER, "source": "P"})
    with pytest.raises(ValueError, match="found other source"):
        EffectTable.concatenate([table, other])
    with pytest.raises(ValueError, match="at least one"):
        EffectTable.concatenate([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition": [0, 2, 0]}, "condition: expected 0 to 1, found 0 to 2"),
        ({"group": [-2, 0, 0]}, "group: expected -1 to 0, found -2 to 0"),
        ({"kl": [0.0]}, r"kl: expected float32 \(3,\), found float32 \(1,\)"),
    ],
)
def test_columns_that_do_not_fit_are_named(table, change, message):
    columns = {name: getattr(table, name) for name in COLUMNS}
    with pytest.raises(ValueError, match=message):
        build_effects({**columns, **change}, HEADER)


def test_a_header_without_its_lists_is_refused(table):
    with pytest.raises(ValueError, match="header: expected a list under groups, found None"):
        build_effects({"run": [0]}, {"conditions": [], "runs": []})


def test_files_that_cannot_be_used_are_told_in_one_message(table, tmp_path):
    path = tmp_path / "e.npz"
    with pytest.raises(EffectsError, match=r"No such file.*Expected a file of write_effects"):
        read_effects(path)
    write_effects(path, table)
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(EffectsError, match="Expected a file of write_effects"):
            read_effects(path)
    np.savez(path, header="{}", run=np.zeros(3))
    with pytest.raises(EffectsError, match="nothing under agreement, "):
        read_effects(path)
    np.savez(path, **{name: getattr(table, name) for name in COLUMNS}, header="[1]")
    with pytest.raises(EffectsError, match="its header is no mapping"):
        read_effects(path)
    columns = {name: getattr(table, name) for name in COLUMNS}
    np.savez(path, **{**columns, "run": np.array([object()] * 3)}, header="{}")
    with pytest.raises(EffectsError, match="Expected a file"):
        read_effects(path)


def test_the_page_says_what_the_columns_are():
    text = (DOCS / "interventions.md").read_text(encoding="utf-8")
    table = text.partition("| column | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    meanings = {name: meaning.replace("||", "\\|\\|") for name, (_, meaning) in COLUMNS.items()}
    assert table.splitlines() == [f"| `{name}` | {meaning} |" for name, meaning in meanings.items()]
