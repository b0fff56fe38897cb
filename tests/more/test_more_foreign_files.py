"""Data of other people: told by its content, taken without what other code left switched on in it, or refused."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers

from more import commands
from more.checkpoints import load_model, save_checkpoint
from more.data import DataSettings, find_babi, open_source
from more.stories import SPLITS, generate
from more.tokens import END_OF_TEXT, GPT2_TOKENS, Tokenizer, read_tokenizer, train_tokenizer
from more.wikitext import LINES, find_wikitext, name_wikitext, read_articles, take_lines
from pipeline.command.errors import DataError
from tests.more_settings import TINY, small_flags

WIKITEXT_103, WIKITEXT_2 = LINES
TEXTS = ("Where is Mary?", "12+30=42\n", "The cat sleeps near the river. " * 9)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(generate(TINY, 0).documents["train"], 300)


def save(path: Path, tokenizer: Tokenizer, **changes) -> Path:
    """Write the tokenizer's JSON with parts of it changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**json.loads(tokenizer.json), **changes}))
    return path


def truncate(inner: tokenizers.Tokenizer) -> None:
    inner.enable_truncation(max_length=4)


def pad(inner: tokenizers.Tokenizer) -> None:
    inner.enable_padding(length=64, direction="left")


def pad_to_the_longest(inner: tokenizers.Tokenizer) -> None:
    inner.enable_padding()


def drop_merges(inner: tokenizers.Tokenizer) -> None:
    inner.model.dropout = 0.5


def put_a_space_before(inner: tokenizers.Tokenizer) -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=True)])


# ------------------------------------------------------------------------------------- what is left on in a tokenizer


@pytest.mark.parametrize(
    ("switch_on", "said"),
    [
        (truncate, "truncation to 4 tokens"),
        (pad, "padding to 64 tokens"),
        (pad_to_the_longest, "padding"),
        (drop_merges, "dropout of merges 0.5"),
        (put_a_space_before, "a space before every text"),
    ],
)
def test_what_other_code_left_on_in_a_tokenizer_is_off_and_said(tmp_path, trained, switch_on, said):
    inner = tokenizers.Tokenizer.from_str(trained.json)
    switch_on(inner)
    inner.save(str(tmp_path / "tokenizer.json"))
    lines = []
    found = read_tokenizer(tmp_path, lines.append)
    assert [found.encode(text) for text in TEXTS] == [trained.encode(text) for text in TEXTS]
    assert list(found.encode_batches(TEXTS)) == [trained.encode(text) for text in TEXTS]
    assert found.digest == trained.digest  # that of what is used
    assert lines == [f"tokenizer: tokenizer.json was saved with {said}: switched off"]
    # A checkpoint that keeps the JSON as it was found is read the same.
    assert Tokenizer.from_json(inner.to_str()).digest == trained.digest


def test_a_tokenizer_saved_by_transformers_after_use(tmp_path, trained):
    from transformers import GPT2Tokenizer

    state = json.loads(trained.json)["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(state["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in state["merges"]))
    plain = read_tokenizer(tmp_path)
    used = GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), pad_token=END_OF_TEXT)
    used(list(TEXTS), truncation=True, max_length=5, padding="max_length")
    used.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["truncation"]["max_length"] == 5
    found = read_tokenizer(tmp_path / "saved")
    assert [found.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]


def test_numbers_beyond_a_gap_have_a_row_of_the_embedding(tmp_path, trained):
    state = json.loads(trained.json)
    beyond = {**state["added_tokens"][0], "id": 350, "content": "[PAD]"}
    state["model"]["vocab"]["[PAD]"] = 350
    save(tmp_path / "tokenizer.json", trained, model=state["model"], added_tokens=[*state["added_tokens"], beyond])
    assert read_tokenizer(tmp_path).vocab_size == 351


