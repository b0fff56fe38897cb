"""Text to numbers and back: GPT-2's byte-pair tokenizer, or a small one trained on the training text.

    tokenizer = train_tokenizer(documents, vocab_size=512)
    tokenizer.encode("Where is Mary?"), tokenizer.end_token
    Tokenizer.from_json(tokenizer.json)                       # as checkpoints keep it

Both are of the kind of GPT-2 (byte-level byte pairs: no text is unknown, decoding gives back every text). A file may
keep what other training code had switched on, which would change every number: that is switched off, and said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from more.babi import name_some
from pipeline.command.errors import DataError

END_OF_TEXT = "<|endoftext|>"
HUB_NAME = "openai-community/gpt2"
GPT2_TOKENS = 50_257

_SAMPLE = "Where is Mary? 12+30=42\n\tThe kůň, žlutý  and Old.\n"
"""Digits, capitals, accents and white space, which tokenizers of other kinds do not give back."""


class Tokenizer:
    """A byte-level tokenizer with an end-of-text token, without truncation, padding and chance.

    Args:
        inner: A `tokenizers.Tokenizer`.

    Attributes:
        json: All that defines it, as text.
        digest: SHA-256 of `json`.
        vocab_size: Tokens known.
        end_token: Id of the end-of-text token, which also starts every document.
        switched_off: What `inner` had switched on, in words.

    Raises:
        DataError: If it has no end-of-text token.
    """

    def __init__(self, inner: Any) -> None:
        inner, self.switched_off = _switch_off(inner)
        self._inner = inner
        self.json: str = inner.to_str()
        self.digest = hashlib.sha256(self.json.encode()).hexdigest()
        # Numbers may have gaps where somebody has added tokens; a row of the embedding for each number all the same.
        self.vocab_size: int = max(inner.get_vocab().values(), default=-1) + 1
        self.end_token: int = inner.token_to_id(END_OF_TEXT)
        if self.end_token is None:
            raise DataError(f"expected a tokenizer that has the token {END_OF_TEXT} (as GPT-2's), found none")

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Return the tokenizer that `json` of another one describes.

        Raises:
            DataError: If the text describes none.
        """
        return cls(_parse(text))

    @property
    def name(self) -> str:
        """What it is, by its content: GPT-2's, or byte pairs and how many."""
        gpt2 = self._inner.get_vocab_size(with_added_tokens=False) == GPT2_TOKENS and self.end_token == GPT2_TOKENS - 1
        return "GPT-2's" if gpt2 else f"byte pairs, {self.vocab_size:,} tokens"

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


def _parse(text: str) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"expected the JSON of a tokenizer ({error})") from None


