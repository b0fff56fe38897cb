"""A comparison on a generated task: which rows there are, resumed runs, tables over seeds, charts."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import more.compare
from more.compare import CompareSettings, Run, compare, read_result, run_config
from more.intervals import estimate, format_estimate
from more.task_charts import draw_by_depth, draw_by_recurrences, plot_by_depth
from more.task_plan import DEEP_LR, DEFAULT_LR, TASK_VARIANTS, plan_rows
from more.task_tables import format_task_tables, tabulate
from pipeline.config import ConfigError

TINY = {"d_model": 16, "num_heads": 2, "batch_size": 4, "num_sequences": 32, "match": "none"}


def test_the_plan_has_every_model_once():
    settings = CompareSettings(preset="chains")
    runs = settings.runs()
    rows = plan_rows(TASK_VARIANTS, [1, 2, 4], [1, 4], None)
    assert len(runs) == 5 * len(rows) == 5 * (2 + 2 + 4 + 6 + 3 + 3 * 6)
    assert runs[0] == Run("base", 1, 0, 1, DEFAULT_LR)
    assert len({(run.row(), run.seed) for run in runs}) == len(runs)
    assert len({json.dumps(run_config(settings, run).resolve().identity(), sort_keys=True) for run in runs}) == len(
        runs
    )
    alone = plan_rows(["more_a_all"], [2], [1, 4], "0.003,0.001")
    assert [(row.experts, row.lr) for row in alone] == [(1, 3e-3), (1, 1e-3), (4, 3e-3), (4, 1e-3)]
    (deep,) = plan_rows(["base_deep"], [4], [1], None)
    assert deep.lr == DEEP_LR


def test_a_row_is_the_model_it_says():
    settings = CompareSettings(preset="chains", data="hops", match="operations", sample_recurrences=True)
    deep = run_config(settings, Run("base_deep", 4, 0, 1, 1e-3)).resolve()
    assert (deep.model_type, deep.num_layers, deep.num_recurrences, deep.lr, deep.data) == ("base", 4, 1, 1e-3, "hops")
    assert (deep.updates, run_config(settings, Run("base", 1, 0, 1, 1e-3)).updates) == (2000, 2000)
    attending = run_config(settings, Run("more_a_all", 2, 1, 4, 3e-3)).resolve()
    assert (attending.model_type, attending.expert_attention, attending.num_experts) == ("more_a", "all", 4)
    assert (attending.match, attending.sample_recurrences, attending.seed) == ("operations", True, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts": "2"}, "experts: expected --preset chains beside it, found debug"),
        ({"data": "hops"}, "data: expected --preset chains"),
        ({"preset": "chains", "experts": "0"}, "experts: expected numbers of at least 1, found '0'"),
        ({"preset": "chains", "variants": "base,more_x"}, "variants: expected all or some of base, base_deep, looped"),
        ({"preset": "chains", "lr": "0.1,x"}, "lr: expected numbers between 0 and 1"),
        ({"preset": "chains", "test_recurrences": "0-2"}, "^test_recurrences: expected numbers of at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, said):
    with pytest.raises(ConfigError, match=said):
        CompareSettings(**{"preset": "debug", **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison of four rows and three seeds, at a size that takes seconds."""
    folder = tmp_path_factory.mktemp("comparison")
    patch = pytest.MonkeyPatch()
    original = more.compare.run_config
    patch.setattr(more.compare, "run_config", lambda *run: dataclasses.replace(original(*run), **TINY))
    settings = CompareSettings(
        **{"preset": "chains", "variants": "base,looped,more_a_all", "seeds": "0-2", "recurrences": "2"},
        **{"experts": "1,2", "test_recurrences": "1-3", "updates": 2, "num_questions": 40},
        **{"folder": str(folder / "runs"), "cache_dir": str(folder)},
    )
    yield settings, folder / "table.json", compare(settings, folder / "table.json")
    patch.undo()


