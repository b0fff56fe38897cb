"""Where language models learn from: readers of the original formats, the embedded generator, tokens, the hub."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from more.babi import Question, read_babi_jsonl, read_babi_text, render_story
from more.data import DataSettings, find_babi, open_source, read_babi_files, settings_from_description
from more.stories import FACTS, SPLITS, VERSION, generate
from more.tokens import END_OF_TEXT, Tokenizer, read_tokenizer, train_tokenizer
from more.wikitext import find_wikitext, read_articles
from pipeline.command.errors import DataError
from pipeline.command.hub import HubError, UnavailableError
from tests.more_settings import TINY

BABI = (
    "1 Mary moved to the bathroom.\n2 John went to the hallway.\n3 Where is Mary?\tbathroom\t1\n"
    "4 Mary went to the garden.\n5 Where is Mary?\tgarden\t4\n"
    "1 Sandra went to the office.\n2 Where is Sandra?\toffice\t1\n"
)


def write_babi(folder, *, stories=12, valid=False):
    folder.mkdir(parents=True)
    for task in (1, 2, 3):
        for split in ("train", "valid", "test") if valid else ("train", "test"):
            (folder / f"qa{task}_some-name_{split}.txt").write_text(BABI * (stories if split == "train" else 1))


def write_wikitext(folder, suffix="raw"):
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        text = f" \n = First {split} = \n \n Some words . \n = = Part = = \n More words . \n"
        text += " \n = Second = \n \n The end . \n"
        (folder / f"wiki.{split}.{suffix}").write_text(text)


# ---------------------------------------------------------------------------------------------------------------- bAbI


def test_babi_text_by_hand(tmp_path):
    path = tmp_path / "qa1_x_test.txt"
    path.write_text(BABI)
    questions = read_babi_text(path, 1)
    assert [(q.question, q.answer) for q in questions] == [
        ("Where is Mary?", "bathroom"),
        ("Where is Mary?", "garden"),
        ("Where is Sandra?", "office"),
    ]
    # Earlier questions are no part of the context, and number 1 starts anew.
    assert questions[1].context == "Mary moved to the bathroom.\nJohn went to the hallway.\nMary went to the garden."
    assert questions[2].context == "Sandra went to the office."
    assert questions[2].prompt() == "Sandra went to the office.\nWhere is Sandra?"
    assert questions[2].continuation("office") == " office\n"
    assert render_story(questions[2:]) == "Sandra went to the office.\nWhere is Sandra? office\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mary moved.\n", "line 1: expected `<number> <statement>`"),
        ("1 Mary moved.\n2 Where is Mary?\tgarden\n", "line 2: expected question, answer and supporting facts"),
        ("1 Mary moved.\n", "found none"),
    ],
)
def test_babi_text_that_is_none(tmp_path, text, said):
    path = tmp_path / "qa1_x_test.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_babi_text(path, 1)


def test_babi_jsonl_by_hand(tmp_path):
    path = tmp_path / "babi_test.jsonl"
    rows = [
        {"passage": "Mary moved to the bath. John went away.\n", "question": "Where is Mary?", "answer": "bath"},
        {"passage": "Mary got the milk.\nMary left.\n", "question": "Where is the milk?", "answer": "hall"},
    ]
    rows = [{**rows[0], "task": 1}, {**rows[1], "task": 2}, {**rows[1], "task": 3}, {**rows[0], "task": 17}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_babi_jsonl(path)
    assert {task: len(questions) for task, questions in found.items()} == {1: 1, 2: 1, 3: 1}
    assert found[1][0].context == "Mary moved to the bath.\nJohn went away."
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="none of task 2"):
        read_babi_jsonl(path)
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1: expected an object with passage"):
        read_babi_jsonl(path)


def test_the_largest_english_copy_of_babi_is_taken(tmp_path):
    assert find_babi(tmp_path) is None
    write_babi(tmp_path / "tasks" / "aa")
    write_babi(tmp_path / "tasks" / "en")
    write_babi(tmp_path / "tasks" / "en-10k")
    assert find_babi(tmp_path)["train"][3].parent.name == "en-10k"


def test_validation_of_babi_is_the_end_of_training_and_shares_no_story(tmp_path):
    write_babi(tmp_path / "en")
    files = find_babi(tmp_path)
    found = read_babi_files(files)
    assert len(found["train"][1]) + len(found["valid"][1]) == 36
    assert not found["valid"][1][0].context.startswith(found["train"][1][-1].context)
    write_babi(tmp_path / "en-valid-10k", valid=True)
    assert len(read_babi_files(find_babi(tmp_path))["valid"][2]) == 3


# ------------------------------------------------------------------------------------------------------------ wikitext


@pytest.mark.parametrize("suffix", ["raw", "tokens"])
def test_articles_by_hand(tmp_path, suffix):
    write_wikitext(tmp_path / "wikitext-103", suffix)
    files = find_wikitext(tmp_path)
    assert list(read_articles(files["valid"])) == [
        "= First valid =\nSome words .\n= = Part = =\nMore words .\n",
        "= Second =\nThe end .\n",
    ]


def test_an_incomplete_wikitext_is_not_taken(tmp_path):
    write_wikitext(tmp_path / "wikitext-103")
    (tmp_path / "wikitext-103" / "wiki.test.raw").unlink()
    assert find_wikitext(tmp_path) is None


# -------------------------------------------------------------------------------------------------------------- stories


def answer_by_reading(question: Question) -> str:
    """Return the answer that the statements give, found by following them one by one."""
    place, holder, trail = {}, {}, {}
    for fact in question.context.split("\n"):
        actor, verb, *rest = fact.rstrip(".").split()
        thing = rest[-1]
        if verb in ("got", "took", "grabbed"):
            holder[thing] = actor
            trail.setdefault(thing, []).append(place[actor])
        elif verb in ("dropped", "discarded", "left"):
            assert holder.pop(thing) == actor
        else:
            place[actor] = thing
            for held in [t for t, who in holder.items() if who == actor]:
                trail[held].append(thing)
    words = re.findall(r"\w+", question.question)
    if question.task == 1:
        return place[words[2]]
    if question.task == 2:
        return trail[words[3]][-1]
    steps = [p for i, p in enumerate(trail[words[3]]) if i == 0 or p != trail[words[3]][i - 1]]
    assert steps.count(words[-1]) == 1  # otherwise there would be several answers
    return steps[steps.index(words[-1]) - 1]


def test_every_embedded_answer_follows_from_its_story():
    data = generate(TINY, 0)
    for split in SPLITS:
        for task, questions in data.questions[split].items():
            for question in questions:
                assert answer_by_reading(question) == question.answer
                assert FACTS[task][0] <= len(question.context.split("\n")) <= FACTS[task][1]
        assert all(eval(q.question[:-1]) == int(q.answer) for q in data.sums[split])


def test_splits_share_nothing():
    data = generate(TINY, 3)
    contexts = [q.context for split in SPLITS for qs in data.questions[split].values() for q in qs]
    assert len(set(contexts)) == len(contexts)
    sums = [q.question for split in SPLITS for q in data.sums[split]]
    assert len(set(sums)) == len(sums) == 100
    told = {line for line in "".join(data.documents["train"]).split("\n") if "+" in line}
    assert not told & {q.question + q.answer for q in (*data.sums["test"], *data.sums["valid"])}
    assert not set(data.documents["train"]) & set(data.documents["test"])


def test_generation_is_a_function_of_the_seed_and_its_version():
    first, again, other = generate(TINY, 0), generate(TINY, 0), generate(TINY, 1)
    assert first == again
    assert first.documents != other.documents
    held_out = generate(TINY, 0, held_out_only=True)
    assert held_out.documents["test"] == first.documents["test"]
    assert held_out.questions["valid"] == first.questions["valid"]
    assert held_out.sums == first.sums
    assert held_out.documents["train"] == []
    digest = hashlib.sha256("".join(first.documents["train"]).encode()).hexdigest()[:16]
    # The text changed: raise VERSION, or tokenised files of older text would be used.
    assert (VERSION, digest) == (1, "034257ef69961977")


# --------------------------------------------------------------------------------------------------------------- tokens


def test_the_trained_tokenizer_is_deterministic_and_loses_nothing():
    documents = generate(TINY, 0).documents["train"]
    first, again = (train_tokenizer(iter(documents), 300) for _ in range(2))
    assert first.digest == again.digest
    assert first.vocab_size <= 300
    for text in (*documents, "Žluťoučký kůň 12+34=46\n\t!"):
        assert first.decode(first.encode(text)) == text
    assert first.encode("12+30=") == [first.encode(c)[0] for c in "12+30="]  # digit by digit
    copy = Tokenizer.from_json(first.json)
    assert copy.digest == first.digest
    assert copy.pieces([copy.end_token]) == [END_OF_TEXT]
    assert list(first.encode_batches(documents, size=3)) == [first.encode(text) for text in documents]


def test_prompt_and_answer_are_encoded_as_they_are_together():
    tokenizer = train_tokenizer(generate(TINY, 0).documents["train"], 300)
    data = generate(TINY, 5)
    for question in (*data.questions["test"][2][:5], *data.sums["test"]):
        whole = tokenizer.encode(question.prompt() + question.continuation(question.answer))
        assert tokenizer.encode(question.prompt()) + tokenizer.encode(question.continuation(question.answer)) == whole


def test_a_vocabulary_in_the_form_of_gpt2_is_read(tmp_path):
    trained = json.loads(train_tokenizer(generate(TINY, 0).documents["train"], 300).json)
    (tmp_path / "vocab.json").write_text(json.dumps(trained["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in trained["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    found = read_tokenizer(tmp_path)
    assert found.decode(found.encode("Where is Mary? garden\n")) == "Where is Mary? garden\n"
    assert found.end_token == trained["model"]["vocab"][END_OF_TEXT]
    (tmp_path / "merges.txt").write_text("one two three\n")
    with pytest.raises(DataError, match=r"vocab\.json: expected GPT-2's vocabulary"):
        read_tokenizer(tmp_path)


def test_tokenizers_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="at least 257"):
        train_tokenizer(["a"], 100)
    with pytest.raises(DataError, match="JSON of a tokenizer"):
        Tokenizer.from_json("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path)


# --------------------------------------------------------------------------------------------------------------- source


def test_the_embedded_default_is_announced_in_one_line():
    lines = []
    source = open_source(DataSettings(data="embedded", embedded=TINY), lines.append)
    assert lines == [
        "data: text embedded (seed 0); questions embedded (seed 0); tokenizer byte pairs, 512 tokens, trained on the "
        "training text"
    ]
    assert settings_from_description(json.loads(json.dumps(source.describe()))) == source.settings


def test_a_folder_replaces_the_embedded_parts_it_has(tmp_path):
    write_wikitext(tmp_path / "wikitext-103-raw")
    write_babi(tmp_path / "tasks_1-20_v1-2" / "en")
    lines = []
    settings = DataSettings(data_dir=str(tmp_path), tokenizer_size=300, embedded=TINY)
    source = open_source(settings, lines.append)
    assert "text WikiText-103 (" in lines[0]
    assert "questions bAbI (" in lines[0]
    assert "tokenizer byte pairs" in lines[0]
    train, test = list(source.documents("train")), list(source.documents("test"))
    assert test == ["= First test =\nSome words .\n= = Part = =\nMore words .\n", "= Second =\nThe end .\n"]
    assert train[0].startswith("= First train =")
    assert train.count("Sandra went to the office.\nWhere is Sandra? office\n") == 3 * 11  # one of 12 is validation
    assert len([text for text in train if re.match(r"\d+\+\d+=", text)]) == TINY.num_sheets
    assert not [text for text in train if "Where was" in text]  # no embedded story
    assert len(source.questions("test")[1]) == 3
    # The digest follows the files' content.
    digest = source.digest
    assert open_source(settings, lines.append).digest == digest
    path = tmp_path / "wikitext-103-raw" / "wiki.test.raw"
    path.write_text(path.read_text() + " More . \n")
    assert open_source(settings, lines.append).digest != digest


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="expected a folder"):
        open_source(DataSettings(data_dir=str(tmp_path / "none")))
    with pytest.raises(DataError, match=r"expected wiki\.train\.raw"):
        open_source(DataSettings(data_dir=str(tmp_path)))
    write_wikitext(tmp_path / "wikitext-103-raw")
    with pytest.raises(DataError, match="exclude each other"):
        open_source(DataSettings(data="embedded", data_dir=str(tmp_path)))


def test_without_the_hub_the_embedded_data_stands_in_and_the_line_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.command.hub.reach_hub", lambda: "the hub is down")
    # Nothing of this machine's cache may answer.
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    lines = []
    source = open_source(DataSettings(data="auto", embedded=TINY), lines.append)
    assert source.origins["text"] == "embedded (seed 0)"
    assert len(lines) == 1
    assert "the hub is down" in lines[0]
    with pytest.raises(DataError, match="hub was asked for, and the hub is down"):
        open_source(DataSettings(data="hub"))


def test_what_the_hub_has_is_used(monkeypatch, tmp_path):
    row = {"passage": "Mary left.\n", "question": "Where is Mary?", "answer": "hall"}
    for name in ("babi_train", "babi_valid", "babi_test"):
        rows = [{**row, "task": task} for task in (1, 2, 3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tokenizer = train_tokenizer(generate(TINY, 0).documents["train"], 300)
    (tmp_path / "tokenizer.json").write_text(tokenizer.json)
    asked = []

    def fetch(repository, files, *, kind="model"):
        asked.append((repository, kind))
        return [tmp_path / file for file in files]

    monkeypatch.setattr("more.data.fetch", fetch)
    monkeypatch.setattr("more.data.check_parquet", lambda _: None)
    monkeypatch.setattr("more.data.HUB_FILES", {split: [f"wiki.{split}.raw"] for split in ("train", "valid", "test")})
    write_wikitext(tmp_path)
    lines = []
    source = open_source(DataSettings(data="auto", embedded=TINY), lines.append)
    assert asked[:2] == [("openai-community/gpt2", "model"), ("Muennighoff/babi", "dataset")]
    assert set(asked[2:]) == {("Salesforce/wikitext", "dataset")}
    assert source.tokenizer.digest == tokenizer.digest
    assert source.questions("test")[2][0].answer == "hall"
    assert "Mary left.\nWhere is Mary? hall\n" in list(source.documents("train"))


def only_of_the_hub(monkeypatch, tmp_path, text):
    """Let the hub have GPT-2's tokenizer, and its WikiText be what a function does."""
    tokenizer = train_tokenizer(generate(TINY, 0).documents["train"], 300)
    (tmp_path / "tokenizer.json").write_text(tokenizer.json)

    def fetch(repository, files, *, kind="model"):
        if repository == "openai-community/gpt2":
            return [tmp_path / "tokenizer.json"]
        if repository == "Salesforce/wikitext":
            return text(files)
        raise HubError("the hub is down")

    monkeypatch.setattr("more.data.fetch", fetch)


