"""The packed form computes what the plain form computes: outputs, states and gradients."""

import copy

import pytest
import torch
from torch import nn

from mixture_of_experts import ExpertDropout, MixtureOfExpertsPolicy
from pipeline.baseline import GRUPolicy
from pipeline.engine.packed import pack_replicas
from pipeline.engine.packed_policy import PackedOutput, PackedPolicy
from tests.policies import Widths, build_small_policy, draw_codes

OBS, LANG, WIDTH, ROUTER, ACTIONS = 6, 3, 8, 5, 4
STEPS, ENVS = 9, 4
LAYERS = {
    "classic": [[0, 3, 6], [0, 3, 6]],
    "different layers": [[2, 0, 4], [3], [5, 1]],
    "no skip": [[4, 4]],
    "all skip": [[0, 0], [0]],
    "all skip between others": [[3, 0], [0, 0], [2]],
    "repeated skips": [[0, 3, 0, 0, 2]],
    "skips at both ends": [[0, 3, 0], [0, 2, 1, 0]],
    "single expert": [[5]],
}


def build(kind: str, sizes: list[list[int]], dtype: torch.dtype = torch.float64) -> nn.Module:
    return build_small_policy(kind, sizes, Widths(OBS, LANG, WIDTH, ROUTER, ACTIONS)).to(dtype)


def make_inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(STEPS, ENVS, OBS, generator=generator, dtype=dtype)
    lang = torch.randn(STEPS, ENVS, LANG, generator=generator, dtype=dtype)
    start = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    start[0, 0] = start[4, 1] = start[4, 2] = start[5, 2] = start[8, 0] = True
    return obs, lang, start


def state_of(policy: nn.Module, packed_hidden: list[torch.Tensor]):
    """Return a packed state in the form that the plain policy takes."""
    if isinstance(policy, GRUPolicy):
        return packed_hidden[0].unsqueeze(0)
    layers = []
    for hidden, layer in zip(packed_hidden, policy.moe_layers, strict=True):
        sizes = [layer.router.hidden_size, *(expert.hidden_size for expert in layer.experts)]
        router, *experts = hidden.unsqueeze(0).split(sizes, dim=-1)
        layers.append((router, list(experts)))
    if isinstance(policy, MixtureOfExpertsPolicy):
        return layers
    named = {}
    for index, (router, experts) in enumerate(layers):
        named[f"router_{index}"] = router
        named |= {f"expert_{index}_{i}": state for i, state in enumerate(experts) if state.shape[-1]}
    return named


def reset(state, rows: torch.Tensor):
    """Return a plain state of any policy with zeros in some rows."""
    if isinstance(state, torch.Tensor):
        return torch.where(rows.view(1, -1, 1), 0.0, state)
    if isinstance(state, dict):
        return {name: reset(value, rows) for name, value in state.items()}
    return type(state)(reset(value, rows) for value in state)


def packed_of(policy: nn.Module, state) -> list[torch.Tensor]:
    """Return a plain state in the packed form, the inverse of `state_of`."""
    if isinstance(policy, GRUPolicy):
        return [state[0]]
    if isinstance(policy, MixtureOfExpertsPolicy):
        return [torch.cat([router, *experts], dim=-1)[0] for router, experts in state]
    packed = []
    for index, sizes in enumerate(policy.layer_expert_sizes):
        names = [f"expert_{index}_{i}" for i, size in enumerate(sizes) if size > 0]
        packed.append(torch.cat([state[name] for name in (f"router_{index}", *names)], dim=-1)[0])
    return packed


def run_plain(policy, obs, lang, start, hidden, dropped=None):
    """Return logits (T, N, actions) and the last state in packed form, computed step by step."""
    state, logits = state_of(policy, hidden), []
    for t in range(len(obs)):
        state = reset(state, start[t])
        now = {} if dropped is None else {"dropped": [d._replace(noise=d.noise[t]) for d in dropped]}
        step, state = policy(obs[t], lang[t], state, **now)[:2]
        logits.append(step)
    return torch.stack(logits), packed_of(policy, state)


def init_packed(policy: nn.Module) -> list[torch.Tensor]:
    """Return a zero state (N, H) per layer."""
    return [state[0] for state in pack_replicas([policy]).init_hidden(ENVS)]


