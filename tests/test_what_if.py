"""One checkpoint intact and changed in a notebook: what is played, what is kept, what is told, what is drawn."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from babyai.facts import SUCCESS
from pipeline.command.errors import ConfigError
from pipeline.evaluation.fresh import evaluate_fresh
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.interventions.places import Where
from pipeline.places import find_checkpoints
from pipeline.records.cache import Cache, read_cache
from pipeline.records.played import Played
from pipeline.what_if import play
from pipeline.what_if.choices import build_dial, build_knockout, list_places
from plotting.browsing import attempt
from plotting.pairs import compare_groups, what_if_table
from plotting.source import source_of
from plotting.what_if import plot_what_if
from tests.figures import layout_problems, texts
from tests.notebooks import name_folders, write_trained
from tests.tables import random_tables
from tests.test_notebooks import as_arguments, run_app, start

SIZES = [[0, 8, 16], [8, 0]]
LEVELS = 6

pytestmark = pytest.mark.filterwarnings("default")  # whatever marimo and what it stands on warn about is theirs


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> dict[str, str]:
    return write_trained(tmp_path_factory.mktemp("place"), SIZES)


@pytest.fixture(scope="module")
def cache(flags) -> Cache:
    return read_cache(next(Path(flags["cache_dir"]).rglob("*.json")))


@pytest.fixture(scope="module")
def dialled(cache) -> tuple[Played, Played]:
    pair, problem = play.try_what_if(cache, build_dial(3.0, SIZES), LEVELS)
    assert problem == ""
    return pair


# -------------------------------------------------------------------------------------------------------------- choices


def test_every_size_and_every_expert_can_be_taken_out():
    places = list_places(SIZES)
    assert list(places)[:3] == ["all of size 16", "all of size 8", "all of skip"]
    assert len(places) == 3 + 5
    assert places["layer 1, expert 0 (size 8)"] == Where(experts=((1, 0),))
    knockout = build_knockout("all of size 8", "zero", SIZES, renormalise=True)
    assert (knockout.what, knockout.where, knockout.renormalise) == ("zero", Where(size=8), True)
    assert build_knockout("all of size 8", "mean", SIZES, renormalise=True).needs_donors
    with pytest.raises(ConfigError, match="place: expected one of all of size 16"):
        build_knockout("all of size 9", "zero", SIZES)
    with pytest.raises(ConfigError, match="what: expected"):
        build_knockout("all of size 8", "none", SIZES)


def test_strength_one_divides_the_largest_expert_s_weight_by_e():
    assert build_dial(1.0, SIZES).amount * 16**2 == 1.0
    assert build_dial(2.0, SIZES, exponent=1.0).amount * 16 == 2.0
    assert build_dial(1.0, [[0]]).amount == 1.0  # skips cost nothing


# --------------------------------------------------------------------------------------------------------------- played


def test_the_intact_policy_is_that_of_the_cache(cache, dialled):
    intact, changed = dialled
    steps = cache.routing.episode < LEVELS
    np.testing.assert_allclose(intact.routing.lpc, cache.routing.lpc[steps], rtol=1e-5)  # of which six digits are kept
    assert np.array_equal(intact.routing.action, cache.routing.action[steps])
    assert np.array_equal(intact.episodes.level_seed, cache.episodes.level_seed[:LEVELS])
    assert np.array_equal(changed.episodes.level_seed, intact.episodes.level_seed)
    assert (intact.kl == 0).all()
    assert changed.kl.max() > 0 and changed.routing.lpc.mean() < intact.routing.lpc.mean()


def test_where_actions_of_the_cache_were_drawn_the_intact_policy_draws_the_same(cache, flags, dialled):
    (found,) = find_checkpoints(flags["checkpoint_dir"])
    drawn = evaluate_fresh(found, EvaluationSettings(num_episodes=LEVELS, eval_actions="sample"))
    (intact, changed), problem = play.try_what_if(drawn, build_dial(3.0, SIZES), LEVELS)
    assert problem == ""
    assert np.array_equal(intact.routing.action, drawn.routing.action)
    assert not np.array_equal(intact.routing.action, dialled[0].routing.action)
    assert changed.routing.lpc.mean() < intact.routing.lpc.mean()


def test_a_dial_at_zero_and_a_knock_out_with_donors(cache, dialled):
    (intact, still), _ = play.try_what_if(cache, build_dial(0.0, SIZES), LEVELS)
    assert intact is dialled[0]
    assert np.abs(still.ce - intact.ce).max() < 1e-6 and np.abs(still.kl).max() < 1e-6
    assert np.array_equal(still.routing.action, intact.routing.action)
    for what in ("mean", "skip", "zero"):
        (_, out), problem = play.try_what_if(cache, build_knockout("all of size 16", what, SIZES), LEVELS)
        assert problem == "" and out.kl.max() > 0


def test_what_was_played_is_not_played_again(cache, dialled, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("played again")

    monkeypatch.setattr(play, "evaluate_grid", refuse)
    monkeypatch.setattr(play, "intervene", refuse)
    pair, _ = play.try_what_if(cache, build_dial(3.0, SIZES), LEVELS)
    assert pair[0] is dialled[0] and pair[1] is dialled[1]
    with pytest.raises(AssertionError, match="played again"):
        play.try_what_if(cache, build_dial(3.0, SIZES), LEVELS - 1)


def test_a_checkpoint_that_is_gone_is_looked_for_and_told_of(cache, flags, tmp_path):
    gone = replace(cache, header=cache.header | {"checkpoint_path": str(tmp_path / "gone.pt")})
    pair, problem = play.try_what_if(gone, build_dial(3.0, SIZES), LEVELS)
    assert pair is None and "gone.pt" in problem and "batch_eval.py" in problem and "\n" not in problem
    candidates = [place.path for place in find_checkpoints(flags["checkpoint_dir"])]
    pair, problem = play.try_what_if(gone, build_dial(3.0, SIZES), LEVELS, candidates=candidates)
    assert problem == "" and pair is not None


def test_other_weights_and_a_baseline_are_told_of(cache, tmp_path):
    other = replace(cache, header=cache.header | {"checkpoint_digest": "0" * 64})
    pair, problem = play.try_what_if(other, build_dial(3.0, SIZES), LEVELS)
    assert pair is None and "holds other weights" in problem and "batch_eval.py" in problem
    (tmp_path / "damaged.pt").write_bytes(b"no checkpoint")
    damaged = replace(cache, header=cache.header | {"checkpoint_path": str(tmp_path / "damaged.pt")})
    pair, problem = play.try_what_if(damaged, build_dial(3.0, SIZES), LEVELS)
    assert pair is None and "damaged.pt" in problem
    behind = [tmp_path / "damaged.pt", cache.header["checkpoint_path"]]
    pair, problem = play.try_what_if(damaged, build_dial(3.0, SIZES), LEVELS, candidates=behind)
    assert problem == "" and pair is not None
    assert "no routers" in play.try_what_if(cache, None, LEVELS)[1]


# ------------------------------------------------------------------------------------------------------------- compared


def make_pair() -> tuple[Played, Played]:
    """Two sides with made-up steps: the same levels, other outcomes, the bot's way of the first."""
    sides = []
    for number, outcomes in ((0, [1, 1, 1, 2]), (1, [1, 2, 2, 1])):
        routing, episodes = random_tables(number, [5, 9, 4, 7], SIZES)
        seeds = np.arange(4, dtype=episodes.level_seed.dtype)
        outcome = np.array(outcomes, episodes.outcome.dtype)
        sides.append((replace(episodes, outcome=outcome, level_seed=seeds), routing))
    (episodes, shown), ce = sides[0], np.arange(25, dtype=np.float32)
    return tuple(
        Played(name, *side, episodes, shown, ce=scale * ce, agrees=ce % 2 == 0, kl=(scale - 1) * ce)
        for name, side, scale in zip(("intact", "less"), sides, (1, 3), strict=True)
    )


