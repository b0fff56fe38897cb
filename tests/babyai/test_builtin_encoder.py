"""The built-in mission encoder: frozen values, and what a policy can read of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babyai.builtin_encoder import embed_builtin
from babyai.missions import MISSION_WIDTH, build_mission_encoder
from tests.mission_models import SENTENCES, WORDS, silent

GOLDEN_HEAD = [
    -0.3206180930137634,
    -0.9618542194366455,
    -2.03058123588562,
    -0.7481088638305664,
    0.10687269270420074,
    -0.3206180930137634,
]
GOLDEN_TAIL = [-0.3206180930137634, 1.3893450498580933, -0.7481088638305664]
GOLDEN_FINGERPRINT = "d9a139b6363b7972b23e93aed8b90e81181ab67b5e090bd7ef83a638f823b3e0"


def cosine(a: str, b: str) -> float:
    return float(embed_builtin(a) @ embed_builtin(b)) / MISSION_WIDTH


def test_builtin_golden_values():
    """Frozen: a change here makes every checkpoint trained with the built-in encoder unreadable."""
    vector = embed_builtin("go to the red ball")
    assert vector.dtype == np.float32
    assert vector.shape == (MISSION_WIDTH,)
    assert vector[:6].tolist() == GOLDEN_HEAD
    assert vector[-3:].tolist() == GOLDEN_TAIL
    assert build_mission_encoder("builtin", announce=silent).fingerprint == GOLDEN_FINGERPRINT


def test_builtin_has_unit_variance():
    vectors = np.stack([embed_builtin(s) for s in SENTENCES]).astype(np.float64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), np.sqrt(MISSION_WIDTH), rtol=1e-6)
    assert np.abs(vectors.mean(axis=1)).max() < 0.15  # standard error 1 / sqrt(768) = 0.036


def test_builtin_normalisation():
    expected = embed_builtin("go to the red ball, then open a door")
    assert np.array_equal(embed_builtin("  Go to\tthe RED ball ,then open a door\n"), expected)
    assert not np.array_equal(embed_builtin("go to the red ball then open a door"), expected)


def test_builtin_accepts_any_text():
    vectors = [embed_builtin(s) for s in ("", ",", "grün", "the the the", "\ud800")]
    assert all(np.isfinite(v).all() for v in vectors)
    assert len({v.tobytes() for v in vectors}) == len(vectors)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("put the red ball next to the blue box", "put the blue ball next to the red box"),
        ("go to a red ball, then open the blue door", "open the blue door, then go to a red ball"),
        ("go to a red ball", "go to the red ball"),
        ("go to the red ball", "go to the red box"),
    ],
)
def test_builtin_near_misses_stay_apart(a, b):
    assert cosine(a, b) < 0.95


def test_builtin_shared_words_are_similar():
    assert cosine("go to the red ball", "go to the blue ball") > 0.5
    assert abs(cosine("go to the red ball", "open a grey door")) < 0.2


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=12), data=st.data())
def test_builtin_word_order_matters(words, data):
    other = data.draw(st.permutations(words))
    if other == words:
        assert np.array_equal(embed_builtin(" ".join(other)), embed_builtin(" ".join(words)))
    else:
        assert cosine(" ".join(words), " ".join(other)) < 0.99


def test_builtin_missions_survive_the_frozen_projection():
    """The policy sees 32 numbers: colour and object must be readable there, in new combinations too."""
    colors, objects = "red green blue purple yellow grey".split(), "ball box key".split()
    cases = [(a, c, o) for a in ("a", "the") for c in colors for o in objects]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projection = torch.nn.Linear(MISSION_WIDTH, 32).requires_grad_(False)
    encoder = build_mission_encoder("builtin", announce=silent)
    seen = projection(encoder.encode([f"go to {a} {c} {o}" for a, c, o in cases])).double().numpy()
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    scale = np.linalg.norm(seen - seen.mean(0), axis=1).mean()
    assert distances[~np.eye(len(cases), dtype=bool)].min() > 0.4 * scale
    held_out = np.array([colors.index(c) % 3 == objects.index(o) for _, c, o in cases])
    inputs = np.c_[seen, np.ones(len(cases))]
    for labels in (np.array([c for _, c, _ in cases]), np.array([o for _, _, o in cases])):
        names = np.unique(labels)
        targets = (labels[~held_out, None] == names).astype(float)
        weights = np.linalg.lstsq(inputs[~held_out], targets, rcond=1e-3)[0]
        guessed = names[(inputs @ weights).argmax(1)]
        assert (guessed == labels)[~held_out].all()
        assert (guessed == labels)[held_out].mean() > 0.8  # chance: 1/6 and 1/3
