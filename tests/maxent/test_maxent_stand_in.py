"""Stand-ins: trained here, the same each time, kept by what they depend on, and marked wherever they are named."""

import json

import numpy as np
import pytest
import torch

from maxent.data.prompts import ACTIVITIES, parse_answer, read_line
from maxent.data.sample import DataError, Frame, Sample
from maxent.data.synthetic import build_text_samples, make_activities, make_captions, make_sums
from maxent.dts_implementation.models.stand_in import build_stand_in
from maxent.dts_implementation.models.stand_in_training import (
    ARCHITECTURES,
    StandInSettings,
    build_network,
    build_tokenizer,
    draw_batches,
    encode_samples,
    pad,
)
from maxent.dts_implementation.search.maxent_ts import search
from maxent.dts_implementation.search.result import SearchSettings
from maxent.registry import MODEL_CONFIGS
from maxent.rewards.likelihood import reward_likelihood
from maxent.rewards.result import RewardResult

TINY = StandInSettings(steps=3, batch_size=4, vocab_size=300, width=16)
SUMS = make_sums(40, "train", 0)


def build(folder, key="llama-7b", samples=SUMS, settings=TINY, **options):
    """Return a stand-in and the lines that were announced."""
    told = []
    return build_stand_in(key, samples, folder, settings, announce=told.append, **options), told


# ---------------------------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_each_architecture_is_packed_searched_and_marked(key, tmp_path):
    stand_in, told = build(tmp_path, key, kv="packed")  # raises if the test at loading fails
    assert stand_in.model.kv == "packed"
    assert stand_in.display_name == f"{MODEL_CONFIGS[key]['display_name']} (stand-in)"
    assert stand_in.description.startswith(f"weights: stand-in for {MODEL_CONFIGS[key]['name']}")
    assert stand_in.weights == "stand-in"
    assert all("stand-in" in line for line in told)
    assert json.loads((stand_in.folder / "stand_in.json").read_text())["weights"] == "stand-in"
    found = search(
        stand_in.model, SUMS[0].prompt, lambda answer: RewardResult(0.0), SearchSettings(num_rollouts=4, max_tokens=5)
    )
    assert len(found.rollouts) == 4


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_full_size_is_about_a_third_of_a_million_parameters(key):
    model = build_network(key, 512, 0)
    assert model.config.model_type == ARCHITECTURES[key][0]
    assert 2.2e5 < sum(parameter.numel() for parameter in model.parameters()) < 4e5


def test_a_stand_in_learns_what_it_is_shown(tmp_path):
    """Twelve sentences, many times."""
    words = ["red", "green", "blue"]
    questions = [(f"{word} {n}?", word) for word in words for n in range(4)]
    samples = build_text_samples(questions, "story", "colours")
    settings = StandInSettings(steps=120, batch_size=12, learning_rate=1e-2, vocab_size=300, width=32)
    stand_in, _ = build(tmp_path, samples=samples, settings=settings)
    assert stand_in.losses[-1] < 0.1 < 2 < stand_in.losses[0]
    for sample in samples:
        result = search(
            stand_in.model,
            sample.prompt,
            lambda answer, sample=sample: reward_likelihood(sample.view(), answer),
            SearchSettings(method="greedy", max_tokens=12),
        )
        assert result.best.text == sample.target
        assert read_line(result.best.text) == sample.label
        assert result.best.ended


# ------------------------------------------------------------------------------------------- the same again, and kept


def test_same_settings_give_the_same_model_and_another_seed_another(tmp_path):
    one, told = build(tmp_path / "one")
    assert "training on 40 texts" in told[0]
    other, _ = build(tmp_path / "other")
    assert one.folder.name == other.folder.name
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert one.losses == other.losses
    prompt = SUMS[0].prompt
    np.testing.assert_array_equal(one.model.start(prompt), other.model.start(prompt))
    seeded, _ = build(tmp_path / "one", settings=StandInSettings(**{**vars(TINY), "seed": 1}))
    assert np.abs(seeded.model.start(prompt) - one.model.start(prompt)).max() > 1e-3


