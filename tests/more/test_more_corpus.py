"""Windows over documents: shared out, in random order, tokenised once and kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from more.corpus import BatchPlan, Corpus, load_corpus, load_tokenizer
from more.data import DataSettings, open_source
from more.tokens import train_tokenizer
from pipeline.command.errors import DataError
from tests.more_settings import TINY


def make_corpus(lengths: list[int]) -> Corpus:
    """Return a corpus whose tokens are their own positions, which shows what is taken from where."""
    starts = np.concatenate([[0], np.cumsum([n + 1 for n in lengths])])
    return Corpus(np.arange(starts[-1] + 1, dtype=np.uint32), starts)


def test_windows_by_hand():
    starts, lengths = make_corpus([4, 1, 7]).cut(3)
    # Documents have 5, 2 and 8 targets: their tokens and an end of text.
    assert starts.tolist() == [0, 3, 5, 7, 10, 13]
    assert lengths.tolist() == [3, 2, 2, 3, 3, 2]


@hypothesis_settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=30),
    seq_length=st.integers(1, 12),
    budget=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_every_target_is_learned_once_an_epoch_and_from_its_own_document(lengths, seq_length, budget, seed):
    corpus = make_corpus(lengths)
    plan = BatchPlan(corpus, seq_length, budget, seed)
    for epoch in range(2):
        learned = []
        for place in range(plan.batches_per_epoch):
            inputs, targets = plan.batch(epoch * plan.batches_per_epoch + place)
            assert inputs.shape == targets.shape
            assert inputs.size <= budget or len(inputs) == 1
            assert inputs.shape[1] <= seq_length
            assert (targets == inputs + 1).all()
            document = np.searchsorted(corpus.starts, inputs, side="right")
            assert (document == document[:, :1]).all()  # nothing is read across a border
            learned += targets.ravel().tolist()
        assert sorted(learned) == list(range(1, len(corpus.tokens)))


def test_batches_are_random_access():
    corpus = make_corpus([3, 5, 8, 2, 9, 9, 4] * 5)
    plan = BatchPlan(corpus, 6, 12, seed=1)
    forwards = [plan.batch(k)[0].tolist() for k in range(2 * plan.batches_per_epoch)]
    fresh = BatchPlan(corpus, 6, 12, seed=1)
    assert [fresh.batch(k)[0].tolist() for k in reversed(range(len(forwards)))] == forwards[::-1]
    half = plan.batches_per_epoch
    assert forwards[:half] != forwards[half:]
    assert [BatchPlan(corpus, 6, 12, seed=2).batch(k)[0].tolist() for k in range(half)] != forwards[:half]


def test_tokenised_once_and_memory_mapped(tmp_path):
    source = open_source(DataSettings(data="embedded", tokenizer_size=300, embedded=TINY), lambda _: None)
    tokenizer = load_tokenizer(source, tmp_path)
    lines = []
    corpus = load_corpus(source, tokenizer, "test", tmp_path, lines.append)
    assert isinstance(corpus.tokens, np.memmap)
    assert corpus.tokens.dtype == np.uint16
    documents = list(source.documents("test"))
    assert len(corpus.starts) == len(documents) + 1
    end = tokenizer.end_token
    for index, text in enumerate(documents):
        assert corpus.document(index).tolist() == [end, *tokenizer.encode(text), end]
    assert len(lines) == 1
    again = load_corpus(source, load_tokenizer(source, tmp_path), "test", tmp_path, lines.append)
    assert len(lines) == 1
    assert (again.tokens == corpus.tokens).all()
    # Another tokenizer or other data have other files.
    load_corpus(source, train_tokenizer(documents, 280), "test", tmp_path, lines.append)
    other = open_source(DataSettings(data="embedded", data_seed=1, embedded=TINY), lambda _: None)
    load_corpus(other, tokenizer, "test", tmp_path, lines.append)
    assert len(lines) == 3


def test_damaged_and_unfinished_files(tmp_path):
    source = open_source(DataSettings(data="embedded", tokenizer_size=300, embedded=TINY), lambda _: None)
    tokenizer = load_tokenizer(source, tmp_path)
    corpus = load_corpus(source, tokenizer, "valid", tmp_path, lambda _: None)
    wanted = corpus.tokens.tolist()
    (index,) = tmp_path.glob("valid-*.json")
    (tokens,) = tmp_path.glob("valid-*.bin")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(DataError, match="do not fit"):
        load_corpus(source, tokenizer, "valid", tmp_path, lambda _: None)
    index.unlink()  # as after an interruption: the index is written last
    assert load_corpus(source, tokenizer, "valid", tmp_path, lambda _: None).tokens.tolist() == wanted
    (trained,) = tmp_path.glob("tokenizer-*.json")
    trained.write_text("")
    with pytest.raises(DataError, match="delete it"):
        load_tokenizer(source, tmp_path)


def test_a_text_with_many_tokens_is_kept_in_wider_numbers(tmp_path):
    class Wide:
        vocab_size, end_token, digest = 70_000, 0, "w" * 64

        def encode_batches(self, documents):
            return ([len(text), 69_999] for text in documents)

    source = open_source(DataSettings(data="embedded", embedded=TINY), lambda _: None)
    corpus = load_corpus(source, Wide(), "valid", tmp_path, lambda _: None)
    assert corpus.tokens.dtype == np.uint32
    assert corpus.tokens[2] == 69_999
