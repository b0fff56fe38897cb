"""Transfer: what is compared, how censoring is told, known answers, figures."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.checkpoints import save_checkpoint
from pipeline.config import TrainConfig
from pipeline.parts import part_of
from pipeline.training.batch import ReplicaBatch
from pipeline.training.loop import run_update
from science import transfer
from science.arms import SCRATCH
from science.calibration import compute as calibrate
from science.figures.draw import draw_analysis
from science.levels import ALL_TASKS
from science.planted_transfer import BUDGET, TRANSFER, plant_learning
from science.synthetic import Design
from science.traces import Run
from science.transfer import COMPARISONS, QUANTITIES, Learned, compute

NEVER = float("inf")


def learn(**arms: list[float]) -> list[Learned]:
    """Return times of runs of one level, by arm; underscores stand for blanks."""
    return [
        Learned(Run("New", "alpha=0", 1, seed), arm.replace("_", " "), steps)
        for arm, times in arms.items()
        for seed, steps in enumerate(times)
        if not np.isnan(steps)
    ]


def values(result, quantity: str, **wanted) -> list[float]:
    return [row.value for row in result.find(quantity, unit="run", task="New", **wanted)]


# ---------------------------------------------------------------------------------------------------------- exact cases


def test_gains_are_doublings_and_bounds_say_what_the_budget_cut():
    found = compute(
        learn(scratch=[400, 800, NEVER, 200, NEVER], router=[100, 800, 250, NEVER, NEVER]), budget=1000, success=0.8
    )
    assert values(found, "gain_router") == pytest.approx([2, 0, 2, np.log2(200 / 1000), np.nan], nan_ok=True)
    rows = found.find("gain_router", unit="run", task="New")
    assert [(row.low == row.value, row.high == row.value) for row in rows] == [
        *((False, False), (False, False), (True, False), (False, True), (False, False)),
    ]
    assert rows[4].drop_reason == "neither: no success of 0.8 within 1,000 env-steps"
    mean = found.row("gain_router", task="New")
    assert mean.value == pytest.approx((2 + 0 + 2 + np.log2(0.2)) / 4) and (mean.n_runs, mean.n_dropped) == (4, 1)
    worst = found.row("gain_router", task="New", estimator="worst")
    assert worst.value == pytest.approx(mean.value * 4 / 5) and "included at 0" in worst.drop_reason
    assert {row.quantity for row in found.rows} == {"gain_router", "steps_to_learn", "learned"}


def test_who_is_there_as_soon_as_it_can_be_told_may_have_been_there_sooner():
    entries = learn(scratch=[400, 400, 400, 100, NEVER], router=[100, 100, 100, 400, 100])
    early = {("router", 0), ("router", 1), (SCRATCH, 1), (SCRATCH, 3), ("router", 4)}
    entries = [dataclasses.replace(entry, at_once=(entry.arm, entry.run.seed) in early) for entry in entries]
    rows = compute(entries, budget=1000).find("gain_router", unit="run", task="New")
    assert [(row.low == row.value, row.high == row.value) for row in rows] == [
        *((True, False), (False, False), (False, False), (False, True), (True, False)),
    ]


def test_a_run_that_was_not_trained_is_no_run_that_never_learned():
    found = compute(learn(scratch=[400, 400, np.nan], router=[100, np.nan, 100]), budget=1000)
    assert values(found, "gain_router") == pytest.approx([2, np.nan, np.nan], nan_ok=True)
    assert found.row("gain_router", task="New").drop_reason == "an arm was not trained"
    assert not found.find("gain_router", estimator="worst")
    assert found.row("learned", task="New", condition=SCRATCH).n_runs == 2


def test_a_twin_takes_out_what_an_untrained_part_can_do():
    found = compute(
        learn(
            router=[100, 200, NEVER],
            experts=[400, 200, NEVER],
            untrained_router=[800, NEVER, NEVER],
            untrained_experts=[200, 500, NEVER],
        ),
        budget=1000,
    )
    assert values(found, "router_against_experts") == pytest.approx([2, 0, np.nan], nan_ok=True)
    assert values(found, "router_against_experts_above_untrained") == pytest.approx([2 + 2, 0 + 1, np.nan], nan_ok=True)
    assert values(found, "gain_router_above_untrained") == pytest.approx([3, np.log2(5), np.nan], nan_ok=True)
    assert found.row("router_against_experts", task="New").twin == "router_against_experts_above_untrained"


def test_times_are_told_with_medians_and_shares():
    found = compute(learn(scratch=[100, 300, NEVER], head=[NEVER, NEVER, 50]), budget=1000)
    assert found.row("steps_to_learn", task="New", unit="runs", condition=SCRATCH).value == 300
    head = found.row("steps_to_learn", task="New", unit="runs", condition="head")
    assert np.isnan(head.value) and head.n_dropped == 2
    share = found.row("learned", condition="head")
    assert share.value == pytest.approx(1 / 3) and 0 < share.low < 1 / 3 < share.high < 1


def test_runs_with_the_same_value_prove_no_more_than_their_signs():
    """A t test has no spread to go by; without this, three runs of one coarse log would be certain."""
    found = compute(learn(scratch=[400] * 3, router=[100] * 3), budget=1000)
    for task in ("New", ALL_TASKS):
        row = found.row("gain_router", task=task)
        assert (row.value, row.p, row.p_floor) == (pytest.approx(2), 0.25, 0.25)
    ten = compute(learn(scratch=[400] * 10, router=[100] * 10), budget=1000)
    assert ten.row("gain_router", task="New").p == pytest.approx(2 / 2**10)


def test_arms_exchanged_change_the_sign_and_nothing_else():
    rng = np.random.default_rng(0)
    learned = plant_learning(rng, runs=9, levels=4, ahead={"router": 1.0})
    other = {SCRATCH: "router", "router": SCRATCH}
    one, two = (
        compute(entries, budget=BUDGET)
        for entries in (learned, [dataclasses.replace(e, arm=other.get(e.arm, e.arm)) for e in learned])
    )
    for row in one.find("gain_router"):
        if row.unit != "run" and row.estimator != "worst":
            back = two.row("gain_router", task=row.task)
            assert (back.value, back.p, back.n_runs) == (pytest.approx(-row.value), pytest.approx(row.p), row.n_runs)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="found 2000"):
        compute(learn(scratch=[2000]), budget=1000)
    with pytest.raises(ValueError, match="found it twice"):
        compute(learn(scratch=[100]) * 2, budget=1000)


def test_success_from_the_start_is_noted():
    entries = [dataclasses.replace(entry, at_once=entry.run.seed < 2) for entry in learn(router=[100, 100, 200])]
    assert compute(entries, budget=1000).notes == (
        "New, router: 2 of 3 runs have that success as soon as it can be told: they may have needed fewer steps",
    )


# ---------------------------------------------------------------------------------------------------- known answers


def test_planted_times_are_found_and_every_quantity_has_a_name_and_a_definition():
    learned = plant_learning(np.random.default_rng(3), runs=7, levels=60, ahead={"router": 1.0}, own=0.0, budget=1e12)
    found = compute(learned, budget=1e12)
    assert found.row("gain_router", task=ALL_TASKS).value == pytest.approx(1.0, abs=0.1)
    assert found.row("gain_experts", task=ALL_TASKS).value == pytest.approx(0.0, abs=0.1)
    assert {row.quantity for row in found.rows} == set(QUANTITIES) == {*COMPARISONS, "steps_to_learn", "learned"}
    assert [quantity for quantity in QUANTITIES if quantity not in (transfer.__doc__ or "")] == []
    short = 2.0**16.5
    cut = [dataclasses.replace(entry, steps=entry.steps if entry.steps <= short else NEVER) for entry in learned]
    cut = compute(cut, budget=short)
    worst = cut.row("gain_router", task=ALL_TASKS, estimator="worst")
    assert 0.5 < worst.value < cut.row("gain_router", task=ALL_TASKS).value
    assert worst.value < 0.9 * found.row("gain_router", task=ALL_TASKS).value and "included at 0" in worst.drop_reason


def watch(settings: list[TrainConfig], updates: int) -> tuple[ReplicaBatch, list[float]]:
    """Return runs after so many updates, and env-steps until each had success 0.9 over its last 50 episodes."""
    batch, found = ReplicaBatch(settings, announce=lambda line: None), [NEVER] * len(settings)
    while batch.update < updates:
        run_update(batch)
        if batch.update % 4 == 0:
            for replica, row in enumerate(batch.take_metrics()):
                done = row["rollout/window_episodes"] >= 50 and row["rollout/success_rate"] >= 0.9
                found[replica] = min(found[replica], batch.env_steps if done else NEVER)
    return batch, found


def test_what_was_lost_is_learned_again_where_it_was(tmp_path):
    """Of trained policies the head alone is drawn anew: the head has the level back, and routers cannot."""
    sizes = {"intermediate_dim": 16, "expert_hidden_sizes": [[8, 8]], "router_hidden_size": 8, "lang_dim": 8}
    speed = {"num_envs": 16, "unroll_len": 16, "lr": 5e-3, "action_selection": "sample", "window": 50}
    about = {"task_id": "BabyAI-GoToRedBallNoDists-v0", "policy": "mop", "lang_encoder": "builtin", "device": "cpu"}
    base = TrainConfig(**sizes, **speed, **about)
    seeds, updates = (0, 1, 2), 40
    batch, scratch = watch([dataclasses.replace(base, seed=seed) for seed in seeds], 120)
    others = ReplicaBatch([dataclasses.replace(base, seed=seed + 100) for seed in seeds], announce=lambda line: None)
    for replica, seed in enumerate(seeds):
        fresh = others.content(replica)["policy_state_dict"]
        weights = batch.content(replica)["policy_state_dict"]
        weights |= {name: value for name, value in fresh.items() if part_of(name) == "head"}
        save_checkpoint(tmp_path / f"{seed}.pt", {**batch.content(replica), "policy_state_dict": weights})
    begin = {"start_from": str(tmp_path / "{seed}.pt")}
    arms = {
        part: watch([dataclasses.replace(base, seed=s, train_only=[part], **begin) for s in seeds], updates)[1]
        for part in ("head", "router")
    }
    budget = updates * 16 * 16
    arms["scratch"] = [steps if steps <= budget else NEVER for steps in scratch]
    assert max(arms["head"]) < min(scratch) and arms["router"] == [NEVER] * 3
    found = compute(learn(**arms), budget=budget)
    assert found.row("gain_head", task="New").value > 0
    assert found.row("learned", condition="head").value == 1 and found.row("learned", condition="router").value == 0


@pytest.mark.parametrize("levels", [1, 4])
def test_arms_that_are_alike_are_told_apart_as_often_as_the_level_says(levels):
    """40 data sets of each claim; of 5 %, 7 or more of 40 are the binomial's last 0.4 %."""
    for quantity, test in TRANSFER.items():
        p = []
        for number in range(40):
            setup = SimpleNamespace(rng=np.random.default_rng(number), planted=False, held_out=levels)
            setup.template = SimpleNamespace(runs=range(10))
            p.append(test(setup)[0].p)
        assert sum(value <= 0.05 for value in p) < 7, quantity