def test_training_and_evaluation_with_such_a_tokenizer_say_so_and_have_the_plain_ones_numbers(
    tmp_path, monkeypatch, trained, capsys
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "plain" / "tokenizer.json", trained)
    inner = tokenizers.Tokenizer.from_str(trained.json)
    truncate(inner)
    pad(inner)
    (tmp_path / "used").mkdir()
    inner.save("used/tokenizer.json")
    figures = {}
    for name in ("plain", "used"):
        places = ["--checkpoint_dir", f"c_{name}", "--log_dir", f"r_{name}"]
        flags = small_flags(updates=2, num_stories=20, seq_length=128)
        assert commands.train(["--model_type", "base", "--data_dir", name, *places, *flags]) == 0
        path = f"c_{name}/base_rec1/final_model.pth"
        assert commands.evaluate(["--checkpoint_path", path, "--num_questions", "3", "--sample_tokens", "2"]) == 0
        result = json.loads(Path(f"c_{name}/base_rec1/evaluation.json").read_text())
        figures[name] = (result["perplexity"], result["questions"])
    assert figures["used"] == figures["plain"]
    said = "tokenizer: tokenizer.json was saved with truncation to 4 tokens, padding to 64 tokens: switched off"
    assert said in capsys.readouterr().out
    assert load_model("c_used/base_rec1/final_model.pth").data["notes"] == [said]
    # What lies in the folder by now is not what a checkpoint is evaluated with.
    save(tmp_path / "used" / "tokenizer.json", train_tokenizer(generate(TINY, 1).documents["train"], 280))
    assert commands.evaluate(["--checkpoint_path", path, "--data_dir", "used", "--num_questions", "3"]) == 0
    assert "tokenizer byte pairs, 300 tokens" in capsys.readouterr().out
    assert json.loads(Path("c_used/base_rec1/evaluation.json").read_text())["perplexity"] == figures["plain"][0]
    # A checkpoint of before holds the tokenizer with all that was on.
    save_checkpoint(Path("before.pth"), {**torch.load(path, weights_only=True), "tokenizer": inner.to_str()})
    assert commands.evaluate(["--checkpoint_path", "before.pth", "--num_questions", "3"]) == 0
    assert "tokenizer: that of the checkpoint was saved with truncation to 4 tokens" in capsys.readouterr().out
    assert json.loads(Path("evaluation.json").read_text())["perplexity"] == figures["plain"][0]


# ----------------------------------------------------------------------------------------------- which of several files


def test_the_tokenizer_is_chosen_by_what_it_is_not_by_where_it_lies(tmp_path, trained):
    pieces = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, END_OF_TEXT: 1}, unk_token="[UNK]"))
    (tmp_path / "distilbert-base-uncased").mkdir()
    pieces.save(str(tmp_path / "distilbert-base-uncased" / "tokenizer.json"))
    small = normalizers.Lowercase()
    inner = tokenizers.Tokenizer.from_str(trained.json)
    inner.normalizer = small
    (tmp_path / "clip").mkdir()
    inner.save(str(tmp_path / "clip" / "tokenizer.json"))
    (tmp_path / "other-library").mkdir()
    (tmp_path / "other-library" / "tokenizer.json").write_text('{"class_name": "Tokenizer"}')
    with pytest.raises(DataError, match="found WordPiece") as error:
        read_tokenizer(tmp_path)
    assert "found one that changes it" in str(error.value)  # lower-cased
    save(tmp_path / "gpt2" / "tokenizer.json", trained)
    lines = []
    assert read_tokenizer(tmp_path, lines.append).digest == trained.digest
    (line,) = lines
    assert line.startswith("tokenizer: gpt2/tokenizer.json, the only one of byte pairs over bytes with <|endoftext|>;")
    for name in ("distilbert-base-uncased", "clip", "other-library"):
        assert f"{name}/tokenizer.json (expected" in line


def test_different_tokenizers_are_named_unless_just_one_is_gpt2s(tmp_path, trained):
    state = json.loads(trained.json)["model"]
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "vocab.json").write_text(json.dumps(state["vocab"]))
    (tmp_path / "pair" / "merges.txt").write_text("\n".join(" ".join(pair) for pair in state["merges"]))
    plain = read_tokenizer(tmp_path)
    save(tmp_path / "a" / "tokenizer.json", plain)
    inner = tokenizers.Tokenizer.from_str(plain.json)
    truncate(inner)
    (tmp_path / "used").mkdir()
    inner.save(str(tmp_path / "used" / "tokenizer.json"))
    lines = []
    assert read_tokenizer(tmp_path, lines.append).digest == plain.digest
    assert "passed over used/tokenizer.json (the same), pair/vocab.json (the same)" in lines[0]  # as they are used
    other = train_tokenizer(generate(TINY, 0).documents["train"], 310)
    save(tmp_path / "b" / "tokenizer.json", other)
    message = r"expected one tokenizer, found \d that differ: a/tokenizer.json \(300 tokens\), b/tokenizer.json \(310"
    with pytest.raises(DataError, match=message):
        read_tokenizer(tmp_path)
    words = [word for word in state["vocab"] if word != END_OF_TEXT]
    words += [f"<{number}>" for number in range(GPT2_TOKENS - 1 - len(words))]
    vocabulary = {word: number for number, word in enumerate([*words, END_OF_TEXT])}
    added = [{**json.loads(trained.json)["added_tokens"][0], "id": GPT2_TOKENS - 1}]
    save(tmp_path / "z" / "tokenizer.json", trained, model={**state, "vocab": vocabulary}, added_tokens=added)
    assert read_tokenizer(tmp_path, lines.append).name == "GPT-2's"
    assert lines[-1].startswith("tokenizer: z/tokenizer.json, the one with GPT-2's 50,257 tokens; passed over a/")


