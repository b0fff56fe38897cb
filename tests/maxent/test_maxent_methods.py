"""All methods on one interface: what they record, what they pay, when they stop, and what each is known for."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from maxent.dts_implementation.models.sequence_model import Cost, Prior, ToyModel, enumerate_answers
from maxent.dts_implementation.search.maxent_ts import run_waves, search
from maxent.dts_implementation.search.policies import WIDENING, PaperPolicy
from maxent.dts_implementation.search.result import METHODS, Rollout, SearchResult, SearchSettings
from maxent.dts_implementation.search.session import Session
from maxent.dts_implementation.search.tree import OPEN
from maxent.rewards.result import Answer, RewardResult
from tests.maxent_toys import PLAIN, WatchedModel, make_reward

SETTINGS = SearchSettings(num_rollouts=40, max_tokens=6, prior=PLAIN, lam=0.2)
every_method = pytest.mark.parametrize("method", METHODS)
every_wave = pytest.mark.parametrize("wave", [1, 7, None])


def run(method: str, *, model=None, reward=None, prompt: str = "a prompt", **changes) -> SearchResult:
    settings = replace(SETTINGS, method=method, **changes)
    return search(model or WatchedModel(ToyModel()), prompt, reward or make_reward(), settings)


def strip(result: SearchResult) -> list[Rollout]:
    return [replace(rollout, seconds=0.0) for rollout in result.rollouts]


# ------------------------------------------------------------------------------------------------------------ records


@every_method
@every_wave
def test_rollouts_are_what_the_model_and_the_reward_say(method, wave):
    log_probs = dict(enumerate_answers(ToyModel(), "a prompt", PLAIN, SETTINGS.max_tokens))
    result = run(method, wave=wave)
    assert len(result.rollouts) == (1 if method in ("greedy", "sample") else 40)
    assert [rollout.index for rollout in result.rollouts] == list(range(1, len(result.rollouts) + 1))
    for rollout in result.rollouts:
        assert 0 not in rollout.tokens[:-1]  # nothing after the end token
        assert rollout.ended == (rollout.tokens[-1] == 0)
        assert rollout.ended or len(rollout.tokens) == SETTINGS.max_tokens
        assert math.isclose(rollout.log_p, log_probs[rollout.tokens], abs_tol=1e-12)
        assert math.isclose(sum(rollout.token_log_probs), rollout.log_p, abs_tol=1e-12)
        assert rollout.text == ToyModel().decode(rollout.tokens)
        again = make_reward()(Answer(rollout.tokens, rollout.text, rollout.ended, rollout.log_p))
        assert (rollout.reward, rollout.parts) == (again.total, again.parts)
        assert result.tree.find_tokens(rollout.leaf) == rollout.tokens
        assert result.tree.value[rollout.leaf] == rollout.reward
        assert (rollout.log_q is not None) == (method in ("dts", "best_of_n", "sample"))
    best = [rollout.best_so_far for rollout in result.rollouts]
    assert best == np.maximum.accumulate(result.rewards).tolist()
    assert result.best.reward == best[-1]  # the answer and its reward are of one rollout
    seen = set()
    for rollout in result.rollouts:
        assert rollout.repeated == (rollout.tokens in seen)
        seen.add(rollout.tokens)


@every_method
@every_wave
def test_nothing_is_counted_twice_and_nothing_is_left_out(method, wave):
    model = WatchedModel(ToyModel())
    asked = []
    reward = make_reward()

    def watch(answer: Answer) -> RewardResult:
        asked.append(answer.tokens)
        return reward(answer)

    result = run(method, model=model, reward=watch, wave=wave)
    tree, cost, rollouts = result.tree, result.cost, result.rollouts
    inner = [node for node in range(1, len(tree)) if tree.column[node] >= 0]
    assert cost.prefill == len("a prompt")
    assert cost.new == len(inner) == len(model.prefixes) - 1 == tree.columns - 1
    assert [model.prefixes[tree.column[node]] for node in inner] == [tree.find_tokens(node) for node in inner]
    assert cost.recomputed == 0
    assert sum(rollout.new_tokens for rollout in rollouts) == cost.new == rollouts[-1].total_new_tokens
    assert sum(rollout.nodes for rollout in rollouts) == len(tree) - 1
    assert cost.reward_calls == len(asked) == len(set(asked)) == sum(not rollout.repeated for rollout in rollouts)
    alone = sum(len(rollout.tokens) - 1 for rollout in rollouts)  # what each would have fed by itself
    assert alone == cost.reused + sum(tree.visits[node] > 0 for node in inner)
    assert cost.seconds > 0
    assert tree.visits[0] == len(rollouts)
    for node in range(len(tree)):
        if tree.visits[node] and tree.children[node]:
            below = list(tree.children[node].values())
            assert tree.visits[node] == sum(tree.visits[child] for child in below)
            assert math.isclose(tree.total[node], sum(tree.total[child] for child in below), abs_tol=1e-9)
        if tree.status[node] != OPEN:
            assert not tree.children[node] and tree.column[node] < 0
    seen = {0}
    for rollout, count in zip(rollouts, np.cumsum([rollout.new_tokens for rollout in rollouts]), strict=True):
        assert rollout.total_new_tokens == count
        path = set(tree.find_path(rollout.leaf)) - seen
        if method != "beam":  # what is shared counts for the first
            assert (rollout.nodes, rollout.new_tokens) == (len(path), sum(tree.column[node] >= 0 for node in path))
        seen |= path


@every_method
@every_wave
def test_the_same_seed_gives_the_same_search(method, wave):
    for answer in ("max", "sample"):
        one, same = run(method, wave=wave, seed=3, answer=answer), run(method, wave=wave, seed=3, answer=answer)
        assert strip(one) == strip(same)
        assert (one.answer, one.chain, one.stopped) == (same.answer, same.chain, same.stopped)
        assert replace(one.cost, seconds=0) == replace(same.cost, seconds=0)
    if method not in ("greedy", "beam"):
        assert strip(one) != strip(run(method, wave=wave, seed=4))


def test_rollouts_are_told_in_order_as_they_enter():
    told = []
    result = search(ToyModel(), "", make_reward(), SETTINGS, on_rollout=told.append)
    assert tuple(told) == result.rollouts


@every_method
def test_a_simulator_ends_answers_by_itself(method):
    """Logits that are -inf throughout end the answer after the token just fed, which then counts as fed."""
    result = run(method, model=WatchedModel(ToyModel(eos=None), ends=5))
    ended = [rollout for rollout in result.rollouts if rollout.ended]
    assert all(sum(rollout.tokens) % 5 == 0 for rollout in ended)
    assert all(sum(tokens) % 5 for r in result.rollouts for tokens in (r.tokens[:n] for n in range(1, len(r.tokens))))
    assert all(len(rollout.tokens) == SETTINGS.max_tokens for rollout in result.rollouts if not rollout.ended)
    assert result.cost.new == result.tree.columns - 1
    assert len(ended) > 5 or method in ("greedy", "sample", "beam")


# ----------------------------------------------------------------------------------------------------------- the model


@every_method
def test_a_long_prompt_leaves_the_length_of_answers_alone(method):
    """The limit once counted the prompt: a tree of one node."""
    result = run(method, model=WatchedModel(ToyModel(scale=0.3)), prompt="x" * 2000)
    assert result.cost.prefill == 2000
    assert result.max_tokens == SETTINGS.max_tokens
    if method not in ("greedy", "sample"):
        assert len(result.tree.children[0]) > 1
        assert max(rollout.branch_depth for rollout in result.rollouts) > 1 or method in ("beam", "best_of_n")


@every_method
def test_answers_end_where_the_model_has_no_more_room(method):
    result = run(method, model=WatchedModel(ToyModel(eos=None), limit=3))
    assert result.max_tokens == 3
    assert {len(rollout.tokens) for rollout in result.rollouts} == {3}
    assert {len(rollout.tokens) for rollout in run(method, max_tokens=1).rollouts} == {1}


def test_a_model_without_any_room_is_refused():
    with pytest.raises(ValueError, match="shorten the prompt"):
        run("dts", model=WatchedModel(ToyModel(), limit=0))


@every_method
def test_a_step_that_does_not_fit_is_halved(method):
    small = WatchedModel(ToyModel(), rows=3)
    assert strip(run(method, wave=12)) == strip(run(method, wave=12, model=small))
    assert small.largest <= 3


def test_a_single_row_that_does_not_fit_is_an_error_and_the_wave_is_closed():
    model = WatchedModel(ToyModel(), rows=0)
    with pytest.raises(MemoryError):
        run("dts", model=model)
    assert not model.is_open


def test_prefixes_that_rollouts_share_are_fed_together_once():
    model = WatchedModel(ToyModel(eos=None))
    result = run("best_of_n", model=model, num_rollouts=50)
    assert model.waves == 1
    assert result.cost.forwards == 1 + SETTINGS.max_tokens - 1  # the prompt, and each depth once
    assert result.cost.new < 50 * (SETTINGS.max_tokens - 1)
    assert {rollout.wave for rollout in result.rollouts} == {1}


def test_reward_that_is_no_number_ends_the_search():
    with pytest.raises(ValueError, match="finite total"):
        run("dts", reward=lambda answer: RewardResult(math.nan))


# ---------------------------------------------------------------------------------------------------------- stopping


@every_method
@pytest.mark.parametrize("budget", [5, 33, 200])
def test_budget_is_used_up_and_never_exceeded(method, budget):
    model = WatchedModel(ToyModel(8, eos=None, scale=0.3))
    result = run(method, model=model, num_rollouts=2000, budget_tokens=budget)
    longest = SETTINGS.max_tokens - 1
    assert result.cost.new <= budget
    if method in ("greedy", "sample"):
        assert (result.stopped, result.cost.new) == ("rollouts", longest)
    else:
        assert result.stopped == "budget"
        assert method == "beam" or result.cost.new > budget - longest  # a beam is narrow where it starts


@every_method
def test_budget_has_to_hold_one_answer(method):
    with pytest.raises(ValueError, match=r"budget_tokens: expected at least 5, .* found 4"):
        run(method, budget_tokens=4)


@pytest.mark.parametrize("method", ["dts_star", "mcts"])
@pytest.mark.parametrize("wave", [1, 50])
def test_climbers_stop_when_everything_was_tried(method, wave):
    result = run(method, model=ToyModel(3), num_rollouts=5000, max_tokens=4, wave=wave)
    assert result.stopped == "exhausted"
    distinct = {rollout.tokens for rollout in result.rollouts}
    assert len(distinct) == len(enumerate_answers(ToyModel(3), "", PLAIN, 4)) == 31
    assert wave > 1 or len(result.rollouts) == 31  # each once


@pytest.mark.parametrize("budget", [None, 500])
def test_a_beam_with_room_for_every_answer_has_tried_everything(budget):
    count = len(enumerate_answers(ToyModel(3), "", PLAIN, 4))
    for room, stopped in ((count + 1, "exhausted"), (count, "rollouts"), (count - 1, "rollouts")):
        result = run("beam", model=ToyModel(3), num_rollouts=room, max_tokens=4, budget_tokens=budget)
        assert (result.stopped, len(result.rollouts)) == (stopped, min(room, count))


def test_default_wave_is_a_fifth_up_to_sixteen():
    for expected, changes in (
        (2, {"num_rollouts": 10}),
        (8, {}),
        (16, {"num_rollouts": 1000}),
        (4, {"num_rollouts": 1000, "budget_tokens": 100}),
    ):
        result = run("dts", model=ToyModel(8, eos=None), **changes)
        assert sum(rollout.wave == 1 for rollout in result.rollouts) == expected
    assert {rollout.wave for rollout in run("best_of_n", num_rollouts=90).rollouts} == {1}


# ------------------------------------------------------------------------------------------------------------- answers


def test_answer_is_the_first_of_the_best():
    result = run("best_of_n", reward=lambda answer: RewardResult(float(len(answer.tokens) > 2)))
    assert result.answer == int(result.rewards.argmax())
    assert result.best.reward == 1


def test_sampled_answers_follow_the_tree():
    settings = replace(SETTINGS, answer="sample", wave=10)
    results = [search(ToyModel(), "", make_reward(), replace(settings, seed=seed)) for seed in range(200)]
    assert all(result.best.leaf in result.tree.compute_posterior() for result in results)
    expected = np.mean([sum(p * r.tree.value[leaf] for leaf, p in r.tree.compute_posterior().items()) for r in results])
    assert abs(np.mean([result.best.reward for result in results]) - expected) < 0.03
    plain = [search(ToyModel(), "", make_reward(), replace(settings, seed=s, answer="max")) for s in range(5)]
    assert [strip(result) for result in plain] == [strip(result) for result in results[:5]]


def test_a_sampled_answer_of_a_chain_is_where_it_ended():
    result = run("mh", answer="sample")
    assert result.answer == result.chain[-1]


@every_method
def test_vote_is_for_the_label_of_most_weight(method):
    settings = replace(SETTINGS, method=method, answer="vote", lam=0.5)
    result = search(ToyModel(), "", make_reward(), settings, parse=lambda text: text[:1] or None)
    weight: dict[str, float] = {}
    for place, rollout in enumerate(result.rollouts):
        if result.chain is not None:
            share = result.chain.count(place)
        elif rollout.log_weight is not None:
            share = math.exp(rollout.log_weight)
        else:
            share = 0.0 if rollout.repeated else math.exp(rollout.log_p + rollout.reward / 0.5)
        if rollout.text:
            weight[rollout.text[0]] = weight.get(rollout.text[0], 0) + share
    winner = max(weight, key=weight.get)
    rewards = [rollout.reward for rollout in result.rollouts if rollout.text.startswith(winner)]
    assert (result.best.text[0], result.best.reward) == (winner, max(rewards))


def test_vote_without_any_label_is_the_best_and_without_labels_refused():
    settings = replace(SETTINGS, answer="vote")
    result = search(ToyModel(), "", make_reward(), settings, parse=lambda text: None)
    assert result.best.reward == result.rewards.max()
    with pytest.raises(ValueError, match="vote needs labels"):
        search(ToyModel(), "", make_reward(), settings)


# --------------------------------------------------------------------------------------------------- one by one


def find_most_probable(count: int, prior: Prior = PLAIN) -> list[tuple[int, ...]]:
    answers = enumerate_answers(ToyModel(), "a prompt", prior, SETTINGS.max_tokens)
    return [tokens for tokens, _ in sorted(answers, key=lambda answer: -answer[1])[:count]]


def test_greedy_takes_the_most_probable_token_each_time():
    (rollout,) = run("greedy").rollouts
    (rollout_of_prior,) = run("sample", prior=Prior(1.0, 1, 1.0)).rollouts
    assert rollout.tokens == rollout_of_prior.tokens == run("beam", num_rollouts=1).rollouts[0].tokens


def test_beam_finds_the_most_probable_answers_in_order():
    result = run("beam", num_rollouts=300)  # wide enough to lose nothing that matters
    assert [rollout.tokens for rollout in result.rollouts[:50]] == find_most_probable(50)
    log_ps = [rollout.log_p for rollout in run("beam", num_rollouts=5).rollouts]
    assert log_ps == sorted(log_ps, reverse=True)
    assert result.rollouts[0].new_tokens == result.cost.new  # nothing is known before all is done
    few = run("beam", num_rollouts=10_000, max_tokens=2, model=ToyModel(3))
    assert len(few.rollouts) == 7  # all there are


def test_uct_tries_every_child_once_before_any_twice():
    result = run("mcts", model=ToyModel(5, eos=None), num_rollouts=5, wave=1)
    assert len({rollout.tokens[0] for rollout in result.rollouts}) == 5


@pytest.mark.parametrize("method", ["mcts", "dts_star"])
def test_a_wave_of_climbers_spreads(method):
    """Without losses for those under way all would go one way."""
    result = run(method, model=ToyModel(5, eos=None), num_rollouts=60, wave=20, exploration=0.3)
    for wave in (2, 3):
        tokens = [rollout.tokens for rollout in result.rollouts if rollout.wave == wave]
        assert len(set(tokens)) > 15
        assert len({one[0] for one in tokens}) > 1


@pytest.mark.parametrize("method", ["dts_star", "mcts"])
def test_climbers_follow_their_rules(method):
    """Each rollout of a search, from the tree that the one before it had left."""
    settings = {"wave": 1, "exploration": 0.5, "model": ToyModel(4, eos=None, scale=0.5), "max_tokens": 4}
    longest = run(method, num_rollouts=80, **settings)
    checked = 0
    for count in range(1, 80):
        tree, node = run(method, num_rollouts=count, **settings).tree, 0
        factor = 0.5 * np.ptp(longest.rewards[:count])
        for token in longest.rollouts[count].tokens[: longest.rollouts[count].branch_depth + 1]:
            tried, scores = tree.visits[node] + 1, {}  # with the rollout that is to come
            for slot, log_prob in enumerate(tree.distribution[node].log_probs):
                child = tree.children[node].get(slot)
                if child is None:
                    bonus = math.inf if method == "mcts" else factor * math.exp(log_prob) * math.sqrt(tried)
                    scores[slot] = tree.value[node] + bonus
                elif not tree.closed[child]:
                    visits = tree.visits[child]
                    if method == "mcts":
                        mean = tree.total[child] / visits
                        scores[slot] = mean + factor * math.sqrt(math.log(tried) / visits)
                    else:
                        bonus = factor * math.exp(log_prob) * math.sqrt(tried) / (1 + visits)
                        scores[slot] = tree.value[child] + bonus
            slot = tree.distribution[node].ids.tolist().index(token)
            assert math.isclose(scores[slot], max(scores.values()), abs_tol=1e-12)
            checked += scores[slot] < math.inf and len(scores) > 1
            node = tree.children[node].get(slot, -1)
    assert checked > 50


def test_paper_rule_widens_on_schedule_and_prefers_what_was_good():
    result = run("dts_paper", model=ToyModel(5, eos=None), num_rollouts=400, wave=1)
    mean = result.rewards.mean()
    assert result.rewards[300:].mean() > mean > run("best_of_n", model=ToyModel(5, eos=None)).rewards.mean()
    assert result.cost.new < run("best_of_n", model=ToyModel(5, eos=None), num_rollouts=400).cost.new


def test_paper_rule_counts_its_draws():
    settings = replace(SETTINGS, method="dts_paper", num_rollouts=300)
    session = Session(ToyModel(4), "", make_reward(low=-1), settings)
    policy = PaperPolicy(session.tree, session.rng)
    run_waves(session, policy, 1)
    tree, (scale, power) = session.tree, WIDENING
    for node in range(len(tree)):
        if counts := policy.counts[node]:
            schedule = scale * (tree.visits[node] - 1) ** power
            assert schedule <= policy.draws[node] == sum(counts.values()) < schedule + 1 + 1e-9
            assert set(counts) == set(tree.children[node].values())
            parts = [count * math.exp(policy.values[child] / settings.lam) for child, count in counts.items()]
            expected = settings.lam * math.log(sum(parts) / policy.draws[node])
            assert math.isclose(policy.values[node], expected, abs_tol=1e-9)
        else:
            assert policy.values[node] == tree.value[node]
    assert policy.draws[0] == math.ceil(scale * 299**power)


def test_chain_stays_or_moves_to_what_was_proposed():
    result = run("mh", num_rollouts=200)
    places = [0, *result.chain]
    assert all(now in (before, place) for place, (before, now) in enumerate(itertools.pairwise(places)))
    assert 20 < len(set(places)) < 200
    for place in range(1, 200):
        one, state = result.rollouts[place], result.rollouts[result.chain[place - 1]]
        common = len([1 for a, b in zip(one.tokens, state.tokens, strict=False) if a == b])
        assert one.tokens == state.tokens or common < min(len(one.tokens), len(state.tokens))
        better = one.reward >= state.reward and len(one.tokens) <= len(state.tokens)
        assert not better or result.chain[place] == place


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("method", "dfs"), ("answer", "mean"), ("num_rollouts", 0), ("max_tokens", 0), ("budget_tokens", 0)],
        *[("wave", 0), ("lam", 0.0), ("lam", math.inf), ("lam", math.nan), ("epsilon", -0.1), ("epsilon", 1.1)],
        *[("exploration", -1.0), ("seed", -1)],
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .* found "):
        replace(SETTINGS, **{name: value})


def test_results_check_their_lengths_and_cannot_be_changed():
    result = run("dts")
    for changes in (
        {"answer": 40},
        {"answer": -1},
        {"chain": (0,)},
        {"chain": (40,) * 40},
        {"rollouts": result.rollouts[1:]},
        {"rollouts": ()},
        {"rollouts": (replace(result.rollouts[0], log_q=None, log_weight=None), *result.rollouts[1:])},
    ):
        with pytest.raises(ValueError, match="expected"):
            replace(result, **changes)
    rollout = result.rollouts[0]
    for changes in ({"token_log_probs": ()}, {"tokens": (), "token_log_probs": ()}, {"log_q": None}):
        with pytest.raises(ValueError, match="rollout 1"):
            replace(rollout, **changes)
    for frozen, name in ((result, "answer"), (rollout, "reward"), (RewardResult(1.0), "total")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, 0)


def test_the_account_of_a_result_is_its_own():
    model = ToyModel()
    first = search(model, "one", make_reward(), SETTINGS)
    before = replace(first.cost)
    search(model, "two", make_reward(), SETTINGS)
    assert first.cost == before != Cost()


@pytest.mark.parametrize("wave", [1, 4])
def test_dts_star_follows_the_prior_while_all_rewards_are_equal(wave):
    """Its bonus was 0 then, and the root's least probable first tokens were tried before any second one."""
    covered = []
    for seed in range(5):
        model = ToyModel(20, eos=None, scale=3.0, seed=seed)
        result = run(
            "dts_star", model=model, reward=lambda answer: RewardResult(-1.0), max_tokens=3, num_rollouts=12, wave=wave
        )
        found = {rollout.tokens: rollout.log_p for rollout in result.rollouts}
        likeliest = sorted(
            (
                log_p
                for _, log_p in enumerate_answers(ToyModel(20, eos=None, scale=3.0, seed=seed), "a prompt", PLAIN, 3)
            ),
            reverse=True,
        )
        covered.append(sum(map(math.exp, found.values())) / sum(map(math.exp, likeliest[: len(found)])))
    assert np.mean(covered) > 0.5