def test_the_card_has_the_claims():
    card = calibrate(Design(runs=10, episodes=4), claims=["transfer.gain_router"], datasets=30)
    assert card.row("recovery", group="transfer.gain_router").value > 0.4
    assert card.row("estimate", group="transfer.gain_router").null_mean == 2.0


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_show_every_level_arm_and_run():
    learned = plant_learning(np.random.default_rng(1), runs=5, levels=11, ahead={"router": 1.0})
    table = compute(learned, budget=BUDGET).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", table, QUANTITIES, [[0, 8]])}
    assert list(drawn) == ["transfer_steps_1", "transfer_steps_2", "transfer_gains"]
    first = drawn["transfer_steps_1"].axes[0]
    arms = [text.get_text() for text in first.get_yticklabels()]
    assert arms[:5] == ["scratch", "router", "experts", "head", "all"]
    own = table[(table["quantity"] == "steps_to_learn") & (table["task"] == "Planted0") & (table["unit"] == "run")]
    shown = sum(len(line.get_xdata()) for line in first.lines if line.get_marker() == "o")
    assert shown == own["value"].notna().sum()
    lost = sum(len(line.get_xdata()) for line in first.lines if line.get_marker() == ">")
    assert lost == own["value"].isna().sum() > 0
    gains = drawn["transfer_gains"].axes
    assert len(gains) == 3 and len(gains[0].get_yticklabels()) == 12
    assert all(low <= 0 <= high for low, high in (ax.get_xlim() for ax in gains))