def test_a_tokenizer_that_was_cut_off_is_not_passed_over(tmp_path, trained):
    save(tmp_path / "a" / "tokenizer.json", trained)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tokenizer.json").write_text(trained.json[:999])
    with pytest.raises(DataError, match=r"b/tokenizer\.json: expected the JSON of a tokenizer"):
        read_tokenizer(tmp_path)


# ------------------------------------------------------------------------------------------------------------- wikitext


def write_texts(folder: Path, lines: tuple[int, int, int], line: str = " = A = \n", suffix: str = "raw") -> None:
    folder.mkdir(parents=True)
    for split, count in zip(SPLITS, lines, strict=True):
        (folder / f"wiki.{split}.{suffix}").write_text(line * count)


def test_wikitext_2_is_called_so_whatever_its_folder_is_called(tmp_path):
    write_texts(tmp_path / "wikitext-103-raw-v1", WIKITEXT_2)
    lines = []
    source = open_source(DataSettings(data_dir=str(tmp_path), embedded=TINY), lines.append)
    assert source.describe()["text"] == f"WikiText-2 (36,718 training lines) ({tmp_path})"
    assert "text WikiText-2 (36,718 training lines)" in lines[0]


def test_of_several_texts_the_whole_and_larger_is_taken_and_said(tmp_path):
    write_texts(tmp_path / "a", WIKITEXT_2, line=" <unk> \n", suffix="tokens")
    write_texts(tmp_path / "b", WIKITEXT_2)
    write_texts(tmp_path / "wikitext-103", (4, 4, 4))
    lines = []
    files = find_wikitext(tmp_path, lines.append)
    assert files["train"] == [tmp_path / "b" / "wiki.train.raw"]
    assert lines == [
        "text: b/wiki.train.raw: WikiText-2 (36,718 training lines) taken, the fullest; passed over "
        "a/wiki.train.tokens: WikiText-2 with <unk> (36,718 training lines), wikitext-103/wiki.train.raw: WikiText-103 "
        "(by the name of its folder; 4 training lines, not all of it)"
    ]


def test_parts_of_unknown_origin_that_differ_are_named(tmp_path):
    write_texts(tmp_path / "a", (4, 4, 4))
    write_texts(tmp_path / "b", (4, 4, 4))
    assert find_wikitext(tmp_path)["test"] == [tmp_path / "a" / "wiki.test.raw"]  # the same twice
    write_texts(tmp_path / "c", (5, 4, 4))
    with pytest.raises(DataError, match=r"expected one copy of WikiText, found 3 that differ: a/wiki\.train\.raw"):
        find_wikitext(tmp_path)


@pytest.fixture
def parquet(monkeypatch):
    """Return a writer of files that stand for parquet ones: JSON of their columns, types and rows."""

    def write(folder: Path, rows: tuple[int, int, int], columns=None, parts: int = 1) -> Path:
        folder.mkdir(parents=True)
        for split, count in zip(("train", "validation", "test"), rows, strict=True):
            for part in range(parts):
                name = f"{split}-{part:05d}-of-{parts:05d}.parquet"
                (folder / name).write_text(json.dumps([columns or {"text": "string"}, count // parts]))
        return folder

    monkeypatch.setattr("more.wikitext.read_parquet_form", lambda path: tuple(json.loads(path.read_text())))
    monkeypatch.setattr("more.wikitext._read_parquet", lambda path: iter([" = A = "]))
    return write


def test_parquet_is_recognised_by_its_rows_wherever_it_lies(tmp_path, monkeypatch, parquet):
    folder = parquet(tmp_path / "downloads" / "x", WIKITEXT_103, parts=2)
    files = find_wikitext(folder)
    assert name_wikitext(files) == "WikiText-103 (1,801,350 training lines)"
    assert len(files["train"]) == 2
    monkeypatch.chdir(folder)
    assert find_wikitext(Path(".")) == find_wikitext(Path(".").resolve()) == files
    monkeypatch.chdir(parquet(tmp_path / "wikitext-2-raw-v1", WIKITEXT_2))
    assert name_wikitext(find_wikitext(Path("."))) == "WikiText-2 (36,718 training lines)"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"text": "string", "label": "int64"},
            "expected the one column text, of strings, found text: string, label: int",
        ),
        ({"text": "int64"}, "expected the one column text, of strings, found text: int64"),
        ({"text": "string"}, r"expected WikiText's numbers of rows or its name \(wikitext-...-v1\), found 8, 4, 4"),
    ],
)
def test_other_parquet_below_a_folder_called_wikitext_is_named_and_not_taken(tmp_path, parquet, columns, said):
    parquet(tmp_path / "wikitext" / "stories", (8, 4, 4), columns)
    lines = []
    assert find_wikitext(tmp_path / "wikitext", lines.append) is None
    assert len(lines) == 1
    with pytest.raises(DataError, match=said):
        open_source(DataSettings(data_dir=str(tmp_path), embedded=TINY))
    parquet(tmp_path / "wikitext" / "wikitext-2-raw-v1", WIKITEXT_2)
    assert find_wikitext(tmp_path, lines.append)["test"][0].parent.name == "wikitext-2-raw-v1"
    assert "passed over" in lines[-1]