def run_packed(policy, obs, lang, hidden, start, dropped=None) -> PackedOutput:
    """Return what the packed form of one policy gives, all shapes without the axis of replicas."""
    noise = dropped and [d._replace(noise=d.noise[None]) for d in dropped]
    out = pack_replicas([policy]).sequence(obs[None], lang[None], [h[None] for h in hidden], start[None], noise)
    return PackedOutput(out.logits[0], [state[0] for state in out.hidden], [probs[0] for probs in out.routing])


def make_hidden(policy: nn.Module) -> list[torch.Tensor]:
    """Return a non-zero state that collects gradients."""
    generator = torch.Generator().manual_seed(2)
    zeros = init_packed(policy)
    return [torch.randn(state.shape, generator=generator, dtype=state.dtype).tanh().requires_grad_() for state in zeros]


def pull(logits: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
    """Return a scalar on which every logit and every unit of the last states has its own influence."""
    generator = torch.Generator().manual_seed(3)
    return sum(
        (value * torch.randn(value.shape, generator=generator, dtype=value.dtype)).sum() for value in (logits, *states)
    )


def gradients(policy: nn.Module, hidden: list[torch.Tensor], obs, scalar: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {**dict(policy.named_parameters()), "obs": obs}
    named |= {f"hidden {index}": state for index, state in enumerate(hidden)}
    values = torch.autograd.grad(scalar, list(named.values()), allow_unused=True)
    assert all(value is not None for value in values)
    return dict(zip(named, values, strict=True))


def assert_forms_agree(policy: nn.Module, dtype: torch.dtype, tolerance: float, dropped=None, obs=None) -> None:
    drawn, lang, start = make_inputs(dtype)
    obs = drawn if obs is None else obs
    obs.requires_grad_()
    hidden = make_hidden(policy)
    close = {"rtol": tolerance, "atol": tolerance}
    out = run_packed(policy, obs, lang, hidden, start, dropped)
    logits, last = run_plain(policy, obs, lang, start, hidden, dropped)
    torch.testing.assert_close(out.logits, logits, **close)
    torch.testing.assert_close(out.hidden, last, **close)
    fast = gradients(policy, hidden, obs, pull(out.logits, out.hidden))
    plain = gradients(policy, hidden, obs, pull(logits, last))
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, **close, msg=lambda text, name=name: f"{name}: {text}")


CASES = [("gru", "classic"), *((kind, name) for kind in ("moe", "mop", "mop with LayerNorm") for name in LAYERS)]


@pytest.mark.parametrize(("kind", "layers"), CASES)
def test_outputs_states_and_gradients_equal_the_plain_form(kind, layers):
    assert_forms_agree(build(kind, LAYERS[layers]), torch.float64, 1e-10)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
@pytest.mark.parametrize("encoding", ["onehot", "embedding"])
def test_encoded_observations_give_the_plain_form_s_outputs_states_and_gradients(kind, encoding):
    obs = draw_codes(STEPS, ENVS, generator=torch.Generator().manual_seed(8)).double()
    obs[2:, :, ::13] = torch.tensor([-1.0, 0.5, 11.0, torch.nan])[torch.arange(12) % 4]  # codes of no vocabulary
    widths = Widths(obs.shape[-1], LANG, WIDTH, ROUTER, ACTIONS)
    policy = build_small_policy(kind, LAYERS["classic"], widths, obs_encoding=encoding).double()
    assert_forms_agree(policy, torch.float64, 1e-10, obs=obs)
    film = build_small_policy(kind, LAYERS["classic"], widths, obs_encoding=encoding, mission_fusion="film").double()
    assert_forms_agree(film, torch.float64, 1e-10, obs=obs)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm"])
def test_a_mission_that_scales_raw_codes_gives_the_plain_form_s_outputs_states_and_gradients(kind):
    widths = Widths(OBS, LANG, WIDTH, ROUTER, ACTIONS)
    policy = build_small_policy(kind, LAYERS["classic"], widths, mission_fusion="film").double()
    assert_forms_agree(policy, torch.float64, 1e-10)


@pytest.mark.parametrize("kind", ["moe", "mop", "mop with LayerNorm", "gru"])
def test_single_precision_agrees_to_its_own_accuracy(kind):
    policy = build(kind, LAYERS["classic"], torch.float32)
    obs, lang, start = make_inputs(torch.float32)
    with torch.no_grad():
        hidden = make_hidden(policy)
        out = run_packed(policy, obs, lang, hidden, start)
        logits, last = run_plain(policy, obs, lang, start, hidden)
    torch.testing.assert_close(out.logits, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.hidden, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["moe", "mop", "mop with LayerNorm"])
def test_expert_dropout_drops_the_same_experts_in_both_forms(kind):
    policy = build(kind, LAYERS["different layers"])
    generator = torch.Generator().manual_seed(5)
    dropped = [
        ExpertDropout(torch.rand(STEPS, ENVS, len(sizes), generator=generator, dtype=torch.float64), 1.0, 0.6)
        for sizes in policy.layer_expert_sizes
    ]
    obs, lang, start = make_inputs()
    with torch.no_grad():
        hidden = make_hidden(policy)
        free = run_packed(policy, obs, lang, hidden, start)
        out = run_packed(policy, obs, lang, hidden, start, dropped)
    assert not torch.allclose(free.logits, out.logits)  # dropout is at work
    torch.testing.assert_close(out.routing[0], free.routing[0])  # what LPC is taken from has no dropout in it
    assert_forms_agree(policy, torch.float64, 1e-10, dropped)


@pytest.mark.parametrize("kind", ["moe", "mop"])
def test_routing_is_that_of_the_plain_form(kind):
    policy = build(kind, LAYERS["different layers"])
    obs, lang, _ = make_inputs()
    with torch.no_grad():
        hidden = make_hidden(policy)
        out = run_packed(policy, obs[:1], lang[:1], hidden, torch.zeros(1, ENVS, dtype=torch.bool))
        state = state_of(policy, hidden)
        if kind == "moe":
            info = policy(obs[0], lang[0], state, return_routing_info=True)[2]
            weights = [info[f"layer_{index}"]["router_weights"] for index in range(3)]
        else:
            weights = policy.get_routing_info(obs[0], lang[0], state)[1]
    torch.testing.assert_close([w[0] for w in out.routing], weights, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
def test_acting_step_by_step_equals_one_sequence(kind):
    policy = build(kind, LAYERS["different layers"])
    obs, lang, start = make_inputs()
    with torch.no_grad():
        hidden = make_hidden(policy)
        whole = run_packed(policy, obs, lang, hidden, start)
        steps = []
        for t in range(STEPS):
            out = run_packed(policy, obs[t : t + 1], lang[t : t + 1], hidden, start[t : t + 1])
            hidden = out.hidden
            steps.append(out)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([out.logits for out in steps]), whole.logits, **close)
    torch.testing.assert_close(hidden, whole.hidden, **close)
    for index, weights in enumerate(whole.routing):
        torch.testing.assert_close(torch.cat([out.routing[index] for out in steps]), weights, **close)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
def test_packed_environments_do_not_see_each_other(kind):
    policy = build(kind, LAYERS["different layers"], torch.float32)
    obs, lang, start = make_inputs(torch.float32)
    with torch.no_grad():
        before = run_packed(policy, obs, lang, init_packed(policy), start).logits
        obs[:, 2] += 3.0
        after = run_packed(policy, obs, lang, init_packed(policy), start).logits
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    assert not torch.allclose(before[:, 2], after[:, 2])


def test_zero_state_has_the_width_of_all_units():
    states = init_packed(build("moe", [[0, 3, 6], [2]]))
    assert [tuple(state.shape) for state in states] == [(ENVS, ROUTER + 9), (ENVS, ROUTER + 2)]
    assert not any(state.any() for state in states)


def test_pack_sees_the_weights_of_the_moment():
    """The loop packs once per unroll: a stale copy would train on old weights."""
    policy = build("moe", LAYERS["classic"])
    obs, lang, start = make_inputs()
    with torch.no_grad():
        hidden = init_packed(policy)
        before = run_packed(policy, obs, lang, hidden, start).logits
        policy.moe_layers[0].experts[1].gru.weight_hh_l0 += 1.0
        after = run_packed(policy, obs, lang, hidden, start).logits
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, run_plain(policy, obs, lang, start, hidden)[0], rtol=1e-10, atol=1e-10)


