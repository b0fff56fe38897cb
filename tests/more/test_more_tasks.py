"""Generated tasks: values and depths read again from the words, splits that share nothing, runs, what is reported."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest
import torch

from more import commands
from more.checkpoints import build_model, load_model, read_checkpoint
from more.config import ModelConfig
from more.initialisation import embed_by_parts
from more.runs import run_training
from more.settings import TrainingConfig
from more.task_data import TaskPlan, TaskSource, Vocabulary, open_tokenizer, reopen_task
from more.task_report import evaluate_task, find_hits, knocked_out, measure_routing
from more.task_tables import summarise_depths
from more.tasks import NOT_ASKED, TASK_NAMES, TaskSettings, _generate_chains, draw_runs, generate_task, split_of
from more.tokens import END_OF_TEXT
from more.training import Trainer
from pipeline.command.errors import DataError
from pipeline.config import ConfigError

every_task = pytest.mark.parametrize("name", TASK_NAMES)
SOME = {
    "own": {},
    "three streams": {"length": 17, "streams": 3, "symbols": 7, "train_depth": 2, "test_depth": 4},
    "one stream": {"length": 9, "streams": 1, "symbols": 4, "train_depth": 2, "test_depth": 8},
}
every_shape = pytest.mark.parametrize("shape", list(SOME))


def settings_of(name: str, shape: str = "own", **changes) -> TaskSettings:
    return TaskSettings.of(name, **{"num_sequences": 300, **SOME[shape], **changes})


def read(words: list[str], name: str, symbols: int) -> list[tuple[int, int] | None]:
    """Return value and depth of each word of a sequence, None where nothing is asked, word by word."""
    found: list[tuple[int, int] | None] = []
    known: dict[str, tuple[int, int]] = {}
    following: dict[int, int] = {}
    for word in words:
        if name == "chains":
            variable, source = word.split("=")
            assert variable not in known
            now = (int(source), 0) if source.isdigit() else (known[source][0], known[source][1] + 1)
            known[variable] = now
        elif match := re.fullmatch(r"(\d+)>(\d+)", word):
            following[int(match[1])] = int(match[2])
            found.append(None)
            continue
        else:
            stream, sign, value = re.fullmatch(r"([a-z]?)([@>=+])(\d*)", word).groups()
            before = known.get(stream)
            if sign in "@=":
                now = int(value), 0
            elif sign == ">":
                now = following[before[0]], before[1] + 1
            else:
                now = (before[0] + int(value)) % symbols, before[1] + 1
            known[stream] = now
        found.append(now)
    return found


# ------------------------------------------------------------------------------------------------------------ sequences


@every_task
@every_shape
@pytest.mark.parametrize("split", ["train", "test"])
def test_values_and_depths_are_those_that_the_words_say(name, shape, split):
    settings = settings_of(name, shape)
    words = settings.words()
    found = generate_task(settings, split, 3, limit=200)
    assert len(found) == 200
    assert len(words) == len(set(words))
    deepest = settings.test_depth if split == "test" else settings.train_depth
    for row in range(200):
        expected = read([words[token] for token in found.inputs[row]], name, settings.symbols)
        values = [words[target] if target != NOT_ASKED else None for target in found.targets[row]]
        assert values == [None if now is None else str(now[0]) for now in expected]
        assert found.depths[row].tolist() == [-1 if now is None else now[1] for now in expected]
    assert (found.depths.max(axis=1) == deepest).all()


@every_task
def test_splits_share_no_sequence_and_a_seed_fixes_them(name):
    settings = settings_of(name, num_sequences=3000)
    sets = {split: generate_task(settings, split, 0) for split in ("train", "valid", "test")}
    rows = {split: {row.tobytes() for row in found.inputs} for split, found in sets.items()}
    assert not rows["train"] & rows["valid"] | rows["train"] & rows["test"] | rows["valid"] & rows["test"]
    assert len(rows["train"]) > 2950  # hardly one comes twice
    for split, found in sets.items():
        assert set(split_of(found.inputs)) == {split}
        again = generate_task(settings, split, 0, limit=50)
        assert np.array_equal(again.inputs, found.inputs[:50])
        assert np.array_equal(again.targets, found.targets[:50])
    assert not np.array_equal(generate_task(settings, "test", 1, limit=50).inputs, sets["test"].inputs[:50])
    assert settings.digest(0) != settings.digest(1)
    assert settings.digest(0) != dataclasses.replace(settings, num_sequences=2999).digest(0)


def test_no_rule_without_steps_answers_what_is_deep():
    """While the deep run had most of the tokens, what all links lead to was right in 1.0 of the deepest answers."""
    settings = TaskSettings.of("chains", length=24, streams=3, train_depth=4, test_depth=7)
    found = generate_task(settings, "test", 0)
    assert (found.depths[:, :3] == 0).all()  # all begin at the front, so that age says little
    for rule in ("oldest literal", "latest literal", "a literal at random", "one link, else a literal at random"):
        for depth in range(2, 8):
            assert found.heuristics[rule][found.depths == depth].mean() == pytest.approx(1 / 3, abs=0.09), rule
    assert (found.heuristics["one link, else a literal at random"][found.depths == 1] == 1).all()
    runs = draw_runs(settings, 7, 500, np.random.default_rng(0))
    tokens = np.stack([(runs.stream == stream).sum(axis=1) for stream in range(3)])
    assert (tokens == 8).all()
    deepest = np.stack([np.where(runs.stream == stream, runs.depths, 0).max(axis=1) for stream in range(3)])
    assert (deepest == deepest[0]).all()  # no stream is the deep one


@pytest.mark.parametrize(("symbols", "streams"), [(2, 2), (3, 3), (3, 2), (4, 2)])
def test_no_two_streams_of_chains_have_one_literal(symbols, streams):
    settings = TaskSettings.of("chains", symbols=symbols, streams=streams, length=15, train_depth=2, test_depth=2)
    runs = draw_runs(settings, 2, 500, np.random.default_rng(1))
    found = _generate_chains(settings, runs, np.random.default_rng(2))
    literals = np.full((500, streams), -1)
    for place in range(settings.length):
        literals[np.arange(500), runs.stream[:, place]] = found.targets[:, place]
        held = [[literal for literal in row if literal >= 0] for row in literals.tolist()]
        assert all(len(row) == len(set(row)) for row in held), place


@pytest.mark.parametrize(
    ("symbols", "streams", "sequences", "digest"),
    [(3, 2, "c2cc16f058bd2c4d", "d1a8c199f8ba4324"), (4, 3, "8d9208c15933c2ae", "dab94cbf3df23723")],
)
def test_chains_with_more_symbols_than_streams_are_what_they_were(symbols, streams, sequences, digest):
    settings = TaskSettings.of("chains", symbols=symbols, streams=streams, length=16, train_depth=3, test_depth=4)
    settings = dataclasses.replace(settings, num_sequences=200)
    made = hashlib.sha256()
    for split in ("train", "test"):
        found = generate_task(settings, split, 0, limit=200)
        made.update(np.stack([found.inputs, found.targets, found.depths]).tobytes())
    assert (made.hexdigest()[:16], settings.digest(0)[:16]) == (sequences, digest)


@every_task
def test_heuristics_by_hand(name):
    settings = settings_of(name)
    words = settings.words()
    found = generate_task(settings, "test", 0, limit=60)
    for row in range(60):
        named = [words[token] for token in found.inputs[row]]
        expected = read(named, name, settings.symbols)
        literals: list[int] = []
        last: dict[str, list[int]] = {}
        following = dict(map(int, word.split(">")) for word in named if re.fullmatch(r"\d+>\d+", word))
        for place, (word, now) in enumerate(zip(named, expected, strict=True)):
            if now is None:
                continue
            value, depth = now
            if name == "chains":
                literals += [value] if depth == 0 else []
                assert found.heuristics["latest literal"][row, place] == (literals[-1] == value)
                continue
            stream = word[0] if word[0].isalpha() else ""
            digits = int("".join(filter(str.isdigit, word)) or -1)
            last[stream] = [digits] if depth == 0 else [*last[stream], digits]
            if name == "hops":
                assert found.heuristics["where it was put"][row, place] == (last[stream][0] == value)
                one = depth == 0 or following[last[stream][0]] == value
                assert found.heuristics["one hop from there"][row, place] == one
            else:
                assert found.heuristics["the last term"][row, place] == (digits == value)
                two = sum(last[stream][-2:]) % settings.symbols
                assert found.heuristics["the last two"][row, place] == (two == value)


@every_task
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length": 0}, "task_length: expected an integer of at least 1, found 0"),
        (
            {"streams": 3, "length": 11, "symbols": 9, "train_depth": 3},
            "train_depth: expected at most 2, which 11 tokens",
        ),
        ({"symbols": 1}, "task_symbols: expected at least"),
        ({"test_depth": 16}, "test_depth: expected at most"),
        ({"train_depth": True}, "train_depth: expected an integer"),
    ],
)
def test_settings_that_no_sequence_can_have(name, changes, said):
    with pytest.raises(ConfigError, match=said):
        TaskSettings.of(name, **changes)


def test_a_task_without_a_sequence_for_a_split_is_refused():
    """It was searched for without end: of the four sequences of this task none is of validation."""
    settings = TaskSettings.of("modular", length=2, symbols=2, train_depth=1, test_depth=1)
    with pytest.raises(ConfigError, match="none of them for valid; take a longer --task_length"):
        generate_task(settings, "valid", 0)


# ----------------------------------------------------------------------------------------------------- words, batches


@every_task
def test_a_token_of_two_parts_begins_as_their_sum(name):
    """A word each for `x7=x3`, unlike all others, took three times the updates to learn from."""
    vocabulary = TaskSource(settings_of(name), 0).tokenizer
    parts = vocabulary.parts()
    assert ["".join(names) for names in parts] == vocabulary.words
    assert {len(names) for names in parts} == {1, 2}
    model = build_model(ModelConfig(d_model=64, num_layers=1, num_experts=1, vocab_size=vocabulary.vocab_size), 0)
    spread = model.embedding.weight.std().item()
    embed_by_parts(model, parts)
    rows = {names: row for names, row in zip(parts, model.embedding.weight, strict=True)}
    both = [names for names in parts if len(names) == 2]
    one, other = both[0], next(names for names in both if names[0] != both[0][0] and names[1] != both[0][1])
    crossed = rows[(one[0], other[1])] + rows[(other[0], one[1])]
    torch.testing.assert_close(rows[one] + rows[other], crossed)
    if (one[1],) in rows:  # a value named in a token is the value that is asked for
        torch.testing.assert_close((rows[one] - rows[(one[0], other[1])]) * 2**0.5, rows[(one[1],)] - rows[(other[1],)])
    assert model.embedding.weight.std().item() == pytest.approx(spread, rel=0.15)


def test_a_vocabulary_takes_the_place_of_a_tokenizer():
    settings = TaskSettings.of("chains")
    vocabulary = Vocabulary(settings.words())
    text = "x3=2 x7=x3"
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.decode([vocabulary.end_token]) == ""
    assert vocabulary.words[vocabulary.end_token] == END_OF_TEXT
    assert open_tokenizer(vocabulary.json).words == vocabulary.words
    assert open_tokenizer(vocabulary.json).digest == vocabulary.digest
    with pytest.raises(DataError, match=r"'x3=9': expected words of the task's vocabulary, such as x11="):
        vocabulary.encode("x3=2 x3=9")
    for text in ("nothing", "{}"):
        with pytest.raises(DataError):
            open_tokenizer(text)


def test_batches_are_a_partition_of_each_epoch_by_random_access():
    found = generate_task(settings_of("hops", num_sequences=50), "train", 0)
    plan = TaskPlan(found, 16, seed=5)
    assert plan.batches_per_epoch == 4
    epochs = [np.concatenate([plan.batch(number)[0] for number in range(4 * e, 4 * e + 4)]) for e in range(2)]
    for rows in epochs:
        assert sorted(map(bytes, rows)) == sorted(map(bytes, found.inputs))
    assert not np.array_equal(*epochs)
    inputs, targets = TaskPlan(found, 16, seed=5).batch(6)
    assert np.array_equal(inputs, plan.batch(6)[0])
    for row, target in zip(inputs, targets, strict=True):
        assert np.array_equal(target, found.targets[(found.inputs == row).all(axis=1)][0])
    assert not np.array_equal(TaskPlan(found, 16, seed=6).batch(0)[0], plan.batch(0)[0])


def test_a_task_is_had_again_from_what_a_checkpoint_keeps():
    source = TaskSource(settings_of("modular"), 7)
    kept = json.loads(json.dumps(source.describe()))
    again = reopen_task(kept)
    assert (again.settings, again.seed, again.digest) == (source.settings, 7, source.digest)
    with pytest.raises(DataError, match=r"modular \(seed 7\) as another version"):
        reopen_task({**kept, "digest": "0"})


# ---------------------------------------------------------------------------------------------------------------- runs


def config_in(folder, **changes) -> TrainingConfig:
    values = {
        **{"preset": "chains", "model_type": "more_a", "num_recurrences": 2, "d_model": 16, "num_heads": 2},
        **{"num_experts": 2, "match": "none", "updates": 4, "batch_size": 8, "num_sequences": 64, "torch_threads": 1},
        **{"log_interval": 1, "checkpoint_interval": 0, "tensorboard": False},
        **{name: str(folder / name) for name in ("checkpoint_dir", "log_dir", "cache_dir")},
    }
    return TrainingConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    assert run_training(config_in(folder, expert_attention="all"), quiet=True) == 0
    return folder / "checkpoint_dir" / "more_a_rec2" / "final_model.pth"


def test_a_preset_and_its_task_come_to_these_settings():
    resolved = TrainingConfig(preset="chains").resolve()
    assert (resolved.data, resolved.num_layers, resolved.num_experts, resolved.seq_length) == ("chains", 1, 1, 12)
    assert (resolved.train_depth, resolved.test_depth, resolved.task_streams) == (4, 5, 2)
    assert resolved.resolve() == resolved
    other = TrainingConfig(preset="chains", data="hops", train_depth=2).resolve()
    assert (other.data, other.seq_length, other.train_depth) == ("hops", 22, 2)
    assert other.task_settings() == TaskSettings.of("hops", train_depth=2)
    assert TrainingConfig(preset="debug").resolve().task_settings() is None
    for changes, said in (
        ({"preset": "debug", "train_depth": 3}, r"train_depth: expected data chains, hops, modular beside it"),
        ({"preset": "chains", "seq_length": 11}, r"seq_length: expected at least 12"),
        ({"preset": "chains", "data": "chains", "data_dir": "x"}, r"data_dir and data: chains exclude each other"),
        ({"preset": "chains", "train_depth": 12}, r"train_depth: expected at most 5"),
    ):
        with pytest.raises(ConfigError, match=said):
            TrainingConfig(**changes).resolve()


def test_a_run_on_a_task_says_what_it_takes(tmp_path, monkeypatch, capsys):
    """Runs of tests were quiet, and what a run says at its start asked a task for questions that it has not."""
    monkeypatch.chdir(tmp_path)
    flags = ["--preset", "chains", "--model_type", "more_a", "--num_recurrences", "2", "--updates", "2"]
    assert commands.train([*flags, "--data", "hops", "--num_sequences", "64", "--tensorboard", "false"]) == 0
    out = capsys.readouterr().out
    assert "data: hops (seed 0), 64 sequences of 22 tokens" in out
    assert re.search(r"^memory: at least .*\ntime: about \d+ s by a first trial$", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["chains", "hops"])
def test_a_run_on_a_task_stops_and_goes_on_bit_for_bit(name, tmp_path):
    whole, parts = (config_in(tmp_path / kind, data=name) for kind in ("whole", "parts"))
    assert run_training(whole, quiet=True) == 0
    asked = iter([False, False, True, True, True])
    assert run_training(parts, quiet=True, stopping=lambda: next(asked)) > 128
    assert run_training(parts, resume=True, quiet=True) == 0
    one, other = (read_checkpoint(f"{config.checkpoint_dir}/more_a_rec2/final_model.pth") for config in (whole, parts))
    assert all(torch.equal(t, other["model_state_dict"][key]) for key, t in one["model_state_dict"].items())
    asked = 14 if name == "hops" else 12
    assert one["tokens"] == 4 * 8 * asked  # of the 22 tokens of hops 14 ask something


def test_an_older_run_goes_on_as_one_whose_experts_see_their_own(tmp_path):
    """Its settings have no `expert_attention`; the guard took that for another run."""
    config = config_in(tmp_path, expert_attention="same")
    asked = iter([False, False, True, True, True])
    assert run_training(config, quiet=True, stopping=lambda: next(asked)) > 128
    (path,) = (tmp_path / "checkpoint_dir" / "more_a_rec2").iterdir()
    content = torch.load(path, weights_only=True)
    for part in ("training_config", "model_config"):
        assert content[part].pop("expert_attention") == "same"
    from more.checkpoints import save_checkpoint

    kept = {key: value for key, value in content.items() if key not in ("schema_version", "digests")}
    save_checkpoint(path, kept)
    assert load_model(path).model.config.expert_attention == "same"
    assert run_training(config, resume=True, quiet=True) == 0


def test_settings_beside_older_metrics_say_what_they_said(tmp_path):
    """`same` was written for every model type, and a run of base could be resumed by no flag any more."""
    config = config_in(tmp_path, model_type="base", num_recurrences=1)
    asked = iter([False, False, True, True, True])
    assert run_training(config, quiet=True, stopping=lambda: next(asked)) > 128
    (settings,) = tmp_path.glob("log_dir/base_rec1/config.yaml")
    text = settings.read_text()
    assert "expert_attention: all\n" in text
    settings.write_text(text.replace("expert_attention: all\n", "expert_attention: same\n"))
    assert run_training(config, resume=True, quiet=True) == 0


def test_a_run_starts_from_experts_that_see_their_own(tmp_path):
    """It was refused, though no flag said otherwise."""
    config = config_in(tmp_path, expert_attention="same")
    assert run_training(config, quiet=True) == 0
    start = str(tmp_path / "checkpoint_dir" / "more_a_rec2" / "final_model.pth")
    tuned = Trainer(config_in(tmp_path / "tuned", init_from=start, match=None), announce=lambda _: None)
    assert tuned.model_config.expert_attention == "same"
    with pytest.raises(ConfigError, match="expert_attention: 'all' was given"):
        Trainer(config_in(tmp_path, init_from=start, match=None, expert_attention="all"), announce=lambda _: None)


def test_a_model_of_a_task_is_no_start_for_text(trained, tmp_path):
    """Its vocabulary was taken for a tokenizer, which ended in a traceback."""
    start = {"init_from": str(trained), "preset": "debug", "num_sequences": None, "match": None}
    with pytest.raises(
        ConfigError, match=r"init_from: .* knows the words of chains \(seed 0\) alone; expected a model"
    ):
        Trainer(config_in(tmp_path, **start, expert_attention="all"), announce=lambda _: None)


def test_evaluation_says_accuracy_by_depth_and_by_r(trained, capsys):
    flags = ["--checkpoint_path", str(trained), "--recurrences", "1-3", "--num_questions", "40"]
    assert commands.evaluate(flags) == 0
    out = capsys.readouterr().out
    assert "depths above 4 are deeper than any in training" in out
    assert "latest literal" in out
    assert len(set(map(len, [line for line in out.splitlines() if re.match(r"r = |chance|most|depth", line)]))) == 1
    result = json.loads(trained.with_name("evaluation.json").read_text())
    assert list(result["accuracy"]) == ["1", "2", "3"]
    assert list(result["accuracy"]["2"]) == [str(depth) for depth in range(6)]
    loaded = load_model(trained)
    test = generate_task(reopen_task(loaded.data).settings, "test", 0, limit=40)
    with torch.no_grad():
        logits = loaded.model(torch.from_numpy(test.inputs), num_recurrences=3).logits
    right = logits[..., :4].argmax(-1).numpy() == test.targets
    for depth, share in result["accuracy"]["3"].items():
        assert share == pytest.approx(right[test.depths == int(depth)].mean())
        assert result["guessing"]["n"][depth] == (test.depths == int(depth)).sum()
    assert result["guessing"]["chance"]["4"] == pytest.approx(1 / 4)
    counts = np.bincount(test.targets[test.depths == 4])
    assert result["guessing"]["majority"]["4"] == pytest.approx(counts.max() / counts.sum())
    assert result["token_operations"]["3"] > result["token_operations"]["1"]
    mean = np.mean([result["accuracy"]["2"][str(depth)] for depth in range(2, 5)])
    assert result["summary"]["2"]["trained"] == pytest.approx(mean)
    assert read_checkpoint(trained)["model_config"]["expert_attention"] == "all"
    assert commands.evaluate_for_llm(["--checkpoint_path", str(trained)]) == 2
    assert "a generated task without text and questions" in capsys.readouterr().err


def test_summaries_leave_out_what_a_lookup_answers_and_say_none_where_nothing_is():
    by_depth = {"0": 1.0, "1": 1.0, "2": 0.5, "3": 0.7}
    assert summarise_depths(by_depth, 3) == {"trained": pytest.approx(0.6), "longer": None}


@pytest.mark.parametrize("model_type", ["more_a", "looped"])
def test_routing_by_depth_and_what_each_expert_is_worth(model_type):
    settings = settings_of("chains")
    found = generate_task(settings, "test", 0, limit=30)
    sizes = {"d_model": 16, "num_heads": 2, "num_layers": 2, "num_experts": 3, "max_length": 12, "vocab_size": 257}
    model = build_model(ModelConfig(model_type=model_type, num_recurrences=2, **sizes), seed=0).eval()
    hits, experts = find_hits(model, found, 4)
    places = 4 if model_type == "looped" else 2
    assert experts.shape == (30, 12, places)
    routing = measure_routing(model, found, 4, 2, hits, experts)
    assert len(routing["shares"]) == places
    assert len(routing["without"]) == 2
    assert np.sum(routing["shares"][0]["3"]) == pytest.approx(1)
    expected = [(experts[..., 1][found.depths == 2] == expert).mean() for expert in range(3)]
    assert routing["shares"][1]["2"] == pytest.approx(expected)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with knocked_out(model, 1, 2):
        _, without = find_hits(model, found, 4)
        assert set(without[..., 1].flatten()) <= {0, 1}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_base_is_evaluated_once(tmp_path):
    assert run_training(config_in(tmp_path, model_type="base", num_recurrences=1, num_experts=1), quiet=True) == 0
    loaded = load_model(tmp_path / "checkpoint_dir" / "base_rec1" / "final_model.pth")
    from more.options import EvaluationSettings

    settings = EvaluationSettings(recurrences="1-4", num_questions=5)
    result = evaluate_task(loaded, settings, name="", quiet=True)
    assert list(result["accuracy"]) == ["1"]
    assert "routing" not in result


def test_looped_learns_with_a_drawn_number_of_passes(tmp_path):
    """Updates of 1 to 3 passes have routing of 2 to 6 entries, which come to two layers in each line of metrics."""
    config = config_in(tmp_path, model_type="looped", sample_recurrences=True, num_layers=2, updates=6, log_interval=3)
    assert run_training(config, quiet=True) == 0
    lines = (tmp_path / "log_dir" / "looped_rec2" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({line["Recurrences"] for line in found} - {1.0}) >= 1
    for line in found:
        assert {name.partition("/")[0] for name in line if name.startswith("Layer_")} == {"Layer_0", "Layer_1"}
        assert sum(line["Layer_1/Expert_Load_Distribution"]) == pytest.approx(1)
