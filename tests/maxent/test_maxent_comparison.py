"""Methods at equal rollouts and at equal new tokens, by hand."""

from maxent.comparison import compare_runs, format_scores, format_table


def build_run(method, *samples):
    """Return a part of results; each sample is a list of (reward, new tokens so far)."""
    return {
        "model": "toy",
        "display_name": "Toy",
        "method": method,
        "samples": [{"rollouts": [{"reward": r, "total_new_tokens": t} for r, t in sample]} for sample in samples],
    }


def test_equal_rollouts_and_equal_tokens_by_hand():
    cheap = build_run("dts", [(0.1, 4), (0.2, 5), (0.8, 6)], [(0.0, 4), (0.4, 8), (0.5, 9)])
    dear = build_run("best_of_n", [(0.3, 5), (0.9, 10)], [(0.6, 6), (0.2, 12)], [(1.0, 1), (1.0, 2)])
    first, second = compare_runs([cheap, dear, build_run("mcts")])
    assert first["rollouts"] == second["rollouts"] == 2  # the third sample is not in both, nor is mcts
    assert (first["at_rollouts"].value, second["at_rollouts"].value) == ((0.2 + 0.4) / 2, (0.9 + 0.6) / 2)
    assert first["tokens"] == (6 + 9) / 2
    assert (first["at_tokens"].value, second["at_tokens"].value) == ((0.8 + 0.5) / 2, (0.3 + 0.6) / 2)
    assert (first["new_tokens"].value, second["new_tokens"].value) == (7.5, 11)
    assert first["at_rollouts"].n == 2 and first["at_rollouts"].low is None


def test_one_answer_sets_no_bound_and_what_does_not_fit_is_left_open():
    single = build_run("greedy", *[[(0.5, 40)]] * 5)
    many = build_run("dts", *[[(0.1 * place, 10), (0.2, 20)] for place in range(5)])
    first, second = compare_runs([single, many])
    assert (first["rollouts"], second["rollouts"]) == (1, 2)
    assert first["tokens"] == 20 and first["at_tokens"] is None
    assert second["at_rollouts"].low <= second["at_rollouts"].value <= second["at_rollouts"].high
    lines = format_table([first, second])
    assert lines[0].split("  ")[0] == "model" and "at 2 rollouts" in lines[0] and "at 20 new tokens" in lines[0]
    assert "0.500 [0.500, 0.500] (of 1)  -" in lines[1]
    assert lines[-1] == "means over 5 samples, 95 % bootstrap intervals"
    assert compare_runs([]) == [] == format_table([])


def test_scores_are_told_where_there_are_any():
    def score(value, low=None, high=None):
        return {"value": value, "low": low, "high": high, "n": 6}

    done = {**build_run("dts"), "scores": {"accuracy": score(0.5, 0.25, 0.75), "kappa": score(None)}}
    assert format_scores([done, build_run("mh")]) == ["answers of Toy, dts: accuracy 0.500 [0.250, 0.750]"]
