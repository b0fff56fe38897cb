"""What goes in and what is refused: traces from tables and files, effects, results; bad input is named."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from pipeline.records.cache import write_cache
from pipeline.records.effects import COLUMNS as EFFECT_COLUMNS
from pipeline.records.effects import EffectTable, write_effects
from pipeline.records.effects import build_effects as build_effect_table
from pipeline.records.tables import EpisodeTable, RoutingTable
from science import complexity, distinctness, knockouts, pathways, price, sufficiency
from science.effects import Condition, Effects, read_effects
from science.planted_effects import build_effects, plant_knockouts, plant_thresholds
from science.reading import Played, build_traces, read_caches, read_traces, write_traces
from science.result import COLUMNS, Draft
from science.synthetic import Design, draw_template, plant_constant, plant_noisy_policy, plant_signal
from science.traces import Run, TraceError, Traces, collapsed_layers, group_means
from tests.tables import random_tables

RUN = Run("UnlockPickup", "alpha 0", 1, 0)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def template() -> Traces:
    return draw_template(Design(runs=4, episodes=12, shortest=6, longest=9), rng())


@pytest.fixture(scope="module")
def tables() -> tuple[RoutingTable, EpisodeTable]:
    return random_tables(0, [5, 3, 7, 4])


def write(path, routing, episodes):
    header = {"checkpoint_path": "c.pt", "evaluated_at": "2026-01-01T00:00:00"}
    write_cache(path, header=header, metrics={}, episodes=episodes, routing=routing)
    return path


def assert_same_traces(a: Traces, b: Traces) -> None:
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray) and name in Traces.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(b, name), value, err_msg=name)
    assert (a.runs, a.sizes, a.levels, a.source) == (b.runs, b.sizes, b.levels, b.source)
    assert a.groups.keys() == b.groups.keys()
    for name, group in a.groups.items():
        assert group.names == b.groups[name].names
        np.testing.assert_array_equal(group.codes, b.groups[name].codes)


# -------------------------------------------------------------------------------------------------- tables and files


def test_traces_of_a_cache_are_its_columns(tmp_path, tables):
    routing, episodes = tables
    path = write(tmp_path / "routing_data.json", routing, episodes)
    traces, missing = read_caches([(RUN, path)], source="P")
    assert missing == {} and traces.sizes == ((0, 16, 32), (0, 8)) and traces.levels == ("UnlockPickup",)
    np.testing.assert_array_equal(traces.time, routing.t_step)
    np.testing.assert_allclose(traces.weights[:, 1, :2], routing.weights[1], rtol=1e-5, atol=1e-6)
    assert (traces.weights[:, 1, 2] == 0).all() and not traces.experts[1, 2]
    np.testing.assert_array_equal(traces.level_seed, episodes.level_seed)
    np.testing.assert_array_equal(traces.success, episodes.outcome == 1)
    assert traces.group("level_subgoal").names == ("UnlockPickup: GoNextTo", "UnlockPickup: Open")
    cell = traces.group("cell")
    for step, code in enumerate(cell.codes):
        assert cell.names[code] == "({}, {})".format(*routing.position[step])
    assert traces.group("start_room").names == ("(0, 0)",)


def test_phases_are_what_has_happened_before(tables):
    routing, episodes = tables
    phase = build_traces([Played(RUN, episodes, routing)], source="P").group("phase")
    for step, code in enumerate(phase.codes):
        episode = routing.episode[step]
        happened = [
            word
            for word, at in zip(
                ("picked", "unlocked", "dropped"),
                (episodes.t_pick[episode], episodes.t_unlocked[episode], episodes.t_drop[episode]),
                strict=True,
            )
            if 0 <= at < routing.t_step[step]
        ]
        assert phase.names[code] == (", ".join(happened) or "nothing yet")


def test_one_run_on_two_level_families_is_one_run(tables):
    routing, episodes = tables
    observation = np.arange(len(routing)) % 3
    both = [Played(RUN, episodes, routing, level, observation) for level in ("GoToObj", "Pickup")]
    traces = build_traces(both, source="R")
    assert len(traces.runs) == 1 and traces.levels == ("GoToObj", "Pickup") and len(traces.episode_run) == 8
    np.testing.assert_array_equal(np.bincount(traces.level), [19, 19])
    assert "GoToObj: Open" in traces.group("level_subgoal").names and len(traces.group("observation").names) == 3


def test_caches_that_cannot_be_used_are_named_and_the_rest_is_read(tmp_path, tables):
    routing, episodes = tables
    good = write(tmp_path / "good.json", routing, episodes)
    bad = tmp_path / "bad.json"
    bad.write_text(good.read_text()[:200])
    other = replace(RUN, seed=1)
    empty = write(tmp_path / "empty.json", None, episodes)
    third = replace(RUN, seed=2)
    traces, missing = read_caches([(RUN, good), (other, bad), (third, empty), (replace(RUN, seed=3), tmp_path / "no")],
                                  source="P")  # fmt: skip
    assert traces.runs == (RUN,) and len(missing) == 3
    assert "truncated" in missing[other.name] and "expected steps" in missing[third.name]
    with pytest.raises(TraceError, match="none that can be used"):
        read_caches([(other, bad)], source="P")


def test_a_baseline_has_no_routers(tables):
    routing, episodes = random_tables(0, [3], sizes=[])
    with pytest.raises(TraceError, match="is it a baseline"):
        build_traces([Played(RUN, episodes, routing)], source="P")


def test_files_of_traces_and_effects_come_back_as_they_were(tmp_path, template):
    planted = plant_noisy_policy(plant_signal(template, rng(), own=0.05), rng())
    write_traces(tmp_path / "t.npz", planted)
    assert_same_traces(read_traces(tmp_path / "t.npz"), planted)
    effects = plant_knockouts(template, rng(), rng().random((4, 9)), by_group=np.zeros((4, 9, 4)))
    write_effects(tmp_path / "e.npz", as_record(effects))
    found = read_effects(tmp_path / "e.npz")
    assert repr(found.conditions) == repr(effects.conditions) and found.runs == effects.runs
    for name in ("run", "level_seed", "condition", "group", "ce", "success", "lpc"):
        np.testing.assert_array_equal(getattr(found, name), getattr(effects, name).astype(getattr(found, name).dtype))


def as_record(effects: Effects) -> EffectTable:
    """Return effects as interventions write them; what is not known is null."""
    names = set(EFFECT_COLUMNS) & {field.name for field in fields(Effects)}
    conditions = [{k: None if v != v else v for k, v in asdict(entry).items()} for entry in effects.conditions]
    header = {"source": effects.source, "conditions": conditions, "groups": list(effects.groups)}
    header["runs"] = [asdict(run) for run in effects.runs]
    return build_effect_table({name: getattr(effects, name) for name in names}, header)


def test_what_interventions_tell_is_read_and_what_they_do_not_is_unknown(tmp_path):
    """Null for what does not apply, keys that are not known, no LPC, runs without setting."""
    header = {
        "source": "P", "mode": "closed_loop", "task": "T", "setting": None, "groups": [],
        "conditions": [{"name": "d", "kind": "dial", "lambda": 0.5, "layer": None, "control_of": None, "where": {}}],
        "runs": [{"trial": 1, "seed": 3, "lpc_alpha": 0.1}],
    }  # fmt: skip
    table = build_effect_table({"run": [0, 0], "condition": [0, 0], "group": [-1, -1], "level_seed": [4, 5]}, header)
    write_effects(tmp_path / "e.npz", table)
    found = read_effects(tmp_path / "e.npz")
    assert found.conditions[0].tau == 0.5 and found.conditions[0].layer == -1 and np.isnan(found.lpc).all()
    assert found.runs == (Run("T", "", 1, 3, lpc_alpha=0.1),)
    write_effects(tmp_path / "e.npz", replace(table, header={**header, "source": None, "conditions": [{"kind": "d"}]}))
    with pytest.raises(TraceError, match=r"e\.npz: expected effects .*'name'; intervene again"):
        read_effects(tmp_path / "e.npz")


@pytest.mark.parametrize("read", [read_traces, read_effects])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"text"])
def test_files_that_are_none_are_named(tmp_path, read, content):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=r"x\.npz: expected .* again"):
        read(path)


def test_an_archive_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    for read in (read_traces, read_effects):
        with pytest.raises(TraceError, match=r"x\.npz: expected"):
            read(tmp_path / "x.npz")


# -------------------------------------------------------------------------------------------------------- structure


def test_runs_are_selected_and_put_together_again(template):
    planted = plant_signal(template, rng(), own=0.05)
    parts = [planted.select([run]) for run in range(4)]
    assert_same_traces(Traces.concatenate(parts), planted)
    back = planted.select([2, 0])
    assert [run.seed for run in back.runs] == [2, 0]
    np.testing.assert_array_equal(back.weights[back.run == 0], planted.weights[planted.run == 2])
    assert planted.select(range(4)) is planted


def test_cells_of_a_study_are_told_apart():
    priced = draw_template(Design(runs=2, episodes=6), rng(), alphas=(0.0, 0.1))
    cells = list(priced.cells())
    assert [[run.lpc_alpha for run in cell.runs] for cell in cells] == [[0, 0], [0.1, 0.1]]


def test_means_go_from_steps_to_episodes_to_groups(template):
    planted = plant_signal(template, rng(), own=0.05)
    codes = planted.group("subgoal").codes
    means, episodes = group_means(planted, codes, 5)
    assert np.isnan(means[:, 4]).all() and (episodes[:, 4] == 0).all()
    inside = (planted.run == 1) & (codes == 2)
    each = [planted.weights[inside & (planted.episode == e)].mean(axis=0) for e in np.unique(planted.episode[inside])]
    np.testing.assert_allclose(means[1, 2], np.mean(each, axis=0), rtol=1e-5)
    assert episodes[1, 2] == len(each)
    many, _ = group_means(planted, codes * 400, 2000)  # the other way of counting
    np.testing.assert_allclose(many[:, ::400][:, :4], means[:, :4])
    assert not collapsed_layers(means[:, :4]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": np.zeros(3, np.int32)}, "time: expected shape"),
        ({"runs": ()}, "runs: expected at least one"),
        ({"sizes": ((0, 16, 32),)}, "weights: expected shape"),
    ],
)
def test_traces_that_do_not_fit_are_refused(template, change, message):
    with pytest.raises(TraceError, match=message):
        replace(template, **change)


def test_runs_of_other_experts_are_not_mixed(template):
    other = draw_template(Design(runs=1, episodes=4, sizes=((0, 8),)), rng())
    with pytest.raises(TraceError, match=r"sizes: expected .* analyse them apart"):
        Traces.concatenate([template, other])
    with pytest.raises(TraceError, match="group: expected one of"):
        template.group("colour")


def test_effects_of_several_tables_become_one(template):
    effects = plant_knockouts(template, rng(), rng().random((4, 9)))
    joined = Effects.concatenate([effects.select([0, 1]), effects.select([2, 3])])
    assert repr(joined.conditions) == repr(effects.conditions) and joined.runs == effects.runs
    np.testing.assert_allclose(joined.matrix("ce", range(10)), effects.matrix("ce", range(10)))
    np.testing.assert_allclose(joined.matrix("ce", [3])[:, 0], joined.per_run("ce", 3))
    with pytest.raises(TraceError, match="tables of one source"):
        Effects.concatenate([effects, replace(effects, source="P")])
    with pytest.raises(TraceError, match="condition: expected 0 to 9"):
        replace(effects, condition=effects.condition + 1)


# ---------------------------------------------------------------------------------------------------------- results


def test_results_are_tidy_and_the_same_bytes_each_time(template):
    planted = plant_signal(template, rng(), own=0.05)
    first, second = (pathways.compute(planted, draws=19) for _ in range(2))
    assert tuple(first.to_frame().columns) == COLUMNS
    assert first.to_csv() == second.to_csv()
    assert first.definition.startswith("Consistency: do runs")
    with pytest.raises(LookupError, match="has consistency, "):
        first.row("consistence")


def test_p_values_are_adjusted_within_their_families_only():
    draft = Draft("test", "A test.")
    for family, p in (("a", 0.01), ("a", 0.04), ("b", 0.04), ("", 0.04)):
        draft.add("x", 1.0, p=p, family=family)
    assert [row.p_adjusted for row in draft.finish().rows[:3]] == pytest.approx([0.02, 0.04, 0.04])
    assert np.isnan(draft.finish().rows[3].p_adjusted)


# --------------------------------------------------------------------------------------------------------- bad input


def analyse(traces: Traces, effects: Effects):
    yield pathways.compute(traces, draws=9, effects=effects)
    yield distinctness.compute(traces, draws=9, effects=effects)
    yield knockouts.compute(effects, traces)
    yield sufficiency.compute(effects)
    yield price.compute(traces, draws=9, effects=effects)
    yield complexity.compute(traces, draws=9, effects=effects, min_steps=5)


def knock(traces: Traces) -> Effects:
    return plant_knockouts(traces, rng(), 0.1 * rng().random((len(traces.runs), 9)), noise=0.1)


def test_what_was_seen_on_two_levels_has_no_test(template):
    """Runs agree on what is particular to these levels: a test over runs alone would call that an effect."""
    runs = template.runs[:8]
    for levels in (1, 2, 3):
        draft = Draft("knockouts", "")
        table = np.random.default_rng(0).normal(0.5, 0.01, (len(runs), levels))
        row = draft.over_both("effect_on_ce", table, runs, family="f")
        assert row.unit == "runs+levels" and row.value == pytest.approx(0.5, abs=0.05)
        assert np.isfinite([row.p, row.low, row.high, row.p_floor]).tolist() == [levels == 3] * 4


def test_one_run_gives_values_and_no_test(template):
    one = plant_noisy_policy(plant_signal(template, rng(), own=0.05), rng()).select([0])
    for result in analyse(one, knock(one)):
        assert all(np.isnan(row.p) for row in result.rows if row.unit.startswith("runs")), result.analysis
    assert distinctness.compute(one, draws=9).find("path_information", unit="run")[0].p > 0
    assert "needs two runs" in " ".join(pathways.compute(one).notes)


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("diverged", lambda t: replace(t, runs=(replace(t.runs[0], diverged=True), *t.runs[1:]))),
        (
            "routing weights that are not finite",
            lambda t: replace(t, weights=np.where((t.run == 0)[:, None, None], np.nan, t.weights)),
        ),
        ("no steps", lambda t: _without_steps(t)),
    ],
)
def test_a_run_that_cannot_be_used_is_left_out_by_name(template, reason, spoil):
    sound = plant_noisy_policy(plant_signal(template, rng(), own=0.05), rng())
    for result in analyse(spoil(sound), knock(sound)):
        if result.analysis == "sufficiency":
            continue
        dropped = {(entry.run.seed, entry.reason) for entry in result.dropped}
        assert (0, reason) in dropped, result.analysis
        assert not any(entry.run.seed and entry.reason == reason for entry in result.dropped)
    row = distinctness.compute(spoil(sound), draws=0).row("path_information")
    assert (row.n_runs, row.n_dropped, row.drop_reason) == (3, 1, reason)
    worst = distinctness.compute(spoil(sound), draws=0).row("path_information", estimator="worst")
    assert worst.value == pytest.approx(row.value * 3 / 4)


def _without_steps(traces: Traces) -> Traces:
    steps = traces.run != 0
    of_step = ("episode", "time", "weights", "logits", "action", "bot_action", "lpc")
    groups = {name: replace(group, codes=group.codes[steps]) for name, group in traces.groups.items()}
    return replace(traces, groups=groups, **{name: getattr(traces, name)[steps] for name in of_step})


def test_collapsed_routers_give_no_tracebacks(template):
    constant = plant_constant(template, rng())
    results = {result.analysis: result for result in analyse(constant, knock(constant))}
    assert np.isnan(results["pathways"].row("consistency").value)
    assert results["price"].row("collapsed", layer=0).value == 1
    assert any("two prices" in note for note in results["price"].notes)


def test_groups_that_nobody_has_are_named(template):
    nobody = replace(
        template, groups={name: replace(g, codes=np.full_like(g.codes, -1)) for name, g in template.groups.items()}
    )
    results = {result.analysis: result for result in analyse(nobody, knock(nobody))}
    assert results["pathways"].row("consistency").n_dropped == 4
    assert "no steps in any group" in results["distinctness"].row("path_information").drop_reason
    assert "0 cells of 5 steps" in results["complexity"].row("lpc_entropy").drop_reason


def test_lpc_that_is_not_known_is_named(template):
    planted = plant_noisy_policy(plant_signal(template, rng(), own=0.05), rng())
    found = complexity.compute(replace(planted, lpc=np.full_like(planted.lpc, np.nan)), draws=9, min_steps=5)
    assert found.row("lpc_entropy").drop_reason == "LPC not known"


def test_effects_without_knockouts_or_with_holes_are_named(template):
    planted = plant_signal(template, rng(), own=0.05)
    nothing = build_effects(template.runs, np.arange(3), [Condition("sham", "sham")], np.zeros((4, 1, 3)))
    assert any("three knock-outs" in note for note in knockouts.compute(nothing, planted).notes)
    assert any("no random_direction" in note for note in knockouts.compute(knock(planted), planted).notes)
    effects = knock(planted)
    keep = (effects.run != 1) | (effects.condition != 3)
    columns = ("run", "level_seed", "condition", "group", "steps", "success", "success_intact", "agreement")
    columns += ("agreement_intact", "ce", "ce_intact", "kl", "lpc")
    holes = replace(effects, **{name: getattr(effects, name)[keep] for name in columns})
    row = knockouts.compute(holes, planted).row("audit")
    assert (row.n_runs, row.n_dropped, row.drop_reason) == (3, 1, "knock-outs missing")
    replayed = replace(plant_thresholds(template, rng(), [1.0], [1.0], [0.1]), source="R")
    assert any("there is no success" in note for note in sufficiency.compute(replayed).notes)


def test_a_seed_that_no_price_changes_has_no_trend_and_counts():
    """It was left out, so that the seeds that do lose success stood for all."""
    priced = draw_template(Design(runs=4, episodes=6), rng(), alphas=(0.0, 0.1, 1.0))
    success = np.ones_like(priced.success)
    found = price.compute(replace(priced, source="P", success=success), draws=99).row("price_trend_of_success")
    assert (found.value, found.n_runs, found.n_dropped, found.p) == (0.0, 4, 0, 1.0)
    loses = [i for i, run in enumerate(priced.runs) if run.seed == 0 and run.lpc_alpha == 1.0]
    success[np.isin(priced.episode_run, loses)] = 0.5
    found = price.compute(replace(priced, source="P", success=success), draws=99).row("price_trend_of_success")
    assert found.value == pytest.approx(-(0.75**0.5) / 4) and found.n_runs == 4  # ranks 1.5 1.5 0 against prices


def test_prices_that_are_missing_or_double_are_named():
    priced = draw_template(Design(runs=3, episodes=6), rng(), alphas=(0.0, 0.1, 1.0))
    found = price.compute(priced.select([0, 1, 2, 3, 4, 6, 7, 8]), draws=9)
    assert any("no run of seed 2 at 0.1" in note for note in found.notes)
    assert found.row("price_trend_of_lpc").drop_reason == "not at every price"
    double = Traces.concatenate([priced, priced.select([0])])
    assert any("has the price and seed of" in note for note in price.compute(double, draws=9).notes)
    paid = price.compute(priced.select(range(3, 9)), draws=9)
    assert any("half prices need price 0" in note for note in paid.notes)
