"""What is learned from and asked: WikiText-103 and bAbI from the hub or a folder, or the embedded default.

    source = open_source(DataSettings(data="auto"), announce=print)
    source.documents("train"); source.questions("test")[2]; source.sums("test")

Each part (text, questions, tokenizer) that is not found is replaced by the embedded one, and one line says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from more.babi import TASKS, DataError, Question, read_babi_jsonl, read_babi_text, render_story
from more.stories import SPLITS, VERSION, EmbeddedData, EmbeddedSettings, generate
from more.tokens import HUB_NAME, Tokenizer, read_tokenizer
from more.wikitext import HUB_FILES, REPOSITORY, check_parquet, find_wikitext, read_articles
from pipeline.command.hub import HubError, fetch

BABI_REPOSITORY = "Muennighoff/babi"
BABI_HUB_FILES = {"train": "babi_train.jsonl", "valid": "babi_valid.jsonl", "test": "babi_test.jsonl"}

DataName = Literal["auto", "hub", "embedded"]


@dataclass(frozen=True)
class DataSettings:
    """Where data comes from.

    Attributes:
        data: auto (the folder if one is given, else the hub, else embedded), hub (an error if it does not answer) or
            embedded.
        data_dir: Folder with WikiText-103, bAbI and a tokenizer, in any depth; null = none.
        data_seed: Of the embedded data, apart from the run's seed: runs of different seeds learn the same text.
        tokenizer_size: Tokens of the tokenizer that is trained where GPT-2's is not found.
        embedded: How much is generated.
    """

    data: DataName = "auto"
    data_dir: str | None = None
    data_seed: int = 0
    tokenizer_size: int = 512
    embedded: EmbeddedSettings = dataclasses.field(default_factory=EmbeddedSettings)


@dataclass(eq=False)
class Source:
    """The data of one run.

    Attributes:
        settings: As resolved.
        text_files: Files of WikiText-103 by split; None for embedded text.
        babi_files: Files of bAbI by split and task (JSONL: one file under all tasks); None for embedded questions.
        tokenizer: GPT-2's, or None where one is to be trained.
        origins: Where text, questions and tokenizer come from, in words.
    """

    settings: DataSettings
    text_files: Mapping[str, list[Path]] | None
    babi_files: Mapping[str, Mapping[int, Path]] | None
    tokenizer: Tokenizer | None
    origins: Mapping[str, str]
    _generated: dict[bool, EmbeddedData] = dataclasses.field(default_factory=dict, init=False)

    def _embedded(self, split: str) -> EmbeddedData:
        """Return the generated data, with the training part only where it is needed: it takes seconds."""
        held_out_only = split != "train" and False not in self._generated
        if held_out_only not in self._generated:
            settings = self.settings
            data = generate(settings.embedded, settings.data_seed, held_out_only=held_out_only)
            self._generated[held_out_only] = data
        return self._generated[held_out_only]

    def documents(self, split: str) -> Iterator[str]:
        """Yield what is learned from (train) or what perplexity is measured on (valid, test), document by document.

        With WikiText, training takes its articles, one document per bAbI question, and sheets of sums; perplexity is
        that of the articles alone.
        """
        if self.text_files is None and self.babi_files is None:
            yield from self._embedded(split).documents[split]
            return
        if self.text_files is not None:
            yield from read_articles(self.text_files[split])
            if split != "train":
                return
        generated = self._embedded(split).documents[split]
        if self.babi_files is None:
            yield from generated
        else:
            yield from (render_story([q]) for task in TASKS for q in self._babi[split][task])
            # The stories of tasks 1 to 3 come first; what follows are sums and sentences.
            yield from generated[sum(map(len, self._embedded(split).questions[split].values())) :]

    def questions(self, split: str) -> dict[int, list[Question]]:
        """Return the questions about stories by task."""
        return self._embedded(split).questions[split] if self.babi_files is None else self._babi[split]

    def sums(self, split: str) -> list[Question]:
        """Return the sums; no other split has one of them."""
        return self._embedded(split).sums[split]

    @cached_property
    def _babi(self) -> dict[str, dict[int, list[Question]]]:
        return read_babi_files(self.babi_files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what determines the documents: the files' bytes, the generator's version, settings and seed."""
        found = hashlib.sha256()
        settings = dataclasses.asdict(self.settings.embedded)
        found.update(json.dumps([VERSION, settings, self.settings.data_seed], sort_keys=True).encode())
        for split in SPLITS:
            files = [*(self.text_files or {}).get(split, []), *(self.babi_files or {}).get(split, {}).values()]
            for path in dict.fromkeys(files):
                with path.open("rb") as handle:
                    found.update(hashlib.file_digest(handle, "sha256").digest())
        return found.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what was used, in plain types, as checkpoints keep it."""
        return {**self.origins, "settings": dataclasses.asdict(self.settings), "digest": self.digest}


def settings_from_description(description: Mapping[str, Any]) -> DataSettings:
    """Return the settings in what `Source.describe` returned."""
    settings = dict(description["settings"])
    return DataSettings(**{**settings, "embedded": EmbeddedSettings(**settings["embedded"])})


def open_source(settings: DataSettings, announce: Callable[[str], object] = print) -> Source:
    """Return the data that settings name, and announce in one line what is used.

    Raises:
        DataError: If a folder or the hub is asked for and is not there, or a file cannot be read.
    """
    found: dict[str, Any] = {"text": None, "questions": None, "tokenizer": None}
    origins = {
        "text": f"embedded (seed {settings.data_seed})",
        "questions": f"embedded (seed {settings.data_seed})",
        "tokenizer": f"byte pairs, {settings.tokenizer_size} tokens, trained on the training text",
    }
    why = ""
    if settings.data_dir is not None:
        folder = Path(settings.data_dir).expanduser()
        if not folder.is_dir():
            raise DataError(f"data_dir: expected a folder, found {settings.data_dir!r}, which is none")
        if settings.data == "embedded":
            raise DataError("data_dir and data: embedded exclude each other; leave one out")
        found = {"text": find_wikitext(folder), "questions": find_babi(folder), "tokenizer": read_tokenizer(folder)}
        if not any(found.values()):
            raise DataError(
                f"{folder}: expected wiki.train.raw, qa1_..._train.txt or tokenizer.json with their siblings, found "
                "none of them; docs/more.md shows the folder's form"
            )
        origin = {name: str(folder.resolve()) for name in found}
        settings = dataclasses.replace(settings, data_dir=str(folder.resolve()))
    elif settings.data != "embedded":
        found, origin, why = _ask_hub(must_answer=settings.data == "hub")
    names = {"text": "WikiText-103", "questions": "bAbI", "tokenizer": "GPT-2's"}
    for name, value in found.items():
        if value is not None:
            origins[name] = f"{names[name]} ({origin[name]})"
    announce(
        f"data: text {origins['text']}; questions {origins['questions']}; tokenizer {origins['tokenizer']}"
        + (f" [{why}]" if why else "")
    )
    return Source(settings, found["text"], found["questions"], found["tokenizer"], origins)


def _ask_hub(must_answer: bool) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return what the hub has, where from, and in words why something is missing."""
    found: dict[str, Any] = {"text": None, "questions": None, "tokenizer": None}
    reasons: list[str] = []

    def text() -> dict[str, list[Path]]:
        check_parquet(REPOSITORY)
        return {split: fetch(REPOSITORY, files, kind="dataset") for split, files in HUB_FILES.items()}

    def questions() -> dict[str, dict[int, Path]]:
        paths = fetch(BABI_REPOSITORY, list(BABI_HUB_FILES.values()), kind="dataset")
        return {split: dict.fromkeys(TASKS, path) for split, path in zip(BABI_HUB_FILES, paths, strict=True)}

    def tokenizer() -> Tokenizer:
        return Tokenizer.from_json(fetch(HUB_NAME, ["tokenizer.json"])[0].read_text(encoding="utf-8"))

    for name, take in (("tokenizer", tokenizer), ("questions", questions), ("text", text)):
        try:
            found[name] = take()
        except (HubError, DataError) as error:
            if must_answer:
                raise DataError(f"data: hub was asked for, and {error}") from None
            if str(error) not in reasons:
                reasons.append(str(error))
    return found, {"text": REPOSITORY, "questions": BABI_REPOSITORY, "tokenizer": HUB_NAME}, "; ".join(reasons)