def refuse(error):
    def text(files):
        raise error

    return text


@pytest.mark.parametrize(
    ("text", "reader", "said"),
    [
        (lambda files: files, DataError("parquet files need pyarrow"), "its text, and parquet files need pyarrow"),
        (refuse(UnavailableError("Salesforce/wikitext: 404")), None, "its text, and Salesforce/wikitext: 404"),
    ],
)
def test_a_data_set_that_was_reached_and_cannot_be_read_stops_the_run(monkeypatch, tmp_path, text, reader, said):
    """Training went on with stories under GPT-2's tokenizer."""
    only_of_the_hub(monkeypatch, tmp_path, text)
    monkeypatch.setattr("more.data.check_parquet", lambda _: None if reader is None else refuse(reader)(None))
    with pytest.raises(DataError, match=f"{said}.*; --data embedded trains on the generated text instead"):
        open_source(DataSettings(data="auto", embedded=TINY))


def test_the_hub_s_tokenizer_is_not_taken_for_embedded_text(monkeypatch, tmp_path):
    only_of_the_hub(monkeypatch, tmp_path, refuse(HubError("the hub is down")))
    lines = []
    source = open_source(DataSettings(data="auto", embedded=TINY), lines.append)
    assert source.tokenizer is None and "tokenizer byte pairs" in lines[0]
    assert "GPT-2's tokenizer is there and not used" in lines[0]