def test_what_was_trained_is_kept_by_all_that_it_depends_on(tmp_path):
    steps = []
    first, told = build(tmp_path, on_step=steps.append)
    assert len(told) == 2
    assert first.losses == tuple(steps)
    again, told = build(tmp_path, on_step=steps.append)
    assert len(told) == 1
    assert len(steps) == 3
    assert again.folder == first.folder
    assert again.losses == first.losses
    build(tmp_path, "phi-2")
    build(tmp_path, samples=SUMS[:-1])
    build(tmp_path, settings=StandInSettings(**{**vars(TINY), "steps": 4}))
    assert len(list(tmp_path.iterdir())) == 4
    assert not list(tmp_path.glob(".*"))  # nothing unfinished is left behind


def test_a_folder_without_its_last_file_is_made_anew(tmp_path):
    first, _ = build(tmp_path)
    weights = (first.folder / "model.safetensors").read_bytes()
    (first.folder / "stand_in.json").unlink()
    (first.folder / "model.safetensors").write_bytes(b"half")
    again, told = build(tmp_path)
    assert "training" in told[0]
    assert (again.folder / "model.safetensors").read_bytes() == weights


def test_a_training_that_is_broken_off_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_torchs_generator_alone(tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    build(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------------------------- its parts


def test_any_text_comes_back_from_the_tokenizer():
    samples = [*make_captions(12, "train", 0), *make_activities(4, "train", 0)]
    tokenizer = build_tokenizer(samples, 400)
    for text in [samples[0].prompt, samples[0].target, "é 12.5 -0.3\n\n -1.0  ü<x>", *ACTIVITIES]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prompt = samples[0].prompt
    points = samples[0].series.shape[1]
    assert len(tokenizer(prompt)["input_ids"]) < points + 180  # a point is about a token
    assert parse_answer(samples[-1].target, ACTIVITIES) == samples[-1].label


def test_digits_of_sums_are_tokens_of_their_own():
    tokenizer = build_tokenizer(SUMS, 300)
    assert tokenizer.convert_ids_to_tokens(tokenizer("12+15=27")["input_ids"]) == list("12+15=27")


def test_only_answers_are_learned():
    tokens, labels = pad([([5, 6, 7, 8], 2), ([9, 4], 1)])
    assert tokens.tolist() == [[5, 6, 7, 8], [9, 4, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 8], [-100, 4, -100, -100]]


def test_batches_hold_each_text_once():
    lengths = np.random.default_rng(0).integers(3, 90, 101).tolist()
    batches = draw_batches(lengths, 8, np.random.default_rng(1))
    assert sorted(row for batch in batches for row in batch) == list(range(101))
    assert np.mean([np.ptp([lengths[row] for row in batch]) for batch in batches]) < 25


def test_long_series_are_shortened_to_fit():
    long = Sample("x", Frame("Say.", ("Series",), "So:"), np.arange(900.0)[None], "caption", "up", " up")
    tokenizer = build_tokenizer([long], 300)
    ((tokens, prompt),) = encode_samples([long], tokenizer, 200)
    assert len(tokens) <= 200
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[prompt:-1]) == " up"


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("key", ["toy", "gpt-4", "more"])
def test_keys_without_an_architecture_are_refused(key, tmp_path):
    with pytest.raises(ValueError, match=r"stand_in: expected one of llama-7b, .*, found '"):
        build(tmp_path, key)


def test_nothing_is_learned_from_nothing(tmp_path):
    with pytest.raises(ValueError, match="expected samples"):
        build(tmp_path, samples=[])
    with pytest.raises(DataError, match="do not fit"):
        build(tmp_path, samples=build_text_samples([("1" * 3000, "c")], "story", "long"))


@pytest.mark.parametrize(
    "changes",
    [{"steps": 0}, {"batch_size": 0}, {"vocab_size": 256}, {"width": 7}, {"width": 20}, {"seed": -1}]
    + [{"learning_rate": rate} for rate in (0.0, float("nan"))],
)
def test_settings_out_of_range_are_named(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"{name}: expected"):
        StandInSettings(**changes)
