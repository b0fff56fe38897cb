"""The compiled engine computes what the torch engine computes: actions, states and gradients, for all architectures."""

from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn

from babyai.observations import OBSERVATION_DIM
from mixture_of_experts import ENCODINGS, FUSIONS, ExpertDropout
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.packed import pack_replicas
from pipeline.engine.torch_engine import TorchEngine
from pipeline.engine.weights import ReplicaWeights
from tests.policies import KINDS, Widths, build_small_policy, draw_codes

OBS, LANG, SENTENCE, WIDTH, ROUTER, ACTIONS = 9, 4, 6, 10, 5, 7
STEPS = 6
LAYERS = {
    "classic": [[0, 3, 6], [0, 3, 6]],
    "different layers": [[2, 0, 4], [3], [5, 1]],
    "all skip between others": [[3, 0], [0, 0], [2]],
    "skips at both ends": [[0, 3, 0], [0, 2, 1, 0]],
    "large": [[0, 16, 32]],
}
CASES = [("gru", "classic"), *((kind, name) for kind in KINDS for name in LAYERS)]


def build(
    kind: str, sizes: list[list[int]], seed: int, obs_encoding: str = "raw", mission_fusion: str = "concat"
) -> nn.Module:
    widths = Widths(OBS if obs_encoding == "raw" else OBSERVATION_DIM, LANG, WIDTH, ROUTER, ACTIONS)
    return build_small_policy(kind, sizes, widths, seed, obs_encoding, mission_fusion)


class Unroll:
    """One engine, an unroll that it has acted, and what came out."""

    def __init__(
        self,
        engine_class,
        kind,
        sizes,
        *,
        replicas=2,
        envs=3,
        groups=1,
        dropout=False,
        trained=False,
        bad=0.0,
        encoding="raw",
        fusion="concat",
    ):
        policies = [build(kind, sizes, seed, encoding, fusion) for seed in range(replicas)]
        projections = [nn.Linear(SENTENCE, LANG) for _ in policies] if trained else []
        self.weights = ReplicaWeights(policies, projections, lr=1e-3)
        generator = torch.Generator().manual_seed(7)

        def draw(*shape: int, normal: bool = True) -> torch.Tensor:
            """Numbers for all environments (R, T, N, ...), in the groups' order (G, T, n, ...)."""
            kind = torch.randn if normal else torch.rand
            values = kind(replicas, STEPS, groups, envs // groups, *shape, generator=generator)
            return values.transpose(1, 2).flatten(0, 1).contiguous()

        inputs = draw(OBS + LANG)
        if encoding != "raw":
            obs = draw_codes(replicas, STEPS, groups, envs // groups, generator=generator)
            obs = obs.transpose(1, 2).flatten(0, 1).contiguous()
            obs[..., ::11] = torch.tensor([-1.0, 0.5, 11.0, torch.nan])[torch.arange(14) % 4]  # codes of no vocabulary
            inputs = torch.cat([obs, inputs[..., OBS:]], dim=-1)
        start = draw(normal=False) < 0.3
        start.unflatten(0, (replicas, groups))[:, 0, 0, 0] = True
        sentences = draw(SENTENCE)
        if trained:
            by_replica = sentences.unflatten(0, (replicas, groups))
            vectors = torch.stack([projection(s) for projection, s in zip(projections, by_replica, strict=True)])
            inputs[..., -LANG:] = vectors.flatten(0, 1).detach()
        experts = getattr(policies[0], "layer_expert_sizes", [])
        self.engine = engine_class(policies[0], self.weights, inputs, start)
        hidden = [torch.randn(state.shape, generator=generator).tanh() for state in self.engine.init_hidden()]
        dropped = [ExpertDropout(draw(len(s), normal=False), 1.0, 0.6) for s in experts] if dropout else None
        for state in hidden:
            state[:, 0] += bad  # where the first step starts an episode
        self.engine.hidden = hidden
        self.engine.begin(dropped)
        self.logits = torch.stack([self.engine.act(t).clone() for t in range(STEPS)], dim=1)
        logits, routing = self.engine.replay(list(by_replica.flatten(1, 2)) if trained else [])
        self.routing = [value.detach().clone() for value in routing]
        self.replayed = logits.detach().clone()
        generator.manual_seed(3)
        loss = sum((value * draw(value.shape[-1])).sum() for value in (logits, *routing))
        self.engine.differentiate(loss)
        self.gradient, self.hidden = self.weights.gradient, self.engine.hidden


def assert_engines_agree(kind: str, layers: str, **options) -> None:
    compiled, plain = (Unroll(engine, kind, LAYERS[layers], **options) for engine in (CompiledEngine, TorchEngine))
    # LayerNorm of a few units is steep where they are nearly equal; embedded cells are multiplied in another order
    steep = kind == "mop with LayerNorm" or options.get("encoding") == "embedding"
    tolerance = 1e-4 if steep else 1e-5
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(compiled.logits, plain.logits, **close)
    torch.testing.assert_close(compiled.replayed, plain.logits, **close)
    torch.testing.assert_close(plain.replayed, plain.logits, **close)
    torch.testing.assert_close(compiled.routing, plain.routing, **close)
    torch.testing.assert_close(compiled.hidden, plain.hidden, **close)
    scale = float(plain.gradient.abs().max())
    torch.testing.assert_close(compiled.gradient / scale, plain.gradient / scale, **close)
    assert (plain.gradient != 0).any(dim=1).all()


@pytest.mark.parametrize(("kind", "layers"), CASES)
def test_engines_agree(kind, layers):
    assert_engines_agree(kind, layers)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, "gru"])
