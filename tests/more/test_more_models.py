"""What must hold for every MoRE variant: no look ahead, no look across, a taught router, honest sizes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from babyai.torch_defaults import own_defaults
from mixture_of_experts import compute_router_terms
from more.checkpoints import build_model
from more.config import (
    MODEL_TYPES,
    PRESETS,
    ModelConfig,
    compute_widths,
    count_expert_parameters,
    count_used_parameters,
    migrate_settings,
)
from more.cost import compute_recurrence_cost, count_expert_operations, count_token_operations
from more.model import Cache, MoreModel, compute_routing_terms, count_parameters, routing_losses
from tests.torch_defaults import every_default

TINY = {"vocab_size": 40, "d_model": 16, "num_heads": 2, "num_layers": 2, "num_experts": 4, "max_length": 32}

every_variant = pytest.mark.parametrize("model_type", MODEL_TYPES)
every_kind = pytest.mark.parametrize("model_type", [*MODEL_TYPES, "more_a all"])
"""Every variant, and `more_a` whose experts attend to all earlier tokens."""
every_top_k = pytest.mark.parametrize("top_k", [1, 2])
every_mode = pytest.mark.parametrize("mode", ["train", "eval"])


def build(model_type: str, seed: int = 0, **changes) -> MoreModel:
    """Return a tiny model in float64 whose routers have made up their minds, so that experts do differ."""
    model_type, _, sees = model_type.partition(" ")
    config = ModelConfig(
        model_type=model_type, **{"num_recurrences": 3, "expert_attention": sees or "same", **TINY, **changes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MoreModel(config).double()
        for block in model.blocks:
            nn.init.normal_(block.mixture.router.fc.weight)
    return model


def draw_tokens(batch: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, (batch, time), generator=torch.Generator().manual_seed(seed))


def logits_of(model: MoreModel, tokens: torch.Tensor, **settings) -> torch.Tensor:
    """Return logits; dropout, where active, draws the same noise in each call."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        return model(tokens, **settings).logits


# -------------------------------------------------------------------------------------------- what a token may see


