"""The mixture layer of MoRE: sorting by expert, products, attention within experts, recurrent units."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixture_of_experts import Router
from more.attention import Place, attend, build_rotary_table, rotate
from more.config import MODEL_TYPES, ExpertWidths
from more.dispatch import group_rows
from more.experts import GatedUnit
from more.layer import MixtureLayer
from more.streams import Streams

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build_layer(model_type: str, dispatch: str = "auto", top_k: int = 1, num_experts: int = 4) -> MixtureLayer:
    layer = MixtureLayer(model_type, 16, 2, num_experts, top_k, ExpertWidths(24, 16), dispatch, "same")
    layer.experts.reset(0.2, 0.2)
    nn.init.normal_(layer.router.fc.weight)
    return layer


def place(batch: int, time: int, valid: torch.Tensor | None = None) -> Place:
    return Place(torch.arange(time)[None], build_rotary_table(64, 8, CPU)[:time][None], None, valid)


# ------------------------------------------------------------------------------------------------------- sorting


@given(
    indices=st.lists(st.permutations(range(4)), min_size=1, max_size=12),
    top_k=st.integers(1, 4),
    data=st.data(),
)
def test_grouping_is_a_partition_sorted_by_expert_then_token(indices, top_k, data):
    chosen = torch.tensor(indices)[:, :top_k]
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(indices), max_size=len(indices))))
    groups = group_rows(chosen, 4, valid)
    real = [a for a in range(chosen.numel()) if valid[a // top_k]]
    assert sorted(groups.order.tolist()) == real
    assert groups.expert.tolist() == chosen.flatten()[groups.order].tolist()
    pairs = list(zip(groups.expert.tolist(), groups.token.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert sum(groups.sizes) == len(real) == int(groups.offsets[-1])
    back = groups.scatter(groups.order[:, None].double() + 1)
    assert back.flatten().tolist() == [a + 1 if a in real else 0 for a in range(chosen.numel())]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("case", ["many", "empty experts", "one token"])
def test_products_equal_one_matrix_at_a_time(case, top_k):
    tokens = 1 if case == "one token" else 20
    indices = torch.rand(tokens, 4).argsort(dim=1)[:, :top_k]
    if case == "empty experts":
        indices = torch.tensor([[3, 1]]).expand(tokens, 2)[:, :top_k]
    x = torch.randn(tokens, 8)
    results = {}
    for how in ("grouped", "loop"):
        weight = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
        groups = group_rows(indices, 4, how=how)
        rows = x[groups.token].requires_grad_()
        out = groups.bind(weight)(rows)
        out.sum().backward()
        by_hand = torch.stack([row @ weight[e] for row, e in zip(rows, groups.expert, strict=True)])
        torch.testing.assert_close(out, by_hand)
        results[how] = (out, rows.grad, weight.grad)
    torch.testing.assert_close(results["grouped"], results["loop"])


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 8), (torch.float32, 6)])
def test_auto_takes_the_loop_where_grouped_does_not_run_and_grouped_says_why(dtype, width):
    weight = torch.randn(2, width, 8, dtype=dtype)
    rows = torch.randn(3, width, dtype=dtype)
    indices = torch.tensor([[0], [1], [1]])
    torch.testing.assert_close(group_rows(indices, 2).bind(weight)(rows)[1], rows[1] @ weight[1])
    with pytest.raises(ValueError, match=r"dispatch: grouped_mm does not run on cpu.*choose auto or loop"):
        group_rows(indices, 2, how="grouped").bind(weight)


# ----------------------------------------------------------------------------------------------------- the layer


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("case", ["many", "empty experts", "one token"])
def test_dispatch_backends_agree_in_outputs_and_gradients(model_type, top_k, case):
    time = 1 if case == "one token" else 9
    x = torch.randn(1 if case == "one token" else 3, time, 16)
    results = []
    layer = build_layer(model_type, "loop", top_k)
    if case == "empty experts":  # all go to 3, and with top_k = 2 to 0 also
        with torch.no_grad():
            layer.router.fc.bias.copy_(torch.tensor([50.0, 0.0, 0.0, 100.0]))
    for how in ("loop", "grouped"):
        layer.dispatch = how
        layer.zero_grad()
        given = x.clone().requires_grad_()
        out, routed = layer(given, 2, place(*x.shape[:2]))
        out.square().sum().backward()
        results.append([out, given.grad, *(p.grad for p in layer.parameters())])
        if case == "empty experts":
            assert set(routed.indices.flatten().tolist()) == ({3} if top_k == 1 else {0, 3})
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_mixture_is_the_sum_of_raw_probability_times_expert(model_type, top_k):
    """Each expert alone on the tokens it was given, one expert after another."""
    layer = build_layer(model_type, top_k=top_k).double()
    x = torch.randn(2, 7, 16).double()
    with torch.no_grad():
        out, routed = layer(x, 3, place(2, 7))
        probs = layer.router.fc(x).softmax(-1)
        chosen = probs.topk(top_k, dim=-1).indices
        expected = torch.zeros_like(x)
        for expert in range(4):
            alone = MixtureLayer(model_type, 16, 2, 1, 1, ExpertWidths(24, 16)).double()
            for mine, theirs in zip(alone.experts.parameters(), layer.experts.parameters(), strict=True):
                mine.copy_(theirs[expert : expert + 1])
            for row in range(2):
                took = (chosen[row] == expert).any(dim=-1).nonzero().flatten()
                if len(took):
                    where = Place(took[None], build_rotary_table(64, 8, CPU)[took][None])
                    single, _ = alone(x[row : row + 1, took], 3, where)
                    expected[row, took] += probs[row, took, expert, None] * single[0]
    torch.testing.assert_close(out, expected)
    assert torch.equal(routed.probs, probs)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_padding_reaches_no_expert_and_gets_zeros(model_type):
    layer = build_layer(model_type, top_k=2).double()
    x = torch.randn(3, 6, 16).double()
    valid = torch.arange(6) < torch.tensor([6, 2, 0])[:, None]
    out, _ = layer(x, 2, place(3, 6, valid))
    whole, _ = layer(x[:1], 2, place(1, 6))
    short, _ = layer(x[1:2, :2], 2, place(1, 2))
    torch.testing.assert_close(out[:1], whole)
    torch.testing.assert_close(out[1:2, :2], short)
    assert out[~valid].abs().sum() == 0
    assert torch.isfinite(layer(x, 2, place(3, 6, torch.zeros(3, 6, dtype=torch.bool)))[0]).all()


def test_padding_counts_for_nothing_where_streams_are_masked(monkeypatch):
    layer, x = build_layer("more_a", top_k=2).double(), torch.randn(3, 6, 16).double()
    valid = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    cut, _ = layer(x, 2, place(3, 6, valid))
    monkeypatch.setattr(Streams, "_masks_streams", staticmethod(lambda device: True))
    masked, _ = layer(x, 2, place(3, 6, valid))
    torch.testing.assert_close(masked, cut)


def test_the_router_is_the_projects_own():
    assert type(build_layer("base").router) is Router


# ------------------------------------------------------------------------------------------- attention of experts


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("time", [5, 40])  # 40: streams of several length classes
@pytest.mark.parametrize("sees", ["same", "same on a GPU", "all"])
def test_expert_attention_sees_earlier_rows_of_its_sequence_and_of_one_expert_or_all(top_k, time, sees, monkeypatch):
    if sees.endswith("GPU"):
        monkeypatch.setattr(Streams, "_masks_streams", staticmethod(lambda device: True))
        sees = "same"
    batch, heads, width = 3, 2, 16
    indices = torch.rand(batch, time, 4).add(torch.tensor([1.0, 0.3, 0.0, 0.0])).argsort(-1, descending=True)
    indices = indices[..., :top_k]
    turns = build_rotary_table(80, width // heads, CPU)[:time][None]
    groups = group_rows(indices.flatten(0, 1), 4)
    streams = Streams(groups, indices, Place(torch.arange(time)[None], turns), heads, 4, sees=sees)
    rows = torch.randn(len(groups.order), 3 * width, dtype=torch.float64)
    found = streams.attend(0, rows)
    sequence, position = groups.token // time, groups.token % time
    q, k, v = rows.view(-1, 3, heads, width // heads).unbind(1)
    for row in range(len(rows)):
        seen = [
            other
            for other in range(len(rows))
            if sequence[other] == sequence[row]
            and (sees == "all" or groups.expert[other] == groups.expert[row])
            and position[other] <= position[row]
        ]
        query = rotate(q[[row]], turns[0, position[[row]]][:, None])
        keys = rotate(k[seen], turns[0, position[seen]][:, None])
        scores = torch.einsum("qhd,khd->hqk", query, keys) / (width // heads) ** 0.5
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[seen]).flatten()
        torch.testing.assert_close(found[row], expected)


# -------------------------------------------------------------------------------------------------- small parts


def test_rotary_scores_depend_on_distance_alone():
    turns = build_rotary_table(40, 8, CPU)
    query, key = torch.randn(2, 1, 8, dtype=torch.float64)
    score = [
        (rotate(query, turns[p + 5][None]) * rotate(key, turns[p][None])).sum() for p in (0, 3, 30)
    ]  # a float32 table, so exact to its precision
    torch.testing.assert_close(torch.stack(score), score[0].expand(3), rtol=0, atol=1e-6)
    assert torch.equal(rotate(query, turns[0][None]), query)


def test_rotary_by_hand():
    turned = rotate(torch.tensor([[1.0, 0.0, 0.0, 2.0]]), build_rotary_table(4, 4, CPU)[3][None])
    angles = torch.tensor([3.0, 3.0 / 100])  # 10000^(-2/4) = 1/100
    expected = [angles[0].cos(), angles[0].sin(), -2 * angles[1].sin(), 2 * angles[1].cos()]
    torch.testing.assert_close(turned, torch.stack(expected)[None])


def test_rotary_table_made_under_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        table = build_rotary_table(33, 6, CPU)
    x = torch.randn(33, 1, 6, requires_grad=True)
    rotate(x, table[:, None]).sum().backward()
    assert x.grad is not None


def test_attention_is_causal_softmax():
    q, k, v = torch.randn(3, 2, 6, 2, 4, dtype=torch.float64)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    expected = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
    torch.testing.assert_close(attend(q, k, v, None, causal=True), expected)
    mask = torch.ones(6, 6).tril().bool().expand(2, -1, -1)
    torch.testing.assert_close(attend(q, k, v, mask), expected)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("start", ["zeros", "given"])
def test_gated_unit_is_a_gru_cell_on_a_repeated_input(steps, start):
    unit = GatedUnit(1, 5, 3)
    unit.reset(0.5, 0.5)
    nn.init.normal_(unit.bias)
    cell = nn.GRUCell(5, 3)
    with torch.no_grad():
        cell.weight_ih.copy_(unit.input[0].T)
        cell.weight_hh.copy_(unit.state[0].T)
        cell.bias_ih.copy_(unit.bias[0])
        cell.bias_hh.zero_()
    x = torch.randn(7, 5)
    state = None if start == "zeros" else torch.randn(7, 3)
    groups = group_rows(torch.zeros(7, 1, dtype=torch.long), 1, how="loop")
    found = unit(x, groups, steps, state)
    expected = torch.zeros(7, 3) if state is None else state
    for _ in range(steps):
        expected = cell(x, expected)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model_type", MODEL_TYPES[1:])
def test_the_token_enters_at_every_step(model_type):
    """After many steps two tokens still end in different states: none has been forgotten."""
    layer = build_layer(model_type, num_experts=1).double()
    x = torch.randn(2, 1, 16).double()
    out, _ = layer(x, 64, place(2, 1))
    assert F.mse_loss(out[0], out[1]) > 1e-4
    again, _ = layer(x, 64, place(2, 1))
    assert torch.equal(out, again)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("dispatch", ["grouped", "loop"])
def test_bfloat16_autocast_keeps_the_router_in_float32(model_type, dispatch):
    layer = build_layer(model_type, dispatch, top_k=2)
    x = torch.randn(2, 6, 16, requires_grad=True)
    plain, _ = layer(x, 2, place(2, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, routed = layer(x, 2, place(2, 6))
    assert routed.logits.dtype == torch.float32
    torch.testing.assert_close(out.float(), plain, rtol=0.1, atol=0.15 * float(plain.detach().std()))
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
