"""What a language model is worth: perplexity, and accuracy on questions whose answers are known.

    measure_perplexity(model, corpus)                          # token, word and byte level
    ask(model, tokenizer, questions)                           # generated answer and likeliest answer of each
    summarise_answers(answers)                                 # accuracy, interval, chance

Nothing here is random: two evaluations of a model are the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from more.babi import Question
from more.corpus import Corpus
from more.experts import Stopping
from more.generation import batch_log_likelihood, generate, group_by_length
from more.heuristics import guess
from more.model import MoreModel
from more.tokens import Tokenizer
from pipeline.command.errors import DataError
from pipeline.records.intervals import wilson_interval


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text.

    Attributes:
        perplexity: exp of the cross-entropy per token, each token counted once.
        word_perplexity: exp of the cross-entropy per word; words stand between white space.
        bits_per_byte: Cross-entropy in bits per byte of UTF-8.
        loss: Cross-entropy per token, nats.
        tokens: Tokens predicted, ends of texts among them.
        words: Words; an end of text counts as one word and as one byte.
        num_bytes: Bytes.
    """

    perplexity: float
    word_perplexity: float
    bits_per_byte: float
    loss: float
    tokens: int
    words: int
    num_bytes: int


def slide_windows(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return (first input, first target scored) of windows over a document of `length` targets.

    Every target is scored once; but for those of the first window, with at least window - stride inputs before it.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"expected 1 <= stride <= window, found stride {stride}, window {window}")
    found, scored, start = [(0, 0)], min(window, length), 0
    while scored < length:
        start += stride
        found.append((start, scored))
        scored = min(start + window, length)
    return found


