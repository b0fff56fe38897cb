"""What tests of language models share."""

import pytest

from more.tokens import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer of a few words, 300 numbers at most."""
    return train_tokenizer(["Mary went to the garden.\nWhere is Mary? garden\n1+2=3\n"] * 3, 300)
