"""The models in their plain form: names, sizes, states, routing, the price of complexity, isolation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixture_of_experts import (
    Expert,
    MixtureOfExpertsPolicy,
    Router,
    compute_layer_lpc,
    compute_lpc,
    reset_hidden_on_done,
)
from pipeline.baseline import GRUPolicy
from stateful_mop import StatefulMoPPolicy
from tests.model_forms import ACTIONS, LANG, OBS, ROUTER, WIDTH, inputs, routing_of, small_moe, small_mop

CLASSIC = [[0, 16, 32]] * 3

# ------------------------------------------------------------------------------------------------- names and shapes


def test_state_dict_names_and_shapes_are_those_others_rely_on():
    shapes = {name: tuple(value.shape) for name, value in small_moe([[0, 3]]).state_dict().items()}
    assert shapes == {
        "input_projection.weight": (8, 9),
        "input_projection.bias": (8,),
        "moe_layers.0.router.gru.weight_ih_l0": (15, 8),
        "moe_layers.0.router.gru.weight_hh_l0": (15, 5),
        "moe_layers.0.router.gru.bias_ih_l0": (15,),
        "moe_layers.0.router.gru.bias_hh_l0": (15,),
        "moe_layers.0.router.fc.weight": (2, 5),
        "moe_layers.0.router.fc.bias": (2,),
        "moe_layers.0.experts.1.gru.weight_ih_l0": (9, 8),
        "moe_layers.0.experts.1.gru.weight_hh_l0": (9, 3),
        "moe_layers.0.experts.1.gru.bias_ih_l0": (9,),
        "moe_layers.0.experts.1.gru.bias_hh_l0": (9,),
        "moe_layers.0.experts.1.projection.weight": (8, 3),
        "moe_layers.0.experts.1.projection.bias": (8,),
        "head.weight": (4, 8),
        "head.bias": (4,),
    }


def test_state_dict_names_of_the_baseline():
    shapes = {name: tuple(value.shape) for name, value in GRUPolicy(OBS, 5, ACTIONS, LANG).state_dict().items()}
    assert shapes == {
        "gru.weight_ih_l0": (15, 9),
        "gru.weight_hh_l0": (15, 5),
        "gru.bias_ih_l0": (15,),
        "gru.bias_hh_l0": (15,),
        "head.weight": (4, 5),
        "head.bias": (4,),
    }


def test_default_language_width_is_32():
    assert MixtureOfExpertsPolicy(152, 64, [16], 64, 7).input_projection.in_features == 184
    assert GRUPolicy(152, 64, 7).gru.input_size == 184


def test_a_flat_list_is_one_layer():
    flat = MixtureOfExpertsPolicy(OBS, WIDTH, [2, 3], ROUTER, ACTIONS, LANG)
    assert flat.layer_expert_sizes == [[2, 3]]
    assert len(flat.moe_layers) == 1
    assert flat.state_dict().keys() == small_moe([[2, 3]]).state_dict().keys()


def test_layers_may_differ_in_number_and_size_of_experts():
    policy = small_moe([[0, 3], [2, 0, 4, 0], [7]])
    logits, _, info = policy(*inputs(2), policy.init_hidden(2), return_routing_info=True)
    assert logits.shape == (2, ACTIONS)
    assert [info[f"layer_{i}"]["router_weights"].shape[1] for i in range(3)] == [2, 4, 1]


def test_hidden_state_is_a_list_of_router_and_expert_states_with_width_zero_for_skips():
    hidden = small_moe().init_hidden(2, "cpu")
    assert [(tuple(r.shape), [tuple(e.shape) for e in experts]) for r, experts in hidden] == [
        ((1, 2, 5), [(1, 2, 0), (1, 2, 3)]),
        ((1, 2, 5), [(1, 2, 2), (1, 2, 0), (1, 2, 4)]),
    ]
    assert all(not r.any() and not any(e.any() for e in experts) for r, experts in hidden)


def test_hidden_state_keeps_its_structure_from_step_to_step():
    policy = small_moe()
    before = policy.init_hidden(2)
    _, after, _ = policy(*inputs(2), before)
    assert [[s.shape for s in (r, *e)] for r, e in after] == [[s.shape for s in (r, *e)] for r, e in before]


def test_hidden_state_names_of_the_stateful_policy_leave_out_skips():
    policy = small_mop()
    hidden = policy.init_hidden_states(2, "cpu")
    expected = {
        "router_0": (1, 2, 5),
        "expert_0_1": (1, 2, 3),
        "router_1": (1, 2, 5),
        "expert_1_0": (1, 2, 2),
        "expert_1_2": (1, 2, 4),
    }
    assert {name: tuple(state.shape) for name, state in hidden.items()} == expected
    _, after = policy(*inputs(2), hidden)
    assert {name: tuple(state.shape) for name, state in after.items()} == expected


def test_states_follow_the_dtype_of_the_weights():
    assert small_moe().double().init_hidden(1)[0][0].dtype == torch.float64


# ----------------------------------------------------------------------------------------------------------- routing


def test_all_skip_policy_is_head_of_input_projection():
    """Weights of 0.5 and 0.25 are exact in binary, so that the mixture of identities is exactly the input."""
    policy = small_moe([[0, 0], [0, 0, 0, 0]])
    for layer in policy.moe_layers:
        nn.init.zeros_(layer.router.fc.weight)
        nn.init.zeros_(layer.router.fc.bias)
    obs, lang = inputs(5)
    logits, _, _ = policy(obs, lang, policy.init_hidden(5))
    assert torch.equal(logits, policy.head(policy.input_projection(torch.cat([obs, lang], dim=-1))))


def test_skip_expert_returns_its_input_and_has_no_weights():
    skip, x = Expert(WIDTH, 0), torch.randn(2, WIDTH)
    assert skip(x, torch.zeros(1, 2, 0))[0] is x
    assert list(skip.parameters()) == []


def test_routing_info_holds_what_the_layers_did():
    policy = small_moe()
    _, _, info = policy(*inputs(5), policy.init_hidden(5), return_routing_info=True)
    assert set(info) == {"layer_0", "layer_1"}
    for index, experts in ((0, 2), (1, 3)):
        layer = info[f"layer_{index}"]
        assert set(layer) == {"router_weights", "expert_outputs", "layer_output"}
        assert layer["router_weights"].shape == (5, experts)
        assert layer["expert_outputs"].shape == (5, experts, WIDTH)
        mixture = (layer["router_weights"].unsqueeze(-1) * layer["expert_outputs"]).sum(dim=1)
        torch.testing.assert_close(layer["layer_output"], mixture)
    # The skip experts of the second layer saw what the first one gave out.
    assert torch.equal(info["layer_1"]["expert_outputs"][:, 1], info["layer_0"]["layer_output"])


def test_routing_info_is_none_unless_asked_for_and_changes_nothing():
    policy, (obs, lang) = small_moe(), inputs(2)
    quiet, _, none = policy(obs, lang, policy.init_hidden(2))
    told, _, _ = policy(obs, lang, policy.init_hidden(2), return_routing_info=True)
    assert none is None
    assert torch.equal(quiet, told)


def test_stateful_policy_returns_the_same_logits_with_and_without_routing_info():
    policy, (obs, lang) = small_mop(), inputs(5)
    logits, after = policy(obs, lang, policy.init_hidden_states(5))
    told, weights, after_told = policy.get_routing_info(obs, lang, policy.init_hidden_states(5))
    assert torch.equal(logits, told)
    assert all(torch.equal(after[name], after_told[name]) for name in after)
    assert [tuple(w.shape) for w in weights] == [(5, 2), (5, 3)]


def test_stateful_block_is_layer_norm_of_residual():
    """With a router that always takes the skip, a block is LayerNorm(2 x)."""
    policy = small_mop([[0, 3]])
    with torch.no_grad():
        policy.moe_layers[0].router.fc.weight.zero_()
        policy.moe_layers[0].router.fc.bias.copy_(torch.tensor([1e4, 0.0]))
    obs, lang = inputs(5)
    logits, _ = policy(obs, lang, policy.init_hidden_states(5))
    x = policy.input_projection(torch.cat([obs, lang], dim=-1))
    torch.testing.assert_close(logits, policy.head(nn.functional.layer_norm(2 * x, (WIDTH,))))


def test_layer_norm_option_adds_a_norm_to_each_real_expert():
    plain, normed = small_mop(), small_mop(expert_norm="layer")
    added = normed.state_dict().keys() - plain.state_dict().keys()
    real = ("0.experts.1", "1.experts.0", "1.experts.2")
    assert added == {f"moe_layers.{name}.norm.{kind}" for name in real for kind in ("weight", "bias")}
    normed.load_state_dict(plain.state_dict(), strict=False)
    # From the zero state and with tiny weights an expert's features would be tiny; a norm makes them of size 1.
    expert = normed.moe_layers[0].experts[1]
    features, _ = expert.gru(torch.randn(5, 1, WIDTH), torch.zeros(1, 5, 3))
    assert expert.norm(features).std(dim=-1, unbiased=False).min() > 0.9
    obs, lang = inputs(5)
    assert not torch.allclose(
        plain(obs, lang, plain.init_hidden_states(5))[0], normed(obs, lang, normed.init_hidden_states(5))[0]
    )


layer_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=4)
policy_sizes = st.lists(layer_sizes, min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(sizes=policy_sizes, batch=st.integers(1, 4), scale=st.sampled_from([0.1, 1.0, 100.0]), mop=st.booleans())
def test_weights_sum_to_one_and_lpc_stays_within_its_bounds(sizes, batch, scale, mop):
    obs, lang = inputs(batch)
    with torch.no_grad():
        if mop:
            policy = small_mop(sizes)
            _, weights, _ = policy.get_routing_info(obs * scale, lang, policy.init_hidden_states(batch))
        else:
            policy = small_moe(sizes)
            for layer in policy.moe_layers:
                layer.router.fc.weight.mul_(scale)
            _, _, info = policy(obs * scale, lang, policy.init_hidden(batch), return_routing_info=True)
            weights = [info[f"layer_{index}"]["router_weights"] for index in range(len(sizes))]
    for w in weights:
        assert (w >= 0).all()
        torch.testing.assert_close(w.sum(dim=-1), torch.ones(batch))
    lpc = float(compute_lpc(routing_of(weights), policy.layer_expert_sizes))
    assert 0 <= lpc <= sum(max(layer) ** 2 for layer in sizes) * (1 + 1e-6)


# --------------------------------------------------------------------------------------------------------------- LPC


@pytest.mark.parametrize(
    ("weights", "lpc"), [((1, 0, 0), 0), ((1 / 3, 1 / 3, 1 / 3), 1280), ((0, 0, 1), 3072), ((0, 1, 0), 768)]
)
def test_lpc_of_the_classic_sizes(weights, lpc):
    rows = torch.tensor(weights, dtype=torch.float64).expand(4, 3)
    assert float(compute_lpc(routing_of([rows] * 3), CLASSIC)) == pytest.approx(lpc, abs=1e-9)


@pytest.mark.parametrize(("expert", "lpc"), [(0, 0.0), (1, 768.0), (2, 3072.0), (None, 1280.0)])
def test_lpc_of_a_policy_whose_routers_have_made_up_their_mind(expert, lpc):
    policy = small_moe(CLASSIC)
    with torch.no_grad():
        for layer in policy.moe_layers:
            layer.router.fc.weight.zero_()
            layer.router.fc.bias.zero_()
            if expert is not None:
                layer.router.fc.bias[expert] = 1e4
    with torch.no_grad():
        _, _, info = policy(*inputs(2), policy.init_hidden(2), return_routing_info=True)
    # Thirds are not exact in float32; whole weights are.
    expected = pytest.approx(lpc, rel=1e-6) if expert is None else lpc
    assert float(compute_lpc(info, policy.layer_expert_sizes)) == expected


def test_lpc_exponent_changes_the_price_but_not_the_free_skip():
    weights = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    assert float(compute_layer_lpc(weights, [0, 16, 32], exponent=1.0)) == 12.0
    assert float(compute_layer_lpc(weights, [0, 16, 32], exponent=0.5)) == pytest.approx(1 + 0.25 * math.sqrt(32))


def test_lpc_is_the_mean_of_the_rows_alone():
    policy, (obs, lang) = small_moe(), inputs(4)
    _, _, info = policy(obs, lang, policy.init_hidden(4), return_routing_info=True)
    alone = []
    for row in range(4):
        one = slice(row, row + 1)
        _, _, single = policy(obs[one], lang[one], policy.init_hidden(1), return_routing_info=True)
        alone.append(compute_lpc(single, policy.layer_expert_sizes))
    assert torch.stack(alone).std() > 0  # rows differ, else the mean would prove nothing
    torch.testing.assert_close(compute_lpc(info, policy.layer_expert_sizes), torch.stack(alone).mean())


def test_lpc_refuses_routing_of_other_sizes():
    rows = torch.full((1, 3), 1 / 3)
    with pytest.raises(ValueError, match="3 layers"):
        compute_lpc(routing_of([rows]), CLASSIC)
    with pytest.raises(ValueError, match="expected 2 router weights, found 3"):
        compute_lpc(routing_of([rows]), [[0, 16]])


# ------------------------------------------------------------------------------------------------------------ memory


def test_reset_zeroes_finished_rows_only_and_stops_nan():
    policy = small_moe()
    _, hidden, _ = policy(*inputs(3), policy.init_hidden(3))
    for router, experts in hidden:
        for state in (router, *experts):
            state.data[:, 1] = torch.nan
    reset = reset_hidden_on_done(hidden, torch.tensor([False, True, False]))
    for (router, experts), (router_before, experts_before) in zip(reset, hidden, strict=True):
        for state, before in zip((router, *experts), (router_before, *experts_before), strict=True):
            assert not state[:, 1].any()
            assert torch.equal(state[:, ::2], before[:, ::2])
    logits, _, _ = policy(*inputs(3), reset)
    assert logits.isfinite().all()


def test_reset_stops_nan_in_gradients_too():
    state = torch.full((1, 2, 3), torch.nan, requires_grad=True)
    ((router, _),) = reset_hidden_on_done([(state, [])], torch.tensor([1.0, 1.0]))
    router.square().sum().backward()
    assert torch.equal(state.grad, torch.zeros(1, 2, 3))


def test_stepping_a_router_equals_a_gru_over_the_sequence():
    torch.manual_seed(0)
    router, x = Router(WIDTH, ROUTER, 3), torch.randn(2, 7, WIDTH)
    features, last = router.gru(x)
    whole = router(x)
    torch.testing.assert_close(whole.probs, router.fc(features).softmax(dim=-1))
    hidden, steps = torch.zeros(1, 2, ROUTER), []
    for t in range(7):
        step = router(x[:, t], hidden)
        hidden = step.hidden
        steps.append(step.probs)
    torch.testing.assert_close(torch.stack(steps, dim=1), whole.probs)
    torch.testing.assert_close(hidden, last)


def test_stepping_an_expert_equals_a_gru_over_the_sequence():
    torch.manual_seed(0)
    expert, x = Expert(WIDTH, 3), torch.randn(2, 7, WIDTH)
    features, _ = expert.gru(x)
    hidden, steps = torch.zeros(1, 2, 3), []
    for t in range(7):
        output, hidden = expert(x[:, t], hidden)
        steps.append(output)
    torch.testing.assert_close(torch.stack(steps, dim=1), expert.projection(features))


def test_stepping_the_baseline_equals_a_gru_over_the_sequence():
    torch.manual_seed(0)
    policy, (obs, lang) = GRUPolicy(OBS, 5, ACTIONS, LANG), inputs(2, 7)
    features, last = policy.gru(torch.cat([obs, lang], dim=-1))
    hidden, steps = policy.init_hidden(2), []
    for t in range(7):
        logits, hidden = policy(obs[:, t], lang[:, t], hidden)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, dim=1), policy.head(features))
    torch.testing.assert_close(hidden, last)


def run_steps(policy, obs: torch.Tensor, lang: torch.Tensor) -> list[torch.Tensor]:
    """Return logits of every step and all final states, each with the environment as its first axis."""
    num_envs = obs.shape[1]
    if isinstance(policy, StatefulMoPPolicy):
        hidden, seen = policy.init_hidden_states(num_envs), []
        for t in range(len(obs)):
            logits, hidden = policy(obs[t], lang[t], hidden)
            seen.append(logits)
        return [*seen, *(state[0] for state in hidden.values())]
    hidden, seen = policy.init_hidden(num_envs), []
    for t in range(len(obs)):
        logits, hidden = policy(obs[t], lang[t], hidden)[:2]
        seen.append(logits)
    states = [hidden] if isinstance(hidden, torch.Tensor) else [s for r, experts in hidden for s in (r, *experts)]
    return [*seen, *(state[0] for state in states)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "policy",
    [small_moe(), small_mop(), small_mop(expert_norm="layer"), GRUPolicy(OBS, 5, ACTIONS, LANG)],
    ids=["moe", "mop", "mop with LayerNorm", "gru"],
)
def test_environments_do_not_see_each_other(policy, training):
    """The published stateful code let its states run along the batch: sequences touched each other."""
    policy.train(training)
    obs, lang = inputs(6, 4)
    with torch.no_grad():
        before = run_steps(policy, obs, lang)
        obs[:, 2] += 3.0
        lang[:, 2] -= 1.0
        after = run_steps(policy, obs, lang)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[[0, 1, 3]], new[[0, 1, 3]])
    assert not torch.allclose(before[0][2], after[0][2])


@pytest.mark.parametrize("policy", [small_moe(), small_mop()], ids=["moe", "mop"])
def test_training_and_evaluation_mode_agree(policy):
    obs, lang = inputs(6, 4)
    with torch.no_grad():
        trained = run_steps(policy.train(), obs, lang)
        evaluated = run_steps(policy.eval(), obs, lang)
    assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))


@pytest.mark.parametrize("policy", [small_moe(), small_mop()], ids=["moe", "mop"])
def test_the_past_matters(policy):
    obs, lang = inputs(6, 2)
    with torch.no_grad():
        before = run_steps(policy, obs, lang)[5]
        obs[0] += 3.0
        assert not torch.equal(run_steps(policy, obs, lang)[5], before)