def test_a_comparison_on_a_task_is_done_once_and_tabulated(done, capsys):
    settings, output, code = done
    assert code == 0
    content = json.loads(output.read_text())
    found = [(row["variant"], row["experts"], row["seeds"], list(row["accuracy"])) for row in content["rows"]]
    seeds = [0, 1, 2]
    assert found == [
        *(("base", experts, seeds, ["1"]) for experts in (1, 2)),
        *(("looped", experts, seeds, ["1", "2", "3"]) for experts in (1, 2)),
        *(("more_a_all", experts, seeds, ["1", "2", "3"]) for experts in (1, 2)),
    ]
    row = content["rows"][5]
    results = [read_result(settings, Run("more_a_all", 2, seed, 2, DEFAULT_LR)) for seed in seeds]
    values = [result["evaluation"]["accuracy"]["2"]["3"] for result in results]
    assert row["accuracy"]["2"]["3"] == estimate(values)
    assert len(row["routing"]) == 3
    table = output.with_suffix(".md").read_text()
    assert table == format_task_tables(content)
    assert "latest literal" in table
    assert table.count("By r at test") == 2
    for lines in table.split("\n\n"):
        if lines.startswith("|"):
            assert len({line.count("|") for line in lines.splitlines()}) == 1
    charts = [output.with_name(f"table_{name}.png") for name in ("depth", "r")]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in charts)
    times = [path.stat().st_mtime_ns for path in output.parent.rglob("result.json")]
    assert len(times) == 18
    assert compare(settings, output) == 0  # nothing is done twice
    assert [path.stat().st_mtime_ns for path in output.parent.rglob("result.json")] == times
    with pytest.raises(ConfigError, match=r"other settings \(recurrences\)"):
        read_result(dataclasses.replace(settings, test_recurrences="1-4"), Run("base", 1, 0, 1, DEFAULT_LR))
    capsys.readouterr()


def test_of_several_learning_rates_the_one_that_is_best_on_validation_is_shown(done):
    settings, _, _ = done
    result = read_result(settings, Run("base", 1, 0, 1, DEFAULT_LR))

    def other(lr: float, seed: int, valid: float, share: float) -> dict:
        evaluation = {**result["evaluation"], "valid": valid}
        evaluation["accuracy"] = {"1": dict.fromkeys(evaluation["accuracy"]["1"], share)}
        return {**result, "lr": lr, "seed": seed, "evaluation": evaluation}

    (row,) = tabulate([other(0.1, 0, 0.9, 0.2), other(0.1, 1, 0.1, 0.2), other(0.2, 0, 0.6, 0.1)])["rows"]
    assert row["lr"] == 0.2
    assert row["rates"] == {"0.1": pytest.approx(0.5), "0.2": pytest.approx(0.6)}
    assert row["accuracy"]["1"]["3"]["mean"] == pytest.approx(0.1)  # the test, where 0.1 is better, chooses nothing


def test_a_result_from_before_a_setting_was_there_still_counts(done):
    settings, _, _ = done
    run = Run("base", 1, 2, 1, DEFAULT_LR)
    path = more.compare.run_folder(settings, run) / "result.json"
    before = path.read_text()
    result = json.loads(before)
    assert result["identity"].pop("expert_attention") == "all"  # of base, whose experts attend to nothing
    assert result["identity"].pop("text_file") is None
    path.write_text(json.dumps(result))
    assert read_result(settings, run) is not None
    result["identity"]["lr"] = 0.5
    path.write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"other settings \(lr\)"):
        read_result(settings, run)
    path.write_text(before)


def test_nothing_done_is_said():
    assert format_task_tables({"settings": {"match": "active"}, **tabulate([])}) == "No run is done yet.\n"


def test_charts_show_the_means_by_depth(done):
    content = json.loads(done[1].read_text())
    before = json.dumps(content)
    ax = Figure().subplots()
    rows = [content["rows"][2]]
    assert plot_by_depth(rows, content, ax=ax) is ax
    rule, line = ax.get_lines()
    expected = [found["mean"] for found in rows[0]["accuracy"]["2"].values()]
    assert line.get_ydata() == pytest.approx(expected)
    guessing = content["guessing"]
    best = max(guessing["majority"]["4"], guessing["heuristics"]["latest literal"]["4"])
    assert rule.get_ydata()[4] >= best
    assert json.dumps(content) == before
    grid = draw_by_depth(content).axes
    assert len(grid) == 6
    assert draw_by_recurrences({**content, "rows": content["rows"][:2]}) is None


def test_estimates_by_hand():
    found = estimate([0.2, 0.4, 0.9])
    half = 4.302653 * np.std([0.2, 0.4, 0.9], ddof=1) / 3**0.5
    assert found["high"] - found["mean"] == pytest.approx(half, rel=1e-5)
    assert estimate([1.0, 1.0, 1.0])["low"] is None
    assert format_estimate(estimate([1.0, 0.0]), "{:.2f}") == "0.50"