def _switch_off(inner: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a tokenizer without what changes texts' tokens from outside its vocabulary, and what that was, in words.

    Truncation and padding are saved with a tokenizer by whatever used it last; dropout of merges makes it random; a
    space before every text makes the tokens of prompt and answer others than those of both together.
    """
    state = json.loads(inner.to_str())
    found = []
    if truncation := state.get("truncation"):
        found.append(f"truncation to {truncation.get('max_length')} tokens")
    if padding := state.get("padding"):
        length = padding["strategy"].get("Fixed") if isinstance(padding.get("strategy"), dict) else None
        found.append(f"padding to {length} tokens" if length else "padding")
    state["truncation"] = state["padding"] = None
    if state["model"].get("dropout"):
        found.append(f"dropout of merges {state['model']['dropout']:g}")
        state["model"]["dropout"] = None
    spaced = [part for part in _list_byte_levels(state.get("pre_tokenizer")) if part.get("add_prefix_space")]
    if spaced:
        found.append("a space before every text")
        for part in spaced:
            part["add_prefix_space"] = False
    return (_parse(json.dumps(state)), tuple(found)) if found else (inner, ())


def _list_byte_levels(part: Mapping[str, Any] | None) -> list[Any]:
    """Return what splits text into bytes in a pre-tokenizer's or decoder's description."""
    if not part:
        return []
    inside = [*part.get("pretokenizers", []), *part.get("decoders", [])]
    own = [part] if part.get("type") == "ByteLevel" else []
    return own + [found for inner in inside for found in _list_byte_levels(inner)]


# --------------------------------------------------------------------------------------------- one of those in a folder


def read_tokenizer(folder: Path, say: Callable[[str], object] = lambda _: None) -> Tokenizer | None:
    """Return the tokenizer below a folder (`tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`), or None.

    Of several files those count that hold byte pairs over bytes with an end-of-text token, whatever their folders are
    called. If these are not all the same tokenizer, GPT-2's is taken.

    Args:
        folder: Looked through in any depth.
        say: Called with a line on what was chosen of several, and on what was switched off.

    Raises:
        DataError: If a file cannot be read, none can be used, or several differ and not just one of them is GPT-2's.
    """
    usable: dict[Path, Tokenizer] = {}
    others: dict[str, str] = {}
    candidates = _list_candidates(folder)
    for path in candidates:
        text = _read_text(path)
        try:
            usable[path] = _build(_join(path, text) if path.name == "vocab.json" else _parse(text))
        except DataError as error:
            others[str(path.relative_to(folder))] = str(error)
    if not candidates:
        return None
    if not usable:
        raise DataError(name_some([f"{folder / name}: {reason}" for name, reason in others.items()]))
    path, why = _choose(folder, usable)
    chosen = usable[path]
    for other, tokenizer in usable.items():
        if other != path:
            same = _tell_apart(tokenizer) == _tell_apart(chosen)
            others[str(other.relative_to(folder))] = "the same" if same else tokenizer.name
    if others:
        named = name_some([f"{name} ({reason})" for name, reason in others.items()])
        say(f"tokenizer: {path.relative_to(folder)}, {why}; passed over {named}")
    describe_switched_off(chosen, str(path.relative_to(folder)), say)
    return chosen


def describe_switched_off(tokenizer: Tokenizer, file: str, say: Callable[[str], object]) -> None:
    """Say in one line what a file kept that is not used."""
    if tokenizer.switched_off:
        say(f"tokenizer: {file} was saved with {', '.join(tokenizer.switched_off)}: switched off")


def _list_candidates(folder: Path) -> list[Path]:
    whole = sorted(folder.rglob("tokenizer.json"))
    seen = {path.parent for path in whole}
    pairs = sorted(path for path in folder.rglob("vocab.json") if path.with_name("merges.txt").is_file())
    return whole + [path for path in pairs if path.parent not in seen]  # beside it: the same in an older form


def _build(inner: Any) -> Tokenizer:
    """Return the tokenizer if it is of GPT-2's kind.

    Raises:
        DataError: If it is of another kind, or loses text.
    """
    state = json.loads(inner.to_str())
    kind = state["model"]["type"]
    if kind != "BPE" or not (_list_byte_levels(state["pre_tokenizer"]) and _list_byte_levels(state["decoder"])):
        raise DataError(
            f"expected byte pairs over bytes (as GPT-2's), found {kind}{' of characters' * (kind == 'BPE')}"
        )
    tokenizer = Tokenizer(inner)
    if tokenizer.decode(tokenizer.encode(_SAMPLE)) != _SAMPLE:
        raise DataError("expected a tokenizer that gives back every text (as GPT-2's), found one that changes it")
    return tokenizer


def _tell_apart(tokenizer: Tokenizer) -> str:
    """Return what makes two tokenizers the same, in whatever form they were saved."""
    state = json.loads(tokenizer.json)
    for part in _list_byte_levels(state["pre_tokenizer"]):
        part.pop("trim_offsets", None)
    parts = [state["model"]["vocab"], state["model"]["merges"], state["normalizer"], state["pre_tokenizer"]]
    return json.dumps([*parts, [token["content"] for token in state["added_tokens"]]], sort_keys=True)


def _choose(folder: Path, usable: Mapping[Path, Tokenizer]) -> tuple[Path, str]:
    """Return the file to take, and why."""
    kinds: dict[str, Path] = {}
    for path, tokenizer in usable.items():
        kinds.setdefault(_tell_apart(tokenizer), path)
    if len(kinds) == 1:
        which = "the only one" if len(usable) == 1 else "as others"
        return next(iter(usable)), f"{which} of byte pairs over bytes with {END_OF_TEXT}"
    gpt2 = [path for path in kinds.values() if usable[path].name == "GPT-2's"]
    if len(gpt2) == 1:
        return gpt2[0], f"the one with GPT-2's {GPT2_TOKENS:,} tokens"
    named = [f"{path.relative_to(folder)} ({usable[path].vocab_size:,} tokens)" for path in kinds.values()]
    raise DataError(
        f"{folder}: expected one tokenizer, found {len(named)} that differ: {name_some(named)}; leave one of them there"
    )


def _read_text(path: Path) -> str:
    """Return a JSON file's text.

    Raises:
        DataError: If it cannot be read, or is cut off.
    """
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the JSON of a tokenizer ({error})") from None
    return text


def _join(vocabulary: Path, text: str) -> Any:
    """Return the tokenizer of a vocabulary and the merges beside it."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    try:
        words = json.loads(text)
        lines = vocabulary.with_name("merges.txt").read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
        inner = tokenizers.Tokenizer(models.BPE(vocab=words, merges=pairs))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"expected GPT-2's vocabulary, with merges.txt beside it ({error})") from None
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if END_OF_TEXT in words:
        inner.add_special_tokens([END_OF_TEXT])
    return inner
