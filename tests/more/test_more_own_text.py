"""A text of one's own: learned from alone, shared out, or refused."""

import json

import pytest

from more.data import DataSettings, open_source, settings_from_description
from more.own_text import own_parts
from more.stories import SPLITS
from pipeline.command.errors import DataError
from tests.more_settings import TINY


def test_own_text_is_all_that_is_learned_from_and_is_shared_out(tmp_path):
    path = tmp_path / "novel.txt"
    lines = [f"Line {number} of the novel, with words in it.\n" for number in range(400)]
    path.write_text("\ufeff" + "".join(lines), encoding="utf-8")
    said = []
    source = open_source(DataSettings(text_file=str(path), tokenizer_size=300, embedded=TINY), said.append)
    parts = {split: list(source.documents(split)) for split in SPLITS}
    assert "".join(part[0] for part in parts.values()) == "".join(lines)
    assert [len(part) for part in parts.values()] == [1, 1, 1]
    assert [part[0].count("\n") for part in parts.values()] == pytest.approx([360, 20, 20], abs=2)
    assert source.questions("test") == {} and source.sums("test") == []
    assert said == [
        f"data: text own ({path}, {len(''.join(lines)):,} characters); tokenizer byte pairs, 300 tokens, trained on "
        "the training text"
    ]
    again = open_source(settings_from_description(json.loads(json.dumps(source.describe()))), said.append)
    assert again.digest == source.digest
    path.write_text("".join(lines[1:]))
    assert open_source(source.settings, said.append).digest != source.digest


def test_own_text_with_ends_of_text_is_many_documents(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("<|endoftext|>".join(f"Document {number:03}.\n" for number in range(100)))
    parts = own_parts(path)
    assert [len(parts[split]) for split in SPLITS] == [90, 5, 5]
    assert parts["test"][-1] == "Document 099.\n"


@pytest.mark.parametrize("text", ["word " * 60, "x" * 300, "a\n" * 3 + "long " * 100])
def test_every_part_of_own_text_has_something_in_it(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_text(text)
    assert all(part and part[0].strip() for part in own_parts(path).values())


@pytest.mark.parametrize(
    ("content", "changes", "said"),
    [
        (None, {}, "cannot be read"),
        (b"\xff\xff" * 500, {}, "expected UTF-8, found other bytes at 0"),
        (b"short", {}, "expected at least 200 characters, found 5"),
        (b"long " * 100, {"data": "embedded"}, "text_file and data: embedded exclude each other"),
    ],
)
def test_own_text_that_cannot_be_used(tmp_path, content, changes, said):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_source(DataSettings(text_file=str(path), **changes))
