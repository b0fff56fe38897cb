"""`rlmop export`: folders written whole or not at all, and questions for lm-evaluation-harness."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from more import commands, export_folder
from more.babi import Question
from more.checkpoints import FINAL_NAME, load_model
from more.evaluation import ask
from more.export_folder import MANIFEST, export_model
from more.export_tasks import write_tasks
from more.export_tokenizer import convert_tokenizer
from pipeline.command.folders import hold_lock
from pipeline.config import ConfigError
from tests.more.exports import build_loaded, wrap
from tests.more_settings import small_trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = small_trainer(folder, model_type="more_b", num_recurrences=2, lr=1e-2, updates=4, seq_length=96)
    for _ in range(4):
        trainer.run_update()
    trainer.save(folder / FINAL_NAME, resumable=False)
    return folder / FINAL_NAME


def run(checkpoint, folder, *others):
    return commands.export(["--checkpoint_path", str(checkpoint), "--output_dir", str(folder), *map(str, others)])


def test_the_command_writes_a_folder_and_says_what_it_is(checkpoint, tmp_path, capsys):
    folder = tmp_path / "exported" / "model"
    assert run(checkpoint, folder) == 0
    assert "parameters, 18 files" in capsys.readouterr().out
    about = json.loads((folder / MANIFEST).read_text())
    assert sorted(os.listdir(folder)) == about["files"] and os.listdir(folder.parent) == ["model"]
    assert about["model"]["model_type"] == "more_b" and about["update"] == 4
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_more.MoreForCausalLM"
    assert (config["variant"], config["num_recurrences"], config["dtype"]) == ("more_b", 2, "float32")
    weights = load_model(checkpoint).training_config
    assert (config["router_aux_loss_coef"], config["router_z_loss_coef"]) == (weights["balance_weight"], 0.001)
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors")
    assert str(tmp_path) not in text and str(checkpoint.parent) not in text
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["more", "mixture-of-experts", "recurrent"],
    }
    total, active = about["parameters"]["total"], about["parameters"]["active"]
    assert f"| parameters | {total:,}, of which a token uses {active:,} |" in card
    assert "generated (seed 0)" in card and "more than 96 tokens" in card


def test_a_folder_is_not_replaced_without_being_asked_to(checkpoint, tmp_path, capsys):
    folder = tmp_path / "model"
    assert run(checkpoint, folder) == 0
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    (folder / "link").symlink_to("nowhere")
    (folder / "config.json").write_text("{}")
    assert run(checkpoint, folder) == 2
    assert "holds an exported model; pass --overwrite" in capsys.readouterr().err
    assert (folder / "config.json").read_text() == "{}"
    assert run(checkpoint, folder, "--overwrite") == 0
    assert json.loads((folder / "config.json").read_text())["variant"] == "more_b"
    assert (folder / "notes" / "mine.txt").read_text() == "mine" and (folder / "link").is_symlink()
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_of_somebody_else_is_never_replaced(checkpoint, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("theirs")
    assert run(checkpoint, tmp_path / "other", "--overwrite") == 2
    assert "holds something else (config.json)" in capsys.readouterr().err
    folder = tmp_path / "model"
    assert run(checkpoint, folder) == 0
    about = json.loads((folder / MANIFEST).read_text())
    about["files"].remove("README.md")  # as an earlier version, which did not write it
    (folder / MANIFEST).write_text(json.dumps(about))
    (folder / "README.md").write_text("theirs")
    assert run(checkpoint, folder, "--overwrite") == 2
    assert "README.md is not this command's" in capsys.readouterr().err
    (folder / MANIFEST).write_text("broken")
    assert run(checkpoint, folder, "--overwrite") == 2
    assert "expected what an earlier export wrote" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == (tmp_path / "other" / "config.json").read_text() == "theirs"
    assert sorted(os.listdir(tmp_path)) == ["model", "other"]


def test_an_export_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    assert run(checkpoint, folder) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_folder, "render_card", fail)
    for target, flags in ((folder, ["--overwrite"]), (tmp_path / "new", [])):
        assert run(checkpoint, target, *flags) == 2
        assert "No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["model"]


def test_an_older_export_is_back_where_the_new_one_cannot_take_its_place(tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    export_model(build_loaded(tokenizer), folder)
    before = (folder / "model.safetensors").read_bytes()
    rename = Path.rename

    def refuse(path, target):
        if path.suffix == ".tmp":
            raise OSError(16, "Device or resource busy", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="busy") as told:
        export_model(build_loaded(tokenizer, seed=1), folder, overwrite=True)
    assert told.value.filename == str(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_has_left_goes_and_what_it_took_away_comes_back(tokenizer, tmp_path):
    folder, digits = tmp_path / "model", "0123456789ab"
    export_model(build_loaded(tokenizer), folder)
    (tmp_path / f".model.{digits}.tmp").mkdir()
    folder.rename(tmp_path / f".model.{digits}.old")
    (tmp_path / ".model.others").mkdir()
    with pytest.raises(ConfigError, match="holds an exported model"):
        export_model(build_loaded(tokenizer), folder)
    assert sorted(os.listdir(tmp_path)) == [".model.others", "model"]
    with hold_lock(tmp_path / ".model.lock", timeout=0), pytest.raises(ConfigError, match="another process is writing"):
        export_model(build_loaded(tokenizer), folder, overwrite=True)


def test_no_path_of_this_machine_is_told(tokenizer, tmp_path):
    loaded = build_loaded(tokenizer)
    names = {"text": "own (/home/me/my texts/a novel.txt, 1,000 characters)", "questions": "bAbI (/data/more)"}
    names["tokenizer"] = "GPT-2's (openai-community/gpt2)"
    export_model(dataclasses.replace(loaded, data={**loaded.data, **names}), tmp_path / "model")
    told = [(tmp_path / "model" / name).read_text() for name in ("README.md", MANIFEST)]
    for text in told:
        assert "own (a novel.txt, 1,000 characters)" in text and "bAbI (more)" in text
        assert "GPT-2's (openai-community/gpt2)" in text and "/home" not in text and "/data" not in text


def test_mistakes_are_told_in_one_line_before_anything_is_written(checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.pth").write_bytes(checkpoint.read_bytes()[:2000])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "more_babi_1.yaml").write_text("")
    target = tmp_path / "model"
    cases = [
        ([tmp_path / "none.pth", target], "none.pth"),
        ([tmp_path / "broken.pth", target], "broken.pth"),
        ([checkpoint, tmp_path / "file"], "output_dir: expected a folder, found the file"),
        ([checkpoint, target, "--num_questions", 5], "pass --lm_eval_task FOLDER too"),
        ([checkpoint, target, "--lm_eval_task", tmp_path / "tasks"], "more_babi_1.yaml is there; pass --overwrite"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert not target.exists()


# --------------------------------------------------------------------------------------------- lm-evaluation-harness


def test_questions_are_written_as_a_task_of_the_harness(checkpoint, tmp_path, capsys):
    tasks = tmp_path / "tasks"
    assert run(checkpoint, tmp_path / "model", "--lm_eval_task", tasks, "--num_questions", 6) == 0
    told = capsys.readouterr().out
    names = sorted(path.stem for path in tasks.glob("*.yaml"))
    assert {"more_babi_1", "more_sums"} <= set(names)
    for name in names:
        task = yaml.safe_load((tasks / f"{name}.yaml").read_text())
        rows = [json.loads(line) for line in (tasks / f"{name}.jsonl").read_text().splitlines()]
        assert f"{name} {len(rows)}" in told and 0 < len(rows) <= 6
        assert task["dataset_kwargs"]["data_files"] == {"test": str(tasks / f"{name}.jsonl")}
        assert {task["doc_to_text"], task["doc_to_choice"], task["doc_to_target"]} == set(rows[0])
        assert all(0 <= row["right"] < len(row["answers"]) for row in rows)


def test_the_likeliest_choice_of_a_task_is_that_of_the_evaluation(tokenizer, tmp_path):
    """As the harness scores: the sum of log p over a choice's tokens, of context and choice encoded together."""
    loaded = build_loaded(tokenizer, "more_c", 2, max_length=48)
    places = ["garden", "went", "Mary"]
    story = "\n".join(["Mary went to the garden."] * 12)  # too long for a window
    questions = [Question(1, story, "Where is Mary?", places[n % 3]) for n in range(3)]
    questions.append(dataclasses.replace(questions[0], context="Mary went."))
    write_tasks(tmp_path, loaded, {"babi_1": questions, "none": [Question(0, "", "1" * 60, "2")]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more_babi_1.jsonl", "more_babi_1.yaml"]
    answers = ask(loaded.model, tokenizer, questions)
    assert answers[0].truncated and not answers[3].truncated
    model, converted = wrap(loaded), convert_tokenizer(tokenizer, 48)
    rows = [json.loads(line) for line in (tmp_path / "more_babi_1.jsonl").read_text().splitlines()]
    for row, answer in zip(rows, answers, strict=True):
        context = converted(row["prompt"])["input_ids"]
        scores = []
        for choice in row["answers"]:
            whole = converted(row["prompt"] + choice, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logits = model(whole[:, :-1]).logits.log_softmax(-1)
            scores.append(float(logits.gather(-1, whole[:, 1:, None])[0, len(context) - 1 :].sum()))
        best = max(range(len(scores)), key=scores.__getitem__)
        assert row["answers"][best] == f" {answer.likeliest}\n"
        assert row["answers"][row["right"]] == f" {answer.question.answer}\n"
        assert scores[row["right"]] == pytest.approx(answer.log_likelihood, abs=1e-4)


def test_a_generated_task_has_no_questions(tmp_path, capsys):
    trainer = small_trainer(
        tmp_path, preset="chains", seq_length=None, tokenizer_size=512, task_length=6, train_depth=2, test_depth=2
    )
    trainer.run_update()
    trainer.save(tmp_path / FINAL_NAME, resumable=False)
    assert run(tmp_path / FINAL_NAME, tmp_path / "model", "--lm_eval_task", tmp_path / "tasks") == 2
    assert "a generated task without text and questions" in capsys.readouterr().err
    assert not (tmp_path / "model").exists() and not (tmp_path / "tasks").exists()
    assert run(tmp_path / FINAL_NAME, tmp_path / "model") == 0
    assert "shift_labels" in (tmp_path / "model" / "README.md").read_text()