def test_pack_takes_the_three_policies_and_no_other():
    assert isinstance(pack_replicas([build("moe", [[3]])]), PackedPolicy)
    assert isinstance(pack_replicas([build("mop", [[3]])]), PackedPolicy)
    assert isinstance(pack_replicas([build("gru", [[3]])]), PackedPolicy)
    with pytest.raises(TypeError, match="found Linear"):
        pack_replicas([nn.Linear(2, 2)])


# ------------------------------------------------------------------------------------------------------ many at once


def perturbed(kind: str, sizes: list[list[int]], seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    policy = build(kind, sizes, dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return policy


@pytest.mark.parametrize("kind", ["moe", "mop", "mop with LayerNorm", "gru"])
def test_policies_packed_together_compute_what_each_computes_alone(kind):
    policies = [perturbed(kind, LAYERS["different layers"], seed) for seed in range(3)]
    obs, lang, start = make_inputs()
    inputs = [torch.stack([value, value.flip(1), 2 * value]) for value in (obs, lang)]
    starts = torch.stack([start, start.flip(1), start])
    hidden = [make_hidden(policy) for policy in policies]
    together = pack_replicas(policies).sequence(
        *inputs, [torch.stack(layer) for layer in zip(*hidden, strict=True)], starts
    )
    pull(together.logits, together.hidden).backward()
    grads = [{n: p.grad.clone() for n, p in policy.named_parameters()} for policy in policies]
    generator = torch.Generator().manual_seed(3)  # the weights by which `pull` adds up
    pulls = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in (together.logits, *together.hidden)]
    for r, policy in enumerate(policies):
        policy.zero_grad(set_to_none=True)
        out = run_packed(policy, *(value[r] for value in inputs), hidden[r], starts[r])
        close = {"rtol": 1e-10, "atol": 1e-10}
        torch.testing.assert_close(together.logits[r], out.logits, **close)
        torch.testing.assert_close([state[r] for state in together.hidden], out.hidden, **close)
        torch.testing.assert_close([probs[r] for probs in together.routing], out.routing, **close)
        sum((v * w[r]).sum() for v, w in zip((out.logits, *out.hidden), pulls, strict=True)).backward()
        for name, parameter in policy.named_parameters():
            torch.testing.assert_close(grads[r][name], parameter.grad, **close)


def test_policies_of_different_architectures_are_not_packed_together():
    with pytest.raises(ValueError, match="one architecture"):
        pack_replicas([build("moe", [[3]]), build("moe", [[4]])])
    with pytest.raises(ValueError, match="one architecture"):
        pack_replicas([build("moe", [[3]]), build("mop", [[3]])])


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
def test_a_replayed_unroll_has_the_gradients_of_one_computed_at_once(kind):
    """Acting keeps what is recurrent; the pass with gradients computes the rest again."""
    policy = build(kind, LAYERS["different layers"])
    obs, lang, start = make_inputs()
    packed = pack_replicas([policy])
    hidden = [state[None] for state in make_hidden(policy)]
    inputs, starts = torch.cat([obs, lang], dim=-1)[None], start[None]
    tapes, cells, logits = packed.tapes(STEPS, ENVS), packed.split_hidden(hidden), []
    for t in range(STEPS):
        step, cells = packed.act(inputs[:, t], cells, starts[:, t, :, None], tapes, t)
        logits.append(step)
    whole = packed.sequence(obs[None], lang[None], hidden, starts)
    replayed, routing = packed.replay(inputs, packed.split_hidden(hidden), starts, tapes)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.stack(logits, dim=1), whole.logits, **close)
    torch.testing.assert_close(replayed, whole.logits, **close)
    torch.testing.assert_close(routing, whole.routing, **close)
    wanted = [*policy.parameters(), *hidden]
    grads = [torch.autograd.grad(value.square().sum(), wanted) for value in (replayed, whole.logits)]
    torch.testing.assert_close(*grads, **close)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_state_does_not_survive_an_episode_start(kind, bad):
    policy = build(kind, LAYERS["different layers"])
    obs, lang, start = make_inputs()
    start[0, 2] = True
    hidden = make_hidden(policy)
    clean = run_packed(policy, obs, lang, hidden, start)
    grads = torch.autograd.grad(clean.logits.square().sum(), list(policy.parameters()))
    broken = [state.detach().clone() for state in hidden]
    for state in broken:
        state[2] = bad
        state.requires_grad_()
    out = run_packed(policy, obs, lang, broken, start)
    assert torch.equal(out.logits, clean.logits)
    wanted = [*policy.parameters(), *broken]
    values = torch.autograd.grad(out.logits.square().sum(), wanted)
    assert all(torch.equal(a, b) for a, b in zip(values, grads, strict=False))
    assert all(not value[2].any() for value in values[len(grads) :])


def test_packing_leaves_the_policy_as_it_was():
    policy = build("mop with LayerNorm", LAYERS["classic"])
    before = copy.deepcopy(policy.state_dict())
    obs, lang, start = make_inputs()
    run_packed(policy, obs, lang, init_packed(policy), start).logits.sum().backward()
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