def test_numbers_are_means_over_levels_and_changes_are_paired():
    intact, changed = make_pair()
    (pair,) = compare_groups(intact, changed)
    assert pair.success == (3, 2, 2, 1) and pair.levels == 4 and SUCCESS == 1
    rows = [intact.shown_routing.episode == e for e in range(4)]
    expected = np.mean([intact.ce[r].mean() for r in rows])
    assert pair.means["cross-entropy"] == pytest.approx((expected, 3 * expected))
    assert float(pair.changes["cross-entropy"].mean) == pytest.approx(2 * expected)
    lpc = [[side.routing.lpc[side.routing.episode == e].mean() for e in range(4)] for side in (intact, changed)]
    assert pair.means["LPC"] == pytest.approx(tuple(np.mean(lpc, axis=1)))
    table = what_if_table([pair])
    assert table["success"].tolist() == ["75.0% → 50.0% (2 lost, 1 gained)"]
    assert "group" not in table


def test_groups_of_steps_have_no_success_and_outcomes_none_of_the_bot():
    intact, changed = make_pair()
    by_step = compare_groups(intact, changed, "carrying")
    assert {pair.success for pair in by_step} == {None} and len(by_step) == 2
    by_outcome = compare_groups(intact, changed, "outcome")
    assert all(np.isnan(pair.means["cross-entropy"]).all() for pair in by_outcome)
    by_room = compare_groups(intact, changed, "starting_room")
    assert sum(pair.levels for pair in by_room) == 4
    assert np.sum([pair.success for pair in by_room], axis=0).tolist() == [3, 2, 2, 1]


