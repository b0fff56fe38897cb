"""A mission encoder that needs nothing: no model, no download, the same bits on every machine.

    embed_builtin("go to the red ball")     # (768,) float32

For machines without DistilBERT, for tests, and because the missions of BabyAI are made of a few dozen words: what a
policy needs of them is that equal words look alike and different sentences do not.
"""

import functools
import hashlib
import itertools
import re

import numpy as np

WIDTH = 768  # DistilBERT's, so that one lang_proj fits either

TEST_SENTENCES = (
    "go to the red ball",
    "open a blue door",
    "Put the GREY key next to the purple box, then pick up a ball you see behind you",
)
"""What fingerprints are taken over, those of Hugging Face models too."""

_BUILTIN_VERSION = b"rl-mop builtin mission encoder 1"
_TOKEN = re.compile(rb"[a-z0-9'\-\x80-\xff]+|[^\sa-z0-9'\-\x80-\xff]")
# Chosen on 851 missions of 11 levels. More weight on single words brings missions that differ only in word
# order together; more on pairs (or adding triples) costs a linear probe behind the 32-wide projection the
# ability to read colour and object in combinations it was not fitted on. Numbers in docs/LOG.md.
_WORD_WEIGHT, _PAIR_WEIGHT, _POSITION_WEIGHT = 3, 2, 2


@functools.lru_cache(maxsize=16_384)
def _feature(weight: int, *key: bytes) -> np.ndarray:
    """Return WIDTH pseudorandom +-weight (int64) that depend on `key` alone in their signs."""
    message = b"".join(len(part).to_bytes(4, "big") + part for part in (_BUILTIN_VERSION, *key))
    digest = hashlib.shake_256(message).digest(WIDTH // 8)
    feature = (np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.int64) * 2 - 1) * weight
    feature.flags.writeable = False  # the cache hands out one array many times
    return feature


def _builtin_sum(sentence: str) -> np.ndarray:
    """Return the weighted sum of a sentence's features, (WIDTH,) int64, exact."""
    # Bytes, because lower() and split rules for str follow the Unicode tables of the Python version.
    words = _TOKEN.findall(sentence.encode("utf-8", "surrogatepass").lower())
    total = np.zeros(WIDTH, dtype=np.int64)
    for position, word in enumerate(words):
        total += _feature(_WORD_WEIGHT, b"word", word)
        total += _feature(_POSITION_WEIGHT, b"position", str(position).encode(), word)
    bounded = [b"", *words, b""]  # no word is empty, so this marks both ends
    for left, right in itertools.pairwise(bounded):
        total += _feature(_PAIR_WEIGHT, b"pair", left, right)
    return total


def embed_builtin(sentence: str) -> np.ndarray:
    """Return the built-in embedding of one sentence: (768,) float32, of norm sqrt(768).

    Each word, each pair of neighbours (the ends included) and each word at its position stands for a vector
    of +-1 drawn from SHAKE-256; the embedding is their weighted sum, scaled to unit mean square. Words bring
    missions that share them together, pairs and positions set word order apart. All is exact integer
    arithmetic up to one square root, one division and one rounding to float32, which IEEE 754 fixes, so any
    machine gives the same bits.

    ASCII letters are lower-cased and white space only separates words; punctuation marks are words of their
    own.
    """
    total = _builtin_sum(sentence)
    mean_square = int((total * total).sum()) / WIDTH
    return (total / np.sqrt(max(mean_square, 1.0))).astype(np.float32)


def compute_builtin_fingerprint() -> str:
    """Return the SHA-256, in hex, of what the algorithm makes of the test sentences."""
    digest = hashlib.sha256(_BUILTIN_VERSION)
    for sentence in TEST_SENTENCES:
        digest.update(_builtin_sum(sentence).astype("<i8").tobytes())
    return digest.hexdigest()