@pytest.mark.parametrize("encoding", ["onehot", "embedding"])
def test_engines_agree_about_encoded_observations(kind, encoding, trained):
    """Codes that their vocabularies do not have among them, NaN too."""
    assert_engines_agree(kind, "classic", encoding=encoding, trained=trained)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("kind", "encoding"),
    [*((kind, encoding) for kind in KINDS for encoding in ENCODINGS), ("gru", "onehot"), ("gru", "embedding")],
)
def test_engines_agree_about_missions_that_scale_features(kind, encoding, trained):
    assert_engines_agree(kind, "classic", encoding=encoding, trained=trained, fusion="film")


@pytest.mark.parametrize("kind", KINDS)
def test_engines_drop_the_same_experts(kind):
    free, dropped = (Unroll(CompiledEngine, kind, LAYERS["classic"], dropout=d) for d in (False, True))
    assert not torch.allclose(free.logits, dropped.logits)  # dropout is at work
    assert torch.equal(free.routing[0], dropped.routing[0])  # what LPC is taken from has no dropout in it
    assert_engines_agree(kind, "classic", dropout=True)


@pytest.mark.parametrize("kind", ["moe", "gru"])
def test_engines_agree_about_a_trained_mission_projection(kind):
    assert_engines_agree(kind, "classic", trained=True)


@pytest.mark.parametrize("kind", ["moe", "mop with LayerNorm", "gru"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_state_does_not_survive_an_episode_start(kind, bad):
    clean = Unroll(CompiledEngine, kind, LAYERS["different layers"])
    broken = Unroll(CompiledEngine, kind, LAYERS["different layers"], bad=bad)
    assert torch.equal(clean.logits, broken.logits)
    assert torch.equal(clean.gradient, broken.gradient)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_groups_change_nothing_but_the_order_of_the_environments(encoding, fusion):
    sizes, options = LAYERS["classic"], {"envs": 12, "dropout": True, "trained": True, "encoding": encoding}
    options["fusion"] = fusion
    one, three = (Unroll(CompiledEngine, "mop", sizes, groups=groups, **options) for groups in (1, 3))
    in_order = three.logits.unflatten(0, (2, 3)).transpose(1, 2).flatten(2, 3)  # (R, T, N, actions)
    assert torch.equal(one.logits, in_order)  # a row is computed by itself
    assert all(torch.equal(a, b) for a, b in zip(one.hidden, three.hidden, strict=True))
    torch.testing.assert_close(one.gradient, three.gradient, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_threads_change_no_bit(encoding):
    one, two = (
        Unroll(partial(CompiledEngine, threads=threads), "mop", LAYERS["large"], envs=12, groups=3, encoding=encoding)
        for threads in (1, 2)
    )
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.gradient, two.gradient)


@pytest.mark.parametrize("engine", [CompiledEngine, TorchEngine])
@pytest.mark.parametrize("kind", ["mop with LayerNorm", "gru"])
def test_a_replica_computes_the_same_bits_alone(engine, kind):
    together, alone = (Unroll(engine, kind, LAYERS["large"], replicas=replicas, envs=16) for replicas in (1, 1))
    assert torch.equal(together.logits, alone.logits)
    assert torch.equal(together.gradient, alone.gradient)


@pytest.mark.parametrize(("num_envs", "groups"), [(1, 1), (15, 1), (16, 1), (17, 1), (48, 3), (64, 4), (100, 5)])
def test_groups_divide_the_environments_and_are_not_too_small(num_envs, groups):
    assert CompiledEngine.count_groups(num_envs) == groups


@pytest.mark.parametrize("engine", [CompiledEngine, TorchEngine])
def test_state_can_be_taken_and_put_back(engine):
    unroll = Unroll(engine, "moe", LAYERS["different layers"])
    hidden = [torch.randn_like(state) for state in unroll.hidden]
    unroll.engine.hidden = hidden
    assert all(torch.equal(a, b) for a, b in zip(hidden, unroll.engine.hidden, strict=True))
    assert [s.shape for s in hidden] == [
        s.shape for s in pack_replicas([build("moe", LAYERS["different layers"], s) for s in range(2)]).init_hidden(3)
    ]


# ------------------------------------------------------------------------------------------------------ torch.compile


class Compilable(TorchEngine):
    """The torch engine with its training pass compiled."""

    said: ClassVar[list[str]] = []

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.compile(self.said.append)


def test_a_failing_compiler_is_told_once_and_done_without(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fail)
    monkeypatch.setattr(Compilable, "said", [])
    found, plain = (Unroll(engine, "mop", LAYERS["classic"]) for engine in (Compilable, TorchEngine))
    assert Compilable.said == ["torch.compile failed (RuntimeError: no C++ compiler); going on without it"]
    assert torch.equal(found.gradient, plain.gradient)


def test_the_compiled_training_pass_is_used(monkeypatch):
    calls = []

    def note(function, **options):
        return lambda *arguments: calls.append(1) or function(*arguments)

    monkeypatch.setattr(torch, "compile", note)
    Unroll(Compilable, "mop", LAYERS["classic"])
    assert len(calls) == 2 * len(LAYERS["classic"])  # tried out, then used