@torch.no_grad()
def measure_perplexity(
    model: MoreModel,
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    stride: int | None = None,
    num_recurrences: int | None = None,
    stopping: Stopping | None = None,
    tokens_per_batch: int = 4096,
    max_documents: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Perplexity:
    """Return the perplexity of a corpus; documents are read apart, in windows of the trained length.

    Args:
        model: In evaluation mode.
        corpus: Tokenised documents.
        tokenizer: Of corpus and model.
        stride: Step of the window, tokens; None takes half the trained length.
        num_recurrences: r; None is the config's.
        stopping: Lets tokens stop iterating, and keeps the steps that each has taken; None: all take r.
        tokens_per_batch: Inputs of a batch at most; it changes speed, not results beyond rounding.
        max_documents: The first so many documents only.
        progress: Called with the number of tokens scored since the last call.

    Raises:
        DataError: If the corpus is empty.
    """
    window = model.config.max_length
    stride = max(1, window // 2) if stride is None else stride
    device = model.embedding.weight.device
    lengths = np.diff(corpus.starts)[:max_documents]
    if len(lengths) == 0:
        raise DataError("perplexity: expected at least one document, found none")
    groups: dict[int, list[tuple[int, int]]] = {}  # length of the window -> (first token, targets left out)
    for start, length in zip(corpus.starts.tolist(), lengths.tolist(), strict=False):
        for first, scored in slide_windows(length, window, stride):
            size = min(window, length - first)
            groups.setdefault(size, []).append((start + first, scored - first))
    total, count = 0.0, 0
    for size in sorted(groups):
        rows = max(1, tokens_per_batch // size)
        for index in range(0, len(groups[size]), rows):
            begins, skipped = np.array(groups[size][index : index + rows]).T
            taken = torch.from_numpy(corpus.tokens[begins[:, None] + np.arange(size + 1)].astype(np.int64)).to(device)
            output = model(taken[:, :-1], num_recurrences=num_recurrences, stopping=stopping)
            logits = output.logits.float()
            losses = F.cross_entropy(logits.transpose(1, 2), taken[:, 1:], reduction="none")  # (rows, size)
            counted = torch.from_numpy(np.arange(size) >= skipped[:, None]).to(device)
            total += float(losses[counted].double().sum())
            count += int(counted.sum())
            if progress is not None:
                progress(int(counted.sum()))
    words, num_bytes = count_words_and_bytes(corpus, tokenizer, len(lengths))
    return Perplexity(
        perplexity=math.exp(min(total / count, 700.0)),
        word_perplexity=math.exp(min(total / words, 700.0)),
        bits_per_byte=total / math.log(2) / num_bytes,
        loss=total / count,
        tokens=count,
        words=words,
        num_bytes=num_bytes,
    )


def count_words_and_bytes(corpus: Corpus, tokenizer: Tokenizer, documents: int) -> tuple[int, int]:
    """Return the words and bytes of the first documents; an end of text counts as one of each."""
    words = num_bytes = 0
    for index in range(documents):
        text = tokenizer.decode(corpus.document(index)[1:-1].tolist())
        words += len(text.split()) + 1
        num_bytes += len(text.encode()) + 1
    return words, num_bytes


# ----------------------------------------------------------------------------------------------------------- questions


@dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    Attributes:
        question: Text, context and true answer.
        generated: Its greedy continuation up to the first line break or end of text.
        likeliest: Of the closed set, the answer with the largest likelihood.
        log_likelihood: Of the true answer, nats.
        candidates: Size of the closed set.
        truncated: Whether the beginning of the context was left out because the prompt is longer than a window.
        prompt: Tokens that were read, the first the end-of-text token.
        written: Tokens of `generated`, and of the line break after it if it was written.
        heuristic: The answer of `more.heuristics.guess`, which reads the whole context; None where it has none.
    """

    question: Question
    generated: str
    likeliest: str
    log_likelihood: float
    candidates: int
    truncated: bool
    prompt: tuple[int, ...] = ()
    heuristic: str | None = None
    written: tuple[int, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the generated answer is the true one, letter by letter."""
        return self.generated == self.question.answer

    @property
    def chosen(self) -> bool:
        """Whether the likeliest answer is the true one."""
        return self.likeliest == self.question.answer


def ask(
    model: MoreModel,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    candidates: Sequence[str] | None = None,
    num_recurrences: int | None = None,
    batch_size: int = 64,
    progress: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Return the model's answers in the order of the questions.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        questions: Of one task.
        candidates: The closed set; None takes the answers that occur among the questions.
        num_recurrences: r; None is the config's.
        batch_size: Questions read together; it changes speed, not results beyond rounding.
        progress: Called with the number of questions answered since the last call.

    Raises:
        DataError: If no room is left for a question beside its answer.
    """
    closed = sorted(set(candidates or (q.answer for q in questions)))
    if not questions:
        return []
    continuations = [tokenizer.encode(questions[0].continuation(answer)) for answer in closed]
    room = max(map(len, continuations))
    fitted = [fit_prompt(question, tokenizer, model.config.max_length - room) for question in questions]
    prompts, cut = zip(*fitted, strict=True)
    found: dict[int, Answer] = {}
    for rows in group_by_length(prompts, batch_size):
        batch = [prompts[row] for row in rows]
        written = generate(
            model, batch, max_new_tokens=room, end_token=tokenizer.end_token, num_recurrences=num_recurrences
        )
        scores = batch_log_likelihood(model, batch, [continuations] * len(batch), num_recurrences=num_recurrences)
        for row, tokens, values in zip(rows, written, scores, strict=True):
            question = questions[row]
            text = tokenizer.decode(tokens).split("\n")[0].strip()
            truth = values[closed.index(question.answer)] if question.answer in closed else -math.inf
            best = closed[max(range(len(closed)), key=values.__getitem__)]
            rule = guess(question, closed)
            said, prompt = _first_line(tokens, tokenizer), tuple(prompts[row])
            found[row] = Answer(question, text, best, truth, len(closed), cut[row], prompt, rule, said)
        if progress is not None:
            progress(len(rows))
    return [found[row] for row in range(len(questions))]


def _first_line(tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens up to the first line break, with the one that it is in."""
    pieces = tokenizer.pieces(tokens)
    ends = [index for index, piece in enumerate(pieces) if "\n" in piece]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)


def fit_prompt(question: Question, tokenizer: Tokenizer, room: int) -> tuple[list[int], bool]:
    """Return end-of-text and the prompt's tokens, at most `room`, and whether the oldest statements had to go.

    Raises:
        DataError: If not even the question fits.
    """
    facts = question.context.split("\n") if question.context else []
    for skipped in range(len(facts) + 1):
        shortened = dataclasses.replace(question, context="\n".join(facts[skipped:]))
        tokens = [tokenizer.end_token, *tokenizer.encode(shortened.prompt())]
        if len(tokens) <= room:
            return tokens, skipped > 0
    raise DataError(f"question {question.question!r} has {len(tokens)} tokens; the model's windows leave {room}")


def summarise_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return accuracies in both senses with 95 % Wilson intervals, and what guessing would reach.

    `chance` is 1 / size of the closed set, `majority` the share of its most frequent answer. Of questions about stories
    `heuristic` is what a rule reaches that reads places alone (`more.heuristics`), and `beyond` holds n and the
    accuracies on those questions where the rule is wrong. Empty input gives None.
    """
    n = len(answers)
    if n == 0:
        return {"n": 0, "exact": None, "likelihood": None, "chance": None, "majority": None}
    found: dict[str, Any] = _count_right(answers)
    found["chance"] = 1 / answers[0].candidates
    found["majority"] = Counter(answer.question.answer for answer in answers).most_common(1)[0][1] / n
    found["mean_log_likelihood"] = sum(answer.log_likelihood for answer in answers) / n
    found["truncated"] = sum(answer.truncated for answer in answers)
    if any(answer.heuristic is not None for answer in answers):
        failing = [answer for answer in answers if answer.heuristic != answer.question.answer]
        found["heuristic"] = 1 - len(failing) / n
        found["beyond"] = _count_right(failing) if failing else {"n": 0}
    return found


def _count_right(answers: Sequence[Answer]) -> dict[str, float | int]:
    """Return n, and accuracies in both senses with their intervals."""
    n = len(answers)
    found: dict[str, float | int] = {"n": n}
    for name, hits in (("exact", sum(a.exact for a in answers)), ("likelihood", sum(a.chosen for a in answers))):
        low, high = wilson_interval(hits, n)
        found |= {name: hits / n, f"{name}_low": low, f"{name}_high": high}
    return found


def build_question_sets(questions: dict[int, list[Question]], sums: list[Question]) -> dict[str, list[Question]]:
    """Return all question sets by the name under which they are reported, those that have a question."""
    sets = {**{f"babi_{task}": found for task, found in sorted(questions.items())}, "sums": sums}
    return {name: found for name, found in sets.items() if found}


def find_misfit(questions: Sequence[Question], tokenizer: Tokenizer, window: int) -> str | None:
    """Return why a set of questions cannot be asked within windows of so many tokens; None if it can.

    A question without its context and the longest answer of its set must fit.
    """
    if not questions:
        return None
    room = max(len(tokenizer.encode(questions[0].continuation(answer))) for answer in {q.answer for q in questions})
    longest = max({q.question for q in questions}, key=len)
    needed = 2 + len(tokenizer.encode(longest)) + room  # the beginning, and a line's end
    if needed <= window:
        return None
    return f"a question and its answer take up to {needed} tokens, the trained length is {window}"


def measure_questions(
    model: MoreModel,
    tokenizer: Tokenizer,
    sets: dict[str, list[Question]],
    *,
    num_questions: int | None = None,
    recurrences: Iterable[int | None] = (None,),
    progress: Callable[[int], object] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the summary of each question set for each number of recurrences, `{set: {r: summary}}`.

    A set that does not fit into the trained length is left out.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        sets: From `build_question_sets`.
        num_questions: The first so many of each set; None takes all. The closed set is always that of the whole set.
        recurrences: Numbers of recurrences at test time; None is the trained one.
        progress: Called with the number of questions answered since the last call.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, questions in sets.items():
        if find_misfit(questions, tokenizer, model.config.max_length):
            continue
        closed = [question.answer for question in questions]
        found[name] = {}
        for steps in recurrences:
            answers = ask(
                model,
                tokenizer,
                questions[:num_questions],
                candidates=closed,
                num_recurrences=steps,
                progress=progress,
            )
            found[name][str(steps or model.config.num_recurrences)] = summarise_answers(answers)
    return found
