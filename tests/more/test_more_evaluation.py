"""Evaluation of language models: what perplexity and accuracy mean, and that they repeat."""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from more.babi import Question
from more.checkpoints import build_model, load_model
from more.config import MODEL_TYPES, ModelConfig
from more.corpus import Corpus
from more.data import DataSettings, open_source
from more.evaluation import (
    Answer,
    ask,
    fit_prompt,
    measure_perplexity,
    measure_questions,
    slide_windows,
    summarise_answers,
)
from more.generation import sequence_log_likelihood
from more.heuristics import guess
from more.options import EvaluationSettings, TableSettings, parse_numbers
from more.outlook import describe_start
from more.question_table import COLUMNS, MODEL_COLUMNS, check_outputs, trace_routes, write_table
from more.question_table import run as run_table
from more.report import evaluate_checkpoint, format_report, reopen_source
from more.step_answers import answer_by_steps
from pipeline.command.errors import DataError
from pipeline.config import ConfigError
from pipeline.records.intervals import wilson_interval
from tests.more_settings import CACHE, small_trainer

SMALL = {"vocab_size": 300, "d_model": 16, "num_heads": 2, "num_layers": 1, "num_experts": 2, "max_length": 24}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint after a few updates and the folder it was made in."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = small_trainer(folder, model_type="more_b", num_recurrences=2, lr=1e-2, updates=8)
    for _ in range(8):
        trainer.run_update()
    trainer.save(folder / "model.pth", resumable=False)
    return folder / "model.pth"


def corpus_of(documents: list[list[int]], end: int) -> Corpus:
    tokens = [token for document in documents for token in (end, *document)]
    starts = np.cumsum([0, *(len(document) + 1 for document in documents)])
    return Corpus(np.array([*tokens, end], dtype=np.uint16), starts)


# ----------------------------------------------------------------------------------------------------------- perplexity


def test_windows_by_hand():
    assert slide_windows(5, window=8, stride=4) == [(0, 0)]
    assert slide_windows(8, window=8, stride=4) == [(0, 0)]
    assert slide_windows(14, window=8, stride=4) == [(0, 0), (4, 8), (8, 12)]
    assert slide_windows(16, window=8, stride=8) == [(0, 0), (8, 8)]
    with pytest.raises(ValueError, match="stride 9"):
        slide_windows(5, window=8, stride=9)


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_every_target_is_scored_once_with_enough_context(length, window, data):
    stride = data.draw(st.integers(1, window))
    scored = []
    for start, first in slide_windows(length, window, stride):
        end = min(start + window, length)
        scored += range(first, end)
        assert first >= start
        assert start == 0 or first - start >= window - stride
    assert scored == list(range(length))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_memorised_cycle_has_perplexity_one(tokenizer, model_type):
    """Labels shifted once too often made another program report 9,660 where 1.003 was true."""
    model = build_model(ModelConfig(model_type=model_type, num_recurrences=2, dropout=0.0, **SMALL), seed=0)
    cycle = [5, 9, 7, 11, 30, 2]
    text = torch.tensor(cycle * 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    end = tokenizer.end_token
    batch = torch.stack([torch.cat([torch.tensor([end]), text[:24]]), *(text[k : k + 25] for k in range(6))])
    for _ in range(150):
        loss = F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    # One document, four windows long: only its end cannot be known.
    corpus = corpus_of([cycle * 16], end)
    found = measure_perplexity(model, corpus, tokenizer)
    assert found.tokens == 97
    tokens = torch.from_numpy(corpus.tokens.astype(np.int64))
    with torch.no_grad():
        ends = F.cross_entropy(model(tokens[84:97][None]).logits[0, -1], tokens[97])
    assert math.exp((found.loss * 97 - float(ends)) / 96) == pytest.approx(1, abs=0.05)


def test_an_untrained_model_s_perplexity_by_hand_and_in_every_batch_size(tokenizer):
    model = build_model(ModelConfig(**SMALL), seed=0).eval()
    rng = np.random.default_rng(0)
    end = tokenizer.end_token
    documents = [rng.integers(1, 250, size=n).tolist() for n in (3, 40, 10, 3)]
    corpus = corpus_of(documents, end)
    total = count = 0
    with torch.no_grad():
        for document in documents:
            tokens = torch.tensor([end, *document, end])
            for start, first in slide_windows(len(document) + 1, 24, 12):
                stop = min(start + 24, len(document) + 1)
                logits = model(tokens[start:stop][None]).logits[0]
                total += float(
                    F.cross_entropy(logits, tokens[start + 1 : stop + 1], reduction="none")[first - start :].sum()
                )
                count += stop - first
    for budget in (1, 50, 4096):
        found = measure_perplexity(model, corpus, tokenizer, tokens_per_batch=budget)
        assert found.tokens == count == sum(len(document) + 1 for document in documents)
        assert found.loss == pytest.approx(total / count, rel=1e-5)
    assert measure_perplexity(model, corpus, tokenizer) == measure_perplexity(model, corpus, tokenizer)
    assert measure_perplexity(model, corpus, tokenizer, max_documents=1).tokens == 4
    with pytest.raises(DataError, match="at least one document"):
        measure_perplexity(model, corpus, tokenizer, max_documents=0)


def test_words_and_bytes(tokenizer):
    model = build_model(ModelConfig(**SMALL), seed=0).eval()
    text = "Mary went ä\n"
    corpus = corpus_of([tokenizer.encode(text)], tokenizer.end_token)
    found = measure_perplexity(model, corpus, tokenizer)
    assert (found.words, found.num_bytes) == (3 + 1, 13 + 1)  # and the end of text
    nats = found.loss * found.tokens
    assert found.word_perplexity == pytest.approx(math.exp(nats / 4))
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 14)


