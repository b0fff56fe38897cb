"""Adaptive stopping at test time: a token whose state no longer moves takes no further step."""

import json

import pytest
import torch

from more import commands
from more.config import ModelConfig
from more.cost import count_token_operations
from more.experts import EXPERTS, RowsWatched, Stopping
from more.model import Cache, MoreModel
from more.runs import run_training
from more.settings import TrainingConfig
from more.stopping import format_stopping, summarise_steps
from more.streams import Streams
from tests.more_settings import small_config

ITERATING = ["more_a", "more_b", "more_c", "more_d", "looped"]
every_variant = pytest.mark.parametrize("model_type", ITERATING)


def build(model_type: str, **changes) -> MoreModel:
    sizes = {"vocab_size": 20, "d_model": 16, "num_heads": 2, "num_layers": 2, "num_experts": 3, "top_k": 2}
    torch.manual_seed(0)
    model = MoreModel(ModelConfig(model_type, 4, dropout=0.0, max_length=12, **{**sizes, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger weights: states move, and some settle
            parameter.mul_(2.0)
    return model


@pytest.fixture
def tokens():
    return torch.randint(20, (3, 10), generator=torch.Generator().manual_seed(1))


def middle_threshold(model, tokens) -> float:
    """Return a threshold at which some tokens stop early and some do not."""
    for threshold in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        stopping = Stopping(threshold)
        model(tokens, stopping=stopping)
        (taken,) = stopping.take()
        if 0 < (taken < 4).float().mean() < 1:
            return threshold
    raise AssertionError("no threshold at which some stop")


@every_variant
@torch.no_grad()
def test_at_zero_none_stops_and_nothing_changes(model_type, tokens):
    model, stopping = build(model_type), Stopping(0.0)
    assert torch.equal(model(tokens, stopping=stopping).logits, model(tokens).logits)
    (taken,) = stopping.take()
    assert taken.shape == (3, 10, 1 if model_type == "looped" else 4)  # layers x experts of a token
    assert (taken == 4).all()


@every_variant
@torch.no_grad()
def test_a_token_that_has_stopped_stays_as_it_is(model_type, tokens):
    """Where all stop as early as they can, more steps change nothing."""
    model = build(model_type)
    least = 1 if model_type == "more_d" else 2  # its state begins at the feed-forward output, that of others at nothing
    stopping = Stopping(1e9)
    logits = model(tokens, stopping=stopping).logits
    (taken,) = stopping.take()
    assert (taken == least).all()
    assert torch.allclose(logits, model(tokens, num_recurrences=least).logits, atol=1e-5)


@every_variant
@torch.no_grad()
def test_stopping_is_causal_and_cached_decoding_stops_alike(model_type, tokens):
    model = build(model_type)
    threshold = middle_threshold(model, tokens)
    stopping = Stopping(threshold)
    logits = model(tokens, stopping=stopping).logits
    (taken,) = stopping.take()
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 20
    assert torch.allclose(model(changed, stopping=stopping).logits[:, :6], logits[:, :6], atol=1e-5)
    stopping.take()
    cache = Cache(model, batch=3, capacity=10)
    pieces = [
        model(part, cache=cache, stopping=stopping).logits for part in (tokens[:, :4], tokens[:, 4:5], tokens[:, 5:])
    ]
    assert torch.allclose(torch.cat(pieces, dim=1), logits, atol=1e-4)
    assert torch.equal(torch.cat(stopping.take(), dim=1), taken)


@pytest.mark.parametrize("expert_attention", ["same", "all"])
@torch.no_grad()
def test_a_stopped_token_offers_the_keys_of_its_last_step(tokens, expert_attention):
    """Held apart: with all but one token stopped after two steps, the last one reads their second step's keys."""
    model = build("more_a", num_layers=1, num_experts=1, top_k=1, expert_attention=expert_attention)
    seen = []

    class Watching(RowsWatched):
        def step(self, old, new):
            state = super().step(old, new)
            if old is not None:
                self.stopped = torch.ones_like(self.stopped)
                self.stopped.view(3, 10)[:, -1] = False
            return state

    stopping = Stopping(0.0)
    stopping.watch = lambda: Watching(0.0)
    with pytest.MonkeyPatch.context() as patch:
        attend = Streams.attend
        patch.setattr(Streams, "attend", lambda self, step, qkv: seen.append(qkv.clone()) or attend(self, step, qkv))
        model(tokens, stopping=stopping)
    steps = torch.stack(seen).view(4, 3, 10, -1)
    assert torch.equal(steps[2, :, :9], steps[1, :, :9]) and torch.equal(steps[3, :, :9], steps[1, :, :9])
    assert not torch.allclose(steps[1, :, :9], steps[0, :, :9])
    assert not torch.allclose(steps[3, :, 9], steps[2, :, 9])


@torch.no_grad()
def test_padding_takes_no_step_and_changes_nothing(tokens):
    for model_type in ITERATING:
        model = build(model_type)
        stopping = Stopping(middle_threshold(model, tokens))
        alone = model(tokens[:1, :6], stopping=stopping).logits
        padded = model(tokens, lengths=torch.tensor([6, 10, 10]), stopping=stopping).logits
        one, several = stopping.take()
        assert torch.allclose(padded[:1, :6], alone, atol=1e-5)
        assert torch.equal(several[:1, :6], one)
        assert (several[0, 6:] == 0).all()


def test_the_rule_by_hand():
    watched = RowsWatched(0.1)
    first = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(watched.step(None, first), first)
    second = torch.tensor([[3.0, 4.4], [3.0, 5.0], [0.0, 0.0]])  # moved by 0.075, 0.17 of its size, and 0 of 0
    assert torch.equal(watched.step(first, second), second)
    assert watched.stopped[:, 0].tolist() == [True, False, False]
    third = watched.step(second, second + 1)
    assert torch.equal(third, torch.tensor([[3.0, 4.4], [4.0, 6.0], [1.0, 1.0]]))
    assert watched.taken.tolist() == [2, 3, 3]


def test_operations_are_those_of_the_mean_steps():
    for model_type in ITERATING:
        config = ModelConfig(model_type, 4, vocab_size=20, d_model=16, num_heads=2, num_layers=2, num_experts=3)
        mean = (count_token_operations(config, 2) + count_token_operations(config, 4)) / 2
        assert count_token_operations(config, 3.0) == mean
        stopping = Stopping(0.1)
        stopping.begin()
        stopping.note(torch.tensor([[[2.0], [4.0]]]))
        found = summarise_steps(config, 4, stopping, torch.tensor([[0, 1]]).numpy())
        assert found["steps"] == 3.0 and found["token_operations"] == mean
        assert found["token_operations_of_all"] == count_token_operations(config, 4)
        assert found["by_depth"] == {"0": 2.0, "1": 4.0}
    assert set(ITERATING) == set(EXPERTS) - {"base"}


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """The checkpoint of a model of chains."""
    folder = tmp_path_factory.mktemp("chains")
    values = {"preset": "chains", "model_type": "more_a", "num_recurrences": 2, "num_experts": 2, "num_sequences": 300}
    values |= {name: str(folder / name) for name in ("checkpoint_dir", "log_dir")}
    assert run_training(TrainingConfig(**values, updates=5, tensorboard=False), quiet=True) == 0
    return next(folder.rglob("final_model.pth"))


def test_the_report_of_a_task(chains, capsys):
    flags = ["--checkpoint_path", str(chains), "--recurrences", "2,6", "--num_questions", "60"]
    assert commands.evaluate(flags) == 0
    plain = json.loads(chains.with_name("evaluation.json").read_text())
    assert commands.evaluate([*flags, "--stop_below", "0.3"]) == 0
    told = capsys.readouterr().out
    found = json.loads(chains.with_name("evaluation.json").read_text())
    stopped = found.pop("stopping")
    assert found == plain  # what stands beside it is as without
    assert stopped["threshold"] == 0.3 and set(stopped["accuracy"]) == {"2", "6"}
    assert 1.0 < stopped["steps"]["6"]["steps"] < 6.0
    assert set(stopped["steps"]["6"]["by_depth"]) == set(found["accuracy"]["6"])
    assert "r = 6, stopping" in told and "  steps taken" in told
    assert "a token stops where a step moves its state by less than 0.3 of its size:" in told
    assert commands.evaluate([*flags, "--stop_below", "1e-9"]) == 0
    never = json.loads(chains.with_name("evaluation.json").read_text())["stopping"]
    assert never["accuracy"] == plain["accuracy"]
    assert never["steps"]["6"]["token_operations"] == plain["token_operations"]["6"]


def test_the_report_of_a_text(tmp_path, capsys):
    config = small_config(tmp_path, model_type="more_d", num_recurrences=3, updates=2)
    assert run_training(config, quiet=True) == 0
    path = next(tmp_path.rglob("final_model.pth"))
    flags = ["--checkpoint_path", str(path), "--max_documents", "3", "--num_questions", "1", "--sample_tokens", "1"]
    assert commands.evaluate([*flags, "--cache_dir", config.cache_dir, "--stop_below", "0.5"]) == 0
    told = capsys.readouterr().out
    found = json.loads(path.with_name("evaluation.json").read_text())["stopping"]
    assert 1.0 <= found["steps"]["3"]["steps"] < 3.0
    assert f"perplexity at r = 3 with it: {found['perplexity']['3']['perplexity']:.3f}" in told
    assert format_stopping(found)[-1] in told


def test_what_cannot_stop_is_refused(tmp_path, capsys):
    config = small_config(tmp_path, updates=1)
    assert run_training(config, quiet=True) == 0
    flags = ["--checkpoint_path", str(next(tmp_path.rglob("final_model.pth"))), "--stop_below"]
    assert commands.evaluate([*flags, "0.1"]) == 2
    assert "stop_below: expected a model that iterates" in capsys.readouterr().err
    assert commands.evaluate([*flags, "1.5"]) == 2
    assert "expected a share from 0 to below 1, found 1.5" in capsys.readouterr().err