def test_parquet_in_a_folder_named_as_on_the_hub_is_not_passed_over(tmp_path, parquet):
    folder = parquet(tmp_path / "wikitext-103-raw-v1", (8, 4, 4), parts=2)
    assert name_wikitext(find_wikitext(tmp_path)).startswith(
        "WikiText-103 (by the name of its folder; 8 training lines"
    )
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"expected all parts of train-.*, found train-00001-of-00002\.parquet"):
        find_wikitext(tmp_path)


def test_a_null_in_a_column_of_text_is_named(tmp_path):
    path = tmp_path / "test-00000-of-00001.parquet"
    assert list(take_lines(path, ["", " = A = \n"])) == ["", " = A = "]
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: expected text .* found a null after '= A ='"):
        list(take_lines(path, [" = A = \n", "", None, "more"]))


def test_real_parquet_files_are_read_or_refused(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    folder = tmp_path / "any"
    folder.mkdir()
    for split, count in zip(("train", "validation", "test"), WIKITEXT_2, strict=True):
        parquet.write_table(arrow.table({"text": [" = A = \n"] * count}), folder / f"{split}-00000-of-00001.parquet")
    files = find_wikitext(tmp_path)
    assert name_wikitext(files) == "WikiText-2 (36,718 training lines)"
    assert next(read_articles(files["test"])).startswith("= A =\n")
    path = files["test"][0]
    parquet.write_table(arrow.table({"text": ["a", None]}), path)
    with pytest.raises(DataError, match="found a null after 'a'"):
        list(read_articles([path]))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        list(read_articles([path]))


# ----------------------------------------------------------------------------------------------------------------- bAbI


def write_babi(folder: Path, stories: int, *, asks: str = "Where is Mary?", place: str = "hall") -> None:
    folder.mkdir(parents=True)
    for task in (1, 2, 3):
        for split in ("train", "test"):
            text = f"1 Mary went to the {place}.\n2 {asks}\t{place}\t1\n"
            (folder / f"qa{task}_name_{split}.txt").write_text(text * stories)


def test_the_largest_english_babi_is_taken_by_its_content(tmp_path):
    write_babi(tmp_path / "a-hn-10k", 40, asks="Mary kahan hai?")
    lines = []
    assert find_babi(tmp_path, lines.append) is None
    assert "qa1_name_train.txt (its first task does not ask `Where is ...`" in lines[0]
    write_babi(tmp_path / "b", 10)
    write_babi(tmp_path / "c", 30)
    assert find_babi(tmp_path, lines.append)["train"][1].parent.name == "c"
    assert lines[-1].startswith(
        "questions: c/qa1_name_train.txt, with 30 questions of task 1, taken; passed over b/qa1"
    )
    write_babi(tmp_path / "d", 30)
    assert find_babi(tmp_path)["train"][1].parent.name == "c"  # the same twice
    write_babi(tmp_path / "e", 30, place="attic")
    with pytest.raises(DataError, match="expected one copy of bAbI, found 3 that are equally large and differ: c/"):
        find_babi(tmp_path)
    write_babi(tmp_path / "en-10k", 30, place="cellar")  # as bAbI calls it
    assert find_babi(tmp_path)["test"][3].parent.name == "en-10k"


def test_two_files_of_one_babi_task_are_named(tmp_path):
    write_babi(tmp_path / "en", 3)
    (tmp_path / "en" / "qa2_other_train.txt").write_text("1 Mary left.\n2 Where is Mary?\thall\t1\n")
    with pytest.raises(DataError, match=r"one file of task 2 for train, found qa2_name_train\.txt too"):
        find_babi(tmp_path)