# ------------------------------------------------------------------------------------------------------------ questions


def questions_for(count: int) -> list[Question]:
    places = ("garden", "kitchen", "office")
    return [
        Question(1, "\n".join(["Mary went to the garden."] * (k % 3 + 1)), "Where is Mary?", places[k % 3])
        for k in range(count)
    ]


def test_answers_are_those_of_one_by_one_reading(tokenizer):
    model = build_model(ModelConfig(**{**SMALL, "max_length": 80}), seed=3).eval()
    questions = questions_for(7)
    together = ask(model, tokenizer, questions)
    for question, answer in zip(questions, together, strict=True):
        closed = sorted({q.answer for q in questions})
        alone = ask(model, tokenizer, [question], candidates=closed)[0]
        assert (alone.generated, alone.likeliest) == (answer.generated, answer.likeliest)
        prompt = [tokenizer.end_token, *tokenizer.encode(question.prompt())]
        scores = sequence_log_likelihood(model, prompt, [tokenizer.encode(f" {word}\n") for word in closed])
        assert answer.likeliest == closed[int(np.argmax(scores))]
        assert answer.log_likelihood == pytest.approx(scores[closed.index(question.answer)], rel=1e-4)
        assert answer.candidates == 3
    assert ask(model, tokenizer, questions, batch_size=2)[6].question == questions[6]
    assert ask(model, tokenizer, []) == []


def test_long_contexts_lose_their_oldest_statements(tokenizer):
    question = Question(
        1, "\n".join(f"Mary went to the {place}." for place in ("garden", "office")), "Where?", "office"
    )
    whole, cut = fit_prompt(question, tokenizer, 1000)
    assert not cut
    assert tokenizer.decode(whole) == question.prompt()
    shorter, cut = fit_prompt(question, tokenizer, len(whole) - 1)
    assert cut
    assert tokenizer.decode(shorter) == "Mary went to the office.\nWhere?"
    assert shorter[0] == whole[0] == tokenizer.end_token
    with pytest.raises(DataError, match="the model's windows leave 2"):
        fit_prompt(question, tokenizer, 2)


def answer_of(true: str, generated: str, likeliest: str) -> Answer:
    return Answer(Question(2, "", "?", true), generated, likeliest, -1.0, 4, False)


def test_the_summary_by_hand():
    answers = [answer_of("a", "a", "b"), answer_of("a", "a", "a"), answer_of("b", "a b", "b"), answer_of("a", "", "a")]
    found = summarise_answers(answers)
    assert found["n"] == 4
    assert found["exact"] == 0.5
    assert found["likelihood"] == 0.75
    assert (found["likelihood_low"], found["likelihood_high"]) == wilson_interval(3, 4)
    assert found["chance"] == 0.25
    assert found["majority"] == 0.75
    assert summarise_answers([])["exact"] is None