def test_one_level_has_no_line_for_all_of_them_and_no_arm_no_panel():
    found = compute(learn(scratch=[400, 300, 200], head=[100, 200, 300]), budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    assert len(drawn["transfer_gains"].axes) == 1
    assert [text.get_text() for text in drawn["transfer_gains"].axes[0].get_yticklabels()] == ["New"]


def test_means_that_leave_levels_out_are_hollow():
    """Nobody learned the second of three levels: the mean over levels is hollow as that of this level's would be."""
    times = learn(scratch=[400, 300, 200], head=[100, 110, 120])
    learned = [
        dataclasses.replace(entry, run=dataclasses.replace(entry.run, task=level), steps=steps)
        for level in "ABC"
        for entry in times
        for steps in (NEVER if level == "B" else entry.steps,)
    ]
    found = compute(learned, budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    (ax,) = drawn["transfer_gains"].axes
    faces = {
        round(line.get_ydata()[0]): line.get_markerfacecolor() for line in ax.lines if line.get_markersize() == 3.4
    }
    assert faces.keys() == {0, 1, 2, 3}
    assert (faces[3] == "white") and faces[0] != "white" and faces[2] != "white"


def test_bounds_are_drawn_as_bounds():
    """Scratch never learned it in the first run, the head in the last: at least, and at most, so much sooner."""
    never = float("inf")
    found = compute(learn(scratch=[never, 300, 200], head=[100, 200, never]), budget=1000).to_frame()
    drawn = {figure.name: figure.figure for figure in draw_analysis("transfer", found, {}, [[0, 8]])}
    (ax,) = drawn["transfer_gains"].axes
    small = {line.get_marker(): line.get_xdata().tolist() for line in ax.lines if line.get_markersize() == 1.5}
    assert small == {
        ">": [pytest.approx(np.log2(10))],
        "<": [pytest.approx(np.log2(200 / 1000))],
        "o": [pytest.approx(np.log2(1.5))],
    }
