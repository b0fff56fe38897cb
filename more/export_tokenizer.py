"""The tokenizer of a checkpoint as transformers has its tokenizers.

convert_tokenizer(loaded.tokenizer, longest=256).save_pretrained(folder)
"""

from __future__ import annotations

from typing import Any

from more.task_data import Vocabulary
from more.tokens import END_OF_TEXT, Tokenizer


def convert_tokenizer(tokenizer: Tokenizer | Vocabulary, longest: int) -> Any:
    """Return a `transformers.PreTrainedTokenizerFast` that gives a text the tokens that `tokenizer` gives it.

    Byte pairs begin every text with the end-of-text token, with which every document began in training
    (`add_special_tokens=False` leaves it out). The words of a generated task stand between white space, an unknown one
    is an error, and nothing is added. Padding is to the left, by the end-of-text token.

    Args:
        tokenizer: Of a checkpoint.
        longest: Longest sequence of the model, tokens.
    """
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, Vocabulary):
        inner = Inner(models.WordLevel({word: number for number, word in enumerate(tokenizer.words)}))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        inner.add_special_tokens([END_OF_TEXT])
    else:
        inner = Inner.from_str(tokenizer.json)
        inner.post_processor = processors.TemplateProcessing(
            single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, tokenizer.end_token)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