def test_the_closed_set_does_not_shrink_with_the_questions(tokenizer):
    model = build_model(ModelConfig(**{**SMALL, "max_length": 80}), seed=3).eval()
    found = measure_questions(model, tokenizer, {"babi_1": questions_for(6)}, num_questions=1, recurrences=[1])
    assert found["babi_1"]["1"]["chance"] == pytest.approx(1 / 3)
    assert found["babi_1"]["1"]["n"] == 1


# --------------------------------------------------------------------------------------------------------------- report


def test_an_evaluation_twice_is_identical_and_json(trained, capsys):
    settings = EvaluationSettings(recurrences="1,2,4", num_questions=8, max_documents=100_000, cache_dir=CACHE)
    first, second = (evaluate_checkpoint(load_model(trained), settings, name="m", quiet=True) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert list(first["perplexity"]) == ["1", "2", "4"]
    assert list(first["questions"]) == ["babi_1", "babi_2", "babi_3", "sums"]
    assert list(first["questions"]["babi_2"]) == ["1", "2", "4"]
    assert first["perplexity"]["1"] != first["perplexity"]["4"]
    assert first["expert_operations"]["4"] > first["expert_operations"]["1"]
    text = format_report(first)
    assert "bAbI 3 (three facts)" in text
    assert text.count("[") == 2 * 4 * 3 + 2 * 3 * 3  # beside every accuracy, of all questions and beyond the rule
    assert capsys.readouterr().out == ""


def test_the_data_of_a_checkpoint_are_found_again_or_missed(trained, tmp_path):
    loaded = load_model(trained)
    assert reopen_source(loaded, None, quiet=True).digest == loaded.data["digest"]
    changed = dataclasses.replace(loaded, data={**loaded.data, "digest": "other"})
    with pytest.raises(DataError, match="has other content"):
        reopen_source(changed, None, quiet=True)
    with pytest.raises(DataError, match="expected a folder"):
        reopen_source(loaded, str(tmp_path / "none"), quiet=True)


def test_a_stride_beyond_the_trained_length_is_refused(trained):
    for stride in (49, 1000):
        with pytest.raises(ConfigError, match=f"stride: expected at most 48, the trained length, found {stride}"):
            evaluate_checkpoint(load_model(trained), EvaluationSettings(stride=stride), name="m", quiet=True)


def test_lists_of_numbers():
    assert parse_numbers("x", "1,2, 4") == [1, 2, 4]
    assert parse_numbers("x", "0-2,7") == [0, 1, 2, 7]
    assert parse_numbers("x", None) == []
    for text in ("", "a", "1,,2", "1-", "-1"):
        with pytest.raises(ConfigError, match="expected numbers as in 1,2,4"):
            parse_numbers("recurrences", text)
    with pytest.raises(ConfigError, match="at least 1"):
        parse_numbers("recurrences", "0", least=1)
    assert parse_numbers("x", "3-3") == [3]
    for text in ("8-1", "1,8-1"):  # was an empty list, which means the trained number
        with pytest.raises(ConfigError, match="expected a range from low to high as in 0-2, found '8-1'"):
            parse_numbers("recurrences", text)
    assert len(parse_numbers("x", "1-1000")) == 1000
    for text in ("0-1000", "1-999999999", "1-1000,5"):
        with pytest.raises(ConfigError, match="expected at most 1,000 numbers"):
            parse_numbers("recurrences", text)
    with pytest.raises(ConfigError, match="at most 9 digits"):
        parse_numbers("seeds", "9" * 5000)


def test_the_table_for_a_judge(trained, tmp_path):
    loaded = load_model(trained)
    source = reopen_source(loaded, None, quiet=True)
    questions = source.questions("test")[2][:5]
    answers = ask(loaded.model, loaded.tokenizer, questions)
    path = tmp_path / "table.csv"
    write_table(path, answers, loaded, "model.pth", 2)
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == (*COLUMNS, *MODEL_COLUMNS)
    assert list(rows[0])[:5] == ["context", "question", "true_answer", "predicted_answer", "is_correct"]
    for row, question, answer in zip(rows, questions, answers, strict=True):
        assert row["context"] == question.context.replace("\n", " ")
        assert row["is_correct"] == str(answer.generated == question.answer)
    page = tmp_path / "table.html"
    check_outputs(path, page)  # its own table may be replaced
    foreign = tmp_path / "evaluation_results.csv"
    foreign.write_text("checkpoint_path,task_id\n")
    with pytest.raises(ConfigError, match="holds something else"):
        check_outputs(foreign, page)
    page.write_text("<html><title>Something else</title></html>")
    with pytest.raises(ConfigError, match=r"output_html: .*table.html holds something else"):
        check_outputs(path, page)
    with pytest.raises(ConfigError, match="expected two files"):
        check_outputs(tmp_path / "new.html", tmp_path / "." / "new.html")
    for outputs, name in (((tmp_path, page), "output_csv"), ((path, tmp_path), "output_html")):
        with pytest.raises(ConfigError, match=f"{name}: expected a file, found the folder"):
            check_outputs(*outputs)


def test_routes_are_what_the_routers_chose(trained):
    loaded = load_model(trained)
    question = Question(1, "Mary went to the garden.", "Where is Mary?", "garden")
    tokens, _ = fit_prompt(question, loaded.tokenizer, 48)
    (routes,) = trace_routes(loaded, [tokens], 2)
    with torch.no_grad():
        routing = loaded.model(torch.tensor([tokens])).routing
    for layer, routed in enumerate(routing):
        assert routes.choices[:, layer].tolist() == routed.indices[0, :, 0].tolist()
        assert routes.probs[:, layer] == pytest.approx(routed.weights[0].sum(dim=-1).numpy())
    assert "".join(routes.pieces[1:]) == question.prompt()
    shorter = tokens[:5]
    together = trace_routes(loaded, [tokens, shorter, tokens], 2, batch_size=2)
    for found, expected in zip(together, [tokens, shorter, tokens], strict=True):
        (alone,) = trace_routes(loaded, [expected], 2)
        assert found.pieces == alone.pieces
        assert found.choices.tolist() == alone.choices.tolist()
        assert found.probs == pytest.approx(alone.probs, abs=1e-6)


def test_the_diagram_shows_the_prompt_that_was_answered(trained):
    """Where the answer needs room, more of the context goes than where only the prompt has to fit."""
    loaded = load_model(trained)
    room = loaded.model.config.max_length
    question = next(
        question
        for question in reopen_source(loaded, None, quiet=True).questions("test")[3]
        if fit_prompt(question, loaded.tokenizer, room)[0] != fit_prompt(question, loaded.tokenizer, room - 10)[0]
    )
    (answer,) = ask(loaded.model, loaded.tokenizer, [question], candidates=[question.answer, "a very long answer, no?"])
    assert answer.truncated
    assert list(answer.prompt) != fit_prompt(question, loaded.tokenizer, room)[0]
    (routes,) = trace_routes(loaded, [answer.prompt], 2)
    assert "".join(routes.pieces[1:]) == loaded.tokenizer.decode(answer.prompt[1:])


# ----------------------------------------------------------------------------------------------------------- heuristics


def test_the_rules_by_hand():
    closed = {"garden", "kitchen", "office"}
    context = "Mary went to the kitchen.\nMary got the milk.\nMary went to the garden.\nJohn went to the office."
    assert guess(Question(1, context, "Where is Mary?", "garden"), closed) == "office"
    assert guess(Question(2, context, "Where is the milk?", "garden"), closed) == "office"
    assert guess(Question(3, context, "Where was the milk before the garden?", "kitchen"), closed) == "kitchen"
    assert guess(Question(3, context, "Where was the milk before the kitchen?", "garden"), closed) is None
    assert guess(Question(1, "Mary slept.", "Where is Mary?", "garden"), closed) is None
    assert guess(Question(0, "", "1+2=", "3"), {"3"}) is None


def test_the_rules_are_right_in_most_of_the_embedded_questions():
    """The figures that a model is to be compared with; chance is a sixth."""
    questions = open_source(DataSettings(data="embedded"), lambda _: None).questions("test")
    right = {}
    for task, asked in questions.items():
        closed = {question.answer for question in asked}
        right[task] = sum(guess(question, closed) == question.answer for question in asked) / len(asked)
    assert right == pytest.approx({1: 0.583, 2: 0.65, 3: 0.65}, abs=5e-4)


def test_accuracy_is_also_that_where_the_rule_is_wrong():
    rules = [("a", "a"), ("b", "a"), ("b", "b"), (None, "b")]  # rule, truth: wrong in the second and the last
    answers = [
        dataclasses.replace(answer_of(truth, truth, said), heuristic=rule)
        for (rule, truth), said in zip(rules, ("a", "a", "a", "a"), strict=True)
    ]
    found = summarise_answers(answers)
    assert found["heuristic"] == 0.5
    assert (found["beyond"]["n"], found["beyond"]["exact"], found["beyond"]["likelihood"]) == (2, 1.0, 0.5)
    assert (found["beyond"]["likelihood_low"], found["beyond"]["likelihood_high"]) == wilson_interval(1, 2)
    assert "heuristic" not in summarise_answers([answer_of("a", "a", "a")])


def test_the_report_prints_the_rules_and_where_they_fail(trained):
    settings = EvaluationSettings(num_questions=30, max_documents=2, cache_dir=CACHE)
    result = evaluate_checkpoint(load_model(trained), settings, name="m", quiet=True)
    told = format_report(result)
    assert "majority  heuristic\n" in told
    assert "where the heuristic is wrong (bAbI 1: the place mentioned last; bAbI 2: the place mentioned last; " in told
    for name in ("babi_1", "babi_2", "babi_3"):
        found = result["questions"][name]["2"]
        assert found["beyond"]["n"] == round(found["n"] * (1 - found["heuristic"]))


def test_windows_too_short_for_questions_are_told_of_and_the_rest_is_measured(tmp_path):
    """A model that --seq_length 8 had trained was refused whole."""
    trainer = small_trainer(tmp_path, seq_length=8)
    assert any(
        "babi_1: evaluation will leave these questions out, for a question" in line for line in describe_start(trainer)
    )
    trainer.save(tmp_path / "short.pth", resumable=False)
    settings = EvaluationSettings(max_documents=2, num_questions=2, cache_dir=CACHE)
    result = evaluate_checkpoint(load_model(tmp_path / "short.pth"), settings, name="m", quiet=True)
    assert result["perplexity"]["1"]["tokens"] > 10
    assert {"babi_1", "babi_2", "babi_3"} <= result["not_asked"].keys()
    assert "bAbI 1 (one fact): not asked, for a question and its answer take up to" in format_report(result)


def test_a_looped_model_is_asked_over_its_passes(tmp_path):
    trainer = small_trainer(tmp_path, model_type="looped", num_recurrences=3)
    path = tmp_path / "looped.pth"
    trainer.save(path, resumable=False)
    table, page = tmp_path / "answers.csv", tmp_path / "answers.html"
    run_table(TableSettings(babi_task_id=1, num_questions=2), path, table, page, browser=False)
    drawn = page.read_text()
    layers = trainer.model_config.num_layers
    assert f"layer {3 * layers - 1}" in drawn and f"layer {3 * layers}" not in drawn
    assert f"Every pass takes {layers} of the layers shown" in drawn
    assert "recurrent steps each" not in drawn  # an expert of it takes one
    assert re.findall(r"<tr><td>(\d)</td>", drawn) == ["1", "2", "3"] and "<td>0%</td></tr></table>" in drawn
    assert len(table.read_text().splitlines()) == 3


def test_no_table_is_written_where_the_page_cannot_be_made(trained, tmp_path, monkeypatch):
    def fail(*given):
        raise ValueError("no page")

    monkeypatch.setattr("more.question_table.render_page", fail)
    with pytest.raises(ValueError, match="no page"):
        run_table(TableSettings(num_questions=1), trained, tmp_path / "a.csv", tmp_path / "a.html", browser=False)
    assert not (tmp_path / "a.csv").exists()


def test_an_answer_over_the_steps_ends_with_the_answer(trained):
    loaded = load_model(trained)
    questions = reopen_source(loaded, None, quiet=True).questions("test")[1]
    closed = [question.answer for question in questions]
    (answer,) = ask(loaded.model, loaded.tokenizer, questions[:1], candidates=closed, num_recurrences=3)
    rows = answer_by_steps(loaded, answer, closed, 3)
    assert [row.steps for row in rows] == [1, 2, 3]
    last = rows[-1]
    assert (last.generated, last.likeliest, last.moved) == (answer.generated, answer.likeliest, 0.0)
    assert last.log_likelihood == pytest.approx(answer.log_likelihood, abs=1e-5)
    assert rows[0].log_likelihood != last.log_likelihood
    assert all(0 <= row.moved <= 1 for row in rows)
    text = loaded.tokenizer.decode(answer.written)
    assert text.split("\n")[0].strip() == answer.generated and "\n" not in text[:-1]