def test_the_reader_of_the_hub_s_files_is_a_requirement():
    named = (Path(__file__).parents[2] / "requirements.txt").read_text().splitlines()
    assert any(re.fullmatch(r"pyarrow==[\d.]+", line) for line in named)


def test_an_empty_wikitext_is_refused(tmp_path):
    write_wikitext(tmp_path / "wikitext-103-raw")
    path = tmp_path / "wikitext-103-raw" / "wiki.train.raw"
    path.write_text(" \n\n")
    with pytest.raises(DataError, match=r"wiki\.train\.raw: expected WikiText's articles, found no text; get it again"):
        open_source(DataSettings(data_dir=str(tmp_path), embedded=TINY))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_of_the_byte_order_in_babi_is_none_of_its_text(tmp_path, encoding):
    write_babi(tmp_path / "en")
    plain = read_babi_files(find_babi(tmp_path))["train"][1]
    for path in (tmp_path / "en").iterdir():
        path.write_text(path.read_text(), encoding=encoding)
    assert read_babi_files(find_babi(tmp_path))["train"][1] == plain
    path = tmp_path / "en" / "qa1_some-name_train.txt"
    path.write_bytes(path.read_bytes() * 2)  # of two files put together, each has its mark
    assert len(read_babi_text(path, 1)) == 2 * 12 * 3
