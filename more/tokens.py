"""Text to numbers and back: GPT-2's byte-pair tokenizer, or a small one trained on the training text.

    tokenizer = train_tokenizer(documents, vocab_size=512)
    tokenizer.encode("Where is Mary?"), tokenizer.end_token
    Tokenizer.from_json(tokenizer.json)                       # as checkpoints keep it

Both are of the kind of GPT-2 (byte-level byte pairs: no text is unknown, decoding gives back every text).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from more.babi import DataError

END_OF_TEXT = "<|endoftext|>"
HUB_NAME = "openai-community/gpt2"


class Tokenizer:
    """A byte-level tokenizer with an end-of-text token.

    Args:
        inner: A `tokenizers.Tokenizer`.

    Attributes:
        json: All that defines it, as text.
        digest: SHA-256 of `json`.
        vocab_size: Tokens known.
        end_token: Id of the end-of-text token, which also starts every document.

    Raises:
        DataError: If it has no end-of-text token.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.json: str = inner.to_str()
        self.digest = hashlib.sha256(self.json.encode()).hexdigest()
        self.vocab_size: int = inner.get_vocab_size()
        self.end_token: int = inner.token_to_id(END_OF_TEXT)
        if self.end_token is None:
            raise DataError(f"expected a tokenizer that has the token {END_OF_TEXT} (as GPT-2's), found none")

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Return the tokenizer that `json` of another one describes.

        Raises:
            DataError: If the text describes none.
        """
        import tokenizers

        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"expected the JSON of a tokenizer ({error})") from None
        return cls(inner)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without end-of-text."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batches(self, texts: Iterable[str], size: int = 512) -> Iterator[list[int]]:
        """Yield the tokens of each of many texts."""
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == size:
                yield from (e.ids for e in self._inner.encode_batch(batch, add_special_tokens=False))
                batch = []
        yield from (e.ids for e in self._inner.encode_batch(batch, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; end-of-text is left out."""
        return self._inner.decode(list(tokens), skip_special_tokens=True)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return what each single token reads as."""
        return [self._inner.decode([token], skip_special_tokens=False) for token in tokens]


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return a byte-pair tokenizer of at most `vocab_size` tokens; the same for the same documents.

    Digits stay single, so that a sum is read digit by digit.

    Raises:
        DataError: If `vocab_size` cannot hold the 256 bytes and end-of-text.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise DataError(f"tokenizer_size: expected at least 257 (the bytes and end-of-text), found {vocab_size}")
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(documents, trainer=trainer)
    return Tokenizer(inner)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer in a folder (`tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`), or None.

    Raises:
        DataError: If the files are there and cannot be read.
    """
    for whole in sorted(folder.rglob("tokenizer.json")):
        try:
            return Tokenizer.from_json(whole.read_text(encoding="utf-8"))
        except (OSError, DataError) as error:
            raise DataError(f"{whole}: {error}") from None
    for vocabulary in sorted(folder.rglob("vocab.json")):
        merges = vocabulary.with_name("merges.txt")
        if merges.is_file():
            return _read_vocabulary(vocabulary, merges)
    return None


def _read_vocabulary(vocabulary: Path, merges: Path) -> Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    try:
        words = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
        inner = tokenizers.Tokenizer(models.BPE(vocab=words, merges=pairs))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{vocabulary}: expected GPT-2's vocabulary, with {merges.name} beside it ({error})") from None
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if END_OF_TEXT in words:
        inner.add_special_tokens([END_OF_TEXT])
    return Tokenizer(inner)