@every_kind
@every_top_k
@every_mode
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_changing_a_token_changes_no_logit_before_it(model_type, top_k, mode, dropout):
    model = build(model_type, top_k=top_k, dropout=dropout).train(mode == "train")
    tokens = draw_tokens(3, 20)
    before = logits_of(model, tokens)
    for t in (1, 12, 19):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1 + torch.arange(3)) % 40
        after = logits_of(model, changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert (after[:, t] - before[:, t]).abs().amax(-1).min() > 1e-6


@every_kind
@every_top_k
@every_mode
def test_a_sequence_does_not_depend_on_its_batch(model_type, top_k, mode):
    model = build(model_type, top_k=top_k, dropout=0.0).train(mode == "train")
    tokens = draw_tokens(5, 15)
    together = logits_of(model, tokens)
    for row in range(5):
        torch.testing.assert_close(logits_of(model, tokens[row : row + 1])[0], together[row], rtol=0, atol=1e-12)
    shuffled = logits_of(model, tokens.flip(0)).flip(0)
    torch.testing.assert_close(shuffled, together, rtol=0, atol=1e-12)


@every_kind
@every_top_k
def test_padding_changes_nothing(model_type, top_k):
    model = build(model_type, top_k=top_k).eval()
    tokens, lengths = draw_tokens(4, 12), torch.tensor([12, 3, 7, 1])
    out = model(tokens, lengths=lengths)
    other = tokens.clone()
    other[~out.mask] = 39
    again = model(other, lengths=lengths)
    torch.testing.assert_close(again.logits[out.mask], out.logits[out.mask], rtol=0, atol=0)
    assert torch.equal(routing_losses(again).balance, routing_losses(out).balance)
    for row, length in enumerate(lengths.tolist()):
        alone = model(tokens[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(alone, out.logits[row, :length], rtol=0, atol=1e-12)


@every_kind
@pytest.mark.parametrize("recurrences", [1, 2, 4])
def test_two_calls_give_one_answer_and_r_can_be_chosen_at_each(model_type, recurrences):
    model = build(model_type).eval()
    tokens = draw_tokens(2, 10)
    first = logits_of(model, tokens, num_recurrences=recurrences)
    assert torch.equal(first, logits_of(model, tokens, num_recurrences=recurrences))
    built_so = build(model_type, num_recurrences=recurrences).eval()
    assert torch.equal(first, logits_of(built_so, tokens))
    differs = (first - logits_of(model, tokens, num_recurrences=3)).abs().max().item() > 1e-6
    assert differs == (recurrences != 3 and model_type != "base")


@every_kind
def test_expert_attention_alone_carries_information_in_more_a(model_type):
    """With the blocks' own attention silenced only more_a sees other tokens: those of the same expert, or all."""
    model = build(model_type, num_layers=1).eval()
    nn.init.zeros_(model.blocks[0].attention.out.weight)
    tokens = draw_tokens(1, 12)
    before = model(tokens)
    expert = before.routing[0].indices[0, :, 0]
    t = 4
    changed = tokens.clone()
    changed[0, t] = (changed[0, t] + 1) % 40
    after = model(changed)
    moved = (after.logits - before.logits)[0].abs().amax(-1) > 1e-9
    groups = {int(expert[t]), int(after.routing[0].indices[0, t, 0])}
    same = model_type == "more_a"
    expected = [
        p == t or (p > t and (model_type == "more_a all" or (same and int(expert[p]) in groups))) for p in range(12)
    ]
    assert moved.tolist() == expected
    assert sum(expected) > 1 or not model_type.startswith("more_a")


# ------------------------------------------------------------------------------------------------------ learning


@every_variant
@every_top_k
def test_cross_entropy_alone_teaches_router_and_every_weight(model_type, top_k):
    model = build(model_type, top_k=top_k, num_experts=2)
    tokens = draw_tokens(4, 16)
    F.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for block in model.blocks:
        assert block.mixture.router.fc.weight.grad.abs().max() > 1e-8
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("model_type", MODEL_TYPES[1:])
def test_gradients_are_those_of_finite_differences(model_type):
    model = build(model_type, num_layers=1, num_experts=2, top_k=2, vocab_size=11, d_model=8, dropout=0.0)
    tokens = draw_tokens(2, 5) % 11

    def loss() -> torch.Tensor:
        out = model(tokens)
        terms = routing_losses(out)
        task = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        return task + 0.1 * terms.balance + 0.1 * terms.z + 1e-4 * compute_recurrence_cost(out, model.config)

    loss().backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        with torch.no_grad():
            parameter += 1e-5 * direction
            up = loss()
            parameter -= 2e-5 * direction
            down = loss()
            parameter += 1e-5 * direction
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((up - down).item() / 2e-5, rel=1e-4, abs=1e-7), name


@every_variant
def test_a_cyclic_text_is_learned(model_type):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MoreModel(ModelConfig(model_type=model_type, num_recurrences=2, dropout=0.0, **TINY))
    tokens = (torch.arange(24) % 6).expand(4, -1) + torch.arange(4)[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(model(tokens).logits[:, 1:-1].flatten(0, 1), tokens[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 1 <= loss.exp().item() < 1.1  # perplexity


def test_initial_loss_is_that_of_guessing_and_residual_projections_are_scaled():
    for model_type in MODEL_TYPES:
        config = ModelConfig(model_type=model_type, num_recurrences=2, vocab_size=500, **PRESETS["debug"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MoreModel(config)
        tokens = torch.randint(0, 500, (4, 64), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            loss = F.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        assert float(loss) == pytest.approx(torch.tensor(500.0).log().item(), rel=0.06)
        std = 0.02 * (768 / 64) ** 0.5
        attention = model.blocks[0].attention
        assert attention.query_key_value.weight.std().item() == pytest.approx(std, rel=0.05)
        assert attention.out.weight.std().item() == pytest.approx(std / 2, rel=0.05)  # sqrt(2 x 2 layers)


# --------------------------------------------------------------------------------------------- sizes and accounts


@every_variant
@pytest.mark.parametrize("match", ["total", "active"])
@pytest.mark.parametrize("recurrences", [1, 4])
@pytest.mark.parametrize(("preset", "vocab"), [("debug", 1000), ("standard", 50257)])
def test_matched_models_have_the_parameters_of_base(model_type, match, recurrences, preset, vocab):
    def count(kind: str) -> dict[str, int]:
        with torch.device("meta"):
            sizes = {"vocab_size": vocab, "match": match, **PRESETS[preset]}
            config = ModelConfig(model_type=kind, num_recurrences=recurrences, **sizes)
            return count_parameters(MoreModel(config))._asdict()

    found, base = count(model_type), count("base")
    assert found[match] == pytest.approx(base[match], rel=0.02)
    if match == "total":
        assert found["expert"] == pytest.approx(base["expert"], rel=0.02)


@pytest.mark.parametrize("model_type", MODEL_TYPES[1:])
@pytest.mark.parametrize("recurrences", [1, 2, 4])
@pytest.mark.parametrize("preset", ["debug", "standard"])
@every_top_k
def test_matched_operations_are_those_of_r_layers_of_base(model_type, recurrences, preset, top_k):
    """With two experts to a token each got the attention of the blocks that are not there: 15 % too much."""

    def operations(kind: str, layers: int) -> int:
        sizes = {**PRESETS[preset], "num_layers": layers, "num_recurrences": recurrences, "top_k": top_k}
        sizes["match"] = "operations"
        return count_token_operations(ModelConfig(model_type=kind, vocab_size=100, **sizes))

    expected = operations("base", 2 * recurrences)
    assert operations(model_type, 2) == pytest.approx(expected, rel=0.02)
    assert operations("looped", 2) == expected


def test_token_operations_by_hand():
    config = ModelConfig(model_type="base", vocab_size=40, d_model=16, num_heads=2, num_layers=2, num_experts=4)
    layer = 4 * 16 * 16 + 16 * 4 + 2 * 16 * 64
    assert count_token_operations(config) == 2 * layer + 16 * 40
    looped = dataclasses.replace(config, model_type="looped")
    assert count_token_operations(looped, 3) == 6 * layer + 16 * 40
    assert count_token_operations(dataclasses.replace(config, top_k=2)) == 2 * (layer + 2 * 16 * 64) + 16 * 40


@every_variant
@every_top_k
@pytest.mark.parametrize("match", ["none", "total"])
def test_counts_are_those_of_the_modules(model_type, top_k, match):
    config = ModelConfig(model_type=model_type, match=match, top_k=top_k, **{**TINY, "d_model": 32})
    model = MoreModel(config)
    layers = [block.mixture for block in model.blocks]
    expert = sum(p.numel() for p in layers[0].experts.parameters()) // 4
    counts = count_parameters(model)
    assert counts.expert == expert == count_expert_parameters(model_type, 32, compute_widths(config))
    assert counts.total == sum(p.numel() for p in model.parameters())
    outside = counts.total - sum(p.numel() for layer in layers for p in layer.experts.parameters())
    used = count_used_parameters(model_type, 32, compute_widths(config), 1)
    assert counts.active == outside + 2 * top_k * used
    assert count_parameters(model, 2).active == outside + 2 * top_k * expert
    assert not [name for name, _ in model.named_parameters() if "head" in name]  # the embedding is the head


@every_variant
@pytest.mark.parametrize("recurrences", [1, 2])
def test_parameters_that_count_as_used_are_those_that_move_the_output(model_type, recurrences):
    """At r = 1 what works on the empty state was counted as active: 50 % of an expert of `more_b`."""
    model = build(model_type, num_layers=1, num_experts=1, num_recurrences=recurrences)
    model(draw_tokens(4, 16)).logits.square().sum().backward()
    experts = model.blocks[0].mixture.experts
    moved = sum(int((p.grad != 0).sum()) for p in experts.parameters() if p.grad is not None)
    assert moved == count_used_parameters(model_type, 16, compute_widths(model.config), recurrences)


@every_variant
@pytest.mark.parametrize("recurrences", [1, 2, 4])
def test_operations_are_those_a_counter_finds(model_type, recurrences):
    model = build(model_type, num_layers=1, dispatch="loop")
    tokens = draw_tokens(2, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens, num_recurrences=recurrences)
    found = counter.get_flop_counts()["MoreModel.blocks.0.mixture"][torch.ops.aten.mm] // 2  # multiply-adds
    per_token = count_expert_operations(model.config, recurrences)
    if model_type == "more_c":
        per_token -= 16  # its gate is a product of vectors, which the counter does not see
    assert found == 16 * per_token


@every_variant
def test_recurrence_cost_by_hand(model_type):
    model = build(model_type, top_k=2)
    tokens, lengths = draw_tokens(2, 6), torch.tensor([6, 2])
    out = model(tokens, lengths=lengths)
    expected = 0.0
    for routed in out.routing:
        best = routed.probs[out.mask].topk(2, dim=-1).values.sum(-1)
        passes = 3 if model_type == "looped" else 1
        expected += best.mean().item() * count_expert_operations(model.config) / passes
    cost = compute_recurrence_cost(out, model.config)
    assert cost.item() == pytest.approx(expected)
    assert compute_recurrence_cost(out, model.config, 6).item() / cost.item() == pytest.approx(
        count_expert_operations(model.config, 6) / count_expert_operations(model.config, 3)
    )
    assert len(out.routing) == 2 * (3 if model_type == "looped" else 1)
    cost.backward()
    assert model.blocks[0].mixture.router.fc.weight.grad.abs().max() > 0


def test_routing_terms_are_the_shared_ones():
    out = build("base")(draw_tokens(3, 9))
    for mine, routed in zip(compute_routing_terms(out), out.routing, strict=True):
        for a, b in zip(mine, compute_router_terms(routed), strict=True):
            assert torch.equal(a, b)
        assert routed.probs.shape == (3, 9, 4)
        assert routed.indices.shape == (3, 9, 1)
        torch.testing.assert_close(routed.weights.amax(-1), routed.probs.amax(-1), rtol=0, atol=0)
    layers = compute_routing_terms(out)
    assert routing_losses(out, layers) == routing_losses(out)
    assert routing_losses(out).balance.item() == pytest.approx(sum(t.balance.item() for t in layers) / 2)


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "more_e"}, r"model_type: expected one of base, more_a.*'more_e'"),
        ({"match": "params"}, r"match: expected one of none, total, active, operations, found 'params'"),
        ({"dispatch": "fast"}, r"dispatch: expected one of auto, grouped, loop"),
        ({"expert_attention": "none"}, r"expert_attention: expected one of same, all, found 'none'"),
        ({"num_recurrences": 0}, r"num_recurrences: expected an integer of at least 1, found 0"),
        ({"num_layers": 1.5}, r"num_layers: expected an integer of at least 1, found 1.5"),
        ({"num_experts": True}, r"num_experts: expected an integer"),
        ({"top_k": 9}, r"top_k: expected 1 to 8 \(num_experts\), found 9"),
        ({"dropout": 1.0}, r"dropout: expected a number from 0 to below 1, found 1.0"),
        ({"dropout": "0.1"}, r"dropout: expected a number"),
        ({"d_model": 500}, r"d_model: expected a multiple of 2 x num_heads = 16 .*found 500"),
        ({"model_type": "more_b", "match": "active", "d_model": 16}, r"match: no width of more_b at d_model 16"),
    ],
)
def test_bad_config(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)


def test_config_is_plain_data():
    config = ModelConfig(model_type="more_c", **PRESETS["debug"])
    assert ModelConfig(**dataclasses.asdict(config)) == config


def test_older_settings_mean_what_they_meant():
    """Before `expert_attention` there was `same` alone, and `active` counted what r = 1 does not use."""
    older = dataclasses.asdict(ModelConfig(model_type="more_b", match="active", num_recurrences=1, **PRESETS["debug"]))
    del older["expert_attention"]
    config = ModelConfig(**migrate_settings(older))
    assert (config.expert_attention, config.match) == ("all", "total")  # where none attends, what it sees is no matter
    assert migrate_settings({**older, "model_type": "more_a"})["expert_attention"] == "same"
    assert compute_widths(config).state == 64  # as it was
    more = {**older, "num_recurrences": 4}
    assert migrate_settings(more)["match"] == "active"
    assert migrate_settings({**older, "model_type": "base"})["match"] == "active"  # it has the same sizes either way
    new = dataclasses.asdict(ModelConfig(model_type="more_b", match="active", **PRESETS["debug"]))
    assert migrate_settings(new) == new


# -------------------------------------------------------------------------------------------------------- controls


def test_looped_with_one_pass_is_base():
    tokens = draw_tokens(3, 12)
    base, looped = build("base"), build("looped")
    assert torch.equal(logits_of(base, tokens), logits_of(looped, tokens, num_recurrences=1))
    assert count_parameters(base) == count_parameters(looped)


def test_looped_passes_the_blocks_again_with_the_token_added():
    model = build("looped", num_layers=1).eval()
    tokens = draw_tokens(2, 8)
    with torch.no_grad():
        embedded = model.embedding(tokens)
        seen: list[torch.Tensor] = []
        model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        out = model(tokens)
        block = model.blocks[0]
        first = block(embedded, 1, model._locate(tokens, None, None), None, None)[0]
    assert len(out.routing) == out.passes == 3
    assert torch.equal(seen[0], embedded)
    torch.testing.assert_close(seen[1], first + embedded, rtol=0, atol=1e-12)
    terms = [compute_router_terms(routed) for routed in out.routing]
    (mean,) = compute_routing_terms(out)
    assert mean.balance.item() == pytest.approx(sum(term.balance.item() for term in terms) / 3)
    assert mean.load.tolist() == pytest.approx((sum(term.load for term in terms) / 3).tolist())


def test_bad_calls():
    model = build("more_a").eval()
    tokens = draw_tokens(2, 8)
    with pytest.raises(ValueError, match=r"tokens: expected \(batch, time\).*\(8,\)"):
        model(tokens[0])
    with pytest.raises(ValueError, match=r"tokens: 0 \+ 33 exceed the longest sequence, 32"):
        model(draw_tokens(1, 33))
    with pytest.raises(ValueError, match=r"num_recurrences: expected an integer of at least 1, found 0"):
        model(tokens, num_recurrences=0)
    with pytest.raises(ValueError, match=r"lengths: expected 2 integers"):
        model(tokens, lengths=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"lengths: expected 0 to 8"):
        model(tokens, lengths=torch.tensor([1, 9]))
    with pytest.raises(ValueError, match=r"under torch.no_grad"):
        model(tokens, cache=Cache(model, 2, 8))
    with torch.no_grad():
        with pytest.raises(ValueError, match=r"cache: expected one of 2 sequences, found 3"):
            model(tokens, cache=Cache(model, 3, 8))
        with pytest.raises(ValueError, match=r"num_recurrences: the cache was made with 3, found 2"):
            model(tokens, cache=Cache(model, 2, 8), num_recurrences=2)
        with pytest.raises(ValueError, match=r"tokens: 0 \+ 8 exceed the longest sequence, 7"):
            model(tokens, cache=Cache(model, 2, 7))
    with pytest.raises(ValueError, match=r"capacity: expected 1 to 32"):
        Cache(model, 2, 33)


@every_default
@every_variant
def test_torch_s_defaults_change_neither_weights_nor_logits(model_type, defaults):
    config = ModelConfig(model_type=model_type, num_recurrences=2, **TINY)
    tokens = draw_tokens(2, 9)
    expected = build_model(config, seed=0).eval()
    with defaults():
        found = build_model(config, seed=0).eval()
        with own_defaults():  # a caller's autocast of a forward pass is the caller's wish
            logits = logits_of(found, tokens)
    assert all(torch.equal(one, other) for one, other in zip(expected.parameters(), found.parameters(), strict=True))
    assert torch.equal(logits, logits_of(expected, tokens))
