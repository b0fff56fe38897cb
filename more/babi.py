r"""Questions about short stories, and readers of the bAbI tasks in the two forms in which they are found.

    questions = read_babi_text(Path("qa2_two-supporting-facts_test.txt"), task=2)
    questions[0].prompt()                       # "Mary got the milk.\n...Where is the milk?"
    questions[0].continuation("kitchen")        # " kitchen\n"

bAbI: Weston et al., "Towards AI-Complete Question Answering", https://arxiv.org/abs/1502.05698.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.command.errors import DataError

TASKS = (1, 2, 3)


def name_some(names: Sequence[str], most: int = 6) -> str:
    """Return names joined by commas, at most so many and how many there are besides, for one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def decode_text(content: bytes) -> str:
    """Return a file's text: UTF-8, or UTF-16 where it begins with that mark; marks of byte order are left out.

    Files that were put together out of several have one in their middle.

    Raises:
        UnicodeDecodeError: If it is neither.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8").replace("\ufeff", "")


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        task: 1 to 3: the number of facts that the answer rests on; 0 for a sum.
        context: The statements told before it, one a line; empty for a sum.
        question: Its text; of a sum, `12+5=`.
        answer: The true answer.
    """

    task: int
    context: str
    question: str
    answer: str

    def prompt(self) -> str:
        """Return what a model is given."""
        return f"{self.context}\n{self.question}" if self.context else self.question

    def continuation(self, answer: str) -> str:
        """Return the text that says `answer`. Its line break ends it, so that no answer begins another one."""
        return f" {answer}\n" if self.task else f"{answer}\n"


def render_story(questions: Sequence[Question]) -> str:
    """Return the text that is learned from: the statements, then questions about them with their answers.

    Raises:
        ValueError: If the questions do not share their context.
    """
    if len({question.context for question in questions}) != 1:
        raise ValueError(f"expected questions about one story, found {[q.context for q in questions]!r}")
    lines = [f"{q.question}{q.continuation(q.answer)}" for q in questions]
    context = questions[0].context
    return (f"{context}\n" if context else "") + "".join(lines)


_LINE = re.compile(r"(\d+) (.*)")


def read_babi_text(path: Path, task: int) -> list[Question]:
    r"""Return the questions of a file in bAbI's own format, in order.

    A line is `<number> <statement>` or `<number> <question>\t<answer>\t<numbers of its supporting facts>`; number 1
    starts a new story. A question's context is the statements before it, without earlier questions.

    Raises:
        DataError: If a line has neither form or the file has no question.
    """
    questions: list[Question] = []
    facts: list[str] = []
    for number, line in enumerate(_read_lines(path), start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{path}, line {number}: expected `<number> <statement>` as in bAbI, found {line[:60]!r}")
        if match.group(1) == "1":
            facts = []
        text, *rest = match.group(2).split("\t")
        if not rest:
            facts.append(text.strip())
        elif len(rest) == 2 and rest[0].strip():
            questions.append(Question(task, "\n".join(facts), text.strip(), rest[0].strip()))
        else:
            raise DataError(
                f"{path}, line {number}: expected question, answer and supporting facts between tabs, "
                f"found {len(rest) + 1} fields"
            )
    if not questions:
        raise DataError(f"{path}: expected a bAbI file with questions, found none")
    return questions


def read_babi_jsonl(path: Path) -> dict[int, list[Question]]:
    """Return the questions of tasks 1 to 3 of a JSONL file with `passage`, `question`, `answer` and `task`.

    This is the form of the hub's copy (datasets/Muennighoff/babi), one question a line.

    Raises:
        DataError: If a line is no such object, or a task has no question.
    """
    found: dict[int, list[Question]] = {task: [] for task in TASKS}
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            row = json.loads(line)
            task = int(row["task"])
            facts = [fact.strip() for fact in re.split(r"\n|(?<=\.)\s+", row["passage"]) if fact.strip()]
            question = Question(task, "\n".join(facts), row["question"].strip(), row["answer"].strip())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path}, line {number}: expected an object with passage, question, answer and task, found "
                f"{line[:60]!r}"
            ) from None
        if task in found:
            found[task].append(question)
    empty = [task for task, questions in found.items() if not questions]
    if empty:
        raise DataError(f"{path}: expected questions of tasks 1 to 3, found none of task {empty[0]}")
    return found


def _read_lines(path: Path) -> list[str]:
    try:
        text = decode_text(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    return [line for line in text.splitlines() if line.strip()]