def test_other_levels_and_lengths_that_do_not_fit_are_refused():
    intact, changed = make_pair()
    moved = replace(changed, episodes=replace(changed.episodes, level_seed=changed.episodes.level_seed + 1))
    with pytest.raises(ValueError, match="levels: expected the same"):
        compare_groups(intact, moved)
    with pytest.raises(ValueError, match=r"ce: expected shape \(25,\)"):
        replace(intact, ce=intact.ce[:3])


def test_levels_of_which_no_step_is_in_a_group_are_told_of():
    """Of ten levels none may have what a hundred have; the tab showed a traceback."""
    intact, changed = make_pair()
    contexts = tuple({name: value for name, value in context.items() if name not in ("doors", "box_pos")}
                     for context in intact.episodes.env_context)  # fmt: skip
    pair = [replace(one, episodes=replace(one.episodes, env_context=contexts)) for one in (intact, changed)]
    figure, problem = attempt(partial(plot_what_if, *pair, "door_location"), None)
    assert figure is None and problem.startswith("no step of these levels is in a group: ")


def test_the_figure_says_whose_router_has_collapsed():
    intact, changed = make_pair()
    nothing = replace(changed, routing=replace(changed.routing, lpc=0 * changed.routing.lpc))
    words = texts(plot_what_if(intact, nothing))
    assert any("Changed: Collapsed router" in text for text in words)
    assert not any("ollapsed" in text for text in texts(plot_what_if(intact, changed)))
    assert not layout_problems(plot_what_if(nothing, nothing))


def test_the_figure_holds_both_sides_of_each_group():
    intact, changed = make_pair()
    for group_by, groups in (("overall", ["intact", "changed"]), ("carrying", None), ("outcome", None)):
        table = source_of(plot_what_if(intact, changed, group_by))
        assert table["steps"].sum() == len(intact.routing) + len(changed.routing)
        assert groups is None or table["group"].unique().tolist() == groups


# ------------------------------------------------------------------------------------------------------------ notebooks


def test_nothing_is_played_before_the_tab_is_opened(flags, monkeypatch):
    monkeypatch.setattr(play, "try_what_if", None)  # calling it would fail
    _, found = run_app("routing_viz", flags)
    assert found["pair"] is None and found["pair_problem"] == ""
    assert list(found["figures"]) == ["routing_heatmap"]


def test_the_tab_shows_the_dial_with_its_numbers(flags):
    _, found = run_app("routing_viz", flags, all_views=True)
    assert found["pair_problem"] == ""
    (name,) = [name for name in found["figures"] if name.startswith("routing_what_if_")]
    assert name == "routing_what_if_complexity_dial_\u03bb_0_00391_by_overall"
    assert any("cross-entropy to the bot" in part for part in found["parts"])
    assert importlib.import_module("routing_viz").TABS["What if"] == []


@pytest.mark.slow
def test_a_page_shows_the_default_setting(flags, tmp_path):
    page = tmp_path / "page.html"
    done = start("routing_viz.py", "--", *as_arguments("routing_viz", flags), "--all_views", "--page", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    assert "routing what if" in page.read_text(encoding="utf-8")


def test_a_cache_without_its_checkpoint_says_what_to_do(flags, tmp_path):
    copy = name_folders(tmp_path) | {"cache_dir": flags["cache_dir"]}
    path = next(Path(flags["checkpoint_dir"]).rglob("*.pt"))
    hidden = path.rename(tmp_path / "hidden.pt")
    try:
        _, found = run_app("routing_viz", copy, all_views=True)
    finally:
        hidden.rename(path)
    assert found["pair"] is None and "is gone" in found["pair_problem"]
    assert any("is gone" in part for part in found["parts"])