# ---------------------------------------------------------------------------------------------------------------- bAbI

_BABI_FOLDERS = ("en-valid-10k", "en-10k", "en-valid", "en")


def find_babi(folder: Path) -> dict[str, dict[int, Path]] | None:
    """Return bAbI's files of tasks 1 to 3 below a folder by split, or None unless train and test are there.

    Of several copies the one in en-valid-10k, en-10k, en-valid or en is taken, in this order, else the first by name.
    """
    jsonl = sorted(folder.rglob("babi_train.jsonl"))
    for first in jsonl:
        paths = {split: first.with_name(name) for split, name in BABI_HUB_FILES.items()}
        if all(path.is_file() for path in paths.values()):
            return {split: dict.fromkeys(TASKS, path) for split, path in paths.items()}
    candidates = {path.parent for path in folder.rglob("qa1_*train.txt")}

    def rank(path: Path) -> tuple[int, str]:
        return (_BABI_FOLDERS.index(path.name) if path.name in _BABI_FOLDERS else len(_BABI_FOLDERS), path.as_posix())

    for place in sorted(candidates, key=rank):
        found: dict[str, dict[int, Path]] = {split: {} for split in SPLITS}
        for path in sorted(place.glob("qa*.txt")):
            match = re.fullmatch(r"qa([123])_(?:.*_)?(train|valid|test)\.txt", path.name)
            if match:
                found[match.group(2)][int(match.group(1))] = path
        if set(found["train"]) == set(found["test"]) == set(TASKS):
            return found
    return None


def read_babi_files(files: Mapping[str, Mapping[int, Path]]) -> dict[str, dict[int, list[Question]]]:
    """Return the questions by split and task; without files of its own, validation is the last tenth of training."""
    found: dict[str, dict[int, list[Question]]] = {}
    for split, paths in files.items():
        if paths and all(path.suffix == ".jsonl" for path in paths.values()):
            found[split] = read_babi_jsonl(paths[TASKS[0]])
        else:
            found[split] = {task: read_babi_text(path, task) for task, path in paths.items()}
    for task in TASKS:
        if task not in found["valid"]:
            questions = found["train"][task]
            border = len(questions) - max(1, len(questions) // 10)
            # Not within a story: its other questions would be learned.
            while 0 < border < len(questions) and questions[border].context.startswith(questions[border - 1].context):
                border -= 1
            found["train"][task], found["valid"][task] = questions[:border], questions[border:]
    return found
