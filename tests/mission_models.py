"""Sentences, and a tiny DistilBERT made with the real library, for tests of mission encoders."""

from pathlib import Path

import torch

WORDS = ("go to the a red green blue ball box key door open pick up put next then and after you , behind left").split()
SENTENCES = [
    "go to the red ball",
    "open a blue door",
    "put the red ball next to the blue box",
    "pick up a key, then open the green door",
    "go to the red box",
    "open the door",
    "open the blue door",
]


def silent(line: str) -> None:
    """Take an announcement and drop it."""


def save_tiny_distilbert(folder: Path, seed: int = 0, **overrides) -> Path:
    """Save a real, randomly initialised DistilBERT with a WordPiece vocabulary."""
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    sizes = {"vocab_size": len(vocabulary), "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}
    config = DistilBertConfig(**{**sizes, "max_position_embeddings": 32, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        DistilBertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
