"""Verdicts on declared claims."""

import math

import numpy as np
import pandas as pd
import pytest

from science.claims import COLUMNS, compute_equivalence, judge, mark_old
from science.config import Claim
from science.result import Draft
from science.statistics.inference import compare_over_both, compare_with_margin
from science.traces import Run

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.05, 10)


def table(quantity="audit", null=math.nan, **cells) -> pd.DataFrame:
    """Return tidy rows of runs of each task, by name of the task."""
    draft = Draft("knockouts", "")
    for task, values in cells.items():
        runs = [Run(task, "alpha=0", 1, seed) for seed in range(len(values))]
        draft.over_runs(quantity, np.asarray(values, np.float64), runs, null=null)
    return draft.finish().to_frame()


def verdict(claim: Claim, rows: pd.DataFrame | None, others: int = 0) -> tuple[str, str]:
    tables = {} if rows is None else {"knockouts": rows}
    found = judge([claim, *[Claim("pathways.consistency", task=str(i)) for i in range(others)]], tables, 0.05)
    whole = found[found["part"] == "all"].iloc[0]
    return whole["verdict"], whole["why"]


def claim(direction="greater", **settings) -> Claim:
    return Claim("knockouts.audit", direction, **settings)


@pytest.mark.parametrize(
    ("direction", "margin", "mean", "expected"),
    [
        ("greater", None, 0.5, "supported"),
        ("less", None, 0.5, "contradicted"),
        ("less", None, -0.5, "supported"),
        ("greater", None, -0.5, "contradicted"),
        ("differs", None, -0.5, "supported"),
        ("greater", None, 0.0, "undecided"),
        ("greater", 0.2, 0.0, "equivalent"),
        ("greater", 0.2, 0.1, "equivalent"),  # significant, and of no size
        ("greater", 0.2, 0.5, "supported"),
        ("none", 0.2, 0.0, "supported"),
        ("none", 0.2, 0.5, "contradicted"),
        ("none", 0.001, 0.0, "undecided"),
    ],
)
def test_verdicts(direction, margin, mean, expected):
    rows = table(A=mean + NOISE - NOISE.mean())
    assert verdict(claim(direction, margin=margin), rows)[0] == expected


def test_what_is_compared_with_is_the_null_where_there_is_one():
    rows = table(null=0.5, A=0.5 + NOISE - NOISE.mean())
    assert verdict(claim(margin=0.2), rows)[0] == "equivalent"
    assert verdict(claim("less"), table(null=0.9, A=0.5 + NOISE))[0] == "supported"


def test_a_claim_holds_if_every_part_does():
    assert verdict(claim(), table(A=0.5 + NOISE, B=0.6 + NOISE))[0] == "supported"
    assert verdict(claim(), table(A=0.5 + NOISE, B=NOISE - NOISE.mean()))[0] == "undecided"
    word, why = verdict(claim(), table(A=0.5 + NOISE, B=-0.5 + NOISE))
    assert (word, why) == ("undecided", "its parts point to different sides")
    assert verdict(claim(task="A"), table(A=0.5 + NOISE, B=-0.5 + NOISE))[0] == "supported"
    assert verdict(claim(alpha=0.0), table(A=0.5 + NOISE))[0] == "supported"
    assert verdict(claim(alpha=1e-5), table(A=0.5 + NOISE))[0] == "undecided"


def test_parts_are_told_and_the_largest_p_counts():
    rows = table(A=0.5 + NOISE, B=0.05 + NOISE - NOISE.mean())
    found = judge([claim()], {"knockouts": rows}, 0.05)
    assert list(found.columns) == list(COLUMNS) and list(found["part"]) == ["all", "A", "B"]
    assert found["p"].iloc[0] == found["p"].iloc[1:].max()


def test_p_is_adjusted_over_the_claims():
    rows = pd.concat([table(A=0.5 + NOISE), table("dose", A=0.5 + NOISE)])
    claims = [claim(), Claim("knockouts.dose")]
    found = judge(claims, {"knockouts": rows}, 0.05)
    whole = found[found["part"] == "all"]
    assert whole["p"].tolist() == [2 / 1024] * 2 and whole["p_adjusted"].tolist() == [4 / 1024] * 2
    many = judge([claim()] * 30, {"knockouts": rows}, 0.05)  # 30 x 0.002 > 0.05: so few runs cannot decide so much
    assert set(many[many["part"] == "all"]["verdict"]) == {"undecided"}


def test_what_cannot_be_decided_says_why():
    assert "takes 3 runs or more" in verdict(claim(), table(A=[0.5, 0.6]))[1]
    assert "no such number" in verdict(claim(), None)[1]
    assert "no test: it takes" in verdict(claim(), table(A=[math.nan] * 5))[1]


def test_single_runs_and_the_worst_case_decide_nothing():
    draft = Draft("knockouts", "")
    runs = [Run("A", "alpha=0", 1, seed) for seed in range(10)]
    values = np.where(np.arange(10) < 9, 0.5 + NOISE, np.nan)
    draft.over_runs("audit", values, runs, worst=-9.0)
    found = judge([claim()], {"knockouts": draft.finish().to_frame()}, 0.05)
    assert found["verdict"].iloc[0] == "supported" and found["n_dropped"].iloc[0] == 1
    assert len(found) == 2


def test_beyond_the_margin_is_tested_too():
    """An effect as large as the margin contradicts that there is none in no more studies than the level allows."""
    rng, told = np.random.default_rng(1), 0
    for _ in range(200):
        told += verdict(claim("none", margin=0.2), table(A=0.2 + rng.normal(0, 0.1, 10)))[0] == "contradicted"
    assert told <= 12


def test_runs_that_agree_exactly_say_nothing_of_an_effect_that_is_none():
    word, why = verdict(claim("none", margin=0.2), table(A=[0.0] * 10))
    assert word == "undecided" and "not all equal" in why


def test_equivalence_over_runs_is_the_usual_pair_of_one_sided_tests():
    row = table(A=0.1 + NOISE).query("unit == 'runs'").iloc[0]
    expected = compare_with_margin(0.1 + NOISE, 0.12).p
    assert compute_equivalence(row, 0.12, 0.0) == pytest.approx(expected, rel=1e-9) and 0.01 < expected < 0.2


def test_equivalence_of_runs_that_share_their_levels_counts_the_levels():
    """Runs that agree on each level look exact over runs; over levels they are not."""
    harm = np.random.default_rng(3).normal(0, 0.2, 20)[None] + np.random.default_rng(4).normal(0, 1e-3, (10, 20))
    harm -= harm.mean()
    draft = Draft("knockouts", "")
    draft.over_both("audit", harm, [Run("A", "alpha=0", 1, seed) for seed in range(10)])
    assert compare_with_margin(harm.mean(axis=1), 0.05).p < 1e-9 < 0.05 < compare_over_both(harm).within(0.05)
    row = draft.finish().to_frame().query("unit == 'runs+levels'").iloc[0]
    assert compute_equivalence(row, 0.05, 0.0) >= compare_over_both(harm).within(0.05)


def test_a_study_without_claims_has_none_to_mark():
    assert list(mark_old(judge([], {}, 0.05), ["knockouts"]).columns) == list(COLUMNS)
