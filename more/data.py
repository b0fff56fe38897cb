"""What is learned from and asked: WikiText and bAbI from the hub or a folder, the embedded default, or one's own text.

    source = open_source(DataSettings(data="auto"), announce=print)
    source.documents("train"); source.questions("test")[2]; source.sums("test")

Each part (text, questions, tokenizer) that is not found is replaced by the embedded one, and one line says so. What a
part is called there and in checkpoints follows from its content, not from where it lies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from more.babi import TASKS, Question, name_some, read_babi_jsonl, read_babi_text, render_story
from more.own_text import own_parts, read_own_text
from more.stories import SPLITS, VERSION, EmbeddedData, EmbeddedSettings, generate
from more.tokens import HUB_NAME, Tokenizer, describe_switched_off, read_tokenizer
from more.wikitext import HUB_FILES, REPOSITORY, check_parquet, find_wikitext, name_wikitext, read_articles
from pipeline.command.errors import DataError
from pipeline.command.hub import HubError, UnavailableError, fetch

BABI_REPOSITORY = "Muennighoff/babi"
BABI_HUB_FILES = {"train": "babi_train.jsonl", "valid": "babi_valid.jsonl", "test": "babi_test.jsonl"}

DataName = Literal["auto", "hub", "embedded"]


@dataclass(frozen=True)
class DataSettings:
    """Where data comes from.

    Attributes:
        data: auto (the folder if one is given, else the hub, else embedded), hub (an error if it does not answer) or
            embedded.
        data_dir: Folder with WikiText, bAbI and a tokenizer, in any depth; null = none.
        data_seed: Of the embedded data, apart from the run's seed: runs of different seeds learn the same text.
        tokenizer_size: Tokens of the tokenizer that is trained where GPT-2's is not found.
        embedded: How much is generated.
        text_file: One's own text, which is then all that is learned from; null = none.
    """

    data: DataName = "auto"
    data_dir: str | None = None
    data_seed: int = 0
    tokenizer_size: int = 512
    embedded: EmbeddedSettings = dataclasses.field(default_factory=EmbeddedSettings)
    text_file: str | None = None


@dataclass(eq=False)
class Source:
    """The data of one run.

    Attributes:
        settings: As resolved.
        text_files: Files of WikiText by split; None for embedded text.
        babi_files: Files of bAbI by split and task (JSONL: one file under all tasks); None for embedded questions.
        tokenizer: One of GPT-2's kind, or None where one is to be trained.
        origins: What text, questions and tokenizer are and where they come from, in words.
        notes: What was chosen of several and why, what was passed over, and what is missing.
    """

    settings: DataSettings
    text_files: Mapping[str, list[Path]] | None
    babi_files: Mapping[str, Mapping[int, Path]] | None
    tokenizer: Tokenizer | None
    origins: Mapping[str, str]
    notes: Sequence[str] = ()
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
        if self.settings.text_file is not None:
            yield from self._own[split]
            return
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
        """Return the questions about stories by task; one's own text has none."""
        if self.settings.text_file is not None:
            return {}
        return self._embedded(split).questions[split] if self.babi_files is None else self._babi[split]

    def sums(self, split: str) -> list[Question]:
        """Return the sums; no other split has one of them. One's own text has none."""
        if self.settings.text_file is not None:
            return []
        return self._embedded(split).sums[split]

    @cached_property
    def _own(self) -> dict[str, list[str]]:
        return own_parts(Path(self.settings.text_file))

    @cached_property
    def _babi(self) -> dict[str, dict[int, list[Question]]]:
        return read_babi_files(self.babi_files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what determines the documents: the files' bytes, the generator's version, settings and seed."""
        found = hashlib.sha256()
        if self.settings.text_file is not None:
            found.update(b"own text\n" + Path(self.settings.text_file).read_bytes())
            return found.hexdigest()
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
        settings = dataclasses.asdict(self.settings)
        return {**self.origins, "notes": list(self.notes), "settings": settings, "digest": self.digest}


def settings_from_description(description: Mapping[str, Any]) -> DataSettings:
    """Return the settings in what `Source.describe` returned."""
    settings = dict(description["settings"])
    return DataSettings(**{**settings, "embedded": EmbeddedSettings(**settings["embedded"])})


def open_source(
    settings: DataSettings,
    announce: Callable[[str], object] = print,
    *,
    tokenizer: tuple[Tokenizer, str] | None = None,
) -> Source:
    """Return the data that settings name, and announce in one line what is used.

    Args:
        settings: Which.
        announce: Called with the line.
        tokenizer: A checkpoint's tokenizer and what it is in words: none is looked for.

    Raises:
        DataError: If a folder or the hub is asked for and is not there, a file cannot be read, or it cannot be told
            which of several is meant.
    """
    found: dict[str, Any] = {"text": None, "questions": None, "tokenizer": None}
    origins = {
        "text": f"embedded (seed {settings.data_seed})",
        "questions": f"embedded (seed {settings.data_seed})",
        "tokenizer": f"byte pairs, {settings.tokenizer_size} tokens, trained on the training text",
    }
    notes: list[str] = []
    if settings.text_file is not None:
        return _open_own_text(settings, announce, tokenizer)
    if settings.data_dir is not None:
        folder = Path(settings.data_dir).expanduser()
        if not folder.is_dir():
            raise DataError(f"data_dir: expected a folder, found {settings.data_dir!r}, which is none")
        if settings.data == "embedded":
            raise DataError("data_dir and data: embedded exclude each other; leave one out")
        folder = folder.resolve()
        found = {
            "text": find_wikitext(folder, notes.append),
            "questions": find_babi(folder, notes.append),
            "tokenizer": read_tokenizer(folder, notes.append) if tokenizer is None else tokenizer[0],
        }
        if not any(found.values()):
            raise DataError(
                f"{folder}: expected wiki.train.raw, qa1_..._train.txt or tokenizer.json with their siblings, found "
                f"none of them; docs/more.md shows the folder's form{''.join(f' [{note}]' for note in notes)}"
            )
        origin = {name: str(folder) for name in found}
        settings = dataclasses.replace(settings, data_dir=str(folder))
    elif settings.data != "embedded":
        found, origin = _ask_hub(settings.data == "hub", notes, tokenizer is not None)
    if found["text"] is not None:
        origins["text"] = f"{name_wikitext(found['text'])} ({origin['text']})"
    if found["questions"] is not None:
        origins["questions"] = f"bAbI ({origin['questions']})"
    if tokenizer is not None:
        found["tokenizer"], origins["tokenizer"] = tokenizer
    elif found["tokenizer"] is not None:
        origins["tokenizer"] = f"{found['tokenizer'].name} ({origin['tokenizer']})"
    announce(
        f"data: text {origins['text']}; questions {origins['questions']}; tokenizer {origins['tokenizer']}"
        + (f" [{'; '.join(notes)}]" if notes else "")
    )
    return Source(settings, found["text"], found["questions"], found["tokenizer"], origins, notes)


def _open_own_text(
    settings: DataSettings, announce: Callable[[str], object], tokenizer: tuple[Tokenizer, str] | None
) -> Source:
    """Return one's own text, with the tokenizer that is given, the folder's, or one that is to be trained on it."""
    path = Path(settings.text_file).expanduser().absolute()
    if settings.data != "auto":
        raise DataError(f"text_file and data: {settings.data} exclude each other; leave one out")
    size = len(read_own_text(path))
    notes: list[str] = []
    if tokenizer is None and settings.data_dir is not None:
        folder = Path(settings.data_dir).expanduser()
        if (found := read_tokenizer(folder, notes.append)) is None:
            raise DataError(
                f"data_dir: expected tokenizer.json beside text_file, found none below {settings.data_dir!r}"
            )
        tokenizer = (found, f"{found.name} ({folder.resolve()})")
    trained = f"byte pairs, {settings.tokenizer_size} tokens, trained on the training text"
    origins = {
        "text": f"own ({path}, {size:,} characters)",
        "questions": "none",
        "tokenizer": trained if tokenizer is None else tokenizer[1],
    }
    announce(f"data: text {origins['text']}; tokenizer {origins['tokenizer']}" + "".join(f" [{n}]" for n in notes))
    settings = dataclasses.replace(settings, text_file=str(path))
    return Source(settings, None, None, tokenizer and tokenizer[0], origins, notes)


def _ask_hub(must_answer: bool, notes: list[str], has_tokenizer: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the hub has and where from; add to `notes` why something is missing.

    Raises:
        DataError: If the hub was reached and what it has cannot be used, or if it must answer and does not.
    """
    found: dict[str, Any] = {"text": None, "questions": None, "tokenizer": None}

    def text() -> dict[str, list[Path]]:
        fetch(REPOSITORY, HUB_FILES["test"], kind="dataset")  # the smallest: is it to be had?
        check_parquet(REPOSITORY)  # before the large ones are loaded
        return {split: fetch(REPOSITORY, files, kind="dataset") for split, files in HUB_FILES.items()}

    def questions() -> dict[str, dict[int, Path]]:
        paths = fetch(BABI_REPOSITORY, list(BABI_HUB_FILES.values()), kind="dataset")
        return {split: dict.fromkeys(TASKS, path) for split, path in zip(BABI_HUB_FILES, paths, strict=True)}

    def tokenizer() -> Tokenizer:
        taken = Tokenizer.from_json(fetch(HUB_NAME, ["tokenizer.json"])[0].read_text(encoding="utf-8"))
        describe_switched_off(taken, HUB_NAME, notes.append)
        return taken

    for name, take in (("tokenizer", tokenizer), ("questions", questions), ("text", text)):
        if name == "tokenizer" and has_tokenizer:
            continue
        try:
            found[name] = take()
        except (UnavailableError, DataError) as error:  # going on without it would train another model than asked for
            instead = "" if must_answer else "; --data embedded trains on the generated text instead"
            raise DataError(f"data: the hub was asked for its {name}, and {error}{instead}") from None
        except HubError as error:
            if must_answer:
                raise DataError(f"data: hub was asked for, and {error}") from None
            if str(error) not in notes:
                notes.append(str(error))
    if found["text"] is None and found["tokenizer"] is not None:
        found["tokenizer"] = None
        notes.append("GPT-2's tokenizer is there and not used: it is for WikiText, which is not")
    return found, {"text": REPOSITORY, "questions": BABI_REPOSITORY, "tokenizer": HUB_NAME}


# ---------------------------------------------------------------------------------------------------------------- bAbI

_BABI_FOLDERS = ("en-valid-10k", "en-10k", "en-valid", "en")

Files = dict[str, dict[int, Path]]


def find_babi(folder: Path, say: Callable[[str], object] = lambda _: None) -> Files | None:
    """Return bAbI's files of tasks 1 to 3 below a folder by split, or None unless train and test are there.

    Of several copies the English one with most questions is taken, of equally large ones that with a validation split
    of its own, then the one in a folder called en-valid-10k, en-10k, en-valid or en, in this order.

    Args:
        folder: Looked through in any depth; what it is called itself, and where it lies, does not matter.
        say: Called with a line on what was chosen of several, and on copies in other languages.

    Raises:
        DataError: If a copy cannot be read, or of several that differ none is to be preferred.
    """
    copies: list[tuple[tuple[int, int, int], Path, Files]] = []
    others: list[str] = []
    for first, files in _list_babi(folder):
        place = first.relative_to(folder)
        asked = [q for split in ("train", "valid") for q in _read_split(files[split], (TASKS[0],)).get(TASKS[0], [])]
        if 2 * sum(question.question.startswith("Where is ") for question in asked) < len(asked):
            others.append(f"{place} (its first task does not ask `Where is ...`, as the English one does)")
            continue
        name = first.absolute().parent.name if first.suffix == ".txt" else ""
        order = _BABI_FOLDERS.index(name) if name in _BABI_FOLDERS else len(_BABI_FOLDERS)
        copies.append(((-len(asked), not files["valid"], order), place, files))
    copies.sort(key=lambda copy: copy[0])
    equal = [copy for copy in copies if copy[0] == copies[0][0]]
    if len({_hash_files(files) for _, _, files in equal}) > 1:
        named = name_some([str(place) for _, place, _ in equal])
        raise DataError(
            f"{folder}: expected one copy of bAbI, found {len(equal)} that are equally large and differ: {named}; "
            "leave one of them there"
        )
    others = [f"{place} ({-rank[0]:,} questions of task 1)" for rank, place, _ in copies[1:]] + others
    if others:
        taken = f"{copies[0][1]}, with {-copies[0][0][0]:,} questions of task 1, taken; " if copies else ""
        say(f"questions: {taken}passed over {name_some(others)}")
    return copies[0][2] if copies else None


def _list_babi(folder: Path) -> Iterator[tuple[Path, Files]]:
    """Yield the first file and all files of each complete copy below a folder, in order of their names.

    Raises:
        DataError: If two files are of one task and split.
    """
    for first in sorted(folder.rglob("babi_train.jsonl")):
        paths = {split: first.with_name(name) for split, name in BABI_HUB_FILES.items()}
        if all(path.is_file() for path in paths.values()):
            yield first, {split: dict.fromkeys(TASKS, path) for split, path in paths.items()}
    for place in sorted({path.parent for path in folder.rglob("qa1_*train.txt")}):
        found: Files = {split: {} for split in SPLITS}
        for path in sorted(place.glob("qa*.txt")):
            match = re.fullmatch(r"qa([123])_(?:.*_)?(train|valid|test)\.txt", path.name)
            if match:
                task, split = int(match.group(1)), match.group(2)
                if task in found[split]:
                    raise DataError(
                        f"{path}: expected one file of task {task} for {split}, found {found[split][task].name} too"
                    )
                found[split][task] = path
        if set(found["train"]) == set(found["test"]) == set(TASKS):
            yield found["train"][TASKS[0]], found


def _hash_files(files: Mapping[str, Mapping[int, Path]]) -> str:
    """Return the SHA-256 of all files' bytes."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(path for paths in files.values() for path in paths.values()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read_split(paths: Mapping[int, Path], tasks: Sequence[int] = TASKS) -> dict[int, list[Question]]:
    """Return the questions of one split by task, of those tasks that are there."""
    if paths and all(path.suffix == ".jsonl" for path in paths.values()):
        return read_babi_jsonl(paths[TASKS[0]])
    return {task: read_babi_text(path, task) for task, path in paths.items() if task in tasks}


def read_babi_files(files: Mapping[str, Mapping[int, Path]]) -> dict[str, dict[int, list[Question]]]:
    """Return the questions by split and task; without files of its own, validation is the last tenth of training."""
    found = {split: _read_split(paths) for split, paths in files.items()}
    for task in TASKS:
        if task not in found["valid"]:
            questions = found["train"][task]
            border = len(questions) - max(1, len(questions) // 10)
            # Not within a story: its other questions would be learned.
            while 0 < border < len(questions) and questions[border].context.startswith(questions[border - 1].context):
                border -= 1
            found["train"][task], found["valid"][task] = questions[:border], questions[border:]
    return found
